//! Memory for direct I/O outside of glommio.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::disk::Buffer;
use crate::format::BLOCK_LEN;

/// Zeroed bytes that begin on a block boundary, as direct I/O asks.
#[derive(Debug)]
pub struct AlignedBuffer {
    data: NonNull<u8>,
    layout: Layout,
}

impl AlignedBuffer {
    /// # Panics
    /// If `len` is 0.
    #[must_use]
    pub fn zeroed(len: usize) -> AlignedBuffer {
        assert!(len > 0, "an empty aligned buffer");
        let layout = Layout::from_size_align(len, BLOCK_LEN).expect("lengths stay far below isize::MAX");
        // SAFETY: the layout's size is not zero, as asserted above.
        let data = unsafe { alloc_zeroed(layout) };
        let data = NonNull::new(data).unwrap_or_else(|| handle_alloc_error(layout));
        AlignedBuffer { data, layout }
    }
}

// SAFETY: the memory belongs to this value alone, wherever it is, and changes only through `&mut self`.
unsafe impl Send for AlignedBuffer {}
// SAFETY: as above: nothing changes behind a shared reference.
unsafe impl Sync for AlignedBuffer {}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `data` owns `layout.size()` initialised bytes; they are borrowed as long as `self` is.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.layout.size()) }
    }
}

impl AsMut<[u8]> for AlignedBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_ref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.layout.size()) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout, and freed nowhere else.
        unsafe { dealloc(self.data.as_ptr(), self.layout) }
    }
}

impl Buffer for AlignedBuffer {}
