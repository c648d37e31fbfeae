//! Rules in the interface that send a shard's port to its queue: from wire to disk one core touches a message.

use super::{Change, FLOW_RULE_ABSENT, FLOW_RULE_SET, Finding, Machine, NicOption, Place, Tuner, Verdict};

/// Slots of our rules; low ones are those that drivers choose by themselves.
const FIRST_SLOT: u32 = 900;

pub(super) struct FlowRules;

impl Tuner for FlowRules {
    fn name(&self) -> &'static str {
        "nic-flow-rules"
    }

    fn why(&self) -> &'static str {
        "Without a rule the interface hashes connections over its queues, so most packets arrive on a core that is not their shard's."
    }

    fn cost(&self) -> &'static str {
        "2 to 5 µs of each message, and the interrupts of other shards"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (nth, steering) in machine.profile.steering.iter().enumerate() {
            let nic = steering.nic.clone();
            let target = format!("{nic} port {}", steering.port);
            let wanted = format!("to queue {}", steering.queue);
            let filters = Place::Nic { nic: nic.clone(), option: NicOption::NtupleFilters };
            let has_one_queue = machine.nics.iter().any(|found| found.name == nic && found.rx_queues <= 1);
            if has_one_queue {
                let why = "the interface has one receive queue, so there is nothing to choose".to_owned();
                findings.push(Finding::new(target, "one queue", wanted, Verdict::NotHere(why)));
                continue;
            }
            let Some(filtering) = machine.settings.read(&filters) else {
                let why = "ethtool tells nothing of filters: it is not installed, or the driver has none"
                    .to_owned();
                findings.push(Finding::new(target, "not shown", wanted, Verdict::NotHere(why)));
                continue;
            };
            let slot = FIRST_SLOT + nth as u32;
            let rule = Place::FlowRule { nic, port: steering.port, queue: steering.queue, slot };
            let found = machine.settings.read(&rule).unwrap_or_else(|| FLOW_RULE_ABSENT.to_owned());
            if found == FLOW_RULE_SET {
                findings.push(Finding::right(target, wanted));
                continue;
            }
            let mut changes = Vec::new();
            if filtering != "on" {
                changes.push(Change { place: filters, value: "on".to_owned() });
            }
            changes.push(Change { place: rule, value: FLOW_RULE_SET.to_owned() });
            let finding = Finding::new(target, "no rule", wanted, Verdict::Change(changes));
            findings.push(machine.unless_shared(finding));
        }
        findings
    }
}
