//! The log as raft sees it: indexes and terms. Entries are made up when asked for; none has a payload.
//!
//! ```text
//! start │ run of term 3 │ run of term 5        │ run of term 9 │
//!   12  │ 13 ▲          │ 40 ▲                 │ 57 ▲          ▲ last
//! ```
//!
//! It may be ahead of the [`GroupLog`](super::group_log::GroupLog): what raft took is here at once, what waits for a
//! segment or a place in memory is not there yet.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use super::group_log::GroupLog;
use super::membership::Configuration;

use apogee_storage::BatchIndex;

/// What raft counts a made-up entry as, about: its sizes are turned into numbers of entries by it.
pub(super) const ENTRY_BYTES: u64 = 12;

#[derive(Debug, Default)]
pub(super) struct Entries {
    /// Index and term in front of the first entry.
    start: (u64, u64),
    /// First index and term of each run; strictly ascending in both.
    runs: Vec<(u64, u64)>,
    last: u64,
    /// Entries that change the members, as long as they are not applied.
    configurations: BTreeMap<u64, Rc<Configuration>>,
    pub(super) conf: ConfState,
    pub(super) hard: HardState,
}

impl Entries {
    /// The entries of a log just opened.
    pub(super) fn of_log<B>(log: &impl GroupLog<B>) -> Entries {
        let start = log.before_first();
        let mut entries =
            Entries { start: (start.index.0, start.term.0), last: start.index.0, ..Entries::default() };
        let last = log.last_index().0;
        let term_at = |index: u64| log.term_of(BatchIndex(index)).expect("a log knows its terms").0;
        let mut next = start.index.0 + 1;
        while next <= last {
            let term = term_at(next);
            // Terms ascend: the run ends in front of the first index of another term.
            let (mut low, mut high) = (next, last);
            while low < high {
                let middle = low + (high - low).div_ceil(2);
                if term_at(middle) == term { low = middle } else { high = middle - 1 }
            }
            entries.runs.push((next, term));
            next = low + 1;
        }
        entries.last = last;
        entries
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn start(&self) -> (u64, u64) {
        self.start
    }

    pub(super) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.start.0 {
            return Some(self.start.1);
        }
        if index < self.start.0 || index > self.last {
            return None;
        }
        let nth = self.runs.partition_point(|(first, _)| *first <= index);
        Some(self.runs[nth - 1].1)
    }

    /// The first change of members behind `after` and up to `upto` that is not applied.
    pub(super) fn next_configuration(&self, after: u64, upto: u64) -> Option<(u64, &Rc<Configuration>)> {
        let mut found = self.configurations.range((Bound::Excluded(after), Bound::Included(upto)));
        found.next().map(|(index, change)| (*index, change))
    }

    /// Index of the first change of members that is not applied.
    pub(super) fn first_configuration(&self) -> Option<u64> {
        self.configurations.first_key_value().map(|(index, _)| *index)
    }

    pub(super) fn push(&mut self, index: u64, term: u64, configuration: Option<Rc<Configuration>>) {
        assert!(index == self.last + 1, "entry {index} behind {}", self.last);
        let last_term = self.term_of(self.last).expect("the last entry");
        assert!(term >= last_term, "entry {index} of term {term} behind one of {last_term}");
        if self.runs.is_empty() || term > last_term {
            self.runs.push((index, term));
        }
        self.last = index;
        if let Some(configuration) = configuration {
            self.configurations.insert(index, configuration);
        }
    }

    pub(super) fn add_configuration(&mut self, index: u64, configuration: Rc<Configuration>) {
        assert!(index <= self.last, "a change of members at {index}, behind {}", self.last);
        self.configurations.insert(index, configuration);
    }

    pub(super) fn truncate_from(&mut self, index: u64) {
        assert!(index > self.start.0, "cut at {index}, the log starts behind {}", self.start.0);
        self.last = self.last.min(index - 1);
        self.runs.retain(|(first, _)| *first < index);
        self.configurations.retain(|at, _| *at < index);
    }

    /// What is in front of `index` has left the log.
    pub(super) fn compact_to(&mut self, index: u64) {
        if index <= self.start.0 {
            return;
        }
        let term = self.term_of(index).expect("a log starts within itself");
        let gone = self.runs.partition_point(|(first, _)| *first <= index + 1);
        self.runs.drain(..gone.saturating_sub(1));
        if let Some(first) = self.runs.first_mut().filter(|first| first.0 <= index) {
            first.0 = index + 1;
        }
        if index == self.last {
            self.runs.clear();
        }
        self.start = (index, term);
    }

    /// The log begins anew.
    pub(super) fn reset(&mut self, index: u64, term: u64) {
        self.start = (index, term);
        self.last = index;
        self.runs.clear();
        self.configurations.clear();
    }

    /// Changes of members up to `index` are applied: what they were no longer matters.
    pub(super) fn forget_configurations(&mut self, index: u64) {
        self.configurations = self.configurations.split_off(&(index + 1));
    }
}

impl Storage for Entries {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        bytes_max: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.start.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let _ = context;
        let count = match bytes_max.into() {
            None => u64::MAX,
            Some(bytes) => (bytes / ENTRY_BYTES).max(1),
        };
        let end = high.min(low.saturating_add(count));
        let mut nth = self.runs.partition_point(|(first, _)| *first <= low) - 1;
        let make = |index| {
            while self.runs.get(nth + 1).is_some_and(|(first, _)| *first <= index) {
                nth += 1;
            }
            let mut entry = Entry { index, term: self.runs[nth].1, ..Entry::default() };
            if self.configurations.contains_key(&index) {
                entry.set_entry_type(EntryType::EntryConfChangeV2);
            }
            entry
        };
        Ok((low..end).map(make).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.term_of(index) {
            Some(term) => Ok(term),
            None if index < self.start.0 => Err(Error::Store(StorageError::Compacted)),
            None => Err(Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.start.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    /// The log begins anew behind its start; everything else follows by ordinary appends.
    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.start.0;
        metadata.term = self.start.1;
        metadata.set_conf_state(self.conf.clone());
        Ok(snapshot)
    }
}
