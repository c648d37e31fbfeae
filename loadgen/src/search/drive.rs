//! Runs what the plans ask for.

use std::time::Duration;

use super::bisect::{Plan, PlanError, Search};
use super::bound::{Bound, Measure};
use super::curve::{CurvePlan, Point};
use super::report::{CurveReport, ProbeRecord, SearchReport};
use super::verdict::{Measured, Verdict};
use crate::driver::run::{self, Observer, RunError};
use crate::report::Report;
use crate::scenario::{Load, Scenario};
use crate::stop::StopFlag;

/// Added to the warm-up after a rate that was too high: the broker may have a backlog to write.
const REST: Duration = Duration::from_secs(1);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(
        "a load whose rate changes ({0}) cannot be had at another rate; choose constant, poisson or bursts"
    )]
    Unsteady(String),
    #[error("the bound speaks of end to end, but the scenario has no consumers")]
    NoConsumers,
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Who is told how it goes: of each run as of any other, and of each probe when it is over.
pub struct Told<'a> {
    pub observer: &'a mut dyn Observer,
    pub line: &'a mut dyn FnMut(&str),
}

/// The highest rate of `scenario`'s load at which `bound` holds; each probe is held for `hold`.
pub fn search(
    scenario: &Scenario,
    bound: Bound,
    plan: Plan,
    hold: Duration,
    stop: &StopFlag,
    told: &mut Told<'_>,
) -> Result<SearchReport, SearchError> {
    needs_consumers(scenario, bound.measure)?;
    let mut search = Search::new(plan)?;
    let mut probes = Vec::new();
    let mut rest = Duration::ZERO;
    while let Some(rate) = search.next_rate() {
        let hold = bound.percentile.hold(rate, hold);
        let Some(report) = at_rate(scenario, Probe { rate, rest, hold }, stop, told.observer)? else { break };
        let measured = Measured::of(&report, rate, bound.measure);
        let verdict = Verdict::of(&measured, &bound);
        search.on_probe(&verdict);
        let probe = ProbeRecord { measured, verdict };
        (told.line)(&probe.line(&bound));
        rest = if matches!(probe.verdict, Verdict::Held { .. }) { Duration::ZERO } else { REST };
        probes.push(probe);
    }
    Ok(SearchReport {
        version: env!("CARGO_PKG_VERSION"),
        bound,
        plan,
        conclusion: search.conclusion(),
        probes,
        interrupted: stop.is_set(),
        scenario: scenario.clone(),
    })
}

/// Latencies at each of `rates`, each held for the scenario's duration.
pub fn curve(
    scenario: &Scenario,
    measure: Measure,
    rates: Vec<u64>,
    saturation: Option<f64>,
    stop: &StopFlag,
    told: &mut Told<'_>,
) -> Result<CurveReport, SearchError> {
    needs_consumers(scenario, measure)?;
    let mut plan = CurvePlan::new(rates);
    let mut points = Vec::new();
    let mut rest = Duration::ZERO;
    let hold = scenario.run.duration;
    while let Some(rate) = plan.next_rate() {
        let Some(report) = at_rate(scenario, Probe { rate, rest, hold }, stop, told.observer)? else {
            break;
        };
        let point = Point::from(Measured::of(&report, rate, measure));
        plan.on_point(&point);
        rest = if point.is_sound() { Duration::ZERO } else { REST };
        points.push(point);
    }
    Ok(CurveReport {
        version: env!("CARGO_PKG_VERSION"),
        measure,
        saturation,
        points,
        left_out: plan.left_out(),
        interrupted: stop.is_set(),
        scenario: scenario.clone(),
    })
}

/// Messages per second of a closed loop of that depth; `None` if it was interrupted.
pub fn saturation(
    scenario: &Scenario,
    depth: u32,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Option<f64>, SearchError> {
    let closed = Scenario { load: Load::Closed { depth }, ..scenario.clone() };
    let report = whole(run::run(&closed, stop, observer), stop)?;
    Ok(report.map(|report| report.throughput.published_per_s))
}

/// One run of a series.
struct Probe {
    rate: u64,
    rest: Duration,
    hold: Duration,
}

fn at_rate(
    scenario: &Scenario,
    probe: Probe,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Option<Report>, SearchError> {
    let load = scenario.load.at_rate(probe.rate);
    let load = load.ok_or_else(|| SearchError::Unsteady(scenario.load.to_string()))?;
    let mut scenario = Scenario { load, ..scenario.clone() };
    scenario.run.warmup += probe.rest;
    scenario.run.duration = probe.hold;
    whole(run::run(&scenario, stop, observer), stop)
}

/// A run that was cut short says nothing about its rate.
fn whole(result: Result<Report, RunError>, stop: &StopFlag) -> Result<Option<Report>, SearchError> {
    match result {
        Err(RunError::Interrupted) => Ok(None),
        result => Ok(Some(result?).filter(|report| !report.interrupted && !stop.is_set())),
    }
}

fn needs_consumers(scenario: &Scenario, measure: Measure) -> Result<(), SearchError> {
    match measure {
        Measure::E2e if !scenario.consumes() => Err(SearchError::NoConsumers),
        _ => Ok(()),
    }
}
