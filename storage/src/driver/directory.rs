//! The directory of one shard: locked, identified, and its segments readable at the opening.
//!
//! ```text
//! shard-3/
//!   lock        held as long as a process has the shard open
//!   identity    whose data this is
//!   log/        segments
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::identity::{Identity, IdentityError};
use crate::disk::SegmentInfo;
use crate::format::BLOCK_LEN;
use crate::recovery::SegmentSource;
use crate::segment::{parse_segment_file_name, segment_file_name};
use crate::types::LogOffset;

/// A shard's directory, ours alone while this value lives.
#[derive(Debug)]
pub struct ShardDirectory {
    path: PathBuf,
    log: PathBuf,
    /// Its lock goes with it.
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
    #[error("{path} is in use by another process{holder}")]
    Locked { path: String, holder: String },
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl ShardDirectory {
    /// Opens or makes the directory of one shard. Refused while another process has it open, and if it holds the data
    /// of another shard.
    pub fn open(path: &Path, identity: &Identity) -> Result<ShardDirectory, DirectoryError> {
        let log = path.join("log");
        let failed = |path: &Path, error| DirectoryError::Io { path: path.display().to_string(), error };
        fs::create_dir_all(&log).map_err(|error| failed(&log, error))?;
        let lock = lock(path)?;
        identity.claim(path)?;
        let directory = ShardDirectory { path: path.to_owned(), log, _lock: lock };
        directory.remove_unfinished().map_err(|error| failed(&directory.log, error))?;
        directory.await_direct_writes().map_err(|error| failed(&directory.log, error))?;
        sync_directory(path).map_err(|error| failed(path, error))?;
        Ok(directory)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the segments are.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What preparations and probes left that did not come to their end.
    fn remove_unfinished(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.log)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(unfinished) = name.to_str().and_then(|name| name.strip_suffix(".tmp")) else { continue };
            if parse_segment_file_name(unfinished).is_some() || unfinished.starts_with("probe.") {
                fs::remove_file(entry.path())?;
            }
        }
        sync_directory(&self.log)
    }

    /// Waits for what a killed process may have left in the kernel: its direct writes go on after its locks are gone,
    /// and one that landed after recovery would overwrite newer data. File systems that do direct I/O let them end
    /// before they allocate; allocating what is allocated changes nothing.
    fn await_direct_writes(&self) -> io::Result<()> {
        for segment in self.segments()? {
            let file = File::options().write(true).open(self.segment_path(segment.base))?;
            // SAFETY: a plain system call on a descriptor that `file` keeps open.
            let done = unsafe {
                libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, BLOCK_LEN as libc::off_t)
            };
            let error = io::Error::last_os_error();
            if done != 0 && error.raw_os_error() != Some(libc::EOPNOTSUPP) {
                return Err(error);
            }
        }
        Ok(())
    }

    fn segment_path(&self, base: LogOffset) -> PathBuf {
        self.log.join(segment_file_name(base))
    }
}

fn lock(directory: &Path) -> Result<File, DirectoryError> {
    let path = directory.join("lock");
    let failed = |error| DirectoryError::Io { path: path.display().to_string(), error };
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(failed)?;
            writeln!(file, "{}", std::process::id()).map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only to be helpful; the holder may be about to write it.
            let known = (&mut file).take(32).read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
            let holder = if known { format!(" (pid {})", pid.trim()) } else { String::new() };
            Err(DirectoryError::Locked { path: directory.display().to_string(), holder })
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

impl SegmentSource for ShardDirectory {
    fn segments(&self) -> io::Result<Vec<SegmentInfo>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.log)? {
            let entry = entry?;
            let Some(base) = entry.file_name().to_str().and_then(parse_segment_file_name) else { continue };
            segments.push(SegmentInfo { base, bytes: entry.metadata()?.size() });
        }
        Ok(segments)
    }

    fn read_at(&self, base: LogOffset, position: u64, out: &mut [u8]) -> io::Result<()> {
        File::open(self.segment_path(base))?.read_exact_at(out, position)
    }

    fn sync(&self, base: LogOffset) -> io::Result<()> {
        let file = File::open(self.segment_path(base))?;
        file.sync_data()?;
        // Reading went through the page cache; from now on all goes past it.
        // SAFETY: a plain system call on a descriptor that lives until the end of this function.
        let advised = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        if advised == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(advised)) }
    }

    fn name(&self, base: LogOffset) -> String {
        self.segment_path(base).display().to_string()
    }
}
