//! The connections of one shard to the same shard on other nodes, as `node/peers` has them: the node with the lower id
//! calls; a session is a pair of connections that begins once both have exchanged hellos and ends when either does.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use apogee_storage::format::RawHeader;
use apogee_storage::sim::SimDisk;
use apogee_storage::{AlignedBuffer, NodeId, Run};
use bytes::Bytes;

use super::executor::{MS, SECOND, Scope, Signal, Sim, Us};
use super::network::{End, HostId, Network};
use crate::replication::codec::{FRAME_HEADER_LEN, FrameHeader, decode, encode};
use crate::replication::{Channel, PeerHello, PeerMessage};

/// As in `node/peers`.
const CONNECT_WAIT: Us = SECOND;
const HELLO_WAIT: Us = 2 * SECOND;
const RETRY_FIRST: Us = 20 * MS;
const RETRY_MAX: Us = 500 * MS;
const ALIVE_EVERY: Us = 500 * MS;
const SILENCE_MAX: Us = 2 * SECOND;

/// What the first byte of a frame says.
const HELLO: u8 = 0;
const MESSAGE: u8 = 1;
const ALIVE: u8 = 2;

const CONTROL: usize = 0;
const APPENDS: usize = 1;

/// What happens on the connections.
pub(super) trait PeerEvents {
    fn hello(&self) -> PeerHello;
    fn on_up(&self, hello: PeerHello);
    fn on_down(&self, node: NodeId);
    /// False if the message is one that no sound peer sends.
    fn on_message(&self, from: NodeId, message: PeerMessage<AlignedBuffer>) -> bool;
}

pub(super) struct Peers {
    sim: Sim,
    network: Rc<Network>,
    host: HostId,
    node: NodeId,
    disk: SimDisk,
    events: Weak<dyn PeerEvents>,
    scope: Rc<Scope>,
    peers: RefCell<BTreeMap<NodeId, Rc<Peer>>>,
    next_session: Cell<u64>,
    this: Weak<Peers>,
}

struct Peer {
    node: NodeId,
    address: Cell<Option<SocketAddr>>,
    is_member: Cell<bool>,
    session: RefCell<Option<Session>>,
    /// One connection of a call that came from the other node.
    half: RefCell<Option<Rc<Link>>>,
}

struct Session {
    links: [Rc<Link>; 2],
    client_address: Option<SocketAddr>,
}

struct Link {
    end: End,
    kind: Cell<usize>,
    number: Cell<u64>,
    /// Known from the hello on, or from the call.
    peer: RefCell<Option<Rc<Peer>>>,
    hello: RefCell<Option<PeerHello>>,
    is_caller: bool,
    is_on: Cell<bool>,
    /// Came before the session began.
    held: RefCell<Vec<Bytes>>,
    heard_at: Cell<Us>,
    changed: Signal,
}

impl Peers {
    #[expect(clippy::too_many_arguments, reason = "all that a process gives its connections")]
    pub(super) fn start(
        sim: &Sim,
        network: &Rc<Network>,
        host: HostId,
        node: NodeId,
        address: SocketAddr,
        disk: &SimDisk,
        events: Weak<dyn PeerEvents>,
        scope: &Rc<Scope>,
    ) -> Rc<Peers> {
        let peers = Rc::new_cyclic(|this| Peers {
            sim: sim.clone(),
            network: network.clone(),
            host,
            node,
            disk: disk.clone(),
            events,
            scope: scope.clone(),
            peers: RefCell::default(),
            next_session: Cell::new(1),
            this: this.clone(),
        });
        let this = Rc::downgrade(&peers);
        network.listen(host, address, move |end| {
            if let Some(this) = this.upgrade() {
                this.link(end, false);
            }
        });
        let this = Rc::downgrade(&peers);
        let sim = sim.clone();
        scope.spawn(async move {
            loop {
                sim.sleep(ALIVE_EVERY).await;
                let Some(this) = this.upgrade() else { return };
                this.watch();
            }
        });
        peers
    }

    fn link(&self, end: End, is_caller: bool) -> Rc<Link> {
        let link = Rc::new(Link {
            end,
            kind: Cell::new(CONTROL),
            number: Cell::new(0),
            peer: RefCell::default(),
            hello: RefCell::default(),
            is_caller,
            is_on: Cell::new(false),
            held: RefCell::default(),
            heard_at: Cell::new(self.sim.now()),
            changed: Signal::default(),
        });
        // The network holds the connection, and the connection its link, until it ends.
        let (this, listening) = (self.this.clone(), link.clone());
        link.end.listen(move |frame| {
            let Some(this) = this.upgrade() else { return };
            match frame {
                Some(frame) => this.on_frame(&listening, frame),
                None => this.on_end(&listening),
            }
        });
        link
    }

    fn peer(&self, node: NodeId) -> Rc<Peer> {
        let new = || {
            Rc::new(Peer {
                node,
                address: Cell::default(),
                is_member: Cell::default(),
                session: RefCell::default(),
                half: RefCell::default(),
            })
        };
        self.peers.borrow_mut().entry(node).or_insert_with(new).clone()
    }

    /// Who the others are and where they are called. A session with another goes on until it ends.
    pub(super) fn set_members(&self, members: &BTreeMap<NodeId, SocketAddr>) {
        for peer in self.peers.borrow().values().filter(|peer| !members.contains_key(&peer.node)) {
            peer.is_member.set(false);
        }
        for (&node, &address) in members.iter().filter(|(node, _)| **node != self.node) {
            let peer = self.peer(node);
            peer.is_member.set(true);
            if peer.address.replace(Some(address)).is_none() && self.node < node {
                let Some(this) = self.this.upgrade() else { continue };
                self.scope.spawn(async move { this.keep_calling(peer).await });
            }
        }
    }

    async fn keep_calling(self: Rc<Self>, peer: Rc<Peer>) {
        let mut retry = RETRY_FIRST;
        while let Some(address) = peer.address.get() {
            if self.call(&peer, address).await.is_some() {
                retry = RETRY_FIRST;
            }
            if !peer.is_member.get() {
                peer.address.take();
                return;
            }
            self.sim.sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    /// One call, to its end. None if there never was a session.
    async fn call(&self, peer: &Rc<Peer>, address: SocketAddr) -> Option<()> {
        let number = self.next_session.replace(self.next_session.get() + 1);
        let mut links = Vec::new();
        for kind in [CONTROL, APPENDS] {
            let Ok(end) = self.network.connect(self.host, address, CONNECT_WAIT).await else {
                links.iter().for_each(|link: &Rc<Link>| link.end.close());
                return None;
            };
            let link = self.link(end, true);
            link.kind.set(kind);
            link.number.set(number);
            *link.peer.borrow_mut() = Some(peer.clone());
            link.end.send(self.hello(&link)?);
            links.push(link);
        }
        for link in &links {
            let met = async {
                while link.hello.borrow().is_none() && !link.end.is_closed() {
                    link.changed.wait().await;
                }
            };
            let in_time = self.sim.within(HELLO_WAIT, met).await.is_some();
            if !in_time || link.hello.borrow().is_none() {
                links.iter().for_each(|link| link.end.close());
                return None;
            }
        }
        let hello = links[CONTROL].hello.borrow().clone()?;
        let [control, appends] = links.try_into().ok()?;
        if [&control, &appends].iter().any(|link| link.end.is_closed()) {
            return None;
        }
        self.begin_session(peer, [control.clone(), appends], hello);
        while peer.has(&control) {
            control.changed.wait().await;
        }
        Some(())
    }

    fn hello(&self, link: &Link) -> Option<Bytes> {
        let mut frame = vec![HELLO, link.kind.get() as u8];
        frame.extend(link.number.get().to_le_bytes());
        frame.extend(self.events.upgrade()?.hello().encode());
        Some(frame.into())
    }

    fn on_frame(&self, link: &Rc<Link>, frame: Bytes) {
        link.heard_at.set(self.sim.now());
        match frame[0] {
            HELLO => {
                let hello = PeerHello::decode(&frame[10..]).expect("nobody changes bytes on their way");
                if link.is_caller {
                    *link.hello.borrow_mut() = Some(hello);
                    link.changed.raise();
                } else {
                    link.kind.set(frame[1].into());
                    link.number.set(u64::from_le_bytes(frame[2..10].try_into().expect("eight bytes")));
                    self.on_call(link, hello);
                }
            }
            MESSAGE if link.is_on.get() => self.deliver(link, &frame),
            MESSAGE => link.held.borrow_mut().push(frame),
            _ => {}
        }
    }

    fn on_call(&self, link: &Rc<Link>, hello: PeerHello) {
        let peer = self.peer(hello.node);
        *link.peer.borrow_mut() = Some(peer.clone());
        let Some(answer) = self.hello(link) else { return };
        link.end.send(answer);
        let half = peer.half.borrow_mut().take();
        match half {
            Some(half) if half.number == link.number && half.kind != link.kind && !half.end.is_closed() => {
                let links =
                    if link.kind.get() == CONTROL { [link.clone(), half] } else { [half, link.clone()] };
                self.begin_session(&peer, links, hello);
            }
            other => {
                if let Some(old) = other {
                    old.end.close();
                }
                *peer.half.borrow_mut() = Some(link.clone());
            }
        }
    }

    fn begin_session(&self, peer: &Rc<Peer>, links: [Rc<Link>; 2], hello: PeerHello) {
        self.end_session(peer, None);
        let client_address = hello.client_address.parse().ok();
        *peer.session.borrow_mut() = Some(Session { links: links.clone(), client_address });
        if let Some(events) = self.events.upgrade() {
            events.on_up(hello);
        }
        for link in links {
            link.is_on.set(true);
            let held = std::mem::take(&mut *link.held.borrow_mut());
            for frame in held {
                self.deliver(&link, &frame);
            }
        }
    }

    fn on_end(&self, link: &Rc<Link>) {
        let peer = link.peer.borrow().clone();
        if let Some(peer) = peer {
            drop(peer.half.borrow_mut().take_if(|half| Rc::ptr_eq(half, link)));
            self.end_session(&peer, Some(link));
        }
        link.changed.raise();
    }

    /// Ends the present session, or only the one that has this link.
    fn end_session(&self, peer: &Rc<Peer>, of: Option<&Rc<Link>>) {
        if of.is_some_and(|link| !peer.has(link)) {
            return;
        }
        let Some(session) = peer.session.borrow_mut().take() else { return };
        for link in &session.links {
            link.end.close();
            link.changed.raise();
        }
        if let Some(events) = self.events.upgrade() {
            events.on_down(peer.node);
        }
    }

    /// Says that this node lives, and ends sessions with those that do not.
    fn watch(&self) {
        let peers: Vec<_> = self.peers.borrow().values().cloned().collect();
        for peer in peers {
            let links: Vec<_> =
                peer.session.borrow().iter().flat_map(|session| session.links.clone()).collect();
            links.iter().for_each(|link| link.end.send(Bytes::from_static(&[ALIVE])));
            if links.iter().any(|link| self.sim.now() - link.heard_at.get() > SILENCE_MAX) {
                self.end_session(&peer, None);
            }
        }
    }

    /// Sends a message; dropped unless there is a session.
    pub(super) fn send(&self, to: NodeId, message: &PeerMessage<Run<AlignedBuffer>>) {
        let link = {
            let peers = self.peers.borrow();
            let Some(peer) = peers.get(&to) else { return };
            let session = peer.session.borrow();
            let Some(session) = session.as_ref() else { return };
            match message.channel() {
                Channel::Control => session.links[CONTROL].clone(),
                Channel::Append => session.links[APPENDS].clone(),
            }
        };
        let mut frame = vec![MESSAGE];
        encode(message, &mut frame);
        if let PeerMessage::Append { batches, .. } = message {
            for run in batches {
                match run {
                    Run::Memory(run) => frame.extend_from_slice(run.as_ref()),
                    Run::File(run) => frame.extend_from_slice(&self.disk.read(*run)),
                }
            }
        }
        link.end.send(frame.into());
    }

    fn deliver(&self, link: &Rc<Link>, frame: &[u8]) {
        let Some(peer) = link.peer.borrow().clone() else { return };
        let Some(events) = self.events.upgrade() else { return };
        if peer.has(link) && !events.on_message(peer.node, message_of(&frame[1..])) {
            self.end_session(&peer, None);
        }
    }

    /// Where requests for a node's shard are forwarded to; none while there is no session with it.
    pub(super) fn client_address(&self, node: NodeId) -> Option<SocketAddr> {
        let peers = self.peers.borrow();
        let session = peers.get(&node)?.session.borrow();
        session.as_ref().and_then(|session| session.client_address)
    }

    /// Ends all sessions and calls.
    pub(super) fn stop(&self) {
        let peers: Vec<_> = self.peers.borrow().values().cloned().collect();
        for peer in peers {
            peer.address.set(None);
            self.end_session(&peer, None);
        }
    }
}

impl Peer {
    /// Whether a link is one of the present session.
    fn has(&self, link: &Rc<Link>) -> bool {
        let session = self.session.borrow();
        session.as_ref().is_some_and(|session| session.links.iter().any(|own| Rc::ptr_eq(own, link)))
    }
}

fn message_of(frame: &[u8]) -> PeerMessage<AlignedBuffer> {
    let (header, rest) = frame.split_first_chunk::<FRAME_HEADER_LEN>().expect("a whole header");
    let header = FrameHeader::decode(header).expect("a header of ours");
    let (body, mut parts) = rest.split_at(header.body_len as usize);
    let mut message = decode(header, body).expect("a message of ours");
    if let PeerMessage::Append { batches, .. } = &mut message {
        while !parts.is_empty() {
            // Damage on the sender's disk would be met by whoever verifies the batch, but for its length.
            let len = RawHeader(parts).verify().map_or(parts.len(), |header| header.batch_len());
            let (batch, behind) = parts.split_at(len.min(parts.len()));
            let mut buffer = AlignedBuffer::zeroed(batch.len());
            buffer.as_mut().copy_from_slice(batch);
            batches.push(buffer);
            parts = behind;
        }
    }
    message
}
