//! Changes of the pop table, as the fields of a control record.
//!
//! ```text
//! 0           1
//! +-----------+----------------------------------------------+
//! | change u8 | fields of the change, in their order below   |
//! +-----------+----------------------------------------------+
//! ```
//!
//! Offsets of a check point stand as their distance from the one before, the first from the start offset.

use apogee_storage::QueueKey;

use super::super::control::ControlError;
use super::super::control::codec::{Fields, put_flag, put_signed, put_text, put_unsigned};
use super::order::{Order, Ordered};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PopRecord {
    /// Messages were given out, and the group's offsets moved behind them.
    Popped { group: String, pop_ms: i64, due_ms: i64, queues: Vec<PoppedQueue> },
    /// Messages of a check point are consumed, or lie in the retry topic now.
    Acked { group: String, queue: QueueKey, check_point: CheckPointId, offsets: Vec<u64> },
    /// One message of a check point has a check point of its own now.
    Changed {
        group: String,
        queue: QueueKey,
        check_point: CheckPointId,
        offset: u64,
        pop_ms: i64,
        due_ms: i64,
    },
    /// An ordered pop gave messages out of one queue; the group's offset is at `next`.
    Ordered { group: String, queue: QueueKey, next: u64, order: Order },
    /// Messages of an ordered pop are consumed; the group's offset moved to `next`.
    OrderAcked { group: String, queue: QueueKey, pop_ms: i64, offsets: Vec<u64>, next: u64 },
    /// A message of an ordered pop stops its queue until `visible_ms`.
    OrderDelayed { group: String, queue: QueueKey, pop_ms: i64, offset: u64, visible_ms: i64 },
    /// What an ordered pop gave out counts no more: the group's offset was set by somebody else.
    OrderCleared { group: String, queue: QueueKey },
    /// Check points of one queue. In snapshots only: it moves no offset.
    Held { group: String, queue: QueueKey, check_points: Vec<HeldCheckPoint> },
    /// The last ordered pop of one queue. In snapshots only: it moves no offset.
    OrderHeld { group: String, queue: QueueKey, order: Order },
}

/// What an unordered pop gave out of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoppedQueue {
    pub queue: QueueKey,
    /// The group's offset before.
    pub start: u64,
    /// The group's offset after.
    pub next: u64,
    /// Ascending, from `start` on.
    pub offsets: Vec<u64>,
}

/// Names a check point among those of its group and queue; both stand in receipt handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckPointId {
    pub start: u64,
    /// Pop time plus invisible time.
    pub due_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldCheckPoint {
    pub id: CheckPointId,
    pub pop_ms: i64,
    /// Ascending, from `id.start` on.
    pub pending: Vec<u64>,
}

/// First byte of a change. Numbers are never given a second meaning.
#[repr(u8)]
#[derive(Clone, Copy)]
enum Change {
    Popped = 1,
    Acked = 2,
    Changed = 3,
    Ordered = 4,
    OrderAcked = 5,
    OrderDelayed = 6,
    OrderCleared = 7,
    Held = 8,
    OrderHeld = 9,
}

impl PopRecord {
    /// Whether it has its place in snapshots only.
    pub fn is_of_snapshots(&self) -> bool {
        matches!(self, PopRecord::Held { .. } | PopRecord::OrderHeld { .. })
    }

    pub fn group(&self) -> &str {
        match self {
            PopRecord::Popped { group, .. }
            | PopRecord::Acked { group, .. }
            | PopRecord::Changed { group, .. }
            | PopRecord::Ordered { group, .. }
            | PopRecord::OrderAcked { group, .. }
            | PopRecord::OrderDelayed { group, .. }
            | PopRecord::OrderCleared { group, .. }
            | PopRecord::Held { group, .. }
            | PopRecord::OrderHeld { group, .. } => group,
        }
    }

    /// Where the change sets offsets of the group.
    pub fn moved_offsets(&self) -> impl Iterator<Item = (QueueKey, u64)> {
        let (popped, ordered) = match self {
            PopRecord::Popped { queues, .. } => (queues.as_slice(), None),
            PopRecord::Ordered { queue, next, .. } | PopRecord::OrderAcked { queue, next, .. } => {
                ([].as_slice(), Some((*queue, *next)))
            }
            PopRecord::Acked { .. }
            | PopRecord::Changed { .. }
            | PopRecord::OrderDelayed { .. }
            | PopRecord::OrderCleared { .. }
            | PopRecord::Held { .. }
            | PopRecord::OrderHeld { .. } => ([].as_slice(), None),
        };
        popped.iter().map(|popped| (popped.queue, popped.next)).chain(ordered)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.change() as u8);
        put_text(out, self.group());
        match self {
            PopRecord::Popped { group: _, pop_ms, due_ms, queues } => {
                put_signed(out, *pop_ms);
                put_signed(out, *due_ms);
                put_unsigned(out, queues.len() as u64);
                for PoppedQueue { queue, start, next, offsets } in queues {
                    put_unsigned(out, queue.0);
                    put_unsigned(out, *start);
                    put_unsigned(out, *next);
                    put_offsets(out, *start, offsets);
                }
            }
            PopRecord::Acked { group: _, queue, check_point, offsets } => {
                put_unsigned(out, queue.0);
                put_id(out, *check_point);
                put_offsets(out, check_point.start, offsets);
            }
            PopRecord::Changed { group: _, queue, check_point, offset, pop_ms, due_ms } => {
                put_unsigned(out, queue.0);
                put_id(out, *check_point);
                put_unsigned(out, *offset);
                put_signed(out, *pop_ms);
                put_signed(out, *due_ms);
            }
            PopRecord::Ordered { group: _, queue, next, order } => {
                put_unsigned(out, queue.0);
                put_unsigned(out, *next);
                put_order(out, order);
            }
            PopRecord::OrderAcked { group: _, queue, pop_ms, offsets, next } => {
                put_unsigned(out, queue.0);
                put_signed(out, *pop_ms);
                put_offsets(out, 0, offsets);
                put_unsigned(out, *next);
            }
            PopRecord::OrderDelayed { group: _, queue, pop_ms, offset, visible_ms } => {
                put_unsigned(out, queue.0);
                put_signed(out, *pop_ms);
                put_unsigned(out, *offset);
                put_signed(out, *visible_ms);
            }
            PopRecord::OrderCleared { group: _, queue } => put_unsigned(out, queue.0),
            PopRecord::Held { group: _, queue, check_points } => {
                put_unsigned(out, queue.0);
                put_unsigned(out, check_points.len() as u64);
                for HeldCheckPoint { id, pop_ms, pending } in check_points {
                    put_id(out, *id);
                    put_signed(out, *pop_ms);
                    put_offsets(out, id.start, pending);
                }
            }
            PopRecord::OrderHeld { group: _, queue, order } => {
                put_unsigned(out, queue.0);
                put_order(out, order);
            }
        }
    }

    pub(in crate::shard) fn decode(fields: &mut Fields<'_>) -> Result<Self, ControlError> {
        let change = fields.byte("change")?;
        let group = fields.text("group")?.to_owned();
        Ok(match change {
            1 => PopRecord::Popped {
                group,
                pop_ms: fields.signed("pop time")?,
                due_ms: fields.signed("due time")?,
                queues: many(fields, "queue count", |fields| {
                    let queue = queue(fields)?;
                    let start = fields.unsigned("start offset")?;
                    let next = fields.unsigned("next offset")?;
                    Ok(PoppedQueue { queue, start, next, offsets: offsets(fields, start)? })
                })?,
            },
            2 => {
                let (queue, check_point) = (queue(fields)?, id(fields)?);
                PopRecord::Acked { group, queue, check_point, offsets: offsets(fields, check_point.start)? }
            }
            3 => PopRecord::Changed {
                group,
                queue: queue(fields)?,
                check_point: id(fields)?,
                offset: fields.unsigned("offset")?,
                pop_ms: fields.signed("pop time")?,
                due_ms: fields.signed("due time")?,
            },
            4 => PopRecord::Ordered {
                group,
                queue: queue(fields)?,
                next: fields.unsigned("next offset")?,
                order: order(fields)?,
            },
            5 => PopRecord::OrderAcked {
                group,
                queue: queue(fields)?,
                pop_ms: fields.signed("pop time")?,
                offsets: offsets(fields, 0)?,
                next: fields.unsigned("next offset")?,
            },
            6 => PopRecord::OrderDelayed {
                group,
                queue: queue(fields)?,
                pop_ms: fields.signed("pop time")?,
                offset: fields.unsigned("offset")?,
                visible_ms: fields.signed("visible time")?,
            },
            7 => PopRecord::OrderCleared { group, queue: queue(fields)? },
            8 => PopRecord::Held {
                group,
                queue: queue(fields)?,
                check_points: many(fields, "check point count", |fields| {
                    let id = id(fields)?;
                    let pop_ms = fields.signed("pop time")?;
                    Ok(HeldCheckPoint { id, pop_ms, pending: offsets(fields, id.start)? })
                })?,
            },
            9 => PopRecord::OrderHeld { group, queue: queue(fields)?, order: order(fields)? },
            _ => return Err(fields.bad("change", "no change of the pop table")),
        })
    }

    fn change(&self) -> Change {
        match self {
            PopRecord::Popped { .. } => Change::Popped,
            PopRecord::Acked { .. } => Change::Acked,
            PopRecord::Changed { .. } => Change::Changed,
            PopRecord::Ordered { .. } => Change::Ordered,
            PopRecord::OrderAcked { .. } => Change::OrderAcked,
            PopRecord::OrderDelayed { .. } => Change::OrderDelayed,
            PopRecord::OrderCleared { .. } => Change::OrderCleared,
            PopRecord::Held { .. } => Change::Held,
            PopRecord::OrderHeld { .. } => Change::OrderHeld,
        }
    }
}

fn put_id(out: &mut Vec<u8>, id: CheckPointId) {
    put_unsigned(out, id.start);
    put_signed(out, id.due_ms);
}

fn id(fields: &mut Fields<'_>) -> Result<CheckPointId, ControlError> {
    Ok(CheckPointId { start: fields.unsigned("start offset")?, due_ms: fields.signed("due time")? })
}

fn queue(fields: &mut Fields<'_>) -> Result<QueueKey, ControlError> {
    match QueueKey(fields.unsigned("queue")?) {
        QueueKey::CONTROL => Err(fields.bad("queue", "no message queue")),
        queue => Ok(queue),
    }
}

/// A count, then for each: its distance from the one before, the first from `start`.
fn put_offsets(out: &mut Vec<u8>, start: u64, offsets: &[u64]) {
    put_unsigned(out, offsets.len() as u64);
    let mut before = start;
    for &offset in offsets {
        assert!(offset >= before, "offset {offset} after {before}");
        put_unsigned(out, offset - before);
        before = offset;
    }
}

fn offsets(fields: &mut Fields<'_>, start: u64) -> Result<Vec<u64>, ControlError> {
    let mut before = None;
    many(fields, "offset count", |fields| {
        let step = fields.unsigned("offset")?;
        if before.is_some() && step == 0 {
            return Err(fields.bad("offset", "the same offset twice"));
        }
        let offset = before.unwrap_or(start).checked_add(step);
        before = offset;
        offset.ok_or_else(|| fields.bad("offset", "number above 64 bits"))
    })
}

/// Attempt id (the empty text: none), pop time, then for each message: offset, acknowledged, visible time, deliveries.
fn put_order(out: &mut Vec<u8>, order: &Order) {
    put_text(out, order.attempt_id.as_deref().unwrap_or_default());
    put_signed(out, order.pop_ms);
    put_unsigned(out, order.messages.len() as u64);
    for Ordered { offset, is_acked, visible_ms, deliveries } in &order.messages {
        put_unsigned(out, *offset);
        put_flag(out, *is_acked);
        put_signed(out, *visible_ms);
        put_unsigned(out, (*deliveries).into());
    }
}

fn order(fields: &mut Fields<'_>) -> Result<Order, ControlError> {
    let attempt_id = fields.text("attempt id")?;
    Ok(Order {
        attempt_id: (!attempt_id.is_empty()).then(|| attempt_id.into()),
        pop_ms: fields.signed("pop time")?,
        messages: many(fields, "message count", |fields| {
            Ok(Ordered {
                offset: fields.unsigned("offset")?,
                is_acked: fields.flag("acknowledged")?,
                visible_ms: fields.signed("visible time")?,
                deliveries: fields.u32("deliveries")?,
            })
        })?,
    })
}

fn many<T>(
    fields: &mut Fields<'_>,
    count: &'static str,
    mut each: impl FnMut(&mut Fields<'_>) -> Result<T, ControlError>,
) -> Result<Vec<T>, ControlError> {
    let count = fields.unsigned(count)?;
    (0..count).map(|_| each(fields)).collect()
}
