//! Where each committed batch stands: 12 bytes a batch, so that any byte of the log leads to its batch.

use crate::types::LogOffset;

#[derive(Debug, Default)]
pub(crate) struct Batches {
    /// Ascending. There are never more than index entries and no-ops, so the index limit bounds this too.
    bases: Vec<u64>,
    lens: Vec<u32>,
}

impl Batches {
    pub(crate) fn push(&mut self, base: LogOffset, len: u32) {
        if let (Some(last), Some(last_len)) = (self.bases.last(), self.lens.last()) {
            assert!(last + u64::from(*last_len) <= base.0, "batch at {base} behind one at {last}");
        }
        self.bases.push(base.0);
        self.lens.push(len);
    }

    pub(crate) fn covering(&self, offset: LogOffset) -> Option<(LogOffset, u32)> {
        let nth = self.bases.partition_point(|base| *base <= offset.0).checked_sub(1)?;
        let (base, len) = (self.bases[nth], self.lens[nth]);
        (offset.0 - base < u64::from(len)).then_some((LogOffset(base), len))
    }
}
