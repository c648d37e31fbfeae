//! The model: what the log owes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::record::Numbered;
use crate::aligned::AlignedBuffer;
use crate::disk::SegmentInfo;
use crate::format::RawHeader;
use crate::types::{BatchIndex, LogOffset, QueueKey, QueueOffset, Term};

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
    term: Term,
    prev_term: Term,
    pub(super) commit_hint: BatchIndex,
    pub(super) is_committed: bool,
    buffer: Rc<AlignedBuffer>,
    len: usize,
}

impl OwedBatch {
    fn follows(&self, last: &OwedBatch) -> bool {
        let is_behind = self.base >= last.base.plus(last.len as u64);
        is_behind && self.index == last.index.next() && self.prev_term == last.term
    }

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
    /// Everything in front of it has left by the log's own word.
    left_end: LogOffset,
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
        let batch = OwedBatch {
            base,
            index: header.index(),
            term: header.term(),
            prev_term: header.prev_term(),
            commit_hint: header.commit_hint(),
            is_committed: false,
            buffer,
            len: len as usize,
        };
        self.on_their_way.push_back((batch.index, base));
        self.batches.entry(base).or_default().push(batch);
    }

    pub(super) fn commit_batch(&mut self, index: BatchIndex) {
        let (oldest, base) = self.on_their_way.pop_front().expect("only what was written is committed");
        assert_eq!(oldest, index, "committed in the order of batches");
        let batches = self.batches.get_mut(&base).expect("written");
        // On a disk that lies the others may still be what stands there.
        batches.iter_mut().for_each(|batch| batch.is_committed = false);
        batches.last_mut().expect("written").is_committed = true;
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

    /// Where the last batch of a segment ends, if all of them are committed.
    pub(super) fn end_of_committed(&self, segment: SegmentInfo) -> Option<LogOffset> {
        if self.on_their_way.front().is_some_and(|(_, base)| *base < segment.end()) {
            return None;
        }
        let mut batches =
            self.batches.range(segment.base..segment.end()).rev().flat_map(|(_, batches)| batches);
        batches.find(|batch| batch.is_committed).map(|batch| batch.base.plus(batch.len as u64))
    }

    /// The first record of a queue in a log that begins at `start`; how many there are, if all are gone.
    pub(super) fn min_in(&self, queue: QueueKey, start: LogOffset) -> u64 {
        let is_gone =
            |owed: &OwedRecord| owed.committed.is_some_and(|committed| committed.log_offset < start);
        self.visible(queue).partition_point(is_gone) as u64
    }

    /// Committed records of a log that begins at `start`, queue by queue.
    pub(super) fn committed_from(
        &self,
        start: LogOffset,
    ) -> impl Iterator<Item = (&OwedRecord, CommittedAt)> {
        let all = self.queues.values().flatten();
        let committed = all.filter_map(|owed| owed.committed.map(|committed| (owed, committed)));
        committed.filter(move |(_, committed)| committed.log_offset >= start)
    }

    pub(super) fn leave(&mut self, segment: SegmentInfo) {
        self.left_end = segment.end();
    }

    /// The file of a segment is about to go.
    pub(super) fn give_up(&self, segment: LogOffset) {
        assert!(segment < self.left_end, "the log goes from {} on, and {segment} shall go", self.left_end);
    }

    /// The log was reopened and ends at `end`: of the batches written at one place only one can be meant from now on.
    pub(super) fn settle_batches(
        &mut self,
        start: LogOffset,
        end: LogOffset,
        is_intact: impl Fn(&OwedBatch) -> bool,
    ) {
        self.on_their_way.clear();
        self.batches = self.batches.split_off(&start);
        // Behind the one accepted last; of the first batch it is only known that it was committed, or that it is the log's first.
        let mut last: Option<OwedBatch> = None;
        for (base, batches) in &mut self.batches {
            if *base >= end {
                batches.iter_mut().for_each(|batch| batch.is_committed = false);
                continue;
            }
            batches.retain(|batch| match &last {
                Some(last) => batch.follows(last) && (batch.is_committed || is_intact(batch)),
                None if batch.index == BatchIndex(1) => batch.is_committed || is_intact(batch),
                None => batch.is_committed,
            });
            if let Some(nth) = batches.iter().position(&is_intact) {
                batches.swap(0, nth);
            }
            batches.truncate(1);
            if let Some(batch) = batches.first_mut() {
                batch.is_committed = true;
                last = Some(batch.clone());
            }
        }
        self.batches.retain(|_, batches| !batches.is_empty());
    }

    /// The log was reopened with these records, by queue and from these offsets on. What was committed must be among
    /// them unless `may_lose_committed`.
    pub(super) fn compare(
        &mut self,
        mut all_found: BTreeMap<QueueKey, (u64, Vec<FoundRecord>)>,
        may_lose_committed: bool,
    ) -> Compared {
        let mut compared = Compared::default();
        let (mut calls_kept, mut calls_lost) = (BTreeSet::new(), BTreeSet::new());
        for (queue, owed) in &mut self.queues {
            let (min, found) = all_found.remove(queue).unwrap_or_default();
            let gone = owed.get(..min as usize).expect("what left was there");
            assert!(gone.iter().all(|owed| owed.committed.is_some()), "queue {queue}: {min} were never seen");
            let offset_of = |nth: usize| QueueOffset(min + nth as u64);
            let same = found.iter().enumerate().take_while(|(nth, found)| {
                let offset = offset_of(*nth);
                owed.get(offset.0 as usize).is_some_and(|owed| found.is(owed, offset))
            });
            let same = same.count();
            for (nth, gone) in owed.split_off(min as usize + same).into_iter().enumerate() {
                let was_committed = gone.committed.is_some();
                assert!(may_lose_committed || !was_committed, "{gone:?} of queue {queue} is lost");
                compared.committed_lost += u64::from(was_committed);
                calls_lost.insert(gone.call);
                let gone = OwedRecord { committed: None, ..gone };
                self.lost.entry((*queue, offset_of(same + nth).0)).or_default().push(gone);
                compared.lost += 1;
            }
            for (nth, found) in found.into_iter().enumerate() {
                let offset = offset_of(nth);
                if nth >= same {
                    // Not what this life staged here, if it did: then it is what an earlier one did, in doubt since.
                    let lost = self.lost.get(&(*queue, offset.0)).map_or(&[][..], Vec::as_slice);
                    let back = lost.iter().find(|lost| found.is(lost, offset));
                    let back =
                        *back.unwrap_or_else(|| panic!("queue {queue} record {offset}: nobody staged it"));
                    owed.push(back);
                    compared.back += 1;
                }
                let owed = &mut owed[offset.0 as usize];
                if let Some(committed) = owed.committed {
                    assert_eq!(committed, found.at, "queue {queue} record {offset} has moved");
                }
                owed.committed = Some(found.at);
                calls_kept.insert(owed.call);
            }
        }
        all_found.retain(|_, (_, found)| !found.is_empty());
        assert!(all_found.is_empty(), "queues that nobody staged to: {:?}", all_found.keys());
        assert!(calls_kept.is_disjoint(&calls_lost), "an append call was torn apart");
        compared
    }
}
