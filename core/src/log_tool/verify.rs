//! Checks logs and says what was found, for people or as JSON.

use std::io::Write;

use apogee_storage::driver::LogFiles;
use apogee_storage::inspect::{self, Problem, VerifyReport};
use apogee_storage::{GroupState, NodeId};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::place::{self, ShardPlace};
use super::{BAD, Failed, GOOD, VerifyArgs};

/// Problems of one shard that are listed; the rest is counted.
const PROBLEMS_LISTED: usize = 1000;

pub(super) fn run(args: &VerifyArgs, out: &mut dyn Write) -> Result<u8, Failed> {
    let mut findings = Vec::new();
    for ShardPlace(shard) in place::shards(&args.dir)? {
        let bar = progress_bar(&shard.display().to_string());
        let mut problems = Vec::new();
        let report = inspect::verify(
            &LogFiles::new(&shard),
            None,
            &mut |problem| {
                if problems.len() < PROBLEMS_LISTED {
                    problems.push(problem);
                }
            },
            &mut |progress| {
                bar.set_length(progress.of_bytes);
                bar.set_position(progress.bytes);
            },
        );
        bar.finish_and_clear();
        let finding = Finding::new(shard.display().to_string(), &report, &problems);
        if !args.json {
            finding.print(out)?;
            out.flush()?;
        }
        findings.push(finding);
    }
    let problems: u64 = findings.iter().map(|finding| finding.problems).sum();
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &Findings { problems, shards: findings })
            .map_err(std::io::Error::from)?;
        writeln!(out)?;
    }
    Ok(if problems == 0 { GOOD } else { BAD })
}

/// On a terminal only; anywhere else nothing is drawn.
fn progress_bar(shard: &str) -> ProgressBar {
    let style = "{msg}  {bar:30} {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left";
    let style = ProgressStyle::with_template(style).expect("a template that indicatif understands");
    ProgressBar::new(0).with_style(style).with_message(shard.to_owned())
}

#[derive(Serialize)]
struct Findings {
    problems: u64,
    shards: Vec<Finding>,
}

/// What was found of one shard.
#[derive(Debug, Serialize)]
struct Finding {
    directory: String,
    /// The log's own number for cluster, group and shard; none if it holds no batch.
    group: Option<u64>,
    begin: u64,
    end: u64,
    last_batch: u64,
    last_term: u64,
    segments: usize,
    segments_left: usize,
    indexes: usize,
    indexes_compared: usize,
    snapshots: usize,
    batches: u64,
    records: u64,
    bytes: u64,
    queues: usize,
    /// What stands behind the end, if a batch was begun there.
    cut: Option<String>,
    /// What the node must not forget, if it belongs to a group of nodes.
    node: Option<NodeState>,
    problems: u64,
    /// The first [`PROBLEMS_LISTED`] of them.
    listed: Vec<FoundProblem>,
}

/// The state of a node in its group, as it was saved last.
#[derive(Debug, Serialize)]
struct NodeState {
    node: u64,
    incarnation: u64,
    term: u64,
    voted_for: Option<u64>,
    committed: u64,
    voters: Vec<u64>,
    /// The voters before, while a change of members is under way.
    voters_before: Vec<u64>,
    learners: Vec<u64>,
    log_begins_behind_batch: u64,
    recovering: bool,
    /// Behind the end, batches of terms up to this one prove nothing missing: a person gave up what the node had lost.
    loss_accepted_to_term: Option<u64>,
    /// The log is being begun anew; the next start ends that.
    begins_anew: bool,
}

impl NodeState {
    fn new(state: &GroupState, begins_anew: bool) -> NodeState {
        let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
        NodeState {
            node: state.node.0,
            incarnation: state.incarnation,
            term: state.term.0,
            voted_for: state.vote.map(|node| node.0),
            committed: state.commit.0,
            voters: numbers(&state.conf.voters),
            voters_before: numbers(&state.conf.outgoing),
            learners: numbers(&state.conf.learners),
            log_begins_behind_batch: state.log_start.index.0,
            recovering: state.recovering,
            loss_accepted_to_term: state.loss_accepted.map(|term| term.0),
            begins_anew,
        }
    }

    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let list = |nodes: &[u64]| {
            let nodes: Vec<_> = nodes.iter().map(u64::to_string).collect();
            if nodes.is_empty() { "none".to_owned() } else { nodes.join(" ") }
        };
        let vote = self.voted_for.map_or("voted for nobody".to_owned(), |node| format!("voted for {node}"));
        write!(
            out,
            "  node {} of a group, term {}, {vote}, committed up to batch {}; voters {}",
            self.node,
            self.term,
            self.committed,
            list(&self.voters)
        )?;
        if !self.voters_before.is_empty() {
            write!(out, ", before {}", list(&self.voters_before))?;
        }
        if !self.learners.is_empty() {
            write!(out, ", learners {}", list(&self.learners))?;
        }
        writeln!(out)?;
        if self.recovering {
            writeln!(out, "  recovering: it lost data and does not vote until its leader has sent it again")?;
        }
        if let Some(term) = self.loss_accepted_to_term {
            writeln!(
                out,
                "  a person accepted a loss: what is behind the end, of terms up to {term}, is given up"
            )?;
        }
        if self.begins_anew {
            writeln!(out, "  the log was being begun anew behind its leader's; the next start ends that")?;
        }
        Ok(())
    }
}

#[derive(Debug, Serialize)]
struct FoundProblem {
    file: String,
    position: u64,
    what: String,
}

impl Finding {
    fn new(directory: String, report: &VerifyReport, problems: &[Problem]) -> Finding {
        let cut = |cut: &apogee_storage::Cut| format!("{} at {}: {}", cut.file, cut.position, cut.cause);
        Finding {
            directory,
            group: report.group.map(|group| group.0),
            begin: report.begin.0,
            end: report.end.0,
            last_batch: report.last_index.0,
            last_term: report.last_term.0,
            segments: report.segments,
            segments_left: report.segments_left,
            indexes: report.indexes,
            indexes_compared: report.indexes_compared,
            snapshots: report.snapshots,
            batches: report.batches,
            records: report.records,
            bytes: report.bytes,
            queues: report.queues,
            cut: report.cut.as_ref().map(cut),
            node: report.state.as_ref().map(|state| NodeState::new(state, report.begins_anew)),
            problems: report.problems,
            listed: problems
                .iter()
                .map(|problem| FoundProblem {
                    file: problem.file.clone(),
                    position: problem.position,
                    what: problem.wrong.to_string(),
                })
                .collect(),
        }
    }

    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(out, "{}", self.directory)?;
        writeln!(
            out,
            "  log {} to {}: {} batches, {} records in {} queues, {} bytes",
            self.begin, self.end, self.batches, self.records, self.queues, self.bytes
        )?;
        writeln!(
            out,
            "  {} segments; {} indexes, {} of them compared with their segments; {} snapshots",
            self.segments, self.indexes, self.indexes_compared, self.snapshots
        )?;
        if let Some(node) = &self.node {
            node.print(out)?;
        }
        if self.segments_left > 0 {
            writeln!(out, "  {} segments expired meanwhile and were passed over", self.segments_left)?;
        }
        if let Some(cut) = &self.cut {
            writeln!(out, "  behind the end, never acknowledged: {cut}")?;
        }
        for FoundProblem { file, position, what } in &self.listed {
            writeln!(out, "  PROBLEM: {file} at {position}: {what}")?;
        }
        match self.problems {
            0 => writeln!(out, "  good"),
            count => writeln!(out, "  {count} problems"),
        }
    }
}

#[cfg(test)]
mod tests {
    use apogee_storage::{BatchIndex, ConfState, GroupId, LogStart, Term};

    use super::*;

    fn told(state: &GroupState, begins_anew: bool) -> String {
        let mut out = Vec::new();
        NodeState::new(state, begins_anew).print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_a_node_must_not_forget_is_told() {
        let mut state = GroupState::new(GroupId(7), NodeId(2));
        assert_eq!(
            told(&state, false),
            "  node 2 of a group, term 0, voted for nobody, committed up to batch 0; voters none\n"
        );
        state.term = Term(5);
        state.vote = Some(NodeId(3));
        state.commit = BatchIndex(41);
        state.conf = ConfState {
            voters: [1, 2, 4].map(NodeId).to_vec(),
            outgoing: [1, 2, 3].map(NodeId).to_vec(),
            learners: vec![NodeId(5)],
            ..ConfState::default()
        };
        state.log_start = LogStart { index: BatchIndex(9), ..LogStart::default() };
        state.recovering = true;
        state.loss_accepted = Some(Term(4));
        assert_eq!(
            told(&state, true),
            "  node 2 of a group, term 5, voted for 3, committed up to batch 41; voters 1 2 4, before 1 2 3, learners 5\n  \
             recovering: it lost data and does not vote until its leader has sent it again\n  \
             a person accepted a loss: what is behind the end, of terms up to 4, is given up\n  \
             the log was being begun anew behind its leader's; the next start ends that\n"
        );
    }
}
