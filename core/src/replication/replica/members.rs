//! Changing the group's nodes.

use super::*;

impl<B: Buffer + 'static> Replica<B> {
    pub(super) fn plan_change(
        &self,
        change: MemberChange,
        log: &impl GroupLog<B>,
        now_ms: i64,
    ) -> Result<Vec<Step>, ChangeRefused> {
        let Some(leading) = &self.leading else {
            return Err(ChangeRefused::NotLeader { leader: self.leader() });
        };
        if leading.transfer.is_some() {
            return Err(ChangeRefused::HandingOver);
        }
        // It could not give the change a batch, or is about to be followed by another leader, which is to be asked.
        if let Some(why) = log.poisoned().or_else(|| self.unfit()) {
            return Err(ChangeRefused::Unfit { why });
        }
        let conf = &self.file.state.conf;
        if self.is_changing()
            || !conf.outgoing.is_empty()
            || !matches!(self.role, Role::Leader { ready: true })
        {
            return Err(ChangeRefused::Busy);
        }
        let is_voter = |node: &NodeId| conf.voters.contains(node);
        let is_learner = |node: &NodeId| conf.learners.contains(node);
        let caught_up = |node: NodeId| {
            if !self.is_heard(node, now_ms) {
                return Err(ChangeRefused::Away { node });
            }
            // A vote is given to those that have the log: one that has nothing may not know yet that it belongs to the group, and would
            // take itself for a voter that lost everything.
            if self.raw.raft.prs().get(node.0).is_none_or(|progress| progress.matched == 0) {
                return Err(ChangeRefused::Empty { node });
            }
            let lag_batches = self.lag_of(node).unwrap_or(u64::MAX);
            match lag_batches <= PROMOTE_LAG_BATCHES_MAX {
                true => Ok(()),
                false => {
                    Err(ChangeRefused::Behind { node, lag_batches, lag_batches_max: PROMOTE_LAG_BATCHES_MAX })
                }
            }
        };
        let promote = |node: NodeId| {
            if is_voter(&node) {
                return Err(ChangeRefused::Already { node, role: "voter" });
            }
            if !is_learner(&node) {
                return Err(ChangeRefused::Unknown { node });
            }
            caught_up(node)?;
            Ok(Step::Voter { node, address: Vec::new() })
        };
        let remove = |node: NodeId| {
            if !is_voter(&node) && !is_learner(&node) {
                return Err(ChangeRefused::Unknown { node });
            }
            if node == self.config.node {
                return Err(ChangeRefused::IsLeader { node });
            }
            Ok(Step::Gone { node })
        };
        Ok(match change {
            MemberChange::AddLearner { node, address } => {
                if is_voter(&node) || is_learner(&node) {
                    let role = if is_voter(&node) { "voter" } else { "learner" };
                    return Err(ChangeRefused::Already { node, role });
                }
                if node.0 == 0 {
                    return Err(ChangeRefused::Unknown { node });
                }
                let found = nodes_of(conf).len() + 1;
                if found > MEMBERS_MAX {
                    return Err(ChangeRefused::TooMany { found, limit: MEMBERS_MAX });
                }
                let limit = ADDRESS_BYTES_MAX;
                if address.len() > limit {
                    return Err(ChangeRefused::Address { found: address.len(), limit });
                }
                vec![Step::Learner { node, address }]
            }
            MemberChange::Promote { node } => vec![promote(node)?],
            MemberChange::Remove { node } => vec![remove(node)?],
            MemberChange::Replace { old, new } => vec![promote(new)?, remove(old)?],
        })
    }

    /// Whoever leads leaves the configuration of both sets of voters that some changes go through. One that goes itself hands over
    /// before: a leader that is no member commits nothing.
    pub(super) fn leave_joint(&mut self) {
        let conf = &self.file.state.conf;
        let stays = conf.voters.contains(&self.config.node);
        if !conf.outgoing.is_empty() && stays && !self.is_changing() && !self.is_handing_over() {
            self.change = Some(Configuration::default());
        }
    }

    /// Whether a change of members is on its way: to be sealed, sealed, or with raft and not applied. For raft so is whatever an earlier
    /// leader left, since it may be one.
    pub(super) fn is_changing(&self) -> bool {
        let Some(leading) = &self.leading else { return false };
        self.change.is_some() || leading.sealing.is_some() || self.raw.raft.has_pending_conf()
    }

    pub(super) fn seal_change(
        &mut self,
        log: &mut impl GroupLog<B>,
        now_ms: i64,
        alloc: &mut dyn FnMut(usize) -> B,
    ) {
        let Some(change) = self.change.take() else { return };
        if self.leading.is_none() {
            return;
        }
        // Asked once more, of what is there beside it: raft must not turn the change down once it has its batch.
        if self.is_changing() || self.is_handing_over() {
            self.change = Some(change);
            return;
        }
        match log.seal_configuration(&change.encode(), now_ms, alloc) {
            Ok(index) => {
                let leading = self.leading.as_mut().expect("looked at");
                leading.sealing = Some((index.0, Rc::new(change)));
            }
            Err(_) => self.change = Some(change),
        }
    }
}
