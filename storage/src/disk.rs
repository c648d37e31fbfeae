//! What the log asks of a disk, and what a disk answers. The log decides; `driver` and `sim` act.

use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::checkpoint::{Checkpoint, CheckpointJob, ResetDone, ResetJob};
use crate::group_state::GroupState;
use crate::job_error::JobError;
use crate::sealed::{IndexFault, SealJob, SealedIndex};
use crate::snapshot::{RebuildJob, Rebuilt, SnapshotError, SnapshotJob};
use crate::source::LogFile;
use crate::types::{BatchIndex, LogOffset, QueueKey, QueueOffset};

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
    /// Write a block of zeros where a batch may stand that another one replaced in another place. Answered as a `Write` is.
    Erase { id: OpId, segment: LogOffset, position: u64 },
    /// Make durable all that was written to these segments by writes already completed.
    Sync { id: OpId, segments: SmallVec<[LogOffset; 2]> },
    /// Make a new segment, durable under its name when answered: of the file of the expired segment that begins at
    /// `recycle`, whose bytes then lie there, or of zeros. Leaves `reserve_bytes` of the file system free. In the
    /// background, as all that follows.
    Prepare { segment: SegmentInfo, recycle: Option<LogOffset>, reserve_bytes: u64 },
    /// Write the index of a segment that takes no more batches, durable under its name when answered.
    Seal(SealJob),
    /// Write a snapshot of derived state, durable under its name when answered.
    Snapshot(SnapshotJob),
    /// Read from an index where its queues end.
    ReadEnds(Arc<SealedIndex>),
    /// Remove the file of a segment that left the log, if it is there, and the index files of those before it.
    Remove { segment: LogOffset },
    /// Make the state of the group's node durable. At most one of these and of `Reset` is on its way at a time.
    SaveGroupState { id: OpId, state: Box<GroupState> },
    /// Begin the log anew behind a checkpoint of the leader. Nothing else of the log is on its way, and no write
    /// is asked for before the answer.
    Reset(Box<ResetJob>),
    /// Read what a node needs that begins anew behind this log's start.
    TakeCheckpoint(CheckpointJob),
    /// Make the derived state as of a place anew, from the newest snapshot and the control records behind it.
    Rebuild(RebuildJob),
}

/// The answer to one [`DiskOp`].
#[derive(Debug)]
pub enum Completion {
    Written {
        id: OpId,
        result: Result<(), DiskError>,
    },
    Synced {
        id: OpId,
        result: Result<(), DiskError>,
    },
    Prepared {
        base: LogOffset,
        result: Result<(), DiskError>,
    },
    Sealed {
        base: LogOffset,
        result: Result<Arc<SealedIndex>, DiskError>,
    },
    Snapshot {
        at: LogOffset,
        result: Result<(), DiskError>,
    },
    /// One past the last record of each queue that has one in the segment.
    Ends {
        base: LogOffset,
        result: Result<Vec<(QueueKey, QueueOffset)>, DiskError>,
    },
    Removed {
        base: LogOffset,
        result: Result<(), DiskError>,
    },
    /// After a failure either state may be what the next opening finds, and nothing must follow from the new one.
    GroupStateSaved {
        id: OpId,
        result: Result<(), DiskError>,
    },
    /// After a failure the log is the old one, or the next opening ends what was begun: the shard is to be opened anew.
    ResetDone {
        id: OpId,
        result: Result<Box<ResetDone>, DiskError>,
    },
    CheckpointTaken {
        id: OpId,
        result: Result<Box<Checkpoint>, DiskError>,
    },
    Rebuilt {
        id: OpId,
        result: Result<Rebuilt, DiskError>,
    },
}

/// Bytes of the file system that holds the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub free_bytes: u64,
    pub total_bytes: u64,
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
    #[error("{action}: {message}{}", meaning(*os_code))]
    Io { action: String, os_code: Option<i32>, message: String },
    /// There was no room for the first step, so that nothing has changed: it may be asked for again.
    #[error("{action}: {message}; nothing has changed")]
    NotBegun { action: String, message: String },
    /// A file that the operation starts from cannot be used. That does not pass by itself.
    #[error("{action}: {message}")]
    Unusable { action: String, file: LogFile, message: String },
}

/// What a system error that an operator can do something about means for the log.
fn meaning(os_code: Option<i32>) -> &'static str {
    match os_code {
        Some(libc::ENOSPC) => "; the file system is full: free some space, or keep less",
        Some(libc::EDQUOT) => "; the quota is used up: raise it, or keep less",
        Some(libc::EIO) => "; the device failed: the kernel's log says more",
        Some(libc::EROFS) => {
            "; the file system is read-only: if it was not mounted so, it failed, and the kernel's log says why"
        }
        _ => "",
    }
}

impl DiskError {
    /// Keeps what a system error says, in a form that can be copied into each refusal.
    pub fn io(action: impl Into<String>, error: &std::io::Error) -> DiskError {
        DiskError::Io { action: action.into(), os_code: error.raw_os_error(), message: error.to_string() }
    }

    /// A job of the blocking pool failed.
    pub fn job(action: impl Into<String>, error: &JobError) -> DiskError {
        let (action, message) = (action.into(), error.to_string());
        if let Some(file) = error.unusable() {
            return DiskError::Unusable { action, file, message };
        }
        let os_code = match error {
            JobError::Io { os_code, .. }
            | JobError::Snapshot { error: SnapshotError::Io { os_code, .. }, .. } => *os_code,
            _ => None,
        };
        DiskError::Io { action, os_code, message }
    }

    /// The error of an operation's first step, before which nothing has changed.
    #[must_use]
    pub fn not_begun(self) -> DiskError {
        match self {
            DiskError::Io { action, message, os_code: Some(libc::ENOSPC | libc::EDQUOT) } => {
                DiskError::NotBegun { action, message }
            }
            other => other,
        }
    }

    /// An index did not answer.
    pub fn fault(action: impl Into<String>, fault: &IndexFault) -> DiskError {
        let (action, message) = (action.into(), fault.to_string());
        match fault.damaged() {
            Some(segment) => DiskError::Unusable { action, file: LogFile::Index(segment), message },
            None => DiskError::Io { action, os_code: None, message },
        }
    }

    /// There was no room, by our reserve or by the file system's own word.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            DiskError::NoSpace { .. } | DiskError::NotBegun { .. } => true,
            DiskError::Io { os_code, .. } => matches!(*os_code, Some(libc::ENOSPC | libc::EDQUOT)),
            DiskError::Unusable { .. } => false,
        }
    }

    /// The file that has to be replaced before the operation can succeed.
    #[must_use]
    pub fn unusable(&self) -> Option<LogFile> {
        match self {
            DiskError::Unusable { file, .. } => Some(*file),
            DiskError::NoSpace { .. } | DiskError::Io { .. } | DiskError::NotBegun { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn errors_say_what_failed_where_and_what_it_means() {
        let text =
            |code| DiskError::io("sync segment 7 in /log", &io::Error::from_raw_os_error(code)).to_string();
        let table = [
            (libc::ENOSPC, "No space left on device", "the file system is full"),
            (libc::EDQUOT, "quota exceeded", "the quota is used up"),
            (libc::EIO, "Input/output error", "the device failed"),
            (libc::EROFS, "Read-only file system", "the file system is read-only"),
        ];
        for (code, what, means) in table {
            let text = text(code);
            assert!(text.starts_with("sync segment 7 in /log: "), "{text}");
            assert!(text.contains(what) && text.contains(means), "{text}");
        }
        assert!(text(libc::ENOENT).ends_with(&format!("(os error {})", libc::ENOENT)));
    }
}
