//! The sealed part of the log: index files, snapshots, and the segments that leave.
//!
//! Segments are sealed oldest first, one at a time, and leave in the same order:
//!
//! ```text
//! written ─► rolled past, durable, committed ─► sealed ─► two snapshots stand behind it ─► expired ─► left
//!            DiskOp::Seal                       DiskOp::Snapshot         ReadEnds, then minima are raised
//! ```

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::event::WhyLeft;
use crate::config::Retention;
use crate::disk::{DiskError, DiskOp, SegmentInfo};
use crate::index::Queues;
use crate::pause::Pause;
use crate::sealed::{SealJob, SealedIndex};
use crate::snapshot::SnapshotJob;
use crate::types::{BatchIndex, GroupId, LogOffset, QueueKey, QueueOffset, Term};
use crate::unsealed::UnsealedSegment;

/// Snapshots kept: should the newest be damaged, there is the one before.
const SNAPSHOTS_KEPT: usize = 2;

/// Queues whose sealed entries are forgotten in one step: one after the other in memory, some 100 µs.
const FORGET_PER_STEP: usize = 4096;

/// Entries forgotten in one step, or those of one chunk more: 6 MiB that go back to the system, some 400 µs.
const FORGET_ENTRIES_PER_STEP: u64 = 256 * 1024;

/// Queues whose minimum is raised in one step: looked up one by one, some 200 µs.
const RAISE_PER_STEP: usize = 2048;

/// What recovery found of the sealed part.
#[derive(Debug, Default)]
pub(crate) struct RestoredArchive {
    /// Oldest first, without a gap from the log's start on.
    pub(crate) indexes: VecDeque<Arc<SealedIndex>>,
    /// Base of the segment in front of the log's start, if its index file is still there.
    pub(crate) boundary: Option<LogOffset>,
    /// Positions of good snapshots, ascending.
    pub(crate) snapshots: Vec<LogOffset>,
}

/// A seal on its way.
#[derive(Clone, Copy, Debug)]
struct Sealing {
    segment: LogOffset,
    /// The segment was sealed before.
    is_rebuild: bool,
}

#[derive(Debug)]
enum Leaving {
    /// The ends of its queues are being read.
    Reading { why: WhyLeft },
    /// Minima up to the `next`th are raised.
    Raising { why: WhyLeft, ends: Vec<(QueueKey, QueueOffset)>, next: usize },
}

/// A segment that takes no more batches; all it has are committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finished<'a> {
    pub(super) unsealed: &'a UnsealedSegment,
    pub(super) segment: SegmentInfo,
    /// Of its last batch.
    pub(super) last_term: Term,
}

#[derive(Debug)]
pub(super) struct Archive {
    group: GroupId,
    retry_ms: u32,
    indexes: VecDeque<Arc<SealedIndex>>,
    boundary: Option<LogOffset>,
    sealing: Option<Sealing>,
    seal_pause: Pause,
    /// Bases of segments of the log whose indexes are to be made anew.
    damaged: BTreeSet<LogOffset>,
    /// The last of them that could not be, since something else was sealed.
    not_rebuilt: Option<LogOffset>,
    snapshots: VecDeque<LogOffset>,
    snapshotting: Option<LogOffset>,
    snapshot_pause: Pause,
    snapshot_pause_ms: u32,
    /// As long as that after one that was taken, and not less than [`retry_ms`](Archive::retry_ms) after one that failed.
    next_snapshot_pause_ms: u32,
    leaving: Option<Leaving>,
    leave_pause: Pause,
    /// The queue that next forgets its entries that are sealed, and how many, going round, still have to.
    forget_next: usize,
    forget_left: usize,
}

impl Archive {
    pub(super) fn new(
        restored: RestoredArchive,
        group: GroupId,
        retry_ms: u32,
        snapshot_pause_ms: u32,
    ) -> Archive {
        let RestoredArchive { indexes, boundary, snapshots } = restored;
        let mut archive = Archive {
            group,
            retry_ms,
            indexes,
            boundary,
            sealing: None,
            seal_pause: Pause::default(),
            damaged: BTreeSet::new(),
            not_rebuilt: None,
            snapshots: snapshots.into(),
            snapshotting: None,
            snapshot_pause: Pause::default(),
            snapshot_pause_ms,
            next_snapshot_pause_ms: snapshot_pause_ms,
            leaving: None,
            leave_pause: Pause::default(),
            forget_next: 0,
            forget_left: 0,
        };
        // A crash may have come before the oldest was removed.
        archive.keep_newest_snapshots();
        archive
    }

    /// Oldest first.
    pub(super) fn indexes(&self) -> &VecDeque<Arc<SealedIndex>> {
        &self.indexes
    }

    /// Base of the segment in front of the log, if its index is there.
    pub(super) fn boundary(&self) -> Option<LogOffset> {
        self.boundary
    }

    /// An index or a snapshot is being made, or an index read.
    pub(super) fn is_busy(&self) -> bool {
        let is_reading = matches!(self.leaving, Some(Leaving::Reading { .. }));
        self.sealing.is_some() || self.snapshotting.is_some() || is_reading
    }

    /// One past the last sealed segment.
    pub(super) fn end(&self) -> Option<LogOffset> {
        self.indexes.back().map(|index| index.summary().segment.end())
    }

    fn position(&self, base: LogOffset) -> Option<usize> {
        self.indexes.binary_search_by_key(&base, |index| index.summary().segment.base).ok()
    }

    /// The index of the segment that begins at `base`.
    pub(super) fn get(&self, base: LogOffset) -> Option<&Arc<SealedIndex>> {
        self.position(base).map(|nth| &self.indexes[nth])
    }

    /// Indexes that shall be made anew come before the one that is due, which may need them; all get their turn, as some
    /// may be impossible to make.
    pub(super) fn poll_seal<B>(&mut self, due: Option<Finished<'_>>, now_ms: i64) -> Option<DiskOp<B>> {
        if self.sealing.is_some() || !self.seal_pause.is_over(now_ms, self.retry_ms) {
            return None;
        }
        let from = self.not_rebuilt.map_or(LogOffset(0), |base| base.plus(1));
        let next = self.damaged.range(from..).find_map(|base| self.rebuildable(*base));
        let rebuilt = next.or_else(|| {
            let mut all = self.damaged.iter().filter(|_| due.is_none());
            all.find_map(|base| self.rebuildable(*base))
        });
        let job = match (rebuilt, due) {
            (Some(nth), _) => SealJob::again(self.indexes[nth].summary(), self.base_before(nth)),
            (None, Some(Finished { unsealed, segment, last_term })) => SealJob {
                group: self.group,
                segment,
                end: unsealed.end,
                first_index: unsealed.first_index,
                prev_term: unsealed.prev_term,
                last_term,
                previous: self.base_before(self.indexes.len()),
            },
            (None, None) => return None,
        };
        self.sealing = Some(Sealing { segment: job.segment.base, is_rebuild: rebuilt.is_some() });
        Some(DiskOp::Seal(job))
    }

    /// Base of the segment in front of the `nth`, if its index is there.
    fn base_before(&self, nth: usize) -> Option<LogOffset> {
        nth.checked_sub(1).map_or(self.boundary, |before| Some(self.indexes[before].summary().segment.base))
    }

    /// Which segment this is, if its index can be made anew: where the queues stood, the index before tells.
    fn rebuildable(&self, base: LogOffset) -> Option<usize> {
        let nth = self.position(base)?;
        (nth > 0 || self.boundary.is_some() || self.begins_with_the_first_batch()).then_some(nth)
    }

    /// Takes the answer to a seal; tells whether the index is one made anew.
    pub(super) fn on_sealed(&mut self, base: LogOffset, index: Option<Arc<SealedIndex>>) -> bool {
        let Sealing { segment, is_rebuild } =
            self.sealing.take().expect("a seal was answered that is not on its way");
        assert_eq!(segment, base, "another seal was answered");
        self.not_rebuilt = Some(base).filter(|_| is_rebuild && index.is_none());
        let Some(index) = index else {
            self.seal_pause.begin();
            return is_rebuild;
        };
        self.seal_pause.end();
        assert_eq!(index.summary().segment.base, base, "the index of another segment");
        if is_rebuild {
            self.damaged.remove(&base);
            // It may have left meanwhile.
            if let Some(nth) = self.position(base) {
                self.indexes[nth] = index;
            }
            return true;
        }
        if let Some(end) = self.end() {
            assert_eq!(end, base, "a segment was sealed out of turn");
        }
        self.indexes.push_back(index);
        self.forget_left = usize::MAX;
        false
    }

    /// The index of this segment cannot be trusted. True the first time.
    pub(super) fn on_damaged(&mut self, base: LogOffset) -> bool {
        self.position(base).is_some() && self.damaged.insert(base)
    }

    /// A snapshot at the end of the sealed part, if there is none.
    pub(super) fn poll_snapshot<B>(&mut self, now_ms: i64) -> Option<DiskOp<B>> {
        let at = self.indexes.back()?.summary().end;
        let previous = self.snapshots.back().copied();
        // One beyond the sealed part is there after an index was lost, until its segment is sealed anew.
        if self.snapshotting.is_some() || previous.is_some_and(|previous| previous >= at) {
            return None;
        }
        // Without one, all control records there ever were are needed.
        let is_possible = previous.is_some() || self.begins_with_the_first_batch();
        if !is_possible || !self.snapshot_pause.is_over(now_ms, self.next_snapshot_pause_ms) {
            return None;
        }
        let from = previous.unwrap_or(LogOffset(0));
        let first = self.indexes.partition_point(|index| index.summary().end <= from);
        let segments = self.indexes.range(first..).cloned().collect();
        self.snapshotting = Some(at);
        Some(DiskOp::Snapshot(SnapshotJob { group: self.group, previous, segments, at }))
    }

    /// Places of the snapshots there are, ascending.
    pub(super) fn snapshots(&self) -> impl Iterator<Item = LogOffset> {
        self.snapshots.iter().copied()
    }

    pub(super) fn on_snapshot(&mut self, at: LogOffset, is_taken: bool) {
        assert_eq!(self.snapshotting.take(), Some(at), "another snapshot was answered");
        self.snapshot_pause.begin();
        self.next_snapshot_pause_ms = self.snapshot_pause_ms;
        if is_taken {
            self.snapshots.push_back(at);
            self.keep_newest_snapshots();
        } else {
            self.next_snapshot_pause_ms = self.snapshot_pause_ms.max(self.retry_ms);
        }
    }

    /// This snapshot cannot be used: the next one is made from the one before it. All that this needs is still there, as
    /// nothing leaves that the older one does not cover.
    pub(super) fn on_snapshot_unusable(&mut self, at: LogOffset) {
        let is_there_another = self.snapshots.len() > 1 || self.begins_with_the_first_batch();
        if is_there_another {
            self.snapshots.retain(|kept| *kept != at);
        }
    }

    fn begins_with_the_first_batch(&self) -> bool {
        self.indexes.front().is_some_and(|index| index.summary().first_index == BatchIndex(1))
    }

    fn keep_newest_snapshots(&mut self) {
        let too_many = self.snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
        self.snapshots.drain(..too_many);
    }

    /// The oldest segment if it may leave, and why.
    fn expired(&self, retention: &Retention, use_: &LogUse, now_ms: i64) -> Option<WhyLeft> {
        let oldest = self.indexes.front()?.summary();
        let is_newest = self.indexes.len() < 2;
        // Recovery needs what neither snapshot stands behind, should the newer one be damaged.
        let is_covered = self.snapshots.len() == SNAPSHOTS_KEPT && oldest.end <= self.snapshots[0];
        let is_being_made = self.sealing.is_some_and(|sealing| sealing.segment == oldest.segment.base);
        if is_newest || !is_covered || is_being_made {
            return None;
        }
        let age_ms = u64::try_from(now_ms.saturating_sub(oldest.last_time_ms)).unwrap_or(0);
        if retention.age_ms.is_some_and(|age_ms_max| age_ms > age_ms_max) {
            return Some(WhyLeft::Age);
        }
        if retention.bytes.is_some_and(|bytes_max| use_.log_bytes > bytes_max) {
            return Some(WhyLeft::Size);
        }
        (use_.reclaims && retention.may_reclaim).then_some(WhyLeft::Space)
    }

    /// The end of the oldest segment, if it may leave.
    pub(super) fn leaving_below(
        &self,
        retention: &Retention,
        use_: &LogUse,
        now_ms: i64,
    ) -> Option<LogOffset> {
        self.expired(retention, use_, now_ms)?;
        self.indexes.front().map(|oldest| oldest.summary().end)
    }

    /// Begins to let the oldest segment go, if it is due.
    pub(super) fn poll_leave<B>(
        &mut self,
        retention: &Retention,
        use_: &LogUse,
        now_ms: i64,
    ) -> Option<DiskOp<B>> {
        if self.leaving.is_some() || !self.leave_pause.is_over(now_ms, self.retry_ms) {
            return None;
        }
        let why = self.expired(retention, use_, now_ms)?;
        self.leaving = Some(Leaving::Reading { why });
        Some(DiskOp::ReadEnds(Arc::clone(&self.indexes[0])))
    }

    /// Takes the ends of the queues of the segment that leaves.
    pub(super) fn on_ends(&mut self, result: Result<Vec<(QueueKey, QueueOffset)>, DiskError>) {
        let Some(Leaving::Reading { why }) = self.leaving.take() else {
            panic!("ends were answered and nothing leaves");
        };
        match result {
            Ok(ends) => {
                self.leave_pause.end();
                self.leaving = Some(Leaving::Raising { why, ends, next: 0 });
            }
            Err(_) => self.leave_pause.begin(),
        }
    }

    /// Raises some minima; gives the index of the segment that has left when all are.
    pub(super) fn step_leaving(&mut self, queues: &mut Queues) -> Option<(Arc<SealedIndex>, WhyLeft)> {
        let Some(Leaving::Raising { why, ends, next }) = &mut self.leaving else { return None };
        let why = *why;
        for (queue, end) in ends.iter().skip(*next).take(RAISE_PER_STEP) {
            queues.raise_min(*queue, *end);
        }
        *next += RAISE_PER_STEP;
        if *next < ends.len() {
            return None;
        }
        self.leaving = None;
        let left = self.indexes.pop_front().expect("the segment that leaves is the oldest");
        let base = left.summary().segment.base;
        self.boundary = Some(base);
        self.damaged.remove(&base);
        Some((left, why))
    }

    /// Some queues may still hold what is sealed.
    pub(super) fn is_forgetting(&self) -> bool {
        self.forget_left > 0
    }

    /// Has some queues forget what is sealed.
    pub(super) fn step_forgetting(&mut self, queues: &mut Queues) {
        self.forget_left = self.forget_left.min(queues.len());
        let Some(sealed_end) = self.end().filter(|_| self.forget_left > 0) else { return };
        if self.forget_next >= queues.len() {
            self.forget_next = 0;
        }
        let upto = queues.len().min(self.forget_next + FORGET_PER_STEP);
        let done = queues.forget_below(sealed_end, self.forget_next..upto, FORGET_ENTRIES_PER_STEP);
        self.forget_next += done;
        self.forget_left = self.forget_left.saturating_sub(done);
    }
}

/// What the log takes up, as retention sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogUse {
    pub(super) log_bytes: u64,
    /// The disk is tight, and no file waits to be recycled or removed.
    pub(super) reclaims: bool,
}
