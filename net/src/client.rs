//! A client connection to a NameServer or broker, on the current executor.
//!
//! Used by the broker to register with NameServers, by the load generator and by tests. Requests are queued at
//! once and answered in any order; whoever asks never waits for the socket.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_lite::future;
use rustc_hash::FxHashMap;

use crate::acl::Credentials;
use crate::code::{RequestCode, ResponseCode};
use crate::command::{RequestHead, encode_request};
use crate::frame::{FrameError, HeaderEncoding, RawFrame};
use crate::header::{Header, WriteExt};
use crate::io::{
    Chunk, Connection, ConnectionId, HandshakeFailure, OutboxLimits, Service, Signal, Socket, TlsSocket,
    Transport, serve,
};
use crate::tls::{HandshakeError, TlsClient};

/// Requests that may be unanswered at once on one connection; one more is refused.
const PENDING_MAX: usize = 1 << 20;

/// How late a time-out may be noticed.
const SWEEP: Duration = Duration::from_millis(50);

/// One connection to a server. Dropping the last handle closes it.
pub struct RemotingClient {
    connection: Rc<Connection>,
    calls: Rc<Calls>,
    encoding: HeaderEncoding,
    credentials: Option<Credentials>,
}

/// How to connect, and as whom.
#[derive(Clone)]
pub struct ConnectOptions {
    /// For the TCP connection, and once more for the TLS handshake.
    pub timeout: Duration,
    /// Of requests; replies come in the same.
    pub encoding: HeaderEncoding,
    /// `None`: plaintext.
    pub tls: Option<TlsClient>,
    /// Signs each request; `None` adds nothing to them.
    pub credentials: Option<Credentials>,
    /// Gets the requests that the server sends by itself (notifications).
    pub on_request: OnRequest,
}

pub type OnRequest = Rc<dyn Fn(RawFrame)>;

impl ConnectOptions {
    /// Plaintext, JSON, unsigned; requests of the server are dropped.
    pub fn within(timeout: Duration) -> ConnectOptions {
        ConnectOptions {
            timeout,
            encoding: HeaderEncoding::Json,
            tls: None,
            credentials: None,
            on_request: Rc::new(|_| {}),
        }
    }

    async fn open(&self, address: SocketAddr) -> Result<Transport, ConnectError> {
        let connected = async { Ok(Socket::connect(address).await?) };
        let socket = self.in_time(connected, ConnectError::NotConnected(self.timeout)).await?;
        let Some(tls) = &self.tls else { return Ok(socket.into()) };
        let socket = TlsSocket::new(socket, tls.session(address.ip()));
        let agreed = async {
            socket.handshake().await.map_err(|failure| match failure {
                HandshakeFailure::Io(error) => error.into(),
                HandshakeFailure::Ended(error) => error.into(),
                HandshakeFailure::Tls(error) => tls.explain(error).into(),
            })
        };
        self.in_time(agreed, ConnectError::NoHandshake(self.timeout)).await?;
        Ok(socket.into())
    }

    async fn in_time<T>(
        &self,
        step: impl Future<Output = Result<T, ConnectError>>,
        otherwise: ConnectError,
    ) -> Result<T, ConnectError> {
        let too_late = async {
            glommio::timer::sleep(self.timeout).await;
            Err(otherwise)
        };
        future::or(step, too_late).await
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not connected within {0:?}")]
    NotConnected(Duration),
    #[error("connected, but TLS was not agreed on within {0:?}: the server does not answer the hello")]
    NoHandshake(Duration),
    #[error("TLS: {0}")]
    Tls(#[from] HandshakeError),
}

/// A reply as it arrived.
#[derive(Debug)]
pub struct ReplyFrame {
    frame: RawFrame,
    code: ResponseCode,
}

impl ReplyFrame {
    pub fn code(&self) -> ResponseCode {
        self.code
    }

    /// The header, decoded again on demand: its strings borrow from this frame.
    pub fn header(&self) -> Header<'_> {
        Header::decode(self.frame.encoding, &self.frame.header).expect("decoded once already, on arrival")
    }

    pub fn body(&self) -> &Bytes {
        &self.frame.body
    }
}

/// Why a request has no reply. Whether the server acted on it is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("no reply within {0:?}")]
    Timeout(Duration),
    #[error("the connection closed before the reply came")]
    Closed,
    #[error("{PENDING_MAX} requests are unanswered on this connection already")]
    TooManyPending,
    #[error("the request is too large: {0}")]
    TooLarge(#[from] FrameError),
}

type OnReply = Box<dyn FnOnce(Result<ReplyFrame, CallError>)>;

struct Pending {
    deadline: Instant,
    timeout: Duration,
    on_reply: OnReply,
}

/// Requests that wait for their replies, by opaque.
struct Calls {
    pending: RefCell<FxHashMap<i32, Pending>>,
    next_opaque: Cell<i32>,
    /// Raised when the first request waits: the sweep for time-outs rests while none does.
    any_pending: Signal,
    on_request: OnRequest,
    closed: Signal,
}

impl RemotingClient {
    pub async fn connect(address: SocketAddr, options: &ConnectOptions) -> Result<Rc<Self>, ConnectError> {
        let transport = options.open(address).await?;
        let connection = Connection::new(ConnectionId(0), transport, OutboxLimits::CLIENT);
        let calls = Rc::new(Calls {
            pending: RefCell::default(),
            next_opaque: Cell::new(1),
            any_pending: Signal::default(),
            on_request: options.on_request.clone(),
            closed: Signal::default(),
        });
        glommio::spawn_local(serve(connection.clone(), calls.clone())).detach();
        glommio::spawn_local(sweep(Rc::downgrade(&calls), connection.clone())).detach();
        let (encoding, credentials) = (options.encoding, options.credentials.clone());
        Ok(Rc::new(RemotingClient { connection, calls, encoding, credentials }))
    }

    pub fn peer(&self) -> SocketAddr {
        self.connection.peer()
    }

    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// What ended the connection, if that was an error rather than either side's wish. Known once it is over.
    pub fn fault(&self) -> Option<String> {
        self.connection.fault()
    }

    /// Resolves when the connection is over. One task may wait.
    pub async fn closed(&self) {
        if !self.is_closed() {
            self.calls.closed.wait().await;
        }
    }

    /// Queues a request at once; `on_reply` is called exactly once, from another task's turn (or at once, when the
    /// request cannot be queued).
    pub fn start(
        &self,
        code: RequestCode,
        ext: &dyn WriteExt,
        body: impl IntoIterator<Item = Chunk>,
        timeout: Duration,
        on_reply: impl FnOnce(Result<ReplyFrame, CallError>) + 'static,
    ) {
        if self.is_closed() {
            return on_reply(Err(CallError::Closed));
        }
        let mut pending = self.calls.pending.borrow_mut();
        if pending.len() >= PENDING_MAX {
            drop(pending);
            return on_reply(Err(CallError::TooManyPending));
        }
        let opaque = self.calls.opaque();
        let deadline = Instant::now() + timeout;
        pending.insert(opaque, Pending { deadline, timeout, on_reply: Box::new(on_reply) });
        let first = pending.len() == 1;
        drop(pending);
        if first {
            self.calls.any_pending.raise();
        }
        if let Err(error) = self.queue(RequestHead { code, opaque, oneway: false, ext }, body) {
            let call = self.calls.pending.borrow_mut().remove(&opaque);
            let call = call.expect("inserted above, and nothing ran since");
            (call.on_reply)(Err(error.into()));
        }
    }

    /// Like [`RemotingClient::start`], as a future. The request is queued by the call, not by the first poll.
    pub fn call(
        &self,
        code: RequestCode,
        ext: &dyn WriteExt,
        body: impl IntoIterator<Item = Chunk>,
        timeout: Duration,
    ) -> future::BoxedLocal<Result<ReplyFrame, CallError>> {
        let slot: Rc<RefCell<Option<Result<ReplyFrame, CallError>>>> = Rc::default();
        let answered = Rc::new(Signal::default());
        let (fill, raise) = (slot.clone(), answered.clone());
        self.start(code, ext, body, timeout, move |result| {
            *fill.borrow_mut() = Some(result);
            raise.raise();
        });
        Box::pin(async move {
            answered.wait().await;
            slot.borrow_mut().take().expect("filled before the signal was raised")
        })
    }

    /// Queues a request that is not answered.
    pub fn oneway(
        &self,
        code: RequestCode,
        ext: &dyn WriteExt,
        body: impl IntoIterator<Item = Chunk>,
    ) -> Result<(), CallError> {
        if self.is_closed() {
            return Err(CallError::Closed);
        }
        let opaque = self.calls.opaque();
        Ok(self.queue(RequestHead { code, opaque, oneway: true, ext }, body)?)
    }

    fn queue(&self, head: RequestHead<'_>, body: impl IntoIterator<Item = Chunk>) -> Result<(), FrameError> {
        let body: smallvec::SmallVec<[Chunk; 2]> = body.into_iter().collect();
        let body_len = body.iter().map(Chunk::len).sum();
        let Some(credentials) = &self.credentials else {
            return self.connection.send(|out| encode_request(out, self.encoding, &head, body_len), body);
        };
        let signed = {
            let pieces = body.iter().map(|chunk| chunk.in_memory().expect("clients send no files"));
            credentials.sign(head.ext, pieces)
        };
        let head = RequestHead { ext: &signed, ..head };
        self.connection.send(|out| encode_request(out, self.encoding, &head, body_len), body)
    }

    /// Bytes of requests that the socket has not taken yet.
    pub fn unsent_bytes(&self) -> usize {
        self.connection.waiting_bytes()
    }

    pub fn close(&self) {
        self.connection.close("closed by this side");
    }
}

impl Drop for RemotingClient {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for RemotingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemotingClient({}, {} pending)", self.peer(), self.calls.pending.borrow().len())
    }
}

impl Calls {
    /// Numbers wrap after 2^31 requests: the one with the same number was answered or timed out long before.
    fn opaque(&self) -> i32 {
        let opaque = self.next_opaque.get();
        self.next_opaque.set(opaque.checked_add(1).unwrap_or(0));
        opaque
    }

    fn take_overdue(&self, now: Instant) -> Vec<Pending> {
        let mut pending = self.pending.borrow_mut();
        let overdue: Vec<i32> =
            pending.iter().filter(|(_, call)| call.deadline <= now).map(|(&opaque, _)| opaque).collect();
        overdue.iter().filter_map(|opaque| pending.remove(opaque)).collect()
    }
}

impl Service for Calls {
    fn on_frame(&self, connection: &Rc<Connection>, frame: RawFrame) {
        let (opaque, code, is_reply) = match Header::decode(frame.encoding, &frame.header) {
            Ok(header) => (header.opaque, header.code, header.is_reply()),
            Err(error) => {
                tracing::warn!(peer = %connection.peer(), %error, "unreadable header");
                connection.close("unreadable header");
                return;
            }
        };
        if !is_reply {
            (self.on_request)(frame);
            return;
        }
        // Absent: it timed out before, and its caller was told.
        let call = self.pending.borrow_mut().remove(&opaque);
        if let Some(call) = call {
            (call.on_reply)(Ok(ReplyFrame { frame, code: ResponseCode(code) }));
        }
    }

    fn on_closed(&self, _connection: &Rc<Connection>) {
        let pending = std::mem::take(&mut *self.pending.borrow_mut());
        for call in pending.into_values() {
            (call.on_reply)(Err(CallError::Closed));
        }
        self.any_pending.raise();
        self.closed.raise();
    }
}

/// Ends calls whose time is up. Ends itself with the connection.
async fn sweep(calls: Weak<Calls>, connection: Rc<Connection>) {
    while !connection.is_closed() {
        let Some(calls) = calls.upgrade() else { return };
        if calls.pending.borrow().is_empty() {
            calls.any_pending.wait().await;
            continue;
        }
        for call in calls.take_overdue(Instant::now()) {
            (call.on_reply)(Err(CallError::Timeout(call.timeout)));
        }
        drop(calls);
        glommio::timer::sleep(SWEEP).await;
    }
}
