//! The bytes of the log on disk. Drawn in `docs/format.md`; each layout is declared once, here.

mod batch;
mod directory;
mod header;

#[cfg(test)]
mod tests;

pub use batch::{Batch, BatchError, BatchFields, BatchLayout, BatchWriter, Entry, NewEntry, RawBatch};
pub use directory::{
    DIRECTORY_ENTRY_LEN, Described, Directory, DirectoryEntry, KEY_HASHES_MAX, RawDirectory,
};
pub use header::{
    BATCH_HEADER_LEN, BATCH_MAGIC, BatchHeader, BatchKind, FORMAT_VERSION, HeaderError, RawHeader,
};

pub(crate) use header::age;

/// Unit of direct I/O: each batch begins on a multiple of it and is padded to one.
pub const BLOCK_LEN: usize = 4096;

/// No batch is longer, whatever the configuration: a length read from disk meets this before anything is allocated.
pub const BATCH_BYTES_LIMIT: u32 = 16 << 20;

/// `len` rounded up to whole blocks.
#[must_use]
pub fn padded_len(len: usize) -> usize {
    len.div_ceil(BLOCK_LEN) * BLOCK_LEN
}
