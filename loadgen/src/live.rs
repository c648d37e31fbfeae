//! Figures that can be watched while a run goes on.
//!
//! Each publishing thread owns one `Live` and is its only writer, so that counting is a plain load and store; the
//! progress display reads them all, at its leisure and without making anyone wait. The final report comes from exact
//! histograms instead; these cells are coarse (32 to an octave, 3 %) so that one `Live` is only 45 KiB.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::latency::{cells, enough_samples};
use crate::series::Handover;

/// Counters and coarse latencies of one thread.
#[derive(Debug, Default)]
pub struct Live {
    pub sent: Counter,
    pub acked: Counter,
    pub received: Counter,
    pub failed: Counter,
    pub in_flight: Gauge,
    pub publish: LiveLatency,
    pub end_to_end: LiveLatency,
    /// How late messages left, against the plan.
    pub lateness: LiveLatency,
    /// Finished intervals of the time series.
    pub intervals: Handover,
}

impl Live {
    /// With a time series of such intervals.
    pub fn new(interval: Duration) -> Live {
        Live { intervals: Handover::new(interval), ..Live::default() }
    }
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Only the owning thread may call this; a second writer would lose counts.
    pub fn increment(&self) {
        // Relaxed: a reader wants a recent figure, not an order among figures.
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A figure that goes up and down, with one writer.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Only the owning thread may call this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// 32 cells to an octave.
const BITS: u32 = 5;
const CELLS: usize = cells::count(BITS, 64);

/// A coarse latency distribution with one writer.
#[derive(Debug)]
pub struct LiveLatency {
    cells: Box<[Counter; CELLS]>,
}

impl Default for LiveLatency {
    fn default() -> LiveLatency {
        LiveLatency { cells: Box::new(std::array::from_fn(|_| Counter::default())) }
    }
}

impl LiveLatency {
    /// Only the owning thread may call this.
    pub fn record(&self, latency: Duration) {
        self.cells[cells::index::<BITS>(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX))].increment();
    }
}

/// A quantile over several threads' distributions; `None` while there are too few samples.
pub fn quantile<'a>(parts: impl Iterator<Item = &'a LiveLatency>, quantile: f64) -> Option<Duration> {
    let mut cells = vec![0u64; CELLS];
    for part in parts {
        for (sum, cell) in cells.iter_mut().zip(part.cells.iter()) {
            *sum += cell.get();
        }
    }
    let total: u64 = cells.iter().sum();
    if !enough_samples(total, quantile) {
        return None;
    }
    let wanted = ((total as f64 * quantile).ceil() as u64).max(1);
    let mut seen = 0;
    let at = cells.iter().position(|count| {
        seen += count;
        seen >= wanted
    })?;
    Some(Duration::from_nanos(cells::start::<BITS>(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_taken_over_all_parts() {
        let (fast, slow) = (LiveLatency::default(), LiveLatency::default());
        assert_eq!(quantile([&fast, &slow].into_iter(), 0.5), None);
        for _ in 0..1_500 {
            fast.record(Duration::from_micros(100));
        }
        for _ in 0..500 {
            slow.record(Duration::from_millis(5));
        }
        let at = |q| quantile([&fast, &slow].into_iter(), q).unwrap().as_micros();
        assert!((95..=100).contains(&at(0.5)), "{}", at(0.5));
        assert!((4_800..=5_000).contains(&at(0.99)), "{}", at(0.99));
    }
}
