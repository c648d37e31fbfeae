//! The tables of a shard that does not lead: they follow what the group commits.
//!
//! A master changes a table first and logs the change then, so what it has when it is deposed may never be committed.
//! Its tables are made anew on another thread, as of what was committed at that moment; what is committed meanwhile
//! waits and is added behind. Until then the old tables answer what any replica may answer: what they show too much is
//! gone soon, and nothing of it can be changed here.

use std::any::Any;

use apogee_storage::{
    BatchIndex, Buffer, ControlRun, DerivedState, DiskError, DiskOp, LogOffset, OpId, Rebuilt, ResetDone,
};

use super::Standing;
use crate::shard::control::ControlRecord;
use crate::shard::replay::Replay;
use crate::shard::resets::OffsetReset;
use crate::shard::state::Shard;

/// Control records that wait for the tables, in bytes. Beyond it they are dropped, and the tables are made anew once more.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Pause before tables that could not be made are tried again.
const RETRY_MS: i64 = 1_000;

/// The tables are being made anew.
#[derive(Debug)]
pub(super) struct Rebuild {
    /// As of this batch, the last that was committed then, or one behind it.
    index: BatchIndex,
    /// Asked of the disk. Before, the batch has to be durable here.
    id: Option<OpId>,
    not_before_ms: i64,
    /// Committed since.
    waiting: Vec<(LogOffset, ControlRecord)>,
    waiting_bytes: usize,
    /// More was committed than may wait.
    is_too_late: bool,
}

impl<B: Buffer + 'static> Shard<B> {
    /// Whether the tables are what the log says, as far as it is committed, and the log is past the snapshot that they
    /// came from.
    pub(super) fn has_tables(&self) -> bool {
        let Some(roles) = &self.roles else { return true };
        roles.state_at <= self.log.marks().committed && self.topics.has_system_topics()
    }

    pub(super) fn is_rebuilding(&self) -> bool {
        self.roles.as_ref().is_some_and(|roles| roles.rebuild.is_some())
    }

    /// Applies the control records of a batch that another leader sealed, or this node in an earlier life.
    pub(in crate::shard) fn apply_control(&mut self, control: &[ControlRun<B>], now_ms: i64) {
        for run in control {
            let bytes = run.bytes.as_ref();
            let record = ControlRecord::decode(bytes).unwrap_or_else(|error| {
                // Written by a newer version: to go on without it would show clients what nobody decided.
                panic!("a committed control record at {} cannot be read: {error}", run.log_offset)
            });
            self.apply_change(run.log_offset, record, bytes.len(), now_ms);
        }
    }

    /// Applies a change that this node staged when it led and that its successor committed.
    pub(in crate::shard) fn apply_own_change(&mut self, at: LogOffset, change: ControlRecord, now_ms: i64) {
        let bytes = change.encode().len();
        self.apply_change(at, change, bytes, now_ms);
    }

    fn apply_change(&mut self, at: LogOffset, change: ControlRecord, bytes: usize, now_ms: i64) {
        let roles = self.group_roles();
        if at < roles.state_at {
            return;
        }
        match &mut roles.rebuild {
            Some(rebuild) => rebuild.wait(at, change, bytes),
            None => self.repeat(&change, now_ms),
        }
    }

    /// Repeats a committed change in the tables, as a replay does.
    fn repeat(&mut self, change: &ControlRecord, now_ms: i64) {
        if let Err(error) = self.topics.apply(change) {
            panic!("a committed change does not fit the topics: {error}");
        }
        self.groups.apply(change);
        self.offsets.apply(change);
        self.pops.apply(change);
        self.request_modes.apply(change);
        self.resets.apply(change);
        self.forbidden.apply(change);
        self.settings_changed.apply(change);
        match change {
            ControlRecord::Timer(record) => self.timers.apply(record),
            ControlRecord::Transaction(record) => self.transactions.table.apply(record),
            ControlRecord::TopicPut { .. } => self.timers.locate(&self.topics),
            ControlRecord::TopicDelete { number, .. } => self.stats.meters.on_topic_deleted(*number),
            ControlRecord::BrokerSettings(_) => self.take_settings(),
            // Who waits there asks again, and is sent to the leader.
            ControlRecord::OffsetReset(OffsetReset::Set(reset)) => {
                self.wake_members(&reset.group, &reset.offsets, now_ms);
            }
            _ => {}
        }
    }

    fn take_settings(&mut self) {
        self.settings = self.settings_changed.in_force(&self.config.settings);
        self.enforce_settings();
    }

    /// The tables hold what may never be committed: they are to be made anew, as of what is committed now.
    pub(in crate::shard) fn spoil_tables(&mut self) {
        let index = self.log.committed_index();
        let roles = self.group_roles();
        assert_eq!(roles.standing, Standing::Slave, "a master's tables are what counts");
        if roles.rebuild.is_none() {
            roles.rebuild = Some(Rebuild::new(index));
        }
    }

    /// A change that its table has made is in the log no more.
    pub(in crate::shard) fn on_change_lost(&mut self) {
        if let Some(roles) = &mut self.roles {
            roles.lost_changes = true;
        }
    }

    /// Asks the disk for the tables, once all of what is to be in them is on it.
    pub(super) fn start_rebuild(&mut self, now_ms: i64) {
        let durable = self.log.durable_index();
        let Some(roles) = &mut self.roles else { return };
        let Some(rebuild) = &mut roles.rebuild else { return };
        if rebuild.id.is_some() || durable < rebuild.index || now_ms < rebuild.not_before_ms {
            return;
        }
        roles.next_rebuild += 1;
        let id = OpId(roles.next_rebuild);
        rebuild.id = Some(id);
        roles.ops.push_back(DiskOp::Rebuild(self.log.rebuild_job(id)));
    }

    pub(super) fn on_rebuilt(&mut self, id: OpId, result: Result<Rebuilt, DiskError>, now_ms: i64) {
        let roles = self.group_roles();
        // Of tables that a reset of the log has replaced meanwhile.
        let Some(rebuild) = roles.rebuild.take_if(|rebuild| rebuild.id == Some(id)) else { return };
        let index = self.log.committed_index();
        let roles = self.group_roles();
        let rebuilt = match result {
            Ok(rebuilt) if !rebuild.is_too_late => rebuilt,
            Ok(_) => {
                roles.rebuild = Some(Rebuild::new(index));
                return;
            }
            Err(error) => {
                tracing::warn!(broker = self.config.broker_name, %error, "tables could not be made anew");
                let retried = Rebuild { id: None, not_before_ms: now_ms + RETRY_MS, ..rebuild };
                self.group_roles().rebuild = Some(retried);
                return;
            }
        };
        self.install(rebuilt.at, rebuilt.state, now_ms);
        for (at, change) in rebuild.waiting {
            if at >= rebuilt.at {
                self.repeat(&change, now_ms);
            }
        }
    }

    /// The log begins anew behind a checkpoint, and so do the tables.
    pub(super) fn begin_anew(&mut self, done: ResetDone, now_ms: i64) {
        let at = done.snapshot.unwrap_or(done.state.log_start.base_offset);
        self.log.reset(&done);
        self.group_roles().rebuild = None;
        self.install(at, done.derived, now_ms);
    }

    fn install(&mut self, at: LogOffset, state: Box<dyn DerivedState + Send>, now_ms: i64) {
        let state: Box<dyn Any> = state;
        let replay = *state.downcast::<Replay>().expect("the derived state of a shard");
        let Replay {
            topics,
            groups,
            offsets,
            timers,
            transactions,
            pops,
            request_modes,
            resets,
            forbidden,
            settings,
        } = replay;
        self.topics = topics;
        self.groups = groups;
        self.offsets = offsets;
        self.pops = pops;
        self.request_modes = request_modes;
        self.resets = resets;
        self.forbidden = forbidden;
        self.settings_changed = settings;
        self.timers.table = timers;
        self.transactions.table = transactions;
        self.rest_tables(now_ms);
        self.take_settings();
        self.group_roles().state_at = at;
    }
}

impl Rebuild {
    fn new(index: BatchIndex) -> Self {
        Rebuild {
            index,
            id: None,
            not_before_ms: i64::MIN,
            waiting: Vec::new(),
            waiting_bytes: 0,
            is_too_late: false,
        }
    }

    fn wait(&mut self, at: LogOffset, change: ControlRecord, bytes: usize) {
        self.waiting_bytes += bytes;
        if self.waiting_bytes > WAITING_BYTES_MAX {
            self.is_too_late = true;
            self.waiting = Vec::new();
        }
        if !self.is_too_late {
            self.waiting.push((at, change));
        }
    }
}
