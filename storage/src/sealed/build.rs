//! The job that seals a segment: its batches' directories and the index of the segment before become an index file.

use std::sync::Arc;

use super::collect::{Collected, Wrong};
use super::error::IndexFault;
use super::reader::{IndexSummary, SealedIndex};
use super::view::Access;
use super::walk::Walk;
use crate::disk::SegmentInfo;
use crate::job_error::JobError;
use crate::source::{LogFile, LogSource};
use crate::types::{BatchIndex, GroupId, LogOffset, QueueKey, QueueOffset, Term};

/// What a segment's index is made from besides the segment itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealJob {
    pub group: GroupId,
    pub segment: SegmentInfo,
    /// Log offset one past the segment's last batch; it has one at least.
    pub end: LogOffset,
    /// Of the segment's first batch.
    pub first_index: BatchIndex,
    /// Term of the batch before it.
    pub prev_term: Term,
    /// Term of the segment's last batch. The batches in front of it are known for what they are by those behind them; in its
    /// place an earlier life of the log may have left one that fits as well, should the disk have lost the write.
    pub last_term: Term,
    /// Base of the segment before, whose index says where the queues stood; nothing if the log begins with this
    /// segment, hence with empty queues.
    pub previous: Option<LogOffset>,
}

impl SealJob {
    /// The job that makes an index anew whose header is good; all indexes taken are of the log's own group.
    pub(crate) fn again(index: &IndexSummary, previous: Option<LogOffset>) -> SealJob {
        SealJob {
            group: index.group,
            segment: index.segment,
            end: index.end,
            first_index: index.first_index,
            prev_term: index.prev_term,
            last_term: index.last_term,
            previous,
        }
    }
}

/// Makes the index of a segment, writes its file and opens it. Everything of the segment up to `end` must be durable and
/// committed. Reads headers and directories only, so damaged records are not found here.
///
/// Takes memory for the time of the job: 36 bytes for each record, 16 for each key hash, some 100 for each queue the
/// log knows: 52 MB for a segment of a million records with a key each, in few queues. After an error nothing has changed.
pub fn seal_segment<S: LogSource + ?Sized>(source: &S, job: &SealJob) -> Result<Arc<SealedIndex>, JobError> {
    let file = LogFile::Index(job.segment.base);
    let bytes = build_index(source, job)?;
    let written = source.write_index(job.segment.base, &bytes);
    written.map_err(|error| JobError::io(source, file, "write", 0, &error))?;
    drop(bytes);
    open_index(source, job.segment.base).map(Arc::new)
}

/// The bytes of the index that the job describes; the same for the same segment, whoever makes it.
pub fn build_index<S: LogSource + ?Sized>(source: &S, job: &SealJob) -> Result<Vec<u8>, JobError> {
    let previous = job.previous.map(|base| open_index(source, base)).transpose()?;
    build_index_behind(source, job, previous.as_ref())
}

/// Likewise, with the index of the segment before in hand.
pub(crate) fn build_index_behind<S: LogSource + ?Sized>(
    source: &S,
    job: &SealJob,
    previous: Option<&SealedIndex>,
) -> Result<Vec<u8>, JobError> {
    assert!(job.end > job.segment.base, "a segment without batches is not sealed: {job:?}");
    let mut collected = match previous {
        Some(previous) => go_on_from(source, job, previous)?,
        None => Collected::new(i64::MIN),
    };
    let mut walk = Walk::new(source, job);
    while let Some((position, directory)) = walk.next()? {
        let failed = |wrong| refuse(source, job, position, wrong);
        collected.add_batch(position, directory.header()).map_err(failed)?;
        for record in directory.entries() {
            collected.add_record(position, &record).map_err(failed)?;
        }
    }
    let last_index = walk.finish()?;
    Ok(collected.finish(job, last_index))
}

/// Begins where the index of the segment before says that the queues stood.
fn go_on_from<S: LogSource + ?Sized>(
    source: &S,
    job: &SealJob,
    index: &SealedIndex,
) -> Result<Collected, JobError> {
    let summary = index.summary();
    let file = LogFile::Index(summary.segment.base);
    let rules = [
        ("group", job.group.0, summary.group.0),
        ("segment end", job.segment.base.0, summary.segment.end().0),
        ("last_index", job.first_index.0 - 1, summary.last_index.0),
        ("last_term", job.prev_term.0, summary.last_term.0),
    ];
    for (field, expected, found) in rules {
        if expected != found {
            let file = source.name(file);
            return Err(JobError::Unexpected { file, position: 0, field, expected, found });
        }
    }
    let mut collected = Collected::new(summary.last_time_ms);
    for row in index.view(Access::Blocking).rows() {
        let row = row.map_err(|fault| JobError::IndexPage { file: source.name(file), fault });
        let (queue, span) = row?;
        collected.add_queue(queue, span);
    }
    Ok(collected)
}

fn refuse<S: LogSource + ?Sized>(source: &S, job: &SealJob, position: u64, wrong: Wrong) -> JobError {
    let file = source.name(LogFile::Segment(job.segment.base));
    match wrong {
        Wrong::Time { expected, found } => {
            let (expected, found) = (expected as u64, found as u64);
            JobError::Unexpected { file, position, field: "store_time", expected, found }
        }
        Wrong::QueueOffset { queue, expected, found } => {
            JobError::QueueOffset { file, position, queue, expected, found }
        }
    }
}

/// Opens the index file of a segment.
pub fn open_index<S: LogSource + ?Sized>(source: &S, base: LogOffset) -> Result<SealedIndex, JobError> {
    let file = LogFile::Index(base);
    let bytes = source.map_index(base).map_err(|error| JobError::io(source, file, "map", 0, &error))?;
    SealedIndex::open(bytes).map_err(|error| JobError::Index {
        file: source.name(file),
        segment: base,
        error,
    })
}

/// Where the queues with records in a segment stand at its end, by ascending number. Reads from disk what is not in memory.
pub fn read_ends(index: &SealedIndex) -> Result<Vec<(QueueKey, QueueOffset)>, IndexFault> {
    let rows = index.view(Access::Blocking).rows();
    let used = rows.filter(|row| !row.as_ref().is_ok_and(|(_, span)| span.count == 0));
    used.map(|row| row.map(|(queue, span)| (queue, span.end()))).collect()
}
