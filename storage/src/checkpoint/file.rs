//! The bytes of a checkpoint, drawn in `docs/format.md`: a header, a row for each queue, a snapshot file.

use zerocopy::byteorder::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::job::{Checkpoint, CheckpointSnapshot};
use crate::format::{BLOCK_LEN, age};
use crate::snapshot::{Snapshot, SnapshotError};
use crate::types::{BatchIndex, GroupId, LogOffset, LogStart, QueueKey, QueueOffset, Term};

pub(crate) const CHECKPOINT_MAGIC: [u8; 4] = *b"APGC";
pub(crate) const CHECKPOINT_VERSION: u16 = 1;
pub(crate) const CHECKPOINT_HEADER_LEN: usize = 88;

/// Opens a checkpoint. Little-endian.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub(crate) struct CheckpointHeader {
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
    /// Number of the node's state that says that the log is begun anew.
    pub(crate) state_seq: U64,
    /// Of the batch in front of the log's first.
    pub(crate) start_index: U64,
    pub(crate) start_term: U64,
    /// Log offset of the log's first byte.
    pub(crate) start_offset: U64,
    /// Store time of the batch in front.
    pub(crate) last_time: I64,
    /// Log offset up to which the snapshot covers the log.
    pub(crate) snapshot_at: U64,
    /// Bytes of the snapshot; 0 if there is none.
    pub(crate) snapshot_len: U64,
    /// Rows.
    pub(crate) queues: U64,
}

/// A queue that has records in front of the start. By ascending `queue`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub(crate) struct QueueEndRow {
    pub(crate) queue: U64,
    /// Queue offset that comes next.
    pub(crate) end: U64,
}

const _: () = assert!(size_of::<CheckpointHeader>() == CHECKPOINT_HEADER_LEN);
const _: () = assert!(size_of::<QueueEndRow>() == 16);

/// Why bytes are no checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error("{found} bytes cannot hold the header of a checkpoint")]
    Short { found: u64 },
    #[error("magic number {found:02x?}, expected {CHECKPOINT_MAGIC:02x?}")]
    Magic { found: [u8; 4] },
    #[error("checksum {found:08x}, expected {expected:08x}")]
    Crc { expected: u32, found: u32 },
    /// Whole, and written by a program that knows another version of the format.
    #[error(
        "checkpoint version {found}, {} than the only one this program knows, {CHECKPOINT_VERSION}",
        age(*found, CHECKPOINT_VERSION)
    )]
    Version { found: u16 },
    /// The checksum holds, yet a field is not what it must be.
    #[error("{field} is {found}, expected {expected}")]
    Field { field: &'static str, expected: u64, found: u64 },
    #[error("the snapshot in it: {0}")]
    Snapshot(#[from] SnapshotError),
    /// A log that does not begin with its first batch needs one.
    #[error("the log begins behind batch {index}, and no snapshot tells what came before")]
    NoSnapshot { index: BatchIndex },
    /// The leader's log has no index in front of it.
    #[error("the log begins behind batch {index}, and no index tells where its queues stood")]
    NoBoundary { index: BatchIndex },
}

impl Checkpoint {
    /// The bytes of the file that goes with the node's state of this number.
    pub(super) fn encode(&self, group: GroupId, state_seq: u64) -> Vec<u8> {
        let snapshot = self.snapshot.as_ref();
        let file = snapshot.map_or(&[][..], |snapshot| &snapshot.file);
        let header = CheckpointHeader {
            magic: CHECKPOINT_MAGIC,
            version: U16::new(CHECKPOINT_VERSION),
            header_len: U16::new(CHECKPOINT_HEADER_LEN as u16),
            crc: U32::ZERO,
            reserved: U32::ZERO,
            group: group.0.into(),
            state_seq: state_seq.into(),
            start_index: self.start.index.0.into(),
            start_term: self.start.term.0.into(),
            start_offset: self.start.base_offset.0.into(),
            last_time: self.last_store_time_ms.into(),
            snapshot_at: snapshot.map_or(0, |snapshot| snapshot.at.0).into(),
            snapshot_len: (file.len() as u64).into(),
            queues: (self.queue_ends.len() as u64).into(),
        };
        let rows = size_of::<QueueEndRow>() * self.queue_ends.len();
        let mut bytes = Vec::with_capacity(CHECKPOINT_HEADER_LEN + rows + file.len());
        bytes.extend_from_slice(header.as_bytes());
        for (queue, end) in &self.queue_ends {
            bytes.extend_from_slice(QueueEndRow { queue: queue.0.into(), end: end.0.into() }.as_bytes());
        }
        bytes.extend_from_slice(file);
        let crc = file_crc(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Believes bytes of which everything holds; gives the number of the node's state with them.
    pub(super) fn decode(group: GroupId, bytes: &[u8]) -> Result<(u64, Checkpoint), CheckpointError> {
        let found = bytes.len() as u64;
        let Ok((header, behind)) = CheckpointHeader::ref_from_prefix(bytes) else {
            return Err(CheckpointError::Short { found });
        };
        if header.magic != CHECKPOINT_MAGIC {
            return Err(CheckpointError::Magic { found: header.magic });
        }
        let (expected, found) = (header.crc.get(), file_crc(bytes));
        if found != expected {
            return Err(CheckpointError::Crc { expected, found });
        }
        if header.version.get() != CHECKPOINT_VERSION {
            return Err(CheckpointError::Version { found: header.version.get() });
        }
        let (queues, snapshot_len) = (header.queues.get(), header.snapshot_len.get());
        let len = queues.checked_mul(size_of::<QueueEndRow>() as u64);
        let len = len.and_then(|rows| rows.checked_add(snapshot_len));
        let rules = [
            ("header_len", CHECKPOINT_HEADER_LEN as u64, header.header_len.get().into()),
            ("reserved", 0, header.reserved.get().into()),
            ("group", group.0, header.group.get()),
            ("length", len.unwrap_or(u64::MAX), behind.len() as u64),
            ("start_offset in a block", 0, header.start_offset.get() % BLOCK_LEN as u64),
        ];
        for (field, expected, found) in rules {
            if expected != found {
                return Err(CheckpointError::Field { field, expected, found });
            }
        }
        let (rows, file) = behind.split_at(behind.len() - snapshot_len as usize);
        let rows = <[QueueEndRow]>::ref_from_bytes(rows).expect("whole rows without alignment");
        if let Some(two) = rows.windows(2).find(|two| two[0].queue >= two[1].queue) {
            let (expected, found) = (two[0].queue.get().saturating_add(1), two[1].queue.get());
            return Err(CheckpointError::Field { field: "queue", expected, found });
        }
        let queue_end = |row: &QueueEndRow| (QueueKey(row.queue.get()), QueueOffset(row.end.get()));
        let checkpoint = Checkpoint {
            start: LogStart {
                index: BatchIndex(header.start_index.get()),
                term: Term(header.start_term.get()),
                base_offset: LogOffset(header.start_offset.get()),
            },
            last_store_time_ms: header.last_time.get(),
            queue_ends: rows.iter().map(queue_end).collect(),
            snapshot: (snapshot_len > 0)
                .then(|| CheckpointSnapshot { at: LogOffset(header.snapshot_at.get()), file: file.to_vec() }),
        };
        checkpoint.check(group)?;
        Ok((header.state_seq.get(), checkpoint))
    }

    /// Whether a log can begin behind it. Gives the snapshot, believed.
    pub(super) fn check(&self, group: GroupId) -> Result<Option<Snapshot>, CheckpointError> {
        let LogStart { index, base_offset, .. } = self.start;
        if (index.0 == 0) != (base_offset.0 == 0) {
            let (field, found) = ("start_index", index.0);
            return Err(CheckpointError::Field { field, expected: u64::from(base_offset.0 > 0), found });
        }
        let Some(CheckpointSnapshot { at, file }) = &self.snapshot else {
            return if index.0 == 0 { Ok(None) } else { Err(CheckpointError::NoSnapshot { index }) };
        };
        let snapshot = Snapshot::decode(file.clone())?;
        let named = [
            ("group", group.0, snapshot.group.0),
            ("snapshot_at", at.0, snapshot.at.0),
            // It may stand behind the start, and knows of more batches then.
            ("index", snapshot.index.0.max(index.0), snapshot.index.0),
        ];
        match named.into_iter().find(|(_, expected, found)| expected != found) {
            Some((field, expected, found)) => Err(CheckpointError::Field { field, expected, found }),
            None => Ok(Some(snapshot)),
        }
    }
}

const CRC_AT: usize = std::mem::offset_of!(CheckpointHeader, crc);

/// The checksum of a file, without the bytes where it stands.
fn file_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), &bytes[CRC_AT + 4..])
}
