//! One clock for a whole run: every thread of the process measures from the same instant.

use std::time::{Duration, Instant};

/// A point in time of a run, in nanoseconds since its first planned message could be due.
///
/// Travels inside each message, so that a receipt can be compared with the plan without any table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RunTime(u64);

impl RunTime {
    pub const START: RunTime = RunTime(0);
    /// Marks what has no time in the run.
    pub const NEVER: RunTime = RunTime(u64::MAX);

    pub fn from_nanos(nanos: u64) -> RunTime {
        RunTime(nanos)
    }

    /// Saturates after 584 years.
    pub fn after_start(elapsed: Duration) -> RunTime {
        RunTime(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }

    pub fn as_nanos(self) -> u64 {
        self.0
    }

    pub fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// Time from `earlier` to this point, zero if `earlier` is in fact the later one.
    pub fn since(self, earlier: RunTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Sub<Duration> for RunTime {
    type Output = RunTime;

    /// Not before the start.
    fn sub(self, earlier_by: Duration) -> RunTime {
        RunTime(self.0.saturating_sub(RunTime::after_start(earlier_by).0))
    }
}

impl std::ops::Add<Duration> for RunTime {
    type Output = RunTime;

    fn add(self, delay: Duration) -> RunTime {
        RunTime(self.0.saturating_add(RunTime::after_start(delay).0))
    }
}

/// Reads the monotonic clock relative to the run's start; copies on different threads agree.
#[derive(Clone, Copy, Debug)]
pub struct RunClock {
    start: Instant,
}

impl RunClock {
    /// `start` may lie in the future: until then `now` stays at `RunTime::START`.
    pub fn starting_at(start: Instant) -> RunClock {
        RunClock { start }
    }

    pub fn now(&self) -> RunTime {
        RunTime::after_start(Instant::now().saturating_duration_since(self.start))
    }

    /// How long until the run starts; zero once it has.
    pub fn until_start(&self) -> Duration {
        self.start.saturating_duration_since(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_starts_later_stands_at_the_start() {
        let clock = RunClock::starting_at(Instant::now() + Duration::from_secs(3600));
        assert_eq!(clock.now(), RunTime::START);
        assert!(clock.until_start() > Duration::from_secs(3590));
    }

    #[test]
    fn differences_never_go_below_zero() {
        let early = RunTime::from_nanos(5);
        let late = early + Duration::from_nanos(7);
        assert_eq!(late.since(early), Duration::from_nanos(7));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
