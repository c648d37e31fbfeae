//! Tables rebuilt from the control records of the log, or from a snapshot and the records behind it.
//!
//! A snapshot is what the records up to some place of the log come to, as records again: those that would make the
//! tables anew, in this order.
//!
//! ```text
//! TopicPut …         each topic, in the order of their last changes
//! TopicTableState    what the topics do not tell
//! GroupPut …         each group, by name
//! GroupTableState
//! Offsets …          by group and queue, about 64 KiB each
//! ```
//!
//! The records of every other table follow, table by table, in the order of their kinds.
//!
//! Each stands behind its length:
//!
//! ```text
//! 0         4          4 + len
//! +---------+----------+
//! | len u32 | record   |   little-endian; to the end of the snapshot's body
//! +---------+----------+
//! ```
//!
//! Equal tables have equal snapshots, whatever history led to them. File, checksum and position in the log are the
//! log's business.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use apogee_storage::{DerivedState, LogOffset, NewState};

use super::assignment::RequestModeTable;
use super::control::{ControlError, ControlKind, ControlRecord};
use super::forbidden::ForbiddenTable;
use super::groups::GroupTable;
use super::offsets::OffsetTable;
use super::pop::PopTable;
use super::resets::ResetTable;
use super::settings::SettingsTable;
use super::timers::TimerTable;
use super::topics::{TopicPolicy, TopicReplayError, TopicTable};
use super::transactions::TransactionTable;

const LEN_BYTES: usize = 4;

/// Fed with every record that recovery finds, in log order.
#[derive(Debug, PartialEq)]
pub struct Replay {
    pub(super) topics: TopicTable,
    pub(super) groups: GroupTable,
    pub(super) offsets: OffsetTable,
    pub(super) timers: TimerTable,
    pub(super) transactions: TransactionTable,
    pub(super) settings: SettingsTable,
    pub(super) pops: PopTable,
    pub(super) request_modes: RequestModeTable,
    pub(super) resets: ResetTable,
    pub(super) forbidden: ForbiddenTable,
}

/// A control record that does not fit those before it: written by a newer version, or not by a shard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Record(#[from] ControlError),
    #[error(transparent)]
    Topic(#[from] TopicReplayError),
    #[error("control record {0:?} in the log; it has its place in snapshots only")]
    OfSnapshots(ControlKind),
}

/// Bytes that no shard made a snapshot of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("snapshot, record at byte {at}: {error}")]
    Record { at: usize, error: ReplayError },
    #[error("snapshot, record at byte {at}: {kind:?} out of its place, after {after:?}")]
    OutOfPlace { at: usize, kind: ControlKind, after: Option<ControlKind> },
    #[error("snapshot ends at byte {at} in the middle of a record")]
    CutShort { at: usize },
    #[error("snapshot ends at byte {at} without {missing:?}")]
    Incomplete { at: usize, missing: ControlKind },
}

/// Where records of a kind stand in a snapshot; `None` for those that have no place there.
fn rank(kind: ControlKind) -> Option<u8> {
    match kind {
        ControlKind::TopicPut => Some(0),
        ControlKind::TopicTableState => Some(1),
        ControlKind::GroupPut => Some(2),
        ControlKind::GroupTableState => Some(3),
        ControlKind::Offsets => Some(4),
        ControlKind::Timer => Some(5),
        ControlKind::Transaction => Some(6),
        ControlKind::Pop => Some(10),
        ControlKind::RequestMode => Some(11),
        ControlKind::BrokerSettings => Some(14),
        ControlKind::Forbidden => Some(12),
        ControlKind::OffsetReset => Some(13),
        ControlKind::TopicDelete | ControlKind::GroupDelete => None,
    }
}

/// Whether a record of `kind` may follow one of `after`: ranks ascend, and the state of a table stands there exactly
/// once, in front of the next table.
fn may_follow(kind: ControlKind, after: Option<ControlKind>) -> bool {
    let Some(rank_of_kind) = rank(kind) else { return false };
    let last = after.and_then(rank);
    let is_state = |rank: u8| rank == 1 || rank == 3;
    let ascends = last < Some(rank_of_kind) || last == Some(rank_of_kind) && !is_state(rank_of_kind);
    ascends && (0..rank_of_kind).filter(|&rank| is_state(rank)).all(|state| last >= Some(state))
}

impl Replay {
    pub fn new(policy: TopicPolicy, auto_create_group: bool) -> Self {
        Replay {
            topics: TopicTable::new(policy),
            groups: GroupTable::new(auto_create_group),
            offsets: OffsetTable::default(),
            timers: TimerTable::default(),
            transactions: TransactionTable::default(),
            settings: SettingsTable::default(),
            pops: PopTable::default(),
            request_modes: RequestModeTable::default(),
            resets: ResetTable::default(),
            forbidden: ForbiddenTable::default(),
        }
    }

    /// Makes empty tables wherever a snapshot is taken.
    pub fn new_state(policy: TopicPolicy, auto_create_group: bool) -> NewState {
        Arc::new(move || Box::new(Replay::new(policy.clone(), auto_create_group)))
    }

    /// Repeats a change from the log.
    pub fn apply(&mut self, record: &[u8]) -> Result<(), ReplayError> {
        let change = ControlRecord::decode(record)?;
        match change.kind() {
            kind @ (ControlKind::TopicTableState | ControlKind::GroupTableState) => {
                Err(ReplayError::OfSnapshots(kind))
            }
            ControlKind::TopicPut
            | ControlKind::TopicDelete
            | ControlKind::GroupPut
            | ControlKind::GroupDelete
            | ControlKind::Offsets
            | ControlKind::Timer
            | ControlKind::Transaction
            | ControlKind::BrokerSettings
            | ControlKind::RequestMode
            | ControlKind::Forbidden
            | ControlKind::OffsetReset => self.apply_decoded(&change),
            kind @ ControlKind::Pop => match &change {
                ControlRecord::Pop(change) if change.is_of_snapshots() => Err(ReplayError::OfSnapshots(kind)),
                _ => self.apply_decoded(&change),
            },
        }
    }

    fn apply_decoded(&mut self, record: &ControlRecord) -> Result<(), ReplayError> {
        self.topics.apply(record)?;
        self.groups.apply(record);
        self.offsets.apply(record);
        if let ControlRecord::Timer(record) = record {
            self.timers.apply(record);
        }
        if let ControlRecord::Transaction(record) = record {
            self.transactions.apply(record);
        }
        self.settings.apply(record);
        self.pops.apply(record);
        self.request_modes.apply(record);
        self.resets.apply(record);
        self.forbidden.apply(record);
        Ok(())
    }

    /// The snapshot of these tables.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let older = self.topics.snapshot().chain(self.groups.snapshot()).chain(self.offsets.snapshot());
        let transactions = self.transactions.snapshot().map(ControlRecord::Transaction);
        let pops = self.pops.snapshot().chain(self.request_modes.snapshot());
        let older = older.chain(self.timers.snapshot()).chain(transactions).chain(pops);
        let newer = self.forbidden.snapshot().chain(self.resets.snapshot()).chain(self.settings.snapshot());
        for record in older.chain(newer) {
            let record = record.encode();
            let len = u32::try_from(record.len()).expect("limits of the tables keep records far below 4 GiB");
            body.extend_from_slice(&len.to_le_bytes());
            body.extend_from_slice(&record);
        }
        body
    }

    /// Replaces the tables by those of a snapshot; after an error they are what they were.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), SnapshotError> {
        let mut restored = Replay {
            topics: self.topics.emptied(),
            groups: self.groups.emptied(),
            offsets: OffsetTable::default(),
            timers: TimerTable::default(),
            transactions: TransactionTable::default(),
            settings: SettingsTable::default(),
            pops: PopTable::default(),
            request_modes: RequestModeTable::default(),
            resets: ResetTable::default(),
            forbidden: ForbiddenTable::default(),
        };
        let mut after = None;
        let mut left = snapshot;
        while !left.is_empty() {
            let at = snapshot.len() - left.len();
            let (record, rest) = split_record(left).ok_or(SnapshotError::CutShort { at })?;
            let failed = |error| SnapshotError::Record { at, error };
            let record = ControlRecord::decode(record).map_err(|error| failed(error.into()))?;
            let kind = record.kind();
            if !may_follow(kind, after) {
                return Err(SnapshotError::OutOfPlace { at, kind, after });
            }
            restored.apply_decoded(&record).map_err(failed)?;
            (after, left) = (Some(kind), rest);
        }
        let missing = match after {
            None | Some(ControlKind::TopicPut) => Some(ControlKind::TopicTableState),
            Some(ControlKind::TopicTableState | ControlKind::GroupPut) => Some(ControlKind::GroupTableState),
            Some(_) => None,
        };
        if let Some(missing) = missing {
            return Err(SnapshotError::Incomplete { at: snapshot.len(), missing });
        }
        *self = restored;
        Ok(())
    }
}

impl DerivedState for Replay {
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        Replay::restore(self, snapshot).map_err(|error| error.to_string())
    }

    fn apply(&mut self, _at: LogOffset, control_record: &[u8]) -> Result<(), String> {
        Replay::apply(self, control_record).map_err(|error| error.to_string())
    }

    fn encode(&self) -> Vec<u8> {
        Replay::encode(self)
    }
}

/// The first record of a snapshot's body, and what follows it.
fn split_record(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = body.split_first_chunk::<LEN_BYTES>()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}
