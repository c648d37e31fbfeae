//! Requests that need the leader while there is none here: kept for a moment, then answered here or forwarded.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use apogee_net::code::RequestCode;
use apogee_net::frame::RawFrame;
use apogee_net::io::ConnectionId;
use apogee_storage::NodeId;
use bytes::Bytes;

use super::forward::ForwardId;
use crate::service::{ReplyTo, Request};

/// How long a request waits for a leader, from its arrival: longer than an election takes, shorter than the 3 s after which
/// producers give up.
pub const HELD_MS_MAX: i64 = 2_500;

/// Requests that wait for a leader or for its answer; one more is refused.
pub const HELD_MAX: usize = 16_384;

/// Their frames' bytes, copied out of the receive buffers; what does not fit is refused.
pub const HELD_BYTES_MAX: usize = 64 << 20;

/// A request that outlives its receive buffer.
#[derive(Debug)]
pub(super) struct HeldRequest {
    pub connection: ConnectionId,
    /// Of the connection, for a forwarded request too.
    pub peer: SocketAddr,
    pub frame: RawFrame,
    pub code: RequestCode,
    pub to: Option<ReplyTo>,
    pub is_forwarded: bool,
    pub deadline_ms: i64,
}

impl HeldRequest {
    pub(super) fn copy_of(request: &Request<'_>, now_ms: i64) -> Self {
        let frame = request.frame();
        HeldRequest {
            connection: request.connection,
            peer: request.peer,
            frame: RawFrame {
                encoding: frame.encoding,
                header: Bytes::copy_from_slice(&frame.header),
                body: Bytes::copy_from_slice(&frame.body),
            },
            code: request.code(),
            to: request.reply_to(),
            is_forwarded: request.is_forwarded,
            deadline_ms: now_ms + HELD_MS_MAX,
        }
    }

    fn bytes(&self) -> usize {
        self.frame.header.len() + self.frame.body.len()
    }
}

/// The requests that wait, in the order of their arrival, and those that were forwarded and not answered.
#[derive(Debug, Default)]
pub(super) struct HeldRequests {
    waiting: BTreeMap<u64, HeldRequest>,
    /// With the node that was asked.
    forwarded: BTreeMap<ForwardId, (NodeId, HeldRequest)>,
    bytes: usize,
    next: u64,
}

impl HeldRequests {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Nothing waits, neither for a leader nor for its answer.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.forwarded.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.forwarded.len()
    }

    pub(super) fn has_room(&self, request: &Request<'_>) -> bool {
        let frame = request.frame();
        self.len() < HELD_MAX && self.bytes + frame.header.len() + frame.body.len() <= HELD_BYTES_MAX
    }

    pub(super) fn push(&mut self, request: HeldRequest) {
        self.bytes += request.bytes();
        self.waiting.insert(self.next, request);
        self.next += 1;
    }

    /// The oldest that `may_go`.
    pub(super) fn pop(&mut self, may_go: impl Fn(&HeldRequest) -> bool) -> Option<(u64, HeldRequest)> {
        let at = self.waiting.iter().find(|(_, request)| may_go(request)).map(|(at, _)| *at)?;
        let request = self.waiting.remove(&at)?;
        self.bytes -= request.bytes();
        Some((at, request))
    }

    /// Keeps one that is being forwarded, under the place that it had.
    pub(super) fn keep_forwarded(&mut self, at: u64, request: HeldRequest, to: NodeId) -> ForwardId {
        self.bytes += request.bytes();
        self.forwarded.insert(ForwardId(at), (to, request));
        ForwardId(at)
    }

    pub(super) fn take_forwarded(&mut self, id: ForwardId) -> Option<HeldRequest> {
        let (_, request) = self.forwarded.remove(&id)?;
        self.bytes -= request.bytes();
        Some(request)
    }

    /// What others than the leader were asked for waits again where it stood.
    pub(super) fn recall_from_others(&mut self, leader: Option<NodeId>) {
        let of_others = self.forwarded.extract_if(.., |_, (to, _)| Some(*to) != leader);
        self.waiting.extend(of_others.map(|(id, (_, request))| (id.0, request)));
    }

    /// Was forwarded in vain, and waits again where it stood.
    pub(super) fn give_back(&mut self, id: ForwardId, request: HeldRequest) {
        self.bytes += request.bytes();
        self.waiting.insert(id.0, request);
    }

    /// Those whose time is up.
    pub(super) fn take_late(&mut self, now_ms: i64) -> Vec<HeldRequest> {
        self.extract(|request| request.deadline_ms <= now_ms)
    }

    /// Nobody is left to answer.
    pub(super) fn on_connection_closed(&mut self, connection: ConnectionId) {
        self.extract(|request| request.connection == connection);
    }

    fn extract(&mut self, which: impl Fn(&HeldRequest) -> bool) -> Vec<HeldRequest> {
        let taken = self.waiting.extract_if(.., |_, request| which(request));
        let taken: Vec<_> = taken.map(|(_, request)| request).collect();
        self.bytes -= taken.iter().map(HeldRequest::bytes).sum::<usize>();
        taken
    }

    /// When the next one's time is up, or a little before the time of one that was given back.
    pub(super) fn next_deadline_ms(&self) -> Option<i64> {
        self.waiting.values().next().map(|request| request.deadline_ms)
    }
}
