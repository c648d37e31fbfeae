//! Becoming the master, and ceasing to be it.

use std::mem;

use apogee_storage::{Buffer, GroupState, LogOffset, NodeId};

use super::{Roles, Standing};
use crate::replication::{
    ChangeRefused, GroupStatus, MemberChange, Replica, ReplicaConfig, Role, TransferRefused,
};
use crate::shard::action::Action;
use crate::shard::locks::LockTable;
use crate::shard::pop::Popping;
use crate::shard::state::Shard;
use crate::shard::timers::Timers;
use crate::shard::transactions::Transactions;

/// Why what was under way ends without its outcome being known.
const DEPOSED: &str = "this node no longer leads";

/// Why leadership is not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTransfer {
    #[error("the shard belongs to no group")]
    NoGroup,
    #[error(transparent)]
    Refused(#[from] TransferRefused),
}

/// Why the members of a group are not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoChange {
    #[error("the shard belongs to no group")]
    NoGroup,
    #[error(transparent)]
    Refused(#[from] ChangeRefused),
}

impl<B: Buffer + 'static> Shard<B> {
    /// Takes its place in a group, as a slave until the group says otherwise.
    pub(in crate::shard) fn join_group(
        &mut self,
        config: ReplicaConfig,
        state: GroupState,
        state_at: LogOffset,
        now_ms: i64,
    ) {
        let (shard, lease_ms_max) = (config.shard, config.election_timeout_ms.into());
        let replica = Replica::open(config, state, &mut self.log, now_ms);
        self.roles = Some(Box::new(Roles::new(replica, shard, lease_ms_max, state_at)));
    }

    /// Clients take this shard for the master, and it knows what the log says: what changes something is done here.
    pub(in crate::shard) fn is_master(&self) -> bool {
        self.roles.as_ref().is_none_or(|roles| roles.standing == Standing::Master)
    }

    /// Master, and about to remain it: work that nobody waits for may begin.
    pub(in crate::shard) fn is_working(&self) -> bool {
        let Some(roles) = &self.roles else { return true };
        roles.standing == Standing::Master && !roles.replica.is_handing_over()
    }

    /// Nobody else can have anything newer: what must be newest is said here, and changes are made here.
    pub(in crate::shard) fn leads(&self, now_ms: i64) -> bool {
        let Some(roles) = &self.roles else { return true };
        roles.standing == Standing::Master
            && !roles.replica.is_handing_over()
            && roles.replica.has_lease(now_ms)
    }

    /// Follows the role that the group has given this node.
    pub(super) fn watch_role(&mut self, now_ms: i64) {
        let Some(roles) = &self.roles else { return };
        match (roles.standing, roles.replica.role()) {
            (Standing::Master, Role::Leader { .. }) => self.watch_hand_over(now_ms),
            (Standing::Master, Role::Follower { .. } | Role::Stopped) => self.step_down(now_ms),
            (Standing::Slave, Role::Leader { ready: true })
                if !self.is_rebuilding() && roles.state_at <= self.log.marks().committed =>
            {
                self.become_master(now_ms);
            }
            (Standing::Slave, _) => {}
        }
        let rank = self.rank();
        let roles = self.group_roles();
        let is_removed = roles.replica.is_removed();
        let was_removed = mem::replace(&mut roles.is_removed, is_removed);
        // The term of others' leaderships is told with the next registration.
        if is_removed != was_removed || roles.told.is_none_or(|told| told.broker_id != rank.broker_id) {
            roles.told = Some(rank);
            self.act(Action::RoleChanged(rank));
        }
        if is_removed && !was_removed {
            self.end_pulls(now_ms);
        }
    }

    /// No message comes here any more: whoever waits for one asks again, and is sent to the leader.
    fn end_pulls(&mut self, now_ms: i64) {
        while let Some(pull) = self.parked.poll_deadline(i64::MAX) {
            self.resume_pull(pull, now_ms);
        }
    }

    /// The group goes on without this node.
    pub fn is_removed(&self) -> bool {
        self.roles.as_ref().is_some_and(|roles| roles.is_removed)
    }

    fn become_master(&mut self, now_ms: i64) {
        let roles = self.group_roles();
        roles.standing = Standing::Master;
        roles.was_handing_over = false;
        roles.locks_from_ms = now_ms + roles.lease_ms_max;
        if let Err(error) = self.begin_work(now_ms) {
            panic!("a committed log whose topics and groups leave no room for those of the system: {error}");
        }
    }

    /// Leads no longer. Whoever waits for a batch that is sealed waits on: the group says what becomes of it. All that is
    /// known only here ends.
    fn step_down(&mut self, now_ms: i64) {
        let is_spoiled = self.has_unlogged_changes();
        self.group_roles().standing = Standing::Slave;
        self.timers.stop();
        self.fail_loads(now_ms);
        for then in self.waiters.take_callbacks() {
            self.fail(then, DEPOSED, now_ms);
        }
        for (_, then) in mem::take(&mut self.unlogged) {
            self.fail(then, DEPOSED, now_ms);
        }
        self.end_polls(now_ms);
        self.locks = LockTable::default();
        self.rest_tables(now_ms);
        if is_spoiled || mem::take(&mut self.group_roles().lost_changes) {
            self.spoil_tables();
        }
    }

    /// Whether the tables hold what does not stand in the committed log.
    fn has_unlogged_changes(&self) -> bool {
        !self.unlogged.is_empty()
            || self.waiters.have_changes()
            || self.offsets.has_changes()
            || self.transactions.table.has_checks()
    }

    /// What is begun from the tables, and known only in memory, begins anew.
    pub(in crate::shard) fn rest_tables(&mut self, now_ms: i64) {
        self.timers = Timers::new(mem::take(&mut self.timers.table), &self.topics, now_ms);
        let table = mem::take(&mut self.transactions.table);
        self.transactions = Transactions::new(table, self.settings.transaction_check_interval_ms, now_ms);
        self.pops.rearm();
        self.popping = Popping::default();
    }

    /// Leadership is going to another node: what is known only here is put into the log in front of that. If it stays after
    /// all, the work goes on.
    fn watch_hand_over(&mut self, now_ms: i64) {
        let roles = self.group_roles();
        let is_handing_over = roles.replica.is_handing_over();
        if mem::replace(&mut roles.was_handing_over, is_handing_over) == is_handing_over {
            return;
        }
        if is_handing_over {
            self.timers.stop();
            self.log_all(now_ms);
        } else {
            self.timers.resume();
        }
    }

    /// Hands leadership to a node. Requests that need a leader wait meanwhile, and go to the new one.
    pub fn transfer_to(&mut self, node: NodeId, now_ms: i64) -> Result<(), NoTransfer> {
        self.hand_over(now_ms, |shard| {
            let roles = shard.roles.as_mut().ok_or(NoTransfer::NoGroup)?;
            Ok(roles.replica.transfer_to(node, &mut shard.log, now_ms)?)
        })
    }

    /// Hands leadership to whichever other node has the most, and says to which.
    pub fn transfer_away(&mut self, now_ms: i64) -> Result<NodeId, NoTransfer> {
        self.hand_over(now_ms, |shard| {
            let roles = shard.roles.as_mut().ok_or(NoTransfer::NoGroup)?;
            Ok(roles.replica.transfer_away(&mut shard.log, now_ms)?)
        })
    }

    fn hand_over<T>(
        &mut self,
        now_ms: i64,
        transfer: impl FnOnce(&mut Self) -> Result<T, NoTransfer>,
    ) -> Result<T, NoTransfer> {
        if self.is_working() && self.roles.is_some() {
            // In front of what the replica lets pass yet.
            self.log_all(now_ms);
        }
        let begun = transfer(self);
        if self.roles.is_some() {
            self.watch_role(now_ms);
        }
        begun
    }

    /// For an orderly stop: leadership goes to another node first. True once it is gone, or cannot go.
    pub(in crate::shard) fn leave(&mut self, now_ms: i64) -> bool {
        let Some(roles) = &self.roles else { return true };
        if roles.is_leaving || roles.leaves_anyway {
            return self.has_left();
        }
        let leads = matches!(roles.replica.role(), Role::Leader { .. });
        let roles = self.group_roles();
        roles.is_leaving = true;
        roles.replica.leave();
        if leads {
            match self.transfer_away(now_ms) {
                Ok(to) => tracing::info!(broker = self.config.broker_name, %to, "leadership is handed over"),
                Err(why) => tracing::info!(broker = self.config.broker_name, %why, "leadership stays here"),
            }
        }
        false
    }

    /// The same once more, if leadership came back meanwhile, which it tells.
    pub fn leave_again(&mut self, now_ms: i64) -> bool {
        let Some(roles) = &mut self.roles else { return false };
        let leads = matches!(roles.replica.role(), Role::Leader { .. }) && !roles.replica.is_handing_over();
        if leads {
            roles.is_leaving = false;
            self.leave(now_ms);
        }
        leads
    }

    /// Another node leads, or is about to.
    pub fn has_successor(&self) -> bool {
        let Some(roles) = &self.roles else { return false };
        match roles.replica.role() {
            Role::Leader { .. } => roles.replica.is_handing_over(),
            Role::Follower { leader } => leader.is_some(),
            Role::Stopped => false,
        }
    }

    /// The stop waits no longer for leadership to go, nor for requests that another node is to answer.
    pub fn leave_anyway(&mut self) {
        if let Some(roles) = &mut self.roles {
            roles.leaves_anyway = true;
        }
    }

    /// Leadership is elsewhere, or cannot be handed over, and nobody waits for a leader's answer here.
    pub fn has_left(&self) -> bool {
        let Some(roles) = &self.roles else { return true };
        let is_done = !roles.replica.is_handing_over() && roles.held.is_idle();
        roles.leaves_anyway || roles.is_leaving && is_done
    }

    /// Begins to change who belongs to the group.
    pub fn change_members(&mut self, change: MemberChange, now_ms: i64) -> Result<(), NoChange> {
        let roles = self.roles.as_mut().ok_or(NoChange::NoGroup)?;
        Ok(roles.replica.change_members(change, &mut self.log, now_ms)?)
    }

    /// What this node knows of its group. None outside of one.
    pub fn group_status(&self, now_ms: i64) -> Option<GroupStatus> {
        Some(self.roles.as_ref()?.replica.status(&self.log, now_ms))
    }

    /// Number of this shard, the same on every node of its group.
    pub(in crate::shard) fn number_in_group(&self) -> Option<u32> {
        Some(self.roles.as_ref()?.shard)
    }

    /// How the other nodes reach this one, if it is a member.
    pub(in crate::shard) fn own_member_address(&self) -> Option<&[u8]> {
        let state = self.roles.as_ref()?.replica.group_state();
        let own = state.members.iter().find(|member| member.node == state.node)?;
        Some(&own.address)
    }
}
