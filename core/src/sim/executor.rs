//! One thread, virtual time, tasks in an order that the seed decides.
//!
//! Whoever runs in the simulation is a task, as under glommio: it awaits time, frames and completions. Which of the tasks
//! that can go on does so next is drawn, so that a seed names one interleaving. Time passes only when none can.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use apogee_storage::sim::Rng;
use futures_lite::future;

/// Virtual time since the start.
pub(super) type Us = u64;

pub(super) const MS: Us = 1_000;
pub(super) const SECOND: Us = 1_000_000;

type Task = Pin<Box<dyn Future<Output = ()>>>;
type TaskId = u64;

/// Steps of tasks without time passing, at most: more is a loop that waits for nothing.
const STEPS_AT_ONE_TIME_MAX: u64 = 2_000_000;

/// The simulation's time, tasks and dice. Clones are the same.
#[derive(Clone)]
pub(super) struct Sim(Rc<Inner>);

struct Inner {
    now: Cell<Us>,
    next: Cell<u64>,
    rng: RefCell<Rng>,
    agenda: RefCell<BinaryHeap<Reverse<Planned>>>,
    /// None while it runs.
    tasks: RefCell<BTreeMap<TaskId, Option<Task>>>,
    ready: Arc<Mutex<Vec<TaskId>>>,
    /// Of processes that stand still; true for a task that could go on since.
    still: RefCell<BTreeMap<TaskId, bool>>,
    digest: Cell<u64>,
    steps: Cell<u64>,
    is_talking: bool,
}

struct Planned {
    at: Us,
    number: u64,
    what: Box<dyn FnOnce()>,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct TaskWaker {
    id: TaskId,
    is_ready: AtomicBool,
    ready: Arc<Mutex<Vec<TaskId>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.is_ready.swap(true, Relaxed) {
            self.ready.lock().expect("nobody panics with it").push(self.id);
        }
    }
}

impl Sim {
    pub(super) fn new(seed: u64) -> Sim {
        Sim(Rc::new(Inner {
            now: Cell::new(0),
            next: Cell::new(1),
            rng: RefCell::new(Rng::new(seed)),
            agenda: RefCell::default(),
            tasks: RefCell::default(),
            ready: Arc::default(),
            still: RefCell::default(),
            digest: Cell::new(seed),
            steps: Cell::new(0),
            is_talking: std::env::var_os("APOGEE_TRACE").is_some(),
        }))
    }

    pub(super) fn now(&self) -> Us {
        self.0.now.get()
    }

    fn number(&self) -> u64 {
        let number = self.0.next.get();
        self.0.next.set(number + 1);
        number
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.0.rng.borrow_mut().below(bound)
    }

    pub(super) fn between(&self, min: u64, max: u64) -> u64 {
        min + self.below(max - min + 1)
    }

    pub(super) fn chance(&self, percent: u64) -> bool {
        self.0.rng.borrow_mut().chance(percent)
    }

    pub(super) fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// What happened counts: two runs of one seed must come to the same digest.
    pub(super) fn note(&self, what: u64) {
        let mut digest = self.0.digest.get() ^ what ^ self.now().rotate_left(20);
        digest = (digest ^ (digest >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.0.digest.set(digest ^ (digest >> 27));
    }

    /// For whoever looks for what went wrong: with `APOGEE_TRACE` it is printed.
    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if self.0.is_talking {
            println!("{:>12} {}", self.now(), what());
        }
    }

    pub(super) fn digest(&self) -> u64 {
        self.0.digest.get()
    }

    /// Turns that tasks had.
    pub(super) fn steps(&self) -> u64 {
        self.0.steps.get()
    }

    /// Has something done later.
    pub(super) fn after(&self, us: Us, what: impl FnOnce() + 'static) {
        let planned = Planned { at: self.now() + us, number: self.number(), what: Box::new(what) };
        self.0.agenda.borrow_mut().push(Reverse(planned));
    }

    pub(super) fn sleep(&self, us: Us) -> impl Future<Output = ()> + use<> {
        let waiter = Promise::new();
        let given = waiter.clone();
        self.after(us, move || given.keep(()));
        async move {
            waiter.kept().await;
        }
    }

    /// What comes of `work` within a time.
    pub(super) async fn within<T>(&self, us: Us, work: impl Future<Output = T>) -> Option<T> {
        let late = async {
            self.sleep(us).await;
            None
        };
        future::or(async { Some(work.await) }, late).await
    }

    /// Ends everything: tasks hold on to what holds on to them.
    pub(super) fn end(&self) {
        let tasks = std::mem::take(&mut *self.0.tasks.borrow_mut());
        let agenda = std::mem::take(&mut *self.0.agenda.borrow_mut());
        drop((tasks, agenda));
    }

    /// Lets time pass until `until`.
    pub(super) fn run(&self, until: Us) {
        loop {
            self.run_ready();
            let next = {
                let mut agenda = self.0.agenda.borrow_mut();
                match agenda.peek() {
                    Some(Reverse(next)) if next.at <= until => agenda.pop().expect("it was looked at").0,
                    _ => break,
                }
            };
            self.0.now.set(next.at);
            (next.what)();
        }
        self.0.now.set(until);
    }

    fn run_ready(&self) {
        for step in 0.. {
            assert!(step < STEPS_AT_ONE_TIME_MAX, "a task goes round and round at {} us", self.now());
            let id = {
                let mut ready = self.0.ready.lock().expect("nobody panics with it");
                if ready.is_empty() {
                    return;
                }
                let nth = self.below(ready.len() as u64) as usize;
                ready.swap_remove(nth)
            };
            if let Some(could_go_on) = self.0.still.borrow_mut().get_mut(&id) {
                *could_go_on = true;
                continue;
            }
            let taken = self.0.tasks.borrow_mut().get_mut(&id).map(Option::take);
            let Some(Some(mut task)) = taken else { continue };
            self.0.steps.set(self.0.steps.get() + 1);
            let waker = TaskWaker { id, is_ready: AtomicBool::new(false), ready: Arc::clone(&self.0.ready) };
            let waker = Waker::from(Arc::new(waker));
            let poll = task.as_mut().poll(&mut Context::from_waker(&waker));
            // A task that was killed meanwhile has no place any more.
            if let Some(place) = self.0.tasks.borrow_mut().get_mut(&id) {
                if poll.is_pending() {
                    *place = Some(task);
                    continue;
                }
            } else {
                drop(task);
                continue;
            }
            self.0.tasks.borrow_mut().remove(&id);
        }
    }
}

/// Tasks that end together: those of one process.
pub(super) struct Scope {
    sim: Sim,
    tasks: RefCell<Vec<TaskId>>,
    is_over: Cell<bool>,
}

impl Scope {
    pub(super) fn new(sim: &Sim) -> Rc<Scope> {
        Rc::new(Scope { sim: sim.clone(), tasks: RefCell::default(), is_over: Cell::new(false) })
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if self.is_over.get() {
            return;
        }
        let id = self.sim.number();
        self.sim.0.tasks.borrow_mut().insert(id, Some(Box::pin(task)));
        let mut tasks = self.tasks.borrow_mut();
        if tasks.len() > 64 && tasks.len().is_power_of_two() {
            let alive = self.sim.0.tasks.borrow();
            tasks.retain(|id| alive.contains_key(id));
        }
        tasks.push(id);
        self.sim.0.ready.lock().expect("nobody panics with it").push(id);
    }

    /// No task goes on until they all do. None may be spawned meanwhile: there is nobody to do it.
    pub(super) fn stand_still(&self) {
        let still = &mut *self.sim.0.still.borrow_mut();
        still.extend(self.tasks.borrow().iter().map(|id| (*id, false)));
    }

    pub(super) fn go_on(&self) {
        let still = &mut *self.sim.0.still.borrow_mut();
        let ready = &mut *self.sim.0.ready.lock().expect("nobody panics with it");
        ready.extend(self.tasks.borrow().iter().filter(|id| still.remove(id) == Some(true)));
    }

    /// Ends all tasks where they are.
    pub(super) fn end(&self) {
        self.is_over.set(true);
        self.go_on();
        for id in std::mem::take(&mut *self.tasks.borrow_mut()) {
            // Dropped outside of the borrow: what a task owns may do something when it goes.
            let ended = self.sim.0.tasks.borrow_mut().remove(&id);
            drop(ended);
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.end();
    }
}

/// A value that one task will have and another waits for. Clones are the same.
pub(super) struct Promise<T>(Rc<RefCell<Kept<T>>>);

struct Kept<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

impl<T> Clone for Promise<T> {
    fn clone(&self) -> Self {
        Promise(Rc::clone(&self.0))
    }
}

impl<T> Promise<T> {
    pub(super) fn new() -> Self {
        Promise(Rc::new(RefCell::new(Kept { value: None, waker: None })))
    }

    pub(super) fn keep(&self, value: T) {
        let mut kept = self.0.borrow_mut();
        kept.value = Some(value);
        if let Some(waker) = kept.waker.take() {
            waker.wake();
        }
    }

    pub(super) async fn kept(&self) -> T {
        std::future::poll_fn(|context| {
            let mut kept = self.0.borrow_mut();
            match kept.value.take() {
                Some(value) => Poll::Ready(value),
                None => {
                    kept.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// Something happened, perhaps several times; one task waits for it. Clones are the same.
#[derive(Clone)]
pub(super) struct Signal(Promise<()>);

impl Default for Signal {
    fn default() -> Self {
        Signal(Promise::new())
    }
}

impl Signal {
    pub(super) fn raise(&self) {
        self.0.keep(());
    }

    pub(super) async fn wait(&self) {
        self.0.kept().await;
    }
}
