use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::BytesMut;

use super::socket::Socket;
use super::tls_socket::TlsSocket;

/// What a connection's bytes go through. Which it is is looked at once per system call.
#[derive(Debug)]
pub enum Transport {
    Plain(Socket),
    Tls(Box<TlsSocket>),
}

impl Transport {
    pub(super) fn socket(&self) -> &Socket {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Tls(tls) => tls.socket(),
        }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.socket().peer()
    }

    /// Whether bytes of files may pass by unseen.
    pub(super) fn supports_sendfile(&self) -> bool {
        self.socket().supports_sendfile()
    }

    /// Receives into the spare capacity of `buffer`, which the caller has reserved. Zero is the end of the stream; less
    /// than the spare capacity means that there is no more at the moment.
    ///
    /// Cancel-safe: bytes not taken stay in the socket.
    pub(super) async fn receive(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|cx| match self {
            Transport::Plain(socket) => socket.poll_receive(cx, buffer),
            Transport::Tls(tls) => tls.poll_receive(cx, buffer),
        })
        .await
    }

    /// Sends a prefix of `slices` and says how many bytes went; waits only while not one byte can go. `more`: further bytes
    /// are sure to follow. Under TLS the last of what was sent may have to be flushed.
    pub(super) async fn send_vectored(&self, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        poll_fn(|cx: &mut Context<'_>| match self {
            Transport::Plain(socket) => socket.poll_send_vectored(cx, slices, more),
            Transport::Tls(tls) => tls.poll_send_vectored(cx, slices),
        })
        .await
    }

    /// Waits until the kernel has all that was sent.
    pub(super) async fn flush(&self) -> io::Result<()> {
        match self {
            Transport::Plain(_) => Ok(()),
            Transport::Tls(tls) => poll_fn(|cx| tls.poll_flush(cx)).await,
        }
    }

    /// Ends both directions; whoever waits sees the end of the stream or an error.
    pub(super) fn shutdown(&self) {
        if let Transport::Tls(tls) = self {
            tls.say_goodbye();
        }
        self.socket().shutdown();
    }
}

impl From<Socket> for Transport {
    fn from(socket: Socket) -> Transport {
        Transport::Plain(socket)
    }
}

impl From<TlsSocket> for Transport {
    fn from(socket: TlsSocket) -> Transport {
        Transport::Tls(Box::new(socket))
    }
}

/// A poll's result, or what to say while there is none.
pub(super) fn would_block<T>(result: Poll<io::Result<T>>) -> io::Result<T> {
    match result {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
