//! What one probe says about its rate.

use std::fmt;

use serde::{Serialize, Serializer};

use super::bound::{Bound, Measure, Percentile};
use crate::figures::{count, latency, per_second};
use crate::latency::Summary;
use crate::report::Report;

/// Part of the planned rate that may be missing in the acknowledged one: what is under way at the ends of the window,
/// and the chance in random arrivals.
const SHORTFALL_MAX: f64 = 0.05;
/// A percentile so far below the bound that a repetition would be a waste of time.
const CLEARLY_BELOW: f64 = 0.5;
/// The generator's part of the percentile from which on the broker is not to blame for it.
const GENERATOR_SHARE_MAX: f64 = 0.5;

/// The figures of a probe; all latencies of the measure that the bound speaks of.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measured {
    /// Messages per second.
    pub planned: u64,
    pub acknowledged: f64,
    /// From the planned send.
    pub latency: Summary,
    /// From the actual send.
    pub from_sent: Summary,
    /// Of the generator's sends.
    pub lateness: Summary,
    /// How late the generator noticed replies.
    pub noticing: Summary,
    /// Failed messages and pulls.
    pub errors: u64,
    /// Planned and never sent; also among `errors`.
    pub unsent: u64,
    /// What is wrong with the ledger.
    pub faults: Vec<String>,
    /// What the report says about the generator itself.
    pub generator: Option<String>,
}

impl Measured {
    pub fn of(report: &Report, planned: u64, measure: Measure) -> Measured {
        let (latency, from_sent) = match measure {
            Measure::Publish => (&report.publish, &report.publish_from_sent),
            Measure::E2e => (&report.e2e, &report.e2e_from_sent),
        };
        Measured {
            planned,
            acknowledged: report.throughput.published_per_s,
            latency: latency.summary(),
            from_sent: from_sent.summary(),
            lateness: report.scheduling.lateness.summary(),
            noticing: report.scheduling.noticing,
            errors: report.errors.total,
            unsent: report.errors.unsent,
            faults: report.faults.clone(),
            generator: report.scheduling.objection(),
        }
    }

    /// Whether clearly fewer messages were acknowledged than planned.
    pub fn falls_short(&self) -> bool {
        self.acknowledged < self.planned as f64 * (1.0 - SHORTFALL_MAX)
    }
}

/// Why a rate is not borne.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    Above { percentile: Percentile, us: f64 },
    Short { acknowledged: f64 },
    Errors(u64),
    Faulty(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Above { percentile, us } => write!(f, "{} {}", percentile.name(), latency(*us)),
            Reason::Short { acknowledged } => write!(f, "only {} acknowledged", per_second(*acknowledged)),
            Reason::Errors(errors) => write!(f, "{} errors", count(*errors)),
            Reason::Faulty(fault) => f.write_str(fault),
        }
    }
}

/// What a probe says. `clear`: a repetition could not say otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Held {
        clear: bool,
    },
    Failed {
        clear: bool,
        reasons: Vec<Reason>,
    },
    /// The rate was not kept, but by the generator: nothing is said about the broker.
    GeneratorLate,
    /// Too few samples for the percentile, and nothing else wrong.
    TooFewSamples,
}

impl Verdict {
    pub fn of(measured: &Measured, bound: &Bound) -> Verdict {
        let below_us = bound.below_us();
        let percentile = bound.percentile.of(&measured.latency);
        let mut reasons = Vec::new();
        if let Some(us) = percentile.filter(|us| *us > below_us) {
            reasons.push(Reason::Above { percentile: bound.percentile, us });
        }
        if measured.falls_short() {
            reasons.push(Reason::Short { acknowledged: measured.acknowledged });
        }
        if measured.errors > 0 {
            reasons.push(Reason::Errors(measured.errors));
        }
        reasons.extend(measured.faults.iter().cloned().map(Reason::Faulty));
        if !reasons.is_empty() {
            if is_the_generators(measured, bound) {
                return Verdict::GeneratorLate;
            }
            // One stall moves the tail and may be chance; too much load moves the middle as well.
            let middle_is_above = measured.latency.p50_us.is_some_and(|us| us > below_us);
            return Verdict::Failed { clear: measured.falls_short() || middle_is_above, reasons };
        }
        match percentile {
            None => Verdict::TooFewSamples,
            Some(us) => Verdict::Held { clear: us <= below_us * CLEARLY_BELOW },
        }
    }
}

/// Whether the failure is the generator's: from the actual sends the bound would have held, or most of the latency is
/// its lateness. A bound that holds in spite of lateness needs no such excuse.
fn is_the_generators(measured: &Measured, bound: &Bound) -> bool {
    let at = |summary: &Summary| bound.percentile.of(summary);
    let (Some(latency), Some(from_sent), Some(late)) =
        (at(&measured.latency), at(&measured.from_sent), at(&measured.lateness))
    else {
        return false;
    };
    let late = late.max(at(&measured.noticing).unwrap_or(0.0));
    let below_us = bound.below_us();
    let holds_from_sent = latency > below_us && from_sent <= below_us && measured.errors == 0;
    holds_from_sent || late > latency * GENERATOR_SHARE_MAX
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Held { .. } => f.write_str("held"),
            Verdict::Failed { reasons, .. } => {
                f.write_str("failed: ")?;
                for (at, reason) in reasons.iter().enumerate() {
                    write!(f, "{}{reason}", if at == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Verdict::GeneratorLate => f.write_str("the generator was the bottleneck"),
            Verdict::TooFewSamples => f.write_str("too few samples"),
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BOUND: Bound =
        Bound { measure: Measure::Publish, percentile: Percentile::P999, below: Duration::from_millis(5) };

    fn summary(p50_us: f64, p999_us: f64) -> Summary {
        Summary { p50_us: Some(p50_us), p999_us: Some(p999_us), count: 100_000, ..Summary::default() }
    }

    fn measured(p50_us: f64, p999_us: f64) -> Measured {
        let latency = summary(p50_us, p999_us);
        let lateness = summary(1.0, 5.0);
        Measured {
            planned: 10_000,
            acknowledged: 9_990.0,
            latency,
            from_sent: latency,
            lateness,
            ..Measured::default()
        }
    }

    fn verdict(p50_us: f64, p999_us: f64) -> Verdict {
        Verdict::of(&measured(p50_us, p999_us), &BOUND)
    }

    #[test]
    fn a_tail_far_below_the_bound_is_clear_and_one_near_it_is_not() {
        assert_eq!(verdict(100.0, 2_500.0), Verdict::Held { clear: true });
        assert_eq!(verdict(100.0, 2_600.0), Verdict::Held { clear: false });
        assert_eq!(verdict(100.0, 5_000.0), Verdict::Held { clear: false });
    }

    #[test]
    fn a_stall_is_no_clear_failure_however_long_and_overload_is() {
        let reasons = |us| vec![Reason::Above { percentile: Percentile::P999, us }];
        assert_eq!(verdict(100.0, 5_001.0), Verdict::Failed { clear: false, reasons: reasons(5_001.0) });
        assert_eq!(verdict(100.0, 900_000.0), Verdict::Failed { clear: false, reasons: reasons(900_000.0) });
        assert_eq!(verdict(6_000.0, 9_000.0), Verdict::Failed { clear: true, reasons: reasons(9_000.0) });
        let short = Measured { acknowledged: 9_400.0, ..measured(100.0, 200.0) };
        let reasons = vec![Reason::Short { acknowledged: 9_400.0 }];
        assert_eq!(Verdict::of(&short, &BOUND), Verdict::Failed { clear: true, reasons });
    }

    #[test]
    fn errors_and_faults_fail_a_rate_whatever_its_latency() {
        let bad = Measured { errors: 1, faults: vec!["1 lost".into()], ..measured(100.0, 200.0) };
        let reasons = vec![Reason::Errors(1), Reason::Faulty("1 lost".into())];
        assert_eq!(Verdict::of(&bad, &BOUND), Verdict::Failed { clear: false, reasons });
        assert_eq!(Verdict::of(&bad, &BOUND).to_string(), "failed: 1 errors, 1 lost");
    }

    #[test]
    fn the_broker_is_not_blamed_for_the_generator() {
        let late = Measured { from_sent: summary(90.0, 300.0), ..measured(100.0, 8_000.0) };
        assert_eq!(Verdict::of(&late, &BOUND), Verdict::GeneratorLate);
        let swamped = Measured { lateness: summary(1.0, 4_500.0), ..measured(100.0, 8_000.0) };
        assert_eq!(Verdict::of(&swamped, &BOUND), Verdict::GeneratorLate);
        let held_all_the_same = Measured { lateness: summary(1.0, 1_900.0), ..measured(100.0, 2_000.0) };
        assert_eq!(Verdict::of(&held_all_the_same, &BOUND), Verdict::Held { clear: true });
    }

    #[test]
    fn a_percentile_that_could_not_be_named_says_nothing() {
        let few = Measured { latency: Summary::default(), ..measured(1.0, 1.0) };
        assert_eq!(Verdict::of(&few, &BOUND), Verdict::TooFewSamples);
    }
}
