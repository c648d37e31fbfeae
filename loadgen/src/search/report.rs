//! What a search and a curve leave behind: text, JSON, CSV.

use std::fmt::Write;

use serde::Serialize;

use super::bisect::{Conclusion, Limit, Plan, Tried};
use super::bound::{Bound, Measure, Percentile};
use super::curve::Point;
use super::verdict::{Measured, Verdict};
use crate::figures::{count, micros, per_second};
use crate::scenario::Scenario;

/// One probe of a search.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeRecord {
    pub measured: Measured,
    pub verdict: Verdict,
}

/// The result of a search; `--json` writes it.
#[derive(Clone, Debug, Serialize)]
pub struct SearchReport {
    pub version: &'static str,
    pub bound: Bound,
    pub plan: Plan,
    #[serde(flatten)]
    pub conclusion: Conclusion,
    pub probes: Vec<ProbeRecord>,
    pub interrupted: bool,
    /// What was run at each rate.
    pub scenario: Scenario,
}

impl ProbeRecord {
    /// One line while the search goes on.
    pub fn line(&self, bound: &Bound) -> String {
        let percentile = bound.percentile;
        let latency = &self.measured.latency;
        format!(
            "{:>14}  p50 {:>8}  {} {:>8} µs  {}",
            per_second(self.measured.planned as f64),
            micros(latency.p50_us),
            percentile.name(),
            micros(percentile.of(latency)),
            self.verdict
        )
    }
}

impl SearchReport {
    pub fn text(&self) -> String {
        let mut out = String::from("\n");
        for probe in &self.probes {
            let _ = writeln!(out, "{}", probe.line(&self.bound));
        }
        let found = &self.conclusion;
        let of = |what: u32, tried: &Tried| {
            let all = tried.held + tried.failed + tried.void;
            format!("{what} of {all} probe{}", if all == 1 { "" } else { "s" })
        };
        let _ = writeln!(out);
        match found.rate {
            Some(rate) => {
                let _ = writeln!(
                    out,
                    "{} with {}: held in {}",
                    per_second(rate as f64),
                    self.bound,
                    of(found.at_rate.held, &found.at_rate)
                );
            }
            None => {
                let _ = writeln!(out, "no rate held {}", self.bound);
            }
        }
        match (found.limit, found.failed_rate) {
            (Limit::Broker, Some(failed)) => {
                let tried = &found.at_failed_rate;
                let _ = writeln!(out, "{} failed in {}", per_second(failed as f64), of(tried.failed, tried));
            }
            (Limit::Generator, Some(failed)) => {
                let _ = writeln!(
                    out,
                    "at {} the GENERATOR was the bottleneck or had too few samples: the broker bears at least the rate \
                     above, perhaps more (give the generator more CPUs, --threads and --pin)",
                    per_second(failed as f64)
                );
            }
            (_, _) if found.finished => {
                let _ = writeln!(
                    out,
                    "nothing failed up to {}: the limit of the search, not of the broker",
                    per_second(self.plan.highest as f64)
                );
            }
            (_, _) => {}
        }
        if !found.finished {
            let why = if self.interrupted { "it was interrupted" } else { "its rounds were used up" };
            let _ = writeln!(
                out,
                "the search did not come to its end: {why}; the answer may be higher or unsure"
            );
        }
        out
    }
}

/// The result of a curve; `--json` writes it.
#[derive(Clone, Debug, Serialize)]
pub struct CurveReport {
    pub version: &'static str,
    pub measure: Measure,
    /// Messages per second of the closed loop, if it was asked.
    pub saturation: Option<f64>,
    pub points: Vec<Point>,
    /// Rates that were not run because those before them were not reached.
    pub left_out: Vec<u64>,
    pub interrupted: bool,
    pub scenario: Scenario,
}

const CURVE_COLUMNS: [Percentile; 6] = Percentile::ALL;

impl CurveReport {
    pub fn text(&self) -> String {
        let mut out = String::from("\n");
        if let Some(saturation) = self.saturation {
            let _ = writeln!(out, "closed loop: {}\n", per_second(saturation));
        }
        let _ = write!(out, "{:>10}{:>10}", "planned/s", "acked/s");
        for column in CURVE_COLUMNS {
            let _ = write!(out, "{:>9}", column.name());
        }
        let _ = writeln!(out, "{:>9}{:>11}  latency in µs, {}", "max", "samples", self.measure_name());
        for point in &self.points {
            let _ = write!(out, "{:>10}{:>10}", count(point.rate), count(point.acknowledged.round() as u64));
            for column in CURVE_COLUMNS {
                let _ = write!(out, "{:>9}", micros(column.of(&point.latency)));
            }
            let remarks = remarks(point);
            let (max, samples) = (micros(point.latency.max_us), count(point.latency.count));
            let _ =
                writeln!(out, "{max:>9}{samples:>11}{}{remarks}", if remarks.is_empty() { "" } else { "  " });
        }
        if let (Some(first), Some(last)) = (self.left_out.first(), self.left_out.last()) {
            let _ = writeln!(
                out,
                "not run, because those before were not reached: {} rates from {} to {}",
                self.left_out.len(),
                count(*first),
                count(*last)
            );
        }
        if self.interrupted {
            let _ = writeln!(out, "ended early by the user");
        }
        out
    }

    pub fn csv(&self) -> String {
        let mut out = String::from(
            "rate,acknowledged,p50_us,p90_us,p99_us,p999_us,p9999_us,p99999_us,max_us,samples,errors,unsent,falls_short,generator_late\n",
        );
        for point in &self.points {
            let _ = write!(out, "{},{}", point.rate, point.acknowledged);
            let latencies = CURVE_COLUMNS.map(|column| column.of(&point.latency));
            for us in latencies.into_iter().chain([point.latency.max_us]) {
                let _ = write!(out, ",{}", us.map(|us| us.to_string()).unwrap_or_default());
            }
            let (samples, errors, unsent) = (point.latency.count, point.errors, point.unsent);
            let late = point.generator.is_some();
            let _ = writeln!(out, ",{samples},{errors},{unsent},{},{late}", point.falls_short);
        }
        out
    }

    pub(super) fn measure_name(&self) -> &'static str {
        match self.measure {
            Measure::Publish => "publish",
            Measure::E2e => "end to end",
        }
    }
}

/// What has to be said beside a point's figures.
pub(super) fn remarks(point: &Point) -> String {
    let mut remarks = Vec::new();
    if point.falls_short {
        remarks.push("rate not reached".to_owned());
    }
    if point.errors > 0 {
        remarks.push(format!("{} errors", count(point.errors)));
    }
    remarks.extend(point.faults.iter().cloned());
    if point.generator.is_some() {
        remarks.push("generator late".to_owned());
    }
    remarks.join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::model::ModelBroker;
    use super::*;

    fn points() -> Vec<Point> {
        let mut broker = ModelBroker { capacity: 10_000.0, noise: 0.0, stall_chance: 0.0, seed: 1 };
        [5_000, 20_000].map(|rate| Point::from(broker.measure(rate))).into()
    }

    pub(in crate::search) fn curve() -> CurveReport {
        CurveReport {
            version: "0",
            measure: Measure::Publish,
            saturation: Some(10_000.0),
            points: points(),
            left_out: vec![30_000],
            interrupted: false,
            scenario: Scenario::default(),
        }
    }

    #[test]
    fn a_curve_has_a_line_for_each_rate_and_says_what_was_not_reached() {
        let text = curve().text();
        assert!(text.contains("     5,000     5,000") && text.contains("rate not reached"), "{text}");
        assert!(text.contains("1 rates from 30,000 to 30,000"), "{text}");
        let csv = curve().csv();
        let columns = |line: &str| line.split(',').count();
        assert_eq!(csv.lines().map(columns).collect::<Vec<_>>(), [14, 14, 14]);
        assert!(csv.contains("\n20000,10000,"), "{csv}");
    }

    fn conclude(conclusion: Conclusion) -> String {
        let bound = Bound {
            measure: Measure::Publish,
            percentile: Percentile::P999,
            below: Duration::from_millis(5),
        };
        let plan = Plan { first: 1, lowest: 1, highest: 9_000, precision: 0.05, attempts: 3, rounds: 9 };
        let (probes, interrupted, scenario) = (vec![], false, Scenario::default());
        SearchReport { version: "0", bound, plan, conclusion, probes, interrupted, scenario }.text()
    }

    #[test]
    fn a_search_says_what_it_found_how_sure_it_is_and_what_limits_it() {
        let found = Conclusion {
            rate: Some(4_000),
            at_rate: Tried { held: 2, failed: 1, void: 0 },
            failed_rate: Some(4_200),
            at_failed_rate: Tried { held: 0, failed: 1, void: 0 },
            limit: Limit::Broker,
            finished: true,
        };
        let text = conclude(found);
        assert!(
            text.contains("4,000 msg/s with publish p99.9 below 5,000 µs: held in 2 of 3 probes"),
            "{text}"
        );
        assert!(text.contains("4,200 msg/s failed in 1 of 1 probe\n"), "{text}");
        let text = conclude(Conclusion { limit: Limit::Generator, ..found });
        assert!(text.contains("at 4,200 msg/s the GENERATOR was the bottleneck"), "{text}");
        let text = conclude(Conclusion { limit: Limit::Highest, failed_rate: None, ..found });
        assert!(text.contains("nothing failed up to 9,000 msg/s"), "{text}");
        let text = conclude(Conclusion { rate: None, finished: false, ..found });
        assert!(text.contains("no rate held") && text.contains("rounds were used up"), "{text}");
    }
}
