//! Telling a flash drive now and then what is free.

use super::{Finding, Machine, Tuner, Verdict};

/// systemd's link where the timer is enabled.
const ENABLED: &str = "etc/systemd/system/timers.target.wants/fstrim.timer";

pub(super) struct PeriodicTrim;

impl Tuner for PeriodicTrim {
    fn name(&self) -> &'static str {
        "disk-trim"
    }

    fn why(&self) -> &'static str {
        "A flash drive that is never told what is free gets slower; the log recycles its segments, so once a week is enough."
    }

    fn cost(&self) -> &'static str {
        "write latency that grows over months"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let Some(device) = &machine.facts.data.device else { return Vec::new() };
        if machine.is_virtual() {
            let why = "what a virtual disk does with it is its host's business".to_owned();
            return vec![Finding::new(&device.name, "not asked", "weekly", Verdict::NotHere(why))];
        }
        if device.rotational == Some(true) {
            return Vec::new();
        }
        if machine.settings.roots().below(ENABLED.as_ref()).symlink_metadata().is_ok() {
            return vec![Finding::right(&device.name, "weekly")];
        }
        let advice = "systemctl enable --now fstrim.timer".to_owned();
        vec![Finding::new(&device.name, "no timer", "weekly", Verdict::Advice(advice))]
    }
}
