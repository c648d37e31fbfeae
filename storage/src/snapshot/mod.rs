//! Snapshots of derived state: what the control records up to a place in the log come to, so that opening a log reads
//! only those behind it.
//!
//! Read `state.rs` first (what the layer above provides), then `take.rs` (the job), `file.rs` (the bytes).

pub(crate) mod file;
mod rebuild;
#[cfg(test)]
mod rebuild_tests;
mod state;
mod take;

#[cfg(test)]
mod tests;

pub use file::{Snapshot, SnapshotError, read_snapshot};
pub use rebuild::{RebuildJob, Rebuilt, rebuild_state};
#[cfg(test)]
pub(crate) use state::Seen;
pub use state::{DerivedState, NewState};
pub(crate) use take::apply_segment;
pub use take::{SnapshotJob, SnapshotTaken, take_snapshot};
