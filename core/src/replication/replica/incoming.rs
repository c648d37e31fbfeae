//! Messages of peers, and peers that come and go.

use super::*;

impl<B: Buffer + 'static> Replica<B> {
    pub(super) fn take_message(
        &mut self,
        from: NodeId,
        message: PeerMessage<B>,
        log: &mut impl GroupLog<B>,
        now_ms: i64,
    ) -> Result<(), PeerFault> {
        if self.is_kept_out() && !matches!(message, PeerMessage::Members(_)) {
            return Ok(());
        }
        match message {
            PeerMessage::Append { head, batches } => self.take_append(from, head, batches, log, now_ms),
            PeerMessage::Heartbeat(beat) => {
                self.take_heartbeat(from, beat, now_ms);
                Ok(())
            }
            PeerMessage::AppendAnswer(answer) => self.take_append_answer(from, answer, now_ms),
            PeerMessage::HeartbeatAnswer(answer) => {
                let peer = self.peers.entry(from).or_default();
                peer.unfit = answer.unfit;
                peer.recovering &= answer.unfit;
                self.take_echo(from, answer.term, answer.echo_ms);
                let mut message = raft_message(MessageType::MsgHeartbeatResponse, from, answer.term);
                message.commit = answer.commit.0;
                self.step(message);
                Ok(())
            }
            PeerMessage::VoteRequest(vote) => {
                self.take_vote_request(from, vote, now_ms);
                Ok(())
            }
            PeerMessage::VoteAnswer(answer) => {
                let kind = match answer.pre {
                    true => MessageType::MsgRequestPreVoteResponse,
                    false => MessageType::MsgRequestVoteResponse,
                };
                let mut message = raft_message(kind, from, answer.term);
                message.reject = !answer.granted;
                message.commit = answer.commit.0;
                message.commit_term = answer.commit_term.0;
                self.step(message);
                Ok(())
            }
            PeerMessage::TimeoutNow { term } => {
                if self.may_campaign() {
                    self.step(raft_message(MessageType::MsgTimeoutNow, from, term));
                }
                Ok(())
            }
            PeerMessage::Reset(head) => self.take_reset(from, head, now_ms),
            PeerMessage::ResetPart(part) => self.take_reset_part(from, part),
            PeerMessage::ResetAnswer(answer) => {
                self.take_reset_answer(from, answer, now_ms);
                Ok(())
            }
            PeerMessage::Members(members) => {
                self.take_members(*members);
                Ok(())
            }
        }
    }

    pub(super) fn step(&mut self, message: Message) {
        // What raft refuses of a peer is a message that is late, or of one that is no member any more.
        let _ = self.raw.step(message);
    }

    /// A leader's clock, which is to be said back; and a promise to it.
    pub(super) fn take_clock(
        &mut self,
        from: NodeId,
        term: Term,
        clock_ms: i64,
        last: Option<BatchIndex>,
        now_ms: i64,
    ) {
        let raft = &self.raw.raft;
        if raft.term != term.0 || raft.leader_id != from.0 {
            return;
        }
        let before = self.heard.filter(|heard| (heard.leader, heard.term) == (from.0, term.0));
        let clock_ms = before.map_or(clock_ms, |before| before.clock_ms.max(clock_ms));
        self.heard = Some(Heard { leader: from.0, term: term.0, clock_ms });
        self.promised_until_ms = self.promised_until_ms.max(now_ms + self.timeout_ms());
        if let Some(last) = last
            && self.file.state.recovering
            && self.target.is_none_or(|target| target.term < term.0)
        {
            self.target = Some(Target { term: term.0, index: last.0 });
        }
    }

    /// The clock to say back to a leader: its own. That another leader's would do harm no simulation shows: an answer that waits
    /// for the disk is sent before a vote that this node gave later, since both wait in one queue; so whoever is needed for a
    /// majority of both has answered the old leader before there is a new one.
    pub(super) fn echo_ms(&self, to: u64, term: u64) -> Option<i64> {
        self.heard.filter(|heard| (heard.leader, heard.term) == (to, term)).map(|heard| heard.clock_ms)
    }

    pub(super) fn take_echo(&mut self, from: NodeId, term: Term, echo_ms: Option<i64>) {
        if let Some(echo_ms) = echo_ms
            && self.leading.as_ref().is_some_and(|leading| leading.term == term.0)
        {
            self.lease.on_echo(from, echo_ms);
        }
    }

    pub(super) fn take_append(
        &mut self,
        from: NodeId,
        head: AppendHead,
        batches: Vec<B>,
        log: &mut impl GroupLog<B>,
        now_ms: i64,
    ) -> Result<(), PeerFault> {
        if self.resetting.is_some() || self.is_joining() {
            return Ok(());
        }
        let mut message = raft_message(MessageType::MsgAppend, from, head.term);
        message.index = head.prev_index.0;
        message.log_term = head.prev_term.0;
        message.commit = head.commit.0;
        // Of a term that is over: raft says so to the sender, and looks at nothing else.
        if head.term.0 >= self.raw.raft.term {
            self.compare_with_committed(head.prev_index.0, head.prev_term.0);
            let entries = self.take_batches(head, batches, log)?;
            message.set_entries(entries.into());
        }
        self.step(message);
        self.take_clock(from, head.term, head.clock_ms, Some(head.last_index), now_ms);
        Ok(())
    }

    /// A leader has all that is committed, unless a person gave it up elsewhere. Raft does not look: it would answer that it has
    /// the leader's batches up to there, and have them counted.
    fn compare_with_committed(&self, index: u64, term: u64) {
        if index > self.raw.raft.raft_log.committed {
            return;
        }
        if let Some(own) = self.entries().term_of(index) {
            assert!(
                own == term,
                "the leader's batch {index} is of term {term}, the one that is committed here of term {own}. If a loss was accepted on \
                 another node, this one is to begin anew with an empty directory"
            );
        }
    }

    /// Checks the batches of an append; those not held yet are kept for when raft has taken their entries.
    pub(super) fn take_batches(
        &mut self,
        head: AppendHead,
        batches: Vec<B>,
        log: &impl GroupLog<B>,
    ) -> Result<Vec<Entry>, PeerFault> {
        let (mut index, mut term) = (head.prev_index.0, head.prev_term.0);
        let mut entries = Vec::with_capacity(batches.len());
        let mut is_held = true;
        // What a batch says to be committed counts at the next opening. A change of members must be in the group's state by then,
        // or it would be passed over: batches that say more are left to come again.
        let mut hint_limit = self.commit_limit();
        for buffer in batches {
            let header = RawHeader(buffer.as_ref())
                .verify()
                .map_err(|error| fault(format!("behind batch {index}: {error}")))?;
            let (found, of, prev) = (header.index().0, header.term().0, header.prev_term().0);
            if found != index + 1 || prev != term || of < term || of > head.term.0 {
                let message = format!(
                    "batch {found} of term {of} behind one of term {prev}, expected {} behind one of term {term}, at most \
                     of term {}",
                    index + 1,
                    head.term,
                );
                return Err(fault(message));
            }
            self.compare_with_committed(found, of);
            if header.commit_hint().0 > hint_limit {
                break;
            }
            let kind = header.batch_kind();
            if kind == BatchKind::Configuration && found > self.raw.raft.raft_log.applied {
                hint_limit = hint_limit.min(found - 1);
            }
            (index, term) = (found, of);
            is_held = is_held && self.entries().term_of(index) == Some(term);
            let mut entry = Entry { index, term, ..Entry::default() };
            if kind == BatchKind::Configuration {
                let body = configuration_body(buffer.as_ref());
                let change = body.as_deref().map(Configuration::decode).and_then(Result::ok);
                let change = change
                    .ok_or_else(|| fault(format!("batch {index} changes the members in no known way")))?;
                entry.set_entry_type(EntryType::EntryConfChangeV2);
                self.received_changes.insert(index, Rc::new(change));
            }
            entries.push(entry);
            if !is_held {
                let batch =
                    ForeignBatch::verify(buffer, log.group()).map_err(|error| fault(error.to_string()))?;
                self.received.push_back(batch);
            }
        }
        Ok(entries)
    }

    pub(super) fn take_heartbeat(&mut self, from: NodeId, beat: Heartbeat, now_ms: i64) {
        let mut message = raft_message(MessageType::MsgHeartbeat, from, beat.term);
        // A leader that takes us for who we were before a loss: it is told by the next append, and has to say it again.
        let is_known = beat.commit.0 <= self.raw.raft.raft_log.last_index();
        message.commit = if is_known { beat.commit.0 } else { 0 };
        self.step(message);
        self.take_clock(from, beat.term, beat.clock_ms, Some(beat.last_index), now_ms);
    }

    pub(super) fn take_append_answer(
        &mut self,
        from: NodeId,
        answer: AppendAnswer,
        now_ms: i64,
    ) -> Result<(), PeerFault> {
        let last = self.raw.raft.raft_log.last_index();
        let is_ours = self.leading.as_ref().is_some_and(|leading| leading.term == answer.term.0);
        if is_ours && answer.refused.is_none() && answer.index.0 > last {
            return Err(fault(format!(
                "node {from} has batch {} of ours, which ends at {last}",
                answer.index
            )));
        }
        self.take_echo(from, answer.term, answer.echo_ms);
        let peer = self.peers.entry(from).or_default();
        match answer.refused {
            None if is_ours => {
                peer.on_taken(answer.index.0, now_ms);
                peer.joining &= answer.index.0 == 0;
            }
            // What is on its way behind it is refused, too.
            Some(_) if is_ours => peer.clear(),
            _ => {}
        }
        let mut message = raft_message(MessageType::MsgAppendResponse, from, answer.term);
        message.index = answer.index.0;
        message.commit = answer.commit.0;
        if let Some((hint, term)) = answer.refused {
            message.reject = true;
            message.reject_hint = hint.0;
            message.log_term = term.0;
        }
        self.step(message);
        Ok(())
    }

    pub(super) fn take_vote_request(&mut self, from: NodeId, vote: VoteRequest, now_ms: i64) {
        let is_promised = now_ms < self.promised_until_ms && !vote.transfer && !flawed!(VotesAtOnce);
        let is_recovering = self.file.state.recovering && !flawed!(RecoveringVotes);
        // What a recovering node once had counts nowhere, so neither does its vote: it would miss what it has lost.
        if is_promised || is_recovering || self.resetting.is_some() || self.is_joining() {
            return;
        }
        let kind = if vote.pre { MessageType::MsgRequestPreVote } else { MessageType::MsgRequestVote };
        let mut message = raft_message(kind, from, vote.term);
        message.index = vote.last_index.0;
        message.log_term = vote.last_term.0;
        message.commit = vote.commit.0;
        message.commit_term = vote.commit_term.0;
        if vote.transfer {
            message.context = CAMPAIGN_TRANSFER.into();
        }
        self.step(message);
    }

    /// A node without a group learns who belongs to it.
    pub(super) fn take_members(&mut self, members: Members) {
        if !is_member(&members.conf, self.config.node) {
            return self.hear_farewell(members);
        }
        if !self.is_joining()
            || self.is_kept_out()
            || self.resetting.is_some()
            || members.conf.voters.is_empty()
        {
            return;
        }
        let has_vote = has_vote(&members.conf, self.config.node);
        self.file.state.conf = members.conf;
        self.file.state.members = members.members;
        // A vote is given to those that have the log. One without any had it, and has lost it.
        if has_vote && !flawed!(VotesWithoutItsLog) {
            self.file.state.recovering = true;
        }
        self.doubted = Some(self.file.changed());
        self.rebuild();
        self.keep_forgotten_promises();
        self.actions.push_back(ReplicaAction::MembersChanged(self.file.state.members.clone()));
    }

    pub(super) fn is_joining(&self) -> bool {
        self.file.state.conf.voters.is_empty()
    }

    pub(super) fn peer_up(&mut self, hello: PeerHello, now_ms: i64) {
        let node = hello.node;
        self.met.insert(node);
        self.met_term = self.met_term.max(hello.term.0);
        self.doubt_own_log(&hello);
        self.keep_forgotten_promises();
        let peer = self.peers.entry(node).or_default();
        *peer = Peer::connected(hello.recovering, hello.joining, now_ms);
        self.answered.take_if(|answered| answered.leader == node.0);
        self.give_up_sending(node);
        self.raw.report_unreachable(node.0);
        if self.leading.is_none() {
            return;
        }
        if let Some(progress) = self.raw.raft.mut_prs().get_mut(node.0)
            && progress.matched > hello.last_index.0
            && !flawed!(CountsLostBatches)
        {
            // It lost what it had said to have, or what it says was overtaken by its own answers: nothing of it counts, and
            // it is asked anew.
            progress.matched = 0;
            progress.become_probe();
            progress.next_idx = hello.last_index.0 + 1;
            self.lease.forget(node);
        }
        self.raw.ping();
    }

    /// A node that was in the group from its beginning has an empty log, although something is committed: it comes late, or
    /// its disk was emptied and it has promised and acknowledged what nobody knows any more. Either way it takes everything
    /// from the leader first. What is committed a majority holds, so those that come late cannot be all that is left.
    ///
    /// Whoever it meets may not know yet of anything committed, and have batches: then it counts whether this node was there
    /// when their leader was elected.
    fn doubt_own_log(&mut self, hello: &PeerHello) {
        let has_missed = hello.last_index.0 > 0 && self.raw.raft.term == 0;
        let is_behind = hello.committed.0 > 0 || has_missed && !flawed!(DoubtsOnlyCommitted);
        let is_empty = self.raw.raft.raft_log.last_index() == 0;
        if !is_empty || !is_behind || self.is_joining() || self.file.state.recovering || flawed!(NeverDoubts)
        {
            return;
        }
        let (shard, other) = (self.config.shard, hello.node.0);
        tracing::warn!(
            shard,
            "the log is empty, and node {other} has what was stored before: until this node has it too, it does not vote"
        );
        // Should it stand for election just now, it no longer does.
        self.resign();
        self.file.state.recovering = true;
        self.doubted = Some(self.file.changed());
    }

    /// Whether this node has lost all it had, its term and its vote too.
    fn has_forgotten(&self) -> bool {
        self.file.state.recovering && self.raw.raft.raft_log.last_index() == 0
    }

    /// The voters that a node which has forgotten everything has not met yet.
    pub(super) fn unmet(&self) -> Vec<NodeId> {
        let conf = &self.file.state.conf;
        let voters = conf.voters.iter().chain(&conf.outgoing).copied();
        voters.filter(|node| *node != self.config.node && !self.met.contains(node)).collect()
    }

    /// Who gave somebody a vote takes nothing from the leaders of earlier terms any more. A node that has forgotten its vote keeps
    /// that promise as well as if it knew it: whom it voted for was in that term before, so once all voters have said which
    /// term they are in, the newest of these is not earlier. Until then it is as if it were not there. Nor is it before all this
    /// is on its disk: after a crash, part of the log and no doubt of it would be taken for all that this node has ever had.
    pub(super) fn is_kept_out(&self) -> bool {
        let is_saved = self.doubted.is_none_or(|change| self.file.is_saved(change));
        !is_saved || self.has_forgotten() && !self.unmet().is_empty() && !flawed!(ForgetsPromises)
    }

    fn keep_forgotten_promises(&mut self) {
        if self.has_forgotten() && self.met_term > self.raw.raft.term && !flawed!(ForgetsPromises) {
            self.raw.raft.become_follower(self.met_term, raft::INVALID_ID);
            self.doubted = Some(self.set_vote(self.met_term, raft::INVALID_ID));
        }
    }

    pub(super) fn peer_down(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.up = false;
        peer.clear();
        self.give_up_sending(node);
        self.raw.report_unreachable(node.0);
        self.arriving.take_if(|arriving| arriving.from == node);
        // Strangers come and go, and what is known of one is known of its session.
        if !is_member(&self.file.state.conf, node) {
            self.peers.remove(&node);
        }
    }
}
