//! What the disk says of its write cache.

use super::{Finding, Machine, Tuner, Verdict};
use crate::data_dir::WriteCache;

pub(super) struct WriteCacheKind;

impl Tuner for WriteCacheKind {
    fn name(&self) -> &'static str {
        "disk-write-cache"
    }

    fn why(&self) -> &'static str {
        "A disk with a volatile cache must flush it at every sync; one whose cache survives a loss of power need not."
    }

    fn cost(&self) -> &'static str {
        "the flush: 0.1 to 10 ms of each sync"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let Some(device) = &machine.facts.data.device else { return Vec::new() };
        let finding = match device.write_cache {
            Some(WriteCache::WriteThrough) => Finding::right(&device.name, "write through"),
            Some(WriteCache::WriteBack) if machine.is_virtual() => {
                let why =
                    "whether the host keeps what it says it flushed cannot be seen from inside".to_owned();
                Finding::new(&device.name, "write back", "as the host has it", Verdict::NotHere(why))
            }
            Some(WriteCache::WriteBack) => {
                let advice =
                    "a drive with power-loss protection does away with the flush; never tell the kernel \
                              \"write through\" of one without"
                        .to_owned();
                Finding::new(&device.name, "write back", "power-loss protected", Verdict::Advice(advice))
            }
            None => return Vec::new(),
        };
        vec![finding]
    }
}
