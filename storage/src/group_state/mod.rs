//! What a node of a group must not forget, beside its log: term, vote, members, where the log begins.

use crate::job_error::JobError;
use crate::source::LogSource;
use crate::types::{BatchIndex, GroupId, LogOffset, LogStart, NodeId, Term};

/// Durable before anything that follows from it leaves the node. Kept in two slots written in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    pub group: GroupId,
    pub node: NodeId,
    /// Of the node's data: a node that lost its disk comes back with another one, and is not the voter it was.
    pub incarnation: u64,
    pub term: Term,
    /// Whom this node voted for in `term`.
    pub vote: Option<NodeId>,
    /// Up to here all is committed and durable on this node: a batch up to it that is not whole is damaged, not torn.
    pub commit: BatchIndex,
    pub conf: ConfState,
    /// How members are reached, as the layer above writes it.
    pub members: Vec<Member>,
    /// Where the log began when it was made or last begun anew; retention may have moved its start on.
    pub log_start: LogStart,
    /// Place of the snapshot that came with the log's start. Derived state is valid from there on.
    pub checkpoint_at: LogOffset,
    /// Bytes on the way to the disk at once, at most: how far behind a torn batch a whole one may lie.
    pub write_window_bytes: u64,
    /// Acknowledged data was lost: the node neither votes nor leads until it holds again all that the leader has.
    pub recovering: bool,
    /// Of new segments; equal on all nodes of a group.
    pub segment_bytes: u64,
}

/// Who belongs to the group, Raft's `ConfState`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Of the batch that made it so.
    pub index: BatchIndex,
    pub voters: Vec<NodeId>,
    pub outgoing: Vec<NodeId>,
    pub learners: Vec<NodeId>,
    pub learners_next: Vec<NodeId>,
    pub auto_leave: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    pub address: Vec<u8>,
}

impl GroupState {
    /// The state of a node that has never been in its group.
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
            segment_bytes: 0,
        }
    }
}

/// Reads the state of a node; nothing if none was ever saved.
pub fn read_group_state<S: LogSource + ?Sized>(
    _source: &S,
    _group: GroupId,
    _node: NodeId,
) -> Result<Option<GroupState>, JobError> {
    todo!()
}

/// Makes the state of a node durable. Blocks.
pub fn save_group_state<S: LogSource + ?Sized>(_source: &S, _state: &GroupState) -> Result<(), JobError> {
    todo!()
}
