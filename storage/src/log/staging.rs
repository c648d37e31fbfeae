//! Records taken in and not yet sealed.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::pipeline::Poison;
use crate::disk::DiskError;
use crate::format::BatchLayout;
use crate::index::Slot;
use crate::types::{QueueOffset, Ticket};

/// What one call of [`CommitLog::stage`](crate::CommitLog::stage) got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Of the first record; those of the others follow without gaps.
    pub first_ticket: Ticket,
    pub count: u32,
    /// Queue offset of the first record. Records of one call and one queue follow each other.
    pub first_queue_offset: QueueOffset,
}

/// Why an append was not taken. Nothing of the call was staged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefused {
    /// The disk does not keep up; try again after something was committed.
    #[error("busy: {staged_bytes} bytes wait for the disk, at most {limit} may")]
    Busy { staged_bytes: u64, limit: u64 },
    #[error("a batch of {bytes} bytes would be needed, at most {limit} are allowed")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("{found} key hashes, at most {limit} are allowed")]
    TooManyKeys { found: usize, limit: usize },
    #[error("the index holds {entries} entries, at most {limit} are allowed")]
    IndexFull { entries: u64, limit: u64 },
    #[error("the log knows {queues} queues, at most {limit} are allowed")]
    QueuesFull { queues: u64, limit: u64 },
    /// The next segment cannot be made; the log goes on by itself once it can.
    #[error(transparent)]
    NoSpace(DiskError),
    /// The log belongs to a group that another node leads.
    #[error("this node does not lead its group")]
    NotLeader,
    /// A write or a sync failed; appends stay refused until the log is recovered.
    #[error(transparent)]
    Poisoned(Poison),
}

#[derive(Debug)]
pub(crate) struct StagedRecord<R> {
    pub(crate) slot: Slot,
    pub(crate) queue_offset: QueueOffset,
    pub(crate) tag_hash: i32,
    pub(crate) size: u32,
    pub(crate) key_hashes: SmallVec<[u32; 4]>,
    pub(crate) record: R,
}

/// First in, first out; groups of one call stay together.
#[derive(Debug)]
pub(crate) struct Staging<R> {
    records: VecDeque<StagedRecord<R>>,
    /// One layout per call, in order.
    groups: VecDeque<BatchLayout>,
    bytes: u64,
}

impl<R> Staging<R> {
    pub(crate) fn new() -> Staging<R> {
        Staging { records: VecDeque::new(), groups: VecDeque::new(), bytes: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn push_group(
        &mut self,
        layout: BatchLayout,
        records: impl IntoIterator<Item = StagedRecord<R>>,
    ) {
        self.records.extend(records);
        self.groups.push_back(layout);
        self.bytes += layout.content_len() as u64;
    }

    /// The layout of the batch that would be sealed now: as many groups as stay within `bytes_target`, at least one.
    pub(crate) fn next_batch(&self, bytes_target: usize) -> Option<(BatchLayout, usize)> {
        let mut groups = self.groups.iter();
        let mut layout = *groups.next()?;
        let mut count = 1;
        for group in groups {
            let grown = layout.with(group);
            if grown.batch_len() > bytes_target {
                break;
            }
            layout = grown;
            count += 1;
        }
        Some((layout, count))
    }

    /// Takes the records of the first `groups` calls.
    pub(crate) fn take(&mut self, groups: usize) -> Vec<StagedRecord<R>> {
        let mut records = 0;
        for layout in self.groups.drain(..groups) {
            records += layout.records();
            self.bytes -= layout.content_len() as u64;
        }
        self.records.drain(..records).collect()
    }

    /// Takes everything.
    pub(crate) fn take_all(&mut self) -> Vec<StagedRecord<R>> {
        self.groups.clear();
        self.bytes = 0;
        self.records.drain(..).collect()
    }
}
