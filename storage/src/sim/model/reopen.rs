//! The end of a process or of the power, and what the next opening finds.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{Failing, SimDisk};
use super::owed::{CommittedAt, FoundRecord, OwedBatch};
use super::record::Numbered;
use super::world::{QUEUES, World};
use crate::aligned::AlignedBuffer;
use crate::config::{Durability, LogConfig};
use crate::log::CommitLog;
use crate::recovery::{Recovered, RecoveryError, recover};
use crate::snapshot::DerivedState;
use crate::types::{BatchIndex, LogOffset, QueueKey, QueueOffset};

/// Calls of the disk among which a recovery is interrupted.
const RECOVERY_CALLS: u64 = 40;

/// All control records there were.
#[derive(Default)]
struct ControlRecords(Vec<(LogOffset, Vec<u8>)>);

impl DerivedState for ControlRecords {
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        let mut rest = snapshot;
        self.0.clear();
        while let Some((head, behind)) = rest.split_first_chunk::<16>() {
            let [at, len] = [&head[..8], &head[8..]].map(|half| u64::from_le_bytes(half.try_into().unwrap()));
            let (record, behind) = behind.split_at(len as usize);
            self.0.push((LogOffset(at), record.to_vec()));
            rest = behind;
        }
        Ok(())
    }

    fn apply(&mut self, at: LogOffset, control_record: &[u8]) -> Result<(), String> {
        assert!(self.0.last().is_none_or(|(last, _)| *last < at), "{at} out of turn");
        self.0.push((at, control_record.to_vec()));
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        let frame = |(at, record): &(LogOffset, Vec<u8>)| {
            [&at.0.to_le_bytes()[..], &(record.len() as u64).to_le_bytes()[..], record].concat()
        };
        self.0.iter().flat_map(frame).collect()
    }
}

impl World {
    pub(super) fn open_empty(disk: &SimDisk, config: &LogConfig) -> CommitLog<AlignedBuffer, Numbered> {
        disk.set_new_state(Arc::new(|| Box::new(ControlRecords::default())));
        let recovered = recover(disk, config, &mut ()).unwrap();
        let term = recovered.next_term();
        CommitLog::open(config.clone(), recovered, term).unwrap()
    }

    pub(super) fn crash(&mut self) {
        self.tally.count("crash of the machine");
        self.disk.crash();
        self.reopen(true);
    }

    pub(super) fn kill(&mut self) {
        self.tally.count("process killed");
        self.disk.kill();
        self.reopen(false);
    }

    /// Recovers, and compares with what is owed.
    fn reopen(&mut self, power_went: bool) {
        self.waiting.clear();
        self.disk.set_read_only(false);
        for failing in [Failing::Writes, Failing::Syncs, Failing::SyncsForGood, Failing::Preparations] {
            self.disk.fail(failing, 0);
        }
        let unsynced_may_be_gone = self.fail_to_recover() || power_went || self.sync_may_take;
        self.sync_may_take = false;
        let (recovered, control) = match self.recover() {
            Ok(recovered) => recovered,
            Err(error) => {
                self.check_told(&error);
                self.repair();
                self.recover().expect("whole again")
            }
        };
        self.tally.count_many("cut at recovery", u64::from(recovered.report.cut.is_some()));
        let end = recovered.report.end;
        let may_lose_unsynced = unsynced_may_be_gone && self.config.durability != Durability::Sync;
        let may_lose_committed = self.check_not_told(end, may_lose_unsynced) || may_lose_unsynced;
        let term = recovered.next_term();
        self.log = CommitLog::open(self.config.clone(), recovered, term).unwrap();
        self.compare(end, control, may_lose_committed);
        self.check_all();
    }

    /// Recoveries that do not come to their end, by a fault or because the process or the power goes once more. Tells
    /// whether the power went.
    fn fail_to_recover(&mut self) -> bool {
        let mut power_went = false;
        while self.rng.chance(15) {
            if self.rng.chance(30) {
                self.disk.fail(Failing::Reads, 1);
                if let Err(error) = self.recover() {
                    let is_told = matches!(error, RecoveryError::Io { .. } | RecoveryError::List { .. });
                    assert!(is_told || !self.is_honest, "{error}");
                    self.tally.count("read failed at recovery");
                }
                self.disk.fail(Failing::Reads, 0);
                continue;
            }
            self.disk.die_after(self.rng.below(RECOVERY_CALLS));
            self.tally.count_many("recovery interrupted", u64::from(self.recover().is_err()));
            if self.rng.chance(50) {
                self.disk.kill();
            } else {
                self.disk.crash();
                power_went = true;
            }
        }
        power_went
    }

    fn recover(&self) -> Result<(Recovered, ControlRecords), RecoveryError> {
        let mut control = ControlRecords::default();
        let recovered = recover(&self.disk, &self.config, &mut control)?;
        Ok((recovered, control))
    }

    fn damaged_batches(&self) -> impl Iterator<Item = &OwedBatch> {
        self.owed.committed_batches().filter(|batch| !self.is_intact(batch))
    }

    /// The log was not opened; there must be a reason.
    fn check_told(&mut self, error: &RecoveryError) {
        assert!(!self.is_honest, "not opened: {error}");
        assert!(self.damaged_batches().next().is_some(), "nothing is damaged, and not opened: {error}");
        self.tally.count("damage told at recovery");
    }

    /// What an operator does who has a second copy.
    fn repair(&mut self) {
        for batch in self.damaged_batches() {
            let run = self.run_at(batch.base, 0);
            self.disk.overwrite(run.segment, run.position, batch.bytes());
        }
    }

    /// The log was opened and ends at `end`. If committed batches behind it are gone though the power stayed, the first
    /// of them was damaged, and nothing on the disk bears witness of it. Tells whether that is so.
    fn check_not_told(&mut self, end: LogOffset, may_lose_unsynced: bool) -> bool {
        if self.is_honest {
            return false;
        }
        let Some(first) = self.owed.committed_batches().find(|batch| batch.base >= end) else { return false };
        let (first, index) = (first.base, first.index);
        if !may_lose_unsynced {
            let is_damaged = self.damaged_batches().any(|batch| batch.base == first);
            assert!(is_damaged, "batch {index} at {first} is whole, and the log ends at {end}");
        }
        if let Some(witness) = self.witness_of(index, end) {
            panic!("batch {index} at {first} is gone without a word, and batch {witness} says it was there");
        }
        self.tally.count("damage not told, and unacknowledged for all that is left");
        true
    }

    /// A whole batch behind `end` that says that `index` was committed.
    fn witness_of(&self, index: BatchIndex, end: LogOffset) -> Option<BatchIndex> {
        let witnesses = self.owed.batches().filter(|batch| batch.base >= end && batch.commit_hint >= index);
        witnesses.filter(|batch| self.is_intact(batch)).map(|batch| batch.index).next()
    }

    fn compare(&mut self, end: LogOffset, control: ControlRecords, may_lose_committed: bool) {
        let mut owed = std::mem::take(&mut self.owed);
        owed.settle_batches(end, |batch| self.is_intact(batch));
        self.owed = owed;
        let mut found = BTreeMap::new();
        for queue in (0..QUEUES).map(QueueKey).chain([QueueKey::CONTROL]) {
            let records: Vec<FoundRecord> = (0..self.log.max_offset(queue).0)
                .map(|offset| {
                    let entry =
                        self.log.entry(queue, QueueOffset(offset)).unwrap().expect("dense up to the end");
                    let at = CommittedAt { log_offset: entry.log_offset, store_time_ms: entry.store_time_ms };
                    FoundRecord { at, bytes: self.good_bytes_at(entry.log_offset, entry.size) }
                })
                .collect();
            found.insert(queue, records);
        }
        let listed = &found[&QueueKey::CONTROL];
        assert_eq!(listed.len(), control.0.len(), "control records in the log, and applied");
        for (listed, (at, bytes)) in listed.iter().zip(control.0) {
            assert_eq!(listed.at.log_offset, at);
            // What is in a snapshot may be damaged in the log.
            assert!(
                listed.bytes.as_ref().is_none_or(|listed| *listed == bytes),
                "applied other bytes at {at}"
            );
        }
        found.retain(|_, records| !records.is_empty());
        let compared = self.owed.compare(found, may_lose_committed);
        self.tally.count_many("record in doubt lost", compared.lost - compared.committed_lost);
        self.tally.count_many("record in doubt came back", compared.back);
    }
}
