use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::{ExtWriter, WriteExt};
use apogee_net::io::ConnectionId;
use apogee_net::message::UniqueKeys;
use apogee_net::request::NotifyConsumerIdsChangedRequest;
use apogee_storage::{
    Append, AppendRefused, Buffer, CommitLog, Completion, ConfigError, DiskOp, GroupRecovered, IndexFault,
    LogConfig, LogEvent, Recovered, Retention, Space,
};
use smallvec::SmallVec;

use super::action::{Action, Push};
use super::assignment::{RequestModeTable, RouteCache};
use super::call::Calls;
use super::clients::{ClientTable, Notify};
use super::cold::ColdPages;
use super::commit::{Changes, Then, Waiters};
use super::control::ControlRecord;
use super::forbidden::ForbiddenTable;
use super::groups::{GroupError, GroupTable};
use super::handlers::{self, Answer, Unanswered};
use super::load::Loads;
use super::locks::LockTable;
use super::long_answer::LongAnswers;
use super::offsets::OffsetTable;
use super::parked::ParkedPulls;
use super::pop::{PopTable, Popping};
use super::pull::ParkedPull;
use super::query::Searches;
use super::record::ShardRecord;
use super::refusal::Refusal;
use super::replay::Replay;
use super::resets::ResetTable;
use super::roles::{GroupStart, Roles};
use super::settings::{Settings, SettingsTable};
use super::stages::{Moment, Stages};
use super::stats::{DriftGauge, Stats};
use super::timers::{TimerSettings, Timers};
use super::topics::{TopicError, TopicTable};
use super::transactions::Transactions;
use crate::service::{Reply, ReplyTo, Request};

/// Consumer offsets are logged together, this often: a crash rewinds consumers by no more.
const OFFSETS_LOGGED_EVERY_MS: i64 = 1_000;

/// How often silent clients and expired locks are looked for (`ClientHousekeepingService` scans every 10 s).
const HOUSEKEEPING_EVERY_MS: i64 = 10_000;

/// Groups that forget a deleted topic at each tick.
const SWEPT_GROUPS_PER_TICK: usize = 256;
const HOUR_MS: u64 = 3_600_000;

/// Control records that may wait for room in the log; more changes are refused until it has some.
const UNLOGGED_MAX: usize = 1024;

/// What a shard is told about itself and its node. Fixed while it runs.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    pub cluster: Rc<str>,
    pub broker_name: String,
    /// How many shards the node has, this one among them.
    pub shards: u16,
    /// Where clients reach this shard. Stands in every message it stores.
    pub address: SocketAddr,
    pub message_bytes_max: usize,
    pub timers: TimerSettings,
    /// Whether consumers may filter by expressions over properties (`enablePropertyFilter`).
    pub enable_property_filter: bool,
    /// What the configuration file says and a request can change.
    pub settings: Settings,
    /// All else of the configuration, by RocketMQ's names and ours: only to be shown.
    pub properties: Rc<BTreeMap<String, String>>,
    /// Whether this broker resets a group's offsets itself, or has its clients do it (`useServerSideResetOffset`).
    pub server_side_reset: bool,
}

/// One RocketMQ broker: its topics, groups, clients and log, as decisions only.
///
/// The order of calls, by one driver:
///
/// 1. something happened: [`on_request`](Shard::on_request), [`on_completion`](Shard::on_completion),
///    [`on_connection_closed`](Shard::on_connection_closed), [`on_tick`](Shard::on_tick);
/// 2. drain [`take_action`](Shard::take_action), each to where it says;
/// 3. [`poll_op`](Shard::poll_op), its operation to the disk, and again 2, until both give nothing.
///
/// In front of 1 and 3 [`at`](Shard::at) tells a finer time, by which the stages of sends are measured.
///
/// Generic over the memory that disk writes are made from, the only thing a driver and a simulation do not share.
#[derive(Debug)]
pub struct Shard<B> {
    pub(super) config: ShardConfig,
    pub(super) topics: TopicTable,
    pub(super) groups: GroupTable,
    pub(super) clients: ClientTable,
    pub(super) offsets: OffsetTable,
    pub(super) resets: ResetTable,
    pub(super) forbidden: ForbiddenTable,
    pub(super) locks: LockTable,
    pub(super) timers: Timers,
    pub(super) parked: ParkedPulls<ParkedPull>,
    pub(super) pops: PopTable,
    pub(super) popping: Popping,
    pub(super) request_modes: RequestModeTable,
    pub(super) routes: RouteCache,
    pub(super) log: CommitLog<B, ShardRecord>,
    pub(super) waiters: Waiters<B>,
    pub(super) loads: Loads<B>,
    pub(super) calls: Calls<B>,
    pub(super) long_answers: LongAnswers<B>,
    pub(super) transactions: Transactions,
    pub(super) searches: Searches,
    pub(super) unique_keys: UniqueKeys,
    /// In force: those of the configuration file, and what was changed since.
    pub(super) settings: Settings,
    pub(super) settings_changed: SettingsTable,
    retention_of_file: Retention,
    pub(super) stats: Stats,
    pub(super) stages: Stages,
    /// Where sends that leave the queue to the broker go next.
    pub(super) next_queue: u32,
    /// Changes that are made and not yet staged, since the log was full. Nothing else is staged before them.
    pub(super) unlogged: VecDeque<(ControlRecord, Then<B>)>,
    /// None: a broker without a group of nodes.
    pub(super) roles: Option<Box<Roles<B>>>,
    actions: VecDeque<Action<B>>,
    offsets_logged_at_ms: i64,
    housekeeping_at_ms: i64,
    /// Some clients or locks have yet to be looked at.
    is_housekeeping: bool,
}

impl<B: Buffer + 'static> Shard<B> {
    /// Opens the shard on what recovery found: the log, and the tables that its control records rebuilt.
    pub fn open(
        config: ShardConfig,
        log_config: LogConfig,
        recovered: Recovered,
        replay: Replay,
        now_ms: i64,
    ) -> Result<Self, OpenError> {
        let term = recovered.next_term();
        let log = CommitLog::open(log_config, recovered, term)?;
        let mut shard = Self::open_tables(config, log, replay, now_ms);
        shard.begin_work(now_ms)?;
        Ok(shard)
    }

    /// Opens the shard of a group: a slave, until the group makes it the master. `alloc` as in
    /// [`poll_op`](Shard::poll_op).
    pub fn open_in_group(
        config: ShardConfig,
        log_config: LogConfig,
        group: GroupStart,
        replay: Replay,
        now_ms: i64,
        alloc: impl FnMut(usize) -> B,
    ) -> Result<Self, OpenError> {
        let GroupStart { config: of_group, recovered } = group;
        let GroupRecovered { state, state_at, recovered, .. } = recovered;
        let log = CommitLog::open_group(log_config, recovered, alloc)?;
        let mut shard = Self::open_tables(config, log, replay, now_ms);
        shard.enforce_settings();
        shard.join_group(of_group, state, state_at, now_ms);
        Ok(shard)
    }

    fn open_tables(config: ShardConfig, log: CommitLog<B, ShardRecord>, replay: Replay, now_ms: i64) -> Self {
        let retention_of_file = log.config().retention;
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
            settings: settings_changed,
        } = replay;
        // Two lives of one shard differ in their start, two shards of one process in their port.
        let salt = (now_ms as u32).rotate_left(16) ^ u32::from(config.address.port());
        let settings = settings_changed.in_force(&config.settings);
        Shard {
            transactions: Transactions::new(transactions, settings.transaction_check_interval_ms, now_ms),
            unique_keys: UniqueKeys::new(config.address.ip(), std::process::id(), salt),
            settings,
            settings_changed,
            retention_of_file,
            stats: Stats::new(now_ms),
            stages: Stages::new(),
            config,
            timers: Timers::new(timers, &topics, now_ms),
            topics,
            groups,
            clients: ClientTable::default(),
            offsets,
            resets,
            forbidden,
            locks: LockTable::default(),
            parked: ParkedPulls::default(),
            pops,
            popping: Popping::default(),
            request_modes,
            routes: RouteCache::default(),
            log,
            waiters: Waiters::default(),
            loads: Loads::default(),
            calls: Calls::default(),
            long_answers: LongAnswers::default(),
            searches: Searches::default(),
            next_queue: 0,
            unlogged: VecDeque::new(),
            roles: None,
            actions: VecDeque::new(),
            offsets_logged_at_ms: now_ms,
            housekeeping_at_ms: now_ms,
            is_housekeeping: false,
        }
    }

    /// Begins to do what a master does: what its tables say of delayed messages, transactions and pops goes on from here.
    pub(super) fn begin_work(&mut self, now_ms: i64) -> Result<(), OpenError> {
        let topics = self.topics.ensure_system_topics(now_ms).map_err(OpenError::SystemTopics)?;
        self.rest_tables(now_ms);
        self.enforce_settings();
        self.offsets_logged_at_ms = now_ms;
        let groups = self.groups.ensure_system_groups(now_ms).map_err(OpenError::SystemGroups)?;
        for record in topics.into_iter().chain(groups) {
            self.journal(record, Then::Nothing, now_ms);
        }
        Ok(())
    }

    /// The calls that follow are made at this moment.
    pub fn at(&mut self, moment: Moment) {
        self.stages.at(moment);
    }

    /// The turn is over that began with a call [`at`](Shard::at) `began_ns`.
    pub fn on_turn_end(&mut self, began_ns: u64) {
        self.stages.on_turn(began_ns);
    }

    /// Where the node says how far the machine is from its profile.
    pub fn show_drift(&mut self, gauge: DriftGauge) {
        self.stats.profile_drift = gauge;
    }

    pub fn config(&self) -> &ShardConfig {
        &self.config
    }

    /// Answers a request, now or later through an action; a oneway request never.
    ///
    /// With cold pages nothing was answered yet: the same request is to be asked again, decoded [again](Request::decode_again),
    /// once they were loaded. What it changed already, asking again does not change a second time.
    ///
    /// In a group a request that needs the leader is kept for a moment while there is none, and forwarded while it is
    /// another node.
    pub fn on_request(&mut self, request: &Request<'_>, now_ms: i64) -> Result<(), ColdPages> {
        if !self.answers(request, now_ms) {
            self.hold(request, now_ms);
            return Ok(());
        }
        self.answer_here(request, now_ms)
    }

    pub(super) fn answer_here(&mut self, request: &Request<'_>, now_ms: i64) -> Result<(), ColdPages> {
        let reply = match handlers::dispatch(self, request, now_ms) {
            Ok(Answer::Now(reply)) => reply,
            Ok(Answer::Later) => return Ok(()),
            Err(Unanswered::Refused(refusal)) if refusal.is_for_leader && !self.leads(now_ms) => {
                self.hold(request, now_ms);
                return Ok(());
            }
            Err(Unanswered::Refused(refusal)) => refusal.into(),
            Err(Unanswered::Fault(IndexFault::Cold { segment, range })) => {
                let index = self.log.sealed_index(segment).expect("the fault came from it just now");
                return Err(ColdPages { index: Arc::clone(index), range });
            }
            Err(Unanswered::Fault(fault @ IndexFault::Damaged { segment, .. })) => {
                self.log.on_index_damaged(segment);
                Refusal::index_damaged(&fault).into()
            }
        };
        self.reply(request.reply_to(), reply);
        Ok(())
    }

    pub fn on_connection_closed(&mut self, connection: ConnectionId, now_ms: i64) {
        self.fail_calls_to(connection, now_ms);
        self.long_answers.on_connection_closed(connection);
        drop(self.parked.on_connection_closed(connection));
        self.popping.on_connection_closed(connection);
        self.drop_held_of(connection);
        let notify = self.clients.on_connection_closed(connection);
        self.notify(notify);
    }

    /// What falls due by time alone. To be called at [`wake_at_ms`](Shard::wake_at_ms), and every 100 ms or so.
    pub fn on_tick(&mut self, now_ms: i64) {
        self.roles_tick(now_ms);
        self.log.on_tick();
        self.fail_late_calls(now_ms);
        self.continue_long_answers(now_ms);
        self.offsets.sweep(SWEPT_GROUPS_PER_TICK);
        self.search_tick(now_ms);
        self.stats.on_tick(now_ms);
        while let Some(pull) = self.parked.poll_deadline(now_ms) {
            self.resume_pull(pull, now_ms);
        }
        if self.is_working() {
            self.pop_tick(now_ms);
            if now_ms - self.offsets_logged_at_ms >= OFFSETS_LOGGED_EVERY_MS {
                self.offsets_logged_at_ms = now_ms;
                self.log_offsets(now_ms);
            }
        }
        if now_ms - self.housekeeping_at_ms >= HOUSEKEEPING_EVERY_MS {
            self.housekeeping_at_ms = now_ms;
            self.is_housekeeping = true;
        }
        if self.is_housekeeping {
            let locks_done = self.locks.expire(now_ms);
            let expired = self.clients.expire(now_ms);
            self.is_housekeeping = !(locks_done && expired.is_complete);
            for connection in expired.connections {
                self.actions.push_back(Action::Close { connection, reason: "no heartbeat for 120 s" });
            }
            self.notify(expired.notify);
        }
        if self.is_working() {
            self.advance_timers(now_ms);
            self.transactions_tick(now_ms);
        }
        self.stage_unlogged(now_ms);
    }

    /// When something falls due that does not wait for the next tick.
    pub fn wake_at_ms(&self) -> Option<i64> {
        let long_answers = self.long_answers.has_work().then_some(0);
        let search = self.searches.has_work().then_some(0);
        let due = [self.calls.next_deadline_ms(), long_answers, search, self.roles_wake_at_ms()];
        let work = self
            .is_working()
            .then(|| [self.timers.wake_at_ms(), self.transactions_wake_at_ms(), self.pop_wake_at_ms()]);
        due.into_iter().chain(work.into_iter().flatten()).flatten().min()
    }

    /// The disk has answered.
    pub fn on_completion(&mut self, completion: Completion, now_ms: i64) {
        self.stages.on_completion(&completion);
        if let Some(completion) = self.on_group_completion(completion, now_ms) {
            self.log.on_completion(completion);
        }
        self.settle_appends(now_ms);
        self.stage_unlogged(now_ms);
    }

    /// What the file system has left; to be told every second or so.
    pub fn on_space(&mut self, space: Space) {
        self.log.on_space(space);
    }

    /// The next thing that the log did by itself, for people; to be fetched now and then.
    pub fn take_log_event(&mut self) -> Option<LogEvent> {
        self.log.take_event()
    }

    /// What the disk shall do next, if anything; to be called until it gives nothing, when all actions are taken.
    pub fn poll_op(&mut self, now_ms: i64, mut alloc: impl FnMut(usize) -> B) -> Option<DiskOp<B>> {
        self.stages.on_answered();
        if let Some(op) = self.poll_group_op(now_ms, &mut alloc) {
            return Some(op);
        }
        let op = self.log.poll_op(now_ms, alloc);
        op.iter().for_each(|op| self.stages.on_op(op));
        if op.is_none() {
            // Appends that can have no place any more fail here, not by a completion.
            self.settle_appends(now_ms);
        }
        op
    }

    pub fn take_action(&mut self) -> Option<Action<B>> {
        self.actions.pop_front()
    }

    /// Hands leadership over, if there is a group, then puts what is only in memory into the log; to be called until
    /// the shard has stopped well, which it has once [`is_idle`](Shard::is_idle).
    pub fn prepare_stop(&mut self, now_ms: i64) {
        if !self.leave(now_ms) {
            return;
        }
        self.timers.stop();
        if self.is_master() {
            self.log_all(now_ms);
        }
        self.log.ask_sync();
    }

    /// Puts what is only in memory into the log.
    pub(super) fn log_all(&mut self, now_ms: i64) {
        self.log_offsets(now_ms);
        self.log_checks(now_ms);
        self.stage_unlogged(now_ms);
    }

    /// Everything taken is durable, or never will be.
    pub fn is_idle(&self) -> bool {
        self.log.poisoned().is_some() || self.has_left() && self.unlogged.is_empty() && self.log.is_idle()
    }

    /// Hands the settings in force to those that go by them.
    pub(super) fn enforce_settings(&mut self) {
        self.topics.set_auto_create(self.settings.auto_create_topic);
        self.groups.set_auto_create(self.settings.auto_create_group);
        let mut retention = self.retention_of_file;
        let of_file = &self.config.settings;
        if self.settings.file_reserved_hours != of_file.file_reserved_hours {
            retention.age_ms = Some(u64::from(self.settings.file_reserved_hours) * HOUR_MS);
        }
        if self.settings.reclaim_early != of_file.reclaim_early {
            retention.may_reclaim = self.settings.reclaim_early;
        }
        self.log.set_retention(retention).expect("the settings' own limits are narrower");
    }

    pub(super) fn reply(&mut self, to: Option<ReplyTo>, reply: Reply) {
        if let Some(to) = to {
            self.actions.push_back(Action::Reply { to, reply });
        }
    }

    pub(super) fn act(&mut self, action: Action<B>) {
        self.actions.push_back(action);
    }

    /// Tells the members of groups to share out their queues again.
    pub(super) fn notify(&mut self, groups: impl IntoIterator<Item = Notify>) {
        for Notify { group, connections } in groups {
            for to in connections {
                let push = Push {
                    code: RequestCode::NOTIFY_CONSUMER_IDS_CHANGED,
                    ext: Box::new(GroupChanged(group.clone())),
                    body: SmallVec::new(),
                    answered_as: None,
                };
                self.actions.push_back(Action::Push { to, push });
            }
        }
    }

    /// Logs a change that was made in a table; `then` follows once it is durable.
    ///
    /// Tables change first and the log follows, so a change the log has no room for must wait, and everything else
    /// behind it: a message must never stand in the log before the topic it belongs to.
    pub(super) fn journal(&mut self, record: ControlRecord, then: Then<B>, now_ms: i64) {
        if !self.is_master() {
            // Somebody's work of before: its table is to be what the group says, and nothing else.
            self.spoil_tables();
            return self.fail(then, "this node does not lead", now_ms);
        }
        self.unlogged.push_back((record, then));
        self.stage_unlogged(now_ms);
    }

    /// Answers a request that changed a table, by `then` once the change is durable, or that left it as it was.
    pub(super) fn answer_change(
        &mut self,
        change: Option<ControlRecord>,
        then: Then<B>,
        now_ms: i64,
    ) -> Answer {
        match change {
            Some(record) => {
                self.journal(record, then, now_ms);
                Answer::Later
            }
            // In a group the change that made it so may yet be lost: that one is waited for.
            None if self.roles.is_some() && self.has_changes_under_way() => {
                self.journal(ControlRecord::Offsets(Vec::new()), then, now_ms);
                Answer::Later
            }
            None => Reply::success().into(),
        }
    }

    fn has_changes_under_way(&self) -> bool {
        !self.unlogged.is_empty() || self.waiters.have_changes()
    }

    /// Refuses a request that may change a table while too many earlier changes wait for the log.
    pub(super) fn check_changes_flow(&self) -> Result<(), Refusal> {
        if self.unlogged.len() >= UNLOGGED_MAX {
            return Err(Refusal::new(
                ResponseCode::SERVICE_NOT_AVAILABLE,
                format!("service not available now: {UNLOGGED_MAX} changes wait for the log"),
            ));
        }
        Ok(())
    }

    /// Stages messages, all in one batch of the log; `then` follows once they are durable.
    pub(super) fn stage(
        &mut self,
        appends: impl IntoIterator<Item = Append<ShardRecord>>,
        then: Then<B>,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        self.stage_with(appends, Vec::new(), then, now_ms)
    }

    /// Stages messages and the changes that belong to them, all in one batch of the log: all of it becomes durable or
    /// nothing. The changes are made in their tables then, and `then` follows.
    ///
    /// A message's queue offset will be the queue's `tail_offset` at this moment, counted on from message to message.
    pub(super) fn stage_with(
        &mut self,
        appends: impl IntoIterator<Item = Append<ShardRecord>>,
        changes: Vec<ControlRecord>,
        then: Then<B>,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        self.stage_unlogged(now_ms);
        if !self.unlogged.is_empty() {
            let wait = "service not available now: changes of topics or groups wait for the log";
            return Err(Refusal::new(ResponseCode::SERVICE_NOT_AVAILABLE, wait));
        }
        let staged = self.log.stage(appends.into_iter().chain(changes.iter().map(ShardRecord::control)))?;
        let changes = if changes.is_empty() { Changes::None } else { Changes::ToApply(changes) };
        self.waiters.push(staged, changes, then, now_ms, self.stages.now_ns());
        Ok(())
    }

    fn stage_unlogged(&mut self, now_ms: i64) {
        while let Some((record, _)) = self.unlogged.front() {
            match self.log.stage([ShardRecord::control(record)]) {
                Ok(staged) => {
                    let (change, then) = self.unlogged.pop_front().expect("looked at just now");
                    let received_ns = self.stages.now_ns();
                    self.waiters.push(staged, Changes::Made(change), then, now_ms, received_ns);
                }
                Err(AppendRefused::Poisoned(poison)) => {
                    self.fail_unlogged(&poison.to_string(), now_ms);
                    return;
                }
                // Room comes with the next completion or tick.
                Err(_) => return,
            }
        }
    }

    /// The log takes nothing any more: whoever waits for these changes is told.
    fn fail_unlogged(&mut self, reason: &str, now_ms: i64) {
        for (_, then) in std::mem::take(&mut self.unlogged) {
            self.fail(then, reason, now_ms);
        }
    }

    /// Logs the offsets that were committed; `then` follows once they are durable.
    pub(super) fn log_offsets_then(&mut self, then: Then<B>, now_ms: i64) {
        let mut record = self.offsets.take_changes().unwrap_or(ControlRecord::Offsets(Vec::new()));
        while let Some(next) = self.offsets.take_changes() {
            self.journal(std::mem::replace(&mut record, next), Then::Nothing, now_ms);
        }
        self.journal(record, then, now_ms);
    }

    fn log_offsets(&mut self, now_ms: i64) {
        while self.unlogged.is_empty()
            && let Some(record) = self.offsets.take_changes()
        {
            self.journal(record, Then::Nothing, now_ms);
        }
    }
}

/// The header of NOTIFY_CONSUMER_IDS_CHANGED, owning its text.
struct GroupChanged(String);

impl WriteExt for GroupChanged {
    fn write_ext(&self, fields: &mut ExtWriter<'_>) {
        NotifyConsumerIdsChangedRequest { consumer_group: &self.0 }.write_ext(fields);
    }
}

/// Why a shard cannot start on what recovery found.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("system topics: {0}")]
    SystemTopics(TopicError),
    #[error("system groups: {0}")]
    SystemGroups(GroupError),
}
