//! The segments of a log and where the next batch goes.
//!
//! ```text
//! | segment | segment | active ....|      | ready | ready | being prepared
//! ▲ start                ▲ end            written by nobody yet
//! ```

use std::collections::VecDeque;

use crate::config::LogConfig;
use crate::disk::{DiskError, FileRun, SegmentInfo};
use crate::pause::Pause;
use crate::types::LogOffset;

/// Where a batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) segment: LogOffset,
    pub(crate) position: u64,
}

impl Placement {
    pub(crate) fn base_offset(&self) -> LogOffset {
        self.segment.plus(self.position)
    }
}

/// A preparation on its way.
#[derive(Clone, Copy, Debug)]
struct Preparing {
    segment: SegmentInfo,
    /// The expired segment whose file is used.
    recycle: Option<LogOffset>,
}

/// A segment that the log wants made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) segment: SegmentInfo,
    pub(crate) recycle: Option<LogOffset>,
}

/// Segments follow each other without a gap; each keeps the size it was made with.
///
/// Segments leave at the front, and their files go in this order too: whatever a crash interrupts, what is left on
/// the disk has no gap.
///
/// ```text
/// removing, spare │ first ... active ... │ ready │ preparing
/// files only      │ the log
/// ```
#[derive(Debug)]
pub(crate) struct Segments {
    segments: VecDeque<SegmentInfo>,
    /// Where the first of them begins, or will.
    begin: LogOffset,
    /// Of all of them.
    log_bytes: u64,
    /// Of the segment that batches go to. In a group it may be one that is not made yet: where its batches lie is known.
    active: usize,
    /// Next byte to write. Its segment is the active one, or full.
    end: LogOffset,
    preparing: Option<Preparing>,
    /// Why the last preparation failed; it is tried again by itself.
    failure: Option<DiskError>,
    prepare_pause: Pause,
    /// Left the log; its file waits to be recycled.
    spare: Option<SegmentInfo>,
    /// Left the log; its file goes before any other does. A removal on its way keeps its place.
    doomed: Option<SegmentInfo>,
    removing: bool,
    remove_pause: Pause,
    new_bytes: u64,
    ahead_wanted: usize,
    retry_ms: u32,
}

impl Segments {
    /// `segments` in order and without gaps; `end` in one of them, or at the end of one.
    pub(crate) fn new(segments: Vec<SegmentInfo>, end: LogOffset, config: &LogConfig) -> Segments {
        for pair in segments.windows(2) {
            assert!(pair[0].end() == pair[1].base, "segments {pair:?} do not touch");
        }
        let active = active_at(segments.iter(), end);
        Segments {
            begin: segments.first().map_or(end, |segment| segment.base),
            log_bytes: segments.iter().map(|segment| segment.bytes).sum(),
            segments: segments.into(),
            active,
            end,
            preparing: None,
            failure: None,
            prepare_pause: Pause::default(),
            spare: None,
            doomed: None,
            removing: false,
            remove_pause: Pause::default(),
            new_bytes: config.segment_bytes,
            ahead_wanted: config.segments_ahead as usize,
            retry_ms: config.retry_ms,
        }
    }

    /// Where the log begins: everything in front of it has left.
    pub(crate) fn start(&self) -> LogOffset {
        self.begin
    }

    /// The segment written to, if it is made.
    pub(crate) fn active(&self) -> Option<SegmentInfo> {
        self.segments.get(self.active).copied()
    }

    /// The segment that begins at `base`.
    pub(crate) fn get(&self, base: LogOffset) -> Option<SegmentInfo> {
        let nth = self.segments.binary_search_by_key(&base, |segment| segment.base).ok()?;
        Some(self.segments[nth])
    }

    /// Bytes of the files that belong to the log, ready ones included.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// The size of segments made from now on.
    pub(crate) fn new_bytes(&self) -> u64 {
        self.new_bytes
    }

    /// A roll would find a segment.
    pub(crate) fn is_next_ready(&self) -> bool {
        self.segments.len() > self.active + 1
    }

    /// Where a batch of `len` bytes would go now; nothing while the segment it needs is not there. A roll, which
    /// `must_roll` forces, leaves the rest of the active segment as it is.
    pub(crate) fn place(&self, len: u64, must_roll: bool) -> Option<Placement> {
        let active = self.segments.get(self.active)?;
        let position = self.end.0 - active.base.0;
        if position + len <= active.bytes && !must_roll {
            return Some(Placement { segment: active.base, position });
        }
        let next = self.segments.get(self.active + 1)?;
        assert!(len <= next.bytes, "batch of {len} bytes for segment {next:?}");
        Some(Placement { segment: next.base, position: 0 })
    }

    /// Takes the room that [`place`](Segments::place) showed.
    pub(crate) fn take(&mut self, placement: Placement, len: u64) {
        if self.nth(self.active).base != placement.segment {
            self.active += 1;
        }
        let active = self.nth(self.active);
        assert_eq!(active.base, placement.segment, "placement is of another moment");
        self.end = placement.base_offset().plus(len);
        assert!(self.end <= active.end(), "end {} beyond its segment's {}", self.end, active.end());
    }

    /// A segment by its number, made or not: those to come follow the others in the size of new ones.
    fn nth(&self, nth: usize) -> SegmentInfo {
        if let Some(segment) = self.segments.get(nth) {
            return *segment;
        }
        let base = self.segments.back().map_or(self.begin, SegmentInfo::end);
        let ahead = (nth - self.segments.len()) as u64;
        SegmentInfo { base: base.plus(ahead * self.new_bytes), bytes: self.new_bytes }
    }

    /// Where the next batch may begin: behind the last one, or with the next segment.
    pub(crate) fn next_begins(&self) -> [LogOffset; 2] {
        [self.end, self.nth(self.active).end()]
    }

    /// The segment that a byte lies in, if it is made.
    pub(crate) fn holding(&self, offset: LogOffset) -> Option<SegmentInfo> {
        let behind = self.segments.partition_point(|segment| segment.base <= offset);
        let segment = self.segments[behind.checked_sub(1)?];
        (offset < segment.end()).then_some(segment)
    }

    /// Where a batch of `len` bytes at `base` stands, if it may stand there; its segment need not be made yet.
    pub(crate) fn place_at(&self, base: LogOffset, len: u64) -> Option<Placement> {
        let [end, next] = self.next_begins();
        let active = self.nth(self.active);
        let segment = match base {
            base if base == end && base < active.end() => active,
            base if base == next => self.nth(self.active + 1),
            _ => return None,
        };
        let position = base.0 - segment.base.0;
        (position + len <= segment.bytes).then_some(Placement { segment: segment.base, position })
    }

    /// As [`place`](Segments::place), with segments that are not made yet.
    pub(crate) fn plan(&self, len: u64, must_roll: bool) -> Placement {
        let [end, next] = self.next_begins();
        let here = self.place_at(end, len).filter(|_| !must_roll);
        let placement = here.or_else(|| self.place_at(next, len));
        placement.unwrap_or_else(|| panic!("batch of {len} bytes for a segment of {}", self.new_bytes))
    }

    /// The log ends at `end` again, in the segment that begins at `segment` if its last batch is known.
    pub(crate) fn rewind(&mut self, end: LogOffset, segment: Option<LogOffset>) {
        assert!(end <= self.end, "rewound from {} to {end}", self.end);
        self.end = end;
        self.active = match segment {
            Some(segment) => (0..=self.active)
                .rev()
                .find(|nth| self.nth(*nth).base == segment)
                .unwrap_or_else(|| panic!("segment {segment} has left")),
            None => active_at(self.segments.iter(), end),
        };
    }

    /// The segment to prepare now, if one is due.
    pub(crate) fn poll_prepare(&mut self, now_ms: i64) -> Option<Wanted> {
        let wanted = self.active + 1 + self.ahead_wanted;
        if self.preparing.is_some() || self.segments.len() >= wanted {
            return None;
        }
        if !self.prepare_pause.is_over(now_ms, self.retry_ms) {
            return None;
        }
        let segment = self.nth(self.segments.len());
        let mut recycle = None;
        // Files go oldest first, so a spare one behind a doomed one has to wait.
        if self.doomed.is_none() {
            match self.spare.take() {
                Some(spare) if spare.bytes != self.new_bytes => self.doomed = Some(spare),
                spare => recycle = spare.map(|spare| spare.base),
            }
        }
        self.preparing = Some(Preparing { segment, recycle });
        Some(Wanted { segment, recycle })
    }

    pub(crate) fn on_prepared(&mut self, base: LogOffset, result: Result<(), DiskError>) {
        let Preparing { segment, recycle } =
            self.preparing.take().expect("a preparation was answered that is not on its way");
        assert_eq!(segment.base, base, "another preparation was answered");
        self.failure = result.err();
        if self.failure.is_none() {
            self.prepare_pause.end();
            self.log_bytes += segment.bytes;
            self.segments.push_back(segment);
            return;
        }
        self.prepare_pause.begin();
        // Whether the old file still has its old name nobody knows; were it left, the next one to go would leave a gap.
        if let Some(base) = recycle {
            self.doomed = Some(SegmentInfo { base, bytes: segment.bytes });
        }
    }

    /// The first segment leaves the log: its file becomes the spare one, and one that was goes.
    pub(crate) fn leave(&mut self) -> SegmentInfo {
        assert!(self.active > 0, "the segment written to cannot leave");
        assert!(self.may_leave(), "two segments leave at once");
        let first = self.segments.pop_front().expect("the active segment is behind it");
        self.active -= 1;
        self.begin = first.end();
        self.log_bytes -= first.bytes;
        self.doomed = self.spare.replace(first);
        // What was refused for want of space has some now.
        self.prepare_pause.end();
        first
    }

    /// No file of an earlier segment is still being disposed of.
    pub(crate) fn may_leave(&self) -> bool {
        self.doomed.is_none() && self.preparing.is_none_or(|preparing| preparing.recycle.is_none())
    }

    /// A file that left waits to be recycled or removed.
    pub(crate) fn has_spare(&self) -> bool {
        self.spare.is_some() || self.doomed.is_some()
    }

    /// The file to remove now, if one is due.
    pub(crate) fn poll_remove(&mut self, now_ms: i64) -> Option<LogOffset> {
        let doomed = self.doomed.filter(|_| !self.removing)?;
        if !self.remove_pause.is_over(now_ms, self.retry_ms) {
            return None;
        }
        self.removing = true;
        Some(doomed.base)
    }

    pub(crate) fn on_removed(&mut self, base: LogOffset, is_gone: bool) {
        let doomed = self.doomed.expect("a removal was answered that is not on its way");
        assert_eq!(doomed.base, base, "another removal was answered");
        self.removing = false;
        if is_gone {
            self.remove_pause.end();
            self.doomed = None;
        } else {
            self.remove_pause.begin();
        }
    }

    /// A file is being made or removed.
    pub(crate) fn is_busy(&self) -> bool {
        self.preparing.is_some() || self.removing
    }

    pub(crate) fn failure(&self) -> Option<&DiskError> {
        self.failure.as_ref()
    }

    /// When `poll_prepare` has something to do again by time alone.
    pub(crate) fn retry_at_ms(&self) -> Option<i64> {
        if self.preparing.is_some() {
            return None;
        }
        self.prepare_pause.until_ms()
    }

    /// The file bytes from `offset` on; they lie in one segment, as no batch spans two.
    pub(crate) fn file_run(&self, offset: LogOffset, len: u32) -> FileRun {
        let behind = self.segments.partition_point(|segment| segment.base <= offset);
        let segment = self.segments[behind.checked_sub(1).expect("offset at or after the first segment")];
        let position = offset.0 - segment.base.0;
        assert!(position + u64::from(len) <= segment.bytes, "{len} bytes at {offset} leave {segment:?}");
        FileRun { segment: segment.base, position, len }
    }
}

/// The number of the segment that a log goes on in that ends at `end`.
fn active_at<'a>(mut segments: impl Iterator<Item = &'a SegmentInfo>, end: LogOffset) -> usize {
    segments.position(|segment| end <= segment.end()).unwrap_or(0)
}
