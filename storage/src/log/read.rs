//! Reading: a plan of runs, made at once, fetched later.

use std::ops::{ControlFlow, Range};
use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use super::CommitLog;
use crate::disk::{Buffer, FileRun};
use crate::format::RawDirectory;
use crate::index::{IndexEntry, QueueState, TimeBound};
use crate::record::Record;
use crate::sealed::{Access, IndexFault, SealedIndex};
use crate::types::{LogOffset, QueueKey, QueueOffset};
use crate::unsealed::KeyCursor;

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
    /// The plan ends here because an index file could not be looked into: its pages have to be loaded
    /// ([`IndexFault::Cold`]) before the next read from `next_offset`, or the index made anew
    /// ([`CommitLog::on_index_damaged`]). What was planned before is good.
    pub fault: Option<IndexFault>,
}

/// Sealed segments that one read takes entries from: each takes a few microseconds, however few entries it has.
const SEGMENTS_PER_READ: u32 = 64;

/// Entries taken from an index file at once.
const ENTRIES_AT_ONCE: u32 = 256;

impl<B: Buffer, R: Record> CommitLog<B, R> {
    /// The first offset that can be read; 0 for a queue never heard of.
    #[must_use]
    pub fn min_offset(&self, queue: QueueKey) -> QueueOffset {
        self.queues.get(queue).map_or(QueueOffset(0), |state| state.min)
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

    /// Committed entries from `from` on that are still in memory, as the newest always are.
    pub fn newest_entries(
        &self,
        queue: QueueKey,
        from: QueueOffset,
    ) -> impl Iterator<Item = &IndexEntry> + Clone {
        self.queues.get(queue).into_iter().flat_map(move |state| state.index.range_from(from))
    }

    /// The entry of one record; nothing outside of what can be read.
    pub fn entry(&self, queue: QueueKey, offset: QueueOffset) -> Result<Option<IndexEntry>, IndexFault> {
        let Some(state) = self.queues.get(queue) else { return Ok(None) };
        if offset < state.min || offset >= state.index.max() {
            return Ok(None);
        }
        if let Some(entry) = state.index.get(offset) {
            return Ok(Some(*entry));
        }
        let mut found = None;
        let _ = self.visit_sealed(state, offset, &mut |entry| {
            found = Some(entry);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The offset of the entry that `bound` means. A queue without entries answers
    /// [`max_offset`](CommitLog::max_offset) to a lower bound and 0 to an upper one.
    pub fn search_by_time(
        &self,
        queue: QueueKey,
        time_ms: i64,
        bound: TimeBound,
    ) -> Result<QueueOffset, IndexFault> {
        let Some(state) = self.queues.get(queue) else { return Ok(QueueOffset(0)) };
        let not_before = if state.index.first() <= state.min || state.index.begins_before(time_ms, bound) {
            state.index.first_not_before(time_ms, bound)
        } else {
            self.sealed_not_before(state, time_ms, bound)?
        };
        Ok(match bound {
            TimeBound::Lower => not_before.max(state.min),
            TimeBound::Upper if not_before <= state.min => QueueOffset(0),
            TimeBound::Upper => QueueOffset(not_before.0 - 1),
        })
    }

    /// The first entry not before the place searched, which is at or in front of the first entry in memory.
    fn sealed_not_before(
        &self,
        state: &QueueState,
        time_ms: i64,
        bound: TimeBound,
    ) -> Result<QueueOffset, IndexFault> {
        let indexes = self.archive.indexes();
        let nth = indexes.partition_point(|index| bound.is_before(index.summary().last_time_ms, time_ms));
        // All entries of later segments are behind the place, those of earlier ones in front of it.
        let Some(index) = indexes.get(nth) else { return Ok(state.index.first()) };
        let view = index.view(Access::Resident);
        let Some(span) = view.queue(state.key)? else { return Ok(QueueOffset(0)) };
        let before = view.count_before(span, time_ms, bound)?;
        Ok(QueueOffset(span.begin.0 + u64::from(before)).min(state.index.max()))
    }

    /// Plans a read of one queue. `from` outside of what can be read gives an empty plan with `next_offset` = `from`.
    /// Any other plan has looked at an entry at least, or has a fault; it may end before its limits do.
    pub fn plan_read(
        &self,
        queue: QueueKey,
        from: QueueOffset,
        limits: ReadLimits,
        filter: impl FnMut(&IndexEntry) -> bool,
    ) -> ReadPlan<B> {
        let plan = ReadPlan {
            runs: SmallVec::new(),
            messages: 0,
            bytes: 0,
            next_offset: from,
            examined: 0,
            fault: None,
        };
        let mut planning = Planning { plan, limits, filter, log: self };
        let Some(state) = self.queues.get(queue) else { return planning.plan };
        if from < state.min || from >= state.index.max() {
            return planning.plan;
        }
        if from < state.index.first() {
            match self.visit_sealed(state, from, &mut |entry| planning.take(&entry)) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return planning.plan,
                Err(fault) => {
                    planning.plan.fault = Some(fault);
                    return planning.plan;
                }
            }
        }
        let next = planning.plan.next_offset;
        // Sealed segments and memory overlap, or touch.
        assert!(next >= state.index.first(), "queue {queue}: nothing holds {next}");
        let _ = state.index.range_from(next).try_for_each(|entry| planning.take(entry));
        planning.plan
    }

    /// Calls `visit` with the entries from `from` on that lie in sealed segments, until it breaks.
    fn visit_sealed(
        &self,
        state: &QueueState,
        from: QueueOffset,
        visit: &mut dyn FnMut(IndexEntry) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, IndexFault> {
        let indexes = self.archive.indexes();
        let mut next = from;
        let mut nth = self.sealed_holding(state, from)?;
        let mut visited = 0;
        while let Some(index) = indexes.get(nth)
            && next < state.index.first()
        {
            let view = index.view(Access::Resident);
            state.read_last.set(index.summary().segment.base);
            let Some(span) = view.queue(state.key)?.filter(|span| next < span.end()) else {
                // The queue may have paused for thousands of segments.
                nth = self.sealed_holding(state, next)?;
                continue;
            };
            if visited == SEGMENTS_PER_READ {
                return Ok(ControlFlow::Break(()));
            }
            (nth, visited) = (nth + 1, visited + 1);
            while next < span.end() {
                let before = next;
                for entry in view.entries(span, next, ENTRIES_AT_ONCE)? {
                    if visit(entry).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    next = next.next();
                }
                assert!(
                    next > before,
                    "the index of {} holds nothing at {next}",
                    index.summary().segment.base
                );
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Which sealed segment holds the record: the first in which the queue ends behind it.
    fn sealed_holding(&self, state: &QueueState, offset: QueueOffset) -> Result<usize, IndexFault> {
        let indexes = self.archive.indexes();
        let ends_behind = |nth: usize| -> Result<bool, IndexFault> {
            let span = indexes[nth].view(Access::Resident).queue(state.key)?;
            Ok(span.is_some_and(|span| span.end() > offset))
        };
        // Whoever reads a queue from front to back finds it where it was, or in the next.
        let last = state.read_last.get();
        let hint = indexes.partition_point(|index| index.summary().segment.base < last);
        for nth in hint..indexes.len().min(hint + 2) {
            if ends_behind(nth)? {
                if nth > hint || nth == 0 || !ends_behind(nth - 1)? {
                    return Ok(nth);
                }
                break;
            }
        }
        let (mut low, mut high) = (0, indexes.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if ends_behind(middle)? { high = middle } else { low = middle + 1 }
        }
        Ok(low)
    }

    /// Where the record of an index entry is; nothing if its segment has left.
    #[must_use]
    pub fn run_of(&self, entry: &IndexEntry) -> Option<Run<B>> {
        if let Some((buffer, range)) = self.tail_cache.find(entry.log_offset, entry.size) {
            return Some(Run::Memory(MemoryRun { buffer: Rc::clone(buffer), range }));
        }
        self.file_run(entry.log_offset, entry.size).map(Run::File)
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
    pub fn locate(&self, offset: LogOffset) -> Result<Option<Located<B>>, IndexFault> {
        if offset < self.segments.start() {
            return Ok(None);
        }
        if let Some((buffer, len)) = self.tail_cache.batch_at(offset) {
            let bytes = &(**buffer).as_ref()[..len as usize];
            // The records are as they were written; to check them too would take a millisecond for a large batch.
            let range = RawDirectory(bytes).verify().expect("a batch in memory is whole").find(offset);
            return Ok(range.map(|range| Located::Memory(MemoryRun { buffer: Rc::clone(buffer), range })));
        }
        let indexes = self.archive.indexes();
        let behind = indexes.partition_point(|index| index.summary().segment.base <= offset);
        let sealed = behind.checked_sub(1).map(|nth| &indexes[nth]);
        let batch = match sealed.filter(|index| offset < index.summary().segment.end()) {
            Some(index) => index.view(Access::Resident).batch_covering(offset)?,
            None => self.unsealed.batch_covering(offset),
        };
        Ok(batch.map(|(base, len)| Located::InBatch(self.segments.file_run(base, len))))
    }

    /// Looks for records by a hash of their keys among those that are not sealed yet, oldest first and some at a
    /// time; returns where to go on. Hashes may collide: whoever asks compares the keys.
    pub fn find_unsealed_key(
        &self,
        hash: u32,
        cursor: KeyCursor,
        found: impl FnMut(LogOffset, u32),
    ) -> Option<KeyCursor> {
        self.unsealed.find_key(hash, cursor, found)
    }

    /// The indexes of sealed segments, oldest first. A look-up by key goes through many of their pages, so it belongs
    /// on the blocking pool.
    pub fn sealed_indexes(&self) -> impl DoubleEndedIterator<Item = &Arc<SealedIndex>> {
        self.archive.indexes().iter()
    }

    /// The file bytes of a record found by key.
    #[must_use]
    pub fn file_run(&self, offset: LogOffset, len: u32) -> Option<FileRun> {
        (offset >= self.segments.start()).then(|| self.segments.file_run(offset, len))
    }

    /// The index of a sealed segment, to load the pages that a fault names.
    #[must_use]
    pub fn sealed_index(&self, segment: LogOffset) -> Option<&Arc<SealedIndex>> {
        self.archive.get(segment)
    }
}

/// A plan in the making.
struct Planning<'a, B, R, F> {
    plan: ReadPlan<B>,
    limits: ReadLimits,
    filter: F,
    log: &'a CommitLog<B, R>,
}

impl<B: Buffer, R: Record, F: FnMut(&IndexEntry) -> bool> Planning<'_, B, R, F> {
    fn take(&mut self, entry: &IndexEntry) -> ControlFlow<()> {
        let (plan, limits) = (&mut self.plan, &self.limits);
        if plan.examined >= limits.examine_max || plan.messages >= limits.messages_max {
            return ControlFlow::Break(());
        }
        if (self.filter)(entry) {
            if plan.messages > 0 && plan.bytes + u64::from(entry.size) > limits.bytes_max {
                return ControlFlow::Break(());
            }
            self.log.extend_runs(&mut plan.runs, entry);
            plan.messages += 1;
            plan.bytes += u64::from(entry.size);
        }
        plan.examined += 1;
        plan.next_offset = plan.next_offset.next();
        ControlFlow::Continue(())
    }
}
