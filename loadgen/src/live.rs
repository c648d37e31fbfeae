//! Figures that can be watched while a run goes on.
//!
//! Each publishing thread owns one `Live` and is its only writer, so that counting is a plain load and store; the
//! progress display reads them all, at its leisure and without making anyone wait. The final report comes from exact
//! histograms instead; these cells are coarse (32 to an octave, 3 %) so that one `Live` is only 30 KiB.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::latency::enough_samples;

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

const CELLS_PER_OCTAVE_BITS: u32 = 5;
const CELLS_PER_OCTAVE: usize = 1 << CELLS_PER_OCTAVE_BITS;
/// Values below one octave of cells have a cell each; above, every power of two up to 2^63 has its octave.
const CELLS: usize = (64 - CELLS_PER_OCTAVE_BITS as usize + 1) * CELLS_PER_OCTAVE;

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
        self.cells[cell(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX))].increment();
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
    Some(Duration::from_nanos(cell_start(at)))
}

fn cell(nanos: u64) -> usize {
    if nanos < CELLS_PER_OCTAVE as u64 {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - CELLS_PER_OCTAVE_BITS;
    let within = (nanos >> shift) as usize - CELLS_PER_OCTAVE;
    (shift as usize + 1) * CELLS_PER_OCTAVE + within
}

fn cell_start(cell: usize) -> u64 {
    if cell < CELLS_PER_OCTAVE {
        return cell as u64;
    }
    let shift = cell / CELLS_PER_OCTAVE - 1;
    ((CELLS_PER_OCTAVE + cell % CELLS_PER_OCTAVE) as u64) << shift
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn a_cell_holds_its_value_within_three_percent(nanos: u64) {
            let start = cell_start(cell(nanos));
            prop_assert!(start <= nanos);
            prop_assert!((nanos - start) as f64 <= nanos as f64 / CELLS_PER_OCTAVE as f64);
            prop_assert!(cell(nanos) < CELLS);
        }
    }
}
