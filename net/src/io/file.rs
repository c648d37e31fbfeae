use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;

/// Most bytes that one call hands to the kernel, and that are made resident or read ahead of it: a fully cached piece
/// of this size keeps the executor for some 50 µs, 1 MiB in one call for up to 500 µs.
pub(super) const PIECE_BYTES: u64 = 256 * 1024;

pub type FileFuture<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + 'a>>;

/// A file whose bytes can leave by `sendfile`.
///
/// Held by a chunk until its last byte is with the kernel, so that whoever made it can see that it is in use. The bytes
/// of a range that was queued must not change until then; what happens to the file later does not reach the peer.
pub trait FileSource {
    /// Stays open, and the same, as long as the source lives. Must be a descriptor that goes through the page cache.
    fn fd(&self) -> BorrowedFd<'_>;

    /// Whether `sendfile` of this range will not wait for the disk. Asked often: must be cheap and never block.
    ///
    /// Pages that are evicted right after a yes cost one blocking read; to rule that out they would have to be locked.
    fn is_resident(&self, range: Range<u64>) -> bool;

    /// Brings a range into the page cache without blocking the executor. May be dropped before its end.
    fn load(&self, range: Range<u64>) -> FileFuture<'_, ()>;

    /// The bytes of a range, for a connection that cannot use `sendfile`; fewer than asked for only at the end of the
    /// file. May be dropped before its end.
    fn read(&self, range: Range<u64>) -> FileFuture<'_, Bytes>;
}

/// A range of a file, as part of an outgoing frame.
#[derive(Clone)]
pub struct FileChunk {
    source: Rc<dyn FileSource>,
    range: Range<u64>,
}

impl FileChunk {
    /// # Panics
    /// If `range` ends before it begins.
    pub fn new(source: Rc<dyn FileSource>, range: Range<u64>) -> FileChunk {
        assert!(range.start <= range.end, "range {range:?} of a file");
        FileChunk { source, range }
    }

    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    pub(super) fn source(&self) -> &Rc<dyn FileSource> {
        &self.source
    }

    /// What is to be sent by the next call.
    pub(super) fn next_piece(&self) -> Range<u64> {
        self.range.start..self.range.end.min(self.range.start + PIECE_BYTES)
    }

    pub(super) fn advance(&mut self, sent: u64) {
        self.range.start += sent;
        assert!(self.range.start <= self.range.end, "{sent} bytes sent, up to {:?}", self.range);
    }
}

impl fmt::Debug for FileChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileChunk({:?})", self.range)
    }
}
