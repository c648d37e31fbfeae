//! Sealing: what is staged becomes a batch in the buffer that goes to the disk.

use std::rc::Rc;

use super::CommitLog;
use super::group::SealedBatch;
use super::marks::Marks;
use super::pipeline::{FailedAppends, FailureCause, Flight, FlightState, Grown, Leftover, SealedRecord, Tip};
use super::staging::StagedRecord;
use crate::config::CommitRule;
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
pub(crate) struct Filling {
    pub(crate) segment: LogOffset,
    /// Of its first batch.
    pub(crate) first_time_ms: i64,
    pub(crate) records: u64,
}

/// What the log keeps of a batch until it is committed.
pub(super) struct Content {
    /// As in [`Flight`].
    pub(super) first_ticket: Option<Ticket>,
    pub(super) records: Vec<SealedRecord>,
    pub(super) queues: Vec<Grown>,
}

impl<B: Buffer, R: Record> CommitLog<B, R> {
    /// Makes a batch of what is staged, if the pipeline lets it through and its segment is there.
    pub(super) fn seal(&mut self, now_ms: i64, alloc: impl FnOnce(usize) -> B) -> Option<DiskOp<B>> {
        if self.pipeline.uncommitted() >= self.config.batches_in_flight_max as usize
            || self.pipeline.is_any_waiting()
            || self.group.is_held
        {
            return None;
        }
        let (layout, groups) = self.staging.next_batch(self.config.batch_bytes_target as usize)?;
        let batch_len = layout.batch_len();
        if !self.window_takes(batch_len as u64) || !self.group_keeps_up(batch_len as u64) {
            return None;
        }
        let store_time_ms = self.last_store_time_ms.max(now_ms);
        let records = layout.records() as u64;
        let must_roll = self.must_roll(store_time_ms, records);
        let Some(placement) = self.segments.place(batch_len as u64, must_roll) else {
            self.refuse_staged_without_space();
            return None;
        };
        self.seal_at(placement, layout, groups, store_time_ms, alloc(batch_len));
        self.submit_next()
    }

    /// Whether so many bytes more may be on their way to the disk.
    fn window_takes(&mut self, bytes: u64) -> bool {
        let on_the_way = self.pipeline.undurable_bytes();
        let takes = on_the_way == 0 || on_the_way + bytes <= self.config.write_window_bytes;
        self.window_is_full |= !takes;
        takes
    }

    /// Whether so many bytes more may wait for the group. A cut leaves whole batches behind, as many as were not committed;
    /// recovery takes what lies further behind a torn batch than the write window for a proof of damage. Half of it leaves
    /// room for what other leaders left and for their no-ops.
    fn group_keeps_up(&self, bytes: u64) -> bool {
        let uncommitted = self.pipeline.uncommitted_bytes();
        self.config.commit_rule == CommitRule::Local
            || uncommitted == 0
            || uncommitted + bytes <= self.config.write_window_bytes / 2
    }

    /// Asks for the write of the next batch that waits for it: the one sealed just now, or in a group one that could not be
    /// written when it came, since its segment was not made or a write of a batch that was cut off is still on its way.
    pub(super) fn submit_next(&mut self) -> Option<DiskOp<B>> {
        let flight = self.pipeline.next_to_submit()?;
        let (base, end, len, segment) = (flight.base, flight.end(), flight.len, flight.segment());
        if let Some(Leftover { segment, position, .. }) = self.pipeline.next_to_erase() {
            let id = self.next_op_id();
            let erases = self.pipeline.erase_next(id);
            return erases.then_some(DiskOp::Erase { id, segment, position });
        }
        if self.segments.get(segment).is_none() {
            if self.segments.failure().is_some() {
                self.out_of_space = true;
                self.update_space();
            }
            return None;
        }
        if self.pipeline.is_haunted(base, end) || !self.window_takes(len.into()) {
            return None;
        }
        let id = self.next_op_id();
        let flight = self.pipeline.submit_next(id);
        Some(DiskOp::Write {
            id,
            index: flight.index,
            segment,
            position: base.0 - segment.0,
            buffer: Rc::clone(&flight.buffer),
            len,
        })
    }

    /// The segment that batches go to once one of so many records is placed.
    pub(super) fn filling_with(&self, placement: Placement, store_time_ms: i64, records: u64) -> Filling {
        match self.filling {
            Some(filling) if filling.segment == placement.segment => {
                Filling { records: filling.records + records, ..filling }
            }
            _ => Filling { segment: placement.segment, first_time_ms: store_time_ms, records },
        }
    }

    /// The log grows by a batch, at the place that was chosen for it.
    pub(super) fn push(&mut self, mut flight: Flight<B>) {
        flight.leftover = self.leftover_in_front(flight.base);
        let placement = Placement { segment: flight.segment(), position: flight.base.0 - flight.segment().0 };
        self.segments.take(placement, flight.len.into());
        self.go_on_from(flight.tip());
        if self.config.commit_rule == CommitRule::Group {
            self.group.terms.push(flight.index, flight.term);
        }
        let appended = flight.end();
        self.pipeline.push(flight);
        self.advance(Marks { appended, ..self.marks });
    }

    /// The place where the log of a group ends now, if the batch that begins at `base` does not overwrite it. Whether a batch
    /// was cut off there only the disk knows, as it may have been in an earlier life.
    fn leftover_in_front(&self, base: LogOffset) -> Option<Leftover> {
        let end = self.marks.appended;
        if self.config.commit_rule == CommitRule::Local || base == end {
            return None;
        }
        let segment = self.segments.holding(end)?;
        Some(Leftover { segment: segment.base, position: end.0 - segment.base.0, is_erased: false })
    }

    /// The next batch follows this one.
    pub(super) fn go_on_from(&mut self, tip: Tip) {
        self.last_index = tip.index;
        self.last_term = tip.term;
        self.last_store_time_ms = tip.store_time_ms;
        self.filling = tip.filling;
    }

    /// The active segment does not take this batch, full or not: its index could not tell the times of its records apart,
    /// its entries would take up more of the memory than is good while others are sealed, or its oldest record is older
    /// than records are kept. The last is no reason to wait for a segment.
    pub(super) fn must_roll(&self, store_time_ms: i64, records: u64) -> bool {
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
        self.update_space();
        self.fail_staged(FailureCause::NoSpace(error));
    }

    /// What is staged is given up: it was not sealed, and its places in the queues are free again.
    pub(super) fn fail_staged(&mut self, cause: FailureCause) {
        let records = self.staging.take_all();
        if records.is_empty() {
            return;
        }
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
        self.failed.push_back(FailedAppends { first_ticket, count, cause });
    }

    fn seal_at(
        &mut self,
        placement: Placement,
        layout: BatchLayout,
        groups: usize,
        store_time_ms: i64,
        mut buffer: B,
    ) {
        let first_ticket = Ticket(self.next_ticket.0 - self.staging.len() as u64);
        let records = self.staging.take(groups);
        let index = self.last_index.next();
        self.stamp += 1;
        let (order, queues) = group_by_queue(&mut self.queues, self.stamp, &records);
        let base = placement.base_offset();
        let fields = BatchFields {
            kind: BatchKind::Records,
            group: self.config.group,
            leader: self.config.node,
            term: self.term,
            index,
            prev_term: self.last_term,
            base_offset: base,
            commit_hint: self.commit_hint(),
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
        let content = Content { first_ticket: Some(first_ticket), records: sealed.collect(), queues };
        let filling = self.filling_with(placement, store_time_ms, layout.records() as u64);
        self.launch(fields, layout.batch_len() as u32, buffer, filling, content);
    }

    /// Up to here batches are committed, for whoever finds the next one; and without a group durable, so that one
    /// of them that is not whole was damaged.
    pub(super) fn commit_hint(&self) -> BatchIndex {
        match self.config.commit_rule {
            CommitRule::Local => self.settled.index,
            CommitRule::Group => self.committed_index(),
        }
    }

    /// A batch that was sealed here begins its way.
    pub(super) fn launch(
        &mut self,
        fields: BatchFields,
        len: u32,
        buffer: B,
        filling: Filling,
        content: Content,
    ) {
        let buffer = Rc::new(buffer);
        let Content { first_ticket, records, queues } = content;
        let BatchFields { kind, term, index, prev_term, base_offset, store_time_ms, .. } = fields;
        if self.config.commit_rule == CommitRule::Group {
            let buffer = Rc::clone(&buffer);
            let sealed = SealedBatch { index, term, prev_term, kind, base_offset, len, buffer };
            self.group.sealed.push_back(sealed);
        }
        self.push(Flight {
            index,
            term,
            prev_term,
            kind,
            base: base_offset,
            len,
            buffer,
            first_ticket,
            store_time_ms,
            records,
            queues,
            filling,
            leftover: None,
            state: FlightState::Waiting,
        });
    }
}

/// The order on disk: queue by queue in the order of their first record, each queue's records as staged.
fn group_by_queue<R>(queues: &mut Queues, stamp: u64, records: &[StagedRecord<R>]) -> (Vec<u32>, Vec<Grown>) {
    let mut grown: Vec<Grown> = Vec::new();
    let mut group_of = Vec::with_capacity(records.len());
    for staged in records {
        let state = queues.at(staged.slot);
        if state.group_of_batch.0 != stamp {
            state.group_of_batch = (stamp, grown.len() as u32);
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
