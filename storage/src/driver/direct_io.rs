//! Whether a directory's file system takes direct I/O in blocks of ours.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::aligned::AlignedBuffer;
use crate::format::BLOCK_LEN;

#[derive(Debug, thiserror::Error)]
pub enum DirectIoError {
    #[error(
        "{directory} is on {file_system}, which does not take direct I/O in blocks of {BLOCK_LEN} bytes ({error}); \
         put the data on ext4 or xfs"
    )]
    Unsupported { directory: String, file_system: String, error: io::Error },
    #[error("{directory}: {error}")]
    Io { directory: String, error: io::Error },
}

/// Tries one direct write and read in `directory`.
pub fn check_direct_io(directory: &Path) -> Result<(), DirectIoError> {
    let probe = directory.join(format!("direct-io.{}.tmp", std::process::id()));
    let tried = try_direct_io(&probe);
    let removed = fs::remove_file(&probe);
    let directory_name = directory.display().to_string();
    match (tried, removed) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(error), _) if error.raw_os_error() == Some(libc::EINVAL) => Err(DirectIoError::Unsupported {
            file_system: file_system_name(directory),
            directory: directory_name,
            error,
        }),
        (Err(error), _) | (_, Err(error)) => Err(DirectIoError::Io { directory: directory_name, error }),
    }
}

fn try_direct_io(path: &Path) -> io::Result<()> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
    let file = options.open(path)?;
    let mut block = AlignedBuffer::zeroed(BLOCK_LEN);
    file.write_all_at(block.as_ref(), 0)?;
    file.read_exact_at(block.as_mut(), 0)
}

/// A file system's name for people; its number where the name is not known.
pub(super) fn file_system_name(directory: &Path) -> String {
    const NAMES: [(i64, &str); 8] = [
        (0xef53, "ext4"),
        (0x5846_5342, "xfs"),
        (0x0102_1994, "tmpfs"),
        (0x9123_683e, "btrfs"),
        (0x794c_7630, "overlayfs"),
        (0x6969, "nfs"),
        (0x2fc1_2fc1, "zfs"),
        (0x6573_5546, "fuse"),
    ];
    let Ok(file) = File::open(directory) else { return "an unknown file system".to_owned() };
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open and `stat` has room for the answer.
    if unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return "an unknown file system".to_owned();
    }
    // SAFETY: the call succeeded, so it has filled `stat`.
    let magic = unsafe { stat.assume_init() }.f_type;
    match NAMES.iter().find(|(number, _)| *number == magic) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("a file system of type {magic:#x}"),
    }
}
