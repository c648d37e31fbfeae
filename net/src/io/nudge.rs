use std::future::poll_fn;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

/// A thread that wakes one task of every executor at a slow beat; ends when dropped.
///
/// A glommio executor can fall asleep with runnable tasks when it was descheduled at the wrong moment, until
/// something outside wakes it (the lost-park bug of every release up to glommio-ng 0.12). This bounds that sleep by
/// the period, at the price of a wake-up each.
#[derive(Debug)]
pub struct Nudge {
    handle: NudgeHandle,
    thread: Option<JoinHandle<()>>,
}

/// What an executor needs to be nudged.
#[derive(Debug, Clone, Default)]
pub struct NudgeHandle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// One per executor.
    wakers: Vec<Waker>,
    is_over: bool,
}

impl Nudge {
    /// # Panics
    /// If the process cannot start a thread.
    pub fn start(period: Duration) -> Self {
        let handle = NudgeHandle::default();
        let nudged = handle.clone();
        let beat = move || {
            let mut state = nudged.state();
            while !state.is_over {
                state.wakers.iter().for_each(Waker::wake_by_ref);
                let waited = nudged.0.ended.wait_timeout(state, period);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        };
        let thread = std::thread::Builder::new().name("nudge".into()).spawn(beat);
        Nudge {
            handle,
            thread: Some(thread.expect("a process that cannot start a thread cannot do its work")),
        }
    }

    pub fn handle(&self) -> NudgeHandle {
        self.handle.clone()
    }
}

impl NudgeHandle {
    /// To be spawned once on each executor: never ends, and only exists to be woken.
    pub async fn keep_awake(self) {
        let mut is_known = false;
        poll_fn(|cx| {
            if !is_known {
                is_known = true;
                self.state().wakers.push(cx.waker().clone());
            }
            Poll::<()>::Pending
        })
        .await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Nudge {
    fn drop(&mut self) {
        let mut state = self.handle.state();
        state.is_over = true;
        state.wakers.clear();
        drop(state);
        self.handle.0.ended.notify_all();
        if let Some(thread) = self.thread.take() {
            // It can only have panicked inside a waker, and that panic was reported there.
            let _ = thread.join();
        }
    }
}
