//! The disk's I/O scheduler.

use super::{Finding, Machine, Tuner};

pub(super) struct Scheduler;

impl Tuner for Scheduler {
    fn name(&self) -> &'static str {
        "disk-scheduler"
    }

    fn why(&self) -> &'static str {
        "The log orders its own writes; a scheduler between it and the disk holds requests back and takes a lock for each."
    }

    fn cost(&self) -> &'static str {
        "5 to 20 µs of each write; more for a sync behind reads"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let Some((disk, queue)) = machine.disk_queue() else { return Vec::new() };
        // Spinning disks need somebody who orders their requests. Virtual disks claim to spin whatever they are.
        let device = machine.facts.data.device.as_ref();
        let spins = device.and_then(|device| device.rotational) == Some(true) && !machine.is_virtual();
        let value = if spins { "mq-deadline" } else { "none" };
        let finding = machine.file(disk, &format!("{queue}/scheduler"), value);
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}
