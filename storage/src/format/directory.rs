//! The directory of a batch: one entry per record, in the order of the records. It can be read and believed without the
//! records: that is how a segment is indexed.

use std::ops::Range;

use zerocopy::byteorder::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BATCH_HEADER_LEN, BatchError, BatchHeader, BatchKind, RawHeader};
use crate::types::{LogOffset, QueueKey, QueueOffset};

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

/// Bytes that begin with the header and the directory of a batch, not yet believed; whatever follows is not looked at.
#[derive(Clone, Copy, Debug)]
pub struct RawDirectory<'a>(pub &'a [u8]);

impl<'a> RawDirectory<'a> {
    /// Checks the checksums of header and directory, and that the directory fits the lengths in the header.
    pub fn verify(self) -> Result<Directory<'a>, BatchError> {
        let directory = Directory::parse(RawHeader(self.0).verify()?, self.0)?;
        directory.check()?;
        Ok(directory)
    }
}

/// The records of a batch without their bytes: the checksum holds and they are described without gap or overlap.
#[derive(Clone, Copy, Debug)]
pub struct Directory<'a> {
    header: &'a BatchHeader,
    entries: &'a [DirectoryEntry],
    key_hashes: &'a [U32],
}

impl<'a> Directory<'a> {
    /// Checks the checksum; `bytes` begin with the header.
    pub(super) fn parse(header: &'a BatchHeader, bytes: &'a [u8]) -> Result<Directory<'a>, BatchError> {
        let expected = header.directory_end();
        let short = BatchError::Short { expected, found: bytes.len() };
        let directory = bytes.get(BATCH_HEADER_LEN..expected).ok_or(short)?;
        let (expected, found) = (header.directory_crc.get(), crc32c::crc32c(directory));
        if found != expected {
            return Err(BatchError::DirectoryCrc { expected, found });
        }
        let count = header.record_count.get() as usize;
        let (entries, hashes) = directory.split_at(count * DIRECTORY_ENTRY_LEN);
        let entries = <[DirectoryEntry]>::ref_from_bytes(entries).expect("whole entries without alignment");
        let key_hashes = <[U32]>::ref_from_bytes(hashes).expect("the header's check made it a multiple of 4");
        Ok(Directory { header, entries, key_hashes })
    }

    /// Whether the entries fit each other and the header.
    pub(super) fn check(&self) -> Result<(), BatchError> {
        let is_configuration = self.header.batch_kind() == BatchKind::Configuration;
        let begin = self.header.directory_end() as u64;
        let mut position = begin;
        let mut hashes = 0u64;
        for (number, entry) in self.entries.iter().enumerate() {
            let wrong =
                |field, expected, found| Err(BatchError::Entry { entry: number, field, expected, found });
            if u64::from(entry.position.get()) != position {
                return wrong("position", position, entry.position.get().into());
            }
            if entry.size.get() == 0 {
                return wrong("size", 1, 0);
            }
            if (entry.queue.get() == QueueKey::MEMBERS.0) != is_configuration {
                return wrong("queue", QueueKey::MEMBERS.0, entry.queue.get());
            }
            if entry.reserved.get() != 0 {
                return wrong("reserved", 0, entry.reserved.get().into());
            }
            position += u64::from(entry.size.get());
            hashes += u64::from(entry.key_hashes.get());
        }
        let sums = [
            ("records", u64::from(self.header.records_len.get()), position - begin),
            ("key hashes", self.key_hashes.len() as u64 * 4, hashes * 4),
        ];
        for (part, expected, found) in sums {
            if found != expected {
                return Err(BatchError::Sum { part, expected, found });
            }
        }
        Ok(())
    }

    #[must_use]
    pub fn header(&self) -> &'a BatchHeader {
        self.header
    }

    /// The records in the order in which they stand on disk.
    pub fn entries(&self) -> impl Iterator<Item = Described<'a>> + use<'a> {
        let Directory { header, entries, key_hashes } = *self;
        let mut hashes_at = 0;
        entries.iter().map(move |entry| {
            let hashes = &key_hashes[hashes_at..hashes_at + usize::from(entry.key_hashes.get())];
            hashes_at += hashes.len();
            Described {
                queue: QueueKey(entry.queue.get()),
                queue_offset: QueueOffset(entry.queue_offset.get()),
                log_offset: header.base_offset().plus(entry.position.get().into()),
                store_time_ms: entry.store_time.get(),
                tag_hash: entry.tag_hash.get(),
                key_hashes: hashes,
                position: entry.position.get(),
                size: entry.size.get(),
            }
        })
    }

    /// Where in the batch the record stands that begins at `log_offset`, if one does.
    #[must_use]
    pub fn find(&self, log_offset: LogOffset) -> Option<Range<usize>> {
        let position = u32::try_from(log_offset.0.checked_sub(self.header.base_offset.get())?).ok()?;
        let number = self.entries.binary_search_by_key(&position, |entry| entry.position.get()).ok()?;
        let begin = position as usize;
        Some(begin..begin + self.entries[number].size.get() as usize)
    }
}

/// One record as the directory describes it.
#[derive(Clone, Copy, Debug)]
pub struct Described<'a> {
    pub queue: QueueKey,
    pub queue_offset: QueueOffset,
    pub log_offset: LogOffset,
    pub store_time_ms: i64,
    pub tag_hash: i32,
    pub key_hashes: &'a [U32],
    /// In the batch.
    pub position: u32,
    pub size: u32,
}
