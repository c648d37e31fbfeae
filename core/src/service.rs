//! What a request handler gets and gives, the same for the broker's shards and the NameServer.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{ReplyHead, encode_reply};
use apogee_net::frame::{FrameError, HeaderEncoding, RawFrame};
use apogee_net::header::{ExtWriter, Header, HeaderError, WriteExt};
use apogee_net::io::{Chunk, Connection, ConnectionId};
use bytes::Bytes;
use smallvec::SmallVec;

/// First extra field of a request that another replica of the group forwards: the address of the client that asked.
/// Nobody else's requests begin with it, and looking at the first field costs nothing.
pub const FORWARDED_FOR: &str = "apogeeForwardedFor";

/// A decoded request, its texts borrowed from its frame.
#[derive(Debug)]
pub struct Request<'a> {
    pub connection: ConnectionId,
    /// The client's address: of the connection, or what the replica says that forwards for it.
    pub peer: SocketAddr,
    pub header: Header<'a>,
    pub body: &'a Bytes,
    /// Another replica of the group asks for a client of its own.
    pub is_forwarded: bool,
    /// It was asked before, or waited for a leader, here or at the replica that forwards it: what it says of its client
    /// besides its question may be out of date.
    pub has_waited: bool,
    frame: &'a RawFrame,
}

impl<'a> Request<'a> {
    pub fn decode(
        connection: ConnectionId,
        peer: SocketAddr,
        frame: &'a RawFrame,
    ) -> Result<Self, HeaderError> {
        let header = Header::decode(frame.encoding, &frame.header)?;
        let first = header.ext.iter().next();
        let client = first.filter(|(name, _)| *name == FORWARDED_FOR).and_then(|(_, peer)| peer.parse().ok());
        let is_forwarded = client.is_some();
        let peer = client.unwrap_or(peer);
        Ok(Request {
            connection,
            peer,
            header,
            body: &frame.body,
            is_forwarded,
            has_waited: is_forwarded,
            frame,
        })
    }

    /// Of a request that was kept: decodes it once more.
    pub fn decode_again(connection: ConnectionId, peer: SocketAddr, frame: &'a RawFrame) -> Self {
        let request = Self::decode(connection, peer, frame).expect("it was decoded when it came");
        Request { has_waited: true, ..request }
    }

    /// What is in a frame, a request or an answer; nothing if its header cannot be read, which ends its connection.
    pub fn of(connection: &Connection, frame: &'a RawFrame) -> Option<Self> {
        match Self::decode(connection.id(), connection.peer(), frame) {
            Ok(request) => Some(request),
            Err(error) => {
                tracing::info!(connection = %connection.id(), peer = %connection.peer(), %error, "malformed header");
                connection.close("malformed header");
                None
            }
        }
    }

    /// An answer to a request of ours, not a request.
    pub fn is_answer(&self) -> bool {
        self.header.is_reply()
    }

    pub fn code(&self) -> RequestCode {
        RequestCode(self.header.code)
    }

    /// Where the answer goes. None for a oneway request, which is never answered, not even with an error.
    pub fn reply_to(&self) -> Option<ReplyTo> {
        (!self.header.is_oneway()).then_some(ReplyTo {
            connection: self.connection,
            opaque: self.header.opaque,
            encoding: self.frame.encoding,
        })
    }

    /// The frame it was decoded from.
    pub fn frame(&self) -> &RawFrame {
        self.frame
    }
}

/// The address of an answer that may come later. A reply is written in its request's encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyTo {
    pub connection: ConnectionId,
    pub opaque: i32,
    pub encoding: HeaderEncoding,
}

/// An answer: code, remark for people, extra fields, body.
pub struct Reply {
    pub code: ResponseCode,
    pub remark: Option<Cow<'static, str>>,
    pub ext: ReplyExt,
    pub body: SmallVec<[Chunk; 2]>,
}

/// The extra fields of a reply.
pub enum ReplyExt {
    None,
    Some(Box<dyn WriteExt>),
}

impl WriteExt for ReplyExt {
    fn write_ext(&self, writer: &mut ExtWriter<'_>) {
        match self {
            ReplyExt::None => {}
            ReplyExt::Some(ext) => ext.write_ext(writer),
        }
    }
}

impl Reply {
    pub fn success() -> Self {
        Self::new(ResponseCode::SUCCESS)
    }

    pub fn new(code: ResponseCode) -> Self {
        Reply { code, remark: None, ext: ReplyExt::None, body: SmallVec::new() }
    }

    pub fn error(code: ResponseCode, remark: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code).with_remark(remark)
    }

    /// The answer to a request code nobody handles, in RocketMQ's words (`NettyRemotingAbstract`).
    pub fn not_supported(code: RequestCode) -> Self {
        Self::error(
            ResponseCode::REQUEST_CODE_NOT_SUPPORTED,
            format!(" request type {} not supported", code.0),
        )
    }

    #[must_use]
    pub fn with_remark(mut self, remark: impl Into<Cow<'static, str>>) -> Self {
        self.remark = Some(remark.into());
        self
    }

    #[must_use]
    pub fn with_ext(mut self, ext: impl WriteExt + 'static) -> Self {
        self.ext = ReplyExt::Some(Box::new(ext));
        self
    }

    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body.push(Chunk::Bytes(body.into()));
        self
    }

    /// Queues the reply on the connection its request came from.
    pub fn send(self, to: ReplyTo, connection: &Connection) -> Result<(), FrameError> {
        let body_len = self.body.iter().map(Chunk::len).sum();
        let head =
            ReplyHead { code: self.code, opaque: to.opaque, remark: self.remark.as_deref(), ext: &self.ext };
        connection.send(|out| encode_reply(out, to.encoding, &head, body_len), self.body)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({}, {:?}, body {:?})", self.code, self.remark, self.body)
    }
}
