//! One case: the nodes of a group, and what is done to them, by seed.

use std::cmp::Reverse;

use super::super::record::{Numbered, random_config};
use super::super::state::ControlState;
use super::link::{Links, Message};
use super::node::{Leading, Node};
use super::owed::Owed;
use super::{RARE_SITUATIONS, SITUATIONS, Tally};
use crate::aligned::AlignedBuffer;
use crate::checkpoint::ResetDone;
use crate::config::{CommitRule, Durability, LogConfig, Retention};
use crate::disk::{Completion, DiskOp, OpId};
use crate::format::{BLOCK_LEN, BatchKind};
use crate::log::{
    AppendRefused, Committed, FailureCause, ForeignBatch, ForeignRefused, LogEvent, ReadLimits,
};
use crate::sim::{Failing, Rng, SimDisk};
use crate::snapshot::{DerivedState, Rebuilt};
use crate::types::{BatchIndex, GroupId, LogOffset, NodeId, QueueKey, QueueOffset, Term};

pub(super) const NODES: usize = 3;
pub(super) const GROUP: GroupId = GroupId(7);

const STEPS: u64 = 900;
const QUEUES: u64 = 4;

/// Steps in which a group that is healed must come to its end.
const HEALING_STEPS: u64 = 6000;

pub(super) struct World {
    rng: Rng,
    nodes: Vec<Node>,
    links: Links,
    owed: Owed,
    now_ms: i64,
    next_id: u64,
    pub(super) tally: Tally,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed ^ 0x6772_6f75);
        let block = BLOCK_LEN as u64;
        let random = random_config(&mut rng);
        let retention = Retention {
            age_ms: None,
            bytes: rng.chance(50).then(|| (1 + rng.below(4)) * random.segment_bytes),
            may_reclaim: false,
        };
        let config = LogConfig {
            commit_rule: CommitRule::Group,
            group: GROUP,
            retention,
            write_window_bytes: (64 + rng.below(64)) * block,
            staged_bytes_max: u64::from(random.batch_bytes_max) * (2 + rng.below(6)),
            batches_in_flight_max: 1 + rng.below(8) as u32,
            // With few entries segments are closed before they are full.
            index_entries_max: [50_000_000, 40 + rng.below(200)][rng.below(2) as usize],
            ..random
        };
        let slow_percent = [0, 5, 30, 60][rng.below(4) as usize];
        let nodes = (0..NODES).map(|id| {
            let config = LogConfig {
                node: NodeId(id as u64),
                tail_cache_bytes: rng.below(20) * block,
                ..config.clone()
            };
            let node = Node::new(id, rng.next_u64(), config);
            node.disk.set_slow(slow_percent);
            node
        });
        World {
            nodes: nodes.collect(),
            rng,
            links: Links::default(),
            owed: Owed::default(),
            now_ms: 1000,
            next_id: 0,
            tally: Tally::new(&SITUATIONS, &RARE_SITUATIONS),
        }
    }

    pub(super) fn run(&mut self) {
        for _ in 0..STEPS {
            self.tally.count("steps");
            self.now_ms += self.rng.below(4) as i64 - 1;
            let node = self.rng.below(NODES as u64) as usize;
            match self.rng.below(1000) {
                0..=149 => self.stage(),
                150..=349 => self.submit(node),
                350..=569 => self.complete_one(node),
                570..=699 => self.replicate(node),
                700..=849 => self.deliver_somewhere(),
                850..=889 => self.advance_commit(node),
                890..=914 => self.tick(node),
                915..=921 => self.elect(node),
                922..=926 => self.break_connection(node),
                927..=936 => self.read_somewhere(node),
                937..=941 => self.crash(node),
                942..=945 => self.change_members(),
                946..=949 => self.nodes[node].log.hold_sealing(self.rng.chance(60)),
                950..=955 => self.set_full(node),
                956..=957 => self.fail_something(node),
                958..=967 => self.nodes[node].save_now(),
                968..=972 => self.answer(node),
                973..=977 => self.check_node(node),
                978..=983 => self.rush(node),
                984..=988 => self.overthrow(),
                989..=990 => self.rebuild(node),
                _ => {
                    if self.leader().is_none() {
                        self.elect(node);
                    }
                }
            }
            self.take_outcomes();
            if self.nodes[node].log.poisoned().is_some() && self.rng.chance(20) {
                self.crash(node);
            }
        }
        self.heal();
    }

    /// A while in which all goes well for one leader, and often without one of the others.
    fn rush(&mut self, leader: usize) {
        let absent = (leader + 1 + self.rng.below(4) as usize) % (NODES + 1);
        for _ in 0..self.rng.below(120) {
            self.now_ms += 1;
            self.stage();
            for node in (0..NODES).filter(|node| *node != absent) {
                self.tick(node);
                self.complete_one(node);
                self.complete_one(node);
                self.replicate(node);
                self.answer(node);
                for to in (0..NODES).filter(|to| *to != absent) {
                    self.deliver(node, to);
                }
                self.advance_commit(node);
            }
            self.take_outcomes();
        }
    }

    /// A leader has its writes on the way and has told nobody, when another is elected and sends it other batches.
    fn overthrow(&mut self) {
        let Some(old) = self.leader() else { return };
        for _ in 0..1 + self.rng.below(5) {
            self.stage();
            self.submit(old);
            self.take_outcomes();
        }
        (0..NODES).filter(|node| *node != old).for_each(|node| self.reset_link(old, node));
        let new = (old + 1 + self.rng.below(NODES as u64 - 1) as usize) % NODES;
        self.elect(new);
        for _ in 0..self.rng.below(20) {
            self.stage();
            self.submit(new);
            self.replicate(new);
            self.deliver(new, old);
            self.deliver(old, new);
            self.submit(old);
            if self.rng.chance(10) {
                self.complete_one(old);
            }
            self.take_outcomes();
        }
    }

    // A leader's part

    fn leader(&mut self) -> Option<usize> {
        let leaders: Vec<usize> = (0..NODES).filter(|nth| self.nodes[*nth].leading.is_some()).collect();
        (!leaders.is_empty()).then(|| leaders[self.rng.below(leaders.len() as u64) as usize])
    }

    fn stage(&mut self) {
        let Some(leader) = self.leader() else { return };
        let count = if self.rng.chance(60) { 1 } else { 1 + self.rng.below(4) };
        let mut group = Vec::new();
        for _ in 0..count {
            let queue = match self.rng.below(QUEUES + 1) {
                QUEUES => QueueKey::CONTROL,
                queue => QueueKey(queue),
            };
            self.next_id += 1;
            let len = if self.rng.chance(10) { 1 + self.rng.below(9000) } else { 9 + self.rng.below(500) };
            group.push((queue, Numbered { id: self.next_id, len: len as u32 }));
        }
        let node = &mut self.nodes[leader];
        let term = node.term();
        match node.log.stage(group.iter().map(|(queue, record)| record.append(*queue))) {
            Ok(staged) => {
                for (nth, (queue, record)) in group.into_iter().enumerate() {
                    let ticket = staged.first_ticket.0 + nth as u64;
                    let before = node.waiting.insert(ticket, (queue, record, term));
                    assert!(before.is_none(), "ticket {ticket} was given twice");
                }
            }
            Err(AppendRefused::NotLeader) => panic!("node {leader} leads"),
            Err(AppendRefused::Poisoned(_)) => assert!(node.log.poisoned().is_some()),
            Err(_) => {}
        }
    }

    fn change_members(&mut self) {
        let Some(leader) = self.leader() else { return };
        let body = self.rng.next_u64().to_le_bytes();
        let sealed = self.nodes[leader].log.seal_configuration(&body, self.now_ms, SimDisk::alloc);
        assert!(sealed.is_ok() || self.nodes[leader].log.poisoned().is_some());
    }

    /// Whoever may be elected by a majority is, if it likes.
    fn elect(&mut self, candidate: usize) {
        let last = |node: &Node| (node.log.last_term(), node.log.last_index());
        let standing = last(&self.nodes[candidate]);
        if self.nodes[candidate].is_away() || self.nodes[candidate].log.poisoned().is_some() {
            return;
        }
        let term = self.nodes.iter().map(Node::term).max().expect("there are nodes").next();
        let others: Vec<usize> = (0..NODES).filter(|nth| *nth != candidate).collect();
        let grants = others.into_iter().filter(|nth| {
            let node = &self.nodes[*nth];
            !node.is_away() && standing >= last(node)
        });
        let grants: Vec<usize> = grants.filter(|_| self.rng.chance(80)).collect();
        if grants.is_empty() {
            return;
        }
        for voter in grants.into_iter().chain([candidate]) {
            self.join(voter, term);
        }
        let node = &mut self.nodes[candidate];
        let next = node.log.last_index().next();
        node.leading = Some(Leading { next: [next; NODES], matched: Default::default() });
        node.proposed = node.log.last_index();
        node.log.lead(term);
        assert_eq!(node.log.seal_noop(self.now_ms, SimDisk::alloc), Ok(next));
        self.tally.count("leader elected");
    }

    fn join(&mut self, node: usize, term: Term) {
        let deposed = self.nodes[node].join(term, &mut self.tally);
        self.tally.count_many("leader deposed", u64::from(deposed));
    }

    /// Sends some batches to somebody.
    fn replicate(&mut self, leader: usize) {
        let to = (leader + 1 + self.rng.below(NODES as u64 - 1) as usize) % NODES;
        let (bytes_max, count_max) = (self.rng.below(60_000), 1 + self.rng.below(5));
        let node = &mut self.nodes[leader];
        let Some(leading) = &node.leading else { return };
        if self.links.is_full(leader, to) {
            return;
        }
        let next = leading.next[to];
        if next < node.log.first_index() {
            if !std::mem::replace(&mut node.is_checkpoint_asked, true) {
                node.disk.submit(DiskOp::TakeCheckpoint(node.log.checkpoint_job(OpId(0))));
            }
            return;
        }
        // What was sealed and not proposed is not sent.
        let count_max = count_max.min((node.proposed.0 + 1).saturating_sub(next.0)) as usize;
        let list = loop {
            let list = node.log.batches_from(next, bytes_max, count_max);
            match list.fault {
                Some(fault) => node.load(fault),
                None => break list,
            }
        };
        let bytes: Vec<u8> = list.runs.iter().flat_map(|run| node.bytes(run)).collect();
        let mut rest = &bytes[..];
        let batches = list.batches.iter().map(|(_, len)| {
            let (batch, behind) = rest.split_at(*len as usize);
            rest = behind;
            batch.to_vec()
        });
        let batches: Vec<Vec<u8>> = batches.collect();
        assert!(rest.is_empty());
        let prev = BatchIndex(next.0 - 1);
        let prev_term = node.log.term_of(prev).expect("the batch in front of the next");
        assert_eq!(prev_term, list.prev_term);
        let (term, commit) = (node.term(), node.log.committed_index());
        let leading = node.leading.as_mut().expect("looked at above");
        leading.next[to] = BatchIndex(next.0 + batches.len() as u64);
        self.links.send(leader, to, term, Message::Append { prev, prev_term, batches, commit });
    }

    /// Commits what a majority has persisted.
    fn advance_commit(&mut self, leader: usize) {
        let node = &mut self.nodes[leader];
        let Some(leading) = &node.leading else { return };
        let mut persisted = leading.matched;
        persisted[leader] = node.log.persisted_index();
        persisted.sort_unstable_by_key(|index| Reverse(*index));
        let (own, majority) = (node.log.persisted_index(), persisted[NODES / 2]);
        node.promise(own);
        if node.log.term_of(majority) == Some(node.term()) {
            node.log.commit_to(majority);
            self.take_outcomes();
        }
    }

    // What is said

    fn deliver_somewhere(&mut self) {
        let (from, to) = (self.rng.below(NODES as u64) as usize, self.rng.below(NODES as u64) as usize);
        self.deliver(from, to);
    }

    fn deliver(&mut self, from: usize, to: usize) {
        let Some((term, message)) = self.links.next(from, to) else { return };
        if self.nodes[to].is_away() {
            return;
        }
        if term < self.nodes[to].term() {
            let missing = Message::Missing(BatchIndex(0));
            return self.links.send(to, from, self.nodes[to].term(), missing);
        }
        self.join(to, term);
        match message {
            Message::Append { prev, prev_term, batches, commit } => {
                let answer = self.take_append(to, prev, prev_term, &batches, commit);
                self.links.send(to, from, term, answer);
            }
            Message::Matched(index) => {
                let Some(leading) = &mut self.nodes[to].leading else { return };
                leading.matched[from] = leading.matched[from].max(index);
                leading.next[from] = leading.next[from].max(index.next());
            }
            Message::Missing(index) => {
                let Some(leading) = &mut self.nodes[to].leading else { return };
                let next = leading.next[from].min(index.next());
                leading.next[from] = next.max(leading.matched[from].next());
                self.tally.count("batch sent again");
            }
            Message::Checkpoint(checkpoint) => {
                let node = &mut self.nodes[to];
                let start = checkpoint.start;
                let has_it = node.log.term_of(start.index) == Some(start.term);
                if has_it || node.log.committed_index() >= start.index || node.log.poisoned().is_some() {
                    return;
                }
                node.log.pause(true);
                node.checkpoint = Some(checkpoint);
                node.poll_reset();
            }
        }
    }

    fn take_append(
        &mut self,
        to: usize,
        prev: BatchIndex,
        prev_term: Term,
        batches: &[Vec<u8>],
        commit: BatchIndex,
    ) -> Message {
        let node = &mut self.nodes[to];
        assert!(node.leading.is_none(), "two leaders of term {}", node.term());
        let committed = node.log.committed_index();
        if prev > committed && node.log.term_of(prev) != Some(prev_term) {
            let last = node.log.last_index();
            return Message::Missing(last.min(BatchIndex(prev.0 - 1)).max(committed));
        }
        let mut verified = prev;
        for bytes in batches {
            let mut buffer = SimDisk::alloc(bytes.len());
            buffer.as_mut().copy_from_slice(bytes);
            let batch: ForeignBatch<AlignedBuffer> = ForeignBatch::verify(buffer, GROUP).unwrap();
            self.owed.see(bytes);
            let node = &mut self.nodes[to];
            let index = batch.index();
            assert_eq!(index, verified.next());
            if index > committed && node.log.term_of(index) != Some(batch.term()) {
                if index <= node.log.last_index() {
                    self.cut(to, index);
                }
                match self.nodes[to].log.append_foreign(batch) {
                    Ok(()) => self.tally.count("foreign batch taken"),
                    Err(ForeignRefused::Busy { .. }) => {
                        self.tally.count("foreign batch refused as busy");
                        break;
                    }
                    Err(ForeignRefused::Poisoned(_) | ForeignRefused::IndexFull { .. }) => break,
                    Err(refused) => panic!("{refused}"),
                }
            }
            verified = index;
        }
        let node = &mut self.nodes[to];
        node.verified = node.verified.max(verified);
        node.log.commit_to(commit.min(verified));
        self.take_outcomes();
        self.matched(to)
    }

    fn matched(&mut self, node: usize) -> Message {
        let node = &mut self.nodes[node];
        let matched = node.verified.min(node.log.persisted_index());
        node.promise(matched);
        Message::Matched(matched)
    }

    fn cut(&mut self, node: usize, index: BatchIndex) {
        let node = &mut self.nodes[node];
        if node.log.poisoned().is_some() {
            return;
        }
        let end_before = node.log.marks().appended;
        self.tally.count_many("batch cut off and durable", u64::from(node.log.durable_index() >= index));
        node.log.truncate_from(index);
        self.tally.count("batch cut off");
        let end = node.log.marks().appended;
        let segments = [end, end_before].map(|end| end.0.saturating_sub(1) / node.config.segment_bytes);
        self.tally.count_many("log cut back over a segment", u64::from(segments[0] < segments[1]));
        node.on_cut(index, &mut self.tally);
    }

    /// Tells the leader what was persisted meanwhile.
    fn answer(&mut self, from: usize) {
        let term = self.nodes[from].term();
        let leader = self.nodes.iter().position(|node| node.leading.is_some() && node.term() == term);
        let Some(leader) = leader.filter(|leader| *leader != from) else { return };
        if !self.nodes[from].is_away() && !self.links.is_full(from, leader) {
            let matched = self.matched(from);
            self.links.send(from, leader, term, matched);
        }
    }

    fn break_connection(&mut self, one: usize) {
        let other = (one + 1) % NODES;
        self.tally.count("connection broken");
        self.reset_link(one, other);
    }

    fn reset_link(&mut self, one: usize, other: usize) {
        self.links.reset(one, other);
        for (leader, to) in [(one, other), (other, one)] {
            if let Some(leading) = &mut self.nodes[leader].leading {
                leading.next[to] = leading.matched[to].next();
            }
        }
    }

    // Disks

    fn submit(&mut self, nth: usize) {
        let node = &mut self.nodes[nth];
        while let Some(op) = node.log.poll_op(self.now_ms, SimDisk::alloc) {
            if let DiskOp::Write { id, segment, position, buffer, len, index } = &op {
                self.owed.see(&(**buffer).as_ref()[..*len as usize]);
                let base = segment.plus(*position);
                node.on_write(*id, *index, base, base.plus((*len).into()));
            }
            node.disk.submit(op);
        }
        node.count_waiting(&mut self.tally);
        // Whoever proposes may come too late.
        if node.leading.is_some() && self.rng.chance(85) {
            node.propose();
        }
        node.poll_reset();
    }

    fn complete_one(&mut self, nth: usize) {
        let node = &mut self.nodes[nth];
        match node.complete_one() {
            None => {}
            Some(Completion::CheckpointTaken { result, .. }) => {
                node.is_checkpoint_asked = false;
                let (Ok(checkpoint), Some(leading)) = (result, &mut node.leading) else { return };
                for to in (0..NODES).filter(|to| *to != nth) {
                    if leading.next[to] < checkpoint.start.index.next() && !self.links.is_full(nth, to) {
                        leading.next[to] = checkpoint.start.index.next();
                        let message = Message::Checkpoint(checkpoint.clone());
                        self.links.send(nth, to, node.state.term, message);
                    }
                }
            }
            Some(Completion::ResetDone { result, .. }) => match result {
                Ok(done) => self.on_reset(nth, *done),
                Err(_) => self.crash(nth),
            },
            Some(Completion::Rebuilt { result: Ok(Rebuilt { at, state }), .. }) => {
                let control = self.owed.control_before(at);
                assert_eq!(control_state(state).records(), control, "node {nth}: state made anew, at {at}");
                self.tally.count("state made anew");
            }
            // What it is made of may have left meanwhile, or gone with a log that was begun anew.
            Some(Completion::Rebuilt { result: Err(_), .. }) => {}
            Some(other) => panic!("{other:?}"),
        }
        self.nodes[nth].poll_reset();
    }

    /// As a leader does that steps down.
    fn rebuild(&mut self, nth: usize) {
        let node = &self.nodes[nth];
        if !node.is_away() && node.log.poisoned().is_none() {
            node.disk.submit(DiskOp::Rebuild(node.log.rebuild_job(OpId(0))));
        }
    }

    fn on_reset(&mut self, nth: usize, mut done: ResetDone) {
        let derived = control_state(std::mem::replace(&mut done.derived, Box::new(())));
        let at = done.snapshot.unwrap_or(LogOffset(0));
        assert_eq!(derived.records(), self.owed.control_before(at), "state as of {at}");
        self.nodes[nth].on_reset(done);
        self.take_outcomes();
        self.tally.count("log begun anew");
        self.check_node(nth);
    }

    fn tick(&mut self, nth: usize) {
        let node = &mut self.nodes[nth];
        if node.is_away() {
            return;
        }
        node.log.on_tick();
        if self.rng.chance(50) {
            node.log.on_space(node.disk.space());
        }
        while let Some(event) = node.log.take_event() {
            self.tally.count_many("segment left", u64::from(matches!(event, LogEvent::Left { .. })));
            self.tally.count_many("poisoned", u64::from(matches!(event, LogEvent::Poisoned(_))));
        }
        self.submit(nth);
    }

    fn set_full(&mut self, nth: usize) {
        let is_full = self.rng.chance(50);
        self.tally.count_many("disk full", u64::from(is_full));
        self.nodes[nth].disk.set_full(is_full);
    }

    fn fail_something(&mut self, nth: usize) {
        let node = &self.nodes[nth];
        let failing = [Failing::Writes, Failing::Syncs, Failing::Preparations, Failing::SyncsForGood];
        // With asynchronous durability a sync that loses what was written is a loss of power.
        let kinds = if node.config.durability == Durability::Sync { 4 } else { 3 };
        node.disk.fail(failing[self.rng.below(kinds) as usize], 1);
    }

    fn crash(&mut self, nth: usize) {
        self.tally.count("crash");
        for other in (0..NODES).filter(|other| *other != nth) {
            self.reset_link(nth, other);
        }
        let node = &mut self.nodes[nth];
        node.disk.set_full(false);
        for failing in Failing::ALL {
            node.disk.fail(failing, 0);
        }
        let is_sync = node.config.durability == Durability::Sync;
        let mut end =
            |disk: &SimDisk| if is_sync && self.rng.chance(60) { disk.crash() } else { disk.kill() };
        end(&node.disk);
        while self.rng.chance(15) {
            node.disk.die_after(self.rng.below(40));
            self.tally.count_many("recovery interrupted", u64::from(node.recover().is_err()));
            let mut end =
                |disk: &SimDisk| if is_sync && self.rng.chance(60) { disk.crash() } else { disk.kill() };
            end(&node.disk);
        }
        node.check_files();
        let (recovered, derived) = node.recover().unwrap_or_else(|error| panic!("node {nth}: {error}"));
        assert!(recovered.damage.is_none(), "node {nth}: {:?}", recovered.damage);
        assert!(!recovered.state.recovering, "node {nth} is recovering");
        assert!(recovered.state.term >= node.state.term || node.is_resetting, "a term was forgotten");
        let control = self.owed.control_before(recovered.state_at);
        assert_eq!(derived.records(), control, "node {nth}: state at {}", recovered.state_at);
        self.tally.count_many("recovered with uncommitted batches", u64::from(recovered.uncommitted > 0));
        node.reopen(recovered);
        node.check_promise();
        self.check_node(nth);
    }

    // Outcomes

    fn take_outcomes(&mut self) {
        for nth in 0..NODES {
            while let Some(failed) = self.nodes[nth].log.take_failed() {
                let situation = match &failed.cause {
                    FailureCause::NoSpace(_) => "ticket failed: no space",
                    FailureCause::Poisoned(_) => "poisoned",
                    FailureCause::NotLeader => "ticket failed: another led",
                    FailureCause::Overwritten => "ticket failed: overwritten",
                    FailureCause::BegunAnew => "ticket failed: begun anew",
                };
                self.tally.count(situation);
                for ticket in failed.first_ticket.0..failed.first_ticket.0 + failed.count {
                    let gone = self.nodes[nth].waiting.remove(&ticket);
                    let (_, record, _) = gone.unwrap_or_else(|| panic!("ticket {ticket} ends twice"));
                    if matches!(failed.cause, FailureCause::NoSpace(_)) {
                        self.owed.deny(record.id);
                    }
                }
            }
            while let Some(committed) = self.nodes[nth].log.take_committed() {
                self.on_committed(nth, &committed);
            }
        }
    }

    fn on_committed(&mut self, nth: usize, committed: &Committed<AlignedBuffer>) {
        let node = &mut self.nodes[nth];
        let index = committed.index;
        if node.told > index {
            panic!("node {nth}: batch {index} is told twice, {} is next", node.told);
        }
        assert_eq!(node.told, index, "node {nth}: batches are told in order");
        node.told = index.next();
        let bytes = node.batch(index).expect("a committed batch is there");
        let is_ahead = index > node.log.durable_index();
        self.tally.count_many("committed before it was durable here", u64::from(is_ahead));
        if self.owed.commit(index, bytes) {
            self.tally.count("batch committed");
            let owed = self.owed.batch(index);
            let holders = self.nodes.iter().filter(|node| node.holds(owed.base, &owed.bytes)).count();
            assert!(holders > NODES / 2, "batch {index} is committed and durable on {holders} nodes");
        }
        let owed = self.owed.batch(index);
        assert_eq!((committed.kind, committed.term), (owed.kind, owed.term));
        assert_eq!(committed.batch_bytes as usize, owed.bytes.len());
        let node = &mut self.nodes[nth];
        if committed.places.is_empty() {
            let told = committed.control.iter();
            let told: Vec<_> =
                told.map(|control| (control.log_offset, control.bytes.as_ref().to_vec())).collect();
            assert_eq!(told, self.owed.told(index));
            let is_change = committed.kind == BatchKind::Configuration;
            assert!(told.len() == 1 || !is_change);
            self.tally.count_many("change of members committed", u64::from(is_change));
        }
        for (nth_record, place) in committed.places.iter().enumerate() {
            let ticket = committed.first_ticket.0 + nth_record as u64;
            let waiting = node.waiting.remove(&ticket);
            let (queue, record, term) = waiting.unwrap_or_else(|| panic!("ticket {ticket} ends twice"));
            assert_eq!(term, committed.term);
            let found = &self.owed.records(queue)[place.queue_offset.0 as usize];
            assert_eq!((found.log_offset, found.index), (place.log_offset, index));
            assert!(found.bytes == record.bytes(place.log_offset, place.queue_offset), "another record");
            assert!(!self.owed.is_denied(record.id), "record {} was denied", record.id);
            self.tally.count("ticket committed");
            let led_on = node.leading.is_some() && node.state.term == term;
            self.tally.count_many("ticket committed after its leadership", u64::from(!led_on));
        }
        let first = node.waiting.keys().next();
        let end = committed.first_ticket.0 + committed.places.len() as u64;
        let is_behind = first.is_none_or(|first| *first >= end);
        assert!(is_behind, "node {nth}: ticket {first:?} was passed over by {end}");
    }

    // Comparisons

    fn read_somewhere(&mut self, nth: usize) {
        let node = &mut self.nodes[nth];
        let queue = QueueKey(self.rng.below(QUEUES));
        let committed = node.log.committed_index();
        let records = self.owed.records(queue);
        let visible = records.partition_point(|record| record.index <= committed) as u64;
        assert_eq!(node.log.max_offset(queue).0, visible, "node {nth}, queue {queue}");
        assert!(node.log.tail_offset(queue).0 >= visible);
        let min = node.log.min_offset(queue).0;
        if min >= visible {
            return;
        }
        let from = QueueOffset(min + self.rng.below(visible - min));
        let limits = ReadLimits { messages_max: 20, bytes_max: 1 << 20, examine_max: 20 };
        let plan = loop {
            let plan = node.log.plan_read(queue, from, limits, |_| true);
            match plan.fault {
                Some(fault) => node.load(fault),
                None => break plan,
            }
        };
        let got: Vec<u8> = plan.runs.iter().flat_map(|run| node.bytes(run)).collect();
        let owed = &records[from.0 as usize..][..plan.messages as usize];
        let owed: Vec<u8> = owed.iter().flat_map(|record| record.bytes.clone()).collect();
        assert!(got == owed && plan.messages > 0, "node {nth}: other bytes of queue {queue} from {from}");
        self.tally.count("records read");
    }

    /// All that a node has is what the group has.
    fn check_node(&mut self, nth: usize) {
        let node = &self.nodes[nth];
        let committed = node.log.committed_index();
        assert!(committed <= self.owed.last(), "node {nth} committed {committed} by itself");
        let start = node.log.before_first();
        assert_eq!(start.base_offset, node.log.start());
        for index in (start.index.0 + 1..=node.log.last_index().0).map(BatchIndex) {
            let bytes = node.batch(index).expect("a batch from the first to the last");
            if index > committed {
                self.owed.see(&bytes);
                continue;
            }
            let owed = self.owed.batch(index);
            assert!(bytes == owed.bytes, "node {nth}: batch {index} is another");
            if index <= node.log.settled().0 {
                assert!(node.holds(owed.base, &owed.bytes), "node {nth}: batch {index} is not on the disk");
            }
        }
        if start.index.0 > 0 && start.index <= self.owed.last() {
            assert_eq!(self.owed.batch(start.index).term, start.term);
        }
    }

    /// Everything works from now on: one leader brings all to the same end.
    fn heal(&mut self) {
        for nth in 0..NODES {
            self.nodes[nth].disk.set_full(false);
            for failing in Failing::ALL {
                self.nodes[nth].disk.fail(failing, 0);
            }
            if self.nodes[nth].log.poisoned().is_some() {
                self.crash(nth);
            }
            self.nodes[nth].log.hold_sealing(false);
        }
        for step in 0..HEALING_STEPS {
            if step % 1000 == 0 {
                let best =
                    |nth: &usize| (self.nodes[*nth].log.last_term(), self.nodes[*nth].log.last_index());
                let candidate = (0..NODES).max_by_key(best).expect("there are nodes");
                self.elect(candidate);
            }
            self.now_ms += 1;
            for nth in 0..NODES {
                self.nodes[nth].log.on_tick();
                self.submit(nth);
                self.nodes[nth].propose_if_leading();
                self.complete_one(nth);
                self.replicate(nth);
                self.answer(nth);
                if self.nodes[nth].log.poisoned().is_some() {
                    self.crash(nth);
                }
                for to in 0..NODES {
                    self.deliver(nth, to);
                }
                self.advance_commit(nth);
            }
            self.take_outcomes();
            if self.is_healed() {
                (0..NODES).for_each(|nth| self.check_node(nth));
                return;
            }
        }
        let states = self.nodes.iter().map(|node| {
            let log = &node.log;
            (node.term(), log.first_index(), log.committed_index(), log.last_index(), node.waiting.len())
        });
        panic!("the group finds no rest: {:?}", states.collect::<Vec<_>>());
    }

    fn is_healed(&self) -> bool {
        let Some(leader) = self.nodes.iter().max_by_key(|node| node.term()).filter(|it| it.leading.is_some())
        else {
            return false;
        };
        let last = leader.log.last_index();
        leader.log.last_term() == leader.term()
            && self.nodes.iter().all(|node| {
                let is_level = node.log.last_index() == last && node.log.settled().0 == last;
                is_level && node.waiting.is_empty() && !node.is_away() && node.log.is_idle()
            })
    }
}

fn control_state(state: Box<dyn DerivedState + Send>) -> ControlState {
    let state: Box<dyn std::any::Any> = state;
    *state.downcast().expect("what the disk was told to make")
}
