//! Messages to peers.

use super::*;

impl<B: Buffer + 'static> Replica<B> {
    /// Sends one of raft's messages.
    pub(super) fn post(&mut self, message: &Message, log: &impl GroupLog<B>, now_ms: i64) {
        let (to, term) = (NodeId(message.to), Term(message.term));
        let out = match message.get_msg_type() {
            MessageType::MsgAppend => {
                let is_current = self.leading.as_ref().is_some_and(|leading| leading.term == message.term);
                let peer = self.peers.entry(to).or_default();
                if is_current && peer.up {
                    peer.push(message.index, message.log_term, message.entries.len() as u64, now_ms);
                }
                return;
            }
            MessageType::MsgSnapshot => {
                if self.leading.as_ref().is_some_and(|leading| leading.term == message.term) {
                    self.begin_sending(to, log, now_ms);
                }
                return;
            }
            MessageType::MsgHeartbeat => PeerMessage::Heartbeat(Heartbeat {
                term,
                commit: BatchIndex(message.commit),
                last_index: BatchIndex(self.raw.raft.raft_log.last_index()),
                clock_ms: now_ms,
            }),
            MessageType::MsgHeartbeatResponse => PeerMessage::HeartbeatAnswer(HeartbeatAnswer {
                term,
                commit: BatchIndex(message.commit),
                echo_ms: self.echo_ms(message.to, message.term),
                unfit: self.is_unfit() || self.file.state.recovering,
            }),
            MessageType::MsgAppendResponse => {
                let refused =
                    message.reject.then_some((BatchIndex(message.reject_hint), Term(message.log_term)));
                if refused.is_none() && message.index > 0 {
                    self.verified = match self.verified {
                        (of, upto) if of == message.term => (of, upto.max(message.index)),
                        _ => (message.term, message.index),
                    };
                }
                if !self.is_news(message) {
                    return;
                }
                PeerMessage::AppendAnswer(AppendAnswer {
                    term,
                    index: BatchIndex(message.index),
                    refused,
                    commit: BatchIndex(message.commit),
                    echo_ms: self.echo_ms(message.to, message.term),
                })
            }
            kind @ (MessageType::MsgRequestVote | MessageType::MsgRequestPreVote) => {
                PeerMessage::VoteRequest(VoteRequest {
                    term,
                    pre: kind == MessageType::MsgRequestPreVote,
                    transfer: message.context == CAMPAIGN_TRANSFER,
                    last_index: BatchIndex(message.index),
                    last_term: Term(message.log_term),
                    commit: BatchIndex(message.commit),
                    commit_term: Term(message.commit_term),
                })
            }
            kind @ (MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse) => {
                PeerMessage::VoteAnswer(VoteAnswer {
                    term,
                    pre: kind == MessageType::MsgRequestPreVoteResponse,
                    granted: !message.reject,
                    commit: BatchIndex(message.commit),
                    commit_term: Term(message.commit_term),
                })
            }
            MessageType::MsgTimeoutNow => {
                if let Some(leading) = &mut self.leading {
                    leading.timeout_now_sent = true;
                }
                PeerMessage::TimeoutNow { term }
            }
            // Proposals and reads are the leader's alone here.
            _ => return,
        };
        self.actions.push_back(ReplicaAction::Send { to, message: out });
    }

    /// Whether a leader draws anything from this answer. Each commit is told to the followers by an append of its own if no batch
    /// is there to go with; what they would answer has nothing new but that they heard it, and raft looks at the index alone. A
    /// lone batch had two answers of each follower for that.
    ///
    /// What does not even tell of a commit is a question asked again, by one that has forgotten the answer: it is given.
    fn is_news(&mut self, answer: &Message) -> bool {
        let (leader, term) = (answer.to, answer.term);
        if answer.reject {
            self.answered = None;
            return true;
        }
        let said = Answered { leader, term, index: answer.index, commit: answer.commit };
        match &mut self.answered {
            Some(before) if (before.leader, before.term) == (leader, term) => {
                let is_news = said.index > before.index || said.commit <= before.commit;
                before.index = before.index.max(said.index);
                before.commit = before.commit.max(said.commit);
                is_news
            }
            other => {
                *other = Some(said);
                true
            }
        }
    }

    fn leader_now(&self, now_ms: i64) -> Option<LeaderNow> {
        let raft_log = &self.raw.raft.raft_log;
        Some(LeaderNow {
            term: self.leading.as_ref()?.term,
            commit: raft_log.committed,
            last_index: raft_log.last_index(),
            now_ms,
            window_bytes: self.config.window_bytes,
        })
    }

    /// Tells followers what is committed, at the end of a turn: to most of them an append of this turn did, if there was one.
    /// Raft would tell each of them of each commit at once, by a message that costs as much as one with batches.
    ///
    /// Those that raft is still probing, or that are behind, hear it with what they are sent next, or by a heartbeat.
    pub(super) fn tell_commit(&mut self, now_ms: i64) {
        let commit = self.raw.raft.raft_log.committed;
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.told < commit) else { return };
        leading.told = commit;
        let leader = self.leader_now(now_ms).expect("it leads");
        let progresses = self.raw.raft.prs();
        let takes_all = |node: NodeId| {
            progresses.get(node.0).is_some_and(|progress| progress.state == ProgressState::Replicate)
        };
        for (node, peer) in self.peers.iter_mut().filter(|(node, peer)| peer.up && takes_all(**node)) {
            peer.tell_commit(leader, |message| {
                self.actions.push_back(ReplicaAction::Send { to: *node, message });
            });
        }
    }

    pub(super) fn send_appends<L: GroupLog<B>>(&mut self, log: &mut L, now_ms: i64) {
        let Some(leader) = self.leader_now(now_ms) else { return };
        let mut gone = Vec::new();
        let actions = &mut self.actions;
        for (node, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.up) {
            peer.fill_parts(leader, |message| {
                actions.push_back(ReplicaAction::Send { to: *node, message });
            });
            if peer.waits_for_pages {
                continue;
            }
            match peer
                .fill(log, leader, |message| actions.push_back(ReplicaAction::Send { to: *node, message }))
            {
                Filled::Done => {}
                Filled::Fault(fault) => {
                    peer.waits_for_pages = true;
                    actions.push_back(ReplicaAction::LoadPages { fault });
                }
                Filled::Gone => {
                    peer.clear();
                    gone.push(*node);
                }
            }
        }
        gone.into_iter().for_each(|node| self.raw.report_unreachable(node.0));
    }
}
