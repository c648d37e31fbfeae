//! What the log did by itself, or what befell it: for people, in the broker's own log.

use super::pipeline::Poison;
use super::space::SpaceState;
use crate::disk::{DiskError, SegmentInfo, Space};
use crate::types::LogOffset;

/// Events nobody fetched; beyond them the oldest are dropped.
pub(super) const EVENTS_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// A segment has its index file, and its entries leave the memory.
    Sealed {
        segment: LogOffset,
        records: u64,
        queues: u64,
    },
    /// The index file of a segment cannot be trusted: reads of it wait until it is made anew.
    IndexDamaged {
        segment: LogOffset,
    },
    IndexRebuilt {
        segment: LogOffset,
    },
    /// Tried again by itself; until then the entries stay in memory, or reads of the segment are refused.
    SealFailed {
        segment: LogOffset,
        error: DiskError,
    },
    SnapshotTaken {
        at: LogOffset,
    },
    /// Tried again by itself; until then no segment leaves that recovery might need.
    SnapshotFailed {
        at: LogOffset,
        error: DiskError,
    },
    /// A segment's records can no longer be read.
    Left {
        segment: SegmentInfo,
        newest_ms: i64,
        why: WhyLeft,
    },
    /// Tried again by itself.
    LeaveFailed {
        segment: LogOffset,
        error: DiskError,
    },
    /// Tried again by itself.
    PrepareFailed {
        segment: LogOffset,
        error: DiskError,
    },
    Space {
        from: SpaceState,
        to: SpaceState,
        space: Option<Space>,
    },
    /// Appends are refused from now on; reads go on.
    Poisoned(Poison),
}

/// Why a segment left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyLeft {
    /// Its newest record was older than records are kept.
    Age,
    /// The log took up more than it may.
    Size,
    /// The disk is nearly full.
    Space,
}
