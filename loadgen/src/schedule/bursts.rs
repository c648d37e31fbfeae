use std::time::Duration;

use super::plan::NANOS_PER_SEC;
use crate::clock::RunTime;

/// From one burst to the next; keeps the products below well within their integers.
pub(super) const PERIOD_MAX: Duration = Duration::from_secs(24 * 3600);

/// Messages in bursts, each of which is spread evenly over its length:
///
/// ```text
///     ••••••••            ••••••••            ••••••••
///     ├─ on ─┤─── off ────┼─ on ─┤─── off ────┼
///     0                   period              2 periods
/// ```
///
/// The bursts of a rate that gives no whole number of messages differ by one, so that the average is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bursts {
    rate: u128,
    period_nanos: u128,
    on_nanos: u128,
}

impl Bursts {
    /// `None` if a period would take no time, or longer than `PERIOD_MAX`.
    pub(super) fn new(rate: u64, on: Duration, off: Duration) -> Option<Bursts> {
        let period = on.checked_add(off).filter(|period| !period.is_zero() && *period <= PERIOD_MAX)?;
        Some(Bursts { rate: u128::from(rate), period_nanos: period.as_nanos(), on_nanos: on.as_nanos() })
    }

    pub(super) fn due(&self, index: u64) -> RunTime {
        let index = u128::from(index);
        let burst = index * NANOS_PER_SEC / (self.rate * self.period_nanos);
        let (first, end) = (self.first_of(burst), self.first_of(burst + 1));
        let nanos = burst * self.period_nanos + (index - first) * self.on_nanos / (end - first);
        RunTime::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    pub(super) fn messages_before(&self, end: RunTime) -> u128 {
        let end = u128::from(end.as_nanos());
        let burst = end / self.period_nanos;
        let (first, next) = (self.first_of(burst), self.first_of(burst + 1));
        let into = end % self.period_nanos;
        let begun = match self.on_nanos {
            0 => {
                if into > 0 {
                    next - first
                } else {
                    0
                }
            }
            on => ((next - first) * into).div_ceil(on).min(next - first),
        };
        first + begun
    }

    /// Number of the first message of a burst: as many as the rate allows lie before it.
    fn first_of(&self, burst: u128) -> u128 {
        (burst * self.rate * self.period_nanos).div_ceil(NANOS_PER_SEC)
    }
}
