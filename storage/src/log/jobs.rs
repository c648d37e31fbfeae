//! What jobs of the blocking pool need to know of a group's log.

use super::CommitLog;
use crate::checkpoint::CheckpointJob;
use crate::disk::{Buffer, OpId};
use crate::record::Record;
use crate::sealed::SealJob;
use crate::snapshot::RebuildJob;
use crate::types::LogOffset;
use crate::unsealed::UnsealedSegment;

impl<B: Buffer, R: Record> CommitLog<B, R> {
    /// What a node needs that begins anew behind this log's start.
    #[must_use]
    pub fn checkpoint_job(&self, id: OpId) -> CheckpointJob {
        CheckpointJob {
            id,
            group: self.config.group,
            start: self.before_first(),
            boundary: self.archive.boundary(),
        }
    }

    /// What derived state is made of up to the last batch that is [settled](CommitLog::settled).
    #[must_use]
    pub fn rebuild_job(&self, id: OpId) -> RebuildJob {
        let snapshots: Vec<_> = self.archive.snapshots().collect();
        let from = snapshots.first().copied().unwrap_or(LogOffset(0));
        let sealed = self.archive.indexes().iter().filter(|index| index.summary().end > from);
        RebuildJob {
            id,
            group: self.config.group,
            sealed: sealed.cloned().collect(),
            tail: self.settled_tail(),
            at: self.settled.end,
            snapshots,
        }
    }

    /// The segments without an index as far as they are settled.
    fn settled_tail(&self) -> Vec<SealJob> {
        let settled = self.settled;
        let is_settled = |segment: &&UnsealedSegment| segment.first_index <= settled.index;
        let segments: Vec<_> = self.unsealed.iter().take_while(is_settled).collect();
        let last_terms = segments.iter().skip(1).map(|next| next.prev_term).chain([settled.term]);
        let tail = segments.iter().zip(last_terms).map(|(unsealed, last_term)| SealJob {
            group: self.config.group,
            segment: self.segments.get(unsealed.base).expect("a segment with batches is there"),
            end: unsealed.end.min(settled.end),
            first_index: unsealed.first_index,
            prev_term: unsealed.prev_term,
            last_term,
            previous: None,
        });
        tail.collect()
    }
}
