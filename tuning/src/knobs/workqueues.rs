//! Where the kernel's own deferred work runs.

use super::{Finding, Machine, Tuner};
use crate::cpu_list::CpuList;

pub(super) struct UnboundCpus;

impl Tuner for UnboundCpus {
    fn name(&self) -> &'static str {
        "workqueues"
    }

    fn why(&self) -> &'static str {
        "The kernel's deferred work, writing back other programs' files among it, runs on any core unless it is told where."
    }

    fn cost(&self) -> &'static str {
        "up to a time slice, 1 to 4 ms, at p99.9"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let control = &machine.profile.control_cpus;
        let shards = machine.profile.shard_cpus();
        if control.iter().any(|cpu| shards.contains(cpu)) {
            return Vec::new();
        }
        let path = "sys/devices/virtual/workqueue/cpumask";
        let is_right = |found: &str| CpuList::from_mask(found).as_ref() == Some(control);
        let finding = machine.file_if("", path, is_right, &control.to_mask());
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}
