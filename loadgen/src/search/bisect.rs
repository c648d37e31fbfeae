//! Which rate to try next, until the highest that holds is known.
//!
//! ```text
//!   from ─×2─▶ ─×2─▶ ─×2─▶ failed     ascent: the first failure ends it
//!                 held ◀─┴─▶ failed   bisection, by ratio, until the two are near each other
//!                 held, held          the answer has to hold in most of its attempts
//!                      failed, failed and the rate above it to fail in most of twice as many
//! ```
//!
//! Latency tails are noisy: the same rate may hold once and fail once. So a verdict that is not clear is asked for
//! again, and the majority of `attempts` decides. The rate that is given as the answer was never seen in one lucky
//! probe alone, and the one above it was not refused for two stalls that chance put there.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::verdict::Verdict;
use crate::schedule::RATE_MAX;

/// Attempts at one rate of which the majority decides.
const ATTEMPTS_MAX: u32 = 15;

const ASCENT_FACTOR: f64 = 2.0;
/// Rates below the first are only of interest if it fails; then they are found in few steps.
const DESCENT_FACTOR: f64 = 4.0;
/// Rates are tried in three digits: nobody remembers more, and noise hides the rest.
const RATE_DIGITS: u32 = 3;

/// How a search goes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Tried first.
    pub first: u64,
    /// Not tried below and above these.
    pub lowest: u64,
    pub highest: u64,
    /// The answer is near enough if a rate higher by this part failed.
    pub precision: f64,
    /// Attempts at a rate near the border; the majority decides. Odd.
    pub attempts: u32,
    /// Probes after which the search ends with what it knows.
    pub rounds: u32,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    #[error("rates from {lowest} to {highest}, first {first}: they must rise, from 1 to {RATE_MAX}")]
    Rates { lowest: u64, first: u64, highest: u64 },
    #[error("a precision of {0}; allowed are 0.01 to 1")]
    Precision(f64),
    #[error("{0} attempts; allowed are 1, 3, 5 … {ATTEMPTS_MAX}")]
    Attempts(u32),
    #[error("no rounds")]
    Rounds,
}

impl Plan {
    pub fn check(&self) -> Result<(), PlanError> {
        let &Plan { first, lowest, highest, precision, attempts, rounds } = self;
        if lowest == 0 || first < lowest || highest < first || highest > RATE_MAX {
            return Err(PlanError::Rates { lowest, first, highest });
        }
        if !(0.01..=1.0).contains(&precision) {
            return Err(PlanError::Precision(precision));
        }
        if attempts > ATTEMPTS_MAX || attempts % 2 == 0 {
            return Err(PlanError::Attempts(attempts));
        }
        if rounds == 0 {
            return Err(PlanError::Rounds);
        }
        Ok(())
    }
}

/// What came of the probes at one rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tried {
    pub held: u32,
    pub failed: u32,
    /// Probes in which the generator was the bottleneck, or that had too few samples.
    pub void: u32,
}

impl Tried {
    fn against(&self) -> u32 {
        self.failed + self.void
    }
}

/// What keeps the answer from being higher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The broker: at the next rate the bound was broken.
    Broker,
    /// The generator could not keep the next rate: the broker can bear at least the answer.
    Generator,
    /// The search was told to go no higher.
    Highest,
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Conclusion {
    /// The highest rate that held; `None` if none did.
    pub rate: Option<u64>,
    pub at_rate: Tried,
    /// The lowest rate above it that did not hold.
    pub failed_rate: Option<u64>,
    pub at_failed_rate: Tried,
    pub limit: Limit,
    /// Whether the search came to its end; not if rounds ran out or it was interrupted.
    pub finished: bool,
}

/// A search under way. Ask `next_rate`, run it, tell `on_probe`; until there is none.
#[derive(Clone, Debug)]
pub struct Search {
    plan: Plan,
    tried: BTreeMap<u64, Tried>,
    /// Rates about which the verdicts suffice, and whether they hold.
    settled: BTreeMap<u64, bool>,
    /// Rates that failed beyond doubt.
    clearly_failed: BTreeSet<u64>,
    /// Failed rates that were given a second hearing, with more attempts.
    reheard: BTreeSet<u64>,
    probes: u32,
    /// The rate to run now; `None` at the end.
    current: Option<u64>,
}

impl Search {
    pub fn new(plan: Plan) -> Result<Search, PlanError> {
        plan.check()?;
        Ok(Search {
            plan,
            tried: BTreeMap::new(),
            settled: BTreeMap::new(),
            clearly_failed: BTreeSet::new(),
            reheard: BTreeSet::new(),
            probes: 0,
            current: Some(plan.first),
        })
    }

    pub fn next_rate(&self) -> Option<u64> {
        self.current.filter(|_| self.probes < self.plan.rounds)
    }

    /// Takes in what the probe at `next_rate` has shown.
    pub fn on_probe(&mut self, verdict: &Verdict) {
        let rate = self.next_rate().expect("no probe was asked for");
        self.probes += 1;
        let majority = self.majority(rate);
        let tried = self.tried.entry(rate).or_default();
        let is_first = *tried == Tried::default();
        let mut clearly_held = false;
        match verdict {
            Verdict::Held { clear } => {
                tried.held += 1;
                clearly_held = *clear && is_first;
            }
            Verdict::Failed { clear, .. } => {
                tried.failed += 1;
                if *clear {
                    self.clearly_failed.insert(rate);
                }
            }
            Verdict::GeneratorLate | Verdict::TooFewSamples => tried.void += 1,
        }
        if tried.against() >= majority || self.clearly_failed.contains(&rate) {
            self.settled.insert(rate, false);
        } else if tried.held >= majority || clearly_held {
            self.settled.insert(rate, true);
        } else {
            return;
        }
        self.current = self.choose();
    }

    /// Verdicts that settle a rate.
    fn majority(&self, rate: u64) -> u32 {
        let attempts = self.plan.attempts;
        (if self.reheard.contains(&rate) { 2 * attempts + 1 } else { attempts }) / 2 + 1
    }

    /// The lowest rate that failed.
    fn failed(&self) -> Option<u64> {
        self.settled.iter().find(|(_, holds)| !**holds).map(|(rate, _)| *rate)
    }

    /// The highest rate that holds, below all that failed.
    fn held(&self) -> Option<u64> {
        let below = self.failed().unwrap_or(u64::MAX);
        self.settled.range(..below).next_back().map(|(rate, _)| *rate)
    }

    fn choose(&mut self) -> Option<u64> {
        let plan = &self.plan;
        match (self.held(), self.failed()) {
            (None, None) => Some(plan.first),
            (None, Some(failed)) => {
                let below = rounded(failed as f64 / DESCENT_FACTOR).max(plan.lowest);
                if below < failed { Some(below) } else { self.confirm() }
            }
            (Some(held), None) if held >= plan.highest => self.confirm(),
            (Some(held), None) => Some(rounded(held as f64 * ASCENT_FACTOR).min(plan.highest)),
            (Some(held), Some(failed)) => {
                let middle = rounded((held as f64 * failed as f64).sqrt());
                let is_near = failed as f64 <= held as f64 * (1.0 + plan.precision);
                if is_near || middle <= held || middle >= failed { self.confirm() } else { Some(middle) }
            }
        }
    }

    /// What is still to be asked once the border is narrow enough: the answer itself, while it has not held in the
    /// majority of its attempts; then the rate above it, if it failed only in ways that may be chance.
    fn confirm(&mut self) -> Option<u64> {
        if let Some(held) = self.held()
            && self.tried[&held].held < self.majority(held)
        {
            return Some(held);
        }
        let failed = self.failed().filter(|failed| !self.clearly_failed.contains(failed))?;
        self.reheard.insert(failed).then_some(failed)
    }

    pub fn conclusion(&self) -> Conclusion {
        let tried = |rate: Option<u64>| rate.map(|rate| self.tried[&rate]).unwrap_or_default();
        let (held, failed) = (self.held(), self.failed());
        let at_failed_rate = tried(failed);
        Conclusion {
            rate: held,
            at_rate: tried(held),
            failed_rate: failed,
            at_failed_rate,
            limit: match failed {
                None => Limit::Highest,
                Some(_) if at_failed_rate.void > at_failed_rate.failed => Limit::Generator,
                Some(_) => Limit::Broker,
            },
            finished: self.current.is_none(),
        }
    }
}

/// The rate in three digits, at least 1.
fn rounded(rate: f64) -> u64 {
    let rate = (rate.round() as u64).max(1);
    let unit = 10u64.pow((rate.ilog10() + 1).saturating_sub(RATE_DIGITS));
    (rate + unit / 2) / unit * unit
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::bound::{Bound, Measure, Percentile};
    use super::super::model::ModelBroker;
    use super::super::verdict::Reason;
    use super::*;

    const PLAN: Plan =
        Plan { first: 1_000, lowest: 100, highest: 10_000_000, precision: 0.05, attempts: 3, rounds: 60 };

    fn failed(clear: bool) -> Verdict {
        Verdict::Failed { clear, reasons: vec![Reason::Errors(1)] }
    }

    /// Runs the search against `broker`; the rates it asked for, and what it found.
    fn search(plan: Plan, mut broker: impl FnMut(u64) -> Verdict) -> (Vec<u64>, Conclusion) {
        let mut search = Search::new(plan).unwrap();
        let mut asked = Vec::new();
        while let Some(rate) = search.next_rate() {
            asked.push(rate);
            search.on_probe(&broker(rate));
        }
        (asked, search.conclusion())
    }

    #[test]
    fn it_ascends_bisects_and_confirms() {
        let broker = |rate| if rate <= 5_000 { Verdict::Held { clear: true } } else { failed(true) };
        let (asked, found) = search(PLAN, broker);
        assert_eq!(asked, [1_000, 2_000, 4_000, 8_000, 5_660, 4_760, 5_190, 4_970, 4_970]);
        assert_eq!((found.rate, found.failed_rate), (Some(4_970), Some(5_190)));
        assert_eq!((found.at_rate.held, found.limit, found.finished), (2, Limit::Broker, true));
    }

    #[test]
    fn if_the_first_rate_fails_it_looks_below_and_ends_at_the_lowest() {
        let broker = |rate| if rate <= 300 { Verdict::Held { clear: true } } else { failed(true) };
        let (asked, found) = search(PLAN, broker);
        assert_eq!(asked[..3], [1_000, 250, 500]);
        assert!((286..=300).contains(&found.rate.unwrap()), "{found:?}");
        let (asked, found) = search(PLAN, |_| failed(true));
        assert_eq!((asked, found.rate, found.finished), (vec![1_000, 250, 100], None, true));
    }

    #[test]
    fn the_highest_rate_allowed_is_an_answer() {
        let plan = Plan { highest: 3_000, ..PLAN };
        let (asked, found) = search(plan, |_| Verdict::Held { clear: true });
        assert_eq!(asked, [1_000, 2_000, 3_000, 3_000]);
        assert_eq!((found.rate, found.failed_rate, found.limit), (Some(3_000), None, Limit::Highest));
    }

    #[test]
    fn an_unclear_failure_is_repeated_and_outvoted() {
        let mut stalls = 0;
        let broker = |rate| {
            if rate == 2_000 && stalls == 0 {
                stalls += 1;
                return failed(false);
            }
            if rate <= 2_000 { Verdict::Held { clear: true } } else { failed(true) }
        };
        let (asked, found) = search(PLAN, broker);
        assert_eq!(asked[..5], [1_000, 2_000, 2_000, 2_000, 4_000]);
        assert_eq!(found.rate, Some(2_000));
        assert_eq!(found.at_rate, Tried { held: 2, failed: 1, void: 0 });
    }

    #[test]
    fn a_lucky_probe_is_not_the_answer() {
        let mut lucky = true;
        let broker = |rate| {
            if rate == 4_000 && std::mem::take(&mut lucky) {
                return Verdict::Held { clear: true };
            }
            if rate <= 2_000 { Verdict::Held { clear: true } } else { failed(false) }
        };
        let (_, found) = search(PLAN, broker);
        assert!((1_900..=2_000).contains(&found.rate.unwrap()), "{found:?}");
        assert!(found.at_rate.held >= 2 && found.failed_rate.unwrap() <= 2_100, "{found:?}");
    }

    #[test]
    fn two_stalls_in_a_row_do_not_end_the_ascent_for_good() {
        let mut stalls = 2;
        let broker = |rate| {
            if rate == 1_000 && stalls > 0 {
                stalls -= 1;
                return failed(false);
            }
            if rate <= 5_000 { Verdict::Held { clear: true } } else { failed(true) }
        };
        let (_, found) = search(PLAN, broker);
        assert!((4_750..=5_000).contains(&found.rate.unwrap()), "{found:?}");
    }

    #[test]
    fn a_generator_that_cannot_keep_up_is_named_as_the_limit() {
        let broker = |rate| {
            if rate <= 6_000 { Verdict::Held { clear: true } } else { Verdict::GeneratorLate }
        };
        let (_, found) = search(PLAN, broker);
        assert!((5_700..=6_000).contains(&found.rate.unwrap()), "{found:?}");
        assert_eq!((found.limit, found.finished), (Limit::Generator, true));
    }

    #[test]
    fn it_ends_when_the_rounds_are_used_up_and_says_so() {
        let (asked, found) = search(Plan { rounds: 3, ..PLAN }, |_| Verdict::Held { clear: true });
        assert_eq!((asked.len(), found.rate, found.finished), (3, Some(4_000), false));
    }

    #[test]
    fn plans_that_make_no_sense_are_refused() {
        for plan in [
            Plan { lowest: 0, ..PLAN },
            Plan { first: 99, ..PLAN },
            Plan { highest: 999, ..PLAN },
            Plan { highest: RATE_MAX + 1, ..PLAN },
            Plan { precision: 0.0, ..PLAN },
            Plan { precision: f64::NAN, ..PLAN },
            Plan { attempts: 2, ..PLAN },
            Plan { attempts: ATTEMPTS_MAX + 2, ..PLAN },
            Plan { rounds: 0, ..PLAN },
        ] {
            assert!(Search::new(plan).is_err(), "{plan:?}");
        }
    }

    #[test]
    fn rates_have_three_digits() {
        let table =
            [(0.2, 1), (7.4, 7), (999.6, 1_000), (1_234.0, 1_230), (1_235.0, 1_240), (9_999.0, 10_000)];
        for (rate, expected) in table {
            assert_eq!(rounded(rate), expected, "{rate}");
        }
    }

    #[test]
    fn the_border_of_a_noisy_broker_is_found() {
        let bound = Bound {
            measure: Measure::Publish,
            percentile: Percentile::P999,
            below: Duration::from_millis(5),
        };
        for seed in 1..=200 {
            let mut broker = ModelBroker { capacity: 40_000.0, noise: 0.15, stall_chance: 0.03, seed };
            let border = broker.highest_rate(&bound);
            let (asked, found) = search(PLAN, |rate| Verdict::of(&broker.measure(rate), &bound));
            let rate = found.rate.unwrap_or_default() as f64;
            // The border lies close to the capacity, where a few percent of load are a lot of latency.
            assert!((0.85..=1.03).contains(&(rate / border)), "seed {seed}: {rate} for {border}, {found:?}");
            assert!(found.at_rate.held >= 2 && found.finished && asked.len() <= 40, "seed {seed}: {asked:?}");
        }
    }
}
