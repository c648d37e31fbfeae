//! glommio executors: how they are started and kept awake.

use std::future::Future;
use std::time::{Duration, Instant};

use apogee_net::io::{Driver, DriverConfig, Nudge};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use crate::attention::ThreadUse;

/// How long an executor with a CPU of its own looks for events before it sleeps. Waking from sleep costs tens of
/// microseconds on a virtual machine, which would count as the broker's latency.
const SPIN: Duration = Duration::from_millis(1);
const SPIN_BEFORE_PARK: Duration = Duration::from_micros(100);

/// No files are read or written; the smallest arena keeps clear of the memlock limit.
const IO_MEMORY_BYTES: usize = 64 * 1024;

/// The longest that glommio's lost-park bug can hold an executor; see [`Nudge`].
pub(super) const NUDGE_PERIOD: Duration = Duration::from_millis(5);

/// To be called first in `main`, while there is one thread: registering for membarrier is slow afterwards.
pub fn early_init() {
    glommio::early_init();
    allow_many_files();
}

/// Thousands of connections need more files than shells allow by default; what the system allows is taken.
fn allow_many_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives through both calls, which read and write nothing else.
    let is_set = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    if !is_set {
        tracing::warn!("the limit of open files stays: {}", std::io::Error::last_os_error());
    }
}

/// Starts an executor with its socket driver and runs `task` on it; `cpu` pins it and lets it busy-wait there.
pub(super) fn start<T: Send + 'static, F: Future<Output = T> + 'static>(
    name: &str,
    cpu: Option<usize>,
    nudge: &Nudge,
    task: impl FnOnce() -> F + Send + 'static,
) -> Result<ExecutorJoinHandle<T>, ExecutorError> {
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    let mut builder = LocalExecutorBuilder::new(placement).name(name).io_memory(IO_MEMORY_BYTES);
    let mut config = DriverConfig::default();
    if cpu.is_some() {
        builder = builder.spin_before_park(SPIN_BEFORE_PARK);
        config.spin = SPIN;
    }
    let nudge = nudge.handle();
    builder
        .spawn(move || async move {
            Driver::start(config);
            glommio::spawn_local(nudge.keep_awake()).detach();
            task().await
        })
        .map_err(|error| ExecutorError { reason: error.to_string() })
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot start an io_uring executor: {reason}. The kernel must be 5.8 or newer, allow io_uring \
     (kernel.io_uring_disabled = 0, no seccomp filter) and lock 512 KiB of memory per thread (ulimit -l)"
)]
pub struct ExecutorError {
    pub reason: String,
}

/// CPUs this process may run on.
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: an all-zero set is the valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` lives through the call and its size is what is passed; 0 is the calling thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    assert_eq!(result, 0, "sched_getaffinity: {}", std::io::Error::last_os_error());
    // SAFETY: reads one bit of `set`; CPU_SETSIZE is the number of bits.
    (0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// What the kernel has given to the calling thread until now.
#[derive(Clone, Copy)]
pub(super) struct ThreadClock {
    at: Instant,
    cpu: Duration,
    preempted: u64,
}

impl ThreadClock {
    pub(super) fn now() -> ThreadClock {
        // SAFETY: an all-zero record is valid; it holds numbers only.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `usage` lives through the call.
        let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
        assert_eq!(result, 0, "getrusage: {}", std::io::Error::last_os_error());
        let time = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
        };
        ThreadClock {
            at: Instant::now(),
            cpu: time(usage.ru_utime) + time(usage.ru_stime),
            preempted: usage.ru_nivcsw as u64,
        }
    }

    /// Between this reading and now, on the same thread.
    pub(super) fn used(&self) -> ThreadUse {
        let now = ThreadClock::now();
        ThreadUse {
            wall_s: now.at.duration_since(self.at).as_secs_f64(),
            cpu_s: now.cpu.saturating_sub(self.cpu).as_secs_f64(),
            preempted: now.preempted.saturating_sub(self.preempted),
        }
    }
}

/// Binds the calling thread to one CPU.
pub(super) fn pin_thread(cpu: usize) -> std::io::Result<()> {
    // SAFETY: an all-zero set is the valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(std::io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: sets one bit of `set`, which has room for it as just checked.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` lives through the call and its size is what is passed; 0 is the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
