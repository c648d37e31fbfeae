//! A batch: written once into the buffer that goes to the disk, and checked whole before a byte of it is believed.

use std::ops::Range;

use zerocopy::IntoBytes;
use zerocopy::byteorder::little_endian::{I32, I64, U16, U32, U64};

use super::{
    BATCH_HEADER_LEN, BATCH_MAGIC, BatchHeader, BatchKind, DIRECTORY_ENTRY_LEN, Directory, DirectoryEntry,
    FORMAT_VERSION, HeaderError, KEY_HASHES_MAX, RawHeader, padded_len,
};
use crate::record::Place;
use crate::types::{BatchIndex, GroupId, LogOffset, NodeId, QueueKey, QueueOffset, Term};

/// What a batch says of itself besides its content.
#[derive(Clone, Copy, Debug)]
pub struct BatchFields {
    pub kind: BatchKind,
    pub group: GroupId,
    pub leader: NodeId,
    pub term: Term,
    pub index: BatchIndex,
    pub prev_term: Term,
    pub base_offset: LogOffset,
    pub commit_hint: BatchIndex,
    pub store_time_ms: i64,
}

/// The lengths of a batch, counted up record by record before any memory is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchLayout {
    records: usize,
    key_hashes: usize,
    record_bytes: usize,
}

impl BatchLayout {
    pub fn add(&mut self, record_len: u32, key_hashes: usize) {
        self.records += 1;
        self.key_hashes += key_hashes;
        self.record_bytes += record_len as usize;
    }

    /// The layout of both one behind the other in one batch.
    #[must_use]
    pub fn with(&self, other: &BatchLayout) -> BatchLayout {
        BatchLayout {
            records: self.records + other.records,
            key_hashes: self.key_hashes + other.key_hashes,
            record_bytes: self.record_bytes + other.record_bytes,
        }
    }

    #[must_use]
    pub fn records(&self) -> usize {
        self.records
    }

    fn directory_len(&self) -> usize {
        self.records * DIRECTORY_ENTRY_LEN + self.key_hashes * 4
    }

    /// Bytes of the batch without padding.
    #[must_use]
    pub fn content_len(&self) -> usize {
        BATCH_HEADER_LEN + self.directory_len() + self.record_bytes
    }

    /// Bytes of the batch on disk.
    #[must_use]
    pub fn batch_len(&self) -> usize {
        padded_len(self.content_len())
    }
}

/// A record about to be written, without its bytes.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    pub queue: QueueKey,
    pub queue_offset: QueueOffset,
    pub tag_hash: i32,
    pub key_hashes: &'a [u32],
    pub size: u32,
}

/// Fills the buffer of one batch, record by record, in the order in which they shall stand on disk.
pub struct BatchWriter<'a> {
    out: &'a mut [u8],
    layout: BatchLayout,
    fields: BatchFields,
    entries: usize,
    key_at: usize,
    record_at: usize,
}

impl<'a> BatchWriter<'a> {
    /// `buffer` holds at least [`BatchLayout::batch_len`] bytes; what they were does not matter.
    pub fn new(buffer: &'a mut [u8], layout: BatchLayout, fields: BatchFields) -> BatchWriter<'a> {
        let batch_len = layout.batch_len();
        assert!(buffer.len() >= batch_len, "buffer of {} bytes for a batch of {batch_len}", buffer.len());
        let out = &mut buffer[..batch_len];
        let key_at = BATCH_HEADER_LEN + layout.records * DIRECTORY_ENTRY_LEN;
        let record_at = BATCH_HEADER_LEN + layout.directory_len();
        BatchWriter { out, layout, fields, entries: 0, key_at, record_at }
    }

    /// Writes one record by `encode` and its directory entry; returns where it stands in the log.
    pub fn push(&mut self, entry: NewEntry<'_>, encode: impl FnOnce(Place, &mut [u8])) -> LogOffset {
        assert!(entry.key_hashes.len() <= KEY_HASHES_MAX, "{} key hashes", entry.key_hashes.len());
        assert!(self.entries < self.layout.records, "more than the {} records measured", self.layout.records);
        let position = self.record_at;
        let log_offset = self.fields.base_offset.plus(position as u64);
        let described = DirectoryEntry {
            queue: U64::new(entry.queue.0),
            queue_offset: U64::new(entry.queue_offset.0),
            store_time: I64::new(self.fields.store_time_ms),
            position: U32::new(position as u32),
            size: U32::new(entry.size),
            tag_hash: I32::new(entry.tag_hash),
            key_hashes: U16::new(entry.key_hashes.len() as u16),
            reserved: U16::ZERO,
        };
        let entry_at = BATCH_HEADER_LEN + self.entries * DIRECTORY_ENTRY_LEN;
        self.out[entry_at..entry_at + DIRECTORY_ENTRY_LEN].copy_from_slice(described.as_bytes());
        for hash in entry.key_hashes {
            self.out[self.key_at..self.key_at + 4].copy_from_slice(&hash.to_le_bytes());
            self.key_at += 4;
        }
        self.entries += 1;
        self.record_at += entry.size as usize;
        let place =
            Place { log_offset, queue_offset: entry.queue_offset, store_time_ms: self.fields.store_time_ms };
        encode(place, &mut self.out[position..position + entry.size as usize]);
        log_offset
    }

    /// Pads with zeros, writes header and checksums. All that was measured must have been pushed.
    pub fn finish(self) {
        let BatchWriter { out, layout, fields, entries, key_at, record_at } = self;
        assert_eq!(entries, layout.records, "records pushed and measured");
        let records_at = BATCH_HEADER_LEN + layout.directory_len();
        assert_eq!(key_at, records_at, "key hashes pushed and measured");
        assert_eq!(record_at, layout.content_len(), "record bytes pushed and measured");
        out[record_at..].fill(0);
        let mut header = BatchHeader {
            magic: BATCH_MAGIC,
            version: U16::new(FORMAT_VERSION),
            header_len: U16::new(BATCH_HEADER_LEN as u16),
            header_crc: U32::ZERO,
            records_crc: U32::new(crc32c::crc32c(&out[records_at..])),
            kind: fields.kind as u8,
            reserved: [0; 7],
            group: U64::new(fields.group.0),
            term: U64::new(fields.term.0),
            index: U64::new(fields.index.0),
            prev_term: U64::new(fields.prev_term.0),
            base_offset: U64::new(fields.base_offset.0),
            commit_hint: U64::new(fields.commit_hint.0),
            leader: U64::new(fields.leader.0),
            store_time: I64::new(fields.store_time_ms),
            length: U32::new(out.len() as u32),
            directory_len: U32::new(layout.directory_len() as u32),
            record_count: U32::new(layout.records as u32),
            records_len: U32::new(layout.record_bytes as u32),
            directory_crc: U32::new(crc32c::crc32c(&out[BATCH_HEADER_LEN..records_at])),
            reserved_tail: [0; 20],
        };
        header.seal();
        out[..BATCH_HEADER_LEN].copy_from_slice(header.as_bytes());
    }
}

/// Why bytes are not a whole batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("{found} bytes of a batch of {expected}")]
    Short { expected: usize, found: usize },
    #[error("directory checksum {found:08x}, expected {expected:08x}")]
    DirectoryCrc { expected: u32, found: u32 },
    #[error("records checksum {found:08x}, expected {expected:08x}")]
    RecordsCrc { expected: u32, found: u32 },
    /// The checksum holds, yet an entry cannot be: a fault of the writer.
    #[error("directory entry {entry}: {field} is {found}, expected {expected}")]
    Entry { entry: usize, field: &'static str, expected: u64, found: u64 },
    #[error("the directory describes {found} bytes of {part}, the header {expected}")]
    Sum { part: &'static str, expected: u64, found: u64 },
}

/// Bytes that begin with a batch, not yet believed; more may follow behind it.
#[derive(Clone, Copy, Debug)]
pub struct RawBatch<'a>(pub &'a [u8]);

impl<'a> RawBatch<'a> {
    /// Checks all checksums and that the directory fits the records exactly. Whether the batch belongs here (its
    /// group, index, offset and terms) only the reader of the log can tell.
    pub fn verify(self) -> Result<Batch<'a>, BatchError> {
        let header = RawHeader(self.0).verify()?;
        let bytes = self
            .0
            .get(..header.batch_len())
            .ok_or(BatchError::Short { expected: header.batch_len(), found: self.0.len() })?;
        let directory = Directory::parse(header, bytes)?;
        let (expected, found) = (header.records_crc.get(), crc32c::crc32c(&bytes[header.directory_end()..]));
        if found != expected {
            return Err(BatchError::RecordsCrc { expected, found });
        }
        directory.check()?;
        Ok(Batch { directory, bytes })
    }
}

/// A whole batch: checksums hold and the directory describes the records without gap or overlap.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    directory: Directory<'a>,
    bytes: &'a [u8],
}

impl<'a> Batch<'a> {
    #[must_use]
    pub fn header(&self) -> &'a BatchHeader {
        self.directory.header()
    }

    /// The records in the order in which they stand on disk.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let Batch { directory, bytes } = *self;
        directory.entries().map(move |entry| {
            let position = entry.position as usize;
            Entry {
                queue: entry.queue,
                queue_offset: entry.queue_offset,
                log_offset: entry.log_offset,
                store_time_ms: entry.store_time_ms,
                tag_hash: entry.tag_hash,
                key_hashes: entry.key_hashes,
                record: &bytes[position..position + entry.size as usize],
            }
        })
    }

    /// Where in the batch the record stands that begins at `log_offset`, if one does.
    #[must_use]
    pub fn find(&self, log_offset: LogOffset) -> Option<Range<usize>> {
        self.directory.find(log_offset)
    }
}

/// One record of a verified batch.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub queue: QueueKey,
    pub queue_offset: QueueOffset,
    pub log_offset: LogOffset,
    pub store_time_ms: i64,
    pub tag_hash: i32,
    pub key_hashes: &'a [U32],
    pub record: &'a [u8],
}
