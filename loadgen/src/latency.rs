//! Latency distributions: recorded in nanoseconds with three digits, reported in microseconds.

pub mod cells;
mod json;
mod sparse;

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

pub use self::sparse::{GatheredLatency, SparseLatency};

/// Longest latency that is told apart; longer ones are recorded as this long, never left out.
pub const LATENCY_MAX: Duration = Duration::from_secs(3600);

/// A percentile is only reported if at least this many samples lie beyond it; with fewer it is the luck of a few.
pub const SAMPLES_BEYOND_MIN: f64 = 10.0;

const SIGNIFICANT_DIGITS: u8 = 3;

/// One distribution of latencies. Parts recorded by different threads merge without loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    nanos: Histogram<u64>,
    /// Exact, where the histogram would round it up to the end of its cell.
    max: Duration,
}

/// What is printed of a distribution. A percentile is `None` when there are too few samples for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub p50_us: Option<f64>,
    pub p90_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p999_us: Option<f64>,
    pub p9999_us: Option<f64>,
    pub p99999_us: Option<f64>,
    pub max_us: Option<f64>,
    pub count: u64,
}

impl Latency {
    pub fn new() -> Latency {
        let nanos_max = LATENCY_MAX.as_nanos() as u64;
        let nanos = Histogram::new_with_max(nanos_max, SIGNIFICANT_DIGITS).expect("valid fixed bounds");
        Latency { nanos, max: Duration::ZERO }
    }

    pub fn record(&mut self, latency: Duration) {
        self.record_many(latency, 1);
    }

    pub fn record_many(&mut self, latency: Duration, count: u64) {
        let latency = latency.min(LATENCY_MAX);
        self.nanos.saturating_record_n(latency.as_nanos() as u64, count);
        self.max = self.max.max(latency);
    }

    pub fn merge(&mut self, other: &Latency) {
        self.nanos.add(&other.nanos).expect("equal bounds");
        self.max = self.max.max(other.max);
    }

    pub fn count(&self) -> u64 {
        self.nanos.len()
    }

    /// The whole distribution, in nanoseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.nanos
    }

    /// The value below or at which the part `quantile` of all samples lies, if there are enough samples to say so.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        enough_samples(self.count(), quantile)
            .then(|| Duration::from_nanos(self.nanos.value_at_quantile(quantile)).min(self.max))
    }

    pub fn max(&self) -> Option<Duration> {
        (self.count() > 0).then_some(self.max)
    }

    pub fn summary(&self) -> Summary {
        Summary::of(|quantile| self.quantile(quantile), self)
    }
}

impl Summary {
    /// The percentiles that `at` gives, with the longest and the number of `counted`.
    pub fn of(at: impl Fn(f64) -> Option<Duration>, counted: &Latency) -> Summary {
        let at = |quantile| at(quantile).map(micros);
        Summary {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            p99999_us: at(0.99999),
            max_us: counted.max().map(micros),
            count: counted.count(),
        }
    }
}

impl Default for Latency {
    fn default() -> Latency {
        Latency::new()
    }
}

/// Whether `count` samples are enough to name the quantile.
pub fn enough_samples(count: u64, quantile: f64) -> bool {
    // The small addition keeps 100,000 samples enough for 0.9999, which binary fractions miss by a hair.
    count as f64 * (1.0 - quantile) + 1e-6 >= SAMPLES_BEYOND_MIN
}

/// Microseconds to a tenth, which is finer than three digits from 100 µs on.
pub fn micros(latency: Duration) -> f64 {
    (latency.as_nanos() as f64 / 100.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_need_ten_samples_beyond_them() {
        for (quantile, needed) in
            [(0.5, 20), (0.9, 100), (0.99, 1_000), (0.999, 10_000), (0.9999, 100_000), (0.99999, 1_000_000)]
        {
            assert!(enough_samples(needed, quantile), "{quantile} of {needed}");
            assert!(!enough_samples(needed - 1, quantile), "{quantile} of {}", needed - 1);
        }
    }

    #[test]
    fn a_few_samples_give_a_maximum_and_no_percentiles() {
        let mut latency = Latency::new();
        assert_eq!(latency.summary(), Summary::default());
        latency.record(Duration::from_micros(250));
        let summary = latency.summary();
        assert_eq!((summary.p50_us, summary.p9999_us, summary.count), (None, None, 1));
        assert_eq!(summary.max_us, Some(250.0));
    }

    #[test]
    fn beyond_the_range_is_recorded_at_its_end() {
        let mut latency = Latency::new();
        latency.record(Duration::from_secs(100_000));
        assert_eq!(latency.count(), 1);
        assert_eq!(latency.max(), Some(LATENCY_MAX));
    }

    #[test]
    fn a_stall_in_one_part_shows_in_the_merged_tail() {
        let (mut fast, mut slow) = (Latency::new(), Latency::new());
        for _ in 0..9_900 {
            fast.record(Duration::from_micros(100));
        }
        for _ in 0..100 {
            slow.record(Duration::from_millis(40));
        }
        fast.merge(&slow);
        let summary = fast.summary();
        assert!((summary.p90_us.unwrap() - 100.0).abs() <= 0.1);
        assert!((summary.p999_us.unwrap() - 40_000.0).abs() <= 40.0);
    }

    proptest! {
        #[test]
        fn quantiles_are_right_within_three_digits(
            mut samples in proptest::collection::vec(1_000u64..100_000_000, 20..400),
        ) {
            let mut latency = Latency::new();
            for nanos in &samples {
                latency.record(Duration::from_nanos(*nanos));
            }
            samples.sort_unstable();
            let exact = samples[samples.len().div_ceil(2) - 1] as f64;
            let median = latency.quantile(0.5).unwrap().as_nanos() as f64;
            prop_assert!((median - exact).abs() <= exact * 0.001 + 1.0, "{median} for {exact}");
        }
    }
}
