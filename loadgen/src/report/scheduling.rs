//! How late the generator itself was, and whether that taints what it reports.

use serde::{Deserialize, Serialize};

use crate::figures;
use crate::latency::{Latency, Summary};

/// The generator's share of a reported percentile above which the report says so.
const SHARE_MAX: f64 = 0.1;
/// The same for the maxima: single samples, which seldom belong to the same message.
const MAX_SHARE_MAX: f64 = 0.5;

/// Lateness of sends against the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scheduling {
    pub lateness: Latency,
    /// Set when the lateness is not small against the publish latency: the generator was part of what it measured.
    pub warning: Option<String>,
}

impl Scheduling {
    /// Compares like with like: the first percentile, from the middle outwards, at which lateness exceeds its share.
    pub fn judge(lateness: &Latency, publish: &Latency) -> Scheduling {
        Scheduling { lateness: lateness.clone(), warning: warning(&lateness.summary(), &publish.summary()) }
    }
}

fn warning(lateness: &Summary, publish: &Summary) -> Option<String> {
    let pairs = [
        ("p50", SHARE_MAX, lateness.p50_us, publish.p50_us),
        ("p90", SHARE_MAX, lateness.p90_us, publish.p90_us),
        ("p99", SHARE_MAX, lateness.p99_us, publish.p99_us),
        ("p99.9", SHARE_MAX, lateness.p999_us, publish.p999_us),
        ("p99.99", SHARE_MAX, lateness.p9999_us, publish.p9999_us),
        ("p99.999", SHARE_MAX, lateness.p99999_us, publish.p99999_us),
        ("max", MAX_SHARE_MAX, lateness.max_us, publish.max_us),
    ];
    pairs.into_iter().find_map(|(name, share_max, late, published)| {
        let (late, published) = (late?, published?);
        (late > published * share_max).then(|| {
            format!(
                "the generator itself was late: {name} {}, {:.0} % of the publish {name}. From there on read \
                 \"from actual send\", or give it a CPU of its own (--pin).",
                figures::latency(late),
                late / published * 100.0
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(p50: f64, p99: f64, max: f64) -> Summary {
        Summary {
            p50_us: Some(p50),
            p99_us: Some(p99),
            max_us: Some(max),
            count: 5_000,
            ..Summary::default()
        }
    }

    #[test]
    fn small_lateness_is_no_matter() {
        assert_eq!(warning(&summary(2.0, 9.0, 400.0), &summary(200.0, 900.0, 5_000.0)), None);
    }

    #[test]
    fn the_first_tainted_percentile_is_named() {
        let warning = warning(&summary(2.0, 450.0, 900.0), &summary(200.0, 900.0, 5_000.0));
        let warning = warning.unwrap();
        assert!(warning.contains("late: p99 450 µs, 50 % of the publish p99."), "{warning}");
    }

    #[test]
    fn a_late_single_message_taints_the_maximum_only_if_it_can_have_made_it() {
        let warning = |late_max| warning(&summary(2.0, 9.0, late_max), &summary(200.0, 900.0, 5_000.0));
        assert_eq!(warning(2_400.0), None);
        assert!(warning(2_600.0).unwrap().contains("max 2,600 µs"));
    }

    #[test]
    fn percentiles_without_samples_are_not_compared() {
        assert_eq!(warning(&Summary::default(), &summary(1.0, 1.0, 1.0)), None);
    }
}
