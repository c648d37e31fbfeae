//! A connection between two nodes: [`frames`](crate::link) whose parts are received where they will be used.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_lite::future;
use smallvec::SmallVec;

use super::chunk::Chunk;
use super::connection::{Connection, ConnectionEnd, ConnectionId, OutboxLimits};
use super::driver::pause;
use super::signal::Signal;
use super::socket::Socket;
use crate::link::{LinkError, LinkLimits, PREFIX_BYTES, Prefix, encode};

/// Where prefixes and small heads arrive, and with them at most this much of what follows: the most that is copied of a
/// frame's parts. Large enough for dozens of heartbeats per receive.
const STAGING_BYTES: usize = 4 * 1024;

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

    /// First bytes of a part that tell how long it is; no part is shorter.
    const PART_HEAD_BYTES: usize;

    /// How long a part is that begins with these bytes.
    fn part_len(&self, head: &[u8]) -> Result<usize, LinkError>;
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
#[derive(Debug)]
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
    pub fn send(&self, head: &[u8], parts: &[Chunk]) {
        let parts_bytes: usize = parts.iter().map(Chunk::len).sum();
        let parts_bytes = u32::try_from(parts_bytes).expect("frames are far below 4 GiB");
        self.said.set(Instant::now());
        let encode = |out: &mut BytesMut| {
            encode(out, head, parts_bytes);
            Ok(())
        };
        self.connection.send(encode, parts.iter().cloned()).expect("encoding cannot fail");
    }

    /// Says that this side lives, unless something was said within `quiet`.
    pub fn say_alive(&self, now: Instant, quiet: Duration) {
        if now.saturating_duration_since(self.said.get()) >= quiet {
            self.send(&[], &[]);
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

struct Reader<'a, S> {
    link: &'a Rc<Link>,
    service: &'a S,
    staging: Staging,
    turn: Turn,
}

impl<S: LinkService> Reader<'_, S> {
    async fn next(&mut self) -> Result<LinkFrame<S::Part>, ConnectionEnd> {
        let mut prefix = [0; PREFIX_BYTES];
        let begun = self.fill(&mut prefix).await?;
        if begun < prefix.len() {
            return Err(ConnectionEnd::Peer { unfinished: begun });
        }
        let parsed = Prefix::parse(&prefix, &self.link.limits)?;
        let mut head = vec![0; parsed.head_bytes];
        let mut read = PREFIX_BYTES;
        self.fill_whole(&mut head, &mut read).await?;
        parsed.verify(&prefix, &head)?;
        let mut parts = Vec::new();
        let mut room = parsed.parts_bytes;
        while room > 0 {
            let part = self.next_part(room, &mut read).await?;
            room -= part.as_ref().len();
            parts.push(part);
        }
        Ok(LinkFrame { head: head.into(), parts })
    }

    async fn next_part(&mut self, room: usize, read: &mut usize) -> Result<S::Part, ConnectionEnd> {
        let mut head: SmallVec<[u8; 128]> = SmallVec::from_elem(0, S::PART_HEAD_BYTES.min(room));
        self.fill_whole(&mut head, read).await?;
        let len = self.service.part_len(&head)?;
        if len > room || len < S::PART_HEAD_BYTES {
            return Err(LinkError::PartLength { found: len, room }.into());
        }
        let mut part = self.service.alloc(len);
        let (begin, rest) = part.as_mut().split_at_mut(head.len());
        begin.copy_from_slice(&head);
        self.fill_whole(rest, read).await?;
        Ok(part)
    }

    async fn fill_whole(&mut self, out: &mut [u8], read: &mut usize) -> Result<(), ConnectionEnd> {
        let filled = self.fill(out).await?;
        *read += filled;
        if filled < out.len() {
            return Err(ConnectionEnd::Peer { unfinished: *read });
        }
        Ok(())
    }

    /// Fills `out`, fewer bytes only at the end of the stream. What is longer than the staging buffer does not pass through
    /// it, and what comes behind it waits there.
    async fn fill(&mut self, out: &mut [u8]) -> Result<usize, ConnectionEnd> {
        let mut filled = 0;
        loop {
            filled += self.staging.take_into(&mut out[filled..]);
            let direct = out.len() - filled;
            if direct == 0 {
                return Ok(filled);
            }
            // The staging buffer is empty here: what it held was taken first.
            let spare = self.staging.spare();
            let received = if direct >= spare.len() {
                let slices = &mut [IoSliceMut::new(&mut out[filled..]), IoSliceMut::new(spare)];
                receive(self.link, self.service, &mut self.turn, slices).await?
            } else {
                receive(self.link, self.service, &mut self.turn, &mut [IoSliceMut::new(spare)]).await?
            };
            if received == 0 {
                return Ok(filled);
            }
            let straight = if direct >= STAGING_BYTES { received.min(direct) } else { 0 };
            self.staging.end += received - straight;
            filled += straight;
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

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ConnectionEnd::Peer { unfinished: 0 } => f.write_str("the peer closed the connection"),
            end => end.fmt(f),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id(), self.peer())
    }
}
