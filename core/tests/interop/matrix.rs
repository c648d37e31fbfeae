//! What each suite found, as a table of features (rows) and suites (columns).

use std::sync::{Mutex, PoisonError};

#[derive(Clone, PartialEq)]
pub(crate) enum Cell {
    Pass,
    Fail,
    /// The client has no such feature.
    Lacks,
}

struct Entry {
    suite: &'static str,
    scenario: &'static str,
    cell: Cell,
}

/// Filled by the suites of one run, which go one after the other.
static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

pub(crate) fn record(suite: &'static str, scenario: &'static str, cell: Cell) {
    let mut entries = ENTRIES.lock().unwrap_or_else(PoisonError::into_inner);
    entries.push(Entry { suite, scenario, cell });
}

/// Prints all that this run has found so far, hence everything after the last suite.
pub(crate) fn print_and_count_failures(suite: &str) -> usize {
    let entries = ENTRIES.lock().unwrap_or_else(PoisonError::into_inner);
    let suites = first_occurrences(entries.iter().map(|e| e.suite));
    let scenarios = first_occurrences(entries.iter().map(|e| e.scenario));

    print!("\n{:<14}", "feature");
    suites.iter().for_each(|suite| print!(" {suite:>13}"));
    println!();
    for scenario in scenarios {
        print!("{scenario:<14}");
        for suite in &suites {
            let entry = entries.iter().find(|e| e.scenario == scenario && e.suite == *suite);
            let word = match entry.map(|e| &e.cell) {
                Some(Cell::Pass) => "pass",
                Some(Cell::Fail) => "FAIL",
                Some(Cell::Lacks) => "client lacks",
                None => "",
            };
            print!(" {word:>13}");
        }
        println!();
    }
    println!();
    entries.iter().filter(|e| e.suite == suite && e.cell == Cell::Fail).count()
}

fn first_occurrences(names: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    names.fold(Vec::new(), |mut seen, name| {
        if !seen.contains(&name) {
            seen.push(name);
        }
        seen
    })
}
