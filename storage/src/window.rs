//! Reading one segment front to back in large pieces.

use std::io;

use crate::disk::SegmentInfo;
use crate::format::BLOCK_LEN;
use crate::source::LogSource;

/// Read at once when the disk is asked.
const READ_BYTES: u64 = 1 << 20;

/// A piece of a segment in memory, moved forward as it is asked for.
pub(crate) struct Window<'a, S: ?Sized> {
    source: &'a S,
    segment: SegmentInfo,
    begin: u64,
    bytes: Vec<u8>,
}

impl<'a, S: LogSource + ?Sized> Window<'a, S> {
    pub(crate) fn new(source: &'a S, segment: SegmentInfo) -> Self {
        Window { source, segment, begin: 0, bytes: Vec::new() }
    }

    pub(crate) fn segment(&self) -> SegmentInfo {
        self.segment
    }

    /// `len` bytes at `position`, or all up to the segment's end if those are fewer.
    pub(crate) fn read(&mut self, position: u64, len: u64) -> io::Result<&[u8]> {
        let end = position.saturating_add(len).min(self.segment.bytes);
        let held = self.begin..self.begin + self.bytes.len() as u64;
        if position < held.start || end > held.end {
            let upto = end.max(position.saturating_add(READ_BYTES)).min(self.segment.bytes);
            self.bytes.resize((upto - position) as usize, 0);
            self.source.read_at(self.segment.base, position, &mut self.bytes)?;
            self.begin = position;
        }
        Ok(&self.bytes[(position - self.begin) as usize..(end - self.begin) as usize])
    }

    /// The first block at `position`; empty at the segment's end.
    pub(crate) fn block(&mut self, position: u64) -> io::Result<&[u8]> {
        self.read(position, BLOCK_LEN as u64)
    }
}
