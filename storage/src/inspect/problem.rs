//! What can be wrong with a log.

use std::fmt;
use std::io;

use crate::checkpoint::CheckpointError;
use crate::format::{BatchError, FORMAT_VERSION, age};
use crate::group_state::GroupStateError;
use crate::recovery::{IndexFlaw, Mismatch, SnapshotFlaw};
use crate::sealed::Difference;
use crate::source::{LogFile, LogSource};
use crate::types::{BatchIndex, GroupId, LogOffset, QueueKey, QueueOffset};

/// Something that is not as it has to be, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Name of the file.
    pub file: String,
    /// Byte in the file.
    pub position: u64,
    pub wrong: Wrong,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("cannot be read: {0}")]
    Io(String),
    /// A segment file is not there, or has another size than it was made with.
    #[error("begins at {found}, but {expected} is where the segment before it ends")]
    Gap { expected: LogOffset, found: LogOffset },
    #[error("{bytes} bytes, which is not a number of whole blocks")]
    SegmentSize { bytes: u64 },
    /// Its header is whole, and it was committed.
    #[error("batch {index} is damaged: {error}")]
    Damaged { index: BatchIndex, error: BatchError },
    /// What comes behind proves that there was one.
    #[error(
        "{} expected, found: {found}; {}",
        batch(*.index),
        goes_on(*.bytes, *.goes_on_with)
    )]
    Missing {
        /// Nothing if it is not known which.
        index: Option<BatchIndex>,
        found: String,
        /// From here up to the next batch, or up to the end of the last segment.
        bytes: u64,
        goes_on_with: Option<BatchIndex>,
    },
    /// A whole batch that no right writer makes.
    #[error("batch {index} is whole, but {mismatch}")]
    Inconsistent { index: BatchIndex, mismatch: Mismatch },
    #[error("batch of group {found}, this log belongs to group {expected}")]
    ForeignGroup { expected: GroupId, found: GroupId },
    #[error(
        "format version {found}, written by a program that is {}; this one knows {FORMAT_VERSION}",
        age(*found, FORMAT_VERSION)
    )]
    Version { found: u16 },
    #[error("a record of queue {queue} has offset {found}, expected {expected}")]
    QueueOffset { queue: QueueKey, expected: QueueOffset, found: QueueOffset },
    /// An index cannot be used.
    #[error("{0}")]
    Index(#[from] IndexFlaw),
    /// An index is whole, and not the one of its segment.
    #[error("differs from what its segment says: {0}")]
    IndexDiffers(Difference),
    /// There is an index of it.
    #[error("its segment is missing")]
    SegmentMissing,
    #[error("{0}")]
    Snapshot(#[from] SnapshotFlaw),
    #[error("stands behind the log's end, {end}")]
    SnapshotAhead { end: LogOffset },
    /// What a node of a group must not forget cannot be told.
    #[error("{0}")]
    GroupState(#[from] GroupStateError),
    /// It cannot be told whether, or behind what, the log is being begun anew.
    #[error("{0}")]
    Checkpoint(#[from] CheckpointError),
}

fn batch(index: Option<BatchIndex>) -> String {
    index.map_or_else(|| "a batch".to_owned(), |index| format!("batch {index}"))
}

fn goes_on(bytes: u64, with: Option<BatchIndex>) -> String {
    match with {
        Some(index) => format!("the log goes on with batch {index}, {bytes} bytes on"),
        None => format!("none follows in the {bytes} bytes behind"),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.file, self.position, self.wrong)
    }
}

impl std::error::Error for Problem {}

impl Problem {
    pub(super) fn new<S: LogSource + ?Sized>(
        source: &S,
        file: LogFile,
        position: u64,
        wrong: impl Into<Wrong>,
    ) -> Problem {
        Problem { file: source.name(file), position, wrong: wrong.into() }
    }

    pub(super) fn list(what: &str, error: &io::Error) -> Problem {
        Problem { file: format!("the list of {what}"), position: 0, wrong: Wrong::Io(error.to_string()) }
    }

    pub(super) fn io<S: LogSource + ?Sized>(
        source: &S,
        file: LogFile,
        position: u64,
        error: &io::Error,
    ) -> Problem {
        Problem::new(source, file, position, Wrong::Io(error.to_string()))
    }
}

/// Tells of problems and counts them.
pub(super) struct Telling<'t> {
    on_problem: &'t mut dyn FnMut(Problem),
    count: u64,
}

impl<'t> Telling<'t> {
    pub(super) fn new(on_problem: &'t mut dyn FnMut(Problem)) -> Telling<'t> {
        Telling { on_problem, count: 0 }
    }

    pub(super) fn tell(&mut self, problem: Problem) {
        self.count += 1;
        (self.on_problem)(problem);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }
}
