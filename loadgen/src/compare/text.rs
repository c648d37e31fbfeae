//! The comparison for people at a terminal.

use std::fmt::Write;

use super::{Comparison, Measure};
use crate::figures::micros;

pub(super) fn render(comparison: &Comparison) -> String {
    let mut out = String::from("\n");
    for (letter, side) in [("A", &comparison.a), ("B", &comparison.b)] {
        let _ = writeln!(out, "{letter}  {}: {} runs; {}", side.name, side.runs, side.what);
    }
    let _ = writeln!(
        out,
        "\n{:<28}{:>10}{:>10}{:>8}   {:<16}  A is",
        "medians of all runs", "A", "B", "A/B", "with certainty"
    );
    for measure in &comparison.measures {
        row(&mut out, measure);
    }
    let _ = writeln!(out, "\n{}", comparison.headline());
    for (label, sentences) in [("not counted", &comparison.excluded), ("note", &comparison.cautions)] {
        for sentence in sentences {
            let _ = writeln!(out, "{label:<12}{sentence}");
        }
    }
    out
}

fn row(out: &mut String, measure: &Measure) {
    let name = format!("{}, {}", measure.name, measure.unit);
    let _ = write!(out, "{name:<28}{:>10}{:>10}", micros(measure.a_median), micros(measure.b_median));
    let _ = match &measure.ratio {
        Some(ratio) => write!(
            out,
            "{:>8}   {:<16}",
            format!("{:.2}", ratio.estimate),
            format!("{:.2} to {:.2}", ratio.low, ratio.high)
        ),
        None => write!(out, "{:>8}   {:<16}", "", "too few runs"),
    };
    let _ = writeln!(out, "  {}", measure.verdict);
}
