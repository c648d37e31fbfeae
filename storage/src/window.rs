//! Reading one segment front to back in pieces as large as the reader likes.

use std::io;

use crate::disk::SegmentInfo;
use crate::format::BLOCK_LEN;
use crate::source::LogSource;

/// Read at once when the disk is asked, unless the reader says otherwise.
const READ_BYTES: u64 = 1 << 20;

/// A piece of a segment in memory, moved forward as it is asked for.
pub(crate) struct Window<'a, S: ?Sized> {
    source: &'a S,
    segment: SegmentInfo,
    read_bytes: u64,
    begin: u64,
    bytes: Vec<u8>,
}

impl<'a, S: LogSource + ?Sized> Window<'a, S> {
    pub(crate) fn new(source: &'a S, segment: SegmentInfo) -> Self {
        Window { source, segment, read_bytes: READ_BYTES, begin: 0, bytes: Vec::new() }
    }

    pub(crate) fn segment(&self) -> SegmentInfo {
        self.segment
    }

    /// `len` bytes at `position`, or all up to the segment's end if those are fewer.
    pub(crate) fn read(&mut self, position: u64, len: u64) -> io::Result<&[u8]> {
        let end = position.saturating_add(len).min(self.segment.bytes);
        let held = self.begin..self.begin + self.bytes.len() as u64;
        if position < held.start || end > held.end {
            let upto = end.max(position.saturating_add(self.read_bytes)).min(self.segment.bytes);
            self.bytes.resize((upto - position) as usize, 0);
            self.source.read_at(self.segment.base, position, &mut self.bytes)?;
            self.begin = position;
        }
        Ok(&self.bytes[(position - self.begin) as usize..(end - self.begin) as usize])
    }

    /// Reads that much at once from now on when the disk is asked, or what is asked for if that is more.
    pub(crate) fn set_read_bytes(&mut self, bytes: u64) {
        self.read_bytes = bytes;
    }

    /// The first block at `position`; empty at the segment's end.
    pub(crate) fn block(&mut self, position: u64) -> io::Result<&[u8]> {
        self.read(position, BLOCK_LEN as u64)
    }
}
