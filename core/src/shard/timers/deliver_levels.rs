//! Delay levels: messages of a level's queue come due in order, each as long after it was stored as the level says.

use apogee_net::message::StoredMessages;
use apogee_storage::{Buffer, QueueOffset, ReadLimits};
use bytes::Bytes;

use super::copy;
use super::levels::{DelayLevel, Head};
use super::record::TimerRecord;
use super::window::RETRY_MS;
use crate::shard::commit::Then;
use crate::shard::control::ControlRecord;
use crate::shard::load::{LoadError, Wanted};
use crate::shard::state::Shard;

/// What is read and delivered of one level at once.
const AT_ONCE: ReadLimits = ReadLimits { messages_max: 256, bytes_max: 512 << 10, examine_max: 256 };

/// No message's offset.
const NOT_LOOKED_AT: QueueOffset = QueueOffset(u64::MAX);

impl<B: Buffer + 'static> Shard<B> {
    pub(super) fn advance_levels(&mut self, now_ms: i64) {
        for level in DelayLevel::all() {
            self.advance_level(level, now_ms);
        }
    }

    /// Begins to deliver what is due of one level, unless something of it is under way.
    fn advance_level(&mut self, level: DelayLevel, now_ms: i64) {
        let state = &self.timers.levels[level.index()];
        let is_waiting = state.is_busy || now_ms < state.resume_at_ms;
        if is_waiting || self.timers.is_stopping() {
            return;
        }
        let queue = self.timers.level_queue(level);
        // What retention took is passed over, as RocketMQ does.
        let next = self.timers.table.level_next(level).max(self.log.min_offset(queue));
        if next >= self.log.max_offset(queue) {
            self.timers.levels[level.index()].head = None;
            return;
        }
        let delay_ms = self.config.timers.levels.delay_ms(level);
        if self.timers.levels[level.index()].head.is_none_or(|head| head.offset != next) {
            let head = match self.log.entry(queue, next) {
                Ok(entry) => entry.map(|entry| Head { offset: next, due_ms: entry.store_time_ms + delay_ms }),
                Err(_) => return self.warm_level(level, next, now_ms),
            };
            self.timers.levels[level.index()].head = head;
        }
        if self.timers.levels[level.index()].head.is_none_or(|head| head.due_ms > now_ms) {
            return;
        }
        // Only what stands in front of the first that is not due.
        let mut is_due = true;
        let plan = self.log.plan_read(queue, next, AT_ONCE, |entry| {
            is_due &= entry.store_time_ms + delay_ms <= now_ms;
            is_due
        });
        if plan.messages == 0 {
            return self.warm_level(level, next, now_ms);
        }
        self.timers.levels[level.index()].is_busy = true;
        self.load_plan(
            plan.runs,
            now_ms,
            Box::new(move |shard, messages, now_ms| shard.deliver_level(level, next, messages, now_ms)),
        );
    }

    /// Brings the index pages of a level's first message into memory, by reading it.
    fn warm_level(&mut self, level: DelayLevel, next: QueueOffset, now_ms: i64) {
        self.timers.levels[level.index()].is_busy = true;
        let wanted = Wanted::Entry(self.timers.level_queue(level), next);
        self.load(
            wanted,
            now_ms,
            Box::new(move |shard, message, now_ms| {
                let state = &mut shard.timers.levels[level.index()];
                state.is_busy = false;
                // Shortly, not at once: what was brought may be gone again.
                state.resume_at_ms = if message.is_ok() { now_ms + 1 } else { now_ms + RETRY_MS };
                // Some time that is past wakes the shard then; the true one is found out.
                state.head = Some(Head { offset: NOT_LOOKED_AT, due_ms: now_ms });
            }),
        );
    }

    /// Messages of a level were read, those from `next` on: all are due.
    fn deliver_level(
        &mut self,
        level: DelayLevel,
        mut next: QueueOffset,
        messages: Result<Bytes, LoadError>,
        now_ms: i64,
    ) {
        let messages = match messages {
            Ok(messages) => messages,
            Err(error) => {
                tracing::warn!(level = level.number(), %error, "delayed messages cannot be read");
                return self.on_level_settled(level, false, now_ms);
            }
        };
        let mut appends = Vec::new();
        for stored in StoredMessages::new(&messages) {
            let stored = match stored {
                Ok(stored) => stored,
                Err(error) if appends.is_empty() => {
                    tracing::error!(level = level.number(), offset = next.0, %error, "a delayed message is damaged");
                    next = next.next();
                    break;
                }
                // Comes first the next time.
                Err(_) => break,
            };
            next = next.next();
            let append = copy::delivered(&self.topics, self.config.address, &messages, &stored, &[]);
            if append.is_none() {
                let (offset, topic) = (stored.queue_offset, stored.topic);
                tracing::warn!(
                    topic,
                    queue = stored.queue_id,
                    offset,
                    "a delayed message has no topic any more"
                );
            }
            appends.extend(append);
        }
        let progress = ControlRecord::Timer(TimerRecord::Level { level, next });
        let then = Then::Do(Box::new(move |shard: &mut Shard<B>, result: Result<_, &str>, now_ms| {
            shard.on_level_settled(level, result.is_ok(), now_ms);
        }));
        if self.stage_with(appends, vec![progress], then, now_ms).is_err() {
            self.on_level_settled(level, false, now_ms);
        }
    }

    fn on_level_settled(&mut self, level: DelayLevel, is_delivered: bool, now_ms: i64) {
        let state = &mut self.timers.levels[level.index()];
        state.is_busy = false;
        if is_delivered {
            self.advance_level(level, now_ms);
        } else {
            state.resume_at_ms = now_ms + RETRY_MS;
        }
    }
}
