//! Per queue, where each visible record stands in the log.
//!
//! ```text
//! queue ─► chunk ─► chunk ─► chunk      a chunk: up to 1024 entries of 24 bytes, grown as needed
//!          ▲ first           ▲ next is pushed here
//! ```
//!
//! Everything is in memory. A queue that only exists costs some hundred bytes, so very many queues are fine.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::log::AppendRefused;
use crate::types::{LogOffset, QueueKey, QueueOffset};

/// Entries per chunk: growing never copies more than this many.
const CHUNK_ENTRIES: usize = 1024;

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

/// The entries of one queue, dense from `first` on.
#[derive(Debug, Default)]
pub(crate) struct QueueIndex {
    first: u64,
    len: u64,
    chunks: VecDeque<Vec<IndexEntry>>,
}

impl QueueIndex {
    pub(crate) fn min(&self) -> QueueOffset {
        QueueOffset(self.first)
    }

    /// One past the last entry.
    pub(crate) fn max(&self) -> QueueOffset {
        QueueOffset(self.first + self.len)
    }

    pub(crate) fn push(&mut self, entry: IndexEntry) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK_ENTRIES => chunk.push(entry),
            _ => self.chunks.push_back(vec![entry]),
        }
        self.len += 1;
    }

    pub(crate) fn get(&self, offset: QueueOffset) -> Option<&IndexEntry> {
        let nth = usize::try_from(offset.0.checked_sub(self.first)?).ok()?;
        self.chunks.get(nth / CHUNK_ENTRIES)?.get(nth % CHUNK_ENTRIES)
    }

    /// The entries from `offset` on, in order.
    pub(crate) fn range_from(&self, offset: QueueOffset) -> impl Iterator<Item = &IndexEntry> {
        let nth = usize::try_from(offset.0.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let (chunk, within) = (nth / CHUNK_ENTRIES, nth % CHUNK_ENTRIES);
        let chunk = chunk.min(self.chunks.len());
        let head = self.chunks.get(chunk).map_or(&[][..], |chunk| &chunk[within.min(chunk.len())..]);
        head.iter().chain(self.chunks.range((chunk + 1).min(self.chunks.len())..).flatten())
    }

    /// How many entries, from the first on, satisfy `before`, which holds for a prefix of them.
    fn count_while(&self, before: impl Fn(&IndexEntry) -> bool) -> u64 {
        let chunk = self.chunks.partition_point(|chunk| chunk.last().is_some_and(&before));
        let within = self.chunks.get(chunk).map_or(0, |chunk| chunk.partition_point(&before));
        // The last chunk may be shorter than the others.
        ((chunk * CHUNK_ENTRIES + within) as u64).min(self.len)
    }

    pub(crate) fn search_by_time(&self, time_ms: i64, bound: TimeBound) -> QueueOffset {
        match bound {
            TimeBound::Lower => {
                QueueOffset(self.first + self.count_while(|entry| entry.store_time_ms < time_ms))
            }
            TimeBound::Upper => {
                let up_to = self.count_while(|entry| entry.store_time_ms <= time_ms);
                if up_to == 0 { QueueOffset(0) } else { QueueOffset(self.first + up_to - 1) }
            }
        }
    }
}

/// Position of a queue in [`Queues`]; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u32);

#[derive(Debug)]
pub(crate) struct QueueState {
    pub(crate) key: QueueKey,
    /// The offset that the next staged record gets.
    pub(crate) tail: QueueOffset,
    pub(crate) index: QueueIndex,
    /// Scratch of the seal: which batch last gave the queue a place, and which place.
    pub(crate) group_of_batch: (u64, u32),
}

/// All queues the log has heard of.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    slots: FxHashMap<QueueKey, u32>,
    states: Vec<QueueState>,
    entries: u64,
}

impl Queues {
    /// Index entries over all queues.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
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
            let tail = QueueOffset(0);
            states.push(QueueState { key, tail, index: QueueIndex::default(), group_of_batch: (0, 0) });
            u32::try_from(states.len() - 1).expect("queues_max keeps slots far below 2^32")
        }))
    }

    pub(crate) fn get(&self, key: QueueKey) -> Option<&QueueState> {
        self.slot(key).map(|slot| &self.states[slot.0 as usize])
    }

    pub(crate) fn at(&mut self, slot: Slot) -> &mut QueueState {
        &mut self.states[slot.0 as usize]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &QueueState> {
        self.states.iter()
    }

    /// Makes a record visible; it must be the queue's next.
    pub(crate) fn publish(&mut self, slot: Slot, offset: QueueOffset, entry: IndexEntry) {
        let state = &mut self.states[slot.0 as usize];
        if state.key == QueueKey::CONTROL {
            return;
        }
        let expected = state.index.max();
        assert!(offset == expected, "queue {}: offset {offset} published, expected {expected}", state.key);
        state.index.push(entry);
        self.entries += 1;
        let visible = state.index.max();
        assert!(visible <= state.tail, "queue {}: {visible} visible, tail {}", state.key, state.tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index_of(times: impl IntoIterator<Item = i64>) -> QueueIndex {
        let mut index = QueueIndex::default();
        for (nth, store_time_ms) in times.into_iter().enumerate() {
            index.push(IndexEntry { log_offset: LogOffset(nth as u64), store_time_ms, size: 1, tag_hash: 0 });
        }
        index
    }

    #[test]
    fn search_by_time_follows_the_table() {
        let queue = index_of([10, 20, 20, 20, 40]);
        let rows = [
            ("equal", 20, 1, 3),
            ("between two", 30, 4, 3),
            ("after the last", 41, 5, 4),
            ("the last", 40, 4, 4),
            ("before the first", 9, 0, 0),
            ("the first", 10, 0, 0),
        ];
        for (row, time_ms, lower, upper) in rows {
            assert_eq!(queue.search_by_time(time_ms, TimeBound::Lower).0, lower, "{row}");
            assert_eq!(queue.search_by_time(time_ms, TimeBound::Upper).0, upper, "{row}");
        }
        let empty = index_of([]);
        for bound in [TimeBound::Lower, TimeBound::Upper] {
            assert_eq!(empty.search_by_time(20, bound).0, 0);
        }
    }

    #[test]
    fn many_chunks_read_as_one() {
        let len = 3 * CHUNK_ENTRIES as u64 + 5;
        for len in [len, 3 * CHUNK_ENTRIES as u64] {
            let queue = index_of((0..len).map(|nth| nth as i64 * 10));
            assert_eq!(queue.max().0, len);
            for offset in [0, 1, 1023, 1024, 1025, 2047, 2048, len - 1] {
                assert_eq!(queue.get(QueueOffset(offset)).unwrap().log_offset.0, offset);
                let rest: Vec<u64> =
                    queue.range_from(QueueOffset(offset)).map(|entry| entry.log_offset.0).collect();
                assert!(rest.iter().copied().eq(offset..len), "from {offset}");
                for (time_ms, lower) in [(offset * 10, offset), (offset * 10 + 1, offset + 1)] {
                    assert_eq!(queue.search_by_time(time_ms as i64, TimeBound::Lower).0, lower);
                    assert_eq!(queue.search_by_time(time_ms as i64, TimeBound::Upper).0, offset);
                }
            }
            for beyond in [len, len + 1, u64::MAX] {
                assert!(queue.get(QueueOffset(beyond)).is_none());
                assert_eq!(queue.range_from(QueueOffset(beyond)).count(), 0);
            }
        }
    }

    #[test]
    fn queue_without_entries_is_small() {
        // A hundred thousand queues then take some ten megabytes.
        assert!(size_of::<QueueState>() <= 96, "{}", size_of::<QueueState>());
    }
}
