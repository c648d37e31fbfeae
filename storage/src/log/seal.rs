//! Sealing: what is staged becomes a batch in the buffer that goes to the disk.

use std::rc::Rc;

use super::CommitLog;
use super::marks::Marks;
use super::pipeline::{FailedAppends, FailureCause, Flight, Grown, SealedRecord};
use super::staging::StagedRecord;
use crate::disk::{Buffer, DiskOp};
use crate::format::{BatchFields, BatchKind, BatchLayout, BatchWriter, NewEntry};
use crate::index::{IndexEntry, Queues};
use crate::record::Record;
use crate::segment::Placement;
use crate::types::{BatchIndex, LogOffset, Ticket};

/// Times in an index file count in milliseconds from its first record's on, in 32 bits: 49 days.
const SEGMENT_SPAN_MS_MAX: u64 = u32::MAX as u64;

/// The segment that batches go to, as they were sealed: those not committed yet included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filling {
    pub(super) segment: LogOffset,
    /// Of its first batch.
    pub(super) first_time_ms: i64,
    pub(super) records: u64,
}

impl<B: Buffer, R: Record> CommitLog<B, R> {
    /// Makes a batch of what is staged, if the pipeline lets it through and its segment is there.
    pub(super) fn seal(&mut self, now_ms: i64, alloc: impl FnOnce(usize) -> B) -> Option<DiskOp<B>> {
        if self.pipeline.uncommitted() >= self.config.batches_in_flight_max as usize {
            return None;
        }
        let (layout, groups) = self.staging.next_batch(self.config.batch_bytes_target as usize)?;
        let batch_len = layout.batch_len();
        let on_the_way = self.pipeline.undurable_bytes();
        if on_the_way > 0 && on_the_way + batch_len as u64 > self.config.write_window_bytes {
            self.window_is_full = true;
            return None;
        }
        let store_time_ms = self.last_store_time_ms.max(now_ms);
        let records = layout.records() as u64;
        let must_roll = self.must_roll(store_time_ms, records);
        let Some(placement) = self.segments.place(batch_len as u64, must_roll) else {
            self.refuse_staged_without_space();
            return None;
        };
        self.segments.take(placement, batch_len as u64);
        match &mut self.filling {
            Some(filling) if filling.segment == placement.segment => filling.records += records,
            filling => {
                *filling =
                    Some(Filling { segment: placement.segment, first_time_ms: store_time_ms, records });
            }
        }
        Some(self.seal_at(placement, layout, groups, store_time_ms, alloc(batch_len)))
    }

    /// The active segment does not take this batch, full or not: its index could not tell the times of its records apart,
    /// its entries would take up more of the memory than is good while others are sealed, or its oldest record is older
    /// than records are kept. The last is no reason to wait for a segment.
    fn must_roll(&self, store_time_ms: i64, records: u64) -> bool {
        let active = self.segments.active();
        let Some(filling) =
            self.filling.filter(|filling| active.is_some_and(|it| it.base == filling.segment))
        else {
            return false;
        };
        let age_ms = u64::try_from(store_time_ms.saturating_sub(filling.first_time_ms)).unwrap_or(0);
        let is_expired = self.config.retention.age_ms.is_some_and(|age_ms_max| age_ms > age_ms_max);
        age_ms > SEGMENT_SPAN_MS_MAX
            || filling.records + records > self.config.index_entries_max / 2
            || is_expired && self.segments.is_next_ready()
    }

    /// Staged records wait for a segment on its way, and fail once it cannot be made.
    fn refuse_staged_without_space(&mut self) {
        let Some(error) = self.segments.failure().cloned() else { return };
        self.out_of_space = true;
        let records = self.staging.take_all();
        let count = records.len() as u64;
        // Nothing staged was sealed, so these are the newest records of their queues: taken back last to first,
        // each leaves its queue's tail where it was before.
        for staged in records.iter().rev() {
            let state = self.queues.at(staged.slot);
            assert_eq!(
                state.tail,
                staged.queue_offset.next(),
                "staged records are the newest of their queues"
            );
            state.tail = staged.queue_offset;
            self.uncommitted_entries -= 1;
        }
        let first_ticket = Ticket(self.next_ticket.0 - count);
        self.update_space();
        self.failed.push_back(FailedAppends { first_ticket, count, cause: FailureCause::NoSpace(error) });
    }

    fn seal_at(
        &mut self,
        placement: Placement,
        layout: BatchLayout,
        groups: usize,
        store_time_ms: i64,
        mut buffer: B,
    ) -> DiskOp<B> {
        let first_ticket = Ticket(self.next_ticket.0 - self.staging.len() as u64);
        let records = self.staging.take(groups);
        let index = self.last_index.next();
        let (order, queues) = group_by_queue(&mut self.queues, index, &records);
        let base = placement.base_offset();
        let fields = BatchFields {
            kind: BatchKind::Records,
            group: self.config.group,
            leader: self.config.node,
            term: self.term,
            index,
            prev_term: self.last_term,
            base_offset: base,
            commit_hint: self.durable_index,
            store_time_ms,
        };
        let mut log_offsets = vec![LogOffset(0); records.len()];
        let mut writer = BatchWriter::new(buffer.as_mut(), layout, fields);
        for nth in order {
            let staged = &records[nth as usize];
            let entry = NewEntry {
                queue: self.queues.at(staged.slot).key,
                queue_offset: staged.queue_offset,
                tag_hash: staged.tag_hash,
                key_hashes: &staged.key_hashes,
                size: staged.size,
            };
            log_offsets[nth as usize] = writer.push(entry, |place, out| staged.record.encode(place, out));
        }
        writer.finish();

        let sealed = records.into_iter().zip(log_offsets).map(|(staged, log_offset)| SealedRecord {
            slot: staged.slot,
            queue_offset: staged.queue_offset,
            entry: IndexEntry { log_offset, store_time_ms, size: staged.size, tag_hash: staged.tag_hash },
            key_hashes: staged.key_hashes,
        });
        let records = sealed.collect();
        let (buffer, len) = (Rc::new(buffer), layout.batch_len() as u32);
        let write = self.next_op_id();
        let op = DiskOp::Write {
            id: write,
            index,
            segment: placement.segment,
            position: placement.position,
            buffer: Rc::clone(&buffer),
            len,
        };
        let segment = placement.segment;
        let written = false;
        let flight = Flight {
            index,
            prev_term: self.last_term,
            base,
            len,
            segment,
            buffer,
            write,
            written,
            first_ticket,
            store_time_ms,
            records,
            queues,
        };
        let appended = flight.end();
        self.pipeline.push(flight);
        self.last_index = index;
        self.last_term = self.term;
        self.last_store_time_ms = store_time_ms;
        self.marks.advance(Marks { appended, ..self.marks });
        op
    }
}

/// The order on disk: queue by queue in the order of their first record, each queue's records as staged.
fn group_by_queue<R>(
    queues: &mut Queues,
    index: BatchIndex,
    records: &[StagedRecord<R>],
) -> (Vec<u32>, Vec<Grown>) {
    let mut grown: Vec<Grown> = Vec::new();
    let mut group_of = Vec::with_capacity(records.len());
    for staged in records {
        let state = queues.at(staged.slot);
        if state.group_of_batch.0 != index.0 {
            state.group_of_batch = (index.0, grown.len() as u32);
            grown.push(Grown { queue: state.key, from: staged.queue_offset, records: 0, bytes: 0 });
        }
        let group = state.group_of_batch.1;
        let grown = &mut grown[group as usize];
        grown.records += 1;
        grown.bytes += u64::from(staged.size);
        group_of.push(group);
    }
    let mut next_of_group: Vec<u32> = grown.iter().map(|grown| grown.records).collect();
    let mut begin = 0;
    for count in &mut next_of_group {
        begin += std::mem::replace(count, begin);
    }
    let mut order = vec![0; records.len()];
    for (nth, group) in group_of.into_iter().enumerate() {
        let at = &mut next_of_group[group as usize];
        order[*at as usize] = nth as u32;
        *at += 1;
    }
    (order, grown)
}
