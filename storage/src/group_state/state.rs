//! The state itself.

use crate::types::{BatchIndex, GroupId, LogOffset, LogStart, NodeId, Term};

/// What a node of a group has promised and knows. Durable before anything that follows from it leaves the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    pub group: GroupId,
    pub node: NodeId,
    /// Of the node's data: a node that lost its disk comes back with another one, and is not the voter it was.
    pub incarnation: u64,
    pub term: Term,
    /// Whom this node voted for in `term`.
    pub vote: Option<NodeId>,
    /// Up to here all was committed, and durable on this node: a batch up to it that is not whole is damaged, not torn.
    pub commit: BatchIndex,
    pub conf: ConfState,
    /// How members are reached, as the layer above writes it.
    pub members: Vec<Member>,
    /// Where the log began when it was made or last begun anew; retention may have moved its start on.
    pub log_start: LogStart,
    /// Place of the snapshot that came with the log's start. Derived state is valid from there on.
    pub checkpoint_at: LogOffset,
    /// Bytes on the way to the disk at once, at most: no whole batch lies further behind a torn one.
    pub write_window_bytes: u64,
    /// Data that may have been acknowledged was lost: the node neither votes nor leads until it holds again all that
    /// the leader has.
    pub recovering: bool,
    /// A person gave up what this node had lost by then: a batch of no later term, behind the end of the log, proves nothing
    /// missing any more.
    pub loss_accepted: Option<Term>,
    /// Of new segments; equal on all nodes of a group, as byte positions are.
    pub segment_bytes: u64,
}

/// Who belongs to the group, Raft's `ConfState`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Of the batch that made it so.
    pub index: BatchIndex,
    pub voters: Vec<NodeId>,
    /// The voters before, while both majorities are needed.
    pub outgoing: Vec<NodeId>,
    pub learners: Vec<NodeId>,
    /// Voters that become learners when the change ends.
    pub learners_next: Vec<NodeId>,
    /// The leader ends the change by itself.
    pub auto_leave: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    pub address: Vec<u8>,
}

impl GroupState {
    /// Nodes in each list of [`ConfState`], and members, at most.
    pub const NODES_MAX: usize = 16;
    /// Of one member's address, at most.
    pub const ADDRESS_BYTES_MAX: usize = 160;

    /// The state of a node that has not been in its group yet.
    #[must_use]
    pub fn new(group: GroupId, node: NodeId) -> GroupState {
        GroupState {
            group,
            node,
            incarnation: 0,
            term: Term(0),
            vote: None,
            commit: BatchIndex(0),
            conf: ConfState::default(),
            members: Vec::new(),
            log_start: LogStart::default(),
            checkpoint_at: LogOffset(0),
            write_window_bytes: 0,
            recovering: false,
            loss_accepted: None,
            segment_bytes: 0,
        }
    }
}
