//! Beginning a log anew: what a leader gives of what came before its log's start, and what a node makes of it.

use std::sync::Arc;

use crate::disk::OpId;
use crate::group_state::GroupState;
use crate::job_error::JobError;
use crate::sealed::SealedIndex;
use crate::snapshot::DerivedState;
use crate::source::LogSource;
use crate::types::{GroupId, LogOffset, LogStart, QueueKey, QueueOffset};

/// What a log that begins behind a place has to know of what came before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub start: LogStart,
    /// Of the batch in front of the start.
    pub last_store_time_ms: i64,
    /// Where each queue stands at the start, by ascending number.
    pub queue_ends: Vec<(QueueKey, QueueOffset)>,
    /// Derived state at the start or behind it; none if no control record comes before the start.
    pub snapshot: Option<CheckpointSnapshot>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointSnapshot {
    pub at: LogOffset,
    /// Of the whole snapshot file.
    pub file: Vec<u8>,
}

/// Reads a checkpoint of a log.
#[derive(Clone, Debug)]
pub struct CheckpointJob {
    pub id: OpId,
    pub group: GroupId,
    pub start: LogStart,
    /// The index of the segment in front of the log, if it does not begin at 0.
    pub boundary: Option<LogOffset>,
}

#[derive(Clone, Debug)]
pub struct ResetJob {
    pub id: OpId,
    /// With the checkpoint's start, and [`checkpoint_at`](GroupState::checkpoint_at) of its snapshot.
    pub state: GroupState,
    pub checkpoint: Checkpoint,
}

/// A log that was begun anew, for [`CommitLog::reset`](crate::CommitLog).
#[derive(Debug)]
pub struct ResetDone {
    pub start: LogStart,
    pub last_store_time_ms: i64,
    pub queue_ends: Vec<(QueueKey, QueueOffset)>,
    /// The index file in front of the log, if it does not begin at 0.
    pub boundary: Option<Arc<SealedIndex>>,
    /// Place of the snapshot. Control records in front of it are in the state already.
    pub snapshot: Option<LogOffset>,
    /// As of the snapshot; that of an empty log without one.
    pub state: Box<dyn DerivedState + Send>,
}

/// Reads a checkpoint of a running log.
pub fn take_checkpoint<S: LogSource + ?Sized>(
    _source: &S,
    _job: &CheckpointJob,
) -> Result<Checkpoint, JobError> {
    todo!()
}

/// Begins a log anew.
pub fn reset_log<S: LogSource + ?Sized>(
    _source: &S,
    _job: ResetJob,
    _state: Box<dyn DerivedState + Send>,
) -> Result<ResetDone, JobError> {
    todo!()
}
