//! The job that seals a segment: its batches' directories and the index of the segment before become an index file.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::IndexFault;
use super::layout::{BatchRow, EntryRow, KeyRow, QueueRow};
use super::reader::{IndexSummary, SealedIndex};
use super::view::Access;
use super::walk::Walk;
use super::write::IndexWriter;
use crate::disk::SegmentInfo;
use crate::format::{BatchHeader, Described};
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
    /// Base of the segment before, whose index says where the queues stood; nothing if the log begins with this
    /// segment, hence with empty queues.
    pub previous: Option<LogOffset>,
}

/// Makes the index of a segment, writes its file and opens it. Everything of the segment up to `end` must be durable and
/// committed. Reads headers and directories only, so damaged records are not found here.
///
/// Takes memory for the time of the job: 36 bytes for each record, 16 for each key hash, 64 for each queue the log
/// knows; some 60 MB for a segment of a million records with a key each. After an error nothing has changed.
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
    assert!(job.end > job.segment.base, "a segment without batches is not sealed: {job:?}");
    let mut collected = Collected::default();
    if let Some(previous) = job.previous {
        collected.start_from(source, job, previous)?;
    }
    let mut walk = Walk::new(source, job);
    while let Some((position, directory)) = walk.next()? {
        let failed = |wrong| Wrong::into_error(wrong, source, job, position);
        collected.add_batch(position, directory.header()).map_err(failed)?;
        for record in directory.entries() {
            collected.add_record(position, &record).map_err(failed)?;
        }
    }
    let (last_index, last_term) = (walk.last_index, walk.last_term);
    Ok(collected.finish(job, last_index, last_term))
}

/// Opens the index file of a segment.
pub fn open_index<S: LogSource + ?Sized>(source: &S, base: LogOffset) -> Result<SealedIndex, JobError> {
    let file = LogFile::Index(base);
    let bytes = source.map_index(base).map_err(|error| JobError::io(source, file, "map", 0, &error))?;
    SealedIndex::open(bytes).map_err(|error| JobError::Index { file: source.name(file), error })
}

/// Where the queues with records in a segment stand at its end, by ascending number. Reads from disk what is not in memory.
pub fn read_ends(index: &SealedIndex) -> Result<Vec<(QueueKey, QueueOffset)>, IndexFault> {
    let rows = index.view(Access::Blocking).rows();
    let used = rows.filter(|row| !row.as_ref().is_ok_and(|(_, span)| span.count == 0));
    used.map(|row| row.map(|(queue, span)| (queue, span.end()))).collect()
}

/// A batch that does not fit what stands before it in the segment.
enum Wrong {
    Time { expected: i64, found: i64 },
    QueueOffset { queue: QueueKey, expected: QueueOffset, found: QueueOffset },
}

impl Wrong {
    fn into_error<S: LogSource + ?Sized>(self, source: &S, job: &SealJob, position: u64) -> JobError {
        let file = source.name(LogFile::Segment(job.segment.base));
        match self {
            Wrong::Time { expected, found } => {
                let (expected, found) = (expected as u64, found as u64);
                JobError::Unexpected { file, position, field: "store_time", expected, found }
            }
            Wrong::QueueOffset { queue, expected, found } => {
                JobError::QueueOffset { file, position, queue, expected, found }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Queue {
    key: QueueKey,
    begin: QueueOffset,
    count: u32,
}

/// What the index will hold, in the order of the log.
#[derive(Default)]
struct Collected {
    slots: FxHashMap<QueueKey, u32>,
    queues: Vec<Queue>,
    entries: Vec<EntryRow>,
    /// The queue of each entry, as its number in `queues`.
    queue_of: Vec<u32>,
    /// With the numbers that entries have here.
    keys: Vec<KeyRow>,
    batches: Vec<BatchRow>,
    /// First and last store time so far.
    times_ms: Option<(i64, i64)>,
}

impl Collected {
    /// Takes over where the index of the segment before says that the queues stood.
    fn start_from<S: LogSource + ?Sized>(
        &mut self,
        source: &S,
        job: &SealJob,
        previous: LogOffset,
    ) -> Result<(), JobError> {
        let index = open_index(source, previous)?;
        let (file, summary) = (LogFile::Index(previous), index.summary());
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
        for row in index.view(Access::Blocking).rows() {
            let row = row.map_err(|fault| JobError::IndexPage { file: source.name(file), fault });
            let (key, span) = row?;
            self.slots.insert(key, self.queues.len() as u32);
            self.queues.push(Queue { key, begin: span.end(), count: 0 });
        }
        Ok(())
    }

    fn add_batch(&mut self, position: u64, header: &BatchHeader) -> Result<(), Wrong> {
        self.add_time(header.store_time.get())?;
        // Positions fit, as segments have 4 GiB at most.
        self.batches.push(BatchRow { position: (position as u32).into(), length: header.length });
        Ok(())
    }

    fn add_record(&mut self, batch: u64, record: &Described<'_>) -> Result<(), Wrong> {
        let time = self.add_time(record.store_time_ms)?;
        let queues = &mut self.queues;
        let slot = *self.slots.entry(record.queue).or_insert_with(|| {
            queues.push(Queue { key: record.queue, begin: QueueOffset(0), count: 0 });
            queues.len() as u32 - 1
        });
        let queue = &mut self.queues[slot as usize];
        let expected = QueueOffset(queue.begin.0 + u64::from(queue.count));
        if record.queue_offset != expected {
            let found = record.queue_offset;
            return Err(Wrong::QueueOffset { queue: record.queue, expected, found });
        }
        queue.count += 1;
        let entry = self.entries.len() as u32;
        self.entries.push(EntryRow {
            position: (batch as u32 + record.position).into(),
            size: record.size.into(),
            tag_hash: record.tag_hash.into(),
            time: time.into(),
        });
        self.queue_of.push(slot);
        self.keys.extend(record.key_hashes.iter().map(|hash| KeyRow { hash: *hash, entry: entry.into() }));
        Ok(())
    }

    /// Times never go back and stay within 2^32 ms of the first: the log rolls before.
    fn add_time(&mut self, time_ms: i64) -> Result<u32, Wrong> {
        let (first, last) = self.times_ms.unwrap_or((time_ms, time_ms));
        let since = u32::try_from(time_ms.wrapping_sub(first)).ok().filter(|_| time_ms >= last);
        self.times_ms = Some((first, time_ms));
        since.ok_or(Wrong::Time { expected: last, found: time_ms })
    }

    fn finish(mut self, job: &SealJob, last_index: BatchIndex, last_term: Term) -> Vec<u8> {
        let (first_time_ms, last_time_ms) = self.times_ms.expect("a sealed segment has a batch");
        let summary = IndexSummary {
            group: job.group,
            segment: job.segment,
            end: job.end,
            first_index: job.first_index,
            last_index,
            prev_term: job.prev_term,
            last_term,
            first_time_ms,
            last_time_ms,
            queues: self.queues.len() as u32,
            entries: self.entries.len() as u32,
            keys: self.keys.len() as u32,
            batches: self.batches.len() as u32,
        };
        let mut writer = IndexWriter::new(summary);
        self.put_queues(&mut writer);
        // In the order of the log as long as entries have the numbers they got in it.
        self.keys.sort_unstable_by_key(|row| (row.hash.get(), row.entry.get()));
        let numbers = self.queue_of;
        for (entry, number) in self.entries.iter().zip(&numbers) {
            writer.put_entry(*number, *entry);
        }
        for (nth, row) in self.keys.iter().enumerate() {
            let entry = numbers[row.entry.get() as usize].into();
            writer.put_key(nth as u32, KeyRow { hash: row.hash, entry });
        }
        for (nth, row) in self.batches.iter().enumerate() {
            writer.put_batch(nth as u32, *row);
        }
        writer.finish()
    }

    /// Writes the queues by ascending key, and gives each entry its number in place of its queue's.
    fn put_queues(&mut self, writer: &mut IndexWriter) {
        let mut order: Vec<u32> = (0..self.queues.len() as u32).collect();
        order.sort_unstable_by_key(|slot| self.queues[*slot as usize].key);
        let mut next_entry = vec![0; self.queues.len()];
        let mut first_entry = 0;
        for (nth, slot) in order.into_iter().enumerate() {
            let Queue { key, begin, count } = self.queues[slot as usize];
            let row = QueueRow {
                queue: key.0.into(),
                begin: begin.0.into(),
                first_entry: first_entry.into(),
                count: count.into(),
            };
            writer.put_queue(nth as u32, row);
            next_entry[slot as usize] = first_entry;
            first_entry += count;
        }
        for queue in &mut self.queue_of {
            let next = &mut next_entry[*queue as usize];
            *queue = *next;
            *next += 1;
        }
    }
}
