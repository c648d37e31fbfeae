//! What all nodes together may do, compared with what they do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use apogee_storage::{ConfState, FileRun, LogOffset, NodeId, Run};

use super::node::Node;
use crate::replication::{AppendAnswer, PeerMessage};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) term: u64,
    hash: Option<u64>,
}

/// How much was done, to see that a case was worth it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) numbers: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.numbers.entry(what).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Tally) {
        for (what, number) in &other.numbers {
            *self.numbers.entry(what).or_default() += number;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.numbers.iter().map(|(what, number)| format!("{number} {what}"));
        f.write_str(&numbers.collect::<Vec<_>>().join(", "))
    }
}

/// A disk was emptied that had these batches. A leader to which they were acknowledged counts them until it meets the node again:
/// it cannot know.
#[derive(Debug)]
struct Lost {
    node: NodeId,
    upto: u64,
    unaware: BTreeSet<NodeId>,
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// What was committed anywhere.
    pub(super) committed: BTreeMap<u64, Known>,
    /// What an index and a term name.
    named: BTreeMap<(u64, u64), u64>,
    leaders: BTreeMap<u64, NodeId>,
    votes: BTreeMap<(NodeId, u64), NodeId>,
    /// Greatest index acknowledged to anybody.
    pub(super) acknowledged: u64,
    pub(super) acknowledgements: u64,
    confs: BTreeMap<u64, ConfState>,
    lost: Option<Lost>,
    pub(super) tally: Tally,
    digest: u64,
}

impl Oracle {
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Whatever two runs of one seed must have in common.
    pub(super) fn mix(&mut self, number: u64) {
        self.digest = (self.digest ^ number).wrapping_mul(0x100_0000_01b3).rotate_left(23);
    }

    pub(super) fn on_leader(&mut self, term: u64, node: NodeId) {
        let first = *self.leaders.entry(term).or_insert(node);
        assert_eq!(first, node, "two leaders of term {term}");
        self.tally.count("leaderships");
    }

    pub(super) fn on_conf(&mut self, conf: &ConfState) {
        if conf.voters.is_empty() {
            return;
        }
        let known = self.confs.entry(conf.index.0).or_insert_with(|| conf.clone());
        assert_eq!(known, conf, "memberships of batch {}", conf.index);
        let confs: Vec<&ConfState> = self.confs.values().collect();
        for both in confs.windows(2) {
            assert!(
                majorities_meet(both[0], both[1]),
                "{:?} and {:?} have majorities apart",
                both[0],
                both[1]
            );
        }
    }

    /// A message leaves a node.
    pub(super) fn on_send<P>(&mut self, from: &Node, to: NodeId, message: &PeerMessage<P>) {
        let term = match message {
            PeerMessage::Append { head, .. } => head.term.0,
            PeerMessage::AppendAnswer(answer) => answer.term.0,
            PeerMessage::Heartbeat(beat) => beat.term.0,
            PeerMessage::HeartbeatAnswer(answer) => answer.term.0,
            // A pre-vote speaks of a term that may never come.
            PeerMessage::VoteRequest(vote) => vote.term.0 - u64::from(vote.pre),
            PeerMessage::VoteAnswer(answer) if answer.pre && answer.granted => answer.term.0 - 1,
            PeerMessage::VoteAnswer(answer) => answer.term.0,
            PeerMessage::TimeoutNow { term } => term.0,
            PeerMessage::Reset(head) => head.term.0,
            PeerMessage::Members(members) => members.term.0,
            PeerMessage::ResetPart(_) | PeerMessage::ResetAnswer(_) => 0,
        };
        let saved = from.saved;
        assert!(
            term <= saved.term || matches!(message, PeerMessage::VoteAnswer(answer) if answer.pre),
            "node {} speaks in term {term} and has saved {}: {:?}",
            from.id,
            saved.term,
            std::mem::discriminant(message)
        );
        let vote = match message {
            PeerMessage::VoteRequest(vote) if !vote.pre => Some((vote.term.0, from.id)),
            PeerMessage::VoteAnswer(answer) if !answer.pre && answer.granted => Some((answer.term.0, to)),
            _ => None,
        };
        if let Some((term, whom)) = vote {
            let first = *self.votes.entry((from.id, term)).or_insert(whom);
            assert_eq!(first, whom, "node {} voted twice in term {term}", from.id);
            // In an earlier term than the one on the disk it votes for nobody any more.
            assert!(
                saved.term > term || (saved.term, saved.vote) == (term, Some(whom)),
                "node {} votes for {whom} in term {term} and has saved {saved:?}",
                from.id
            );
        }
        if let PeerMessage::AppendAnswer(AppendAnswer { index, refused: None, .. }) = message {
            let persisted = from.process.as_ref().expect("it sends").log.persisted_index();
            assert!(*index <= persisted, "node {} acknowledges {index} and has stored {persisted}", from.id);
        }
    }

    /// The disk of a node that had stored batches up to here is emptied.
    pub(super) fn on_emptied(&mut self, nodes: &BTreeMap<NodeId, Node>, node: NodeId, upto: u64) {
        let unaware = nodes.keys().copied().filter(|other| *other != node).collect();
        self.lost = Some(Lost { node, upto, unaware });
    }

    /// What was committed behind this batch was given up: it is as if it had never been.
    pub(super) fn on_given_up(&mut self, behind: u64) {
        self.committed.split_off(&(behind + 1));
        self.confs.split_off(&(behind + 1));
        self.acknowledged = self.acknowledged.min(behind);
    }

    /// Two nodes have heard each other's hello.
    pub(super) fn on_met(&mut self, a: NodeId, b: NodeId) {
        if let Some(lost) = &mut self.lost {
            for (node, other) in [(a, b), (b, a)] {
                if lost.node == other {
                    lost.unaware.remove(&node);
                }
            }
        }
    }

    /// A node publishes batches.
    pub(super) fn on_commit(&mut self, nodes: &BTreeMap<NodeId, Node>, at: NodeId, from: u64, to: u64) {
        let node = &nodes[&at];
        let process = node.process.as_ref().expect("it runs");
        for index in from + 1..=to {
            let found = process.log.batch_at(apogee_storage::BatchIndex(index));
            // Its place may be in pages that are not in memory; then only the term is known.
            let place = found.ok().map(|place| place.expect("a committed batch is there"));
            let term =
                process.log.term_of(apogee_storage::BatchIndex(index)).expect("a batch that is there").0;
            let hash = place.as_ref().map(|place| match &place.run {
                Run::Memory(run) => hash_of(run.as_ref()),
                Run::File(run) => hash_of(&node.disk.read(*run)),
            });
            if let Some(hash) = hash {
                let named = *self.named.entry((index, term)).or_insert(hash);
                assert_eq!(named, hash, "node {at}: batch {index} of term {term} is two batches");
            }
            match self.committed.get(&index) {
                Some(known) => {
                    assert_eq!(known.term, term, "node {at} commits another batch {index}");
                    assert!(known.hash.is_none() || hash.is_none() || known.hash == hash, "batch {index}");
                }
                None => {
                    self.committed.insert(index, Known { term, hash });
                    self.tally.count("batches");
                    if let Some(place) = &place {
                        self.check_majority(nodes, at, index, place.base_offset, place.len, hash);
                    }
                }
            }
            self.mix(index.wrapping_mul(31) ^ term);
        }
        self.check_members_saved(node, to);
    }

    /// What a node calls committed it also calls so after a crash: then it looks for no change of members in it any more.
    pub(super) fn check_members_saved(&self, node: &Node, committed: u64) {
        let newest = self.confs.range(..=committed).next_back().map_or(0, |(index, _)| *index);
        assert!(
            node.saved.conf_index >= newest,
            "node {} commits {committed}, and has saved the members as of {}, not of {newest}",
            node.id,
            node.saved.conf_index
        );
    }

    fn check_majority(
        &self,
        nodes: &BTreeMap<NodeId, Node>,
        at: NodeId,
        index: u64,
        base: LogOffset,
        len: u32,
        hash: Option<u64>,
    ) {
        let lost = self.lost.as_ref().filter(|lost| index <= lost.upto && lost.unaware.contains(&at));
        let holds = |node: &NodeId| {
            if lost.is_some_and(|lost| lost.node == *node) {
                return true;
            }
            let Some(node) = nodes.get(node) else { return false };
            let run = run_on(node, base, len);
            run.is_some_and(|run| Some(hash_of(&node.disk.read_durable(run))) == hash)
        };
        let is_majority = |voters: &[NodeId]| {
            voters.is_empty() || voters.iter().filter(|node| holds(node)).count() > voters.len() / 2
        };
        let own = &nodes[&at].process.as_ref().expect("it runs").replica.group_state().conf;
        // Counted before or after a change that is committed with it.
        let recent = self.confs.values().rev().take(3).chain([own]);
        let is_kept = recent.into_iter().any(|conf| is_majority(&conf.voters) && is_majority(&conf.outgoing));
        assert!(is_kept, "batch {index} is committed, and not on the disks of a majority");
    }

    /// A leader answers whoever sent these records.
    pub(super) fn on_acknowledged(&mut self, index: u64, records: u64) {
        assert!(self.committed.contains_key(&index), "batch {index} is acknowledged and not committed");
        self.acknowledged = self.acknowledged.max(index);
        self.acknowledgements += records;
    }

    /// With a lease, a leader knows all that was acknowledged, and nobody has led after it.
    pub(super) fn check_leases(&self, nodes: &BTreeMap<NodeId, Node>, now_us: u64) {
        for node in nodes.values() {
            let Some(process) = &node.process else { continue };
            if process.replica.has_lease(node.now_ms(now_us)) {
                let (newest, leader) = self.leaders.last_key_value().expect("one with a lease leads");
                assert!(
                    *newest <= process.replica.term().0,
                    "node {} has a lease in term {}, and node {leader} leads in term {newest}",
                    node.id,
                    process.replica.term()
                );
                let committed = process.log.committed_index().0;
                assert!(
                    committed >= self.acknowledged,
                    "node {} has a lease in term {}, commits {committed}, and {} is acknowledged",
                    node.id,
                    process.replica.term(),
                    self.acknowledged
                );
            }
        }
    }

    /// What a log calls durable is on its disk.
    pub(super) fn check_durable(&self, node: &Node) {
        let Some(process) = &node.process else { return };
        let index = process.log.durable_index();
        let Ok(Some(place)) = process.log.batch_at(index) else { return };
        let Some(named) = self.named.get(&(index.0, place.term.0)) else { return };
        let run = run_on(node, place.base_offset, place.len).expect("its segment is there");
        assert_eq!(
            hash_of(&node.disk.read_durable(run)),
            *named,
            "node {}: batch {index} is not durable",
            node.id
        );
    }
}

fn run_on(node: &Node, base: LogOffset, len: u32) -> Option<FileRun> {
    let segment = node.disk.segment_bases().into_iter().rfind(|segment| *segment <= base)?;
    let position = base.0 - segment.0;
    (position + u64::from(len) <= super::node::SEGMENT_BYTES).then_some(FileRun { segment, position, len })
}

fn hash_of(bytes: &[u8]) -> u64 {
    u64::from(crc32c::crc32c(bytes)) << 32 | bytes.len() as u64
}

/// Whether any majority of one shares a node with any majority of the other.
fn majorities_meet(a: &ConfState, b: &ConfState) -> bool {
    let mut nodes: Vec<NodeId> =
        [&a.voters, &a.outgoing, &b.voters, &b.outgoing].into_iter().flatten().copied().collect();
    nodes.sort_unstable();
    nodes.dedup();
    let wins = |conf: &ConfState, set: u32| {
        let has = |node: &&NodeId| set & 1 << nodes.iter().position(|it| it == *node).expect("listed") != 0;
        let majority =
            |voters: &[NodeId]| voters.is_empty() || voters.iter().filter(has).count() > voters.len() / 2;
        majority(&conf.voters) && majority(&conf.outgoing)
    };
    let all = (1u32 << nodes.len()) - 1;
    (0..=all).all(|set| !(wins(a, set) && wins(b, all & !set)))
}
