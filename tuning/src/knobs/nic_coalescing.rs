//! How long a receive interrupt waits for more packets.

use super::{Change, Finding, Machine, NicOption, Place, Tuner, Verdict};
use crate::profile::Goal;

/// Not 0: a full-rate stream would then interrupt for each packet.
const LATENCY_USECS: &str = "3";

pub(super) struct Coalescing;

impl Tuner for Coalescing {
    fn name(&self) -> &'static str {
        "nic-coalescing"
    }

    fn why(&self) -> &'static str {
        "A waiting interrupt delays each packet that comes alone; without waiting a busy interface interrupts too often."
    }

    fn cost(&self) -> &'static str {
        "the wait itself: up to 50 µs of each message at low rates"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let (usecs, adaptive) = match machine.profile.goal {
            Goal::Latency => (Some(LATENCY_USECS), "off"),
            Goal::Throughput => (None, "on"),
            Goal::SharedHost | Goal::Vm | Goal::Dev => return Vec::new(),
        };
        let look = |nic: &crate::nics::Nic| {
            let place = |option| Place::Nic { nic: nic.name.clone(), option };
            let adaptive_found = machine.settings.read(&place(NicOption::AdaptiveRx));
            let usecs_found = machine.settings.read(&place(NicOption::RxUsecs));
            let wanted = match usecs {
                Some(usecs) => format!("adaptive {adaptive}, {usecs} µs"),
                None => format!("adaptive {adaptive}"),
            };
            let Some(found_usecs) = usecs_found else {
                let why = "ethtool tells nothing of it: it is not installed, or the driver does not wait"
                    .to_owned();
                return Finding::new(&nic.name, "not shown", wanted, Verdict::NotHere(why));
            };
            let mut changes = Vec::new();
            if adaptive_found.as_deref().is_some_and(|found| found != adaptive) {
                changes.push(Change { place: place(NicOption::AdaptiveRx), value: adaptive.to_owned() });
            }
            if let Some(usecs) = usecs.filter(|usecs| *usecs != found_usecs) {
                changes.push(Change { place: place(NicOption::RxUsecs), value: usecs.to_owned() });
            }
            let found =
                format!("adaptive {}, {found_usecs} µs", adaptive_found.as_deref().unwrap_or("not offered"));
            if changes.is_empty() {
                return Finding::right(&nic.name, found);
            }
            Finding::new(&nic.name, found, wanted, Verdict::Change(changes))
        };
        machine.nics().map(look).collect()
    }
}
