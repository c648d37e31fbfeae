//! Tables rebuilt from the control records of the log, before the shard opens.

use apogee_storage::{QueueKey, RecoveredRecord};

use super::control::{ControlError, ControlRecord};
use super::groups::GroupTable;
use super::offsets::OffsetTable;
use super::topics::{TopicPolicy, TopicReplayError, TopicTable};

/// Fed with every record that recovery finds, in log order.
#[derive(Debug)]
pub struct Replay {
    pub(super) topics: TopicTable,
    pub(super) groups: GroupTable,
    pub(super) offsets: OffsetTable,
}

/// A control record that does not fit those before it: written by a newer version, or not by a shard.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Record(#[from] ControlError),
    #[error(transparent)]
    Topic(#[from] TopicReplayError),
}

impl Replay {
    pub fn new(policy: TopicPolicy, auto_create_group: bool) -> Self {
        Replay {
            topics: TopicTable::new(policy),
            groups: GroupTable::new(auto_create_group),
            offsets: OffsetTable::default(),
        }
    }

    pub fn on_record(&mut self, record: &RecoveredRecord<'_>) -> Result<(), ReplayError> {
        if record.queue != QueueKey::CONTROL {
            return Ok(());
        }
        let change = ControlRecord::decode(record.bytes)?;
        self.topics.apply(&change)?;
        self.groups.apply(&change);
        self.offsets.apply(&change);
        Ok(())
    }
}
