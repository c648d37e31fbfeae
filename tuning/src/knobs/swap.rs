//! How readily the kernel moves memory to disk.

use super::{Finding, Machine, Tuner};

pub(super) struct Swappiness;

impl Tuner for Swappiness {
    fn name(&self) -> &'static str {
        "swappiness"
    }

    fn why(&self) -> &'static str {
        "A page of the broker that went to swap stops its shard until it is read back."
    }

    fn cost(&self) -> &'static str {
        "0.1 to 10 ms for each page that is missed"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let is_right = |found: &str| found.parse::<u32>().is_ok_and(|value| value <= 10);
        let finding = machine.file_if("", "proc/sys/vm/swappiness", is_right, "1");
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}
