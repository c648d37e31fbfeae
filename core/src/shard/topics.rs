//! The topics of a shard: their configuration, and the numbers under which the log knows them.
//!
//! A topic gets its number when it is made and keeps it; a topic deleted and made anew has a new one, so that nothing
//! stored for the old one (messages, offsets, locks) can be taken for the new one's. Queues are made by using
//! them: the 1024 queues of `BenchmarkTest` cost nothing here.
//!
//! Each method that changes something returns the [`ControlRecord`] to be logged, or `None` if all was so already.
//! The change is in force at once; whoever asked for it is answered when the record is durable.

mod names;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};

use apogee_net::body::{DataVersion, TopicConfig, perm};
use apogee_net::message::{NameError, check_topic};
use apogee_storage::QueueKey;
use rustc_hash::FxHashMap;

pub use self::names::*;
use super::attributes::{self, AttributeError, TOPIC_ATTRIBUTES};
use super::control::ControlRecord;

/// Topics of one shard, those of the system included. At the limit none is made.
pub const TOPICS_MAX: usize = 131_072;

/// Queues of one topic. RocketMQ has no limit; its own largest topic has 1024.
pub const QUEUES_PER_TOPIC_MAX: i32 = 65_536;

const READ_WRITE: i32 = perm::READ | perm::WRITE;
/// All bits of a topic's permission that may be asked for (`PermName#isValid`).
const PERM_MAX: i32 = READ_WRITE | perm::INHERIT;

/// What the log knows a topic by. Dense, in the order of creation, never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicNumber(pub u32);

impl TopicNumber {
    /// The number above it would make [`QueueKey::CONTROL`].
    pub const MAX: TopicNumber = TopicNumber(u32::MAX - 1);

    /// A queue of this topic, as the log names it: `number << 32 | queue_id`.
    pub fn queue(self, queue_id: u32) -> QueueKey {
        QueueKey(u64::from(self.0) << 32 | u64::from(queue_id))
    }

    /// All queues this topic could have.
    pub fn queues(self) -> RangeInclusive<QueueKey> {
        self.queue(0)..=self.queue(u32::MAX)
    }

    /// The topic and queue id that a key was made of.
    pub fn of(queue: QueueKey) -> (TopicNumber, u32) {
        assert_ne!(queue, QueueKey::CONTROL, "control records belong to no topic");
        (TopicNumber((queue.0 >> 32) as u32), queue.0 as u32)
    }
}

#[derive(Debug, PartialEq)]
pub struct Topic {
    number: TopicNumber,
    /// Counter of the table's version when this topic changed last.
    changed_at: i64,
    config: TopicConfig,
}

impl Topic {
    pub fn number(&self) -> TopicNumber {
        self.number
    }

    /// Counter of the table's version when this topic changed last.
    pub fn changed_at(&self) -> i64 {
        self.changed_at
    }

    pub fn config(&self) -> &TopicConfig {
        &self.config
    }

    pub fn may_be_read(&self) -> bool {
        self.config.perm & perm::READ != 0
    }

    /// The queue of a pull; `None` if the topic has no such queue to read from.
    pub fn queue_to_read(&self, queue_id: i32) -> Option<QueueKey> {
        self.queue_below(queue_id, self.config.read_queue_nums)
    }

    /// The queue of a send. Queues that are only read from are still written to by who asks for it, as clients do for
    /// a while after the number of queues was lowered (`AbstractSendMessageProcessor#msgCheck`).
    pub fn queue_to_write(&self, queue_id: i32) -> Option<QueueKey> {
        self.queue_below(queue_id, self.config.read_queue_nums.max(self.config.write_queue_nums))
    }

    fn queue_below(&self, queue_id: i32, count: i32) -> Option<QueueKey> {
        (queue_id < count).then_some(queue_id)?.try_into().ok().map(|id| self.number.queue(id))
    }
}

/// Names and switches of a broker that decide which topics it has by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPolicy {
    pub cluster_name: String,
    pub broker_name: String,
    /// Whether sending to a topic that does not exist makes it (`autoCreateTopicEnable`).
    pub auto_create: bool,
    /// Whether clients may send their traces to this broker (`traceTopicEnable`).
    pub has_trace_topic: bool,
}

impl TopicPolicy {
    fn reply_topic(&self) -> String {
        format!("{}_REPLY_TOPIC", self.cluster_name)
    }
}

/// A send to a topic that does not exist.
#[derive(Clone, Copy, Debug)]
pub struct AutoCreate<'a> {
    pub topic: &'a str,
    /// `defaultTopic` of the send.
    pub template: &'a str,
    /// `defaultTopicQueueNums` of the send.
    pub queues: i32,
    /// `unitMode` of the send.
    pub unit_mode: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("topic {topic:?}: {problem}")]
    Name { topic: String, problem: NameError },
    #[error("topic {0:?} belongs to the system")]
    System(String),
    #[error("topic {topic:?} does not exist, and {template:?} is no template to make it from")]
    NoTemplate { topic: String, template: String },
    #[error("{0} queues; allowed are 0 to {QUEUES_PER_TOPIC_MAX}")]
    Queues(i32),
    #[error("permission {0}; allowed are 0 to {PERM_MAX}")]
    Permission(i32),
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    #[error("this broker has {TOPICS_MAX} topics already")]
    TableFull,
    #[error("all topic numbers are used up")]
    NumbersUsedUp,
}

/// Logged changes that contradict each other: the log is not what this table wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicReplayError {
    #[error("topic {name:?} has number {known:?} and is logged as {logged:?}")]
    OtherNumber { name: String, known: TopicNumber, logged: TopicNumber },
    #[error("{number:?} is topic {known:?} and is logged as {logged:?}")]
    OtherName { number: TopicNumber, known: String, logged: String },
    #[error("{0:?} is logged as deleted and does not exist")]
    DeletedBefore(TopicNumber),
    #[error("version {logged} of the topics is logged after {known}")]
    OldVersion { known: i64, logged: i64 },
    #[error("the next topic number is said to be {next}, and {known} is given already")]
    NumberGiven { next: u32, known: u32 },
}

#[derive(Debug, PartialEq)]
pub struct TopicTable {
    policy: TopicPolicy,
    reply_topic: String,
    topics: FxHashMap<Box<str>, Topic>,
    /// Name of each topic in `topics`.
    names: FxHashMap<TopicNumber, Box<str>>,
    /// Each topic in `topics`, by its `changed_at`.
    by_change: BTreeMap<i64, TopicNumber>,
    /// Above every number ever given.
    next_number: u32,
    version: DataVersion,
}

impl TopicTable {
    /// An empty table; first [`apply`](Self::apply) what the log has, then
    /// [`ensure_system_topics`](Self::ensure_system_topics).
    pub fn new(policy: TopicPolicy) -> Self {
        Self {
            reply_topic: policy.reply_topic(),
            policy,
            topics: FxHashMap::default(),
            names: FxHashMap::default(),
            by_change: BTreeMap::new(),
            next_number: 0,
            version: DataVersion::default(),
        }
    }

    /// An empty table of the same broker.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self::new(self.policy.clone())
    }

    pub fn get(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub fn by_number(&self, number: TopicNumber) -> Option<&Topic> {
        self.topics.get(self.names.get(&number)?)
    }

    /// All topics, in no order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Topic> {
        self.topics.values()
    }

    pub fn len(&self) -> usize {
        self.topics.len()
    }

    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Sending to a topic that does not exist makes it from now on, or does not.
    pub fn set_auto_create(&mut self, auto_create: bool) {
        self.policy.auto_create = auto_create;
    }

    /// What NameServers must be told of every topic has changed, and no topic has. Not logged: they compare more than
    /// the counter, so after a crash they still see that something changed.
    pub fn touch(&mut self, now_ms: i64) {
        self.version = self.version.next(now_ms);
    }

    /// Advances with every change; what NameServers compare.
    pub fn version(&self) -> DataVersion {
        self.version
    }

    /// Topics made or changed after the table had `version`, in the order of their changes: what a NameServer that
    /// was told everything up to there must be told now. Deleted topics are none of its business: it keeps a topic
    /// until it is told to delete it by whoever had it deleted here (`RouteInfoManager#registerBroker`).
    pub fn changed_since(&self, version: DataVersion) -> impl Iterator<Item = &Topic> {
        let changes = self.by_change.range((Bound::Excluded(version.counter), Bound::Unbounded));
        changes.map(|(_, number)| self.by_number(*number).expect("by_change holds existing topics"))
    }

    /// Names that are reserved on this broker, whether their topics exist or not (`TopicValidator#getSystemTopicSet`).
    pub fn system_names(&self) -> impl Iterator<Item = &str> {
        let own = [&self.policy.cluster_name, &self.policy.broker_name, &self.reply_topic];
        names::SYSTEM_NAMES.iter().copied().chain(own.into_iter().map(String::as_str))
    }

    /// Reserved names: not to be made, changed or deleted by request.
    pub fn is_system(&self, name: &str) -> bool {
        names::is_system_everywhere(name)
            || name == self.policy.cluster_name
            || name == self.policy.broker_name
            || name == self.reply_topic
    }

    /// Whether the topics of the system are there in which messages wait: they come with the first master of a group.
    pub fn has_system_topics(&self) -> bool {
        [SCHEDULE, TIMER, HALF].iter().all(|name| self.topics.contains_key(*name))
    }

    /// Makes the topics every broker has, unless they exist (constructor of `TopicConfigManager`).
    pub fn ensure_system_topics(&mut self, now_ms: i64) -> Result<Vec<ControlRecord>, TopicError> {
        let TopicPolicy { cluster_name, broker_name, auto_create, has_trace_topic } = self.policy.clone();
        let reply_topic = self.reply_topic.clone();
        let topics = [
            (auto_create, AUTO_CREATE_TEMPLATE, 8, PERM_MAX),
            (true, &cluster_name, 16, PERM_MAX),
            (true, &broker_name, 1, PERM_MAX),
            (true, SELF_TEST, 1, READ_WRITE),
            (true, BENCHMARK, 1024, READ_WRITE),
            (true, OFFSET_MOVED_EVENT, 1, READ_WRITE),
            (true, SCHEDULE, 18, READ_WRITE),
            (true, TIMER, 1, READ_WRITE),
            (true, HALF, 1, READ_WRITE),
            (true, HALF_DONE, 1, READ_WRITE),
            (true, &reply_topic, 1, READ_WRITE),
            (has_trace_topic, TRACE, 1, READ_WRITE),
        ];
        let mut records = Vec::new();
        for (is_wanted, name, queues, perm) in topics {
            if is_wanted {
                records.extend(self.ensure(name, queues, perm, 0, now_ms)?);
            }
        }
        Ok(records)
    }

    /// Makes a topic because a message is sent to it (`TopicConfigManager#createTopicInSendMessageMethod`): like its
    /// template, with as many queues as the send asks for, but at least one and not more than the template has.
    /// Retry topics need no template.
    pub fn create_for_send(
        &mut self,
        wanted: AutoCreate<'_>,
        now_ms: i64,
    ) -> Result<Option<ControlRecord>, TopicError> {
        let AutoCreate { topic, template, queues, unit_mode } = wanted;
        if self.get(topic).is_some() {
            return Ok(None);
        }
        if let Some(group) = group_of_retry_topic(topic) {
            return self.ensure_retry_topic(group, 1, unit_mode, now_ms);
        }
        let of_template = self
            .get(template)
            .filter(|_| self.policy.auto_create || template != AUTO_CREATE_TEMPLATE)
            .filter(|of_template| of_template.config.perm & perm::INHERIT != 0);
        let Some(of_template) = of_template else {
            return Err(TopicError::NoTemplate { topic: topic.to_owned(), template: template.to_owned() });
        };
        let queues = queues.min(of_template.config.write_queue_nums).max(1);
        let config = TopicConfig {
            topic_name: topic.to_owned(),
            read_queue_nums: queues,
            write_queue_nums: queues,
            perm: of_template.config.perm & !perm::INHERIT,
            topic_filter_type: of_template.config.topic_filter_type,
            topic_sys_flag: if unit_mode { SYS_FLAG_UNIT } else { 0 },
            ..TopicConfig::default()
        };
        self.make(config, now_ms)
    }

    /// Makes the group's retry topic unless it exists (`TopicConfigManager#createTopicInSendMessageBackMethod`).
    /// Every consumer subscribes to it and expects its route right after its first heartbeat.
    pub fn ensure_retry_topic(
        &mut self,
        group: &str,
        queues: i32,
        unit_mode: bool,
        now_ms: i64,
    ) -> Result<Option<ControlRecord>, TopicError> {
        let sys_flag = if unit_mode { SYS_FLAG_UNIT_SUB } else { 0 };
        self.ensure(&retry_topic(group), queues.max(0), READ_WRITE, sys_flag, now_ms)
    }

    /// Makes the topic from which popped messages come again to a group, unless it exists
    /// (`PopReviveService#addRetryTopicIfNotExist`).
    pub fn ensure_pop_retry_topic(
        &mut self,
        name: &str,
        now_ms: i64,
    ) -> Result<Option<ControlRecord>, TopicError> {
        self.ensure(name, 1, READ_WRITE, 0, now_ms)
    }

    /// Makes the group's dead-letter topic unless it exists.
    pub fn ensure_dead_letter_topic(
        &mut self,
        group: &str,
        now_ms: i64,
    ) -> Result<Option<ControlRecord>, TopicError> {
        self.ensure(&dead_letter_topic(group), 1, READ_WRITE, 0, now_ms)
    }

    /// Makes the topic of half messages that were given up unless it exists
    /// (`TopicConfigManager#createTopicOfTranCheckMaxTime`).
    pub fn ensure_checked_too_often(&mut self, now_ms: i64) -> Result<Option<ControlRecord>, TopicError> {
        self.ensure(CHECKED_TOO_OFTEN, 1, READ_WRITE, 0, now_ms)
    }

    /// Makes or changes a topic on request (`TopicConfigManager#updateTopicConfig`). The attributes of `wanted` are
    /// changes, with signs before their names.
    pub fn update(&mut self, wanted: TopicConfig, now_ms: i64) -> Result<Option<ControlRecord>, TopicError> {
        if self.is_system(&wanted.topic_name) {
            return Err(TopicError::System(wanted.topic_name));
        }
        let known = self.get(&wanted.topic_name);
        let current = known.map(|topic| &topic.config.attributes);
        let attributes = attributes::change(TOPIC_ATTRIBUTES, current, &wanted.attributes)?;
        let config = TopicConfig { attributes, ..wanted };
        check_config(&config)?;
        match known {
            Some(topic) if topic.config == config => Ok(None),
            Some(topic) => Ok(Some(self.put(topic.number, config, now_ms))),
            None => self.make(config, now_ms),
        }
    }

    /// Makes or changes topics on request, all or none; no name stands there twice.
    pub fn update_all(
        &mut self,
        wanted: Vec<TopicConfig>,
        now_ms: i64,
    ) -> Result<Vec<ControlRecord>, TopicError> {
        let mut new = 0;
        for wanted in &wanted {
            if self.is_system(&wanted.topic_name) {
                return Err(TopicError::System(wanted.topic_name.clone()));
            }
            let known = self.get(&wanted.topic_name);
            attributes::change(
                TOPIC_ATTRIBUTES,
                known.map(|topic| &topic.config.attributes),
                &wanted.attributes,
            )?;
            check_config(wanted)?;
            new += usize::from(known.is_none());
        }
        if self.len() + new > TOPICS_MAX {
            return Err(TopicError::TableFull);
        }
        if self.next_number as usize + new > TopicNumber::MAX.0 as usize {
            return Err(TopicError::NumbersUsedUp);
        }
        let mut records = Vec::new();
        for wanted in wanted {
            records.extend(self.update(wanted, now_ms).expect("checked above"));
        }
        Ok(records)
    }

    /// Deletes a topic on request; one that does not exist is deleted already.
    pub fn delete(&mut self, name: &str, now_ms: i64) -> Result<Option<ControlRecord>, TopicError> {
        if self.is_system(name) {
            return Err(TopicError::System(name.to_owned()));
        }
        let Some(topic) = self.get(name) else { return Ok(None) };
        let record = ControlRecord::TopicDelete { number: topic.number, version: self.version.next(now_ms) };
        self.apply(&record).expect("the topic exists");
        Ok(Some(record))
    }

    /// Records that rebuild the whole table, for a snapshot: the topics in the order of their changes, each with the
    /// counter of its own, then what they do not tell.
    pub fn snapshot(&self) -> impl Iterator<Item = ControlRecord> {
        let puts = self.changed_since(DataVersion::default()).map(|topic| ControlRecord::TopicPut {
            number: topic.number,
            version: DataVersion { counter: topic.changed_at, ..DataVersion::default() },
            config: Box::new(topic.config.clone()),
        });
        let state = ControlRecord::TopicTableState { next_number: self.next_number, version: self.version };
        puts.chain([state])
    }

    /// Repeats a logged change, or a record of a snapshot.
    pub fn apply(&mut self, record: &ControlRecord) -> Result<(), TopicReplayError> {
        match record {
            ControlRecord::TopicPut { number, version, config } => {
                self.check_newer(version)?;
                self.apply_put(*number, *version, config)
            }
            ControlRecord::TopicDelete { number, version } => {
                self.check_newer(version)?;
                self.apply_delete(*number, *version)
            }
            ControlRecord::TopicTableState { next_number, version } => {
                self.apply_state(*next_number, *version)
            }
            ControlRecord::GroupPut { .. }
            | ControlRecord::GroupDelete { .. }
            | ControlRecord::GroupTableState { .. }
            | ControlRecord::BrokerSettings(_)
            | ControlRecord::Offsets(_)
            | ControlRecord::Timer(_)
            | ControlRecord::Transaction(_)
            | ControlRecord::Pop(_)
            | ControlRecord::RequestMode(_)
            | ControlRecord::Forbidden(_)
            | ControlRecord::OffsetReset(_) => Ok(()),
        }
    }

    /// Each change has a counter of its own: `by_change` rests on it.
    fn check_newer(&self, version: &DataVersion) -> Result<(), TopicReplayError> {
        let (known, logged) = (self.version.counter, version.counter);
        if logged > known { Ok(()) } else { Err(TopicReplayError::OldVersion { known, logged }) }
    }

    fn apply_put(
        &mut self,
        number: TopicNumber,
        version: DataVersion,
        config: &TopicConfig,
    ) -> Result<(), TopicReplayError> {
        let name = config.topic_name.as_str();
        if let Some(known) = self.names.get(&number).filter(|known| ***known != *name) {
            let (known, logged) = (known.to_string(), name.to_owned());
            return Err(TopicReplayError::OtherName { number, known, logged });
        }
        match self.topics.get(name) {
            Some(known) if known.number != number => {
                let (name, known) = (name.to_owned(), known.number);
                return Err(TopicReplayError::OtherNumber { name, known, logged: number });
            }
            Some(known) => {
                self.by_change.remove(&known.changed_at);
            }
            None => {}
        }
        let topic = Topic { number, changed_at: version.counter, config: config.clone() };
        self.topics.insert(name.into(), topic);
        self.names.insert(number, name.into());
        self.by_change.insert(version.counter, number);
        self.next_number = self.next_number.max(number.0 + 1);
        self.version = version;
        Ok(())
    }

    fn apply_delete(&mut self, number: TopicNumber, version: DataVersion) -> Result<(), TopicReplayError> {
        let name = self.names.remove(&number).ok_or(TopicReplayError::DeletedBefore(number))?;
        let topic = self.topics.remove(&name).expect("names holds existing topics");
        self.by_change.remove(&topic.changed_at);
        self.version = version;
        Ok(())
    }

    /// Both were reached by changes that the snapshot has no trace of, if the topics they concerned are gone.
    fn apply_state(&mut self, next_number: u32, version: DataVersion) -> Result<(), TopicReplayError> {
        let (known, logged) = (self.version.counter, version.counter);
        if logged < known {
            return Err(TopicReplayError::OldVersion { known, logged });
        }
        if next_number < self.next_number {
            return Err(TopicReplayError::NumberGiven { next: next_number, known: self.next_number - 1 });
        }
        self.next_number = next_number;
        self.version = version;
        Ok(())
    }

    fn ensure(
        &mut self,
        name: &str,
        queues: i32,
        perm: i32,
        sys_flag: i32,
        now_ms: i64,
    ) -> Result<Option<ControlRecord>, TopicError> {
        if self.get(name).is_some() {
            return Ok(None);
        }
        let config = TopicConfig {
            topic_name: name.to_owned(),
            read_queue_nums: queues,
            write_queue_nums: queues,
            perm,
            topic_sys_flag: sys_flag,
            ..TopicConfig::default()
        };
        self.make(config, now_ms)
    }

    fn make(&mut self, config: TopicConfig, now_ms: i64) -> Result<Option<ControlRecord>, TopicError> {
        check_config(&config)?;
        if self.len() >= TOPICS_MAX {
            return Err(TopicError::TableFull);
        }
        let number = TopicNumber(self.next_number);
        if number > TopicNumber::MAX {
            return Err(TopicError::NumbersUsedUp);
        }
        Ok(Some(self.put(number, config, now_ms)))
    }

    fn put(&mut self, number: TopicNumber, config: TopicConfig, now_ms: i64) -> ControlRecord {
        let version = self.version.next(now_ms);
        let record = ControlRecord::TopicPut { number, version, config: Box::new(config) };
        self.apply(&record).expect("number and name belong together");
        record
    }
}

/// Bits of `topicSysFlag` (`TopicSysFlag`): the topic, or the consumer of a retry topic, belongs to a unit.
const SYS_FLAG_UNIT: i32 = 1;
const SYS_FLAG_UNIT_SUB: i32 = 1 << 1;

fn check_config(config: &TopicConfig) -> Result<(), TopicError> {
    check_topic(&config.topic_name)
        .map_err(|problem| TopicError::Name { topic: config.topic_name.clone(), problem })?;
    for queues in [config.read_queue_nums, config.write_queue_nums] {
        if !(0..=QUEUES_PER_TOPIC_MAX).contains(&queues) {
            return Err(TopicError::Queues(queues));
        }
    }
    match config.perm {
        0..=PERM_MAX => Ok(()),
        perm => Err(TopicError::Permission(perm)),
    }
}
