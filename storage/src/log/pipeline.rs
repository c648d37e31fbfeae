//! Batches on their way: sealed, written, durable, in order.
//!
//! ```text
//! durable │ written, to be synced │ written behind a gap or on the way │
//!         ▲ front                 ▲ written_prefix                     ▲ back
//! ```

use std::collections::VecDeque;
use std::rc::Rc;

use smallvec::SmallVec;

use super::read::MemoryRun;
use crate::disk::{DiskError, OpId};
use crate::format::BatchKind;
use crate::index::{IndexEntry, Slot};
use crate::types::{BatchIndex, LogOffset, QueueKey, QueueOffset, Term, Ticket};

/// Where a committed record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub log_offset: LogOffset,
    pub queue_offset: QueueOffset,
}

/// A queue that got records from one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grown {
    pub queue: QueueKey,
    /// Offset of the first of them.
    pub from: QueueOffset,
    /// How many there are, and what they take up together.
    pub records: u32,
    pub bytes: u64,
}

/// A batch became visible: its appends may be acknowledged and its queues' readers woken.
#[derive(Debug)]
pub struct Committed<B> {
    pub index: BatchIndex,
    pub term: Term,
    pub kind: BatchKind,
    /// Of `places[0]`; the tickets of the others follow without gaps. 0 if there are none.
    pub first_ticket: Ticket,
    /// In the order of tickets, which is the order of staging. Empty for a batch that was not staged here in this life:
    /// a leader's, one from before the log was opened, a no-op, a change of members.
    pub places: Vec<Placed>,
    /// Of a batch without places: its control records in order, or the body of a change of members.
    pub control: Vec<ControlRun<B>>,
    pub store_time_ms: i64,
    /// The queues that grew, each once.
    pub queues: Vec<Grown>,
    /// Bytes of the batch on disk.
    pub batch_bytes: u32,
}

/// A control record of a committed batch.
#[derive(Debug)]
pub struct ControlRun<B> {
    pub log_offset: LogOffset,
    pub bytes: MemoryRun<B>,
}

/// Appends that will never be committed by this log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAppends {
    pub first_ticket: Ticket,
    pub count: u64,
    pub cause: FailureCause,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailureCause {
    /// The records are not in the log.
    #[error(transparent)]
    NoSpace(DiskError),
    /// The outcome is unknown: recovery may find the records or not.
    #[error(transparent)]
    Poisoned(Poison),
    /// The records are not in the log: another leads the group now.
    #[error("this node does not lead its group any more")]
    NotLeader,
    /// The records are not in the log: another leader's batches stand in their place.
    #[error("another leader's batches replaced those of the append")]
    Overwritten,
}

/// The failed operation after which the log trusts nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log takes no appends since a {operation} failed: {error}")]
pub struct Poison {
    pub operation: &'static str,
    pub error: DiskError,
}

/// A record of a sealed batch, in the order of tickets.
#[derive(Debug)]
pub(crate) struct SealedRecord {
    pub(crate) slot: Slot,
    pub(crate) queue_offset: QueueOffset,
    pub(crate) entry: IndexEntry,
    pub(crate) key_hashes: SmallVec<[u32; 4]>,
}

#[derive(Debug)]
pub(crate) struct Flight<B> {
    pub(crate) index: BatchIndex,
    pub(crate) prev_term: Term,
    pub(crate) base: LogOffset,
    pub(crate) len: u32,
    pub(crate) segment: LogOffset,
    pub(crate) buffer: Rc<B>,
    pub(crate) write: OpId,
    pub(crate) written: bool,
    pub(crate) first_ticket: Ticket,
    pub(crate) store_time_ms: i64,
    pub(crate) records: Vec<SealedRecord>,
    pub(crate) queues: Vec<Grown>,
}

impl<B> Flight<B> {
    pub(crate) fn end(&self) -> LogOffset {
        self.base.plus(self.len.into())
    }
}

/// A sync on its way and how many batches, from the front, it covers.
#[derive(Debug)]
struct SyncInFlight {
    id: OpId,
    batches: usize,
}

#[derive(Debug)]
pub(crate) struct Pipeline<B> {
    flights: VecDeque<Flight<B>>,
    /// Batches from the front that are written without a gap.
    written: usize,
    /// Batches from the front that are committed; all that is durable is, so this counts only undurable ones.
    committed: usize,
    undurable_bytes: u64,
    sync: Option<SyncInFlight>,
}

impl<B> Pipeline<B> {
    pub(crate) fn new() -> Pipeline<B> {
        Pipeline { flights: VecDeque::new(), written: 0, committed: 0, undurable_bytes: 0, sync: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Sealed and not yet durable.
    pub(crate) fn undurable_bytes(&self) -> u64 {
        self.undurable_bytes
    }

    /// Sealed and not yet committed.
    pub(crate) fn uncommitted(&self) -> usize {
        self.flights.len() - self.committed
    }

    /// First ticket and number of tickets of each uncommitted batch.
    pub(crate) fn uncommitted_tickets(&self) -> impl Iterator<Item = (Ticket, u64)> {
        let uncommitted = self.flights.range(self.committed..);
        uncommitted.map(|flight| (flight.first_ticket, flight.records.len() as u64))
    }

    pub(crate) fn push(&mut self, flight: Flight<B>) {
        if let Some(last) = self.flights.back() {
            assert!(last.index.next() == flight.index, "batch {} sealed behind {}", flight.index, last.index);
            assert!(last.end() <= flight.base, "batch at {} sealed behind {}", flight.base, last.end());
        }
        self.undurable_bytes += u64::from(flight.len);
        self.flights.push_back(flight);
    }

    pub(crate) fn on_written(&mut self, id: OpId) {
        // Not from the front: in asynchronous durability thousands stand there that are written and not durable.
        let mut waiting = self.flights.range_mut(self.written..);
        let flight = waiting.find(|flight| flight.write == id && !flight.written);
        flight.unwrap_or_else(|| panic!("write {id:?} was answered and is not on its way")).written = true;
        while self.flights.get(self.written).is_some_and(|flight| flight.written) {
            self.written += 1;
        }
    }

    /// End of what is written without a gap, if any of it is not durable.
    pub(crate) fn written_end(&self) -> Option<LogOffset> {
        self.written.checked_sub(1).map(|last| self.flights[last].end())
    }

    /// Written, and not durable, and no sync is on its way.
    pub(crate) fn sync_is_possible(&self) -> bool {
        self.sync.is_none() && self.written > 0
    }

    /// Starts a sync of everything written without a gap; returns the segments it must cover.
    pub(crate) fn start_sync(&mut self, id: OpId) -> SmallVec<[LogOffset; 2]> {
        assert!(self.sync_is_possible(), "sync {id:?} started out of turn");
        self.sync = Some(SyncInFlight { id, batches: self.written });
        let mut segments = SmallVec::new();
        for flight in self.flights.range(..self.written) {
            if segments.last() != Some(&flight.segment) {
                segments.push(flight.segment);
            }
        }
        segments
    }

    /// The batches that the sync covered are durable; returns how many they are.
    pub(crate) fn on_synced(&mut self, id: OpId) -> usize {
        let sync =
            self.sync.take().unwrap_or_else(|| panic!("sync {id:?} was answered and is not on its way"));
        assert!(sync.id == id, "sync {id:?} was answered, {:?} is on its way", sync.id);
        sync.batches
    }

    /// The next batch to commit among the first `batches`.
    pub(crate) fn commit_next(&mut self, batches: usize) -> Option<&mut Flight<B>> {
        if self.committed >= batches {
            return None;
        }
        self.committed += 1;
        self.flights.get_mut(self.committed - 1)
    }

    pub(crate) fn written_batches(&self) -> usize {
        self.written
    }

    /// Forgets the first `batches`, which are committed and durable; returns their index and end.
    pub(crate) fn retire(&mut self, batches: usize) -> Option<(BatchIndex, LogOffset)> {
        assert!(batches <= self.committed && batches <= self.written, "{batches} batches retired too early");
        let mut last = None;
        for flight in self.flights.drain(..batches) {
            self.undurable_bytes -= u64::from(flight.len);
            last = Some((flight.index, flight.end()));
        }
        self.committed -= batches;
        self.written -= batches;
        last
    }
}
