//! Why a job of the blocking pool did not come to its end. What was there before is there still.

use std::io;

use crate::checkpoint::CheckpointError;
use crate::format::BatchError;
use crate::group_state::GroupStateError;
use crate::sealed::{IndexError, IndexFault};
use crate::snapshot::SnapshotError;
use crate::source::{LogFile, LogSource};
use crate::types::{LogOffset, QueueKey, QueueOffset};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// The system refused; `os_code` is its errno where there is one.
    #[error("{file}: {action} at {position}: {message}")]
    Io { file: String, action: &'static str, position: u64, os_code: Option<i32>, message: String },
    /// A batch of a sealed segment is not whole.
    #[error("{file} at {position}: {error}")]
    Batch { file: String, position: u64, error: BatchError },
    /// Whole, but not what must stand there.
    #[error("{file} at {position}: {field} is {found}, expected {expected}")]
    Unexpected { file: String, position: u64, field: &'static str, expected: u64, found: u64 },
    #[error("{file} at {position}: a record of queue {queue} has offset {found}, expected {expected}")]
    QueueOffset { file: String, position: u64, queue: QueueKey, expected: QueueOffset, found: QueueOffset },
    /// An index that the job starts from cannot be opened.
    #[error("{file}: {error}")]
    Index { file: String, segment: LogOffset, error: IndexError },
    /// A page of such an index is damaged.
    #[error("{file}: {fault}")]
    IndexPage { file: String, fault: IndexFault },
    /// The snapshot that the job starts from is none.
    #[error("{file}: {error}")]
    Snapshot { file: String, at: LogOffset, error: SnapshotError },
    /// A node's state in its group, as it is on the disk or shall be, is none.
    #[error("{file}: {error}")]
    GroupState { file: String, error: GroupStateError },
    /// A checkpoint cannot be what a log begins anew behind.
    #[error("{file}: {error}")]
    Checkpoint { file: String, error: CheckpointError },
    /// The layer above does not understand what it once wrote.
    #[error("{file} at {position}: {message}")]
    State { file: String, position: u64, message: String },
}

impl JobError {
    /// The file that the job starts from and cannot use.
    pub(crate) fn unusable(&self) -> Option<LogFile> {
        match self {
            JobError::Index { segment, .. } => Some(LogFile::Index(*segment)),
            JobError::IndexPage { fault, .. } => fault.damaged().map(LogFile::Index),
            // That may pass, or is the one to be written.
            JobError::Snapshot {
                error: SnapshotError::Io { .. } | SnapshotError::TooLarge { .. }, ..
            } => None,
            JobError::Snapshot { at, .. } => Some(LogFile::Snapshot(*at)),
            JobError::Io { .. }
            | JobError::Batch { .. }
            | JobError::Unexpected { .. }
            | JobError::QueueOffset { .. }
            | JobError::GroupState { .. }
            | JobError::Checkpoint { .. }
            | JobError::State { .. } => None,
        }
    }

    pub(crate) fn io<S: LogSource + ?Sized>(
        source: &S,
        file: LogFile,
        action: &'static str,
        position: u64,
        error: &io::Error,
    ) -> JobError {
        let (file, os_code) = (source.name(file), error.raw_os_error());
        JobError::Io { file, action, position, os_code, message: error.to_string() }
    }
}
