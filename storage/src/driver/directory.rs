//! The directory of one shard: locked and identified, and its files ready to be read.
//!
//! ```text
//! shard-3/
//!   lock        held as long as a process has the shard open
//!   identity    whose data this is
//!   log/        segments and their indexes
//!   state/      snapshots
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashSet;

use super::direct_io::file_system_name;
use super::files::LogFiles;
use super::identity::{Identity, IdentityError};
use crate::format::BLOCK_LEN;
use crate::source::{LogFile, LogSource as _};

/// A shard's directory, ours alone while this value lives.
#[derive(Debug)]
pub struct ShardDirectory {
    path: PathBuf,
    files: LogFiles,
    /// Goes last.
    _lock: Lock,
}

/// What keeps others out of a directory.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    /// Closing the file is not enough: a process that another thread is starting has a copy of it, and with it the lock, until it runs
    /// its program.
    fn drop(&mut self) {
        // Nothing could be done about it, and the lock goes with the last copy then.
        let _ = self.0.unlock();
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
    #[error("{path} is in use by another process{holder}")]
    Locked { path: String, holder: String },
    /// It was mounted so, or the kernel made it so after a disk error.
    #[error(
        "{path} is on a read-only file system ({file_system}); if it was not mounted so, the kernel's log says why"
    )]
    ReadOnly { path: String, file_system: String },
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl ShardDirectory {
    /// Opens or makes the directory of one shard. Refused while another process has it open, and if it holds the data
    /// of another shard. Takes away what a killed process left unfinished.
    pub fn open(path: &Path, identity: &Identity) -> Result<ShardDirectory, DirectoryError> {
        let files = LogFiles::new(path);
        for made in [files.log_path(), files.state_path()] {
            fs::create_dir_all(made).map_err(|error| failed(made, error))?;
        }
        let lock = lock(path)?;
        identity.claim(path)?;
        let directory = ShardDirectory { path: path.to_owned(), files, _lock: lock };
        let tidied = directory.files.remove_unfinished().and_then(|()| directory.await_direct_writes());
        tidied.map_err(|error| failed(path, error))?;
        sync_directory(path).map_err(|error| failed(path, error))?;
        Ok(directory)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is read at the opening.
    #[must_use]
    pub fn files(&self) -> &LogFiles {
        &self.files
    }

    /// Waits for what a killed process may have left in the kernel: its direct writes go on after its locks are gone,
    /// and one that landed after recovery would overwrite newer data. File systems that do direct I/O let them end
    /// before they allocate; allocating what is allocated changes nothing.
    ///
    /// A segment that has an index was durable before that was begun, so nothing is on its way to it. What remains are
    /// the few newest segments, however many there are.
    fn await_direct_writes(&self) -> io::Result<()> {
        let sealed: FxHashSet<_> = self.files.indexes()?.into_iter().collect();
        for segment in self.files.segments()?.iter().filter(|segment| !sealed.contains(&segment.base)) {
            let path = self.files.path(LogFile::Segment(segment.base));
            let file = File::options().write(true).open(path)?;
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
}

fn failed(path: &Path, error: io::Error) -> DirectoryError {
    let (path, name) = (path.ancestors().find(|ancestor| ancestor.exists()), path.display().to_string());
    match path {
        Some(path) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            DirectoryError::ReadOnly { path: name, file_system: file_system_name(path) }
        }
        _ => DirectoryError::Io { path: name, error },
    }
}

fn lock(directory: &Path) -> Result<Lock, DirectoryError> {
    let path = directory.join("lock");
    let failed = |error| failed(&path, error);
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(failed)?;
            writeln!(file, "{}", std::process::id()).map_err(failed)?;
            Ok(Lock(file))
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
