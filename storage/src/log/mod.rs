//! The commit log's decisions: what is staged, written, synced, committed and readable; what is sealed in the
//! background, and what leaves. No I/O, no clock.

mod archive;
mod batches;
mod commit_log;
mod event;
mod foreign;
mod group;
mod jobs;
mod marks;
mod pipeline;
mod read;
mod seal;
mod space;
mod staging;
mod terms;

#[cfg(test)]
mod tests;

pub use batches::{BatchPlace, Batches};
pub use commit_log::CommitLog;
pub use event::{LogEvent, WhyLeft};
pub use foreign::{ForeignBatch, ForeignError, ForeignRefused};
pub use group::SealedBatch;
pub use marks::Marks;
pub use pipeline::{Committed, ControlRun, FailedAppends, FailureCause, Grown, Placed, Poison};
pub use read::{Located, MemoryRun, ReadLimits, ReadPlan, Run};
pub use space::SpaceState;
pub use staging::{AppendRefused, Staged};

pub(crate) use archive::RestoredArchive;
pub(crate) use commit_log::{Restored, UncommittedBatch};
