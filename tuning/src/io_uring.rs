//! Whether the process may use io_uring, and if not, which knob forbids it.

use std::fmt;

use serde::Serialize;

use crate::kernel::Version;

/// The kernel that brought io_uring.
const IO_URING_SINCE: Version = Version { major: 5, minor: 1 };

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IoUring {
    Available {
        /// `IORING_FEAT_*` bits, as `io_uring_setup` returned them.
        features: u32,
        /// Operations that the kernel supports. Absent before Linux 5.6, which cannot be asked.
        ops_supported: Option<u32>,
    },
    Refused(Refusal),
}

impl IoUring {
    #[must_use]
    pub fn is_available(&self) -> bool {
        matches!(self, IoUring::Available { .. })
    }
}

/// Why `io_uring_setup` failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The sysctl `kernel.io_uring_disabled`: 2 forbids io_uring to all, 1 to processes that have neither
    /// CAP_SYS_ADMIN nor the group of `kernel.io_uring_group`.
    Sysctl { value: u32 },
    /// A seccomp filter, as container runtimes install.
    Seccomp,
    /// The kernel has none: too old, or built without it.
    NotInKernel,
    /// Kernels before 5.12 charge the rings themselves to the memlock limit.
    Memlock,
    /// Permission denied though neither the sysctl nor seccomp explains it: a security module.
    SecurityModule,
    /// Anything else, e.g. no file descriptors left.
    Other { error: String },
}

/// What stands around a refused `io_uring_setup`, and explains it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances {
    pub errno: i32,
    /// `kernel.io_uring_disabled`; absent before Linux 6.6 unless backported.
    pub disabled: Option<u32>,
    /// Whether a seccomp filter is installed in the process.
    pub seccomp_filter: bool,
    pub version: Option<Version>,
}

impl Refusal {
    /// ENOSYS is ambiguous, for some container runtimes let forbidden calls fail as though unknown; EPERM is
    /// what the sysctl, the other runtimes and security modules answer.
    pub(crate) fn explain(case: Circumstances) -> Self {
        let known_to_kernel = case.version.is_some_and(|version| version >= IO_URING_SINCE);
        match (case.errno, case.disabled) {
            (libc::EPERM, Some(value)) if value > 0 => Self::Sysctl { value },
            (libc::EPERM, _) if case.seccomp_filter => Self::Seccomp,
            (libc::EPERM | libc::EACCES, _) => Self::SecurityModule,
            (libc::ENOSYS, _) if case.seccomp_filter && known_to_kernel => Self::Seccomp,
            (libc::ENOSYS, _) => Self::NotInKernel,
            (libc::ENOMEM, _) => Self::Memlock,
            (errno, _) => Self::Other { error: std::io::Error::from_raw_os_error(errno).to_string() },
        }
    }
}

/// The reason, to stand after "refused:".
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl { value } => write!(f, "kernel.io_uring_disabled is {value}"),
            Self::Seccomp => f.write_str("a seccomp filter forbids it"),
            Self::NotInKernel => f.write_str("this kernel has none"),
            Self::Memlock => f.write_str("the locked-memory limit leaves no room for a ring"),
            Self::SecurityModule => f.write_str("permission denied, perhaps by a security module"),
            Self::Other { error } => f.write_str(error),
        }
    }
}

impl Refusal {
    /// What to do about it, as half a sentence.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Sysctl { value: 1 } => {
                "set it to 0 with `sysctl -w kernel.io_uring_disabled=0`, or run in the group that \
                 kernel.io_uring_group names"
            }
            Self::Sysctl { .. } => "set it to 0 with `sysctl -w kernel.io_uring_disabled=0`",
            Self::Seccomp => {
                "run with a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register"
            }
            Self::NotInKernel => "run a kernel built with CONFIG_IO_URING",
            Self::Memlock => "raise it with `ulimit -l unlimited` (systemd: LimitMEMLOCK=infinity)",
            Self::SecurityModule => "allow io_uring in its policy (SELinux, AppArmor)",
            Self::Other { .. } => "remove the cause and start again",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way in which setup fails, with and without what could explain it.
    #[test]
    fn each_refusal_is_laid_to_the_knob_that_caused_it() {
        let old = Some(Version { major: 4, minor: 19 });
        let new = Some(Version { major: 6, minor: 6 });
        let rows = [
            (libc::EPERM, Some(2), false, new, Refusal::Sysctl { value: 2 }),
            (libc::EPERM, Some(1), true, new, Refusal::Sysctl { value: 1 }),
            (libc::EPERM, Some(0), true, new, Refusal::Seccomp),
            (libc::EPERM, None, true, new, Refusal::Seccomp),
            (libc::EPERM, Some(0), false, new, Refusal::SecurityModule),
            (libc::EACCES, Some(2), true, new, Refusal::SecurityModule),
            (libc::ENOSYS, None, true, new, Refusal::Seccomp),
            (libc::ENOSYS, None, false, new, Refusal::NotInKernel),
            (libc::ENOSYS, None, true, old, Refusal::NotInKernel),
            (libc::ENOMEM, Some(0), false, new, Refusal::Memlock),
        ];
        for (errno, disabled, seccomp_filter, version, expected) in rows {
            let case = Circumstances { errno, disabled, seccomp_filter, version };
            assert_eq!(Refusal::explain(case), expected, "{case:?}");
        }
    }

    #[test]
    fn an_unforeseen_error_keeps_its_text() {
        let case =
            Circumstances { errno: libc::EMFILE, disabled: None, seccomp_filter: false, version: None };
        let Refusal::Other { error } = Refusal::explain(case) else { panic!("EMFILE was explained away") };
        assert!(error.contains("open files"), "{error}");
    }
}
