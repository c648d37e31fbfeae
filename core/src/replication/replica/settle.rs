//! What follows from what happened: raft's words, what is durable, what is committed.

use super::*;

impl<B: Buffer + 'static> Replica<B> {
    /// Whether nothing follows from the log as it is now. The log is asked in front of each of its operations, and only a
    /// seventh of these calls finds anything: the others would cost as much as all that consensus has to do.
    ///
    /// What waits for something that has no mark in the log, or for time to pass, is looked at each time.
    pub(super) fn is_settled(&self, log: &impl GroupLog<B>) -> bool {
        self.settled == Some(LogMarks::of(log))
            && self.waiting.is_empty()
            && self.change.is_none()
            && self.resetting.is_none()
            && !self.is_handing_over()
    }

    /// Carries out all that follows from what happened.
    pub(super) fn settle(&mut self, log: &mut impl GroupLog<B>, now_ms: i64) {
        self.compact(log);
        self.settle_raft(log, now_ms);
        if self.is_handing_over() {
            self.drive_transfer(log, now_ms);
            self.settle_raft(log, now_ms);
        }
        if self.file.saved_term() >= self.raw.raft.term {
            self.release_log(log);
        }
        self.recover(log);
        self.send_appends(log, now_ms);
        self.save(log, now_ms);
        self.drive_reset(log, now_ms);
        self.hold(log);
        self.update_role(log);
        debug_assert!(!self.has_words(), "raft has more to say");
        self.settled = Some(LogMarks::of(log));
    }

    /// Carries out what follows from a follower's answer. As a rule nothing does: the answers before committed its batch.
    pub(super) fn settle_answer(&mut self, log: &mut impl GroupLog<B>, now_ms: i64) {
        let leads = self.leading.is_some() && self.leading_term() == self.raft_leading_term();
        // By followers alone, while the disk of this node still works: raft says nothing of it.
        let commits = self.raw.raft.raft_log.committed.min(self.commit_limit()) > log.committed_index().0;
        let is_done = leads
            && !commits
            && !self.has_words()
            && self.is_settled(log)
            && !self.peers.values().any(Peer::is_waiting);
        if !is_done {
            self.settle(log, now_ms);
        }
    }

    /// Whether raft has something to say that was not taken.
    fn has_words(&self) -> bool {
        let (raft, raft_log) = (&self.raw.raft, &self.raw.raft.raft_log);
        !raft.msgs.is_empty()
            || !raft_log.unstable.entries.is_empty()
            || raft_log.unstable.snapshot.is_some()
            || raft_log.committed.min(raft_log.persisted) > self.apply_to
            || self.voted != (raft.term, raft.vote)
    }

    /// Until raft has nothing more to say.
    pub(super) fn settle_raft(&mut self, log: &mut impl GroupLog<B>, now_ms: i64) {
        loop {
            self.fix_timeout();
            self.notice_leadership(log, now_ms);
            if self.has_words() {
                self.take_words(log, now_ms);
                continue;
            }
            self.feed_log(log);
            if !self.flush(log, now_ms) {
                break;
            }
        }
        self.apply();
        self.commit(log);
    }

    /// Retention takes batches out of the log; raft keeps what it has not applied.
    pub(super) fn compact(&mut self, log: &impl GroupLog<B>) {
        if self.resetting.is_some() {
            return;
        }
        let start = log.before_first().index.0.min(self.raw.raft.raft_log.applied);
        if start > self.entries().start().0 {
            self.raw.mut_store().compact_to(start);
        }
    }

    /// Raft draws its timeouts from a generator of the thread; ours follow from the seed, so that a run can be repeated.
    pub(super) fn fix_timeout(&mut self) {
        let (term, campaigns) = (self.raw.raft.term, self.campaigns);
        if (self.drawn.term, self.drawn.campaigns, self.drawn.ticks > 0) != (term, campaigns, true) {
            self.drawn = DrawnTimeout { term, campaigns, ticks: self.draw_timeout() };
        }
        if self.raw.raft.randomized_election_timeout() != self.drawn.ticks {
            self.raw.raft.set_randomized_election_timeout(self.drawn.ticks);
        }
    }

    fn draw_timeout(&self) -> usize {
        let min = self.raw.raft.election_timeout();
        let of = [self.config.seed, self.config.node.0, self.raw.raft.term, self.campaigns];
        let drawn = of.into_iter().fold(0x9e37_79b9_7f4a_7c15_u64, |hash, part| mix(hash ^ part));
        // One more than the least: a follower that begins at once meets others whose promise is not over.
        let timeout = min + 1 + (drawn % (min as u64 - 1).max(1)) as usize;
        timeout.min(2 * min - 1)
    }

    /// The term in which this node leads, as noticed last.
    fn leading_term(&self) -> Option<u64> {
        self.leading.as_ref().map(|leading| leading.term)
    }

    /// The term in which raft has this node lead.
    fn raft_leading_term(&self) -> Option<u64> {
        let raft = &self.raw.raft;
        (raft.state == StateRole::Leader).then_some(raft.term)
    }

    pub(super) fn notice_leadership(&mut self, log: &mut impl GroupLog<B>, now_ms: i64) {
        let leads = self.raft_leading_term();
        if self.leading_term() == leads {
            return;
        }
        if self.leading.take().is_some() {
            self.change = None;
            self.lease.clear();
            // The log forgets it, too.
            self.is_holding = false;
            self.release_log(log);
            self.peers.values_mut().for_each(|peer| {
                peer.clear();
                peer.sending = None;
            });
            log.follow();
        }
        if let Some(term) = leads {
            self.begin_leading(term, log, now_ms);
        }
    }

    pub(super) fn release_log(&mut self, log: &mut impl GroupLog<B>) {
        if std::mem::take(&mut self.waits_for_term) {
            log.pause(false);
        }
    }

    pub(super) fn begin_leading(&mut self, term: u64, log: &mut impl GroupLog<B>, now_ms: i64) {
        assert!(self.waiting.is_empty(), "a leader has all of its own batches");
        let noop = self.raw.raft.raft_log.last_index();
        if log.poisoned().is_some() || self.spare.is_none() {
            return self.give_up_leading(now_ms);
        }
        let spare = &mut self.spare;
        log.lead(Term(term));
        let sealed = log.seal_noop(now_ms, &mut |len| {
            assert!(len <= BLOCK_LEN, "a first batch of {len} bytes");
            spare.take().expect("looked at")
        });
        match sealed {
            Ok(index) => assert!(index.0 == noop, "the first batch is {index}, raft's {noop}"),
            Err(_) => {
                log.follow();
                return self.give_up_leading(now_ms);
            }
        }
        // The only voter asks nobody, so its term may not be on the disk yet. A batch that is there before it would be met
        // by another of the same index and term, should this node forget the term in a crash.
        self.waits_for_term = self.file.saved_term() < term && !flawed!(WritesBeforeTermIsDurable);
        if self.waits_for_term {
            log.pause(true);
        }
        self.lease.clear();
        self.peers.values_mut().for_each(Peer::clear);
        self.arriving = None;
        self.leading = Some(Leading {
            term,
            since_ms: now_ms,
            noop,
            told: 0,
            transfer: None,
            timeout_now_sent: false,
            sealing: None,
            calm_since_ms: now_ms,
        });
    }

    /// Nobody has heard of this leadership yet, and nobody will.
    pub(super) fn give_up_leading(&mut self, now_ms: i64) {
        self.unable_until_ms = now_ms + UNABLE_TIMEOUTS * self.timeout_ms();
        self.rebuild();
    }

    /// Raft anew, from what it has taken: what it has not said yet is forgotten.
    pub(super) fn rebuild(&mut self) {
        let raft = &self.raw.raft;
        let (term, vote, commit, applied) =
            (raft.term, raft.vote, raft.raft_log.committed, raft.raft_log.applied);
        if (self.file.state.term.0, self.file.state.vote.map_or(0, |node| node.0)) != (term, vote) {
            self.set_vote(term, vote);
        }
        let mut entries = std::mem::take(self.raw.mut_store());
        entries.hard.term = term;
        entries.hard.vote = vote;
        entries.hard.commit = commit.min(entries.last());
        entries.conf = to_raft(&self.file.state.conf);
        self.pending.clear();
        self.voted = (term, vote);
        self.raw = new_raft(&self.config, entries, applied);
    }

    pub(super) fn set_vote(&mut self, term: u64, vote: u64) -> u64 {
        self.file.state.term = Term(term);
        self.file.state.vote = Some(NodeId(vote)).filter(|node| node.0 != 0 && !flawed!(ForgetsVote));
        self.file.changed()
    }

    /// Takes what raft has to say from its own lists, in the order of its `RawNode`: what is to be durable, then what is said. The
    /// `Ready` that a `RawNode` makes of them copies every list, some of them twice, and would be a third of what consensus costs.
    pub(super) fn take_words(&mut self, log: &mut impl GroupLog<B>, now_ms: i64) {
        let voted = (self.raw.raft.term, self.raw.raft.vote);
        let mut change = 0;
        if std::mem::replace(&mut self.voted, voted) != voted {
            let state = &self.file.state;
            if voted != (state.term.0, state.vote.map_or(0, |node| node.0)) {
                change = self.set_vote(voted.0, voted.1);
            }
        }
        // What is said in a term that is not durable waits, a leader's words, too.
        if self.file.saved_term() < voted.0 {
            change = self.file.newest();
        }
        if flawed!(SpeaksBeforeTermIsDurable) {
            change = 0;
        }
        let start =
            self.raw.raft.raft_log.unstable_snapshot().as_ref().map(|start| start.get_metadata().index);
        if let Some(start) = start {
            self.begin_reset(log);
            self.raw.raft.raft_log.stable_snap(start);
        }
        let last = self.take_entries(log);
        self.take_committed();
        // A leader sends while its own disk works; what others say stands for what they have on theirs.
        let at_once = self.raw.raft.state == StateRole::Leader && self.file.is_saved(change);
        let mut said = std::mem::replace(&mut self.raw.raft.msgs, std::mem::take(&mut self.spare_messages));
        let mut waiting = Vec::new();
        for message in said.drain(..) {
            match at_once || self.file.is_saved(change) && !waits(&message) {
                true => self.post(&message, log, now_ms),
                false => waiting.push(message),
            }
        }
        self.spare_messages = said;
        let resets = start.is_some() && !flawed!(AcknowledgesResetEarly);
        if last.is_some() || start.is_some() || !waiting.is_empty() {
            self.pending.push_back(Pending { change, start, last, is_cut: false, resets, messages: waiting });
        }
    }

    /// Takes raft's new entries; it holds them to be in the log from now on. Returns index and term of the last.
    pub(super) fn take_entries(&mut self, log: &mut impl GroupLog<B>) -> Option<(u64, u64)> {
        let entries = &self.raw.raft.raft_log.unstable.entries;
        let (first, last, count) = (entries.first()?.index, entries.last()?, entries.len());
        let last = (last.index, last.term);
        if first <= self.entries().last() {
            self.truncate(first, log);
        }
        for nth in 0..count {
            let entry = &self.raw.raft.raft_log.unstable.entries[nth];
            let (index, term) = (entry.index, entry.term);
            let is_change = entry.get_entry_type() == EntryType::EntryConfChangeV2;
            self.take_entry(index, term, is_change);
        }
        self.raw.raft.raft_log.stable_entries(last.0, last.1);
        Some(last)
    }

    fn take_entry(&mut self, index: u64, term: u64, is_change: bool) {
        let sealing = self.leading.as_ref().and_then(|leading| leading.sealing.as_ref());
        let change = match sealing.filter(|(at, _)| *at == index) {
            Some((_, change)) => Some(Rc::clone(change)),
            None => self.received_changes.get(&index).cloned(),
        };
        assert!(change.is_some() || !is_change, "entry {index} changes the members, how is not known");
        self.raw.mut_store().push(index, term, change.filter(|_| is_change));
        if let Some(leading) = &mut self.leading {
            leading.sealing.take_if(|(at, _)| *at == index);
            return;
        }
        let place = self.received.iter().position(|batch| batch.index().0 == index);
        let batch = place.and_then(|place| self.received.remove(place));
        let batch = batch.unwrap_or_else(|| panic!("entry {index} came without its batch"));
        assert!(batch.term().0 == term, "entry {index} of term {term}");
        self.waiting.push_back(batch);
    }

    pub(super) fn truncate(&mut self, index: u64, log: &mut impl GroupLog<B>) {
        self.raw.mut_store().truncate_from(index);
        self.waiting.retain(|batch| batch.index().0 < index);
        if log.last_index().0 >= index {
            log.truncate_from(BatchIndex(index));
        }
        for pending in &mut self.pending {
            if pending.last.is_some_and(|(last, _)| last >= index) {
                pending.is_cut = true;
                // Of what is cut raft is told nothing, so the term does not matter.
                pending.last = Some((index - 1, 0));
            }
            // Cut off, these batches may never become durable here.
            if flawed!(AcknowledgesCutBatches) {
                continue;
            }
            pending.messages.retain(|message| !is_acknowledgement(message, index));
        }
    }

    /// Gives the log what raft has taken, as far as the log takes it.
    pub(super) fn feed_log(&mut self, log: &mut impl GroupLog<B>) {
        if self.resetting.is_some() {
            return;
        }
        while let Some(batch) = self.waiting.front() {
            match log.append_foreign(batch.clone()) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(
                    ForeignRefused::Busy { .. }
                    | ForeignRefused::IndexFull { .. }
                    | ForeignRefused::Poisoned(_),
                ) => {
                    break;
                }
                Err(error) => panic!("the log does not take a batch of the leader's: {error}"),
            }
        }
    }

    /// Up to here batches may be called committed: in front of the first change of members that is not durable.
    pub(super) fn commit_limit(&self) -> u64 {
        if flawed!(MembersNotDurable) {
            return u64::MAX;
        }
        self.entries().first_configuration().map_or(u64::MAX, |index| index - 1)
    }

    /// Tells raft what is durable, and says what waited for it. Returns whether anything was.
    pub(super) fn flush(&mut self, log: &impl GroupLog<B>, now_ms: i64) -> bool {
        // A log that takes nothing any more may still hold what raft has had cut off.
        let taken = self.waiting.front().map_or(u64::MAX, |first| first.index().0 - 1);
        let persisted = if self.resetting.is_some() { 0 } else { log.persisted_index().0.min(taken) };
        let is_leading = self.leading.is_some();
        let persisted = match () {
            () if flawed!(AcknowledgesBeforeDurable) && !is_leading => u64::MAX,
            () if flawed!(CountsItselfBeforeDurable) && is_leading => u64::MAX,
            () => persisted,
        };
        let (mut start, mut last) = (None, None);
        let mut is_any = false;
        while let Some(pending) = self.pending.front() {
            let is_durable = self.file.is_saved(pending.change)
                && pending.last.is_none_or(|(last, _)| last <= persisted)
                && !pending.resets;
            if !is_durable {
                break;
            }
            let pending = self.pending.pop_front().expect("looked at");
            if !pending.is_cut {
                start = pending.start.or(start);
                last = pending.last.or(last);
            }
            pending.messages.iter().for_each(|message| self.post(message, log, now_ms));
            is_any = true;
        }
        if let Some(start) = start {
            self.raw.raft.on_persist_snap(start);
        }
        if let Some((index, term)) = last {
            self.raw.raft.on_persist_entries(index, term);
        }
        is_any
    }

    /// What is committed and durable here may be applied: changes of members take effect.
    pub(super) fn take_committed(&mut self) {
        let raft_log = &self.raw.raft.raft_log;
        let upto = raft_log.committed.min(raft_log.persisted);
        if upto <= self.apply_to {
            return;
        }
        while let Some((index, change)) = self.entries().next_configuration(self.apply_to, upto) {
            let change = Rc::clone(change);
            self.apply_to = index;
            // A state that came with a checkpoint may be ahead.
            if index <= self.file.state.conf.index.0 {
                continue;
            }
            match self.raw.apply_conf_change(&change.change()) {
                Ok(conf) => {
                    let state = &mut self.file.state;
                    state.conf = from_raft(BatchIndex(index), &conf);
                    change.apply_to(&mut state.members, &state.conf);
                    let members = state.members.clone();
                    self.raw.mut_store().conf = conf;
                    self.unsaved.push_back((index, self.file.changed()));
                    self.actions.push_back(ReplicaAction::MembersChanged(members));
                }
                // All replicas turn it down alike.
                Err(error) => self.actions.push_back(ReplicaAction::Alarm(format!(
                    "the change of members in batch {index} cannot be: {error}"
                ))),
            }
        }
        self.apply_to = upto;
        // Raft cannot count for a leader that is no member: whoever stays leads. One that goes hands over before it leaves the
        // joint membership; it leads here only if an earlier leader had begun to leave it.
        if self.raw.raft.state == StateRole::Leader && !is_member(&self.file.state.conf, self.config.node) {
            self.resign();
        }
    }

    /// Raft goes on once changes of members are durable.
    pub(super) fn apply(&mut self) {
        while self.unsaved.front().is_some_and(|(_, change)| self.file.is_saved(*change)) {
            self.unsaved.pop_front();
        }
        let limit = self.unsaved.front().map_or(u64::MAX, |(index, _)| index - 1);
        let limit = if flawed!(MembersNotDurable) { u64::MAX } else { limit };
        let applied = self.apply_to.min(limit);
        if self.resetting.is_none() && applied > self.raw.raft.raft_log.applied {
            self.raw.advance_apply_to(applied);
            self.raw.mut_store().forget_configurations(applied);
        }
    }

    pub(super) fn commit(&mut self, log: &mut impl GroupLog<B>) {
        if self.resetting.is_some() {
            return;
        }
        let committed = self.raw.raft.raft_log.committed.min(self.commit_limit()).min(log.last_index().0);
        let is_alone = flawed!(CommitsAlone) && self.leading.is_some();
        let committed = if is_alone { log.last_index().0 } else { committed };
        if committed > log.committed_index().0 {
            log.commit_to(BatchIndex(committed));
        }
    }

    /// A node that lost what it had acknowledged is one like the others once it holds all that its leader had.
    pub(super) fn recover(&mut self, log: &impl GroupLog<B>) {
        if !self.file.state.recovering || self.resetting.is_some() {
            return;
        }
        let (term, upto) = self.verified;
        let is_whole = self.target.is_some_and(|target| {
            target.term == term && target.index <= upto && target.index <= log.persisted_index().0
        });
        if is_whole {
            self.file.state.recovering = false;
            self.file.changed();
            self.target = None;
        }
    }

    pub(super) fn save(&mut self, log: &impl GroupLog<B>, now_ms: i64) {
        // A reset writes the state itself, and nothing may be written in front of it that it does not have.
        if self.resetting.as_ref().is_some_and(|resetting| resetting.asked.is_some()) {
            return;
        }
        if self.resetting.is_none() {
            let commit = self.durable_commit(log).max(self.file.state.commit.0);
            self.file.state.commit = BatchIndex(commit);
        }
        if let Some((id, state)) = self.file.poll(now_ms) {
            self.saved_commit = (state.commit.0, now_ms);
            self.actions.push_back(ReplicaAction::SaveGroupState { id, state });
        }
    }

    pub(super) fn update_role(&mut self, log: &impl GroupLog<B>) {
        let role = match &self.leading {
            Some(leading) => Role::Leader { ready: log.committed_index().0 >= leading.noop },
            None => Role::Follower { leader: self.leader() },
        };
        self.set_role(role);
    }
}
