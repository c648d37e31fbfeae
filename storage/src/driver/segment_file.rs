//! A segment's bytes for readers: through the page cache, where many find what one has fetched, and from where they can
//! leave by `sendfile`.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use super::budget::Budget;
use super::pool::{blocking, blocking_or};
use super::residency::{Residency, read_at_once};
use super::usage::Use;
use crate::disk::DiskError;
use crate::types::LogOffset;

/// Bytes that one call brings in, at most: a thread of the pool and the disk are free for others after each.
const PIECE_BYTES: u64 = 256 << 10;

/// A segment's file, open for reading. The file is not written anew, nor are its blocks freed, while this is held: hold
/// it until the last byte read through it is where it belongs.
pub struct SegmentFile {
    segment: LogOffset,
    path: PathBuf,
    file: Arc<File>,
    residency: Residency,
    /// What is being brought in. Its pages are in the cache already and not yet filled.
    loading: RefCell<Vec<Range<u64>>>,
    catch_up: Rc<Budget>,
    /// Dropped after the file is closed.
    _use: Rc<Use>,
}

impl SegmentFile {
    pub(super) async fn open(
        path: PathBuf,
        used: Rc<Use>,
        segment: LogOffset,
        catch_up: Rc<Budget>,
    ) -> Result<SegmentFile, DiskError> {
        let name = path.clone();
        let opened = blocking_or(
            || format!("open {}", path.display()),
            move || {
                let file = File::open(name)?;
                // What is brought in is asked for: reading ahead would fill the cache, and direct writes wait for reads
                // of where they write.
                // SAFETY: a plain system call on a descriptor that `file` keeps open.
                let advised = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
                if advised != 0 {
                    return Err(io::Error::from_raw_os_error(advised));
                }
                let residency = Residency::of(&file)?;
                Ok((file, residency))
            },
        );
        let (file, residency) = opened.await?;
        let (file, loading) = (Arc::new(file), RefCell::default());
        Ok(SegmentFile { segment, path, file, residency, loading, catch_up, _use: used })
    }

    #[must_use]
    pub fn segment(&self) -> LogOffset {
        self.segment
    }

    /// The descriptor, for `sendfile`.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether a range of the file can be read now without waiting for the disk. Some 3 µs for 256 KiB; never blocks.
    #[must_use]
    pub fn is_resident(&self, range: Range<u64>) -> bool {
        let overlaps = |loading: &Range<u64>| loading.start < range.end && range.start < loading.end;
        !self.loading.borrow().iter().any(overlaps) && self.residency.holds(&self.file, range)
    }

    /// Brings a range into the page cache, within the catch-up budget: whoever comes first is served first, and a long
    /// range waits in line for each of its pieces. What is brought in may be evicted at any time. Dropping the future
    /// leaves the piece under way to its end.
    pub async fn load(self: &Rc<Self>, range: Range<u64>) -> Result<(), DiskError> {
        for piece in pieces(range) {
            let permit = self.catch_up.acquire(piece.end - piece.start).await;
            // Others may have waited for the same.
            if self.is_resident(piece.clone()) {
                continue;
            }
            let (this, loaded) = (Rc::clone(self), piece.clone());
            // A task of its own: the permit and the note of what is loading last as long as the read does, even if
            // nobody waits for it any more.
            let task = glommio::spawn_local(async move {
                let _permit = permit;
                let _loading = Loading::begin(&this, loaded.clone());
                let file = Arc::clone(&this.file);
                blocking(move || read_to_nowhere(&file, loaded)).await
            });
            let read = task.detach().await.unwrap_or_else(|| Err(io::Error::other("cancelled")));
            read.map_err(|error| self.error(piece.start, &error))?;
        }
        Ok(())
    }

    /// The bytes of a range, fewer only at the end of the file. At once if the page cache has them, else within the
    /// catch-up budget. Dropping the future leaves the read to its end.
    pub async fn read(self: &Rc<Self>, range: Range<u64>) -> Result<Vec<u8>, DiskError> {
        let wanted = range.end - range.start;
        let mut bytes = vec![0; wanted as usize];
        let is_at_once = wanted <= PIECE_BYTES && self.is_resident(range.clone());
        if is_at_once && read_at_once(&self.file, &mut bytes, range.start) as u64 == wanted {
            return Ok(bytes);
        }
        let permit = self.catch_up.acquire(wanted).await;
        let this = Rc::clone(self);
        let position = range.start;
        let task = glommio::spawn_local(async move {
            let _permit = permit;
            let file = Arc::clone(&this.file);
            blocking(move || read_up_to_end(&file, &mut bytes, position).map(|()| bytes)).await
        });
        let read = task.detach().await.unwrap_or_else(|| Err(io::Error::other("cancelled")));
        read.map_err(|error| self.error(position, &error))
    }

    fn error(&self, position: u64, error: &io::Error) -> DiskError {
        DiskError::io(format!("read {} at {position}", self.path.display()), error)
    }
}

fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let starts = range.clone().step_by(PIECE_BYTES as usize);
    starts.map(move |start| start..range.end.min(start + PIECE_BYTES))
}

/// The note that a range is being brought in, taken back when dropped.
struct Loading {
    file: Rc<SegmentFile>,
    range: Range<u64>,
}

impl Loading {
    fn begin(file: &Rc<SegmentFile>, range: Range<u64>) -> Loading {
        file.loading.borrow_mut().push(range.clone());
        Loading { file: Rc::clone(file), range }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        let mut loading = self.file.loading.borrow_mut();
        let mine = loading.iter().position(|range| *range == self.range);
        loading.swap_remove(mine.expect("noted when the load began"));
    }
}

/// Reads a range for the page cache's sake, into a buffer that stays in the processor's own.
pub(super) fn read_to_nowhere(file: &File, mut range: Range<u64>) -> io::Result<()> {
    const SCRATCH_BYTES: u64 = 16 << 10;
    const SLICES_MAX: usize = (PIECE_BYTES / SCRATCH_BYTES) as usize;
    let mut scratch = MaybeUninit::<[u8; SCRATCH_BYTES as usize]>::uninit();
    while !range.is_empty() {
        let slice = libc::iovec { iov_base: scratch.as_mut_ptr().cast(), iov_len: SCRATCH_BYTES as usize };
        let mut slices = [slice; SLICES_MAX];
        let whole = ((range.end - range.start) / SCRATCH_BYTES).min(SLICES_MAX as u64) as usize;
        let count = if whole == 0 {
            slices[0].iov_len = (range.end - range.start) as usize;
            1
        } else {
            whole
        };
        let position = libc::off_t::try_from(range.start).map_err(io::Error::other)?;
        // SAFETY: each slice lies in `scratch`, which nobody reads; that they are the same place is no matter to the kernel.
        let read = unsafe { libc::preadv(file.as_raw_fd(), slices.as_ptr(), count as libc::c_int, position) };
        match u64::try_from(read) {
            // Shorter than whoever asked believes, which the one that sends it finds out.
            Ok(0) => return Ok(()),
            Ok(read) => range.start += read,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

fn read_up_to_end(file: &File, bytes: &mut Vec<u8>, position: u64) -> io::Result<()> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], position + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(())
}
