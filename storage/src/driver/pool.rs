//! The executor's blocking pool: for calls that wait for the disk for a moment.

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::disk::DiskError;

/// Runs on the blocking pool. A panic that left the closure would leave its caller waiting for ever. Goes on when the
/// future is dropped.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let work = move || {
        leave_the_shards_processor();
        catch_unwind(AssertUnwindSafe(work))
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
