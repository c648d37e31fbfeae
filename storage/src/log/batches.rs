//! Batches by their indexes: what a leader sends to those who lack them.

use smallvec::SmallVec;

use super::CommitLog;
use super::read::Run;
use crate::disk::Buffer;
use crate::format::BatchKind;
use crate::record::Record;
use crate::sealed::IndexFault;
use crate::types::{BatchIndex, LogOffset, Term};

/// One batch of the log, and where its bytes are.
#[derive(Debug)]
pub struct BatchPlace<B> {
    pub index: BatchIndex,
    pub term: Term,
    pub base_offset: LogOffset,
    pub len: u32,
    /// Known while the batch is in memory.
    pub kind: Option<BatchKind>,
    pub run: Run<B>,
}

/// Batches one behind the other.
#[derive(Debug)]
pub struct Batches<B> {
    /// Of the batch in front of the first.
    pub prev_term: Term,
    /// Index of the first.
    pub first: BatchIndex,
    /// Term and bytes of each, in order.
    pub batches: Vec<(Term, u32)>,
    pub bytes: u64,
    /// All their bytes in order; what touches in one file is one run.
    pub runs: SmallVec<[Run<B>; 4]>,
    /// The list ends here because an index file could not be looked into; what is in it is good.
    pub fault: Option<IndexFault>,
}

impl<B: Buffer, R: Record> CommitLog<B, R> {
    /// Where a batch is; nothing if it has left or is not there yet.
    pub fn batch_at(&self, index: BatchIndex) -> Result<Option<BatchPlace<B>>, IndexFault> {
        let _ = index;
        todo!()
    }

    /// The batches from `index` on: at most `count_max`, and of more than one no more than `bytes_max` bytes. Empty if there
    /// is none.
    pub fn batches_from(&self, index: BatchIndex, bytes_max: u64, count_max: usize) -> Batches<B> {
        let _ = (index, bytes_max, count_max);
        todo!()
    }
}
