//! Two brokers, several runs each: which is better, at what, and how sure that is.
//!
//! Machines change their mind from minute to minute, so runs of both sides take turns (`turns`), and a difference
//! counts only if the spread among runs of one side cannot explain it (`stats`). A run that measured the generator, or
//! that lost messages, is no evidence and says so.

mod page;
pub mod stats;
mod text;
pub mod verdict;

use serde::Serialize;

use self::stats::{ROUNDS_MAX, Ratio, median_of};
use self::verdict::{Verdict, Wanted};
use crate::latency::Latency;
use crate::report::Report;

/// Runs of each side without which no interval is sure enough: the extremes of three against three are not rare.
pub const ROUNDS_MIN: usize = 4;

/// The order in which runs are made: A B B A A B B A …, so that a steady drift of the machine favours nobody.
pub fn turns(rounds: usize) -> Vec<Turn> {
    (0..rounds)
        .flat_map(|round| if round % 2 == 0 { [Turn::A, Turn::B] } else { [Turn::B, Turn::A] })
        .collect()
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    A,
    B,
}

/// All runs of one side.
#[derive(Clone, Debug)]
pub struct Side {
    /// How it is called in what is printed.
    pub name: String,
    pub runs: Vec<Run>,
}

#[derive(Clone, Debug)]
pub struct Run {
    /// Tells it from the others in what is printed.
    pub label: String,
    pub report: Report,
}

/// The result.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub a: SideSummary,
    pub b: SideSummary,
    pub measures: Vec<Measure>,
    /// Runs that are no evidence, and why.
    pub excluded: Vec<String>,
    /// What makes the two sides hard to compare.
    pub cautions: Vec<String>,
    #[serde(skip)]
    spectra: Vec<Spectra>,
}

#[derive(Clone, Debug, Serialize)]
pub struct SideSummary {
    pub name: String,
    /// Brokers and load of its runs, in words.
    pub what: String,
    /// Runs that count.
    pub runs: usize,
}

/// One figure of all runs.
#[derive(Clone, Debug, Serialize)]
pub struct Measure {
    pub name: &'static str,
    pub unit: &'static str,
    pub wanted: Wanted,
    /// Of each run that has it, in the order of the runs.
    pub a: Vec<f64>,
    pub b: Vec<f64>,
    pub a_median: Option<f64>,
    pub b_median: Option<f64>,
    /// A / B.
    pub ratio: Option<Ratio>,
    /// A, measured against B.
    pub verdict: Verdict,
}

/// One distribution of all runs of both sides.
#[derive(Clone, Debug)]
struct Spectra {
    name: &'static str,
    a: Vec<Latency>,
    b: Vec<Latency>,
}

/// A figure of a report, if it has it.
type Figure = fn(&Report) -> Option<f64>;

/// What is compared. Latencies in microseconds.
const MEASURES: [(&str, &str, Wanted, Figure); 11] = [
    ("publish p50", "µs", Wanted::Less, |report| report.publish.summary().p50_us),
    ("publish p99", "µs", Wanted::Less, |report| report.publish.summary().p99_us),
    ("publish p99.9", "µs", Wanted::Less, |report| report.publish.summary().p999_us),
    ("publish p99.99", "µs", Wanted::Less, |report| report.publish.summary().p9999_us),
    ("end to end p50", "µs", Wanted::Less, |report| report.e2e.summary().p50_us),
    ("end to end p99", "µs", Wanted::Less, |report| report.e2e.summary().p99_us),
    ("end to end p99.9", "µs", Wanted::Less, |report| report.e2e.summary().p999_us),
    ("end to end p99.99", "µs", Wanted::Less, |report| report.e2e.summary().p9999_us),
    ("published", "msg/s", Wanted::More, |report| Some(report.throughput.published_per_s)),
    ("received", "msg/s", Wanted::More, |report| {
        report.configuration.consume.then_some(report.throughput.received_per_s)
    }),
    ("broker CPU per message", "µs", Wanted::Less, broker_cpu_us),
];

/// CPU time of the brokers in the measured part, for each message acknowledged there.
fn broker_cpu_us(report: &Report) -> Option<f64> {
    let run = &report.configuration;
    let (from, to) = (run.warmup.as_secs_f64(), (run.warmup + run.duration).as_secs_f64());
    let seconds: Vec<f64> =
        report.usage.brokers.iter().map(|broker| broker.cpu_seconds(from, to)).collect::<Option<_>>()?;
    let messages = report.throughput.published_per_s * run.duration.as_secs_f64();
    let total: f64 = seconds.iter().sum();
    (total > 0.0 && messages > 0.0).then(|| total * 1e6 / messages)
}

impl Comparison {
    pub fn of(a: &Side, b: &Side) -> Comparison {
        let mut excluded = Vec::new();
        let mut sound = |side: &Side| -> Vec<Report> {
            let sound = side.runs.iter().take(ROUNDS_MAX).filter(|run| match no_evidence(&run.report) {
                Some(reason) => {
                    excluded.push(format!("{}, {}: {reason}", side.name, run.label));
                    false
                }
                None => true,
            });
            sound.map(|run| run.report.clone()).collect()
        };
        let (a_sound, b_sound) = (sound(a), sound(b));
        let measure = |&(name, unit, wanted, figure): &(&'static str, &'static str, Wanted, Figure)| {
            let figures = |reports: &[Report]| reports.iter().filter_map(figure).collect::<Vec<f64>>();
            let (a, b) = (figures(&a_sound), figures(&b_sound));
            let enough = a.len().min(b.len()) >= ROUNDS_MIN;
            let ratio = enough.then(|| stats::ratio(&a, &b)).flatten();
            let verdict = Verdict::of(ratio.as_ref(), wanted);
            let (a_median, b_median) = (median_of(&a), median_of(&b));
            Measure { name, unit, wanted, a, b, a_median, b_median, ratio, verdict }
        };
        let measures = MEASURES.iter().map(measure).filter(|one| !one.a.is_empty() || !one.b.is_empty());
        let spectra = |name, latency: fn(&Report) -> &Latency| Spectra {
            name,
            a: a_sound.iter().map(latency).cloned().collect(),
            b: b_sound.iter().map(latency).cloned().collect(),
        };
        Comparison {
            a: SideSummary { name: a.name.clone(), what: what(a), runs: a_sound.len() },
            b: SideSummary { name: b.name.clone(), what: what(b), runs: b_sound.len() },
            measures: measures.collect(),
            cautions: cautions(a, b, a_sound.len().min(b_sound.len())),
            excluded,
            spectra: vec![
                spectra("Publish", |report| &report.publish),
                spectra("End to end", |report| &report.e2e),
            ],
        }
    }

    /// The whole in one sentence.
    pub fn headline(&self) -> String {
        let named = |verdict| {
            let names = self.measures.iter().filter(|measure| measure.verdict == verdict);
            names.map(|measure| measure.name).collect::<Vec<_>>()
        };
        let (a, b) = (&self.a.name, &self.b.name);
        match (&named(Verdict::Better)[..], &named(Verdict::Worse)[..]) {
            ([], []) if !self.measures.is_empty() && named(Verdict::CannotTell).is_empty() => {
                format!("{a} and {b} are the same within 1 %")
            }
            ([], []) => format!("cannot tell {a} from {b}"),
            (better, []) => format!("{a} is better than {b}: {}", better.join(", ")),
            ([], worse) => format!("{a} is worse than {b}: {}", worse.join(", ")),
            (better, worse) => {
                format!("{a} is better than {b} at {}, worse at {}", better.join(", "), worse.join(", "))
            }
        }
    }

    /// As people read it on a terminal.
    pub fn text(&self) -> String {
        text::render(self)
    }

    /// As people read it in a browser: one file that needs nothing else.
    pub fn html(&self) -> String {
        page::render(self)
    }
}

/// Why a run says nothing about its broker, if so.
fn no_evidence(report: &Report) -> Option<String> {
    if let Some(fault) = report.faults.first() {
        return Some(format!("{fault}; latencies of a broken promise do not count"));
    }
    if report.interrupted {
        return Some("ended early by the user".to_owned());
    }
    report.scheduling.objection()
}

/// The brokers and the load of a side's first run, in words.
fn what(side: &Side) -> String {
    let Some(run) = side.runs.first() else { return "no runs".to_owned() };
    let run = &run.report.configuration;
    format!("{} at {}; {}, {}", run.brokers.join(", "), run.namesrv, run.load, run.sizes)
}

fn cautions(a: &Side, b: &Side, runs_min: usize) -> Vec<String> {
    let mut cautions = Vec::new();
    if runs_min < ROUNDS_MIN {
        cautions.push(format!(
            "{runs_min} sound runs on one side; with fewer than {ROUNDS_MIN} on each no verdict is possible"
        ));
    }
    for side in [a, b] {
        let failed: u64 = side.runs.iter().map(|run| run.report.errors.total).sum();
        if failed > 0 {
            cautions.push(format!("{}: {failed} errors, which no distribution has", side.name));
        }
    }
    let runs = || a.runs.iter().chain(&b.runs).map(|run| &run.report);
    let mut differs = |what: &str, figure: fn(&Report) -> String| {
        let mut seen: Vec<String> = runs().map(figure).collect();
        seen.sort_unstable();
        seen.dedup();
        if seen.len() > 1 {
            cautions.push(format!("runs differ in their {what}: {}", seen.join(" / ")));
        }
    };
    differs("load", |report| report.configuration.load.clone());
    differs("sizes of messages", |report| report.configuration.sizes.clone());
    differs("messages", |report| format!("{:?}", report.configuration.scenario.messages));
    differs("connections", |report| report.configuration.connections.to_string());
    differs("queues", |report| report.configuration.queues.to_string());
    differs("length", |report| format!("{:?}", report.configuration.duration));
    differs("machine", |report| {
        let machine = &report.machine;
        let cpu = machine.cpu.as_deref().unwrap_or("unknown");
        format!("{} x {cpu}", machine.cpus)
    });
    cautions
}

#[cfg(test)]
mod tests;
