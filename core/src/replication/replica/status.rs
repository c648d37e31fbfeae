//! What a replica says of itself and its group, for people.

use std::fmt;

use apogee_storage::{BatchIndex, Buffer, NodeId, Term};
use raft::StateRole;

use super::super::action::Role;
use super::super::group_log::GroupLog;
use super::super::membership::{has_vote, nodes_of, reached_by_majority};
use super::Replica;

/// What a node is in a group that it does not belong to.
pub const NO_MEMBER: &str = "none";

/// Where so many voters lost data that nobody can be elected.
const WAY_OUT: &str = "if no node with a sound disk is left to come back, `apogee recover` accepts the loss";

#[derive(Clone, Debug)]
pub struct GroupStatus {
    pub node: NodeId,
    /// "voter", "learner", what it is on the way to, or [`NO_MEMBER`].
    pub member: &'static str,
    pub role: Role,
    pub leader: Option<NodeId>,
    pub term: Term,
    /// Why this node leads or does not, in words.
    pub why: String,
    pub first_index: BatchIndex,
    pub last_index: BatchIndex,
    pub persisted_index: BatchIndex,
    pub committed_index: BatchIndex,
    pub uncommitted_bytes: u64,
    /// What is left of the lease; 0 without one.
    pub lease_ms: i64,
    pub recovering: bool,
    /// What is wrong with this node's disk, if anything is.
    pub disk_trouble: Option<String>,
    /// The node that shall lead this shard.
    pub preferred: Option<NodeId>,
    /// A change of members that is not done, in words.
    pub changing: Option<String>,
    /// The other nodes of the group, ascending.
    pub peers: Vec<PeerStatus>,
}

/// A node of the group as this one knows it; what only a leader knows is none elsewhere.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    pub node: NodeId,
    pub address: Vec<u8>,
    /// "voter", "learner", or what it is on the way to.
    pub member: &'static str,
    pub connected: bool,
    pub recovering: bool,
    /// Durable there as the leader knows.
    pub matched_index: Option<BatchIndex>,
    pub committed_index: Option<BatchIndex>,
    pub lag_batches: Option<u64>,
    /// Bytes on the way there which it has not confirmed.
    pub in_flight_bytes: u64,
    /// Since it was heard of last.
    pub heard_ms_ago: Option<i64>,
    /// Why it leads or does not, and what is wrong with it, in words.
    pub why: String,
}

impl<B: Buffer + 'static> Replica<B> {
    /// How the group stands, as far as this node knows.
    #[must_use]
    pub fn status(&self, log: &impl GroupLog<B>, now_ms: i64) -> GroupStatus {
        let state = self.group_state();
        let raft = &self.raw.raft;
        let conf = &state.conf;
        let last_index = raft.raft_log.last_index();
        let is_leading = self.leading.is_some();
        let peers = nodes_of(conf).into_iter().filter(|node| *node != self.config.node).map(|node| {
            let peer = self.peers.get(&node);
            let progress = is_leading.then(|| raft.prs().get(node.0)).flatten();
            let address = state.members.iter().find(|member| member.node == node);
            PeerStatus {
                node,
                address: address.map(|member| member.address.clone()).unwrap_or_default(),
                member: self.membership_of(node),
                connected: peer.is_some_and(|peer| peer.up),
                recovering: peer.is_some_and(|peer| peer.recovering),
                matched_index: progress.map(|progress| BatchIndex(progress.matched)),
                committed_index: progress.map(|progress| BatchIndex(progress.committed_index)),
                lag_batches: progress.map(|progress| last_index.saturating_sub(progress.matched)),
                in_flight_bytes: peer.map_or(0, |peer| peer.in_flight_bytes()),
                heard_ms_ago: peer.and_then(|peer| peer.heard_ms).map(|heard_ms| now_ms - heard_ms),
                why: self.why_peer(node, now_ms),
            }
        });
        let peers = peers.collect();
        GroupStatus {
            node: self.config.node,
            member: if self.is_outside() { NO_MEMBER } else { self.membership_of(self.config.node) },
            role: self.role(),
            leader: self.leader(),
            term: self.term(),
            why: self.why(now_ms),
            first_index: log.before_first().index.next(),
            last_index: log.last_index(),
            persisted_index: log.persisted_index(),
            committed_index: log.committed_index(),
            uncommitted_bytes: log.uncommitted_bytes(),
            lease_ms: self.lease_left_ms(now_ms),
            recovering: state.recovering,
            disk_trouble: self.sick.clone(),
            preferred: self.preferred(),
            changing: self.changing(),
            peers,
        }
    }

    fn membership_of(&self, node: NodeId) -> &'static str {
        let conf = &self.group_state().conf;
        let (stays, was) = (conf.voters.contains(&node), conf.outgoing.contains(&node));
        match (stays, was, conf.learners.contains(&node)) {
            (true, true, _) => "voter",
            (true, false, _) if conf.outgoing.is_empty() => "voter",
            (true, false, _) => "voter from now on",
            (false, true, _) => "voter, leaving",
            (false, false, true) => "learner",
            (false, false, false) => NO_MEMBER,
        }
    }

    fn changing(&self) -> Option<String> {
        let conf = &self.group_state().conf;
        if !conf.outgoing.is_empty() {
            return Some(format!(
                "voters {:?} take the place of {:?}",
                ids(&conf.voters),
                ids(&conf.outgoing)
            ));
        }
        self.is_changing()
            .then(|| "a change of members, or what an earlier leader left, is not committed yet".into())
    }

    /// Why this node leads or does not.
    fn why(&self, now_ms: i64) -> String {
        if let Some(stopped) = &self.stopped {
            return stopped.clone();
        }
        let raft = &self.raw.raft;
        if let Some(leading) = &self.leading {
            let since_ms = now_ms - leading.since_ms;
            let what = match (leading.transfer, self.role()) {
                (Some(transfer), _) => format!("hands over to node {}", transfer.to),
                (None, Role::Leader { ready: true }) if leading.timeout_now_sent => {
                    "leads without a lease, since a transfer was given up".into()
                }
                (None, Role::Leader { ready: true }) if self.has_lease(now_ms) => "leads".into(),
                (None, Role::Leader { ready: true }) => {
                    "leads without a lease: no majority has answered lately".into()
                }
                _ => "was elected, and nothing of its term is committed yet".into(),
            };
            return format!("{what}; elected {since_ms} ms ago in term {}", leading.term);
        }
        let own = self.config.node;
        let conf = &self.group_state().conf;
        let bar = if conf.voters.is_empty() {
            Some("it waits to be added to the group".into())
        } else if self.is_removed() {
            Some("it is no member of the group".into())
        } else if conf.learners.contains(&own) {
            Some("it is a learner, which has no vote".into())
        } else if self.is_kept_out() {
            let unmet = ids(&self.unmet());
            Some(format!("it lost all it had, and takes nothing before it has met the nodes {unmet:?}"))
        } else if self.group_state().recovering {
            Some(match self.target {
                Some(target) => format!(
                    "it lost what it had acknowledged, and neither votes nor leads until it has all up to batch {}",
                    target.index
                ),
                None => "it lost what it had acknowledged, and has heard no leader yet".into(),
            })
        } else if self.resetting.as_ref().is_some_and(|resetting| resetting.put_off_until_ms.is_some()) {
            Some(
                "it was too far behind, and its disk has no room for the checkpoint to begin anew from"
                    .into(),
            )
        } else if self.resetting.is_some() || self.arriving.is_some() {
            Some("it was too far behind, and begins anew from a checkpoint".into())
        } else if self.is_leaving {
            Some("it is about to stop".into())
        } else {
            self.sick.as_ref().map(|sick| format!("its disk is not fit for it: {sick}"))
        };
        let leader = match (raft.state, self.leader()) {
            (StateRole::Candidate, _) => format!("stands for election in term {}", raft.term),
            (StateRole::PreCandidate, _) => "asks whether an election would be won".into(),
            (_, Some(leader)) if self.is_outside() => format!("node {leader} leads"),
            (_, Some(leader)) => format!("follows node {leader}"),
            (_, None) => "knows no leader".into(),
        };
        let mut why = match bar {
            Some(bar) => format!("{leader}; cannot lead: {bar}"),
            None => leader,
        };
        if let Some(lost) = self.lost_majority() {
            why += &format!(
                "; the nodes {:?} lost what they had acknowledged, and without their votes no majority is there: {WAY_OUT}",
                ids(&lost)
            );
        }
        why
    }

    /// The voters that have lost what they had, where nobody leads and the others that are there are no majority: only a leader could
    /// send it again, and nobody is elected before others come.
    fn lost_majority(&self) -> Option<Vec<NodeId>> {
        if self.leader().is_some() || self.is_outside() {
            return None;
        }
        let conf = &self.group_state().conf;
        let (mut lost, mut sound) = (Vec::new(), Vec::new());
        for node in nodes_of(conf).into_iter().filter(|node| has_vote(conf, *node)) {
            let is_recovering = match node == self.config.node {
                true => Some(self.group_state().recovering),
                false => self.peers.get(&node).filter(|peer| peer.up).map(|peer| peer.recovering),
            };
            match is_recovering {
                Some(true) => lost.push(node),
                Some(false) => sound.push(node),
                None => {}
            }
        }
        let can_be_led = reached_by_majority(conf, |node| sound.contains(&node).then_some(0)).is_some();
        (!lost.is_empty() && !can_be_led).then_some(lost)
    }

    fn why_peer(&self, node: NodeId, now_ms: i64) -> String {
        let mut parts = Vec::new();
        let peer = self.peers.get(&node);
        if self.leader() == Some(node) {
            parts.push("leads".to_string());
        } else if !self.group_state().conf.voters.contains(&node) {
            parts.push("has no vote".into());
        }
        match peer {
            Some(peer) if peer.up => {
                if !self.is_heard(node, now_ms) && self.leading.is_some() {
                    parts.push("connected and silent".into());
                }
                if peer.recovering {
                    parts.push(
                        "lost what it had acknowledged, and has not said yet that it has all again".into(),
                    );
                }
                if peer.unfit && !peer.recovering {
                    parts.push("not fit to lead: its disk is slow or full, it lost what it had, or it is about to stop".into());
                }
                match &peer.sending {
                    Some(sending) if sending.bytes.is_none() => {
                        parts.push("a checkpoint for it is read".into())
                    }
                    Some(sending) => parts.push(format!("has {} bytes of a checkpoint", sending.confirmed)),
                    None => {}
                }
                if peer.waits_for_pages {
                    parts.push("what it lacks is looked for in index files".into());
                }
            }
            _ => parts.push("not connected".into()),
        }
        if parts.is_empty() { "follows".into() } else { parts.join(", ") }
    }
}

fn ids(nodes: &[NodeId]) -> Vec<u64> {
    nodes.iter().map(|node| node.0).collect()
}

impl fmt::Display for GroupStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "node {}: {}; batches {} to {}, stored to {}, committed to {}, {} bytes uncommitted, lease {} ms",
            self.node,
            self.why,
            self.first_index,
            self.last_index,
            self.persisted_index,
            self.committed_index,
            self.uncommitted_bytes,
            self.lease_ms,
        )?;
        if let Some(changing) = &self.changing {
            writeln!(f, "changing: {changing}")?;
        }
        for peer in &self.peers {
            write!(f, "node {} ({}): {}", peer.node, peer.member, peer.why)?;
            if let (Some(matched), Some(lag)) = (peer.matched_index, peer.lag_batches) {
                let bytes = peer.in_flight_bytes;
                write!(f, "; stored to {matched}, {lag} batches behind, {bytes} bytes on the way")?;
            }
            match peer.heard_ms_ago {
                Some(heard_ms) => writeln!(f, "; heard {heard_ms} ms ago")?,
                None => writeln!(f, "; never heard")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl<B: Buffer + 'static> Replica<B> {
    pub(crate) fn in_flight_bytes_max(&self) -> u64 {
        self.peers.values().map(|peer| peer.in_flight_bytes()).max().unwrap_or(0)
    }

    /// What is waited for, for whoever looks for a fault.
    pub(crate) fn describe_pending(&self) -> String {
        format!(
            "pending {:?}, waiting {:?}, unsaved {:?}, resetting {}, raft {}",
            self.pending.front(),
            self.waiting.front().map(|batch| batch.index()),
            self.unsaved,
            self.resetting.is_some(),
            self.raw.raft.raft_log.to_string(),
        )
    }
}
