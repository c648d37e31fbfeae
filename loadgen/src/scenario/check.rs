//! What can be known to be wrong with a scenario without asking anybody.

use std::path::PathBuf;

use super::{Load, Scenario};
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
/// Rates of a staircase.
pub const STEPS_MAX: u64 = 1_000;
/// Unanswered message bodies of one thread. A connection that has 64 MiB unsent is given up, so a stalled broker must
/// meet this limit first, under which planned messages become errors but the connection lives.
pub const IN_FLIGHT_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Unanswered messages of one thread unless set otherwise; larger messages are bounded by `IN_FLIGHT_BYTES_MAX`.
const IN_FLIGHT_DEFAULT: usize = 100_000;

/// Names a key of a scenario file, with the flag that sets it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    #[error("{key} is {value}; allowed are {min} to {max}")]
    OutOfRange { key: &'static str, value: u64, min: u64, max: u64 },
    #[error("run.duration (--duration) must be longer than zero")]
    NoDuration,
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
    #[error("scenario {}: {reason}", .path.display())]
    File { path: PathBuf, reason: String },
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

impl Scenario {
    /// Checks what can be known without asking anybody but the file of a trace.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let (bytes_min, bytes_max) = (PAYLOAD_BYTES_MIN as u64, PAYLOAD_BYTES_MAX as u64);
        in_range("messages.size (--size)", self.messages.size.smallest() as u64, bytes_min, bytes_max)?;
        in_range("messages.size (--size)", self.messages.size.largest() as u64, bytes_min, bytes_max)?;
        let topics = &self.topics;
        in_range("topics.count (--topics)", u64::from(topics.count), 1, u64::from(TOPICS_MAX))?;
        in_range("topics.queues (--queues)", u64::from(topics.queues), 1, u64::from(QUEUES_PER_BROKER_MAX))?;
        in_range("run.threads (--threads)", self.threads() as u64, 1, THREADS_MAX as u64)?;
        let connections = self.producers.connections as u64;
        in_range("producers.connections (--connections)", connections, 1, CONNECTIONS_MAX as u64)?;
        let in_flight_max = (IN_FLIGHT_BYTES_MAX / self.messages.size.largest()) as u64;
        let in_flight = u64::from(self.in_flight_max());
        in_range("producers.in_flight_max (--in-flight-max)", in_flight, 1, in_flight_max)?;
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
        if let Some(tls) = &self.target.tls {
            tls.check()?;
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
    use std::time::Duration;

    use super::super::Sizes;
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
}
