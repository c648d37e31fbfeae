//! Whether the kernel looks for neighbouring requests to merge.

use super::{Finding, Machine, Tuner};

pub(super) struct Merges;

impl Tuner for Merges {
    fn name(&self) -> &'static str {
        "disk-merges"
    }

    fn why(&self) -> &'static str {
        "The log's writes are as large as they should be; looking for others to merge them with is wasted on each."
    }

    fn cost(&self) -> &'static str {
        "about 1 µs of CPU per write"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let Some((disk, queue)) = machine.disk_queue() else { return Vec::new() };
        let finding = machine.file(disk, &format!("{queue}/nomerges"), "2");
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}
