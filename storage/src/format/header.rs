//! The header that opens every batch.

use zerocopy::byteorder::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{BATCH_BYTES_LIMIT, BLOCK_LEN, DIRECTORY_ENTRY_LEN};
use crate::types::{BatchIndex, GroupId, LogOffset, NodeId, Term};

pub const BATCH_HEADER_LEN: usize = 128;
pub const BATCH_MAGIC: [u8; 4] = *b"APGB";
pub const FORMAT_VERSION: u16 = 2;

/// No group lives to see a greater term: with it a term can always be followed by another.
const TERM_MAX: u64 = u64::MAX / 2;

/// Length of the part that every version of the format has: magic, version, header length, header checksum.
const PREFIX_LEN: usize = 12;
/// Where the header checksum stands; it covers all other bytes of the header.
const CRC_AT: usize = 8;

/// Opens every batch. Little-endian; one batch is one direct write and one entry of the replicated log. All of it
/// is chosen by the leader, so that it is identical on every replica.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct BatchHeader {
    /// Rejects foreign or zeroed bytes before any other field is believed.
    pub magic: [u8; 4],
    pub version: U16,
    /// Bytes of the header. With `magic`, `version` and `header_crc` it keeps its place in every version, so that a
    /// newer batch is told from a damaged one.
    pub header_len: U16,
    /// CRC32C of the header without these four bytes.
    pub header_crc: U32,
    /// CRC32C of all that follows the directory up to `length`, padding included.
    pub records_crc: U32,
    /// A [`BatchKind`].
    pub kind: u8,
    /// Zero.
    pub reserved: [u8; 7],
    pub group: U64,
    /// Of the leader that sealed the batch.
    pub term: U64,
    /// Dense; one batch, one index.
    pub index: U64,
    /// Term of the batch with the index before. Cutting a log erases nothing, so whole batches of a former life
    /// may stand exactly where the next one is looked for; this field tells them apart.
    pub prev_term: U64,
    /// Log offset of the batch's first byte; a gap to the next segment's start shows here.
    pub base_offset: U64,
    /// Every batch up to this index was committed when this one was sealed. Without a group it was durable too: if one of
    /// them is not whole, data that was acknowledged is damaged. In a group it need not have been durable here.
    pub commit_hint: U64,
    /// The node that sealed the batch.
    pub leader: U64,
    /// Milliseconds since 1970 at the seal, never less than the batch's before.
    pub store_time: I64,
    /// Bytes of the whole batch, padding included: a multiple of the block.
    pub length: U32,
    /// Bytes of the directory: entries, then key hashes.
    pub directory_len: U32,
    pub record_count: U32,
    /// Bytes of all records; they follow the directory without gaps.
    pub records_len: U32,
    /// CRC32C of the directory, so that it can be believed without reading the records.
    pub directory_crc: U32,
    /// Zero.
    pub reserved_tail: [u8; 20],
}

const _: () = assert!(size_of::<BatchHeader>() == BATCH_HEADER_LEN);
const _: () = assert!(std::mem::offset_of!(BatchHeader, header_crc) == CRC_AT);
const _: () = assert!(std::mem::offset_of!(BatchHeader, records_crc) == PREFIX_LEN);
const _: () = assert!(BATCH_HEADER_LEN <= BLOCK_LEN);

/// What a batch carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// Records of queues, control records among them.
    Records = 1,
    /// Nothing: the first batch of a leader's term.
    NoOp = 2,
    /// A change of the group's members: one record, of [`QueueKey::MEMBERS`](crate::QueueKey::MEMBERS).
    Configuration = 3,
}

impl BatchKind {
    fn from_byte(byte: u8) -> Option<BatchKind> {
        [BatchKind::Records, BatchKind::NoOp, BatchKind::Configuration]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Why bytes are not the header of a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("{found} bytes cannot hold a batch header")]
    Short { found: usize },
    /// Never written: the block is as a new segment has it.
    #[error("no batch: only zeros")]
    Zero,
    #[error("magic number {found:02x?}, expected {BATCH_MAGIC:02x?}")]
    Magic { found: [u8; 4] },
    #[error("header checksum {found:08x}, expected {expected:08x}")]
    HeaderCrc { expected: u32, found: u32 },
    /// Whole, and written by a program that knows another version of the format.
    #[error("format version {found}, {} than the only one this program knows, {FORMAT_VERSION}", age(*found, FORMAT_VERSION))]
    Version { found: u16 },
    #[error("batch kind {found} is unknown")]
    Kind { found: u8 },
    /// The checksum holds, yet a field cannot be: a fault of the writer.
    #[error("{field} is {found}, which no writer makes")]
    Field { field: &'static str, found: u64 },
}

/// How another version of a format stands to the one this program knows.
#[must_use]
pub(crate) fn age(found: u16, known: u16) -> &'static str {
    if found < known { "older" } else { "newer" }
}

/// The first bytes of a batch as read, not yet believed.
#[derive(Clone, Copy, Debug)]
pub struct RawHeader<'a>(pub &'a [u8]);

impl<'a> RawHeader<'a> {
    /// Checks everything that the header alone can tell. Bytes behind the header are not looked at.
    pub fn verify(self) -> Result<&'a BatchHeader, HeaderError> {
        let bytes = self.0;
        let short = HeaderError::Short { found: bytes.len() };
        let prefix = bytes.get(..PREFIX_LEN).ok_or(short.clone())?;
        let magic = [prefix[0], prefix[1], prefix[2], prefix[3]];
        if magic != BATCH_MAGIC {
            let zero = bytes[..bytes.len().min(BATCH_HEADER_LEN)].iter().all(|byte| *byte == 0);
            return Err(if zero { HeaderError::Zero } else { HeaderError::Magic { found: magic } });
        }
        let version = u16::from_le_bytes([prefix[4], prefix[5]]);
        let header_len = usize::from(u16::from_le_bytes([prefix[6], prefix[7]]));
        let expected = u32::from_le_bytes([prefix[8], prefix[9], prefix[10], prefix[11]]);
        let covered = bytes.get(PREFIX_LEN..header_len.min(BLOCK_LEN)).ok_or(short.clone())?;
        let found = header_crc(&prefix[..CRC_AT], covered);
        if found != expected {
            return Err(HeaderError::HeaderCrc { expected, found });
        }
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version { found: version });
        }
        let (header, _) = BatchHeader::ref_from_prefix(bytes).map_err(|_| short)?;
        header.check_fields()?;
        Ok(header)
    }
}

fn header_crc(before: &[u8], after: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(before), after)
}

impl BatchHeader {
    /// Puts the checksum in; to be called last.
    pub(super) fn seal(&mut self) {
        let bytes = self.as_bytes();
        let crc = header_crc(&bytes[..CRC_AT], &bytes[PREFIX_LEN..]);
        self.header_crc = U32::new(crc);
    }

    fn check_fields(&self) -> Result<(), HeaderError> {
        let wrong = |field, found| Err(HeaderError::Field { field, found });
        let kind = BatchKind::from_byte(self.kind).ok_or(HeaderError::Kind { found: self.kind })?;
        let length = self.length.get();
        let (directory, records) = (u64::from(self.directory_len.get()), u64::from(self.records_len.get()));
        let entries = u64::from(self.record_count.get()) * DIRECTORY_ENTRY_LEN as u64;
        let content = BATCH_HEADER_LEN as u64 + directory + records;
        if usize::from(self.header_len.get()) != BATCH_HEADER_LEN {
            return wrong("header_len", self.header_len.get().into());
        }
        if self.reserved != [0; 7] || self.reserved_tail != [0; 20] {
            return wrong("reserved", 1);
        }
        if length == 0 || length > BATCH_BYTES_LIMIT || !(length as usize).is_multiple_of(BLOCK_LEN) {
            return wrong("length", length.into());
        }
        if content > length.into() || content + (BLOCK_LEN as u64) <= length.into() {
            return wrong("length", length.into());
        }
        if directory < entries || !(directory - entries).is_multiple_of(4) {
            return wrong("directory_len", directory);
        }
        if kind == BatchKind::NoOp && (directory != 0 || records != 0) {
            return wrong("record_count", self.record_count.get().into());
        }
        if kind == BatchKind::Configuration && self.record_count.get() != 1 {
            return wrong("record_count", self.record_count.get().into());
        }
        if !self.base_offset.get().is_multiple_of(BLOCK_LEN as u64) {
            return wrong("base_offset", self.base_offset.get());
        }
        if self.base_offset.get().checked_add(length.into()).is_none() {
            return wrong("base_offset", self.base_offset.get());
        }
        if self.index.get() == 0 || self.index.get() <= self.commit_hint.get() {
            return wrong("index", self.index.get());
        }
        if self.term.get() > TERM_MAX {
            return wrong("term", self.term.get());
        }
        if self.prev_term.get() > self.term.get() {
            return wrong("prev_term", self.prev_term.get());
        }
        Ok(())
    }

    #[must_use]
    pub fn batch_kind(&self) -> BatchKind {
        BatchKind::from_byte(self.kind).expect("verified headers have a known kind")
    }
    #[must_use]
    pub fn group(&self) -> GroupId {
        GroupId(self.group.get())
    }
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.term.get())
    }
    #[must_use]
    pub fn prev_term(&self) -> Term {
        Term(self.prev_term.get())
    }
    #[must_use]
    pub fn index(&self) -> BatchIndex {
        BatchIndex(self.index.get())
    }
    #[must_use]
    pub fn commit_hint(&self) -> BatchIndex {
        BatchIndex(self.commit_hint.get())
    }
    #[must_use]
    pub fn base_offset(&self) -> LogOffset {
        LogOffset(self.base_offset.get())
    }
    #[must_use]
    pub fn leader(&self) -> NodeId {
        NodeId(self.leader.get())
    }
    /// Where in the batch the directory ends and the first record begins.
    #[must_use]
    pub fn directory_end(&self) -> usize {
        BATCH_HEADER_LEN + self.directory_len.get() as usize
    }
    #[must_use]
    pub fn batch_len(&self) -> usize {
        self.length.get() as usize
    }
}
