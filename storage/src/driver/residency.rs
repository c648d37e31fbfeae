//! Whether bytes of a file are in the page cache, asked without ever waiting for a disk.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;

use memmap2::{MmapOptions, MmapRaw};

/// Pages asked about by one `mincore`; the answer, a byte each, lies on the stack.
const PAGES_ASKED: usize = 256;

/// The number of `cachestat` (Linux 6.5), the same on x86-64 and aarch64; libc does not name it yet.
const SYS_CACHESTAT: libc::c_long = 451;

/// Bytes of the kernel's pages: what residency is known by.
pub(super) fn page_len() -> usize {
    // SAFETY: the call has no conditions.
    let len = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(len).expect("pages have a length")
}

/// How a file is asked. `cachestat` takes a microsecond for 256 KiB where `mincore` takes ten: with the rest of sending
/// them some 60 µs, that is the difference between noise and a cost.
///
/// `cachestat` counts pages that are still being read, and those `sendfile` would wait for. Whoever asks must know of
/// its own reads; those of others (a tool, a backup, the sealing of the segment) are found by a read of the last byte
/// that is not to wait. What that misses, others' reads that reach into a range and end within it, costs the rest of
/// such a read.
#[derive(Debug)]
pub(super) enum Residency {
    Counted { page_len: u64 },
    Mapped { map: MmapRaw, page_len: usize },
}

impl Residency {
    /// The cheapest way that the kernel, and whatever stands before it, allows.
    pub(super) fn of(file: &File) -> io::Result<Residency> {
        match count_cached(file, 0..1) {
            Ok(_) => Ok(Residency::Counted { page_len: page_len() as u64 }),
            Err(_) => Residency::mapped(file),
        }
    }

    fn mapped(file: &File) -> io::Result<Residency> {
        Ok(Residency::Mapped { map: MmapOptions::new().map_raw_read_only(file)?, page_len: page_len() })
    }

    /// Whether all of `range` is there, pages in the middle of a read by others aside. Bytes behind the end of the file
    /// are not.
    pub(super) fn holds(&self, file: &File, range: Range<u64>) -> bool {
        if range.is_empty() {
            return true;
        }
        match self {
            Residency::Counted { page_len } => {
                let pages = (range.end - 1) / page_len - range.start / page_len + 1;
                count_cached(file, range.clone()).is_ok_and(|cached| cached >= pages)
                    && has_byte_at_once(file, range.end - 1)
            }
            Residency::Mapped { map, page_len } => {
                let Ok(end) = usize::try_from(range.end) else { return false };
                let begin = range.start as usize;
                // SAFETY: the range was just found to lie in the map, which lives as long as `map`.
                end <= map.len() && unsafe { is_mapped_resident(map.as_ptr(), *page_len, begin..end) }
            }
        }
    }
}

/// Pages of `range` that the page cache has or is reading.
fn count_cached(file: &File, range: Range<u64>) -> io::Result<u64> {
    let asked = [range.start, range.end - range.start];
    let mut counts = [0u64; 5];
    // SAFETY: the kernel reads two and writes five numbers, in the layout of `struct cachestat_range` and
    // `struct cachestat`; both outlive the call.
    let answer =
        unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), asked.as_ptr(), counts.as_mut_ptr(), 0) };
    if answer == 0 { Ok(counts[0]) } else { Err(io::Error::last_os_error()) }
}

/// Whether this byte can be read without waiting.
fn has_byte_at_once(file: &File, position: u64) -> bool {
    read_at_once(file, &mut [0], position) == 1
}

/// Reads what can be read without waiting for a disk, and says how many bytes that was.
pub(super) fn read_at_once(file: &File, out: &mut [u8], position: u64) -> usize {
    let Ok(position) = libc::off_t::try_from(position) else { return 0 };
    let slice = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
    // SAFETY: the slice describes `out`, which the kernel writes at most as far as it reaches.
    let read = unsafe { libc::preadv2(file.as_raw_fd(), &slice, 1, position, libc::RWF_NOWAIT) };
    usize::try_from(read).unwrap_or(0)
}

/// Whether all pages that `range` touches are there.
///
/// # Safety
/// `range` must lie in a mapping that begins at `map`.
pub(super) unsafe fn is_mapped_resident(map: *const u8, page_len: usize, range: Range<usize>) -> bool {
    let mut at = range.start / page_len * page_len;
    let mut resident = [0u8; PAGES_ASKED];
    while at < range.end {
        let len = (range.end - at).min(PAGES_ASKED * page_len);
        // SAFETY: `at` is the beginning of a page, the mapping reaches to `at + len` as the caller promises, and
        // `resident` has a byte for each page of that.
        let asked = unsafe { libc::mincore(map.add(at).cast_mut().cast(), len, resident.as_mut_ptr()) };
        let pages = &resident[..len.div_ceil(page_len)];
        if asked != 0 || pages.iter().any(|page| page & 1 == 0) {
            return false;
        }
        at += len;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    /// Both ways, or the one that this kernel has.
    fn ways(file: &File) -> Vec<Residency> {
        let mapped = Residency::mapped(file).unwrap();
        match Residency::of(file).unwrap() {
            counted @ Residency::Counted { .. } => vec![counted, mapped],
            Residency::Mapped { .. } => vec![mapped],
        }
    }

    #[test]
    fn what_was_read_is_resident_and_what_was_dropped_is_not() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        const LEN: u64 = 1 << 20;
        file.write_all_at(&vec![7; LEN as usize], 0).unwrap();
        file.sync_all().unwrap();
        for way in ways(&file) {
            // SAFETY: plain system calls on an open descriptor.
            let dropped = unsafe {
                libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM)
                    + libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED)
            };
            assert_eq!(dropped, 0);
            if way.holds(&file, 0..LEN) {
                eprintln!("SKIPPED: this file system keeps what it is told to drop");
                return;
            }
            assert!(!way.holds(&file, 0..1) && !way.holds(&file, LEN - 1..LEN), "{way:?}");
            file.read_exact_at(&mut [0; 300_000], 100_000).unwrap();
            assert!(way.holds(&file, 100_000..400_000), "{way:?}");
            assert!(way.holds(&file, 200_000..200_001) && way.holds(&file, 5..5), "{way:?}");
            assert!(!way.holds(&file, 90_000..400_000), "{way:?}");
            assert!(!way.holds(&file, 100_000..420_000), "{way:?}");
            let mut bytes = [0; 4096];
            assert_eq!(read_at_once(&file, &mut bytes, 200_000), bytes.len());
            assert_eq!(bytes, [7; 4096]);
            file.read_exact_at(&mut vec![0; LEN as usize], 0).unwrap();
            assert!(way.holds(&file, 0..LEN), "{way:?}");
            assert!(!way.holds(&file, LEN - 10..LEN + 4096), "{way:?}");
        }
    }
}
