//! What a replica says of itself and its group, for people.

use apogee_storage::{BatchIndex, NodeId, Term};

use super::action::Role;

#[derive(Clone, Debug)]
pub struct GroupStatus {
    pub node: NodeId,
    pub role: Role,
    pub leader: Option<NodeId>,
    pub term: Term,
    /// Why this node leads or does not, in words.
    pub why: String,
    pub first_index: BatchIndex,
    pub last_index: BatchIndex,
    pub persisted_index: BatchIndex,
    pub committed_index: BatchIndex,
    pub uncommitted_bytes: u64,
    /// What is left of the lease; 0 without one.
    pub lease_ms: i64,
    pub recovering: bool,
    /// Of this node's disk: "well", or what is wrong.
    pub disk: String,
    /// The node that shall lead this shard.
    pub preferred: Option<NodeId>,
    pub peers: Vec<PeerStatus>,
}

/// A node of the group as this one knows it; what only a leader knows is none elsewhere.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    pub node: NodeId,
    pub address: Vec<u8>,
    /// "voter", "learner", or what it is on the way to.
    pub member: &'static str,
    pub connected: bool,
    pub recovering: bool,
    /// Durable there as the leader knows.
    pub matched_index: Option<BatchIndex>,
    pub committed_index: Option<BatchIndex>,
    pub lag_batches: Option<u64>,
    pub in_flight_bytes: u64,
    /// Since it was heard of last.
    pub heard_ms_ago: Option<i64>,
    /// Why it leads or does not, in words.
    pub why: String,
}
