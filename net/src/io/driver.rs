use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_lite::AsyncRead;
use futures_lite::future::poll_fn;

/// How many readiness events one `epoll_wait` takes. More sockets than this are simply served by the next round.
const EVENTS_PER_ROUND: usize = 256;

/// Name of the driver's own eventfd inside epoll; no socket gets it, for its slot does not exist.
const KICK: u64 = u64::MAX;

/// Lets everything else on the executor have its turn, disk completions and timers included.
///
/// Not a yield: a task that yields stays runnable, and while any task is, glommio looks at its rings only when the
/// preemption timer fires. One socket that always had more to read then held up every sync by 100 ms. Nor a short
/// sleep: timers go by the millisecond.
pub(super) async fn pause() {
    let driver = Driver::current();
    let round = driver.round.get();
    let mut is_queued = false;
    poll_fn(|cx| {
        if driver.round.get() != round {
            return Poll::Ready(());
        }
        if !std::mem::replace(&mut is_queued, true) {
            driver.paused.borrow_mut().push(cx.waker().clone());
            driver.kick();
        }
        Poll::Pending
    })
    .await
}

/// Lets all be read and handled that lies in sockets by now: for whoever was held up together with everybody else on this
/// executor and is about to draw conclusions from silence.
pub async fn drain() {
    // In the first round the readers are woken, in front of the second they have run.
    pause().await;
    pause().await;
}

#[derive(Debug, Clone, Copy, Default)]
pub struct DriverConfig {
    /// How long after the last readiness event the driver keeps asking before it sleeps. Zero (the default): it
    /// sleeps at once. Worth it only on cores given to the broker, together with the executor's own
    /// `spin_before_park`.
    pub spin: Duration,
}

/// What is known of one socket's readiness. Edge-triggered: an event sets the flag, a call that would block clears it.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    readable: Cell<bool>,
    writable: Cell<bool>,
    /// The peer has closed its side, or the connection is broken: no further edge will tell of it.
    hung_up: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Interest {
    Read,
    Write,
}

impl Readiness {
    fn slot(&self, interest: Interest) -> (&Cell<bool>, &RefCell<Option<Waker>>) {
        match interest {
            Interest::Read => (&self.readable, &self.reader),
            Interest::Write => (&self.writable, &self.writer),
        }
    }

    fn set(&self, interest: Interest) {
        let (ready, waiter) = self.slot(interest);
        ready.set(true);
        if let Some(waker) = waiter.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Notes that the call just made would have blocked, and asks to be woken at the next event.
    pub(super) fn wait_for(&self, interest: Interest, waker: &Waker) {
        let (ready, waiter) = self.slot(interest);
        ready.set(false);
        *waiter.borrow_mut() = Some(waker.clone());
    }

    /// Notes a receive that did not fill its buffer: the socket is empty, and what comes next comes with an edge.
    /// Saves the call that would find out.
    pub(super) fn on_short_receive(&self) {
        if !self.hung_up.get() {
            self.readable.set(false);
        }
    }

    /// Notes a send that would have blocked, by a task that does not wait yet.
    pub(super) fn on_full(&self) {
        self.writable.set(false);
    }

    pub(super) fn is_ready(&self, interest: Interest) -> bool {
        self.slot(interest).0.get()
    }
}

/// The epoll instance of one executor, and the task that turns its events into wake-ups.
///
/// One per executor: [`Driver::start`] installs it for the current thread, sockets find it there.
#[derive(Debug)]
pub struct Driver {
    epoll: OwnedFd,
    /// An eventfd inside `epoll`: a write to it has the driver wake after the executor's next look at its rings.
    kick: OwnedFd,
    config: DriverConfig,
    sockets: RefCell<Sockets>,
    /// Tasks in [`pause`]; at most two per connection.
    paused: RefCell<Vec<Waker>>,
    /// Counts the driver's rounds.
    round: Cell<u64>,
}

/// Registered sockets by slot. The generation guards against an event that was fetched together with the one
/// that closed its socket.
#[derive(Debug, Default)]
struct Sockets {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    readiness: Option<Rc<Readiness>>,
}

/// Names a registered socket inside epoll: slot in the low half, generation in the high half.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registration(u64);

thread_local! {
    static CURRENT: RefCell<Option<Rc<Driver>>> = const { RefCell::new(None) };
}

impl Driver {
    /// Starts the driver of this executor; a second call returns the one that runs.
    ///
    /// # Panics
    /// Outside a glommio executor, or when the process has no file descriptor left for epoll.
    pub fn start(config: DriverConfig) -> Rc<Driver> {
        if let Some(driver) = CURRENT.with_borrow(Clone::clone) {
            return driver;
        }
        // SAFETY: no pointer is passed; the result is checked before it is owned.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        assert!(fd >= 0, "epoll_create1 failed: {}", io::Error::last_os_error());
        // SAFETY: a fresh descriptor that nobody else holds.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: no pointer is passed; the result is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        assert!(fd >= 0, "eventfd failed: {}", io::Error::last_os_error());
        // SAFETY: a fresh descriptor that nobody else holds.
        let kick = unsafe { OwnedFd::from_raw_fd(fd) };
        let driver = Rc::new(Driver {
            epoll,
            kick,
            config,
            sockets: RefCell::default(),
            paused: RefCell::default(),
            round: Cell::default(),
        });
        let edges = libc::EPOLLIN | libc::EPOLLET;
        driver.watch(driver.kick.as_raw_fd(), edges, KICK).expect("epoll takes an eventfd");
        CURRENT.with_borrow_mut(|current| *current = Some(driver.clone()));
        glommio::spawn_local(driver.clone().run()).detach();
        driver
    }

    /// The driver of this executor.
    ///
    /// # Panics
    /// If [`Driver::start`] was not called on this thread.
    pub fn current() -> Rc<Driver> {
        CURRENT
            .with_borrow(Clone::clone)
            .expect("Driver::start must run on this executor before sockets are used")
    }

    /// Watches `fd` for both directions until [`Driver::deregister`].
    pub(super) fn register(&self, fd: RawFd) -> io::Result<(Registration, Rc<Readiness>)> {
        // Optimistic: the first call finds out, and only a call that would block waits for an edge.
        let readiness = Rc::new(Readiness::default());
        readiness.readable.set(true);
        readiness.writable.set(true);
        let mut sockets = self.sockets.borrow_mut();
        let index = sockets.free.pop().unwrap_or_else(|| {
            sockets.slots.push(Slot::default());
            u32::try_from(sockets.slots.len() - 1).expect("fewer than 2^32 descriptors")
        });
        let slot = &mut sockets.slots[index as usize];
        slot.readiness = Some(readiness.clone());
        let registration = Registration(u64::from(slot.generation) << 32 | u64::from(index));
        let edges = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        if let Err(error) = self.watch(fd, edges, registration.0) {
            sockets.release(index);
            return Err(error);
        }
        Ok((registration, readiness))
    }

    fn watch(&self, fd: RawFd, events: i32, name: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: name };
        // SAFETY: `event` lives through the call; both descriptors are open.
        match unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Has epoll report an event. The count inside the eventfd is never read: each write is an edge.
    fn kick(&self) {
        let one = 1u64;
        // SAFETY: eight bytes of a live value. It can only fail when 2^64 kicks were counted.
        unsafe { libc::write(self.kick.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }

    /// Forgets a socket. The kernel drops its side when the last descriptor closes, which is the caller's next step.
    pub(super) fn deregister(&self, registration: Registration, fd: RawFd) {
        // SAFETY: a null event is allowed for EPOLL_CTL_DEL; failure (already closed) leaves nothing to undo.
        unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
        self.sockets.borrow_mut().release(registration.0 as u32);
    }

    async fn run(self: Rc<Self>) {
        let mut last_event = Instant::now();
        loop {
            if self.dispatch_ready() > 0 {
                last_event = Instant::now();
            }
            self.round.set(self.round.get() + 1);
            self.paused.take().into_iter().for_each(Waker::wake);
            // Never merely yield here, for the reason that `pause` gives.
            if !self.config.spin.is_zero() && last_event.elapsed() < self.config.spin {
                self.kick();
            }
            self.wait_for_events().await;
        }
    }

    /// Takes what epoll has, marks the sockets and wakes their tasks. Never blocks. Returns how many there were.
    fn dispatch_ready(&self) -> usize {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_ROUND];
        // SAFETY: the array outlives the call and its length is what is passed.
        let count = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), EVENTS_PER_ROUND as i32, 0)
        };
        // Negative is EINTR, the only error a valid epoll descriptor gives: the next round asks again.
        let count = usize::try_from(count).unwrap_or(0);
        let mut dispatched = 0;
        for event in &events[..count] {
            let (bits, name) = (event.events as i32, event.u64);
            let Some(readiness) = self.sockets.borrow().get(name) else { continue };
            dispatched += 1;
            let broken = bits & (libc::EPOLLHUP | libc::EPOLLERR) != 0;
            if broken || bits & libc::EPOLLRDHUP != 0 {
                readiness.hung_up.set(true);
            }
            if broken || bits & (libc::EPOLLIN | libc::EPOLLRDHUP) != 0 {
                readiness.set(Interest::Read);
            }
            if broken || bits & libc::EPOLLOUT != 0 {
                readiness.set(Interest::Write);
            }
        }
        dispatched
    }

    /// Sleeps in the executor until the epoll descriptor itself is readable.
    ///
    /// glommio has no public "await this descriptor", but its `TcpStream` arms a poll on whatever it is made from
    /// and looks at the descriptor again when that fires. Reading an epoll descriptor as a socket then fails with
    /// ENOTSOCK, which here means: there are events. One wrapper per wait, on a duplicate that it may close.
    async fn wait_for_events(&self) {
        let Ok(duplicate) = self.epoll.try_clone() else {
            // Out of descriptors: fall back to asking every millisecond until some are free again.
            glommio::timer::sleep(Duration::from_millis(1)).await;
            return;
        };
        let socket = socket2::Socket::from(duplicate);
        let mut probe = glommio::net::TcpStream::from(socket);
        let mut byte = [0u8; 1];
        let result = poll_fn(|cx| std::pin::Pin::new(&mut probe).poll_read(cx, &mut byte)).await;
        debug_assert!(result.is_err(), "an epoll descriptor cannot be read as a socket");
    }
}

impl Sockets {
    fn get(&self, name: u64) -> Option<Rc<Readiness>> {
        let slot = self.slots.get(name as u32 as usize)?;
        (slot.generation == (name >> 32) as u32).then(|| slot.readiness.clone())?
    }

    fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.readiness = None;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
    }
}
