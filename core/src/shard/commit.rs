//! What waits for the log, and what follows when the log has decided.
//!
//! A change of a table is logged in one of two ways. **Table first** ([`Shard::journal`]): the table has changed
//! already, so its record must get into the log, whatever becomes of this try. **Log first** ([`Shard::stage_with`]):
//! the record stands in one batch with the messages it belongs to, and is applied to its table once it is durable, as
//! it would be by a replay; when it fails, nothing has happened.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;

use apogee_net::code::ResponseCode;
use apogee_net::message::OffsetMessageId;
use apogee_net::request::SendMessageReply;
use apogee_storage::format::BatchKind;
use apogee_storage::{
    Buffer, Durability, FailedAppends, FailureCause, Grown, Placed, QueueKey, Staged, Ticket,
};

use super::action::Action;
use super::control::ControlRecord;
use super::record::REGION;
use super::refusal::Refusal;
use super::roles::HELD_MS_MAX;
use super::state::Shard;
use super::stats::Totals;
use super::topics::TopicNumber;
use crate::service::{Reply, ReplyTo};

/// What follows when an append is durable.
pub(super) enum Then<B> {
    Nothing,
    /// Messages: tell the producer where they are.
    Sent(Sent),
    /// A change of a topic: tell the NameServers, then whoever asked for it.
    Register(Option<ReplyTo>),
    /// Any other change: tell whoever asked for it.
    Succeed(Option<ReplyTo>),
    /// Answer with this.
    Reply(Option<ReplyTo>, Reply),
    /// Anything else: is given the places of the messages, not of changes, or why they are not stored.
    Do(OnSettled<B>),
}

pub(super) type OnSettled<B> = Box<dyn FnOnce(&mut Shard<B>, Result<&[Placed], &str>, i64)>;

impl<B> fmt::Debug for Then<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Then::Nothing => f.write_str("Nothing"),
            Then::Sent(sent) => write!(f, "Sent({sent:?})"),
            Then::Register(to) => write!(f, "Register({to:?})"),
            Then::Succeed(to) => write!(f, "Succeed({to:?})"),
            Then::Reply(to, reply) => write!(f, "Reply({to:?}, {reply:?})"),
            Then::Do(_) => f.write_str("Do"),
        }
    }
}

/// A producer that waits for its acknowledgement.
#[derive(Debug)]
pub(super) struct Sent {
    pub to: ReplyTo,
    pub queue_id: i32,
    /// The message's own id, or that of the batch.
    pub unique_key: Option<String>,
    /// The producer takes its batch for one message, as in a topic with a queue of batches (`queue.type=BatchCQ`).
    pub is_inner_batch: bool,
    /// By which a message that waits for its time can be recalled.
    pub recall_handle: Option<String>,
}

/// In the order of tickets, which is that of staging and of commit.
#[derive(Debug)]
pub(super) struct Waiters<B>(VecDeque<Waiter<B>>);

#[derive(Debug)]
struct Waiter<B> {
    first_ticket: Ticket,
    count: u32,
    staged_ms: i64,
    /// When its turn began, for [`Stages`](super::stages::Stages).
    received_ns: u64,
    changes: Changes,
    then: Then<B>,
}

/// The changes among what was staged; they stand behind the messages.
#[derive(Debug)]
pub(super) enum Changes {
    None,
    /// Its table has changed already.
    Made(ControlRecord),
    /// Their tables change when all of it is durable.
    ToApply(Vec<ControlRecord>),
}

impl IntoIterator for Changes {
    type Item = ControlRecord;
    type IntoIter = std::vec::IntoIter<ControlRecord>;

    fn into_iter(self) -> Self::IntoIter {
        match self {
            Changes::None => Vec::new(),
            Changes::Made(change) => vec![change],
            Changes::ToApply(changes) => changes,
        }
        .into_iter()
    }
}

impl Changes {
    fn len(&self) -> usize {
        match self {
            Changes::None => 0,
            Changes::Made(_) => 1,
            Changes::ToApply(changes) => changes.len(),
        }
    }
}

impl<B> Default for Waiters<B> {
    fn default() -> Self {
        Waiters(VecDeque::new())
    }
}

impl<B> Waiters<B> {
    pub(super) fn push(
        &mut self,
        staged: Staged,
        changes: Changes,
        then: Then<B>,
        staged_ms: i64,
        received_ns: u64,
    ) {
        let Staged { first_ticket, count, .. } = staged;
        if let Some(last) = self.0.back() {
            let end = last.first_ticket.0 + u64::from(last.count);
            assert!(end <= first_ticket.0, "ticket {first_ticket} behind {end}");
        }
        self.0.push_back(Waiter { first_ticket, count, staged_ms, received_ns, changes, then });
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// When the one was staged that waits longest.
    pub(super) fn oldest_ms(&self) -> Option<i64> {
        self.0.front().map(|waiter| waiter.staged_ms)
    }

    /// Whether a change that its table has made is on its way.
    pub(super) fn have_changes(&self) -> bool {
        self.0.iter().any(|waiter| matches!(waiter.changes, Changes::Made(_)))
    }

    /// What would follow from the shard's own work; the changes themselves wait on.
    pub(super) fn take_callbacks(&mut self) -> Vec<Then<B>> {
        self.take_thens(|waiter| matches!(waiter.then, Then::Do(_)))
    }

    fn take_thens(&mut self, which: impl Fn(&Waiter<B>) -> bool) -> Vec<Then<B>> {
        let taken = self.0.iter_mut().filter(|waiter| which(waiter));
        taken.map(|waiter| std::mem::replace(&mut waiter.then, Then::Nothing)).collect()
    }

    /// The newest, if its tickets lie at or above `first`.
    fn pop_from(&mut self, first: u64) -> Option<Waiter<B>> {
        let back = self.0.back()?;
        (back.first_ticket.0 >= first).then(|| self.0.pop_back())?
    }

    /// The oldest, if all its tickets lie below `end`.
    fn pop_below(&mut self, end: u64) -> Option<Waiter<B>> {
        let front = self.0.front()?;
        (front.first_ticket.0 + u64::from(front.count) <= end).then(|| self.0.pop_front())?
    }
}

impl<B: Buffer + 'static> Shard<B> {
    /// Acknowledges what became durable, wakes who waited for it, and refuses what failed.
    pub(super) fn settle_appends(&mut self, now_ms: i64) {
        while let Some(committed) = self.log.take_committed() {
            let is_master = self.is_master();
            if !committed.control.is_empty() && committed.kind != BatchKind::Configuration {
                self.apply_control(&committed.control, now_ms);
            }
            let first = committed.first_ticket.0;
            let is_durable = self.log.config().durability == Durability::Sync;
            let mut settled = self.stages.on_committed(&committed, is_durable, now_ms);
            while let Some(waiter) = self.waiters.pop_below(first + committed.places.len() as u64) {
                let at = (waiter.first_ticket.0 - first) as usize;
                let messages = waiter.count as usize - waiter.changes.len();
                match waiter.changes {
                    Changes::ToApply(changes) if is_master => {
                        changes.iter().for_each(|change| self.apply_logged(change));
                    }
                    Changes::Made(_) if is_master => {}
                    changes => {
                        let places = &committed.places[at + messages..];
                        for (change, place) in changes.into_iter().zip(places) {
                            self.apply_own_change(place.log_offset, change, now_ms);
                        }
                    }
                }
                if let Then::Sent(sent) = &waiter.then {
                    settled.request(waiter.received_ns, sent, committed.places[at].log_offset);
                    self.stats.put_latency.add(now_ms.saturating_sub(waiter.staged_ms).unsigned_abs());
                }
                self.follow(waiter.then, &committed.places[at..][..messages], now_ms);
            }
            self.stages.settled(settled);
            for grown in &committed.queues {
                if is_master {
                    self.count_puts(grown);
                }
                self.wake_pulls(grown.queue, grown.from, now_ms);
                if self.is_working() {
                    self.wake_pops(grown.queue, now_ms);
                }
            }
        }
        while let Some(failed) = self.log.take_failed() {
            self.on_failed(&failed, now_ms);
        }
    }

    /// Answers whoever has waited so long for what the group decides on: it may come or not.
    pub(super) fn fail_late_waiters(&mut self, now_ms: i64) {
        if self.is_master() {
            return;
        }
        for then in self.waiters.take_thens(|waiter| now_ms - waiter.staged_ms >= HELD_MS_MAX) {
            self.fail(then, "the group has not decided", now_ms);
        }
    }

    fn count_puts(&mut self, grown: &Grown) {
        if grown.queue == QueueKey::CONTROL {
            return;
        }
        let (topic, _) = TopicNumber::of(grown.queue);
        let put = Totals { messages: grown.records.into(), bytes: grown.bytes };
        let topics = &self.topics;
        let is_system =
            || topics.by_number(topic).is_some_and(|topic| topics.is_system(&topic.config().topic_name));
        self.stats.on_put(topic, put, is_system);
    }

    /// Changes the table of a record that was logged first, as a replay would.
    fn apply_logged(&mut self, change: &ControlRecord) {
        match change {
            ControlRecord::Timer(record) => self.timers.apply(record),
            ControlRecord::Transaction(record) => self.transactions.table.apply(record),
            ControlRecord::Pop(_) => self.pops.apply(change),
            ControlRecord::TopicPut { .. }
            | ControlRecord::TopicDelete { .. }
            | ControlRecord::GroupPut { .. }
            | ControlRecord::GroupDelete { .. }
            | ControlRecord::Offsets(_)
            | ControlRecord::TopicTableState { .. }
            | ControlRecord::GroupTableState { .. }
            | ControlRecord::BrokerSettings(_)
            | ControlRecord::RequestMode(_)
            | ControlRecord::Forbidden(_)
            | ControlRecord::OffsetReset(_) => {
                unreachable!("{:?} changes its table first", change.kind())
            }
        }
    }

    /// Those that failed are the newest: older ones may still be on their way to the disk.
    ///
    /// Messages that found no space are refused. Changes are not: their tables have made them already, so they wait
    /// for space, in front of everything else.
    fn on_failed(&mut self, failed: &FailedAppends, now_ms: i64) {
        let reason = failed.cause.to_string();
        let mut refused = Vec::new();
        while let Some(waiter) = self.waiters.pop_from(failed.first_ticket.0) {
            match (waiter.changes, &failed.cause) {
                (Changes::Made(change), FailureCause::NoSpace(_)) => {
                    self.unlogged.push_front((change, waiter.then));
                }
                (Changes::Made(_), _) => {
                    self.on_change_lost();
                    refused.push(waiter.then);
                }
                _ => refused.push(waiter.then),
            }
        }
        for then in refused.into_iter().rev() {
            self.fail(then, &reason, now_ms);
        }
    }

    fn follow(&mut self, then: Then<B>, places: &[Placed], now_ms: i64) {
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
            Then::Reply(to, reply) => self.reply(to, reply),
            Then::Do(settled) => settled(self, Ok(places), now_ms),
        }
    }

    fn acknowledge(&self, sent: Sent, places: &[Placed]) -> Reply {
        // An inner batch has the id of its first message, and no others.
        let named = if sent.is_inner_batch { &places[..1] } else { places };
        let mut message_ids = String::new();
        for place in named {
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
            batch_uniq_id: sent.unique_key.clone().filter(|_| sent.is_inner_batch).map(Cow::Owned),
            transaction_id: sent.unique_key.map(Cow::Owned),
            recall_handle: sent.recall_handle.map(Cow::Owned),
            region: Some(REGION.into()),
            trace_on: Some(self.settings.trace_on),
        })
    }

    /// The append will not be acknowledged: not stored, or nobody knows.
    pub(super) fn fail(&mut self, then: Then<B>, reason: &str, now_ms: i64) {
        let to = match then {
            Then::Nothing => None,
            Then::Sent(sent) => {
                self.stats.on_put_failed();
                Some(sent.to)
            }
            Then::Register(to) | Then::Succeed(to) | Then::Reply(to, _) => to,
            Then::Do(settled) => return settled(self, Err(reason), now_ms),
        };
        let refusal =
            Refusal::new(ResponseCode::SERVICE_NOT_AVAILABLE, format!("service not available now: {reason}"));
        self.reply(to, refusal.into());
    }
}
