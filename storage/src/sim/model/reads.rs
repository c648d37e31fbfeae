//! Reads and look-ups, compared with those of the model.

use super::owed::{OwedBatch, OwedRecord};
use super::record::KEY_HASHES;
use super::world::World;
use crate::format::RawBatch;
use crate::index::TimeBound;
use crate::log::{Located, ReadLimits, Run};
use crate::sealed::{Access, IndexFault};
use crate::source::LogFile;
use crate::types::{LogOffset, QueueKey, QueueOffset};
use crate::{IndexEntry, KeyCursor};

const EVERYTHING: ReadLimits = ReadLimits { messages_max: 10_000, bytes_max: 1 << 30, examine_max: 10_000 };

/// Faults that one question may meet: as many as its index files have pages, and more.
const FAULTS_MAX: usize = 1000;

/// An index is damaged and cannot be made anew just now: the question has no answer.
#[derive(Debug)]
pub(super) struct NoAnswer;

impl World {
    /// Asks the log until it answers: loads cold pages, and waits for a damaged index to be made anew.
    pub(super) fn ask<T>(
        &mut self,
        question: impl Fn(&World) -> Result<T, IndexFault>,
    ) -> Result<T, NoAnswer> {
        for _ in 0..FAULTS_MAX {
            match question(self) {
                Ok(answer) => return Ok(answer),
                Err(fault) => self.on_fault(fault)?,
            }
        }
        panic!("no end of faults");
    }

    pub(super) fn on_fault(&mut self, fault: IndexFault) -> Result<(), NoAnswer> {
        match fault {
            IndexFault::Cold { segment, range } => {
                self.tally.count("cold pages loaded");
                let index = self.log.sealed_index(segment).expect("faults name indexes that are there");
                match index.load(range) {
                    Ok(()) => Ok(()),
                    Err(fault @ IndexFault::Damaged { .. }) => self.on_fault(fault),
                    Err(IndexFault::Cold { .. }) => panic!("loaded, and cold"),
                }
            }
            IndexFault::Damaged { segment, .. } => {
                assert!(!self.is_honest, "{fault}");
                self.tally.count("index damage met by a read");
                self.log.on_index_damaged(segment);
                for _ in 0..100 {
                    self.pass(1);
                    self.submit();
                    self.complete_one();
                    self.take_outcomes();
                    let is_whole = |world: &World| {
                        let index = world.log.sealed_index(segment);
                        index.is_none_or(|index| index.view(Access::Blocking).verify_all().is_ok())
                    };
                    if is_whole(self) {
                        return Ok(());
                    }
                }
                self.check_unreadable(segment);
                Err(NoAnswer)
            }
        }
    }

    /// An index could not be made anew, so there must be a reason.
    fn check_unreadable(&mut self, segment: LogOffset) {
        let index = self.log.sealed_index(segment).expect("it is still there");
        let end = index.summary().end;
        let batches = self.owed.committed_batches().filter(|batch| batch.base >= segment && batch.base < end);
        let is_segment_damaged = { batches }.any(|batch| !self.is_intact(batch));
        let are_others_damaged = self.disk.small_files().into_iter().any(|file| self.disk.is_damaged(file));
        let is_poisoned = self.log.poisoned().is_some();
        assert!(
            is_segment_damaged || are_others_damaged || is_poisoned,
            "the index of {segment} is not made anew"
        );
        self.tally.count("question without an answer");
    }

    /// The first offset of a queue that can be read. It may have been raised in part for the segment that leaves.
    fn min(&self, queue: QueueKey) -> u64 {
        let found = self.log.min_offset(queue).0;
        let start = self.log.start();
        let leaving = self.log.sealed_indexes().next().map_or(start, |oldest| oldest.summary().segment.end());
        let (low, high) = (self.owed.min_in(queue, start), self.owed.min_in(queue, leaving));
        assert!(
            (low..=high).contains(&found),
            "queue {queue} begins with {found}, not between {low} and {high}"
        );
        found
    }

    pub(super) fn check_all(&mut self) {
        for queue in Self::all_queues() {
            let visible = self.owed.visible(queue).len() as u64;
            assert_eq!(self.log.max_offset(queue), QueueOffset(visible), "queue {queue}");
            let min = self.min(queue);
            self.read(queue, min, EVERYTHING, None);
            let _ = self.ask(|world| {
                assert_eq!(world.log.entry(queue, world.log.max_offset(queue))?, None);
                if let Some(before) = world.log.min_offset(queue).0.checked_sub(1) {
                    assert_eq!(world.log.entry(queue, QueueOffset(before))?, None);
                }
                Ok(())
            });
        }
    }

    pub(super) fn read_somewhere(&mut self) {
        let queue = self.random_queue();
        let from = self.rng.below(self.owed.visible(queue).len() as u64 + 2);
        let limits = ReadLimits {
            messages_max: self.rng.below(40) as u32,
            bytes_max: self.rng.below(8000),
            examine_max: self.rng.below(60) as u32,
        };
        let tag = self.rng.chance(30).then(|| self.rng.below(3) as i32);
        self.read(queue, from, limits, tag);
    }

    /// Reads by plan and compares with a read of the model.
    fn read(&mut self, queue: QueueKey, from: u64, limits: ReadLimits, tag: Option<i32>) {
        for _ in 0..FAULTS_MAX {
            let Some(fault) = self.read_once(queue, from, limits, tag) else { return };
            if self.on_fault(fault).is_err() {
                return;
            }
        }
        panic!("no end of faults");
    }

    /// Reads up to the first fault: what was planned before it is good.
    fn read_once(
        &mut self,
        queue: QueueKey,
        from: u64,
        limits: ReadLimits,
        tag: Option<i32>,
    ) -> Option<IndexFault> {
        let plan = self
            .log
            .plan_read(queue, QueueOffset(from), limits, |entry| tag.is_none_or(|tag| entry.tag_hash == tag));
        let (mut wanted, mut bytes, mut next) = (Vec::new(), 0, from);
        let readable = if from < self.min(queue) { &[] } else { self.owed.visible(queue) };
        for (nth, owed) in readable.iter().enumerate().skip(from as usize) {
            let is_at_fault = plan.fault.is_some() && next == plan.next_offset.0;
            if wanted.len() as u64 >= u64::from(limits.messages_max)
                || next - from >= u64::from(limits.examine_max)
                || is_at_fault
            {
                break;
            }
            if tag.is_none_or(|tag| owed.record.tag_hash() == tag) {
                let len = u64::from(owed.record.len);
                if !wanted.is_empty() && bytes + len > limits.bytes_max {
                    break;
                }
                bytes += len;
                wanted.push((*owed, QueueOffset(nth as u64)));
            }
            next += 1;
        }
        assert_eq!((plan.next_offset.0, plan.bytes), (next, bytes));
        assert_eq!(u64::from(plan.messages), wanted.len() as u64);
        assert_eq!(u64::from(plan.examined), next - from);
        let mut got = Vec::new();
        for run in &plan.runs {
            match run {
                Run::Memory(run) => got.extend_from_slice(run.as_ref()),
                Run::File(run) => got.extend(self.disk.read(*run)),
            }
        }
        let mut rest = &got[..];
        for (owed, queue_offset) in wanted {
            let (record, behind) = rest.split_at(owed.record.len as usize);
            self.check_bytes(queue, queue_offset, &owed, record);
            rest = behind;
        }
        assert!(rest.is_empty(), "{} bytes too many", rest.len());
        plan.fault
    }

    /// The bytes are the record's, unless they were damaged.
    fn check_bytes(&mut self, queue: QueueKey, offset: QueueOffset, owed: &OwedRecord, bytes: &[u8]) {
        let log_offset = owed.committed.expect("only committed records are read").log_offset;
        if owed.record.bytes(log_offset, offset) == bytes {
            return self.tally.count("record read");
        }
        assert!(!self.is_honest, "queue {queue}: other bytes than record {offset}");
        let batch = self.owed.committed_batch_at(log_offset).expect("a committed record is in one");
        assert!(!self.is_intact(batch), "queue {queue}: other bytes than record {offset} from a good batch");
        self.tally.count("damage read");
    }

    /// Whether the disk has this batch as it was written.
    pub(super) fn is_intact(&self, batch: &OwedBatch) -> bool {
        let run = self.run_at(batch.base, batch.bytes().len() as u32);
        self.disk.segment_bases().contains(&run.segment) && self.disk.read(run) == batch.bytes()
    }

    pub(super) fn locate_somewhere(&mut self) {
        let queue = self.random_queue();
        let visible = self.owed.visible(queue).len() as u64;
        if visible == 0 {
            return;
        }
        let nth = self.rng.below(visible);
        let owed = self.owed.visible(queue)[nth as usize];
        let log_offset = owed.committed.unwrap().log_offset;
        let Ok(located) = self.ask(|world| world.log.locate(log_offset)) else { return };
        let has_left = log_offset < self.log.start();
        match located {
            None => assert!(has_left, "committed records can be found"),
            Some(_) if has_left => panic!("what left was found"),
            Some(Located::Memory(run)) => self.check_bytes(queue, QueueOffset(nth), &owed, run.as_ref()),
            Some(Located::InBatch(run)) => {
                let bytes = self.disk.read(run);
                match RawBatch(&bytes).verify().ok().and_then(|batch| batch.find(log_offset)) {
                    Some(range) => self.check_bytes(queue, QueueOffset(nth), &owed, &bytes[range]),
                    None => assert!(!self.is_honest, "record at {log_offset} cannot be found"),
                }
            }
        }
    }

    pub(super) fn search_somewhere(&mut self) {
        let queue = self.random_queue();
        let time_ms = self.now_ms - self.rng.below(300) as i64;
        for bound in [TimeBound::Lower, TimeBound::Upper] {
            let Ok(found) = self.ask(|world| world.log.search_by_time(queue, time_ms, bound)) else { return };
            let min = self.min(queue);
            let readable = &self.owed.visible(queue)[min as usize..];
            let times: Vec<i64> = readable.iter().map(|owed| owed.committed.unwrap().store_time_ms).collect();
            assert!(times.is_sorted(), "store times of queue {queue} go back");
            let wanted = match bound {
                TimeBound::Lower => min + times.partition_point(|time| *time < time_ms) as u64,
                TimeBound::Upper => match times.partition_point(|time| *time <= time_ms) as u64 {
                    0 => 0,
                    upto => min + upto - 1,
                },
            };
            assert_eq!(found.0, wanted, "queue {queue}, {bound:?} of {time_ms}");
            self.tally.count("search by time");
        }
    }

    /// All records with a key hash, in the index files and in memory.
    pub(super) fn find_by_key(&mut self) {
        let hash = self.rng.below(KEY_HASHES) as u32;
        let found = self.ask(|world| {
            let mut found: Vec<(LogOffset, u32)> = Vec::new();
            for index in world.log.sealed_indexes() {
                let records = index.view(Access::Blocking).find_key(hash, usize::MAX)?;
                found.extend(records.iter().map(|entry: &IndexEntry| (entry.log_offset, entry.size)));
            }
            let mut cursor = Some(KeyCursor::START);
            while let Some(at) = cursor {
                cursor = world.log.find_unsealed_key(hash, at, |offset, size| found.push((offset, size)));
            }
            Ok(found)
        });
        let Ok(mut found) = found else { return };
        // Oldest first by their batches, and in any order within one.
        found.sort_unstable();
        let records = self.owed.committed_from(self.log.start());
        let with_key = records.filter(|(owed, _)| owed.record.key_hashes().contains(&hash));
        let mut wanted: Vec<_> =
            with_key.map(|(owed, committed)| (committed.log_offset, owed.record.len)).collect();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "records with key hash {hash}");
        self.tally.count("record found by key");
    }

    /// The record's bytes as the disk has them; nothing if its batch is damaged.
    pub(super) fn good_bytes_at(&self, log_offset: LogOffset, len: u32) -> Option<Vec<u8>> {
        let batch = self.owed.committed_batch_at(log_offset);
        batch.is_none_or(|batch| self.is_intact(batch)).then(|| self.disk.read(self.run_at(log_offset, len)))
    }

    /// Whether any index or snapshot is not what was written.
    pub(super) fn is_small_file_damaged(&self) -> bool {
        let mut small = self.disk.small_files().into_iter();
        small.any(|file: LogFile| self.disk.is_damaged(file))
    }
}
