//! What waits for the log, and what follows when the log has decided.

use std::borrow::Cow;
use std::collections::VecDeque;

use apogee_net::code::ResponseCode;
use apogee_net::message::OffsetMessageId;
use apogee_net::request::SendMessageReply;
use apogee_storage::{Buffer, Placed, Ticket};

use super::action::Action;
use super::record::REGION;
use super::refusal::Refusal;
use super::state::Shard;
use crate::service::{Reply, ReplyTo};

/// What follows when an append is durable.
#[derive(Debug)]
pub(super) enum Then {
    Nothing,
    /// Messages: tell the producer where they are.
    Sent(Sent),
    /// A change of a topic: tell the NameServers, then whoever asked for it.
    Register(Option<ReplyTo>),
    /// Any other change: tell whoever asked for it.
    Succeed(Option<ReplyTo>),
}

/// A producer that waits for its acknowledgement.
#[derive(Debug)]
pub(super) struct Sent {
    pub to: ReplyTo,
    pub queue_id: i32,
    /// The message's own id; of a batch, none.
    pub unique_key: Option<String>,
}

/// In the order of tickets, which is that of staging and of commit.
#[derive(Debug, Default)]
pub(super) struct Waiters(VecDeque<Waiter>);

#[derive(Debug)]
struct Waiter {
    first_ticket: Ticket,
    count: u32,
    then: Then,
}

impl Waiters {
    pub(super) fn push(&mut self, first_ticket: Ticket, count: u32, then: Then) {
        if let Some(last) = self.0.back() {
            assert!(
                last.first_ticket.0 + u64::from(last.count) == first_ticket.0,
                "tickets follow each other"
            );
        }
        self.0.push_back(Waiter { first_ticket, count, then });
    }

    /// The oldest, if all its tickets lie below `end`.
    fn pop_below(&mut self, end: u64) -> Option<Waiter> {
        let front = self.0.front()?;
        (front.first_ticket.0 + u64::from(front.count) <= end).then(|| self.0.pop_front())?
    }
}

impl<B: Buffer + 'static> Shard<B> {
    /// Acknowledges what became durable, wakes who waited for it, and refuses what failed.
    pub(super) fn settle_appends(&mut self) {
        while let Some(committed) = self.log.take_committed() {
            let first = committed.first_ticket.0;
            while let Some(waiter) = self.waiters.pop_below(first + committed.places.len() as u64) {
                let at = (waiter.first_ticket.0 - first) as usize;
                self.follow(waiter.then, &committed.places[at..][..waiter.count as usize]);
            }
            for grown in &committed.queues {
                self.wake_pulls(grown.queue, grown.from);
            }
        }
        while let Some(failed) = self.log.take_failed() {
            let reason = failed.cause.to_string();
            while let Some(waiter) = self.waiters.pop_below(failed.first_ticket.0 + failed.count) {
                self.fail(waiter.then, &reason);
            }
        }
    }

    fn follow(&mut self, then: Then, places: &[Placed]) {
        match then {
            Then::Nothing => {}
            Then::Sent(sent) => {
                let to = sent.to;
                let reply = self.acknowledge(sent, places);
                self.reply(Some(to), reply);
            }
            Then::Register(to) => {
                self.act(Action::Register { then: to.map(|to| (to, Reply::success())) });
            }
            Then::Succeed(to) => self.reply(to, Reply::success()),
        }
    }

    fn acknowledge(&self, sent: Sent, places: &[Placed]) -> Reply {
        let mut message_ids = String::new();
        for place in places {
            if !message_ids.is_empty() {
                message_ids.push(',');
            }
            let id =
                OffsetMessageId { host: self.config.address, physical_offset: place.log_offset.0 as i64 };
            message_ids.push_str(&id.to_hex());
        }
        Reply::success().with_ext(SendMessageReply {
            msg_id: message_ids.into(),
            queue_id: sent.queue_id,
            queue_offset: places[0].queue_offset.0 as i64,
            transaction_id: sent.unique_key.map(Cow::Owned),
            batch_uniq_id: None,
            recall_handle: None,
            region: Some(REGION.into()),
            trace_on: Some(true),
        })
    }

    /// The append will not be acknowledged: not stored, or nobody knows.
    pub(super) fn fail(&mut self, then: Then, reason: &str) {
        let to = match then {
            Then::Nothing => None,
            Then::Sent(sent) => Some(sent.to),
            Then::Register(to) | Then::Succeed(to) => to,
        };
        let refusal =
            Refusal::new(ResponseCode::SERVICE_NOT_AVAILABLE, format!("service not available now: {reason}"));
        self.reply(to, refusal.into());
    }
}
