//! Latencies of rounds, and how they are printed.

use std::time::Duration;

/// The samples of one contender, round by round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    /// Sorted.
    rounds: Vec<Vec<Duration>>,
}

impl Samples {
    pub(crate) fn push_round(&mut self, mut samples: Vec<Duration>) {
        samples.sort_unstable();
        self.rounds.push(samples);
    }

    /// The median of the rounds' quantiles: one disturbed round does not decide.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        median(self.rounds.iter().map(|round| us(at(round, quantile))).collect())
    }

    /// Least and greatest of the rounds' quantiles.
    pub(crate) fn spread(&self, quantile: f64) -> (f64, f64) {
        let of_rounds = self.rounds.iter().map(|round| us(at(round, quantile)));
        of_rounds.fold((f64::MAX, 0.0), |(least, most), value| (least.min(value), most.max(value)))
    }

    pub(crate) fn len(&self) -> usize {
        self.rounds.iter().map(Vec::len).sum()
    }
}

fn at(sorted: &[Duration], quantile: f64) -> Duration {
    sorted
        .get(((sorted.len() as f64 * quantile) as usize).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn us(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// `median (least .. greatest)`.
pub(crate) fn with_spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{:.1} ({least:.1} .. {most:.1})", median(values.to_vec()))
}

pub(crate) fn latency_head() {
    println!(
        "{:<40} {:>8} {:>9} {:>9} {:>9} {:>7} {:>7} {:>7}   p99.9 of the rounds",
        "us", "samples", "p50", "p99", "p99.9", "p50", "p99", "p99.9"
    );
}

/// One contender, and its ratios to `floor`.
pub(crate) fn latency_line(name: &str, samples: &Samples, floor: &Samples) {
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| samples.quantile(quantile));
    let [r50, r99, r999] =
        [0.5, 0.99, 0.999].map(|quantile| samples.quantile(quantile) / floor.quantile(quantile));
    let (least, most) = samples.spread(0.999);
    let count = samples.len();
    println!(
        "{name:<40} {count:>8} {p50:>9.1} {p99:>9.1} {p999:>9.1} {r50:>7.2} {r99:>7.2} {r999:>7.2}   {least:.0} .. {most:.0}"
    );
}
