//! Handing leadership over.

use super::*;

impl<B: Buffer + 'static> Replica<B> {
    pub(super) fn is_fit(&self, node: NodeId, now_ms: i64) -> bool {
        let is_well =
            self.peers.get(&node).is_some_and(|peer| !peer.recovering && !peer.joining && !peer.unfit);
        is_well && self.is_heard(node, now_ms)
    }

    /// The voter with the most, of those fit to lead.
    pub(super) fn successor(&self, now_ms: i64) -> Option<NodeId> {
        let voters = self.file.state.conf.voters.iter().copied();
        let fit = voters.filter(|node| *node != self.config.node && self.is_fit(*node, now_ms));
        let matched = |node: NodeId| self.raw.raft.prs().get(node.0).map_or(0, |progress| progress.matched);
        fit.map(|node| Successor { matched: matched(node), node }).max().map(|best| best.node)
    }

    pub(super) fn begin_transfer(&mut self, node: NodeId, now_ms: i64) -> Result<(), TransferRefused> {
        let Some(leading) = &self.leading else {
            return Err(TransferRefused::NotLeader { leader: self.leader() });
        };
        if let Some(transfer) = leading.transfer {
            return Err(TransferRefused::Busy { to: transfer.to });
        }
        if node == self.config.node {
            return Err(TransferRefused::Leads { node });
        }
        if !self.file.state.conf.voters.contains(&node) {
            return Err(TransferRefused::NotVoter { node });
        }
        if leading.sealing.is_some() || self.change.is_some() {
            return Err(TransferRefused::Changing);
        }
        if !self.is_fit(node, now_ms) {
            return Err(TransferRefused::Away { node });
        }
        let transfer = Transfer { to: node, since_ms: now_ms, asked: false };
        self.leading.as_mut().expect("it leads").transfer = Some(transfer);
        Ok(())
    }

    /// First what is staged gets its batch and is committed, then raft hands over; both in a bounded time.
    pub(super) fn drive_transfer(&mut self, log: &mut impl GroupLog<B>, now_ms: i64) {
        let timeout_ms = self.timeout_ms();
        let Some(leading) = &mut self.leading else { return };
        let Some(transfer) = &mut leading.transfer else { return };
        if !transfer.asked {
            let is_drained = log.staged_bytes() == 0 && log.committed_index() == log.last_index();
            if !is_drained && now_ms - transfer.since_ms < timeout_ms {
                return;
            }
            *transfer = Transfer { asked: true, since_ms: now_ms, ..*transfer };
            let to = transfer.to.0;
            self.raw.transfer_leader(to);
            self.hold(log);
            return;
        }
        let is_on = self.raw.raft.lead_transferee == Some(transfer.to.0);
        if is_on && now_ms - transfer.since_ms < timeout_ms {
            return;
        }
        self.raw.raft.abort_leader_transfer();
        leading.transfer = None;
        leading.calm_since_ms = now_ms;
        if leading.timeout_now_sent && !flawed!(LeaseAfterTransfer) {
            // There is no lease in this term any more; a new election gives one.
            let term = leading.term;
            self.resign();
            if !self.is_unfit() {
                let own = self.config.node;
                self.step(raft_message(MessageType::MsgTimeoutNow, own, Term(term)));
            }
        }
    }

    pub(super) fn resign(&mut self) {
        let term = self.raw.raft.term;
        self.raw.raft.become_follower(term, raft::INVALID_ID);
    }

    /// Staged records wait while leadership is handed over, and while too much is uncommitted.
    pub(super) fn hold(&mut self, log: &mut impl GroupLog<B>) {
        let Some(leading) = &self.leading else {
            if std::mem::take(&mut self.is_holding) {
                log.hold_sealing(false);
            }
            return;
        };
        let is_asked = leading.transfer.is_some_and(|transfer| transfer.asked);
        let is_full =
            log.uncommitted_bytes() >= self.config.uncommitted_bytes_max && !flawed!(SealsWithoutBound);
        let holds = is_asked || is_full || !has_vote(&self.file.state.conf, self.config.node);
        if holds != self.is_holding {
            self.is_holding = holds;
            log.hold_sealing(holds);
        }
    }
}
