//! A connection between two nodes: [`frames`](crate::link) whose parts are received where they will be used.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_lite::future;
use smallvec::SmallVec;

use super::chunk::Chunk;
use super::connection::{Connection, ConnectionEnd, ConnectionId, OutboxLimits};
use super::driver::pause;
use super::signal::Signal;
use super::socket::Socket;
use crate::link::{LinkLimits, PREFIX_BYTES, Prefix, encode};

/// Where prefixes and small heads arrive, and with them at most this much of what follows: the most that is copied of a
/// frame's parts. Large enough for dozens of heartbeats per receive.
const STAGING_BYTES: usize = 4 * 1024;

/// Buffers of one receive.
const SLICES_PER_RECEIVE: usize = 16;

/// What is received before other tasks get their turn, as for clients' connections.
const FRAMES_PER_TURN: usize = 64;
const BYTES_PER_TURN: usize = 256 * 1024;

/// A frame as it arrived.
#[derive(Debug)]
pub struct LinkFrame<B> {
    pub head: Bytes,
    pub parts: Vec<B>,
}

/// What receives the frames of a link. All calls come from the executor's thread and must not block it.
pub trait LinkService {
    /// What parts are received into.
    type Part: AsRef<[u8]> + AsMut<[u8]>;

    /// Memory for a part of `len` bytes.
    fn alloc(&self, len: usize) -> Self::Part;
    /// A whole frame has arrived. Called in the order of arrival; never for frames that only say that the peer lives.
    fn on_frame(&self, link: &Rc<Link>, frame: LinkFrame<Self::Part>);
    /// The socket has no more for now, or others must have a turn: the moment to start what the frames have in common.
    fn on_turn_end(&self);
}

/// One connection: an out-queue, and what was heard when.
#[derive(Debug)]
pub struct Link {
    connection: Rc<Connection>,
    limits: LinkLimits,
    heard: Cell<Instant>,
    said: Cell<Instant>,
    /// Nothing is read until [`Link::go_on`].
    is_held: Cell<bool>,
    resumed: Signal,
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct LinkEnd(ConnectionEnd);

impl Link {
    /// `out_bytes_max`: bytes that may wait for the peer to take them; with more the link ends.
    pub fn new(id: ConnectionId, socket: Socket, limits: LinkLimits, out_bytes_max: usize) -> Rc<Link> {
        let outbox = OutboxLimits { pause_reading_bytes: usize::MAX, bytes_max: out_bytes_max };
        let now = Instant::now();
        Rc::new(Link {
            connection: Connection::new(id, socket, outbox),
            limits,
            heard: Cell::new(now),
            said: Cell::new(now),
            is_held: Cell::new(false),
            resumed: Signal::default(),
        })
    }

    pub fn id(&self) -> ConnectionId {
        self.connection.id()
    }

    pub fn peer(&self) -> SocketAddr {
        self.connection.peer()
    }

    /// Queues a frame. On a closed link it is dropped; a peer that lets too much gather is disconnected.
    ///
    /// # Panics
    /// If `parts` do not have the lengths that are announced.
    pub fn send(&self, head: &[u8], part_lengths: &[u32], parts: impl IntoIterator<Item = Chunk>) {
        let mut missing: u64 = part_lengths.iter().copied().map(u64::from).sum();
        let parts = parts.into_iter().inspect(|part| {
            let part = part.len() as u64;
            missing = missing.checked_sub(part).unwrap_or_else(|| {
                panic!("{part} bytes of a part where {missing} were announced");
            });
        });
        self.said.set(Instant::now());
        let encoded = self.connection.send(
            |out| {
                encode(out, head, part_lengths);
                Ok(())
            },
            parts,
        );
        encoded.expect("encoding cannot fail");
        assert!(
            missing == 0 || self.is_closed(),
            "{missing} bytes of parts were announced and did not follow"
        );
    }

    /// Says that this side lives, unless something was said within `quiet`.
    pub fn say_alive(&self, now: Instant, quiet: Duration) {
        if now.saturating_duration_since(self.said.get()) >= quiet {
            self.send(&[], &[], []);
        }
    }

    /// How long the peer has said nothing.
    pub fn silent_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard.get())
    }

    /// Bytes that the kernel has not taken yet.
    pub fn waiting_bytes(&self) -> usize {
        self.connection.waiting_bytes()
    }

    /// Leaves what follows the frame at hand in the socket until [`Link::go_on`].
    pub fn hold(&self) {
        self.is_held.set(true);
    }

    pub fn go_on(&self) {
        self.is_held.set(false);
        self.resumed.raise();
    }

    /// Ends the link; what is still unsent is dropped.
    pub fn close(&self, reason: &'static str) {
        self.connection.close(reason);
    }

    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Waits until the kernel has taken all that was queued, or the link is over.
    pub async fn flushed(&self) {
        while self.waiting_bytes() > 0 && !self.is_closed() {
            self.connection.drained.wait().await;
        }
    }

    /// Runs the link to its end: frames to `service`, the out-queue to the socket. A malformed frame, an I/O error or
    /// the peer's end ends this link only.
    pub async fn serve<S: LinkService>(self: Rc<Self>, service: &S) -> LinkEnd {
        let result = future::or(self.read_frames(service), self.connection.write_chunks()).await;
        let closed_here = self.connection.closed.get();
        self.connection.close("link over");
        // Whoever still holds the link does not hold what will never be sent.
        drop(self.connection.outbox.take());
        let Err(end) = result;
        LinkEnd(closed_here.map_or(end, ConnectionEnd::Closed))
    }

    async fn read_frames<S: LinkService>(self: &Rc<Self>, service: &S) -> Result<Infallible, ConnectionEnd> {
        let mut reader = Reader { link: self, service, staging: Staging::default(), turn: Turn::default() };
        loop {
            let frame = reader.next().await?;
            if !frame.head.is_empty() || !frame.parts.is_empty() {
                service.on_frame(self, frame);
                reader.turn.frames += 1;
            }
            if let Some(reason) = self.connection.closed.get() {
                return Err(ConnectionEnd::Closed(reason));
            }
            while self.is_held.get() {
                reader.end_turn();
                self.resumed.wait().await;
            }
            if reader.turn.frames >= FRAMES_PER_TURN || reader.turn.bytes >= BYTES_PER_TURN {
                reader.end_turn();
                reader.turn.bytes = 0;
                pause().await;
            }
        }
    }
}

/// What was read without letting others have a turn.
#[derive(Debug, Default)]
struct Turn {
    frames: usize,
    bytes: usize,
}

/// Bytes received and not yet taken: a window of a small buffer.
struct Staging {
    bytes: Box<[u8; STAGING_BYTES]>,
    begin: usize,
    end: usize,
}

impl Default for Staging {
    fn default() -> Self {
        Staging { bytes: Box::new([0; STAGING_BYTES]), begin: 0, end: 0 }
    }
}

impl Staging {
    fn held(&self) -> &[u8] {
        &self.bytes[self.begin..self.end]
    }

    /// Takes what fits into `out`, and says how much that was.
    fn take_into(&mut self, out: &mut [u8]) -> usize {
        let taken = out.len().min(self.held().len());
        out[..taken].copy_from_slice(&self.held()[..taken]);
        self.begin += taken;
        taken
    }

    /// Where the next bytes go.
    fn spare(&mut self) -> &mut [u8] {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        } else if self.begin > 0 {
            self.bytes.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        &mut self.bytes[self.end..]
    }
}

type Slices<'a> = SmallVec<[IoSliceMut<'a>; SLICES_PER_RECEIVE]>;

struct Reader<'a, S> {
    link: &'a Rc<Link>,
    service: &'a S,
    staging: Staging,
    turn: Turn,
}

impl<S: LinkService> Reader<'_, S> {
    async fn next(&mut self) -> Result<LinkFrame<S::Part>, ConnectionEnd> {
        let mut prefix = [0; PREFIX_BYTES];
        self.fill(&mut prefix, true).await?;
        let parsed = Prefix::parse(&prefix, &self.link.limits)?;
        let mut rest = vec![0; parsed.rest_bytes()];
        self.fill(&mut rest, false).await?;
        let (lengths, head) = parsed.verify(&prefix, &rest, &self.link.limits)?;
        let head = Bytes::copy_from_slice(head);
        let mut parts: Vec<S::Part> = lengths.iter().map(|len| self.service.alloc(*len as usize)).collect();
        self.fill_parts(&mut parts).await?;
        Ok(LinkFrame { head, parts })
    }

    /// Fills `out`; only where a frame may begin may the stream end.
    async fn fill(&mut self, out: &mut [u8], frame_begins: bool) -> Result<(), ConnectionEnd> {
        let mut filled = 0;
        loop {
            filled += self.staging.take_into(&mut out[filled..]);
            if filled == out.len() {
                return Ok(());
            }
            let mut slices: Slices<'_> = SmallVec::new();
            if out.len() - filled > STAGING_BYTES {
                // Longer than the staging buffer: no reason to pass through it.
                slices.push(IoSliceMut::new(&mut out[filled..]));
            }
            let direct: usize = slices.iter().map(|slice| slice.len()).sum();
            // The staging buffer is empty here: what it held was taken first.
            slices.push(IoSliceMut::new(self.staging.spare()));
            let received = receive(self.link, self.service, &mut self.turn, &mut slices).await?;
            drop(slices);
            self.staging.end += received.saturating_sub(direct);
            if received == 0 {
                let unfinished = if frame_begins { filled } else { PREFIX_BYTES + filled };
                return Err(ConnectionEnd::Peer { unfinished });
            }
            filled += received.min(direct);
        }
    }

    /// Fills the parts, received straight into them but for what came together with the head.
    async fn fill_parts(&mut self, parts: &mut [S::Part]) -> Result<(), ConnectionEnd> {
        let (mut part, mut filled, mut before) = (0, 0, 0);
        loop {
            while let Some(out) = parts.get_mut(part).map(AsMut::as_mut) {
                filled += self.staging.take_into(&mut out[filled..]);
                if filled < out.len() {
                    break;
                }
                before += filled;
                (part, filled) = (part + 1, 0);
            }
            if part == parts.len() {
                return Ok(());
            }
            let mut slices: Slices<'_> = SmallVec::new();
            let mut at = filled;
            for out in parts[part..].iter_mut().take(SLICES_PER_RECEIVE - 1) {
                slices.push(IoSliceMut::new(&mut out.as_mut()[at..]));
                at = 0;
            }
            let direct: usize = slices.iter().map(|slice| slice.len()).sum();
            slices.push(IoSliceMut::new(self.staging.spare()));
            let received = receive(self.link, self.service, &mut self.turn, &mut slices).await?;
            drop(slices);
            self.staging.end += received.saturating_sub(direct);
            if received == 0 {
                return Err(ConnectionEnd::Peer { unfinished: PREFIX_BYTES + before + filled });
            }
            let mut taken = received.min(direct);
            while taken > 0 {
                let room = parts[part].as_ref().len() - filled;
                let here = taken.min(room);
                (filled, taken) = (filled + here, taken - here);
                if here == room {
                    before += filled;
                    (part, filled) = (part + 1, 0);
                }
            }
        }
    }

    fn end_turn(&mut self) {
        end_turn(self.service, &mut self.turn);
    }
}

fn end_turn<S: LinkService>(service: &S, turn: &mut Turn) {
    if std::mem::take(&mut turn.frames) > 0 {
        service.on_turn_end();
    }
}

/// Receives into `slices`. Zero is the end of the stream.
async fn receive<S: LinkService>(
    link: &Link,
    service: &S,
    turn: &mut Turn,
    slices: &mut [IoSliceMut<'_>],
) -> Result<usize, ConnectionEnd> {
    let socket = link.connection.transport.socket();
    let received = poll_fn(|cx| {
        let received = socket.poll_receive_vectored(cx, slices);
        if received.is_pending() {
            // Before this task sleeps.
            end_turn(service, turn);
            turn.bytes = 0;
        }
        received
    })
    .await?;
    turn.bytes += received;
    let now = Instant::now();
    link.heard.set(now);
    link.connection.last_active.set(now);
    Ok(received)
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id(), self.peer())
    }
}
