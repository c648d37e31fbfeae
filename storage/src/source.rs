//! What the log's blocking work needs of a disk: recovery, sealing, snapshots and tools read and write whole files
//! through it. A real directory ([`driver::LogFiles`](crate::driver::LogFiles)) and the simulated disk provide it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::disk::SegmentInfo;
use crate::group_state::SLOT_LEN;
use crate::types::LogOffset;

/// The files of one log. Blocks: never to be called on a shard's thread while the shard runs.
pub trait LogSource {
    /// All segments there are, in any order.
    fn segments(&self) -> io::Result<Vec<SegmentInfo>>;

    /// Fills `out` from `position` of a segment; shorter is an error.
    fn read_at(&self, base: LogOffset, position: u64, out: &mut [u8]) -> io::Result<()>;

    /// Makes durable what was read: it may have been written and not synced before the process ended, and recovery
    /// is about to call it committed.
    fn sync(&self, base: LogOffset) -> io::Result<()>;

    /// The segments that an index file is there for, by their bases, in any order.
    fn indexes(&self) -> io::Result<Vec<LogOffset>>;

    /// The bytes of a segment's index file.
    fn map_index(&self, base: LogOffset) -> io::Result<Arc<dyn IndexBytes>>;

    /// Writes a segment's index file. When answered it is durable under its name; after an error, or a crash before the
    /// answer, it is there whole or not at all. One that was there is replaced, and those that mapped it keep theirs.
    fn write_index(&self, base: LogOffset, bytes: &[u8]) -> io::Result<()>;

    /// Removes a segment's index file.
    fn remove_index(&self, base: LogOffset) -> io::Result<()>;

    /// The snapshots there are, by the log offsets they cover, in any order.
    fn snapshots(&self) -> io::Result<Vec<LogOffset>>;

    fn read_snapshot(&self, at: LogOffset) -> io::Result<Vec<u8>>;

    /// Writes a snapshot, with the promise of [`write_index`](LogSource::write_index).
    fn write_snapshot(&self, at: LogOffset, bytes: &[u8]) -> io::Result<()>;

    fn remove_snapshot(&self, at: LogOffset) -> io::Result<()>;

    /// The file of a group node's state, both slots; nothing if no state was ever saved.
    fn read_group_slots(&self) -> io::Result<Option<Vec<u8>>>;

    /// Writes one slot of a group node's state, durable when answered; the other slot is not touched. After an error, or a
    /// crash before the answer, any part of it may be there. The first one makes the file, whole or not at all.
    fn write_group_slot(&self, slot: u32, bytes: &[u8; SLOT_LEN]) -> io::Result<()>;

    /// The file of a checkpoint that the log is being begun anew behind, if there is one.
    fn read_checkpoint(&self) -> io::Result<Option<Vec<u8>>>;

    /// Writes that file, with the promise of [`write_index`](LogSource::write_index).
    fn write_checkpoint(&self, bytes: &[u8]) -> io::Result<()>;

    fn remove_checkpoint(&self) -> io::Result<()>;

    /// Removes a segment's file. Whoever reads it keeps it.
    fn remove_segment(&self, base: LogOffset) -> io::Result<()>;

    /// How errors name a file: a path, where there is one.
    fn name(&self, file: LogFile) -> String;
}

/// The bytes of an index file. They never change.
pub trait IndexBytes: Send + Sync + fmt::Debug {
    fn bytes(&self) -> &[u8];

    /// Whether `range` can be read now without waiting for a disk. It may be evicted at any time after; that is rare enough
    /// for a shard's thread to bear.
    fn is_resident(&self, range: Range<usize>) -> bool;

    /// Asks for `range` to be read in one piece: it is about to be touched. Only a hint.
    fn prefetch(&self, _range: Range<usize>) {}
}

/// Bytes in memory are always resident.
impl IndexBytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn is_resident(&self, _range: Range<usize>) -> bool {
        true
    }
}

/// One file of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFile {
    /// By the log offset of its first byte.
    Segment(LogOffset),
    /// By the log offset of its segment's first byte.
    Index(LogOffset),
    /// By the log offset up to which it covers the log.
    Snapshot(LogOffset),
    /// What a node of a group must not forget.
    GroupState,
    /// What a log is being begun anew behind.
    Checkpoint,
}

const GROUP_STATE_NAME: &str = "group";
const CHECKPOINT_NAME: &str = "checkpoint";

impl LogFile {
    #[must_use]
    pub fn file_name(self) -> String {
        let (offset, extension) = match self {
            LogFile::Segment(base) => (base, "seg"),
            LogFile::Index(base) => (base, "idx"),
            LogFile::Snapshot(at) => (at, "snap"),
            LogFile::GroupState => return GROUP_STATE_NAME.to_owned(),
            LogFile::Checkpoint => return CHECKPOINT_NAME.to_owned(),
        };
        format!("{:020}.{extension}", offset.0)
    }

    /// Which file of a log has this name, if one can have it.
    #[must_use]
    pub fn parse(name: &str) -> Option<LogFile> {
        match name {
            GROUP_STATE_NAME => return Some(LogFile::GroupState),
            CHECKPOINT_NAME => return Some(LogFile::Checkpoint),
            _ => {}
        }
        let (digits, extension) = name.split_once('.')?;
        if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let offset = LogOffset(digits.parse().ok()?);
        match extension {
            "seg" => Some(LogFile::Segment(offset)),
            "idx" => Some(LogFile::Index(offset)),
            "snap" => Some(LogFile::Snapshot(offset)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_files() {
        for offset in [0, 1 << 30, u64::MAX].map(LogOffset) {
            for file in [LogFile::Segment(offset), LogFile::Index(offset), LogFile::Snapshot(offset)] {
                assert_eq!(LogFile::parse(&file.file_name()), Some(file));
            }
        }
        for file in [LogFile::GroupState, LogFile::Checkpoint] {
            assert_eq!(LogFile::parse(&file.file_name()), Some(file));
        }
        assert_eq!(LogFile::Segment(LogOffset(1 << 30)).file_name(), "00000000001073741824.seg");
        let foreign = ["", ".seg", "1.seg", "0000000000000000000x.seg", "+0000000000000000001.seg"];
        let foreign = foreign.into_iter().chain([
            "00000000000000000000",
            "00000000000000000000.log",
            "00000000000000000000.seg.tmp",
            "99999999999999999999.seg",
        ]);
        for name in foreign {
            assert_eq!(LogFile::parse(name), None, "{name}");
        }
    }
}
