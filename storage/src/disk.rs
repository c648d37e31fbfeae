//! What the log asks of a disk, and what a disk answers. The log decides; `driver` and `sim` act.

use std::rc::Rc;

use smallvec::SmallVec;

use crate::types::{BatchIndex, LogOffset};

/// Memory that one direct write can be made from.
pub trait Buffer: AsRef<[u8]> + AsMut<[u8]> {}

/// Names one operation on its way; unique within one [`CommitLog`](crate::CommitLog).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// A segment file: where it begins in the log and how long it is, written or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    pub base: LogOffset,
    pub bytes: u64,
}

impl SegmentInfo {
    /// One past the last byte the segment can hold; where the next segment begins.
    #[must_use]
    pub fn end(&self) -> LogOffset {
        self.base.plus(self.bytes)
    }
}

/// Bytes within one segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRun {
    /// Base offset of the segment.
    pub segment: LogOffset,
    pub position: u64,
    pub len: u32,
}

/// Something the log wants done. Operations may run at the same time and finish in any order; each is answered
/// by one [`Completion`].
#[derive(Debug)]
pub enum DiskOp<B> {
    /// Write batch `index`: the first `len` bytes of `buffer` at `position` of a segment. Position and length are multiples of
    /// [`BLOCK_LEN`](crate::format::BLOCK_LEN). Never overlaps another write on its way.
    Write { id: OpId, index: BatchIndex, segment: LogOffset, position: u64, buffer: Rc<B>, len: u32 },
    /// Make durable all that was written to these segments by writes already completed.
    Sync { id: OpId, segments: SmallVec<[LogOffset; 2]> },
    /// Make a new segment: all zeros, durable under its name when answered. Done off the append path.
    Prepare { segment: SegmentInfo },
}

/// The answer to one [`DiskOp`].
#[derive(Clone, Debug)]
pub enum Completion {
    Written { id: OpId, result: Result<(), DiskError> },
    Synced { id: OpId, result: Result<(), DiskError> },
    Prepared { base: LogOffset, result: Result<(), DiskError> },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// Making a segment would leave less than the configured reserve.
    #[error(
        "no space for a new segment of {needed_bytes} bytes: {free_bytes} bytes are free in {place} and \
         {reserve_bytes} must stay free"
    )]
    NoSpace { place: String, needed_bytes: u64, free_bytes: u64, reserve_bytes: u64 },
    /// The system refused; `os_code` is its errno where there is one.
    #[error("{action}: {message}")]
    Io { action: String, os_code: Option<i32>, message: String },
}

impl DiskError {
    /// Keeps what a system error says, in a form that can be copied into each refusal.
    pub fn io(action: impl Into<String>, error: &std::io::Error) -> DiskError {
        DiskError::Io { action: action.into(), os_code: error.raw_os_error(), message: error.to_string() }
    }
}
