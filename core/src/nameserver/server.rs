use std::time::Duration;

use apogee_net::frame::FRAME_BYTES_MAX;
use apogee_net::io::{Chunk, ConnectionId};
use bytes::Bytes;

use crate::service::{Reply, Request};

use super::config::NameServerConfig;
use super::handlers;
use super::kv::KvConfig;
use super::refusal::Refusal;
use super::routes::{Removed, Routes};

/// How often [`NameServer::on_tick`] wants to be called: RocketMQ's `scanNotActiveBrokerInterval`.
pub const TICK_PERIOD: Duration = Duration::from_secs(5);

/// Room for a reply's header in its frame.
const REPLY_HEADER_BYTES_MAX: usize = 64 * 1024;

/// One NameServer.
///
/// `now_ms` is everywhere a clock that never jumps, such as milliseconds since the process started: after a step of
/// the wall clock every broker would look silent at once.
///
/// Order of calls: after each [`handle`](Self::handle), [`on_connection_closed`](Self::on_connection_closed) and
/// [`on_tick`](Self::on_tick) perform what [`poll_action`](Self::poll_action) gives until it gives nothing, then
/// send the reply. So a change is on disk before it is acknowledged.
pub struct NameServer {
    pub(super) config: NameServerConfig,
    pub(super) routes: Routes,
    pub(super) kv: KvConfig,
    pub(super) started_ms: i64,
    /// Connections of expired brokers.
    to_close: Vec<ConnectionId>,
}

/// What the driver has to do for the NameServer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Replace the KV file by these bytes, whole or not at all.
    PersistKv(Bytes),
    /// Close this connection if it is still open.
    CloseConnection { connection: ConnectionId, reason: &'static str },
}

impl NameServer {
    /// A NameServer that knows no broker yet.
    pub fn new(config: NameServerConfig, kv: KvConfig, now_ms: i64) -> Self {
        Self { config, routes: Routes::default(), kv, started_ms: now_ms, to_close: Vec::new() }
    }

    /// Answers a request. The reply is to be dropped if the request is oneway.
    pub fn handle(&mut self, request: &Request<'_>, now_ms: i64) -> Reply {
        let reply = handlers::dispatch(self, request, now_ms).and_then(fitting_one_frame);
        reply.unwrap_or_else(|refusal| {
            tracing::debug!(
                connection = %request.connection, peer = %request.peer, code = %request.code(), "refused: {refusal}"
            );
            refusal.into_reply()
        })
    }

    /// Forgets the brokers that registered on this connection: it is the first sign of their end
    /// (`BrokerHousekeepingService`).
    pub fn on_connection_closed(&mut self, connection: ConnectionId) {
        for removed in self.routes.remove_of_connection(connection) {
            log_removed(&removed, "its connection closed");
        }
    }

    /// Forgets the brokers that have been silent for longer than they promised, and closes their connections
    /// (`RouteInfoManager#scanNotActiveBroker`).
    pub fn on_tick(&mut self, now_ms: i64) {
        for removed in self.routes.remove_expired(now_ms) {
            log_removed(&removed, "it was silent for too long");
            self.to_close.push(removed.connection);
        }
    }

    /// Each broker name with a master, and of which election that is.
    #[cfg(test)]
    pub(crate) fn masters(&self) -> Vec<(String, i64)> {
        self.routes.masters().map(|(name, term)| (name.to_owned(), term)).collect()
    }

    /// Whether any broker of that name is known.
    #[cfg(test)]
    pub(crate) fn knows(&self, broker_name: &str) -> bool {
        self.routes.knows(broker_name)
    }

    /// From now on any master is taken, of an earlier election, too: to show that it is noticed.
    #[cfg(test)]
    pub(crate) fn forget_to_fence(&mut self) {
        self.routes.forget_to_fence();
    }

    /// The next thing to do, if any.
    pub fn poll_action(&mut self) -> Option<Action> {
        if let Some(connection) = self.to_close.pop() {
            return Some(Action::CloseConnection {
                connection,
                reason: "its broker was silent for too long",
            });
        }
        self.kv.take_unsaved().map(Action::PersistKv)
    }
}

fn fitting_one_frame(reply: Reply) -> Result<Reply, Refusal> {
    let body_bytes: usize = reply.body.iter().map(Chunk::len).sum();
    if body_bytes > FRAME_BYTES_MAX - REPLY_HEADER_BYTES_MAX {
        return Err(Refusal::ReplyTooLarge { body_bytes });
    }
    Ok(reply)
}

fn log_removed(removed: &Removed, why: &str) {
    tracing::info!(
        broker = %removed.broker_name, id = removed.broker_id, addr = %removed.addr,
        connection = %removed.connection, "broker removed: {why}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_no_frame_holds_is_refused_instead_of_lost() {
        let body_bytes_max = FRAME_BYTES_MAX - REPLY_HEADER_BYTES_MAX;
        let with_body = |bytes: usize| fitting_one_frame(Reply::success().with_body(vec![0; bytes]));
        assert!(with_body(body_bytes_max).is_ok());
        let refused = with_body(body_bytes_max + 1);
        assert!(
            matches!(refused, Err(Refusal::ReplyTooLarge { body_bytes }) if body_bytes == body_bytes_max + 1)
        );
    }
}
