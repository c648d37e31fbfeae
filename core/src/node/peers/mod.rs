//! The connections of one shard to the same shard on the other nodes of its group.
//!
//! ```text
//!     node 1 (lower id) calls            node 2 answers
//!        control  ───────────────────▶   votes, heartbeats, answers     both directions on each
//!        appends  ───────────────────▶   batches                        of the two connections
//!        └──────── one session ──────┘
//! ```
//!
//! The node with the lower id calls, and calls again: so there is one pair of connections, not two that would have to
//! agree on which of them counts, and both directions begin and end together. A session is up once both connections have
//! exchanged hellos; nothing is delivered before. When either ends, so does the other, and the session with them: what was
//! on its way is lost in both directions, which Raft makes good, and nothing of an old session is delivered in a new one.
//!
//! Calls that fail are repeated after a pause that grows up to [`RETRY_MAX`]. A node that starts knocks at those that
//! will call it, so that they do so at once, and goes on knocking until they have. Whoever does not know the one that knocks
//! calls back where the knock came from: it may wait to be added and be knocked at by who adds it, or the other is
//! outside of the group and is to hear who leads.
//!
//! A session with a node that is no member any more goes on until one of the two ends it. Nobody calls for another, and after
//! [`STRANGER_KEPT`] without a sign of it the node is forgotten.
//!
//! A connection on which nothing was heard for [`SILENCE_MAX`] is ended, since TCP notices by itself only after minutes
//! that a peer is gone or that only one direction works. Each side says something every [`ALIVE_EVERY`].

mod hello;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use apogee_net::io::{Chunk, ConnectionId, Link, LinkFrame, LinkService, Listener, Signal, Socket, drain};
use apogee_net::link::{LinkError, LinkLimits};
use apogee_storage::NodeId;
use apogee_storage::driver::DmaBuffer;
use apogee_storage::format::{BATCH_HEADER_LEN, RawHeader};
use futures_lite::future;
use glommio::TaskQueueHandle;

use crate::config::PEER_PORT_DISTANCE;
use crate::replication::PeerHello;
use crate::replication::codec::{BATCHES_BYTES_MAX, BODY_BYTES_MAX, FRAME_HEADER_LEN};
use hello::First;
pub(super) use hello::{About, Hello, LinkKind};

/// What is read of a peer: what a message may be, and around it what belongs to the frame.
pub(super) const LIMITS: LinkLimits = LinkLimits {
    head_bytes_max: FRAME_HEADER_LEN as u32 + BODY_BYTES_MAX,
    parts_bytes_max: BATCHES_BYTES_MAX,
};

/// Bytes that may wait for a peer to take them, on either connection. Much more than the window that a leader keeps on
/// its way to a follower, so only a peer that has stopped reading gets there; its session ends then, and with it goes the
/// memory, and raft sends again what the next session needs.
const OUT_BYTES_MAX: usize = 64 << 20;

/// How long a connect, and the exchange of hellos after it, may take.
const CONNECT_WAIT: Duration = Duration::from_secs(1);
const HELLO_WAIT: Duration = Duration::from_secs(2);

/// Between calls that fail; doubles up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Longer than any call takes that fails: there was a session, and the next call comes soon again.
const HELD_LONG: Duration = Duration::from_secs(4);

/// Between knocks at a node that does not call.
const KNOCK_EVERY: Duration = Duration::from_secs(1);

/// How often each side says something, and after how much silence it counts as gone: four times missed.
const ALIVE_EVERY: Duration = Duration::from_millis(500);
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Nodes that have called and are no members, as far as known; one more is not answered. A node that is being added
/// calls before its membership is known everywhere.
const STRANGERS_MAX: usize = 64;

/// After so long without a call, a knock or a session one of them is forgotten. Longer than any pause of a node that wants something.
const STRANGER_KEPT: Duration = Duration::from_secs(10);

/// What happens on the connections. All calls come from the executor's thread.
pub(super) trait PeerEvents {
    /// What is said of this node just now.
    fn hello(&self) -> PeerHello;
    /// The session begins: what was sent before is lost, what is sent from now on arrives in order or not at all.
    fn on_up(&self, hello: PeerHello);
    /// The session is over, after its last frame.
    fn on_down(&self, node: NodeId);
    /// A frame of the present session.
    fn on_frame(&self, node: NodeId, frame: LinkFrame<DmaBuffer>);
    /// The frames that came together are all delivered.
    fn on_turn_end(&self);
}

/// The other nodes, as one shard knows them.
pub(super) struct Peers {
    node: NodeId,
    shard: u32,
    /// Its name, and settings that should be the same at all nodes.
    group: (String, Vec<(String, u64)>),
    peers: RefCell<BTreeMap<NodeId, Rc<Peer>>>,
    events: Weak<dyn PeerEvents>,
    queue: TaskQueueHandle,
    next_session: Cell<u64>,
    next_link: Cell<u64>,
    /// Why a call from elsewhere was refused last, so that people are told once.
    refused: RefCell<String>,
    this: Weak<Peers>,
}

struct Peer {
    node: NodeId,
    /// Where it is called; none for one that is only known because it called.
    address: Cell<Option<SocketAddr>>,
    is_member: Cell<bool>,
    /// When it called or knocked, or a session with it was seen.
    met: Cell<Instant>,
    session: RefCell<Option<Session>>,
    /// A call of the other node of which one connection is here.
    half: RefCell<Option<Half>>,
    call_now: Signal,
    calling: RefCell<Option<glommio::Task<()>>>,
    /// What people were told last about this peer, so that they are told once.
    told: RefCell<String>,
}

struct Session {
    control: Rc<Link>,
    appends: Rc<Link>,
    client_address: Option<SocketAddr>,
}

struct Half {
    session: u64,
    kind: LinkKind,
    link: Rc<Link>,
}

impl Peers {
    /// The peers of a shard of `node`. `group`: its name, and settings that should be the same at all nodes. The tasks run
    /// in `queue`.
    pub(super) fn new(
        node: NodeId,
        shard: u32,
        group: (String, Vec<(String, u64)>),
        events: Weak<dyn PeerEvents>,
        queue: TaskQueueHandle,
    ) -> Rc<Peers> {
        Rc::new_cyclic(|this| Peers {
            node,
            shard,
            group,
            peers: RefCell::default(),
            events,
            queue,
            next_session: Cell::new(1),
            next_link: Cell::new(1),
            refused: RefCell::default(),
            this: this.clone(),
        })
    }

    /// Who the others are and where they are called.
    pub(super) fn set_members(&self, members: &BTreeMap<NodeId, SocketAddr>) {
        let own = self.node;
        for peer in self.peers.borrow().values().filter(|peer| !members.contains_key(&peer.node)) {
            peer.is_member.set(false);
        }
        for (&node, &address) in members.iter().filter(|(node, _)| **node != own) {
            let peer = self.peer(node);
            peer.is_member.set(true);
            if peer.address.replace(Some(address)) == Some(address) {
                continue;
            }
            self.reach(peer, own < node);
        }
    }

    /// From now on calls a node at its address, or makes it call.
    fn reach(&self, peer: Rc<Peer>, calls: bool) {
        let Some(this) = self.this.upgrade() else { return };
        let task = {
            let peer = peer.clone();
            async move { if calls { this.keep_calling(peer).await } else { this.keep_knocking(peer).await } }
        };
        // Replacing the task ends a call to the old address.
        let task = glommio::spawn_local_into(task, self.queue).expect("made on this executor");
        *peer.calling.borrow_mut() = Some(task);
    }

    /// Queues a frame for a peer; dropped unless there is a session.
    pub(super) fn send(&self, to: NodeId, kind: LinkKind, head: &[u8], parts: &[Chunk]) {
        let link = {
            let peers = self.peers.borrow();
            let Some(peer) = peers.get(&to) else { return };
            let session = peer.session.borrow();
            let Some(session) = session.as_ref() else { return };
            match kind {
                LinkKind::Control => session.control.clone(),
                LinkKind::Appends => session.appends.clone(),
                LinkKind::Knock => return,
            }
        };
        link.send(head, parts);
    }

    /// Where requests for a node's shard are forwarded to; none while there is no session with it.
    pub(super) fn client_address(&self, node: NodeId) -> Option<SocketAddr> {
        let peers = self.peers.borrow();
        let session = peers.get(&node)?.session.borrow();
        session.as_ref().and_then(|session| session.client_address)
    }

    /// Nodes with which there is a session.
    #[cfg(test)]
    pub(super) fn connected(&self) -> Vec<NodeId> {
        let peers = self.peers.borrow();
        peers.values().filter(|peer| peer.session.borrow().is_some()).map(|peer| peer.node).collect()
    }

    /// Ends the session with a node; another one begins as soon as it can be called.
    pub(super) fn end(&self, node: NodeId, reason: &str) {
        let peer = self.peers.borrow().get(&node).cloned();
        if let Some(peer) = peer {
            self.end_session(&peer, None, reason);
        }
    }

    /// Answers calls for ever.
    pub(super) async fn accept(self: Rc<Self>, listener: Listener) {
        loop {
            let socket = listener.accept().await;
            let answering = self.clone().answer(socket);
            glommio::spawn_local_into(answering, self.queue).expect("made on this executor").detach();
        }
    }

    /// Says that this node lives, and ends sessions with those that do not. Runs for ever.
    pub(super) async fn watch(self: Rc<Self>) {
        loop {
            glommio::timer::sleep(ALIVE_EVERY / 2).await;
            let silent = |now| {
                move |peer: &Rc<Peer>| peer.links().iter().any(|link| link.silent_for(now) > SILENCE_MAX)
            };
            let now = Instant::now();
            self.forget_strangers(now);
            let peers: Vec<_> = self.peers.borrow().values().cloned().collect();
            for link in peers.iter().flat_map(|peer| peer.links()) {
                link.say_alive(now, ALIVE_EVERY);
            }
            let suspects: Vec<_> = peers.into_iter().filter(silent(now)).collect();
            if suspects.is_empty() {
                continue;
            }
            // It may be this side that was held up, and what was said lies in the sockets.
            drain().await;
            for peer in suspects.iter().filter(|peer| silent(Instant::now())(peer)) {
                self.tell(peer, format!("nothing was heard for {SILENCE_MAX:?}"));
                self.end_session(peer, None, "silent for too long");
            }
        }
    }

    /// Forgets who is no member and has not been met for long. Whoever comes again is met anew.
    fn forget_strangers(&self, now: Instant) {
        self.peers.borrow_mut().retain(|_, peer| {
            if peer.session.borrow().is_some() {
                peer.met.set(now);
            }
            let is_here = peer.is_member.get() || peer.address.get().is_some();
            let is_kept = is_here || now.saturating_duration_since(peer.met.get()) < STRANGER_KEPT;
            let half = peer.half.borrow_mut().take_if(|_| !is_kept);
            if let Some(half) = half {
                half.link.close("half a call is none");
            }
            is_kept
        });
    }

    /// Ends all sessions and calls.
    pub(super) fn stop(&self) {
        let peers: Vec<_> = self.peers.borrow().values().cloned().collect();
        for peer in peers {
            drop(peer.calling.take());
            self.end_session(&peer, None, "stopping");
        }
    }

    /// The peer, known or new.
    fn peer(&self, node: NodeId) -> Rc<Peer> {
        let new = || {
            Rc::new(Peer {
                node,
                address: Cell::default(),
                is_member: Cell::default(),
                met: Cell::new(Instant::now()),
                session: RefCell::default(),
                half: RefCell::default(),
                call_now: Signal::default(),
                calling: RefCell::default(),
                told: RefCell::default(),
            })
        };
        self.peers.borrow_mut().entry(node).or_insert_with(new).clone()
    }

    fn link(&self, socket: Socket) -> Rc<Link> {
        let id = ConnectionId(self.next_link.replace(self.next_link.get() + 1));
        Link::new(id, socket, LIMITS, OUT_BYTES_MAX)
    }

    /// Writes a line for people, unless it is the last one again.
    fn tell(&self, peer: &Peer, text: String) {
        if *peer.told.borrow() != text {
            tracing::warn!(shard = self.shard, peer = %peer.node, "{text}");
            *peer.told.borrow_mut() = text;
        }
    }

    /// Calls a member for as long as it is one, any other node once.
    async fn keep_calling(self: Rc<Self>, peer: Rc<Peer>) {
        let mut retry = RETRY_FIRST;
        while let Some(address) = peer.address.get() {
            let began = Instant::now();
            if let Err(reason) = self.call(&peer, address).await {
                self.tell(&peer, format!("no connection: {reason}"));
            }
            if !peer.is_member.get() {
                peer.address.take();
                return;
            }
            // What one of the two does not understand it will not understand a moment later.
            if began.elapsed() > HELD_LONG {
                retry = RETRY_FIRST;
            }
            let pause = async {
                glommio::timer::sleep(retry).await;
            };
            future::or(peer.call_now.wait(), pause).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    /// One call, to its end. An error if there never was a session.
    async fn call(self: &Rc<Self>, peer: &Rc<Peer>, address: SocketAddr) -> Result<(), String> {
        let both = async { future::try_zip(Socket::connect(address), Socket::connect(address)).await };
        let (control, appends) = in_time(CONNECT_WAIT, both)
            .await
            .ok_or_else(|| format!("{address} does not answer within {CONNECT_WAIT:?}"))?
            .map_err(|error| format!("{address}: {error}"))?;
        let session = self.next_session.replace(self.next_session.get() + 1);
        let call = Rc::new(Call {
            session,
            answered: Cell::new(0),
            said: RefCell::default(),
            changed: Signal::default(),
        });
        let mut over = Vec::new();
        let mut links = Vec::new();
        for (kind, socket) in [(LinkKind::Control, control), (LinkKind::Appends, appends)] {
            let link = self.link(socket);
            let Some(hello) = self.hello(kind, session, peer.node) else { return Err("stopping".into()) };
            link.send(&First::Hello(hello).encode(), &[]);
            let end = Caller {
                peers: self.clone(),
                peer: peer.clone(),
                call: call.clone(),
                is_met: Cell::new(false),
            };
            let (served, call) = (link.clone(), call.clone());
            let serving = async move {
                let ended = served.serve(&end).await;
                let mut said = call.said.borrow_mut();
                if !matches!(*said, Some(Err(_))) {
                    *said = Some(Err(ended.to_string()));
                }
                drop(said);
                call.changed.raise();
            };
            over.push(glommio::spawn_local_into(serving, self.queue).expect("made on this executor"));
            links.push(link);
        }
        // Ended also when this future is dropped.
        let links = CloseOnDrop(links);
        let met = async {
            while call.answered.get() < 2 && !matches!(*call.said.borrow(), Some(Err(_))) {
                call.changed.wait().await;
            }
        };
        if in_time(HELLO_WAIT, met).await.is_none() {
            return Err(format!("{address} takes connections and says nothing within {HELLO_WAIT:?}"));
        }
        let about = match call.said.borrow_mut().take() {
            Some(Ok(about)) => about,
            Some(Err(reason)) => return Err(format!("{address}: {reason}")),
            None => return Err(format!("{address} has gone")),
        };
        self.begin_session(peer, links.0[0].clone(), links.0[1].clone(), &about);
        loop {
            if let Some(Err(reason)) = &*call.said.borrow() {
                self.end_session(peer, Some(&links.0[0]), reason);
                return Ok(());
            }
            call.changed.wait().await;
        }
    }

    /// Asks a member that is to call this node to do so now, whenever there is no session.
    async fn keep_knocking(self: Rc<Self>, peer: Rc<Peer>) {
        while let Some(address) = peer.address.get() {
            if !peer.is_member.get() {
                peer.address.take();
                return;
            }
            if peer.session.borrow().is_none() {
                let Some(hello) = self.hello(LinkKind::Knock, 0, peer.node) else { return };
                knock(address, hello).await;
            }
            glommio::timer::sleep(KNOCK_EVERY).await;
        }
    }

    /// A node knocked. One that is no member here is called once: this one or the other may know better.
    fn on_knock(&self, peer: &Rc<Peer>, from: IpAddr, caller: &About) {
        peer.call_now.raise();
        if self.node > peer.node || peer.address.get().is_some() {
            return;
        }
        let client_address: Option<SocketAddr> = caller.peer.client_address.parse().ok();
        let port = client_address.and_then(|address| address.port().checked_add(PEER_PORT_DISTANCE));
        let Some(port) = port else { return };
        peer.address.set(Some(SocketAddr::new(from, port)));
        self.reach(peer.clone(), true);
    }

    /// None once the shard has gone.
    fn about(&self) -> Option<About> {
        let peer = self.events.upgrade()?.hello();
        let (group, values) = self.group.clone();
        Some(About { peer, group, values })
    }

    fn hello(&self, kind: LinkKind, session: u64, to: NodeId) -> Option<Hello> {
        Some(Hello { kind, session, about: self.about()?, to })
    }

    /// One connection of somebody's call, to its end.
    async fn answer(self: Rc<Self>, socket: Socket) {
        let link = self.link(socket);
        let end = Answerer { peers: self.clone(), caller: RefCell::default() };
        let too_late = async {
            glommio::timer::sleep(HELLO_WAIT).await;
            if !matches!(*end.caller.borrow(), WhoCalls::Peer(_)) {
                link.close("no hello that leads to anything");
            }
            future::pending().await
        };
        let ended = future::or(link.clone().serve(&end), too_late).await;
        match end.caller.take() {
            WhoCalls::Unknown => {
                tracing::info!(shard = self.shard, peer = %link.peer(), "a call came to nothing: {ended}");
            }
            WhoCalls::NobodyWeTalkTo => {}
            WhoCalls::Peer(peer) => {
                drop(peer.half.borrow_mut().take_if(|half| Rc::ptr_eq(&half.link, &link)));
                self.end_session(&peer, Some(&link), &ended.to_string());
            }
        }
    }

    /// The hello of a call. Gives whom it is from, if it may go on.
    fn on_call(&self, link: &Rc<Link>, hello: Hello) -> Option<Rc<Peer>> {
        let own = self.about()?;
        let node = hello.about.peer.node;
        let refused = hello.check_call(&own).err().or_else(|| {
            let is_calling = hello.kind != LinkKind::Knock;
            (is_calling && node > self.node).then(|| hello::Refusal {
                field: "caller".into(),
                found: format!("node {node}"),
                expected: format!("to be called, for {node} is the greater of the two ids"),
            })
        });
        if let Some(refusal) = refused {
            self.refuse(link, refusal);
            return None;
        }
        let is_known = self.peers.borrow().contains_key(&node);
        let strangers = || self.peers.borrow().values().filter(|peer| !peer.is_member.get()).count();
        if !is_known && strangers() >= STRANGERS_MAX {
            link.close("too many nodes that are no members");
            return None;
        }
        let peer = self.peer(node);
        peer.met.set(Instant::now());
        if hello.kind == LinkKind::Knock {
            self.on_knock(&peer, link.peer().ip(), &hello.about);
            let answer = Hello { about: own, to: node, ..hello };
            link.send(&First::Hello(answer).encode(), &[]);
            return None;
        }
        link.hold();
        let answer = Hello { about: own, to: node, ..hello.clone() };
        link.send(&First::Hello(answer).encode(), &[]);
        match peer.half.take() {
            Some(half)
                if half.session == hello.session && half.kind != hello.kind && !half.link.is_closed() =>
            {
                let (control, appends) = match hello.kind {
                    LinkKind::Control => (link.clone(), half.link),
                    _ => (half.link, link.clone()),
                };
                self.begin_session(&peer, control, appends, &hello.about);
            }
            other => {
                if let Some(old) = other {
                    old.link.close("another call came");
                }
                *peer.half.borrow_mut() =
                    Some(Half { session: hello.session, kind: hello.kind, link: link.clone() });
            }
        }
        Some(peer)
    }

    /// Says why there will be no session: to the other each time, which tells its people; here once.
    fn refuse(&self, link: &Rc<Link>, refusal: hello::Refusal) {
        let text = format!("{} is refused: {refusal}", link.peer().ip());
        if *self.refused.borrow() != text {
            tracing::warn!(shard = self.shard, "a call from {text}");
            *self.refused.borrow_mut() = text;
        }
        link.send(&First::Refusal(refusal).encode(), &[]);
    }

    fn begin_session(&self, peer: &Rc<Peer>, control: Rc<Link>, appends: Rc<Link>, about: &About) {
        // A half-dead session, of which the other knew first.
        self.end_session(peer, None, "another call came");
        peer.told.take();
        for (name, here, there) in about.differences(&self.group.1) {
            tracing::warn!(peer = %peer.node, name, there, here, "a setting that should be the same at all nodes differs");
        }
        tracing::info!(shard = self.shard, peer = %peer.node, address = %control.peer(), "connected");
        let client_address = about.peer.client_address.parse().ok();
        *peer.session.borrow_mut() =
            Some(Session { control: control.clone(), appends: appends.clone(), client_address });
        if let Some(events) = self.events.upgrade() {
            events.on_up(about.peer.clone());
            events.on_turn_end();
        }
        control.go_on();
        appends.go_on();
    }

    /// Ends the present session, or only the one that has this link.
    fn end_session(&self, peer: &Rc<Peer>, of: Option<&Rc<Link>>, reason: &str) {
        if of.is_some_and(|link| !peer.has(link)) {
            return;
        }
        let Some(session) = peer.session.take() else { return };
        session.control.close("session over");
        session.appends.close("session over");
        tracing::info!(shard = self.shard, peer = %peer.node, reason, "disconnected");
        if let Some(events) = self.events.upgrade() {
            events.on_down(peer.node);
            events.on_turn_end();
        }
    }

    /// Hands up a frame unless its session is over.
    fn deliver(&self, peer: &Peer, link: &Rc<Link>, frame: LinkFrame<DmaBuffer>) {
        if peer.has(link)
            && let Some(events) = self.events.upgrade()
        {
            events.on_frame(peer.node, frame);
        }
    }

    fn turn_over(&self) {
        if let Some(events) = self.events.upgrade() {
            events.on_turn_end();
        }
    }
}

impl Peer {
    fn links(&self) -> Vec<Rc<Link>> {
        let session = self.session.borrow();
        session.iter().flat_map(|session| [session.control.clone(), session.appends.clone()]).collect()
    }

    /// Whether a link is one of the present session.
    fn has(&self, link: &Rc<Link>) -> bool {
        self.session
            .borrow()
            .as_ref()
            .is_some_and(|session| Rc::ptr_eq(&session.control, link) || Rc::ptr_eq(&session.appends, link))
    }
}

/// A call under way: what its two connections have told.
struct Call {
    session: u64,
    answered: Cell<u32>,
    /// The other's hello, or why there is none; once the session is up, that it is over.
    said: RefCell<Option<Result<About, String>>>,
    changed: Signal,
}

/// One connection of a call, on the side that called.
struct Caller {
    peers: Rc<Peers>,
    peer: Rc<Peer>,
    call: Rc<Call>,
    is_met: Cell<bool>,
}

impl LinkService for Caller {
    type Part = DmaBuffer;
    const PART_HEAD_BYTES: usize = BATCH_HEADER_LEN;

    fn part_len(&self, head: &[u8]) -> Result<usize, LinkError> {
        batch_len(head)
    }

    fn alloc(&self, len: usize) -> DmaBuffer {
        glommio::allocate_dma_buffer(len)
    }

    fn on_frame(&self, link: &Rc<Link>, frame: LinkFrame<DmaBuffer>) {
        if self.is_met.get() {
            return self.peers.deliver(&self.peer, link, frame);
        }
        let Some(own) = self.peers.about() else { return link.close("stopping") };
        let checked = match First::decode(&frame.head) {
            Ok(First::Hello(hello)) => {
                let check = || {
                    hello.check_call(&own)?;
                    if hello.about.peer.node != self.peer.node {
                        return Err(hello::Refusal {
                            field: "node".into(),
                            found: hello.about.peer.node.to_string(),
                            expected: self.peer.node.to_string(),
                        });
                    }
                    Ok(())
                };
                let checked = check().map_err(|refusal| format!("refused by this side: {refusal}"));
                checked.map(|()| hello).and_then(|hello| {
                    let is_answer = hello.session == self.call.session;
                    is_answer.then_some(hello).ok_or_else(|| "the answer to another call".into())
                })
            }
            Ok(First::Refusal(refusal)) => Err(format!("refused by the other side: {refusal}")),
            Err(error) => Err(error.to_string()),
        };
        let mut said = self.call.said.borrow_mut();
        match checked {
            Ok(hello) => {
                self.is_met.set(true);
                link.hold();
                self.call.answered.set(self.call.answered.get() + 1);
                said.get_or_insert(Ok(hello.about));
            }
            Err(reason) => {
                *said = Some(Err(reason));
                link.close("no agreement");
            }
        }
        drop(said);
        self.call.changed.raise();
    }

    fn on_turn_end(&self) {
        self.peers.turn_over();
    }
}

/// From whom a connection came.
#[derive(Default)]
enum WhoCalls {
    #[default]
    Unknown,
    /// It was answered, and nothing follows.
    NobodyWeTalkTo,
    Peer(Rc<Peer>),
}

/// One connection of somebody's call, on the side that answers.
struct Answerer {
    peers: Rc<Peers>,
    caller: RefCell<WhoCalls>,
}

impl LinkService for Answerer {
    type Part = DmaBuffer;
    const PART_HEAD_BYTES: usize = BATCH_HEADER_LEN;

    fn part_len(&self, head: &[u8]) -> Result<usize, LinkError> {
        batch_len(head)
    }

    fn alloc(&self, len: usize) -> DmaBuffer {
        glommio::allocate_dma_buffer(len)
    }

    fn on_frame(&self, link: &Rc<Link>, frame: LinkFrame<DmaBuffer>) {
        match &*self.caller.borrow() {
            WhoCalls::Unknown => {}
            WhoCalls::NobodyWeTalkTo => return,
            WhoCalls::Peer(peer) => return self.peers.deliver(peer, link, frame),
        }
        let caller = match First::decode(&frame.head) {
            Ok(First::Hello(hello)) => self.peers.on_call(link, hello),
            Ok(First::Refusal(_)) => {
                link.close("a refusal instead of a call");
                None
            }
            Err(hello::FirstError::Version { found }) => {
                let refusal = hello::Refusal {
                    field: "version of the protocol between nodes".into(),
                    found: found.to_string(),
                    expected: hello::PROTOCOL_VERSION.to_string(),
                };
                self.peers.refuse(link, refusal);
                None
            }
            Err(_) => return link.close("no hello"),
        };
        *self.caller.borrow_mut() = caller.map_or(WhoCalls::NobodyWeTalkTo, WhoCalls::Peer);
    }

    fn on_turn_end(&self) {
        self.peers.turn_over();
    }
}

/// The parts of frames are whole batches, which say themselves how long they are.
fn batch_len(head: &[u8]) -> Result<usize, LinkError> {
    let header = RawHeader(head).verify().map_err(|error| LinkError::Part(error.to_string()))?;
    Ok(header.batch_len())
}

/// Knocks at a shard of another node, and waits until that has heard it.
async fn knock(address: SocketAddr, hello: Hello) {
    let Some(Ok(socket)) = in_time(CONNECT_WAIT, Socket::connect(address)).await else { return };
    let link = Link::new(ConnectionId(0), socket, LIMITS, OUT_BYTES_MAX);
    link.send(&First::Hello(hello).encode(), &[]);
    in_time(HELLO_WAIT, link.serve(&Knocker)).await;
}

/// Whoever is knocked at answers with a hello, and all is said.
struct Knocker;

impl LinkService for Knocker {
    type Part = DmaBuffer;
    const PART_HEAD_BYTES: usize = BATCH_HEADER_LEN;

    fn part_len(&self, head: &[u8]) -> Result<usize, LinkError> {
        batch_len(head)
    }

    fn alloc(&self, len: usize) -> DmaBuffer {
        glommio::allocate_dma_buffer(len)
    }

    fn on_frame(&self, link: &Rc<Link>, _frame: LinkFrame<DmaBuffer>) {
        link.close("it has answered");
    }

    fn on_turn_end(&self) {}
}

struct CloseOnDrop(Vec<Rc<Link>>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.iter().for_each(|link| link.close("the call is over"));
    }
}

async fn in_time<T>(limit: Duration, step: impl Future<Output = T>) -> Option<T> {
    let too_late = async {
        glommio::timer::sleep(limit).await;
        None
    };
    future::or(async { Some(step.await) }, too_late).await
}
