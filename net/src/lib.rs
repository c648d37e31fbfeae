//! RocketMQ on the wire: frames, headers, codes, typed requests and replies, message encoding.
//!
//! From bytes to meaning a request passes [`frame`] (where it begins and ends), [`header`] (code, request id and
//! extra fields, borrowed from the frame), [`request`] (one typed struct per code). On its way out it passes
//! [`command`]. [`body`] is the JSON behind some headers. [`message`] is what producers send and consumers get: the
//! stored layout, properties, ids, tags. [`acl`] signs requests, [`tls`] encrypts connections; both cost nothing where they
//! are not asked for.

pub mod acl;
pub mod body;
pub mod client;
pub mod code;
pub mod command;
pub mod flags;
pub mod frame;
pub mod header;
pub mod io;
pub mod link;
pub mod message;
pub mod request;
pub mod tls;
