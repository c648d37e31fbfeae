//! Beginning a log anew: what a leader gives of what came before its log's start, and what a node makes of it.
//!
//! Read `job.rs` first (what is asked for and answered), then `reset.rs` (how a log is begun anew), `take.rs` (the leader's
//! side), `file.rs` (the bytes).

pub(crate) mod file;
mod job;
mod reset;
mod take;

#[cfg(test)]
mod tests;

pub use file::CheckpointError;
pub use job::{Checkpoint, CheckpointJob, CheckpointSnapshot, ResetDone, ResetJob};
pub use reset::{Interrupted, Reset};
pub(crate) use reset::{end_interrupted_reset, interrupted_reset};
pub use take::take_checkpoint;
