//! Batches by their indexes: what a leader sends to those who lack them.

use std::rc::Rc;

use smallvec::SmallVec;

use super::CommitLog;
use super::read::{MemoryRun, Run};
use crate::disk::Buffer;
use crate::format::{BatchKind, RawHeader};
use crate::record::Record;
use crate::sealed::{Access, IndexFault};
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
        if index < self.first_index() || index > self.last_index {
            return Ok(None);
        }
        let term = self.term_of(index).expect("each batch has a term");
        if let Some(flight) = self.pipeline.get(index) {
            let run =
                Run::Memory(MemoryRun { buffer: Rc::clone(&flight.buffer), range: 0..flight.len as usize });
            let (base_offset, len, kind) = (flight.base, flight.len, Some(flight.kind));
            return Ok(Some(BatchPlace { index, term, base_offset, len, kind, run }));
        }
        let (base_offset, len) = match self.unsealed.batch(index) {
            Some(place) => place,
            None => self.sealed_from(index)?.next().expect("a page is asked for by its rows"),
        };
        let run = self.run_of_batch(base_offset, len);
        let kind = match &run {
            Run::Memory(run) => {
                Some(RawHeader(run.as_ref()).verify().expect("as it was written").batch_kind())
            }
            Run::File(_) => None,
        };
        Ok(Some(BatchPlace { index, term, base_offset, len, kind, run }))
    }

    /// The batches from `index` on: at most `count_max`, and of more than one no more than `bytes_max` bytes. Empty if there
    /// is none, or with a fault.
    pub fn batches_from(&self, index: BatchIndex, bytes_max: u64, count_max: usize) -> Batches<B> {
        let prev_term = index.0.checked_sub(1).and_then(|before| self.term_of(BatchIndex(before)));
        let mut batches = Batches {
            prev_term: prev_term.unwrap_or_default(),
            first: index,
            batches: Vec::new(),
            bytes: 0,
            runs: SmallVec::new(),
            fault: None,
        };
        let is_there = index >= self.first_index() && prev_term.is_some();
        let mut next = index;
        while is_there && next <= self.last_index && batches.batches.len() < count_max {
            let taken = if let Some(flight) = self.pipeline.get(next) {
                let run = MemoryRun { buffer: Rc::clone(&flight.buffer), range: 0..flight.len as usize };
                self.take(&mut batches, bytes_max, next, Run::Memory(run))
            } else if let Some((base, len)) = self.unsealed.batch(next) {
                self.take(&mut batches, bytes_max, next, self.run_of_batch(base, len))
            } else {
                match self.sealed_from(next) {
                    Ok(mut page) => {
                        page.by_ref().take(count_max - batches.batches.len()).all(|(base, len)| {
                            let index = BatchIndex(index.0 + batches.batches.len() as u64);
                            self.take(&mut batches, bytes_max, index, self.run_of_batch(base, len))
                        })
                    }
                    Err(fault) => {
                        batches.fault = Some(fault);
                        false
                    }
                }
            };
            if !taken {
                break;
            }
            next = BatchIndex(index.0 + batches.batches.len() as u64);
        }
        batches
    }

    /// Adds a batch to a list; tells whether it was not too much.
    fn take(&self, batches: &mut Batches<B>, bytes_max: u64, index: BatchIndex, run: Run<B>) -> bool {
        let bytes = run.bytes();
        if !batches.batches.is_empty() && batches.bytes + bytes > bytes_max {
            return false;
        }
        batches.batches.push((self.term_of(index).expect("each batch has a term"), bytes as u32));
        batches.bytes += bytes;
        if let (Some(Run::File(last)), Run::File(run)) = (batches.runs.last_mut(), &run)
            && last.segment == run.segment
            && last.position + u64::from(last.len) == run.position
            && let Some(len) = last.len.checked_add(run.len)
        {
            last.len = len;
        } else {
            batches.runs.push(run);
        }
        true
    }

    fn run_of_batch(&self, base: LogOffset, len: u32) -> Run<B> {
        match self.tail_cache.batch_at(base) {
            Some((buffer, len)) => {
                Run::Memory(MemoryRun { buffer: Rc::clone(buffer), range: 0..len as usize })
            }
            None => Run::File(self.segments.file_run(base, len)),
        }
    }

    /// Place and length of batches of a sealed segment, from `index` on, as far as one page of its index tells.
    fn sealed_from(
        &self,
        index: BatchIndex,
    ) -> Result<impl Iterator<Item = (LogOffset, u32)> + use<'_, B, R>, IndexFault> {
        let indexes = self.archive.indexes();
        let behind = indexes.partition_point(|sealed| sealed.summary().first_index <= index);
        let sealed = &indexes[behind.checked_sub(1).expect("the log begins with a segment's first batch")];
        let nth = index.0 - sealed.summary().first_index.0;
        sealed.view(Access::Resident).batches_from(nth as u32)
    }
}
