//! The files of the simulated disk, as the opening of a log and its background work use them.

use std::io;
use std::sync::Arc;

use super::disk::{SimDisk, State};
use super::faults::Failing;
use super::file::SECTOR_LEN;
use super::small::SmallFile;
use crate::disk::{DiskError, SegmentInfo};
use crate::group_state::{GROUP_FILE_LEN, SLOT_LEN};
use crate::source::{IndexBytes, LogFile, LogSource};
use crate::types::LogOffset;

impl State {
    /// One more call of the process.
    fn call(&mut self) -> io::Result<()> {
        match &mut self.calls_left {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the process is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    fn call_to_read(&mut self) -> io::Result<()> {
        self.call()?;
        if self.faults.happens(Failing::Reads) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    fn call_to_change(&mut self) -> io::Result<()> {
        self.call()?;
        if self.faults.read_only {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        if self.faults.happens(Failing::SmallFiles) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    /// Writes a small file as a whole.
    fn call_to_write(&mut self, bytes: &[u8]) -> io::Result<SmallFile> {
        self.call_to_change()?;
        let mut file = SmallFile::new(bytes);
        if let Err(DiskError::NoSpace { .. }) = self.check_space(file.bytes_on_disk(), 0) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        if std::mem::take(&mut self.faults.flip_small_file) {
            file.flip_bit(self.rng.next_u64());
        }
        Ok(file)
    }
}

impl LogSource for SimDisk {
    fn segments(&self) -> io::Result<Vec<SegmentInfo>> {
        let state = &mut *self.state.borrow_mut();
        state.call_to_read()?;
        let segments = state.segments.iter();
        Ok(segments.map(|(base, file)| SegmentInfo { base: *base, bytes: file.bytes() }).collect())
    }

    fn read_at(&self, base: LogOffset, position: u64, out: &mut [u8]) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.call_to_read()?;
        let file = state.segments.get(&base).ok_or(io::ErrorKind::NotFound)?;
        if position + out.len() as u64 > file.bytes() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.read(position, out);
        Ok(())
    }

    fn sync(&self, base: LogOffset) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.call()?;
        state.segments.get_mut(&base).ok_or(io::ErrorKind::NotFound)?.sync(u64::MAX);
        Ok(())
    }

    fn indexes(&self) -> io::Result<Vec<LogOffset>> {
        let state = &mut *self.state.borrow_mut();
        state.call_to_read()?;
        Ok(state.indexes.keys().copied().collect())
    }

    fn map_index(&self, base: LogOffset) -> io::Result<Arc<dyn IndexBytes>> {
        let state = &mut *self.state.borrow_mut();
        state.call_to_read()?;
        let file = state.indexes.get(&base).ok_or(io::ErrorKind::NotFound)?;
        let mapped = Arc::new(file.map(&mut state.rng, 100 - state.faults.cold_percent));
        state.mapped.retain(|mapped| mapped.strong_count() > 0);
        state.mapped.push(Arc::downgrade(&mapped));
        Ok(mapped)
    }

    fn write_index(&self, base: LogOffset, bytes: &[u8]) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        let file = state.call_to_write(bytes)?;
        state.indexes.insert(base, file);
        Ok(())
    }

    fn remove_index(&self, base: LogOffset) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.call_to_change()?;
        state.indexes.remove(&base).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn snapshots(&self) -> io::Result<Vec<LogOffset>> {
        let state = &mut *self.state.borrow_mut();
        state.call_to_read()?;
        Ok(state.snapshots.keys().copied().collect())
    }

    fn read_snapshot(&self, at: LogOffset) -> io::Result<Vec<u8>> {
        let state = &mut *self.state.borrow_mut();
        state.call_to_read()?;
        Ok(state.snapshots.get(&at).ok_or(io::ErrorKind::NotFound)?.bytes().to_vec())
    }

    fn write_snapshot(&self, at: LogOffset, bytes: &[u8]) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        let file = state.call_to_write(bytes)?;
        state.snapshots.insert(at, file);
        Ok(())
    }

    fn remove_snapshot(&self, at: LogOffset) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.call_to_change()?;
        state.snapshots.remove(&at).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn read_group_slots(&self) -> io::Result<Option<Vec<u8>>> {
        let state = &mut *self.state.borrow_mut();
        state.call_to_read()?;
        Ok(state.group.as_ref().map(|file| file.bytes().to_vec()))
    }

    fn write_group_slot(&self, slot: u32, bytes: &[u8; SLOT_LEN]) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        let position = slot as usize * SLOT_LEN;
        let is_last_call = state.calls_left == Some(1);
        let called = state.call_to_change();
        let Some(file) = &mut state.group else {
            called?;
            let mut file = SmallFile::new(&[0; GROUP_FILE_LEN]);
            file.overwrite(position, bytes);
            state.group = Some(file);
            return Ok(());
        };
        // What fails, or is the last that a process does, may have done any part of it.
        let is_torn =
            is_last_call || called.is_err() && state.calls_left != Some(0) && !state.faults.read_only;
        for (nth, sector) in bytes.chunks(SECTOR_LEN).enumerate() {
            if called.is_ok() && !is_torn || is_torn && state.rng.chance(50) {
                file.overwrite(position + nth * SECTOR_LEN, sector);
            }
        }
        if is_torn { called.and(Err(io::Error::other("the process is gone"))) } else { called }
    }

    fn read_checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        let state = &mut *self.state.borrow_mut();
        state.call_to_read()?;
        Ok(state.checkpoint.as_ref().map(|file| file.bytes().to_vec()))
    }

    fn write_checkpoint(&self, bytes: &[u8]) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.checkpoint = Some(state.call_to_write(bytes)?);
        Ok(())
    }

    fn remove_checkpoint(&self) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.call_to_change()?;
        state.checkpoint.take().ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn remove_segment(&self, base: LogOffset) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.call_to_change()?;
        state.segments.remove(&base).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn name(&self, file: LogFile) -> String {
        file.file_name()
    }
}
