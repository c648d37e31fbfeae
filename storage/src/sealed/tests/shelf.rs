//! The files of a log in memory, which anybody may look into and damage; knows what was read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::disk::SegmentInfo;
use crate::source::{IndexBytes, LogFile, LogSource};
use crate::types::LogOffset;

#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) segments: RefCell<BTreeMap<LogOffset, Vec<u8>>>,
    pub(crate) indexes: RefCell<BTreeMap<LogOffset, Vec<u8>>>,
    pub(crate) snapshots: RefCell<BTreeMap<LogOffset, Vec<u8>>>,
    /// Position and length of each read of a segment.
    pub(crate) reads: RefCell<Vec<(u64, usize)>>,
}

impl Shelf {
    /// Turns one bit of a segment over.
    pub(crate) fn flip(&self, base: LogOffset, position: u64) {
        self.segments.borrow_mut().get_mut(&base).unwrap()[position as usize] ^= 1;
    }
}

fn get(files: &RefCell<BTreeMap<LogOffset, Vec<u8>>>, offset: LogOffset) -> io::Result<Vec<u8>> {
    Ok(files.borrow().get(&offset).ok_or(io::ErrorKind::NotFound)?.clone())
}

fn remove(files: &RefCell<BTreeMap<LogOffset, Vec<u8>>>, offset: LogOffset) -> io::Result<()> {
    files.borrow_mut().remove(&offset).ok_or(io::ErrorKind::NotFound)?;
    Ok(())
}

impl LogSource for Shelf {
    fn segments(&self) -> io::Result<Vec<SegmentInfo>> {
        let segments = self.segments.borrow();
        Ok(segments
            .iter()
            .map(|(base, bytes)| SegmentInfo { base: *base, bytes: bytes.len() as u64 })
            .collect())
    }

    fn read_at(&self, base: LogOffset, position: u64, out: &mut [u8]) -> io::Result<()> {
        self.reads.borrow_mut().push((position, out.len()));
        let segments = self.segments.borrow();
        let bytes = segments.get(&base).ok_or(io::ErrorKind::NotFound)?;
        let end = position as usize + out.len();
        out.copy_from_slice(bytes.get(position as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sync(&self, _base: LogOffset) -> io::Result<()> {
        Ok(())
    }

    fn indexes(&self) -> io::Result<Vec<LogOffset>> {
        Ok(self.indexes.borrow().keys().copied().collect())
    }

    fn map_index(&self, base: LogOffset) -> io::Result<Arc<dyn IndexBytes>> {
        Ok(Arc::new(get(&self.indexes, base)?))
    }

    fn write_index(&self, base: LogOffset, bytes: &[u8]) -> io::Result<()> {
        self.indexes.borrow_mut().insert(base, bytes.to_vec());
        Ok(())
    }

    fn remove_index(&self, base: LogOffset) -> io::Result<()> {
        remove(&self.indexes, base)
    }

    fn snapshots(&self) -> io::Result<Vec<LogOffset>> {
        Ok(self.snapshots.borrow().keys().copied().collect())
    }

    fn read_snapshot(&self, at: LogOffset) -> io::Result<Vec<u8>> {
        get(&self.snapshots, at)
    }

    fn write_snapshot(&self, at: LogOffset, bytes: &[u8]) -> io::Result<()> {
        self.snapshots.borrow_mut().insert(at, bytes.to_vec());
        Ok(())
    }

    fn remove_snapshot(&self, at: LogOffset) -> io::Result<()> {
        remove(&self.snapshots, at)
    }

    fn read_group_slots(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn write_group_slot(&self, _slot: u32, _bytes: &[u8; 4096]) -> io::Result<()> {
        unreachable!("the files are those of a log without a group")
    }

    fn read_checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn write_checkpoint(&self, _bytes: &[u8]) -> io::Result<()> {
        unreachable!("the files are those of a log without a group")
    }

    fn remove_checkpoint(&self) -> io::Result<()> {
        unreachable!("the files are those of a log without a group")
    }

    fn remove_segment(&self, base: LogOffset) -> io::Result<()> {
        remove(&self.segments, base)
    }

    fn name(&self, file: LogFile) -> String {
        file.file_name()
    }
}
