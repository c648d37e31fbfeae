//! The log of a group: who may append to it, what is cut off, and how far the group has committed.

use std::rc::Rc;

use super::CommitLog;
use super::staging::AppendRefused;
use crate::disk::Buffer;
use crate::format::BatchKind;
use crate::record::Record;
use crate::types::{BatchIndex, LogOffset, LogStart, Term};

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

impl<B: Buffer, R: Record> CommitLog<B, R> {
    /// From now on appends are taken, and sealed under `term`.
    ///
    /// # Panics
    /// If `term` is not greater than that of the last batch.
    pub fn lead(&mut self, term: Term) {
        let _ = term;
        todo!()
    }

    /// From now on appends are refused. Records staged and not sealed fail, and so do batches that nobody has
    /// [taken](CommitLog::take_sealed); sealed ones keep their tickets: they are committed or cut off by the group.
    pub fn follow(&mut self) {
        todo!()
    }

    /// Whether appends are taken.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        todo!()
    }

    /// While held, staged records wait.
    pub fn hold_sealing(&mut self, hold: bool) {
        let _ = hold;
        todo!()
    }

    /// Seals a batch without records, in front of whatever is staged: the first of a leader's term. Gives its index. It is written
    /// by a later [`poll_op`](CommitLog::poll_op) and [taken](CommitLog::take_sealed) as all others.
    pub fn seal_noop(
        &mut self,
        now_ms: i64,
        alloc: impl FnOnce(usize) -> B,
    ) -> Result<BatchIndex, AppendRefused> {
        let _ = (now_ms, alloc);
        todo!()
    }

    /// Seals a change of the group's members, in front of whatever is staged. Gives its index.
    pub fn seal_configuration(
        &mut self,
        body: &[u8],
        now_ms: i64,
        alloc: impl FnOnce(usize) -> B,
    ) -> Result<BatchIndex, AppendRefused> {
        let _ = (body, now_ms, alloc);
        todo!()
    }

    /// The next batch sealed here, in order.
    pub fn take_sealed(&mut self) -> Option<SealedBatch<B>> {
        todo!()
    }

    /// Cuts off all batches from `index` on; their tickets fail. Nothing is erased, and writes on their way are waited for
    /// before their bytes are written anew.
    ///
    /// # Panics
    /// If a batch to be cut off is committed, or the log takes appends.
    pub fn truncate_from(&mut self, index: BatchIndex) {
        let _ = index;
        todo!()
    }

    /// Publishes all batches up to `index`, or to the last one here. They need not be durable here, nor written.
    pub fn commit_to(&mut self, index: BatchIndex) {
        let _ = index;
        todo!()
    }

    /// Up to here batches count as stored on this node: synced, or with asynchronous durability written.
    #[must_use]
    pub fn persisted_index(&self) -> BatchIndex {
        todo!()
    }

    /// Up to here batches are synced.
    #[must_use]
    pub fn durable_index(&self) -> BatchIndex {
        todo!()
    }

    /// Up to here batches are published.
    #[must_use]
    pub fn committed_index(&self) -> BatchIndex {
        todo!()
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
        todo!()
    }

    /// Of a batch that is there, or of the one in front of the oldest.
    #[must_use]
    pub fn term_of(&self, index: BatchIndex) -> Option<Term> {
        let _ = index;
        todo!()
    }

    /// Bytes of the batches that are not committed.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> u64 {
        todo!()
    }

    /// Since when, as [`poll_op`](CommitLog::poll_op) saw it, batches have waited to be
    /// [persisted](CommitLog::persisted_index) and none was.
    #[must_use]
    pub fn oldest_unpersisted_since_ms(&self) -> Option<i64> {
        todo!()
    }

    /// While paused nothing is asked of the disk: in front of a reset.
    pub fn pause(&mut self, paused: bool) {
        let _ = paused;
        todo!()
    }

    /// Nothing that was asked of the disk waits for its answer.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        todo!()
    }
}
