//! How fast the cpus run: the frequency governor, and what a processor that chooses by itself is told.

use super::{Change, Finding, Machine, Place, Tuner, Verdict};
use crate::cpu_list::CpuList;

/// `scaling_governor`.
pub(super) struct Governor;

/// `energy_performance_preference` of processors that choose their frequency by themselves.
pub(super) struct EnergyPreference;

impl Tuner for Governor {
    fn name(&self) -> &'static str {
        "cpu-governor"
    }

    fn why(&self) -> &'static str {
        "A governor that follows the load lowers the clock in each pause, so the first messages after it run on a slow core."
    }

    fn cost(&self) -> &'static str {
        "tens of µs at p99 under uneven load"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        per_cpu(machine, "scaling_governor", "performance")
    }
}

impl Tuner for EnergyPreference {
    fn name(&self) -> &'static str {
        "cpu-energy"
    }

    fn why(&self) -> &'static str {
        "Told to save energy, the processor raises its clock late and lowers it early."
    }

    fn cost(&self) -> &'static str {
        "up to 20 % of a core's speed, tens of µs at p99"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        per_cpu(machine, "energy_performance_preference", "performance")
    }
}

/// One finding for all cpus of the profile, as they are set alike as a rule.
fn per_cpu(machine: &Machine<'_>, file: &str, value: &str) -> Vec<Finding> {
    let cpus = machine.profile.cpus();
    let path = |cpu: u32| format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/{file}");
    let found: Vec<(u32, String)> =
        cpus.iter().filter_map(|cpu| Some((cpu, machine.read(&path(cpu))?))).collect();
    let Some((_, first)) = found.first() else {
        if machine.is_virtual() && file == "scaling_governor" {
            let why = "a virtual machine's clock is its host's to set".to_owned();
            return vec![Finding::new("", "not shown", value, Verdict::NotHere(why))];
        }
        return Vec::new();
    };
    let wrong: Vec<&(u32, String)> = found.iter().filter(|(_, found)| found != value).collect();
    if wrong.is_empty() {
        return vec![Finding::right(format!("cpu {cpus}"), value)];
    }
    let target: CpuList = wrong.iter().map(|(cpu, _)| *cpu).collect();
    let shown = wrong.first().map_or(first, |(_, found)| found).clone();
    let changes = wrong
        .iter()
        .map(|(cpu, _)| Change { place: Place::File(path(*cpu).into()), value: value.to_owned() })
        .collect();
    let finding = Finding::new(format!("cpu {target}"), shown, value, Verdict::Change(changes));
    vec![machine.unless_shared(finding)]
}
