use std::time::Duration;

use super::{LATENCY_MAX, Latency, Summary, cells};

/// 128 cells to an octave: a latency is told to 0.4 %, which is enough for one interval among many.
const BITS: u32 = 7;
/// Up to 2^42 ns, which is beyond `LATENCY_MAX`.
const CELLS: usize = cells::count(BITS, 42);
const _: () = assert!(LATENCY_MAX.as_nanos() < 1 << 42);
const _: () = assert!(CELLS < u16::MAX as usize);

/// A distribution in little memory: only the cells that have samples, so that there can be one for every second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseLatency {
    /// Cell and samples in it, in the order of their values.
    cells: Box<[(u16, u64)]>,
    max: Duration,
}

impl SparseLatency {
    pub fn count(&self) -> u64 {
        self.cells.iter().map(|(_, count)| count).sum()
    }

    pub fn max(&self) -> Option<Duration> {
        (!self.cells.is_empty()).then_some(self.max)
    }

    /// Ranges of latencies, each with its samples, from the shortest on; ranges without samples are left out.
    pub fn ranges(&self) -> impl Iterator<Item = (std::ops::Range<Duration>, u64)> {
        self.cells.iter().map(|(cell, count)| {
            let start = cells::start::<BITS>(usize::from(*cell));
            let end = start + cells::width::<BITS>(usize::from(*cell));
            (Duration::from_nanos(start)..Duration::from_nanos(end), *count)
        })
    }

    pub fn merge(&mut self, other: &SparseLatency) {
        let mut sum = Vec::with_capacity(self.cells.len() + other.cells.len());
        let (mut left, mut right) = (self.cells.iter().peekable(), other.cells.iter().peekable());
        loop {
            let cell = match (left.peek(), right.peek()) {
                (Some(left), Some(right)) => left.0.min(right.0),
                (Some(one), None) | (None, Some(one)) => one.0,
                (None, None) => break,
            };
            let counted = |side: Option<&(u16, u64)>| side.map_or(0, |(_, count)| *count);
            let count =
                counted(left.next_if(|one| one.0 == cell)) + counted(right.next_if(|one| one.0 == cell));
            sum.push((cell, count));
        }
        self.cells = sum.into();
        self.max = self.max.max(other.max);
    }

    pub fn summary(&self) -> Summary {
        Latency::from(self).summary()
    }
}

impl From<&SparseLatency> for Latency {
    /// Every sample is taken for the middle of its cell; the maximum stays exact.
    fn from(sparse: &SparseLatency) -> Latency {
        let mut latency = Latency::new();
        for (range, count) in sparse.ranges() {
            latency.record_many(((range.start + range.end) / 2).min(sparse.max), count);
        }
        latency.max = sparse.max;
        latency
    }
}

impl From<&Latency> for SparseLatency {
    fn from(latency: &Latency) -> SparseLatency {
        let mut gathered = GatheredLatency::default();
        for value in latency.nanos.iter_recorded() {
            // The middle of the finer cell; its end may belong to the next one here.
            let nanos = latency.nanos.median_equivalent(value.value_iterated_to());
            gathered.add(Duration::from_nanos(nanos), value.count_since_last_iteration());
        }
        SparseLatency { max: latency.max, ..gathered.take() }
    }
}

/// Where the samples of an interval are gathered: nothing is allocated, and clearing touches only the used cells.
#[derive(Clone, Debug)]
pub struct GatheredLatency {
    counts: Box<[u64]>,
    /// Cells with samples, in the order of their first one.
    used: Vec<u16>,
    max: Duration,
}

impl Default for GatheredLatency {
    fn default() -> GatheredLatency {
        GatheredLatency {
            counts: vec![0; CELLS].into(),
            used: Vec::with_capacity(CELLS),
            max: Duration::ZERO,
        }
    }
}

impl GatheredLatency {
    pub fn record(&mut self, latency: Duration) {
        self.add(latency, 1);
    }

    fn add(&mut self, latency: Duration, count: u64) {
        let latency = latency.min(LATENCY_MAX);
        let cell = cells::index::<BITS>(latency.as_nanos() as u64);
        if self.counts[cell] == 0 {
            self.used.push(cell as u16);
        }
        self.counts[cell] += count;
        self.max = self.max.max(latency);
    }

    /// What was gathered; nothing is left.
    pub fn take(&mut self) -> SparseLatency {
        self.used.sort_unstable();
        let cells =
            self.used.iter().map(|cell| (*cell, std::mem::take(&mut self.counts[usize::from(*cell)])));
        let cells = cells.collect();
        self.used.clear();
        SparseLatency { cells, max: std::mem::take(&mut self.max) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gathered(nanos: &[u64]) -> SparseLatency {
        let mut gathered = GatheredLatency::default();
        nanos.iter().for_each(|nanos| gathered.record(Duration::from_nanos(*nanos)));
        gathered.take()
    }

    #[test]
    fn taking_leaves_nothing() {
        let mut gathered = GatheredLatency::default();
        gathered.record(Duration::from_millis(3));
        assert_eq!((gathered.take().count(), gathered.take()), (1, SparseLatency::default()));
    }

    #[test]
    fn the_maximum_is_exact_and_beyond_the_range_is_recorded_at_its_end() {
        assert_eq!(gathered(&[5, 123_456_789]).summary().max_us, Some(123_456.8));
        assert_eq!(gathered(&[u64::MAX]).max(), Some(LATENCY_MAX));
        assert_eq!(gathered(&[]).max(), None);
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_samples_within_half_a_percent(
            mut samples in proptest::collection::vec(1_000u64..10_000_000_000, 20..400),
        ) {
            let sparse = gathered(&samples);
            samples.sort_unstable();
            let exact = samples[samples.len().div_ceil(2) - 1] as f64;
            let median = Latency::from(&sparse).quantile(0.5).unwrap().as_nanos() as f64;
            prop_assert!((median - exact).abs() <= exact * 0.005, "{median} for {exact}");
            prop_assert_eq!(sparse.count(), samples.len() as u64);
        }

        #[test]
        fn merging_is_gathering_together(
            left in proptest::collection::vec(0u64..1_000_000, 0..50),
            right in proptest::collection::vec(0u64..1_000_000, 0..50),
        ) {
            let mut merged = gathered(&left);
            merged.merge(&gathered(&right));
            prop_assert_eq!(merged, gathered(&[left, right].concat()));
        }

        #[test]
        fn finer_cells_and_back_change_nothing(samples in proptest::collection::vec(0u64..4_000_000_000_000, 0..50)) {
            let sparse = gathered(&samples);
            prop_assert_eq!(SparseLatency::from(&Latency::from(&sparse)), sparse);
        }
    }
}
