//! What a run is asked to do, checked as a whole before anything is started.
//!
//! A scenario is a TOML file, flags of the command line, or both: a flag goes before the file. Every key has a
//! default, so that an empty file is the run of the README.

mod check;
mod consumer;
mod file;
pub mod keys;
pub mod library;
mod load;
mod messages;
mod target;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::check::{
    CLOSED_LOOP_DEPTH_MAX, CONNECTIONS_MAX, IN_FLIGHT_BYTES_MAX, QUEUES_PER_BROKER_MAX, STEPS_MAX,
    ScenarioError, THREADS_MAX, TOPICS_MAX, in_flight_default,
};
pub use self::consumer::{Ack, By, Consumer, Filter, From, NUMBERS};
pub use self::file::{FileError, Problem, Setting, SettingError};
pub use self::load::Load;
pub use self::messages::{DELAY_LEVELS, Kind, Messages, Sizes, WeightedSize};
pub use self::target::{Acl, HeaderForm, Target, Tls};

use crate::series::INTERVAL_DEFAULT;

/// Topic used when none is named. Runs tell their messages from those of others, so they can share it.
pub const TOPIC_DEFAULT: &str = "apogee-loadgen";

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Shown in reports.
    pub name: String,
    pub description: String,
    pub target: Target,
    pub topics: Topics,
    pub load: Load,
    pub messages: Messages,
    pub producers: Producers,
    /// Kinds of consumer groups; each gets all messages. None: nothing is received.
    pub consumers: Vec<Consumer>,
    pub run: Run,
}

/// What messages are sent to. Made on every broker before the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topics {
    /// The topic; of several, the beginning of their names, to which `-0`, `-1`, … is added.
    pub name: String,
    pub count: u32,
    /// Queues of each topic on each broker.
    pub queues: u32,
}

/// Who sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Producers {
    /// Publishing connections per broker and thread, opened one after the other. Of more than there are queues, several
    /// share one.
    pub connections: usize,
    /// Every connection says who it is (HEART_BEAT) before the run and each 30 s, as stock producers do. Transactional
    /// ones always do, for the broker asks them.
    pub heartbeat: bool,
    /// Unanswered messages per thread; planned ones beyond it are counted as errors. `None`: as many as 48 MiB of
    /// bodies allow, at most 100,000.
    pub in_flight_max: Option<u32>,
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How often a message that one broker did not take is tried with the next one, all tries together within `timeout`:
    /// what stock producers do twice (`retryTimesWhenSendFailed`).
    pub retry: u32,
}

/// How long, and on what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// Length of the measured part.
    #[serde(with = "humantime_serde")]
    pub duration: Duration,
    /// Part before it that is not measured.
    #[serde(with = "humantime_serde")]
    pub warmup: Duration,
    /// How long to wait at the end for what is outstanding.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Length of the intervals in which the run is shown over time; longer ones are used where there would be too many.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Threads of the generator; `None`: half of the CPUs, or as many as `cpus` names.
    pub threads: Option<usize>,
    /// CPU of each thread; `None` leaves them to the kernel.
    pub cpus: Option<Vec<usize>>,
    /// Process whose CPU and memory stand in the report as the broker's; `None`: the ones that listen at the brokers'
    /// addresses, if these are on this machine.
    pub broker_pid: Option<u32>,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            name: String::new(),
            description: String::new(),
            target: Target::default(),
            topics: Topics::default(),
            load: Load::default(),
            messages: Messages::default(),
            producers: Producers::default(),
            consumers: vec![Consumer::default()],
            run: Run::default(),
        }
    }
}

impl Default for Topics {
    fn default() -> Topics {
        Topics { name: TOPIC_DEFAULT.to_owned(), count: 1, queues: 4 }
    }
}

impl Default for Producers {
    fn default() -> Producers {
        Producers {
            connections: 1,
            heartbeat: false,
            in_flight_max: None,
            timeout: Duration::from_secs(3),
            retry: 0,
        }
    }
}

impl Default for Run {
    fn default() -> Run {
        Run {
            duration: Duration::from_secs(30),
            warmup: Duration::from_secs(2),
            drain: Duration::from_secs(10),
            interval: INTERVAL_DEFAULT,
            threads: None,
            cpus: None,
            broker_pid: None,
        }
    }
}

impl Scenario {
    /// Warm-up and measured part together.
    pub fn length(&self) -> Duration {
        self.run.warmup + self.run.duration
    }

    /// Whether anything is received.
    pub fn consumes(&self) -> bool {
        !self.consumers.is_empty()
    }

    /// Whether any group pops.
    pub fn pops(&self) -> bool {
        self.consumers.iter().any(|consumer| consumer.by == By::Pop)
    }

    /// Whether producers make themselves known to the brokers.
    pub fn producers_are_known(&self) -> bool {
        self.producers.heartbeat || matches!(self.messages.kind, Kind::Transactional { .. })
    }

    /// The topics' names.
    pub fn topic_names(&self) -> Vec<String> {
        match self.topics.count {
            1 => vec![self.topics.name.clone()],
            count => (0..count).map(|number| format!("{}-{number}", self.topics.name)).collect(),
        }
    }

    /// Threads of the generator.
    pub fn threads(&self) -> usize {
        let cpus = || std::thread::available_parallelism().map_or(1, |cpus| (cpus.get() / 2).max(1));
        self.run.threads.unwrap_or_else(|| self.run.cpus.as_ref().map_or_else(cpus, Vec::len))
    }

    /// Unanswered messages that a thread may have.
    pub fn in_flight_max(&self) -> u32 {
        let default = || in_flight_default(self.messages.size.largest());
        self.producers.in_flight_max.unwrap_or_else(default)
    }
}
