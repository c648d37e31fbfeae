//! What a replica wants done, and what it is.

use apogee_storage::{Checkpoint, GroupState, IndexFault, LogStart, Member, NodeId, OpId, Run};

use super::message::PeerMessage;

/// Who this node is in its group just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `ready`: a batch of this leadership is committed, so the log's committed part is the newest there is.
    Leader { ready: bool },
    /// Follower, learner or candidate. `leader` is the one heard of last in this term.
    Follower { leader: Option<NodeId> },
    /// Consensus met a state that cannot be, and decides nothing any more; the log stays as it is.
    Stopped,
}

/// Handed out in order by [`Replica::take_action`](super::Replica::take_action).
#[derive(Debug)]
pub enum ReplicaAction<B> {
    /// Send on the connection that [`PeerMessage::channel`] names, or drop it if there is none.
    Send {
        to: NodeId,
        message: PeerMessage<Run<B>>,
    },
    /// Make durable; answered by [`Replica::on_group_state_saved`](super::Replica::on_group_state_saved). One at a time.
    SaveGroupState {
        id: OpId,
        state: Box<GroupState>,
    },
    RoleChanged(Role),
    /// A follower needs batches whose place is in pages that are not in memory; to be answered by
    /// [`Replica::on_pages_loaded`](super::Replica::on_pages_loaded), also when it fails.
    LoadPages {
        fault: IndexFault,
    },
    /// Read what a replica needs that begins anew; answered by [`Replica::on_checkpoint`](super::Replica::on_checkpoint).
    TakeCheckpoint {
        id: OpId,
        start: LogStart,
    },
    /// Begin the log anew behind a checkpoint, with this state; answered by [`Replica::on_reset`](super::Replica::on_reset)
    /// once the log was [reset](apogee_storage::CommitLog).
    Reset {
        id: OpId,
        state: Box<GroupState>,
        checkpoint: Box<Checkpoint>,
    },
    /// The group's nodes and how they are reached, voters and learners. Connections to others are to be closed.
    MembersChanged(Vec<Member>),
    /// For people: something is wrong that does not pass by itself.
    Alarm(String),
}
