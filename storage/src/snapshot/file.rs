//! The bytes of a snapshot file, drawn in `docs/format.md`: a header, then whatever the layer above made.

use std::io;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::format::age;
use crate::source::LogSource;
use crate::types::{BatchIndex, GroupId, LogOffset, Term};

pub(crate) const SNAPSHOT_MAGIC: [u8; 4] = *b"APGS";
pub(crate) const SNAPSHOT_VERSION: u16 = 1;
pub(crate) const SNAPSHOT_HEADER_LEN: usize = 56;

/// No snapshot is larger: a state that grew past this could no longer be read back in reasonable time and memory.
pub(crate) const SNAPSHOT_BYTES_LIMIT: u64 = 1 << 30;

/// Opens a snapshot file. Little-endian.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub(crate) struct SnapshotHeader {
    pub(crate) magic: [u8; 4],
    pub(crate) version: U16,
    /// Bytes of the header.
    pub(crate) header_len: U16,
    /// CRC32C of the whole file without these four bytes. With `magic` and `version` it keeps its place in every
    /// version, so that another version is told from damage.
    pub(crate) crc: U32,
    /// Zero.
    pub(crate) reserved: U32,
    pub(crate) group: U64,
    /// Log offset up to which the control records are in it: one past the last batch of a segment.
    pub(crate) position: U64,
    /// Of the batch in front of the position.
    pub(crate) index: U64,
    pub(crate) term: U64,
    /// Bytes behind the header.
    pub(crate) body_len: U64,
}

const _: () = assert!(size_of::<SnapshotHeader>() == SNAPSHOT_HEADER_LEN);

/// A snapshot that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub group: GroupId,
    /// One past the last batch it covers.
    pub at: LogOffset,
    /// Of that batch.
    pub index: BatchIndex,
    pub term: Term,
    /// For [`DerivedState::restore`](super::DerivedState::restore).
    pub body: Vec<u8>,
}

/// Why a file is not the snapshot that its name says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("cannot be read: {message}")]
    Io { os_code: Option<i32>, message: String },
    #[error("{found} bytes cannot hold the header of a snapshot")]
    Short { found: u64 },
    #[error("magic number {found:02x?}, expected {SNAPSHOT_MAGIC:02x?}")]
    Magic { found: [u8; 4] },
    #[error("checksum {found:08x}, expected {expected:08x}")]
    Crc { expected: u32, found: u32 },
    /// Whole, and written by a program that knows another version of the format.
    #[error(
        "snapshot version {found}, {} than the only one this program knows, {SNAPSHOT_VERSION}",
        age(*found, SNAPSHOT_VERSION)
    )]
    Version { found: u16 },
    /// The checksum holds, yet a field is not what it must be.
    #[error("{field} is {found}, expected {expected}")]
    Field { field: &'static str, expected: u64, found: u64 },
    #[error("{found} bytes, at most {limit} are allowed")]
    TooLarge { found: u64, limit: u64 },
}

/// Reads the snapshot of a log at a position and checks all of it.
pub fn read_snapshot<S: LogSource + ?Sized>(
    source: &S,
    group: GroupId,
    at: LogOffset,
) -> Result<Snapshot, SnapshotError> {
    let failed =
        |error: io::Error| SnapshotError::Io { os_code: error.raw_os_error(), message: error.to_string() };
    let snapshot = Snapshot::decode(source.read_snapshot(at).map_err(failed)?)?;
    let named = [("group", group.0, snapshot.group.0), ("position", at.0, snapshot.at.0)];
    for (field, expected, found) in named {
        if expected != found {
            return Err(SnapshotError::Field { field, expected, found });
        }
    }
    Ok(snapshot)
}

impl Snapshot {
    /// The bytes of the file.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, SnapshotError> {
        let found = (SNAPSHOT_HEADER_LEN + self.body.len()) as u64;
        if found > SNAPSHOT_BYTES_LIMIT {
            return Err(SnapshotError::TooLarge { found, limit: SNAPSHOT_BYTES_LIMIT });
        }
        let header = SnapshotHeader {
            magic: SNAPSHOT_MAGIC,
            version: U16::new(SNAPSHOT_VERSION),
            header_len: U16::new(SNAPSHOT_HEADER_LEN as u16),
            crc: U32::ZERO,
            reserved: U32::ZERO,
            group: self.group.0.into(),
            position: self.at.0.into(),
            index: self.index.0.into(),
            term: self.term.0.into(),
            body_len: (self.body.len() as u64).into(),
        };
        let mut bytes = Vec::with_capacity(found as usize);
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&self.body);
        let crc = file_crc(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    /// Believes a file of which everything holds.
    pub(crate) fn decode(mut bytes: Vec<u8>) -> Result<Snapshot, SnapshotError> {
        let found = bytes.len() as u64;
        let Ok((header, body)) = SnapshotHeader::ref_from_prefix(&bytes) else {
            return Err(SnapshotError::Short { found });
        };
        if header.magic != SNAPSHOT_MAGIC {
            return Err(SnapshotError::Magic { found: header.magic });
        }
        let (expected, found) = (header.crc.get(), file_crc(&bytes));
        if found != expected {
            return Err(SnapshotError::Crc { expected, found });
        }
        if header.version.get() != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version { found: header.version.get() });
        }
        let rules = [
            ("header_len", SNAPSHOT_HEADER_LEN as u64, header.header_len.get().into()),
            ("reserved", 0, header.reserved.get().into()),
            ("body_len", body.len() as u64, header.body_len.get()),
        ];
        for (field, expected, found) in rules {
            if expected != found {
                return Err(SnapshotError::Field { field, expected, found });
            }
        }
        let header = *header;
        bytes.drain(..SNAPSHOT_HEADER_LEN);
        Ok(Snapshot {
            group: GroupId(header.group.get()),
            at: LogOffset(header.position.get()),
            index: BatchIndex(header.index.get()),
            term: Term(header.term.get()),
            body: bytes,
        })
    }
}

const CRC_AT: usize = std::mem::offset_of!(SnapshotHeader, crc);

/// The checksum of a file, without the bytes where it stands.
fn file_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), &bytes[CRC_AT + 4..])
}
