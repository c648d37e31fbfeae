//! What recovery found, for people and for the layer above.

use crate::format::{BatchError, age};
use crate::types::{BatchIndex, GroupId, LogOffset, QueueKey, QueueOffset, Term};

/// The log as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segment files, ready ones without batches among them.
    pub segments: usize,
    pub batches: u64,
    pub records: u64,
    /// Bytes of whole batches.
    pub bytes: u64,
    /// Where the log ends and goes on.
    pub end: LogOffset,
    pub last_index: BatchIndex,
    pub last_term: Term,
    /// Nothing if the last batch was followed by a part of the segment that was never written.
    pub cut: Option<Cut>,
}

/// Bytes behind the end that are no longer part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Name of the segment file.
    pub file: String,
    pub position: u64,
    pub cause: CutCause,
    /// Batches with whole headers that were written behind the cut; none of them was ever acknowledged.
    pub batches_behind: u64,
}

/// Why the first batch that is not part of the log is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutCause {
    /// Its write was interrupted.
    #[error("torn batch: {0}")]
    Torn(BatchError),
    /// Whole, but left by an earlier life of the log, behind an earlier cut.
    #[error("left behind by an earlier life of the log: {field} is {found}, expected {expected}")]
    Stale { field: &'static str, expected: u64, found: u64 },
}

/// Why a log cannot be opened. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    #[error("{file}: {action} at {position}: {message}")]
    Io { file: String, action: &'static str, position: u64, message: String },
    #[error("cannot list the segments: {message}")]
    List { message: String },
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// A segment file is not there, or has another size than it was made with.
    #[error(
        "{file} begins at {found}, but {expected} is where the segment before it ends: a file is missing or has changed its size"
    )]
    Gap { file: String, expected: u64, found: u64 },
    #[error("{file} has {bytes} bytes: a segment holds at least {min} (batch_bytes_max) and whole blocks")]
    SegmentSize { file: String, bytes: u64, min: u64 },
    #[error("{file} at {position}: batch of group {found}, this log belongs to group {expected}")]
    ForeignGroup { file: String, position: u64, expected: GroupId, found: GroupId },
    #[error(
        "{file} at {position}: format version {found}, written by a program that is {}; this one knows {known}",
        age(*found, *known)
    )]
    NewerFormat { file: String, position: u64, known: u16, found: u16 },
    /// Acknowledged data is not whole: a later batch proves that this one was committed.
    #[error(
        "{file} at {position}: batch {index} is damaged ({found}), and it was committed: batch {witness} at log \
         offset {witness_offset} was sealed when all up to {committed} were"
    )]
    Damaged {
        file: String,
        position: u64,
        index: BatchIndex,
        found: String,
        witness: BatchIndex,
        witness_offset: LogOffset,
        committed: BatchIndex,
    },
    /// A whole batch that no right writer makes.
    #[error("{file} at {position}: batch {index} is whole, but {field} is {found}, expected {expected}")]
    Inconsistent {
        file: String,
        position: u64,
        index: BatchIndex,
        field: &'static str,
        expected: u64,
        found: u64,
    },
    #[error("{file} at {position}: a record of queue {queue} has offset {found}, expected {expected}")]
    QueueOffset { file: String, position: u64, queue: QueueKey, expected: QueueOffset, found: QueueOffset },
}
