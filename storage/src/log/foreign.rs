//! Batches that another node sealed: the leader of the group.

use std::rc::Rc;

use super::CommitLog;
use super::pipeline::Poison;
use crate::disk::Buffer;
use crate::format::{BatchError, BatchHeader, BatchKind, RawBatch};
use crate::record::Record;
use crate::types::{BatchIndex, GroupId, LogOffset, NodeId, QueueKey, QueueOffset, Term};

/// A whole batch as it came from its leader: checksums hold, the directory describes the records, the group is ours.
/// Whether it belongs here only the log can tell.
#[derive(Debug)]
pub struct ForeignBatch<B> {
    buffer: Rc<B>,
    header: BatchHeader,
}

impl<B> Clone for ForeignBatch<B> {
    fn clone(&self) -> Self {
        ForeignBatch { buffer: Rc::clone(&self.buffer), header: self.header }
    }
}

/// Why bytes are not a batch of this group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForeignError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("a batch of group {found}, expected {expected}")]
    Group { expected: GroupId, found: GroupId },
}

/// Why a leader's batch was not taken. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForeignRefused {
    #[error("this node leads the group itself, in term {term}")]
    Leading { term: Term },
    #[error("batch {found}, expected {expected}")]
    NotNext { expected: BatchIndex, found: BatchIndex },
    #[error("batch {index} follows one of term {found}, and the last one here is of term {expected}")]
    PrevTerm { index: BatchIndex, expected: Term, found: Term },
    /// It neither touches the batch before nor begins the next segment, or leaves its segment.
    #[error(
        "batch {index} of {len} bytes at {found}: it must begin at {end} or at {next_segment}, and end in its segment"
    )]
    BaseOffset { index: BatchIndex, end: LogOffset, next_segment: LogOffset, found: LogOffset, len: u32 },
    #[error("batch {index} is of {found} ms, the one before of {not_before} ms")]
    StoreTime { index: BatchIndex, not_before: i64, found: i64 },
    #[error("batch {index} has offset {found} of queue {queue}, expected {expected}")]
    QueueOffset { index: BatchIndex, queue: QueueKey, expected: QueueOffset, found: QueueOffset },
    /// The disk does not keep up; the leader sends it again.
    #[error("busy: {waiting_bytes} bytes wait for the disk, at most {limit} may")]
    Busy { waiting_bytes: u64, limit: u64 },
    /// Segments are not sealed as fast as batches come; the leader sends it again.
    #[error("the index holds {entries} entries, at most {limit} are allowed")]
    IndexFull { entries: u64, limit: u64 },
    #[error(transparent)]
    Poisoned(Poison),
}

impl<B: AsRef<[u8]>> ForeignBatch<B> {
    /// Checks the bytes that `buffer` begins with.
    pub fn verify(buffer: impl Into<Rc<B>>, group: GroupId) -> Result<ForeignBatch<B>, ForeignError> {
        let buffer = buffer.into();
        let header = *RawBatch((*buffer).as_ref()).verify()?.header();
        if header.group() != group {
            return Err(ForeignError::Group { expected: group, found: header.group() });
        }
        Ok(ForeignBatch { buffer, header })
    }

    #[must_use]
    pub fn index(&self) -> BatchIndex {
        self.header.index()
    }

    #[must_use]
    pub fn term(&self) -> Term {
        self.header.term()
    }

    #[must_use]
    pub fn prev_term(&self) -> Term {
        self.header.prev_term()
    }

    #[must_use]
    pub fn kind(&self) -> BatchKind {
        self.header.batch_kind()
    }

    #[must_use]
    pub fn base_offset(&self) -> LogOffset {
        self.header.base_offset()
    }

    #[must_use]
    pub fn leader(&self) -> NodeId {
        self.header.leader()
    }

    /// Up to here the leader knew batches to be committed when it sealed this one.
    #[must_use]
    pub fn commit_hint(&self) -> BatchIndex {
        self.header.commit_hint()
    }

    /// Bytes of the batch, which `buffer` may be longer than.
    #[must_use]
    pub fn batch_len(&self) -> usize {
        self.header.batch_len()
    }

    #[must_use]
    pub fn buffer(&self) -> &Rc<B> {
        &self.buffer
    }
}

impl<B: Buffer, R: Record> CommitLog<B, R> {
    /// Takes the batch that follows the last one here. Nothing is asked of it but that it fits: that its sender leads the
    /// group in a term that counts, and that an earlier batch of this index was
    /// [cut off](CommitLog::truncate_from), is the caller's affair.
    ///
    /// It is written by a later [`poll_op`](CommitLog::poll_op), once its segment is there and nothing on its way touches
    /// the same bytes; [`persisted_index`](CommitLog::persisted_index) tells when.
    pub fn append_foreign(&mut self, batch: ForeignBatch<B>) -> Result<(), ForeignRefused> {
        let _ = batch;
        todo!()
    }
}
