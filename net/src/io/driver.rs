use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_lite::AsyncRead;
use futures_lite::future::poll_fn;

/// How many readiness events one `epoll_wait` takes. More sockets than this are simply served by the next round.
const EVENTS_PER_ROUND: usize = 256;

/// How long one pause of a spinning driver asks for. Any pause lets the executor reap its rings; a shorter one
/// than this costs more in timers than it saves.
const SPIN_PAUSE: Duration = Duration::from_nanos(500);

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
    config: DriverConfig,
    sockets: RefCell<Sockets>,
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
        let driver = Rc::new(Driver { epoll, config, sockets: RefCell::default() });
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
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event { events: events as u32, u64: registration.0 };
        // SAFETY: `event` lives through the call; both descriptors are open.
        if unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) } != 0 {
            let error = io::Error::last_os_error();
            sockets.release(index);
            return Err(error);
        }
        Ok((registration, readiness))
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
            // Never merely yield here: a driver that stays runnable keeps the executor from reaping its rings, and
            // disk completions would wait for the 100 ms preemption timer.
            if !self.config.spin.is_zero() && last_event.elapsed() < self.config.spin {
                glommio::timer::sleep(SPIN_PAUSE).await;
            } else {
                self.wait_for_events().await;
            }
        }
    }

    /// Takes what epoll has, marks the sockets and wakes their tasks. Never blocks.
    fn dispatch_ready(&self) -> usize {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_ROUND];
        // SAFETY: the array outlives the call and its length is what is passed.
        let count = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), EVENTS_PER_ROUND as i32, 0)
        };
        // Negative is EINTR, the only error a valid epoll descriptor gives: the next round asks again.
        let count = usize::try_from(count).unwrap_or(0);
        for event in &events[..count] {
            let (bits, name) = (event.events as i32, event.u64);
            let Some(readiness) = self.sockets.borrow().get(name) else { continue };
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
        count
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
