//! What recovery needs of a disk.

use std::io;

use crate::disk::SegmentInfo;
use crate::types::LogOffset;

/// The segments of one log, to be read at start-up. Blocking; a real directory and the simulated disk provide it.
pub trait SegmentSource {
    /// All segments there are, in any order.
    fn segments(&self) -> io::Result<Vec<SegmentInfo>>;

    /// Fills `out` from `position` of a segment; shorter is an error.
    fn read_at(&self, base: LogOffset, position: u64, out: &mut [u8]) -> io::Result<()>;

    /// Makes durable what was read: it may have been written and not synced before the process ended, and recovery
    /// is about to call it committed.
    fn sync(&self, base: LogOffset) -> io::Result<()>;

    /// How errors name a segment: a path, where there is one.
    fn name(&self, base: LogOffset) -> String;
}
