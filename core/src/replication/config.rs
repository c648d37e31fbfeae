//! Settings of one replica.

use apogee_storage::NodeId;

/// Ticks that the shortest election timeout has at least; a lease gives up one of them.
const ELECTION_TICKS_MIN: u32 = 5;

#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    /// This node; not 0.
    pub node: NodeId,
    /// Of the shard: the node that leads it by preference is the voter at this number modulo their count.
    pub shard: u32,
    /// Election timeouts follow from it, the node and the term.
    pub seed: u64,
    /// A follower that hears nothing for this long, or up to twice as long, stands for election.
    pub election_timeout_ms: u32,
    pub heartbeat_ms: u32,
    /// Bytes on their way to one follower, at most, except that one batch is always let through.
    pub window_bytes: u64,
    /// Sealed bytes that are not committed; beyond it nothing more is sealed.
    pub uncommitted_bytes_max: u64,
    /// Whether leadership is handed to the node preferred for this shard.
    pub preferred_leaders: bool,
    /// How long a leader leads before it hands over to the preferred one.
    pub preferred_leaders_wait_ms: u32,
    /// A node whose oldest write or sync takes longer hands over, and does not stand for election.
    pub disk_stall_ms: u32,
}

impl ReplicaConfig {
    /// The defaults, for one node and shard.
    #[must_use]
    pub fn new(node: NodeId, shard: u32) -> ReplicaConfig {
        ReplicaConfig {
            node,
            shard,
            seed: 0,
            election_timeout_ms: 400,
            heartbeat_ms: 80,
            window_bytes: 8 << 20,
            uncommitted_bytes_max: 32 << 20,
            preferred_leaders: true,
            preferred_leaders_wait_ms: 30_000,
            disk_stall_ms: 1000,
        }
    }

    /// The unit in which heartbeats and elections count.
    pub(super) fn tick_ms(&self) -> u32 {
        (self.heartbeat_ms / 2).min(self.election_timeout_ms / ELECTION_TICKS_MIN).max(1)
    }
}
