//! On which cpu a finished request is reported.

use super::{Finding, Machine, Tuner};

pub(super) struct CompletionCpu;

impl Tuner for CompletionCpu {
    fn name(&self) -> &'static str {
        "disk-completion"
    }

    fn why(&self) -> &'static str {
        "A write that finishes on another core than the shard's interrupts that core and wakes the shard across caches."
    }

    fn cost(&self) -> &'static str {
        "1 to 3 µs of each write"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let Some((disk, queue)) = machine.disk_queue() else { return Vec::new() };
        let finding = machine.file(disk, &format!("{queue}/rq_affinity"), "2");
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}
