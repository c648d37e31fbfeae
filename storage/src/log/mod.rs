//! The commit log's decisions: what is staged, sealed, written, synced, committed and readable. No I/O, no clock.

mod commit_log;
mod marks;
mod pipeline;
mod read;
mod seal;
mod staging;

#[cfg(test)]
mod tests;

pub use commit_log::CommitLog;
pub use marks::Marks;
pub use pipeline::{Committed, FailedAppends, FailureCause, Grown, Placed, Poison};
pub use read::{Located, MemoryRun, ReadLimits, ReadPlan, Run};
pub use staging::{AppendRefused, Staged};

pub(crate) use commit_log::Restored;
