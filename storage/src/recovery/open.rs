//! The opening of a log: what is sealed, the state derived from it, the tail.

use std::mem;

use super::counted::Counted;
use super::report::{RecoveryError, RecoveryReport};
use super::scan::{GroupScan, Scan, Tip};
use super::sealed::Sealed;
use super::state::Snapshots;
use crate::config::LogConfig;
use crate::disk::SegmentInfo;
use crate::format::BLOCK_LEN;
use crate::log::{Restored, RestoredArchive};
use crate::snapshot::DerivedState;
use crate::source::{LogFile, LogSource};
use crate::types::{LogOffset, Term};

/// A log that can be opened, by [`CommitLog::open`](crate::CommitLog::open).
#[derive(Debug)]
pub struct Recovered {
    pub(crate) restored: Restored,
    pub report: RecoveryReport,
}

impl Recovered {
    /// The term to open with where no group decides on terms.
    #[must_use]
    pub fn next_term(&self) -> Term {
        self.restored.greatest_term.next()
    }
}

/// Finds out what a log holds and where it goes on. `state` is that of an empty log; afterwards it is what all control
/// records of the log come to, and after an error it is worth nothing. An empty source is an empty log.
///
/// Reads the header of each index, the snapshots, the batches with control records behind the newest good snapshot, and the tail, from
/// the first segment without an index on: normally one or two segments, however many there are. What is not as it has to be, if it
/// can be made anew, is; then the segments it is made from are read too.
///
/// All that is found is durable afterwards. Nothing is erased: the next batch overwrites what lies behind the end. It can
/// be stopped at any point and begun anew.
pub fn recover<S: LogSource + ?Sized>(
    source: &S,
    config: &LogConfig,
    state: &mut dyn DerivedState,
) -> Result<Recovered, RecoveryError> {
    config.validate()?;
    let source = &Counted::new(source);
    let segments = list_segments(source, config)?;
    let begin = segments.first().map_or(LogOffset(0), |segment| segment.base);
    let opened = open_log(source, config, segments, begin, None, state)?;
    opened.snapshots.check_end(source, opened.tip.end)?;
    Ok(opened.recovered)
}

/// A log as far as it goes.
pub(super) struct Opened {
    pub(super) recovered: Recovered,
    pub(super) snapshots: Snapshots,
    pub(super) tip: Tip,
    pub(super) group: Option<GroupScan>,
}

/// Opens a log that begins at `begin`. What the snapshots say of its end is left to be looked at.
pub(super) fn open_log<S: LogSource + ?Sized>(
    source: &Counted<'_, S>,
    config: &LogConfig,
    segments: Vec<SegmentInfo>,
    begin: LogOffset,
    mut group: Option<GroupScan>,
    state: &mut dyn DerivedState,
) -> Result<Opened, RecoveryError> {
    let mut sealed = Sealed::read(source, config.group, begin, &segments)?;
    let known = sealed.known()?;
    let snapshots = Snapshots::restore(source, config.group, begin, &mut sealed, &known, state)?;
    let state_at = snapshots.at();
    let tip = Tip::of(&known);
    if let Some(group) = &mut group {
        // What was sealed or is part of a snapshot was committed.
        group.committed = group.committed.max(known.last.index).max(snapshots.used_index);
        group.term_runs = sealed.term_runs()?;
    }
    let start = sealed.start()?;
    let mut scan = Scan { source, config, known, state, state_at, tip, group };
    let cut = scan.run(&segments[sealed.indexes.len()..])?;
    let Scan { known, tip, mut group, .. } = scan;
    for base in &sealed.orphans {
        let removed = source.remove_index(*base);
        let file = LogFile::Index(*base);
        removed.map_err(|error| RecoveryError::io(source, file, "remove", 0, &error))?;
    }
    let summaries = || sealed.indexes.iter().map(|index| index.summary());
    let report = RecoveryReport {
        segments: segments.len(),
        sealed_segments: sealed.indexes.len(),
        batches: known.counts.batches + summaries().map(|summary| u64::from(summary.batches)).sum::<u64>(),
        records: known.counts.records + summaries().map(|summary| u64::from(summary.entries)).sum::<u64>(),
        bytes: known.counts.bytes
            + summaries().map(|summary| summary.end.0 - summary.segment.base.0).sum::<u64>(),
        begin,
        end: tip.end,
        last_index: tip.last.index,
        last_term: tip.last.term,
        cut,
        indexes_removed: sealed.orphans.len(),
        snapshot: snapshots.used,
        control_records: snapshots.control_records + known.counts.control_records,
        bytes_read: source.bytes(),
        indexes_replaced: sealed.replaced,
        snapshots_refused: snapshots.refused.clone(),
    };
    let archive = RestoredArchive {
        boundary: sealed.before.ok().map(|before| before.summary().segment.base),
        indexes: sealed.indexes,
        snapshots: snapshots.good.clone(),
    };
    let (term_runs, uncommitted) = match &mut group {
        Some(group) => (mem::take(&mut group.term_runs), mem::take(&mut group.uncommitted).into()),
        None => (Vec::new(), Vec::new()),
    };
    let restored = Restored {
        segments,
        end: known.end,
        last_index: known.last.index,
        last_term: known.last.term,
        greatest_term: known.greatest_term,
        last_store_time_ms: known.last_store_time_ms,
        queues: known.queues,
        unsealed: known.unsealed,
        archive,
        start,
        term_runs,
        uncommitted,
    };
    Ok(Opened { recovered: Recovered { restored, report }, snapshots, tip, group })
}

/// All segments in order. They touch each other, wherever they begin.
pub(super) fn list_segments<S: LogSource + ?Sized>(
    source: &S,
    config: &LogConfig,
) -> Result<Vec<SegmentInfo>, RecoveryError> {
    let mut segments = source.segments().map_err(|error| RecoveryError::list("segments", &error))?;
    segments.sort_by_key(|segment| segment.base);
    let mut expected = segments.first().map(|segment| segment.base);
    for segment in &segments {
        let (file, bytes) = (source.name(LogFile::Segment(segment.base)), segment.bytes);
        if let Some(expected) = expected.filter(|expected| *expected != segment.base) {
            return Err(RecoveryError::Gap { file, expected: expected.0, found: segment.base.0 });
        }
        let min = u64::from(config.batch_bytes_max);
        if bytes < min || !bytes.is_multiple_of(BLOCK_LEN as u64) {
            return Err(RecoveryError::SegmentSize { file, bytes, min });
        }
        expected = Some(segment.end());
    }
    Ok(segments)
}
