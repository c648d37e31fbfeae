//! The sealed part of the log: known from the headers of its indexes, without reading a segment.
//!
//! What is found of the index of segment `k`, and what follows from it. *Usable*: whole, of this group and segment.
//!
//! ```text
//! index of segment k                      a later one usable  decision
//! --------------------------------------  ------------------  ------------------------------------------
//! usable, follows the one before          -                   take it; the segment is not read
//! usable, first of the log, does not      -                   take it if the segment's first header agrees with it;
//!   follow the one in front of the log                        then the one in front is the wrong one
//! missing | unusable | does not follow    yes                 make it anew from headers and directories
//! missing | unusable | does not follow    no                  tail: scan the segment; the log seals it again
//! usable, but a page that is needed is    -                   make it anew from headers and directories
//!   damaged
//! its segment is missing or too short     -                   error SegmentMissing, SegmentShort
//! of a segment in front of the log        -                   the last one is kept, all others are removed
//! ```
//!
//! *Making anew* reads the segment's headers and directories, from the batch that must come first, which the index before
//! tells, to the one that the next segment's first batch follows. If it does not get there, committed data is damaged:
//! error SealedDamaged or Rebuild. It does not read records, as sealing does not. The first segment's index is made
//! with the help of the one in front of the log; without that: error NoIndexBefore.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::look::{Found, Last, Mismatch, look};
use super::report::{IndexFlaw, RebuildFailed, RecoveryError, ReplacedBy, ReplacedIndex, SealedDamage};
use super::scan::{Known, push_run};
use crate::disk::SegmentInfo;
use crate::format::{BLOCK_LEN, RawHeader};
use crate::job_error::JobError;
use crate::sealed::{Access, IndexFault, QueueSpan, SealJob, SealedIndex, seal_segment};
use crate::source::{LogFile, LogSource};
use crate::types::{BatchIndex, GroupId, LogOffset, LogStart, QueueKey, QueueOffset, Term, TermRun};
use crate::window::Window;

/// Read at once where only headers are wanted.
const HEADERS_BYTES: u64 = 16 << 10;

/// Entries of an index looked at in one go.
const ENTRIES_AT_ONCE: u32 = 4096;

/// Where each queue stood when a segment began and when it ended.
type Rows = Vec<(QueueKey, QueueSpan)>;

/// The segments that have usable indexes, from the log's first on.
pub(super) struct Sealed<'a, S: ?Sized> {
    source: &'a S,
    group: GroupId,
    /// Where the log begins, whether a segment is there or not.
    begin: LogOffset,
    segments: &'a [SegmentInfo],
    /// Oldest first: the index of `segments[0]` and so on.
    pub(super) indexes: VecDeque<Arc<SealedIndex>>,
    /// Of the segment in front of the log's first.
    pub(super) before: Result<Arc<SealedIndex>, IndexFlaw>,
    pub(super) replaced: Vec<ReplacedIndex>,
    /// Index files in front of that, which nobody needs.
    pub(super) orphans: Vec<LogOffset>,
}

impl<'a, S: LogSource + ?Sized> Sealed<'a, S> {
    /// `segments` in order and without gaps, from `begin` on.
    pub(super) fn read(
        source: &'a S,
        group: GroupId,
        begin: LogOffset,
        segments: &'a [SegmentInfo],
    ) -> Result<Sealed<'a, S>, RecoveryError> {
        let named = source.indexes();
        let mut orphans = named.map_err(|error| RecoveryError::list("indexes", &error))?;
        orphans.sort_unstable();
        let named = orphans.split_off(orphans.partition_point(|base| *base < begin));
        let has_segment = |base| segments.binary_search_by_key(&base, |segment| segment.base).is_ok();
        if let Some(base) = named.iter().find(|base| !has_segment(**base)) {
            let (file, index) = (LogFile::Segment(*base), LogFile::Index(*base));
            let (file, index) = (source.name(file), source.name(index));
            return Err(RecoveryError::SegmentMissing { file, index });
        }
        let (indexes, before, replaced) = (VecDeque::new(), Err(IndexFlaw::Missing), Vec::new());
        let mut sealed = Sealed { source, group, begin, segments, indexes, before, replaced, orphans };
        if let Some(base) = sealed.orphans.pop() {
            let touching = SegmentInfo { base, bytes: begin.0 - base.0 };
            let opened = sealed.open(base)?;
            sealed.before = opened.and_then(|index| check_segment(index, touching)).map(Arc::new);
        }
        sealed.read_chain(&named)?;
        Ok(sealed)
    }

    /// `named` are the segments of the log that there are index files for.
    fn read_chain(&mut self, named: &[LogOffset]) -> Result<(), RecoveryError> {
        let Some(newest) = named.last() else { return Ok(()) };
        let mut opened = Vec::new();
        for segment in self.segments.iter().take_while(|segment| segment.base <= *newest) {
            let is_there = named.binary_search(&segment.base).is_ok();
            opened.push(if is_there { self.open_of_log(*segment)? } else { Err(IndexFlaw::Missing) });
        }
        let usable = opened.iter().rposition(Result::is_ok).map_or(0, |newest| newest + 1);
        for (nth, opened) in opened.into_iter().enumerate() {
            let followed = match opened {
                Ok(index) => self.check_follows(index)?,
                Err(flaw) => Err(flaw),
            };
            let index = match followed {
                Ok(index) => Arc::new(index),
                Err(flaw) if nth + 1 < usable => self.make_anew(flaw)?,
                Err(flaw) => {
                    let file = self.source.name(LogFile::Index(self.segments[nth].base));
                    self.replaced.push(ReplacedIndex { file, flaw, by: ReplacedBy::Tail });
                    continue;
                }
            };
            self.indexes.push_back(index);
        }
        Ok(())
    }

    /// Opens the index of a segment of the log.
    fn open_of_log(&self, segment: SegmentInfo) -> Result<Result<SealedIndex, IndexFlaw>, RecoveryError> {
        let opened = self.open(segment.base)?;
        if let Ok(index) = &opened
            && index.summary().segment.base == segment.base
            && index.summary().end > segment.end()
        {
            return Err(RecoveryError::SegmentShort {
                file: self.source.name(LogFile::Segment(segment.base)),
                bytes: segment.bytes,
                index: self.source.name(LogFile::Index(segment.base)),
                sealed: index.summary().end.0 - segment.base.0,
            });
        }
        Ok(opened.and_then(|index| check_segment(index, segment)))
    }

    /// Opens an index of this group.
    fn open(&self, base: LogOffset) -> Result<Result<SealedIndex, IndexFlaw>, RecoveryError> {
        let bytes = self.source.map_index(base);
        let file = LogFile::Index(base);
        let bytes = bytes.map_err(|error| RecoveryError::io(self.source, file, "map", 0, &error))?;
        let opened = SealedIndex::open(bytes).map_err(IndexFlaw::from);
        Ok(opened.and_then(|index| {
            let (expected, found) = (self.group, index.summary().group);
            if found == expected { Ok(index) } else { Err(IndexFlaw::ForeignGroup { expected, found }) }
        }))
    }

    /// Whether an index goes on where the last one taken ends.
    fn check_follows(&mut self, index: SealedIndex) -> Result<Result<SealedIndex, IndexFlaw>, RecoveryError> {
        let (last, is_first) = match (self.indexes.back(), &self.before) {
            (Some(last), _) => (last_of(last), false),
            (None, _) if self.begins_at_0() => (Last::default(), false),
            (None, Ok(before)) => (last_of(before), true),
            (None, Err(_)) => return Ok(Ok(index)),
        };
        let summary = index.summary();
        let rules = [
            ("first_index", last.index.0 + 1, summary.first_index.0),
            ("prev_term", last.term.0, summary.prev_term.0),
        ];
        let wrong = rules.into_iter().find(|(_, expected, found)| expected != found);
        let Some((field, expected, found)) = wrong else { return Ok(Ok(index)) };
        let flaw = IndexFlaw::DoesNotFollow(Mismatch { field, expected, found });
        if is_first {
            // Nobody was asked yet whether the one in front is right; the segment knows.
            let first = self.look(&mut Window::new(self.source, self.segments[0]), 0, last)?;
            if !matches!(first, Found::Follows(_)) {
                self.before = Err(flaw);
                return Ok(Ok(index));
            }
        }
        Ok(Err(flaw))
    }

    fn begins_at_0(&self) -> bool {
        self.begin == LogOffset(0)
    }

    /// What the log begins behind.
    pub(super) fn start(&self) -> Result<LogStart, RecoveryError> {
        let base_offset = self.begin;
        if let Some(first) = self.indexes.front().map(|index| index.summary()) {
            let index = BatchIndex(first.first_index.0 - 1);
            return Ok(LogStart { index, term: first.prev_term, base_offset });
        }
        let Last { index, term } = self.before(0)?.map_or(Last::default(), last_of);
        Ok(LogStart { index, term, base_offset })
    }

    /// The index of the segment in front of the `nth`; nothing in front of the very first of all.
    fn before(&self, nth: usize) -> Result<Option<&SealedIndex>, RecoveryError> {
        match (nth.checked_sub(1), &self.before) {
            (Some(before), _) => Ok(Some(&self.indexes[before])),
            (None, _) if self.begins_at_0() => Ok(None),
            (None, Ok(before)) => Ok(Some(before)),
            (None, Err(flaw)) => Err(self.no_index_before(flaw.clone())),
        }
    }

    fn no_index_before(&self, flaw: IndexFlaw) -> RecoveryError {
        RecoveryError::NoIndexBefore { begin: self.begin, flaw }
    }

    /// Makes the index that comes after those taken so far, of which nothing can be believed. A later one is usable.
    fn make_anew(&mut self, flaw: IndexFlaw) -> Result<Arc<SealedIndex>, RecoveryError> {
        let nth = self.indexes.len();
        let last = self.before(nth)?.map_or(Last::default(), last_of);
        let (end, last_term) = self.find_end(nth, last, &flaw)?;
        let (group, segment) = (self.group, self.segments[nth]);
        let (first_index, prev_term) = (last.index.next(), last.term);
        let job = SealJob { group, segment, end, first_index, prev_term, last_term, previous: None };
        self.seal(nth, job, flaw)
    }

    /// Makes an index anew whose header is good, but not all of its pages.
    fn repair(&mut self, nth: usize, fault: IndexFault) -> Result<(), RecoveryError> {
        let job = SealJob::again(self.indexes[nth].summary(), None);
        self.indexes[nth] = self.seal(nth, job, fault.into())?;
        Ok(())
    }

    fn seal(&mut self, nth: usize, job: SealJob, flaw: IndexFlaw) -> Result<Arc<SealedIndex>, RecoveryError> {
        // The job begins with where the queues stood; that must be legible.
        match nth.checked_sub(1) {
            Some(before) => drop(self.rows(before)?),
            None => drop(self.rows_before()?),
        }
        let previous = self.before(nth)?.map(|before| before.summary().segment.base);
        let index_file = self.source.name(LogFile::Index(job.segment.base));
        match seal_segment(self.source, &SealJob { previous, ..job }) {
            Ok(index) => {
                self.replaced.push(ReplacedIndex { file: index_file, flaw, by: ReplacedBy::Rebuilt });
                Ok(index)
            }
            Err(JobError::Io { file, action, position, message, .. }) => {
                Err(RecoveryError::Io { file, action, position, message })
            }
            Err(error) => Err(RecoveryError::Rebuild(Box::new(RebuildFailed { error, index_file, flaw }))),
        }
    }

    /// Where the batches of a sealed segment end, and the term of the last; the segment behind it has to confirm them.
    fn find_end(&self, nth: usize, last: Last, flaw: &IndexFlaw) -> Result<(LogOffset, Term), RecoveryError> {
        let (segment, next) = (self.segments[nth], self.segments[nth + 1]);
        let (mut position, mut last) = (0, last);
        let mut window = Window::new(self.source, segment);
        window.set_read_bytes(HEADERS_BYTES);
        let stop = loop {
            match self.look(&mut window, position, last)? {
                Found::Follows(header) => {
                    position += header.batch_len() as u64;
                    last = Last { index: header.index(), term: header.term() };
                }
                stop => break stop,
            }
        };
        let behind = self.look(&mut Window::new(self.source, next), 0, last)?;
        let goes_on_later = match &behind {
            Found::Follows(_) if position > 0 => return Ok((segment.base.plus(position), last.term)),
            Found::Stale(mismatch) => mismatch.field == "index" && mismatch.found > mismatch.expected,
            _ => false,
        };
        let (segment, position, found) = match position == 0 || goes_on_later {
            true => (segment, position, stop),
            false => (next, 0, behind),
        };
        Err(RecoveryError::SealedDamaged(Box::new(SealedDamage {
            file: self.source.name(LogFile::Segment(segment.base)),
            position,
            index: last.index.next(),
            found: found.to_string(),
            index_file: self.source.name(LogFile::Index(self.segments[nth].base)),
            flaw: flaw.clone(),
        })))
    }

    fn look(&self, window: &mut Window<'_, S>, position: u64, last: Last) -> Result<Found, RecoveryError> {
        let file = LogFile::Segment(window.segment().base);
        look(window, position, Some(self.group), Some(last))
            .map_err(|error| RecoveryError::io(self.source, file, "read", position, &error))
    }

    /// The queues of a segment. Its index is made anew if it cannot say.
    fn rows(&mut self, nth: usize) -> Result<Rows, RecoveryError> {
        if let Err(fault) = rows_of(&self.indexes[nth]) {
            self.repair(nth, fault)?;
        }
        rows_of(&self.indexes[nth]).map_err(|fault| self.damaged_again(nth, fault))
    }

    /// Where the queues stood in front of the log.
    fn rows_before(&self) -> Result<Rows, RecoveryError> {
        let Some(before) = self.before(0)? else { return Ok(Rows::new()) };
        rows_of(before).map_err(|fault| self.no_index_before(fault.into()))
    }

    fn damaged_again(&self, nth: usize, fault: IndexFault) -> RecoveryError {
        let index_file = self.source.name(LogFile::Index(self.segments[nth].base));
        let error = JobError::IndexPage { file: index_file.clone(), fault: fault.clone() };
        RecoveryError::Rebuild(Box::new(RebuildFailed { error, index_file, flaw: fault.into() }))
    }

    /// Makes sure that all can be asked that the control records of a segment need.
    pub(super) fn check_control(&mut self, nth: usize) -> Result<(), RecoveryError> {
        if let Err(fault) = touch_control(&self.indexes[nth]) {
            self.repair(nth, fault)?;
        }
        touch_control(&self.indexes[nth]).map_err(|fault| self.damaged_again(nth, fault))
    }

    /// The terms of all batches of the sealed part, whose index files need not know more than the first and the last of
    /// each segment's: where these differ, headers of batches between are read, by halves.
    pub(super) fn term_runs(&mut self) -> Result<Vec<TermRun>, RecoveryError> {
        let mut runs = Vec::new();
        for nth in 0..self.indexes.len() {
            let summary = self.indexes[nth].summary();
            if summary.prev_term == summary.last_term {
                push_run(&mut runs, TermRun { first: summary.first_index, term: summary.last_term });
                continue;
            }
            if let Err(fault) = touch_batches(&self.indexes[nth]) {
                self.repair(nth, fault)?;
            }
            let found = self.terms_within(nth, &mut runs);
            found.map_err(RecoveryError::Sealed)?;
        }
        Ok(runs)
    }

    fn terms_within(&self, nth: usize, runs: &mut Vec<TermRun>) -> Result<(), JobError> {
        let summary = self.indexes[nth].summary();
        let index_of = |batch: u32| BatchIndex(summary.first_index.0 + u64::from(batch));
        let first = self.term_of(nth, 0)?;
        push_run(runs, TermRun { first: summary.first_index, term: first });
        // Parts of the segment by their first and last batches, of different terms, the next one last.
        let mut parts = vec![((0, first), (summary.batches - 1, summary.last_term))];
        while let Some((low, high)) = parts.pop() {
            if low.1 == high.1 {
                continue;
            }
            if high.0 - low.0 <= 1 {
                push_run(runs, TermRun { first: index_of(high.0), term: high.1 });
                continue;
            }
            let middle = low.0 + (high.0 - low.0) / 2;
            let middle = (middle, self.term_of(nth, middle)?);
            parts.extend([(middle, high), (low, middle)]);
        }
        Ok(())
    }

    /// The term of a batch of a sealed segment, by its header.
    fn term_of(&self, nth: usize, batch: u32) -> Result<Term, JobError> {
        let summary = self.indexes[nth].summary();
        let (base, file) = (summary.segment.base, LogFile::Segment(summary.segment.base));
        let found = self.indexes[nth].view(Access::Blocking).batches_from(batch);
        let index_file = || self.source.name(LogFile::Index(base));
        let mut found = found.map_err(|fault| JobError::IndexPage { file: index_file(), fault })?;
        let (at, _) = found.next().expect("the index has a row for each batch");
        let position = at.0 - base.0;
        let mut block = [0; BLOCK_LEN];
        let read = self.source.read_at(base, position, &mut block);
        read.map_err(|error| JobError::io(self.source, file, "read", position, &error))?;
        let header = RawHeader(&block).verify();
        let header = header.map_err(|error| JobError::Batch {
            file: self.source.name(file),
            position,
            error: error.into(),
        })?;
        let rules = [
            ("group", self.group.0, header.group().0),
            ("base_offset", at.0, header.base_offset().0),
            ("index", summary.first_index.0 + u64::from(batch), header.index().0),
        ];
        match rules.into_iter().find(|(_, expected, found)| expected != found) {
            Some((field, expected, found)) => {
                let file = self.source.name(file);
                Err(JobError::Unexpected { file, position, field, expected, found })
            }
            None => Ok(header.term()),
        }
    }

    /// The log up to the end of its sealed part.
    pub(super) fn known(&mut self) -> Result<Known, RecoveryError> {
        let mut known = Known::default();
        let Some(newest) = self.indexes.len().checked_sub(1) else {
            for (queue, span) in self.rows_before()? {
                known.queues.restore(queue, span.end(), span.end());
            }
            if let Some(before) = self.before(0)? {
                known.sealed_to(before);
            }
            return Ok(known);
        };
        let tails = self.rows(newest)?;
        // A queue that is not in the oldest index had its first record behind it.
        let minima: FxHashMap<_, _> =
            self.rows(0)?.into_iter().map(|(queue, span)| (queue, span.begin)).collect();
        for (queue, span) in tails {
            let min = minima.get(&queue).copied().unwrap_or(QueueOffset(0));
            known.queues.restore(queue, min, span.end());
        }
        known.sealed_to(&self.indexes[newest]);
        Ok(known)
    }
}

fn check_segment(index: SealedIndex, expected: SegmentInfo) -> Result<SealedIndex, IndexFlaw> {
    let found = index.summary().segment;
    if found == expected { Ok(index) } else { Err(IndexFlaw::OtherSegment { expected, found }) }
}

pub(super) fn last_of(index: &SealedIndex) -> Last {
    let summary = index.summary();
    Last { index: summary.last_index, term: summary.last_term }
}

fn rows_of(index: &SealedIndex) -> Result<Rows, IndexFault> {
    index.view(Access::Blocking).rows().collect()
}

/// Reads where all batches of a segment are.
fn touch_batches(index: &SealedIndex) -> Result<(), IndexFault> {
    let view = index.view(Access::Blocking);
    let mut nth = 0;
    while nth < index.summary().batches {
        nth += view.batches_from(nth)?.len() as u32;
    }
    Ok(())
}

/// Reads what leads to the control records of a segment.
fn touch_control(index: &SealedIndex) -> Result<(), IndexFault> {
    let view = index.view(Access::Blocking);
    let Some(span) = view.queue(QueueKey::CONTROL)? else { return Ok(()) };
    let mut from = span.begin;
    while from < span.end() {
        for entry in view.entries(span, from, ENTRIES_AT_ONCE)? {
            view.batch_covering(entry.log_offset)?;
            from = from.next();
        }
    }
    Ok(())
}
