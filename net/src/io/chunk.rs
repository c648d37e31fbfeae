use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

/// A piece of an outgoing frame. A reply is a list of these, sent by one vectored write without joining them.
#[derive(Clone)]
pub enum Chunk {
    Bytes(Bytes),
    /// Bytes owned by somebody who must outlive the send: a tail-cache buffer, a block read from disk.
    Shared {
        owner: Rc<dyn AsRef<[u8]>>,
        range: Range<usize>,
    },
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

    pub fn len(&self) -> usize {
        match self {
            Chunk::Bytes(bytes) => bytes.len(),
            Chunk::Shared { range, .. } => range.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn as_slice(&self) -> &[u8] {
        match self {
            Chunk::Bytes(bytes) => bytes,
            Chunk::Shared { owner, range } => &(**owner).as_ref()[range.clone()],
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
        };
        write!(f, "{kind}({} bytes)", self.len())
    }
}
