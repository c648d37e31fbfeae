//! What a shard logs of delayed messages. The messages themselves lie in the log as well, in the same batch.

use apogee_storage::QueueOffset;

use super::levels::{DELAY_LEVELS_MAX, DelayLevel};
use crate::shard::control::ControlError;
use crate::shard::control::codec::{Fields, put_signed, put_unsigned};
use crate::shard::topics::TopicNumber;

/// A message of the timer topic that waits, in the order of delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId {
    /// When something has to be done with the message: deliver it, or put it into the topic anew.
    pub due_ms: i64,
    /// Of the message in the timer topic's only queue; no two timers share one.
    pub offset: QueueOffset,
}

impl TimerId {
    pub const MIN: TimerId = TimerId { due_ms: i64::MIN, offset: QueueOffset(0) };

    /// Below every timer that is due at `due_ms` or later.
    pub fn first_at(due_ms: i64) -> TimerId {
        TimerId { due_ms, offset: QueueOffset(0) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerPut {
    pub id: TimerId,
    /// Of the topic to deliver to and the message's unique key, by which it can be recalled.
    pub key_hash: u32,
    /// The topic to deliver to, for the statistics.
    pub topic: TopicNumber,
}

/// One change of the delayed messages of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimerRecord {
    /// Messages of the timer topic wait from now on.
    Put(Vec<TimerPut>),
    /// They wait no more: delivered, put anew, recalled or lost.
    Done(Vec<TimerId>),
    /// All messages in the level's queue below this one were delivered.
    Level { level: DelayLevel, next: QueueOffset },
}

/// First field of a record. Numbers are never given a second meaning.
const PUT: u8 = 0;
const DONE: u8 = 1;
const LEVEL: u8 = 2;

impl TimerRecord {
    /// Fields: which change; then either a count and for each timer: due time and offset, both less those of the
    /// timer before it, and of those put, the hash of the key and the number of the topic; or level and offset.
    pub(in crate::shard) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Put(timers) => {
                out.push(PUT);
                put_unsigned(out, timers.len() as u64);
                let mut before = TimerId::first_at(0);
                for TimerPut { id, key_hash, topic } in timers {
                    put_id(out, &mut before, *id);
                    put_unsigned(out, (*key_hash).into());
                    put_unsigned(out, topic.0.into());
                }
            }
            Self::Done(timers) => {
                out.push(DONE);
                put_unsigned(out, timers.len() as u64);
                let mut before = TimerId::first_at(0);
                for id in timers {
                    put_id(out, &mut before, *id);
                }
            }
            Self::Level { level, next } => {
                out.push(LEVEL);
                out.push(level.number());
                put_unsigned(out, next.0);
            }
        }
    }

    pub(in crate::shard) fn decode(fields: &mut Fields<'_>) -> Result<Self, ControlError> {
        match fields.byte("timer change")? {
            PUT => {
                let mut before = TimerId::first_at(0);
                let count = fields.unsigned("timer count")?;
                let timers = (0..count).map(|_| {
                    Ok(TimerPut {
                        id: id(fields, &mut before)?,
                        key_hash: fields.u32("key hash")?,
                        topic: TopicNumber(fields.u32("topic number")?),
                    })
                });
                Ok(Self::Put(timers.collect::<Result<_, _>>()?))
            }
            DONE => {
                let mut before = TimerId::first_at(0);
                let count = fields.unsigned("timer count")?;
                Ok(Self::Done((0..count).map(|_| id(fields, &mut before)).collect::<Result<_, _>>()?))
            }
            LEVEL => {
                let level = fields.byte("delay level")?;
                let level = DelayLevel::new(level).ok_or_else(|| fields.bad("delay level", "not 1 to 18"))?;
                Ok(Self::Level { level, next: QueueOffset(fields.unsigned("offset")?) })
            }
            _ => Err(fields.bad("timer change", "not 0 to 2")),
        }
    }
}

const _: () = assert!(DELAY_LEVELS_MAX == 18, "an error text says so");

/// Neighbours are due at nearly the same time and lie near each other: differences take a byte or two. They wrap, so
/// that any two numbers have exactly one.
fn put_id(out: &mut Vec<u8>, before: &mut TimerId, id: TimerId) {
    put_signed(out, id.due_ms.wrapping_sub(before.due_ms));
    put_signed(out, id.offset.0.wrapping_sub(before.offset.0) as i64);
    *before = id;
}

fn id(fields: &mut Fields<'_>, before: &mut TimerId) -> Result<TimerId, ControlError> {
    let due_ms = before.due_ms.wrapping_add(fields.signed("due time")?);
    let offset = before.offset.0.wrapping_add(fields.signed("offset")? as u64);
    *before = TimerId { due_ms, offset: QueueOffset(offset) };
    Ok(*before)
}
