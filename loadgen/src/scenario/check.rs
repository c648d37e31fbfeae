//! What can be known to be wrong with a scenario without asking anybody.

use std::time::Duration;

use apogee_net::message::{self, tag_hash};

use super::messages::total_weight;
use super::{By, Consumer, DELAY_LEVELS, FileError, Filter, Kind, Load, NUMBERS, Scenario, Sizes};
use crate::payload::{PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN};
use crate::schedule::ScheduleError;

/// Publishing threads of one run.
pub const THREADS_MAX: usize = 256;
/// Topics of one run.
pub const TOPICS_MAX: u32 = 100_000;
/// Queues per topic and broker; Java brokers allow more, but no workload needs them.
pub const QUEUES_PER_BROKER_MAX: u32 = 4096;
/// Connections per broker and thread.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Requests a closed loop keeps in flight per connection.
pub const CLOSED_LOOP_DEPTH_MAX: u32 = 4096;
/// Intervals of the time series, in microseconds: finishing one costs a thread some microseconds.
const INTERVAL_US_MIN: u64 = 1_000;
const INTERVAL_US_MAX: u64 = 3_600_000_000;
/// Rates of a staircase.
pub const STEPS_MAX: u64 = 1_000;
/// Unanswered message bodies of one thread. A connection that has 64 MiB unsent is given up, so a stalled broker must
/// meet this limit first, under which planned messages become errors but the connection lives.
pub const IN_FLIGHT_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Unanswered messages of one thread unless set otherwise; larger messages are bounded by `IN_FLIGHT_BYTES_MAX`.
const IN_FLIGHT_DEFAULT: usize = 100_000;

/// Tags of one run.
const TAGS_MAX: usize = 1024;
/// Tries beyond the first of one message: all of them are over within one timeout.
const RETRY_MAX: u32 = 16;
/// Kinds of consumers of one run; each has a latency distribution of its own.
const CONSUMERS_MAX: usize = 64;
/// Consumer groups of one run.
const GROUPS_MAX: u32 = 1024;
/// Messages per request.
const BATCH_MAX: u32 = 1024;
/// Bodies of one batch: half of what a broker takes (`maxMessageSize`), for each message has properties beside it.
const BATCH_BYTES_MAX: usize = PAYLOAD_BYTES_MAX / 2;
/// Keys of a queue; each has books of its own, and a message's number leaves 16 bits for them.
const KEYS_MAX: u32 = 4096;
/// RocketMQ's `timerMaxDelaySec`: three days.
const TIMED_MAX: Duration = Duration::from_secs(3 * 24 * 3600);
/// Messages of one pull; brokers have their own limits beside it. A pop has [`POP_MESSAGES_MAX`].
const PULL_MESSAGES_MAX: u32 = 1024;
/// Java brokers refuse pops of more.
const POP_MESSAGES_MAX: u32 = 32;
/// A prefill is bounded by what the ledger can remember.
const PREFILL_MAX: u64 = 1 << 32;

/// Names a key of a scenario file, with the flag that sets it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    #[error("{key} is {value}; allowed are {min} to {max}")]
    OutOfRange { key: &'static str, value: u64, min: u64, max: u64 },
    #[error("run.duration (--duration) must be longer than zero")]
    NoDuration,
    #[error("target.route_interval (--route-interval) must be longer than zero")]
    NoRouteInterval,
    #[error("target.namesrv (--namesrv) names no address; give host:port, several separated by ';'")]
    NoNameServer,
    #[error("topics.name (--topic) '{0}' is no topic name: 1 to 127 of letters, digits, '%', '|', '-', '_'")]
    TopicName(String),
    #[error(
        "run.threads (--threads) is {threads} but run.cpus (--pin) names {cpus} CPUs; each thread needs its own"
    )]
    TooFewCpus { threads: usize, cpus: usize },
    #[error("target.brokers (--brokers) is given but names no broker")]
    NoBrokerNamed,
    #[error(
        "target.tls.certificate (--tls-cert) and target.tls.key (--tls-key) are given together or not at all"
    )]
    HalfAnIdentity,
    #[error(
        "target.tls.server_name (--tls-server-name) is checked only with target.tls.ca (--tls-ca): without it any \
         certificate is believed"
    )]
    NameWithoutCa,
    #[error("messages.size (--size) names no size with a weight, or one larger than its maximum")]
    NoSize,
    #[error(
        "messages.batch is {batch}, which goes with kinds normal and oneway only: {kind} messages are sent singly"
    )]
    NotInBatches { batch: u32, kind: String },
    #[error("a closed loop waits for replies, and one-way messages have none; give a rate")]
    OnewayClosedLoop,
    #[error(
        "messages.tags has '{tag}', which is no tag: letters, digits, '-' and '_', {TAG_BYTES_MAX} at most"
    )]
    Tag { tag: String },
    #[error("messages.tags has '{one}' and '{other}', which brokers cannot tell apart by their hash codes")]
    TagHash { one: String, other: String },
    #[error("group '{0}' is no group name: 1 to 120 of letters, digits, '%', '|', '-', '_'")]
    GroupName(String),
    #[error("group '{0}' is named twice; what two consumers with one name are given cannot be told apart")]
    GroupTwice(String),
    #[error("group '{group}': {reason}")]
    Consumer { group: String, reason: String },
    #[error("messages.prefill goes with kind normal only")]
    Prefill,
    #[error(
        "producers.retry (--retry) goes with kind normal, messages.batch = 1 and consumers that pull only"
    )]
    Retry,
    #[error("target.acl.access_key (--access-key) is given without target.acl.secret_key (--secret-key)")]
    NoSecret,
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

impl Scenario {
    /// Checks what can be known without asking anybody but the file of a trace.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let (bytes_min, bytes_max) = (PAYLOAD_BYTES_MIN as u64, PAYLOAD_BYTES_MAX as u64);
        in_range("messages.size (--size)", self.messages.size.smallest() as u64, bytes_min, bytes_max)?;
        in_range("messages.size (--size)", self.messages.size.largest() as u64, bytes_min, bytes_max)?;
        self.check_messages()?;
        self.check_consumers()?;
        let topics = &self.topics;
        in_range("topics.count (--topics)", u64::from(topics.count), 1, u64::from(TOPICS_MAX))?;
        in_range("topics.queues (--queues)", u64::from(topics.queues), 1, u64::from(QUEUES_PER_BROKER_MAX))?;
        in_range("run.threads (--threads)", self.threads() as u64, 1, THREADS_MAX as u64)?;
        let connections = self.producers.connections as u64;
        in_range("producers.connections (--connections)", connections, 1, CONNECTIONS_MAX as u64)?;
        let in_flight_max = (IN_FLIGHT_BYTES_MAX / self.messages.size.largest()) as u64;
        let in_flight = u64::from(self.in_flight_max());
        in_range("producers.in_flight_max (--in-flight-max)", in_flight, 1, in_flight_max)?;
        in_range("producers.retry (--retry)", u64::from(self.producers.retry), 0, u64::from(RETRY_MAX))?;
        let is_simple = self.messages.kind == Kind::Normal && self.messages.batch == 1 && !self.pops();
        if self.producers.retry > 0 && !is_simple {
            return Err(ScenarioError::Retry);
        }
        let interval_us = u64::try_from(self.run.interval.as_micros()).unwrap_or(u64::MAX);
        in_range("microseconds of run.interval (--interval)", interval_us, INTERVAL_US_MIN, INTERVAL_US_MAX)?;
        if self.run.duration.is_zero() {
            return Err(ScenarioError::NoDuration);
        }
        if self.target.namesrv.is_empty() {
            return Err(ScenarioError::NoNameServer);
        }
        if let Some(name) = self.topic_names().into_iter().find(|name| !is_topic_name(name)) {
            return Err(ScenarioError::TopicName(name));
        }
        if self.target.brokers.as_ref().is_some_and(Vec::is_empty) {
            return Err(ScenarioError::NoBrokerNamed);
        }
        if self.target.route_interval.is_zero() {
            return Err(ScenarioError::NoRouteInterval);
        }
        if let Some(tls) = &self.target.tls {
            tls.check()?;
        }
        if self.target.acl.as_ref().is_some_and(|acl| acl.secret_key.is_empty()) {
            return Err(ScenarioError::NoSecret);
        }
        if let Some(cpus) = &self.run.cpus
            && cpus.len() < self.threads()
        {
            return Err(ScenarioError::TooFewCpus { threads: self.threads(), cpus: cpus.len() });
        }
        match &self.load {
            Load::Closed { depth } => {
                let depth = u64::from(*depth);
                in_range("load.depth (--closed-loop)", depth, 1, u64::from(CLOSED_LOOP_DEPTH_MAX))?;
            }
            Load::Steps { rates } => {
                in_range("number of load.rates (--steps)", rates.len() as u64, 1, STEPS_MAX)?;
            }
            _ => {}
        }
        self.schedule()?;
        Ok(())
    }
}

impl Scenario {
    fn check_messages(&self) -> Result<(), ScenarioError> {
        let messages = &self.messages;
        let is_size = match &messages.size {
            Sizes::Fixed(_) => true,
            Sizes::Uniform { min, max } => min <= max,
            Sizes::Weighted(sizes) => total_weight(sizes) > 0,
        };
        if !is_size {
            return Err(ScenarioError::NoSize);
        }
        in_range("messages.prefill", messages.prefill, 0, PREFILL_MAX)?;
        let batch_max = (BATCH_BYTES_MAX / messages.size.largest().max(1)).clamp(1, BATCH_MAX as usize);
        in_range("messages.batch", u64::from(messages.batch), 1, batch_max as u64)?;
        if messages.batch > 1 && !matches!(messages.kind, Kind::Normal | Kind::Oneway) {
            let (batch, kind) = (messages.batch, messages.kind.to_string());
            return Err(ScenarioError::NotInBatches { batch, kind });
        }
        if messages.prefill > 0 && messages.kind != Kind::Normal {
            return Err(ScenarioError::Prefill);
        }
        match messages.kind {
            Kind::Normal => {}
            Kind::Oneway if self.load.is_open() => {}
            Kind::Oneway => return Err(ScenarioError::OnewayClosedLoop),
            Kind::Ordered { keys } => {
                in_range("messages.kind.ordered.keys", u64::from(keys), 1, u64::from(KEYS_MAX))?;
            }
            Kind::Delayed { level } => {
                in_range("messages.kind.delayed.level", u64::from(level), 1, DELAY_LEVELS.len() as u64)?;
            }
            Kind::Timed { after, .. } => {
                in_range(
                    "messages.kind.timed.after in ms",
                    after.as_millis() as u64,
                    1,
                    TIMED_MAX.as_millis() as u64,
                )?;
            }
            Kind::Transactional { rollback, check, .. } => {
                in_range("messages.kind.transactional.rollback", u64::from(rollback), 0, 100)?;
                in_range(
                    "messages.kind.transactional.check",
                    u64::from(check),
                    0,
                    u64::from(100 - rollback),
                )?;
            }
        }
        in_range("the number of messages.tags", messages.tags.len() as u64, 0, TAGS_MAX as u64)?;
        if let Some(tag) = messages.tags.iter().find(|tag| !is_tag(tag)) {
            return Err(ScenarioError::Tag { tag: tag.clone() });
        }
        let mut hashes: Vec<_> = messages.tags.iter().map(|tag| (tag_hash(tag), tag)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        match hashes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(ScenarioError::TagHash { one: pair[0].1.clone(), other: pair[1].1.clone() }),
            None => Ok(()),
        }
    }

    fn check_consumers(&self) -> Result<(), ScenarioError> {
        in_range("the number of consumers", self.consumers.len() as u64, 0, CONSUMERS_MAX as u64)?;
        for consumer in &self.consumers {
            in_range("consumers.groups", u64::from(consumer.groups), 1, u64::from(GROUPS_MAX))?;
        }
        let mut names: Vec<_> = self.consumers.iter().flat_map(Consumer::names).collect();
        in_range("the number of consumer groups", names.len() as u64, 0, u64::from(GROUPS_MAX))?;
        if let Some(name) = names.iter().find(|name| message::check_group(name).is_err()) {
            return Err(ScenarioError::GroupName(name.clone()));
        }
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ScenarioError::GroupTwice(pair[0].clone()));
        }
        for consumer in &self.consumers {
            self.check_consumer(consumer)
                .map_err(|reason| ScenarioError::Consumer { group: consumer.group.clone(), reason })?;
        }
        Ok(())
    }

    fn check_consumer(&self, consumer: &Consumer) -> Result<(), String> {
        let messages = consumer.messages();
        let messages_max = match consumer.by {
            By::Pull => PULL_MESSAGES_MAX,
            By::Pop => POP_MESSAGES_MAX,
        };
        if messages == 0 || messages > messages_max {
            return Err(format!("messages is {messages}; allowed are 1 to {messages_max}"));
        }
        if consumer.join >= self.length() {
            return Err(format!("it joins after {:?}, when the run is over", consumer.join));
        }
        if consumer.by == By::Pop && consumer.pause * messages >= consumer.invisible {
            return Err(format!(
                "its work on {messages} messages takes as long as they are hidden ({:?}); they would come again",
                consumer.invisible
            ));
        }
        if consumer.by == By::Pop && consumer.commit.is_some() {
            return Err("commit is of readers by pull; popped messages are acknowledged instead".to_owned());
        }
        if consumer.commit.is_some_and(|every| every.is_zero()) {
            return Err("commit is zero".to_owned());
        }
        match &consumer.filter {
            None => Ok(()),
            Some(Filter::Tags(tags)) => {
                let wanted = tags.split("||").map(str::trim).find(|tag| *tag != "*" && !is_tag(tag));
                wanted.map_or(Ok(()), |tag| Err(format!("its filter names '{tag}', which is no tag")))
            }
            Some(Filter::Sql { expression, .. }) if expression.trim().is_empty() => {
                Err("its filter's expression is empty".to_owned())
            }
            Some(Filter::Sql { expect_below, .. }) if *expect_below > NUMBERS => {
                Err(format!("expect_below is {expect_below}; n is below {NUMBERS} always"))
            }
            Some(Filter::Sql { .. }) => Ok(()),
        }
    }
}

const TAG_BYTES_MAX: usize = 64;

fn is_tag(tag: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=TAG_BYTES_MAX).contains(&tag.len()) && tag.bytes().all(is_legal)
}

/// As many unanswered messages per thread as messages of this size allow.
pub fn in_flight_default(size_bytes: usize) -> u32 {
    let messages = (IN_FLIGHT_BYTES_MAX / size_bytes.max(1)).clamp(1, IN_FLIGHT_DEFAULT);
    u32::try_from(messages).expect("clamped")
}

fn in_range(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), ScenarioError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(ScenarioError::OutOfRange { key, value, min, max })
    }
}

/// RocketMQ's `TopicValidator.validateTopic`.
fn is_topic_name(name: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"%|-_".contains(&byte);
    (1..=127).contains(&name.len()) && name.bytes().all(is_legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass() {
        assert_eq!(Scenario::default().check(), Ok(()));
    }

    #[test]
    fn bad_values_are_refused_by_the_name_of_their_key() {
        type Change = fn(&mut Scenario);
        let table: [(Change, &str); 11] = [
            (
                |s| s.producers.in_flight_max = Some(49_153),
                "producers.in_flight_max (--in-flight-max) is 49153; allowed are 1 to 49152",
            ),
            (
                |s| s.messages.size = Sizes::Fixed(43),
                "messages.size (--size) is 43; allowed are 44 to 4194304",
            ),
            (|s| s.topics.queues = 0, "topics.queues (--queues) is 0; allowed are 1 to 4096"),
            (|s| s.topics.count = 0, "topics.count (--topics) is 0; allowed are 1 to 100000"),
            (|s| s.run.threads = Some(0), "run.threads (--threads) is 0; allowed are 1 to 256"),
            (|s| s.run.duration = Duration::ZERO, "run.duration (--duration) must be longer than zero"),
            (|s| s.topics.name = "a b".into(), "topics.name (--topic) 'a b' is no topic name"),
            (
                |s| (s.run.threads, s.run.cpus) = (Some(1), Some(vec![])),
                "run.threads (--threads) is 1 but run.cpus (--pin) names 0 CPUs",
            ),
            (|s| s.load = Load::Constant { rate: 0 }, "a rate of 0 messages per second"),
            (|s| s.load = Load::Closed { depth: 0 }, "load.depth (--closed-loop) is 0"),
            (|s| s.target.brokers = Some(vec![]), "target.brokers (--brokers) is given but names no broker"),
        ];
        for (change, message) in table {
            let mut scenario = Scenario::default();
            change(&mut scenario);
            let error = scenario.check().expect_err(message).to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn kinds_that_cannot_be_are_refused_with_the_reason() {
        type Change = fn(&mut Scenario);
        let consumer = |change: fn(&mut Consumer)| {
            let mut consumer = Consumer::default();
            change(&mut consumer);
            consumer
        };
        let refused = |change: Change| {
            let mut scenario = Scenario::default();
            change(&mut scenario);
            scenario.check().expect_err("refused").to_string()
        };
        let table: [(Change, &str); 12] = [
            (|s| s.messages.size = Sizes::Uniform { min: 200, max: 100 }, "messages.size"),
            (|s| s.messages.size = Sizes::Weighted(vec![]), "messages.size"),
            (|s| s.messages.batch = 0, "messages.batch is 0"),
            (
                |s| (s.messages.batch, s.messages.kind) = (2, Kind::Ordered { keys: 2 }),
                "messages.batch is 2, which goes with kinds normal and oneway only: ordered, 2 keys per queue",
            ),
            (
                |s| (s.load, s.messages.kind) = (Load::Closed { depth: 1 }, Kind::Oneway),
                "a closed loop waits for replies",
            ),
            (|s| s.messages.kind = Kind::Delayed { level: 19 }, "messages.kind.delayed.level is 19"),
            (
                |s| s.messages.kind = Kind::Transactional { rollback: 60, check: 41, reply: false },
                "messages.kind.transactional.check is 41; allowed are 0 to 40",
            ),
            (|s| s.messages.tags = vec!["a b".into()], "messages.tags has 'a b'"),
            (
                |s| s.messages.tags = vec!["Aa".into(), "BB".into()],
                "messages.tags has 'Aa' and 'BB', which brokers cannot tell apart",
            ),
            (|s| s.consumers = vec![Consumer::default(); 2], "group 'apogee-loadgen' is named twice"),
            (|s| s.consumers[0].join = Duration::from_secs(3_600), "group 'apogee-loadgen': it joins after"),
            (|s| s.consumers[0].group = String::new(), "group '' is no group name"),
        ];
        for (change, message) in table {
            let error = refused(change);
            assert!(error.starts_with(message), "{error}");
        }
        type Turn = fn(&mut Consumer);
        let filters: [(Turn, &str); 5] = [
            (|c| c.filter = Some(Filter::Tags("A | B".into())), "its filter names 'A | B'"),
            (
                |c| c.filter = Some(Filter::Sql { expression: "n < 101".into(), expect_below: 101 }),
                "expect_below is 101",
            ),
            (|c| c.messages = Some(1025), "messages is 1025; allowed are 1 to 1024"),
            (|c| (c.by, c.messages) = (By::Pop, Some(33)), "messages is 33; allowed are 1 to 32"),
            (|c| (c.by, c.pause) = (By::Pop, Duration::from_secs(2)), "its work on 32 messages"),
        ];
        for (change, message) in filters {
            let scenario = Scenario { consumers: vec![consumer(change)], ..Scenario::default() };
            let error = scenario.check().expect_err(message).to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
