//! What the log sealed goes to raft.

use super::*;

impl<B: Buffer + 'static> Replica<B> {
    pub(super) fn propose(&mut self, log: &mut impl GroupLog<B>) {
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
                    self.propose_entries(std::mem::take(&mut entries));
                    self.propose_change(sealed.index.0);
                }
            }
            let expected = self.raw.raft.raft_log.last_index() + entries.len() as u64;
            assert!(sealed.index.0 <= expected, "batch {}, raft is at {expected}", sealed.index);
        }
        self.propose_entries(entries);
    }

    pub(super) fn propose_entries(&mut self, entries: Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.config.node.0;
        message.set_entries(entries.into());
        self.raw.step(message).expect("a leader that seals may propose");
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
