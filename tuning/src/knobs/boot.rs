//! What only the kernel's command line can do for the shards' cores.

use super::{Finding, Machine, Tuner, Verdict};
use crate::profile::Goal;

pub(super) struct IsolatedCpus;

impl Tuner for IsolatedCpus {
    fn name(&self) -> &'static str {
        "isolated-cpus"
    }

    fn why(&self) -> &'static str {
        "Other programs and the kernel's own work share the shards' cores as long as they are not set apart."
    }

    fn cost(&self) -> &'static str {
        "a time slice of another task, 1 to 4 ms, at p99.9"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        if machine.profile.goal != Goal::Latency {
            return Vec::new();
        }
        let shards = machine.profile.shard_cpus();
        let isolated = &machine.facts.cpus.isolated;
        let target = format!("cpu {shards}");
        if shards.iter().all(|cpu| isolated.contains(cpu)) {
            return vec![Finding::right(target, format!("isolated: {isolated}"))];
        }
        let found =
            if isolated.is_empty() { "none isolated".to_owned() } else { format!("isolated: {isolated}") };
        let advice = format!(
            "boot with isolcpus=managed_irq,domain,{shards} nohz_full={shards} rcu_nocbs={shards}; worth it on a machine \
             that runs nothing else"
        );
        vec![Finding::new(target, found, format!("isolated: {shards}"), Verdict::Advice(advice))]
    }
}
