use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_lite::future;

use super::chunk::Chunk;
use super::driver::pause;
use super::signal::Signal;
use super::socket::RECV_BYTES_MIN;
use super::transport::Transport;
use crate::frame::{self, FrameError, RawFrame};
use crate::link::LinkError;

/// Receive buffers begin small, for most connections only heartbeat, and double while receives fill them.
const RECV_BYTES_FIRST: usize = 8 * 1024;
const RECV_BYTES_MAX: usize = 256 * 1024;

/// Frames handled before other tasks get their turn: with small frames well below 500 µs of work.
const FRAMES_PER_TURN: usize = 64;

/// Bytes received before other tasks get their turn, for frames so large that [`FRAMES_PER_TURN`] is never reached.
const BYTES_PER_TURN: usize = 256 * 1024;

/// Bytes that may wait for a connection's peer to take them.
#[derive(Debug, Clone, Copy)]
pub struct OutboxLimits {
    /// Above this nothing more is read from the peer: a server's client must take its replies first. A client reads
    /// on whatever it has still to send, or two full out-queues would wait for each other.
    pub pause_reading_bytes: usize,
    /// Above this the peer is given up.
    pub bytes_max: usize,
}

impl OutboxLimits {
    /// For accepted connections. The second limit is reached only by a peer that reads nothing while replies to what
    /// it asked before keep coming.
    pub const SERVER: OutboxLimits =
        OutboxLimits { pause_reading_bytes: 8 * 1024 * 1024, bytes_max: 256 * 1024 * 1024 };

    pub const CLIENT: OutboxLimits =
        OutboxLimits { pause_reading_bytes: usize::MAX, bytes_max: 256 * 1024 * 1024 };
}

/// Names a connection for as long as the process lives. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// What receives the frames of connections. All calls come from the executor's thread and must not block it.
pub trait Service: 'static {
    /// A whole frame has arrived. Called in the order of arrival.
    fn on_frame(&self, connection: &Rc<Connection>, frame: RawFrame);
    /// The frames of one receive are all delivered: the moment to start what they have in common.
    fn on_turn_end(&self) {}
    /// The connection is over, for whatever reason; called exactly once, after the last frame.
    fn on_closed(&self, connection: &Rc<Connection>);
}

/// One connection: an out-queue that replies and pushes go to, and its end.
///
/// Sending only queues; [`serve`] writes whatever has gathered with one vectored send.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    pub(super) transport: Transport,
    pub(super) outbox: RefCell<Outbox>,
    /// Raised when the out-queue is no longer empty, or the connection was closed.
    pub(super) unsent: Signal,
    /// Raised when the out-queue has shrunk, or the connection was closed.
    pub(super) drained: Signal,
    pub(super) closed: Cell<Option<CloseReason>>,
    /// What ended it, if that was an error.
    fault: RefCell<Option<String>>,
    pub(super) last_active: Cell<Instant>,
    limits: OutboxLimits,
}

/// What a connection has read without letting others have a turn.
#[derive(Debug, Default)]
struct Turn {
    frames: usize,
    bytes: usize,
}

impl Turn {
    fn is_over(&self) -> bool {
        self.frames >= FRAMES_PER_TURN || self.bytes >= BYTES_PER_TURN
    }
}

/// Why a connection ended, for its one log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    Local(&'static str),
    OutboxFull { bytes_max: usize },
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    chunks: VecDeque<Chunk>,
    /// Headers and small bodies encoded since the last whole chunk: many replies, one slice.
    tail: BytesMut,
    /// All bytes not yet taken by the kernel, including those in files and those the writer holds.
    pub(super) bytes: usize,
}

impl Outbox {
    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(Chunk::Bytes(self.tail.split().freeze()));
        }
    }

    /// Hands all that is queued to the writer, whose `sending` is empty.
    pub(super) fn take_into(&mut self, sending: &mut VecDeque<Chunk>) {
        self.seal_tail();
        std::mem::swap(sending, &mut self.chunks);
    }
}

impl Connection {
    pub fn new(id: ConnectionId, transport: impl Into<Transport>, limits: OutboxLimits) -> Rc<Self> {
        Rc::new(Connection {
            id,
            transport: transport.into(),
            outbox: RefCell::default(),
            unsent: Signal::default(),
            drained: Signal::default(),
            closed: Cell::new(None),
            fault: RefCell::default(),
            last_active: Cell::new(Instant::now()),
            limits,
        })
    }

    pub fn id(&self) -> ConnectionId {
        self.id
    }

    pub fn peer(&self) -> SocketAddr {
        self.transport.peer()
    }

    /// Time since the last byte in either direction.
    pub fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_active.get())
    }

    pub fn is_closed(&self) -> bool {
        self.closed.get().is_some()
    }

    /// What ended the connection, if that was an error rather than either side's wish.
    pub fn fault(&self) -> Option<String> {
        self.fault.borrow().clone()
    }

    /// Queues a frame: what `encode` appends, then `body`. On a closed connection both are dropped.
    ///
    /// A frame that `encode` refuses is not queued. A peer that lets too much gather is disconnected.
    pub fn send(
        &self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), FrameError>,
        body: impl IntoIterator<Item = Chunk>,
    ) -> Result<(), FrameError> {
        if self.is_closed() {
            return Ok(());
        }
        let mut outbox = self.outbox.borrow_mut();
        let before = outbox.tail.len();
        encode(&mut outbox.tail)?;
        outbox.bytes += outbox.tail.len() - before;
        for chunk in body {
            if !chunk.is_empty() {
                outbox.seal_tail();
                outbox.bytes += chunk.len();
                outbox.chunks.push_back(chunk);
            }
        }
        let is_full = outbox.bytes > self.limits.bytes_max;
        drop(outbox);
        if is_full {
            self.end(CloseReason::OutboxFull { bytes_max: self.limits.bytes_max });
        }
        self.unsent.raise();
        Ok(())
    }

    /// Ends the connection; what is still unsent is dropped. `reason` appears in its log line.
    pub fn close(&self, reason: &'static str) {
        if !self.is_closed() {
            self.end(CloseReason::Local(reason));
        }
    }

    /// Bytes that the kernel has not taken yet, those in files among them.
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.borrow().bytes
    }

    /// Whether so much waits for the peer that it gets nothing more to wait for.
    pub fn is_congested(&self) -> bool {
        self.waiting_bytes() > self.limits.pause_reading_bytes
    }

    fn end(&self, reason: CloseReason) {
        self.closed.set(Some(reason));
        self.unsent.raise();
        self.drained.raise();
        // Wakes a writer that waits for a peer which takes nothing, and a reader that waits for one which says nothing.
        self.transport.shutdown();
    }

    async fn read_frames(self: &Rc<Self>, service: &impl Service) -> Result<Infallible, ConnectionEnd> {
        let mut buffer = BytesMut::new();
        let mut receive_bytes = RECV_BYTES_FIRST;
        let mut turn = Turn::default();
        loop {
            self.wait_until_drained().await;
            if buffer.capacity() - buffer.len() < RECV_BYTES_MIN {
                let whole_frame = frame::bytes_missing(&buffer)?;
                buffer.reserve(receive_bytes.max(whole_frame));
            }
            let spare = buffer.capacity() - buffer.len();
            let received = self.transport.receive(&mut buffer).await?;
            if received == 0 {
                return Err(ConnectionEnd::Peer { unfinished: buffer.len() });
            }
            self.last_active.set(Instant::now());
            if received == spare {
                receive_bytes = (receive_bytes * 2).min(RECV_BYTES_MAX);
            }
            turn.bytes += received;
            while let Some(frame) = frame::split_frame(&mut buffer)? {
                service.on_frame(self, frame);
                if let Some(reason) = self.closed.get() {
                    return Err(ConnectionEnd::Closed(reason));
                }
                turn.frames += 1;
                if turn.is_over() || self.is_congested() {
                    service.on_turn_end();
                    turn = Turn::default();
                    pause().await;
                    self.wait_until_drained().await;
                }
            }
            service.on_turn_end();
            if received < spare {
                // The socket is empty: the next receive waits, and everybody else has a turn anyway.
                turn = Turn::default();
            }
        }
    }

    async fn wait_until_drained(&self) {
        while self.is_congested() && !self.is_closed() {
            self.drained.wait().await;
        }
    }
}

/// Runs a connection to its end: frames to `service`, the out-queue to the socket.
///
/// A malformed frame, an I/O error or the peer's end ends this connection only, with one log line if it was not
/// the ordinary end.
pub async fn serve<S: Service>(connection: Rc<Connection>, service: Rc<S>) {
    // One task for both directions: replies queued while frames are read leave in the same poll.
    let result = future::or(connection.read_frames(&*service), connection.write_chunks()).await;
    let closed_here = connection.closed.get();
    connection.close("connection over");
    let Err(end) = result;
    if closed_here.is_none() && !matches!(end, ConnectionEnd::Peer { unfinished: 0 }) {
        *connection.fault.borrow_mut() = Some(end.to_string());
    }
    // Whoever still holds the connection does not hold what will never be sent: buffers, and files that wait to be reused.
    drop(connection.outbox.take());
    // What was found after this side had closed is only an echo of that.
    match closed_here.map_or(end, ConnectionEnd::Closed) {
        ConnectionEnd::Peer { unfinished: 0 } => {}
        end @ (ConnectionEnd::File(_) | ConnectionEnd::FileTooShort { .. }) => {
            tracing::error!(connection = %connection.id, peer = %connection.peer(), "connection closed: {end}")
        }
        end => {
            tracing::info!(connection = %connection.id, peer = %connection.peer(), "connection closed: {end}")
        }
    }
    service.on_closed(&connection);
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionEnd {
    #[error("the peer left in the middle of a frame, after {unfinished} bytes of it")]
    Peer { unfinished: usize },
    #[error("malformed frame: {0}")]
    Frame(#[from] FrameError),
    #[error("malformed frame: {0}")]
    Link(#[from] LinkError),
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The length of the frame is out already, so it can be neither finished nor taken back.
    #[error("the file of a reply in the middle of being sent cannot be read: {0}")]
    File(io::Error),
    #[error("the file of a reply in the middle of being sent ends at {at}, {missing} bytes too early")]
    FileTooShort { at: u64, missing: u64 },
    #[error("{0}")]
    Closed(CloseReason),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::Local(reason) => f.write_str(reason),
            CloseReason::OutboxFull { bytes_max } => {
                write!(f, "the peer does not read: more than {bytes_max} bytes wait for it")
            }
        }
    }
}
