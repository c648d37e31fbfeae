//! Whether io_uring may be used.

use super::{Finding, Machine, Tuner};

pub(super) struct Enabled;

impl Tuner for Enabled {
    fn name(&self) -> &'static str {
        "io-uring"
    }

    fn why(&self) -> &'static str {
        "The broker does its disk I/O by io_uring and does not start without it."
    }

    fn cost(&self) -> &'static str {
        "everything"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        // 1 still allows it to root and to the group in io_uring_group.
        let is_right = |found: &str| found == "0" || found == "1" && machine.facts.io_uring.is_available();
        machine.file_if("", "proc/sys/kernel/io_uring_disabled", is_right, "0").into_iter().collect()
    }
}
