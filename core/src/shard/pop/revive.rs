//! Messages whose time is up come again, through the retry topic of their group and topic.
//!
//! A message is read back and staged in the retry topic together with the record that takes it out of its check point:
//! both are durable or neither, so it comes again exactly once, whenever the broker stops.

use apogee_net::message::{PropertyEdit, RetryKind, StoredMessage, property};
use apogee_storage::{Append, Buffer, QueueKey, QueueOffset};
use bytes::Bytes;

use super::super::commit::Then;
use super::super::control::ControlRecord;
use super::super::load::{LoadError, Wanted};
use super::super::record::{NewMessage, ShardRecord};
use super::super::state::Shard;
use super::super::topics::{Topic, TopicNumber};
use super::record::PopRecord;
use super::retry_topic::{normal_topic, pop_retry_topic, retry_kind};
use super::table::{Due, Expired};

/// Check points whose messages are read back and written at once. While there are so many, others wait.
const REVIVING_MAX: usize = 128;

/// Check points that one tick begins with, each of up to 32 messages: some 100 µs when all are in memory.
const REVIVES_PER_TICK_MAX: usize = 8;

/// Bytes of messages that are gathered of one check point before they are written; the rest follows.
const REVIVE_BYTES_AT_ONCE: usize = 1 << 20;

/// How long to wait after the log or the disk has refused.
const RETRY_AFTER_MS: i64 = 1_000;

/// Messages of a check point on their way.
struct Revival {
    expired: Expired,
    pop_ms: i64,
    /// Not read yet, the next one last.
    left: Vec<u64>,
    read: Vec<(u64, Bytes)>,
    read_bytes: usize,
    /// No longer there to come again.
    missing: Vec<u64>,
}

impl<B: Buffer + 'static> Shard<B> {
    /// When a tick has something to revive.
    pub(super) fn revive_at_ms(&self) -> Option<i64> {
        self.pops.next_due_ms().filter(|_| self.popping.reviving < REVIVING_MAX)
    }

    pub(super) fn revive(&mut self, now_ms: i64) {
        for _ in 0..REVIVES_PER_TICK_MAX {
            if self.popping.reviving >= REVIVING_MAX {
                return;
            }
            let Some(Due { group, queue, check_point, .. }) = self.pops.poll_due(now_ms) else { return };
            match check_point {
                Some(id) => self.start_revival(Expired { group, queue, id }, now_ms),
                None => self.wake_pops_of(&group, TopicNumber::of(queue).0, now_ms),
            }
        }
    }

    fn start_revival(&mut self, expired: Expired, now_ms: i64) {
        let Expired { ref group, queue, id } = expired;
        let Some(pop_ms) = self.pops.pop_ms(group, queue, id) else { return };
        let mut left = self.pops.pending(group, queue, id).to_vec();
        left.reverse();
        self.popping.reviving += 1;
        let revival = Revival { expired, pop_ms, left, read: Vec::new(), read_bytes: 0, missing: Vec::new() };
        self.read_next(revival, now_ms);
    }

    fn read_next(&mut self, mut revival: Revival, now_ms: i64) {
        let is_enough = revival.read_bytes >= REVIVE_BYTES_AT_ONCE;
        let Some(offset) = revival.left.pop_if(|_| !is_enough) else {
            return self.stage_revival(revival, now_ms);
        };
        let wanted = Wanted::Entry(revival.expired.queue, QueueOffset(offset));
        let then = move |shard: &mut Shard<B>, read: Result<Bytes, LoadError>, now_ms| {
            match read {
                Ok(bytes) => {
                    revival.read_bytes += bytes.len();
                    revival.read.push((offset, bytes));
                }
                Err(LoadError::Missing) => revival.missing.push(offset),
                // What was read so far is written; this and the others are tried again.
                Err(_) => return shard.stage_revival(revival, now_ms),
            }
            shard.read_next(revival, now_ms);
        };
        self.load(wanted, now_ms, Box::new(then));
    }

    fn stage_revival(&mut self, revival: Revival, now_ms: i64) {
        let Revival { expired, pop_ms, left: _, read, read_bytes: _, missing } = revival;
        let Expired { ref group, queue, id } = expired;
        // Acknowledged meanwhile, or deleted with its topic or group.
        let pending = self.pops.pending(group, queue, id);
        let is_pending = |offset: &u64| pending.binary_search(offset).is_ok();
        let read: Vec<_> = read.into_iter().filter(|(offset, _)| is_pending(offset)).collect();
        let mut done: Vec<u64> = missing.into_iter().filter(is_pending).collect();
        if read.is_empty() && done.is_empty() {
            return self.end_revival(expired, now_ms + RETRY_AFTER_MS);
        }
        let Some(retry_topic) = self.ensure_pop_retry_topic(group, queue, now_ms) else {
            return self.end_revival(expired, now_ms + RETRY_AFTER_MS);
        };
        let mut appends = Vec::with_capacity(read.len());
        for (offset, bytes) in read {
            // Bytes that are no message cannot come again in any form.
            appends.extend(self.revived(&bytes, pop_ms, &retry_topic));
            done.push(offset);
        }
        done.sort_unstable();
        let acked = PopRecord::Acked { group: group.to_string(), queue, check_point: id, offsets: done };
        self.pops.mark_staged(&expired);
        let for_then = expired.clone();
        let then = Then::Do(Box::new(move |shard: &mut Shard<B>, result: Result<_, &str>, now_ms| {
            let group = for_then.group.clone();
            let retry_at_ms = if result.is_ok() { now_ms } else { now_ms + RETRY_AFTER_MS };
            let normal = shard.normal_topic_of(&group, for_then.queue);
            shard.end_revival(for_then, retry_at_ms);
            if let Some(topic) = normal {
                shard.wake_pops_of(&group, topic, now_ms);
            }
        }));
        if self.stage_with(appends, vec![ControlRecord::Pop(acked)], then, now_ms).is_err() {
            self.end_revival(expired, now_ms + RETRY_AFTER_MS);
        }
    }

    /// What is still pending is looked at again.
    fn end_revival(&mut self, expired: Expired, retry_at_ms: i64) {
        self.popping.reviving -= 1;
        self.pops.retry_at(expired, retry_at_ms);
    }

    /// The topic that a group pops to get messages of `queue`, be it that topic's or a retry topic's.
    fn normal_topic_of(&self, group: &str, queue: QueueKey) -> Option<TopicNumber> {
        let topic = self.topics.by_number(TopicNumber::of(queue).0)?;
        Some(self.topics.get(normal_topic(&topic.config().topic_name, group))?.number())
    }

    /// What was popped, and how far, of a topic or group that is deleted.
    pub(in crate::shard) fn forget(&mut self, deleted: &ControlRecord) {
        match deleted {
            // Swept out by and by.
            ControlRecord::TopicDelete { number, .. } => self.offsets.remove_topic(*number),
            deleted => self.offsets.apply(deleted),
        }
        self.pops.apply(deleted);
        self.resets.apply(deleted);
        self.forbidden.apply(deleted);
    }

    /// The topics from which messages of a topic come again to the groups that consume it.
    pub(in crate::shard) fn pop_retry_topics_of(&self, topic: &str) -> Vec<String> {
        let Some(number) = self.topics.get(topic).map(Topic::number) else { return Vec::new() };
        let groups = self.offsets.groups_of(number, None);
        let names = groups
            .flat_map(|group| [RetryKind::V1, RetryKind::V2].map(|kind| pop_retry_topic(kind, group, topic)));
        names.filter(|name| self.topics.get(name).is_some()).collect()
    }

    /// Where messages of `queue` come again: messages of a retry topic in the same.
    fn ensure_pop_retry_topic(&mut self, group: &str, queue: QueueKey, now_ms: i64) -> Option<String> {
        let name = &self.topics.by_number(TopicNumber::of(queue).0)?.config().topic_name;
        let name = match retry_kind(name) {
            RetryKind::Normal => pop_retry_topic(RetryKind::V1, group, name),
            RetryKind::V1 | RetryKind::V2 => name.clone(),
        };
        if let Some(record) = self.topics.ensure_pop_retry_topic(&name, now_ms).ok()? {
            self.journal(record, Then::Register(None), now_ms);
        }
        Some(name)
    }

    /// The message as it comes again (`PopReviveService#reviveRetry`).
    fn revived(&self, stored: &Bytes, pop_ms: i64, retry_topic: &str) -> Option<Append<ShardRecord>> {
        let message = StoredMessage::decode(stored).ok()?;
        let queue = self.topics.get(retry_topic)?.queue_to_write(0)?;
        let body = stored.slice_ref(message.body);
        let pop_ms = pop_ms.to_string();
        let first_pop = [(property::FIRST_POP_TIME, pop_ms.as_str())];
        let is_first =
            message.reconsume_times == 0 || message.properties.get(property::FIRST_POP_TIME).is_none();
        let set = if is_first { &first_pop[..] } else { &[] };
        let append = |set| {
            let properties = PropertyEdit { received: message.properties.0, set, remove: &[] };
            let address = self.config.address;
            let copy = NewMessage::copy_of(&message, body.clone(), address, (retry_topic, 0), properties);
            let again = NewMessage {
                born_host: address,
                reconsume_times: message.reconsume_times.saturating_add(1),
                ..copy
            };
            again.into_append(queue).ok()
        };
        // Properties that were as long as they may be have no room for one more.
        append(set).or_else(|| append(&[]))
    }
}
