//! The commit log of one shard.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use super::archive::{Archive, Finished, LogUse, RestoredArchive};
use super::event::{EVENTS_MAX, LogEvent};
use super::group::Grouped;
use super::marks::Marks;
use super::pipeline::{
    Committed, ControlRun, FailedAppends, FailureCause, Pipeline, Placed, Poison, SealedRecord, Tip,
};
use super::read::MemoryRun;
use super::seal::Filling;
use super::space::{SpaceInputs, SpaceState};
use super::staging::{AppendRefused, Staged, StagedRecord, Staging};
use crate::config::{CommitRule, ConfigError, Durability, LogConfig, Retention};
use crate::disk::{Buffer, Completion, DiskError, DiskOp, OpId, SegmentInfo, Space};
use crate::format::{BatchKind, BatchLayout, KEY_HASHES_MAX};
use crate::index::Queues;
use crate::record::{Append, Record};
use crate::recovery::Recovered;
use crate::sealed::SealedIndex;
use crate::segment::{Segments, Wanted};
use crate::source::LogFile;
use crate::tail_cache::TailCache;
use crate::types::{BatchIndex, LogOffset, LogStart, QueueKey, QueueOffset, Term, TermRun, Ticket};
use crate::unsealed::{NewBatch, Unsealed};

/// What a log is opened with, as recovery found it.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) segments: Vec<SegmentInfo>,
    pub(crate) end: LogOffset,
    pub(crate) last_index: BatchIndex,
    pub(crate) last_term: Term,
    /// Of all batches on the disk, those left behind the end included.
    pub(crate) greatest_term: Term,
    pub(crate) last_store_time_ms: i64,
    pub(crate) queues: Queues,
    /// Of the segments without an index file.
    pub(crate) unsealed: Unsealed,
    pub(crate) archive: RestoredArchive,
    /// Of the log's first batch, whether there is one or not.
    pub(crate) start: LogStart,
    /// Of a group's log: the terms of all batches from the start on, the uncommitted ones included, ascending and each
    /// other than the one before. Empty without a group.
    pub(crate) term_runs: Vec<TermRun>,
    /// Of a group's log: whole batches that follow each other behind `end`, written and durable; whether they are committed
    /// the group has still to say. All other fields are of the log in front of them.
    pub(crate) uncommitted: Vec<UncommittedBatch>,
}

/// A batch that recovery found whole and that may yet be replaced.
#[derive(Debug)]
pub(crate) struct UncommittedBatch {
    pub(crate) index: BatchIndex,
    /// Base of its segment.
    pub(crate) segment: LogOffset,
    pub(crate) position: u64,
    /// The whole batch, verified.
    pub(crate) bytes: Vec<u8>,
}

/// Batches, index and tail of one shard's log, as decisions only.
///
/// The order of calls, by one owner:
///
/// 1. [`stage`](CommitLog::stage) any number of appends;
/// 2. drain [`poll_op`](CommitLog::poll_op) and hand each operation to the disk;
/// 3. give each answer to [`on_completion`](CommitLog::on_completion), then drain
///    [`take_committed`](CommitLog::take_committed) and [`take_failed`](CommitLog::take_failed), then again 2;
/// 4. when nothing happens until [`wake_at_ms`](CommitLog::wake_at_ms), again 2;
/// 5. every 100 ms or so [`on_tick`](CommitLog::on_tick), now and then [`on_space`](CommitLog::on_space), then 2, and
///    [`take_event`](CommitLog::take_event).
///
/// Without a group the log leads and commits by itself. In one it does what it is told: `group.rs` and `foreign.rs` have the calls,
/// which belong between 2 and 3, and after each of them what is to be taken is taken.
///
/// An append is committed at most once and in the order of tickets; each ticket ends in exactly one of
/// `take_committed` and `take_failed`, unless the process ends first.
#[derive(Debug)]
pub struct CommitLog<B, R> {
    pub(super) config: LogConfig,
    pub(super) term: Term,
    pub(super) segments: Segments,
    pub(super) filling: Option<Filling>,
    pub(super) queues: Queues,
    pub(super) unsealed: Unsealed,
    pub(super) archive: Archive,
    pub(super) tail_cache: TailCache<B>,
    pub(super) staging: Staging<R>,
    pub(super) pipeline: Pipeline<B>,
    pub(super) marks: Marks,
    pub(super) last_index: BatchIndex,
    pub(super) last_term: Term,
    pub(super) last_store_time_ms: i64,
    /// The last batch that is both committed and durable; there is no way behind it.
    pub(super) settled: Tip,
    pub(super) group: Grouped<B>,
    /// Of seals and appends of other nodes' batches: an index may come again, after a cut.
    pub(super) stamp: u64,
    next_op: u64,
    pub(super) next_ticket: Ticket,
    /// Index entries that uncommitted records will need.
    pub(super) uncommitted_entries: u64,
    committed: VecDeque<Committed<B>>,
    pub(super) failed: VecDeque<FailedAppends>,
    pub(super) poison: Option<Poison>,
    /// Staged records wait for a segment that could not be made.
    pub(super) out_of_space: bool,
    sync_due_at_ms: Option<i64>,
    sync_asked: bool,
    /// A batch waits until others are durable, which in asynchronous durability nobody else is in a hurry for.
    pub(super) window_is_full: bool,
    space: Option<Space>,
    space_state: SpaceState,
    events: VecDeque<LogEvent>,
}

impl<B: Buffer, R: Record> CommitLog<B, R> {
    /// Opens what recovery found. `term` stands in the batches sealed from now on and is greater than that of every
    /// batch on the disk ([`Recovered::next_term`]): that is what tells new batches from those that an earlier life
    /// left behind the end.
    ///
    /// # Panics
    /// If `term` is not greater.
    pub fn open(config: LogConfig, recovered: Recovered, term: Term) -> Result<CommitLog<B, R>, ConfigError> {
        config.validate()?;
        let restored = recovered.restored;
        assert_eq!(config.commit_rule, CommitRule::Local, "the log of a group is opened as one");
        assert!(term > restored.greatest_term, "term {term} after {}", restored.greatest_term);
        Ok(CommitLog::with(config, restored, term))
    }

    pub(super) fn with(config: LogConfig, restored: Restored, term: Term) -> CommitLog<B, R> {
        let filling = restored.unsealed.back().map(|newest| Filling {
            segment: newest.base,
            first_time_ms: newest.first_time_ms,
            records: restored.queues.entries(),
        });
        CommitLog {
            term,
            filling,
            settled: Tip {
                index: restored.last_index,
                term: restored.last_term,
                end: restored.end,
                store_time_ms: restored.last_store_time_ms,
                filling,
            },
            group: Grouped::new(config.commit_rule, restored.start, restored.term_runs),
            stamp: 0,
            segments: Segments::new(restored.segments, restored.end, &config),
            queues: restored.queues,
            unsealed: restored.unsealed,
            archive: Archive::new(restored.archive, config.group, config.retry_ms, config.snapshot_pause_ms),
            tail_cache: TailCache::new(config.tail_cache_bytes),
            staging: Staging::new(),
            pipeline: Pipeline::new(),
            marks: Marks::all_at(restored.end),
            last_index: restored.last_index,
            last_term: restored.last_term,
            last_store_time_ms: restored.last_store_time_ms,
            next_op: 0,
            next_ticket: Ticket(0),
            uncommitted_entries: 0,
            committed: Default::default(),
            failed: Default::default(),
            poison: None,
            out_of_space: false,
            sync_due_at_ms: None,
            sync_asked: false,
            window_is_full: false,
            space: None,
            space_state: SpaceState::Normal,
            events: VecDeque::new(),
            config,
        }
    }

    /// What does not end with a log that is begun anew: numbers that were given out, and what is still to be told.
    pub(super) fn take_over(&mut self, before: CommitLog<B, R>) {
        self.next_op = before.next_op;
        self.next_ticket = before.next_ticket;
        self.committed = before.committed;
        self.failed = before.failed;
        self.poison = before.poison;
        self.space = before.space;
        self.events = before.events;
        self.update_space();
    }

    /// Takes records in, by reference. All of one call land in one batch, those of one queue one behind the other.
    ///
    /// Promises nothing about durability: that is said by [`take_committed`](CommitLog::take_committed). When
    /// refused, nothing of the call was taken.
    ///
    /// # Panics
    /// If `appends` is empty, or a record is.
    pub fn stage(&mut self, appends: impl IntoIterator<Item = Append<R>>) -> Result<Staged, AppendRefused> {
        self.check_open()?;
        let mut layout = BatchLayout::default();
        let mut group: SmallVec<[StagedRecord<R>; 1]> = SmallVec::new();
        let mut entries = 0;
        for append in appends {
            let Append { queue, tag_hash, key_hashes, record } = append;
            if key_hashes.len() > KEY_HASHES_MAX {
                return Err(AppendRefused::TooManyKeys { found: key_hashes.len(), limit: KEY_HASHES_MAX });
            }
            let size = record.encoded_len();
            assert!(size > 0, "a record without bytes has no place of its own");
            layout.add(size, key_hashes.len());
            let (bytes, limit) = (layout.batch_len() as u64, u64::from(self.config.batch_bytes_max));
            if bytes > limit {
                return Err(AppendRefused::TooLarge { bytes, limit });
            }
            entries += 1;
            let slot = self.queues.slot_or_refuse(queue, self.config.queues_max)?;
            let queue_offset = QueueOffset(0);
            group.push(StagedRecord { slot, queue_offset, tag_hash, size, key_hashes, record });
        }
        assert!(!group.is_empty(), "a call of stage without appends");
        self.check_room(&layout, entries)?;

        let first_ticket = self.next_ticket;
        for staged in &mut group {
            let state = self.queues.at(staged.slot);
            staged.queue_offset = state.tail;
            state.tail = state.tail.next();
        }
        let count = group.len() as u32;
        let first_queue_offset = group[0].queue_offset;
        self.next_ticket = first_ticket.plus(count.into());
        self.uncommitted_entries += entries;
        self.staging.push_group(layout, group);
        Ok(Staged { first_ticket, count, first_queue_offset })
    }

    pub(super) fn check_open(&self) -> Result<(), AppendRefused> {
        if !self.group.is_leading {
            return Err(AppendRefused::NotLeader);
        }
        if let Some(poison) = &self.poison {
            return Err(AppendRefused::Poisoned(poison.clone()));
        }
        match self.segments.failure() {
            Some(error) if self.out_of_space => Err(AppendRefused::NoSpace(error.clone())),
            _ => Ok(()),
        }
    }

    fn check_room(&self, layout: &BatchLayout, entries: u64) -> Result<(), AppendRefused> {
        let staged_bytes = self.staging.bytes();
        let limit = self.config.staged_bytes_max;
        if staged_bytes + layout.content_len() as u64 > limit {
            return Err(AppendRefused::Busy { staged_bytes, limit });
        }
        let limit = self.config.index_entries_max;
        let known = self.queues.entries() + self.uncommitted_entries;
        // All of it in one segment: only one more batch lets that one be sealed.
        let is_sealing = self.unsealed.finished().is_some() || self.archive.is_forgetting();
        if known + entries > limit && (is_sealing || self.uncommitted_entries > 0) {
            return Err(AppendRefused::IndexFull { entries: known, limit });
        }
        Ok(())
    }

    /// What the disk shall do next, if anything; to be called until it gives nothing. `alloc` gives a buffer of at
    /// least the length asked for, aligned for direct I/O; its content does not matter.
    pub fn poll_op(&mut self, now_ms: i64, alloc: impl FnOnce(usize) -> B) -> Option<DiskOp<B>> {
        if self.poison.is_some() || self.group.is_paused {
            return None;
        }
        if self.config.commit_rule == CommitRule::Group {
            self.watch_persisting(now_ms);
        }
        if self.sync_is_due(now_ms) {
            return Some(self.start_sync());
        }
        if let Some(write) = self.submit_next() {
            return Some(write);
        }
        if let Some(write) = self.seal(now_ms, alloc) {
            return Some(write);
        }
        if self.window_is_full && self.pipeline.sync_is_possible() {
            return Some(self.start_sync());
        }
        self.poll_background(now_ms)
    }

    fn poll_background(&mut self, now_ms: i64) -> Option<DiskOp<B>> {
        if let Some(Wanted { segment, recycle }) = self.segments.poll_prepare(now_ms) {
            return Some(DiskOp::Prepare { segment, recycle, reserve_bytes: self.config.reserve_bytes });
        }
        if let Some(segment) = self.segments.poll_remove(now_ms) {
            return Some(DiskOp::Remove { segment });
        }
        let finished = self.unsealed.finished().filter(|(oldest, _)| oldest.end <= self.marks.durable);
        let due = finished.and_then(|(unsealed, last_term)| {
            Some(Finished { unsealed, last_term, segment: self.segments.get(unsealed.base)? })
        });
        if let Some(op) = self.archive.poll_seal(due, now_ms) {
            return Some(op);
        }
        if let Some(op) = self.archive.poll_snapshot(now_ms) {
            return Some(op);
        }
        if !self.segments.may_leave() {
            return None;
        }
        let log_use = LogUse {
            log_bytes: self.segments.log_bytes(),
            reclaims: self.space_inputs().is_tight() && !self.segments.has_spare(),
        };
        self.archive.poll_leave(&self.config.retention, &log_use, now_ms)
    }

    /// Carries on what is done in small steps: queues forget what is sealed, and what is expired leaves.
    pub fn on_tick(&mut self) {
        if self.poison.is_some() {
            return;
        }
        self.archive.step_forgetting(&mut self.queues);
        self.unsealed.step_freeing();
        if self.segments.may_leave()
            && let Some((left, why)) = self.archive.step_leaving(&mut self.queues)
        {
            let segment = self.segments.leave();
            let summary = left.summary();
            assert_eq!(summary.segment, segment, "another segment is the oldest");
            self.group.terms.begin_behind(LogStart {
                index: summary.last_index,
                term: summary.last_term,
                base_offset: segment.end(),
            });
            self.event(LogEvent::Left { segment, newest_ms: summary.last_time_ms, why });
        }
    }

    /// Where the records end that leave soon, if any do: those of the oldest segment, if it would leave `ahead_ms` from now,
    /// or with one more segment made. Whoever still needs one of them should write it anew.
    #[must_use]
    pub fn leaving_below(&self, now_ms: i64, ahead_ms: i64) -> Option<LogOffset> {
        let log_use = LogUse {
            log_bytes: self.segments.log_bytes().saturating_add(self.segments.new_bytes()),
            reclaims: self.space_inputs().is_tight(),
        };
        self.archive.leaving_below(&self.config.retention, &log_use, now_ms.saturating_add(ahead_ms))
    }

    /// Takes what the file system has left. Asked for every second or so, it lets segments leave before a disk is full.
    pub fn on_space(&mut self, space: Space) {
        self.space = Some(space);
        self.update_space();
    }

    /// What the file system has left, as heard last.
    #[must_use]
    pub fn space(&self) -> Option<Space> {
        self.space
    }

    /// Keeps records as `retention` says from now on.
    pub fn set_retention(&mut self, retention: Retention) -> Result<(), ConfigError> {
        let config = LogConfig { retention, ..self.config.clone() };
        config.validate()?;
        self.config = config;
        Ok(())
    }

    /// What the log does about the disk's space just now.
    #[must_use]
    pub fn space_state(&self) -> SpaceState {
        self.space_state
    }

    fn space_inputs(&self) -> SpaceInputs {
        SpaceInputs {
            space: self.space,
            reserve_bytes: self.config.reserve_bytes,
            segment_bytes: self.segments.new_bytes(),
            segment_failed: self.segments.failure().is_some_and(DiskError::is_no_space),
            refuses: self.out_of_space,
        }
    }

    pub(super) fn update_space(&mut self) {
        let (from, to) = (self.space_state, self.space_inputs().state());
        if from != to {
            self.space_state = to;
            self.event(LogEvent::Space { from, to, space: self.space });
        }
    }

    fn event(&mut self, event: LogEvent) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// What the log did by itself since it was asked last.
    pub fn take_event(&mut self) -> Option<LogEvent> {
        self.events.pop_front()
    }

    /// A read met a page of this segment's index that is not what was written: it is made anew from the segment.
    pub fn on_index_damaged(&mut self, segment: LogOffset) {
        if self.archive.on_damaged(segment) {
            self.event(LogEvent::IndexDamaged { segment });
        }
    }

    /// When [`poll_op`](CommitLog::poll_op) may have something to do by the passing of time alone.
    #[must_use]
    pub fn wake_at_ms(&self) -> Option<i64> {
        if self.poison.is_some() || self.group.is_paused {
            return None;
        }
        let sync = self.sync_due_at_ms.filter(|_| self.pipeline.sync_is_possible());
        [sync, self.segments.retry_at_ms()].into_iter().flatten().min()
    }

    /// Asks for a sync of all that is staged or on its way, whatever the durability mode; for an orderly stop.
    /// Done when [`is_idle`](CommitLog::is_idle).
    pub fn ask_sync(&mut self) {
        self.sync_asked = !self.is_idle();
    }

    /// Nothing is staged, on its way or waiting to be synced.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.staging.is_empty() && self.pipeline.is_durable()
    }

    fn sync_is_due(&mut self, now_ms: i64) -> bool {
        if !self.pipeline.sync_is_possible() {
            return false;
        }
        let Durability::Async { sync_interval_ms } = self.config.durability else { return true };
        if self.sync_asked || self.pipeline.undurable_bytes() >= self.config.write_window_bytes / 2 {
            return true;
        }
        // The minimum keeps a clock that was set back from stretching the pause.
        let latest = now_ms.saturating_add(sync_interval_ms.into());
        let due_at_ms = self.sync_due_at_ms.unwrap_or(latest).min(latest);
        self.sync_due_at_ms = Some(due_at_ms);
        now_ms >= due_at_ms
    }

    fn start_sync(&mut self) -> DiskOp<B> {
        let id = self.next_op_id();
        self.sync_due_at_ms = None;
        self.window_is_full = false;
        DiskOp::Sync { id, segments: self.pipeline.start_sync(id) }
    }

    pub(super) fn next_op_id(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    /// Takes the answer to any operation.
    pub fn on_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Written { id, result } => self.on_written(id, result),
            Completion::Synced { id, result } => self.on_synced(id, result),
            Completion::Prepared { base, result } => self.on_prepared(base, result),
            Completion::Sealed { base, result } => self.on_sealed(base, result),
            Completion::Snapshot { at, result } => self.on_snapshot(at, result),
            Completion::Ends { base, result } => self.on_ends(base, result),
            Completion::Removed { base, result } => self.on_removed(base, result),
            Completion::GroupStateSaved { .. }
            | Completion::ResetDone { .. }
            | Completion::CheckpointTaken { .. }
            | Completion::Rebuilt { .. } => panic!("{completion:?} is not for the log"),
        }
    }

    /// After a failure the log is poisoned: it goes on answering reads and takes no append until it is recovered.
    pub fn on_written(&mut self, id: OpId, result: Result<(), DiskError>) {
        if self.poison.is_some() {
            return;
        }
        if let Err(error) = result {
            return self.poison("write", error);
        }
        self.pipeline.on_written(id);
        let written = self.pipeline.written_tip().map_or(self.marks.written, |tip| tip.end);
        self.advance(Marks { written: written.max(self.marks.written), ..self.marks });
        if self.config.commit_rule == CommitRule::Local
            && matches!(self.config.durability, Durability::Async { .. })
        {
            self.commit(self.pipeline.written_batches());
        }
    }

    /// After a failure the log is poisoned, as after a failed write: what a failed sync left is unknown.
    pub fn on_synced(&mut self, id: OpId, result: Result<(), DiskError>) {
        if self.poison.is_some() {
            return;
        }
        if let Err(error) = result {
            return self.poison("sync", error);
        }
        let batches = self.pipeline.on_synced(id);
        if self.config.commit_rule == CommitRule::Local {
            self.commit(batches);
        }
        if let Some(Tip { end: durable, .. }) = self.pipeline.durable_tip() {
            self.advance(Marks { durable, ..self.marks });
        }
        self.retire();
        if self.is_idle() {
            self.sync_asked = false;
        }
    }

    /// A failure refuses what needs the segment, and is tried again by itself.
    pub fn on_prepared(&mut self, base: LogOffset, result: Result<(), DiskError>) {
        match &result {
            Ok(()) => self.out_of_space = false,
            Err(error) => self.event(LogEvent::PrepareFailed { segment: base, error: error.clone() }),
        }
        self.segments.on_prepared(base, result);
        self.update_space();
    }

    /// A failure leaves the segment as it was, and is tried again by itself.
    pub fn on_sealed(&mut self, base: LogOffset, result: Result<Arc<SealedIndex>, DiskError>) {
        let is_rebuilt = self.archive.on_sealed(base, result.as_ref().ok().cloned());
        self.replace_unusable(result.as_ref().err());
        let event = match result {
            Err(error) => LogEvent::SealFailed { segment: base, error },
            Ok(_) if is_rebuilt => LogEvent::IndexRebuilt { segment: base },
            Ok(index) => {
                let summary = index.summary();
                let oldest = self.unsealed.front().map(|oldest| (oldest.base, oldest.end));
                assert_eq!(oldest, Some((base, summary.end)), "the index is not that of the oldest segment");
                self.unsealed.pop_front();
                let (records, queues) = (summary.entries.into(), summary.queues.into());
                LogEvent::Sealed { segment: base, records, queues }
            }
        };
        self.event(event);
    }

    /// A failure keeps segments from leaving, and is tried again by itself.
    pub fn on_snapshot(&mut self, at: LogOffset, result: Result<(), DiskError>) {
        self.archive.on_snapshot(at, result.is_ok());
        self.replace_unusable(result.as_ref().err());
        self.event(match result {
            Ok(()) => LogEvent::SnapshotTaken { at },
            Err(error) => LogEvent::SnapshotFailed { at, error },
        });
    }

    fn on_ends(&mut self, base: LogOffset, result: Result<Vec<(QueueKey, QueueOffset)>, DiskError>) {
        if let Err(error) = &result {
            self.event(LogEvent::LeaveFailed { segment: base, error: error.clone() });
            self.replace_unusable(Some(error));
        }
        self.archive.on_ends(result);
    }

    /// What failed for the sake of an index or a snapshot does better once that is made anew.
    fn replace_unusable(&mut self, error: Option<&DiskError>) {
        match error.and_then(DiskError::unusable) {
            Some(LogFile::Index(segment)) => self.on_index_damaged(segment),
            Some(LogFile::Snapshot(at)) => self.archive.on_snapshot_unusable(at),
            Some(LogFile::Segment(_) | LogFile::GroupState | LogFile::Checkpoint) | None => {}
        }
    }

    fn on_removed(&mut self, base: LogOffset, result: Result<(), DiskError>) {
        if let Err(error) = &result {
            self.event(LogEvent::LeaveFailed { segment: base, error: error.clone() });
        }
        self.segments.on_removed(base, result.is_ok());
    }

    /// Makes the first `batches` on their way visible.
    pub(super) fn commit(&mut self, batches: usize) {
        while let Some(flight) = self.pipeline.commit_next(batches) {
            let is_ours = flight.first_ticket.is_some();
            let mut places = Vec::with_capacity(if is_ours { flight.records.len() } else { 0 });
            let mut control = Vec::new();
            self.unsealed.push(NewBatch {
                segment: flight.segment(),
                base: flight.base,
                len: flight.len,
                index: flight.index,
                prev_term: flight.prev_term,
                store_time_ms: flight.store_time_ms,
            });
            let segment = flight.segment();
            for record in std::mem::take(&mut flight.records) {
                let SealedRecord { slot, queue_offset, entry, key_hashes } = record;
                self.queues.publish(slot, queue_offset, entry, segment);
                for hash in key_hashes {
                    self.unsealed.push_key(hash, entry.log_offset, entry.size);
                }
                self.uncommitted_entries -= 1;
                if is_ours {
                    places.push(Placed { log_offset: entry.log_offset, queue_offset });
                } else if matches!(self.queues.at(slot).key, QueueKey::CONTROL | QueueKey::MEMBERS) {
                    let begin = (entry.log_offset.0 - flight.base.0) as usize;
                    let range = begin..begin + entry.size as usize;
                    let bytes = MemoryRun { buffer: Rc::clone(&flight.buffer), range };
                    control.push(ControlRun { log_offset: entry.log_offset, bytes });
                }
            }
            self.tail_cache.push(flight.base, flight.len, Rc::clone(&flight.buffer));
            let mut queues = std::mem::take(&mut flight.queues);
            if flight.kind == BatchKind::Configuration {
                queues.clear();
            }
            let committed = Committed {
                index: flight.index,
                term: flight.term,
                kind: flight.kind,
                first_ticket: flight.first_ticket.unwrap_or(Ticket(0)),
                places,
                control,
                store_time_ms: flight.store_time_ms,
                queues,
                batch_bytes: flight.len,
            };
            let end = flight.end();
            self.advance(Marks { committed: end, ..self.marks });
            self.committed.push_back(committed);
        }
        self.tail_cache.shrink(self.marks.durable);
    }

    /// What is committed and durable is settled.
    pub(super) fn retire(&mut self) {
        if let Some(tip) = self.pipeline.retire() {
            self.settled = tip;
        }
        self.tail_cache.shrink(self.marks.durable);
    }

    pub(super) fn advance(&mut self, to: Marks) {
        self.marks.advance(to, self.config.commit_rule);
    }

    fn poison(&mut self, operation: &'static str, error: DiskError) {
        let poison = Poison { operation, error };
        // Batch by batch: between two of them there may be tickets that failed earlier, for want of space.
        let staged = self.staging.take_all().len() as u64;
        let first_staged = Ticket(self.next_ticket.0 - staged);
        let waiting = self.pipeline.uncommitted_tickets().chain([(first_staged, staged)]);
        for (first_ticket, count) in waiting.filter(|(_, count)| *count > 0) {
            let cause = FailureCause::Poisoned(poison.clone());
            self.failed.push_back(FailedAppends { first_ticket, count, cause });
        }
        self.event(LogEvent::Poisoned(poison.clone()));
        self.poison = Some(poison);
    }

    /// The next batch that became visible, in the order of tickets. It is durable as the durability mode says.
    pub fn take_committed(&mut self) -> Option<Committed<B>> {
        self.committed.pop_front()
    }

    /// The next appends that failed after they had been taken in.
    pub fn take_failed(&mut self) -> Option<FailedAppends> {
        self.failed.pop_front()
    }

    /// Why no appends are taken any more, if so.
    #[must_use]
    pub fn poisoned(&self) -> Option<&Poison> {
        self.poison.as_ref()
    }

    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    #[must_use]
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// Of the newest batch; 0 before the first.
    #[must_use]
    pub fn last_index(&self) -> BatchIndex {
        self.last_index
    }

    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Bytes staged and not yet sealed.
    #[must_use]
    pub fn staged_bytes(&self) -> u64 {
        self.staging.bytes()
    }

    /// Where the log begins: what was in front of it has left.
    #[must_use]
    pub fn start(&self) -> LogOffset {
        self.segments.start()
    }

    /// When the oldest record that is still there was stored; none in an empty log.
    #[must_use]
    pub fn oldest_time_ms(&self) -> Option<i64> {
        let sealed = self.sealed_indexes().next().map(|index| index.summary().first_time_ms);
        sealed.or_else(|| self.unsealed.front().map(|segment| segment.first_time_ms))
    }

    /// Index entries in memory, over all queues.
    #[must_use]
    pub fn index_entries(&self) -> u64 {
        self.queues.entries()
    }

    /// Bytes of batches kept in memory for readers.
    #[must_use]
    pub fn tail_cache_bytes(&self) -> u64 {
        self.tail_cache.bytes()
    }
}
