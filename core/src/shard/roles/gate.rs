//! Who answers a request: this node, or the leader.

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::io::ConnectionId;
use apogee_storage::{Buffer, NodeId};
use bytes::Bytes;

use super::Standing;
use super::forward::{self, ForwardAnswer, ForwardFailed, ForwardId, ForwardRequest, PAUSE_MS};
use super::held::{HELD_MAX, HeldRequest};
use crate::replication::Role;
use crate::service::{Reply, Request};
use crate::shard::action::Action;
use crate::shard::cold::ColdPages;
use crate::shard::handlers::{AnsweredBy, answered_by};
use crate::shard::load::LoadError;
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

/// Held requests that one turn answers or forwards; others follow at once in the next.
const MOVED_PER_TURN: usize = 256;

/// How long a deposed leader has for answering what was forwarded to it.
const RECALL_AFTER_MS: i64 = 300;

/// Where a request that needs the leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Here,
    To(NodeId),
    /// Nobody is known to lead.
    Nowhere,
}

impl<B: Buffer + 'static> Shard<B> {
    /// Whether this node answers the request now. Otherwise it is to be [held](Self::hold).
    pub(in crate::shard) fn answers(&self, request: &Request<'_>, now_ms: i64) -> bool {
        let Some(roles) = &self.roles else { return true };
        match answered_by(request.code()) {
            AnsweredBy::Each => true,
            AnsweredBy::Any => self.has_tables(),
            // Nobody overtakes who waits already.
            AnsweredBy::Leader => {
                roles.held.is_empty() && self.leads(now_ms) && self.may_go(request.code(), now_ms)
            }
        }
    }

    /// Locks are granted when those of the last master have run out.
    fn may_go(&self, code: RequestCode, now_ms: i64) -> bool {
        let waits = matches!(code, RequestCode::LOCK_BATCH_MQ | RequestCode::UNLOCK_BATCH_MQ);
        !waits || self.roles.as_ref().is_none_or(|roles| roles.locks_from_ms <= now_ms)
    }

    /// Keeps a request until there is a leader to answer it.
    pub(in crate::shard) fn hold(&mut self, request: &Request<'_>, now_ms: i64) {
        let roles = self.group_roles();
        if request.is_forwarded && !matches!(roles.replica.role(), Role::Leader { .. }) {
            return self.reply(request.reply_to(), forward::not_leader());
        }
        if !roles.held.has_room(request) {
            if request.code() != RequestCode::QUERY_CONSUMER_OFFSET {
                let remark = format!("{HELD_MAX} requests wait for a leader already");
                self.reply(request.reply_to(), Refusal::not_stored(&remark).into());
            }
            return;
        }
        roles.held.push(HeldRequest::copy_of(request, now_ms));
        self.move_held(now_ms);
    }

    fn way(&self, now_ms: i64) -> Way {
        let Some(roles) = &self.roles else { return Way::Here };
        match roles.replica.role() {
            Role::Leader { .. } if self.leads(now_ms) => Way::Here,
            Role::Follower { leader: Some(leader) }
                if roles.standing == Standing::Slave && roles.forward_from_ms <= now_ms =>
            {
                Way::To(leader)
            }
            _ => Way::Nowhere,
        }
    }

    /// Nobody will say who leads: this node is outside of the group, and out of sight of the others.
    fn is_stranded(&self) -> bool {
        let replica = self.roles.as_ref().map(|roles| &roles.replica);
        replica.is_some_and(|replica| replica.is_outside() && !replica.is_connected())
    }

    /// Answers what was held, or forwards it, as far as that is possible now.
    pub(super) fn move_held(&mut self, now_ms: i64) {
        let Some(roles) = &mut self.roles else { return };
        roles.has_more_to_move = false;
        for _ in 0..MOVED_PER_TURN {
            if self.group_roles().held.is_empty() {
                return;
            }
            let way = self.way(now_ms);
            if way == Way::Nowhere {
                if self.is_stranded() {
                    self.refuse_late(i64::MAX);
                }
                return;
            }
            let may_lock = self.may_go(RequestCode::LOCK_BATCH_MQ, now_ms);
            let may_go = |request: &HeldRequest| {
                let waits = matches!(request.code, RequestCode::LOCK_BATCH_MQ | RequestCode::UNLOCK_BATCH_MQ);
                way != Way::Here || may_lock || !waits
            };
            let Some((at, request)) = self.group_roles().held.pop(may_go) else { return };
            match way {
                Way::To(leader) => self.forward_held(at, request, leader),
                Way::Here | Way::Nowhere => self.answer_held(request, now_ms),
            }
        }
        self.group_roles().has_more_to_move = true;
    }

    fn forward_held(&mut self, at: u64, request: HeldRequest, to: NodeId) {
        if request.is_forwarded {
            return self.reply(request.to, forward::not_leader());
        }
        let forwarded = ForwardRequest::of(&request);
        // Nobody waits for the answer to a oneway request.
        let id = request.to.map(|_| self.group_roles().held.keep_forwarded(at, request, to));
        self.act(Action::Forward { id, to, request: forwarded });
    }

    /// The leader has answered, or it is not known what became of the request.
    pub fn on_forwarded(&mut self, id: ForwardId, result: Result<ForwardAnswer, ForwardFailed>, now_ms: i64) {
        let Some(roles) = &mut self.roles else { return };
        let Some(request) = roles.held.take_forwarded(id) else { return };
        match result {
            Ok(answer) if !answer.is_not_leader() => self.reply(request.to, answer.into()),
            Ok(_) | Err(ForwardFailed) => {
                roles.forward_from_ms = now_ms + PAUSE_MS;
                roles.held.give_back(id, request);
                self.refuse_late(now_ms);
                self.move_held(now_ms);
            }
        }
    }

    /// Another node leads, and whoever was asked before has had time to say what became of the requests: those that it did
    /// not answer, for it cannot be reached or stands still, go to the new leader.
    pub(super) fn recall_forwarded(&mut self, now_ms: i64) {
        let leader = self.leader();
        let Some(roles) = &mut self.roles else { return };
        if leader.is_some() && leader != roles.asked {
            roles.asked = leader;
            roles.recall_at_ms = Some(now_ms + RECALL_AFTER_MS);
        }
        if roles.recall_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            roles.recall_at_ms = None;
            roles.held.recall_from_others(roles.asked);
        }
    }

    fn answer_held(&mut self, request: HeldRequest, now_ms: i64) {
        let decoded = Request::decode_again(request.connection, request.peer, &request.frame);
        if let Err(ColdPages { index, range }) = self.answer_here(&decoded, now_ms) {
            drop(decoded);
            let then = move |shard: &mut Self, loaded: Result<Bytes, LoadError>, now_ms| match loaded {
                Ok(_) => shard.answer_held(request, now_ms),
                Err(error) => shard.reply(request.to, Refusal::not_stored(&error.to_string()).into()),
            };
            self.load_cold(ColdPages { index, range }, now_ms, Box::new(then));
        }
    }

    /// Refuses what has waited long enough.
    pub(super) fn refuse_late(&mut self, now_ms: i64) {
        let Some(roles) = &mut self.roles else { return };
        for request in roles.held.take_late(now_ms) {
            // Any error makes a 4.x consumer begin at the end of its queue; without an answer it asks again.
            if request.code != RequestCode::QUERY_CONSUMER_OFFSET {
                self.reply(request.to, no_leader());
            }
        }
    }

    pub(in crate::shard) fn drop_held_of(&mut self, connection: ConnectionId) {
        if let Some(roles) = &mut self.roles {
            roles.held.on_connection_closed(connection);
        }
    }
}

/// A code on which producers try another broker.
fn no_leader() -> Reply {
    Reply::error(
        ResponseCode::SERVICE_NOT_AVAILABLE,
        "service not available now: no node of the group leads, or can be reached",
    )
}
