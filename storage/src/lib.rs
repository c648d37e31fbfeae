//! A commit log on disk: batches, segments, group commit, index, tail cache, recovery.
//!
//! Decisions are plain structs without I/O ([`CommitLog`], [`recover`]); [`driver`] carries them out on glommio and
//! `sim` (feature `sim`) on a disk in memory that fails by seed. Records are opaque.

mod aligned;
mod checkpoint;
mod chunked;
mod config;
mod disk;
#[cfg(test)]
mod document;
pub mod driver;
pub mod format;
mod group_state;
mod index;
pub mod inspect;
mod job_error;
mod log;
mod pause;
mod record;
mod recovery;
mod sealed;
mod segment;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
mod snapshot;
mod source;
mod tail_cache;
mod types;
mod unsealed;
mod window;

pub use aligned::AlignedBuffer;
pub use checkpoint::{
    Checkpoint, CheckpointError, CheckpointJob, CheckpointSnapshot, Interrupted, Reset, ResetDone, ResetJob,
    take_checkpoint,
};
pub use config::{CommitRule, ConfigError, Durability, LogConfig, Retention};
pub use disk::{Buffer, Completion, DiskError, DiskOp, FileRun, OpId, SegmentInfo, Space};
pub use group_state::{
    ConfState, GroupState, GroupStateError, Member, SavedGroupState, read_group_state,
    read_saved_group_state, save_group_state,
};
pub use index::{IndexEntry, TimeBound};
pub use job_error::JobError;
pub use log::{
    AppendRefused, BatchPlace, Batches, CommitLog, Committed, ControlRun, FailedAppends, FailureCause,
    ForeignBatch, ForeignError, ForeignRefused, Grown, Located, LogEvent, Marks, MemoryRun, Placed, Poison,
    ReadLimits, ReadPlan, Run, SealedBatch, SpaceState, Staged, WhyLeft,
};
pub use record::{Append, Place, Record};
pub use recovery::{
    Cut, CutCause, Damage, DamageProof, GroupRecovered, IndexFlaw, LossError, LossRefused, LossSurvey,
    Mismatch, RebuildFailed, Recovered, RecoveryError, RecoveryReport, RefusedSnapshot, ReplacedBy,
    ReplacedIndex, SealedDamage, SnapshotFlaw, recover, recover_group, survey_loss,
};
pub use sealed::{
    Access, Difference, IndexError, IndexFault, IndexSummary, IndexView, KeySearch, QueueSpan, SealJob,
    SealedIndex, build_index, open_index, read_ends, seal_segment,
};
pub use snapshot::{
    DerivedState, NewState, RebuildJob, Rebuilt, Snapshot, SnapshotError, SnapshotJob, SnapshotTaken,
    read_snapshot, rebuild_state, take_snapshot,
};
pub use source::{IndexBytes, LogFile, LogSource};
pub use types::{
    BatchIndex, GroupId, LogOffset, LogStart, NodeId, QueueKey, QueueOffset, Term, TermRun, Ticket,
};
pub use unsealed::KeyCursor;
