//! What recovery found, for people and for the layer above.

use std::io;

use super::look::Mismatch;
use crate::disk::SegmentInfo;
use crate::format::{BatchError, age};
use crate::job_error::JobError;
use crate::sealed::{IndexError, IndexFault};
use crate::snapshot::SnapshotError;
use crate::source::{LogFile, LogSource};
use crate::types::{BatchIndex, GroupId, LogOffset, QueueKey, QueueOffset, Term};

/// The log as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segment files, ready ones without batches among them.
    pub segments: usize,
    /// Those of them that were taken from their indexes and not read.
    pub sealed_segments: usize,
    pub batches: u64,
    pub records: u64,
    /// Bytes of whole batches.
    pub bytes: u64,
    /// Where the log begins.
    pub begin: LogOffset,
    /// Where the log ends and goes on.
    pub end: LogOffset,
    pub last_index: BatchIndex,
    pub last_term: Term,
    /// Nothing if behind the last batch no other was begun.
    pub cut: Option<Cut>,
    /// Indexes that were not as they had to be, oldest first.
    pub indexes_replaced: Vec<ReplacedIndex>,
    /// Indexes of segments that have left the log, taken away.
    pub indexes_removed: usize,
    /// The snapshot that the derived state was restored from.
    pub snapshot: Option<LogOffset>,
    /// Snapshots that cannot be used, newest first.
    pub snapshots_refused: Vec<RefusedSnapshot>,
    /// Those behind the snapshot, which were applied.
    pub control_records: u64,
    /// Read from segments and snapshots: the tail, what a rebuilt index was made from, and batches with control records
    /// behind the snapshot. Indexes come on top: their headers and page tables, and the queue tables of two of them.
    pub bytes_read: u64,
}

/// An index that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplacedIndex {
    /// Name of the index file.
    pub file: String,
    pub flaw: IndexFlaw,
    pub by: ReplacedBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplacedBy {
    /// It was made anew from its segment.
    Rebuilt,
    /// It is the newest, so its segment was read as part of the tail; the log seals that anew.
    Tail,
}

/// Why an index is not the one of its segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexFlaw {
    #[error("it is missing")]
    Missing,
    #[error(transparent)]
    Header(#[from] IndexError),
    #[error(transparent)]
    Page(#[from] IndexFault),
    #[error("it belongs to group {found}, this log to group {expected}")]
    ForeignGroup { expected: GroupId, found: GroupId },
    #[error(
        "it belongs to the segment of {} bytes at {}, not to that of {} at {}",
        .found.bytes, .found.base, .expected.bytes, .expected.base
    )]
    OtherSegment { expected: SegmentInfo, found: SegmentInfo },
    /// Of another life of this log.
    #[error("it does not follow the segment before: {0}")]
    DoesNotFollow(Mismatch),
}

/// A snapshot that could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSnapshot {
    /// Name of the snapshot file.
    pub file: String,
    pub flaw: SnapshotFlaw,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotFlaw {
    #[error(transparent)]
    File(#[from] SnapshotError),
    #[error("it does not fit the log: {0}")]
    DoesNotFit(Mismatch),
    /// The layer above does not understand it.
    #[error("{0}")]
    State(String),
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
    #[error("left behind by an earlier life of the log: {0}")]
    Stale(Mismatch),
}

/// Why a log cannot be opened. No segment and no snapshot was changed; indexes may have been rebuilt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    #[error("{file}: {action} at {position}: {message}")]
    Io { file: String, action: &'static str, position: u64, message: String },
    #[error("cannot list the {what}: {message}")]
    List { what: &'static str, message: String },
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// A segment file is not there, or has another size than it was made with.
    #[error(
        "{file} begins at {found}, but {expected} is where the segment before it ends: a file is missing or has changed its size"
    )]
    Gap { file: String, expected: u64, found: u64 },
    #[error("{file} has {bytes} bytes: a segment holds at least {min} (batch_bytes_max) and whole blocks")]
    SegmentSize { file: String, bytes: u64, min: u64 },
    /// What was sealed was durable and committed.
    #[error("{file} is missing, and {index} is the index of what was committed in it")]
    SegmentMissing { file: String, index: String },
    /// What was sealed was durable and committed.
    #[error("{file} has {bytes} bytes, and {index} is the index of {sealed} bytes that were committed in it")]
    SegmentShort { file: String, bytes: u64, index: String, sealed: u64 },
    #[error("{file} at {position}: batch of group {found}, this log belongs to group {expected}")]
    ForeignGroup { file: String, position: u64, expected: GroupId, found: GroupId },
    #[error(
        "{file} at {position}: format version {found}, written by a program that is {}; this one knows {known}",
        age(*found, *known)
    )]
    Version { file: String, position: u64, known: u16, found: u16 },
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
    /// Acknowledged data is not whole, in a segment that has to be indexed anew.
    #[error(transparent)]
    SealedDamaged(Box<SealedDamage>),
    /// Likewise, as the job found it that makes the index.
    #[error(transparent)]
    Rebuild(Box<RebuildFailed>),
    /// A whole batch that no right writer makes.
    #[error("{file} at {position}: batch {index} is whole, but {mismatch}")]
    Inconsistent { file: String, position: u64, index: BatchIndex, mismatch: Mismatch },
    #[error("{file} at {position}: a record of queue {queue} has offset {found}, expected {expected}")]
    QueueOffset { file: String, position: u64, queue: QueueKey, expected: QueueOffset, found: QueueOffset },
    /// The log does not begin at 0, and nothing tells where its queues stood when it did begin.
    #[error(
        "the log begins at {begin}, and the index in front of it, which is needed, cannot be used: {flaw}"
    )]
    NoIndexBefore { begin: LogOffset, flaw: IndexFlaw },
    /// Control records in front of the log's first segment are gone with their segments.
    #[error("the log begins at {begin}, and no snapshot tells what came before{}", list(.refused))]
    NoSnapshot { begin: LogOffset, refused: Vec<RefusedSnapshot> },
    /// A snapshot is made of what is durable, so durable data is gone.
    #[error(
        "{file} is a snapshot of the log up to its position, and the log ends at {end}: committed data is missing"
    )]
    SnapshotAhead { file: String, end: LogOffset },
    /// More than any leader lets come together without the group's word.
    #[error(
        "{file} at {position}: {bytes} bytes of batches that are not known to be committed, at most {limit} can be"
    )]
    Uncommitted { file: String, position: u64, bytes: u64, limit: u64 },
    /// What the node must not forget cannot be read or written, or a reset that was interrupted cannot be ended.
    #[error(transparent)]
    Group(JobError),
    /// A batch of a sealed segment, whose term is needed, cannot be read.
    #[error("a batch that was committed: {0}")]
    Sealed(JobError),
    /// A segment in front of where the node's state says that the log begins.
    #[error("{file} begins at {found}, and the log at {start}: it is not one of this node's segments")]
    BeforeStart { file: String, found: LogOffset, start: LogOffset },
    /// A node's segments are as its group's.
    #[error("segments are of {found} bytes by the configuration, and of {expected} in this group")]
    SegmentBytes { expected: u64, found: u64 },
    /// A control record behind the snapshot cannot be read or is not understood.
    #[error("control record: {0}")]
    ControlRecord(JobError),
}

/// A batch is missing from a segment, although a later segment is sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{file} at {position}: batch {index} is damaged ({found}), and it was committed; this came to light because \
     {index_file} has to be made anew: {flaw}"
)]
pub struct SealedDamage {
    /// Name of the segment file.
    pub file: String,
    pub position: u64,
    pub index: BatchIndex,
    pub found: String,
    pub index_file: String,
    pub flaw: IndexFlaw,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}; this came to light because {index_file} has to be made anew: {flaw}")]
pub struct RebuildFailed {
    pub error: JobError,
    pub index_file: String,
    pub flaw: IndexFlaw,
}

fn list(refused: &[RefusedSnapshot]) -> String {
    refused.iter().map(|refused| format!("; {}: {}", refused.file, refused.flaw)).collect()
}

impl RecoveryError {
    pub(super) fn io<S: LogSource + ?Sized>(
        source: &S,
        file: LogFile,
        action: &'static str,
        position: u64,
        error: &io::Error,
    ) -> RecoveryError {
        RecoveryError::Io { file: source.name(file), action, position, message: error.to_string() }
    }

    pub(super) fn list(what: &'static str, error: &io::Error) -> RecoveryError {
        RecoveryError::List { what, message: error.to_string() }
    }
}
