//! A node outside of the group: it waits to be added, or it was removed. How it hears so, and who leads.
//!
//! Once its removal is committed a node gets no more batches, so it may never see in its log that it was. It would take the
//! others' silence for a leader's death and ask for votes for ever. And clients whose routes are of before come to it, or
//! to one that is new at the same address, and would wait there for a leader. So every member tells whoever is outside, once in
//! each session and whenever there is another leader; it stands for no election, and has its clients' requests handed on.
//! What it has of the log, and its vote, stay as they are: should it be added again, it goes on from there.

use super::*;

impl<B: Buffer + 'static> Replica<B> {
    /// Whether the group goes on without this node, as far as it has heard.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        let conf = &self.file.state.conf;
        let is_told = self.farewell.is_some_and(|farewell| farewell.index > conf.index);
        !self.is_joining() && (is_told || !is_member(conf, self.config.node))
    }

    #[must_use]
    pub fn is_outside(&self) -> bool {
        self.is_joining() || self.is_removed()
    }

    /// Whether this node has a connection to any other.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.peers.values().any(|peer| peer.up)
    }

    pub(super) fn tell_outsiders(&mut self) {
        // Nobody speaks in a term that is not on the disk, and who is outside knows no better.
        if self.file.saved_term() < self.raw.raft.term || self.is_outside() {
            return;
        }
        let (term, leader) = (Term(self.raw.raft.term), self.leader());
        let state = &self.file.state;
        let farewell = Farewell { index: state.conf.index, leader: leader.map(|leader| (term, leader)) };
        for (node, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.up) {
            if is_member(&state.conf, *node) || peer.farewell == Some(farewell) {
                continue;
            }
            peer.farewell = Some(farewell);
            let members = Members { term, leader, conf: state.conf.clone(), members: state.members.clone() };
            let message = PeerMessage::Members(Box::new(members));
            self.actions.push_back(ReplicaAction::Send { to: *node, message });
        }
    }

    /// What is older than this node's own membership is of before it was added.
    pub(super) fn hear_farewell(&mut self, members: Members) {
        let index = members.conf.index;
        if index < self.file.state.conf.index {
            return;
        }
        let before = self.farewell;
        let leader = members.leader.map(|leader| (members.term, leader));
        self.farewell = Some(Farewell {
            index: before.map_or(index, |before| before.index.max(index)),
            leader: before.and_then(|before| before.leader).max(leader),
        });
        if self.is_removed() && matches!(self.raw.raft.state, StateRole::PreCandidate | StateRole::Candidate)
        {
            self.resign();
        }
        if before.is_none_or(|before| before.index < index) {
            // The leader may be one that was added since, and that this node has never heard of.
            self.actions.push_back(ReplicaAction::MembersChanged(members.members));
        }
    }

    /// The leader that a node outside was told of, while it is there.
    pub(super) fn leader_as_told(&self, farewell: Farewell) -> Option<NodeId> {
        let (_, leader) = farewell.leader?;
        self.peers.get(&leader).filter(|peer| peer.up).map(|_| leader)
    }
}
