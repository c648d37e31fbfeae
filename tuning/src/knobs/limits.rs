//! What one process may have.

use super::{Finding, Machine, Tuner, Verdict};
use crate::facts::Bytes;

/// Per executor: three rings register the same I/O memory.
const LOCKED_BYTES_PER_SHARD: u64 = (3 * 64) << 20;

/// A shard takes 16,384 connections; segments and indexes come on top.
const FILES: u64 = 65_536;

pub(super) struct LockedMemory;
pub(super) struct OpenFiles;

impl Tuner for LockedMemory {
    fn name(&self) -> &'static str {
        "locked-memory"
    }

    fn why(&self) -> &'static str {
        "Buffers that cannot be locked cannot be registered, and the kernel pins their pages anew for each write."
    }

    fn cost(&self) -> &'static str {
        "1 to 2 µs of CPU per write"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let limits = &machine.facts.limits;
        if limits.memlock_exempt {
            return vec![Finding::right("", "not limited (CAP_IPC_LOCK)")];
        }
        let wanted = LOCKED_BYTES_PER_SHARD * (machine.profile.shards.len() as u64 + 1);
        match limits.memlock.soft {
            Some(soft) if soft < wanted => {
                let advice =
                    "systemd: LimitMEMLOCK=infinity in the unit; a shell: ulimit -l unlimited".to_owned();
                let wanted = format!("{} or more", Bytes(wanted));
                vec![Finding::new("", Bytes(soft).to_string(), wanted, Verdict::Advice(advice))]
            }
            soft => {
                vec![Finding::right("", soft.map_or("unlimited".to_owned(), |soft| Bytes(soft).to_string()))]
            }
        }
    }
}

impl Tuner for OpenFiles {
    fn name(&self) -> &'static str {
        "open-files"
    }

    fn why(&self) -> &'static str {
        "Each connection is a descriptor; the broker raises its own limit as far as the hard one allows."
    }

    fn cost(&self) -> &'static str {
        "connections refused"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        match machine.facts.limits.nofile.hard {
            Some(hard) if hard < FILES => {
                let advice =
                    format!("systemd: LimitNOFILE={FILES} in the unit; else /etc/security/limits.conf");
                vec![Finding::new("", hard.to_string(), format!("{FILES} or more"), Verdict::Advice(advice))]
            }
            hard => vec![Finding::right("", hard.map_or("unlimited".to_owned(), |hard| hard.to_string()))],
        }
    }
}
