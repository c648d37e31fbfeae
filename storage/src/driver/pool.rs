//! The executor's blocking pool: for calls that wait for the disk for a moment.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::disk::DiskError;

/// How often an executor that ends looks whether its pool has come to rest.
const LOOK_EVERY: Duration = Duration::from_millis(2);

thread_local! {
    /// Calls of this thread's executor that the pool has not finished.
    static UNDER_WAY: Arc<AtomicUsize> = Arc::default();
}

/// Waits until the pool of this executor has nothing left to do, at most so many looks. A thread of glommio's pool panics
/// when the executor that it answers is gone.
pub(super) async fn pool_at_rest(looks_max: u32) {
    let under_way = UNDER_WAY.with(Arc::clone);
    let mut was_at_rest = false;
    for _ in 0..looks_max {
        let is_at_rest = under_way.load(Ordering::Acquire) == 0;
        // Twice: after a call its answer is still to be sent, and whoever hears it may make another.
        if is_at_rest && was_at_rest {
            return;
        }
        was_at_rest = is_at_rest;
        glommio::timer::sleep(LOOK_EVERY).await;
    }
}

/// Runs on the blocking pool. A panic that left the closure would leave its caller waiting for ever. Goes on when the
/// future is dropped.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let under_way = UNDER_WAY.with(Arc::clone);
    under_way.fetch_add(1, Ordering::Relaxed);
    let work = move || {
        leave_the_shards_processor();
        let done = catch_unwind(AssertUnwindSafe(work));
        under_way.fetch_sub(1, Ordering::Release);
        done
    };
    glommio::executor().spawn_blocking(work).await.unwrap_or_else(|_| Err(io::Error::other("panicked")))
}

/// Like [`blocking`]; `action` says what an error comes from.
pub(super) async fn blocking_or<T: Send + 'static>(
    action: impl FnOnce() -> String,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DiskError> {
    blocking(work).await.map_err(|error| DiskError::io(action(), &error))
}

/// Lets this thread run wherever the process may. A thread is born on the processors of the one that starts it, and
/// glommio starts those of the pool on the one that the shard is pinned to.
pub(super) fn leave_the_shards_processor() {
    thread_local! {
        static HAS_LEFT: Cell<bool> = const { Cell::new(false) };
    }
    if HAS_LEFT.replace(true) {
        return;
    }
    let mut processors = MaybeUninit::<libc::cpu_set_t>::zeroed();
    let len = size_of::<libc::cpu_set_t>();
    // SAFETY: the set has room for `len` bytes, and all-zero is a valid one. By its own number a process names its first
    // thread, which no shard runs on.
    unsafe {
        if libc::sched_getaffinity(libc::getpid(), len, processors.as_mut_ptr()) == 0 {
            // Refused, it stays where it is, which is only slower.
            libc::sched_setaffinity(0, len, processors.as_ptr());
        }
    }
}
