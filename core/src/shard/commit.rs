//! What waits for the log, and what follows when the log has decided.

use std::borrow::Cow;
use std::collections::VecDeque;

use apogee_net::code::ResponseCode;
use apogee_net::message::OffsetMessageId;
use apogee_net::request::SendMessageReply;
use apogee_storage::{Buffer, FailedAppends, FailureCause, Placed, Staged, Ticket};

use super::action::Action;
use super::control::ControlRecord;
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
    /// The change that was staged, if it was one: it must get into the log, whatever becomes of this try.
    change: Option<ControlRecord>,
    then: Then,
}

impl Waiters {
    pub(super) fn push(&mut self, staged: Staged, change: Option<ControlRecord>, then: Then) {
        let Staged { first_ticket, count, .. } = staged;
        if let Some(last) = self.0.back() {
            let end = last.first_ticket.0 + u64::from(last.count);
            assert!(end <= first_ticket.0, "ticket {first_ticket} behind {end}");
        }
        self.0.push_back(Waiter { first_ticket, count, change, then });
    }

    /// The newest, if its tickets lie at or above `first`.
    fn pop_from(&mut self, first: u64) -> Option<Waiter> {
        let back = self.0.back()?;
        (back.first_ticket.0 >= first).then(|| self.0.pop_back())?
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
            self.on_failed(&failed);
        }
    }

    /// Those that failed are the newest: older ones may still be on their way to the disk.
    ///
    /// Messages that found no space are refused. Changes are not: their tables have made them already, so they wait
    /// for space, in front of everything else.
    fn on_failed(&mut self, failed: &FailedAppends) {
        let reason = failed.cause.to_string();
        let mut refused = Vec::new();
        while let Some(waiter) = self.waiters.pop_from(failed.first_ticket.0) {
            match (waiter.change, &failed.cause) {
                (Some(change), FailureCause::NoSpace(_)) => self.unlogged.push_front((change, waiter.then)),
                _ => refused.push(waiter.then),
            }
        }
        for then in refused.into_iter().rev() {
            self.fail(then, &reason);
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
