//! Whether the broker can run here; if not, one sentence that says what to change.

use std::path::PathBuf;

use crate::data_dir::DirectIo;
use crate::facts::{Bytes, Facts};
use crate::io_uring::{IoUring, Refusal};
use crate::kernel::Version;

/// The oldest kernel the broker starts on: the runtime submits io_uring operations up to those of 5.6 and
/// recommends 5.8, from where on they are worth trusting.
pub const KERNEL_OLDEST: Version = Version { major: 5, minor: 8 };

/// What the broker is about to ask of the machine, beyond what it always does.
#[derive(Debug, Clone, Copy)]
pub struct Needs {
    /// Bytes that all its executors lock together. Not asked of a process that is exempt from the limit.
    pub memlock_bytes: u64,
    /// What the limit must be even for an exempt process, because the runtime looks at the limit alone.
    pub memlock_floor_bytes: u64,
    /// Alignment of its direct writes, in memory and in the file.
    pub direct_io_align_bytes: u32,
}

/// Why the broker cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    #[error("Linux {release} is too old: Apogee needs {KERNEL_OLDEST} or newer")]
    KernelTooOld { release: String },
    #[error("io_uring is refused: {0}; {remedy}", remedy = .0.remedy())]
    IoUring(Refusal),
    #[error(
        "the locked-memory limit is too low: {found} found, {needed} needed; raise it with `ulimit -l {kib}` \
         (systemd: LimitMEMLOCK=infinity)",
        found = Bytes(*found_bytes), needed = Bytes(*needed_bytes), kib = needed_bytes.div_ceil(1024)
    )]
    Memlock { found_bytes: u64, needed_bytes: u64 },
    #[error(
        "{} is on {kind}, which does not support direct I/O (O_DIRECT); choose a directory on ext4 or XFS",
        path.display()
    )]
    DirectIoUnsupported { path: PathBuf, kind: String },
    #[error(
        "{} is on {kind}, whose direct I/O must be aligned to {found_bytes} bytes, and Apogee's is to {needed_bytes}; \
         choose a directory on another file system",
        path.display()
    )]
    DirectIoAlignment { path: PathBuf, kind: String, found_bytes: u32, needed_bytes: u32 },
    #[error("no file can be created in {}: {error}", path.display())]
    DataDirectory { path: PathBuf, error: String },
}

/// Refuses a machine on which the broker cannot run, with the first reason found.
pub fn requirements(facts: &Facts, needs: Needs) -> Result<(), Unmet> {
    kernel(facts)?;
    io_uring(facts)?;
    memlock(facts, needs)?;
    direct_io(facts, needs)
}

fn kernel(facts: &Facts) -> Result<(), Unmet> {
    // A release that does not say its version is given the benefit: io_uring is asked next in any case.
    match facts.kernel.version {
        Some(version) if version < KERNEL_OLDEST => {
            Err(Unmet::KernelTooOld { release: facts.kernel.release.clone() })
        }
        _ => Ok(()),
    }
}

fn io_uring(facts: &Facts) -> Result<(), Unmet> {
    match &facts.io_uring {
        IoUring::Available { .. } => Ok(()),
        IoUring::Refused(refusal) => Err(Unmet::IoUring(refusal.clone())),
    }
}

fn memlock(facts: &Facts, needs: Needs) -> Result<(), Unmet> {
    let limits = &facts.limits;
    let needed_bytes = if limits.memlock_exempt {
        needs.memlock_floor_bytes
    } else {
        needs.memlock_floor_bytes.max(needs.memlock_bytes)
    };
    match limits.memlock.soft {
        Some(found_bytes) if found_bytes < needed_bytes => Err(Unmet::Memlock { found_bytes, needed_bytes }),
        _ => Ok(()),
    }
}

fn direct_io(facts: &Facts, needs: Needs) -> Result<(), Unmet> {
    let data = &facts.data;
    let kind = || {
        data.file_system
            .as_ref()
            .map_or_else(|| "an unknown file system".to_owned(), |found| found.kind.clone())
    };
    match &data.direct_io {
        DirectIo::Supported { memory_align_bytes, offset_align_bytes } => {
            let found_bytes = *memory_align_bytes.max(offset_align_bytes);
            if found_bytes <= needs.direct_io_align_bytes {
                return Ok(());
            }
            Err(Unmet::DirectIoAlignment {
                path: data.path.clone(),
                kind: kind(),
                found_bytes,
                needed_bytes: needs.direct_io_align_bytes,
            })
        }
        DirectIo::Unsupported => Err(Unmet::DirectIoUnsupported { path: data.path.clone(), kind: kind() }),
        DirectIo::Unknown { error } => {
            Err(Unmet::DataDirectory { path: data.probed.clone(), error: error.clone() })
        }
    }
}
