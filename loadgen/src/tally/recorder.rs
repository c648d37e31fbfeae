//! What one thread measured: every figure that has a time, sorted into the distributions it belongs to.
//!
//! Fed by the [`Tally`](super::Tally), which knows the messages; here only times, brokers and failures count.

use std::sync::Arc;

use super::consumers::{self, ConsumerMeasurements};
use crate::clock::RunTime;
use crate::failure::{Failure, Failures};
use crate::latency::Latency;
use crate::ledger::LedgerTotals;
use crate::live::Live;

/// The part of a run that counts: from the end of the warm-up to the end of the plan, by due time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub start: RunTime,
    pub end: RunTime,
}

impl Window {
    pub fn contains(&self, at: RunTime) -> bool {
        self.start <= at && at < self.end
    }
}

/// When a message was wanted and when it was really sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub due: RunTime,
    pub sent: RunTime,
}

/// A latency measured twice: from when the message was wanted, and from when the generator really sent it.
///
/// The first is what a user of the broker would feel; the difference is the generator's own fault.
#[derive(Clone, Debug, Default)]
pub struct TwiceMeasured {
    pub from_due: Latency,
    pub from_sent: Latency,
}

impl TwiceMeasured {
    fn record(&mut self, times: Times, now: RunTime) {
        self.from_due.record(now.since(times.due));
        self.from_sent.record(now.since(times.sent));
    }

    fn merge(&mut self, other: &TwiceMeasured) {
        self.from_due.merge(&other.from_due);
        self.from_sent.merge(&other.from_sent);
    }
}

/// What a run, or one thread of it, measured. Messages of the warm-up are in no distribution.
#[derive(Clone, Debug, Default)]
pub struct Measurements {
    pub publish: TwiceMeasured,
    pub end_to_end: TwiceMeasured,
    /// From a consumer's request to acknowledge to the broker's answer.
    pub consume_ack: Latency,
    /// How late messages left, against the plan.
    pub lateness: Latency,
    /// Failures of messages, warm-up included.
    pub publish_failures: Failures,
    /// Failures of pulls and of consumers' acknowledgements.
    pub consume_failures: Failures,
    /// Planned messages that were never handed to a connection; their reasons are among `publish_failures`.
    pub unsent: u64,
    /// Acknowledgements that arrived within the window.
    pub acked_in_window: u64,
    /// First deliveries that arrived within the window.
    pub received_in_window: u64,
    pub ledger: LedgerTotals,
    /// In the order of the scenario.
    pub consumers: Vec<ConsumerMeasurements>,
}

impl Measurements {
    pub fn merge(&mut self, other: &Measurements) {
        self.publish.merge(&other.publish);
        self.end_to_end.merge(&other.end_to_end);
        self.consume_ack.merge(&other.consume_ack);
        self.lateness.merge(&other.lateness);
        self.publish_failures.merge(&other.publish_failures);
        self.consume_failures.merge(&other.consume_failures);
        self.unsent += other.unsent;
        self.acked_in_window += other.acked_in_window;
        self.received_in_window += other.received_in_window;
        self.ledger.add(&other.ledger);
        consumers::merge(&mut self.consumers, &other.consumers);
    }
}

/// Sorts what happens into the distributions. `broker` is an index into the run's list of brokers.
#[derive(Debug)]
pub struct Recorder {
    window: Window,
    measured: Measurements,
    live: Arc<Live>,
}

impl Recorder {
    pub fn new(window: Window, live: Arc<Live>) -> Recorder {
        Recorder { window, measured: Measurements::default(), live }
    }

    /// A message leaves.
    pub fn on_sent(&mut self, _broker: usize, times: Times) {
        if self.window.contains(times.due) {
            self.measured.lateness.record(times.sent.since(times.due));
        }
        self.live.sent.increment();
    }

    /// The broker says that it is stored.
    pub fn on_acked(&mut self, _broker: usize, times: Times, now: RunTime) {
        if self.window.contains(times.due) {
            self.measured.publish.record(times, now);
        }
        if self.window.contains(now) {
            self.measured.acked_in_window += 1;
        }
        self.live.acked.increment();
        self.live.publish.record(now.since(times.due));
    }

    /// A message failed, or was stored with a reservation.
    pub fn on_publish_failed(
        &mut self,
        _broker: usize,
        failure: Failure,
        remark: Option<&str>,
        _now: RunTime,
    ) {
        self.measured.publish_failures.record(failure, remark);
        self.live.failed.increment();
    }

    /// A message was due and could not be sent.
    pub fn on_unsent(&mut self, broker: usize, failure: Failure, now: RunTime) {
        self.measured.unsent += 1;
        self.on_publish_failed(broker, failure, None, now);
    }

    /// The first copy of a message arrives at a consumer; `times.due` is when it was due there.
    pub fn on_received(&mut self, _broker: usize, times: Times, now: RunTime) {
        if self.window.contains(times.due) {
            self.measured.end_to_end.record(times, now);
        }
        if self.window.contains(now) {
            self.measured.received_in_window += 1;
        }
        self.live.received.increment();
        self.live.end_to_end.record(now.since(times.due));
    }

    /// The broker confirms what a consumer asked at `asked`.
    pub fn on_consume_acked(&mut self, _broker: usize, asked: RunTime, now: RunTime) {
        if self.window.contains(asked) {
            self.measured.consume_ack.record(now.since(asked));
        }
    }

    /// A pull, or a consumer's acknowledgement, failed.
    pub fn on_consume_failed(
        &mut self,
        _broker: usize,
        failure: Failure,
        remark: Option<&str>,
        _now: RunTime,
    ) {
        self.measured.consume_failures.record(failure, remark);
        self.live.failed.increment();
    }

    pub fn set_in_flight(&mut self, messages: u32) {
        self.live.in_flight.set(u64::from(messages));
    }

    /// Messages whose reply never came.
    pub fn on_abandoned(&mut self, messages: u64) {
        self.measured.publish_failures.record_many(Failure::TimedOut, messages);
    }

    /// What was measured since the beginning; nothing is left.
    pub fn take(&mut self) -> Measurements {
        std::mem::take(&mut self.measured)
    }
}
