//! A sealed segment's index file, mapped into memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use memmap2::{Advice, Mmap};

use crate::source::IndexBytes;

/// Pages asked about by one system call; the answer, a byte each, lies on the stack.
const PAGES_ASKED: usize = 256;

/// An index file in the page cache: costs address space, and memory only as long as the kernel has nothing better to
/// keep.
#[derive(Debug)]
pub(super) struct MappedIndex {
    map: Mmap,
    /// Bytes of the kernel's pages: what residency is known by.
    page_len: usize,
}

impl MappedIndex {
    pub(super) fn open(path: &Path) -> io::Result<MappedIndex> {
        let file = File::open(path)?;
        // SAFETY: an index file gets its name once it is whole and synced, is never written again and goes by being
        // unlinked, which leaves its bytes to those that mapped them. The directory is locked against other processes.
        let map = unsafe { Mmap::map(&file)? };
        // Look-ups jump; reading around each of them would only push other pages out.
        map.advise(Advice::Random)?;
        // SAFETY: the call has no conditions.
        let page_len = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page_len = usize::try_from(page_len).map_err(io::Error::other)?;
        Ok(MappedIndex { map, page_len })
    }
}

impl IndexBytes for MappedIndex {
    fn bytes(&self) -> &[u8] {
        &self.map
    }

    fn is_resident(&self, range: Range<usize>) -> bool {
        let end = range.end.min(self.map.len());
        let mut at = range.start / self.page_len * self.page_len;
        let mut resident = [0u8; PAGES_ASKED];
        while at < end {
            let len = (end - at).min(PAGES_ASKED * self.page_len);
            // SAFETY: `at` is the beginning of a page, the mapping reaches to `at + len`, and `resident` has a byte for
            // each page of that.
            let asked = unsafe {
                let address = self.map.as_ptr().add(at).cast_mut().cast();
                libc::mincore(address, len, resident.as_mut_ptr())
            };
            let pages = &resident[..len.div_ceil(self.page_len)];
            if asked != 0 || pages.iter().any(|page| page & 1 == 0) {
                return false;
            }
            at += len;
        }
        true
    }

    fn prefetch(&self, range: Range<usize>) {
        let end = range.end.min(self.map.len());
        // A hint: what it does not bring is read when it is touched.
        let _ = self.map.advise_range(Advice::WillNeed, range.start, end.saturating_sub(range.start));
    }
}
