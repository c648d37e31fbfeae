//! HdrHistogram's percentile distribution as text: what its plotter and most spreadsheets read.
//!
//! Source of the layout: HdrHistogram 2.2, `AbstractHistogram#outputPercentileDistribution`, as `HistogramLogProcessor`
//! calls it: five steps to each halving of what remains, three decimals, milliseconds.

use std::fmt::Write;

use super::Report;
use crate::latency::Latency;

/// Steps to each halving of the distance to 100 %, as in HdrHistogram's own tools.
pub(super) const TICKS_PER_HALF_DISTANCE: u32 = 5;
/// Recorded nanoseconds in a written millisecond.
const SCALING_RATIO: f64 = 1e6;
/// Cells of which a bucket has its own half; from three digits, as the library computes it.
const SUB_BUCKETS: u64 = 2048;

/// Each distribution of a run that has samples, and what tells its file from that of `publish`, which is always there.
pub fn of_report(report: &Report) -> Vec<(&'static str, String)> {
    let further = [
        ("publish-from-sent", &report.publish_from_sent),
        ("e2e", &report.e2e),
        ("e2e-from-sent", &report.e2e_from_sent),
        ("consume-ack", &report.consume_ack),
    ];
    let further = further.into_iter().filter(|(_, latency)| latency.count() > 0);
    std::iter::once(("", &report.publish))
        .chain(further)
        .map(|(suffix, latency)| (suffix, text(latency)))
        .collect()
}

/// The distribution, value in milliseconds.
pub fn text(latency: &Latency) -> String {
    let nanos = latency.histogram();
    let millis = |nanos: f64| nanos / SCALING_RATIO;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut below = 0;
    for step in nanos.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        below += step.count_since_last_iteration();
        let reached = step.quantile_iterated_to();
        let value = millis(step.value_iterated_to() as f64);
        let _ = write!(out, "{value:>12.3} {reached:>2.12} {below:>10}");
        // The last line stands at 100 %, which nothing remains beyond.
        let _ = if reached < 1.0 { writeln!(out, " {:>14.2}", 1.0 / (1.0 - reached)) } else { writeln!(out) };
    }
    let (mean, deviation) = match latency.count() {
        0 => (0.0, 0.0),
        _ => (nanos.mean(), nanos.stdev()),
    };
    let (mean, deviation) = (millis(mean), millis(deviation));
    let max = millis(nanos.max() as f64);
    // Every bucket beyond the first adds half a bucket's cells.
    let buckets = nanos.distinct_values() as u64 / (SUB_BUCKETS / 2) - 1;
    let _ = writeln!(out, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]");
    let _ = writeln!(out, "#[Max     = {max:>12.3}, Total count    = {:>12}]", latency.count());
    let _ = writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {SUB_BUCKETS:>12}]");
    let _ = writeln!(out, "#[Value in milliseconds: recorded nanoseconds divided by {SCALING_RATIO}]");
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// 100 samples of 1 ms, ten of 5 ms, one of 50 ms; compared by hand with what HdrHistogram 2.2.2 writes.
    #[test]
    fn the_layout_is_hdrhistograms() {
        let mut latency = Latency::new();
        for (millis, times) in [(1, 100), (5, 10), (50, 1)] {
            (0..times).for_each(|_| latency.record(Duration::from_millis(millis)));
        }
        let text = text(&latency);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "       Value     Percentile TotalCount 1/(1-Percentile)");
        assert_eq!(lines[1], "");
        assert_eq!(lines[2], "       1.000 0.000000000000        100           1.00");
        assert!(lines.contains(&"       5.001 0.950000000000        110          20.00"), "{text}");
        assert!(lines.contains(&"      50.004 1.000000000000        111"), "{text}");
        assert!(lines.contains(&"#[Max     =       50.004, Total count    =          111]"), "{text}");
        assert!(lines.contains(&"#[Buckets =           32, SubBuckets     =         2048]"), "{text}");
    }

    #[test]
    fn a_distribution_without_samples_has_only_its_frame() {
        let text = text(&Latency::new());
        assert!(text.contains("#[Mean    =        0.000, StdDeviation   =        0.000]"), "{text}");
        assert!(text.contains("Total count    =            0]"), "{text}");
    }
}
