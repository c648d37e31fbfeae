//! What the kernel spreads over cpus in software: received packets (RPS) and queues to send on (XPS).

use super::{Change, Finding, Machine, Place, Tuner, Verdict};
use crate::cpu_list::CpuList;

/// `rps_cpus`: off where the interface has a queue per shard.
pub(super) struct ReceiveSteering;

/// `xps_cpus`: each shard sends on the queue of its own number.
pub(super) struct TransmitSteering;

impl Tuner for ReceiveSteering {
    fn name(&self) -> &'static str {
        "nic-rps"
    }

    fn why(&self) -> &'static str {
        "Spreading received packets in software sends each to another core by an interrupt between cores; it helps only where the interface has too few queues."
    }

    fn cost(&self) -> &'static str {
        "3 to 10 µs of each message"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for nic in machine.nics() {
            let has_enough = nic.rx_queues as usize >= machine.profile.shards.len();
            for queue in 0..nic.rx_queues {
                let path = format!("sys/class/net/{}/queues/rx-{queue}/rps_cpus", nic.name);
                let Some(found) = machine.read(&path) else { continue };
                let target = format!("{} rx {queue}", nic.name);
                let spread = CpuList::from_mask(&found).unwrap_or_default();
                let shown = if spread.is_empty() { "off".to_owned() } else { format!("cpu {spread}") };
                if has_enough && !spread.is_empty() {
                    let change = Change { place: Place::File(path.into()), value: "0".to_owned() };
                    let finding = Finding::new(target, shown, "off", Verdict::Change(vec![change]));
                    findings.push(machine.unless_shared(finding));
                } else {
                    findings.push(Finding::right(target, shown));
                }
            }
        }
        merge_right(findings)
    }
}

impl Tuner for TransmitSteering {
    fn name(&self) -> &'static str {
        "nic-xps"
    }

    fn why(&self) -> &'static str {
        "A shard that sends on another core's queue shares that queue's lock, and has its completions there."
    }

    fn cost(&self) -> &'static str {
        "1 to 3 µs of each reply under load"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for steering in &machine.profile.steering {
            let path = format!("sys/class/net/{}/queues/tx-{}/xps_cpus", steering.nic, steering.queue);
            let Some(found) = machine.read(&path) else { continue };
            let target = format!("{} tx {}", steering.nic, steering.queue);
            if findings.iter().any(|finding: &Finding| finding.target == target) {
                continue;
            }
            let found = CpuList::from_mask(&found).unwrap_or_default();
            let wanted = CpuList::from_iter([steering.cpu]);
            let shown = if found.is_empty() { "any cpu".to_owned() } else { format!("cpu {found}") };
            let has_one_queue = machine.nics.iter().any(|nic| nic.name == steering.nic && nic.tx_queues <= 1);
            if found == wanted || has_one_queue {
                findings.push(Finding::right(target, shown));
                continue;
            }
            let change = Change { place: Place::File(path.into()), value: wanted.to_mask() };
            let finding = Finding::new(target, shown, format!("cpu {wanted}"), Verdict::Change(vec![change]));
            findings.push(machine.unless_shared(finding));
        }
        merge_right(findings)
    }
}

/// Queues that are all right are one line, not one each.
fn merge_right(findings: Vec<Finding>) -> Vec<Finding> {
    if findings.len() < 2 || findings.iter().any(|finding| finding.verdict != Verdict::Right) {
        return findings;
    }
    let is_alike = findings.iter().all(|finding| finding.found == findings[0].found);
    if !is_alike {
        return findings;
    }
    let first = &findings[0];
    vec![Finding::right(format!("{} queues", findings.len()), first.found.clone())]
}
