//! Batch after batch through a whole log, whatever it is like.
//!
//! At each place the walk knows which batch has to come. What stands there, and what follows from it:
//!
//! ```text
//! here                         elsewhere  proof that it  step
//!                              goes on    was committed
//! ---------------------------  ---------  -------------  ---------------------------------------------------------
//! batch i, whole, follows      -          -              give it
//! batch i, only header whole   no         yes            give it as damaged; go on behind it
//! anything else                yes        -              roll: go on in the next segment
//! anything else                no         yes            problem Missing; go on with the next header that is in its
//!                                                        place and could come later in the log
//! anything else                no         no             end of the log; a problem if no log of this kind can be here
//! cannot be read               -          -              problem Io; go on behind the batch if its header is whole, else
//!                                                        as if nothing was here
//! ```
//!
//! *Proof* is a later header that saw batch `i` committed, or an index that reaches beyond. In a group, where a minority does not
//! need to have what is committed, it is what `recovery/group.rs` takes for one, in place of such a header. The log may be written to
//! meanwhile: behind a place that was looked at too early there may be proof when the walk gets there. So with a
//! proof in hand the place is looked at once more; what was committed before the proof was written is there by now.

use std::io;

use rustc_hash::FxHashMap;

use super::problem::{Problem, Wrong};
use crate::config::WRITE_WINDOW_BYTES_LIMIT;
use crate::disk::SegmentInfo;
use crate::format::{BATCH_BYTES_LIMIT, BLOCK_LEN, BatchError, BatchHeader, RawBatch, RawHeader};
use crate::group_state::read_saved_group_state;
use crate::recovery::look::{Found, Last, bears_witness, fault_of_writer, look};
use crate::recovery::{Cut, CutCause};
use crate::sealed::{IndexSummary, open_index};
use crate::source::{LogFile, LogSource};
use crate::types::{BatchIndex, GroupId, LogOffset, LogStart, Term};
use crate::window::Window;

/// How far behind a place is searched in segments that nothing says were written to; see `recovery/scan.rs`.
const SEARCH_BEHIND_BYTES: u64 = 2 * (WRITE_WINDOW_BYTES_LIMIT + BATCH_BYTES_LIMIT as u64);

/// What the walk met next.
pub(super) enum Step<'w> {
    Batch(Seen<'w>),
    /// Not as it has to be, in a segment; the walk goes on where it can.
    Problem(SegmentInfo, Problem),
    /// A segment left the log before it was read to its end.
    Left,
}

/// A batch whose header is whole, and where it stands.
pub(super) struct Seen<'w> {
    pub(super) segment: SegmentInfo,
    pub(super) position: u64,
    pub(super) header: BatchHeader,
    /// All of the batch.
    pub(super) bytes: &'w [u8],
    /// Nothing if all checksums hold and the directory fits.
    pub(super) damage: Option<BatchError>,
}

pub(super) struct Walk<'a, S: ?Sized> {
    source: &'a S,
    /// In order.
    segments: Vec<SegmentInfo>,
    /// What the indexes say that can be used, by the bases of their segments.
    indexed: FxHashMap<LogOffset, IndexSummary>,
    nth: usize,
    position: u64,
    window: Window<'a, S>,
    /// Reads no more at once than it must, since something here cannot be read.
    is_careful: bool,
    /// The place that was looked at once more.
    looked_again: Option<(usize, u64)>,
    pub(super) group: Option<GroupId>,
    /// Where the log began at first, or anew.
    start: LogStart,
    /// What the node's state proves, if it belongs to a group of nodes.
    durable: Option<Durable>,
    /// What the next batch has to follow; nothing where that is not known.
    last: Option<Last>,
    /// One past the last batch.
    pub(super) end: LogOffset,
    /// Set at the end.
    pub(super) cut: Option<Cut>,
    /// Segments that left the log before they were read.
    pub(super) segments_left: usize,
    is_done: bool,
}

/// What was durable on the node of a group.
#[derive(Clone, Copy)]
struct Durable {
    index: BatchIndex,
    /// Bytes on the way at once, at most.
    window_bytes: u64,
    loss_accepted: Option<Term>,
}

/// What a search behind a place found.
#[derive(Default)]
struct Behind {
    /// The first header that could come later in the log, and where.
    next: Option<(usize, u64, BatchHeader)>,
    /// What was expected was committed.
    is_proof: bool,
    batches: u64,
}

/// What to give.
enum Given {
    Batch { header: BatchHeader, damage: Option<BatchError> },
    Problem(SegmentInfo, Problem),
    Left,
}

impl<'a, S: LogSource + ?Sized> Walk<'a, S> {
    /// Begins in the segment that holds `from`, or in one before it if only that tells what has to come.
    pub(super) fn start(
        source: &'a S,
        group: Option<GroupId>,
        from: LogOffset,
    ) -> Result<Walk<'a, S>, Problem> {
        // What is wrong with it is for others to tell of.
        let state = read_saved_group_state(source).ok().flatten().map(|saved| saved.state);
        // In this order: else there could be indexes of segments that were not there yet.
        let indexed = usable_indexes(source, group)?;
        let segments = source.segments();
        let mut segments = segments.map_err(|error| Problem::list("segments", &error))?;
        segments.sort_by_key(|segment| segment.base);
        let begun = segments.partition_point(|segment| segment.base <= from).max(1).min(segments.len());
        let nothing = SegmentInfo { base: LogOffset(0), bytes: 0 };
        // No segment is there yet where a log begins anew.
        let start = state.as_ref().map_or(LogStart::default(), |state| state.log_start);
        let begin = segments.first().map_or(start.base_offset, |segment| segment.base);
        let mut walk = Walk {
            source,
            nth: 0,
            position: 0,
            window: Window::new(source, segments.first().copied().unwrap_or(nothing)),
            is_careful: false,
            looked_again: None,
            group,
            start,
            durable: state.as_ref().map(|state| Durable {
                index: state.commit,
                window_bytes: state.write_window_bytes,
                loss_accepted: state.loss_accepted,
            }),
            last: None,
            end: begin,
            cut: None,
            segments_left: 0,
            is_done: false,
            segments,
            indexed,
        };
        for nth in (0..begun).rev() {
            walk.go_to(nth, 0);
            walk.last = walk.last_before(nth);
            if walk.last.is_some() {
                break;
            }
        }
        Ok(walk)
    }

    /// All of the log, in order.
    pub(super) fn segments(&self) -> &[SegmentInfo] {
        &self.segments
    }

    /// The last batch in front of a segment, if that is known and the segment goes on from it.
    fn last_before(&mut self, nth: usize) -> Option<Last> {
        let segment = self.segments[nth];
        if segment.base == self.start.base_offset {
            return Some(Last { index: self.start.index, term: self.start.term });
        }
        let own = self
            .indexed
            .get(&segment.base)
            .map(|summary| Last { index: BatchIndex(summary.first_index.0 - 1), term: summary.prev_term });
        let before = self.indexed.values().find(|summary| summary.segment.end() == segment.base);
        let before = before.map(|summary| Last { index: summary.last_index, term: summary.last_term });
        let group = self.group;
        own.into_iter()
            .chain(before)
            .find(|last| matches!(look(&mut self.window, 0, group, Some(*last)), Ok(Found::Follows(_))))
    }

    /// The next batch or problem; nothing behind the end of the log.
    pub(super) fn next(&mut self) -> Option<Step<'_>> {
        match self.decide()? {
            Given::Problem(segment, problem) => Some(Step::Problem(segment, problem)),
            Given::Left => Some(Step::Left),
            Given::Batch { header, damage } => {
                let (segment, position) = (self.window.segment(), self.position);
                let len = header.batch_len() as u64;
                self.position += len;
                self.last = Some(Last { index: header.index(), term: header.term() });
                self.group = Some(header.group());
                self.end = segment.base.plus(self.position);
                let bytes = self.window.read(position, len).expect("read just now, and held since");
                Some(Step::Batch(Seen { segment, position, header, bytes, damage }))
            }
        }
    }

    fn decide(&mut self) -> Option<Given> {
        while !self.is_done {
            let segment = self.segments.get(self.nth).copied()?;
            let problem = |problem| Given::Problem(segment, problem);
            let given = match self.look() {
                Err(error) => self.on_unreadable(segment, &error),
                Ok((Found::Follows(header), Ok(()))) => Some(Given::Batch { header, damage: None }),
                // The rest of a segment that the log has rolled past may hold what an earlier life was writing there.
                Ok((Found::Follows(_), Err(error)))
                    if fault_of_writer(&error).is_none() && self.goes_on_elsewhere(segment) =>
                {
                    self.go_to(self.nth + 1, 0);
                    None
                }
                Ok((Found::Follows(header), Err(error))) => self.on_damaged(header, error),
                Ok(_) if self.goes_on_elsewhere(segment) => {
                    self.go_to(self.nth + 1, 0);
                    None
                }
                Ok((found, _)) => self.on_nothing(&found).map(problem),
            };
            if given.is_some() {
                return given;
            }
        }
        None
    }

    /// What stands here, and whether it is a whole batch if it is one at all.
    fn look(&mut self) -> io::Result<(Found, Result<(), BatchError>)> {
        let found = look(&mut self.window, self.position, self.group, self.last)?;
        let Found::Follows(header) = &found else { return Ok((found, Ok(()))) };
        let bytes = self.window.read(self.position, header.batch_len() as u64)?;
        let whole = RawBatch(bytes).verify().map(drop);
        Ok((found, whole))
    }

    fn go_to(&mut self, nth: usize, position: u64) {
        (self.nth, self.position) = (nth, position);
        if let Some(segment) = self.segments.get(nth) {
            self.window = Window::new(self.source, *segment);
            self.is_careful = false;
        }
    }

    /// Whether to look at this place once more, because it may have been looked at too early.
    fn looks_again(&mut self) -> bool {
        let here = Some((self.nth, self.position));
        let is_new = self.looked_again != here;
        if is_new {
            self.looked_again = here;
            self.forget_what_was_read();
        }
        is_new
    }

    fn forget_what_was_read(&mut self) {
        self.window = Window::new(self.source, self.window.segment());
        if self.is_careful {
            self.window.set_read_bytes(BLOCK_LEN as u64);
        }
    }

    /// Whether the log goes on in the next segment: it says so itself, or the index of this one says that it ends here.
    fn goes_on_elsewhere(&self, segment: SegmentInfo) -> bool {
        let Some(next) = self.segments.get(self.nth + 1) else { return false };
        let here = segment.base.plus(self.position);
        let ends_here = self.indexed.get(&segment.base).is_some_and(|summary| summary.end == here);
        let follows = || {
            let mut window = Window::new(self.source, *next);
            let found = look(&mut window, 0, self.group, self.last);
            self.last.is_some() && matches!(found, Ok(Found::Follows(_)))
        };
        ends_here || follows()
    }

    fn on_damaged(&mut self, header: BatchHeader, error: BatchError) -> Option<Given> {
        if fault_of_writer(&error).is_none() {
            let behind = self.search(self.position + BLOCK_LEN as u64, header.index(), header.term());
            if !behind.is_proof {
                self.finish(&Found::Torn(error), behind.batches);
                return None;
            }
            if self.looks_again() {
                return None;
            }
        }
        Some(Given::Batch { header, damage: Some(error) })
    }

    /// The batch that has to come is not here, and not in the next segment.
    fn on_nothing(&mut self, found: &Found) -> Option<Problem> {
        let index = self.last.map(|last| last.index.next());
        let behind = self.search_here();
        if !behind.is_proof {
            let problem = self.never_right(found);
            self.finish(found, behind.batches);
            return problem;
        }
        if self.looks_again() {
            return None;
        }
        let goes_on_with = behind.next.as_ref().map(|(_, _, header)| header.index());
        let bytes = self.bytes_up_to(&behind);
        let problem = self.problem(Wrong::Missing { index, found: found.to_string(), bytes, goes_on_with });
        self.go_behind(behind);
        Some(problem)
    }

    /// A problem even where the log ends: nobody could write there.
    fn never_right(&self, found: &Found) -> Option<Problem> {
        let index = self.last.map_or(BatchIndex(1), |last| last.index.next());
        let wrong = match found {
            Found::OtherVersion { found } => Wrong::Version { found: *found },
            Found::ForeignGroup { found } => Wrong::ForeignGroup { expected: self.group?, found: *found },
            Found::Impossible(mismatch) => Wrong::Inconsistent { index, mismatch: *mismatch },
            _ => return None,
        };
        Some(self.problem(wrong))
    }

    fn on_unreadable(&mut self, segment: SegmentInfo, error: &io::Error) -> Option<Given> {
        if !self.is_careful {
            // Perhaps it is only something further on in what is read at once.
            self.is_careful = true;
            self.forget_what_was_read();
            return None;
        }
        let listed = self.source.segments();
        if error.kind() == io::ErrorKind::NotFound && listed.is_ok_and(|listed| !listed.contains(&segment)) {
            self.segments_left += 1;
            self.last = None;
            self.go_to(self.nth + 1, 0);
            return Some(Given::Left);
        }
        let problem = self.problem(Wrong::Io(error.to_string()));
        match look(&mut self.window, self.position, self.group, self.last) {
            Ok(Found::Follows(header)) => {
                self.last = Some(Last { index: header.index(), term: header.term() });
                self.position += header.batch_len() as u64;
            }
            _ => {
                let behind = self.search_here();
                self.go_behind(if behind.is_proof { behind } else { Behind::default() });
            }
        }
        Some(Given::Problem(segment, problem))
    }

    /// Searches from here on for what has to come.
    fn search_here(&self) -> Behind {
        let (index, term) = self.last.map_or((BatchIndex(1), Term(0)), |last| (last.index.next(), last.term));
        self.search(self.position, index, term)
    }

    /// Searches from a position of this segment on for headers that stand in their places: the first that could come at
    /// or behind batch `index`, and one that saw this batch committed.
    fn search(&self, from: u64, index: BatchIndex, term: Term) -> Behind {
        let here = self.segments[self.nth].base.plus(self.position);
        let mut indexed = self.indexed.values();
        let is_indexed = indexed.any(|summary| summary.segment.base > here || (summary.end > here));
        let is_proof = is_indexed || self.durable.is_some_and(|durable| durable.index >= index);
        let mut behind = Behind { is_proof, ..Behind::default() };
        let written = self.last_written(index);
        for (nth, segment) in self.segments.iter().enumerate().skip(self.nth) {
            let mut window = Window::new(self.source, *segment);
            let mut at = if nth == self.nth { from } else { 0 };
            let counted_from = if nth == self.nth { self.position } else { 0 };
            let reach = here.plus(SEARCH_BEHIND_BYTES).0.saturating_sub(segment.base.0);
            let upto =
                if nth <= written { segment.bytes } else { reach.max(BLOCK_LEN as u64).min(segment.bytes) };
            while at < upto {
                let Some(header) = self.header_in_place(&mut window, at) else {
                    at += BLOCK_LEN as u64;
                    continue;
                };
                behind.batches += 1;
                behind.is_proof |= match self.durable {
                    None => header.commit_hint() >= index,
                    Some(Durable { window_bytes, loss_accepted, .. }) => {
                        let is_witness = bears_witness(&header, index, term, loss_accepted);
                        is_witness && at - counted_from > window_bytes
                    }
                };
                if behind.next.is_none() && header.index() >= index && header.term() >= term {
                    behind.next = Some((nth, at, header));
                }
                if behind.is_proof && behind.next.is_some() {
                    return behind;
                }
                // What was torn may hide another; what is whole does not.
                let bytes = window.read(at, header.batch_len() as u64);
                let is_whole = bytes.is_ok_and(|bytes| RawBatch(bytes).verify().is_ok());
                at += if is_whole { header.batch_len() } else { BLOCK_LEN } as u64;
            }
        }
        behind
    }

    /// The last segment that is known to hold batches at or behind `index`; this one if there is no other.
    fn last_written(&self, index: BatchIndex) -> usize {
        let is_written = |segment: &SegmentInfo| {
            let first = || self.header_in_place(&mut Window::new(self.source, *segment), 0);
            self.indexed.contains_key(&segment.base) || first().is_some_and(|first| first.index() >= index)
        };
        let behind = self.segments.iter().skip(self.nth + 1).rposition(is_written);
        behind.map_or(self.nth, |nth| self.nth + 1 + nth)
    }

    /// A header of this log that stands where it was written to. What cannot be read is none.
    fn header_in_place(&self, window: &mut Window<'_, S>, at: u64) -> Option<BatchHeader> {
        let place = window.segment().base.plus(at);
        let header = RawHeader(window.block(at).ok()?).verify().ok()?;
        let is_ours = self.group.is_none_or(|group| group == header.group());
        (is_ours && header.base_offset() == place).then_some(*header)
    }

    fn bytes_up_to(&self, behind: &Behind) -> u64 {
        let last = self.segments.last().expect("there is the one the walk is in");
        let upto = match behind.next {
            Some((_, _, header)) => header.base_offset(),
            None => last.end(),
        };
        upto.0 - (self.segments[self.nth].base.0 + self.position)
    }

    /// Goes on with what a search found, whatever comes before it.
    fn go_behind(&mut self, behind: Behind) {
        let Some((nth, position, header)) = behind.next else {
            self.is_done = true;
            return;
        };
        if (nth, position) != (self.nth, self.position) {
            self.go_to(nth, position);
        }
        self.last = Some(Last { index: BatchIndex(header.index().0 - 1), term: header.prev_term() });
    }

    fn finish(&mut self, found: &Found, batches_behind: u64) {
        self.is_done = true;
        let cause = match found {
            Found::Torn(error) => CutCause::Torn(error.clone()),
            Found::Stale(mismatch) => CutCause::Stale(*mismatch),
            _ => return,
        };
        let file = self.source.name(LogFile::Segment(self.window.segment().base));
        self.cut = Some(Cut { file, position: self.position, cause, batches_behind });
    }

    fn problem(&self, wrong: Wrong) -> Problem {
        let file = LogFile::Segment(self.window.segment().base);
        Problem::new(self.source, file, self.position, wrong)
    }
}

/// What is said by the indexes whose headers hold. Those that do not are for others to tell of.
fn usable_indexes<S: LogSource + ?Sized>(
    source: &S,
    group: Option<GroupId>,
) -> Result<FxHashMap<LogOffset, IndexSummary>, Problem> {
    let indexes = source.indexes().map_err(|error| Problem::list("indexes", &error))?;
    let opened = indexes.into_iter().filter_map(|base| open_index(source, base).ok());
    let ours = opened.filter(|index| group.is_none_or(|group| group == index.summary().group));
    Ok(ours.map(|index| (index.summary().segment.base, index.summary().clone())).collect())
}
