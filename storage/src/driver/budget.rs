//! What may be under way at once, handed out first come, first served.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Units that tasks of one executor share. Whoever waits is served before anybody who comes later, however much it
/// wants; one that stops waiting is passed over. (glommio's semaphore lets small wants overtake great ones, and loses a
/// wake-up with a waiter that is dropped.)
///
/// As many may wait as there are tasks: a connection's writer each, and the reads that the layer above admits.
#[derive(Debug)]
pub(super) struct Budget {
    units: u64,
    /// What each takes at least, which limits how many there can be.
    least: u64,
    free: Cell<u64>,
    holders: Cell<u32>,
    waiting: RefCell<VecDeque<Waiting>>,
    next_ticket: Cell<u64>,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    waker: Option<Waker>,
}

impl Budget {
    /// `units` in all, for `holders_max` at once at most.
    pub(super) fn new(units: u64, holders_max: u32) -> Rc<Budget> {
        let least = units.checked_div(holders_max.into()).unwrap_or(0);
        assert!(least > 0, "a budget of {units} for {holders_max} is never granted");
        let (free, waiting, next_ticket) = (Cell::new(units), RefCell::default(), Cell::new(0));
        Rc::new(Budget { units, least, free, holders: Cell::new(0), waiting, next_ticket })
    }

    /// Waits until `units` are free; what is more than all there are waits for all.
    pub(super) async fn acquire(self: &Rc<Budget>, units: u64) -> Permit {
        let units = units.clamp(self.least, self.units);
        let ticket = self.next_ticket.replace(self.next_ticket.get() + 1);
        self.waiting.borrow_mut().push_back(Waiting { ticket, waker: None });
        let place = Place { budget: self, ticket };
        poll_fn(|cx| {
            let mut waiting = self.waiting.borrow_mut();
            let is_first = waiting.front().is_some_and(|first| first.ticket == ticket);
            if is_first && self.free.get() >= units {
                return Poll::Ready(());
            }
            let mine = waiting.iter_mut().find(|waiting| waiting.ticket == ticket);
            mine.expect("only its own place takes it from the queue").waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        self.free.set(self.free.get() - units);
        self.holders.set(self.holders.get() + 1);
        drop(place);
        Permit { budget: Rc::clone(self), units }
    }

    /// How many hold some just now.
    pub(super) fn holders(&self) -> u32 {
        self.holders.get()
    }

    fn wake_first(&self) {
        if let Some(waker) = self.waiting.borrow_mut().front_mut().and_then(|first| first.waker.take()) {
            waker.wake();
        }
    }
}

/// A place in the queue, left when dropped.
struct Place<'a> {
    budget: &'a Budget,
    ticket: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.budget.waiting.borrow_mut().retain(|waiting| waiting.ticket != self.ticket);
        self.budget.wake_first();
    }
}

/// Units held, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    budget: Rc<Budget>,
    units: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.free.set(self.budget.free.get() + self.units);
        self.budget.holders.set(self.budget.holders.get() - 1);
        self.budget.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    macro_rules! poll {
        ($future:expr, $woken:expr) => {
            $future.as_mut().poll(&mut Context::from_waker(&Arc::clone(&$woken).into()))
        };
    }

    fn woken() -> Arc<Woken> {
        Arc::default()
    }

    fn times(woken: &Woken) -> usize {
        woken.0.load(Ordering::Relaxed)
    }

    #[test]
    fn little_wants_do_not_overtake_a_great_one() {
        let budget = Budget::new(4, 4);
        let waker = woken();
        let mut first = pin!(budget.acquire(3));
        let Poll::Ready(held) = poll!(first, waker) else { panic!("all is free") };
        let (mut great, mut little) = (pin!(budget.acquire(4)), pin!(budget.acquire(1)));
        let (great_woken, little_woken) = (woken(), woken());
        assert!(poll!(great, great_woken).is_pending());
        assert!(poll!(little, little_woken).is_pending(), "one is free, and the great one came first");
        drop(held);
        assert_eq!((times(&great_woken), times(&little_woken)), (1, 0));
        let Poll::Ready(held) = poll!(great, great_woken) else { panic!("all is free") };
        assert!(poll!(little, little_woken).is_pending());
        drop(held);
        assert!(times(&little_woken) > 0);
        assert!(poll!(little, little_woken).is_ready());
    }

    #[test]
    fn wants_that_fit_are_granted_together() {
        let budget = Budget::new(4, 4);
        let waker = woken();
        let mut all = pin!(budget.acquire(4));
        let Poll::Ready(held) = poll!(all, waker) else { panic!("all is free") };
        let (mut a, mut b) = (pin!(budget.acquire(2)), pin!(budget.acquire(2)));
        let (a_woken, b_woken) = (woken(), woken());
        assert!(poll!(a, a_woken).is_pending() && poll!(b, b_woken).is_pending());
        drop(held);
        let granted = poll!(a, a_woken);
        assert!(granted.is_ready());
        assert_eq!(times(&b_woken), 1, "what the first left is enough for the second");
        assert!(poll!(b, b_woken).is_ready());
    }

    #[test]
    fn one_that_stops_waiting_is_passed_over() {
        let budget = Budget::new(1, 1);
        let waker = woken();
        let mut first = pin!(budget.acquire(1));
        let Poll::Ready(held) = poll!(first, waker) else { panic!("all is free") };
        let (gone_woken, next_woken) = (woken(), woken());
        let mut gone = Box::pin(budget.acquire(1));
        let mut next = pin!(budget.acquire(1));
        assert!(poll!(gone, gone_woken).is_pending() && poll!(next, next_woken).is_pending());
        drop(held);
        assert_eq!((times(&gone_woken), times(&next_woken)), (1, 0));
        // Woken, and dropped before it could take what it was woken for.
        drop(gone);
        assert_eq!(times(&next_woken), 1);
        assert!(poll!(next, next_woken).is_ready());
    }

    #[test]
    fn more_than_all_is_all() {
        let budget = Budget::new(4, 4);
        let waker = woken();
        let mut more = pin!(budget.acquire(100));
        let granted = poll!(more, waker);
        assert!(granted.is_ready());
        let mut next = pin!(budget.acquire(1));
        assert!(poll!(next, waker).is_pending());
        drop(granted);
        assert!(poll!(next, waker).is_ready());
    }

    #[test]
    fn no_more_hold_it_than_may_however_little_they_want() {
        let budget = Budget::new(100, 2);
        let waker = woken();
        let (mut a, mut b, mut c) =
            (pin!(budget.acquire(1)), pin!(budget.acquire(1)), pin!(budget.acquire(1)));
        let held = (poll!(a, waker), poll!(b, waker));
        assert!(held.0.is_ready() && held.1.is_ready());
        assert!(poll!(c, waker).is_pending());
        drop(held);
        assert!(poll!(c, waker).is_ready());
    }
}
