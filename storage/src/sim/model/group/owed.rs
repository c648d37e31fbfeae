//! What the group has committed, in order.

use std::collections::{BTreeMap, BTreeSet};

use super::super::state::digest;
use crate::format::{BatchKind, RawBatch};
use crate::types::{BatchIndex, LogOffset, QueueKey, Term};

/// A batch as it was first committed.
#[derive(Debug)]
pub(super) struct OwedBatch {
    pub(super) bytes: Vec<u8>,
    pub(super) term: Term,
    pub(super) kind: BatchKind,
    pub(super) base: LogOffset,
}

#[derive(Debug)]
pub(super) struct OwedRecord {
    /// Of its batch.
    pub(super) index: BatchIndex,
    pub(super) log_offset: LogOffset,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Owed {
    batches: Vec<OwedBatch>,
    queues: BTreeMap<QueueKey, Vec<OwedRecord>>,
    /// Every batch that was ever seen, by index and term: its checksum.
    seen: BTreeMap<(BatchIndex, Term), u32>,
    /// Bytes of records that were never to be stored.
    denied: BTreeSet<u64>,
}

impl Owed {
    pub(super) fn last(&self) -> BatchIndex {
        BatchIndex(self.batches.len() as u64)
    }

    pub(super) fn batch(&self, index: BatchIndex) -> &OwedBatch {
        &self.batches[index.0 as usize - 1]
    }

    pub(super) fn records(&self, queue: QueueKey) -> &[OwedRecord] {
        self.queues.get(&queue).map_or(&[], Vec::as_slice)
    }

    /// Control records in front of a place, as derived state lists them.
    pub(super) fn control_before(&self, end: LogOffset) -> Vec<(LogOffset, u32)> {
        let records = self.records(QueueKey::CONTROL).iter();
        let before = records.take_while(|record| record.log_offset < end);
        before.map(|record| (record.log_offset, digest(&record.bytes))).collect()
    }

    /// The records of a committed batch that are told with it where nobody waits for them.
    pub(super) fn told(&self, index: BatchIndex) -> Vec<(LogOffset, Vec<u8>)> {
        let batch = RawBatch(&self.batch(index).bytes).verify().unwrap();
        let told =
            batch.entries().filter(|entry| matches!(entry.queue, QueueKey::CONTROL | QueueKey::MEMBERS));
        told.map(|entry| (entry.log_offset, entry.record.to_vec())).collect()
    }

    /// A batch exists somewhere.
    pub(super) fn see(&mut self, bytes: &[u8]) {
        let batch = RawBatch(bytes).verify().unwrap();
        let header = batch.header();
        let sum = crc32c::crc32c(&bytes[..header.batch_len()]);
        let known = *self.seen.entry((header.index(), header.term())).or_insert(sum);
        assert_eq!(known, sum, "two batches {} of term {}", header.index(), header.term());
    }

    /// A record will never be stored.
    pub(super) fn deny(&mut self, id: u64) {
        self.denied.insert(id);
    }

    pub(super) fn is_denied(&self, id: u64) -> bool {
        self.denied.contains(&id)
    }

    /// Batch `index` is committed somewhere. True if it is so for the first time.
    pub(super) fn commit(&mut self, index: BatchIndex, bytes: Vec<u8>) -> bool {
        if index <= self.last() {
            assert!(self.batch(index).bytes == bytes, "batch {index} was committed with other bytes");
            return false;
        }
        assert_eq!(index, self.last().next(), "committed out of order");
        let batch = RawBatch(&bytes).verify().unwrap();
        let header = *batch.header();
        assert_eq!(header.index(), index);
        for entry in batch.entries() {
            let records = self.queues.entry(entry.queue).or_default();
            assert_eq!(entry.queue_offset.0, records.len() as u64, "queue {}", entry.queue);
            let bytes = entry.record.to_vec();
            records.push(OwedRecord { index, log_offset: entry.log_offset, bytes });
        }
        let (term, kind, base) = (header.term(), header.batch_kind(), header.base_offset());
        self.batches.push(OwedBatch { bytes, term, kind, base });
        true
    }
}
