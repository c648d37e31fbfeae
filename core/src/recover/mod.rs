//! `apogee recover`: a node of a group that lost data, and that a person has go on without it.
//!
//! Without `--accept-loss` it says what the node holds and what accepting means, and gives nothing up. Either way the log is opened
//! as the node itself opens it.

#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use apogee_storage::driver::{DirectoryError, Identity, ShardDirectory};
use apogee_storage::{ConfState, LossSurvey, NodeId, survey_loss};
use clap::Args;

use crate::log_tool::{ShardPlace, one_shard};

#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Directory of a shard of a node that is stopped, such as DATA/shard-0.
    dir: PathBuf,
    /// Give up what the node has lost: it votes, and may lead, with what it has. Without this nothing is given up.
    #[arg(long)]
    accept_loss: bool,
}

pub(crate) fn run(args: &RecoverArgs, out: &mut dyn Write) -> anyhow::Result<()> {
    let ShardPlace(path) = one_shard(&args.dir)?;
    let place = path.display();
    let Some(identity) = Identity::read(&path)? else {
        bail!("{place} is not the directory of a shard: it has no file `identity`");
    };
    let directory = ShardDirectory::open(&path, &identity).map_err(|error| match error {
        DirectoryError::Locked { .. } => anyhow!("the node has to be stopped first: {error}"),
        error => error.into(),
    })?;
    let Some(survey) = survey_loss(directory.files())? else {
        bail!("{place}: the shard belongs to no group of nodes, so nobody waits for what it lost");
    };
    let Identity { cluster, group, shard, node } = identity;
    writeln!(out, "{place}: shard {shard} of group {group} in {cluster}, on node {node}")?;
    describe(&survey, out)?;
    survey.may_be_accepted().with_context(|| format!("{place} stays as it is"))?;
    explain(&survey, out)?;
    if !args.accept_loss {
        writeln!(out, "\nNothing was given up. To do it: apogee recover {place} --accept-loss")?;
        return Ok(());
    }
    let state = survey.accept(directory.files()).with_context(|| not_done(&path))?;
    writeln!(
        out,
        "\nDone. Once node {node} is started, it counts with what it has, from term {} on.",
        state.term
    )?;
    Ok(())
}

fn not_done(path: &Path) -> String {
    format!("{}: not done; look again without --accept-loss", path.display())
}

/// What the node holds.
fn describe(survey: &LossSurvey, out: &mut dyn Write) -> std::io::Result<()> {
    let LossSurvey { state, report, damage, .. } = survey;
    writeln!(
        out,
        "  term {}; its last batch is {} of term {}",
        state.term, report.last_index, report.last_term
    )?;
    writeln!(out, "  known to have been committed: all up to batch {}, of what is left", state.commit)?;
    writeln!(out, "  {}", members(&state.conf))?;
    match (damage, state.recovering) {
        (Some(damage), _) => writeln!(out, "  DAMAGED: {damage}")?,
        (None, true) => {
            writeln!(out, "  no damage shows any more: what was behind its last batch is cut off already")?
        }
        (None, false) => {}
    }
    if state.recovering {
        writeln!(out, "  recovering: it neither votes nor leads until a leader has sent it all again")?;
    }
    let snapshots = survey.snapshots_behind();
    if snapshots > 0 {
        writeln!(
            out,
            "  {snapshots} snapshots of topics, groups and offsets are of what comes behind its last batch"
        )?;
    }
    Ok(())
}

fn members(conf: &ConfState) -> String {
    let list = |nodes: &[NodeId]| {
        let nodes: Vec<_> = nodes.iter().map(NodeId::to_string).collect();
        if nodes.is_empty() { "none".to_owned() } else { nodes.join(" ") }
    };
    let before = match conf.outgoing.is_empty() {
        true => String::new(),
        false => format!(", before {}", list(&conf.outgoing)),
    };
    format!("voters {}{before}, as batch {} made them", list(&conf.voters), conf.index)
}

/// What accepting the loss means.
fn explain(survey: &LossSurvey, out: &mut dyn Write) -> std::io::Result<()> {
    let last = survey.report.last_index;
    writeln!(
        out,
        "\nTo accept the loss means:\n  \
         Batches behind {last} were acknowledged to clients. Those that no other voter has are gone for good: messages,\n  \
         topics, offsets of consumers.\n  \
         The node votes, and may lead, with what it has. What others have beyond a new leader's log is cut off there.\n  \
         So do it only where the group has no leader and will have none, and on the node that has the most: the\n  \
         greatest term of the last batch, then the greatest batch. See \"A majority has lost data\" in operations.md."
    )
}
