//! What one thread measured: every figure that has a time, sorted into the distributions it belongs to.
//!
//! Fed by the [`Tally`](super::Tally), which knows the messages; here only times, brokers and failures count.

use std::sync::Arc;
use std::time::Duration;

use super::consumers::{self, ConsumerMeasurements};
use crate::attention::{Attention, ThreadUse};
use crate::clock::RunTime;
use crate::failure::{Failure, Failures};
use crate::gap::Silences;
use crate::latency::Latency;
use crate::ledger::LedgerTotals;
use crate::live::Live;
use crate::series::{Series, SeriesWriter};

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
    fn merge(&mut self, other: &TwiceMeasured) {
        self.from_due.merge(&other.from_due);
        self.from_sent.merge(&other.from_sent);
    }
}

/// What one broker did; of Apogee, every shard is one.
#[derive(Clone, Debug, Default)]
pub struct BrokerMeasurements {
    /// From when messages were due.
    pub publish: Latency,
    pub end_to_end: Latency,
    /// Acknowledgements and first deliveries that arrived within the window.
    pub acked_in_window: u64,
    pub received_in_window: u64,
    /// Failures, warm-up included; not those of messages that were still unanswered when the run ended.
    pub publish_failures: Failures,
    pub consume_failures: Failures,
}

impl BrokerMeasurements {
    fn merge(&mut self, other: &BrokerMeasurements) {
        self.publish.merge(&other.publish);
        self.end_to_end.merge(&other.end_to_end);
        self.acked_in_window += other.acked_in_window;
        self.received_in_window += other.received_in_window;
        self.publish_failures.merge(&other.publish_failures);
        self.consume_failures.merge(&other.consume_failures);
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
    /// Times between two looks for replies while sending.
    pub gaps: Latency,
    /// One for each thread.
    pub threads: Vec<ThreadUse>,
    /// Failures of messages, warm-up included.
    pub publish_failures: Failures,
    /// Failures after which a message was sent again.
    pub retries: Failures,
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
    /// By the brokers' places in the run's list; without those behind the last one that a thread had to do with.
    pub brokers: Vec<BrokerMeasurements>,
    /// The whole run over time, warm-up and drain included.
    pub series: Series,
    /// Times without acknowledgements.
    pub silences: Silences,
}

impl Measurements {
    pub fn merge(&mut self, other: &Measurements) {
        self.publish.merge(&other.publish);
        self.end_to_end.merge(&other.end_to_end);
        self.consume_ack.merge(&other.consume_ack);
        self.lateness.merge(&other.lateness);
        self.gaps.merge(&other.gaps);
        self.threads.extend(&other.threads);
        self.publish_failures.merge(&other.publish_failures);
        self.retries.merge(&other.retries);
        self.consume_failures.merge(&other.consume_failures);
        self.unsent += other.unsent;
        self.acked_in_window += other.acked_in_window;
        self.received_in_window += other.received_in_window;
        self.ledger.add(&other.ledger);
        consumers::merge(&mut self.consumers, &other.consumers);
        if self.brokers.len() < other.brokers.len() {
            self.brokers.resize_with(other.brokers.len(), BrokerMeasurements::default);
        }
        self.brokers.iter_mut().zip(&other.brokers).for_each(|(broker, other)| broker.merge(other));
        self.series.merge(&other.series);
        self.silences.merge(&other.silences);
    }
}

/// Sorts what happens into the distributions. `broker` is an index into the run's list of brokers.
///
/// Latencies from the due time are kept per broker and added up at the end; so they cost no more than for all together.
#[derive(Debug)]
pub struct Recorder {
    window: Window,
    measured: Measurements,
    series: SeriesWriter,
    attention: Attention,
    live: Arc<Live>,
}

impl Recorder {
    pub fn new(window: Window, live: Arc<Live>) -> Recorder {
        let series = SeriesWriter::new(live.intervals.interval());
        Recorder { window, measured: Measurements::default(), series, attention: Attention::default(), live }
    }

    /// Makes room for what this broker does, so that the first message does not have to wait for it.
    pub fn expect_broker(&mut self, broker: usize) {
        if self.measured.brokers.len() <= broker {
            self.measured.brokers.resize_with(broker + 1, BrokerMeasurements::default);
        }
    }

    /// The plan is broken off: what comes later is not of the window.
    pub fn cut(&mut self, at: RunTime) {
        self.window.end = self.window.end.min(at);
    }

    /// A message leaves.
    pub fn on_sent(&mut self, _broker: usize, times: Times) {
        if self.window.contains(times.due) {
            self.measured.lateness.record(times.sent.since(times.due));
        }
        self.series.on_sent(times.sent, &self.live.intervals);
        self.live.sent.increment();
        self.live.lateness.record(times.sent.since(times.due));
    }

    /// The broker says that it is stored.
    pub fn on_acked(&mut self, broker: usize, times: Times, now: RunTime) {
        let latency = now.since(times.due);
        if self.window.contains(times.due) {
            self.measured.publish.from_sent.record(now.since(times.sent));
            self.broker(broker).publish.record(latency);
        }
        if self.window.contains(now) {
            self.measured.acked_in_window += 1;
            self.broker(broker).acked_in_window += 1;
        }
        self.series.on_acked(latency, now, &self.live.intervals);
        self.live.acked.increment();
        self.live.publish.record(latency);
    }

    /// A message failed, or was stored with a reservation.
    pub fn on_publish_failed(&mut self, broker: usize, failure: Failure, remark: Option<&str>, now: RunTime) {
        self.measured.publish_failures.record(failure, remark);
        self.broker(broker).publish_failures.record(failure, remark);
        self.series.on_publish_failed(failure, now, &self.live.intervals);
        self.live.failed.increment();
    }

    /// A try failed, and another follows.
    pub fn on_resent(&mut self, failure: Failure) {
        self.measured.retries.record(failure, None);
    }

    /// A message was due and could not be sent.
    pub fn on_unsent(&mut self, broker: usize, failure: Failure, now: RunTime) {
        self.measured.unsent += 1;
        self.series.on_unsent(now, &self.live.intervals);
        self.on_publish_failed(broker, failure, None, now);
    }

    /// The first copy of a message arrives at a consumer; `times.due` is when it was due there.
    pub fn on_received(&mut self, broker: usize, times: Times, now: RunTime) {
        let latency = now.since(times.due);
        if self.window.contains(times.due) {
            self.measured.end_to_end.from_sent.record(now.since(times.sent));
            self.broker(broker).end_to_end.record(latency);
        }
        if self.window.contains(now) {
            self.measured.received_in_window += 1;
            self.broker(broker).received_in_window += 1;
        }
        self.series.on_received(latency, now, &self.live.intervals);
        self.live.received.increment();
        self.live.end_to_end.record(latency);
    }

    /// The broker confirms what a consumer asked at `asked`.
    pub fn on_consume_acked(&mut self, _broker: usize, asked: RunTime, now: RunTime) {
        let latency = now.since(asked);
        if self.window.contains(asked) {
            self.measured.consume_ack.record(latency);
        }
        self.series.on_consume_acked(latency, now, &self.live.intervals);
    }

    /// A pull, or a consumer's acknowledgement, failed.
    pub fn on_consume_failed(&mut self, broker: usize, failure: Failure, remark: Option<&str>, now: RunTime) {
        self.measured.consume_failures.record(failure, remark);
        self.broker(broker).consume_failures.record(failure, remark);
        self.series.on_consume_failed(failure, now, &self.live.intervals);
        self.live.failed.increment();
    }

    /// The thread looks for replies, and sleeps for `asleep` if there are none.
    pub fn on_look(&mut self, now: RunTime, asleep: Duration) {
        self.attention.on_look(now, asleep, self.window.contains(now));
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
        let mut measured = std::mem::take(&mut self.measured);
        for broker in &measured.brokers {
            measured.publish.from_due.merge(&broker.publish);
            measured.end_to_end.from_due.merge(&broker.end_to_end);
        }
        measured.gaps = self.attention.take();
        measured.series = self.series.finish(&self.live.intervals);
        measured
    }

    fn broker(&mut self, broker: usize) -> &mut BrokerMeasurements {
        self.expect_broker(broker);
        &mut self.measured.brokers[broker]
    }
}
