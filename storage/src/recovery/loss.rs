//! Giving up what a node of a group has lost, where nobody is left who could send it again.
//!
//! A node that is recovering neither votes nor leads until it holds all that its leader has. Where that bars a majority from
//! voting, there is no leader and never will be. A person may then say that the node is to count with what it has.
//!
//! ```text
//! 1  open the log, as the node does: its end stands in front of the damage
//! 2  remove the snapshots behind the end: they are made of what is given up
//! 3  save the state: not recovering, in a term of its own, and whatever of earlier terms lies behind the end proves nothing
//! ```
//!
//! Before step 3 the node is as it was. The term is new because a node that lost its disk and has got part of the log again
//! knows only that it voted in no later term than the one it is in: in that one it may have.
//!
//! ```text
//! the node                                         why it is refused
//! -----------------------------------------------  -----------------------------------------------------------------
//! is not recovering, or has no vote                nobody waits for it
//! has an empty log                                 its state may be as new as its log: which votes it gave nobody knows.
//!                                                  What it could lose it has lost
//! has its members from a batch that it has lost    others have other members: two majorities could be apart
//! has derived state only from behind the end       the state is of batches that are given up
//! ```

use super::group::{GroupRecovered, recover_group};
use super::report::{RecoveryError, RecoveryReport};
use super::scan::Damage;
use crate::config::{CommitRule, LogConfig};
use crate::format::BLOCK_LEN;
use crate::group_state::{GroupState, read_saved_group_state, save_group_state};
use crate::job_error::JobError;
use crate::source::{LogFile, LogSource};
use crate::types::{BatchIndex, LogOffset, Term};

/// What a node of a group holds, and whether it may go on without the rest.
#[derive(Debug)]
pub struct LossSurvey {
    /// As the opening left it: `commit` is up to where all is known to be committed, of what is left.
    pub state: GroupState,
    pub report: RecoveryReport,
    /// Where the log is damaged. Nothing if an opening before this one has cut it so that it does not show any more.
    pub damage: Option<Damage>,
    /// Of all batches on the disk, those behind the end too.
    greatest_term: Term,
    /// Positions of snapshots behind the end, good or not.
    snapshots_behind: Vec<LogOffset>,
    has_state: bool,
}

/// Why nothing is given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LossRefused {
    #[error("there is nothing to accept: the node is not recovering, and votes with what it has")]
    NotRecovering,
    #[error("there is nothing to accept: the node has no vote, so nobody waits for it")]
    NoVote,
    #[error(
        "the node has no batch at all, and perhaps not even what it promised: it may have voted in terms that it does not \
         know. It counts for nothing before a leader has sent it everything"
    )]
    Empty,
    #[error(
        "the node's members come from batch {of}, which is not in its log any more (the last is {last}): other nodes may have \
         other members, and each could choose a leader of its own"
    )]
    Members { of: BatchIndex, last: BatchIndex },
    #[error(
        "the node's topics, groups and offsets are kept in a snapshot behind the end of its log ({end}) only: they are of \
         what would be given up"
    )]
    State { end: LogOffset },
}

/// Why something could not be given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LossError {
    #[error(transparent)]
    Refused(#[from] LossRefused),
    #[error(transparent)]
    Job(#[from] JobError),
}

/// Opens the log of a node of a group as the node itself does, with all that this leaves on the disk, and says what it holds.
/// Nothing if no state of such a node is there.
pub fn survey_loss<S: LogSource + ?Sized>(source: &S) -> Result<Option<LossSurvey>, RecoveryError> {
    let saved = read_saved_group_state(source).map_err(RecoveryError::Group)?;
    let Some(state) = saved.map(|saved| saved.state) else { return Ok(None) };
    // What the log is opened with decides nothing here but these two.
    let config = LogConfig {
        commit_rule: CommitRule::Group,
        segment_bytes: state.segment_bytes,
        write_window_bytes: state.write_window_bytes,
        batch_bytes_target: BLOCK_LEN as u32,
        batch_bytes_max: BLOCK_LEN as u32,
        ..LogConfig::new(state.group, state.node)
    };
    let GroupRecovered { state, recovered, damage, .. } = recover_group(source, &config, state, &mut ())?;
    let snapshots = source.snapshots().map_err(|error| RecoveryError::list("snapshots", &error))?;
    let report = recovered.report;
    let is_within = |at: &LogOffset| *at <= report.end;
    Ok(Some(LossSurvey {
        greatest_term: recovered.restored.greatest_term,
        has_state: report.begin == LogOffset(0) || recovered.restored.archive.snapshots.iter().any(is_within),
        snapshots_behind: snapshots.into_iter().filter(|at| !is_within(at)).collect(),
        state,
        report,
        damage,
    }))
}

impl LossSurvey {
    /// Whether what is lost may be given up.
    pub fn may_be_accepted(&self) -> Result<(), LossRefused> {
        let LossSurvey { state, report, .. } = self;
        let (conf, last) = (&state.conf, report.last_index);
        if !conf.voters.contains(&state.node) && !conf.outgoing.contains(&state.node) {
            return Err(LossRefused::NoVote);
        }
        if !state.recovering {
            return Err(LossRefused::NotRecovering);
        }
        if last == BatchIndex(0) {
            return Err(LossRefused::Empty);
        }
        if conf.index > last {
            return Err(LossRefused::Members { of: conf.index, last });
        }
        if !self.has_state {
            return Err(LossRefused::State { end: report.end });
        }
        Ok(())
    }

    /// How many snapshots stand behind the end of the log, and go when the loss is accepted.
    #[must_use]
    pub fn snapshots_behind(&self) -> usize {
        self.snapshots_behind.len()
    }

    /// Gives up what is lost: from now on the node votes, and may lead, with what it has. Returns its state as it is on the disk then.
    /// After an error the node is as it was, unless the state alone could not be saved: then it may be as it was or not.
    ///
    /// `source` is the one that was surveyed, and nobody has changed it since.
    pub fn accept<S: LogSource + ?Sized>(self, source: &S) -> Result<GroupState, LossError> {
        self.may_be_accepted()?;
        for at in self.snapshots_behind {
            let removed = source.remove_snapshot(at);
            removed.map_err(|error| JobError::io(source, LogFile::Snapshot(at), "remove", 0, &error))?;
        }
        let given_up = self.state.term.max(self.greatest_term);
        let state = GroupState {
            recovering: false,
            loss_accepted: Some(given_up),
            term: given_up.next(),
            vote: None,
            ..self.state
        };
        save_group_state(source, &state)?;
        Ok(state)
    }
}
