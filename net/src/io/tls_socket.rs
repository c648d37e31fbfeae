use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, Write};
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;

use super::socket::Socket;
use super::transport::would_block;
use crate::tls::{HandshakeError, TlsSession};

/// Receives in a row that bring no plaintext, in one turn.
const FRUITLESS_MAX: u32 = 16;

/// Ciphertext received at once: four records of full length.
const RECEIVE_BYTES: usize = 64 * 1024;

/// A socket with a TLS session around it.
pub struct TlsSocket {
    socket: Socket,
    state: RefCell<State>,
}

struct State {
    session: TlsSession,
    /// Ciphertext that the session has not taken yet.
    received: BytesMut,
}

/// Why a handshake did not succeed.
#[derive(Debug)]
pub(crate) enum HandshakeFailure {
    Io(io::Error),
    Ended(HandshakeError),
    /// Whoever made the session knows best how to say it.
    Tls(rustls::Error),
}

impl TlsSocket {
    pub(crate) fn new(socket: Socket, session: TlsSession) -> TlsSocket {
        // Files must pass through the session.
        let socket = socket.without_sendfile();
        TlsSocket { socket, state: State { session, received: BytesMut::new() }.into() }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Agrees with the peer on keys; to be done before anything else. The caller sets the time limit.
    pub(crate) async fn handshake(&self) -> Result<(), HandshakeFailure> {
        let mut is_first = true;
        loop {
            poll_fn(|cx| self.poll_flush(cx)).await.map_err(HandshakeFailure::Io)?;
            if !self.state.borrow().session.is_handshaking() {
                return Ok(());
            }
            match poll_fn(|cx| self.poll_ciphertext(cx)).await {
                Ok(0) => return Err(HandshakeFailure::Ended(HandshakeError::ClosedByPeer)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(HandshakeFailure::Ended(HandshakeError::ClosedByPeer));
                }
                Err(error) => return Err(HandshakeFailure::Io(error)),
            }
            let mut state = self.state.borrow_mut();
            let State { session, received } = &mut *state;
            let found = received[0];
            if std::mem::take(&mut is_first) && !TlsSession::may_begin_with(found) {
                return Err(HandshakeFailure::Ended(HandshakeError::NotTls { found }));
            }
            while !received.is_empty() && session.is_handshaking() {
                if let Err(error) = session.decrypt(received) {
                    self.try_flush(session);
                    return Err(HandshakeFailure::Tls(error));
                }
                if session.peer_has_closed() {
                    return Err(HandshakeFailure::Ended(HandshakeError::ClosedByPeer));
                }
            }
        }
    }

    /// Fills the spare capacity of `buffer` with as much plaintext as there is; zero is the end of the stream.
    pub(super) fn poll_receive(&self, cx: &Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        let (mut count, mut fruitless) = (0, 0);
        loop {
            let mut state = self.state.borrow_mut();
            let State { session, received } = &mut *state;
            count += session.take_plaintext(buffer);
            if buffer.len() == buffer.capacity() || session.peer_has_closed() {
                return Poll::Ready(Ok(count));
            }
            if !received.is_empty() {
                let decrypted = session.decrypt(received);
                let has_answer = session.wants_write();
                drop(state);
                if has_answer {
                    // What does not go now goes with the next send; a broken socket is found out there too.
                    let _ = self.poll_flush(cx);
                }
                if let Err(error) = decrypted {
                    let error = HandshakeError::from(error);
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
                continue;
            }
            drop(state);
            match self.poll_ciphertext(cx) {
                Poll::Ready(Ok(1..)) if count == 0 && fruitless == FRUITLESS_MAX => {
                    // Records without content: whoever sends them must not keep this task from ending its turn.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(1..)) => fruitless += u32::from(count == 0),
                // Whatever it is, it will be met again by the next receive.
                _ if count > 0 => return Poll::Ready(Ok(count)),
                other => return other,
            }
        }
    }

    /// Encrypts a prefix of `slices` and sends what the socket takes; the rest goes by the next send or flush.
    pub(super) fn poll_send_vectored(
        &self,
        cx: &Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let count = self.state.borrow_mut().session.encrypt(slices);
        match self.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    pub(super) fn poll_flush(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut out = Out { socket: &self.socket, cx };
        match self.state.borrow_mut().session.write_to(&mut out) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            result => Poll::Ready(result),
        }
    }

    /// Tells the peer, if it can be told at once, that nothing follows.
    pub(super) fn say_goodbye(&self) {
        let session = &mut self.state.borrow_mut().session;
        // A full socket has a task waiting for it, whose place must not be taken.
        if !session.wants_write() {
            session.close();
            self.try_flush(session);
        }
    }

    /// For the last words of a connection: whether they arrive makes no difference any more.
    fn try_flush(&self, session: &mut TlsSession) {
        let cx = Context::from_waker(Waker::noop());
        let _ = session.write_to(&mut Out { socket: &self.socket, cx: &cx });
    }

    fn poll_ciphertext(&self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        let received = &mut self.state.borrow_mut().received;
        received.reserve(RECEIVE_BYTES);
        self.socket.poll_receive(cx, received)
    }
}

impl fmt::Debug for TlsSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSocket").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// The socket as something that is written to.
struct Out<'a, 'c> {
    socket: &'a Socket,
    cx: &'a Context<'c>,
}

impl Write for Out<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        would_block(self.socket.poll_send_vectored(self.cx, slices, false))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
