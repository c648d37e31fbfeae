//! The files of one log in a real directory, read and written by blocking calls: at the opening, on the blocking pool,
//! in tools.

use std::fs::{self, File};
use std::io;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::directory::sync_directory;
use super::mapped::MappedIndex;
use crate::aligned::AlignedBuffer;
use crate::disk::SegmentInfo;
use crate::group_state::{GROUP_FILE_LEN, SLOT_LEN};
use crate::source::{IndexBytes, LogFile, LogSource};
use crate::types::LogOffset;

/// A log's files by their names. Cheap to clone; holds nothing open.
#[derive(Clone, Debug)]
pub struct LogFiles {
    /// Segments and their indexes.
    log: Arc<Path>,
    /// Snapshots.
    state: Arc<Path>,
    /// Appends go on meanwhile.
    beside_appends: bool,
}

impl LogFiles {
    /// The files of the shard whose directory is `shard`.
    #[must_use]
    pub fn new(shard: &Path) -> LogFiles {
        LogFiles { log: shard.join("log").into(), state: shard.join("state").into(), beside_appends: false }
    }

    /// For jobs that appends must not notice: a segment is read as asked for, without the kernel's readahead. With it (8 MiB
    /// at a time here) sealing held up every write and sync for 40 to 65 ms, and append p99.9 was 3.5 to 4 times what it
    /// is within a segment; without it is the same. An opening, beside which nothing goes on, takes half as long with it.
    pub(super) fn beside_appends(&self) -> LogFiles {
        LogFiles { beside_appends: true, ..self.clone() }
    }

    /// Where segments and indexes are.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Where snapshots are.
    #[must_use]
    pub fn state_path(&self) -> &Path {
        &self.state
    }

    #[must_use]
    pub fn path(&self, file: LogFile) -> PathBuf {
        let directory = match file {
            LogFile::Segment(_) | LogFile::Index(_) => &self.log,
            LogFile::Snapshot(_) | LogFile::GroupState | LogFile::Checkpoint => &self.state,
        };
        directory.join(file.file_name())
    }

    /// Removes what writing left that did not come to its end.
    pub(super) fn remove_unfinished(&self) -> io::Result<()> {
        for directory in [&self.log, &self.state] {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                let name = entry.file_name();
                let Some(unfinished) = name.to_str().and_then(|name| name.strip_suffix(".tmp")) else {
                    continue;
                };
                if LogFile::parse(unfinished).is_some() || unfinished.starts_with("probe.") {
                    fs::remove_file(entry.path())?;
                }
            }
            sync_directory(directory)?;
        }
        Ok(())
    }

    /// The files in a directory that have names of this log.
    fn list(&self, directory: &Path) -> io::Result<Vec<(LogFile, fs::DirEntry)>> {
        // Nobody else knows which directory it was.
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", directory.display()));
        let mut files = Vec::new();
        for entry in fs::read_dir(directory).map_err(named)? {
            let entry = entry.map_err(named)?;
            if let Some(file) = entry.file_name().to_str().and_then(LogFile::parse) {
                files.push((file, entry));
            }
        }
        Ok(files)
    }

    /// Whole and durable under its name, or not there.
    fn write(&self, file: LogFile, bytes: &[u8]) -> io::Result<()> {
        let finished = self.path(file);
        let unfinished = finished.with_added_extension("tmp");
        let written = (|| {
            let mut out = File::create(&unfinished)?;
            out.write_all(bytes)?;
            out.sync_all()?;
            fs::rename(&unfinished, &finished)
        })();
        if written.is_err() {
            // The space is better given back; if even that fails, the next opening does it.
            let _ = fs::remove_file(&unfinished);
        }
        written.and_then(|()| self.sync_names(file))
    }

    fn remove(&self, file: LogFile) -> io::Result<()> {
        fs::remove_file(self.path(file))?;
        self.sync_names(file)
    }

    /// Removes the file of a segment that left the log, if it is there, then the indexes of those before it.
    pub(super) fn remove_left(&self, segment: LogOffset) -> io::Result<()> {
        there(fs::remove_file(self.path(LogFile::Segment(segment))))?;
        for base in self.indexes()?.into_iter().filter(|base| *base < segment) {
            there(fs::remove_file(self.path(LogFile::Index(base))))?;
        }
        sync_directory(&self.log)
    }

    fn sync_names(&self, file: LogFile) -> io::Result<()> {
        let path = self.path(file);
        sync_directory(path.parent().expect("files of a log lie in a directory"))
    }
}

impl LogSource for LogFiles {
    fn segments(&self) -> io::Result<Vec<SegmentInfo>> {
        let mut segments = Vec::new();
        for (file, entry) in self.list(&self.log)? {
            let LogFile::Segment(base) = file else { continue };
            match entry.metadata() {
                Ok(metadata) => segments.push(SegmentInfo { base, bytes: metadata.size() }),
                // A tool may look at a running log, whose oldest segments leave.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(segments)
    }

    fn read_at(&self, base: LogOffset, position: u64, out: &mut [u8]) -> io::Result<()> {
        let file = File::open(self.path(LogFile::Segment(base)))?;
        if self.beside_appends {
            // SAFETY: a plain system call on a descriptor that `file` keeps open.
            let advised = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
            if advised != 0 {
                return Err(io::Error::from_raw_os_error(advised));
            }
        }
        file.read_exact_at(out, position)
    }

    fn sync(&self, base: LogOffset) -> io::Result<()> {
        let file = File::open(self.path(LogFile::Segment(base)))?;
        file.sync_data()?;
        // Reading went through the page cache; from now on all goes past it.
        // SAFETY: a plain system call on a descriptor that lives until the end of this function.
        let advised = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        if advised == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(advised)) }
    }

    fn indexes(&self) -> io::Result<Vec<LogOffset>> {
        let files = self.list(&self.log)?.into_iter();
        Ok(files
            .filter_map(|(file, _)| if let LogFile::Index(base) = file { Some(base) } else { None })
            .collect())
    }

    fn map_index(&self, base: LogOffset) -> io::Result<Arc<dyn IndexBytes>> {
        Ok(Arc::new(MappedIndex::open(&self.path(LogFile::Index(base)))?))
    }

    fn write_index(&self, base: LogOffset, bytes: &[u8]) -> io::Result<()> {
        self.write(LogFile::Index(base), bytes)
    }

    fn remove_index(&self, base: LogOffset) -> io::Result<()> {
        self.remove(LogFile::Index(base))
    }

    fn snapshots(&self) -> io::Result<Vec<LogOffset>> {
        let files = match self.list(&self.state) {
            // Made by the first opening; a tool may come before that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            files => files?.into_iter(),
        };
        Ok(files
            .filter_map(|(file, _)| if let LogFile::Snapshot(at) = file { Some(at) } else { None })
            .collect())
    }

    fn read_snapshot(&self, at: LogOffset) -> io::Result<Vec<u8>> {
        fs::read(self.path(LogFile::Snapshot(at)))
    }

    fn write_snapshot(&self, at: LogOffset, bytes: &[u8]) -> io::Result<()> {
        self.write(LogFile::Snapshot(at), bytes)
    }

    fn remove_snapshot(&self, at: LogOffset) -> io::Result<()> {
        self.remove(LogFile::Snapshot(at))
    }

    fn read_group_slots(&self) -> io::Result<Option<Vec<u8>>> {
        there(fs::read(self.path(LogFile::GroupState)))
    }

    fn write_group_slot(&self, slot: u32, bytes: &[u8; SLOT_LEN]) -> io::Result<()> {
        let position = slot as usize * SLOT_LEN;
        let mut options = File::options();
        // One write, durable when it returns, past the page cache: a slot is never written together with the other.
        options.write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC);
        let Some(file) = there(options.open(self.path(LogFile::GroupState)))? else {
            let mut slots = vec![0; GROUP_FILE_LEN];
            slots[position..position + SLOT_LEN].copy_from_slice(bytes);
            return self.write(LogFile::GroupState, &slots);
        };
        let mut buffer = AlignedBuffer::zeroed(SLOT_LEN);
        buffer.as_mut().copy_from_slice(bytes);
        file.write_all_at(buffer.as_ref(), position as u64)
    }

    fn read_checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        there(fs::read(self.path(LogFile::Checkpoint)))
    }

    fn write_checkpoint(&self, bytes: &[u8]) -> io::Result<()> {
        self.write(LogFile::Checkpoint, bytes)
    }

    fn remove_checkpoint(&self) -> io::Result<()> {
        self.remove(LogFile::Checkpoint)
    }

    fn remove_segment(&self, base: LogOffset) -> io::Result<()> {
        self.remove(LogFile::Segment(base))
    }

    fn name(&self, file: LogFile) -> String {
        self.path(file).display().to_string()
    }
}

/// What a call gave, unless the file is not there.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}
