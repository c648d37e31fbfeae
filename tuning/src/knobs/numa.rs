//! What the kernel does about memory of other sockets by itself.

use super::{Finding, Machine, Tuner};

pub(super) struct Balancing;
pub(super) struct ZoneReclaim;

impl Tuner for Balancing {
    fn name(&self) -> &'static str {
        "numa-balancing"
    }

    fn why(&self) -> &'static str {
        "To find out who uses which page the kernel unmaps pages and lets the next access fault; the shards' memory is placed already."
    }

    fn cost(&self) -> &'static str {
        "a few µs for each such fault, in bursts"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        if machine.facts.cpus.nodes.len() < 2 {
            return Vec::new();
        }
        let finding = machine.file("", "proc/sys/kernel/numa_balancing", "0");
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}

impl Tuner for ZoneReclaim {
    fn name(&self) -> &'static str {
        "zone-reclaim"
    }

    fn why(&self) -> &'static str {
        "An allocation that finds its own socket's memory full would free pages first instead of taking the other socket's."
    }

    fn cost(&self) -> &'static str {
        "milliseconds for the allocation that has to reclaim"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let finding = machine.file("", "proc/sys/vm/zone_reclaim_mode", "0");
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}
