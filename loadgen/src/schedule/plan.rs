use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::bursts::{Bursts, PERIOD_MAX};
use super::pieces::{self, Piece};
use super::poisson::Poisson;
use super::trace::{self, TraceError};
use crate::clock::RunTime;

/// Messages one run may plan. Bounds what the ledger can be asked to remember (a quarter byte for each message
/// whose fate is open); a longer plan is refused.
pub const MESSAGES_MAX: u64 = 1 << 32;

/// Highest planned rate, per second: one message per nanosecond of the clock.
pub const RATE_MAX: u64 = 1_000_000_000;

pub(super) const NANOS_PER_SEC: u128 = 1_000_000_000;

/// The arrival process and its length.
///
/// All lengths count from the start of the warm-up; whatever changes with time changes in the measured part.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub(super) arrivals: Arrivals,
    total: u64,
}

/// The ways in which arrivals may be spread over time.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Arrivals {
    /// Message `i` is due `i / rate` seconds after the start, computed without accumulating an error.
    Constant {
        rate: u64,
    },
    /// One after the other, each with its own rate; not empty.
    Pieces(Arc<[Piece]>),
    Bursts(Bursts),
    /// Nanoseconds from the start, in order.
    Trace(Arc<[u64]>),
    Poisson(Poisson),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("a rate of {0} messages per second is outside 1 to {RATE_MAX}")]
    Rate(u64),
    #[error("{planned} messages are planned; one run may have at most {MESSAGES_MAX}")]
    TooMany { planned: u128 },
    #[error("the run is too short for a single message")]
    Empty,
    #[error(
        "bursts of {on:?} with pauses of {off:?}: both together must be above zero and at most {PERIOD_MAX:?}"
    )]
    BurstPeriod { on: Duration, off: Duration },
    #[error("trace {}: {error}", .path.display())]
    Trace { path: PathBuf, error: TraceError },
}

impl Schedule {
    /// `rate` messages per second, evenly spaced, for as long as `length`.
    pub fn constant(rate: u64, length: Duration) -> Result<Schedule, ScheduleError> {
        check_rate(rate)?;
        Schedule::new(Arrivals::Constant { rate }, messages(rate, length))
    }

    /// `rate` messages per second on average, at times that know nothing of each other; the same for the same seed.
    pub fn poisson(rate: u64, seed: u64, length: Duration) -> Result<Schedule, ScheduleError> {
        check_rate(rate)?;
        let poisson = Poisson { rate, seed, end: RunTime::after_start(length) };
        Schedule::new(Arrivals::Poisson(poisson), messages(rate, length))
    }

    /// `rate` messages per second on average, all of them in the first `on` of every `on` + `off`.
    ///
    /// With an `on` of zero, all messages of a burst are due at the same instant.
    pub fn bursts(
        rate: u64,
        on: Duration,
        off: Duration,
        length: Duration,
    ) -> Result<Schedule, ScheduleError> {
        check_rate(rate)?;
        let bursts = Bursts::new(rate, on, off).ok_or(ScheduleError::BurstPeriod { on, off })?;
        Schedule::new(Arrivals::Bursts(bursts), bursts.messages_before(RunTime::after_start(length)))
    }

    /// `from` messages per second in the warm-up; then as evenly towards `to`, reached at the end of the run.
    pub fn ramp(from: u64, to: u64, warmup: Duration, measured: Duration) -> Result<Schedule, ScheduleError> {
        Schedule::pieces(&[(from, from, warmup), (from, to, measured)])
    }

    /// The first of `rates` in the warm-up; then all of them, each for the same part of `measured`.
    pub fn steps(rates: &[u64], warmup: Duration, measured: Duration) -> Result<Schedule, ScheduleError> {
        let first = *rates.first().ok_or(ScheduleError::Empty)?;
        let step = measured / u32::try_from(rates.len()).unwrap_or(u32::MAX);
        let steps = rates.iter().map(|rate| (*rate, *rate, step));
        Schedule::pieces(&std::iter::once((first, first, warmup)).chain(steps).collect::<Vec<_>>())
    }

    /// The arrivals of a recorded trace, `speed` times as fast, as far as they lie within `length`.
    pub fn trace(path: &Path, speed: f64, length: Duration) -> Result<Schedule, ScheduleError> {
        let refuse = |error| ScheduleError::Trace { path: path.to_owned(), error };
        let file = std::fs::File::open(path).map_err(|error| refuse(TraceError::Io(error.to_string())))?;
        let arrivals = trace::read(std::io::BufReader::new(file), speed, length).map_err(refuse)?;
        let planned = arrivals.len() as u128;
        Schedule::new(Arrivals::Trace(arrivals.into()), planned)
    }

    fn pieces(parts: &[(u64, u64, Duration)]) -> Result<Schedule, ScheduleError> {
        // A rate of nothing is a pause here; only a plan of nothing is refused.
        let rates = parts.iter().flat_map(|(from, to, _)| [*from, *to]);
        if let Some(rate) = rates.into_iter().find(|rate| *rate > RATE_MAX) {
            return Err(ScheduleError::Rate(rate));
        }
        let (pieces, planned) = pieces::lay(parts);
        Schedule::new(Arrivals::Pieces(pieces.into()), planned)
    }

    fn new(arrivals: Arrivals, planned: u128) -> Result<Schedule, ScheduleError> {
        match u64::try_from(planned) {
            Ok(0) => Err(ScheduleError::Empty),
            Ok(total) if total <= MESSAGES_MAX => Ok(Schedule { arrivals, total }),
            _ => Err(ScheduleError::TooMany { planned }),
        }
    }

    /// Messages planned for all streams together; of Poisson arrivals, which are drawn on the way, the mean.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// When arrival `index` is due; not of Poisson arrivals, which have no numbers.
    pub(super) fn due(&self, index: u64) -> RunTime {
        match &self.arrivals {
            Arrivals::Constant { rate } => evenly(index, *rate),
            Arrivals::Pieces(pieces) => pieces::due(pieces, index),
            Arrivals::Bursts(bursts) => bursts.due(index),
            Arrivals::Trace(arrivals) => RunTime::from_nanos(arrivals[index as usize]),
            Arrivals::Poisson(_) => unreachable!("each stream draws its own arrivals"),
        }
    }
}

/// Arrival `index` at an even rate.
pub(super) fn evenly(index: u64, rate: u64) -> RunTime {
    let nanos = u128::from(index) * NANOS_PER_SEC / u128::from(rate);
    RunTime::from_nanos(u64::try_from(nanos).expect("bounded by MESSAGES_MAX seconds"))
}

/// Messages that fit `length`: the last is due strictly before its end.
pub(super) fn messages(rate: u64, length: Duration) -> u128 {
    (length.as_nanos() * u128::from(rate)).div_ceil(NANOS_PER_SEC)
}

fn check_rate(rate: u64) -> Result<(), ScheduleError> {
    if (1..=RATE_MAX).contains(&rate) { Ok(()) } else { Err(ScheduleError::Rate(rate)) }
}
