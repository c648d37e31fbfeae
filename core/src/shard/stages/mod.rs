//! Where the time of a send goes, and the slowest sends with what the shard was doing.
//!
//! ```text
//! received ─────────── sealed ───────── written ───────── durable ───────── answered
//!          handling,          the write         the sync,         the replies
//!          the batches        of its            and the one       of its batch
//!          before it          batch             before it
//! ```
//!
//! A stage is the time since the one before; `total` is all of them. It is counted in requests, so a stage's share of a
//! percentile can be read off. `received` is when the turn began that took the request up, `answered` when the last reply
//! of its batch was on its connection: what lies in the kernel's buffers is not seen. With `durability = async` requests
//! are answered once written, and nothing is counted as `durable`. In a group `durable` is on a majority of the nodes.
//!
//! The driver's clock is read once for many messages: per turn, not per request.
//!
//! | file | what |
//! |---|---|
//! | `gauges.rs` | a histogram per stage, and how they are told |
//! | `slowest.rs` | the slowest requests of a minute |

mod gauges;
mod slowest;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use apogee_net::io::ConnectionId;
use apogee_storage::{BatchIndex, Buffer, Committed, Completion, DiskOp, LogOffset, OpId};
use smallvec::SmallVec;

pub(super) use self::gauges::Gauge;
use self::gauges::Gauges;
use self::slowest::{SlowRequest, Slowest};
use super::commit::Sent;

/// When the calls that follow are made, and what else goes on then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// By a clock that never goes back.
    pub ns: u64,
    /// Reads of the disk for those that lag, under way.
    pub catch_up_reads: u32,
}

/// Times of the requests under way, and the histograms of those that are answered.
#[derive(Debug)]
pub(super) struct Stages {
    now: Moment,
    /// Sealed and not yet visible, oldest first: as many as the log lets be on their way.
    batches: VecDeque<Batch>,
    sync: Option<(OpId, u64)>,
    /// Visible, their replies on the way to the connections: those of one completion.
    settled: SmallVec<[Settled; 4]>,
    gauges: Gauges,
    slowest: Slowest,
}

/// A batch on its way.
#[derive(Clone, Copy, Debug)]
struct Batch {
    index: BatchIndex,
    write: OpId,
    sealed_ns: u64,
    written_ns: u64,
    records: u32,
    bytes: u32,
    /// Batches that were on their way when it was sealed.
    ahead: u32,
    /// The most of them at any of its stages.
    catch_up_reads: u32,
}

impl Batch {
    fn sealed(now: Moment, index: BatchIndex, bytes: u32) -> Self {
        Batch {
            index,
            write: OpId(0),
            sealed_ns: now.ns,
            written_ns: now.ns,
            records: 0,
            bytes,
            ahead: 0,
            catch_up_reads: now.catch_up_reads,
        }
    }
}

/// A batch whose requests are being answered.
#[derive(Debug)]
pub(super) struct Settled {
    batch: Batch,
    /// Nothing when nobody waits for that.
    durable_ns: Option<u64>,
    settled_ms: i64,
    runs: SmallVec<[Run; 8]>,
}

/// Requests of one batch that were received at the same time.
#[derive(Clone, Copy, Debug)]
struct Run {
    received_ns: u64,
    requests: u32,
    /// Of the first of them.
    connection: ConnectionId,
    log_offset: LogOffset,
}

impl Settled {
    /// A request whose messages the batch made visible, the first of them at `log_offset`.
    pub(super) fn request(&mut self, received_ns: u64, sent: &Sent, log_offset: LogOffset) {
        match self.runs.last_mut() {
            Some(run) if run.received_ns == received_ns => run.requests += 1,
            _ => self.runs.push(Run { received_ns, requests: 1, connection: sent.to.connection, log_offset }),
        }
    }
}

impl Stages {
    pub(super) fn new() -> Self {
        Stages {
            now: Moment::default(),
            batches: VecDeque::new(),
            sync: None,
            settled: SmallVec::new(),
            gauges: Gauges::new(),
            slowest: Slowest::default(),
        }
    }

    pub(super) fn at(&mut self, now: Moment) {
        self.now = now;
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now.ns
    }

    /// The disk is about to be asked for this.
    pub(super) fn on_op<B: Buffer>(&mut self, op: &DiskOp<B>) {
        match op {
            DiskOp::Write { id, index, len, .. } => {
                // What a group has replaced.
                while self.batches.back().is_some_and(|batch| batch.index >= *index) {
                    self.batches.pop_back();
                }
                self.batches.push_back(Batch {
                    write: *id,
                    ahead: self.batches.len() as u32,
                    ..Batch::sealed(self.now, *index, *len)
                });
            }
            DiskOp::Sync { id, .. } => self.sync = Some((*id, self.now.ns)),
            DiskOp::Prepare { .. }
            | DiskOp::Seal(_)
            | DiskOp::Snapshot(_)
            | DiskOp::ReadEnds(_)
            | DiskOp::Remove { .. }
            | DiskOp::Erase { .. }
            | DiskOp::SaveGroupState { .. }
            | DiskOp::Reset(_)
            | DiskOp::TakeCheckpoint(_)
            | DiskOp::Rebuild(_) => {}
        }
    }

    /// To be told before the log is.
    pub(super) fn on_completion(&mut self, completion: &Completion) {
        let now = self.now;
        match completion {
            Completion::Written { id, result: Ok(()) } => {
                // In a group a batch may be visible before it is written here, or never be.
                let batch = self.batches.iter_mut().find(|batch| batch.write == *id);
                let Some(batch) = batch else { return };
                batch.written_ns = now.ns;
                batch.catch_up_reads = batch.catch_up_reads.max(now.catch_up_reads);
                self.gauges.count(Gauge::DiskWrite, now.ns.saturating_sub(batch.sealed_ns), 1);
            }
            Completion::Synced { id, result: Ok(()) } => {
                if let Some((_, begun_ns)) = self.sync.take_if(|(sync, _)| sync == id) {
                    self.gauges.count(Gauge::DiskSync, now.ns.saturating_sub(begun_ns), 1);
                }
            }
            // After a failure the log takes nothing more: what is on its way will never be visible.
            _ => {}
        }
    }

    /// A batch is visible: its requests are to be told to what this gives, which then goes to [`Stages::settled`].
    pub(super) fn on_committed<B>(
        &mut self,
        committed: &Committed<B>,
        is_durable: bool,
        now_ms: i64,
    ) -> Settled {
        let Committed { index, batch_bytes, .. } = *committed;
        while self.batches.front().is_some_and(|batch| batch.index < index) {
            self.batches.pop_front();
        }
        let is_first = self.batches.front().is_some_and(|batch| batch.index == index);
        let sealed = is_first.then(|| self.batches.pop_front()).flatten();
        // Without one it is from before this shard was opened.
        let mut batch = sealed.unwrap_or_else(|| Batch::sealed(self.now, index, batch_bytes));
        batch.records = committed.places.len() as u32;
        batch.catch_up_reads = batch.catch_up_reads.max(self.now.catch_up_reads);
        self.gauges.count(Gauge::BatchMessages, batch.records.into(), 1);
        self.gauges.count(Gauge::BatchBytes, batch.bytes.into(), 1);
        Settled {
            batch,
            durable_ns: is_durable.then_some(self.now.ns),
            settled_ms: now_ms,
            runs: SmallVec::new(),
        }
    }

    pub(super) fn settled(&mut self, settled: Settled) {
        if !settled.runs.is_empty() {
            self.settled.push(settled);
        }
    }

    /// All that was to be answered so far is answered.
    pub(super) fn on_answered(&mut self) {
        let now_ns = self.now.ns;
        for Settled { batch, durable_ns, settled_ms, runs } in self.settled.drain(..) {
            let requests = runs.iter().map(|run| u64::from(run.requests)).sum();
            let written_ns = batch.written_ns.saturating_sub(batch.sealed_ns);
            let synced_ns = durable_ns.map(|durable_ns| durable_ns.saturating_sub(batch.written_ns));
            let answered_ns = now_ns.saturating_sub(durable_ns.unwrap_or(batch.written_ns));
            self.gauges.count(Gauge::Written, written_ns, requests);
            self.gauges.count(Gauge::Answered, answered_ns, requests);
            if let Some(synced_ns) = synced_ns {
                self.gauges.count(Gauge::Durable, synced_ns, requests);
            }
            for run in runs {
                let sealed_ns = batch.sealed_ns.saturating_sub(run.received_ns);
                let total_ns = now_ns.saturating_sub(run.received_ns);
                self.gauges.count(Gauge::Sealed, sealed_ns, run.requests.into());
                self.gauges.count(Gauge::Total, total_ns, run.requests.into());
                self.slowest.offer(now_ns, total_ns, || SlowRequest {
                    total_ns,
                    sealed_ns,
                    written_ns,
                    durable_ns: synced_ns,
                    answered_ns,
                    answered_ms: settled_ms,
                    connection: run.connection,
                    log_offset: run.log_offset,
                    batch_records: batch.records,
                    batch_bytes: batch.bytes,
                    batches_ahead: batch.ahead,
                    catch_up_reads: batch.catch_up_reads,
                });
            }
        }
    }

    /// A turn lasted from `began_ns` until now.
    pub(super) fn on_turn(&mut self, began_ns: u64) {
        self.gauges.count(Gauge::Turn, self.now.ns.saturating_sub(began_ns), 1);
    }

    /// Percentiles for people, of each gauge that has counted anything.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.gauges.texts()
    }

    /// Everything counted since the start, for programs: see [`Gauges::encoded`].
    pub(super) fn encoded(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.gauges.encoded()
    }

    /// The slowest requests of this minute and the last, the slowest first.
    pub(super) fn slowest(&self) -> Vec<&SlowRequest> {
        self.slowest.list(self.now.ns)
    }
}
