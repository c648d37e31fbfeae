//! The comparison for people at a browser: verdict, table, intervals, and the spectra of all runs laid over each other.

use super::stats::CONFIDENCE;
use super::verdict::Verdict;
use super::{Comparison, Measure, Spectra};
use crate::figures::micros;
use crate::latency::Latency;
use crate::report::html::curve_of;
use crate::report::html::document::{Block, Document, Level, Section, Tile};
use crate::report::html::ratios::{self, Interval};
use crate::report::html::spectrum::{self, Curve};

pub(super) fn render(comparison: &Comparison) -> String {
    let decided = |measure: &&Measure| matches!(measure.verdict, Verdict::Better | Verdict::Worse);
    let reasons = comparison.excluded.iter().map(|reason| format!("not counted: {reason}"));
    let sections = vec![
        Section {
            heading: "Figures".to_owned(),
            intro: format!(
                "Medians of all runs. A/B is the median of all ratios between a run of A and a run of B; the interval \
                 (exact Mann-Whitney, at least {:.0} % for each line by itself) says where the true ratio may lie. \
                 Only an interval without 1 is a difference.",
                CONFIDENCE * 100.0
            ),
            blocks: vec![table(comparison), Block::Charts(vec![ratios::draw(&intervals(comparison))])],
        },
        Section {
            heading: "Spectra".to_owned(),
            intro: "Thin lines are single runs, the strong ones all runs of a side together.".to_owned(),
            blocks: vec![Block::Charts(
                comparison.spectra.iter().filter_map(|one| spectra(comparison, one)).collect(),
            )],
        },
    ];
    let document = Document {
        title: format!("{} against {}", comparison.a.name, comparison.b.name),
        subtitle: format!("A: {}. B: {}.", comparison.a.what, comparison.b.what),
        level: level(comparison),
        verdict: capitalised(&comparison.headline()),
        reasons: reasons.chain(comparison.cautions.iter().cloned()).collect(),
        tiles: comparison.measures.iter().filter(decided).take(TILES_MAX).map(tile).collect(),
        sections,
        footer: format!("apogee-loadgen {}", env!("CARGO_PKG_VERSION")),
    };
    document.render()
}

const TILES_MAX: usize = 6;

/// Good and bad are A's; what is mixed, uncertain or ill-matched is neither.
fn level(comparison: &Comparison) -> Level {
    let has = |verdict| comparison.measures.iter().any(|measure| measure.verdict == verdict);
    match (has(Verdict::Better), has(Verdict::Worse)) {
        _ if !comparison.cautions.is_empty() => Level::Doubtful,
        (true, false) => Level::Good,
        (false, true) => Level::Bad,
        _ => Level::Doubtful,
    }
}

fn tile(measure: &Measure) -> Tile {
    let ratio = measure.ratio.expect("decided by it");
    Tile {
        label: measure.name.to_owned(),
        value: format!("× {:.2}", ratio.estimate),
        note: format!("A/B, {}: {:.2} to {:.2}", measure.verdict, ratio.low, ratio.high),
    }
}

fn table(comparison: &Comparison) -> Block {
    let row = |measure: &Measure| {
        let (ratio, interval) = match &measure.ratio {
            Some(ratio) => {
                (format!("{:.3}", ratio.estimate), format!("{:.3} to {:.3}", ratio.low, ratio.high))
            }
            None => (String::new(), "too few runs".to_owned()),
        };
        vec![
            format!("{}, {}", measure.name, measure.unit),
            micros(measure.a_median),
            micros(measure.b_median),
            ratio,
            interval,
            format!("{} / {}", measure.a.len(), measure.b.len()),
            measure.verdict.to_string(),
        ]
    };
    let (a, b) = (format!("A: {}", comparison.a.name), format!("B: {}", comparison.b.name));
    Block::Table {
        head: ["", &a, &b, "A/B", "interval", "runs A / B", "A is"].map(str::to_owned).to_vec(),
        rows: comparison.measures.iter().map(row).collect(),
    }
}

fn intervals(comparison: &Comparison) -> Vec<Interval> {
    let with_ratio = comparison.measures.iter().filter_map(|measure| Some((measure, measure.ratio?)));
    let interval = |(measure, ratio): (&Measure, super::stats::Ratio)| Interval {
        name: measure.name.to_owned(),
        low: ratio.low,
        estimate: ratio.estimate,
        high: ratio.high,
        verdict: format!("A is {}", measure.verdict),
    };
    with_ratio.map(interval).collect()
}

fn spectra(comparison: &Comparison, spectra: &Spectra) -> Option<String> {
    let mut curves: Vec<Curve> = Vec::new();
    for (style, name, runs) in [(0, &comparison.a.name, &spectra.a), (1, &comparison.b.name, &spectra.b)] {
        let mut all = Latency::new();
        for run in runs.iter().filter(|run| run.count() > 0) {
            all.merge(run);
            curves.push(Curve { style, is_background: true, ..curve_of(name, run) });
        }
        if all.count() > 0 {
            curves.push(Curve { style, ..curve_of(&format!("{name}, {} runs", runs.len()), &all) });
        }
    }
    (!curves.is_empty())
        .then(|| spectrum::draw(spectra.name, "From the planned time of each message.", &curves))
}

fn capitalised(sentence: &str) -> String {
    let mut characters = sentence.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", characters.as_str())
}
