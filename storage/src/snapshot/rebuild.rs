//! The job that makes derived state anew while the log runs: a leader that steps down forgets what was never committed.

use super::state::DerivedState;
use crate::disk::OpId;
use crate::job_error::JobError;
use crate::source::LogSource;
use crate::types::{BatchIndex, GroupId, LogOffset};

#[derive(Clone, Debug)]
pub struct RebuildJob {
    pub id: OpId,
    pub group: GroupId,
    /// Where the log begins.
    pub start: LogOffset,
    /// One past the last batch to be in the state, which is committed and durable.
    pub at: LogOffset,
    /// Of that batch.
    pub index: BatchIndex,
}

/// Derived state that was made anew.
#[derive(Debug)]
pub struct Rebuilt {
    /// Up to here control records are in it: where it was asked for, or behind it where a snapshot stood there.
    pub at: LogOffset,
    pub state: Box<dyn DerivedState + Send>,
}

/// Makes derived state anew.
pub fn rebuild_state<S: LogSource + ?Sized>(
    _source: &S,
    _job: &RebuildJob,
    _state: Box<dyn DerivedState + Send>,
) -> Result<Rebuilt, JobError> {
    todo!()
}
