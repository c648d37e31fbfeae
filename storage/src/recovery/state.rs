//! Derived state: the newest snapshot that can be used, then the control records behind it.
//!
//! ```text
//! found                                                  decision
//! -----------------------------------------------------  -------------------------------------------------------
//! snapshot whole, fits the log, is understood            the newest such is taken, control records behind it applied
//! damaged | foreign | other version | other position |   reported, the next older one is looked at
//!   does not fit | not understood
//! none left, the log begins at 0                         all control records are applied
//! none left, the log begins behind 0                     error NoSnapshot
//! any, by its name, behind the end of the log            error SnapshotAhead: it was made of durable data
//! ```
//!
//! *Fits*: the first segment behind it goes on with the index and term that it ends with. One in front of the log's first
//! segment, with segments missing between, does not.

use super::look::{Last, Mismatch};
use super::report::{RecoveryError, RefusedSnapshot, SnapshotFlaw};
use super::scan::Known;
use super::sealed::Sealed;
use crate::job_error::JobError;
use crate::snapshot::{DerivedState, Snapshot, SnapshotError, apply_segment, read_snapshot};
use crate::source::{LogFile, LogSource};
use crate::types::{BatchIndex, GroupId, LogOffset};

/// What became of the snapshots.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// All by name, newest first.
    listed: Vec<LogOffset>,
    /// Those that can be used, oldest first.
    pub(super) good: Vec<LogOffset>,
    /// The one that the state was restored from.
    pub(super) used: Option<LogOffset>,
    /// Of the last batch that is in it.
    pub(super) used_index: BatchIndex,
    pub(super) refused: Vec<RefusedSnapshot>,
    /// Control records of sealed segments that were applied behind it.
    pub(super) control_records: u64,
}

impl Snapshots {
    /// Brings `state` to the end of the sealed part, or behind it if there is a snapshot there.
    pub(super) fn restore<S: LogSource + ?Sized>(
        source: &S,
        group: GroupId,
        begin: LogOffset,
        sealed: &mut Sealed<'_, S>,
        known: &Known,
        state: &mut dyn DerivedState,
    ) -> Result<Snapshots, RecoveryError> {
        let listed = source.snapshots();
        let mut listed = listed.map_err(|error| RecoveryError::list("snapshots", &error))?;
        listed.sort_unstable_by(|a, b| b.cmp(a));
        let mut snapshots = Snapshots { listed, ..Snapshots::default() };
        for nth in 0..snapshots.listed.len() {
            let at = snapshots.listed[nth];
            match snapshots.try_use(source, group, at, sealed, known, state) {
                Ok(()) => snapshots.good.push(at),
                Err(SnapshotFlaw::File(SnapshotError::Io { message, .. })) => {
                    let file = source.name(LogFile::Snapshot(at));
                    return Err(RecoveryError::Io { file, action: "read", position: 0, message });
                }
                Err(flaw) => {
                    let file = source.name(LogFile::Snapshot(at));
                    snapshots.refused.push(RefusedSnapshot { file, flaw });
                }
            }
        }
        snapshots.good.reverse();
        if snapshots.used.is_none() && begin > LogOffset(0) {
            return Err(RecoveryError::NoSnapshot { begin, refused: snapshots.refused });
        }
        let behind = sealed.indexes.partition_point(|index| index.summary().end <= snapshots.at());
        for nth in behind..sealed.indexes.len() {
            sealed.check_control(nth)?;
            let applied = apply_segment(source, &sealed.indexes[nth], state);
            snapshots.control_records += applied.map_err(|error| match error {
                JobError::Io { file, action, position, message, .. } => {
                    RecoveryError::Io { file, action, position, message }
                }
                error => RecoveryError::ControlRecord(error),
            })?;
        }
        Ok(snapshots)
    }

    /// Up to where the snapshot that was used stands for the control records.
    pub(super) fn at(&self) -> LogOffset {
        self.used.unwrap_or(LogOffset(0))
    }

    /// Checks a snapshot, and restores the state from it if it is the first that is good.
    fn try_use<S: LogSource + ?Sized>(
        &mut self,
        source: &S,
        group: GroupId,
        at: LogOffset,
        sealed: &Sealed<'_, S>,
        known: &Known,
        state: &mut dyn DerivedState,
    ) -> Result<(), SnapshotFlaw> {
        let snapshot = read_snapshot(source, group, at)?;
        check_fits(&snapshot, sealed, known)?;
        if self.used.is_none() {
            state.restore(&snapshot.body).map_err(SnapshotFlaw::State)?;
            (self.used, self.used_index) = (Some(at), snapshot.index);
        }
        Ok(())
    }

    /// Place of the newest, good or not.
    pub(super) fn newest(&self) -> Option<LogOffset> {
        self.listed.first().copied()
    }

    /// No snapshot, good or not, may stand behind the end of the log.
    pub(super) fn check_end<S: LogSource + ?Sized>(
        &self,
        source: &S,
        end: LogOffset,
    ) -> Result<(), RecoveryError> {
        match self.newest() {
            Some(at) if at > end => {
                Err(RecoveryError::SnapshotAhead { file: source.name(LogFile::Snapshot(at)), end })
            }
            _ => Ok(()),
        }
    }
}

fn check_fits<S: LogSource + ?Sized>(
    snapshot: &Snapshot,
    sealed: &Sealed<'_, S>,
    known: &Known,
) -> Result<(), SnapshotFlaw> {
    let behind = sealed.indexes.iter().find(|index| index.summary().end > snapshot.at);
    let expected = match behind.map(|index| index.summary()) {
        Some(next) => Last { index: BatchIndex(next.first_index.0 - 1), term: next.prev_term },
        None if snapshot.at <= known.end => known.last,
        // Among what is not read yet.
        None => return Ok(()),
    };
    let rules = [("index", expected.index.0, snapshot.index.0), ("term", expected.term.0, snapshot.term.0)];
    match rules.into_iter().find(|(_, expected, found)| expected != found) {
        Some((field, expected, found)) => Err(SnapshotFlaw::DoesNotFit(Mismatch { field, expected, found })),
        None => Ok(()),
    }
}
