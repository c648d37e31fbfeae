//! Everything one publishing thread writes down, fed by its drivers with plain events.
//!
//! ```text
//! plan_send ──► on_acked | on_failed          one of them, once, for every message handed to a connection
//! on_unsent                                   a planned message that could not be handed to one
//! on_delivery                                 any number of times, whenever a pull brings something
//! ```

mod recorder;

use std::sync::Arc;

use rustc_hash::FxHashMap;

pub use self::recorder::{Measurements, Recorder, Times, TwiceMeasured, Window};
use crate::assignment::QueueTarget;
use crate::clock::RunTime;
use crate::failure::Failure;
use crate::ledger::{Delivery, StreamLedger};
use crate::live::Live;
use crate::payload::{self, RunId, Stamp, Unrecognised};
use crate::schedule::StreamId;

/// The books of one thread and the streams it owns.
#[derive(Debug)]
pub struct Tally {
    run: RunId,
    streams: FxHashMap<StreamId, Stream>,
    recorder: Recorder,
    in_flight: u32,
}

#[derive(Debug)]
struct Stream {
    ledger: StreamLedger,
    /// Index into the run's list of brokers.
    broker: usize,
}

impl Tally {
    /// The books of `targets`; `consumed` tells whether messages are to come back.
    pub fn new(
        run: RunId,
        window: Window,
        targets: &[QueueTarget],
        consumed: bool,
        live: Arc<Live>,
    ) -> Tally {
        let stream = |target: &QueueTarget| {
            (target.stream, Stream { ledger: StreamLedger::new(consumed), broker: target.broker })
        };
        let streams = targets.iter().map(stream).collect();
        Tally { run, streams, recorder: Recorder::new(window, live), in_flight: 0 }
    }

    /// A message is handed to a connection `now`; the stamp goes into it.
    pub fn plan_send(&mut self, id: StreamId, due: RunTime, now: RunTime) -> Stamp {
        let stream = self.stream(id);
        let (sequence, broker) = (stream.ledger.on_sent(), stream.broker);
        self.recorder.on_sent(broker, Times { due, sent: now });
        self.set_in_flight(self.in_flight + 1);
        Stamp { stream: id, sequence, due, sent: now }
    }

    /// A message was due but could not be handed to a connection.
    pub fn on_unsent(&mut self, id: StreamId, failure: Failure, now: RunTime) {
        let broker = self.stream(id).broker;
        self.recorder.on_unsent(broker, failure, now);
    }

    /// The broker stored the message; `note` is a reservation it made (`Failure::Answered` with 10, 11 or 12).
    pub fn on_acked(&mut self, stamp: &Stamp, now: RunTime, note: Option<(Failure, &str)>) {
        self.set_in_flight(self.in_flight - 1);
        let stream = self.stream(stamp.stream);
        stream.ledger.on_acked(stamp.sequence);
        let broker = stream.broker;
        self.recorder.on_acked(broker, times(stamp), now);
        if let Some((failure, remark)) = note {
            self.recorder.on_publish_failed(broker, failure, Some(remark), now);
        }
    }

    /// The message will not be acknowledged any more.
    pub fn on_failed(&mut self, stamp: &Stamp, now: RunTime, failure: Failure, remark: Option<&str>) {
        self.set_in_flight(self.in_flight - 1);
        let broker = self.stream(stamp.stream).broker;
        self.recorder.on_publish_failed(broker, failure, remark, now);
    }

    /// The queue of `stream` delivered a message with this body.
    pub fn on_delivery(&mut self, id: StreamId, body: &[u8], now: RunTime) {
        let run = self.run;
        let stream = self.stream(id);
        let stamp = match payload::read(run, body) {
            Ok(stamp) if stamp.stream == id => stamp,
            Ok(_) | Err(Unrecognised::Corrupted) => return stream.ledger.on_corrupted(),
            Err(Unrecognised::Foreign) => return stream.ledger.on_foreign(),
        };
        match stream.ledger.on_received(stamp.sequence) {
            Delivery::First | Delivery::OutOfOrder => {}
            Delivery::Duplicate | Delivery::NeverSent => return,
        }
        let broker = stream.broker;
        self.recorder.on_received(broker, times(&stamp), now);
    }

    pub fn on_pull_failed(&mut self, id: StreamId, now: RunTime, failure: Failure, remark: Option<&str>) {
        let broker = self.stream(id).broker;
        self.recorder.on_consume_failed(broker, failure, remark, now);
    }

    /// Messages handed to connections whose fate is open.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Acknowledged messages still to be received.
    pub fn awaited(&self) -> u64 {
        self.streams.values().map(|stream| stream.ledger.awaited()).sum()
    }

    /// Closes the books; what is still in flight counts as timed out.
    pub fn finish(&mut self) -> Measurements {
        self.recorder.on_abandoned(u64::from(self.in_flight));
        let mut measured = self.recorder.take();
        for stream in self.streams.values() {
            measured.ledger.add(&stream.ledger.totals());
        }
        measured
    }

    fn set_in_flight(&mut self, messages: u32) {
        self.in_flight = messages;
        self.recorder.set_in_flight(messages);
    }

    fn stream(&mut self, id: StreamId) -> &mut Stream {
        self.streams.get_mut(&id).unwrap_or_else(|| panic!("{id:?} belongs to another thread"))
    }
}

fn times(stamp: &Stamp) -> Times {
    Times { due: stamp.due, sent: stamp.sent }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::latency::Latency;
    use crate::payload::PayloadWriter;

    const RUN: RunId = RunId(77);
    const WARMUP: Duration = Duration::from_millis(10);
    const A: StreamId = StreamId(0);
    const B: StreamId = StreamId(1);

    fn at(micros: u64) -> RunTime {
        RunTime::START + Duration::from_micros(micros)
    }

    fn target(stream: StreamId) -> QueueTarget {
        QueueTarget { stream, topic: 0, broker: 0, queue_id: stream.0 as i32 }
    }

    fn tally() -> Tally {
        let window = Window { start: RunTime::START + WARMUP, end: RunTime::START + WARMUP * 2 };
        Tally::new(RUN, window, &[target(A), target(B)], true, Arc::default())
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
        let stamp = tally.plan_send(A, at(10_000), at(10_000));
        assert_eq!(tally.in_flight(), 1);
        tally.on_failed(&stamp, at(11_000), Failure::TimedOut, None);
        tally.on_unsent(A, Failure::InFlightLimit, at(11_000));
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
        let mut tally = Tally::new(RUN, window, &[target(A)], true, Arc::default());
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
