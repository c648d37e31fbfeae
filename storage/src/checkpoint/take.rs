//! The leader's side: where the queues stand at the start of its log, and its newest snapshot.

use super::file::CheckpointError;
use super::job::{Checkpoint, CheckpointJob, CheckpointSnapshot};
use crate::job_error::JobError;
use crate::sealed::{Access, open_index};
use crate::snapshot::{SnapshotError, read_snapshot};
use crate::source::{LogFile, LogSource};

/// Reads what a node needs that begins anew behind a log's start. Changes nothing. If the oldest segment leaves meanwhile, the
/// checkpoint is that of the start before, or an error; then it is to be taken again.
pub fn take_checkpoint<S: LogSource + ?Sized>(
    source: &S,
    job: &CheckpointJob,
) -> Result<Checkpoint, JobError> {
    let start = job.start;
    let (mut last_store_time_ms, mut queue_ends) = (i64::MIN, Vec::new());
    if start.base_offset.0 == 0 {
        return Ok(Checkpoint { start, last_store_time_ms, queue_ends, snapshot: None });
    }
    let Some(base) = job.boundary else {
        return Err(failed(source, CheckpointError::NoBoundary { index: start.index }));
    };
    let boundary = open_index(source, base)?;
    let (file, summary) = (LogFile::Index(base), boundary.summary());
    let rules = [
        ("group", job.group.0, summary.group.0),
        ("segment end", start.base_offset.0, summary.segment.end().0),
        ("last_index", start.index.0, summary.last_index.0),
        ("last_term", start.term.0, summary.last_term.0),
    ];
    for (field, expected, found) in rules {
        if expected != found {
            let file = source.name(file);
            return Err(JobError::Unexpected { file, position: 0, field, expected, found });
        }
    }
    for row in boundary.view(Access::Blocking).rows() {
        let (queue, span) = row.map_err(|fault| JobError::IndexPage { file: source.name(file), fault })?;
        queue_ends.push((queue, span.end()));
    }
    last_store_time_ms = last_store_time_ms.max(summary.last_time_ms);
    let snapshot = Some(newest_snapshot(source, job)?);
    Ok(Checkpoint { start, last_store_time_ms, queue_ends, snapshot })
}

/// The newest snapshot that is whole.
fn newest_snapshot<S: LogSource + ?Sized>(
    source: &S,
    job: &CheckpointJob,
) -> Result<CheckpointSnapshot, JobError> {
    let listed = source.snapshots();
    let mut listed = listed
        .map_err(|error| JobError::io(source, LogFile::Snapshot(job.start.base_offset), "list", 0, &error))?;
    listed.sort_unstable_by(|a, b| b.cmp(a));
    let mut flaw = None;
    for at in listed {
        match read_snapshot(source, job.group, at).and_then(|snapshot| snapshot.encode()) {
            Ok(file) => return Ok(CheckpointSnapshot { at, file }),
            Err(error @ SnapshotError::Io { .. }) => {
                return Err(JobError::Snapshot { file: source.name(LogFile::Snapshot(at)), at, error });
            }
            Err(error) => {
                let file = source.name(LogFile::Snapshot(at));
                flaw = flaw.or(Some(JobError::Snapshot { file, at, error }));
            }
        }
    }
    Err(flaw.unwrap_or_else(|| failed(source, CheckpointError::NoSnapshot { index: job.start.index })))
}

fn failed<S: LogSource + ?Sized>(source: &S, error: CheckpointError) -> JobError {
    JobError::Checkpoint { file: source.name(LogFile::Checkpoint), error }
}
