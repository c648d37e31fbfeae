//! Whether cores may run above their nominal clock.

use super::{Finding, Machine, Tuner};

pub(super) struct Turbo;

impl Tuner for Turbo {
    fn name(&self) -> &'static str {
        "cpu-turbo"
    }

    fn why(&self) -> &'static str {
        "Without turbo a shard's core never runs faster than its nominal clock, however cool the others are."
    }

    fn cost(&self) -> &'static str {
        "10 to 30 % of a core's speed"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let intel = machine.file("", "sys/devices/system/cpu/intel_pstate/no_turbo", "0");
        let other = machine.file("", "sys/devices/system/cpu/cpufreq/boost", "1");
        intel.or(other).map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}
