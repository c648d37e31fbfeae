//! The replica of one shard.

use std::collections::VecDeque;

use apogee_storage::{Buffer, Checkpoint, CommitLog, DiskError, GroupState, NodeId, OpId, Record};

use super::action::{ReplicaAction, Role};
use super::config::ReplicaConfig;
use super::membership::{ChangeRefused, MemberChange};
use super::message::{PeerHello, PeerMessage};
use super::status::GroupStatus;

/// Why a transfer of leadership was not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferRefused {
    #[error("this node does not lead the group")]
    NotLeader { leader: Option<NodeId> },
    #[error("node {node} is no voter of the group")]
    NotVoter { node: NodeId },
    #[error("node {node} is not heard of")]
    Away { node: NodeId },
    #[error("leadership is being handed over to node {to}")]
    Busy { to: NodeId },
}

/// A message that no sound peer sends; its connection is to be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct PeerFault {
    pub what: String,
}

/// The consensus decisions of one shard's group.
///
/// The order of calls, by one owner: any `on_…`, then [`on_log_progress`](Replica::on_log_progress), then
/// [`take_action`](Replica::take_action) and the log's `poll_op` until neither gives anything, then `on_log_progress` again
/// if the log gave an operation.
///
/// When [`wake_at_ms`](Replica::wake_at_ms) has come, first what the sockets hold is handed in, then
/// [`on_tick`](Replica::on_tick) is called once, however late it is: a stalled thread must not take its own lateness for the
/// leader's silence.
pub struct Replica<B> {
    config: ReplicaConfig,
    state: GroupState,
    role: Role,
    actions: VecDeque<ReplicaAction<B>>,
}

impl<B: Buffer + 'static> Replica<B> {
    /// Opens the replica of a log as recovery left it.
    pub fn open<R: Record>(
        config: ReplicaConfig,
        state: GroupState,
        _log: &mut CommitLog<B, R>,
        _now_ms: i64,
    ) -> Replica<B> {
        Replica { config, state, role: Role::Follower { leader: None }, actions: VecDeque::new() }
    }

    /// When [`on_tick`](Replica::on_tick) is due.
    #[must_use]
    pub fn wake_at_ms(&self) -> i64 {
        i64::MAX
    }

    pub fn on_tick<R: Record>(&mut self, _log: &mut CommitLog<B, R>, _now_ms: i64) {}

    /// Takes a message of a peer that is up.
    pub fn on_message<R: Record>(
        &mut self,
        _from: NodeId,
        _message: PeerMessage<B>,
        _log: &mut CommitLog<B, R>,
        _now_ms: i64,
    ) -> Result<(), PeerFault> {
        Ok(())
    }

    /// Both connections to a peer are there. Nothing of earlier ones is delivered from now on.
    pub fn on_peer_up<R: Record>(
        &mut self,
        _hello: PeerHello,
        _log: &mut CommitLog<B, R>,
        _now_ms: i64,
    ) -> Result<(), PeerFault> {
        Ok(())
    }

    pub fn on_peer_down<R: Record>(&mut self, _node: NodeId, _log: &mut CommitLog<B, R>, _now_ms: i64) {}

    /// Takes what the log sealed, wrote and synced. `alloc` as for `poll_op`.
    pub fn on_log_progress<R: Record>(
        &mut self,
        _log: &mut CommitLog<B, R>,
        _now_ms: i64,
        _alloc: &mut dyn FnMut(usize) -> B,
    ) {
    }

    pub fn on_group_state_saved<R: Record>(
        &mut self,
        _id: OpId,
        _result: Result<(), DiskError>,
        _log: &mut CommitLog<B, R>,
        _now_ms: i64,
    ) {
    }

    pub fn on_pages_loaded<R: Record>(&mut self, _log: &mut CommitLog<B, R>, _now_ms: i64) {}

    pub fn on_checkpoint(&mut self, _id: OpId, _result: Result<Box<Checkpoint>, DiskError>, _now_ms: i64) {}

    pub fn on_reset<R: Record>(
        &mut self,
        _id: OpId,
        _result: Result<(), DiskError>,
        _log: &mut CommitLog<B, R>,
        _now_ms: i64,
    ) {
    }

    pub fn take_action(&mut self) -> Option<ReplicaAction<B>> {
        self.actions.pop_front()
    }

    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Nobody else leads before this moment is over: what this leader has is the newest there is. None while it hands over.
    #[must_use]
    pub fn has_lease(&self, _now_ms: i64) -> bool {
        false
    }

    /// Leadership is on its way to another node: what needs a leader is to be held back.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        false
    }

    /// Hands leadership over once what is staged is committed, or soon after.
    pub fn transfer_to<R: Record>(
        &mut self,
        _node: NodeId,
        _log: &mut CommitLog<B, R>,
        _now_ms: i64,
    ) -> Result<(), TransferRefused> {
        Err(TransferRefused::NotLeader { leader: None })
    }

    /// Hands leadership to whichever follower has the most, for an orderly stop.
    pub fn transfer_away<R: Record>(
        &mut self,
        _log: &mut CommitLog<B, R>,
        _now_ms: i64,
    ) -> Result<NodeId, TransferRefused> {
        Err(TransferRefused::NotLeader { leader: None })
    }

    pub fn change_members<R: Record>(
        &mut self,
        _change: MemberChange,
        _log: &mut CommitLog<B, R>,
        _now_ms: i64,
    ) -> Result<(), ChangeRefused> {
        Err(ChangeRefused::NotLeader { leader: None })
    }

    /// The group's state as it is to be, or is, on disk.
    #[must_use]
    pub fn group_state(&self) -> &GroupState {
        &self.state
    }

    #[must_use]
    pub fn status<R: Record>(&self, _log: &CommitLog<B, R>, _now_ms: i64) -> GroupStatus {
        unimplemented_status(&self.config)
    }
}

fn unimplemented_status(config: &ReplicaConfig) -> GroupStatus {
    panic!("node {} has no status yet", config.node)
}
