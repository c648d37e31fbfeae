//! The result of a run: what `--json` writes and what the text on the screen is made of.
//!
//! The names of the members are what other programs read; add to them, do not change them.

mod consumers;
pub mod hgrm;
pub mod hlog;
pub mod html;
pub mod machine;
mod scheduling;
mod series;
mod text;
pub mod usage;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::consumers::{CatchUpReport, ConsumerReport, GroupReport};
use self::machine::Machine;
pub use self::scheduling::{Scheduling, Verdict};
pub use self::series::{Interval, Series};
use self::usage::Usage;
use crate::clock::RunTime;
use crate::failure::{Failures, FailuresByName};
use crate::gap::Gaps;
use crate::latency::Latency;
use crate::ledger::LedgerTotals;
use crate::scenario::{Kind, Load, Scenario};
use crate::stages::BrokerStages;
use crate::stop;
use crate::tally::{BrokerMeasurements, Measurements};

/// Everything that is reported of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub configuration: Configuration,
    pub throughput: Throughput,
    /// From the planned send to the broker's acknowledgement.
    pub publish: Latency,
    /// The same from the actual send: without the generator's own lateness.
    pub publish_from_sent: Latency,
    /// From the planned send to the receipt by the consumer in the same process.
    pub e2e: Latency,
    pub e2e_from_sent: Latency,
    /// From a consumer's request to acknowledge to the broker's answer.
    pub consume_ack: Latency,
    pub scheduling: Scheduling,
    pub errors: Errors,
    /// Each of `configuration.brokers`, in that order.
    pub brokers: Vec<Broker>,
    /// The run over time.
    pub series: Series,
    /// Longest times without any acknowledgement while messages were due, after the warm-up.
    pub gaps: Gaps,
    pub ledger: LedgerTotals,
    /// Where the time of sends went inside the brokers that tell it.
    pub stages: Vec<BrokerStages>,
    /// In the order of the scenario.
    pub consumers: Vec<ConsumerReport>,
    /// What is wrong with the ledger; empty for a good run.
    pub faults: Vec<String>,
    /// Whether the run was ended by the user before its planned end.
    pub interrupted: bool,
    /// When the first message was due, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// What the generator ran on.
    pub machine: Machine,
    /// CPU and memory of the generator and, where it can be seen, of the broker.
    pub usage: Usage,
}

/// What was run, and where.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    pub version: String,
    pub run_id: String,
    pub namesrv: String,
    pub topic: String,
    pub brokers: Vec<String>,
    pub queues: usize,
    /// Open or closed loop, in words.
    pub load: String,
    /// Planned messages per second on average; only of an open loop, and not of a trace.
    pub rate: Option<u64>,
    /// Requests in flight per connection; only of a closed loop.
    pub depth: Option<u32>,
    /// Bytes of a body, on average.
    pub size: f64,
    /// Sizes of bodies, in words.
    pub sizes: String,
    /// Kind of messages, in words.
    #[serde(default)]
    pub messages: String,
    #[serde(rename = "duration_s", with = "seconds")]
    pub duration: Duration,
    #[serde(rename = "warmup_s", with = "seconds")]
    pub warmup: Duration,
    pub threads: usize,
    pub cpus: Option<Vec<usize>>,
    /// Publishing connections of all threads to all brokers.
    pub connections: usize,
    pub consume: bool,
    /// All that was asked for.
    pub scenario: Scenario,
}

/// Messages per second in the measured part, by arrival of the acknowledgement or the message.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    pub published_per_s: f64,
    pub published_mib_per_s: f64,
    pub received_per_s: f64,
    pub received_mib_per_s: f64,
}

/// Failures by what failed and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    pub total: u64,
    /// Planned messages that were never sent, for want of a connection or of room; also among `publish`.
    pub unsent: u64,
    pub publish: FailuresByName,
    pub consume: FailuresByName,
    /// After these a message was tried with the next broker; not in `total`, for what became of it counts.
    #[serde(default, skip_serializing_if = "FailuresByName::is_empty")]
    pub retried: FailuresByName,
}

impl Errors {
    fn new(publish: &Failures, consume: &Failures, unsent: u64) -> Errors {
        Errors {
            total: publish.total() + consume.total(),
            unsent,
            publish: publish.by_name(),
            consume: consume.by_name(),
            retried: FailuresByName::new(),
        }
    }
}

/// What one broker did; of Apogee, every shard is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Broker {
    pub name: String,
    pub published_per_s: f64,
    pub received_per_s: f64,
    /// From the planned send, as in the report's member of the same name.
    pub publish: Latency,
    pub e2e: Latency,
    /// Failures by what failed and how.
    pub publish_errors: FailuresByName,
    pub consume_errors: FailuresByName,
}

/// What a run finds out about its surroundings before it begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    pub run_id: String,
    pub brokers: Vec<String>,
    pub queues: usize,
    pub threads: usize,
    pub connections: usize,
}

impl Report {
    /// `measured_for` is the length of the window that was really run through: shorter after an interruption.
    pub fn new(
        scenario: &Scenario,
        surroundings: &Surroundings,
        measured: &Measurements,
        measured_for: Duration,
        interrupted: bool,
    ) -> Report {
        let per_second = |count: u64| count as f64 / measured_for.as_secs_f64().max(f64::EPSILON);
        let mib = |messages: f64| messages * scenario.messages.size.mean() / (1024.0 * 1024.0);
        let nothing = BrokerMeasurements::default();
        let brokers = measured.brokers.iter().chain(std::iter::repeat(&nothing));
        let broker = |name: &String, measured: &BrokerMeasurements| Broker {
            name: name.clone(),
            published_per_s: tenth(per_second(measured.acked_in_window)),
            received_per_s: tenth(per_second(measured.received_in_window)),
            publish: measured.publish.clone(),
            e2e: measured.end_to_end.clone(),
            publish_errors: measured.publish_failures.by_name(),
            consume_errors: measured.consume_failures.by_name(),
        };
        let depth = match scenario.load {
            Load::Closed { depth } => Some(depth),
            _ => None,
        };
        let published_per_s = per_second(measured.acked_in_window);
        let received_per_s = per_second(measured.received_in_window);
        Report {
            configuration: Configuration {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                run_id: surroundings.run_id.clone(),
                namesrv: scenario.target.namesrv.join(";"),
                topic: scenario.topics.name.clone(),
                brokers: surroundings.brokers.clone(),
                queues: surroundings.queues,
                load: scenario.load.to_string(),
                rate: scenario.load.mean_rate(),
                depth,
                size: scenario.messages.size.mean(),
                sizes: scenario.messages.size.to_string(),
                messages: scenario.messages.to_string(),
                duration: scenario.run.duration,
                warmup: scenario.run.warmup,
                threads: surroundings.threads,
                cpus: scenario.run.cpus.clone(),
                connections: surroundings.connections,
                consume: scenario.consumes(),
                scenario: scenario.clone(),
            },
            throughput: Throughput {
                published_per_s: tenth(published_per_s),
                published_mib_per_s: tenth(mib(published_per_s)),
                received_per_s: tenth(received_per_s),
                received_mib_per_s: tenth(mib(received_per_s)),
            },
            publish: measured.publish.from_due.clone(),
            publish_from_sent: measured.publish.from_sent.clone(),
            e2e: measured.end_to_end.from_due.clone(),
            e2e_from_sent: measured.end_to_end.from_sent.clone(),
            consume_ack: measured.consume_ack.clone(),
            scheduling: Scheduling::judge(measured, measured_for * surroundings.threads as u32),
            errors: Errors {
                retried: measured.retries.by_name(),
                ..Errors::new(&measured.publish_failures, &measured.consume_failures, measured.unsent)
            },
            brokers: surroundings.brokers.iter().zip(brokers).map(|(name, one)| broker(name, one)).collect(),
            series: Series::new(&measured.series, scenario.run.warmup + measured_for),
            gaps: measured.silences.gaps(RunTime::after_start(scenario.run.warmup), &surroundings.brokers),
            ledger: measured.ledger,
            stages: Vec::new(),
            consumers: ConsumerReport::all(scenario, measured, surroundings.queues),
            faults: stop::faults(&measured.ledger, matches!(scenario.messages.kind, Kind::Ordered { .. }))
                .iter()
                .map(ToString::to_string)
                .collect(),
            interrupted,
            started_unix_ms: 0,
            machine: Machine::default(),
            usage: Usage::default(),
        }
    }

    /// The report as people read it, several lines.
    pub fn text(&self) -> String {
        text::render(self)
    }
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Durations as numbers of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
