//! Limits that the process lives under.

use serde::Serialize;

use crate::cgroup;
use crate::roots::{Roots, field, read_line};
use crate::sys::Answers;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limits {
    /// Bytes of memory that may be locked: io_uring's registered buffers count against it, per user.
    pub memlock: Limit,
    /// Whether the kernel applies `memlock` to this process at all.
    pub memlock_exempt: bool,
    /// Open files and sockets.
    pub nofile: Limit,
    /// Cpus' worth of time that the control groups grant; absent without a quota.
    pub cpu_quota: Option<f64>,
}

/// A resource limit; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// What holds now.
    pub soft: Option<u64>,
    /// Up to where the process may raise it by itself.
    pub hard: Option<u64>,
}

impl Limits {
    /// `status` is the text of `/proc/self/status`.
    pub(crate) fn collect(roots: &Roots, status: &str, answers: &Answers) -> Self {
        Self {
            memlock: answers.memlock,
            memlock_exempt: may_lock_memory(status) && in_first_user_namespace(roots),
            nofile: answers.nofile,
            cpu_quota: cgroup::cpu_quota(roots),
        }
    }
}

/// Whether CAP_IPC_LOCK is among the effective capabilities.
fn may_lock_memory(status: &str) -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    field(status, "CapEff")
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .is_some_and(|mask| mask >> CAP_IPC_LOCK & 1 == 1)
}

/// io_uring asks for the capability in the first user namespace (`capable`, not `ns_capable`), so root in a
/// rootless container is not exempt. Only the first namespace maps all ids to themselves.
fn in_first_user_namespace(roots: &Roots) -> bool {
    // Absent only on kernels without user namespaces, where there is just the one.
    read_line(&roots.proc("self/uid_map"))
        .is_none_or(|map| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
}
