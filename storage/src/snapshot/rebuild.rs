//! The job that makes derived state anew while the log runs: a leader that steps down forgets what was never committed.

use std::sync::Arc;

use super::file::{SnapshotError, read_snapshot};
use super::state::DerivedState;
use super::take::apply_segment;
use crate::disk::OpId;
use crate::format::RawBatch;
use crate::job_error::JobError;
use crate::sealed::{SealJob, SealedIndex, Walk};
use crate::source::{LogFile, LogSource};
use crate::types::{GroupId, LogOffset, QueueKey};

/// Made by [`CommitLog::rebuild_job`](crate::CommitLog::rebuild_job).
#[derive(Clone, Debug)]
pub struct RebuildJob {
    pub id: OpId,
    pub group: GroupId,
    /// Those there are, ascending. Without any the log begins with its very first batch.
    pub snapshots: Vec<LogOffset>,
    /// All sealed segments behind the first snapshot, oldest first.
    pub sealed: Vec<Arc<SealedIndex>>,
    /// The segments behind, as they would be sealed with the last batch that is committed and durable.
    pub tail: Vec<SealJob>,
    /// One past that batch.
    pub at: LogOffset,
}

/// Derived state that was made anew.
#[derive(Debug)]
pub struct Rebuilt {
    /// Up to here control records are in it: the end of what was committed and durable when it was asked for, or the place
    /// of a snapshot that lies behind.
    pub at: LogOffset,
    pub state: Box<dyn DerivedState + Send>,
}

/// Makes derived state anew: from the newest snapshot that can be used, and the control records behind it. `state` is that of
/// an empty log. Changes nothing. Reads headers and directories of the segments that are not sealed yet.
pub fn rebuild_state<S: LogSource + ?Sized>(
    source: &S,
    job: &RebuildJob,
    mut state: Box<dyn DerivedState + Send>,
) -> Result<Rebuilt, JobError> {
    let from = restore_newest(source, job, &mut *state)?;
    for segment in job.sealed.iter().filter(|segment| segment.summary().end > from) {
        apply_segment(source, segment, &mut *state)?;
    }
    for segment in job.tail.iter().filter(|segment| segment.end > from) {
        apply_tail(source, segment, from, &mut *state)?;
    }
    Ok(Rebuilt { at: job.at.max(from), state })
}

/// Restores the newest snapshot that is whole and understood; returns its place.
fn restore_newest<S: LogSource + ?Sized>(
    source: &S,
    job: &RebuildJob,
    state: &mut dyn DerivedState,
) -> Result<LogOffset, JobError> {
    let mut flaw = None;
    for at in job.snapshots.iter().rev().copied() {
        let file = source.name(LogFile::Snapshot(at));
        let error = match read_snapshot(source, job.group, at) {
            Ok(snapshot) => match state.restore(&snapshot.body) {
                Ok(()) => return Ok(at),
                Err(message) => JobError::State { file, position: 0, message },
            },
            Err(error @ SnapshotError::Io { .. }) => return Err(JobError::Snapshot { file, at, error }),
            Err(error) => JobError::Snapshot { file, at, error },
        };
        flaw.get_or_insert(error);
    }
    flaw.map_or(Ok(LogOffset(0)), Err)
}

/// Applies the control records of a segment that has no index yet.
fn apply_tail<S: LogSource + ?Sized>(
    source: &S,
    segment: &SealJob,
    from: LogOffset,
    state: &mut dyn DerivedState,
) -> Result<(), JobError> {
    let file = LogFile::Segment(segment.segment.base);
    let mut walk = Walk::new(source, segment);
    let mut bytes = Vec::new();
    while let Some((position, directory)) = walk.next()? {
        let is_new = |queue, at| queue == QueueKey::CONTROL && at >= from;
        if !directory.entries().any(|record| is_new(record.queue, record.log_offset)) {
            continue;
        }
        bytes.resize(directory.header().batch_len(), 0);
        let read = source.read_at(segment.segment.base, position, &mut bytes);
        read.map_err(|error| JobError::io(source, file, "read", position, &error))?;
        let batch = RawBatch(&bytes).verify();
        let batch = batch.map_err(|error| JobError::Batch { file: source.name(file), position, error })?;
        for record in batch.entries().filter(|record| is_new(record.queue, record.log_offset)) {
            let applied = state.apply(record.log_offset, record.record);
            applied.map_err(|message| JobError::State { file: source.name(file), position, message })?;
        }
    }
    walk.finish().map(drop)
}
