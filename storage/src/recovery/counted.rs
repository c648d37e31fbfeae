//! How much an opening reads.

use std::cell::Cell;
use std::io;
use std::sync::Arc;

use crate::disk::SegmentInfo;
use crate::group_state::SLOT_LEN;
use crate::source::{IndexBytes, LogFile, LogSource};
use crate::types::LogOffset;

/// A source that counts what is read of its segments and snapshots.
pub(super) struct Counted<'a, S: ?Sized> {
    source: &'a S,
    bytes: Cell<u64>,
}

impl<'a, S: LogSource + ?Sized> Counted<'a, S> {
    pub(super) fn new(source: &'a S) -> Self {
        Counted { source, bytes: Cell::new(0) }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    fn count(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }
}

impl<S: LogSource + ?Sized> LogSource for Counted<'_, S> {
    fn segments(&self) -> io::Result<Vec<SegmentInfo>> {
        self.source.segments()
    }

    fn read_at(&self, base: LogOffset, position: u64, out: &mut [u8]) -> io::Result<()> {
        self.count(out.len());
        self.source.read_at(base, position, out)
    }

    fn sync(&self, base: LogOffset) -> io::Result<()> {
        self.source.sync(base)
    }

    fn indexes(&self) -> io::Result<Vec<LogOffset>> {
        self.source.indexes()
    }

    fn map_index(&self, base: LogOffset) -> io::Result<Arc<dyn IndexBytes>> {
        self.source.map_index(base)
    }

    fn write_index(&self, base: LogOffset, bytes: &[u8]) -> io::Result<()> {
        self.source.write_index(base, bytes)
    }

    fn remove_index(&self, base: LogOffset) -> io::Result<()> {
        self.source.remove_index(base)
    }

    fn snapshots(&self) -> io::Result<Vec<LogOffset>> {
        self.source.snapshots()
    }

    fn read_snapshot(&self, at: LogOffset) -> io::Result<Vec<u8>> {
        let bytes = self.source.read_snapshot(at)?;
        self.count(bytes.len());
        Ok(bytes)
    }

    fn write_snapshot(&self, at: LogOffset, bytes: &[u8]) -> io::Result<()> {
        self.source.write_snapshot(at, bytes)
    }

    fn remove_snapshot(&self, at: LogOffset) -> io::Result<()> {
        self.source.remove_snapshot(at)
    }

    fn read_group_slots(&self) -> io::Result<Option<Vec<u8>>> {
        self.source.read_group_slots()
    }

    fn write_group_slot(&self, slot: u32, bytes: &[u8; SLOT_LEN]) -> io::Result<()> {
        self.source.write_group_slot(slot, bytes)
    }

    fn read_checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        self.source.read_checkpoint()
    }

    fn write_checkpoint(&self, bytes: &[u8]) -> io::Result<()> {
        self.source.write_checkpoint(bytes)
    }

    fn remove_checkpoint(&self) -> io::Result<()> {
        self.source.remove_checkpoint()
    }

    fn remove_segment(&self, base: LogOffset) -> io::Result<()> {
        self.source.remove_segment(base)
    }

    fn name(&self, file: LogFile) -> String {
        self.source.name(file)
    }
}
