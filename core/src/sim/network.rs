//! Hosts, the ways between them, and TCP connections on those: in order, never twice, but late, held up while a way is
//! cut, or lost with the connection. A resend over another connection is how something comes twice.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use bytes::Bytes;

use super::executor::{MS, SECOND, Sim, Us};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostId(pub(super) u16);

/// What lies before the kernel tells a sender that nothing gets through (`tcp_retries2`, shortened).
const GIVE_UP_AFTER: Us = 20 * SECOND;

/// What the kernel waits for before it sends again what was lost.
const RESEND_AFTER: (Us, Us) = (200 * MS, 800 * MS);

/// One way between two hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) latency: (Us, Us),
    /// So many of a hundred pieces are lost and sent again.
    pub(super) loss_percent: u64,
    pub(super) is_cut: bool,
}

impl Default for Way {
    fn default() -> Self {
        Way { latency: (50, 400), loss_percent: 0, is_cut: false }
    }
}

/// How a process came to its end, as those see it that were connected to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The kernel lives and closes its connections.
    Process,
    /// Nobody says anything.
    Power,
}

enum Piece {
    Frame(Bytes),
    End,
}

/// Is told of each frame, and by none of the end.
type OnFrame = Rc<dyn Fn(Option<Bytes>)>;

struct Side {
    host: HostId,
    /// The host's life in which this side was opened.
    life: u64,
    /// Whoever is told of frames, and by none of the end.
    listener: RefCell<Option<OnFrame>>,
    /// Came before there was a listener.
    early: RefCell<VecDeque<Option<Bytes>>>,
    is_closed: Cell<bool>,
    /// Pieces that this side sent.
    sent: Cell<u64>,
    /// Sent by this side and held up by a cut way.
    held: RefCell<BTreeMap<u64, Piece>>,
    held_since: Cell<Us>,
    /// Pieces that this side got in order, and those that overtook others.
    taken: Cell<u64>,
    overtaking: RefCell<BTreeMap<u64, Piece>>,
}

/// A connection; both sides hold it.
pub(super) struct Pipe {
    number: u64,
    network: Weak<Network>,
    sides: [Side; 2],
}

/// One side of a connection, to send on and to listen to.
#[derive(Clone)]
pub(super) struct End {
    pipe: Rc<Pipe>,
    side: usize,
}

type Accept = Rc<dyn Fn(End)>;

struct Host {
    life: Cell<u64>,
    is_up: Cell<bool>,
    /// Stands still: what came for it meanwhile, in order.
    waiting: RefCell<Option<Vec<(End, u64, Piece)>>>,
}

pub(super) struct Network {
    sim: Sim,
    this: Weak<Network>,
    hosts: RefCell<Vec<Host>>,
    ways: RefCell<BTreeMap<(HostId, HostId), Way>>,
    listeners: RefCell<BTreeMap<SocketAddr, (HostId, Accept)>>,
    addresses: RefCell<BTreeMap<std::net::IpAddr, HostId>>,
    pipes: RefCell<BTreeMap<u64, Weak<Pipe>>>,
    next_pipe: Cell<u64>,
    pub(super) frames: Cell<u64>,
    /// Connections that broke and pieces that were late for the faults of the network.
    pub(super) faults: Cell<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectFailed {
    Refused,
    Timeout,
}

impl Network {
    pub(super) fn new(sim: &Sim) -> Rc<Network> {
        Rc::new_cyclic(|this| Network {
            sim: sim.clone(),
            this: this.clone(),
            hosts: RefCell::default(),
            ways: RefCell::default(),
            listeners: RefCell::default(),
            addresses: RefCell::default(),
            pipes: RefCell::default(),
            next_pipe: Cell::new(1),
            frames: Cell::new(0),
            faults: Cell::new(0),
        })
    }

    pub(super) fn add_host(&self, ip: std::net::IpAddr) -> HostId {
        let mut hosts = self.hosts.borrow_mut();
        hosts.push(Host { life: Cell::new(1), is_up: Cell::new(true), waiting: RefCell::default() });
        let id = HostId(hosts.len() as u16 - 1);
        self.addresses.borrow_mut().insert(ip, id);
        id
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..self.hosts.borrow().len() as u16).map(HostId)
    }

    pub(super) fn way(&self, from: HostId, to: HostId) -> Way {
        self.ways.borrow().get(&(from, to)).cloned().unwrap_or_default()
    }

    /// Changes a way; what was held up goes on if it is open now.
    pub(super) fn set_way(&self, from: HostId, to: HostId, way: Way) {
        let is_cut = way.is_cut;
        self.ways.borrow_mut().insert((from, to), way);
        if is_cut {
            return;
        }
        for pipe in self.all_pipes() {
            for side in 0..2 {
                if pipe.sides[side].host == from && pipe.sides[1 - side].host == to {
                    let held = std::mem::take(&mut *pipe.sides[side].held.borrow_mut());
                    for (number, piece) in held {
                        self.dispatch(&pipe, side, number, piece);
                    }
                }
            }
        }
    }

    fn all_pipes(&self) -> Vec<Rc<Pipe>> {
        let mut pipes = self.pipes.borrow_mut();
        pipes.retain(|_, pipe| pipe.strong_count() > 0);
        pipes.values().filter_map(Weak::upgrade).collect()
    }

    /// Takes connections at an address from now on, for the present life of the host.
    pub(super) fn listen(&self, host: HostId, address: SocketAddr, accept: impl Fn(End) + 'static) {
        self.listeners.borrow_mut().insert(address, (host, Rc::new(accept)));
    }

    /// The process on a host is gone, with all its connections.
    pub(super) fn end_host(&self, host: HostId, ending: Ending) {
        self.listeners.borrow_mut().retain(|_, (of, _)| *of != host);
        let hosts = self.hosts.borrow();
        let gone = &hosts[usize::from(host.0)];
        gone.life.set(gone.life.get() + 1);
        drop(gone.waiting.borrow_mut().take());
        if ending == Ending::Power {
            gone.is_up.set(false);
        }
        for pipe in self.all_pipes() {
            for side in 0..2 {
                if pipe.sides[side].host == host && !pipe.sides[side].is_closed.replace(true) {
                    pipe.sides[side].held.borrow_mut().clear();
                    drop(pipe.sides[side].listener.borrow_mut().take());
                    if ending == Ending::Process {
                        self.send(&pipe, side, Piece::End);
                    }
                }
            }
        }
    }

    /// The host takes nothing that comes, and keeps it.
    pub(super) fn stand_still(&self, host: HostId) {
        self.hosts.borrow()[usize::from(host.0)].waiting.borrow_mut().get_or_insert_default();
    }

    /// It takes what has come.
    pub(super) fn go_on(&self, host: HostId) {
        let waiting = self.hosts.borrow()[usize::from(host.0)].waiting.borrow_mut().take();
        for (end, number, piece) in waiting.into_iter().flatten() {
            self.pass_on(&end, number, piece);
        }
    }

    /// The power is back.
    pub(super) fn host_is_up(&self, host: HostId) {
        self.hosts.borrow()[usize::from(host.0)].is_up.set(true);
    }

    /// Breaks one of the connections between two hosts, if there is one: what is on its way is lost.
    pub(super) fn reset_one(&self, a: HostId, b: HostId) -> bool {
        let between: Vec<_> = self
            .all_pipes()
            .into_iter()
            .filter(|pipe| {
                let hosts = (pipe.sides[0].host, pipe.sides[1].host);
                (hosts == (a, b) || hosts == (b, a)) && !pipe.sides.iter().any(|side| side.is_closed.get())
            })
            .collect();
        if between.is_empty() {
            return false;
        }
        self.break_off(self.sim.pick(&between));
        true
    }

    fn break_off(&self, pipe: &Rc<Pipe>) {
        self.faults.set(self.faults.get() + 1);
        for side in 0..2 {
            let end = End { pipe: pipe.clone(), side };
            self.sim.after(self.sim.below(MS), move || end.arrive(Piece::End));
        }
    }

    /// Opens a connection, as long as that takes; a way that is cut lets it time out.
    pub(super) async fn connect(
        &self,
        from: HostId,
        to: SocketAddr,
        timeout: Us,
    ) -> Result<End, ConnectFailed> {
        let started = self.sim.now();
        let Some(host) = self.addresses.borrow().get(&to.ip()).copied() else {
            return Err(ConnectFailed::Refused);
        };
        loop {
            let (way, back) = (self.way(from, host), self.way(host, from));
            let trip = self.draw(way.latency) + self.draw(back.latency);
            let is_up = self.hosts.borrow()[usize::from(host.0)].is_up.get();
            if !way.is_cut && !back.is_cut && is_up {
                self.sim.sleep(trip).await;
                return self.open(from, host, to);
            }
            if self.sim.now() - started >= timeout {
                return Err(ConnectFailed::Timeout);
            }
            self.sim.sleep(timeout.min(SECOND)).await;
        }
    }

    fn open(&self, from: HostId, host: HostId, to: SocketAddr) -> Result<End, ConnectFailed> {
        let Some((_, accept)) = self.listeners.borrow().get(&to).cloned() else {
            return Err(ConnectFailed::Refused);
        };
        let number = self.next_pipe.get();
        self.next_pipe.set(number + 1);
        let side = |host: HostId| Side {
            host,
            life: self.hosts.borrow()[usize::from(host.0)].life.get(),
            listener: RefCell::default(),
            early: RefCell::default(),
            is_closed: Cell::new(false),
            sent: Cell::new(0),
            held: RefCell::default(),
            held_since: Cell::new(0),
            taken: Cell::new(0),
            overtaking: RefCell::default(),
        };
        let pipe = Rc::new(Pipe { number, network: self.this.clone(), sides: [side(from), side(host)] });
        self.pipes.borrow_mut().insert(number, Rc::downgrade(&pipe));
        accept(End { pipe: pipe.clone(), side: 1 });
        Ok(End { pipe, side: 0 })
    }

    fn draw(&self, (min, max): (Us, Us)) -> Us {
        self.sim.between(min, max)
    }

    /// Sends a piece behind those before it.
    fn send(&self, pipe: &Rc<Pipe>, side: usize, piece: Piece) {
        let sender = &pipe.sides[side];
        let number = sender.sent.get();
        sender.sent.set(number + 1);
        self.dispatch(pipe, side, number, piece);
    }

    fn dispatch(&self, pipe: &Rc<Pipe>, side: usize, number: u64, piece: Piece) {
        let (sender, receiver) = (&pipe.sides[side], &pipe.sides[1 - side]);
        let way = self.way(sender.host, receiver.host);
        let mut delay = self.draw(way.latency);
        if self.sim.chance(way.loss_percent) {
            delay += self.draw(RESEND_AFTER);
            self.faults.set(self.faults.get() + 1);
        }
        let end = End { pipe: pipe.clone(), side: 1 - side };
        let network = self.this.clone();
        self.sim.after(delay, move || {
            if let Some(network) = network.upgrade() {
                network.pass_on(&end, number, piece);
            }
        });
    }

    /// A piece has come to the end of its way, if that is open.
    fn pass_on(&self, end: &End, number: u64, piece: Piece) {
        let (receiver, sender) = (&end.pipe.sides[end.side], &end.pipe.sides[1 - end.side]);
        if self.way(sender.host, receiver.host).is_cut {
            self.faults.set(self.faults.get() + 1);
            if sender.held.borrow().is_empty() {
                self.give_up_later(end);
            }
            sender.held.borrow_mut().insert(number, piece);
            return;
        }
        let is_up = {
            let host = &self.hosts.borrow()[usize::from(receiver.host.0)];
            (receiver.life != host.life.get() || receiver.is_closed.get()).then(|| host.is_up.get())
        };
        if let Some(is_up) = is_up {
            // Nobody knows this connection: whoever runs there now says so.
            if is_up {
                let back = End { pipe: end.pipe.clone(), side: 1 - end.side };
                let delay = self.draw(self.way(receiver.host, sender.host).latency);
                self.sim.after(delay, move || back.arrive(Piece::End));
            }
            return;
        }
        if let Some(waiting) = &mut *self.hosts.borrow()[usize::from(receiver.host.0)].waiting.borrow_mut() {
            return waiting.push((end.clone(), number, piece));
        }
        receiver.overtaking.borrow_mut().insert(number, piece);
        loop {
            let next = receiver.overtaking.borrow_mut().remove(&receiver.taken.get());
            let Some(piece) = next else { return };
            receiver.taken.set(receiver.taken.get() + 1);
            end.arrive(piece);
        }
    }

    /// Ends the sender's side of a connection if what is held up does not get through.
    fn give_up_later(&self, end: &End) {
        let sender = &end.pipe.sides[1 - end.side];
        let since = self.sim.now();
        sender.held_since.set(since);
        let (pipe, side) = (Rc::downgrade(&end.pipe), 1 - end.side);
        self.sim.after(GIVE_UP_AFTER, move || {
            let Some(pipe) = pipe.upgrade() else { return };
            let waiting = &pipe.sides[side];
            if !waiting.held.borrow().is_empty() && waiting.held_since.get() == since {
                waiting.held.borrow_mut().clear();
                End { pipe: pipe.clone(), side }.arrive(Piece::End);
            }
        });
    }
}

impl Pipe {
    pub(super) fn host(&self, side: usize) -> HostId {
        self.sides[side].host
    }
}

impl End {
    /// The host of the other side.
    pub(super) fn peer(&self) -> HostId {
        self.pipe.host(1 - self.side)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.pipe.sides[self.side].is_closed.get()
    }

    /// Tells `listener` of each frame that arrives, and by none of the end. It must not hold this connection.
    pub(super) fn listen(&self, listener: impl Fn(Option<Bytes>) + 'static) {
        let side = &self.pipe.sides[self.side];
        let listener: OnFrame = Rc::new(listener);
        *side.listener.borrow_mut() = Some(Rc::clone(&listener));
        let early = std::mem::take(&mut *side.early.borrow_mut());
        for piece in early {
            listener(piece);
        }
    }

    pub(super) fn send(&self, frame: Bytes) {
        if self.is_closed() {
            return;
        }
        if let Some(network) = self.pipe.network.upgrade() {
            network.send(&self.pipe, self.side, Piece::Frame(frame));
        }
    }

    /// Says nothing more and listens to nothing more; the other side learns of it behind what was sent.
    pub(super) fn close(&self) {
        let side = &self.pipe.sides[self.side];
        if side.is_closed.replace(true) {
            return;
        }
        drop(side.listener.borrow_mut().take());
        if let Some(network) = self.pipe.network.upgrade() {
            network.send(&self.pipe, self.side, Piece::End);
        }
    }

    fn arrive(&self, piece: Piece) {
        let side = &self.pipe.sides[self.side];
        if side.is_closed.get() {
            return;
        }
        let Some(network) = self.pipe.network.upgrade() else { return };
        let told = match piece {
            Piece::Frame(frame) => {
                network.frames.set(network.frames.get() + 1);
                network.sim.note(self.pipe.number << 32 ^ (self.side as u64) << 31 ^ frame.len() as u64);
                Some(frame)
            }
            Piece::End => {
                network.sim.note(self.pipe.number << 32 | 0xdead);
                side.is_closed.set(true);
                None
            }
        };
        let listener = match &told {
            Some(_) => side.listener.borrow().clone(),
            None => side.listener.borrow_mut().take(),
        };
        match listener {
            Some(listener) => listener(told),
            None => side.early.borrow_mut().push_back(told),
        }
    }
}
