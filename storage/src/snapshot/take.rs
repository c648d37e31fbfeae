//! The job that takes a snapshot: the one before, and the control records of the segments sealed since. The running
//! shard's own state is not asked.

use std::sync::Arc;

use super::file::{Snapshot, read_snapshot};
use super::state::DerivedState;
use crate::format::RawBatch;
use crate::job_error::JobError;
use crate::sealed::{Access, IndexFault, IndexView, QueueSpan, SealedIndex};
use crate::source::{LogFile, LogSource};
use crate::types::{BatchIndex, GroupId, LogOffset, QueueKey, QueueOffset, Term};

/// Index entries looked at in one go.
const ENTRIES_AT_ONCE: u32 = 4096;

/// Batches further apart than this are read one by one: less a disk transfers in the time of one more read.
const GAP_BYTES: u64 = 64 << 10;

/// Read in one piece, at most, except that one batch always is.
const RUN_BYTES: u64 = 1 << 20;

#[derive(Clone, Debug)]
pub struct SnapshotJob {
    pub group: GroupId,
    /// The newest snapshot, if there is one.
    pub previous: Option<LogOffset>,
    /// All sealed segments behind it, oldest first; at least one. Without a previous one they begin with the log's first.
    pub segments: Vec<Arc<SealedIndex>>,
    /// The end of the last of them: one past its last batch.
    pub at: LogOffset,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotTaken {
    pub at: LogOffset,
    pub bytes: u64,
    /// Control records that were new since the snapshot before.
    pub control_records: u64,
}

/// Takes a snapshot, and removes all others but the one it is made from. A record is applied only after the checksum of its whole batch
/// held: once the segments are gone, the snapshot is the only truth.
///
/// After an error what was there before is there still, and perhaps the new snapshot, whole.
pub fn take_snapshot<S: LogSource + ?Sized>(
    source: &S,
    job: &SnapshotJob,
    mut state: Box<dyn DerivedState>,
) -> Result<SnapshotTaken, JobError> {
    let (mut index, mut term) = (BatchIndex(0), Term(0));
    if let Some(previous) = job.previous {
        let file = || source.name(LogFile::Snapshot(previous));
        let failed = |error| JobError::Snapshot { file: file(), at: previous, error };
        let snapshot = read_snapshot(source, job.group, previous).map_err(failed)?;
        let restored = state.restore(&snapshot.body);
        restored.map_err(|message| JobError::State { file: file(), position: 0, message })?;
        (index, term) = (snapshot.index, snapshot.term);
    }
    let mut control_records = 0;
    for segment in &job.segments {
        check_follows(source, job, segment, index, term)?;
        control_records += apply_segment(source, segment, &mut *state)?;
        (index, term) = (segment.summary().last_index, segment.summary().last_term);
    }
    let last = job.segments.last().map(|segment| segment.summary().end);
    assert_eq!(last, Some(job.at), "a snapshot ends with the last of its segments");

    let snapshot = Snapshot { group: job.group, at: job.at, index, term, body: state.encode() };
    let file = LogFile::Snapshot(job.at);
    let bytes = snapshot.encode();
    let bytes = bytes.map_err(|error| JobError::Snapshot { file: source.name(file), at: job.at, error })?;
    let written = source.write_snapshot(job.at, &bytes);
    written.map_err(|error| JobError::io(source, file, "write", 0, &error))?;
    remove_others(source, job)?;
    Ok(SnapshotTaken { at: job.at, bytes: bytes.len() as u64, control_records })
}

/// Whether a segment goes on where the state stands.
fn check_follows<S: LogSource + ?Sized>(
    source: &S,
    job: &SnapshotJob,
    segment: &SealedIndex,
    index: BatchIndex,
    term: Term,
) -> Result<(), JobError> {
    let summary = segment.summary();
    let rules = [
        ("group", job.group.0, summary.group.0),
        ("first_index", index.0 + 1, summary.first_index.0),
        ("prev_term", term.0, summary.prev_term.0),
    ];
    for (field, expected, found) in rules {
        if expected != found {
            let file = source.name(LogFile::Index(summary.segment.base));
            return Err(JobError::Unexpected { file, position: 0, field, expected, found });
        }
    }
    Ok(())
}

/// Applies the control records of one segment; returns how many there were.
pub(crate) fn apply_segment<S: LogSource + ?Sized>(
    source: &S,
    segment: &SealedIndex,
    state: &mut dyn DerivedState,
) -> Result<u64, JobError> {
    let base = segment.summary().segment.base;
    let failed = |fault| JobError::IndexPage { file: source.name(LogFile::Index(base)), fault };
    let view = segment.view(Access::Blocking);
    let Some(span) = view.queue(QueueKey::CONTROL).map_err(failed)? else { return Ok(0) };
    let mut replay = Replay { source, base, state, next: span.begin };
    let mut bytes = Vec::new();
    while replay.next < span.end() {
        let run = Run::find(base, view, span, replay.next).map_err(failed)?;
        bytes.resize(run.len as usize, 0);
        let read = source.read_at(base, run.position, &mut bytes);
        read.map_err(|error| JobError::io(source, LogFile::Segment(base), "read", run.position, &error))?;
        for (within, len) in &run.batches {
            replay.apply_batch(run.position + within, &bytes[*within as usize..][..*len as usize])?;
        }
    }
    Ok(span.count.into())
}

/// Batches with control records that are read in one piece.
struct Run {
    /// In the segment.
    position: u64,
    len: u64,
    /// First byte, in the run, and length of each.
    batches: Vec<(u64, u32)>,
}

impl Run {
    /// The batches that hold the control records from `next` on, as many as stand close to each other.
    fn find(
        base: LogOffset,
        view: IndexView<'_>,
        span: QueueSpan,
        next: QueueOffset,
    ) -> Result<Run, IndexFault> {
        let mut run = Run { position: 0, len: 0, batches: Vec::new() };
        for entry in view.entries(span, next, ENTRIES_AT_ONCE)? {
            if entry.log_offset < base.plus(run.position + run.len) {
                // One more record of the batch before.
                continue;
            }
            let covering = view.batch_covering(entry.log_offset)?;
            let (batch, len) = covering.expect("each record lies in a batch");
            let position = batch.0 - base.0;
            if run.batches.is_empty() {
                run.position = position;
            }
            let within = position - run.position;
            let grown = within + u64::from(len);
            if !run.batches.is_empty() && (within - run.len > GAP_BYTES || grown > RUN_BYTES) {
                break;
            }
            run.len = grown;
            run.batches.push((within, len));
        }
        Ok(run)
    }
}

/// Control records on their way from a segment into the state.
struct Replay<'a, S: ?Sized> {
    source: &'a S,
    base: LogOffset,
    state: &'a mut dyn DerivedState,
    /// Of the control record that comes next.
    next: QueueOffset,
}

impl<S: LogSource + ?Sized> Replay<'_, S> {
    fn apply_batch(&mut self, position: u64, bytes: &[u8]) -> Result<(), JobError> {
        let file = || self.source.name(LogFile::Segment(self.base));
        let batch = RawBatch(bytes).verify();
        let batch = batch.map_err(|error| JobError::Batch { file: file(), position, error })?;
        let (expected, found) = (self.base.0 + position, batch.header().base_offset().0);
        if found != expected {
            return Err(JobError::Unexpected {
                file: file(),
                position,
                field: "base_offset",
                expected,
                found,
            });
        }
        let before = self.next;
        for record in batch.entries().filter(|record| record.queue == QueueKey::CONTROL) {
            let (expected, found) = (self.next, record.queue_offset);
            if found != expected {
                let queue = QueueKey::CONTROL;
                return Err(JobError::QueueOffset { file: file(), position, queue, expected, found });
            }
            let applied = self.state.apply(record.log_offset, record.record);
            applied.map_err(|message| JobError::State { file: file(), position, message })?;
            self.next = self.next.next();
        }
        if self.next == before {
            let field = "control records";
            return Err(JobError::Unexpected { file: file(), position, field, expected: 1, found: 0 });
        }
        Ok(())
    }
}

/// Keeps the snapshot just taken and the one it was made from: that one is known to be good.
fn remove_others<S: LogSource + ?Sized>(source: &S, job: &SnapshotJob) -> Result<(), JobError> {
    let listed = source.snapshots();
    let listed =
        listed.map_err(|error| JobError::io(source, LogFile::Snapshot(job.at), "list", 0, &error))?;
    for at in listed.into_iter().filter(|at| *at != job.at && Some(*at) != job.previous) {
        let removed = source.remove_snapshot(at);
        removed.map_err(|error| JobError::io(source, LogFile::Snapshot(at), "remove", 0, &error))?;
    }
    Ok(())
}
