//! A node of the group: a log on a disk, and what stands for the rest of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::record::Numbered;
use super::super::state::ControlState;
use super::super::tally::Tally;
use super::world::{GROUP, NODES};
use crate::aligned::AlignedBuffer;
use crate::checkpoint::{Checkpoint, ResetDone, ResetJob};
use crate::config::LogConfig;
use crate::disk::{Completion, DiskOp, FileRun, OpId};
use crate::group_state::{GroupState, read_group_state, save_group_state};
use crate::inspect;
use crate::log::{BatchPlace, CommitLog, Run};
use crate::recovery::{GroupRecovered, RecoveryError, recover_group};
use crate::sealed::IndexFault;
use crate::sim::SimDisk;
use crate::types::{BatchIndex, LogOffset, NodeId, QueueKey, Term};

/// What a leader knows of the others.
#[derive(Clone, Debug, Default)]
pub(super) struct Leading {
    /// The batch sent next, by node.
    pub(super) next: [BatchIndex; NODES],
    /// Persisted there, by node.
    pub(super) matched: [BatchIndex; NODES],
}

pub(super) struct Node {
    pub(super) id: usize,
    pub(super) disk: SimDisk,
    pub(super) config: LogConfig,
    pub(super) log: CommitLog<AlignedBuffer, Numbered>,
    /// As saved.
    pub(super) state: GroupState,
    pub(super) leading: Option<Leading>,
    /// Up to here the log is that of the leader of the state's term.
    pub(super) verified: BatchIndex,
    /// What this node told a leader it had persisted, at most, and has not been told to cut off.
    pub(super) promised: Option<(BatchIndex, Term)>,
    /// Tickets without an end, and their records; in which term they were staged.
    pub(super) waiting: BTreeMap<u64, (QueueKey, Numbered, Term)>,
    /// Sealed here and handed out, up to here.
    pub(super) proposed: BatchIndex,
    /// Writes on their way: batch, first byte, and one past the last; and whether the batch was cut off.
    writes: BTreeMap<OpId, (BatchIndex, LogOffset, LogOffset, bool)>,
    /// Of the last batch whose write was asked for.
    submitted: BatchIndex,
    /// Of the next batch to be told as committed.
    pub(super) told: BatchIndex,
    pub(super) checkpoint: Option<Box<Checkpoint>>,
    pub(super) is_resetting: bool,
    pub(super) is_checkpoint_asked: bool,
}

impl Node {
    pub(super) fn new(id: usize, seed: u64, config: LogConfig) -> Node {
        let disk = SimDisk::new(seed);
        disk.set_new_state(Arc::new(|| Box::new(ControlState::default())));
        let state = GroupState::new(GROUP, NodeId(id as u64));
        let recovered = recover_group(&disk, &config, state.clone(), &mut ControlState::default()).unwrap();
        let log = CommitLog::open_group(config.clone(), recovered.recovered, SimDisk::alloc).unwrap();
        Node {
            id,
            disk,
            config,
            log,
            state: recovered.state,
            leading: None,
            verified: BatchIndex(0),
            promised: None,
            waiting: BTreeMap::new(),
            proposed: BatchIndex(0),
            writes: BTreeMap::new(),
            submitted: BatchIndex(0),
            told: BatchIndex(1),
            checkpoint: None,
            is_resetting: false,
            is_checkpoint_asked: false,
        }
    }

    pub(super) fn term(&self) -> Term {
        self.state.term
    }

    /// It is being begun anew, or is about to be: it takes part in nothing.
    pub(super) fn is_away(&self) -> bool {
        self.is_resetting || self.checkpoint.is_some()
    }

    pub(super) fn save(&mut self) {
        self.state.commit = self.log.settled().0;
        save_group_state(&self.disk, &self.state).unwrap();
    }

    /// Hears of a later term.
    pub(super) fn join(&mut self, term: Term, tally: &mut Tally) -> bool {
        if term <= self.term() {
            return false;
        }
        let was_leading = self.leading.take().is_some();
        if was_leading {
            let last = self.log.last_index();
            self.log.follow();
            let left = self.log.last_index();
            assert!(
                left <= self.proposed || self.log.poisoned().is_some(),
                "batch {left} was never handed out"
            );
            if left < last {
                self.on_cut(left.next(), tally);
            }
        }
        self.state.term = term;
        self.save();
        // What is committed is every later leader's.
        self.verified = self.log.committed_index();
        was_leading
    }

    /// Reads what is on the disk after the process ended. The state it comes to, and up to where.
    pub(super) fn recover(&self) -> Result<(GroupRecovered, ControlState), RecoveryError> {
        let mut derived = ControlState::default();
        let state = read_group_state(&self.disk, GROUP, NodeId(self.id as u64));
        let state = state.map_err(RecoveryError::Group)?;
        let state = state.unwrap_or_else(|| GroupState::new(GROUP, NodeId(self.id as u64)));
        let recovered = recover_group(&self.disk, &self.config, state, &mut derived)?;
        Ok((recovered, derived))
    }

    /// What a crash leaves is no problem to whoever looks at the files.
    pub(super) fn check_files(&self) {
        let mut problems = Vec::new();
        let report =
            inspect::verify(&self.disk, Some(GROUP), &mut |problem| problems.push(problem), &mut |_| {});
        assert!(report.begins_anew || problems.is_empty(), "node {}: {problems:?}", self.id);
    }

    /// Opens what recovery found.
    pub(super) fn reopen(&mut self, recovered: GroupRecovered) {
        self.state = recovered.state;
        self.log = CommitLog::open_group(self.config.clone(), recovered.recovered, SimDisk::alloc).unwrap();
        self.leading = None;
        self.verified = self.log.committed_index();
        self.waiting.clear();
        self.writes.clear();
        self.proposed = self.log.last_index();
        self.submitted = self.log.last_index();
        self.told = self.log.committed_index().next();
        self.checkpoint = None;
        self.is_resetting = false;
        self.is_checkpoint_asked = false;
    }

    /// Begins anew once nothing is on the way.
    pub(super) fn poll_reset(&mut self) {
        if self.is_resetting || !self.log.is_at_rest() {
            return;
        }
        if let Some(checkpoint) = self.checkpoint.take() {
            self.is_resetting = true;
            let job = ResetJob { id: OpId(0), state: self.state.clone(), checkpoint: *checkpoint };
            self.disk.submit(DiskOp::Reset(Box::new(job)));
        }
    }

    pub(super) fn on_reset(&mut self, done: ResetDone) {
        self.is_resetting = false;
        self.log.reset(&done);
        self.state = done.state;
        self.promised = None;
        self.verified = self.log.committed_index();
        self.submitted = self.log.last_index();
        self.proposed = self.log.last_index();
        self.told = self.log.committed_index().next();
    }

    /// What it will say it has: a crash must not take it.
    pub(super) fn promise(&mut self, index: BatchIndex) {
        if self.promised.is_none_or(|(promised, _)| promised < index) {
            self.promised = self.log.term_of(index).map(|term| (index, term));
        }
    }

    pub(super) fn check_promise(&self) {
        let Some((index, term)) = self.promised else { return };
        let start = self.log.before_first();
        let found = self.log.term_of(index);
        let is_kept = index < start.index || found == Some(term);
        assert!(is_kept, "node {}: batch {index} of term {term} was persisted, now {found:?}", self.id);
    }

    pub(super) fn save_now(&mut self) {
        if !self.is_away() {
            self.save();
        }
    }

    pub(super) fn propose(&mut self) {
        while let Some(sealed) = self.log.take_sealed() {
            self.proposed = sealed.index;
        }
    }

    pub(super) fn propose_if_leading(&mut self) {
        if self.leading.is_some() {
            self.propose();
        }
    }

    pub(super) fn on_write(&mut self, id: OpId, index: BatchIndex, base: LogOffset, end: LogOffset) {
        assert_eq!(index, self.submitted.next(), "writes are asked for in order");
        self.submitted = index;
        self.writes.insert(id, (index, base, end, false));
    }

    /// The log was cut off.
    pub(super) fn on_cut(&mut self, index: BatchIndex, tally: &mut Tally) {
        let before = BatchIndex(index.0 - 1);
        self.submitted = self.submitted.min(before);
        self.proposed = self.proposed.min(before);
        self.verified = self.verified.min(before);
        if self.promised.is_some_and(|(promised, _)| promised >= index) {
            self.promised = self.log.term_of(before).map(|term| (before, term));
        }
        for (written, _, _, is_cut) in self.writes.values_mut() {
            tally.count_many("batch cut off while it was written", u64::from(*written >= index && !*is_cut));
            *is_cut |= *written >= index;
        }
    }

    /// Why batches are not being written that could be.
    pub(super) fn count_waiting(&self, tally: &mut Tally) {
        let waiting = self.submitted.next();
        let Ok(Some(place)) = self.log.batch_at(waiting) else { return };
        if self.log.poisoned().is_some() {
            return;
        }
        let (base, end) = (place.base_offset, place.base_offset.plus(place.len.into()));
        let is_made = self.disk.segment_bases().contains(&self.run_at(base, 0).segment);
        tally.count_many("batches waited for a segment", u64::from(!is_made));
        let is_haunted =
            |(_, at, upto, is_cut): &(_, LogOffset, LogOffset, bool)| *is_cut && *at < end && base < *upto;
        let haunted = self.writes.values().any(is_haunted);
        tally.count_many("write waited for one that was cut off", u64::from(haunted));
    }

    /// Carries out one operation; what is not for the log is given back.
    pub(super) fn complete_one(&mut self) -> Option<Completion> {
        let completion = self.disk.step()?;
        match completion {
            Completion::CheckpointTaken { .. }
            | Completion::ResetDone { .. }
            | Completion::Rebuilt { .. } => Some(completion),
            completion => {
                if let Completion::Written { id, .. } = &completion {
                    self.writes.remove(id);
                }
                self.log.on_completion(completion);
                None
            }
        }
    }

    /// Asks until all pages that the answer needs are in memory.
    pub(super) fn ask<T>(&self, question: impl Fn(&Node) -> Result<T, IndexFault>) -> T {
        loop {
            match question(self) {
                Ok(answer) => return answer,
                Err(fault) => self.load(fault),
            }
        }
    }

    pub(super) fn load(&self, fault: IndexFault) {
        let IndexFault::Cold { segment, range } = fault else { panic!("{fault}") };
        self.log.sealed_index(segment).expect("it asked for it").load(range).unwrap();
    }

    /// The bytes of a batch, from wherever the log says.
    pub(super) fn batch(&self, index: BatchIndex) -> Option<Vec<u8>> {
        let place: BatchPlace<AlignedBuffer> = self.ask(|node| node.log.batch_at(index))?;
        assert_eq!((place.index, Some(place.term)), (index, self.log.term_of(index)));
        Some(self.bytes(&place.run))
    }

    pub(super) fn bytes(&self, run: &Run<AlignedBuffer>) -> Vec<u8> {
        match run {
            Run::Memory(run) => run.as_ref().to_vec(),
            Run::File(run) => self.disk.read(*run),
        }
    }

    pub(super) fn run_at(&self, offset: LogOffset, len: u32) -> FileRun {
        let position = offset.0 % self.config.segment_bytes;
        FileRun { segment: LogOffset(offset.0 - position), position, len }
    }

    /// Whether these bytes are there for good; with asynchronous durability, as long as the power stays.
    pub(super) fn holds(&self, base: LogOffset, bytes: &[u8]) -> bool {
        let run = self.run_at(base, bytes.len() as u32);
        if !self.disk.segment_bases().contains(&run.segment) {
            return false;
        }
        match self.config.durability {
            crate::config::Durability::Sync => self.disk.read_durable(run) == bytes,
            crate::config::Durability::Async { .. } => self.disk.read(run) == bytes,
        }
    }
}
