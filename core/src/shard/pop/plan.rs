//! What a pop gives out: looked up first, without any change, then taken.

use std::sync::Arc;

use apogee_net::message::RetryKind;
use apogee_storage::{Buffer, IndexFault, QueueKey, QueueOffset, ReadLimits, Run};
use bytes::Bytes;
use smallvec::SmallVec;

use super::super::commit::Then;
use super::super::control::ControlRecord;
use super::super::filter::Filter;
use super::super::handlers::Unanswered;
use super::super::offsets::OffsetError;
use super::super::pull::PULL_BYTES_DEFAULT;
use super::super::refusal::Refusal;
use super::super::state::Shard;
use super::super::topics::TopicNumber;
use super::deliver::Delivery;
use super::order::Order;
use super::record::PoppedQueue;
use super::retry_topic::pop_retry_topic;
use crate::service::ReplyTo;

/// Messages of one pop (`PopMessageProcessor`).
pub const POP_MESSAGES_MAX: i32 = 32;

/// Queues that one pop looks at, at some 100 ns each; of a topic with more, others the next time.
const QUEUES_PER_POP_MAX: u32 = 1024;

/// Index entries that one pop looks at, over all queues.
const EXAMINE_MAX: u32 = 16_384;

/// One pop in so many looks into the retry topic first (`popFromRetryProbability` is 20 %), the others last.
const RETRY_FIRST_EVERY: u32 = 5;

/// `ConsumeInitMode.MIN`
const INIT_MODE_MIN: i32 = 0;

/// A pop that passed its checks.
#[derive(Clone, Debug)]
pub(in crate::shard) struct Pop {
    pub group: Arc<str>,
    pub topic: TopicNumber,
    /// Negative: all queues.
    pub queue_id: i32,
    pub messages_max: u32,
    pub invisible_ms: i64,
    pub filter: Filter,
    pub is_ordered: bool,
    pub attempt_id: Option<Box<str>>,
    pub init_mode: i32,
}

/// A queue that a pop looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct PopSource {
    pub kind: RetryKind,
    pub queue_id: i32,
    pub queue: QueueKey,
}

/// What a pop would give out.
#[derive(Debug)]
pub(super) struct Plan<B> {
    queues: SmallVec<[FoundQueue<B>; 4]>,
    /// Queues in which the filter takes nothing up to an offset, and those that the group is new to.
    moved: SmallVec<[(QueueKey, QueueOffset); 4]>,
    /// Messages that the group has not been given yet.
    pub rest: i64,
    /// There may be more behind what was looked at.
    pub is_cut_short: bool,
}

impl<B> Default for Plan<B> {
    fn default() -> Self {
        Plan { queues: SmallVec::new(), moved: SmallVec::new(), rest: 0, is_cut_short: false }
    }
}

/// Messages of one queue.
#[derive(Debug)]
pub(super) struct FoundQueue<B> {
    pub source: PopSource,
    pub start: u64,
    pub next: u64,
    pub offsets: Vec<u64>,
    pub messages: Messages<B>,
}

/// Where messages are, in the order of their offsets.
#[derive(Debug)]
pub(super) enum Messages<B> {
    Runs(SmallVec<[Run<B>; 4]>),
    Loaded(SmallVec<[Bytes; 2]>),
}

impl<B> Messages<B> {
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Messages::Runs(runs) => runs.iter().map(Run::bytes).sum(),
            Messages::Loaded(loaded) => loaded.iter().map(|piece| piece.len() as u64).sum(),
        }
    }
}

/// What became of a pop.
#[derive(Debug)]
pub(in crate::shard) enum Popped {
    /// The answer follows when the check points are durable.
    Given {
        rest: i64,
    },
    Nothing {
        rest: i64,
        is_cut_short: bool,
    },
}

impl<B: Buffer + 'static> Shard<B> {
    /// Gives out what there is, to be answered to `to`. A fault is met only in front of all that could be given. Not
    /// for expressions, see [`sift`](Shard::sift).
    pub(in crate::shard) fn pop(
        &mut self,
        pop: &Pop,
        to: Option<ReplyTo>,
        now_ms: i64,
    ) -> Result<Popped, Unanswered> {
        self.pop_hears_of_resets(&pop.group, pop.topic, now_ms);
        let plan = self.plan_pop(pop, now_ms)?;
        Ok(self.give(pop, plan, to, now_ms)?)
    }

    /// Gives out what was planned.
    pub(super) fn give(
        &mut self,
        pop: &Pop,
        plan: Plan<B>,
        to: Option<ReplyTo>,
        now_ms: i64,
    ) -> Result<Popped, OffsetError> {
        let Plan { queues, moved, rest, is_cut_short } = plan;
        self.popping.turn = self.popping.turn.wrapping_add(1);
        for (queue, offset) in moved {
            self.offsets.commit(&pop.group, queue, offset)?;
        }
        if queues.is_empty() {
            return Ok(Popped::Nothing { rest, is_cut_short });
        }
        let order_counts = pop.is_ordered.then(String::new);
        let mut delivery = Delivery::new(pop, now_ms, rest, order_counts);
        let mut records = if pop.is_ordered {
            self.take_ordered(pop, &queues, &mut delivery, now_ms)
        } else {
            self.take(pop, &queues, now_ms)
        };
        delivery.add(queues);
        let deliver =
            Then::Do(Box::new(move |shard: &mut Shard<B>, result: Result<_, &str>, now_ms| {
                match (to, result) {
                    (Some(to), Ok(_)) => shard.deliver_popped(delivery, to, now_ms),
                    (to, Err(reason)) => shard.reply(to, Refusal::not_durable(reason).into()),
                    (None, Ok(_)) => {}
                }
            }));
        let last = records.pop().expect("a record for what was found");
        for record in records {
            self.journal(record, Then::Nothing, now_ms);
        }
        self.journal(last, deliver, now_ms);
        Ok(Popped::Given { rest })
    }

    fn take(&mut self, pop: &Pop, queues: &[FoundQueue<B>], now_ms: i64) -> SmallVec<[ControlRecord; 1]> {
        let popped = queues.iter().map(|found| PoppedQueue {
            queue: found.source.queue,
            start: found.start,
            next: found.next,
            offsets: found.offsets.clone(),
        });
        let due_ms = now_ms.saturating_add(pop.invisible_ms);
        let record = self.pops.pop(&pop.group, now_ms, due_ms, popped.collect());
        self.offsets.apply(&record);
        SmallVec::from_iter([record])
    }

    fn take_ordered(
        &mut self,
        pop: &Pop,
        queues: &[FoundQueue<B>],
        delivery: &mut Delivery<B>,
        now_ms: i64,
    ) -> SmallVec<[ControlRecord; 1]> {
        let times = (now_ms, now_ms.saturating_add(pop.invisible_ms));
        let record = |found: &FoundQueue<B>| {
            let queue = found.source.queue;
            let before = self.pops.order(&pop.group, queue);
            let order = Order::next(before, pop.attempt_id.as_deref(), times, &found.offsets);
            delivery.count_order(&order, found.source.queue_id);
            let record = self.pops.pop_ordered(&pop.group, queue, found.start, order);
            self.offsets.apply(&record);
            record
        };
        queues.iter().map(record).collect()
    }

    fn plan_pop(&self, pop: &Pop, now_ms: i64) -> Result<Plan<B>, IndexFault> {
        let mut plan = Plan { queues: SmallVec::new(), moved: SmallVec::new(), rest: 0, is_cut_short: false };
        let mut left = Left { messages: pop.messages_max, bytes: PULL_BYTES_DEFAULT, examine: EXAMINE_MAX };
        for source in self.pop_sources(pop.topic, &pop.group, pop.queue_id, pop.is_ordered) {
            if let Err(fault) = self.plan_queue(pop, source, &mut left, &mut plan, now_ms) {
                plan.is_cut_short = true;
                if plan.queues.is_empty() {
                    return Err(fault);
                }
                break;
            }
        }
        Ok(plan)
    }

    /// The queues that a pop looks at, in their order: one, or all by turns, and the group's retry topic in front of
    /// them or behind.
    pub(in crate::shard) fn pop_sources(
        &self,
        topic: TopicNumber,
        group: &str,
        queue_id: i32,
        is_ordered: bool,
    ) -> SmallVec<[PopSource; 16]> {
        let mut sources = SmallVec::new();
        let Some(topic) = self.topics.by_number(topic) else { return sources };
        let turn = self.popping.turn;
        let retries = [RetryKind::V1, RetryKind::V2].into_iter().filter(|_| !is_ordered).filter_map(|kind| {
            let name = pop_retry_topic(kind, group, &topic.config().topic_name);
            let queue = self.topics.get(&name)?.queue_to_read(0)?;
            Some(PopSource { kind, queue_id: 0, queue })
        });
        let retries: SmallVec<[PopSource; 2]> = retries.collect();
        let is_retry_first = turn.is_multiple_of(RETRY_FIRST_EVERY);
        if is_retry_first {
            sources.extend_from_slice(&retries);
        }
        let normal = |queue_id: i32| {
            let queue = topic.queue_to_read(queue_id)?;
            Some(PopSource { kind: RetryKind::Normal, queue_id, queue })
        };
        if queue_id < 0 {
            let queues = topic.config().read_queue_nums.max(0) as u32;
            let nth = |nth: u32| normal((turn.wrapping_add(nth) % queues) as i32);
            sources.extend((0..queues.min(QUEUES_PER_POP_MAX)).filter_map(nth));
        } else {
            sources.extend(normal(queue_id));
        }
        if !is_retry_first {
            sources.extend_from_slice(&retries);
        }
        sources
    }

    /// Where the group is in a queue, moved to what the queue holds; the second value tells that the group is new to
    /// the queue, or was moved.
    pub(in crate::shard) fn pop_position(
        &self,
        group: &str,
        source: PopSource,
        init_mode: i32,
    ) -> (QueueOffset, bool) {
        let (min, max) = (self.log.min_offset(source.queue), self.log.max_offset(source.queue));
        match self.offsets.query(group, source.queue) {
            Some(offset) => (offset.clamp(min, max), offset < min || offset > max),
            None if init_mode == INIT_MODE_MIN || source.kind != RetryKind::Normal => (min, true),
            // A young topic is consumed from its first message (`initPopOffsetByCheckMsgInMem`), another from its last.
            None if min == QueueOffset(0) && self.holds_first_message_in_memory(source.queue) => (min, true),
            None => (QueueOffset(max.0.saturating_sub(1)), true),
        }
    }

    /// Whether a pop takes something of a queue, and from where.
    pub(super) fn look(
        &self,
        pop: &Pop,
        source: PopSource,
        left: &Left,
        plan: &mut Plan<B>,
        now_ms: i64,
    ) -> Look {
        let queue = source.queue;
        // What lies behind blocked messages counts not as waiting: it would wake pops that get nothing.
        if pop.is_ordered && self.pops.is_blocked(&pop.group, queue, pop.attempt_id.as_deref(), now_ms) {
            return Look::Away;
        }
        let (from, is_new) = self.pop_position(&pop.group, source, pop.init_mode);
        let max = self.log.max_offset(queue);
        let has_room = match pop.is_ordered {
            true => self.pops.has_room_for_order(&pop.group, queue),
            false => self.pops.has_room(&pop.group, queue),
        };
        let is_held = self.popping.is_sifted(&pop.group, queue);
        if is_new && !is_held {
            plan.moved.push((queue, from));
        }
        if left.messages == 0 || !has_room || from == max || is_held {
            plan.rest += (max.0 - from.0) as i64;
            return Look::Away;
        }
        if left.examine == 0 || left.bytes == 0 {
            plan.is_cut_short = true;
            plan.rest += (max.0 - from.0) as i64;
            return Look::Away;
        }
        Look::At { from, max }
    }

    fn plan_queue(
        &self,
        pop: &Pop,
        source: PopSource,
        left: &mut Left,
        plan: &mut Plan<B>,
        now_ms: i64,
    ) -> Result<(), IndexFault> {
        let Look::At { from, max } = self.look(pop, source, left, plan, now_ms) else { return Ok(()) };
        let limits =
            ReadLimits { messages_max: left.messages, bytes_max: left.bytes, examine_max: left.examine };
        let mut offset = from.0;
        let mut offsets = Vec::new();
        let read = self.log.plan_read(source.queue, from, limits, |entry| {
            let is_wanted = pop.filter.may_match_hash(entry.tag_hash);
            if is_wanted {
                offsets.push(offset);
            }
            offset += 1;
            is_wanted
        });
        // The filter saw one more than fits, perhaps.
        offsets.truncate(read.messages as usize);
        left.messages -= read.messages;
        left.bytes = left.bytes.saturating_sub(read.bytes);
        left.examine = left.examine.saturating_sub(read.examined);
        plan.found(source, (from, read.next_offset, max), offsets, Messages::Runs(read.runs));
        read.fault.map_or(Ok(()), Err)
    }
}

/// Whether a queue has something for a pop.
pub(super) enum Look {
    Away,
    At { from: QueueOffset, max: QueueOffset },
}

impl<B> Plan<B> {
    /// The filter takes nothing in front of `next`.
    pub(super) fn passed_over(&mut self, source: PopSource, next: QueueOffset) {
        self.moved.push((source.queue, next));
    }

    /// What was found of a queue between `from` and `next`.
    pub(super) fn found(
        &mut self,
        source: PopSource,
        (from, next, max): (QueueOffset, QueueOffset, QueueOffset),
        offsets: Vec<u64>,
        messages: Messages<B>,
    ) {
        self.rest += (max.0 - next.0) as i64;
        if !offsets.is_empty() {
            self.queues.push(FoundQueue { source, start: from.0, next: next.0, offsets, messages });
        } else if next > from {
            self.passed_over(source, next);
            self.is_cut_short |= next < max;
        }
    }
}

/// What a pop may still take.
pub(super) struct Left {
    pub messages: u32,
    pub bytes: u64,
    /// Messages looked at.
    pub examine: u32,
}

impl Left {
    pub(super) fn of(pop: &Pop) -> Self {
        Left { messages: pop.messages_max, bytes: PULL_BYTES_DEFAULT, examine: EXAMINE_MAX }
    }
}
