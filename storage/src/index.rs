//! Per queue, where each visible record of the unsealed segments stands in the log.
//!
//! ```text
//! queue ─► chunk ─► chunk ─► chunk      a chunk: up to 1024 entries of 24 bytes, grown as needed, all of one segment
//!          ▲ oldest          ▲ next is pushed here
//! ```
//!
//! When a segment is sealed its records are found through its index file, and its chunks go. A queue that only exists
//! costs some hundred bytes, so very many queues are fine.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;

use rustc_hash::FxHashMap;

use crate::chunked::Chunked;
use crate::log::AppendRefused;
use crate::types::{LogOffset, QueueKey, QueueOffset};

/// Entries per chunk: growing never copies more than this many.
const CHUNK_ENTRIES: usize = 1024;

/// Queues kept together, for the same reason.
const STATES_PER_CHUNK: usize = 1024;

/// Queues that the table of their numbers has room for from the start. It takes 2 MiB of address space and little of
/// memory; growing it moves all of it, which takes milliseconds from here on.
const QUEUES_EXPECTED: usize = 110_000;

/// What the index keeps of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    pub log_offset: LogOffset,
    pub store_time_ms: i64,
    pub size: u32,
    pub tag_hash: i32,
}

const _: () = assert!(size_of::<IndexEntry>() == 24);

/// Which entry a search by time means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeBound {
    /// The first entry at or after the time; past the last one if there is none.
    Lower,
    /// The last entry at or before the time; 0 if there is none.
    Upper,
}

impl TimeBound {
    /// Whether an entry lies before the place that is searched.
    pub(crate) fn is_before(self, store_time_ms: i64, time_ms: i64) -> bool {
        match self {
            TimeBound::Lower => store_time_ms < time_ms,
            TimeBound::Upper => store_time_ms <= time_ms,
        }
    }
}

#[derive(Debug)]
struct Chunk {
    /// Queue offset of the first entry.
    first: u64,
    entries: Vec<IndexEntry>,
}

/// The newest entries of one queue, dense up to `next`.
#[derive(Debug, Default)]
pub(crate) struct QueueIndex {
    /// One past the last entry there ever was.
    next: u64,
    chunks: VecDeque<Chunk>,
}

impl QueueIndex {
    /// The first entry in memory; [`max`](QueueIndex::max) if there is none.
    pub(crate) fn first(&self) -> QueueOffset {
        QueueOffset(self.chunks.front().map_or(self.next, |chunk| chunk.first))
    }

    /// One past the last entry.
    pub(crate) fn max(&self) -> QueueOffset {
        QueueOffset(self.next)
    }

    /// Adds the next entry, which lies in the segment that begins at `segment`.
    pub(crate) fn push(&mut self, entry: IndexEntry, segment: LogOffset) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.entries.len() < CHUNK_ENTRIES && chunk.entries[0].log_offset >= segment => {
                chunk.entries.push(entry);
            }
            _ => self.chunks.push_back(Chunk { first: self.next, entries: vec![entry] }),
        }
        self.next += 1;
    }

    /// Forgets the entries in front of `sealed_end`, the end of a segment, chunk by chunk until `enough` of them are;
    /// returns how many were.
    fn forget_below(&mut self, sealed_end: LogOffset, enough: u64) -> u64 {
        let mut forgotten = 0;
        while forgotten < enough
            && self.chunks.front().is_some_and(|chunk| chunk.entries[0].log_offset < sealed_end)
        {
            let chunk = self.chunks.pop_front().expect("looked at just now");
            forgotten += chunk.entries.len() as u64;
        }
        if self.chunks.is_empty() && self.chunks.capacity() > 0 {
            // A queue that is quiet costs no more than one that was never used.
            self.chunks = VecDeque::new();
        }
        forgotten
    }

    pub(crate) fn get(&self, offset: QueueOffset) -> Option<&IndexEntry> {
        self.range_from(offset).next().filter(|_| offset >= self.first())
    }

    /// The entries from `offset` on, in order; from the first on if that is later.
    pub(crate) fn range_from(&self, offset: QueueOffset) -> impl Iterator<Item = &IndexEntry> + Clone {
        let behind = self.chunks.partition_point(|chunk| chunk.first <= offset.0);
        let chunk = behind.saturating_sub(1);
        let head = self.chunks.get(chunk).map_or(&[][..], |chunk| {
            let within = usize::try_from(offset.0.saturating_sub(chunk.first)).unwrap_or(usize::MAX);
            &chunk.entries[within.min(chunk.entries.len())..]
        });
        let rest = self.chunks.range((chunk + 1).min(self.chunks.len())..);
        head.iter().chain(rest.flat_map(|chunk| &chunk.entries))
    }

    /// The offset of the first entry that is not before the place searched; [`max`](QueueIndex::max) if all are.
    pub(crate) fn first_not_before(&self, time_ms: i64, bound: TimeBound) -> QueueOffset {
        let before = |entry: &IndexEntry| bound.is_before(entry.store_time_ms, time_ms);
        let nth = self.chunks.partition_point(|chunk| chunk.entries.last().is_some_and(before));
        let Some(chunk) = self.chunks.get(nth) else { return self.max() };
        QueueOffset(chunk.first + chunk.entries.partition_point(before) as u64)
    }

    /// Whether the first entry in memory lies before the place searched; then that place is not in a sealed segment.
    pub(crate) fn begins_before(&self, time_ms: i64, bound: TimeBound) -> bool {
        let first = self.chunks.front().map(|chunk| &chunk.entries[0]);
        first.is_some_and(|entry| bound.is_before(entry.store_time_ms, time_ms))
    }
}

/// Position of a queue in [`Queues`]; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u32);

#[derive(Debug)]
pub(crate) struct QueueState {
    pub(crate) key: QueueKey,
    /// The first offset that can be read: those below it left with their segments.
    pub(crate) min: QueueOffset,
    /// The offset that the next staged record gets.
    pub(crate) tail: QueueOffset,
    pub(crate) index: QueueIndex,
    /// The sealed segment in which this queue was read last: where the next read begins to look.
    pub(crate) read_last: Cell<LogOffset>,
    /// Scratch of the seal: which seal last gave the queue a place, and which place.
    pub(crate) group_of_batch: (u64, u32),
}

/// All queues the log has heard of.
#[derive(Debug)]
pub(crate) struct Queues {
    slots: FxHashMap<QueueKey, u32>,
    states: Chunked<QueueState, STATES_PER_CHUNK>,
    entries: u64,
}

impl Default for Queues {
    fn default() -> Queues {
        let slots = FxHashMap::with_capacity_and_hasher(QUEUES_EXPECTED, Default::default());
        Queues { slots, states: Chunked::default(), entries: 0 }
    }
}

impl Queues {
    /// Index entries in memory, over all queues.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    pub(crate) fn slot(&self, key: QueueKey) -> Option<Slot> {
        self.slots.get(&key).copied().map(Slot)
    }

    /// The queue's slot, made if `queues_max` allows.
    pub(crate) fn slot_or_refuse(&mut self, key: QueueKey, queues_max: u32) -> Result<Slot, AppendRefused> {
        let (queues, limit) = (self.states.len() as u64, u64::from(queues_max));
        match self.slot(key) {
            Some(slot) => Ok(slot),
            None if queues >= limit => Err(AppendRefused::QueuesFull { queues, limit }),
            None => Ok(self.slot_or_new(key)),
        }
    }

    pub(crate) fn slot_or_new(&mut self, key: QueueKey) -> Slot {
        let states = &mut self.states;
        Slot(*self.slots.entry(key).or_insert_with(|| {
            states.push(QueueState {
                key,
                min: QueueOffset(0),
                tail: QueueOffset(0),
                index: QueueIndex::default(),
                read_last: Cell::default(),
                group_of_batch: (0, 0),
            });
            u32::try_from(states.len() - 1).expect("queues_max keeps slots far below 2^32")
        }))
    }

    /// Makes a queue whose records up to `tail` lie in sealed segments, those from `min` on still there.
    pub(crate) fn restore(&mut self, key: QueueKey, min: QueueOffset, tail: QueueOffset) {
        assert!(self.slot(key).is_none(), "queue {key} restored twice");
        assert!(min <= tail, "queue {key}: records from {min} on, and {tail} in all");
        let slot = self.slot_or_new(key);
        let state = self.at(slot);
        state.min = min;
        state.tail = tail;
        state.index.next = tail.0;
    }

    pub(crate) fn get(&self, key: QueueKey) -> Option<&QueueState> {
        self.slot(key).map(|slot| self.states.get(slot.0 as usize).expect("slots are never taken back"))
    }

    pub(crate) fn at(&mut self, slot: Slot) -> &mut QueueState {
        self.states.get_mut(slot.0 as usize).expect("slots are never taken back")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &QueueState> {
        self.states.iter()
    }

    /// Makes a record visible; it must be the queue's next. `segment` is where its segment begins.
    pub(crate) fn publish(&mut self, slot: Slot, offset: QueueOffset, entry: IndexEntry, segment: LogOffset) {
        let state = self.states.get_mut(slot.0 as usize).expect("slots are never taken back");
        let expected = state.index.max();
        assert!(offset == expected, "queue {}: offset {offset} published, expected {expected}", state.key);
        state.index.push(entry, segment);
        self.entries += 1;
        let visible = state.index.max();
        assert!(visible <= state.tail, "queue {}: {visible} visible, tail {}", state.key, state.tail);
    }

    /// Forgets the entries in front of `sealed_end` of some queues, by their number, until `enough` entries are;
    /// returns how many of the queues have none left.
    pub(crate) fn forget_below(&mut self, sealed_end: LogOffset, queues: Range<usize>, enough: u64) -> usize {
        let (count, mut left) = (queues.len(), enough);
        for (done, nth) in queues.enumerate() {
            let Some(state) = self.states.get_mut(nth) else { return count };
            let forgotten = state.index.forget_below(sealed_end, left);
            self.entries -= forgotten;
            left = left.saturating_sub(forgotten);
            if left == 0 {
                return done;
            }
        }
        count
    }

    /// Records of a queue in front of `min` can no longer be read. They lie in sealed segments.
    pub(crate) fn raise_min(&mut self, key: QueueKey, min: QueueOffset) {
        let Some(slot) = self.slot(key) else { return };
        let state = self.at(slot);
        assert!(min <= state.index.max(), "queue {key}: {min} is beyond {}", state.index.max());
        state.min = state.min.max(min);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index_of(times: impl IntoIterator<Item = i64>) -> QueueIndex {
        let mut index = QueueIndex::default();
        for (nth, store_time_ms) in times.into_iter().enumerate() {
            let entry = IndexEntry { log_offset: LogOffset(nth as u64), store_time_ms, size: 1, tag_hash: 0 };
            index.push(entry, LogOffset(0));
        }
        index
    }

    #[test]
    fn places_by_time_follow_the_table() {
        let queue = index_of([10, 20, 20, 20, 40]);
        let rows = [
            ("equal", 20, 1, 4),
            ("between two", 30, 4, 4),
            ("after the last", 41, 5, 5),
            ("the last", 40, 4, 5),
            ("before the first", 9, 0, 0),
            ("the first", 10, 0, 1),
        ];
        for (row, time_ms, lower, upper) in rows {
            assert_eq!(queue.first_not_before(time_ms, TimeBound::Lower).0, lower, "{row}");
            assert_eq!(queue.first_not_before(time_ms, TimeBound::Upper).0, upper, "{row}");
            assert_eq!(queue.begins_before(time_ms, TimeBound::Lower), lower > 0, "{row}");
            assert_eq!(queue.begins_before(time_ms, TimeBound::Upper), upper > 0, "{row}");
        }
    }

    #[test]
    fn many_chunks_read_as_one() {
        let len = 3 * CHUNK_ENTRIES as u64 + 5;
        for len in [len, 3 * CHUNK_ENTRIES as u64] {
            let queue = index_of((0..len).map(|nth| nth as i64 * 10));
            assert_eq!((queue.first().0, queue.max().0), (0, len));
            for offset in [0, 1, 1023, 1024, 1025, 2047, 2048, len - 1] {
                assert_eq!(queue.get(QueueOffset(offset)).unwrap().log_offset.0, offset);
                let rest: Vec<u64> =
                    queue.range_from(QueueOffset(offset)).map(|entry| entry.log_offset.0).collect();
                assert!(rest.iter().copied().eq(offset..len), "from {offset}");
                for (time_ms, lower) in [(offset * 10, offset), (offset * 10 + 1, offset + 1)] {
                    assert_eq!(queue.first_not_before(time_ms as i64, TimeBound::Lower).0, lower);
                }
            }
            for beyond in [len, len + 1, u64::MAX] {
                assert!(queue.get(QueueOffset(beyond)).is_none());
                assert_eq!(queue.range_from(QueueOffset(beyond)).count(), 0);
            }
        }
    }

    #[test]
    fn sealed_segments_take_their_entries_with_them() {
        // Segments of 100 bytes, ten entries in each.
        let mut queue = QueueIndex::default();
        for nth in 0..35u64 {
            let entry = IndexEntry {
                log_offset: LogOffset(nth * 10),
                store_time_ms: nth as i64,
                size: 10,
                tag_hash: 0,
            };
            queue.push(entry, LogOffset(nth / 10 * 100));
        }
        assert_eq!(queue.forget_below(LogOffset(100), u64::MAX), 10);
        assert_eq!(queue.forget_below(LogOffset(100), u64::MAX), 0);
        assert_eq!((queue.first().0, queue.max().0), (10, 35));
        assert!(queue.get(QueueOffset(9)).is_none());
        assert_eq!(queue.get(QueueOffset(10)).unwrap().log_offset, LogOffset(100));
        assert_eq!(queue.range_from(QueueOffset(5)).count(), 25);
        assert_eq!(queue.forget_below(LogOffset(400), u64::MAX), 25);
        assert_eq!((queue.first().0, queue.max().0), (35, 35));
        assert_eq!(queue.range_from(QueueOffset(0)).count(), 0);
    }

    #[test]
    fn queues_forget_step_by_step() {
        let mut queues = Queues::default();
        let mut at = 0;
        for (key, entries) in [(1, 5000u64), (2, 1), (3, 5000), (4, 0)] {
            let slot = queues.slot_or_new(QueueKey(key));
            for nth in 0..entries {
                let entry = IndexEntry { log_offset: LogOffset(at), store_time_ms: 0, size: 1, tag_hash: 0 };
                queues.at(slot).tail = QueueOffset(nth + 1);
                queues.publish(slot, QueueOffset(nth), entry, LogOffset(0));
                at += 1;
            }
        }
        let (mut next, mut steps) = (0, Vec::new());
        while next < 4 {
            let before = queues.entries();
            next += queues.forget_below(LogOffset(at), next..4, 2048);
            steps.push(before - queues.entries());
        }
        assert_eq!(steps.iter().sum::<u64>(), 10_001);
        assert!(steps.iter().all(|forgotten| *forgotten <= 2048 + CHUNK_ENTRIES as u64), "{steps:?}");
        assert_eq!(queues.entries(), 0);
    }

    #[test]
    fn queue_without_entries_is_small() {
        // A hundred thousand queues then take some ten megabytes.
        assert!(size_of::<QueueState>() <= 96, "{}", size_of::<QueueState>());
    }
}
