//! A segment's bytes as part of a reply: what `storage` opens for readers, in the form that `net` sends files in.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use apogee_net::io::{Chunk, FileFuture, FileSource};
use apogee_storage::FileRun;
use apogee_storage::driver::SegmentFile;
use bytes::Bytes;

/// Runs from this length on leave by `sendfile`; shorter ones are read and copied. Measured over loopback with warm
/// pages: replies of 32 KiB cost either way the same, of 256 KiB read and copied nearly twice the CPU time of `sendfile`.
pub(super) const SENDFILE_BYTES_MIN: u32 = 64 * 1024;

/// The bytes of a run, to leave by `sendfile`. The segment's file is not written anew until they have.
pub(super) fn chunk_of(file: Rc<SegmentFile>, run: FileRun) -> Chunk {
    let range = run.position..run.position + u64::from(run.len);
    Chunk::file(Rc::new(SegmentSource(file)), range)
}

struct SegmentSource(Rc<SegmentFile>);

impl FileSource for SegmentSource {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd()
    }

    fn is_resident(&self, range: Range<u64>) -> bool {
        self.0.is_resident(range)
    }

    fn load(&self, range: Range<u64>) -> FileFuture<'_, ()> {
        Box::pin(async move { self.0.load(range).await.map_err(io::Error::other) })
    }

    fn read(&self, range: Range<u64>) -> FileFuture<'_, Bytes> {
        Box::pin(async move { self.0.read(range).await.map(Bytes::from).map_err(io::Error::other) })
    }
}
