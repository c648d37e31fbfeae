//! What is in a log, listed.

use std::collections::VecDeque;

use super::problem::{Problem, Wrong};
use super::walk::{Seen, Step, Walk};
use crate::format::{BatchError, BatchHeader, RawBatch};
use crate::source::{LogFile, LogSource};
use crate::types::{BatchIndex, GroupId, LogOffset, QueueKey, QueueOffset};

/// A batch as it stands in the log.
#[derive(Clone, Debug)]
pub struct BatchInfo {
    /// Name of the segment file.
    pub file: String,
    /// Byte in the file.
    pub position: u64,
    pub header: BatchHeader,
    /// Why the rest of it is not what was written, if it is not.
    pub damage: Option<BatchError>,
}

/// A record as its batch describes it, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordInfo {
    /// Of the batch it is in.
    pub batch: BatchIndex,
    pub queue: QueueKey,
    pub queue_offset: QueueOffset,
    pub log_offset: LogOffset,
    pub store_time_ms: i64,
    pub tag_hash: i32,
    pub key_hashes: Vec<u32>,
    pub bytes: Vec<u8>,
}

/// The batches of a log, from the one on that holds `from` or is the first behind it. Problems come where they are met. As
/// with [`verify`](super::verify), the log may be in use.
pub fn batches<'a, S: LogSource + ?Sized>(
    source: &'a S,
    group: Option<GroupId>,
    from: LogOffset,
) -> impl Iterator<Item = Result<BatchInfo, Problem>> + use<'a, S> {
    listed(source, group, from, |seen, out| {
        let (file, position) = (source.name(LogFile::Segment(seen.segment.base)), seen.position);
        out.push_back(Ok(BatchInfo { file, position, header: seen.header, damage: seen.damage.clone() }));
    })
}

/// The records of a log from `from` on, or those of one queue. Those of a damaged batch are not given, but a problem is.
pub fn records<'a, S: LogSource + ?Sized>(
    source: &'a S,
    group: Option<GroupId>,
    from: LogOffset,
    queue: Option<QueueKey>,
) -> impl Iterator<Item = Result<RecordInfo, Problem>> + use<'a, S> {
    listed(source, group, from, move |seen, out| match RawBatch(seen.bytes).verify() {
        Ok(batch) => {
            let wanted = batch
                .entries()
                .filter(|entry| entry.log_offset >= from && queue.is_none_or(|queue| queue == entry.queue));
            out.extend(wanted.map(|entry| {
                Ok(RecordInfo {
                    batch: seen.header.index(),
                    queue: entry.queue,
                    queue_offset: entry.queue_offset,
                    log_offset: entry.log_offset,
                    store_time_ms: entry.store_time_ms,
                    tag_hash: entry.tag_hash,
                    key_hashes: entry.key_hashes.iter().map(|hash| hash.get()).collect(),
                    bytes: entry.record.to_vec(),
                })
            }));
        }
        Err(error) => {
            let wrong = Wrong::Damaged { index: seen.header.index(), error };
            let file = LogFile::Segment(seen.segment.base);
            out.push_back(Err(Problem::new(source, file, seen.position, wrong)));
        }
    })
}

/// What `list` makes of each batch that reaches beyond `from`.
fn listed<'a, S: LogSource + ?Sized, T: 'a>(
    source: &'a S,
    group: Option<GroupId>,
    from: LogOffset,
    list: impl Fn(&Seen<'_>, &mut VecDeque<Result<T, Problem>>) + 'a,
) -> impl Iterator<Item = Result<T, Problem>> + 'a {
    let mut out = VecDeque::new();
    let mut walk = match Walk::start(source, group, from) {
        Ok(walk) => Some(walk),
        Err(problem) => {
            out.push_back(Err(problem));
            None
        }
    };
    std::iter::from_fn(move || {
        while out.is_empty() {
            match walk.as_mut()?.next()? {
                Step::Problem(_, problem) => out.push_back(Err(problem)),
                Step::Left => {}
                Step::Batch(seen) => {
                    let end = seen.header.base_offset().plus(seen.header.batch_len() as u64);
                    if end > from {
                        list(&seen, &mut out);
                    }
                }
            }
        }
        out.pop_front()
    })
}
