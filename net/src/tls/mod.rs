//! TLS as RocketMQ speaks it: from the first byte of an ordinary connection, on the port that serves plaintext too.
//!
//! ```text
//!     TlsOptions ── files are read, once ──▶ TlsClient ── one per connection ──▶ TlsSession
//!                                                                                 │ ciphertext ▲ ▼ plaintext
//!                                                         sockets: io/tls_socket.rs
//! ```
//!
//! A session touches no socket and does not care which side it is: a server's differs from a client's only in what it
//! is made from.
//! Source: RocketMQ `TlsHelper#buildSslContext`, `NettyRemotingClient` (the `SslHandler` comes first), `TlsSystemConfig`.

mod client;
mod error;
mod pem;
mod session;
mod verifier;

pub use client::{Identity, TlsClient, TlsOptions, Trust};
pub use error::{HandshakeError, TlsFileError};

pub(crate) use session::TlsSession;
