//! What the driver tells a shard of its group, and what the shard wants done for it.

use apogee_storage::format::FORMAT_VERSION;
use apogee_storage::{
    Buffer, CheckpointJob, CommitLog, Completion, DiskError, DiskOp, IndexFault, Member, NodeId, OpId,
    ResetDone, ResetJob,
};

use super::Roles;
use crate::replication::{PeerFault, PeerHello, PeerMessage, Replica, ReplicaAction, Role};
use crate::shard::action::Action;
use crate::shard::record::ShardRecord;
use crate::shard::state::Shard;

impl<B: Buffer + 'static> Shard<B> {
    /// What this node says first to a peer. None outside of a group.
    pub fn peer_hello(&self) -> Option<PeerHello> {
        let roles = self.roles.as_ref()?;
        let state = roles.replica.group_state();
        Some(PeerHello {
            cluster: self.config.cluster.to_string(),
            group: state.group,
            shard: roles.shard,
            node: state.node,
            incarnation: state.incarnation,
            format: FORMAT_VERSION.into(),
            segment_bytes: state.segment_bytes,
            recovering: state.recovering,
            joining: state.conf.voters.is_empty(),
            term: state.term,
            last_index: self.log.persisted_index(),
            committed: self.log.committed_index(),
            client_address: self.config.address.to_string(),
        })
    }

    /// Both connections to a peer are there; nothing of earlier ones is delivered any more.
    pub fn on_peer_up(&mut self, hello: PeerHello, now_ms: i64) {
        self.with_replica(now_ms, |replica, log| replica.on_peer_up(hello, log, now_ms));
    }

    pub fn on_peer_down(&mut self, node: NodeId, now_ms: i64) {
        self.with_replica(now_ms, |replica, log| replica.on_peer_down(node, log, now_ms));
    }

    /// A message of a peer that is up. After a fault its connections are to be closed.
    pub fn on_peer_message(
        &mut self,
        from: NodeId,
        message: PeerMessage<B>,
        now_ms: i64,
    ) -> Result<(), PeerFault> {
        let heard = self.with_replica(now_ms, |replica, log| replica.on_message(from, message, log, now_ms));
        heard.unwrap_or(Ok(()))
    }

    /// Lets the replica hear of something, and follows what it makes of it.
    fn with_replica<T>(
        &mut self,
        now_ms: i64,
        hear: impl FnOnce(&mut Replica<B>, &mut CommitLog<B, ShardRecord>) -> T,
    ) -> Option<T> {
        let roles = self.roles.as_mut()?;
        let heard = hear(&mut roles.replica, &mut self.log);
        self.follow_replica(now_ms);
        Some(heard)
    }

    pub(in crate::shard) fn roles_tick(&mut self, now_ms: i64) {
        let Some(roles) = &mut self.roles else { return };
        if roles.replica.wake_at_ms() <= now_ms {
            roles.replica.on_tick(&mut self.log, now_ms);
        }
        self.recall_forwarded(now_ms);
        self.follow_replica(now_ms);
        self.refuse_late(now_ms);
        self.fail_late_waiters(now_ms);
        self.start_rebuild(now_ms);
        self.look_at_slaves(now_ms);
    }

    pub(in crate::shard) fn roles_wake_at_ms(&self) -> Option<i64> {
        let roles = self.roles.as_ref()?;
        let forward =
            Some(roles.forward_from_ms).filter(|from_ms| !roles.held.is_empty() && *from_ms > i64::MIN);
        let due = [Some(roles.replica.wake_at_ms()), roles.held.next_deadline_ms(), forward];
        // What one turn did not get to.
        let more = roles.has_more_to_move.then_some(0);
        due.into_iter().chain([more]).flatten().min()
    }

    /// Takes the answers that are not the log's.
    pub(in crate::shard) fn on_group_completion(
        &mut self,
        completion: Completion,
        now_ms: i64,
    ) -> Option<Completion> {
        match completion {
            Completion::GroupStateSaved { id, result } => {
                self.with_replica(now_ms, |replica, log| {
                    replica.on_group_state_saved(id, result, log, now_ms);
                });
            }
            Completion::CheckpointTaken { id, result } => {
                self.with_replica(now_ms, |replica, log| replica.on_checkpoint(id, result, log, now_ms));
            }
            Completion::ResetDone { id, result } => self.on_reset_done(id, result, now_ms),
            Completion::Rebuilt { id, result } => self.on_rebuilt(id, result, now_ms),
            of_log => return Some(of_log),
        }
        None
    }

    fn on_reset_done(&mut self, id: OpId, result: Result<Box<ResetDone>, DiskError>, now_ms: i64) {
        let result = result.map(|done| self.begin_anew(*done, now_ms));
        self.with_replica(now_ms, |replica, log| replica.on_reset(id, result, log, now_ms));
    }

    /// What the group wants of the disk; the log is asked behind it.
    pub(in crate::shard) fn poll_group_op(
        &mut self,
        now_ms: i64,
        alloc: &mut dyn FnMut(usize) -> B,
    ) -> Option<DiskOp<B>> {
        let roles = self.roles.as_mut()?;
        roles.replica.on_log_progress(&mut self.log, now_ms, alloc);
        self.follow_replica(now_ms);
        self.roles.as_mut()?.ops.pop_front()
    }

    /// Draws the consequences of what the replica and the log have come to.
    fn follow_replica(&mut self, now_ms: i64) {
        self.settle_appends(now_ms);
        while let Some(action) = self.roles.as_mut().and_then(|roles| roles.replica.take_action()) {
            self.take_replica_action(action, now_ms);
        }
        self.watch_role(now_ms);
        self.move_held(now_ms);
    }

    fn take_replica_action(&mut self, action: ReplicaAction<B>, now_ms: i64) {
        match action {
            ReplicaAction::Send { to, message } => self.act(Action::Peer { to, message }),
            // What has changed is looked at when everything is drawn from the replica.
            ReplicaAction::RoleChanged(_) => {}
            ReplicaAction::MembersChanged(members) => self.act(Action::MembersChanged(members)),
            ReplicaAction::Alarm(text) => self.act(Action::Alarm(text)),
            ReplicaAction::LoadPages { fault } => self.load_for_replica(fault, now_ms),
            ReplicaAction::SaveGroupState { id, state } => {
                self.ask_disk(DiskOp::SaveGroupState { id, state });
            }
            ReplicaAction::TakeCheckpoint { id, start } => {
                let job = CheckpointJob { start, ..self.log.checkpoint_job(id) };
                self.ask_disk(DiskOp::TakeCheckpoint(job));
            }
            ReplicaAction::Reset { id, state, checkpoint } => {
                let job = ResetJob { id, state: *state, checkpoint: *checkpoint };
                self.ask_disk(DiskOp::Reset(Box::new(job)));
            }
        }
    }

    pub(super) fn ask_disk(&mut self, op: DiskOp<B>) {
        self.group_roles().ops.push_back(op);
    }

    fn load_for_replica(&mut self, fault: IndexFault, now_ms: i64) {
        let then = |shard: &mut Self, _, now_ms| {
            shard.with_replica(now_ms, |replica, log| replica.on_pages_loaded(log, now_ms));
        };
        self.load_pages(fault, now_ms, Box::new(then));
    }

    /// For what happens in a group only.
    pub(super) fn group_roles(&mut self) -> &mut Roles<B> {
        self.roles.as_mut().expect("a shard of a group")
    }

    /// The nodes of the group and how they are reached; none outside of a group, or before this node was told.
    pub fn members(&self) -> &[Member] {
        self.roles.as_ref().map_or(&[], |roles| &roles.replica.group_state().members)
    }

    /// The node that leads, as far as it is known here.
    pub fn leader(&self) -> Option<NodeId> {
        let roles = self.roles.as_ref()?;
        match roles.replica.role() {
            Role::Leader { .. } => Some(roles.replica.group_state().node),
            Role::Follower { leader } => leader,
            Role::Stopped => None,
        }
    }
}
