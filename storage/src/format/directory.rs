//! The directory of a batch: one entry per record, in the order of the records.

use zerocopy::byteorder::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub const DIRECTORY_ENTRY_LEN: usize = 40;

/// Key hashes one record may carry.
pub const KEY_HASHES_MAX: usize = u16::MAX as usize;

/// Describes one record of its batch. Little-endian.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct DirectoryEntry {
    pub queue: U64,
    pub queue_offset: U64,
    /// Milliseconds since 1970; grows along the log.
    pub store_time: I64,
    /// First byte of the record, counted from the first byte of the batch.
    pub position: U32,
    /// Bytes of the record, at least 1: each record has a place of its own.
    pub size: U32,
    pub tag_hash: I32,
    /// How many of the key hashes behind the entries are this record's; they stand in the order of the entries.
    pub key_hashes: U16,
    /// Zero.
    pub reserved: U16,
}

const _: () = assert!(size_of::<DirectoryEntry>() == DIRECTORY_ENTRY_LEN);
