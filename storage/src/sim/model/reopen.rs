//! The end of a process or of the power, and what the next opening finds.

use std::collections::BTreeMap;

use super::super::{Failing, SimDisk};
use super::owed::{CommittedAt, FoundRecord, OwedBatch};
use super::record::Numbered;
use super::state::ControlState;
use super::world::World;
use crate::aligned::AlignedBuffer;
use crate::config::{Durability, LogConfig};
use crate::inspect::verify;
use crate::log::{CommitLog, SpaceState};
use crate::recovery::{Recovered, RecoveryError, recover};
use crate::source::LogFile;
use crate::types::{BatchIndex, LogOffset, QueueKey, QueueOffset};

/// Calls of the disk among which a recovery is interrupted.
const RECOVERY_CALLS: u64 = 40;

impl World {
    pub(super) fn open_empty(disk: &SimDisk, config: &LogConfig) -> CommitLog<AlignedBuffer, Numbered> {
        let recovered = recover(disk, config, &mut ControlState::default()).unwrap();
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
        self.space_state = SpaceState::Normal;
        self.disk.set_read_only(false);
        for failing in Failing::ALL {
            self.disk.fail(failing, 0);
        }
        self.disk.set_full(false);
        let unsynced_may_be_gone = self.fail_to_recover() || power_went || self.sync_may_take;
        self.sync_may_take = false;
        let (recovered, state) = match self.recover() {
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
        if let Some(first) = self.disk.segment_bases().first() {
            assert_eq!(self.log.start(), *first, "the log begins with its first file");
        }
        self.compare(end, may_lose_committed);
        self.check_control(&state, end);
        self.check_all();
        if self.rng.chance(20) {
            self.inspect(end);
        }
    }

    /// The check of a whole log finds damage that the opening does not look for, and nothing where there is none.
    fn inspect(&mut self, end: LogOffset) {
        let mut problems = Vec::new();
        let report =
            verify(&self.disk, Some(self.config.group), &mut |problem| problems.push(problem), &mut |_| {});
        if self.is_honest {
            // A snapshot that a crash kept from being removed, and that the log has left behind, fits nothing any more.
            let is_left = |file: &str| matches!(LogFile::parse(file), Some(LogFile::Snapshot(at)) if at < self.log.start());
            problems.retain(|problem| !is_left(&problem.file));
            assert!(problems.is_empty(), "{problems:?}");
            let last = self.owed.committed_batches().last();
            let last_end = last.map_or(self.log.start(), |last| last.base.plus(last.bytes().len() as u64));
            assert_eq!((report.begin, report.end), (self.log.start(), last_end));
            return self.tally.count("log inspected");
        }
        let damaged = self.damaged_batches().find(|batch| batch.base < end).map(|batch| batch.index);
        if let Some(index) = damaged {
            assert!(!problems.is_empty(), "batch {index} is damaged, and nobody says so");
            self.tally.count("damage told by inspection");
        }
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

    fn recover(&self) -> Result<(Recovered, ControlState), RecoveryError> {
        let mut state = ControlState::default();
        let recovered = recover(&self.disk, &self.config, &mut state)?;
        Ok((recovered, state))
    }

    /// Batches of the log that are not on the disk as they were acknowledged.
    fn damaged_batches(&self) -> impl Iterator<Item = &OwedBatch> {
        let first = self.disk.segment_bases().first().copied().unwrap_or_default();
        let batches = self.owed.committed_batches().filter(move |batch| batch.base >= first);
        batches.filter(|batch| !self.is_intact(batch))
    }

    /// The log was not opened; there must be a reason.
    fn check_told(&mut self, error: &RecoveryError) {
        assert!(!self.is_honest, "not opened: {error}");
        let is_damaged = self.damaged_batches().next().is_some() || self.is_small_file_damaged();
        assert!(is_damaged, "nothing is damaged, and not opened: {error}");
        self.tally.count("damage told at recovery");
    }

    /// What an operator does who has a second copy.
    fn repair(&mut self) {
        for batch in self.damaged_batches() {
            let run = self.run_at(batch.base, 0);
            self.disk.overwrite(run.segment, run.position, batch.bytes());
        }
        self.disk.repair_small_files();
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

    fn compare(&mut self, end: LogOffset, may_lose_committed: bool) {
        let mut owed = std::mem::take(&mut self.owed);
        owed.settle_batches(self.log.start(), end, |batch| self.is_intact(batch));
        self.owed = owed;
        let mut found = BTreeMap::new();
        for queue in Self::all_queues() {
            let min = self.log.min_offset(queue).0;
            let mut records = Vec::new();
            for offset in (min..self.log.max_offset(queue).0).map(QueueOffset) {
                records.push(self.found_record(queue, offset));
            }
            found.insert(queue, (min, records));
        }
        let compared = self.owed.compare(found, may_lose_committed);
        self.tally.count_many("record in doubt lost", compared.lost - compared.committed_lost);
        self.tally.count_many("record in doubt came back", compared.back);
    }

    fn found_record(&mut self, queue: QueueKey, offset: QueueOffset) -> FoundRecord {
        let Ok(entry) = self.ask(|world| world.log.entry(queue, offset)) else {
            // Told, and not to be asked: what is owed counts as found.
            let owed = self.owed.records(queue)[offset.0 as usize];
            let at = owed.committed.expect("sealed records were committed");
            return FoundRecord { at, bytes: None };
        };
        let entry = entry.unwrap_or_else(|| panic!("queue {queue} has a hole at {offset}"));
        let at = CommittedAt { log_offset: entry.log_offset, store_time_ms: entry.store_time_ms };
        FoundRecord { at, bytes: self.good_bytes_at(entry.log_offset, entry.size) }
    }
}
