//! Pages of 2 MiB that the kernel makes by itself.

use super::{Finding, Machine, Tuner};

const DIR: &str = "sys/kernel/mm/transparent_hugepage";

pub(super) struct Enabled;
pub(super) struct Defrag;

impl Tuner for Enabled {
    fn name(&self) -> &'static str {
        "thp"
    }

    fn why(&self) -> &'static str {
        "\"always\" backs small, scattered allocations with large pages, and clears 2 MiB where 4 KiB were touched."
    }

    fn cost(&self) -> &'static str {
        "50 to 500 µs for the allocation that gets one; more memory"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let finding = machine.file_if("", &format!("{DIR}/enabled"), |found| found != "always", "madvise");
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}

impl Tuner for Defrag {
    fn name(&self) -> &'static str {
        "thp-defrag"
    }

    fn why(&self) -> &'static str {
        "\"always\" stops whoever touches memory until the kernel has moved pages together."
    }

    fn cost(&self) -> &'static str {
        "1 ms and more at p99.9 once memory is fragmented"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let finding = machine.file_if("", &format!("{DIR}/defrag"), |found| found != "always", "madvise");
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}
