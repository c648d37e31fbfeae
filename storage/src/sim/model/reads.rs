//! Reads and look-ups, compared with those of the model.

use super::owed::{OwedBatch, OwedRecord};
use super::world::{QUEUES, World};
use crate::format::RawBatch;
use crate::index::TimeBound;
use crate::log::{Located, ReadLimits, Run};
use crate::types::{LogOffset, QueueKey, QueueOffset};

const EVERYTHING: ReadLimits = ReadLimits { messages_max: 10_000, bytes_max: 1 << 30, examine_max: 10_000 };

impl World {
    pub(super) fn check_all(&mut self) {
        for queue in (0..QUEUES).map(QueueKey) {
            let visible = self.owed.visible(queue).len() as u64;
            assert_eq!(self.log.min_offset(queue), QueueOffset(0));
            assert_eq!(self.log.max_offset(queue), QueueOffset(visible), "queue {queue}");
            assert!(self.log.entry(queue, QueueOffset(visible)).unwrap().is_none());
            self.read(queue, 0, EVERYTHING, None);
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
        let plan = self
            .log
            .plan_read(queue, QueueOffset(from), limits, |entry| tag.is_none_or(|tag| entry.tag_hash == tag));
        let (mut wanted, mut bytes, mut next) = (Vec::new(), 0, from);
        for (nth, owed) in self.owed.visible(queue).iter().enumerate().skip(from as usize) {
            if wanted.len() as u64 >= u64::from(limits.messages_max)
                || next - from >= u64::from(limits.examine_max)
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
    }

    /// The bytes are the record's, unless they were damaged.
    fn check_bytes(&mut self, queue: QueueKey, offset: QueueOffset, owed: &OwedRecord, bytes: &[u8]) {
        let log_offset = owed.committed.expect("only committed records are read").log_offset;
        if owed.record.bytes(log_offset, offset) == bytes {
            return self.tally.count("record read");
        }
        assert!(!self.is_honest, "queue {queue}: other bytes than record {offset}");
        let batch = self.owed.committed_batch_at(log_offset);
        let batch = batch.expect("a committed record is in a committed batch");
        assert!(!self.is_intact(batch), "queue {queue}: other bytes than record {offset} from a good batch");
        self.tally.count("damage read");
    }

    /// Whether the disk has this batch as it was written.
    pub(super) fn is_intact(&self, batch: &OwedBatch) -> bool {
        self.disk.read(self.run_at(batch.base, batch.bytes().len() as u32)) == batch.bytes()
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
        match self.log.locate(log_offset).unwrap().expect("committed records can be found") {
            Located::Memory(run) => self.check_bytes(queue, QueueOffset(nth), &owed, run.as_ref()),
            Located::InBatch(run) => {
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
        let times: Vec<i64> =
            self.owed.visible(queue).iter().map(|owed| owed.committed.unwrap().store_time_ms).collect();
        assert!(times.is_sorted(), "store times of queue {queue} go back");
        let lower = times.iter().take_while(|time| **time < time_ms).count();
        let upper = times.iter().take_while(|time| **time <= time_ms).count().saturating_sub(1);
        assert_eq!(self.log.search_by_time(queue, time_ms, TimeBound::Lower).unwrap().0, lower as u64);
        assert_eq!(self.log.search_by_time(queue, time_ms, TimeBound::Upper).unwrap().0, upper as u64);
    }

    /// The record's bytes as the disk has them; nothing if its batch is damaged.
    pub(super) fn good_bytes_at(&self, log_offset: LogOffset, len: u32) -> Option<Vec<u8>> {
        let batch = self.owed.committed_batch_at(log_offset);
        batch.is_none_or(|batch| self.is_intact(batch)).then(|| self.disk.read(self.run_at(log_offset, len)))
    }
}
