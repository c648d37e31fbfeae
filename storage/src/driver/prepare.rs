//! Making a segment: zeros on the disk, durable, then the name. Blocking; runs on the blocking pool.
//!
//! Written zeros, not an allocation alone: the first write to merely allocated blocks changes the file's metadata,
//! and each sync then costs a journal commit.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::directory::sync_directory;
use crate::aligned::AlignedBuffer;
use crate::disk::{DiskError, SegmentInfo};
use crate::segment::segment_file_name;

/// Zeros written at once.
const ZERO_BYTES: usize = 1 << 20;

/// Makes `segment` in `directory`, leaving at least `reserve_bytes` of the file system free.
pub(super) fn prepare_segment(
    directory: &Path,
    segment: SegmentInfo,
    reserve_bytes: u64,
) -> Result<(), DiskError> {
    let place = directory.display().to_string();
    let failed = |action: &str| {
        let action = format!("{action} segment {} in {place}", segment.base);
        move |error: io::Error| DiskError::io(action.clone(), &error)
    };
    let free_bytes = free_bytes(directory).map_err(failed("make room for"))?;
    if free_bytes < segment.bytes.saturating_add(reserve_bytes) {
        return Err(DiskError::NoSpace { place, needed_bytes: segment.bytes, free_bytes, reserve_bytes });
    }
    let name = segment_file_name(segment.base);
    let unfinished = directory.join(format!("{name}.tmp"));
    let made = write_zeros(&unfinished, segment.bytes);
    if made.is_err() {
        // The space is better given back; if even that fails, the next opening does it.
        let _ = fs::remove_file(&unfinished);
    }
    made.map_err(failed("write"))?;
    fs::rename(&unfinished, directory.join(&name)).map_err(failed("name"))?;
    sync_directory(directory).map_err(failed("make durable the name of"))
}

fn write_zeros(path: &Path, bytes: u64) -> io::Result<()> {
    let file =
        File::options().write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT).open(path)?;
    let length = i64::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: a plain system call on a descriptor that `file` keeps open.
    let allocated = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) };
    if allocated != 0 {
        return Err(io::Error::from_raw_os_error(allocated));
    }
    let zeros = AlignedBuffer::zeroed(ZERO_BYTES);
    let mut position = 0;
    while position < bytes {
        let piece = (bytes - position).min(ZERO_BYTES as u64);
        file.write_all_at(&zeros.as_ref()[..piece as usize], position)?;
        position += piece;
    }
    file.sync_all()
}

fn free_bytes(directory: &Path) -> io::Result<u64> {
    let file = File::open(directory)?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open and `stat` has room for the answer.
    if unsafe { libc::fstatvfs(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled `stat`.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_bavail * stat.f_frsize)
}
