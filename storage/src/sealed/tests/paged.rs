//! Index bytes of which some pages are not in memory. Whoever touches one of those dies at once.

use std::ops::Range;
use std::sync::Mutex;

use memmap2::{Mmap, MmapMut};

use crate::sealed::layout::PAGE_LEN;
use crate::source::IndexBytes;

#[derive(Debug)]
pub(super) struct Paged {
    map: Mmap,
    resident: Mutex<Vec<bool>>,
}

impl Paged {
    /// All pages are in memory.
    pub(super) fn new(bytes: &[u8]) -> Paged {
        let mut map = MmapMut::map_anon(bytes.len()).unwrap();
        map.copy_from_slice(bytes);
        let resident = Mutex::new(vec![true; bytes.len() / PAGE_LEN]);
        Paged { map: map.make_read_only().unwrap(), resident }
    }

    /// Pages in memory.
    pub(super) fn resident(&self) -> usize {
        self.resident.lock().unwrap().iter().filter(|resident| **resident).count()
    }

    pub(super) fn set_resident(&self, pages: Range<usize>, resident: bool) {
        let protection = if resident { libc::PROT_READ } else { libc::PROT_NONE };
        // SAFETY: whole pages of our own mapping. Whoever reads one that was taken away is stopped by a signal, and
        // that is the point.
        let done = unsafe {
            let at = self.map.as_ptr().add(pages.start * PAGE_LEN).cast_mut().cast();
            libc::mprotect(at, pages.len() * PAGE_LEN, protection)
        };
        assert_eq!(done, 0);
        self.resident.lock().unwrap()[pages].fill(resident);
    }
}

impl IndexBytes for Paged {
    fn bytes(&self) -> &[u8] {
        &self.map
    }

    fn is_resident(&self, range: Range<usize>) -> bool {
        let pages = range.start / PAGE_LEN..range.end.div_ceil(PAGE_LEN);
        self.resident.lock().unwrap()[pages].iter().all(|resident| *resident)
    }

    fn prefetch(&self, range: Range<usize>) {
        self.set_resident(range.start / PAGE_LEN..range.end.div_ceil(PAGE_LEN), true);
    }
}
