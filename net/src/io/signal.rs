use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A flag that one task raises and one other task awaits; raising it twice before it is seen counts once.
#[derive(Debug, Default)]
pub struct Signal {
    raised: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    pub fn raise(&self) {
        if !self.raised.replace(true)
            && let Some(waiter) = self.waiter.borrow_mut().take()
        {
            waiter.wake();
        }
    }

    /// Resolves when the flag is up, and takes it down.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            if self.raised.replace(false) {
                return Poll::Ready(());
            }
            let mut waiter = self.waiter.borrow_mut();
            match waiter.as_mut() {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waiter = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
        .await
    }
}
