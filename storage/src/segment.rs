//! The segments of a log and where the next batch goes.
//!
//! ```text
//! | segment | segment | active ....|      | ready | ready | being prepared
//! 0                      ▲ end            written by nobody yet
//! ```

use std::collections::VecDeque;

use crate::config::LogConfig;
use crate::disk::{DiskError, FileRun, SegmentInfo};
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

/// The last preparation failed and is tried again by itself.
#[derive(Clone, Debug)]
struct Failure {
    error: DiskError,
    /// Set at the first poll after the failure.
    retry_at_ms: Option<i64>,
}

/// Segments follow each other without a gap; each keeps the size it was made with.
#[derive(Debug)]
pub(crate) struct Segments {
    segments: VecDeque<SegmentInfo>,
    /// Of the segment written to; 0 while there is none.
    active: usize,
    /// Next byte to write. Its segment is the active one, or full.
    end: LogOffset,
    preparing: Option<SegmentInfo>,
    failure: Option<Failure>,
    new_bytes: u64,
    ahead_wanted: usize,
    retry_ms: i64,
}

impl Segments {
    /// `segments` in order and without gaps; `end` in one of them, or at the end of one.
    pub(crate) fn new(segments: Vec<SegmentInfo>, end: LogOffset, config: &LogConfig) -> Segments {
        for pair in segments.windows(2) {
            assert!(pair[0].end() == pair[1].base, "segments {pair:?} do not touch");
        }
        let active = segments.iter().position(|segment| end <= segment.end()).unwrap_or(0);
        Segments {
            segments: segments.into(),
            active,
            end,
            preparing: None,
            failure: None,
            new_bytes: config.segment_bytes,
            ahead_wanted: config.segments_ahead as usize,
            retry_ms: config.prepare_retry_ms.into(),
        }
    }

    /// Where a batch of `len` bytes would go now; nothing while the segment it needs is not there. A roll leaves
    /// the rest of the active segment as it is.
    pub(crate) fn place(&self, len: u64) -> Option<Placement> {
        let active = self.segments.get(self.active)?;
        let position = self.end.0 - active.base.0;
        if position + len <= active.bytes {
            return Some(Placement { segment: active.base, position });
        }
        let next = self.segments.get(self.active + 1)?;
        assert!(len <= next.bytes, "batch of {len} bytes for segment {next:?}");
        Some(Placement { segment: next.base, position: 0 })
    }

    /// Takes the room that [`place`](Segments::place) showed.
    pub(crate) fn take(&mut self, placement: Placement, len: u64) {
        if self.segments[self.active].base != placement.segment {
            self.active += 1;
        }
        assert_eq!(self.segments[self.active].base, placement.segment, "placement is of another moment");
        self.end = placement.base_offset().plus(len);
        let limit = self.segments[self.active].end();
        assert!(self.end <= limit, "end {} beyond its segment's {limit}", self.end);
    }

    /// The segment to prepare now, if one is due.
    pub(crate) fn poll_prepare(&mut self, now_ms: i64) -> Option<SegmentInfo> {
        let wanted = self.active + 1 + self.ahead_wanted;
        if self.preparing.is_some() || self.segments.len() >= wanted {
            return None;
        }
        if let Some(failure) = &mut self.failure {
            // The minimum keeps a clock that was set back from stretching the pause.
            let latest = now_ms.saturating_add(self.retry_ms);
            let retry_at_ms = failure.retry_at_ms.unwrap_or(latest).min(latest);
            failure.retry_at_ms = Some(retry_at_ms);
            if now_ms < retry_at_ms {
                return None;
            }
        }
        let base = self.segments.back().map_or(LogOffset(0), SegmentInfo::end);
        let segment = SegmentInfo { base, bytes: self.new_bytes };
        self.preparing = Some(segment);
        Some(segment)
    }

    pub(crate) fn on_prepared(&mut self, base: LogOffset, result: Result<(), DiskError>) {
        let segment = self.preparing.take().expect("a preparation was answered that is not on its way");
        assert_eq!(segment.base, base, "another preparation was answered");
        self.failure = match result {
            Ok(()) => {
                self.segments.push_back(segment);
                None
            }
            Err(error) => Some(Failure { error, retry_at_ms: None }),
        };
    }

    pub(crate) fn failure(&self) -> Option<&DiskError> {
        self.failure.as_ref().map(|failure| &failure.error)
    }

    /// When `poll_prepare` has something to do again by time alone.
    pub(crate) fn retry_at_ms(&self) -> Option<i64> {
        if self.preparing.is_some() {
            return None;
        }
        self.failure.as_ref().and_then(|failure| failure.retry_at_ms)
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
