//! Indexes against what their segments hold.

use std::io;

use rustc_hash::FxHashSet;

use super::problem::{Problem, Telling, Wrong};
use super::walk::Seen;
use crate::disk::SegmentInfo;
use crate::recovery::IndexFlaw;
use crate::recovery::look::Last;
use crate::sealed::{Access, SealJob, SealedIndex, build_index_behind, first_difference};
use crate::source::{LogFile, LogSource};
use crate::types::{BatchIndex, GroupId, LogOffset, QueueKey, QueueOffset, Term};

use std::sync::Arc;

/// What the batches of one segment come to.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) segment: SegmentInfo,
    /// Group, index and term of the batch before; of the first batch.
    first: Option<(GroupId, BatchIndex, Term)>,
    pub(super) last: Last,
    /// One past the last batch.
    pub(super) end: LogOffset,
    /// From the segment's first byte on, all directories are as they were written.
    pub(super) is_whole: bool,
}

impl Run {
    pub(super) fn new(segment: SegmentInfo, first: Option<&Seen<'_>>) -> Run {
        let is_whole = first.is_some_and(|first| first.position == 0);
        Run { segment, first: None, last: Last::default(), end: segment.base, is_whole }
    }

    pub(super) fn take(&mut self, seen: &Seen<'_>) {
        let header = &seen.header;
        self.first.get_or_insert((header.group(), header.index(), header.prev_term()));
        self.last = Last { index: header.index(), term: header.term() };
        self.end = header.base_offset().plus(header.batch_len() as u64);
    }

    /// The batch in front of it.
    pub(super) fn before(&self) -> Option<Last> {
        let (_, index, term) = self.first.filter(|_| self.is_whole)?;
        Some(Last { index: BatchIndex(index.0 - 1), term })
    }
}

pub(super) struct Indexes<'a, S: ?Sized> {
    source: &'a S,
    /// Ascending.
    listed: Vec<LogOffset>,
    checked: FxHashSet<LogOffset>,
    /// Those that were compared with their segments.
    pub(super) compared: usize,
    /// What the index of the segment before has to be, or is.
    previous: Option<SealedIndex>,
}

impl<'a, S: LogSource + ?Sized> Indexes<'a, S> {
    pub(super) fn list(source: &'a S) -> Result<Indexes<'a, S>, Problem> {
        let mut listed = source.indexes().map_err(|error| Problem::list("indexes", &error))?;
        listed.sort_unstable();
        Ok(Indexes { source, listed, checked: FxHashSet::default(), compared: 0, previous: None })
    }

    pub(super) fn count(&self) -> usize {
        self.listed.len()
    }

    /// Where the queues stood when the log began, as far as indexes tell.
    pub(super) fn queues_at(&self, begin: LogOffset) -> Option<Vec<(QueueKey, QueueOffset)>> {
        let first = self.open_quietly(begin).filter(|index| index.summary().segment.base == begin);
        if let Some(index) = first {
            let rows = index.view(Access::Blocking).rows();
            return rows.map(|row| row.map(|(queue, span)| (queue, span.begin)).ok()).collect();
        }
        let rows = self.before(begin)?;
        let rows = rows.view(Access::Blocking).rows();
        rows.map(|row| row.map(|(queue, span)| (queue, span.end())).ok()).collect()
    }

    /// The index of the segment that ends where the log begins, if it can be used.
    fn before(&self, begin: LogOffset) -> Option<SealedIndex> {
        let nth = self.listed.partition_point(|base| *base < begin).checked_sub(1)?;
        self.open_quietly(self.listed[nth]).filter(|index| index.summary().segment.end() == begin)
    }

    fn open_quietly(&self, base: LogOffset) -> Option<SealedIndex> {
        let index = SealedIndex::open(self.source.map_index(base).ok()?).ok()?;
        index.view(Access::Blocking).verify_all().ok()?;
        Some(index)
    }

    /// Compares the index of a segment with what was found in it.
    pub(super) fn check_run(&mut self, run: &Run, telling: &mut Telling<'_>) {
        let base = run.segment.base;
        let previous = self.previous.take().or_else(|| self.before(base));
        if self.listed.last().is_none_or(|newest| base > *newest) {
            return;
        }
        let expected = self.build(run, previous.as_ref());
        let group = run.first.map(|(group, ..)| group);
        let found = if self.listed.binary_search(&base).is_ok() {
            self.checked.insert(base);
            self.open(base, group, Some(run.segment), telling)
        } else {
            telling.tell(self.problem(base, IndexFlaw::Missing));
            None
        };
        if let (Some(expected), Some(found)) = (&expected, &found) {
            self.compared += 1;
            if let Some(difference) = first_difference(expected, found) {
                telling.tell(self.problem(base, Wrong::IndexDiffers(difference)));
            }
        }
        self.previous = expected.or(found);
    }

    /// Those of segments in which no batch was found, and of segments that left the log.
    pub(super) fn check_others(
        &mut self,
        group: Option<GroupId>,
        begin: LogOffset,
        segments: &[SegmentInfo],
        telling: &mut Telling<'_>,
    ) {
        for base in self.listed.iter().copied().filter(|base| !self.checked.contains(base)) {
            let segment = segments.iter().find(|segment| segment.base == base).copied();
            if segment.is_none() && base >= begin {
                telling.tell(self.problem(base, Wrong::SegmentMissing));
            }
            self.open(base, group, segment, telling);
        }
    }

    /// Opens an index and checks all of it by itself.
    fn open(
        &self,
        base: LogOffset,
        group: Option<GroupId>,
        segment: Option<SegmentInfo>,
        telling: &mut Telling<'_>,
    ) -> Option<SealedIndex> {
        let bytes = match self.source.map_index(base) {
            Ok(bytes) => bytes,
            Err(error) => {
                // A running log removes those it needs no longer.
                let is_gone = error.kind() == io::ErrorKind::NotFound
                    && self.source.indexes().is_ok_and(|listed| !listed.contains(&base));
                if !is_gone {
                    telling.tell(Problem::io(self.source, LogFile::Index(base), 0, &error));
                }
                return None;
            }
        };
        let checked = SealedIndex::open(bytes).map_err(IndexFlaw::from).and_then(|index| {
            let (found_group, found) = (index.summary().group, index.summary().segment);
            if let Some(expected) = group.filter(|expected| *expected != found_group) {
                return Err(IndexFlaw::ForeignGroup { expected, found: found_group });
            }
            if let Some(expected) = segment.filter(|expected| *expected != found) {
                return Err(IndexFlaw::OtherSegment { expected, found });
            }
            index.view(Access::Blocking).verify_all()?;
            Ok(index)
        });
        checked.map_err(|flaw| telling.tell(self.problem(base, flaw))).ok()
    }

    /// What the index of a segment has to be. Nothing if the segment is not whole, or nobody knows where its queues stood.
    fn build(&self, run: &Run, previous: Option<&SealedIndex>) -> Option<SealedIndex> {
        let (group, first_index, prev_term) = run.first.filter(|_| run.is_whole)?;
        let (segment, end) = (run.segment, run.end);
        if previous.is_none() && segment.base > LogOffset(0) {
            return None;
        }
        let last_term = run.last.term;
        let job = SealJob { group, segment, end, first_index, prev_term, last_term, previous: None };
        // It may have left the log since it was read.
        let bytes = build_index_behind(self.source, &job, previous).ok()?;
        SealedIndex::open(Arc::new(bytes)).ok()
    }

    fn problem(&self, base: LogOffset, wrong: impl Into<Wrong>) -> Problem {
        Problem::new(self.source, LogFile::Index(base), 0, wrong)
    }
}
