//! What an index will hold, gathered in the order of the log and then put in the order of the file.

use rustc_hash::FxHashMap;

use super::build::SealJob;
use super::layout::{BatchRow, EntryRow, KeyRow, QueueRow};
use super::reader::IndexSummary;
use super::view::QueueSpan;
use super::write::IndexWriter;
use crate::format::{BatchHeader, Described};
use crate::types::{BatchIndex, QueueKey, QueueOffset};

/// A batch that does not fit what stands before it in the segment.
pub(super) enum Wrong {
    Time { expected: i64, found: i64 },
    QueueOffset { queue: QueueKey, expected: QueueOffset, found: QueueOffset },
}

#[derive(Clone, Copy)]
struct Queue {
    key: QueueKey,
    begin: QueueOffset,
    count: u32,
}

pub(super) struct Collected {
    slots: FxHashMap<QueueKey, u32>,
    queues: Vec<Queue>,
    entries: Vec<EntryRow>,
    /// The queue of each entry, as its number in `queues`.
    queue_of: Vec<u32>,
    /// With the numbers that entries have here.
    keys: Vec<KeyRow>,
    batches: Vec<BatchRow>,
    /// Store time of the first batch.
    first_time_ms: Option<i64>,
    /// The greatest store time so far, that of the segment before included.
    last_time_ms: i64,
}

impl Collected {
    /// `not_before_ms` is the last store time of the segment before.
    pub(super) fn new(not_before_ms: i64) -> Collected {
        Collected {
            slots: FxHashMap::default(),
            queues: Vec::new(),
            entries: Vec::new(),
            queue_of: Vec::new(),
            keys: Vec::new(),
            batches: Vec::new(),
            first_time_ms: None,
            last_time_ms: not_before_ms,
        }
    }

    /// A queue that the log knew before this segment.
    pub(super) fn add_queue(&mut self, key: QueueKey, before: QueueSpan) {
        self.slots.insert(key, self.queues.len() as u32);
        self.queues.push(Queue { key, begin: before.end(), count: 0 });
    }

    pub(super) fn add_batch(&mut self, position: u64, header: &BatchHeader) -> Result<(), Wrong> {
        self.add_time(header.store_time.get())?;
        // Positions fit, as segments have 4 GiB at most.
        self.batches.push(BatchRow { position: (position as u32).into(), length: header.length });
        Ok(())
    }

    pub(super) fn add_record(&mut self, batch: u64, record: &Described<'_>) -> Result<(), Wrong> {
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
        let first = *self.first_time_ms.get_or_insert(time_ms);
        let since = u32::try_from(time_ms.wrapping_sub(first)).ok();
        let since = since.filter(|_| time_ms >= self.last_time_ms);
        let since = since.ok_or(Wrong::Time { expected: self.last_time_ms, found: time_ms })?;
        self.last_time_ms = time_ms;
        Ok(since)
    }

    pub(super) fn finish(mut self, job: &SealJob, last_index: BatchIndex) -> Vec<u8> {
        let summary = IndexSummary {
            group: job.group,
            segment: job.segment,
            end: job.end,
            first_index: job.first_index,
            last_index,
            prev_term: job.prev_term,
            last_term: job.last_term,
            first_time_ms: self.first_time_ms.expect("a sealed segment has a batch"),
            last_time_ms: self.last_time_ms,
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
