//! Everything one publishing thread writes down, fed by its drivers with plain events.
//!
//! ```text
//! plan_send ──► on_acked | on_failed          one of them, once, for every message handed to a connection
//! on_unsent                                   a planned message that could not be handed to one
//! on_delivery                                 any number of times, whenever a pull brings something
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::RunTime;
use crate::failure::{Failure, Failures};
use crate::latency::Latency;
use crate::ledger::{Delivery, LedgerTotals, StreamLedger};
use crate::live::Live;
use crate::payload::{self, RunId, Stamp, Unrecognised};
use crate::schedule::StreamId;

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

/// A latency measured twice: from when the message was wanted, and from when the generator really sent it.
///
/// The first is what a user of the broker would feel; the difference is the generator's own fault.
#[derive(Clone, Debug, Default)]
pub struct TwiceMeasured {
    pub from_due: Latency,
    pub from_sent: Latency,
}

impl TwiceMeasured {
    fn record(&mut self, stamp: &Stamp, now: RunTime) {
        self.from_due.record(now.since(stamp.due));
        self.from_sent.record(now.since(stamp.sent));
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
    /// How late messages left, against the plan.
    pub lateness: Latency,
    /// Failures of messages, warm-up included.
    pub publish_failures: Failures,
    /// Failures of pulls.
    pub consume_failures: Failures,
    /// Planned messages that were never handed to a connection; their reasons are among `publish_failures`.
    pub unsent: u64,
    /// Acknowledgements that arrived within the window.
    pub acked_in_window: u64,
    /// First deliveries that arrived within the window.
    pub received_in_window: u64,
    pub ledger: LedgerTotals,
}

impl Measurements {
    pub fn merge(&mut self, other: &Measurements) {
        self.publish.merge(&other.publish);
        self.end_to_end.merge(&other.end_to_end);
        self.lateness.merge(&other.lateness);
        self.publish_failures.merge(&other.publish_failures);
        self.consume_failures.merge(&other.consume_failures);
        self.unsent += other.unsent;
        self.acked_in_window += other.acked_in_window;
        self.received_in_window += other.received_in_window;
        self.ledger.add(&other.ledger);
    }
}

/// The books of one thread and the streams it owns.
#[derive(Debug)]
pub struct Tally {
    run: RunId,
    window: Window,
    ledgers: BTreeMap<StreamId, StreamLedger>,
    measured: Measurements,
    in_flight: u32,
    live: Arc<Live>,
}

impl Tally {
    pub fn new(run: RunId, window: Window, streams: &[StreamId], consumed: bool, live: Arc<Live>) -> Tally {
        let ledgers = streams.iter().map(|stream| (*stream, StreamLedger::new(consumed))).collect();
        Tally { run, window, ledgers, measured: Measurements::default(), in_flight: 0, live }
    }

    /// A message is handed to a connection `now`; the stamp goes into it.
    pub fn plan_send(&mut self, stream: StreamId, due: RunTime, now: RunTime) -> Stamp {
        let sequence = self.ledger(stream).on_sent();
        if self.window.contains(due) {
            self.measured.lateness.record(now.since(due));
        }
        self.set_in_flight(self.in_flight + 1);
        self.live.sent.increment();
        Stamp { stream, sequence, due, sent: now }
    }

    /// A message was due but could not be handed to a connection.
    pub fn on_unsent(&mut self, failure: Failure) {
        self.measured.unsent += 1;
        self.measured.publish_failures.record(failure, None);
        self.live.failed.increment();
    }

    /// The broker stored the message; `note` is a reservation it made (`Failure::Answered` with 10, 11 or 12).
    pub fn on_acked(&mut self, stamp: &Stamp, now: RunTime, note: Option<(Failure, &str)>) {
        self.set_in_flight(self.in_flight - 1);
        self.ledger(stamp.stream).on_acked(stamp.sequence);
        if self.window.contains(stamp.due) {
            self.measured.publish.record(stamp, now);
        }
        if self.window.contains(now) {
            self.measured.acked_in_window += 1;
        }
        self.live.acked.increment();
        self.live.publish.record(now.since(stamp.due));
        if let Some((failure, remark)) = note {
            self.measured.publish_failures.record(failure, Some(remark));
            self.live.failed.increment();
        }
    }

    /// The message will not be acknowledged any more.
    pub fn on_failed(&mut self, failure: Failure, remark: Option<&str>) {
        self.set_in_flight(self.in_flight - 1);
        self.measured.publish_failures.record(failure, remark);
        self.live.failed.increment();
    }

    /// The queue of `stream` delivered a message with this body.
    pub fn on_delivery(&mut self, stream: StreamId, body: &[u8], now: RunTime) {
        let run = self.run;
        let stamp = match payload::read(run, body) {
            Ok(stamp) if stamp.stream == stream => stamp,
            Ok(_) | Err(Unrecognised::Corrupted) => return self.ledger(stream).on_corrupted(),
            Err(Unrecognised::Foreign) => return self.ledger(stream).on_foreign(),
        };
        match self.ledger(stream).on_received(stamp.sequence) {
            Delivery::First | Delivery::OutOfOrder => {}
            Delivery::Duplicate | Delivery::NeverSent => return,
        }
        if self.window.contains(stamp.due) {
            self.measured.end_to_end.record(&stamp, now);
        }
        if self.window.contains(now) {
            self.measured.received_in_window += 1;
        }
        self.live.received.increment();
        self.live.end_to_end.record(now.since(stamp.due));
    }

    pub fn on_pull_failed(&mut self, failure: Failure, remark: Option<&str>) {
        self.measured.consume_failures.record(failure, remark);
        self.live.failed.increment();
    }

    /// Messages handed to connections whose fate is open.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Acknowledged messages still to be received.
    pub fn awaited(&self) -> u64 {
        self.ledgers.values().map(StreamLedger::awaited).sum()
    }

    /// Closes the books; what is still in flight counts as timed out.
    pub fn finish(&mut self) -> Measurements {
        let mut measured = std::mem::take(&mut self.measured);
        measured.publish_failures.record_many(Failure::TimedOut, u64::from(self.in_flight));
        for ledger in self.ledgers.values() {
            measured.ledger.add(&ledger.totals());
        }
        measured
    }

    fn set_in_flight(&mut self, messages: u32) {
        self.in_flight = messages;
        self.live.in_flight.set(u64::from(messages));
    }

    fn ledger(&mut self, stream: StreamId) -> &mut StreamLedger {
        self.ledgers.get_mut(&stream).unwrap_or_else(|| panic!("{stream:?} belongs to another thread"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::payload::PayloadWriter;

    const RUN: RunId = RunId(77);
    const WARMUP: Duration = Duration::from_millis(10);
    const A: StreamId = StreamId(0);
    const B: StreamId = StreamId(1);

    fn at(micros: u64) -> RunTime {
        RunTime::START + Duration::from_micros(micros)
    }

    fn tally() -> Tally {
        let window = Window { start: RunTime::START + WARMUP, end: RunTime::START + WARMUP * 2 };
        Tally::new(RUN, window, &[A, B], true, Arc::default())
    }

    fn body(stamp: &Stamp) -> bytes::Bytes {
        PayloadWriter::new(RUN, 100).write(stamp)
    }

    #[test]
    fn latency_runs_from_the_due_time_and_beside_it_from_the_sending() {
        let mut tally = tally();
        let stamp = tally.plan_send(A, at(10_000), at(10_400));
        tally.on_acked(&stamp, at(11_000), None);
        tally.on_delivery(A, &body(&stamp), at(12_000));
        let measured = tally.finish();
        let max = |latency: &Latency| latency.summary().max_us.unwrap();
        assert_eq!((max(&measured.publish.from_due), max(&measured.publish.from_sent)), (1_000.0, 600.0));
        assert_eq!(
            (max(&measured.end_to_end.from_due), max(&measured.end_to_end.from_sent)),
            (2_000.0, 1_600.0)
        );
        assert_eq!(max(&measured.lateness), 400.0);
    }

    #[test]
    fn the_warm_up_is_in_the_ledger_but_in_no_distribution() {
        let mut tally = tally();
        let stamp = tally.plan_send(A, at(9_999), at(9_999));
        tally.on_acked(&stamp, at(9_999), None);
        tally.on_delivery(A, &body(&stamp), at(9_999));
        let measured = tally.finish();
        assert_eq!(measured.publish.from_due.count() + measured.end_to_end.from_due.count(), 0);
        assert_eq!(measured.lateness.count() + measured.acked_in_window + measured.received_in_window, 0);
        assert_eq!((measured.ledger.sent, measured.ledger.acked, measured.ledger.received), (1, 1, 1));
    }

    #[test]
    fn failures_have_no_latency_but_are_counted() {
        let mut tally = tally();
        tally.plan_send(A, at(10_000), at(10_000));
        assert_eq!(tally.in_flight(), 1);
        tally.on_failed(Failure::TimedOut, None);
        tally.on_unsent(Failure::InFlightLimit);
        assert_eq!(tally.in_flight(), 0);
        let measured = tally.finish();
        assert_eq!(measured.publish.from_due.count(), 0);
        assert_eq!((measured.publish_failures.total(), measured.unsent, measured.ledger.sent), (2, 1, 1));
        assert_eq!(measured.ledger.unacked, 1);
    }

    #[test]
    fn what_is_in_flight_at_the_end_has_timed_out() {
        let mut tally = tally();
        tally.plan_send(A, at(0), at(0));
        tally.plan_send(A, at(1), at(1));
        assert_eq!(tally.finish().publish_failures.count(Failure::TimedOut), 2);
    }

    #[test]
    fn a_message_in_the_wrong_queue_is_corruption_and_leaves_the_right_one_waiting() {
        let mut tally = tally();
        let stamp = tally.plan_send(A, at(0), at(0));
        tally.on_acked(&stamp, at(1), None);
        tally.on_delivery(B, &body(&stamp), at(2));
        assert_eq!(tally.awaited(), 1);
        let ledger = tally.finish().ledger;
        assert_eq!((ledger.corrupted, ledger.lost, ledger.received), (1, 1, 0));
    }

    #[test]
    fn second_copies_and_strangers_do_not_enter_the_distributions() {
        let mut tally = tally();
        let stamp = tally.plan_send(A, at(10_000), at(10_000));
        tally.on_delivery(A, &body(&stamp), at(10_100));
        tally.on_delivery(A, &body(&stamp), at(15_000));
        tally.on_delivery(A, b"somebody else's message", at(15_000));
        let measured = tally.finish();
        assert_eq!(measured.end_to_end.from_due.count(), 1);
        assert_eq!((measured.ledger.duplicated, measured.ledger.foreign), (1, 1));
    }

    /// A broker that answers each message after 100 µs, except that from 400 ms on it does nothing for 200 ms.
    #[test]
    fn the_spectrum_of_a_stall_is_the_computed_one() {
        let window = Window { start: RunTime::START, end: at(2_000_000) };
        let mut tally = Tally::new(RUN, window, &[A], true, Arc::default());
        for message in 0..20_000 {
            let due = at(message * 100);
            let stamp = tally.plan_send(A, due, due);
            let answered =
                if (400_000..600_000).contains(&(message * 100)) { at(600_100) } else { due + WARMUP / 100 };
            tally.on_acked(&stamp, answered, None);
        }
        // One message in ten was due in the stall; their latencies fall evenly from 200.1 ms to 0.2 ms.
        let summary = tally.finish().publish.from_due.summary();
        let exact = [
            (summary.p50_us, 100.0),
            (summary.p90_us, 100.0),
            (summary.p99_us, 180_100.0),
            (summary.p999_us, 198_100.0),
        ];
        for (measured, exact) in exact {
            let measured = measured.unwrap();
            assert!((measured - exact).abs() <= exact * 0.001 + 0.1, "{measured} instead of {exact}");
        }
        assert_eq!((summary.max_us, summary.count, summary.p9999_us), (Some(200_100.0), 20_000, None));
    }

    #[test]
    fn threads_add_up() {
        let mut sum = Measurements::default();
        for stream in [A, B] {
            let mut tally = tally();
            let stamp = tally.plan_send(stream, at(12_000), at(12_000));
            tally.on_acked(
                &stamp,
                at(13_000),
                Some((Failure::Answered(apogee_net::code::ResponseCode(10)), "late")),
            );
            sum.merge(&tally.finish());
        }
        assert_eq!((sum.ledger.acked, sum.publish.from_due.count(), sum.publish_failures.total()), (2, 2, 2));
        assert_eq!(sum.acked_in_window, 2);
    }
}
