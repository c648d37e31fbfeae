//! The bytes of an index file, drawn in `docs/format.md`: a header page, the page table, then four sections of rows.

use zerocopy::byteorder::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What is checked, and read from disk, as a whole.
pub(crate) const PAGE_LEN: usize = 4096;
pub(crate) const INDEX_MAGIC: [u8; 4] = *b"APGI";
pub(crate) const INDEX_VERSION: u16 = 1;
pub(crate) const INDEX_HEADER_LEN: usize = 112;

/// Opens an index file; the rest of its page is zero. Little-endian.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub(crate) struct IndexHeader {
    pub(crate) magic: [u8; 4],
    pub(crate) version: U16,
    /// Bytes of the header.
    pub(crate) header_len: U16,
    /// CRC32C of the file's first page without these four bytes. With `magic` and `version` it keeps its place in every
    /// version, so that another version is told from damage.
    pub(crate) header_crc: U32,
    /// CRC32C of the pages of the page table, padding included.
    pub(crate) table_crc: U32,
    pub(crate) group: U64,
    /// Log offset of the segment's first byte.
    pub(crate) segment: U64,
    /// Bytes of the segment file.
    pub(crate) segment_bytes: U64,
    /// Log offset one past the segment's last batch.
    pub(crate) end: U64,
    /// Of the segment's first batch.
    pub(crate) first_index: U64,
    pub(crate) last_index: U64,
    /// Term of the batch before the first.
    pub(crate) prev_term: U64,
    /// Term of the last batch.
    pub(crate) last_term: U64,
    /// Store time of the first batch, milliseconds since 1970. Times of entries count from it.
    pub(crate) first_time: I64,
    /// Store time of the last batch.
    pub(crate) last_time: I64,
    /// Rows of each section.
    pub(crate) queues: U32,
    pub(crate) entries: U32,
    pub(crate) keys: U32,
    pub(crate) batches: U32,
}

/// Describes one page of the sections.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub(crate) struct PageRow {
    /// CRC32C of the page.
    pub(crate) crc: U32,
    /// What the page's first row is found by, so that a search opens only the page that it ends in.
    pub(crate) first: U64,
}

/// A queue that the log knew at the end of the segment, with or without records in it. By ascending `queue`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub(crate) struct QueueRow {
    pub(crate) queue: U64,
    /// Queue offset that came next when the segment began.
    pub(crate) begin: U64,
    /// Number of the first of its entries.
    pub(crate) first_entry: U32,
    pub(crate) count: U32,
}

/// A record. Queue by queue in the order of the queues' rows, by queue offset in each.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub(crate) struct EntryRow {
    /// First byte in the segment.
    pub(crate) position: U32,
    pub(crate) size: U32,
    pub(crate) tag_hash: I32,
    /// Milliseconds since the header's `first_time`.
    pub(crate) time: U32,
}

/// A key hash of a record. By ascending `hash`, those of one hash by the place of their records in the log.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub(crate) struct KeyRow {
    pub(crate) hash: U32,
    /// Number of the record's entry.
    pub(crate) entry: U32,
}

/// A batch. By ascending `position`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub(crate) struct BatchRow {
    /// First byte in the segment.
    pub(crate) position: U32,
    pub(crate) length: U32,
}

const _: () = assert!(size_of::<IndexHeader>() == INDEX_HEADER_LEN);
const _: () = assert!(INDEX_HEADER_LEN <= PAGE_LEN);
const _: () = assert!(size_of::<PageRow>() == 12);
const _: () = assert!(size_of::<QueueRow>() == 24);
const _: () = assert!(size_of::<EntryRow>() == 16);
const _: () = assert!(size_of::<KeyRow>() == 8);
const _: () = assert!(size_of::<BatchRow>() == 8);

/// A row of a section. Rows never span pages: what is left of a page behind its last row is zero.
pub(super) trait Row: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy {
    const PER_PAGE: u32 = (PAGE_LEN / size_of::<Self>()) as u32;

    /// What rows are found by; never less than that of the row before, entries of one queue among themselves.
    fn sought_by(&self) -> u64;
}

impl Row for QueueRow {
    fn sought_by(&self) -> u64 {
        self.queue.get()
    }
}

impl Row for EntryRow {
    fn sought_by(&self) -> u64 {
        self.time.get().into()
    }
}

impl Row for KeyRow {
    fn sought_by(&self) -> u64 {
        self.hash.get().into()
    }
}

impl Row for BatchRow {
    fn sought_by(&self) -> u64 {
        self.position.get().into()
    }
}

/// The rows of one page, as far as it has any.
pub(super) fn rows_of_page<R: Row>(page: &[u8], rows: u32) -> &[R] {
    let bytes = &page[..rows as usize * size_of::<R>()];
    <[R]>::ref_from_bytes(bytes).expect("whole rows without alignment")
}
