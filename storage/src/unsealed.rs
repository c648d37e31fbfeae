//! What is kept of the segments that have no index file yet, besides the entries of their queues: their batches (8
//! bytes each) and the key hashes of their records (12 bytes each).

use std::collections::VecDeque;

use crate::chunked::Chunked;
use crate::types::{BatchIndex, LogOffset, Term};

/// Key hashes kept together, and looked at in one step of a search: some 20 µs.
const KEYS_PER_STEP: usize = 16 * 1024;

/// Chunks freed in one step, mostly of keys: 3 MiB that go back to the system, some 200 µs.
const CHUNKS_FREED_PER_STEP: usize = 16;

/// Sealed segments whose memory is not free yet, at most; beyond it the oldest goes at once.
const SEALED_MAX: usize = 2;

/// Batches kept together.
const BATCHES_PER_CHUNK: usize = 4096;

/// A key hash and the record it is of.
#[derive(Clone, Copy, Debug)]
struct Key {
    hash: u32,
    /// Of the record, in its segment.
    position: u32,
    size: u32,
}

/// A segment from its first batch on.
#[derive(Debug)]
pub(crate) struct UnsealedSegment {
    pub(crate) base: LogOffset,
    pub(crate) first_index: BatchIndex,
    /// Of the batch before the first.
    pub(crate) prev_term: Term,
    pub(crate) first_time_ms: i64,
    /// One past the last batch.
    pub(crate) end: LogOffset,
    /// Position and length, ascending.
    batches: Chunked<(u32, u32), BATCHES_PER_CHUNK>,
    keys: Chunked<Key, KEYS_PER_STEP>,
}

/// The first batch of a segment, or one more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewBatch {
    pub(crate) segment: LogOffset,
    pub(crate) base: LogOffset,
    pub(crate) len: u32,
    pub(crate) index: BatchIndex,
    pub(crate) prev_term: Term,
    pub(crate) store_time_ms: i64,
}

/// Oldest first. Their number is bounded by the index entries that the log may hold.
#[derive(Debug, Default)]
pub(crate) struct Unsealed {
    segments: VecDeque<UnsealedSegment>,
    /// Sealed since, and not yet freed; oldest first.
    sealed: Vec<UnsealedSegment>,
}

/// Where a search for a key goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyCursor {
    segment: LogOffset,
    nth: usize,
}

impl KeyCursor {
    pub const START: KeyCursor = KeyCursor { segment: LogOffset(0), nth: 0 };
}

impl Unsealed {
    pub(crate) fn push(&mut self, batch: NewBatch) {
        let NewBatch { segment, base, len, index, prev_term, store_time_ms } = batch;
        if self.segments.back().is_none_or(|last| last.base != segment) {
            self.segments.push_back(UnsealedSegment {
                base: segment,
                first_index: index,
                prev_term,
                first_time_ms: store_time_ms,
                end: segment,
                batches: Chunked::default(),
                keys: Chunked::default(),
            });
        }
        let last = self.segments.back_mut().expect("pushed if there was none");
        assert!(last.end <= base, "batch at {base} behind one up to {}", last.end);
        last.batches.push(((base.0 - segment.0) as u32, len));
        last.end = base.plus(len.into());
    }

    /// A key of a record in the batch pushed last.
    pub(crate) fn push_key(&mut self, hash: u32, record: LogOffset, size: u32) {
        let last = self.segments.back_mut().expect("the record's batch was pushed");
        last.keys.push(Key { hash, position: (record.0 - last.base.0) as u32, size });
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &UnsealedSegment> {
        self.segments.iter()
    }

    pub(crate) fn front(&self) -> Option<&UnsealedSegment> {
        self.segments.front()
    }

    /// The oldest segment if all its batches are committed, as one of a later segment is; and the term of the last of them.
    pub(crate) fn finished(&self) -> Option<(&UnsealedSegment, Term)> {
        let (oldest, next) = (self.segments.front()?, self.segments.get(1)?);
        Some((oldest, next.prev_term))
    }

    pub(crate) fn back(&self) -> Option<&UnsealedSegment> {
        self.segments.back()
    }

    /// The oldest segment is sealed. Its memory goes [step by step](Unsealed::step_freeing).
    pub(crate) fn pop_front(&mut self) {
        if self.sealed.len() == SEALED_MAX {
            self.sealed.remove(0);
        }
        self.sealed.extend(self.segments.pop_front());
    }

    /// Frees some of the memory of what is sealed.
    pub(crate) fn step_freeing(&mut self) {
        for _ in 0..CHUNKS_FREED_PER_STEP {
            let Some(last) = self.sealed.last_mut() else { return };
            if !last.keys.drop_chunk() && !last.batches.drop_chunk() {
                self.sealed.pop();
            }
        }
    }

    /// The batch that covers `offset`.
    pub(crate) fn batch_covering(&self, offset: LogOffset) -> Option<(LogOffset, u32)> {
        let behind = self.segments.partition_point(|segment| segment.base <= offset);
        let segment = &self.segments[behind.checked_sub(1)?];
        let position = offset.0 - segment.base.0;
        let behind = segment.batches.partition_point(|(at, _)| u64::from(*at) <= position);
        let (at, len) = *segment.batches.get(behind.checked_sub(1)?)?;
        (position - u64::from(at) < len.into()).then(|| (segment.base.plus(at.into()), len))
    }

    /// Where a batch stands, and its length.
    pub(crate) fn batch(&self, index: BatchIndex) -> Option<(LogOffset, u32)> {
        let behind = self.segments.partition_point(|segment| segment.first_index <= index);
        let segment = &self.segments[behind.checked_sub(1)?];
        let nth = usize::try_from(index.0 - segment.first_index.0).ok()?;
        segment.batches.get(nth).map(|(at, len)| (segment.base.plus((*at).into()), *len))
    }

    /// Looks at some keys from `cursor` on and calls `found` with log offset and size of each record that has `hash`;
    /// returns where to go on. Keys that were sealed meanwhile are passed over.
    pub(crate) fn find_key(
        &self,
        hash: u32,
        cursor: KeyCursor,
        mut found: impl FnMut(LogOffset, u32),
    ) -> Option<KeyCursor> {
        let nth = self.segments.partition_point(|segment| segment.base < cursor.segment);
        let segment = self.segments.get(nth)?;
        let from = if segment.base == cursor.segment { cursor.nth } else { 0 };
        let keys = segment.keys.chunk_from(from);
        for key in keys.iter().filter(|key| key.hash == hash) {
            found(segment.base.plus(key.position.into()), key.size);
        }
        let upto = from + keys.len();
        if upto < segment.keys.len() {
            return Some(KeyCursor { segment: segment.base, nth: upto });
        }
        self.segments.get(nth + 1).map(|next| KeyCursor { segment: next.base, nth: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsealed() -> Unsealed {
        let mut unsealed = Unsealed::default();
        for (nth, (segment, base)) in [(0, 0), (0, 8192), (100_000, 100_000)].into_iter().enumerate() {
            unsealed.push(NewBatch {
                segment: LogOffset(segment),
                base: LogOffset(base),
                len: 4096,
                index: BatchIndex(nth as u64 + 1),
                prev_term: Term(nth as u64),
                store_time_ms: 5,
            });
            unsealed.push_key(7, LogOffset(base + 300), 20);
            for hash in 0..KEYS_PER_STEP as u32 {
                unsealed.push_key(hash + 100, LogOffset(base + 400), 1);
            }
        }
        unsealed
    }

    #[test]
    fn batches_are_found_by_any_of_their_bytes() {
        let unsealed = unsealed();
        let rows = [
            (0, Some(0)),
            (4095, Some(0)),
            (4096, None),
            (8192, Some(8192)),
            (12_287, Some(8192)),
            (99_999, None),
            (100_000, Some(100_000)),
            (104_096, None),
        ];
        for (offset, base) in rows {
            let found = unsealed.batch_covering(LogOffset(offset)).map(|(base, _)| base.0);
            assert_eq!(found, base, "{offset}");
        }
    }

    #[test]
    fn batches_are_found_by_their_index() {
        let unsealed = unsealed();
        let rows = [(0, None), (1, Some(0)), (2, Some(8192)), (3, Some(100_000)), (4, None)];
        for (index, base) in rows {
            let found = unsealed.batch(BatchIndex(index)).map(|(base, len)| (base.0, len));
            assert_eq!(found, base.map(|base| (base, 4096)), "{index}");
        }
    }

    #[test]
    fn keys_are_found_step_by_step() {
        let mut unsealed = unsealed();
        let all = |unsealed: &Unsealed| {
            let (mut found, mut cursor, mut steps) = (Vec::new(), Some(KeyCursor::START), 0);
            while let Some(at) = cursor {
                cursor = unsealed.find_key(7, at, |offset, size| found.push((offset.0, size)));
                steps += 1;
            }
            (found, steps)
        };
        assert_eq!(all(&unsealed), (vec![(300, 20), (8492, 20), (100_300, 20)], 5));
        let cursor = unsealed.find_key(7, KeyCursor::START, |_, _| {}).unwrap();
        unsealed.pop_front();
        let mut found = Vec::new();
        assert!(unsealed.find_key(7, cursor, |offset, _| found.push(offset.0)).is_some());
        assert_eq!(found, [100_300], "the search goes on behind what was sealed meanwhile");
        assert_eq!(unsealed.front().unwrap().prev_term, Term(2));
        unsealed.step_freeing();
        assert!(unsealed.sealed.is_empty(), "it had no more than some chunks");
    }
}
