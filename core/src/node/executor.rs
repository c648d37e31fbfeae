//! The one place that builds glommio executors, and the rules that keep them running.
//!
//! - The preemption timer stays at its default: shorter ones meet glommio's lost-park bug, in which an executor
//!   sleeps although tasks are runnable.
//! - A [`Nudge`] thread wakes every executor now and then, which bounds what is left of that bug.
//! - The blocking pool is not bound to the executor's core, where glommio would put it.
//! - A panic is a bug, and a bug in one shard must not go on with half-changed state: the process aborts and
//!   recovers from its log ([`abort_on_panic`]).

use std::time::Duration;

use anyhow::Context;
use apogee_net::io::Nudge;
use apogee_tuning::CpuList;
use glommio::{
    DefaultStallDetectionHandler, ExecutorJoinHandle, LocalExecutorBuilder, Placement, PoolPlacement,
};

/// How often sleeping executors are woken: the longest that the lost-park bug can hold one. Costs below half a
/// percent of a core.
pub(super) const NUDGE_PERIOD: Duration = Duration::from_millis(25);

/// Submission entries per ring. A shard has its writes, reads and timers in flight, sockets are epoll's.
const RING_DEPTH: usize = 256;

#[derive(Debug, Clone)]
pub(super) struct ExecutorConfig {
    pub(super) name: String,
    /// The CPU it is pinned to; none lets the kernel place it.
    pub(super) cpu: Option<usize>,
    /// Memory registered with the rings for direct I/O. Locked three times over where memlock applies.
    pub(super) io_memory: usize,
    /// Threads of its blocking pool: as many as calls may block at once, so that none waits behind another.
    pub(super) blocking_threads: usize,
    /// How long it polls before it sleeps; effective only when pinned.
    pub(super) spin: Duration,
    /// Log a backtrace of every task that overruns its time. For tests: costs 1 µs per task-queue switch.
    pub(super) detect_stalls: bool,
}

/// Starts a thread with an executor that runs `main` to its end.
pub(super) fn spawn<T, F>(
    config: &ExecutorConfig,
    nudge: &Nudge,
    main: impl FnOnce() -> F + Send + 'static,
) -> anyhow::Result<ExecutorJoinHandle<T>>
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let placement = config.cpu.map_or(Placement::Unbound, Placement::Fixed);
    let mut builder = LocalExecutorBuilder::new(placement)
        .name(&config.name)
        .io_memory(config.io_memory)
        .ring_depth(RING_DEPTH)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(config.blocking_threads));
    if !config.spin.is_zero() {
        builder = builder.spin_before_park(config.spin);
    }
    if config.detect_stalls {
        builder = builder.detect_stalls(Some(Box::new(DefaultStallDetectionHandler {})));
    }
    let nudge = nudge.handle();
    // glommio makes the executor inside the thread, and an error there is only seen by joining it.
    let (started, is_started) = std::sync::mpsc::channel();
    let failed = || format!("cannot start executor {}", config.name);
    let executor = builder
        .spawn(move || async move {
            // Nobody waits only when this process is ending already.
            let _ = started.send(());
            let _awake = glommio::spawn_local(nudge.keep_awake());
            main().await
        })
        .map_err(|error| anyhow::anyhow!("{error}"))
        .with_context(failed)?;
    if is_started.recv().is_err() {
        let reason =
            executor.join().err().map_or_else(|| "it ended at once".to_owned(), |error| error.to_string());
        return Err(anyhow::anyhow!("{reason}")).with_context(failed);
    }
    Ok(executor)
}

/// Makes every panic, on any thread, end the process after its message is printed.
pub(super) fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        eprintln!(
            "apogee stops: a bug was met (above); what was acknowledged is in the log and is recovered at start"
        );
        std::process::abort();
    }));
}

/// What a process does before it starts its first executor: the memory-barrier registration, which would
/// otherwise cost the first timer 10 to 80 ms.
pub fn prepare_process() {
    // SAFETY: takes no pointers; a kernel without it answers an error that changes nothing.
    unsafe {
        libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
    }
}

/// Keeps the calling thread, and those it starts that are not pinned themselves, on these cpus. That it failed costs latency, and
/// nothing else.
pub(super) fn run_this_thread_on(cpus: &CpuList) {
    // SAFETY: a set of bits, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus.iter().filter(|cpu| *cpu < libc::CPU_SETSIZE as u32) {
        // SAFETY: the number is below the size of the set.
        unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    }
    // SAFETY: the set outlives the call; 0 is the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    if result != 0 {
        tracing::warn!(%cpus, error = %std::io::Error::last_os_error(), "the control thread cannot be moved");
    }
}
