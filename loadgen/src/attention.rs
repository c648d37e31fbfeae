//! Whether the generator was there when something happened.
//!
//! Lateness of sends shows half of what a stalled generator does to figures. The other half is that replies lie
//! unseen in their sockets, and are stamped when the thread looks at last:
//!
//! ```text
//! look ─── sends, spins, handles replies ─── look ─── … ─── look ─── asleep, woken by replies ─── look
//! └── a reply that comes here waits for the next look ──┘        └ only what the sleep is too long ┘
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::RunTime;
use crate::latency::{Latency, Summary, enough_samples};
use crate::pace::APPROACH;

/// Times from one look for replies to the next.
#[derive(Clone, Debug, Default)]
pub struct Attention {
    /// The last look, and how long the thread meant to sleep, which replies would have ended.
    last: Option<(RunTime, Duration)>,
    gaps: Latency,
}

impl Attention {
    /// The thread looks for replies `now`, and sleeps as long as `asleep` if there are none. `is_measured` tells
    /// whether the time since the last look counts.
    pub fn on_look(&mut self, now: RunTime, asleep: Duration, is_measured: bool) {
        if let Some((looked, asleep)) = self.last.replace((now, asleep))
            && is_measured
        {
            let late = now.since(looked + asleep);
            // A timer is late by as much, and a reply would have ended the sleep.
            self.gaps.record(if asleep > APPROACH { late.saturating_sub(APPROACH) } else { late });
        }
    }

    /// All gaps since the beginning; nothing is left.
    pub fn take(&mut self) -> Latency {
        std::mem::take(&mut self.gaps)
    }
}

/// How late replies were noticed, by the percentiles of all replies, if they came evenly over `sending`: the time for
/// which threads sent, added up. The maximum is the longest gap.
///
/// A reply that comes at any moment of a gap of length `g` waits for its end: as long as `x` or longer with
/// probability `(g - x) / g`. So of all replies, `Σ max(0, g - x) / sending` wait longer than `x`.
///
/// Only for percentiles for which there were enough `replies`.
pub fn noticing(gaps: &Latency, sending: Duration, replies: u64) -> Summary {
    let at = |quantile: f64| {
        let is_known = !sending.is_zero() && enough_samples(replies, quantile);
        is_known.then(|| waited(gaps, sending, 1.0 - quantile))
    };
    Summary::of(at, gaps)
}

/// The longest `x` for which the part `share` of all replies waits longer.
fn waited(gaps: &Latency, sending: Duration, share: f64) -> Duration {
    let cells: Vec<(u64, u64)> = gaps
        .histogram()
        .iter_recorded()
        .map(|cell| (cell.value_iterated_to(), cell.count_since_last_iteration()))
        .collect();
    let longer = |x: u64| {
        let waits = cells.iter().map(|(gap, count)| gap.saturating_sub(x) as f64 * *count as f64);
        waits.sum::<f64>() / sending.as_nanos() as f64
    };
    let (mut low, mut high) = (0, gaps.max().unwrap_or_default().as_nanos() as u64);
    if longer(0) <= share {
        return Duration::ZERO;
    }
    // 42 halvings of an hour are a nanosecond.
    while low + 1 < high {
        let middle = low.midpoint(high);
        if longer(middle) > share { low = middle } else { high = middle }
    }
    Duration::from_nanos(low)
}

/// What the kernel gave to one thread of the generator while it sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThreadUse {
    pub wall_s: f64,
    /// A pinned thread busy-waits: its CPU time says nothing of its work.
    pub cpu_s: f64,
    /// Times that another thread got its CPU although it wanted to go on.
    pub preempted: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    fn at(micros: u64) -> RunTime {
        RunTime::START + Duration::from_micros(micros)
    }

    #[test]
    fn a_gap_is_the_time_between_two_looks_without_the_sleep_that_was_meant() {
        let mut attention = Attention::default();
        attention.on_look(at(0), Duration::ZERO, true);
        attention.on_look(at(30), 500 * MICRO, true);
        attention.on_look(at(540), Duration::ZERO, true);
        attention.on_look(at(50_540), Duration::ZERO, true);
        attention.on_look(at(90_000), Duration::ZERO, false);
        let gaps = attention.take();
        assert_eq!((gaps.count(), gaps.max()), (3, Some(50_000 * MICRO)));
    }

    #[test]
    fn an_early_end_of_a_sleep_is_no_gap() {
        let mut attention = Attention::default();
        attention.on_look(at(0), 500 * MICRO, true);
        attention.on_look(at(100), Duration::ZERO, true);
        assert_eq!(attention.take().max(), Some(Duration::ZERO));
    }

    #[test]
    fn one_stall_delays_the_replies_that_fall_into_it() {
        let mut gaps = Latency::new();
        gaps.record(Duration::from_millis(100));
        // 1 % of 10 s; half of those wait longer than 50 ms.
        let noticing = noticing(&gaps, Duration::from_secs(10), 100_000);
        let near = |found: Option<f64>, exact: f64| {
            let found = found.unwrap();
            assert!((found - exact).abs() <= 200.0, "{found} instead of {exact}");
        };
        near(noticing.p99_us, 0.0);
        near(noticing.p999_us, 90_000.0);
        near(noticing.p9999_us, 99_000.0);
        assert_eq!((noticing.p50_us, noticing.max_us), (Some(0.0), Some(100_000.0)));
    }

    #[test]
    fn a_thread_that_always_looks_late_notices_everything_late() {
        let mut gaps = Latency::new();
        gaps.record_many(100 * MICRO, 10_000);
        let noticing = noticing(&gaps, Duration::from_secs(1), 100_000);
        assert!((noticing.p50_us.unwrap() - 50.0).abs() < 1.0, "{noticing:?}");
        assert!((noticing.p99_us.unwrap() - 99.0).abs() < 1.0, "{noticing:?}");
    }

    #[test]
    fn without_sending_there_is_nothing_to_notice() {
        assert_eq!(noticing(&Latency::new(), Duration::ZERO, 100_000), Summary::default());
    }
}
