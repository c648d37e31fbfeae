//! How many areas a process may map.

use super::{Finding, Machine, Tuner};

/// An index file of each sealed segment is mapped: 256 TiB of log in segments of 1 GiB.
const MAPS: u64 = 262_144;

pub(super) struct MapCount;

impl Tuner for MapCount {
    fn name(&self) -> &'static str {
        "max-map-count"
    }

    fn why(&self) -> &'static str {
        "The index of every sealed segment is mapped into memory; beyond the limit a segment cannot be read."
    }

    fn cost(&self) -> &'static str {
        "errors, on logs of more than some ten thousand segments"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let finding = machine.file_at_least("proc/sys/vm/max_map_count", MAPS);
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}
