//! Making a segment: zeros on the disk, durable, then the name.
//!
//! Written zeros, not an allocation alone: the first write to merely allocated blocks changes the file's metadata,
//! and each sync then costs a journal commit.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::directory::sync_directory;
use super::files::LogFiles;
use super::pool::{blocking, blocking_or};
use crate::aligned::AlignedBuffer;
use crate::disk::{DiskError, SegmentInfo, Space};
use crate::source::LogFile;
use crate::types::LogOffset;

/// Zeros written at once. A write of the log waits behind the piece on its way: 0.4 ms here, 0.9 ms with 1 MiB. Smaller
/// ones cost more of a processor (s per GiB: 1.3 at 64 KiB, 0.3 at 256 KiB, 0.17 at 512 KiB, 0.14 at 1 MiB).
const PIECE_BYTES: usize = 512 << 10;

/// Rest after each piece when there is no hurry: some 50 MiB/s then, which appends do not notice.
const REST_MAX: Duration = Duration::from_millis(10);

/// Sleeps go by the millisecond; a shorter one is not worth the bother.
const REST_MIN: Duration = Duration::from_micros(500);

/// So far ahead of the plan a preparation is in no hurry at all.
const LEAD_BYTES: u64 = 32 << 20;

/// How full the segment is that is written to. A preparation at full speed takes the disk from the appends (the median
/// write and sync of 256 KiB: 0.54 ms alone, 0.6 beside 100 to 200 MB/s of zeros, 1.0 beside all the disk can take), and
/// a segment is needed only when the one before it is full. So the plan is to be twice as far as that one, and the
/// closer to the plan, the shorter the rests: the zeros come evenly, at twice the speed of the appends, not in bursts
/// that each sync would have to flush.
#[derive(Debug)]
pub(super) struct Fill {
    bytes: Cell<u64>,
    /// Nothing more is to be prepared: the process ends.
    is_stopped: Cell<bool>,
}

impl Fill {
    /// Nothing was written yet: for all that is known, the segment is needed at once.
    pub(super) fn unknown() -> Fill {
        Fill { bytes: Cell::new(u64::MAX), is_stopped: Cell::new(false) }
    }

    pub(super) fn set(&self, bytes: u64) {
        self.bytes.set(bytes);
    }

    /// A preparation under way ends after its piece, as failed.
    pub(super) fn stop(&self) {
        self.is_stopped.set(true);
    }

    /// How long to rest with so much of the new segment ready.
    fn rest(&self, zeroed: u64) -> Option<Duration> {
        let ahead = zeroed.saturating_sub(self.bytes.get().saturating_mul(2)).min(LEAD_BYTES);
        let rest = REST_MAX.mul_f64(ahead as f64 / LEAD_BYTES as f64);
        (rest >= REST_MIN).then_some(rest)
    }
}

/// Makes `segment` in `directory`, leaving at least `reserve_bytes` of the file system free. Stopped in the middle, it
/// leaves a file that the next opening removes.
pub(super) async fn prepare_segment(
    directory: &Path,
    segment: SegmentInfo,
    reserve_bytes: u64,
    fill: &Fill,
) -> Result<(), DiskError> {
    check_space(directory, segment, reserve_bytes).await?;
    let name = LogFile::Segment(segment.base).file_name();
    let unfinished = directory.join(format!("{name}.tmp"));
    let made = make(directory, &unfinished, &name, segment.bytes, fill).await;
    if let Err(error) = made {
        // The space is better given back; if even that fails, the next opening does it.
        let _ = blocking(move || fs::remove_file(unfinished)).await;
        let action = format!("make segment {} in {}", segment.base, directory.display());
        return Err(DiskError::io(action, &error));
    }
    Ok(())
}

/// Gives the file of a segment that left to a new one, whole as it is: what lies in it is known to be stale by its log
/// offsets. Says no, and changes nothing, where that would not do: the file is gone, of another size, or not all of it
/// is on the disk. Blocks. Nobody else may have the file open.
pub(super) fn recycle_segment(files: &LogFiles, left: LogOffset, segment: SegmentInfo) -> io::Result<bool> {
    let path = files.path(LogFile::Segment(left));
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let metadata = file.metadata()?;
    // A copied directory may have holes where there were zeros.
    let is_allocated = metadata.blocks() * 512 >= segment.bytes;
    if metadata.len() != segment.bytes || !is_allocated {
        return Ok(false);
    }
    // Nobody wants the old bytes; each direct write would have to drop some of them.
    // SAFETY: a plain system call on a descriptor that `file` keeps open.
    let advised = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    if advised != 0 {
        return Err(io::Error::from_raw_os_error(advised));
    }
    fs::rename(&path, files.path(LogFile::Segment(segment.base)))?;
    // Removes indexes and makes the names durable; the segment itself is no longer there under its old name.
    files.remove_left(left)?;
    Ok(true)
}

async fn make(directory: &Path, unfinished: &Path, name: &str, bytes: u64, fill: &Fill) -> io::Result<()> {
    let path = unfinished.to_owned();
    let file = Arc::new(blocking(move || allocate(&path, bytes)).await?);
    let zeros = Arc::new(AlignedBuffer::zeroed(PIECE_BYTES));
    let mut position = 0;
    while position < bytes {
        let piece = (bytes - position).min(PIECE_BYTES as u64);
        let (file, zeros) = (Arc::clone(&file), Arc::clone(&zeros));
        blocking(move || file.write_all_at(&(*zeros).as_ref()[..piece as usize], position)).await?;
        position += piece;
        if fill.is_stopped.get() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the process ends"));
        }
        if let Some(rest) = fill.rest(position) {
            glommio::timer::sleep(rest).await;
        }
    }
    let (directory, unfinished, finished): (PathBuf, PathBuf, PathBuf) =
        (directory.to_owned(), unfinished.to_owned(), directory.join(name));
    blocking(move || {
        file.sync_all()?;
        fs::rename(&unfinished, &finished)?;
        sync_directory(&directory)
    })
    .await
}

fn allocate(path: &Path, bytes: u64) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT);
    let file = options.open(path)?;
    let length = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: a plain system call on a descriptor that `file` keeps open.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) } {
        0 => Ok(file),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

async fn check_space(directory: &Path, segment: SegmentInfo, reserve_bytes: u64) -> Result<(), DiskError> {
    let Space { free_bytes, .. } = space_of(directory).await?;
    let place = directory.display().to_string();
    if free_bytes < segment.bytes.saturating_add(reserve_bytes) {
        return Err(DiskError::NoSpace { place, needed_bytes: segment.bytes, free_bytes, reserve_bytes });
    }
    Ok(())
}

/// Bytes of the file system that a directory is on.
pub(super) async fn space_of(directory: &Path) -> Result<Space, DiskError> {
    let path = directory.to_owned();
    let action = || format!("ask for the free space in {}", directory.display());
    blocking_or(action, move || ask_for_space(&path)).await
}

fn ask_for_space(directory: &Path) -> io::Result<Space> {
    let file = File::open(directory)?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open and `stat` has room for the answer.
    if unsafe { libc::fstatvfs(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled `stat`.
    let stat = unsafe { stat.assume_init() };
    let [free_bytes, total_bytes] = [stat.f_bavail, stat.f_blocks].map(|blocks| blocks * stat.f_frsize);
    Ok(Space { free_bytes, total_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_with_the_lead_over_the_plan() {
        const MIB: u64 = 1 << 20;
        let fill = Fill::unknown();
        assert_eq!(fill.rest(1024 * MIB), None, "needed at once");
        let rows = [
            ("nothing written, little ready", 0, MIB, None),
            ("nothing written, half the lead", 0, 16 * MIB, Some(5)),
            ("nothing written, much ready", 0, 500 * MIB, Some(10)),
            ("behind the plan", 100 * MIB, 150 * MIB, None),
            ("on the plan", 100 * MIB, 200 * MIB, None),
            ("half the lead before it", 100 * MIB, 216 * MIB, Some(5)),
        ];
        for (row, written, zeroed, rest_ms) in rows {
            fill.set(written);
            assert_eq!(fill.rest(zeroed), rest_ms.map(Duration::from_millis), "{row}");
        }
    }
}
