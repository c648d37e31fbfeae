//! A sealed segment's index file, mapped into memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use memmap2::{Advice, Mmap};

use super::residency::{is_mapped_resident, page_len};
use crate::source::IndexBytes;

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
        Ok(MappedIndex { map, page_len: page_len() })
    }
}

impl IndexBytes for MappedIndex {
    fn bytes(&self) -> &[u8] {
        &self.map
    }

    fn is_resident(&self, range: Range<usize>) -> bool {
        let range = range.start..range.end.min(self.map.len());
        // SAFETY: the range lies in the map.
        unsafe { is_mapped_resident(self.map.as_ptr(), self.page_len, range) }
    }

    fn prefetch(&self, range: Range<usize>) {
        let end = range.end.min(self.map.len());
        // A hint: what it does not bring is read when it is touched.
        let _ = self.map.advise_range(Advice::WillNeed, range.start, end.saturating_sub(range.start));
    }
}
