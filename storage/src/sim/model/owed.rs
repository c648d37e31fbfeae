//! The model: what the log owes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::record::Numbered;
use crate::aligned::AlignedBuffer;
use crate::format::RawHeader;
use crate::types::{BatchIndex, LogOffset, QueueKey, QueueOffset};

/// A record the log has taken in and not denied since.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwedRecord {
    pub(super) record: Numbered,
    /// The call of `stage` it came with.
    pub(super) call: u64,
    pub(super) committed: Option<CommittedAt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommittedAt {
    pub(super) log_offset: LogOffset,
    pub(super) store_time_ms: i64,
}

/// A record as the reopened log has it.
#[derive(Clone, Debug)]
pub(super) struct FoundRecord {
    pub(super) at: CommittedAt,
    /// Nothing where the bytes are damaged.
    pub(super) bytes: Option<Vec<u8>>,
}

impl FoundRecord {
    fn is(&self, owed: &OwedRecord, queue_offset: QueueOffset) -> bool {
        match &self.bytes {
            Some(bytes) => owed.record.bytes(self.at.log_offset, queue_offset) == *bytes,
            None => owed.committed == Some(self.at),
        }
    }
}

/// A batch that was handed to the disk.
#[derive(Clone, Debug)]
pub(super) struct OwedBatch {
    pub(super) base: LogOffset,
    pub(super) index: BatchIndex,
    pub(super) commit_hint: BatchIndex,
    pub(super) is_committed: bool,
    buffer: Rc<AlignedBuffer>,
    len: usize,
}

impl OwedBatch {
    pub(super) fn bytes(&self) -> &[u8] {
        &(*self.buffer).as_ref()[..self.len]
    }
}

/// What came of the records that a log was reopened with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compared {
    pub(super) lost: u64,
    /// Committed ones among them.
    pub(super) committed_lost: u64,
    pub(super) back: u64,
}

#[derive(Debug, Default)]
pub(super) struct Owed {
    queues: BTreeMap<QueueKey, Vec<OwedRecord>>,
    /// Records that a crash took away: they may come back, see `recovery/scan.rs`.
    lost: BTreeMap<(QueueKey, u64), Vec<OwedRecord>>,
    /// Every batch written at a place, as long as it may be what stands there.
    batches: BTreeMap<LogOffset, Vec<OwedBatch>>,
    /// Batches of this life that are not committed, oldest first, and where they were written to.
    on_their_way: VecDeque<(BatchIndex, LogOffset)>,
}

impl Owed {
    pub(super) fn queue_keys(&self) -> impl Iterator<Item = QueueKey> {
        self.queues.keys().copied()
    }

    /// All records of a queue, uncommitted ones last.
    pub(super) fn records(&self, queue: QueueKey) -> &[OwedRecord] {
        self.queues.get(&queue).map_or(&[], Vec::as_slice)
    }

    /// The committed records of a queue.
    pub(super) fn visible(&self, queue: QueueKey) -> &[OwedRecord] {
        let records = self.records(queue);
        &records[..records.partition_point(|owed| owed.committed.is_some())]
    }

    pub(super) fn push(&mut self, queue: QueueKey, record: Numbered, call: u64) {
        self.queues.entry(queue).or_default().push(OwedRecord { record, call, committed: None });
    }

    /// Takes the newest record of a queue back, which was denied.
    pub(super) fn take_back(&mut self, queue: QueueKey) {
        let owed = self.queues.get_mut(&queue).and_then(Vec::pop).expect("only what was staged is denied");
        assert!(owed.committed.is_none(), "{owed:?} was committed and then denied");
    }

    pub(super) fn commit(&mut self, queue: QueueKey, offset: QueueOffset, at: CommittedAt) -> Numbered {
        let owed = &mut self.queues.get_mut(&queue).expect("staged")[offset.0 as usize];
        assert!(owed.committed.is_none(), "{owed:?} committed twice");
        owed.committed = Some(at);
        owed.record
    }

    pub(super) fn push_batch(&mut self, base: LogOffset, buffer: Rc<AlignedBuffer>, len: u32) {
        let header = *RawHeader((*buffer).as_ref()).verify().expect("the log writes whole headers");
        let (index, commit_hint) = (header.index(), header.commit_hint());
        let len = len as usize;
        let batch = OwedBatch { base, index, commit_hint, is_committed: false, buffer, len };
        self.batches.entry(base).or_default().push(batch);
        self.on_their_way.push_back((index, base));
    }

    pub(super) fn commit_batch(&mut self, index: BatchIndex) {
        let (oldest, base) = self.on_their_way.pop_front().expect("only what was written is committed");
        assert_eq!(oldest, index, "committed in the order of batches");
        let batches = self.batches.get_mut(&base).expect("written");
        batches.drain(..batches.len() - 1);
        batches[0].is_committed = true;
    }

    /// The committed batch that covers `offset`.
    pub(super) fn committed_batch_at(&self, offset: LogOffset) -> Option<&OwedBatch> {
        let mut before = self.batches.range(..=offset).rev().flat_map(|(_, batches)| batches);
        let batch = before.find(|batch| batch.is_committed)?;
        (offset < batch.base.plus(batch.len as u64)).then_some(batch)
    }

    /// Every batch that may stand in the log.
    pub(super) fn batches(&self) -> impl Iterator<Item = &OwedBatch> {
        self.batches.values().flatten()
    }

    pub(super) fn committed_batches(&self) -> impl Iterator<Item = &OwedBatch> {
        self.batches().filter(|batch| batch.is_committed)
    }

    /// The log was reopened and ends at `end`: of the batches written at one place only one can be meant from now on.
    pub(super) fn settle_batches(&mut self, end: LogOffset, is_intact: impl Fn(&OwedBatch) -> bool) {
        self.on_their_way.clear();
        for (base, batches) in &mut self.batches {
            if *base >= end {
                batches.iter_mut().for_each(|batch| batch.is_committed = false);
                continue;
            }
            match batches.iter().position(&is_intact) {
                Some(nth) => {
                    batches.swap(0, nth);
                    batches.truncate(1);
                    batches[0].is_committed = true;
                }
                None => batches.retain(|batch| batch.is_committed),
            }
        }
        self.batches.retain(|_, batches| !batches.is_empty());
    }

    /// The log was reopened with these records. What was committed must be among them unless `may_lose_committed`.
    pub(super) fn compare(
        &mut self,
        mut all_found: BTreeMap<QueueKey, Vec<FoundRecord>>,
        may_lose_committed: bool,
    ) -> Compared {
        let mut compared = Compared::default();
        let (mut calls_kept, mut calls_lost) = (BTreeSet::new(), BTreeSet::new());
        for (queue, owed) in &mut self.queues {
            let found = all_found.remove(queue).unwrap_or_default();
            let same = found.iter().enumerate().take_while(|(nth, found)| {
                owed.get(*nth).is_some_and(|owed| found.is(owed, QueueOffset(*nth as u64)))
            });
            let same = same.count();
            for (nth, gone) in owed.split_off(same).into_iter().enumerate() {
                let was_committed = gone.committed.is_some();
                assert!(may_lose_committed || !was_committed, "{gone:?} of queue {queue} is lost");
                compared.committed_lost += u64::from(was_committed);
                calls_lost.insert(gone.call);
                let gone = OwedRecord { committed: None, ..gone };
                self.lost.entry((*queue, (same + nth) as u64)).or_default().push(gone);
                compared.lost += 1;
            }
            for (nth, found) in found.into_iter().enumerate() {
                if nth >= same {
                    // Not what this life staged here, if it did: then it is what an earlier one did, in doubt since.
                    let lost = self.lost.get(&(*queue, nth as u64)).map_or(&[][..], Vec::as_slice);
                    let back = lost.iter().find(|lost| found.is(lost, QueueOffset(nth as u64)));
                    owed.push(
                        *back.unwrap_or_else(|| panic!("queue {queue} record {nth}: nobody staged it")),
                    );
                    compared.back += 1;
                }
                if let Some(committed) = owed[nth].committed {
                    assert_eq!(committed, found.at, "queue {queue} record {nth} has moved");
                }
                owed[nth].committed = Some(found.at);
                calls_kept.insert(owed[nth].call);
            }
        }
        assert!(all_found.is_empty(), "queues that nobody staged to: {:?}", all_found.keys());
        assert!(calls_kept.is_disjoint(&calls_lost), "an append call was torn apart");
        compared
    }
}
