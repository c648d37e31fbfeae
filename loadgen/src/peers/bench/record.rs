//! What was measured, as it is written to the JSON file.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::figures;
use crate::latency::Latency;
use crate::ledger::LedgerTotals;
use crate::peers::peer::Peer;
use crate::peers::usage::Memory;

/// The part of the planned messages that must be acknowledged for a rate to count as held.
const HELD_MIN: f64 = 0.99;

/// What is saturated: messages of a size, with a reader or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) consumed: bool,
    pub(super) size: usize,
}

impl Cell {
    pub(super) fn saturation(self, in_flight: u32) -> What {
        What::Saturation { size: self.size, consumed: self.consumed, in_flight }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = if self.consumed { ", read too" } else { "" };
        write!(f, "{}{read}", bytes(self.size))
    }
}

/// What a stretch of time was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum What {
    /// As many messages as go through with so many requests in flight.
    Saturation { size: usize, consumed: bool, in_flight: u32 },
    /// A share of the peer's own saturation.
    Own { percent: u32, rate: u64 },
    /// The same rate for several peers.
    Shared { rate: u64 },
}

impl What {
    /// What was saturated.
    pub(super) fn cell(self) -> Option<Cell> {
        match self {
            What::Saturation { size, consumed, .. } => Some(Cell { consumed, size }),
            What::Own { .. } | What::Shared { .. } => None,
        }
    }

    /// The planned rate, if there is a plan.
    pub(super) fn rate(self) -> Option<u64> {
        match self {
            What::Saturation { .. } => None,
            What::Own { rate, .. } | What::Shared { rate } => Some(rate),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Saturation { size, consumed, in_flight } => {
                let cell = Cell { consumed: *consumed, size: *size };
                write!(f, "{cell} with {in_flight} in flight")
            }
            What::Own { percent, rate } => {
                write!(f, "{percent} % of its saturation, {} msg/s", figures::count(*rate))
            }
            What::Shared { rate } => write!(f, "{} msg/s", figures::count(*rate)),
        }
    }
}

/// One stretch of time against one peer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Stretch {
    pub peer: Peer,
    pub round: u32,
    pub what: What,
    pub figures: Figures,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Figures {
    pub published_per_s: f64,
    pub received_per_s: f64,
    pub publish: Latency,
    pub e2e: Latency,
    /// How late the generator itself was.
    pub lateness: Latency,
    /// What the generator says against itself.
    pub generator_warning: Option<String>,
    /// Failures of publishing and consuming, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Planned messages that were never sent.
    pub unsent: u64,
    pub ledger: LedgerTotals,
    /// What is wrong with the ledger.
    pub faults: Vec<String>,
    /// CPUs the broker used, with all its programs: 1 is one CPU all the time.
    pub broker_cpus: f64,
    /// Of these: inside the kernel.
    pub broker_cpus_system: f64,
    pub generator_cpus: f64,
    pub memory: Memory,
}

impl Figures {
    /// Whether the broker took what was planned.
    pub(super) fn holds(&self, rate: u64) -> bool {
        self.published_per_s >= rate as f64 * HELD_MIN
    }

    /// CPU seconds of the broker for a million messages, or `None` without any.
    pub(super) fn cpu_s_per_million(&self) -> Option<f64> {
        (self.published_per_s > 0.0).then(|| self.broker_cpus / self.published_per_s * 1e6)
    }

    pub(super) fn errors_total(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Something that could not be measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Trouble {
    pub peer: Peer,
    pub turn: String,
    pub error: String,
}

/// A peer that takes part.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Participant {
    pub peer: Peer,
    pub version: String,
    /// How it was started the last time.
    pub commands: Vec<String>,
    /// Memory after each start and before any load.
    pub memory_at_start: Vec<Memory>,
}

/// A peer that does not.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Skipped {
    pub peer: Peer,
    pub reason: String,
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Record {
    pub generator_version: &'static str,
    pub machine: Vec<String>,
    pub settings: Vec<String>,
    pub command: String,
    pub broker_cpus: usize,
    pub rounds: u32,
    /// Body of the messages whose latency was measured.
    pub latency_size: usize,
    pub participants: Vec<Participant>,
    pub skipped: Vec<Skipped>,
    pub stretches: Vec<Stretch>,
    pub troubles: Vec<Trouble>,
    /// Ended early by the user.
    pub interrupted: bool,
}

/// Bytes of a message as people say them.
pub(super) fn bytes(size: usize) -> String {
    if size >= 1024 && size.is_multiple_of(1024) {
        format!("{} KiB", size / 1024)
    } else {
        format!("{size} B")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_held_if_all_but_a_hundredth_was_acknowledged() {
        let figures = Figures { published_per_s: 990.0, broker_cpus: 0.5, ..Figures::default() };
        assert!(figures.holds(1_000) && !figures.holds(1_001));
        assert_eq!(figures.cpu_s_per_million().map(f64::round), Some(505.0));
        assert_eq!(Figures::default().cpu_s_per_million(), None);
    }

    #[test]
    fn sizes_are_said_as_people_say_them() {
        assert_eq!([128, 1024, 16384, 1500].map(bytes), ["128 B", "1 KiB", "16 KiB", "1500 B"]);
    }
}
