//! What consensus needs of a log, and no more.

use apogee_storage::format::{BatchKind, RawBatch};
use apogee_storage::{
    AppendRefused, BatchIndex, Batches, Buffer, CommitLog, ForeignBatch, ForeignRefused, GroupId, LogStart,
    Record, Run, SealedBatch, Term,
};

/// The log of a group, as [`CommitLog`] documents each call.
pub trait GroupLog<B> {
    fn group(&self) -> GroupId;
    fn lead(&mut self, term: Term);
    fn follow(&mut self);
    fn is_leading(&self) -> bool;
    fn hold_sealing(&mut self, hold: bool);
    fn seal_noop(
        &mut self,
        now_ms: i64,
        alloc: &mut dyn FnMut(usize) -> B,
    ) -> Result<BatchIndex, AppendRefused>;
    fn seal_configuration(
        &mut self,
        body: &[u8],
        now_ms: i64,
        alloc: &mut dyn FnMut(usize) -> B,
    ) -> Result<BatchIndex, AppendRefused>;
    /// The body of a batch that changes the members, if it is one and in memory, as all that is uncommitted is.
    fn configuration_at(&self, index: BatchIndex) -> Option<Vec<u8>>;
    fn durable_index(&self) -> BatchIndex;
    fn take_sealed(&mut self) -> Option<SealedBatch<B>>;
    fn append_foreign(&mut self, batch: ForeignBatch<B>) -> Result<(), ForeignRefused>;
    fn truncate_from(&mut self, index: BatchIndex);
    fn commit_to(&mut self, index: BatchIndex);
    fn persisted_index(&self) -> BatchIndex;
    fn committed_index(&self) -> BatchIndex;
    fn last_index(&self) -> BatchIndex;
    fn before_first(&self) -> LogStart;
    fn term_of(&self, index: BatchIndex) -> Option<Term>;
    fn batches_from(&self, index: BatchIndex, bytes_max: u64, count_max: usize) -> Batches<B>;
    fn staged_bytes(&self) -> u64;
    fn uncommitted_bytes(&self) -> u64;
    fn oldest_unpersisted_since_ms(&self) -> Option<i64>;
    /// Why the log takes nothing any more, if so.
    fn poisoned(&self) -> Option<String>;
    fn pause(&mut self, paused: bool);
    fn is_at_rest(&self) -> bool;
}

impl<B: Buffer, R: Record> GroupLog<B> for CommitLog<B, R> {
    fn group(&self) -> GroupId {
        self.config().group
    }
    fn lead(&mut self, term: Term) {
        self.lead(term);
    }
    fn follow(&mut self) {
        self.follow();
    }
    fn is_leading(&self) -> bool {
        self.is_leading()
    }
    fn hold_sealing(&mut self, hold: bool) {
        self.hold_sealing(hold);
    }
    fn seal_noop(
        &mut self,
        now_ms: i64,
        alloc: &mut dyn FnMut(usize) -> B,
    ) -> Result<BatchIndex, AppendRefused> {
        self.seal_noop(now_ms, alloc)
    }
    fn seal_configuration(
        &mut self,
        body: &[u8],
        now_ms: i64,
        alloc: &mut dyn FnMut(usize) -> B,
    ) -> Result<BatchIndex, AppendRefused> {
        self.seal_configuration(body, now_ms, alloc)
    }
    fn configuration_at(&self, index: BatchIndex) -> Option<Vec<u8>> {
        let place = self.batch_at(index).ok()??;
        match (place.kind, place.run) {
            (Some(BatchKind::Configuration), Run::Memory(run)) => configuration_body(run.as_ref()),
            _ => None,
        }
    }
    fn durable_index(&self) -> BatchIndex {
        self.durable_index()
    }
    fn take_sealed(&mut self) -> Option<SealedBatch<B>> {
        self.take_sealed()
    }
    fn append_foreign(&mut self, batch: ForeignBatch<B>) -> Result<(), ForeignRefused> {
        self.append_foreign(batch)
    }
    fn truncate_from(&mut self, index: BatchIndex) {
        self.truncate_from(index);
    }
    fn commit_to(&mut self, index: BatchIndex) {
        self.commit_to(index);
    }
    fn persisted_index(&self) -> BatchIndex {
        self.persisted_index()
    }
    fn committed_index(&self) -> BatchIndex {
        self.committed_index()
    }
    fn last_index(&self) -> BatchIndex {
        self.last_index()
    }
    fn before_first(&self) -> LogStart {
        self.before_first()
    }
    fn term_of(&self, index: BatchIndex) -> Option<Term> {
        self.term_of(index)
    }
    fn batches_from(&self, index: BatchIndex, bytes_max: u64, count_max: usize) -> Batches<B> {
        self.batches_from(index, bytes_max, count_max)
    }
    fn staged_bytes(&self) -> u64 {
        self.staged_bytes()
    }
    fn uncommitted_bytes(&self) -> u64 {
        self.uncommitted_bytes()
    }
    fn oldest_unpersisted_since_ms(&self) -> Option<i64> {
        self.oldest_unpersisted_since_ms()
    }
    fn poisoned(&self) -> Option<String> {
        self.poisoned().map(ToString::to_string)
    }
    fn pause(&mut self, paused: bool) {
        self.pause(paused);
    }
    fn is_at_rest(&self) -> bool {
        self.is_at_rest()
    }
}

/// The body of a whole batch that changes the members: its only record.
pub(super) fn configuration_body(batch: &[u8]) -> Option<Vec<u8>> {
    let batch = RawBatch(batch).verify().ok()?;
    batch.entries().next().map(|entry| entry.record.to_vec())
}
