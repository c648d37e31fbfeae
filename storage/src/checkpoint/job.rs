//! What is asked for and answered.

use std::sync::Arc;

use crate::disk::OpId;
use crate::group_state::GroupState;
use crate::sealed::SealedIndex;
use crate::snapshot::DerivedState;
use crate::types::{GroupId, LogOffset, LogStart, QueueKey, QueueOffset};

/// What a log that begins behind a place has to know of what came before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub start: LogStart,
    /// Of the batch in front of the start.
    pub last_store_time_ms: i64,
    /// Where each queue stands at the start, by ascending number.
    pub queue_ends: Vec<(QueueKey, QueueOffset)>,
    /// Derived state at the start or behind it; none for a log from its very first batch on.
    pub snapshot: Option<CheckpointSnapshot>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointSnapshot {
    /// Control records in front of it are in the state.
    pub at: LogOffset,
    /// The bytes of the snapshot file.
    pub file: Vec<u8>,
}

/// Reads a checkpoint of a log that runs.
#[derive(Clone, Debug)]
pub struct CheckpointJob {
    pub id: OpId,
    pub group: GroupId,
    /// Where the log begins.
    pub start: LogStart,
    /// Base of the segment in front of the log, whose index is kept, if the log does not begin at 0.
    pub boundary: Option<LogOffset>,
}

/// Begins a log anew.
#[derive(Clone, Debug)]
pub struct ResetJob {
    pub id: OpId,
    /// The node's, apart from where its log begins: that, the checkpoint says.
    pub state: GroupState,
    pub checkpoint: Checkpoint,
}

/// A log that was begun anew: empty, from the checkpoint's start on.
#[derive(Debug)]
pub struct ResetDone {
    /// As it is durable now.
    pub state: GroupState,
    pub last_store_time_ms: i64,
    pub queue_ends: Vec<(QueueKey, QueueOffset)>,
    /// The index in front of the log, if it does not begin at 0.
    pub boundary: Option<Arc<SealedIndex>>,
    /// Place of the snapshot, if one came with the checkpoint.
    pub snapshot: Option<LogOffset>,
    /// As of the snapshot: control records in front of that are in it, and it is valid once the log is committed up to
    /// there. Without a snapshot that of an empty log.
    pub derived: Box<dyn DerivedState + Send>,
}
