//! What can be wrong with an index file.

use std::ops::Range;

use super::layout::{INDEX_MAGIC, INDEX_VERSION};
use crate::format::age;
use crate::types::LogOffset;

/// Why bytes are not an index that can be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    #[error("{found} bytes cannot hold the header of an index")]
    Short { found: u64 },
    #[error("magic number {found:02x?}, expected {INDEX_MAGIC:02x?}")]
    Magic { found: [u8; 4] },
    #[error("header checksum {found:08x}, expected {expected:08x}")]
    HeaderCrc { expected: u32, found: u32 },
    /// Whole, and written by a program that knows another version of the format.
    #[error(
        "index version {found}, {} than the only one this program knows, {INDEX_VERSION}",
        age(*found, INDEX_VERSION)
    )]
    Version { found: u16 },
    /// The checksum holds, yet a field cannot be: a fault of the writer.
    #[error("{field} is {found}, which no writer makes")]
    Field { field: &'static str, found: u64 },
    #[error("{found} bytes of an index of {expected}")]
    Length { expected: u64, found: u64 },
    #[error("page table checksum {found:08x}, expected {expected:08x}")]
    TableCrc { expected: u32, found: u32 },
}

/// Why an open index does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexFault {
    /// These bytes of the file would have to be read from disk first: have [`SealedIndex::load`](super::SealedIndex::load)
    /// called where blocking is allowed, and ask again.
    #[error("index of segment {segment}: bytes {} to {} are not in memory", .range.start, .range.end)]
    Cold { segment: LogOffset, range: Range<u64> },
    /// Nothing of the page was believed. The index is to be made anew from its segment.
    #[error("index of segment {segment}: checksum of page {page} is {found:08x}, expected {expected:08x}")]
    Damaged { segment: LogOffset, page: u32, expected: u32, found: u32 },
}

impl IndexFault {
    /// The segment whose index is to be made anew, if it is.
    pub(crate) fn damaged(&self) -> Option<LogOffset> {
        match self {
            IndexFault::Cold { .. } => None,
            IndexFault::Damaged { segment, .. } => Some(*segment),
        }
    }
}
