//! Everything one publishing thread writes down, fed by its drivers with plain events.
//!
//! ```text
//! plan_send ──► on_acked | on_failed          one of them, once, for every message handed to a connection, unless
//!                                             no answer was asked for
//! plan_prefill ──► on_acked | on_failed       the same before the run: in the ledger only
//! on_resent                                   any number of times before that: a try failed, another follows
//! on_unsent                                   a planned message that could not be handed to one
//! on_delivery                                 any number of times, whenever a request brings something
//! ```

mod consumers;
mod recorder;

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

pub use self::consumers::{CatchUp, ConsumerMeasurements};
pub use self::recorder::{BrokerMeasurements, Measurements, Recorder, Times, TwiceMeasured, Window};
use crate::assignment::QueueTarget;
use crate::clock::RunTime;
use crate::content::{Content, Fate};
use crate::failure::Failure;
use crate::gap::GapWatch;
use crate::ledger::{Delivery, LedgerTotals, StreamLedger};
use crate::live::Live;
use crate::payload::{self, Stamp, Unrecognised};
use crate::schedule::StreamId;

/// The books of one thread and the streams it owns.
#[derive(Debug)]
pub struct Tally {
    content: Arc<Content>,
    window: Window,
    streams: FxHashMap<StreamId, Stream>,
    /// What is of a group and of no stream: deliveries that are not to be.
    aside: Vec<LedgerTotals>,
    consumers: Vec<ConsumerMeasurements>,
    /// Whether some groups read as fast as they can; then the others are left out of the run's end-to-end figures.
    has_live: bool,
    rolled_back: u64,
    recorder: Recorder,
    gaps: GapWatch,
    in_flight: u32,
}

#[derive(Debug)]
struct Stream {
    /// One, or one for each key.
    lanes: Box<[StreamLedger]>,
    /// Index into the run's list of brokers.
    broker: usize,
}

impl Stream {
    fn was_resent(&self, stamp: &Stamp) -> bool {
        let lane = self.lanes.get(usize::from(stamp.lane));
        lane.is_some_and(|lane| lane.resent_to(stamp.sequence).is_some())
    }
}

/// When a message was wanted, and when the generator was free to send it.
///
/// The two differ for messages that wait for others by the user's wish: in a batch until it is full, of a key until
/// the one before is answered. That wait is in the latency, but it is not the generator's lateness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub due: RunTime,
    pub ready: RunTime,
}

impl From<RunTime> for Wanted {
    fn from(due: RunTime) -> Wanted {
        Wanted { due, ready: due }
    }
}

impl Tally {
    /// The books of `targets`.
    pub fn new(content: Arc<Content>, window: Window, targets: &[QueueTarget], live: Arc<Live>) -> Tally {
        let groups = content.groups().len();
        let lane = |_| StreamLedger::new(groups, content.is_acknowledged());
        let stream = |target: &QueueTarget| {
            (target.stream, Stream { lanes: (0..content.lanes()).map(lane).collect(), broker: target.broker })
        };
        let streams = targets.iter().map(stream).collect();
        let mut recorder = Recorder::new(window, live);
        targets.iter().for_each(|target| recorder.expect_broker(target.broker));
        Tally {
            window,
            streams,
            aside: vec![LedgerTotals::default(); groups],
            consumers: consumers::empty(content.groups()),
            has_live: content.groups().iter().any(|group| group.is_live),
            rolled_back: 0,
            recorder,
            gaps: GapWatch::new(targets.iter().map(|target| target.broker)),
            in_flight: 0,
            content,
        }
    }

    pub fn content(&self) -> &Arc<Content> {
        &self.content
    }

    /// A message is handed to a connection `now`; the stamp goes into it.
    pub fn plan_send(&mut self, id: StreamId, lane: u16, wanted: Wanted, now: RunTime) -> Stamp {
        let stream = stream(&mut self.streams, id);
        let sequence = number(&self.content, &mut stream.lanes[usize::from(lane)], false);
        self.recorder.on_sent(stream.broker, Times { due: wanted.ready, sent: now });
        if self.content.is_acknowledged() {
            self.gaps.on_due(stream.broker, wanted.due);
        }
        self.on_numbered(sequence);
        Stamp { stream: id, lane, sequence, due: wanted.due, sent: now }
    }

    /// A message is handed to a connection before the run.
    pub fn plan_prefill(&mut self, id: StreamId, lane: u16) -> Stamp {
        let stream = stream(&mut self.streams, id);
        let sequence = number(&self.content, &mut stream.lanes[usize::from(lane)], true);
        self.on_numbered(sequence);
        Stamp { stream: id, lane, sequence, due: Stamp::PREFILL, sent: Stamp::PREFILL }
    }

    fn on_numbered(&mut self, sequence: u64) {
        self.rolled_back += u64::from(self.content.fate(sequence) == Fate::Rollback);
        if self.content.is_acknowledged() {
            self.set_in_flight(self.in_flight + 1);
        }
    }

    /// A message was due but could not be handed to a connection.
    pub fn on_unsent(&mut self, id: StreamId, failure: Failure, now: RunTime) {
        let broker = self.broker(id);
        self.recorder.on_unsent(broker, failure, now);
        if self.content.is_acknowledged() {
            self.gaps.on_due(broker, now);
            self.gaps.on_failed(broker, now);
        }
    }

    /// The broker stored the message; `note` is a reservation it made (`Failure::Answered` with 10, 11 or 12).
    pub fn on_acked(&mut self, stamp: &Stamp, now: RunTime, note: Option<(Failure, &str)>) {
        self.set_in_flight(self.in_flight - 1);
        let stream = stream(&mut self.streams, stamp.stream);
        stream.lanes[usize::from(stamp.lane)].on_acked(stamp.sequence);
        // It is the broker of the last try that acknowledges, and the others' silence goes on.
        let last = stream.lanes[usize::from(stamp.lane)].resent_to(stamp.sequence).unwrap_or(stamp.stream);
        let broker = self.broker(last);
        if !stamp.is_prefill() {
            self.recorder.on_acked(broker, times(stamp), now);
            self.gaps.on_acked(broker, now);
        }
        if let Some((failure, remark)) = note {
            self.recorder.on_publish_failed(broker, failure, Some(remark), now);
        }
    }

    /// The message will not be acknowledged any more.
    pub fn on_failed(&mut self, stamp: &Stamp, now: RunTime, failure: Failure, remark: Option<&str>) {
        self.set_in_flight(self.in_flight - 1);
        let last =
            stream(&mut self.streams, stamp.stream).lanes[usize::from(stamp.lane)].resent_to(stamp.sequence);
        let last = last.unwrap_or(stamp.stream);
        self.on_publish_failed(last, now, failure, remark);
        if !stamp.is_prefill() {
            let broker = self.broker(last);
            self.gaps.on_failed(broker, now);
        }
    }

    /// The message goes to another queue of this thread too, `to`; the try before ended like this.
    pub fn on_resent(&mut self, stamp: &Stamp, to: StreamId, now: RunTime, failure: Failure) {
        let lane = &mut stream(&mut self.streams, stamp.stream).lanes[usize::from(stamp.lane)];
        let before = lane.resent_to(stamp.sequence).unwrap_or(stamp.stream);
        lane.on_resent(stamp.sequence, to);
        let (before, next) = (self.broker(before), self.broker(to));
        self.gaps.on_failed(before, now);
        self.gaps.on_due(next, now);
        self.recorder.on_resent(failure);
    }

    /// Something beside the message itself failed, as the end of a transaction.
    pub fn on_publish_failed(&mut self, id: StreamId, now: RunTime, failure: Failure, remark: Option<&str>) {
        let broker = self.broker(id);
        self.recorder.on_publish_failed(broker, failure, remark, now);
    }

    /// `group` was given a message with this body, out of the queue `from`; `None` if it was given again, which may
    /// happen through another queue than the one it was sent to.
    pub fn on_delivery(&mut self, group: usize, from: Option<StreamId>, body: &[u8], now: RunTime) {
        let aside = &mut self.aside[group];
        let stamp = match payload::read(self.content.run(), body) {
            Ok(stamp) if from.is_none_or(|from| from == stamp.stream) => stamp,
            Ok(stamp) if self.streams.get(&stamp.stream).is_some_and(|stream| stream.was_resent(&stamp)) => {
                stamp
            }
            Ok(_) | Err(Unrecognised::Corrupted) => return aside.corrupted += 1,
            Err(Unrecognised::Foreign) => return aside.foreign += 1,
        };
        let is_whole = body.len() == self.content.size(&stamp);
        let stream = self.streams.get_mut(&stamp.stream).filter(|_| is_whole);
        let Some(stream) = stream.filter(|stream| usize::from(stamp.lane) < stream.lanes.len()) else {
            return aside.corrupted += 1;
        };
        if !self.content.is_for(group, stamp.sequence) {
            match self.content.fate(stamp.sequence) {
                Fate::Rollback => aside.rolled_back_received += 1,
                Fate::Commit | Fate::CommitWhenAsked => aside.unwanted += 1,
            }
            return;
        }
        if stamp.is_prefill() && !self.content.is_for_prefill(group) {
            // A group that reads from the end is not owed it, but a broker may not have counted the last of it yet.
            return;
        }
        match stream.lanes[usize::from(stamp.lane)].on_received(group, stamp.sequence) {
            Delivery::First | Delivery::OutOfOrder => {}
            Delivery::Duplicate => return,
            Delivery::NeverSent => return aside.corrupted += 1,
        }
        if stamp.is_prefill() {
            return;
        }
        let (broker, times) = (stream.broker, times(&stamp));
        // The delay that was asked for is taken off: what is left is the broker's.
        let felt = match self.content.delay() {
            None => now,
            Some(delay) => {
                let counted_from = if delay.from_sent { times.sent } else { times.due };
                aside.early += u64::from(now + delay.early_max < counted_from + delay.length);
                now - delay.length
            }
        };
        let group = &self.content.groups()[group];
        if group.is_live || !self.has_live {
            self.recorder.on_received(broker, times, felt);
        }
        if self.consumers.len() > 1 && self.window.contains(times.due) {
            self.consumers[group.consumer].end_to_end.record(felt.since(times.due));
        }
    }

    /// A pull, a pop or the acknowledgement of a consumer failed.
    pub fn on_consume_failed(&mut self, id: StreamId, now: RunTime, failure: Failure, remark: Option<&str>) {
        let broker = self.broker(id);
        self.recorder.on_consume_failed(broker, failure, remark, now);
    }

    /// The broker confirmed what a consumer asked it to remember.
    pub fn on_consume_acked(&mut self, id: StreamId, asked: RunTime, now: RunTime) {
        let broker = self.broker(id);
        self.recorder.on_consume_acked(broker, asked, now);
    }

    /// So many messages of a queue lie before `group`.
    pub fn on_lag(&mut self, group: usize, messages: u64) {
        let consumer = &mut self.consumers[self.content.groups()[group].consumer];
        consumer.lag_max = consumer.lag_max.max(messages);
    }

    /// `group` has read a queue to its end for the first time.
    pub fn on_caught_up(&mut self, group: usize, catch_up: CatchUp) {
        self.consumers[self.content.groups()[group].consumer].catch_up.add(&catch_up);
    }

    /// The thread looks for replies, and sleeps for `asleep` if there are none.
    pub fn on_look(&mut self, now: RunTime, asleep: Duration) {
        self.recorder.on_look(now, asleep);
    }

    /// The plan is broken off: what comes later is not of the window.
    pub fn cut(&mut self, at: RunTime) {
        self.window.end = self.window.end.min(at);
        self.recorder.cut(at);
    }

    /// Messages handed to connections whose fate is open.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Messages owed to groups and still to be received.
    pub fn awaited(&self) -> u64 {
        self.ledgers().map(StreamLedger::awaited).sum()
    }

    /// Closes the books; what is still in flight counts as timed out. `is_behind` says which groups were still behind
    /// in which queue.
    pub fn finish(&mut self, is_behind: impl Fn(usize, StreamId) -> bool) -> Measurements {
        self.recorder.on_abandoned(u64::from(self.in_flight));
        let mut measured = self.recorder.take();
        measured.silences = self.gaps.finish(self.window.end);
        measured.ledger.rolled_back = self.rolled_back;
        self.ledgers().for_each(|ledger| measured.ledger.add(&ledger.sent_totals()));
        for (at, group) in self.content.groups().iter().enumerate() {
            let mut totals = self.aside[at];
            for (id, stream) in &self.streams {
                let unfinished = group.is_slow && is_behind(at, *id);
                stream.lanes.iter().for_each(|lane| totals.add(&lane.group_totals(at, unfinished)));
            }
            measured.ledger.add(&totals);
            self.consumers[group.consumer].groups.push((group.name.clone(), totals));
        }
        measured.consumers = std::mem::take(&mut self.consumers);
        measured
    }

    fn ledgers(&self) -> impl Iterator<Item = &StreamLedger> {
        self.streams.values().flat_map(|stream| stream.lanes.iter())
    }

    fn set_in_flight(&mut self, messages: u32) {
        self.in_flight = messages;
        self.recorder.set_in_flight(messages);
    }

    fn broker(&mut self, id: StreamId) -> usize {
        stream(&mut self.streams, id).broker
    }
}

fn stream(streams: &mut FxHashMap<StreamId, Stream>, id: StreamId) -> &mut Stream {
    streams.get_mut(&id).unwrap_or_else(|| panic!("{id:?} belongs to another thread"))
}

/// Gives a message its number and tells the ledger which groups are not to get it.
fn number(content: &Content, ledger: &mut StreamLedger, is_prefill: bool) -> u64 {
    let sequence = ledger.on_sent();
    if !content.is_for_all() || is_prefill {
        let is_owed =
            |group| content.is_for(group, sequence) && (!is_prefill || content.is_for_prefill(group));
        let groups = 0..content.groups().len();
        groups.filter(|group| !is_owed(*group)).for_each(|group| ledger.on_not_owed(group, sequence));
    }
    sequence
}

fn times(stamp: &Stamp) -> Times {
    Times { due: stamp.due, sent: stamp.sent }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Latency;
    use crate::payload::{PayloadWriter, RunId};
    use crate::scenario::{Consumer, Filter, From, Kind, Scenario, Sizes};

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
        Tally::new(content(|_| {}), window, &[target(A), target(B)], Arc::default())
    }

    fn content(change: impl FnOnce(&mut Scenario)) -> Arc<Content> {
        let mut scenario = Scenario::default();
        scenario.messages.size = Sizes::Fixed(100);
        change(&mut scenario);
        Content::new(RUN, &scenario).into()
    }

    fn body(stamp: &Stamp) -> bytes::Bytes {
        PayloadWriter::new(RUN, 100).write(stamp, 100)
    }

    #[test]
    fn latency_runs_from_the_due_time_and_beside_it_from_the_sending() {
        let mut tally = tally();
        let stamp = tally.plan_send(A, 0, at(10_000).into(), at(10_400));
        tally.on_acked(&stamp, at(11_000), None);
        tally.on_delivery(0, Some(A), &body(&stamp), at(12_000));
        let measured = tally.finish(|_, _| false);
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
        let stamp = tally.plan_send(A, 0, at(9_999).into(), at(9_999));
        tally.on_acked(&stamp, at(9_999), None);
        tally.on_delivery(0, Some(A), &body(&stamp), at(9_999));
        let measured = tally.finish(|_, _| false);
        assert_eq!(measured.publish.from_due.count() + measured.end_to_end.from_due.count(), 0);
        assert_eq!(measured.lateness.count() + measured.acked_in_window + measured.received_in_window, 0);
        assert_eq!((measured.ledger.sent, measured.ledger.acked, measured.ledger.received), (1, 1, 1));
    }

    #[test]
    fn failures_have_no_latency_but_are_counted() {
        let mut tally = tally();
        let stamp = tally.plan_send(A, 0, at(10_000).into(), at(10_000));
        assert_eq!(tally.in_flight(), 1);
        tally.on_failed(&stamp, at(11_000), Failure::TimedOut, None);
        tally.on_unsent(A, Failure::InFlightLimit, at(11_000));
        assert_eq!(tally.in_flight(), 0);
        let measured = tally.finish(|_, _| false);
        assert_eq!(measured.publish.from_due.count(), 0);
        assert_eq!((measured.publish_failures.total(), measured.unsent, measured.ledger.sent), (2, 1, 1));
        assert_eq!(measured.ledger.unacked, 1);
    }

    #[test]
    fn what_is_in_flight_at_the_end_has_timed_out() {
        let mut tally = tally();
        tally.plan_send(A, 0, at(0).into(), at(0));
        tally.plan_send(A, 0, at(1).into(), at(1));
        assert_eq!(tally.finish(|_, _| false).publish_failures.count(Failure::TimedOut), 2);
    }

    #[test]
    fn a_message_in_the_wrong_queue_is_corruption_and_leaves_the_right_one_waiting() {
        let mut tally = tally();
        let stamp = tally.plan_send(A, 0, at(0).into(), at(0));
        tally.on_acked(&stamp, at(1), None);
        tally.on_delivery(0, Some(B), &body(&stamp), at(2));
        assert_eq!(tally.awaited(), 1);
        let ledger = tally.finish(|_, _| false).ledger;
        assert_eq!((ledger.corrupted, ledger.lost, ledger.received), (1, 1, 0));
    }

    #[test]
    fn a_message_sent_again_may_come_from_either_queue_and_belongs_to_the_broker_that_took_it() {
        let window = Window { start: RunTime::START + WARMUP, end: RunTime::START + WARMUP * 2 };
        let targets = [target(A), QueueTarget { broker: 1, ..target(B) }];
        let mut tally = Tally::new(content(|_| {}), window, &targets, Arc::default());
        let stamp = tally.plan_send(A, 0, at(10_000).into(), at(10_000));
        tally.on_resent(&stamp, B, at(10_050), Failure::Disconnected);
        tally.on_acked(&stamp, at(10_100), None);
        tally.on_delivery(0, Some(B), &body(&stamp), at(10_200));
        tally.on_delivery(0, Some(A), &body(&stamp), at(10_300));
        let measured = tally.finish(|_, _| false);
        let ledger = measured.ledger;
        assert_eq!((ledger.sent, ledger.acked, ledger.received, ledger.lost), (1, 1, 1, 0));
        assert_eq!(
            (ledger.resent, ledger.duplicated, ledger.duplicated_resent, ledger.corrupted),
            (1, 0, 1, 0)
        );
        assert_eq!(
            (measured.retries.count(Failure::Disconnected), measured.publish_failures.total()),
            (1, 0)
        );
        let acked: Vec<_> = measured.brokers.iter().map(|broker| broker.acked_in_window).collect();
        assert_eq!(acked, [0, 1]);
    }

    #[test]
    fn second_copies_and_strangers_do_not_enter_the_distributions() {
        let mut tally = tally();
        let stamp = tally.plan_send(A, 0, at(10_000).into(), at(10_000));
        tally.on_delivery(0, Some(A), &body(&stamp), at(10_100));
        tally.on_delivery(0, Some(A), &body(&stamp), at(15_000));
        tally.on_delivery(0, Some(A), b"somebody else's message", at(15_000));
        let measured = tally.finish(|_, _| false);
        assert_eq!(measured.end_to_end.from_due.count(), 1);
        assert_eq!((measured.ledger.duplicated, measured.ledger.foreign), (1, 1));
    }

    fn tally_of(change: impl FnOnce(&mut Scenario)) -> Tally {
        let window = Window { start: RunTime::START + WARMUP, end: RunTime::START + WARMUP * 2 };
        Tally::new(content(change), window, &[target(A)], Arc::default())
    }

    #[test]
    fn each_group_is_owed_each_message_once() {
        let mut tally = tally_of(|scenario| scenario.consumers[0].groups = 2);
        let stamp = tally.plan_send(A, 0, at(10_000).into(), at(10_000));
        tally.on_acked(&stamp, at(10_100), None);
        tally.on_delivery(0, Some(A), &body(&stamp), at(10_200));
        assert_eq!(tally.awaited(), 1);
        tally.on_delivery(0, Some(A), &body(&stamp), at(10_200));
        let measured = tally.finish(|_, _| false);
        assert_eq!((measured.ledger.received, measured.ledger.lost, measured.ledger.duplicated), (1, 1, 1));
        let lost: Vec<_> = measured.consumers[0].groups.iter().map(|(_, books)| books.lost).collect();
        assert_eq!((lost, measured.end_to_end.from_due.count()), (vec![0, 1], 1));
    }

    #[test]
    fn what_a_filter_does_not_want_is_not_owed_and_unwanted_when_it_comes() {
        let filter = Some(Filter::Tags("B".into()));
        let mut tally = tally_of(|scenario| {
            scenario.messages.tags = vec!["A".into(), "B".into()];
            scenario.consumers[0].filter = filter;
        });
        for micros in 0..2 {
            let stamp = tally.plan_send(A, 0, at(micros).into(), at(micros));
            tally.on_acked(&stamp, at(micros), None);
            assert_eq!(tally.awaited(), micros);
            tally.on_delivery(0, Some(A), &body(&stamp), at(micros));
        }
        let ledger = tally.finish(|_, _| false).ledger;
        assert_eq!((ledger.received, ledger.unwanted, ledger.lost), (1, 1, 0));
    }

    #[test]
    fn a_rolled_back_message_is_owed_to_nobody() {
        let kind = Kind::Transactional { rollback: 100, check: 0, reply: false };
        let mut tally = tally_of(|scenario| scenario.messages.kind = kind);
        let stamp = tally.plan_send(A, 0, at(0).into(), at(0));
        tally.on_acked(&stamp, at(1), None);
        assert_eq!(tally.awaited(), 0);
        tally.on_delivery(0, Some(A), &body(&stamp), at(2));
        let ledger = tally.finish(|_, _| false).ledger;
        assert_eq!((ledger.rolled_back, ledger.rolled_back_received, ledger.received), (1, 1, 0));
    }

    #[test]
    fn the_latency_of_a_delayed_message_is_what_goes_beyond_its_delay() {
        let second = Duration::from_secs(1);
        let mut tally = tally_of(|scenario| scenario.messages.kind = Kind::Delayed { level: 1 });
        let sent: Vec<_> = (0..3).map(|_| tally.plan_send(A, 0, at(10_000).into(), at(10_200))).collect();
        tally.on_delivery(0, Some(A), &body(&sent[0]), at(10_500) + second);
        // The broker's clock ticks in milliseconds: 800 µs too early are none.
        tally.on_delivery(0, Some(A), &body(&sent[1]), at(9_400) + second);
        tally.on_delivery(0, Some(A), &body(&sent[2]), at(9_100) + second);
        let measured = tally.finish(|_, _| false);
        let latency = measured.end_to_end.from_due.summary();
        assert_eq!((latency.max_us, latency.count, measured.ledger.early), (Some(500.0), 3, 1));
    }

    #[test]
    fn a_prefill_is_in_the_ledger_only_and_owed_to_those_who_begin_before_it() {
        let from = |from, group: &str| Consumer { from, group: group.into(), ..Consumer::default() };
        let mut tally = tally_of(|scenario| {
            scenario.consumers = vec![from(From::End, "live"), from(From::Start, "late")];
        });
        let stamp = tally.plan_prefill(A, 0);
        tally.on_acked(&stamp, at(0), None);
        assert_eq!(tally.awaited(), 1);
        tally.on_delivery(1, Some(A), &body(&stamp), at(12_000));
        let measured = tally.finish(|_, _| false);
        assert_eq!((measured.ledger.sent, measured.ledger.received, measured.ledger.lost), (1, 1, 0));
        let samples = measured.publish.from_due.count() + measured.end_to_end.from_due.count();
        assert_eq!(samples + measured.consumers[1].end_to_end.count(), 0);
    }

    #[test]
    fn of_late_readers_the_latencies_stand_apart() {
        let group = |group: &str, pause| Consumer { group: group.into(), pause, ..Consumer::default() };
        let mut tally = tally_of(|scenario| {
            scenario.consumers = vec![group("live", Duration::ZERO), group("slow", WARMUP)];
        });
        let stamps: Vec<_> = (0..2).map(|_| tally.plan_send(A, 0, at(10_000).into(), at(10_000))).collect();
        for stamp in &stamps {
            tally.on_acked(stamp, at(10_050), None);
            tally.on_delivery(0, Some(A), &body(stamp), at(10_100));
        }
        tally.on_delivery(1, Some(A), &body(&stamps[0]), at(90_000));
        let measured = tally.finish(|group, _| group == 1);
        assert_eq!(measured.end_to_end.from_due.summary().max_us, Some(100.0));
        assert_eq!(measured.consumers[1].end_to_end.summary().max_us, Some(80_000.0));
        assert_eq!((measured.ledger.unread, measured.ledger.lost), (1, 0));
    }

    #[test]
    fn a_wait_by_the_users_wish_is_in_the_latency_and_no_lateness() {
        let mut tally = tally();
        let stamp = tally.plan_send(A, 0, Wanted { due: at(10_000), ready: at(11_000) }, at(11_010));
        tally.on_acked(&stamp, at(12_000), None);
        let measured = tally.finish(|_, _| false);
        let max = |latency: &Latency| latency.summary().max_us.unwrap();
        assert_eq!((max(&measured.lateness), max(&measured.publish.from_due)), (10.0, 2_000.0));
    }

    #[test]
    fn a_message_of_another_size_than_sent_is_corrupted() {
        let mut tally = tally();
        let stamp = tally.plan_send(A, 0, at(0).into(), at(0));
        let body = PayloadWriter::new(RUN, 101).write(&stamp, 101);
        tally.on_delivery(0, Some(A), &body, at(1));
        assert_eq!(tally.finish(|_, _| false).ledger.corrupted, 1);
    }

    /// A broker that answers each message after 100 µs, except that from 400 ms on it does nothing for 200 ms.
    #[test]
    fn the_spectrum_of_a_stall_is_the_computed_one() {
        let window = Window { start: RunTime::START, end: at(2_000_000) };
        let mut tally = Tally::new(content(|_| {}), window, &[target(A)], Arc::default());
        for message in 0..20_000 {
            let due = at(message * 100);
            let stamp = tally.plan_send(A, 0, due.into(), due);
            let answered =
                if (400_000..600_000).contains(&(message * 100)) { at(600_100) } else { due + WARMUP / 100 };
            tally.on_acked(&stamp, answered, None);
        }
        // One message in ten was due in the stall; their latencies fall evenly from 200.1 ms to 0.2 ms.
        let summary = tally.finish(|_, _| false).publish.from_due.summary();
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
            let stamp = tally.plan_send(stream, 0, at(12_000).into(), at(12_000));
            tally.on_acked(
                &stamp,
                at(13_000),
                Some((Failure::Answered(apogee_net::code::ResponseCode(10)), "late")),
            );
            sum.merge(&tally.finish(|_, _| false));
        }
        assert_eq!((sum.ledger.acked, sum.publish.from_due.count(), sum.publish_failures.total()), (2, 2, 2));
        assert_eq!(sum.acked_in_window, 2);
    }
}
