//! Requests from the broker to a client that the client answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::WriteExt;
use apogee_net::io::{Chunk, ConnectionId};
use apogee_storage::Buffer;
use bytes::Bytes;
use smallvec::SmallVec;

use super::action::{Action, Push};
use super::state::Shard;
use crate::service::Request;

/// Calls that clients have not answered yet; one more fails.
pub const CALLS_MAX: usize = 16_384;

/// What a client answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientAnswer {
    pub code: ResponseCode,
    pub remark: Option<String>,
    pub ext: Vec<(String, String)>,
    pub body: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    #[error("the client did not answer within {0} ms")]
    Timeout(i64),
    #[error("the client's connection closed")]
    Closed,
    #[error("{CALLS_MAX} calls to clients are unanswered already")]
    Full,
}

/// Called once, with the client's answer or the reason why there is none.
pub(super) type OnAnswer<B> = Box<dyn FnOnce(&mut Shard<B>, Result<ClientAnswer, CallError>, i64)>;

/// Names a call on its connection: the request's opaque.
type CallId = (ConnectionId, i32);

struct Call<B> {
    deadline_ms: i64,
    timeout_ms: i64,
    then: OnAnswer<B>,
}

/// Calls that wait for their answers. Each stands in both maps.
pub(super) struct Calls<B> {
    waiting: BTreeMap<CallId, Call<B>>,
    by_deadline: BTreeSet<(i64, CallId)>,
    next_opaque: i32,
}

impl<B> Default for Calls<B> {
    fn default() -> Self {
        Calls { waiting: BTreeMap::new(), by_deadline: BTreeSet::new(), next_opaque: 1 }
    }
}

impl<B> fmt::Debug for Calls<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Calls({} waiting)", self.waiting.len())
    }
}

impl<B> Calls<B> {
    pub(super) fn next_deadline_ms(&self) -> Option<i64> {
        self.by_deadline.first().map(|&(deadline_ms, _)| deadline_ms)
    }

    fn remove(&mut self, id: CallId) -> Option<Call<B>> {
        let call = self.waiting.remove(&id)?;
        self.by_deadline.remove(&(call.deadline_ms, id));
        Some(call)
    }
}

impl<B: Buffer + 'static> Shard<B> {
    /// Asks the client behind a connection something. Without an answer in time the call fails, and an answer that
    /// comes later is dropped.
    #[expect(clippy::too_many_arguments, reason = "a request has that many parts")]
    pub(super) fn call(
        &mut self,
        to: ConnectionId,
        code: RequestCode,
        ext: Box<dyn WriteExt>,
        body: SmallVec<[Chunk; 2]>,
        now_ms: i64,
        timeout_ms: i64,
        then: OnAnswer<B>,
    ) {
        if self.calls.waiting.len() >= CALLS_MAX {
            return then(self, Err(CallError::Full), now_ms);
        }
        let opaque = self.calls.next_opaque;
        self.calls.next_opaque = opaque.checked_add(1).unwrap_or(1);
        let (id, deadline_ms) = ((to, opaque), now_ms + timeout_ms);
        self.calls.waiting.insert(id, Call { deadline_ms, timeout_ms, then });
        self.calls.by_deadline.insert((deadline_ms, id));
        let push = Push { code, ext, body, answered_as: Some(opaque) };
        self.act(Action::Push { to, push });
    }

    /// A client answered. Answers to nothing, as after a time-out, are dropped.
    pub fn on_answer(&mut self, answer: &Request<'_>, now_ms: i64) {
        let header = &answer.header;
        let Some(call) = self.calls.remove((answer.connection, header.opaque)) else { return };
        let ext = header.ext.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let answer = ClientAnswer {
            code: ResponseCode(header.code),
            remark: header.remark.as_deref().map(str::to_owned),
            ext,
            body: answer.body.clone(),
        };
        (call.then)(self, Ok(answer), now_ms);
    }

    pub(super) fn fail_late_calls(&mut self, now_ms: i64) {
        while let Some(&(deadline_ms, id)) = self.calls.by_deadline.first()
            && deadline_ms <= now_ms
        {
            let call = self.calls.remove(id).expect("a deadline belongs to a call");
            (call.then)(self, Err(CallError::Timeout(call.timeout_ms)), now_ms);
        }
    }

    pub(super) fn fail_calls_to(&mut self, connection: ConnectionId, now_ms: i64) {
        while let Some((&id, _)) =
            self.calls.waiting.range((connection, i32::MIN)..=(connection, i32::MAX)).next()
        {
            let call = self.calls.remove(id).expect("it was found just now");
            (call.then)(self, Err(CallError::Closed), now_ms);
        }
    }
}
