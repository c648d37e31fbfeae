//! The opening of a log whose commits a group decides on.
//!
//! What is found where batch `i` is expected, behind those that follow each other, is judged as in `scan.rs`, except for
//! the proof that `i` was there once. A commit hint proves nothing here: a group commits what a minority of its disks does not
//! have yet.
//!
//! ```text
//! i is at or below the       a header that may follow, further       decision
//! state's durable commit     behind than writes go at once
//! -------------------------  --------------------------------------  ---------------------------------------
//! no                         no                                      the log ends here: i was never acknowledged
//! no                         yes                                     damage: cut here, recovering
//! yes                        -                                       damage: cut here, recovering
//! ```
//!
//! *May follow*: of this log, in its place, of a greater index than `i` and of no earlier term than the batch before `i`, nor of
//! one whose loss was accepted (`loss.rs`). What an earlier life or a cut left behind is of a smaller index or an earlier term, or
//! lies within what a leader lets come together uncommitted; were it taken for a proof, the node would be recovering for nothing.
//!
//! Cutting off what was acknowledged is bearable only because the node says so: it neither votes nor leads until it holds all
//! again that the leader has, so that no majority is counted with it.
//!
//! ```text
//! snapshot                                               decision
//! -----------------------------------------------------  --------------------------------------------------
//! behind the end, as far as that of the last checkpoint  the log has not come so far since it was begun anew
//! behind the end, further                                damage: recovering
//! ```

use super::counted::Counted;
use super::open::{Recovered, list_segments, open_log};
use super::report::RecoveryError;
use super::scan::{Damage, DamageProof, GroupScan};
use crate::checkpoint::{Interrupted, end_interrupted_reset};
use crate::config::LogConfig;
use crate::group_state::{GroupState, read_saved_group_state, save_group_state};
use crate::snapshot::DerivedState;
use crate::source::{LogFile, LogSource};
use crate::types::LogOffset;

/// A log of a group that can be opened, by [`CommitLog::open_group`](crate::CommitLog::open_group), and the node's state.
#[derive(Debug)]
pub struct GroupRecovered {
    /// Term, vote, commit and whether the node is recovering, as log and files say together. Durable as it stands here.
    pub state: GroupState,
    /// Up to here control records are in the derived state. Behind the end of what is committed while a log that was
    /// begun anew has not reached its snapshot: nobody must be served from that state before.
    pub state_at: LogOffset,
    pub recovered: Recovered,
    /// Batches whose fate the group has still to decide.
    pub uncommitted: usize,
    /// Why the node is recovering, if that came to light now.
    pub damage: Option<Damage>,
    /// What became of a reset that was not finished.
    pub interrupted: Option<Interrupted>,
}

/// Finds out what a log of a group holds, as [`recover`](super::recover) does, with these differences: a reset that a crash
/// interrupted is ended or undone. What is known to be committed, by `group` or by a batch's commit hint, is published and
/// applied; the batches behind stay uncommitted. Damage at the end is no error: the log is cut in front of it, and the node is
/// recovering.
///
/// `group` is what [`read_group_state`](crate::read_group_state) gave, or the state of a new node.
///
/// # Panics
/// If `group` is the state of another group's node.
pub fn recover_group<S: LogSource + ?Sized>(
    source: &S,
    config: &LogConfig,
    mut group: GroupState,
    state: &mut dyn DerivedState,
) -> Result<GroupRecovered, RecoveryError> {
    config.validate()?;
    assert_eq!((group.group, group.node), (config.group, config.node), "the state of another node");
    let source = &Counted::new(source);
    let saved = read_saved_group_state(source).map_err(RecoveryError::Group)?;
    let newest = saved.as_ref().map(|saved| (&saved.state, saved.seq));
    let interrupted = end_interrupted_reset(source, config.group, newest).map_err(RecoveryError::Group)?;
    if group.segment_bytes != 0 && group.segment_bytes != config.segment_bytes {
        let (expected, found) = (group.segment_bytes, config.segment_bytes);
        return Err(RecoveryError::SegmentBytes { expected, found });
    }
    let segments = list_segments(source, config)?;
    let start = group.log_start.base_offset;
    let begin = segments.first().map_or(start, |segment| segment.base);
    if begin < start {
        let file = source.name(LogFile::Segment(begin));
        return Err(RecoveryError::BeforeStart { file, found: begin, start });
    }
    let scan = GroupScan {
        committed: group.commit,
        durable: group.commit,
        // Whatever was on its way was so under an earlier configuration.
        window_bytes: group.write_window_bytes.max(config.write_window_bytes),
        loss_accepted: group.loss_accepted,
        uncommitted: Default::default(),
        uncommitted_bytes: 0,
        term_runs: Vec::new(),
        damage: None,
    };
    let opened = open_log(source, config, segments, begin, Some(scan), state)?;
    let scan = opened.group.expect("it was given");
    let (tip, recovered) = (opened.tip, opened.recovered);
    let newest_snapshot = opened.snapshots.newest().filter(|at| *at > tip.end && *at > group.checkpoint_at);
    let proof = match newest_snapshot {
        _ if scan.durable > tip.last.index => Some(DamageProof::State { durable: scan.durable }),
        Some(at) => Some(DamageProof::Snapshot { snapshot: source.name(LogFile::Snapshot(at)) }),
        None => None,
    };
    let damage = scan.damage.or_else(|| {
        let cut = recovered.report.cut.as_ref();
        let base = recovered.restored.segments.iter().rfind(|segment| segment.base <= tip.end);
        let base = base.map_or(begin, |segment| segment.base);
        Some(Damage {
            file: source.name(LogFile::Segment(base)),
            position: tip.end.0 - base.0,
            index: tip.last.index.next(),
            found: cut.map_or("it is missing".to_owned(), |cut| cut.cause.to_string()),
            proof: proof?,
        })
    });
    if tip.last.term > group.term {
        group.term = tip.last.term;
        group.vote = None;
    }
    group.commit = recovered.restored.last_index;
    group.recovering |= damage.is_some();
    group.write_window_bytes = config.write_window_bytes;
    group.segment_bytes = config.segment_bytes;
    if saved.is_none_or(|saved| saved.state != group) {
        save_group_state(source, &group).map_err(RecoveryError::Group)?;
    }
    Ok(GroupRecovered {
        state: group,
        state_at: opened.snapshots.at().max(recovered.restored.end),
        uncommitted: recovered.restored.uncommitted.len(),
        recovered,
        damage,
        interrupted,
    })
}
