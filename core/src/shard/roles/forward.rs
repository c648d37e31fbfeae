//! Requests that a follower hands on to the leader, for clients whose routes are of before.
//!
//! A forwarded request says for whom it is ([`FORWARDED_FOR`]), so that messages keep the address that they were born at,
//! and is never forwarded again: whoever gets one and does not lead refuses it ([`NOT_LEADER`]), and the sender of it
//! looks for the leader anew.

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::{ExtWriter, Header, WriteExt};
use bytes::Bytes;

use super::held::HeldRequest;
use crate::service::{FORWARDED_FOR, Reply};

/// Extra field of the refusal of a forwarded request by a replica that does not lead.
pub const NOT_LEADER: &str = "apogeeNotLeader";

/// How long a forwarded request waits for its answer, besides what it asks to wait for a message.
const ANSWER_WAIT_MS: i64 = 3_000;

/// Longest wait for a message, as for those that are asked for here.
const POLL_MS_MAX: i64 = 60_000;

/// Pause after forwarding failed, so that a leader that cannot be reached is not asked in a circle.
pub(super) const PAUSE_MS: i64 = 50;

/// Names a forwarded request between the shard and its driver. Never used for two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForwardId(pub(super) u64);

/// A request for the client port of the leader, as it came but for its first extra field.
#[derive(Debug)]
pub struct ForwardRequest {
    pub code: RequestCode,
    pub ext: ForwardExt,
    pub body: Bytes,
    /// Without an answer within this time there is none.
    pub timeout_ms: i64,
}

/// Extra fields as texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardExt(Vec<(String, String)>);

impl ForwardExt {
    /// As a header has them.
    pub fn of(header: &Header<'_>) -> Self {
        header.ext.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn has(&self, wanted: &str) -> bool {
        self.0.iter().any(|(name, _)| name == wanted)
    }
}

impl FromIterator<(String, String)> for ForwardExt {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(fields: T) -> Self {
        ForwardExt(fields.into_iter().collect())
    }
}

impl WriteExt for ForwardExt {
    fn write_ext(&self, fields: &mut ExtWriter<'_>) {
        for (name, value) in &self.0 {
            fields.str(name, value);
        }
    }
}

/// What the leader answered.
#[derive(Debug)]
pub struct ForwardAnswer {
    pub code: ResponseCode,
    pub remark: Option<String>,
    pub ext: ForwardExt,
    pub body: Bytes,
}

/// Whether the leader has seen the request is not known. It is tried again while its time lasts: a client would do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the leader did not answer")]
pub struct ForwardFailed;

impl ForwardRequest {
    pub(super) fn of(request: &HeldRequest) -> Self {
        let header = Header::decode(request.frame.encoding, &request.frame.header)
            .expect("it was decoded when it came");
        let mut ext = vec![(FORWARDED_FOR.to_owned(), request.peer.to_string())];
        ext.extend(header.ext.iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        let waits_ms = match request.code {
            RequestCode::POP_MESSAGE | RequestCode::NOTIFICATION => header.ext.get("pollTime"),
            RequestCode::PULL_MESSAGE | RequestCode::LITE_PULL_MESSAGE => {
                header.ext.get("suspendTimeoutMillis")
            }
            _ => None,
        };
        let waits_ms: i64 = waits_ms.and_then(|ms| ms.parse().ok()).unwrap_or(0);
        ForwardRequest {
            code: request.code,
            ext: ForwardExt(ext),
            body: request.frame.body.clone(),
            timeout_ms: waits_ms.clamp(0, POLL_MS_MAX) + ANSWER_WAIT_MS,
        }
    }
}

impl ForwardAnswer {
    /// The replica that was asked does not lead.
    pub(super) fn is_not_leader(&self) -> bool {
        self.ext.has(NOT_LEADER)
    }
}

impl From<ForwardAnswer> for Reply {
    fn from(answer: ForwardAnswer) -> Self {
        let ForwardAnswer { code, remark, ext, body } = answer;
        let mut reply = Reply::new(code).with_ext(ext);
        reply.remark = remark.map(Into::into);
        if body.is_empty() { reply } else { reply.with_body(body) }
    }
}

/// The refusal of a forwarded request by a replica that does not lead.
pub(super) fn not_leader() -> Reply {
    Reply::error(ResponseCode::SERVICE_NOT_AVAILABLE, "service not available now: this node does not lead")
        .with_ext(ForwardExt(vec![(NOT_LEADER.to_owned(), "true".to_owned())]))
}
