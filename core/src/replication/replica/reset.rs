//! A replica that is too far behind begins its log anew: both sides of it.

use super::*;

impl<B: Buffer + 'static> Replica<B> {
    pub(super) fn give_up_sending(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.sending = None;
        }
        self.raw.report_snapshot(node.0, SnapshotStatus::Failure);
    }

    pub(super) fn begin_sending(&mut self, to: NodeId, log: &impl GroupLog<B>, now_ms: i64) {
        self.next_checkpoint += 1;
        let id = OpId(self.next_checkpoint);
        self.peers.entry(to).or_default().begin_sending(id, now_ms);
        self.actions.push_back(ReplicaAction::TakeCheckpoint { id, start: log.before_first() });
    }

    pub(super) fn checkpoint_taken(
        &mut self,
        id: OpId,
        result: Result<Box<Checkpoint>, DiskError>,
        now_ms: i64,
    ) {
        let is_for = |peer: &Peer| peer.sending.as_ref().is_some_and(|sending| sending.id == id);
        let Some((node, peer)) = self.peers.iter_mut().find(|(_, peer)| is_for(peer)) else { return };
        let node = *node;
        match result {
            Ok(checkpoint) => {
                let state = &self.file.state;
                let sending = peer.sending.as_mut().expect("found by it");
                sending.bytes = Some(checkpoint::encode(&checkpoint, &state.conf, &state.members));
                sending.progress_ms = now_ms;
            }
            Err(error) => {
                self.actions.push_back(ReplicaAction::Alarm(format!(
                    "a checkpoint for node {node}, which is too far behind, could not be read: {error}"
                )));
                self.give_up_sending(node);
            }
        }
    }

    pub(super) fn take_reset_answer(&mut self, from: NodeId, answer: ResetAnswer, now_ms: i64) {
        let peer = self.peers.entry(from).or_default();
        let Some(sending) = peer.sending.as_mut().filter(|sending| sending.id == answer.id) else { return };
        if answer.failed {
            return self.give_up_sending(from);
        }
        sending.confirmed = sending.confirmed.max(answer.bytes);
        sending.progress_ms = now_ms;
    }

    pub(super) fn take_reset(&mut self, from: NodeId, head: ResetHead, now_ms: i64) -> Result<(), PeerFault> {
        if head.bytes > CHECKPOINT_BYTES_MAX {
            return Err(fault(format!(
                "a checkpoint of {} bytes; {CHECKPOINT_BYTES_MAX} are the most",
                head.bytes
            )));
        }
        if self.is_joining() {
            // Whether it has a vote is to be known first, see `take_members`; the leader tells it and tries again.
            let message = PeerMessage::ResetAnswer(ResetAnswer { id: head.id, bytes: 0, failed: true });
            self.actions.push_back(ReplicaAction::Send { to: from, message });
            return Ok(());
        }
        if head.term.0 < self.raw.raft.term || self.resetting.is_some() {
            return Ok(());
        }
        // That it leads, a heartbeat says; what it sends is believed when it is whole.
        self.take_clock(from, head.term, head.clock_ms, None, now_ms);
        self.arriving = Some(Arriving { from, head, bytes: Vec::new() });
        Ok(())
    }

    pub(super) fn take_reset_part(&mut self, from: NodeId, part: ResetPart) -> Result<(), PeerFault> {
        let Some(arriving) = self.arriving.as_mut().filter(|it| it.from == from && it.head.id == part.id)
        else {
            return Ok(());
        };
        let end = part.at + part.bytes.len() as u64;
        if part.at != arriving.bytes.len() as u64 || end > arriving.head.bytes {
            return Ok(());
        }
        arriving.bytes.extend_from_slice(&part.bytes);
        let answer = |failed| PeerMessage::ResetAnswer(ResetAnswer { id: part.id, bytes: end, failed });
        if end < arriving.head.bytes {
            self.actions.push_back(ReplicaAction::Send { to: from, message: answer(false) });
            return Ok(());
        }
        let arriving = self.arriving.take().expect("it is arriving");
        self.actions.push_back(ReplicaAction::Send { to: from, message: answer(false) });
        let begin =
            checkpoint::decode(&arriving.bytes).map_err(|error| fault(format!("a checkpoint: {error}")))?;
        let mut message = raft_message(MessageType::MsgSnapshot, from, arriving.head.term);
        let metadata = message.mut_snapshot().mut_metadata();
        metadata.index = begin.checkpoint.start.index.0;
        metadata.term = begin.checkpoint.start.term.0;
        metadata.set_conf_state(to_raft(&begin.conf));
        if metadata.index == 0 {
            return Err(fault("a checkpoint of a log from its very first batch on"));
        }
        self.begin = Some(begin);
        self.step(message);
        Ok(())
    }

    /// Raft took the checkpoint: its own view changes at once, the log once nothing of it is on its way.
    pub(super) fn begin_reset<L: GroupLog<B>>(&mut self, log: &mut L) {
        let begin = self.begin.take().expect("raft took the checkpoint that it was given");
        let start = begin.checkpoint.start;
        for pending in &mut self.pending {
            pending.last = None;
            pending.is_cut = true;
            pending.messages.retain(|message| !is_acknowledgement(message, 0));
        }
        self.waiting.clear();
        let entries = self.raw.mut_store();
        entries.reset(start.index.0, start.term.0);
        entries.conf = to_raft(&begin.conf);
        self.unsaved.clear();
        self.apply_to = start.index.0;
        log.pause(true);
        self.resetting = Some(Resetting { begin, asked: None, put_off_until_ms: None });
    }

    pub(super) fn drive_reset(&mut self, log: &mut impl GroupLog<B>, now_ms: i64) {
        let is_due = |resetting: &Resetting| {
            resetting.asked.is_none() && resetting.put_off_until_ms.is_none_or(|at_ms| now_ms >= at_ms)
        };
        let Some(resetting) = self.resetting.as_mut().filter(|resetting| is_due(resetting)) else { return };
        if !self.file.is_idle() || !log.is_at_rest() {
            return;
        }
        let begin = &resetting.begin;
        let state = &mut self.file.state;
        let before = Box::new(state.clone());
        let checkpoint = Box::new(begin.checkpoint.clone());
        state.log_start = checkpoint.start;
        let snapshot_at = checkpoint.snapshot.as_ref().map_or(LogOffset(0), |snapshot| snapshot.at);
        state.checkpoint_at = snapshot_at.max(checkpoint.start.base_offset);
        state.commit = checkpoint.start.index;
        state.conf = begin.conf.clone();
        state.members = begin.members.clone();
        self.file.changed();
        let (id, state) = self.file.ask(now_ms);
        resetting.asked = Some(AskedReset { id, before });
        self.actions.push_back(ReplicaAction::Reset { id, state, checkpoint });
    }

    /// There is no room for the checkpoint, and nothing has changed. The log is as before until there is.
    pub(super) fn put_off_reset(&mut self, id: OpId, error: &DiskError, now_ms: i64) {
        let resetting = self.resetting.as_mut().expect("a reset is on its way");
        let AskedReset { before, .. } =
            resetting.asked.take_if(|asked| asked.id == id).expect("it was asked for");
        // Term and vote may be newer.
        let state = &mut self.file.state;
        state.log_start = before.log_start;
        state.checkpoint_at = before.checkpoint_at;
        state.commit = before.commit;
        state.conf = before.conf;
        state.members = before.members;
        self.file.on_put_off(id);
        self.file.changed();
        let is_first = resetting.put_off_until_ms.replace(now_ms + RESET_PAUSE_MS).is_none();
        if is_first {
            self.actions.push_back(ReplicaAction::Alarm(format!("{error}; tried again until there is room")));
        }
    }

    pub(super) fn reset_done(&mut self, id: OpId, log: &mut impl GroupLog<B>) {
        let resetting = self.resetting.take().expect("a reset is on its way");
        assert!(
            resetting.asked.as_ref().is_some_and(|asked| asked.id == id),
            "reset {id:?} was answered, {:?} is on its way",
            resetting.asked
        );
        let start = resetting.begin.checkpoint.start;
        assert!(
            log.last_index() == start.index,
            "the log ends at {}, not at {}",
            log.last_index(),
            start.index
        );
        self.file.on_saved(id);
        log.pause(false);
        for pending in &mut self.pending {
            pending.resets = false;
        }
        self.actions.push_back(ReplicaAction::MembersChanged(self.file.state.members.clone()));
    }
}
