use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use bytes::{Buf, Bytes};

use super::file::{FileChunk, FileSource};

/// A piece of an outgoing frame. A reply is a list of these, sent without joining them: what is in memory by one
/// vectored write, what is in a file by `sendfile`.
#[derive(Clone)]
pub enum Chunk {
    Bytes(Bytes),
    /// Bytes owned by somebody who must outlive the send: a tail-cache buffer, a block read from disk.
    Shared {
        owner: Rc<dyn AsRef<[u8]>>,
        range: Range<usize>,
    },
    /// Bytes that go from the page cache to the socket. Worth it for long ranges only: below some 64 KiB a read and a
    /// copy cost no more.
    File(FileChunk),
}

impl Chunk {
    /// A range of a shared buffer.
    ///
    /// # Panics
    /// If `range` does not lie within the buffer.
    pub fn shared(owner: Rc<dyn AsRef<[u8]>>, range: Range<usize>) -> Self {
        let len = (*owner).as_ref().len();
        assert!(
            range.start <= range.end && range.end <= len,
            "range {range:?} outside a buffer of {len} bytes"
        );
        Chunk::Shared { owner, range }
    }

    /// A range of a file.
    ///
    /// # Panics
    /// If `range` ends before it begins.
    pub fn file(source: Rc<dyn FileSource>, range: Range<u64>) -> Self {
        Chunk::File(FileChunk::new(source, range))
    }

    pub fn len(&self) -> usize {
        match self {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::Shared { range, .. } => range.len(),
            Chunk::File(file) => file.len() as usize,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, unless they are in a file.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match self {
            Chunk::Bytes(bytes) => Some(bytes),
            Chunk::Shared { owner, range } => Some(&(**owner).as_ref()[range.clone()]),
            Chunk::File(_) => None,
        }
    }

    /// Drops the first `sent` bytes.
    pub(super) fn advance(&mut self, sent: usize) {
        match self {
            Chunk::Bytes(bytes) => bytes.advance(sent),
            Chunk::Shared { range, .. } => range.start += sent,
            Chunk::File(file) => file.advance(sent as u64),
        }
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Chunk::Bytes(bytes)
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Chunk::Bytes(_) => "Bytes",
            Chunk::Shared { .. } => "Shared",
            Chunk::File(_) => "File",
        };
        write!(f, "{kind}({} bytes)", self.len())
    }
}
