//! The newest committed batches, as the very buffers that were written.

use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

use crate::types::LogOffset;

#[derive(Debug)]
struct CachedBatch<B> {
    base: LogOffset,
    len: u32,
    buffer: Rc<B>,
}

/// Bounded by bytes; the oldest batch goes first. Batches that are not durable stay whatever the bound is: their buffers are
/// held for the disk anyway, and were a sync to fail, nobody would know what the file has in their place. A reader's run
/// keeps its buffer alive beyond that.
#[derive(Debug)]
pub(crate) struct TailCache<B> {
    batches: VecDeque<CachedBatch<B>>,
    bytes: u64,
    bytes_max: u64,
}

impl<B> TailCache<B> {
    pub(crate) fn new(bytes_max: u64) -> TailCache<B> {
        TailCache { batches: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn push(&mut self, base: LogOffset, len: u32, buffer: Rc<B>) {
        if let Some(last) = self.batches.back() {
            assert!(last.base < base, "batch at {base} cached behind {}", last.base);
        }
        self.bytes += u64::from(len);
        self.batches.push_back(CachedBatch { base, len, buffer });
    }

    /// Lets the oldest batches go that are too many; all up to `durable` are durable.
    pub(crate) fn shrink(&mut self, durable: LogOffset) {
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.batches.front().filter(|oldest| oldest.base < durable)
        {
            self.bytes -= u64::from(oldest.len);
            self.batches.pop_front();
        }
    }

    /// The buffer that holds `size` bytes from `offset` on, and where in it they stand.
    pub(crate) fn find(&self, offset: LogOffset, size: u32) -> Option<(&Rc<B>, Range<usize>)> {
        let batch = self.batch_of(offset)?;
        let begin = (offset.0 - batch.base.0) as usize;
        let end = begin + size as usize;
        (end <= batch.len as usize).then_some((&batch.buffer, begin..end))
    }

    /// The whole batch that covers `offset`.
    pub(crate) fn batch_at(&self, offset: LogOffset) -> Option<(&Rc<B>, u32)> {
        self.batch_of(offset).map(|batch| (&batch.buffer, batch.len))
    }

    fn batch_of(&self, offset: LogOffset) -> Option<&CachedBatch<B>> {
        let behind = self.batches.partition_point(|batch| batch.base <= offset);
        let batch = self.batches.get(behind.checked_sub(1)?)?;
        (offset.0 - batch.base.0 < u64::from(batch.len)).then_some(batch)
    }
}
