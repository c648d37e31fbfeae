//! A run over time: what a chart of latency, throughput or errors is drawn from.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Errors;
use crate::latency::SparseLatency;
use crate::series;

/// Intervals from the start of the warm-up to the last event, without gaps.
///
/// What happens counts in the interval in which it was noticed. A stall of the broker is hence a few intervals without
/// acknowledgements, and then one with long latencies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// As asked for; an interval may be a multiple of it.
    pub interval_s: f64,
    pub intervals: Vec<Interval>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Since the first message was due; the measured part begins at `configuration.warmup_s`.
    pub start_s: f64,
    /// The last interval may have ended early, with the run.
    pub length_s: f64,
    pub sent: u64,
    pub acked: u64,
    pub received: u64,
    pub errors: Errors,
    pub publish: SparseLatency,
    pub e2e: SparseLatency,
    pub consume_ack: SparseLatency,
}

impl Series {
    pub(super) fn new(measured: &series::Series, until: Duration) -> Series {
        let length = measured.interval().as_secs_f64();
        let interval = |interval: series::Interval| Interval {
            start_s: interval.first as f64 * length,
            length_s: (interval.end - interval.first) as f64 * length,
            sent: interval.sent,
            acked: interval.acked,
            received: interval.received,
            errors: Errors::new(&interval.publish_failures, &interval.consume_failures, interval.unsent),
            publish: interval.publish,
            e2e: interval.end_to_end,
            consume_ack: interval.consume_ack,
        };
        Series {
            interval_s: length,
            intervals: measured.intervals(until).into_iter().map(interval).collect(),
        }
    }
}
