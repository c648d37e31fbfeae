//! Messages that wait for a time of their own, and how far each delay level has come: what a shard's log says of them.

use std::collections::BTreeMap;

use apogee_storage::QueueOffset;
use rustc_hash::FxHashMap;

use super::levels::{DELAY_LEVELS_MAX, DelayLevel};
use super::record::{TimerId, TimerPut, TimerRecord};
use crate::shard::control::ControlRecord;
use crate::shard::topics::TopicNumber;

/// Messages of one shard that wait in the timer topic; one more is refused. A timer takes about 90 bytes here, whatever its
/// message's size, so a full table takes some 360 MB.
pub const TIMERS_MAX: usize = 4_000_000;

/// Timers of one record of a snapshot: about 64 KiB.
const TIMERS_PER_RECORD: usize = 4_096;

/// Trees, not hash tables: those stand still for hundreds of milliseconds when a million entries outgrow them.
#[derive(Debug, Default, PartialEq)]
pub struct TimerTable {
    timers: BTreeMap<TimerId, Timer>,
    /// Due time of each timer, by the hash of its key.
    by_key: BTreeMap<(u32, QueueOffset), i64>,
    /// Timers per topic; none of zero.
    counts: FxHashMap<TopicNumber, u64>,
    /// The first message of each level's queue that was not delivered.
    levels: [QueueOffset; DELAY_LEVELS_MAX],
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Timer {
    key_hash: u32,
    topic: TopicNumber,
}

impl TimerTable {
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    pub fn contains(&self, id: TimerId) -> bool {
        self.timers.contains_key(&id)
    }

    /// The topic to deliver to.
    pub fn topic_of(&self, id: TimerId) -> Option<TopicNumber> {
        self.timers.get(&id).map(|timer| timer.topic)
    }

    /// The first timer at or above `from`.
    pub fn next(&self, from: TimerId) -> Option<TimerId> {
        self.timers.range(from..).next().map(|(id, _)| *id)
    }

    /// Timers whose key has this hash. Keys may share a hash: whoever asks compares them.
    pub fn with_key(&self, key_hash: u32) -> impl Iterator<Item = TimerId> {
        let range = (key_hash, QueueOffset(0))..=(key_hash, QueueOffset(u64::MAX));
        self.by_key.range(range).map(|((_, offset), due_ms)| TimerId { due_ms: *due_ms, offset: *offset })
    }

    /// How many messages wait for each topic, in no order.
    pub fn counts(&self) -> impl Iterator<Item = (TopicNumber, u64)> {
        self.counts.iter().map(|(topic, count)| (*topic, *count))
    }

    pub fn level_next(&self, level: DelayLevel) -> QueueOffset {
        self.levels[level.index()]
    }

    /// Repeats a logged change, or a record of a snapshot. What is done already is not done again: a timer stands in a
    /// record that ends it exactly once, unless something is wrong that must not keep a broker from starting.
    pub fn apply(&mut self, record: &TimerRecord) {
        match record {
            TimerRecord::Put(timers) => timers.iter().for_each(|timer| self.put(*timer)),
            TimerRecord::Done(timers) => timers.iter().for_each(|id| self.remove(*id)),
            TimerRecord::Level { level, next } => self.levels[level.index()] = *next,
        }
    }

    fn put(&mut self, TimerPut { id, key_hash, topic }: TimerPut) {
        self.remove(id);
        self.timers.insert(id, Timer { key_hash, topic });
        self.by_key.insert((key_hash, id.offset), id.due_ms);
        *self.counts.entry(topic).or_default() += 1;
    }

    fn remove(&mut self, id: TimerId) {
        let Some(Timer { key_hash, topic }) = self.timers.remove(&id) else { return };
        self.by_key.remove(&(key_hash, id.offset));
        let count = self.counts.get_mut(&topic).expect("every timer is counted");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&topic);
        }
    }

    /// Records that rebuild the whole table, for a snapshot.
    pub fn snapshot(&self) -> impl Iterator<Item = ControlRecord> {
        let levels = DelayLevel::all().filter_map(|level| {
            let next = self.level_next(level);
            (next > QueueOffset(0)).then_some(TimerRecord::Level { level, next })
        });
        let mut left = self.timers.iter();
        let timers = std::iter::from_fn(move || {
            let put = |(id, timer): (&TimerId, &Timer)| TimerPut {
                id: *id,
                key_hash: timer.key_hash,
                topic: timer.topic,
            };
            let timers: Vec<_> = left.by_ref().take(TIMERS_PER_RECORD).map(put).collect();
            (!timers.is_empty()).then_some(TimerRecord::Put(timers))
        });
        levels.chain(timers).map(ControlRecord::Timer)
    }
}

/// CRC-32C of `topic+key`, as RocketMQ joins the two (`TimerMessageStore#buildDeleteKey`). Stands in the log: not to be changed
/// without a new form of the record.
pub(super) fn recall_hash(topic: &str, unique_key: &str) -> u32 {
    let hash = crc32c::crc32c_append(crc32c::crc32c(topic.as_bytes()), b"+");
    crc32c::crc32c_append(hash, unique_key.as_bytes())
}
