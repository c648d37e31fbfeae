//! The result of a run: what `--json` writes and what the text on the screen is made of.
//!
//! The names of the members are what other programs read; add to them, do not change them.

pub mod hgrm;
pub mod hlog;
pub mod machine;
mod scheduling;
mod text;
pub mod usage;

use std::time::Duration;

use serde::Serialize;

use self::machine::Machine;
pub use self::scheduling::Scheduling;
use self::usage::Usage;
use crate::failure::Failures;
use crate::latency::Summary;
use crate::ledger::LedgerTotals;
use crate::scenario::{Kind, Load, Scenario};
use crate::stop::{self, Fault};
use crate::tally::Measurements;

/// Everything that is reported of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub configuration: Configuration,
    pub throughput: Throughput,
    /// From the planned send to the broker's acknowledgement.
    pub publish: Summary,
    /// The same from the actual send: without the generator's own lateness.
    pub publish_from_sent: Summary,
    /// From the planned send to the receipt by the consumer in the same process.
    pub e2e: Summary,
    pub e2e_from_sent: Summary,
    /// From a consumer's request to acknowledge to the broker's answer.
    pub consume_ack: Summary,
    pub scheduling: Scheduling,
    pub errors: Errors,
    pub ledger: LedgerTotals,
    /// What is wrong with the ledger; empty for a good run.
    pub faults: Vec<Fault>,
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
#[derive(Clone, Debug, Serialize)]
pub struct Configuration {
    pub version: &'static str,
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
    #[serde(rename = "duration_s", serialize_with = "as_seconds")]
    pub duration: Duration,
    #[serde(rename = "warmup_s", serialize_with = "as_seconds")]
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Throughput {
    pub published_per_s: f64,
    pub published_mib_per_s: f64,
    pub received_per_s: f64,
    pub received_mib_per_s: f64,
}

/// Failures by what failed and how.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Errors {
    pub total: u64,
    /// Planned messages that were never sent, for want of a connection or of room; also among `publish`.
    pub unsent: u64,
    pub publish: Failures,
    pub consume: Failures,
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
        let depth = match scenario.load {
            Load::Closed { depth } => Some(depth),
            _ => None,
        };
        let published_per_s = per_second(measured.acked_in_window);
        let received_per_s = per_second(measured.received_in_window);
        Report {
            configuration: Configuration {
                version: env!("CARGO_PKG_VERSION"),
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
            publish: measured.publish.from_due.summary(),
            publish_from_sent: measured.publish.from_sent.summary(),
            e2e: measured.end_to_end.from_due.summary(),
            e2e_from_sent: measured.end_to_end.from_sent.summary(),
            consume_ack: measured.consume_ack.summary(),
            scheduling: Scheduling::judge(&measured.lateness.summary(), &measured.publish.from_due.summary()),
            errors: Errors {
                total: measured.publish_failures.total() + measured.consume_failures.total(),
                unsent: measured.unsent,
                publish: measured.publish_failures.clone(),
                consume: measured.consume_failures.clone(),
            },
            ledger: measured.ledger,
            faults: stop::faults(&measured.ledger, matches!(scenario.messages.kind, Kind::Ordered { .. })),
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

fn as_seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[cfg(test)]
mod tests;
