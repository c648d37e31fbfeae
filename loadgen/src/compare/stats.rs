//! How far apart two handfuls of runs are, and how sure that is.
//!
//! The estimate is the median of all ratios between a run of A and a run of B (Hodges and Lehmann, on logarithms);
//! its confidence interval inverts the exact Mann–Whitney test. Nothing is assumed of how the figures spread, which
//! for tails of latency nobody knows, and nothing is drawn at random, so that the same runs give the same answer.

use serde::Serialize;

/// Confidence asked for; the exact one, which only certain steps can have, is at least this.
pub const CONFIDENCE: f64 = 0.95;

/// Runs of one side that are looked at.
pub const ROUNDS_MAX: usize = 200;

/// The ratio A / B.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
    /// Of the interval from `low` to `high`.
    pub confidence: f64,
}

/// The ratio between positive figures of A and of B; `None` if there are too few for the confidence asked for.
pub fn ratio(a: &[f64], b: &[f64]) -> Option<Ratio> {
    let (a, b) = (&a[..a.len().min(ROUNDS_MAX)], &b[..b.len().min(ROUNDS_MAX)]);
    if a.iter().chain(b).any(|figure| !(figure.is_finite() && *figure > 0.0)) {
        return None;
    }
    let (outside, confidence) = ratios_outside(a.len(), b.len())?;
    let mut ratios: Vec<f64> = a.iter().flat_map(|a| b.iter().map(move |b| a / b)).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let (low, high) = (ratios[outside], ratios[ratios.len() - 1 - outside]);
    Some(Ratio { estimate: median(&ratios), low, high, confidence })
}

/// How many of the sorted ratios lie outside the interval on each side, and the confidence of what remains.
fn ratios_outside(a: usize, b: usize) -> Option<(usize, f64)> {
    let chances = mann_whitney(a, b)?;
    // P(U <= u) may be at most half of the doubt; the interval then begins at the ratio number u + 1.
    let doubt_each_side = (1.0 - CONFIDENCE) / 2.0;
    let mut below = 0.0;
    let mut found = None;
    for (u, chance) in chances.iter().enumerate() {
        below += chance;
        if below > doubt_each_side {
            break;
        }
        found = Some((u, 1.0 - 2.0 * below));
    }
    found
}

/// The chance of each value of U if both sides are alike: the number of pairs in which A is the larger.
///
/// Counted with the recurrence of Mann and Whitney (1947): the largest of all is one of A's and beats all of B, or it
/// is one of B's and beats nobody.
fn mann_whitney(a: usize, b: usize) -> Option<Vec<f64>> {
    if a == 0 || b == 0 {
        return None;
    }
    // chances[j][u] for i of A and j of B; rows of smaller i are overwritten in place.
    let mut chances: Vec<Vec<f64>> = vec![vec![1.0]; b + 1];
    for i in 1..=a {
        chances[0] = vec![1.0];
        for j in 1..=b {
            let of_a = i as f64 / (i + j) as f64;
            let mut next = vec![0.0; i * j + 1];
            for (u, chance) in chances[j].iter().enumerate() {
                next[u + j] += chance * of_a;
            }
            for (u, chance) in chances[j - 1].iter().enumerate() {
                next[u] += chance * (1.0 - of_a);
            }
            chances[j] = next;
        }
    }
    chances.pop()
}

/// The middle of sorted figures; of two in the middle their geometric mean, as suits ratios.
fn median(sorted: &[f64]) -> f64 {
    let (lower, upper) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    (lower * upper).sqrt()
}

/// The middle of figures in any order.
pub fn median_of(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    (!sorted.is_empty()).then(|| (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_those_of_the_published_tables() {
        // Mann and Whitney 1947, table I: n = 3, m = 3: P(U <= 0) = .050, P(U <= 1) = .100, P(U <= 2) = .200.
        let below = |a, b, u| mann_whitney(a, b).unwrap()[..=u].iter().sum::<f64>();
        for (a, b, u, expected) in [(3, 3, 0, 0.05), (3, 3, 1, 0.1), (3, 3, 2, 0.2), (4, 4, 0, 1.0 / 70.0)] {
            assert!((below(a, b, u) - expected).abs() < 1e-12, "{a} {b} {u}");
        }
        let all: f64 = mann_whitney(7, 5).unwrap().iter().sum();
        assert!((all - 1.0).abs() < 1e-12);
        assert_eq!(mann_whitney(0, 5), None);
    }

    #[test]
    fn critical_values_are_those_of_every_textbook() {
        // Two-sided, 0.05: the largest U that rejects. (n, m) -> U.
        for (a, b, critical) in [(4, 4, 0), (5, 5, 2), (6, 6, 5), (8, 8, 13), (10, 10, 23), (20, 20, 127)] {
            assert_eq!(ratios_outside(a, b).unwrap().0, critical, "{a} {b}");
        }
        assert_eq!(ratios_outside(3, 3), None);
    }

    #[test]
    fn four_rounds_each_are_enough_and_three_are_not() {
        let three = ratio(&[1.0, 1.0, 1.0], &[2.0, 2.0, 2.0]);
        assert_eq!(three, None);
        let four = ratio(&[10.0, 11.0, 12.0, 13.0], &[20.0, 20.0, 20.0, 20.0]).unwrap();
        assert_eq!((four.low, four.high), (0.5, 0.65));
        assert!((four.confidence - (1.0 - 2.0 / 70.0)).abs() < 1e-12);
        assert!((four.estimate - (0.55f64 * 0.6).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn an_outlier_moves_the_estimate_little() {
        let quiet = ratio(&[10.0, 11.0, 12.0, 13.0, 14.0], &[10.0, 11.0, 12.0, 13.0, 14.0]).unwrap();
        let hit = ratio(&[10.0, 11.0, 12.0, 13.0, 9_000.0], &[10.0, 11.0, 12.0, 13.0, 14.0]).unwrap();
        assert!((quiet.estimate - 1.0).abs() < 1e-9 && (hit.estimate - 1.0).abs() < 0.1, "{hit:?}");
        assert!(quiet.low < 1.0 && quiet.high > 1.0);
    }

    #[test]
    fn what_has_no_logarithm_gives_no_ratio() {
        assert_eq!(ratio(&[0.0, 1.0, 1.0, 1.0], &[1.0; 4]), None);
        assert_eq!(ratio(&[f64::NAN, 1.0, 1.0, 1.0], &[1.0; 4]), None);
        assert_eq!(ratio(&[], &[]), None);
    }

    /// Both sides from the same source: the interval must miss 1 in at most one of twenty comparisons.
    #[test]
    fn equal_sides_are_called_different_no_oftener_than_promised() {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut draw = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Heavy on one side, as latencies are.
            1.0 / (1.0 - (state >> 11) as f64 / (1u64 << 53) as f64)
        };
        let trials = 4_000;
        let mut missed = 0;
        for _ in 0..trials {
            let (a, b): (Vec<f64>, Vec<f64>) = (0..6).map(|_| (draw(), draw())).unzip();
            let found = ratio(&a, &b).unwrap();
            missed += u32::from(found.low > 1.0 || found.high < 1.0);
        }
        let share = f64::from(missed) / f64::from(trials);
        assert!((0.02..0.055).contains(&share), "{share}");
    }
}
