use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{BufMut, BytesMut};

use super::driver::{Driver, Interest, Readiness, Registration};

/// Free space a receive buffer must have before a receive is worth its system call.
pub const RECV_BYTES_MIN: usize = 4 * 1024;

/// A non-blocking TCP socket of the current executor. Closed when dropped.
///
/// At most one task waits for each direction.
#[derive(Debug)]
pub struct Socket {
    socket: socket2::Socket,
    driver: Rc<Driver>,
    registration: Registration,
    readiness: Rc<Readiness>,
    peer: SocketAddr,
    sendfile: bool,
}

impl Socket {
    /// Takes over a connected socket: non-blocking, without Nagle's delay.
    pub fn new(socket: socket2::Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        let not_ip = || io::Error::new(io::ErrorKind::Unsupported, "not an IP socket");
        let peer = socket.peer_addr()?.as_socket().ok_or_else(not_ip)?;
        let driver = Driver::current();
        let (registration, readiness) = driver.register(socket.as_raw_fd())?;
        Ok(Socket { socket, driver, registration, readiness, peer, sendfile: true })
    }

    /// Connects without blocking the executor. The caller sets the time limit.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => return Socket::new(socket),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let driver = Driver::current();
        let (registration, readiness) = driver.register(socket.as_raw_fd())?;
        // Freed also when the caller's time limit drops this future in the middle.
        let connecting = Connecting { socket: Some(socket), driver, registration };
        let mut first = true;
        poll_fn(|cx| {
            // A socket still connecting is not writable; the edge comes when it is done or has failed.
            if first {
                first = false;
                readiness.wait_for(Interest::Write, cx.waker());
                return Poll::Pending;
            }
            if readiness.is_ready(Interest::Write) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let socket = connecting.finish();
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        Socket::new(socket)
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Receives into the spare capacity of `buffer`, which the caller has reserved. Zero is the end of the stream; less
    /// than the spare capacity means that the socket is empty.
    pub(super) fn poll_receive(&self, cx: &Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        loop {
            if !self.readiness.is_ready(Interest::Read) {
                self.readiness.wait_for(Interest::Read, cx.waker());
                return Poll::Pending;
            }
            let spare = buffer.spare_capacity_mut();
            assert!(
                !spare.is_empty(),
                "receive needs spare capacity, else its zero would read as end of stream"
            );
            let fd = self.socket.as_raw_fd();
            // SAFETY: the kernel writes at most `spare.len()` bytes at its start.
            let received =
                unsafe { libc::recv(fd, spare.as_mut_ptr().cast(), spare.len(), libc::MSG_DONTWAIT) };
            match usize::try_from(received) {
                Ok(count) => {
                    if count < spare.len() {
                        self.readiness.on_short_receive();
                    }
                    // SAFETY: `count` bytes of the spare capacity were just initialised.
                    unsafe { buffer.advance_mut(count) };
                    return Poll::Ready(Ok(count));
                }
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::WouldBlock => {
                        self.readiness.wait_for(Interest::Read, cx.waker());
                        return Poll::Pending;
                    }
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Poll::Ready(Err(error)),
                },
            }
        }
    }

    /// Receives into `slices`, one after the other. Zero is the end of the stream; less than fits means that the socket is
    /// empty.
    pub(super) fn poll_receive_vectored(
        &self,
        cx: &Context<'_>,
        slices: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let room: usize = slices.iter().map(|slice| slice.len()).sum();
        assert!(room > 0, "receive needs room, else its zero would read as end of stream");
        loop {
            if !self.readiness.is_ready(Interest::Read) {
                self.readiness.wait_for(Interest::Read, cx.waker());
                return Poll::Pending;
            }
            // SAFETY: `msghdr` is plain data for which all zeroes is a valid value.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = slices.as_mut_ptr().cast::<libc::iovec>();
            message.msg_iovlen = slices.len();
            // SAFETY: IoSliceMut has the layout of iovec, and the slices outlive the call, which writes into them only.
            let received =
                unsafe { libc::recvmsg(self.socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
            match usize::try_from(received) {
                Ok(count) => {
                    if count < room {
                        self.readiness.on_short_receive();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::WouldBlock => {
                        self.readiness.wait_for(Interest::Read, cx.waker());
                        return Poll::Pending;
                    }
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Poll::Ready(Err(error)),
                },
            }
        }
    }

    /// The same socket for a transport that must see all bytes, such as TLS: those of files go through memory.
    pub fn without_sendfile(mut self) -> Socket {
        self.sendfile = false;
        self
    }

    pub fn supports_sendfile(&self) -> bool {
        self.sendfile
    }

    /// Sends a prefix of `slices` and says how many bytes went; waits only while not one byte can go. If `more` is sure
    /// to follow, the kernel may keep the last, short packet for it: until then or [`Socket::push`], at most 200 ms.
    pub(super) fn poll_send_vectored(
        &self,
        cx: &Context<'_>,
        slices: &[IoSlice<'_>],
        more: bool,
    ) -> Poll<io::Result<usize>> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
        loop {
            // SAFETY: `msghdr` is plain data for which all zeroes is a valid value.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = slices.as_ptr() as *mut libc::iovec;
            message.msg_iovlen = slices.len();
            // SAFETY: IoSlice has the layout of iovec, and the slices outlive the call, which only reads them.
            let sent = unsafe { libc::sendmsg(self.socket.as_raw_fd(), &message, flags) };
            match usize::try_from(sent) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::WouldBlock => {
                        self.readiness.wait_for(Interest::Write, cx.waker());
                        return Poll::Pending;
                    }
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Poll::Ready(Err(error)),
                },
            }
        }
    }

    /// Sends what a send with `more` kept back.
    pub fn push(&self) {
        // Setting it again is how Linux is told to. It cannot fail on a TCP socket, and without it the bytes only go later.
        let _ = self.socket.set_tcp_nodelay(true);
    }

    /// Sends of a file's bytes what the socket takes now, and says how many; zero is the end of the file. `None`: the
    /// socket is full, to be tried again when it is [`Socket::writable`].
    ///
    /// Waits for the disk where the page cache does not have the bytes. Never waits for the peer.
    pub fn try_send_file(&self, file: BorrowedFd<'_>, range: Range<u64>) -> io::Result<Option<usize>> {
        let mut position = libc::off_t::try_from(range.start).map_err(io::Error::other)?;
        let end = libc::off_t::try_from(range.end).map_err(io::Error::other)?;
        while position < end {
            let (socket, file, len) = (self.socket.as_raw_fd(), file.as_raw_fd(), (end - position) as usize);
            // A broken connection raises SIGPIPE here, which no flag declines; Rust's start-up ignores it.
            // SAFETY: both descriptors are open, and `position` outlives the call, which moves it by what was sent.
            match unsafe { libc::sendfile(socket, file, &mut position, len) } {
                0 => break,
                // Less than asked for: most often the socket is full, which only the next call finds out.
                1.. => {}
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::WouldBlock => {
                        self.readiness.on_full();
                        break;
                    }
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        }
        let sent = (position as u64 - range.start) as usize;
        let is_full = sent == 0 && !self.readiness.is_ready(Interest::Write);
        Ok((!is_full).then_some(sent))
    }

    /// Resolves when a send may be worth trying again.
    pub async fn writable(&self) {
        poll_fn(|cx| {
            if self.readiness.is_ready(Interest::Write) {
                return Poll::Ready(());
            }
            self.readiness.wait_for(Interest::Write, cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Ends both directions; whoever waits on this socket sees the end of the stream or an error.
    pub fn shutdown(&self) {
        // Failing means the peer was first; either way the connection is over.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.driver.deregister(self.registration, self.socket.as_raw_fd());
    }
}

/// A socket whose connect is under way.
struct Connecting {
    socket: Option<socket2::Socket>,
    driver: Rc<Driver>,
    registration: Registration,
}

impl Connecting {
    fn finish(mut self) -> socket2::Socket {
        let socket = self.socket.take().expect("taken once, here or in drop");
        self.driver.deregister(self.registration, socket.as_raw_fd());
        socket
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            self.driver.deregister(self.registration, socket.as_raw_fd());
        }
    }
}
