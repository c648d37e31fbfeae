//! Watchdogs that interrupt every core to see whether it still runs.

use super::{Finding, Machine, Tuner};
use crate::profile::Goal;

pub(super) struct NmiWatchdog;
pub(super) struct SoftWatchdog;

impl Tuner for NmiWatchdog {
    fn name(&self) -> &'static str {
        "nmi-watchdog"
    }

    fn why(&self) -> &'static str {
        "It takes a performance counter of each core and interrupts it with one that cannot be deferred."
    }

    fn cost(&self) -> &'static str {
        "a few µs every ten seconds on each core"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        look(machine, "proc/sys/kernel/nmi_watchdog")
    }
}

impl Tuner for SoftWatchdog {
    fn name(&self) -> &'static str {
        "soft-watchdog"
    }

    fn why(&self) -> &'static str {
        "A timer on each core wakes a thread of the highest priority to see that the core schedules."
    }

    fn cost(&self) -> &'static str {
        "10 to 20 µs every four seconds on each core"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        look(machine, "proc/sys/kernel/soft_watchdog")
    }
}

fn look(machine: &Machine<'_>, path: &str) -> Vec<Finding> {
    if machine.profile.goal != Goal::Latency {
        return Vec::new();
    }
    machine.file("", path, "0").into_iter().collect()
}
