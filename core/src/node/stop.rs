//! The order to stop, given once by the control thread and awaited on every executor.

use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

#[derive(Debug, Clone, Default)]
pub(super) struct StopSignal {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    given: bool,
    waiting: Vec<Waker>,
}

impl StopSignal {
    pub(super) fn give(&self) {
        let waiting = {
            let mut state = self.state.lock().expect("nobody panics with this lock");
            state.given = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Resolves once the order was given. A few tasks per executor wait, each once: the lock is never contended.
    pub(super) async fn given(&self) {
        poll_fn(|cx| {
            let mut state = self.state.lock().expect("nobody panics with this lock");
            if state.given {
                return Poll::Ready(());
            }
            state.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}
