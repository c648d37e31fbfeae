//! What a ratio and its interval allow to be said.

use std::fmt;

use serde::Serialize;

use super::stats::Ratio;

/// Differences up to this part are of no use to anybody, however sure they are.
pub const DIFFERENCE_MIN: f64 = 0.01;

/// A, measured against B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Better,
    Worse,
    /// The whole interval lies within `DIFFERENCE_MIN` of 1.
    Same,
    /// The interval includes 1, or there are too few runs for one.
    CannotTell,
}

/// Which direction is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    Less,
    More,
}

impl Verdict {
    /// Only an interval without 1 makes a difference a fact.
    pub fn of(ratio: Option<&Ratio>, wanted: Wanted) -> Verdict {
        let Some(ratio) = ratio else { return Verdict::CannotTell };
        if ratio.low >= 1.0 - DIFFERENCE_MIN && ratio.high <= 1.0 + DIFFERENCE_MIN {
            return Verdict::Same;
        }
        match (ratio.high < 1.0, ratio.low > 1.0, wanted) {
            (true, _, Wanted::Less) | (_, true, Wanted::More) => Verdict::Better,
            (true, _, Wanted::More) | (_, true, Wanted::Less) => Verdict::Worse,
            (false, false, _) => Verdict::CannotTell,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Same => "the same within 1 %",
            Verdict::CannotTell => "cannot tell",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_an_interval_has_its_verdict() {
        use Verdict::*;
        let table = [
            ((0.5, 0.9), Better, Worse),
            ((1.1, 1.9), Worse, Better),
            ((0.9, 1.1), CannotTell, CannotTell),
            ((0.995, 1.2), CannotTell, CannotTell),
            ((0.995, 1.004), Same, Same),
            // Sure, and too little to matter.
            ((0.992, 0.996), Same, Same),
            ((1.004, 1.2), Worse, Better),
        ];
        for ((low, high), for_less, for_more) in table {
            let ratio = Ratio { estimate: f64::midpoint(low, high), low, high, confidence: 0.95 };
            assert_eq!(Verdict::of(Some(&ratio), Wanted::Less), for_less, "{low} {high}");
            assert_eq!(Verdict::of(Some(&ratio), Wanted::More), for_more, "{low} {high}");
        }
        assert_eq!(Verdict::of(None, Wanted::Less), CannotTell);
    }
}
