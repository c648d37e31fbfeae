//! What a publishing thread does next: send, sleep, wait for the last microseconds, or stop.
//!
//! Timers are late by tens of microseconds, so the thread sleeps only until shortly before a message is due, then
//! makes short turns of the executor, in which replies are still received and stamped on time, and spins only for the
//! last few microseconds.
//!
//! ```text
//!                  APPROACH            SPIN_MAX        due
//!     ── sleep ───────┼── turn, turn, turn ──┼── spin ──┼── send
//! ```

use std::time::Duration;

use crate::clock::RunTime;
use crate::schedule::{Planned, Share, StreamId};

/// How long before a message is due the thread stops sleeping. A sleep of 1 ms was measured to take 1.04 to 1.06 ms.
pub const APPROACH: Duration = Duration::from_micros(80);

/// What is left when the thread stops turning: about one turn, which would make the message late. A reply that arrives
/// meanwhile is stamped late by at most as much.
pub const SPIN_MAX: Duration = Duration::from_micros(20);

/// Overdue messages handed out between two turns of the executor. After a stall the backlog leaves in such bursts,
/// so that replies are read in between; nothing is dropped.
pub const BURST_MAX: u32 = 64;

/// Longest time between two turns, whatever is due: at 50,000 messages/s there is always one due within
/// [`SPIN_MAX`], and a thread that only spins and sends neither writes nor reads. Bounds how late a reply is stamped.
pub const TURN_AFTER: Duration = Duration::from_micros(100);

/// The next step of an open-loop publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Due now or overdue: send it.
    Send(Planned),
    /// Enough sent in a row: let the executor turn once, then ask again.
    Turn,
    /// Nothing is due for so long that a timer may be trusted.
    Sleep(Duration),
    /// Due within `APPROACH`: let the executor turn once, then ask again.
    Approach,
    /// Due within `SPIN_MAX`: ask again at once.
    Spin,
    /// The plan is through.
    Finished,
}

/// Walks one thread's share of the schedule.
///
/// Call `next` whenever the thread can act; each answer other than `Send` ends one burst.
#[derive(Debug)]
pub struct Pacer {
    share: Share,
    upcoming: Option<Planned>,
    burst: u32,
    /// When the executor turned last.
    turned: Option<RunTime>,
}

impl Pacer {
    pub fn new(mut share: Share) -> Pacer {
        let upcoming = share.next();
        Pacer { share, upcoming, burst: 0, turned: None }
    }

    pub fn next(&mut self, now: RunTime) -> Pace {
        let Some(planned) = self.upcoming else { return Pace::Finished };
        let wait = planned.due.since(now);
        if wait > APPROACH {
            return self.turn(Pace::Sleep(wait - APPROACH));
        }
        if wait > SPIN_MAX {
            return self.turn(Pace::Approach);
        }
        let turned = *self.turned.get_or_insert(now);
        if self.burst == BURST_MAX || now.since(turned) >= TURN_AFTER {
            return self.turn(Pace::Turn);
        }
        if !wait.is_zero() {
            return Pace::Spin;
        }
        self.burst += 1;
        self.upcoming = self.share.next();
        Pace::Send(planned)
    }

    /// Any answer that lets the executor turn; the time it takes counts from when the thread can act again.
    fn turn(&mut self, pace: Pace) -> Pace {
        self.burst = 0;
        self.turned = None;
        pace
    }
}

/// A closed loop on one connection: a fixed number of requests in flight, the next one leaves when a reply comes.
///
/// Its latencies say nothing about waiting users (a stalled broker is simply asked less), so reports name the mode.
#[derive(Debug)]
pub struct ClosedLoop {
    streams: Box<[StreamId]>,
    position: usize,
    depth: u32,
    end: RunTime,
    messages_left: u64,
}

impl ClosedLoop {
    /// Sends until `end` or for `messages_max` messages, in turn to each of `streams`, which must not be empty.
    pub fn new(streams: &[StreamId], depth: u32, end: RunTime, messages_max: u64) -> ClosedLoop {
        assert!(!streams.is_empty() && depth > 0, "{} streams, depth {depth}", streams.len());
        ClosedLoop { streams: streams.into(), position: 0, depth, end, messages_left: messages_max }
    }

    /// The stream to send to now, if fewer than the depth are in flight and the loop has not ended.
    pub fn next(&mut self, now: RunTime, in_flight: u32) -> Option<StreamId> {
        if in_flight >= self.depth || self.is_finished(now) {
            return None;
        }
        self.messages_left -= 1;
        let stream = self.streams[self.position];
        self.position = (self.position + 1) % self.streams.len();
        Some(stream)
    }

    pub fn is_finished(&self, now: RunTime) -> bool {
        now >= self.end || self.messages_left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;

    fn pacer(rate: u64, length: Duration) -> Pacer {
        Pacer::new(Schedule::constant(rate, length).unwrap().share(1, &[StreamId(0)]))
    }

    fn at(micros: u64) -> RunTime {
        RunTime::START + Duration::from_micros(micros)
    }

    #[test]
    fn sleeps_while_far_turns_while_near_sends_when_due() {
        let mut pacer = pacer(1_000, Duration::from_millis(2));
        assert!(matches!(pacer.next(at(0)), Pace::Send(planned) if planned.due == at(0)));
        assert_eq!(pacer.next(at(100)), Pace::Sleep(Duration::from_micros(900) - APPROACH));
        assert_eq!(pacer.next(at(1_000) + Duration::ZERO).due(), Some(at(1_000)));
        assert_eq!(pacer.next(at(1_000)), Pace::Finished);
    }

    #[test]
    fn approaches_inside_the_last_stretch() {
        let mut pacer = pacer(1_000, Duration::from_millis(2));
        pacer.next(at(0));
        assert_eq!(pacer.next(at(1_000 - APPROACH.as_micros() as u64)), Pace::Approach);
        assert_eq!(pacer.next(at(999 - SPIN_MAX.as_micros() as u64)), Pace::Approach);
        assert_eq!(pacer.next(at(999)), Pace::Spin);
    }

    #[test]
    fn a_rate_that_leaves_no_pause_still_lets_the_executor_turn() {
        let mut pacer = pacer(60_000, Duration::from_millis(10));
        let mut turned = 0;
        for now in 0..9_000 {
            while let Pace::Send(_) = pacer.next(at(now)) {}
            if pacer.next(at(now)) == Pace::Spin {
                assert!(now - turned <= TURN_AFTER.as_micros() as u64 + 1, "{now}: no turn since {turned}");
            } else {
                turned = now;
            }
        }
    }

    #[test]
    fn after_a_stall_everything_planned_still_leaves_with_its_own_due_time() {
        let mut pacer = pacer(10_000, Duration::from_millis(100));
        let mut sent = Vec::new();
        let mut turns = 0;
        loop {
            match pacer.next(at(1_000_000)) {
                Pace::Send(planned) => sent.push(planned.due),
                Pace::Turn => turns += 1,
                Pace::Finished => break,
                other => panic!("{other:?} although all is overdue"),
            }
        }
        assert_eq!(sent.len(), 1_000);
        assert_eq!(turns, 1_000 / BURST_MAX);
        assert!(sent.iter().enumerate().all(|(i, due)| *due == at(i as u64 * 100)));
    }

    #[test]
    fn closed_loop_keeps_its_depth_and_ends() {
        let mut closed = ClosedLoop::new(&[StreamId(3), StreamId(8)], 2, at(1_000), 5);
        assert_eq!(closed.next(at(0), 0), Some(StreamId(3)));
        assert_eq!(closed.next(at(0), 1), Some(StreamId(8)));
        assert_eq!(closed.next(at(0), 2), None);
        assert_eq!(closed.next(at(10), 1), Some(StreamId(3)));
        assert_eq!(closed.next(at(1_000), 0), None);
        assert!(closed.is_finished(at(1_000)));
    }

    #[test]
    fn closed_loop_stops_at_its_message_limit() {
        let mut closed = ClosedLoop::new(&[StreamId(0)], 1, at(1_000), 2);
        assert!(closed.next(at(0), 0).is_some() && closed.next(at(0), 0).is_some());
        assert_eq!(closed.next(at(0), 0), None);
        assert!(closed.is_finished(at(0)));
    }

    impl Pace {
        fn due(self) -> Option<RunTime> {
            match self {
                Pace::Send(planned) => Some(planned.due),
                _ => None,
            }
        }
    }
}
