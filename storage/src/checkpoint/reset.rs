//! Beginning a log anew, so that a crash at any point leaves the old log or the new one.
//!
//! ```text
//! 1  write the checkpoint, which names the number that the node's state gets next
//! 2  save the node's state, under that number, with the new start      from here on the log is the new one
//! 3  remove all snapshots, indexes and segments
//! 4  make of the checkpoint the index in front of the log, and the snapshot
//! 5  remove the checkpoint
//! ```
//!
//! What an opening finds, and what it does:
//!
//! ```text
//! checkpoint                              decision
//! --------------------------------------  -----------------------------------------------------------------
//! none                                    nothing was interrupted
//! whole, of a state that was saved        steps 3 to 5, from the beginning of 3
//! whole, of a state that was not          remove it: the log is the old one
//! damaged                                 error: it was written whole
//! ```
//!
//! The index in front of the log is that of an imaginary segment of one block, which holds the batch that the log begins
//! behind: all that is asked of it is where the queues stood, and which batch the first one follows.

use std::sync::Arc;

use super::file::CheckpointError;
use super::job::{Checkpoint, CheckpointSnapshot, ResetDone, ResetJob};
use crate::disk::SegmentInfo;
use crate::format::BLOCK_LEN;
use crate::group_state::{GroupState, next_seq, save_as};
use crate::job_error::JobError;
use crate::sealed::{IndexSummary, SealedIndex, empty_index, open_index};
use crate::snapshot::DerivedState;
use crate::source::{LogFile, LogSource};
use crate::types::{GroupId, LogOffset};

/// A log that is about to begin anew: the checkpoint is on the disk, and nothing of the log has changed.
pub struct Reset {
    job: ResetJob,
    derived: Box<dyn DerivedState + Send>,
    /// Number and slot that the node's state gets.
    seq: u64,
    slot: u32,
}

impl Reset {
    /// Step 1. `derived` is the state of an empty log. After an error it may be begun again.
    pub fn begin<S: LogSource + ?Sized>(
        source: &S,
        mut job: ResetJob,
        mut derived: Box<dyn DerivedState + Send>,
    ) -> Result<Reset, JobError> {
        let ResetJob { state, checkpoint, .. } = &mut job;
        // Before anything is lost: whether the layer above understands what it is given.
        let snapshot = checkpoint.check(state.group).map_err(|error| failed(source, error))?;
        if let Some(snapshot) = &snapshot {
            let (file, position) = (source.name(LogFile::Checkpoint), 0);
            derived.restore(&snapshot.body).map_err(|message| JobError::State { file, position, message })?;
        }
        drop(snapshot);
        state.log_start = checkpoint.start;
        state.checkpoint_at = place_of_snapshot(checkpoint);
        state.commit = checkpoint.start.index;

        let (seq, slot) = next_seq(source)?;
        let written = source.write_checkpoint(&checkpoint.encode(state.group, seq));
        written.map_err(|error| JobError::io(source, LogFile::Checkpoint, "write", 0, &error))?;
        Ok(Reset { job, derived, seq, slot })
    }

    /// Steps 2 to 5. Nothing of the log may be on its way, and no file of a segment may be open for writing. After an error the
    /// shard is to be opened anew, which ends what was begun or undoes it.
    pub fn finish<S: LogSource + ?Sized>(self, source: &S) -> Result<ResetDone, JobError> {
        let Reset { job: ResetJob { state, checkpoint, .. }, derived, seq, slot } = self;
        save_as(source, &state, seq, slot)?;
        let boundary = begin_anew(source, state.group, &checkpoint)?;
        Ok(ResetDone {
            state,
            last_store_time_ms: checkpoint.last_store_time_ms,
            queue_ends: checkpoint.queue_ends,
            boundary,
            snapshot: checkpoint.snapshot.map(|snapshot| snapshot.at),
            derived,
        })
    }
}

/// What became of a reset that was not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// The log is the new one.
    Ended,
    /// The log is the old one.
    Undone,
}

/// What an opening will make of a reset that a crash interrupted, if there is one. `saved` is the node's newest state and its
/// number.
pub(crate) fn interrupted_reset<S: LogSource + ?Sized>(
    source: &S,
    group: GroupId,
    saved: Option<(&GroupState, u64)>,
) -> Result<Option<Interrupted>, JobError> {
    let found = find_interrupted(source, group, saved)?;
    Ok(found.map(|checkpoint| if checkpoint.is_some() { Interrupted::Ended } else { Interrupted::Undone }))
}

/// Ends or undoes it.
pub(crate) fn end_interrupted_reset<S: LogSource + ?Sized>(
    source: &S,
    group: GroupId,
    saved: Option<(&GroupState, u64)>,
) -> Result<Option<Interrupted>, JobError> {
    match find_interrupted(source, group, saved)? {
        None => Ok(None),
        Some(Some(checkpoint)) => {
            begin_anew(source, group, &checkpoint)?;
            Ok(Some(Interrupted::Ended))
        }
        Some(None) => {
            remove_checkpoint(source)?;
            Ok(Some(Interrupted::Undone))
        }
    }
}

/// A checkpoint that the log is to begin behind, if there is one; without it where one was never begun behind.
fn find_interrupted<S: LogSource + ?Sized>(
    source: &S,
    group: GroupId,
    saved: Option<(&GroupState, u64)>,
) -> Result<Option<Option<Checkpoint>>, JobError> {
    let bytes = source.read_checkpoint();
    let bytes = bytes.map_err(|error| JobError::io(source, LogFile::Checkpoint, "read", 0, &error))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let decoded = Checkpoint::decode(group, &bytes);
    let (seq, checkpoint) = decoded.map_err(|error| failed(source, error))?;
    let is_begun = saved.is_some_and(|(state, saved_as)| {
        saved_as >= seq
            && state.log_start == checkpoint.start
            && state.checkpoint_at == place_of_snapshot(&checkpoint)
    });
    Ok(Some(is_begun.then_some(checkpoint)))
}

fn place_of_snapshot(checkpoint: &Checkpoint) -> LogOffset {
    checkpoint.snapshot.as_ref().map_or(LogOffset(0), |snapshot| snapshot.at)
}

/// Steps 3 to 5. May be done again from the beginning as long as it has not come to its end.
fn begin_anew<S: LogSource + ?Sized>(
    source: &S,
    group: GroupId,
    checkpoint: &Checkpoint,
) -> Result<Option<Arc<SealedIndex>>, JobError> {
    let failed = |file, action, error| JobError::io(source, file, action, 0, &error);
    for at in
        source.snapshots().map_err(|error| failed(LogFile::Checkpoint, "list snapshots beside", error))?
    {
        let file = LogFile::Snapshot(at);
        source.remove_snapshot(at).map_err(|error| failed(file, "remove", error))?;
    }
    for base in source.indexes().map_err(|error| failed(LogFile::Checkpoint, "list indexes for", error))? {
        let file = LogFile::Index(base);
        source.remove_index(base).map_err(|error| failed(file, "remove", error))?;
    }
    for segment in
        source.segments().map_err(|error| failed(LogFile::Checkpoint, "list segments for", error))?
    {
        let file = LogFile::Segment(segment.base);
        source.remove_segment(segment.base).map_err(|error| failed(file, "remove", error))?;
    }
    let boundary = write_boundary(source, group, checkpoint)?;
    if let Some(CheckpointSnapshot { at, file: bytes }) = &checkpoint.snapshot {
        let file = LogFile::Snapshot(*at);
        source.write_snapshot(*at, bytes).map_err(|error| failed(file, "write", error))?;
    }
    remove_checkpoint(source)?;
    Ok(boundary)
}

fn write_boundary<S: LogSource + ?Sized>(
    source: &S,
    group: GroupId,
    checkpoint: &Checkpoint,
) -> Result<Option<Arc<SealedIndex>>, JobError> {
    let start = checkpoint.start;
    if start.base_offset.0 == 0 {
        return Ok(None);
    }
    let bytes = BLOCK_LEN as u64;
    let base = LogOffset(start.base_offset.0 - bytes);
    let summary = IndexSummary {
        group,
        segment: SegmentInfo { base, bytes },
        end: start.base_offset,
        first_index: start.index,
        last_index: start.index,
        prev_term: start.term,
        last_term: start.term,
        first_time_ms: checkpoint.last_store_time_ms,
        last_time_ms: checkpoint.last_store_time_ms,
        queues: checkpoint.queue_ends.len() as u32,
        entries: 0,
        keys: 0,
        batches: 1,
    };
    let written = source.write_index(base, &empty_index(summary, &checkpoint.queue_ends));
    written.map_err(|error| JobError::io(source, LogFile::Index(base), "write", 0, &error))?;
    open_index(source, base).map(|index| Some(Arc::new(index)))
}

fn remove_checkpoint<S: LogSource + ?Sized>(source: &S) -> Result<(), JobError> {
    let removed = source.remove_checkpoint();
    removed.map_err(|error| JobError::io(source, LogFile::Checkpoint, "remove", 0, &error))
}

fn failed<S: LogSource + ?Sized>(source: &S, error: CheckpointError) -> JobError {
    JobError::Checkpoint { file: source.name(LogFile::Checkpoint), error }
}
