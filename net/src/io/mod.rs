//! Sockets on a glommio executor, driven by one epoll instance per executor.
//!
//! glommio's own stream costs more wake-ups than it must and offers neither a wait for writability that other
//! calls can share nor a place for `sendfile`. So sockets here are raw and non-blocking, one [`driver`] task per
//! executor learns which are ready, and everything above it is ordinary futures.
//!
//! ```text
//!     listener ── accepts ──▶ connection ── frames ──▶ Service (the broker's shard, the NameServer, a client)
//!                                │  ▲
//!                     out-queue of chunks, one vectored send for many replies, sendfile for long runs of a file
//!                                │  │ readiness
//!                             socket ◀── driver (epoll)        between the two, if asked for: a TLS session
//! ```
//!
//! Nothing here knows a request code; frames are split by [`crate::frame`] and handed up whole.

mod chunk;
mod connection;
mod driver;
mod file;
mod link;
mod listener;
mod nudge;
mod server;
mod signal;
mod socket;
mod tls_socket;
mod transport;
mod writer;

pub use chunk::Chunk;
pub use connection::{Connection, ConnectionId, OutboxLimits, Service, serve};
pub use driver::{Driver, DriverConfig, drain};
pub use file::{FileChunk, FileFuture, FileSource};
pub use link::{Link, LinkEnd, LinkFrame, LinkService};
pub use listener::Listener;
pub use nudge::{Nudge, NudgeHandle};
pub use server::{Server, ServerLimits};
pub use signal::Signal;
pub use socket::{RECV_BYTES_MIN, Socket};
pub use transport::Transport;

pub(crate) use tls_socket::{HandshakeFailure, TlsSocket};
