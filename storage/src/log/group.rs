//! The log of a group: who may append to it, what is cut off, and how far the group has committed.
//!
//! ```text
//! | segments that have left | committed and durable | committed or durable | neither        |
//!                           ▲ before_first          ▲ settled              flights          ▲ last
//! ```
//!
//! Which batches follow each other is decided elsewhere; the log sees to it that nothing committed is ever replaced, that
//! two writes never touch the same bytes at once, and that each ticket comes to one end.

use std::collections::VecDeque;
use std::rc::Rc;

use super::CommitLog;
use super::commit_log::{Restored, UncommittedBatch};
use super::foreign::ForeignBatch;
use super::marks::Marks;
use super::pipeline::{FailedAppends, FailureCause, Grown, SealedRecord};
use super::seal::Content;
use super::staging::AppendRefused;
use super::terms::TermRuns;
use crate::checkpoint::ResetDone;
use crate::config::{CommitRule, ConfigError, Durability, LogConfig};
use crate::disk::Buffer;
use crate::format::{BatchFields, BatchKind, BatchLayout, BatchWriter, NewEntry};
use crate::index::{IndexEntry, Queues};
use crate::log::RestoredArchive;
use crate::record::Record;
use crate::recovery::Recovered;
use crate::types::{BatchIndex, LogOffset, LogStart, QueueKey, Term, TermRun};
use crate::unsealed::Unsealed;

/// A batch that this log sealed, to be proposed to the group and sent to its other logs.
#[derive(Debug)]
pub struct SealedBatch<B> {
    pub index: BatchIndex,
    pub term: Term,
    pub prev_term: Term,
    pub kind: BatchKind,
    pub base_offset: LogOffset,
    pub len: u32,
    /// Begins with the batch's `len` bytes.
    pub buffer: Rc<B>,
}

impl<B> Clone for SealedBatch<B> {
    fn clone(&self) -> Self {
        SealedBatch { buffer: Rc::clone(&self.buffer), ..*self }
    }
}

/// What a log has besides if it belongs to a group.
#[derive(Debug)]
pub(super) struct Grouped<B> {
    /// Appends are taken. Without a group always.
    pub(super) is_leading: bool,
    /// Staged records wait.
    pub(super) is_held: bool,
    /// Nothing is asked of the disk.
    pub(super) is_paused: bool,
    /// Sealed and not yet fetched. All of it is uncommitted and the end of the log.
    pub(super) sealed: VecDeque<SealedBatch<B>>,
    pub(super) terms: TermRuns,
    /// The oldest batch that is not persisted, and since when it has been the oldest.
    unpersisted: Option<(BatchIndex, i64)>,
}

impl<B> Grouped<B> {
    pub(super) fn new(rule: CommitRule, start: LogStart, runs: Vec<TermRun>) -> Grouped<B> {
        Grouped {
            is_leading: rule == CommitRule::Local,
            is_held: false,
            is_paused: false,
            sealed: VecDeque::new(),
            terms: TermRuns::new(start, runs),
            unpersisted: None,
        }
    }
}

impl<B: Buffer, R: Record> CommitLog<B, R> {
    /// Opens the log of a group: it follows, and batches that are not known to be committed wait for the group. `alloc` as
    /// in [`poll_op`](CommitLog::poll_op).
    pub fn open_group(
        config: LogConfig,
        recovered: Recovered,
        mut alloc: impl FnMut(usize) -> B,
    ) -> Result<CommitLog<B, R>, ConfigError> {
        config.validate()?;
        assert_eq!(config.commit_rule, CommitRule::Group, "a log without a group is opened as such");
        let mut restored = recovered.restored;
        let (start, runs) = (restored.start, std::mem::take(&mut restored.term_runs));
        let uncommitted = std::mem::take(&mut restored.uncommitted);
        let term = restored.last_term;
        let mut log = CommitLog::with(config, restored, term);
        for UncommittedBatch { segment, position, bytes, .. } in uncommitted {
            let mut buffer = alloc(bytes.len());
            buffer.as_mut()[..bytes.len()].copy_from_slice(&bytes);
            let batch = ForeignBatch::verify(buffer, log.config.group);
            let batch = batch.expect("recovery has verified it");
            assert_eq!(batch.base_offset(), segment.plus(position), "an uncommitted batch is elsewhere");
            log.append(batch).unwrap_or_else(|refused| panic!("recovery found what does not fit: {refused}"));
        }
        log.pipeline.all_are_durable();
        let end = log.marks.appended;
        log.advance(Marks { written: end, durable: end, ..log.marks });
        log.group.terms = TermRuns::new(start, runs);
        Ok(log)
    }

    /// From now on appends are taken, and sealed under `term`.
    ///
    /// # Panics
    /// If `term` is not greater than that of the last batch.
    pub fn lead(&mut self, term: Term) {
        self.check_rule();
        assert!(term > self.last_term, "leading in term {term}, behind a batch of {}", self.last_term);
        self.term = term;
        self.group.is_leading = true;
        self.group.is_held = false;
    }

    /// From now on appends are refused. Records staged and not sealed fail, and so do batches that nobody has
    /// [taken](CommitLog::take_sealed); sealed ones keep their tickets: they are committed or cut off by the group.
    pub fn follow(&mut self) {
        self.check_rule();
        self.group.is_leading = false;
        self.group.is_held = false;
        self.fail_staged(FailureCause::NotLeader);
        if let Some(first) = self.group.sealed.front().map(|sealed| sealed.index) {
            self.cut(first, &FailureCause::NotLeader);
        }
    }

    /// Whether appends are taken.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.group.is_leading
    }

    /// While held, staged records wait.
    pub fn hold_sealing(&mut self, hold: bool) {
        self.check_rule();
        self.group.is_held = hold;
    }

    /// Seals a batch without records, in front of whatever is staged: the first of a leader's term. Gives its index. It is written
    /// by a later [`poll_op`](CommitLog::poll_op) and [taken](CommitLog::take_sealed) as all others.
    pub fn seal_noop(
        &mut self,
        now_ms: i64,
        alloc: impl FnOnce(usize) -> B,
    ) -> Result<BatchIndex, AppendRefused> {
        self.seal_special(BatchKind::NoOp, None, now_ms, alloc)
    }

    /// Seals a change of the group's members, in front of whatever is staged. Gives its index.
    ///
    /// # Panics
    /// If `body` is empty.
    pub fn seal_configuration(
        &mut self,
        body: &[u8],
        now_ms: i64,
        alloc: impl FnOnce(usize) -> B,
    ) -> Result<BatchIndex, AppendRefused> {
        assert!(!body.is_empty(), "a change of members that says nothing");
        self.seal_special(BatchKind::Configuration, Some(body), now_ms, alloc)
    }

    fn seal_special(
        &mut self,
        kind: BatchKind,
        body: Option<&[u8]>,
        now_ms: i64,
        alloc: impl FnOnce(usize) -> B,
    ) -> Result<BatchIndex, AppendRefused> {
        self.check_rule();
        if let Some(poison) = &self.poison {
            return Err(AppendRefused::Poisoned(poison.clone()));
        }
        if !self.group.is_leading {
            return Err(AppendRefused::NotLeader);
        }
        let mut layout = BatchLayout::default();
        if let Some(body) = body {
            layout.add(u32::try_from(body.len()).unwrap_or(u32::MAX), 0);
        }
        let (bytes, limit) = (layout.batch_len() as u64, u64::from(self.config.batch_bytes_max));
        if bytes > limit {
            return Err(AppendRefused::TooLarge { bytes, limit });
        }
        let store_time_ms = self.last_store_time_ms.max(now_ms);
        let must_roll = self.must_roll(store_time_ms, layout.records() as u64);
        // Its place is known whether its segment is made or not, so that its index is known at once.
        let placement = self.segments.plan(bytes, must_roll);
        let index = self.last_index.next();
        let fields = BatchFields {
            kind,
            group: self.config.group,
            leader: self.config.node,
            term: self.term,
            index,
            prev_term: self.last_term,
            base_offset: placement.base_offset(),
            commit_hint: self.commit_hint(),
            store_time_ms,
        };
        let mut buffer = alloc(layout.batch_len());
        let mut writer = BatchWriter::new(buffer.as_mut(), layout, fields);
        let mut content = Content { first_ticket: None, records: Vec::new(), queues: Vec::new() };
        if let Some(body) = body {
            let slot = self.queues.slot_or_new(QueueKey::MEMBERS);
            let state = self.queues.at(slot);
            let (queue_offset, size) = (state.tail, body.len() as u32);
            state.tail = queue_offset.next();
            self.uncommitted_entries += 1;
            let entry =
                NewEntry { queue: QueueKey::MEMBERS, queue_offset, tag_hash: 0, key_hashes: &[], size };
            let log_offset = writer.push(entry, |_, out| out.copy_from_slice(body));
            let entry = IndexEntry { log_offset, store_time_ms, size, tag_hash: 0 };
            content.records.push(SealedRecord { slot, queue_offset, entry, key_hashes: Default::default() });
            let bytes = size.into();
            content.queues.push(Grown { queue: QueueKey::MEMBERS, from: queue_offset, records: 1, bytes });
        }
        writer.finish();
        let filling = self.filling_with(placement, store_time_ms, layout.records() as u64);
        self.launch(fields, layout.batch_len() as u32, buffer, filling, content);
        Ok(index)
    }

    /// The next batch sealed here, in order.
    pub fn take_sealed(&mut self) -> Option<SealedBatch<B>> {
        self.group.sealed.pop_front()
    }

    /// Cuts off all batches from `index` on; their tickets fail. Nothing is erased by that, and writes on their way are waited
    /// for before their bytes are written anew. A [poisoned](CommitLog::poisoned) log stays as it is.
    ///
    /// # Panics
    /// If a batch to be cut off is committed, or the log takes appends.
    pub fn truncate_from(&mut self, index: BatchIndex) {
        self.check_rule();
        assert!(!self.group.is_leading, "batch {index} is cut off by its leader");
        self.cut(index, &FailureCause::Overwritten);
    }

    fn cut(&mut self, index: BatchIndex, cause: &FailureCause) {
        let committed = self.committed_index();
        assert!(index > committed, "batch {index} is cut off, and all up to {committed} are committed");
        if self.poison.is_some() || index > self.last_index {
            return;
        }
        let cut = self.pipeline.cut(index);
        for flight in &cut {
            self.uncommitted_entries -= flight.records.len() as u64;
            for grown in flight.queues.iter().rev() {
                let slot = self.queues.slot(grown.queue).expect("a queue that has records");
                let state = self.queues.at(slot);
                let (tail, end) = (state.tail.0, grown.from.0 + u64::from(grown.records));
                assert_eq!(tail, end, "queue {}: the newest records are cut off first", grown.queue);
                state.tail = grown.from;
            }
        }
        let tip = self.pipeline.last().map_or(self.settled, |last| last.tip());
        self.segments.rewind(tip.end, tip.filling.map(|filling| filling.segment));
        self.go_on_from(tip);
        self.group.terms.cut(index);
        self.group.sealed.retain(|sealed| sealed.index < index);
        self.marks.cut(tip.end);
        for flight in cut.iter().rev() {
            let Some(first_ticket) = flight.first_ticket else { continue };
            let (count, cause) = (flight.records.len() as u64, cause.clone());
            self.failed.push_back(FailedAppends { first_ticket, count, cause });
        }
    }

    /// Publishes all batches up to `index`, or to the last one here. They need not be durable here, nor written. A
    /// [poisoned](CommitLog::poisoned) log publishes nothing more.
    pub fn commit_to(&mut self, index: BatchIndex) {
        self.check_rule();
        if self.poison.is_some() {
            return;
        }
        self.commit(self.pipeline.batches_up_to(index));
        self.retire();
    }

    /// Up to here batches count as stored on this node: synced, or with asynchronous durability written.
    #[must_use]
    pub fn persisted_index(&self) -> BatchIndex {
        match self.config.durability {
            Durability::Sync => self.durable_index(),
            Durability::Async { .. } => {
                self.pipeline.written_tip().map_or(self.settled.index, |tip| tip.index)
            }
        }
    }

    /// Up to here batches are synced.
    #[must_use]
    pub fn durable_index(&self) -> BatchIndex {
        self.pipeline.durable_tip().map_or(self.settled.index, |tip| tip.index)
    }

    /// Up to here batches are published.
    #[must_use]
    pub fn committed_index(&self) -> BatchIndex {
        self.pipeline.committed_tip().map_or(self.settled.index, |tip| tip.index)
    }

    /// The last batch that is both committed and durable here, and one past its last byte: up to there the files tell all.
    #[must_use]
    pub fn settled(&self) -> (BatchIndex, LogOffset) {
        (self.settled.index, self.settled.end)
    }

    /// Of the last batch.
    #[must_use]
    pub fn last_term(&self) -> Term {
        self.last_term
    }

    /// Of the oldest batch that is there, or would be.
    #[must_use]
    pub fn first_index(&self) -> BatchIndex {
        self.before_first().index.next()
    }

    /// What lies in front of the oldest batch.
    #[must_use]
    pub fn before_first(&self) -> LogStart {
        self.group.terms.start()
    }

    /// Base of the segment in front of the log, if its index is still there.
    #[must_use]
    pub fn boundary(&self) -> Option<LogOffset> {
        self.archive.boundary()
    }

    /// Of a batch that is there, or of the one in front of the oldest.
    #[must_use]
    pub fn term_of(&self, index: BatchIndex) -> Option<Term> {
        self.group.terms.term_of(index).filter(|_| index <= self.last_index)
    }

    /// Bytes of the batches that are not committed.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> u64 {
        self.pipeline.uncommitted_bytes()
    }

    /// Since when, as [`poll_op`](CommitLog::poll_op) saw it, batches have waited to be
    /// [persisted](CommitLog::persisted_index) and none was.
    #[must_use]
    pub fn oldest_unpersisted_since_ms(&self) -> Option<i64> {
        let (oldest, since_ms) = self.group.unpersisted?;
        (oldest > self.persisted_index() && oldest <= self.last_index).then_some(since_ms)
    }

    pub(super) fn watch_persisting(&mut self, now_ms: i64) {
        let oldest = self.persisted_index().next();
        if oldest > self.last_index {
            self.group.unpersisted = None;
        } else if self.group.unpersisted.is_none_or(|(known, _)| known != oldest) {
            self.group.unpersisted = Some((oldest, now_ms));
        }
    }

    /// While paused nothing is asked of the disk: in front of a [reset](CommitLog::reset).
    pub fn pause(&mut self, paused: bool) {
        self.check_rule();
        self.group.is_paused = paused;
    }

    /// Nothing that was asked of the disk waits for its answer.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        !self.pipeline.is_busy() && !self.segments.is_busy() && !self.archive.is_busy()
    }

    /// Goes on as the log that was begun anew behind a checkpoint; it follows, and is no longer paused. Tickets that had no
    /// end yet fail, all else that was told or is still to be taken stays as it is.
    ///
    /// # Panics
    /// If the log is not [at rest](CommitLog::is_at_rest).
    pub fn reset(&mut self, done: &ResetDone) {
        self.check_rule();
        assert!(self.is_at_rest(), "begun anew while the disk is at work");
        self.follow();
        if self.poison.is_none() {
            for (first_ticket, count) in self.pipeline.uncommitted_tickets() {
                self.failed.push_back(FailedAppends { first_ticket, count, cause: FailureCause::BegunAnew });
            }
        }
        let mut queues = Queues::default();
        done.queue_ends.iter().for_each(|(queue, end)| queues.restore(*queue, *end, *end));
        let start = done.state.log_start;
        let LogStart { index, term, base_offset } = start;
        let restored = Restored {
            segments: Vec::new(),
            end: base_offset,
            last_index: index,
            last_term: term,
            greatest_term: term,
            last_store_time_ms: done.last_store_time_ms,
            queues,
            unsealed: Unsealed::default(),
            archive: RestoredArchive {
                boundary: done.boundary.as_ref().map(|boundary| boundary.summary().segment.base),
                snapshots: done.snapshot.into_iter().collect(),
                ..RestoredArchive::default()
            },
            start,
            term_runs: Vec::new(),
            uncommitted: Vec::new(),
        };
        let anew = CommitLog::with(self.config.clone(), restored, term);
        let before = std::mem::replace(self, anew);
        self.take_over(before);
    }

    fn check_rule(&self) {
        assert_eq!(self.config.commit_rule, CommitRule::Group, "the log belongs to no group");
    }
}
