//! The daemon that moves interrupts between cpus.

use std::fs;

use super::{Finding, Machine, Tuner, Verdict};
use crate::roots::read_line;

/// Processes looked at: as many as a machine can have by default on 64 bit.
const PROCESSES_MAX: usize = 4 << 20;

pub(super) struct IrqBalance;

impl Tuner for IrqBalance {
    fn name(&self) -> &'static str {
        "irqbalance"
    }

    fn why(&self) -> &'static str {
        "irqbalance moves interrupts every few seconds, also those that were given a cpu of their own."
    }

    fn cost(&self) -> &'static str {
        "undoes irq-affinity; spikes at p99.9 whenever it moves one"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let Ok(entries) = fs::read_dir(machine.settings.roots().proc("")) else { return Vec::new() };
        let runs = entries
            .take(PROCESSES_MAX)
            .filter_map(|entry| entry.ok())
            .filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
            .any(|process| read_line(&process.path().join("comm")).as_deref() == Some("irqbalance"));
        if !runs {
            return vec![Finding::right("", "not running")];
        }
        let shards = machine.profile.shard_cpus();
        let advice = format!(
            "systemctl disable --now irqbalance, or keep it off the shards' cpus: IRQBALANCE_BANNED_CPULIST={shards} in \
             its environment file"
        );
        vec![Finding::new("", "running", "not running", Verdict::Advice(advice))]
    }
}
