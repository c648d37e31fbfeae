//! When each message of a run is due, and for which stream: fixed before the first one is sent.
//!
//! An open-loop run asks "how long does a message take that was wanted at time t", whatever became of the
//! messages before it. So the plan is a pure function of its parameters: it is never slowed down by late
//! replies, and dividing it among threads moves no message in time.
//!
//! ```text
//! arrival        0    1    2    3    4    5    6   …      due(i) from the arrival process
//! stream (of 3)  0    1    2    0    1    2    0   …      i mod streams: every queue gets the same rate
//! thread A       •         •    •         •    •   …      owns streams 0 and 2
//! thread B            •              •             …      owns stream 1
//! ```

use std::time::Duration;

use crate::clock::RunTime;

/// Messages one run may plan. Bounds what the ledger can be asked to remember (a quarter byte for each message
/// whose fate is open); a longer plan is refused.
pub const MESSAGES_MAX: u64 = 1 << 32;

/// Highest planned rate, per second: one message per nanosecond of the clock.
pub const RATE_MAX: u64 = 1_000_000_000;

/// One queue's sequence of messages; numbered over all queues of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// One message of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    pub due: RunTime,
    pub stream: StreamId,
}

/// The arrival process and its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    arrivals: Arrivals,
    total: u64,
}

/// The ways in which arrivals may be spread over time.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Arrivals {
    /// Message `i` is due `i / rate` seconds after the start, computed without accumulating an error.
    Constant { rate: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("a rate of {0} messages per second is outside 1 to {RATE_MAX}")]
    Rate(u64),
    #[error("{planned} messages are planned; one run may have at most {MESSAGES_MAX}")]
    TooMany { planned: u128 },
    #[error("the run is too short for a single message")]
    Empty,
}

impl Schedule {
    /// `rate` messages per second, evenly spaced, for as long as `length`.
    pub fn constant(rate: u64, length: Duration) -> Result<Schedule, ScheduleError> {
        if rate == 0 || rate > RATE_MAX {
            return Err(ScheduleError::Rate(rate));
        }
        // The last message is due strictly before the end: ceil(length * rate) of them fit.
        let planned = (length.as_nanos() * u128::from(rate)).div_ceil(NANOS_PER_SEC);
        if planned == 0 {
            return Err(ScheduleError::Empty);
        }
        match u64::try_from(planned) {
            Ok(total) if total <= MESSAGES_MAX => {
                Ok(Schedule { arrivals: Arrivals::Constant { rate }, total })
            }
            _ => Err(ScheduleError::TooMany { planned }),
        }
    }

    /// Messages planned for all streams together.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The part of the plan that falls to `own`, when arrivals go round robin over `streams` streams.
    ///
    /// `own` must be sorted and below `streams`.
    pub fn share(&self, streams: u32, own: &[StreamId]) -> Share {
        assert!(own.iter().all(|stream| stream.0 < streams), "streams {own:?} of {streams}");
        assert!(own.windows(2).all(|pair| pair[0] < pair[1]), "unsorted streams {own:?}");
        Share { schedule: self.clone(), streams: u64::from(streams), own: own.into(), round: 0, position: 0 }
    }

    fn due(&self, index: u64) -> RunTime {
        match self.arrivals {
            Arrivals::Constant { rate } => {
                let nanos = u128::from(index) * NANOS_PER_SEC / u128::from(rate);
                RunTime::from_nanos(u64::try_from(nanos).expect("bounded by MESSAGES_MAX seconds"))
            }
        }
    }
}

/// One thread's part of a schedule, in the order in which it falls due.
#[derive(Clone, Debug)]
pub struct Share {
    schedule: Schedule,
    streams: u64,
    own: Box<[StreamId]>,
    /// Times the round robin has gone over all streams.
    round: u64,
    /// Place within `own` in this round.
    position: usize,
}

impl Iterator for Share {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        let stream = *self.own.get(self.position)?;
        let index = self.round * self.streams + u64::from(stream.0);
        if index >= self.schedule.total {
            return None;
        }
        self.position += 1;
        if self.position == self.own.len() {
            self.position = 0;
            self.round += 1;
        }
        Some(Planned { due: self.schedule.due(index), stream })
    }
}

const NANOS_PER_SEC: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn streams(ids: &[u32]) -> Vec<StreamId> {
        ids.iter().copied().map(StreamId).collect()
    }

    #[test]
    fn constant_arrivals_are_evenly_spaced_and_end_before_the_end() {
        let schedule = Schedule::constant(5_000, Duration::from_secs(2)).unwrap();
        assert_eq!(schedule.total(), 10_000);
        let due: Vec<_> = schedule.share(1, &streams(&[0])).map(|planned| planned.due.as_nanos()).collect();
        assert_eq!(due.len(), 10_000);
        assert_eq!(&due[..3], &[0, 200_000, 400_000]);
        assert_eq!(*due.last().unwrap(), 1_999_800_000);
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_does_not_drift() {
        let schedule = Schedule::constant(3, Duration::from_secs(1_000_000)).unwrap();
        assert_eq!(schedule.due(3 * 999_999), RunTime::from_nanos(999_999_000_000_000));
    }

    #[test]
    fn streams_take_turns() {
        let schedule = Schedule::constant(1_000, Duration::from_millis(7)).unwrap();
        let taken: Vec<_> = schedule
            .share(3, &streams(&[0, 2]))
            .map(|p| (p.stream.0, p.due.as_nanos() / 1_000_000))
            .collect();
        assert_eq!(taken, [(0, 0), (2, 2), (0, 3), (2, 5), (0, 6)]);
    }

    #[test]
    fn impossible_plans_are_refused_by_name() {
        assert_eq!(Schedule::constant(0, Duration::from_secs(1)), Err(ScheduleError::Rate(0)));
        assert_eq!(
            Schedule::constant(RATE_MAX + 1, Duration::from_secs(1)),
            Err(ScheduleError::Rate(RATE_MAX + 1))
        );
        assert_eq!(Schedule::constant(1, Duration::ZERO), Err(ScheduleError::Empty));
        assert_eq!(
            Schedule::constant(1_000_000, Duration::from_secs(5_000)),
            Err(ScheduleError::TooMany { planned: 5_000_000_000 })
        );
    }

    #[test]
    fn no_streams_means_no_messages() {
        let schedule = Schedule::constant(10, Duration::from_secs(1)).unwrap();
        assert_eq!(schedule.share(4, &[]).count(), 0);
    }

    proptest! {
        /// However the streams are dealt to threads, together they send each arrival once and at its own time.
        #[test]
        fn dividing_the_plan_moves_nothing(
            rate in 1u64..5_000,
            millis in 1u64..400,
            owners in proptest::collection::vec(0u32..4, 1..9),
        ) {
            let schedule = Schedule::constant(rate, Duration::from_millis(millis)).unwrap();
            let count = owners.len() as u32;
            let all = streams(&(0..count).collect::<Vec<_>>());
            let whole: Vec<_> = schedule.share(count, &all).collect();

            let mut parts: Vec<Planned> = Vec::new();
            for thread in 0..4 {
                let own: Vec<_> = all.iter().copied().filter(|s| owners[s.0 as usize] == thread).collect();
                let part: Vec<_> = schedule.share(count, &own).collect();
                prop_assert!(part.windows(2).all(|pair| pair[0].due <= pair[1].due));
                parts.extend(part);
            }
            parts.sort_by_key(|planned| (planned.due, planned.stream));
            let mut expected = whole.clone();
            expected.sort_by_key(|planned| (planned.due, planned.stream));
            prop_assert_eq!(whole.len() as u64, schedule.total());
            prop_assert_eq!(parts, expected);
        }
    }
}
