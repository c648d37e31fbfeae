//! The kernel's throttle for buffered writes.

use super::{Finding, Machine, Tuner};

pub(super) struct WritebackThrottle;

impl Tuner for WritebackThrottle {
    fn name(&self) -> &'static str {
        "disk-throttle"
    }

    fn why(&self) -> &'static str {
        "The throttle delays writes to keep buffered reads quick; the log's direct writes count in it, and are what should be quick."
    }

    fn cost(&self) -> &'static str {
        "single writes late by up to its target when other programs write files"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let Some((disk, queue)) = machine.disk_queue() else { return Vec::new() };
        let finding = machine.file(disk, &format!("{queue}/wbt_lat_usec"), "0");
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}
