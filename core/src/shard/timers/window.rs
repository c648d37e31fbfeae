//! The timers that are due next, taken into memory ahead of their time.
//!
//! ```text
//!        table, in order of due time                              cursor         now + LOOK_AHEAD_MS
//!     ---+--------------------------------------------------------+--------------+-----------------> due time
//!        | read, ready or under way; or late: put, or given back, | taken next   | not yet
//!        | after the cursor had passed them                       |              |
//! ```

use std::collections::{BTreeMap, BTreeSet};

use apogee_storage::QueueOffset;
use bytes::Bytes;

use super::record::TimerId;
use super::table::TimerTable;

/// How long before its time a message is read from disk: longer than a disk takes for as many as are due in that time.
pub(super) const LOOK_AHEAD_MS: i64 = 2_000;

/// Messages held in memory for timers, in bytes; further timers wait in the table.
const HELD_BYTES_MAX: u64 = 32 << 20;

/// Of these, what may be held before its time: what is due must not wait behind what is not.
const HELD_EARLY_BYTES_MAX: u64 = HELD_BYTES_MAX / 2;

/// The same in messages, since small ones cost more than their bytes.
const HELD_MAX: usize = 65_536;
const HELD_EARLY_MAX: usize = HELD_MAX / 2;

/// Pause after something failed: a read, or an append.
pub(super) const RETRY_MS: i64 = 200;

#[derive(Debug)]
pub(super) struct Window {
    /// Timers below it were taken, or are late.
    cursor: TimerId,
    late: BTreeSet<TimerId>,
    /// Read and waiting for their time.
    ready: BTreeMap<TimerId, Bytes>,
    /// Being recalled, and not delivered meanwhile. True if one's turn came and it was left out.
    recalled: BTreeMap<TimerId, bool>,
    /// On their way to the log.
    under_way: BTreeSet<TimerId>,
    /// Being read, ready, or on their way to the log.
    held: usize,
    held_bytes: u64,
    /// Nothing is taken or delivered before.
    resume_at_ms: i64,
}

impl Default for Window {
    fn default() -> Self {
        Window {
            cursor: TimerId::MIN,
            late: BTreeSet::new(),
            ready: BTreeMap::new(),
            recalled: BTreeMap::new(),
            under_way: BTreeSet::new(),
            held: 0,
            held_bytes: 0,
            resume_at_ms: i64::MIN,
        }
    }
}

impl Window {
    /// A timer stands in the table from now on.
    pub(super) fn on_put(&mut self, id: TimerId) {
        if id < self.cursor {
            self.late.insert(id);
        }
    }

    /// The next timer whose message shall be read, if there is room for it.
    pub(super) fn take(&mut self, table: &TimerTable, now_ms: i64) -> Option<TimerId> {
        if now_ms < self.resume_at_ms {
            return None;
        }
        loop {
            let id = self.peek(table).filter(|id| self.has_room(*id, now_ms))?;
            if !self.late.remove(&id) {
                self.cursor = TimerId { due_ms: id.due_ms, offset: QueueOffset(id.offset.0 + 1) };
            }
            if self.may_go(table, id) {
                return Some(id);
            }
        }
    }

    fn may_go(&mut self, table: &TimerTable, id: TimerId) -> bool {
        if let Some(is_left_out) = self.recalled.get_mut(&id) {
            *is_left_out = true;
            return false;
        }
        table.contains(id)
    }

    fn peek(&self, table: &TimerTable) -> Option<TimerId> {
        let late = self.late.first().copied();
        let next = table.next(self.cursor);
        late.into_iter().chain(next).min()
    }

    fn has_room(&self, id: TimerId, now_ms: i64) -> bool {
        let (count_max, bytes_max) = if id.due_ms <= now_ms {
            (HELD_MAX, HELD_BYTES_MAX)
        } else if id.due_ms <= now_ms.saturating_add(LOOK_AHEAD_MS) {
            (HELD_EARLY_MAX, HELD_EARLY_BYTES_MAX)
        } else {
            return false;
        };
        self.held < count_max && self.held_bytes < bytes_max
    }

    /// A message that was taken has so many bytes, and is being read.
    pub(super) fn hold(&mut self, bytes: u32) {
        self.held += 1;
        self.held_bytes += u64::from(bytes);
    }

    /// It is in memory no more.
    pub(super) fn release(&mut self, bytes: u32) {
        self.held -= 1;
        self.held_bytes -= u64::from(bytes);
    }

    /// A message that is held was read, or could not be delivered and shall be once more.
    pub(super) fn on_ready(&mut self, id: TimerId, message: Bytes) {
        self.under_way.remove(&id);
        self.ready.insert(id, message);
    }

    /// A message that was polled is durable in its queue.
    pub(super) fn on_delivered(&mut self, id: TimerId, message: &Bytes) {
        self.under_way.remove(&id);
        self.release(message.len() as u32);
    }

    /// A timer that is not held shall be taken again.
    pub(super) fn give_back(&mut self, id: TimerId) {
        self.late.insert(id);
    }

    /// Something failed: all pause.
    pub(super) fn pause(&mut self, now_ms: i64) {
        self.resume_at_ms = now_ms + RETRY_MS;
    }

    /// The next message whose time has come.
    pub(super) fn poll_due(&mut self, table: &TimerTable, now_ms: i64) -> Option<(TimerId, Bytes)> {
        if now_ms < self.resume_at_ms {
            return None;
        }
        loop {
            let entry = self.ready.first_entry().filter(|entry| entry.key().due_ms <= now_ms)?;
            let (id, message) = entry.remove_entry();
            if self.may_go(table, id) {
                self.under_way.insert(id);
                return Some((id, message));
            }
            self.release(message.len() as u32);
        }
    }

    /// Keeps a timer from being delivered until its recall has ended. False if it is on its way to the log already, or
    /// is being recalled.
    pub(super) fn begin_recall(&mut self, id: TimerId) -> bool {
        let may_begin = !self.under_way.contains(&id) && !self.recalled.contains_key(&id);
        if may_begin {
            self.recalled.insert(id, false);
        }
        may_begin
    }

    /// The recall failed, or the timer is gone from the table.
    pub(super) fn end_recall(&mut self, table: &TimerTable, id: TimerId) {
        if self.recalled.remove(&id) == Some(true) && table.contains(id) {
            self.late.insert(id);
        }
    }

    /// When a message is to be delivered, or to be read. What waits for room is read when something leaves.
    pub(super) fn wake_at_ms(&self, table: &TimerTable) -> Option<i64> {
        let deliver = self.ready.first_key_value().map(|(id, _)| id.due_ms);
        let has_room = |count_max, bytes_max| self.held < count_max && self.held_bytes < bytes_max;
        let read = self.peek(table).and_then(|id| {
            if has_room(HELD_EARLY_MAX, HELD_EARLY_BYTES_MAX) {
                Some(id.due_ms.saturating_sub(LOOK_AHEAD_MS))
            } else {
                has_room(HELD_MAX, HELD_BYTES_MAX).then_some(id.due_ms)
            }
        });
        deliver.into_iter().chain(read).min().map(|at_ms| at_ms.max(self.resume_at_ms))
    }
}
