//! The scan: batch after batch, from the first segment that no index covers to the end of the log.
//!
//! What stands where batch `i` is expected, after batch `i-1` of term `t`, and what follows from it. "Elsewhere" means
//! the start of the next segment: a roll leaves the rest of a segment as it is.
//!
//! ```text
//! here                              elsewhere     a later header with     decision
//!                                   goes on       commit_hint >= i
//! --------------------------------  ------------  ----------------------  ------------------------------------
//! batch i, whole, follows           -             -                       take it
//! end of the segment                -             -                       look at the next segment
//! header whole, other version       -             -                       error Version
//! header whole, another group       -             -                       error ForeignGroup
//! header whole, a field impossible  -             -                       error Inconsistent
//! none | torn | stale               yes           -                       roll: go on there
//! none | torn | stale               no            yes                     error Damaged
//! none                              no            no                      end, nothing cut
//! torn | stale                      no            no                      end, cut here
//! ```
//!
//! *None*: no batch was begun here: zeros, or any part of a batch of another place, for a recycled file holds what it
//! held before. *Torn*: a header of this place, or its batch, whose checksum or length does not hold. *Stale*: whole and
//! in its place, but index or previous term is not that of batch `i`. Batches of an earlier life are never newer than
//! the cut they lie behind, hence their commit hints are below it and they bear no witness.
//!
//! Nothing is erased, so a batch that was cut off as torn can become whole by chance: a later life, torn in the same
//! place, may have written exactly the bytes it lacked (zeros, most likely). It is taken then. It follows the batch before,
//! nothing was acknowledged in its place, and its own appends were told no outcome: they are late, not wrong.

use std::collections::VecDeque;
use std::fmt;

use super::look::{Found, Last, Mismatch, bears_witness, fault_of_writer, look};
use super::report::{Cut, CutCause, RecoveryError};
use super::sealed::last_of;
use crate::config::{LogConfig, WRITE_WINDOW_BYTES_LIMIT};
use crate::disk::SegmentInfo;
use crate::format::{BATCH_BYTES_LIMIT, BLOCK_LEN, Batch, BatchHeader, FORMAT_VERSION, RawBatch, RawHeader};
use crate::index::{IndexEntry, Queues};
use crate::job_error::JobError;
use crate::log::UncommittedBatch;
use crate::sealed::SealedIndex;
use crate::snapshot::DerivedState;
use crate::source::{LogFile, LogSource};
use crate::types::{BatchIndex, LogOffset, QueueKey, Term, TermRun};
use crate::unsealed::{NewBatch, Unsealed};
use crate::window::Window;

/// How far behind the end of the log is searched. The first batch that was sealed when batch `i` was durable bears
/// witness of it, and so do all behind that one. What was sealed before lies within the write window of `i`, in any life;
/// each gap that a roll left is smaller than the batch behind it, so no more than the window again is gaps. Of
/// segments that begin further behind, the first block tells as much as all.
const SCAN_BEHIND_BYTES: u64 = 2 * (WRITE_WINDOW_BYTES_LIMIT + BATCH_BYTES_LIMIT as u64);

/// What a group has not decided on yet, at most: several times what a leader lets come together.
const UNCOMMITTED_BYTES_LIMIT: u64 = 256 << 20;

/// The log as known so far, from its indexes at first, then batch by batch. The default is an empty one.
#[derive(Debug)]
pub(super) struct Known {
    /// One past the last batch; the end of its segment if that is sealed.
    pub(super) end: LogOffset,
    pub(super) last: Last,
    pub(super) last_store_time_ms: i64,
    /// Of all batches on the disk, those left behind the end included.
    pub(super) greatest_term: Term,
    pub(super) queues: Queues,
    /// Of the segments behind the sealed part.
    pub(super) unsealed: Unsealed,
    pub(super) counts: Counts,
}

impl Default for Known {
    fn default() -> Known {
        Known {
            end: LogOffset(0),
            last: Last::default(),
            last_store_time_ms: i64::MIN,
            greatest_term: Term(0),
            queues: Queues::default(),
            unsealed: Unsealed::default(),
            counts: Counts::default(),
        }
    }
}

impl Known {
    /// Goes on behind a sealed segment.
    pub(super) fn sealed_to(&mut self, index: &SealedIndex) {
        let summary = index.summary();
        self.end = summary.segment.end();
        self.last = last_of(index);
        self.last_store_time_ms = summary.last_time_ms;
        self.greatest_term = summary.last_term;
    }
}

/// Of the tail alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) batches: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) control_records: u64,
}

pub(super) struct Scan<'a, S: ?Sized> {
    pub(super) source: &'a S,
    pub(super) config: &'a LogConfig,
    pub(super) known: Known,
    /// Takes the control records.
    pub(super) state: &'a mut dyn DerivedState,
    /// Those in front of it are in the state already.
    pub(super) state_at: LogOffset,
    /// The last batch found that follows those before.
    pub(super) tip: Tip,
    /// Where a group decides what is committed.
    pub(super) group: Option<GroupScan>,
}

/// How far batches follow each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tip {
    pub(super) end: LogOffset,
    pub(super) last: Last,
    pub(super) store_time_ms: i64,
}

impl Tip {
    pub(super) fn of(known: &Known) -> Tip {
        Tip { end: known.end, last: known.last, store_time_ms: known.last_store_time_ms }
    }
}

/// What the scan of a group's log knows besides. A batch is known once it is known to be committed; those behind wait.
#[derive(Debug)]
pub(super) struct GroupScan {
    /// All up to here is committed, by what was found so far.
    pub(super) committed: BatchIndex,
    /// All up to here was durable on this node.
    pub(super) durable: BatchIndex,
    /// Bytes on the way at once, at most.
    pub(super) window_bytes: u64,
    /// Batches of terms up to this one prove nothing missing.
    pub(super) loss_accepted: Option<Term>,
    /// Batches that are not known to be committed, oldest first.
    pub(super) uncommitted: VecDeque<UncommittedBatch>,
    pub(super) uncommitted_bytes: u64,
    pub(super) term_runs: Vec<TermRun>,
    pub(super) damage: Option<Damage>,
}

/// Data of a group's log that may have been acknowledged, and is no longer whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Name of the segment file.
    pub file: String,
    pub position: u64,
    /// Of the batch that is missing.
    pub index: BatchIndex,
    pub found: String,
    pub proof: DamageProof,
}

/// How it is known that the batch was once whole on this node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamageProof {
    #[error("the node's state says that all up to batch {durable} was durable")]
    State { durable: BatchIndex },
    #[error(
        "batch {witness} lies {behind_bytes} bytes behind, and no more than {window_bytes} are written at once"
    )]
    Behind { witness: BatchIndex, behind_bytes: u64, window_bytes: u64 },
    #[error("{snapshot} is made of what was durable up to its position")]
    Snapshot { snapshot: String },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { file, position, index, found, proof } = self;
        write!(f, "{file} at {position}: batch {index} is damaged ({found}), and it was durable: {proof}")
    }
}

impl<S: LogSource + ?Sized> Scan<'_, S> {
    /// Takes all batches that follow what is known, in segments that no index covers, and makes them durable.
    pub(super) fn run(&mut self, segments: &[SegmentInfo]) -> Result<Option<Cut>, RecoveryError> {
        let mut cut = None;
        let mut used = 0;
        while let Some(segment) = segments.get(used) {
            let stop = self.read_segment(*segment)?;
            if let Some(next) = segments.get(used + 1)
                && self.goes_on_in(*next)?
            {
                used += 1;
                continue;
            }
            cut = self.judge_end(&segments[used..], &stop)?;
            break;
        }
        for segment in segments.iter().take(used + 1) {
            let synced = self.source.sync(segment.base);
            synced.map_err(|error| {
                RecoveryError::io(self.source, LogFile::Segment(segment.base), "sync", 0, &error)
            })?;
        }
        Ok(cut)
    }

    /// Takes all batches of a segment that follow each other; returns what stands behind the last of them.
    fn read_segment(&mut self, segment: SegmentInfo) -> Result<Found, RecoveryError> {
        let mut window = Window::new(self.source, segment);
        let mut position = 0;
        loop {
            let header = match self.look_at(&mut window, position)? {
                Found::Follows(header) => header,
                found => return Ok(found),
            };
            let bytes = window.read(position, header.batch_len() as u64);
            let bytes = bytes.map_err(|error| {
                RecoveryError::io(self.source, LogFile::Segment(segment.base), "read", position, &error)
            })?;
            match RawBatch(bytes).verify() {
                Ok(batch) => self.accept(segment, &batch, bytes)?,
                Err(error) => match fault_of_writer(&error) {
                    Some(mismatch) => return Err(self.inconsistent(segment, position, mismatch)),
                    None => return Ok(Found::Torn(error)),
                },
            }
            position += header.batch_len() as u64;
        }
    }

    /// Judges the header at a position, as far as headers can tell.
    fn look_at(&self, window: &mut Window<'_, S>, position: u64) -> Result<Found, RecoveryError> {
        let segment = window.segment();
        let found = look(window, position, Some(self.config.group), Some(self.tip.last));
        let found = found.map_err(|error| {
            RecoveryError::io(self.source, LogFile::Segment(segment.base), "read", position, &error)
        })?;
        let file = || self.source.name(LogFile::Segment(segment.base));
        match found {
            Found::OtherVersion { found } => {
                Err(RecoveryError::Version { file: file(), position, known: FORMAT_VERSION, found })
            }
            Found::ForeignGroup { found } => Err(RecoveryError::ForeignGroup {
                file: file(),
                position,
                expected: self.config.group,
                found,
            }),
            Found::Impossible(mismatch) => Err(self.inconsistent(segment, position, mismatch)),
            found => Ok(found),
        }
    }

    /// Whether the next segment begins with the batch that is expected now.
    fn goes_on_in(&self, next: SegmentInfo) -> Result<bool, RecoveryError> {
        let mut window = Window::new(self.source, next);
        let Found::Follows(header) = self.look_at(&mut window, 0)? else { return Ok(false) };
        let bytes = window.read(0, header.batch_len() as u64);
        let bytes = bytes.map_err(|error| {
            RecoveryError::io(self.source, LogFile::Segment(next.base), "read", 0, &error)
        })?;
        Ok(RawBatch(bytes).verify().err().is_none_or(|error| fault_of_writer(&error).is_some()))
    }

    /// Takes a batch that follows the one before: at once, or when the group has committed it.
    fn accept(&mut self, segment: SegmentInfo, batch: &Batch<'_>, bytes: &[u8]) -> Result<(), RecoveryError> {
        let header = batch.header();
        let position = header.base_offset().0 - segment.base.0;
        let store_time_ms = header.store_time.get();
        if store_time_ms < self.tip.store_time_ms {
            let (expected, found) = (self.tip.store_time_ms as u64, store_time_ms as u64);
            let mismatch = Mismatch { field: "store_time", expected, found };
            return Err(self.inconsistent(segment, position, mismatch));
        }
        let end = header.base_offset().plus(header.batch_len() as u64);
        let last = Last { index: header.index(), term: header.term() };
        self.known.greatest_term = self.known.greatest_term.max(last.term);
        self.tip = Tip { end, last, store_time_ms };
        let Some(group) = &mut self.group else { return self.take(segment, batch) };
        push_run(&mut group.term_runs, TermRun { first: last.index, term: last.term });
        group.committed = group.committed.max(header.commit_hint());
        if last.index <= group.committed {
            self.take_committed()?;
            return self.take(segment, batch);
        }
        group.uncommitted_bytes += bytes.len() as u64;
        if group.uncommitted_bytes > UNCOMMITTED_BYTES_LIMIT {
            let (bytes, limit) = (group.uncommitted_bytes, UNCOMMITTED_BYTES_LIMIT);
            let file = self.source.name(LogFile::Segment(segment.base));
            return Err(RecoveryError::Uncommitted { file, position, bytes, limit });
        }
        let bytes = bytes.to_vec();
        let (index, segment) = (last.index, segment.base);
        group.uncommitted.push_back(UncommittedBatch { index, segment, position, bytes });
        self.take_committed()
    }

    /// Takes those waiting batches that turned out to be committed.
    fn take_committed(&mut self) -> Result<(), RecoveryError> {
        while let Some(group) = &mut self.group
            && group.uncommitted.front().is_some_and(|oldest| oldest.index <= group.committed)
        {
            let Some(oldest) = group.uncommitted.pop_front() else { break };
            group.uncommitted_bytes -= oldest.bytes.len() as u64;
            let segment = SegmentInfo { base: oldest.segment, bytes: 0 };
            let batch = RawBatch(&oldest.bytes).verify().expect("it was verified when it was read");
            self.take(segment, &batch)?;
        }
        Ok(())
    }

    fn take(&mut self, segment: SegmentInfo, batch: &Batch<'_>) -> Result<(), RecoveryError> {
        let header = batch.header();
        let position = header.base_offset().0 - segment.base.0;
        let known = &mut self.known;
        let store_time_ms = header.store_time.get();
        known.unsealed.push(NewBatch {
            segment: segment.base,
            base: header.base_offset(),
            len: header.length.get(),
            index: header.index(),
            prev_term: header.prev_term(),
            store_time_ms,
        });
        for entry in batch.entries() {
            let slot = known.queues.slot_or_new(entry.queue);
            let tail = known.queues.at(slot).tail;
            let file = || self.source.name(LogFile::Segment(segment.base));
            if entry.queue_offset != tail {
                let (queue, found) = (entry.queue, entry.queue_offset);
                return Err(RecoveryError::QueueOffset {
                    file: file(),
                    position,
                    queue,
                    expected: tail,
                    found,
                });
            }
            known.queues.at(slot).tail = tail.next();
            let (log_offset, size) = (entry.log_offset, entry.record.len() as u32);
            let (store_time_ms, tag_hash) = (entry.store_time_ms, entry.tag_hash);
            let indexed = IndexEntry { log_offset, store_time_ms, size, tag_hash };
            known.queues.publish(slot, tail, indexed, segment.base);
            for hash in entry.key_hashes {
                known.unsealed.push_key(hash.get(), log_offset, size);
            }
            if entry.queue == QueueKey::CONTROL && log_offset >= self.state_at {
                let applied = self.state.apply(log_offset, entry.record);
                applied.map_err(|message| {
                    RecoveryError::ControlRecord(JobError::State { file: file(), position, message })
                })?;
                known.counts.control_records += 1;
            }
        }
        known.last_store_time_ms = store_time_ms;
        known.counts.batches += 1;
        known.counts.records += u64::from(header.record_count.get());
        known.counts.bytes += header.batch_len() as u64;
        known.end = header.base_offset().plus(header.batch_len() as u64);
        known.last = Last { index: header.index(), term: header.term() };
        Ok(())
    }

    /// The log seems to end with `stop`, in the first of `segments`. Looks behind for a header that says otherwise,
    /// and for the greatest term there: the next life must not use it again.
    fn judge_end(&mut self, segments: &[SegmentInfo], stop: &Found) -> Result<Option<Cut>, RecoveryError> {
        let segment = segments[0];
        let position = self.tip.end.0.max(segment.base.0) - segment.base.0;
        let missing = self.tip.last.index.next();
        let mut batches_behind = 0;
        let searched_end = self.tip.end.plus(SCAN_BEHIND_BYTES);
        for behind in segments {
            let mut window = Window::new(self.source, *behind);
            let mut at = self.tip.end.0.saturating_sub(behind.base.0);
            let searched_bytes = searched_end.0.saturating_sub(behind.base.0);
            let upto = searched_bytes.max(BLOCK_LEN as u64).min(behind.bytes);
            // How much a roll left in front of a segment nobody knows.
            let counted_from = if behind.base == segment.base { position } else { 0 };
            while at < upto {
                let Some(header) = self.whole_header(&mut window, at)? else {
                    at += BLOCK_LEN as u64;
                    continue;
                };
                match &mut self.group {
                    None if header.commit_hint() >= missing => {
                        return Err(RecoveryError::Damaged {
                            file: self.source.name(LogFile::Segment(segment.base)),
                            position,
                            index: missing,
                            found: stop.to_string(),
                            witness: header.index(),
                            witness_offset: header.base_offset(),
                            committed: header.commit_hint(),
                        });
                    }
                    None => {}
                    Some(group) => {
                        let (behind_bytes, window_bytes) = (at - counted_from, group.window_bytes);
                        let is_witness =
                            bears_witness(&header, missing, self.tip.last.term, group.loss_accepted);
                        if is_witness && behind_bytes > window_bytes {
                            let witness = header.index();
                            let proof = DamageProof::Behind { witness, behind_bytes, window_bytes };
                            self.damaged(segment, position, stop, proof);
                        }
                    }
                }
                batches_behind += 1;
                self.known.greatest_term = self.known.greatest_term.max(header.term());
                at += self.untouched_len(&mut window, at, &header)?;
            }
        }
        let cause = match stop {
            Found::Torn(error) => CutCause::Torn(error.clone()),
            Found::Stale(mismatch) => CutCause::Stale(*mismatch),
            _ => return Ok(None),
        };
        let file = self.source.name(LogFile::Segment(segment.base));
        Ok(Some(Cut { file, position, cause, batches_behind }))
    }

    /// A header of this log that stands where it was written to.
    fn whole_header(
        &self,
        window: &mut Window<'_, S>,
        at: u64,
    ) -> Result<Option<BatchHeader>, RecoveryError> {
        let segment = window.segment();
        let block = window.block(at).map_err(|error| {
            RecoveryError::io(self.source, LogFile::Segment(segment.base), "read", at, &error)
        })?;
        let header = RawHeader(block).verify().ok().filter(|header| {
            header.group() == self.config.group && header.base_offset() == segment.base.plus(at)
        });
        Ok(header.copied())
    }

    /// How far from a header the next one may stand. Batches of later lives may have been written into a batch that
    /// was cut off, so only a whole one is known to hide none.
    fn untouched_len(
        &self,
        window: &mut Window<'_, S>,
        at: u64,
        header: &BatchHeader,
    ) -> Result<u64, RecoveryError> {
        let base = window.segment().base;
        let bytes = window.read(at, header.batch_len() as u64);
        let bytes = bytes
            .map_err(|error| RecoveryError::io(self.source, LogFile::Segment(base), "read", at, &error))?;
        Ok(if RawBatch(bytes).verify().is_ok() { bytes.len() } else { BLOCK_LEN } as u64)
    }

    /// Notes damage where the log is cut; the first proof is as good as any.
    fn damaged(&mut self, segment: SegmentInfo, position: u64, stop: &Found, proof: DamageProof) {
        let index = self.tip.last.index.next();
        let file = self.source.name(LogFile::Segment(segment.base));
        let Some(group) = &mut self.group else { return };
        group.damage.get_or_insert(Damage { file, position, index, found: stop.to_string(), proof });
    }

    fn inconsistent(&self, segment: SegmentInfo, position: u64, mismatch: Mismatch) -> RecoveryError {
        let file = self.source.name(LogFile::Segment(segment.base));
        RecoveryError::Inconsistent { file, position, index: self.tip.last.index.next(), mismatch }
    }
}

/// Adds a batch's term, or a run of them, behind those before.
pub(super) fn push_run(runs: &mut Vec<TermRun>, run: TermRun) {
    if runs.last().is_none_or(|last| last.term != run.term) {
        runs.push(run);
    }
}
