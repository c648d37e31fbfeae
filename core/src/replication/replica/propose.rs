//! What the log sealed goes to raft.

use smallvec::SmallVec;

use super::*;

impl<B: Buffer + 'static> Replica<B> {
    pub(super) fn propose(&mut self, log: &mut impl GroupLog<B>, now_ms: i64) {
        if self.leading.is_none() {
            return;
        }
        let mut entries = Vec::new();
        while let Some(sealed) = log.take_sealed() {
            let leading = self.leading.as_ref().expect("nothing ends it here");
            assert!(sealed.term.0 == leading.term, "batch {} of term {}", sealed.index, sealed.term);
            match sealed.kind {
                BatchKind::NoOp => {
                    assert!(sealed.index.0 == leading.noop, "batch {} is no first one", sealed.index);
                }
                BatchKind::Records => entries.push(Entry::default()),
                BatchKind::Configuration => {
                    self.propose_entries(std::mem::take(&mut entries), now_ms);
                    self.propose_change(sealed.index.0);
                }
            }
            let expected = self.raw.raft.raft_log.last_index() + entries.len() as u64;
            assert!(sealed.index.0 <= expected, "batch {}, raft is at {expected}", sealed.index);
        }
        self.propose_entries(entries, now_ms);
    }

    pub(super) fn propose_entries(&mut self, mut entries: Vec<Entry>, now_ms: i64) {
        if entries.is_empty() {
            return;
        }
        let raft = &mut self.raw.raft;
        let may_propose = raft.lead_transferee.is_none() && raft.prs().get(raft.id).is_some();
        assert!(may_propose && raft.append_entry(&mut entries), "a leader that seals may propose");
        self.pass_on(now_ms);
    }

    /// Has raft's new entries sent to the followers. For one that takes all it is sent, what raft would do is done here: of the
    /// message that it would make, with a list of the entries, the first index and their number would be read.
    ///
    /// What else raft has said goes first, and nothing before the term is durable.
    fn pass_on(&mut self, now_ms: i64) {
        let raft = &mut self.raw.raft;
        let is_next = raft.msgs.is_empty() && self.file.saved_term() >= raft.term;
        let (first, last) = (raft.raft_log.first_index(), raft.raft_log.last_index());
        let others: SmallVec<[u64; MEMBERS_MAX]> =
            raft.prs().iter().map(|(id, _)| *id).filter(|id| *id != raft.id).collect();
        for id in others {
            let peer = self.peers.get_mut(&NodeId(id)).filter(|peer| peer.up && is_next);
            let progress = raft.prs().get(id).expect("listed");
            let takes_all = progress.state == ProgressState::Replicate
                && !progress.is_paused()
                && progress.next_idx >= first;
            let (Some(peer), true) = (peer, takes_all) else {
                raft.send_append(id);
                continue;
            };
            let prev = progress.next_idx - 1;
            let prev_term = raft.raft_log.term(prev).expect("the log has it");
            raft.mut_prs().get_mut(id).expect("listed").update_state(last);
            peer.push(prev, prev_term, last - prev, now_ms);
        }
    }

    pub(super) fn propose_change(&mut self, index: u64) {
        let leading = self.leading.as_ref().expect("a leader proposes");
        let (expected, change) = leading.sealing.as_ref().expect("a change was sealed");
        assert!(*expected == index, "a change of members at {index}, sealed at {expected}");
        let change = change.change();
        self.raw.propose_conf_change(Vec::new(), change).expect("a leader that seals may propose");
        let last = self.raw.raft.raft_log.unstable_entries().last();
        let is_taken = last.is_some_and(|entry| {
            entry.index == index && entry.get_entry_type() == EntryType::EntryConfChangeV2
        });
        assert!(is_taken, "raft turned down a change of members that has its batch");
    }
}
