//! Who belongs to the group, and how that changes.

use apogee_storage::NodeId;

/// A change of the group's nodes. One at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A node that gets everything and has no vote. How a new node begins, or an asynchronous slave.
    AddLearner {
        node: NodeId,
        address: Vec<u8>,
    },
    /// A learner that is caught up gets a vote.
    Promote {
        node: NodeId,
    },
    Remove {
        node: NodeId,
    },
    /// The learner `new`, caught up, takes the place of `old`.
    Replace {
        old: NodeId,
        new: NodeId,
    },
}

/// Why a change was not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    #[error("this node does not lead the group{}", named(.leader))]
    NotLeader { leader: Option<NodeId> },
    #[error("another change of the group's nodes is not done yet")]
    Busy,
    #[error("leadership is being handed over")]
    HandingOver,
    #[error("node {node} is no member of the group")]
    Unknown { node: NodeId },
    #[error("node {node} is a {role} already")]
    Already { node: NodeId, role: &'static str },
    #[error("node {node} is no learner")]
    NotLearner { node: NodeId },
    #[error("node {node} is {lag_batches} batches behind; {lag_batches_max} are allowed")]
    Behind { node: NodeId, lag_batches: u64, lag_batches_max: u64 },
    #[error("node {node} is not heard of")]
    Away { node: NodeId },
    #[error("node {node} leads the group; transfer leadership first")]
    IsLeader { node: NodeId },
    #[error("node {node} is the last voter")]
    LastVoter { node: NodeId },
    #[error("{found} nodes are more than the {limit} a group can have")]
    TooMany { found: usize, limit: usize },
    #[error("an address of {found} bytes; {limit} are allowed")]
    Address { found: usize, limit: usize },
}

fn named(leader: &Option<NodeId>) -> String {
    leader.map_or_else(String::new, |leader| format!("; node {leader} does"))
}
