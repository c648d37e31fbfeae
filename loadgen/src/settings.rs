//! What a run is asked to do, checked as a whole before anything is started.

use std::fmt;
use std::time::Duration;

use crate::figures;
use crate::payload::{PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN};
use crate::schedule::{Schedule, ScheduleError};

/// Publishing threads of one run.
pub const THREADS_MAX: usize = 256;
/// Queues per broker; Java brokers allow more, but no workload needs them.
pub const QUEUES_PER_BROKER_MAX: u32 = 4096;
/// Connections per broker and thread.
pub const CONNECTIONS_MAX: usize = 1024;
/// Requests a closed loop keeps in flight per connection.
pub const CLOSED_LOOP_DEPTH_MAX: u32 = 4096;
/// Unanswered message bodies of one thread. A connection that has 64 MiB unsent is given up, so a stalled broker must
/// meet this limit first, under which planned messages become errors but the connection lives.
pub const IN_FLIGHT_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Unanswered messages of one thread unless set otherwise; larger messages are bounded by `IN_FLIGHT_BYTES_MAX`.
const IN_FLIGHT_DEFAULT: usize = 100_000;
/// Topic used when none is named. Runs tell their messages from those of others, so they can share it.
pub const TOPIC_DEFAULT: &str = "apogee-loadgen";

/// How messages are offered to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// At a planned rate (messages per second over all queues), whatever the broker does.
    Open { rate: u64 },
    /// A fixed number of requests in flight on each connection.
    Closed { depth: u32 },
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Load::Open { rate } => write!(f, "open loop, {} msg/s planned", figures::count(*rate)),
            Load::Closed { depth } => write!(f, "closed loop, {depth} in flight per connection"),
        }
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSettings {
    /// `host:port` of NameServers; the first that answers is used.
    pub namesrv: Vec<String>,
    pub load: Load,
    /// Bytes of a message body.
    pub size_bytes: usize,
    /// Length of the measured part.
    pub duration: Duration,
    /// Part before it that is not measured.
    pub warmup: Duration,
    pub topic: String,
    pub queues_per_broker: u32,
    pub threads: usize,
    /// CPU of each thread; `None` leaves them to the kernel.
    pub cpus: Option<Vec<usize>>,
    /// Publishing connections per broker and thread.
    pub connections: usize,
    /// Only these broker names; `None` takes all.
    pub brokers: Option<Vec<String>>,
    pub consume: bool,
    /// Unanswered messages per thread; planned ones beyond it are counted as errors.
    pub in_flight_max: u32,
    pub send_timeout: Duration,
    pub drain_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("--{name} is {value}; allowed are {min} to {max}")]
    OutOfRange { name: &'static str, value: u64, min: u64, max: u64 },
    #[error("--duration must be longer than zero")]
    NoDuration,
    #[error("--namesrv names no address; give host:port, several separated by ';'")]
    NoNameServer,
    #[error("--topic '{0}' is no topic name: 1 to 127 of letters, digits, '%', '|', '-', '_'")]
    TopicName(String),
    #[error("--threads {threads} but --pin names {cpus} CPUs; each thread needs its own")]
    TooFewCpus { threads: usize, cpus: usize },
    #[error("--brokers is given but names no broker")]
    NoBrokerNamed,
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
}

impl RunSettings {
    /// Warm-up and measured part together.
    pub fn length(&self) -> Duration {
        self.warmup + self.duration
    }

    /// Checks what can be known without asking anybody.
    pub fn check(&self) -> Result<(), SettingsError> {
        in_range("size", self.size_bytes as u64, PAYLOAD_BYTES_MIN as u64, PAYLOAD_BYTES_MAX as u64)?;
        in_range("queues", u64::from(self.queues_per_broker), 1, u64::from(QUEUES_PER_BROKER_MAX))?;
        in_range("threads", self.threads as u64, 1, THREADS_MAX as u64)?;
        in_range("connections", self.connections as u64, 1, CONNECTIONS_MAX as u64)?;
        let in_flight_max = (IN_FLIGHT_BYTES_MAX / self.size_bytes) as u64;
        in_range("in-flight-max", u64::from(self.in_flight_max), 1, in_flight_max)?;
        if self.duration.is_zero() {
            return Err(SettingsError::NoDuration);
        }
        if self.namesrv.is_empty() {
            return Err(SettingsError::NoNameServer);
        }
        if !is_topic_name(&self.topic) {
            return Err(SettingsError::TopicName(self.topic.clone()));
        }
        if self.brokers.as_ref().is_some_and(Vec::is_empty) {
            return Err(SettingsError::NoBrokerNamed);
        }
        if let Some(cpus) = &self.cpus
            && cpus.len() < self.threads
        {
            return Err(SettingsError::TooFewCpus { threads: self.threads, cpus: cpus.len() });
        }
        match self.load {
            Load::Open { rate } => {
                Schedule::constant(rate, self.length())?;
            }
            Load::Closed { depth } => {
                in_range("closed-loop", u64::from(depth), 1, u64::from(CLOSED_LOOP_DEPTH_MAX))?;
            }
        }
        Ok(())
    }
}

/// As many unanswered messages per thread as messages of this size allow.
pub fn in_flight_default(size_bytes: usize) -> u32 {
    let messages = (IN_FLIGHT_BYTES_MAX / size_bytes.max(1)).clamp(1, IN_FLIGHT_DEFAULT);
    u32::try_from(messages).expect("clamped")
}

fn in_range(name: &'static str, value: u64, min: u64, max: u64) -> Result<(), SettingsError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(SettingsError::OutOfRange { name, value, min, max })
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

    fn settings() -> RunSettings {
        RunSettings {
            namesrv: vec!["127.0.0.1:9876".into()],
            load: Load::Open { rate: 5_000 },
            size_bytes: 1024,
            duration: Duration::from_secs(30),
            warmup: Duration::from_secs(2),
            topic: TOPIC_DEFAULT.into(),
            queues_per_broker: 4,
            threads: 1,
            cpus: None,
            connections: 1,
            brokers: None,
            consume: true,
            in_flight_max: in_flight_default(1024),
            send_timeout: Duration::from_secs(3),
            drain_timeout: Duration::from_secs(10),
        }
    }

    #[test]
    fn the_defaults_pass() {
        assert_eq!(settings().check(), Ok(()));
    }

    #[test]
    fn bad_values_are_refused_by_the_name_of_their_flag() {
        type Change = fn(&mut RunSettings);
        let table: [(Change, &str); 10] = [
            (|s| s.in_flight_max = 49_153, "--in-flight-max is 49153; allowed are 1 to 49152"),
            (|s| s.size_bytes = 43, "--size is 43; allowed are 44 to 4194304"),
            (|s| s.queues_per_broker = 0, "--queues is 0; allowed are 1 to 4096"),
            (|s| s.threads = 0, "--threads is 0; allowed are 1 to 256"),
            (|s| s.duration = Duration::ZERO, "--duration must be longer than zero"),
            (|s| s.topic = "a b".into(), "--topic 'a b' is no topic name"),
            (|s| s.cpus = Some(vec![]), "--threads 1 but --pin names 0 CPUs"),
            (|s| s.load = Load::Open { rate: 0 }, "a rate of 0 messages per second"),
            (|s| s.load = Load::Closed { depth: 0 }, "--closed-loop is 0"),
            (|s| s.brokers = Some(vec![]), "--brokers is given but names no broker"),
        ];
        for (change, message) in table {
            let mut settings = settings();
            change(&mut settings);
            let error = settings.check().expect_err(message).to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
