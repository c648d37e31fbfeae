//! Which cpu takes which interrupt.

use super::{Change, Finding, Machine, Place, Tuner, Verdict};

/// Each receive queue's interrupt on the cpu that the profile gives it.
pub(super) struct NicInterrupts;

/// Where interrupts go that nobody placed.
pub(super) struct DefaultAffinity;

impl Tuner for NicInterrupts {
    fn name(&self) -> &'static str {
        "irq-affinity"
    }

    fn why(&self) -> &'static str {
        "A packet that is received on another core than its shard's crosses caches, and interrupts a shard it is not for."
    }

    fn cost(&self) -> &'static str {
        "2 to 5 µs of each message, more at p99 when the other core is busy"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        for steering in &machine.profile.steering {
            let target = format!("{} queue {}", steering.nic, steering.queue);
            // Shards that share a queue share its interrupt.
            if findings.iter().any(|finding| finding.target == target) {
                continue;
            }
            let Some(nic) = machine.nics.iter().find(|nic| nic.name == steering.nic) else { continue };
            let Some(irq) = nic.rx_irq(steering.queue) else {
                let why = format!("the driver names no interrupt for queue {}", steering.queue);
                let wanted = format!("cpu {}", steering.cpu);
                findings.push(Finding::new(target, "not shown", wanted, Verdict::NotHere(why)));
                continue;
            };
            let path = format!("proc/irq/{}/smp_affinity_list", irq.number);
            let wanted = steering.cpu.to_string();
            let Some(found) = machine.read(&path) else { continue };
            if found == wanted {
                findings.push(Finding::right(target, format!("cpu {found}")));
                continue;
            }
            let change = Change { place: Place::File(path.into()), value: wanted.clone() };
            let verdict = machine.shared_verdict().unwrap_or(Verdict::Change(vec![change]));
            findings.push(Finding::new(target, format!("cpu {found}"), format!("cpu {wanted}"), verdict));
        }
        findings
    }
}

impl Tuner for DefaultAffinity {
    fn name(&self) -> &'static str {
        "irq-default"
    }

    fn why(&self) -> &'static str {
        "Interrupts of devices that appear later go to any core, those of the shards among them."
    }

    fn cost(&self) -> &'static str {
        "a few µs whenever such an interrupt arrives"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let control = &machine.profile.control_cpus;
        let shards = machine.profile.shard_cpus();
        if control.iter().any(|cpu| shards.contains(cpu)) {
            return Vec::new();
        }
        let finding = machine.file("", "proc/irq/default_smp_affinity", &control.to_mask());
        let is_there = |finding: Finding| {
            // The kernel pads masks to the number of cpus it was built for.
            let is_same = crate::cpu_list::CpuList::from_mask(&finding.found).as_ref() == Some(control);
            if is_same { Finding::right("", finding.found) } else { machine.unless_shared(finding) }
        };
        finding.map(is_there).into_iter().collect()
    }
}
