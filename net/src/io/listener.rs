use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::driver::{Driver, Interest, Readiness, Registration};
use super::socket::Socket;

/// Connections the kernel keeps until they are accepted. Ten thousand clients reconnecting at once fit.
const BACKLOG: i32 = 16 * 1024;

/// Pause after an accept that failed for want of descriptors or memory, so that the loop does not spin on it.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A listening socket of the current executor.
#[derive(Debug)]
pub struct Listener {
    socket: socket2::Socket,
    driver: Rc<Driver>,
    registration: Registration,
    readiness: Rc<Readiness>,
    local: SocketAddr,
}

impl Listener {
    /// Binds and listens. Only SO_REUSEADDR is set: a second process on the same port is an error, not a partner.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let local = socket.local_addr()?.as_socket().expect("bound to an IP address");
        let driver = Driver::current();
        let (registration, readiness) = driver.register(socket.as_raw_fd())?;
        Ok(Listener { socket, driver, registration, readiness, local })
    }

    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next connection. One that was reset before it was accepted is passed over; want of descriptors or memory
    /// is logged and waited out.
    pub async fn accept(&self) -> Socket {
        loop {
            match poll_fn(|cx| self.poll_accept(cx)).await.and_then(Socket::new) {
                Ok(socket) => return socket,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        tracing::warn!(listener = %self.local, %error, "cannot accept a connection");
                        glommio::timer::sleep(ACCEPT_RETRY).await;
                    }
                    _ => {
                        tracing::debug!(listener = %self.local, %error, "a connection ended before it was accepted")
                    }
                },
            }
        }
    }

    fn poll_accept(&self, cx: &std::task::Context<'_>) -> Poll<io::Result<socket2::Socket>> {
        match self.socket.accept() {
            Ok((socket, _)) => Poll::Ready(Ok(socket)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readiness.wait_for(Interest::Read, cx.waker());
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.driver.deregister(self.registration, self.socket.as_raw_fd());
    }
}
