//! What the passing of time brings: elections, a slow disk, what is stuck, the balancer.

use super::*;

impl<B: Buffer + 'static> Replica<B> {
    /// Whether this node may stand for election.
    pub(super) fn may_campaign(&self) -> bool {
        let raft_log = &self.raw.raft.raft_log;
        (!self.file.state.recovering || flawed!(RecoveringVotes))
            && self.resetting.is_none()
            && !self.is_unfit()
            && !self.is_outside()
            && self.spare.is_some()
            && raft_log.persisted == raft_log.last_index()
    }

    pub(super) fn tick(&mut self, log: &mut impl GroupLog<B>, now_ms: i64) {
        self.look_at_disk(log, now_ms);
        let is_leading = self.raw.raft.state == StateRole::Leader;
        if !is_leading && !self.may_campaign() {
            // Heard of or not, the leader is waited for.
            self.raw.raft.election_elapsed = 0;
        }
        let is_due = self.raw.raft.election_elapsed + 1 >= self.raw.raft.randomized_election_timeout();
        if !is_leading && is_due {
            self.campaigns += 1;
        }
        self.raw.tick();
        self.settle_raft(log, now_ms);
        self.tell_outsiders();
        if self.leading.is_some() {
            self.tick_leader(log, now_ms);
        }
        let (saved, at_ms) = self.saved_commit;
        if now_ms - at_ms >= SAVE_COMMIT_MS && self.file.is_idle() && self.durable_commit(log) > saved {
            self.file.changed();
        }
    }

    pub(super) fn durable_commit(&self, log: &impl GroupLog<B>) -> u64 {
        log.durable_index().0.min(log.committed_index().0).min(self.raw.raft.raft_log.applied)
    }

    pub(super) fn is_unfit(&self) -> bool {
        self.sick.is_some() || self.is_leaving
    }

    /// Why this node is to lead no longer than it must.
    pub(super) fn unfit(&self) -> Option<String> {
        self.sick.clone().or_else(|| self.is_leaving.then(|| "it is about to stop".into()))
    }

    pub(super) fn look_at_disk(&mut self, log: &impl GroupLog<B>, now_ms: i64) {
        let oldest = [log.oldest_unpersisted_since_ms(), self.file.since_ms()].into_iter().flatten().min();
        let stalled_ms = oldest.map_or(0, |since_ms| now_ms - since_ms);
        let sick = match log.poisoned() {
            Some(why) => Some(why),
            None if now_ms < self.unable_until_ms => Some("there is no room for a batch".into()),
            None if stalled_ms >= i64::from(self.config.disk_stall_ms) => {
                Some(format!("the disk has not answered for {stalled_ms} ms"))
            }
            None => None,
        };
        if sick.is_some() && self.sick.is_none() {
            let text = sick.clone().expect("looked at");
            self.actions
                .push_back(ReplicaAction::Alarm(format!("{text}; this node does not lead until it does")));
        }
        self.sick = sick;
    }

    pub(super) fn tick_leader(&mut self, log: &mut impl GroupLog<B>, now_ms: i64) {
        let stuck_ms = STUCK_TIMEOUTS * self.timeout_ms();
        let mut stuck = Vec::new();
        let mut given_up = Vec::new();
        for (node, peer) in &mut self.peers {
            if peer.stuck_since_ms().is_some_and(|since_ms| now_ms - since_ms >= stuck_ms) {
                peer.clear();
                stuck.push(*node);
            }
            if peer.sending.as_ref().is_some_and(|sending| now_ms - sending.progress_ms >= RESET_STUCK_MS) {
                given_up.push(*node);
            }
        }
        stuck.into_iter().for_each(|node| self.raw.report_unreachable(node.0));
        given_up.into_iter().for_each(|node| self.give_up_sending(node));
        self.tell_joining();
        // A change that has no batch yet stands in the way of handing over, and a broken log never gives it one.
        match self.is_unfit() {
            true => self.change = None,
            false => self.leave_joint(),
        }
        self.drive_transfer(log, now_ms);
        if self.is_handing_over() || self.raw.raft.state != StateRole::Leader {
            return;
        }
        let conf = &self.file.state.conf;
        let is_voter = conf.voters.contains(&self.config.node);
        if self.is_unfit() || !is_voter {
            match self.successor(now_ms) {
                Some(to) => drop(self.begin_transfer(to, now_ms)),
                // Nothing this node takes can be kept: the others do better without it.
                None if log.poisoned().is_some() || !is_voter => self.resign(),
                None => {}
            }
        } else {
            self.balance(now_ms);
        }
    }

    pub(super) fn tell_joining(&mut self) {
        // The only voter leads before its term is on the disk.
        if self.file.saved_term() < self.raw.raft.term {
            return;
        }
        let state = &self.file.state;
        let nodes = nodes_of(&state.conf);
        for (node, _) in
            self.peers.iter().filter(|(node, peer)| peer.up && peer.joining && nodes.contains(node))
        {
            let members = Members {
                term: Term(self.raw.raft.term),
                leader: self.leader(),
                conf: state.conf.clone(),
                members: state.members.clone(),
            };
            let message = PeerMessage::Members(Box::new(members));
            self.actions.push_back(ReplicaAction::Send { to: *node, message });
        }
    }

    /// The node that leads this shard by preference.
    pub(super) fn preferred(&self) -> Option<NodeId> {
        let voters = &self.file.state.conf.voters;
        let nth = self.config.shard as usize % voters.len().max(1);
        voters.get(nth).copied().filter(|_| self.config.preferred_leaders)
    }

    pub(super) fn balance(&mut self, now_ms: i64) {
        let Some(preferred) = self.preferred().filter(|node| *node != self.config.node) else { return };
        let leading = self.leading.as_ref().expect("a leader balances");
        let waited_ms = now_ms - leading.calm_since_ms;
        let lag = self.lag_of(preferred).unwrap_or(u64::MAX);
        if waited_ms >= i64::from(self.config.preferred_leaders_wait_ms)
            && lag <= PROMOTE_LAG_BATCHES_MAX
            && matches!(self.role, Role::Leader { ready: true })
        {
            let _ = self.begin_transfer(preferred, now_ms);
        }
    }

    pub(super) fn lag_of(&self, node: NodeId) -> Option<u64> {
        let matched = self.raw.raft.prs().get(node.0)?.matched;
        Some(self.raw.raft.raft_log.last_index().saturating_sub(matched))
    }
}
