//! How far the kernel reads ahead of who reads a file.

use super::{Finding, Machine, Tuner};

/// KiB. The broker tells the kernel what it will need by itself.
const KIB_MAX: u64 = 1024;
const KIB: &str = "128";

pub(super) struct ReadAhead;

impl Tuner for ReadAhead {
    fn name(&self) -> &'static str {
        "disk-read-ahead"
    }

    fn why(&self) -> &'static str {
        "Programs that read files beside the broker make the kernel read far ahead, and the log's writes wait behind that."
    }

    fn cost(&self) -> &'static str {
        "5 to 8 ms for a write that meets 8 MiB of read-ahead"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let Some((disk, queue)) = machine.disk_queue() else { return Vec::new() };
        let is_right = |found: &str| found.parse::<u64>().is_ok_and(|kib| kib <= KIB_MAX);
        let finding = machine.file_if(disk, &format!("{queue}/read_ahead_kb"), is_right, KIB);
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}
