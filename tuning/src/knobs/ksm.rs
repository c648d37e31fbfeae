//! The kernel's search for equal pages.

use super::{Finding, Machine, Tuner};

pub(super) struct SamePageMerging;

impl Tuner for SamePageMerging {
    fn name(&self) -> &'static str {
        "ksm"
    }

    fn why(&self) -> &'static str {
        "Merging equal pages scans memory all the time, and a merged page is copied at the next write to it."
    }

    fn cost(&self) -> &'static str {
        "a part of one core, and a few µs for each page written to"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let finding = machine.file("", "sys/kernel/mm/ksm/run", "0");
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}
