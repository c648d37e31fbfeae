//! What time does to transactions: their producers are asked, and some are given up.

use std::borrow::Cow;

use apogee_net::code::RequestCode;
use apogee_net::io::{Chunk, ConnectionId};
use apogee_net::message::{MessageRecord, Place, PropertyEdit, StoredMessage, property};
use apogee_net::request::CheckTransactionStateRequest;
use apogee_storage::{Buffer, QueueKey, QueueOffset};
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::Pending;
use super::end::Outcome;
use crate::shard::action::{Action, Push};
use crate::shard::commit::Then;
use crate::shard::control::ControlRecord;
use crate::shard::load::{LoadError, Wanted};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;
use crate::shard::topics;

/// Half messages read for one tick: some 5 µs each.
const READS_PER_TICK: usize = 32;

/// Half messages being read at once.
const READS_MAX: usize = 64;

/// Pause before a half message that could not be read, or written anew, is tried again.
const RETRY_MS: i64 = 1_000;

/// Checks are logged together, this often: a crash forgets no more.
const CHECKS_LOGGED_EVERY_MS: i64 = 1_000;

/// Half messages are written anew this long before their segment leaves by age.
const LEAVING_AHEAD_MS: i64 = 600_000;

impl<B: Buffer + 'static> Shard<B> {
    /// Does some of what is due; the rest is for the next tick.
    pub(in crate::shard) fn transactions_tick(&mut self, now_ms: i64) {
        if !self.transactions.table.is_empty() {
            self.save_leaving_halves(now_ms);
            self.start_checks(now_ms);
        }
        if now_ms - self.transactions.checks_logged_at_ms >= CHECKS_LOGGED_EVERY_MS {
            self.transactions.checks_logged_at_ms = now_ms;
            self.log_checks(now_ms);
        }
    }

    /// When the next check falls due.
    pub(in crate::shard) fn transactions_wake_at_ms(&self) -> Option<i64> {
        let (check_at_ms, _) = self.transactions.table.next_check()?;
        (self.transactions.reading.len() < READS_MAX)
            .then_some(check_at_ms.max(self.transactions.no_checks_before_ms))
    }

    pub(in crate::shard) fn log_checks(&mut self, now_ms: i64) {
        while let Some(checked) = self.transactions.table.take_checked() {
            self.journal(ControlRecord::Transaction(checked), Then::Nothing, now_ms);
        }
    }

    fn start_checks(&mut self, now_ms: i64) {
        if now_ms < self.transactions.no_checks_before_ms {
            return;
        }
        let next_ms = now_ms.saturating_add(self.settings.transaction_check_interval_ms.into());
        for _ in 0..READS_PER_TICK {
            let due = self.transactions.table.next_check().filter(|(check_at_ms, _)| *check_at_ms <= now_ms);
            let Some((_, half)) = due else { return };
            if self.transactions.reading.len() >= READS_MAX {
                return;
            }
            self.transactions.table.postpone(half, next_ms);
            if self.transactions.open(half).is_some() {
                self.read_half(half, now_ms, Shard::check_transaction);
            }
        }
    }

    /// Half messages of a segment that is about to leave can have no verdict any more: they are moved in time.
    fn save_leaving_halves(&mut self, now_ms: i64) {
        let Some(below) = self.log.leaving_below(now_ms, LEAVING_AHEAD_MS) else { return };
        let queue = self.half_queue();
        let transactions = &self.transactions;
        let oldest =
            transactions.table.from(QueueOffset(0)).filter(|half| transactions.open(*half).is_some());
        for half in oldest.take(READS_PER_TICK).collect::<SmallVec<[_; READS_PER_TICK]>>() {
            // Where the index has to be loaded first, the message itself tells.
            let stays = matches!(self.log.entry(queue, half), Ok(Some(entry)) if entry.log_offset >= below);
            if stays || self.transactions.reading.len() >= READS_MAX {
                return;
            }
            self.read_half(half, now_ms, move |shard, pending, message, now_ms| {
                if StoredMessage::decode(&message).is_ok_and(|half| half.physical_offset < below.0 as i64) {
                    shard.give_up(pending, &message, now_ms);
                }
            });
        }
    }

    /// Reads a half message; `then` follows if it still has no verdict and is there.
    fn read_half(
        &mut self,
        half: QueueOffset,
        now_ms: i64,
        then: impl FnOnce(&mut Shard<B>, Pending, Bytes, i64) + 'static,
    ) {
        let queue = self.half_queue();
        if !self.transactions.reading.insert(half) {
            return;
        }
        let on_loaded = move |shard: &mut Shard<B>, loaded: Result<Bytes, LoadError>, now_ms: i64| {
            shard.transactions.reading.remove(&half);
            let Some(pending) = shard.transactions.open(half) else { return };
            match loaded {
                Ok(message) => then(shard, pending, message, now_ms),
                Err(LoadError::Missing) => shard.forget_transaction(half, now_ms),
                Err(_) => {
                    shard.transactions.table.postpone(half, now_ms.saturating_add(RETRY_MS));
                }
            }
        };
        self.load(Wanted::Entry(queue, half), now_ms, Box::new(on_loaded));
    }

    /// Asks a producer, or gives up. Without a producer the check counts nevertheless
    /// (`TransactionalMessageServiceImpl#check`).
    fn check_transaction(&mut self, pending: Pending, message: Bytes, now_ms: i64) {
        if pending.checks >= self.settings.transaction_checks_max {
            return self.give_up(pending, &message, now_ms);
        }
        let next_ms = now_ms.saturating_add(self.settings.transaction_check_interval_ms.into());
        self.transactions.table.count_check(pending.half, next_ms);
        let Ok(half) = StoredMessage::decode(&message) else { return };
        let group = half.properties.get(property::PRODUCER_GROUP);
        if let Some(producer) = group.and_then(|group| self.clients.next_producer(group)) {
            self.ask_producer(producer, &half, pending.checks + 1);
        }
    }

    /// `AbstractTransactionalMessageCheckListener#sendCheckMessage`.
    fn ask_producer(&mut self, to: ConnectionId, half: &StoredMessage<'_>, checks: u32) {
        let Some((topic, queue_id)) = real_place(half) else { return };
        let unique_key = half.properties.get(property::UNIQUE_KEY);
        let request = CheckTransactionStateRequest {
            topic: topics::HALF.into(),
            tran_state_table_offset: half.queue_offset,
            commit_log_offset: half.physical_offset,
            msg_id: unique_key.map(|key| Cow::Owned(key.to_owned())),
            transaction_id: unique_key.map(|key| Cow::Owned(key.to_owned())),
            offset_msg_id: Some(half.offset_message_id().to_string().into()),
            broker_name: Some(self.config.broker_name.clone().into()),
        };
        let mut digits = itoa::Buffer::new();
        let set = [(property::TRANSACTION_CHECK_TIMES, digits.format(checks))];
        let body = MessageRecord {
            topic,
            queue_id,
            flag: half.flag,
            sys_flag: half.sys_flag,
            born_timestamp: half.born_timestamp,
            born_host: half.born_host,
            store_host: half.store_host,
            reconsume_times: half.reconsume_times,
            prepared_transaction_offset: half.prepared_transaction_offset,
            body: half.body,
            properties: PropertyEdit { received: half.properties.0, set: &set, remove: &[] },
        };
        // With one property more it may be too large for a message: then it cannot be asked about.
        let Ok(len) = body.encoded_len() else { return };
        let place = Place {
            queue_offset: half.queue_offset,
            physical_offset: half.physical_offset,
            store_timestamp: half.store_timestamp,
        };
        let mut bytes = vec![0; len];
        body.encode(place, &mut bytes);
        let code = RequestCode::CHECK_TRANSACTION_STATE;
        let body = smallvec![Chunk::Bytes(bytes.into())];
        let push = Push { code, ext: Box::new(request), body, answered_as: None };
        self.act(Action::Push { to, push });
    }

    /// Moves a half message that will have no verdict to where an administrator finds it
    /// (`DefaultTransactionalMessageCheckListener#resolveDiscardMsg`).
    fn give_up(&mut self, pending: Pending, message: &Bytes, now_ms: i64) {
        if self.try_give_up(pending, message, now_ms).is_err() {
            self.transactions.table.postpone(pending.half, now_ms.saturating_add(RETRY_MS));
        }
    }

    fn try_give_up(&mut self, pending: Pending, message: &Bytes, now_ms: i64) -> Result<(), Refusal> {
        self.check_changes_flow()?;
        if let Some(record) = self.topics.ensure_checked_too_often(now_ms)? {
            self.journal(record, Then::Register(None), now_ms);
        }
        self.end_transaction(pending, message, Outcome::GivenUp, None, now_ms)
    }

    /// The half message has left the log before it could be moved.
    fn forget_transaction(&mut self, half: QueueOffset, now_ms: i64) {
        if let Some(ended) = self.transactions.table.end(half) {
            self.journal(ControlRecord::Transaction(ended), Then::Nothing, now_ms);
        }
    }

    pub(in crate::shard) fn half_queue(&self) -> QueueKey {
        self.topics.get(topics::HALF).expect("a topic that every broker has").number().queue(0)
    }
}

/// The topic and queue that a half message is meant for.
pub(in crate::shard) fn real_place<'a>(half: &StoredMessage<'a>) -> Option<(&'a str, i32)> {
    let topic = half.properties.get(property::REAL_TOPIC)?;
    let queue_id: i32 = half.properties.get(property::REAL_QUEUE_ID)?.parse().ok()?;
    (queue_id >= 0).then_some((topic, queue_id))
}
