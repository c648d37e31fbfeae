//! Batches that another node sealed: the leader of the group.

use std::rc::Rc;

use super::CommitLog;
use super::pipeline::{Flight, FlightState, Grown, Poison, SealedRecord};
use super::seal::Content;
use crate::config::CommitRule;
use crate::disk::Buffer;
use crate::format::{BatchError, BatchHeader, BatchKind, RawBatch, RawDirectory};
use crate::index::IndexEntry;
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
        assert_eq!(self.config.commit_rule, CommitRule::Group, "the log belongs to no group");
        if let Some(poison) = &self.poison {
            return Err(ForeignRefused::Poisoned(poison.clone()));
        }
        if self.group.is_leading {
            return Err(ForeignRefused::Leading { term: self.term });
        }
        let (waiting_bytes, limit) = (self.pipeline.waiting_bytes(), self.config.staged_bytes_max);
        if waiting_bytes > 0 && waiting_bytes + batch.batch_len() as u64 > limit {
            return Err(ForeignRefused::Busy { waiting_bytes, limit });
        }
        let limit = self.config.index_entries_max;
        let entries = self.queues.entries() + self.uncommitted_entries;
        let more = u64::from(batch.header.record_count.get());
        // As with appends: a segment is sealed only once the next has a batch.
        let is_sealing = self.unsealed.finished().is_some() || self.archive.is_forgetting();
        if entries + more > limit && is_sealing {
            return Err(ForeignRefused::IndexFull { entries, limit });
        }
        self.append(batch)
    }

    /// Takes a batch that follows the last one, whatever waits.
    pub(super) fn append(&mut self, batch: ForeignBatch<B>) -> Result<(), ForeignRefused> {
        let ForeignBatch { buffer, header } = batch;
        let (index, term, prev_term) = (header.index(), header.term(), header.prev_term());
        let expected = self.last_index.next();
        if index != expected {
            return Err(ForeignRefused::NotNext { expected, found: index });
        }
        if prev_term != self.last_term {
            return Err(ForeignRefused::PrevTerm { index, expected: self.last_term, found: prev_term });
        }
        let (base, len) = (header.base_offset(), header.length.get());
        let [end, next_segment] = self.segments.next_begins();
        let placement = self.segments.place_at(base, len.into());
        let placement =
            placement.ok_or(ForeignRefused::BaseOffset { index, end, next_segment, found: base, len })?;
        let (store_time_ms, not_before) = (header.store_time.get(), self.last_store_time_ms);
        if store_time_ms < not_before {
            return Err(ForeignRefused::StoreTime { index, not_before, found: store_time_ms });
        }
        let Content { first_ticket, records, queues } = self.content_of((*buffer).as_ref())?;

        for grown in &queues {
            let slot = self.queues.slot_or_new(grown.queue);
            self.queues.at(slot).tail = QueueOffset(grown.from.0 + u64::from(grown.records));
        }
        self.uncommitted_entries += records.len() as u64;
        let filling = self.filling_with(placement, store_time_ms, records.len() as u64);
        self.push(Flight {
            index,
            term,
            prev_term,
            kind: header.batch_kind(),
            base,
            len,
            buffer,
            first_ticket,
            store_time_ms,
            records,
            queues,
            filling,
            leftover: None,
            state: FlightState::Waiting,
        });
        Ok(())
    }

    /// The records of a verified batch, if each is the next of its queue.
    fn content_of(&mut self, batch: &[u8]) -> Result<Content, ForeignRefused> {
        let directory = RawDirectory(batch).verify().expect("verified when it came");
        let index = directory.header().index();
        self.stamp += 1;
        let stamp = self.stamp;
        let mut content = Content { first_ticket: None, records: Vec::new(), queues: Vec::new() };
        content.records.reserve(directory.header().record_count.get() as usize);
        for entry in directory.entries() {
            let slot = self.queues.slot_or_new(entry.queue);
            let state = self.queues.at(slot);
            if state.group_of_batch.0 != stamp {
                state.group_of_batch = (stamp, content.queues.len() as u32);
                content.queues.push(Grown { queue: entry.queue, from: state.tail, records: 0, bytes: 0 });
            }
            let grown = &mut content.queues[state.group_of_batch.1 as usize];
            let expected = QueueOffset(grown.from.0 + u64::from(grown.records));
            if entry.queue_offset != expected {
                let (queue, found) = (entry.queue, entry.queue_offset);
                return Err(ForeignRefused::QueueOffset { index, queue, expected, found });
            }
            grown.records += 1;
            grown.bytes += u64::from(entry.size);
            content.records.push(SealedRecord {
                slot,
                queue_offset: entry.queue_offset,
                entry: IndexEntry {
                    log_offset: entry.log_offset,
                    store_time_ms: entry.store_time_ms,
                    size: entry.size,
                    tag_hash: entry.tag_hash,
                },
                key_hashes: entry.key_hashes.iter().map(|hash| hash.get()).collect(),
            });
        }
        Ok(content)
    }
}
