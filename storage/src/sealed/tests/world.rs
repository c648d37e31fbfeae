//! Segments written batch by batch, and a plain list of all that was written: what an index must answer.

use rustc_hash::FxHashMap;

use super::shelf::Shelf;
use crate::disk::SegmentInfo;
use crate::format::{BatchFields, BatchKind, BatchLayout, BatchWriter, NewEntry};
use crate::index::IndexEntry;
use crate::sealed::{SealJob, SealedIndex, seal_segment};
use crate::types::{BatchIndex, GroupId, LogOffset, NodeId, QueueKey, QueueOffset, Term};

pub(crate) const GROUP: GroupId = GroupId(7);

/// A record to be written.
#[derive(Clone, Debug)]
pub(crate) struct New {
    pub(crate) queue: u64,
    pub(crate) tag_hash: i32,
    pub(crate) keys: Vec<u32>,
    pub(crate) bytes: Vec<u8>,
}

impl New {
    pub(crate) fn of(queue: u64, len: usize) -> New {
        New { queue, tag_hash: -3, keys: Vec::new(), bytes: vec![queue as u8; len] }
    }

    pub(crate) fn control(bytes: &[u8]) -> New {
        New { queue: QueueKey::CONTROL.0, tag_hash: 0, keys: Vec::new(), bytes: bytes.to_vec() }
    }
}

/// A record that was written.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) queue: QueueKey,
    pub(crate) queue_offset: QueueOffset,
    pub(crate) entry: IndexEntry,
    pub(crate) keys: Vec<u32>,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) job: SealJob,
    pub(crate) last_index: BatchIndex,
    pub(crate) last_term: Term,
    /// In the order of the log.
    pub(crate) records: Vec<Written>,
    pub(crate) batches: Vec<(LogOffset, u32)>,
    pub(crate) times_ms: Vec<i64>,
    /// All queues known when the segment ended, with the offset they stood at when it began.
    pub(crate) queues: Vec<(QueueKey, QueueOffset)>,
    /// Where they stand now.
    next: FxHashMap<QueueKey, QueueOffset>,
}

/// A log under construction: batches go to the last segment.
pub(crate) struct World {
    pub(crate) shelf: Shelf,
    pub(crate) segments: Vec<Segment>,
    pub(crate) term: Term,
    pub(crate) time_ms: i64,
}

impl World {
    pub(crate) fn new() -> World {
        World { shelf: Shelf::default(), segments: Vec::new(), term: Term(1), time_ms: 1_700_000_000_000 }
    }

    /// A segment of no bytes that grows with its batches.
    pub(crate) fn begin_segment(&mut self) {
        let previous = self.segments.last();
        let base = previous.map_or(LogOffset(0), |previous| previous.job.segment.end());
        let job = SealJob {
            group: GROUP,
            segment: SegmentInfo { base, bytes: 0 },
            end: base,
            first_index: previous.map_or(BatchIndex(1), |previous| previous.last_index.next()),
            prev_term: previous.map_or(Term(0), |previous| previous.last_term),
            last_term: previous.map_or(Term(0), |previous| previous.last_term),
            previous: previous.map(|previous| previous.job.segment.base),
        };
        let queues = previous.map_or(Vec::new(), |previous| {
            previous.next.iter().map(|(queue, next)| (*queue, *next)).collect()
        });
        self.segments.push(Segment {
            last_index: BatchIndex(job.first_index.0 - 1),
            last_term: job.prev_term,
            job,
            records: Vec::new(),
            batches: Vec::new(),
            times_ms: Vec::new(),
            queues,
            next: previous.map_or(FxHashMap::default(), |previous| previous.next.clone()),
        });
        self.shelf.segments.borrow_mut().insert(base, Vec::new());
    }

    /// Writes a batch at the end of the last segment. Records of one queue should stand together.
    pub(crate) fn batch(&mut self, records: &[New]) {
        let segment = self.segments.last_mut().unwrap();
        let mut layout = BatchLayout::default();
        records.iter().for_each(|new| layout.add(new.bytes.len() as u32, new.keys.len()));
        let index = segment.last_index.next();
        let fields = BatchFields {
            kind: if records.is_empty() { BatchKind::NoOp } else { BatchKind::Records },
            group: GROUP,
            leader: NodeId(1),
            term: self.term,
            index,
            prev_term: segment.last_term,
            base_offset: segment.job.end,
            commit_hint: BatchIndex(index.0 - 1),
            store_time_ms: self.time_ms,
        };
        let mut bytes = vec![0; layout.batch_len()];
        let mut writer = BatchWriter::new(&mut bytes, layout, fields);
        for new in records {
            let queue = QueueKey(new.queue);
            let queue_offset = segment.next_of(queue);
            let (tag_hash, size) = (new.tag_hash, new.bytes.len() as u32);
            let entry = NewEntry { queue, queue_offset, tag_hash, key_hashes: &new.keys, size };
            let log_offset = writer.push(entry, |_, out| out.copy_from_slice(&new.bytes));
            let entry = IndexEntry { log_offset, store_time_ms: self.time_ms, size, tag_hash };
            let (keys, bytes) = (new.keys.clone(), new.bytes.clone());
            if segment.next.insert(queue, queue_offset.next()).is_none() {
                segment.queues.push((queue, QueueOffset(0)));
            }
            segment.records.push(Written { queue, queue_offset, entry, keys, bytes });
        }
        writer.finish();
        segment.batches.push((segment.job.end, bytes.len() as u32));
        segment.times_ms.push(self.time_ms);
        (segment.last_index, segment.last_term) = (index, self.term);
        segment.job.last_term = self.term;
        segment.job.end = segment.job.end.plus(bytes.len() as u64);
        segment.job.segment.bytes += bytes.len() as u64;
        self.shelf.segments.borrow_mut().get_mut(&segment.job.segment.base).unwrap().extend(bytes);
    }

    /// Leaves the rest of the segment unwritten, as a roll does; an earlier life left something there.
    pub(crate) fn leave_gap(&mut self, blocks: usize) {
        let segment = self.segments.last_mut().unwrap();
        let bytes = blocks * crate::format::BLOCK_LEN;
        segment.job.segment.bytes += bytes as u64;
        let rest = vec![0xee; bytes];
        self.shelf.segments.borrow_mut().get_mut(&segment.job.segment.base).unwrap().extend(rest);
    }

    pub(crate) fn last(&self) -> &Segment {
        self.segments.last().unwrap()
    }

    /// Seals all segments, oldest first.
    pub(crate) fn seal(&self) -> Vec<std::sync::Arc<SealedIndex>> {
        let sealed = self.segments.iter().map(|segment| seal_segment(&self.shelf, &segment.job).unwrap());
        sealed.collect()
    }
}

impl Segment {
    pub(crate) fn of_queue(&self, queue: QueueKey) -> impl Iterator<Item = &Written> {
        self.records.iter().filter(move |record| record.queue == queue)
    }

    /// The offset that the next record of a queue gets.
    pub(crate) fn next_of(&self, queue: QueueKey) -> QueueOffset {
        self.next.get(&queue).copied().unwrap_or_default()
    }
}
