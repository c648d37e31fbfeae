//! Reading: a plan of runs, made at once, fetched later.

use std::ops::Range;
use std::rc::Rc;

use smallvec::SmallVec;

use super::CommitLog;
use crate::disk::{Buffer, FileRun};
use crate::format::RawBatch;
use crate::index::{IndexEntry, TimeBound};
use crate::record::Record;
use crate::types::{LogOffset, QueueKey, QueueOffset};

/// Bytes of a committed batch that are still in memory. Holding it keeps the batch's buffer.
#[derive(Debug)]
pub struct MemoryRun<B> {
    pub buffer: Rc<B>,
    pub range: Range<usize>,
}

impl<B> Clone for MemoryRun<B> {
    fn clone(&self) -> Self {
        MemoryRun { buffer: Rc::clone(&self.buffer), range: self.range.clone() }
    }
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for MemoryRun<B> {
    fn as_ref(&self) -> &[u8] {
        &(*self.buffer).as_ref()[self.range.clone()]
    }
}

/// Records that stand one behind the other.
#[derive(Debug)]
pub enum Run<B> {
    Memory(MemoryRun<B>),
    File(FileRun),
}

impl<B> Run<B> {
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Run::Memory(run) => run.range.len() as u64,
            Run::File(run) => run.len.into(),
        }
    }
}

/// Where one record is, asked by its log offset.
#[derive(Debug)]
pub enum Located<B> {
    /// The record's own bytes.
    Memory(MemoryRun<B>),
    /// The whole batch; once read, [`Batch::find`](crate::format::Batch::find) tells the record.
    InBatch(FileRun),
}

/// Where a read stops; all three hold at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    pub messages_max: u32,
    /// The first record is given even if it alone is more.
    pub bytes_max: u64,
    /// Index entries looked at, whether the filter takes them or not.
    pub examine_max: u32,
}

/// What a read will give, in order.
#[derive(Debug)]
pub struct ReadPlan<B> {
    pub runs: SmallVec<[Run<B>; 4]>,
    pub messages: u32,
    pub bytes: u64,
    /// Where the next read begins: behind the last entry given or passed over by the filter.
    pub next_offset: QueueOffset,
    pub examined: u32,
}

impl<B: Buffer, R: Record> CommitLog<B, R> {
    /// The first offset that can be read; 0 for a queue never heard of.
    #[must_use]
    pub fn min_offset(&self, queue: QueueKey) -> QueueOffset {
        self.queues.get(queue).map_or(QueueOffset(0), |state| state.index.min())
    }

    /// One past the last offset that can be read: only committed records count.
    #[must_use]
    pub fn max_offset(&self, queue: QueueKey) -> QueueOffset {
        self.queues.get(queue).map_or(QueueOffset(0), |state| state.index.max())
    }

    /// The offset that the next staged record gets; staged and uncommitted records count.
    #[must_use]
    pub fn tail_offset(&self, queue: QueueKey) -> QueueOffset {
        self.queues.get(queue).map_or(QueueOffset(0), |state| state.tail)
    }

    /// The queues that ever had a record staged, in no particular order.
    pub fn queue_keys(&self) -> impl Iterator<Item = QueueKey> {
        self.queues.iter().map(|state| state.key)
    }

    #[must_use]
    pub fn entry(&self, queue: QueueKey, offset: QueueOffset) -> Option<IndexEntry> {
        self.queues.get(queue)?.index.get(offset).copied()
    }

    /// The offset of the entry that `bound` means. An empty queue answers [`max_offset`](CommitLog::max_offset)
    /// to a lower bound and 0 to an upper one.
    #[must_use]
    pub fn search_by_time(&self, queue: QueueKey, time_ms: i64, bound: TimeBound) -> QueueOffset {
        self.queues.get(queue).map_or(QueueOffset(0), |state| state.index.search_by_time(time_ms, bound))
    }

    /// Plans a read of one queue. `from` outside of what can be read gives an empty plan with `next_offset` = `from`.
    pub fn plan_read(
        &self,
        queue: QueueKey,
        from: QueueOffset,
        limits: ReadLimits,
        mut filter: impl FnMut(&IndexEntry) -> bool,
    ) -> ReadPlan<B> {
        let mut plan =
            ReadPlan { runs: SmallVec::new(), messages: 0, bytes: 0, next_offset: from, examined: 0 };
        let Some(index) = self.queues.get(queue).map(|state| &state.index) else { return plan };
        if from < index.min() {
            return plan;
        }
        for entry in index.range_from(from) {
            if plan.examined >= limits.examine_max || plan.messages >= limits.messages_max {
                break;
            }
            if filter(entry) {
                if plan.messages > 0 && plan.bytes + u64::from(entry.size) > limits.bytes_max {
                    break;
                }
                self.extend_runs(&mut plan.runs, entry);
                plan.messages += 1;
                plan.bytes += u64::from(entry.size);
            }
            plan.examined += 1;
            plan.next_offset = plan.next_offset.next();
        }
        plan
    }

    fn extend_runs(&self, runs: &mut SmallVec<[Run<B>; 4]>, entry: &IndexEntry) {
        if let Some((buffer, range)) = self.tail_cache.find(entry.log_offset, entry.size) {
            if let Some(Run::Memory(last)) = runs.last_mut()
                && Rc::ptr_eq(&last.buffer, buffer)
                && last.range.end == range.start
            {
                last.range.end = range.end;
                return;
            }
            runs.push(Run::Memory(MemoryRun { buffer: Rc::clone(buffer), range }));
            return;
        }
        let run = self.segments.file_run(entry.log_offset, entry.size);
        if let Some(Run::File(last)) = runs.last_mut()
            && last.segment == run.segment
            && last.position + u64::from(last.len) == run.position
            && let Some(len) = last.len.checked_add(run.len)
        {
            last.len = len;
            return;
        }
        runs.push(Run::File(run));
    }

    /// Where the committed record is that begins at `offset`. Nothing if no committed batch covers it; for a batch
    /// that is no longer in memory whether a record begins there is only known once the batch is read.
    #[must_use]
    pub fn locate(&self, offset: LogOffset) -> Option<Located<B>> {
        if let Some((buffer, len)) = self.tail_cache.batch_at(offset) {
            let bytes = &(**buffer).as_ref()[..len as usize];
            let range = RawBatch(bytes).verify().expect("a batch in memory is whole").find(offset)?;
            return Some(Located::Memory(MemoryRun { buffer: Rc::clone(buffer), range }));
        }
        let (base, len) = self.batches.covering(offset)?;
        Some(Located::InBatch(self.segments.file_run(base, len)))
    }
}
