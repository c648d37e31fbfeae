//! How the kernel shares cpus among tasks.

use super::{Finding, Machine, Tuner};

pub(super) struct Autogroup;

impl Tuner for Autogroup {
    fn name(&self) -> &'static str {
        "sched-autogroup"
    }

    fn why(&self) -> &'static str {
        "Grouping by terminal session gives a shell's commands as much of a core as the whole broker."
    }

    fn cost(&self) -> &'static str {
        "a time slice, 1 to 4 ms, whenever a session is busy on a shard's core"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let finding = machine.file("", "proc/sys/kernel/sched_autogroup_enabled", "0");
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}
