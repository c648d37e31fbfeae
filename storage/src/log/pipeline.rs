//! Batches on their way: sealed, written, durable, in order.
//!
//! ```text
//! durable │ written, to be synced │ written behind a gap or on the way │ waiting │
//!         ▲ durable               ▲ written                            ▲ submitted
//! ```
//!
//! A batch leaves at the front once it is durable and committed. Without a group what is durable is committed, so `durable`
//! is the front, and nothing waits: a batch is sealed when it can be written. In a group `committed` may be anywhere.

use std::collections::VecDeque;
use std::rc::Rc;

use smallvec::SmallVec;

use super::read::MemoryRun;
use super::seal::Filling;
use crate::disk::{DiskError, OpId};
use crate::format::{BLOCK_LEN, BatchKind};
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
    /// The log took them in and follows another leader now, whom they were never sent to.
    #[error("this node does not lead its group any more")]
    NotLeader,
    /// Another leader's batches stand in their place. It is not certain that they are gone: were that leader lost as well,
    /// before its batches are committed, a node that still has them might lead.
    #[error("another leader's batches replaced those of the append")]
    Overwritten,
    /// The outcome is unknown: the log was begun anew behind a place where they may be committed or not.
    #[error("the log was begun anew")]
    BegunAnew,
}

/// The failed operation after which the log trusts nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log takes no appends since a {operation} failed: {error}")]
pub struct Poison {
    pub operation: &'static str,
    pub error: DiskError,
}

/// A record of a sealed batch: in the order of tickets if it has one, of the batch if not.
#[derive(Debug)]
pub(crate) struct SealedRecord {
    pub(crate) slot: Slot,
    pub(crate) queue_offset: QueueOffset,
    pub(crate) entry: IndexEntry,
    pub(crate) key_hashes: SmallVec<[u32; 4]>,
}

/// The log up to a batch: what the next one goes on from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tip {
    pub(crate) index: BatchIndex,
    pub(crate) term: Term,
    /// One past its last byte.
    pub(crate) end: LogOffset,
    pub(crate) store_time_ms: i64,
    pub(crate) filling: Option<Filling>,
}

#[derive(Debug)]
pub(crate) struct Flight<B> {
    pub(crate) index: BatchIndex,
    pub(crate) term: Term,
    pub(crate) prev_term: Term,
    pub(crate) kind: BatchKind,
    pub(crate) base: LogOffset,
    pub(crate) len: u32,
    pub(crate) buffer: Rc<B>,
    /// None for a batch whose records nobody here waits for.
    pub(crate) first_ticket: Option<Ticket>,
    pub(crate) store_time_ms: i64,
    pub(crate) records: Vec<SealedRecord>,
    pub(crate) queues: Vec<Grown>,
    /// Its segment, this batch included.
    pub(crate) filling: Filling,
    /// What is to be erased before it is written.
    pub(crate) leftover: Option<Leftover>,
    pub(crate) state: FlightState,
}

/// Where the log ended before a batch that begins the next segment. One that was cut off may stand there: nobody overwrites it, and
/// it would follow the batch in front as well, so that recovery could not tell which of the two counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leftover {
    pub(crate) segment: LogOffset,
    pub(crate) position: u64,
    pub(crate) is_erased: bool,
}

impl Leftover {
    fn base(&self) -> LogOffset {
        self.segment.plus(self.position)
    }

    fn end(&self) -> LogOffset {
        self.base().plus(BLOCK_LEN as u64)
    }
}

/// How far the write of a batch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlightState {
    /// Not asked for.
    Waiting,
    /// Not asked for, as what is to be erased before is on the way.
    Erasing(OpId),
    OnTheWay(OpId),
    Written,
}

impl<B> Flight<B> {
    pub(crate) fn end(&self) -> LogOffset {
        self.base.plus(self.len.into())
    }

    pub(crate) fn segment(&self) -> LogOffset {
        self.filling.segment
    }

    pub(crate) fn tip(&self) -> Tip {
        Tip {
            index: self.index,
            term: self.term,
            end: self.end(),
            store_time_ms: self.store_time_ms,
            filling: Some(self.filling),
        }
    }
}

/// A sync on its way and how many batches, from the front, it covers.
#[derive(Debug)]
struct SyncInFlight {
    id: OpId,
    batches: usize,
}

/// A write on its way whose batch was cut off. It may land at any time until it is answered.
#[derive(Debug)]
struct Ghost {
    write: OpId,
    base: LogOffset,
    end: LogOffset,
}

#[derive(Debug)]
pub(crate) struct Pipeline<B> {
    flights: VecDeque<Flight<B>>,
    /// Batches from the front whose writes were asked for.
    submitted: usize,
    /// Batches from the front that are written without a gap.
    written: usize,
    /// Batches from the front that are synced. Without a group none is still here.
    durable: usize,
    /// Batches from the front that are committed. In a group they need not be durable, nor written.
    committed: usize,
    /// Of those submitted and not durable.
    undurable_bytes: u64,
    /// Of those not submitted.
    waiting_bytes: u64,
    uncommitted_bytes: u64,
    sync: Option<SyncInFlight>,
    ghosts: Vec<Ghost>,
}

impl<B> Pipeline<B> {
    pub(crate) fn new() -> Pipeline<B> {
        Pipeline {
            flights: VecDeque::new(),
            submitted: 0,
            written: 0,
            durable: 0,
            committed: 0,
            undurable_bytes: 0,
            waiting_bytes: 0,
            uncommitted_bytes: 0,
            sync: None,
            ghosts: Vec::new(),
        }
    }

    /// All that was sealed is durable.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable == self.flights.len()
    }

    /// Asked of the disk and not yet durable.
    pub(crate) fn undurable_bytes(&self) -> u64 {
        self.undurable_bytes
    }

    /// Not yet asked of the disk.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    pub(crate) fn is_any_waiting(&self) -> bool {
        self.submitted < self.flights.len()
    }

    /// Sealed and not yet committed.
    pub(crate) fn uncommitted(&self) -> usize {
        self.flights.len() - self.committed
    }

    pub(crate) fn uncommitted_bytes(&self) -> u64 {
        self.uncommitted_bytes
    }

    /// First ticket and number of tickets of each uncommitted batch that has some.
    pub(crate) fn uncommitted_tickets(&self) -> impl Iterator<Item = (Ticket, u64)> {
        let uncommitted = self.flights.range(self.committed..);
        uncommitted.filter_map(|flight| Some((flight.first_ticket?, flight.records.len() as u64)))
    }

    /// The batch of an index, if it is here: all are that are not both durable and committed.
    pub(crate) fn get(&self, index: BatchIndex) -> Option<&Flight<B>> {
        let nth = index.0.checked_sub(self.flights.front()?.index.0)?;
        self.flights.get(usize::try_from(nth).ok()?)
    }

    pub(crate) fn last(&self) -> Option<&Flight<B>> {
        self.flights.back()
    }

    pub(crate) fn push(&mut self, flight: Flight<B>) {
        if let Some(last) = self.flights.back() {
            assert!(last.index.next() == flight.index, "batch {} sealed behind {}", flight.index, last.index);
            assert!(last.end() <= flight.base, "batch at {} sealed behind {}", flight.base, last.end());
        }
        self.waiting_bytes += u64::from(flight.len);
        self.uncommitted_bytes += u64::from(flight.len);
        self.flights.push_back(flight);
    }

    /// The batch whose write is to be asked for next.
    pub(crate) fn next_to_submit(&self) -> Option<&Flight<B>> {
        self.flights.get(self.submitted)
    }

    /// A write of a batch that was cut off may still touch these bytes.
    pub(crate) fn is_haunted(&self, base: LogOffset, end: LogOffset) -> bool {
        self.ghosts.iter().any(|ghost| ghost.base < end && base < ghost.end)
    }

    /// What has to be erased before the write of the next batch can be asked for.
    pub(crate) fn next_to_erase(&self) -> Option<Leftover> {
        self.next_to_submit()?.leftover.filter(|leftover| !leftover.is_erased)
    }

    /// The erasure is asked for, unless it was already or another write may still touch the place.
    pub(crate) fn erase_next(&mut self, id: OpId) -> bool {
        let Some(leftover) = self.next_to_erase() else { return false };
        let flight = &self.flights[self.submitted];
        if flight.state != FlightState::Waiting || self.is_haunted(leftover.base(), leftover.end()) {
            return false;
        }
        self.flights[self.submitted].state = FlightState::Erasing(id);
        true
    }

    /// The write of the next batch is asked for.
    pub(crate) fn submit_next(&mut self, id: OpId) -> &Flight<B> {
        let flight = &mut self.flights[self.submitted];
        flight.state = FlightState::OnTheWay(id);
        self.waiting_bytes -= u64::from(flight.len);
        self.undurable_bytes += u64::from(flight.len);
        self.submitted += 1;
        flight
    }

    pub(crate) fn on_written(&mut self, id: OpId) {
        // Not from the front: in asynchronous durability thousands stand there that are written and not durable.
        let mut on_the_way = self.flights.range_mut(self.written..self.submitted);
        if let Some(flight) = on_the_way.find(|flight| flight.state == FlightState::OnTheWay(id)) {
            flight.state = FlightState::Written;
            while self.flights.get(self.written).is_some_and(|flight| flight.state == FlightState::Written) {
                self.written += 1;
            }
            return;
        }
        if let Some(flight) = self.flights.get_mut(self.submitted)
            && flight.state == FlightState::Erasing(id)
            && let Some(leftover) = &mut flight.leftover
        {
            leftover.is_erased = true;
            flight.state = FlightState::Waiting;
            return;
        }
        let ghost = self.ghosts.iter().position(|ghost| ghost.write == id);
        self.ghosts
            .swap_remove(ghost.unwrap_or_else(|| panic!("write {id:?} was answered and is not on its way")));
    }

    /// All that is here was on the disk when the log was opened.
    pub(crate) fn all_are_durable(&mut self) {
        self.flights.iter_mut().for_each(|flight| flight.state = FlightState::Written);
        (self.submitted, self.written, self.durable) =
            (self.flights.len(), self.flights.len(), self.flights.len());
        self.waiting_bytes = 0;
    }

    /// The last of what is written without a gap, if it is still here.
    pub(crate) fn written_tip(&self) -> Option<Tip> {
        self.tip_of(self.written)
    }

    /// The last of what is durable, if it is still here.
    pub(crate) fn durable_tip(&self) -> Option<Tip> {
        self.tip_of(self.durable)
    }

    /// The last of what is committed, if it is still here.
    pub(crate) fn committed_tip(&self) -> Option<Tip> {
        self.tip_of(self.committed)
    }

    fn tip_of(&self, batches: usize) -> Option<Tip> {
        batches.checked_sub(1).map(|last| self.flights[last].tip())
    }

    /// Written, and not durable, and no sync is on its way.
    pub(crate) fn sync_is_possible(&self) -> bool {
        self.sync.is_none() && self.written > self.durable
    }

    /// Writes or a sync are on their way.
    pub(crate) fn is_busy(&self) -> bool {
        let mut submitted = self.flights.range(self.written..self.submitted);
        let is_writing = submitted.any(|flight| matches!(flight.state, FlightState::OnTheWay(_)));
        let next = self.next_to_submit();
        let is_erasing = next.is_some_and(|next| matches!(next.state, FlightState::Erasing(_)));
        self.sync.is_some() || !self.ghosts.is_empty() || is_writing || is_erasing
    }

    /// Starts a sync of everything written without a gap; returns the segments it must cover.
    pub(crate) fn start_sync(&mut self, id: OpId) -> SmallVec<[LogOffset; 2]> {
        assert!(self.sync_is_possible(), "sync {id:?} started out of turn");
        self.sync = Some(SyncInFlight { id, batches: self.written });
        let mut segments = SmallVec::new();
        for flight in self.flights.range(self.durable..self.written) {
            let erased = flight.leftover.map(|leftover| leftover.segment);
            for segment in erased.into_iter().chain([flight.segment()]) {
                if segments.last() != Some(&segment) {
                    segments.push(segment);
                }
            }
        }
        segments
    }

    /// The batches that the sync covered are durable; returns how many, from the front, all durable ones are.
    pub(crate) fn on_synced(&mut self, id: OpId) -> usize {
        let sync =
            self.sync.take().unwrap_or_else(|| panic!("sync {id:?} was answered and is not on its way"));
        assert!(sync.id == id, "sync {id:?} was answered, {:?} is on its way", sync.id);
        let newly = self.flights.range(self.durable.min(sync.batches)..sync.batches);
        self.undurable_bytes -= newly.map(|flight| u64::from(flight.len)).sum::<u64>();
        self.durable = self.durable.max(sync.batches);
        self.durable
    }

    /// The next batch to commit among the first `batches`.
    pub(crate) fn commit_next(&mut self, batches: usize) -> Option<&mut Flight<B>> {
        if self.committed >= batches {
            return None;
        }
        let flight = self.flights.get_mut(self.committed)?;
        self.committed += 1;
        self.uncommitted_bytes -= u64::from(flight.len);
        Some(flight)
    }

    pub(crate) fn written_batches(&self) -> usize {
        self.written
    }

    /// How many batches, from the front, have an index up to this.
    pub(crate) fn batches_up_to(&self, index: BatchIndex) -> usize {
        let Some(first) = self.flights.front() else { return 0 };
        let count = (index.0 + 1).saturating_sub(first.index.0);
        usize::try_from(count).map_or(self.flights.len(), |count| count.min(self.flights.len()))
    }

    /// Forgets what is both committed and durable; returns the last of it.
    pub(crate) fn retire(&mut self) -> Option<Tip> {
        let batches = self.committed.min(self.durable);
        let last = self.tip_of(batches)?;
        self.flights.drain(..batches);
        self.submitted -= batches;
        self.written -= batches;
        self.durable -= batches;
        self.committed -= batches;
        if let Some(sync) = &mut self.sync {
            sync.batches -= batches;
        }
        Some(last)
    }

    /// Takes all batches from `index` on off the end, the newest first. Writes of theirs that are on their way stay in mind.
    pub(crate) fn cut(&mut self, index: BatchIndex) -> Vec<Flight<B>> {
        let keep = self.flights.partition_point(|flight| flight.index < index);
        assert!(keep >= self.committed, "batch {index} is cut off and committed");
        let mut cut = Vec::with_capacity(self.flights.len() - keep);
        while self.flights.len() > keep {
            let flight = self.flights.pop_back().expect("more than are kept");
            let (nth, len) = (self.flights.len(), u64::from(flight.len));
            self.uncommitted_bytes -= len;
            if nth >= self.submitted {
                self.waiting_bytes -= len;
            } else if nth >= self.durable {
                self.undurable_bytes -= len;
            }
            match (flight.state, flight.leftover) {
                (FlightState::OnTheWay(write), _) => {
                    self.ghosts.push(Ghost { write, base: flight.base, end: flight.end() });
                }
                (FlightState::Erasing(write), Some(leftover)) => {
                    self.ghosts.push(Ghost { write, base: leftover.base(), end: leftover.end() });
                }
                _ => {}
            }
            cut.push(flight);
        }
        self.submitted = self.submitted.min(keep);
        self.written = self.written.min(keep);
        self.durable = self.durable.min(keep);
        if let Some(sync) = &mut self.sync {
            sync.batches = sync.batches.min(keep);
        }
        cut
    }
}
