//! A run over time: what happened in each interval, by when it was noticed.
//!
//! ```text
//! publishing thread                                   watching thread
//! events ──► SeriesWriter ── interval is over ──► Handover ── every tick ──► Series
//!            cells, counts    (one per second)     (bounded)                  (bounded)
//! ```
//!
//! Nothing is left out: where the handover is full, the interval goes on and says so by its length; where a run has
//! more intervals than are kept, neighbours are merged. An interval in which nothing happened is one with zeros.

use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

use crate::clock::RunTime;
use crate::failure::{Failure, Failures};
use crate::latency::{GatheredLatency, SparseLatency};

/// Length of an interval unless set otherwise.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

/// Intervals of one run. Of longer runs, the intervals are twice, four times, … as long as asked for: 24 hours are
/// kept by intervals of 128 s.
pub const INTERVALS_MAX: u64 = 1024;

/// Intervals of one thread that wait for the watching thread. It looks ten times a second.
pub const HANDOVER_MAX: usize = 16;

/// What happened from one moment to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// In intervals of the length asked for, counted from the start of the run.
    pub first: u64,
    /// One past the last.
    pub end: u64,
    pub sent: u64,
    /// Planned, but never handed to a connection.
    pub unsent: u64,
    pub acked: u64,
    /// First deliveries.
    pub received: u64,
    pub publish_failures: Failures,
    pub consume_failures: Failures,
    /// From when messages were due.
    pub publish: SparseLatency,
    pub end_to_end: SparseLatency,
    pub consume_ack: SparseLatency,
}

impl Interval {
    fn merge(&mut self, other: &Interval) {
        self.first = self.first.min(other.first);
        self.end = self.end.max(other.end);
        self.sent += other.sent;
        self.unsent += other.unsent;
        self.acked += other.acked;
        self.received += other.received;
        self.publish_failures.merge(&other.publish_failures);
        self.consume_failures.merge(&other.consume_failures);
        self.publish.merge(&other.publish);
        self.end_to_end.merge(&other.end_to_end);
        self.consume_ack.merge(&other.consume_ack);
    }
}

/// The intervals of a run, in order and without overlap; those without events are implied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    interval: Duration,
    /// So many intervals are kept as one; a power of two.
    together: u64,
    intervals: Vec<Interval>,
}

impl Default for Series {
    fn default() -> Series {
        Series::new(INTERVAL_DEFAULT)
    }
}

impl Series {
    pub fn new(interval: Duration) -> Series {
        Series { interval, together: 1, intervals: Vec::new() }
    }

    /// Length of one interval as it was asked for.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Adds what one thread saw; intervals that overlap become one.
    pub fn add(&mut self, mut new: Interval) {
        while new.end.div_ceil(self.together) > INTERVALS_MAX {
            self.together *= 2;
            for interval in std::mem::take(&mut self.intervals) {
                self.add(interval);
            }
        }
        new.first -= new.first % self.together;
        new.end = new.end.next_multiple_of(self.together);
        let at = self.intervals.partition_point(|interval| interval.end <= new.first);
        let overlapping = self.intervals[at..].iter().take_while(|interval| interval.first < new.end).count();
        for interval in self.intervals.drain(at..at + overlapping) {
            new.merge(&interval);
        }
        self.intervals.insert(at, new);
    }

    pub fn merge(&mut self, other: &Series) {
        if self.intervals.is_empty() {
            return self.clone_from(other);
        }
        if !other.intervals.is_empty() {
            assert_eq!(self.interval, other.interval, "threads of one run");
        }
        other.intervals.iter().for_each(|interval| self.add(interval.clone()));
    }

    /// All failures so far, of messages and of pulls, by their kind.
    pub fn failures(&self) -> Failures {
        let mut all = Failures::default();
        for interval in &self.intervals {
            all.merge(&interval.publish_failures);
            all.merge(&interval.consume_failures);
        }
        all
    }

    /// All intervals from the start of the run to `until` or the last event, whichever is later; those in which
    /// nothing happened are there too.
    pub fn intervals(&self, until: Duration) -> Vec<Interval> {
        let until = until.as_nanos().div_ceil(self.interval.as_nanos().max(1)) as u64;
        let mut whole = Series { intervals: Vec::new(), ..*self };
        let mut next = 0;
        let end = self.intervals.last().map_or(0, |interval| interval.end).max(until);
        for interval in &self.intervals {
            whole.add_zeros(next, interval.first);
            whole.add(interval.clone());
            next = interval.end;
        }
        whole.add_zeros(next, end);
        whole.intervals
    }

    fn add_zeros(&mut self, from: u64, to: u64) {
        let mut first = from;
        while first < to {
            // Read anew each time: adding may merge intervals.
            let end = (first + self.together).min(to);
            self.add(Interval { first, end, ..Interval::default() });
            first = end;
        }
    }
}

/// Gathers what happens to one thread, and hands it over when an interval is through.
#[derive(Debug)]
pub struct SeriesWriter {
    interval_nanos: u64,
    /// When the interval under way ends.
    end: RunTime,
    current: Interval,
    is_empty: bool,
    publish: GatheredLatency,
    end_to_end: GatheredLatency,
    consume_ack: GatheredLatency,
}

impl SeriesWriter {
    pub fn new(interval: Duration) -> SeriesWriter {
        let interval_nanos = RunTime::after_start(interval).as_nanos().max(1);
        SeriesWriter {
            interval_nanos,
            end: RunTime::from_nanos(interval_nanos),
            current: Interval { end: 1, ..Interval::default() },
            is_empty: true,
            publish: GatheredLatency::default(),
            end_to_end: GatheredLatency::default(),
            consume_ack: GatheredLatency::default(),
        }
    }

    pub fn on_sent(&mut self, now: RunTime, to: &Handover) {
        self.advance(now, to);
        self.current.sent += 1;
    }

    pub fn on_unsent(&mut self, now: RunTime, to: &Handover) {
        self.advance(now, to);
        self.current.unsent += 1;
    }

    pub fn on_acked(&mut self, latency: Duration, now: RunTime, to: &Handover) {
        self.advance(now, to);
        self.current.acked += 1;
        self.publish.record(latency);
    }

    pub fn on_received(&mut self, latency: Duration, now: RunTime, to: &Handover) {
        self.advance(now, to);
        self.current.received += 1;
        self.end_to_end.record(latency);
    }

    pub fn on_consume_acked(&mut self, latency: Duration, now: RunTime, to: &Handover) {
        self.advance(now, to);
        self.consume_ack.record(latency);
    }

    pub fn on_publish_failed(&mut self, failure: Failure, now: RunTime, to: &Handover) {
        self.advance(now, to);
        self.current.publish_failures.record(failure, None);
    }

    pub fn on_consume_failed(&mut self, failure: Failure, now: RunTime, to: &Handover) {
        self.advance(now, to);
        self.current.consume_failures.record(failure, None);
    }

    /// What has been handed over and not been fetched, and the interval under way; nothing is left.
    pub fn finish(&mut self, from: &Handover) -> Series {
        let mut series = Series::new(Duration::from_nanos(self.interval_nanos));
        from.fetch(&mut series);
        if !self.is_empty {
            let last = self.take();
            series.add(last);
        }
        series
    }

    /// To be called first by every event. Clocks of two events may be read in another order than they are reported;
    /// what is late by so little counts with the interval under way.
    fn advance(&mut self, now: RunTime, to: &Handover) {
        if now >= self.end {
            self.roll(now, to);
        }
        self.is_empty = false;
    }

    #[cold]
    fn roll(&mut self, now: RunTime, to: &Handover) {
        if !self.is_empty && !to.put(|| self.take()) {
            self.set_end(now);
            return;
        }
        self.current.first = now.as_nanos() / self.interval_nanos;
        self.set_end(now);
    }

    fn set_end(&mut self, now: RunTime) {
        self.current.end = now.as_nanos() / self.interval_nanos + 1;
        self.end = RunTime::from_nanos(self.current.end.saturating_mul(self.interval_nanos));
    }

    fn take(&mut self) -> Interval {
        self.is_empty = true;
        Interval {
            publish: self.publish.take(),
            end_to_end: self.end_to_end.take(),
            consume_ack: self.consume_ack.take(),
            ..std::mem::take(&mut self.current)
        }
    }
}

/// Finished intervals on their way from the thread that wrote them to the one that collects them. The writer never
/// waits.
#[derive(Debug)]
pub struct Handover {
    interval: Duration,
    waiting: Mutex<Vec<Interval>>,
}

impl Default for Handover {
    fn default() -> Handover {
        Handover::new(INTERVAL_DEFAULT)
    }
}

impl Handover {
    pub fn new(interval: Duration) -> Handover {
        Handover { interval, waiting: Mutex::new(Vec::with_capacity(HANDOVER_MAX)) }
    }

    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Takes the interval, unless there is no room or the other side is just fetching; then it is not made.
    fn put(&self, make: impl FnOnce() -> Interval) -> bool {
        let mut waiting = match self.waiting.try_lock() {
            Ok(waiting) => waiting,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let has_room = waiting.len() < HANDOVER_MAX;
        if has_room {
            waiting.push(make());
        }
        has_room
    }

    /// Moves all that waits into `series`.
    pub fn fetch(&self, series: &mut Series) {
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *waiting, Vec::with_capacity(HANDOVER_MAX))
        };
        waiting.into_iter().for_each(|interval| series.add(interval));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> RunTime {
        RunTime::START + Duration::from_millis(millis)
    }

    fn writer() -> (SeriesWriter, Handover) {
        (SeriesWriter::new(INTERVAL_DEFAULT), Handover::default())
    }

    fn spans(series: &Series, until: Duration) -> Vec<(u64, u64, u64)> {
        series.intervals(until).iter().map(|interval| (interval.first, interval.end, interval.sent)).collect()
    }

    #[test]
    fn events_count_in_the_second_in_which_they_are_noticed_and_silent_seconds_are_zeros() {
        let (mut writer, handover) = writer();
        for millis in [0, 999, 1_000, 4_500] {
            writer.on_sent(at(millis), &handover);
        }
        writer.on_acked(Duration::from_millis(3_500), at(4_600), &handover);
        writer.on_publish_failed(Failure::TimedOut, at(4_700), &handover);
        let series = writer.finish(&handover);
        assert_eq!(
            spans(&series, Duration::from_millis(6_500)),
            [(0, 1, 2), (1, 2, 1), (2, 3, 0), (3, 4, 0), (4, 5, 1), (5, 6, 0), (6, 7, 0)]
        );
        let intervals = series.intervals(Duration::ZERO);
        assert_eq!(intervals.len(), 5);
        assert_eq!(intervals[4].publish.max(), Some(Duration::from_millis(3_500)));
        assert_eq!((intervals[4].publish_failures.total(), intervals[3].publish_failures.total()), (1, 0));
    }

    #[test]
    fn an_interval_that_nobody_fetches_goes_on_and_says_so() {
        let (mut writer, handover) = writer();
        let seconds = HANDOVER_MAX as u64 + 10;
        for second in 0..seconds {
            writer.on_sent(at(second * 1_000), &handover);
        }
        let series = writer.finish(&handover);
        let last = series.intervals(Duration::ZERO).last().cloned().unwrap();
        assert_eq!((last.first, last.end, last.sent), (HANDOVER_MAX as u64, seconds, 10));
        assert_eq!(spans(&series, Duration::ZERO).iter().map(|span| span.2).sum::<u64>(), seconds);
    }

    #[test]
    fn threads_add_up_whatever_the_order() {
        let thread = |seconds: &[u64]| {
            let (mut writer, handover) = writer();
            seconds.iter().for_each(|second| writer.on_sent(at(second * 1_000), &handover));
            writer.finish(&handover)
        };
        let mut sum = thread(&[2, 3]);
        sum.merge(&thread(&[0, 2]));
        sum.merge(&Series::default());
        assert_eq!(spans(&sum, Duration::ZERO), [(0, 1, 1), (1, 2, 0), (2, 3, 2), (3, 4, 1)]);
        let mut none = Series::new(Duration::from_millis(100));
        none.merge(&sum);
        assert_eq!(none, sum);
    }

    #[test]
    fn a_long_run_is_kept_in_longer_intervals() {
        let (mut writer, handover) = writer();
        let mut series = Series::default();
        let day = 24 * 3_600;
        for second in 0..day {
            writer.on_sent(at(second * 1_000), &handover);
            writer.on_acked(Duration::from_micros(200), at(second * 1_000), &handover);
            handover.fetch(&mut series);
        }
        series.merge(&writer.finish(&handover));
        let spans = spans(&series, Duration::ZERO);
        assert_eq!(spans.len() as u64, day.div_ceil(128));
        assert!(spans.iter().enumerate().all(|(at, span)| (span.0, span.2) == (at as u64 * 128, 128)));
        assert_eq!(series.intervals(Duration::ZERO).iter().map(|one| one.publish.count()).sum::<u64>(), day);
    }

    #[test]
    fn a_long_silence_is_kept_in_longer_intervals_too() {
        let mut series = Series::default();
        series.add(Interval { first: 0, end: 1, sent: 1, ..Interval::default() });
        series.add(Interval { first: 1_000_000, end: 1_000_001, sent: 1, ..Interval::default() });
        let intervals = series.intervals(Duration::ZERO);
        assert!(intervals.len() as u64 <= INTERVALS_MAX && intervals.len() as u64 > INTERVALS_MAX / 2);
        assert!(intervals.windows(2).all(|pair| pair[0].end == pair[1].first));
        assert_eq!(intervals.iter().map(|interval| interval.sent).sum::<u64>(), 2);
    }
}
