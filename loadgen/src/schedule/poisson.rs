use super::share::StreamId;
use crate::clock::RunTime;
use crate::random::Random;

/// Arrivals that know nothing of each other, which is how many independent users look from a broker.
///
/// Every stream is a Poisson process of its own with its part of the rate; together they are one of the whole rate,
/// however they are dealt to threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Poisson {
    pub(super) rate: u64,
    pub(super) seed: u64,
    pub(super) end: RunTime,
}

impl Poisson {
    pub(super) fn stream(&self, streams: u32, id: StreamId) -> PoissonStream {
        PoissonStream {
            random: Random::of_part(self.seed, u64::from(id.0)),
            mean_nanos: 1e9 * f64::from(streams) / self.rate as f64,
            at_nanos: 0.0,
            end: self.end,
        }
    }
}

/// The arrivals of one stream, drawn when asked for.
#[derive(Clone, Debug)]
pub(super) struct PoissonStream {
    random: Random,
    mean_nanos: f64,
    /// Exact to a nanosecond for 104 days.
    at_nanos: f64,
    end: RunTime,
}

impl Iterator for PoissonStream {
    type Item = RunTime;

    fn next(&mut self) -> Option<RunTime> {
        self.at_nanos += self.mean_nanos * self.random.next_exponential();
        let due = RunTime::from_nanos(self.at_nanos as u64);
        (due < self.end).then_some(due)
    }
}
