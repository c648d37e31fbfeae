//! Opening a log after whatever happened. What is sealed is known from its indexes; the tail is read and checked batch by batch
//! and cut where it is torn; damage that cannot come from a torn tail is an error.
//!
//! Three tables of situations, each row with a test in `tests/`: `sealed.rs` for segments and indexes, `state.rs` for
//! snapshots, `scan.rs` for the tail. In front of them all:
//!
//! ```text
//! found                                              outcome
//! -------------------------------------------------  -----------------------------------------------------
//! nothing at all                                     an empty log
//! segments without a batch                           an empty log
//! segments that do not touch each other              error Gap: one is missing or has changed its size
//! a segment of a size that none is made with         error SegmentSize
//! a corrupt batch in a segment with a good index     not seen: the segment is not read. A reader meets it by its
//!                                                    checksum, `inspect` finds it, and so does sealing it anew
//! files that were not finished (`.tmp`)              removed before, by `driver::ShardDirectory`
//! ```

mod counted;
mod group;
pub(crate) mod look;
mod loss;
mod open;
mod report;
mod scan;
mod sealed;
mod state;

#[cfg(test)]
pub(crate) mod tests;

pub use group::{GroupRecovered, recover_group};
pub use look::Mismatch;
pub use loss::{LossError, LossRefused, LossSurvey, survey_loss};
pub use open::{Recovered, recover};
pub use report::{
    Cut, CutCause, IndexFlaw, RebuildFailed, RecoveryError, RecoveryReport, RefusedSnapshot, ReplacedBy,
    ReplacedIndex, SealedDamage, SnapshotFlaw,
};
pub use scan::{Damage, DamageProof};
