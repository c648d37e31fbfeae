//! One case: machines, the network between them, and what befalls them, by seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use apogee_storage::format::RawHeader;
use apogee_storage::sim::{Rng, SimDisk};
use apogee_storage::{
    AlignedBuffer, BatchIndex, CheckpointJob, Completion, ConfState, DiskError, DiskOp, IndexFault, NodeId,
    ResetJob, Run, survey_loss,
};

use super::net::{Fate, Net};
use super::node::{BATCH_BYTES_MAX, GROUP, Node, Process, STAGED_BYTES_MAX, Saved, append, member};
use super::oracle::Oracle;
use super::plan::Plan;
use crate::replication::codec::{FRAME_HEADER_LEN, FrameHeader, decode, encode};
use crate::replication::membership::has_vote;
use crate::replication::{ChangeRefused, MemberChange, PeerMessage, ReplicaAction, Role, TransferRefused};

const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;

/// How long everything may take to be well again.
const HEAL_US: u64 = 40 * SECOND;

#[derive(Debug)]
enum Event {
    Tick { node: NodeId, life: u64 },
    Disk { node: NodeId, life: u64 },
    Pages { node: NodeId, life: u64, fault: IndexFault },
    Deliver { from: NodeId, to: NodeId, epoch: u64, frame: Rc<Vec<u8>> },
    Connect { a: NodeId, b: NodeId },
    Break { a: NodeId, b: NodeId, epoch: u64 },
    Append,
    Start { node: NodeId },
    Fault,
    Heal,
}

struct Due {
    at_us: u64,
    seq: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.seq == other.seq
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at_us, self.seq).cmp(&(other.at_us, other.seq))
    }
}

/// What a node has lost, it has again once it has committed up to here.
#[derive(Clone, Copy, Debug)]
struct Damaged {
    node: NodeId,
    upto: u64,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) rng: Rng,
    pub(super) seed: u64,
    pub(super) now_us: u64,
    queue: BinaryHeap<Reverse<Due>>,
    next_seq: u64,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) net: Net,
    pub(super) oracle: Oracle,
    next_record: u64,
    /// Nothing of these is handled before.
    frozen_until_us: BTreeMap<NodeId, u64>,
    pub(super) is_loaded: bool,
    is_healed: bool,
    /// Damaged and not yet whole again: no second one meanwhile.
    damaged: Option<Damaged>,
    /// What was committed is no longer all there.
    is_given_up: bool,
    /// Removed from the group, to be wiped and added anew.
    removed: Option<NodeId>,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan) -> World {
        let mut rng = Rng::new(seed);
        let count = plan.voters + plan.learners + plan.spare;
        let mut nodes = BTreeMap::new();
        for id in (1..=count).map(NodeId) {
            let drift = (plan.drift_percent * 10) as i64;
            let rate = 1000 - drift + rng.below(2 * drift as u64 + 1) as i64;
            let node = Node::new(id, rng.next_u64(), rate, rng.below(1 << 40) as i64);
            node.disk.set_cold([0, 30][rng.below(2) as usize]);
            nodes.insert(id, node);
        }
        let net = Net::new(plan.is_lossy, plan.hiccups, plan.net_us);
        let mut world = World {
            rng,
            seed,
            now_us: 0,
            queue: BinaryHeap::new(),
            next_seq: 0,
            nodes,
            net,
            oracle: Oracle::default(),
            next_record: 0,
            frozen_until_us: BTreeMap::new(),
            is_loaded: true,
            is_healed: false,
            damaged: None,
            is_given_up: false,
            removed: None,
            plan,
        };
        let ids: Vec<NodeId> = world.nodes.keys().copied().collect();
        for (nth, a) in ids.iter().enumerate() {
            let at_us = world.rng.below(50 * MS);
            world.at(at_us, Event::Start { node: *a });
            for b in &ids[nth + 1..] {
                world.at(60 * MS, Event::Connect { a: *a, b: *b });
            }
        }
        world.at(100 * MS, Event::Append);
        world
    }

    pub(super) fn run(&mut self) {
        self.at(2 * SECOND, Event::Fault);
        self.at(2 * SECOND + self.plan.faults_ms * MS, Event::Heal);
        while !self.is_healed {
            self.step();
        }
        let (healed_us, acknowledged) = (self.now_us, self.oracle.acknowledgements);
        self.run_for(3 * SECOND);
        self.is_loaded = false;
        while !self.is_well() {
            assert!(
                self.now_us < healed_us + HEAL_US,
                "not well again after {} s:\n{}",
                HEAL_US / SECOND,
                self.describe()
            );
            self.run_for(100 * MS);
        }
        assert!(
            self.oracle.acknowledgements > acknowledged,
            "no progress after healing:\n{}",
            self.describe()
        );
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        nodes.into_iter().for_each(|node| self.oracle.check_durable(&self.nodes[&node]));
        self.oracle.tally.count("cases");
    }

    pub(super) fn run_for(&mut self, us: u64) {
        let until_us = self.now_us + us;
        while self.queue.peek().is_some_and(|due| due.0.at_us <= until_us) {
            self.step();
        }
        self.now_us = until_us;
    }

    /// Runs until `is_so`, or panics.
    pub(super) fn run_until(&mut self, what: &str, us: u64, is_so: impl Fn(&World) -> bool) {
        let until_us = self.now_us + us;
        while !is_so(self) {
            assert!(self.now_us < until_us, "not in {} ms: {what}\n{}", us / MS, self.describe());
            self.step();
        }
    }

    fn at(&mut self, at_us: u64, event: Event) {
        self.next_seq += 1;
        self.queue.push(Reverse(Due { at_us: at_us.max(self.now_us), seq: self.next_seq, event }));
    }

    fn after(&mut self, us: u64, event: Event) {
        self.at(self.now_us + us, event);
    }

    fn lives(&self, node: NodeId, life: u64) -> bool {
        self.nodes[&node].process.is_some() && self.nodes[&node].life == life
    }

    fn step(&mut self) {
        let Reverse(Due { at_us, event, .. }) = self.queue.pop().expect("something always comes");
        self.now_us = at_us;
        let of = match &event {
            Event::Tick { node, .. } | Event::Disk { node, .. } | Event::Pages { node, .. } => Some(*node),
            Event::Deliver { to, .. } => Some(*to),
            _ => None,
        };
        if let Some(until_us) = of.and_then(|node| self.frozen_until_us.get(&node).copied())
            && at_us < until_us
        {
            // What the sockets hold is handed in before the tick that is late.
            let late = u64::from(matches!(event, Event::Tick { .. }));
            return self.at(until_us + late, event);
        }
        match event {
            Event::Tick { node, life } => {
                if self.lives(node, life) {
                    self.tick(node);
                }
            }
            Event::Disk { node, life } => {
                let stalled_us = self.nodes[&node].stalled_until_us;
                if self.lives(node, life) && self.now_us < stalled_us {
                    self.at(stalled_us, Event::Disk { node, life });
                } else if self.lives(node, life) {
                    self.complete_one(node);
                }
            }
            Event::Pages { node, life, fault } => {
                if self.lives(node, life) {
                    self.load(node, fault);
                }
            }
            Event::Deliver { from, to, epoch, frame } => {
                if self.net.epoch(from, to) == Some(epoch) && self.nodes[&to].process.is_some() {
                    self.deliver(from, to, &frame);
                }
            }
            Event::Connect { a, b } => {
                let pause_us = 50 * MS + self.rng.below(100 * MS);
                self.after(pause_us, Event::Connect { a, b });
                self.connect(a, b);
            }
            Event::Break { a, b, epoch } => {
                if self.net.epoch(a, b) == Some(epoch) {
                    self.disconnect(a, b);
                }
            }
            Event::Append => {
                let pause_us = self.plan.append_pause_us;
                let pause_us = pause_us / 2 + self.rng.below(pause_us);
                self.after(pause_us, Event::Append);
                if self.is_loaded {
                    self.append_at_leaders();
                }
            }
            Event::Start { node } => self.start(node),
            Event::Fault => {
                if !self.is_healed {
                    let pause_us = self.plan.fault_pause_ms * MS;
                    let pause_us = pause_us / 4 + self.rng.below(pause_us * 3 / 2);
                    self.after(pause_us, Event::Fault);
                    self.fault();
                }
            }
            Event::Heal => self.heal(),
        }
        self.oracle.check_leases(&self.nodes, self.now_us);
    }

    // What a process does.

    pub(super) fn start(&mut self, id: NodeId) {
        if self.nodes[&id].process.is_some() {
            return;
        }
        // A connection of an earlier process does not reach this one, whether the other side knows that already or not.
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|node| *node != id).collect();
        others.into_iter().for_each(|other| self.disconnect(id, other));
        let (now_us, seed) = (self.now_us, self.seed);
        let node = self.nodes.get_mut(&id).expect("a node");
        let is_damaged =
            node.start(&self.plan, seed, now_us).unwrap_or_else(|error| panic!("node {id}: {error}"));
        let life = node.life;
        let process = node.process.as_ref().expect("it started");
        if is_damaged {
            assert!(
                self.damaged.is_some_and(|damaged| damaged.node == id),
                "node {id} is damaged, and nothing was done to it"
            );
            assert!(process.replica.group_state().recovering, "node {id} is damaged and not recovering");
            self.oracle.tally.count("damaged logs found");
        }
        let committed = process.committed;
        let known = self.oracle.committed.last_key_value().map_or(0, |(index, _)| *index);
        assert!(committed <= known, "node {id} calls {committed} committed, {known} is");
        self.oracle.check_members_saved(&self.nodes[&id], committed);
        self.oracle.tally.count("starts");
        self.after(MS, Event::Tick { node: id, life });
        self.pump(id);
    }

    fn tick(&mut self, id: NodeId) {
        let now_us = self.now_us;
        let node = self.nodes.get_mut(&id).expect("a node");
        let now_ms = node.now_ms(now_us);
        let process = node.process.as_mut().expect("it runs");
        if now_ms >= process.next_log_tick_ms {
            process.next_log_tick_ms = now_ms + 100;
            process.log.on_tick();
            process.log.on_space(node.disk.space());
        }
        process.replica.on_tick(&mut process.log, now_ms);
        let wake_ms = process.replica.wake_at_ms().min(process.next_log_tick_ms);
        let (at_us, life) = (node.at_us(wake_ms), node.life);
        self.at(at_us.max(now_us + MS), Event::Tick { node: id, life });
        self.pump(id);
        if self.rng.chance(2) {
            self.oracle.check_durable(&self.nodes[&id]);
        }
    }

    fn complete_one(&mut self, id: NodeId) {
        let now_us = self.now_us;
        let node = self.nodes.get_mut(&id).expect("a node");
        let Some(completion) = node.disk.step() else { return };
        let now_ms = node.now_ms(now_us);
        let process = node.process.as_mut().expect("it runs");
        let (log, replica) = (&mut process.log, &mut process.replica);
        match completion {
            Completion::GroupStateSaved { id: op, result } => {
                if result.is_ok() {
                    let saved =
                        apogee_storage::read_group_state(&node.disk, GROUP, id).expect("it was saved");
                    let saved = Saved::of(&saved.expect("it was saved"));
                    let term = saved.term;
                    assert!(
                        term >= node.saved.term,
                        "node {id}: term {term} saved after {}",
                        node.saved.term
                    );
                    node.saved = saved;
                }
                replica.on_group_state_saved(op, result, log, now_ms);
            }
            Completion::ResetDone { id: op, result } => {
                let result = result.map(|done| {
                    node.saved = Saved::of(&done.state);
                    log.reset(&done);
                    process.committed = log.committed_index().0;
                });
                let is_put_off = matches!(result, Err(DiskError::NotBegun { .. }));
                self.oracle.tally.count(if is_put_off { "resets put off" } else { "resets" });
                replica.on_reset(op, result, log, now_ms);
            }
            Completion::CheckpointTaken { id: op, result } => replica.on_checkpoint(op, result, log, now_ms),
            completion => log.on_completion(completion),
        }
        self.pump(id);
    }

    fn load(&mut self, id: NodeId, fault: IndexFault) {
        let now_us = self.now_us;
        let node = self.nodes.get_mut(&id).expect("a node");
        let now_ms = node.now_ms(now_us);
        let process = node.process.as_mut().expect("it runs");
        match fault {
            IndexFault::Cold { segment, range } => {
                if let Some(index) = process.log.sealed_index(segment) {
                    index.load(range).expect("no index is damaged here");
                }
            }
            IndexFault::Damaged { segment, .. } => process.log.on_index_damaged(segment),
        }
        process.replica.on_pages_loaded(&mut process.log, now_ms);
        self.oracle.tally.count("pages loaded");
        self.pump(id);
    }

    pub(super) fn append_at_leaders(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let node = self.nodes.get_mut(&id).expect("a node");
            let Some(process) = &mut node.process else { continue };
            if !matches!(process.replica.role(), Role::Leader { .. }) || process.replica.is_handing_over() {
                continue;
            }
            let count = 1 + self.rng.below(4);
            let queue = self.rng.below(4);
            let len = 16 + self.rng.below(4000) as u32;
            let records: Vec<u64> = (0..count).map(|nth| self.next_record + nth).collect();
            self.next_record += count;
            let appends = records.iter().map(|record| append(*record, queue, len));
            if let Ok(staged) = process.log.stage(appends.collect::<Vec<_>>()) {
                for (nth, record) in records.iter().enumerate() {
                    process.tickets.insert(staged.first_ticket.plus(nth as u64), *record);
                }
            }
            self.pump(id);
        }
    }

    /// Carries out what a process wants until it wants nothing.
    pub(super) fn pump(&mut self, id: NodeId) {
        loop {
            let now_us = self.now_us;
            let node = self.nodes.get_mut(&id).expect("a node");
            let now_ms = node.now_ms(now_us);
            let Some(process) = &mut node.process else { return };
            process.replica.on_log_progress(&mut process.log, now_ms, &mut SimDisk::alloc);
            let mut ops = Vec::new();
            while let Some(op) = process.log.poll_op(now_ms, SimDisk::alloc) {
                ops.push(op);
            }
            let mut actions = Vec::new();
            while let Some(action) = process.replica.take_action() {
                actions.push(action);
            }
            self.take_outcomes(id);
            if ops.is_empty() && actions.is_empty() {
                break;
            }
            ops.into_iter().for_each(|op| self.submit(id, op));
            actions.into_iter().for_each(|action| self.act(id, action));
        }
    }

    fn submit(&mut self, id: NodeId, op: DiskOp<AlignedBuffer>) {
        let mut us = self.plan.disk_us / 2 + self.rng.below(self.plan.disk_us);
        if self.plan.hiccups && self.rng.chance(1) {
            us += self.rng.below(200 * MS);
        }
        let node = self.nodes.get_mut(&id).expect("a node");
        if let DiskOp::Write { .. } = &op {
            let replica = &node.process.as_ref().expect("it runs").replica;
            assert!(
                !matches!(replica.role(), Role::Leader { .. }) || replica.term().0 <= node.saved.term,
                "node {id} writes a batch of its own in term {}, and has saved {}",
                replica.term(),
                node.saved.term
            );
            if let Some(held) = &mut node.held_writes {
                return held.push(op);
            }
        }
        node.disk.submit(op);
        let life = node.life;
        self.after(us, Event::Disk { node: id, life });
    }

    fn take_outcomes(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let process = node.process.as_mut().expect("it runs");
        let mut acknowledged = Vec::new();
        while let Some(committed) = process.log.take_committed() {
            let records = committed.places.len() as u64;
            for nth in 0..records {
                process.tickets.remove(&committed.first_ticket.plus(nth)).expect("a ticket ends once");
            }
            if records > 0 {
                acknowledged.push((committed.index.0, records));
            }
        }
        while let Some(failed) = process.log.take_failed() {
            for nth in 0..failed.count {
                process.tickets.remove(&failed.first_ticket.plus(nth)).expect("a ticket ends once");
            }
            self.oracle.tally.count("failed appends");
        }
        let (before, now) = (process.committed, process.log.committed_index().0);
        assert!(now >= before, "node {id} committed {before}, and now {now}");
        process.committed = now;
        let (uncommitted, limit) = (process.log.uncommitted_bytes(), self.plan.uncommitted_bytes_max);
        if process.log.is_leading() {
            // What is staged already is sealed in one go, in batches of whole blocks.
            let slack = STAGED_BYTES_MAX * 5 / 4;
            assert!(
                uncommitted <= limit + slack,
                "node {id}: {uncommitted} bytes are uncommitted, {limit} may be"
            );
        }
        let (in_flight, limit) = (process.replica.in_flight_bytes_max(), self.plan.window_bytes);
        let slack = 2 * u64::from(BATCH_BYTES_MAX);
        assert!(in_flight <= limit + slack, "node {id}: {in_flight} bytes are on the way, {limit} may be");
        let state = process.replica.group_state();
        if state.recovering && !node.is_in_doubt {
            assert_eq!(process.log.last_index().0, 0, "node {id} doubts what it has");
            self.oracle.tally.count("empty logs doubted");
        }
        node.is_in_doubt = state.recovering;
        self.oracle.on_conf(&state.conf);
        if now > before {
            self.oracle.on_commit(&self.nodes, id, before, now);
        }
        for (index, records) in acknowledged {
            self.oracle.on_acknowledged(index, records);
        }
    }

    fn act(&mut self, id: NodeId, action: ReplicaAction<AlignedBuffer>) {
        match action {
            ReplicaAction::Send { to, message } => self.send(id, to, &message),
            ReplicaAction::SaveGroupState { id: op, state } => {
                self.submit(id, DiskOp::SaveGroupState { id: op, state });
            }
            ReplicaAction::TakeCheckpoint { id: op, start } => {
                let boundary = self.nodes[&id].process.as_ref().expect("it runs").log.boundary();
                let job = CheckpointJob { id: op, group: GROUP, start, boundary };
                self.submit(id, DiskOp::TakeCheckpoint(job));
            }
            ReplicaAction::Reset { id: op, state, checkpoint } => {
                let start = checkpoint.start.index.0;
                assert!(
                    self.oracle.committed.contains_key(&start),
                    "begun anew behind {start}, which is not committed"
                );
                let job = ResetJob { id: op, state: *state, checkpoint: *checkpoint };
                self.submit(id, DiskOp::Reset(Box::new(job)));
            }
            ReplicaAction::RoleChanged(role) => {
                let replica = &self.nodes[&id].process.as_ref().expect("it runs").replica;
                if role == (Role::Leader { ready: false }) {
                    self.oracle.on_leader(replica.term().0, id);
                }
                self.oracle.mix(id.0 << 32 | replica.term().0);
            }
            ReplicaAction::LoadPages { fault } => {
                let life = self.nodes[&id].life;
                let us = self.rng.below(20 * MS);
                self.after(us, Event::Pages { node: id, life, fault });
            }
            ReplicaAction::MembersChanged(_) => {}
            ReplicaAction::Alarm(text) => {
                let is_given_up = self.is_given_up && text.contains("a loss was accepted on another node");
                assert!(is_given_up || !text.contains("cannot be"), "node {id}: {text}\n{}", self.describe());
                let is_disk = text.contains("disk") || text.contains("write") || text.contains("sync");
                let is_loss = text.contains("lost what it had acknowledged");
                let is_checkpoint = text.contains("checkpoint");
                assert!(
                    is_given_up || is_disk || is_loss && self.nodes[&id].is_in_doubt || is_checkpoint,
                    "node {id}: {text}"
                );
                self.oracle.tally.count("alarms");
            }
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: &PeerMessage<Run<AlignedBuffer>>) {
        let node = &self.nodes[&from];
        self.oracle.on_send(node, to, message);
        let Some(epoch) = self.net.epoch(from, to) else { return };
        let mut frame = Vec::new();
        encode(message, &mut frame);
        if let PeerMessage::Append { batches, .. } = message {
            for run in batches {
                match run {
                    Run::Memory(run) => frame.extend_from_slice(run.as_ref()),
                    Run::File(run) => frame.extend_from_slice(&node.disk.read(*run)),
                }
            }
        }
        self.oracle.tally.count("messages");
        let frame = Rc::new(frame);
        match self.net.fate(from, to, message.channel(), self.now_us, &mut self.rng) {
            Fate::Lost => {}
            Fate::Arrives { at_us } => self.at(at_us, Event::Deliver { from, to, epoch, frame }),
            Fate::Twice { at_us, again_us } => {
                self.at(at_us, Event::Deliver { from, to, epoch, frame: Rc::clone(&frame) });
                self.at(again_us, Event::Deliver { from, to, epoch, frame });
            }
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, frame: &[u8]) {
        let (head, rest) = frame.split_first_chunk::<FRAME_HEADER_LEN>().expect("a frame");
        let header = FrameHeader::decode(head).expect("a frame that was encoded");
        let (body, mut bytes) = rest.split_at(header.body_len as usize);
        assert_eq!(bytes.len(), header.batch_bytes as usize);
        let mut message = decode(header, body).expect("a message that was encoded");
        if let PeerMessage::Append { batches, .. } = &mut message {
            while !bytes.is_empty() {
                let len = RawHeader(bytes).verify().expect("whole batches").batch_len();
                let mut buffer = SimDisk::alloc(len);
                buffer.as_mut()[..len].copy_from_slice(&bytes[..len]);
                batches.push(buffer);
                bytes = &bytes[len..];
            }
        }
        let now_us = self.now_us;
        let node = self.nodes.get_mut(&to).expect("a node");
        let now_ms = node.now_ms(now_us);
        let process = node.process.as_mut().expect("it runs");
        let taken = process.replica.on_message(from, message, &mut process.log, now_ms);
        taken.unwrap_or_else(|fault| panic!("node {to} on node {from}: {fault}"));
        self.pump(to);
    }

    // Connections.

    /// Connects these two if they can be.
    pub(super) fn connect(&mut self, a: NodeId, b: NodeId) {
        if self.net.is_cut(a, b) || self.net.is_cut(b, a) || self.net.epoch(a, b).is_some() {
            return;
        }
        if self.nodes[&a].process.is_none() || self.nodes[&b].process.is_none() {
            return;
        }
        self.net.connect(a, b);
        self.oracle.on_met(a, b);
        let (hello_of_a, hello_of_b) = (self.nodes[&a].hello(), self.nodes[&b].hello());
        for (at, hello) in [(a, hello_of_b), (b, hello_of_a)] {
            let now_us = self.now_us;
            let node = self.nodes.get_mut(&at).expect("a node");
            let now_ms = node.now_ms(now_us);
            let process = node.process.as_mut().expect("it runs");
            process.replica.on_peer_up(hello, &mut process.log, now_ms);
        }
        self.pump(a);
        self.pump(b);
    }

    pub(super) fn disconnect(&mut self, a: NodeId, b: NodeId) {
        if !self.net.disconnect(a, b) {
            return;
        }
        for (at, peer) in [(a, b), (b, a)] {
            let now_us = self.now_us;
            let node = self.nodes.get_mut(&at).expect("a node");
            let now_ms = node.now_ms(now_us);
            if let Some(process) = &mut node.process {
                process.replica.on_peer_down(peer, &mut process.log, now_ms);
                self.pump(at);
            }
        }
    }

    // What befalls them.

    /// The process ends, by itself or with the machine's power.
    pub(super) fn end(&mut self, id: NodeId, is_power: bool) {
        let node = self.nodes.get_mut(&id).expect("a node");
        if node.process.take().is_none() {
            return;
        }
        if is_power {
            node.disk.crash()
        } else {
            node.disk.kill()
        }
        node.stalled_until_us = 0;
        node.held_writes = None;
        self.frozen_until_us.remove(&id);
        self.oracle.tally.count("ends");
        let peers: Vec<NodeId> = self.nodes.keys().copied().filter(|peer| *peer != id).collect();
        for peer in peers {
            let Some(epoch) = self.net.epoch(id, peer) else { continue };
            // Without power nobody says good-bye.
            let us = if is_power { self.rng.below(SECOND) } else { 0 };
            match us {
                0 => self.disconnect(id, peer),
                us => self.after(us, Event::Break { a: id, b: peer, epoch }),
            }
        }
    }

    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.net.cut(from, to);
        if let Some(epoch) = self.net.epoch(from, to) {
            let us = 50 * MS + self.rng.below(1500 * MS);
            self.after(us, Event::Break { a: from, b: to, epoch });
        }
    }

    /// Neither hears the other any more.
    pub(super) fn part(&mut self, one: NodeId, other: NodeId) {
        self.cut(one, other);
        self.cut(other, one);
    }

    pub(super) fn leaders(&self) -> Vec<NodeId> {
        let leads = |node: &&Node| {
            node.process.as_ref().is_some_and(|it| matches!(it.replica.role(), Role::Leader { ready: true }))
        };
        self.nodes.values().filter(leads).map(|node| node.id).collect()
    }

    fn random_node(&mut self) -> NodeId {
        let nth = self.rng.below(self.nodes.len() as u64);
        *self.nodes.keys().nth(nth as usize).expect("below their count")
    }

    /// More often the leader than chance would have it.
    fn random_victim(&mut self) -> NodeId {
        match self.leaders().last() {
            Some(leader) if self.rng.chance(50) => *leader,
            _ => self.random_node(),
        }
    }

    fn fault(&mut self) {
        let victim = self.random_victim();
        match self.rng.below(100) {
            0..=19 => {
                let is_power = self.rng.chance(60);
                if self.plan.flips && self.rng.chance(50) {
                    self.damage(victim);
                }
                if self.plan.empties && self.rng.chance(30) && self.may_lose(victim) {
                    self.wipe(victim);
                }
                self.end(victim, is_power);
                let longest_us = [20 * MS, 3 * SECOND][self.rng.below(2) as usize];
                let us = MS + self.rng.below(longest_us);
                self.after(us, Event::Start { node: victim });
            }
            20..=22 => {
                let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
                for id in ids {
                    self.end(id, true);
                    let us = MS + self.rng.below(500 * MS);
                    self.after(us, Event::Start { node: id });
                }
            }
            23..=37 => self.cut_something(victim),
            38..=47 => self.net.heal(),
            48..=57 => {
                let us = self.rng.below(1500 * MS);
                let until_us = self.now_us + us;
                self.nodes.get_mut(&victim).expect("a node").stalled_until_us = until_us;
            }
            58..=65 => {
                let until_us = self.now_us + self.rng.below(1500 * MS);
                self.frozen_until_us.insert(victim, until_us);
            }
            66..=75 => self.transfer(),
            76..=85 => self.change_members(),
            86..=87 => self.nodes[&victim].disk.fail_writes(1),
            88..=89 => self.nodes[&victim].disk.fail_syncs(1),
            90..=91 => self.nodes[&victim].disk.evict_indexes(50),
            92 => {
                self.nodes[&victim].disk.set_full(true);
            }
            93..=94 => self.nodes.values().for_each(|node| node.disk.set_full(false)),
            _ => self.restart_broken(),
        }
    }

    fn cut_something(&mut self, victim: NodeId) {
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|node| *node != victim).collect();
        if others.is_empty() {
            return;
        }
        let other = others[self.rng.below(others.len() as u64) as usize];
        match self.rng.below(4) {
            0 => others.iter().for_each(|other| self.part(victim, *other)),
            1 => others.iter().for_each(|other| self.cut(victim, *other)),
            2 => others.iter().for_each(|other| self.cut(*other, victim)),
            _ => self.part(victim, other),
        }
        self.oracle.tally.count("cuts");
    }

    /// A log that is poisoned, or a group that stopped with it, works again only once its process is started anew.
    fn restart_broken(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(process) = &self.nodes[&id].process else { continue };
            if process.log.poisoned().is_some() || process.replica.role() == Role::Stopped {
                self.end(id, false);
                self.after(MS, Event::Start { node: id });
            }
        }
    }

    fn transfer(&mut self) {
        let Some(leader) = self.leaders().last().copied() else { return };
        let to = self.random_node();
        if self.hand_over(leader, to).is_ok() {
            self.oracle.tally.count("transfers");
        }
    }

    pub(super) fn change(&mut self, leader: NodeId, change: MemberChange) -> bool {
        self.try_change(leader, change).is_ok()
    }

    pub(super) fn try_change(&mut self, leader: NodeId, change: MemberChange) -> Result<(), ChangeRefused> {
        let now_us = self.now_us;
        let node = self.nodes.get_mut(&leader).expect("a node");
        let now_ms = node.now_ms(now_us);
        let process = node.process.as_mut().expect("it runs");
        let begun = process.replica.change_members(change, &mut process.log, now_ms);
        self.pump(leader);
        begun
    }

    fn change_members(&mut self) {
        let is_allowed = self.plan.changes && self.damaged.is_none();
        let Some(leader) = self.leaders().last().copied().filter(|_| is_allowed) else { return };
        if let Some(removed) = self.removed {
            let conf = &self.nodes[&leader].process.as_ref().expect("it runs").replica.group_state().conf;
            if !has_vote(conf, removed) && !conf.learners.contains(&removed) {
                // It comes back with an empty disk.
                self.end(removed, true);
                let (seed, node) = (self.rng.next_u64(), self.nodes.get_mut(&removed).expect("a node"));
                node.disk = SimDisk::new(seed);
                node.incarnation += 1;
                self.oracle.tally.count("wiped nodes");
                self.after(MS, Event::Start { node: removed });
                self.removed = None;
            }
            return;
        }
        let (node, other) = (self.random_node(), self.random_node());
        let change = match self.rng.below(4) {
            0 => MemberChange::AddLearner { node, address: member(node).address },
            1 => MemberChange::Promote { node },
            2 => MemberChange::Remove { node },
            _ => MemberChange::Replace { old: other, new: node },
        };
        let is_removal = matches!(change, MemberChange::Remove { .. });
        if self.change(leader, change) {
            self.oracle.tally.count("changes of members");
            if is_removal && self.rng.chance(50) && self.damaged.is_none() {
                self.removed = Some(node);
            }
        }
    }

    /// Ends a node and empties its disk. It comes back as if it had never been there, with its old number.
    pub(super) fn wipe(&mut self, id: NodeId) {
        let upto = self.durable_index(id);
        self.end(id, true);
        let seed = self.rng.next_u64();
        self.nodes.get_mut(&id).expect("a node").disk = SimDisk::new(seed);
        self.damaged = Some(Damaged { node: id, upto: self.newest_committed() });
        self.oracle.on_emptied(&self.nodes, id, upto);
        self.oracle.tally.count("disks emptied");
    }

    pub(super) fn newest_committed(&self) -> u64 {
        self.oracle.committed.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// Whether a node has all that it ever acknowledged, as far as it knows.
    fn is_whole(&self, id: NodeId) -> bool {
        let process = self.nodes[&id].process.as_ref();
        process.is_some_and(|process| !process.replica.group_state().recovering)
    }

    /// Whether a node may lose something now: the others have to be a majority without it, and whole.
    fn may_lose(&mut self, id: NodeId) -> bool {
        let is_over = |damaged: Damaged| {
            self.is_whole(damaged.node)
                && self.nodes[&damaged.node].process.as_ref().expect("it runs").log.committed_index().0
                    >= damaged.upto
        };
        if self.damaged.is_some_and(is_over) {
            self.damaged = None;
        }
        if self.damaged.is_some() || !self.is_whole(id) {
            return false;
        }
        // Two cannot lose one, and one has nobody to ask; three that are about to be two are as good as these.
        let [leader] = *self.leaders() else { return false };
        let process = self.process(leader);
        let status = process.replica.status(&process.log, self.nodes[&leader].now_ms(self.now_us));
        let voters = &process.replica.group_state().conf.voters;
        // One that comes late to a group at work is as if it had lost everything.
        let is_whole = |voter: NodeId| self.is_whole(voter) && self.durable_index(voter) > 0;
        let whole = voters.iter().filter(|voter| **voter != id && is_whole(**voter)).count();
        status.changing.is_none() && voters.len() >= 3 && whole > voters.len() / 2
    }

    /// Turns a bit of a batch over that the node has said to be committed and durable.
    pub(super) fn damage(&mut self, id: NodeId) {
        if self.may_lose(id) {
            self.turn_bit_over(id);
        }
    }

    /// The same, however many have lost something already.
    pub(super) fn turn_bit_over(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        let saved =
            apogee_storage::read_group_state(&node.disk, GROUP, id).expect("a sound state").expect("it runs");
        let log = &node.process.as_ref().expect("it runs").log;
        let upto = saved.commit.0;
        let from = log.first_index().0.max(upto.saturating_sub(20));
        if from > upto || upto > log.durable_index().0 {
            return;
        }
        // The opening reads the batches of the segments that are not sealed.
        let (bases, sealed) = (node.disk.segment_bases(), node.disk.sealed_bases());
        let places = (from..=upto).filter_map(|index| {
            let place = log.batch_at(BatchIndex(index)).ok()??;
            let segment = *bases.iter().rfind(|base| **base <= place.base_offset)?;
            (!sealed.contains(&segment)).then_some((segment, place))
        });
        let places: Vec<_> = places.collect();
        if places.is_empty() {
            return;
        }
        let (segment, place) = &places[self.rng.below(places.len() as u64) as usize];
        let segment = *segment;
        let position = place.base_offset.0 - segment.0 + self.rng.below(place.len.into());
        node.disk.flip_bit(segment, position, self.rng.below(8) as u8);
        self.damaged = Some(Damaged { node: id, upto: self.newest_committed() });
        self.oracle.tally.count("bits turned over");
    }

    /// A person gives up what a node has lost that does not run. What nobody else has, nobody is asked for any more.
    pub(super) fn accept_loss(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        assert!(node.process.is_none(), "node {id} runs");
        let survey = survey_loss(&node.disk).expect("a log that can be opened").expect("a node of a group");
        survey.accept(&node.disk).unwrap_or_else(|error| panic!("node {id}: {error}"));
    }

    /// What is committed behind this batch is lost for good.
    pub(super) fn give_up_behind(&mut self, index: u64) {
        assert!(index < self.newest_committed(), "nothing is lost");
        self.is_given_up = true;
        self.oracle.on_given_up(index);
    }

    fn heal(&mut self) {
        self.net.heal();
        self.net.is_lossy = false;
        self.is_healed = true;
        self.frozen_until_us.clear();
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let node = self.nodes.get_mut(&id).expect("a node");
            node.stalled_until_us = 0;
            node.disk.set_full(false);
            node.disk.fail_writes(0);
            node.disk.fail_syncs(0);
            // Whoever is broken, or may break by a failure still to come, is started anew.
            self.end(id, false);
            self.after(MS, Event::Start { node: id });
        }
    }

    pub(super) fn set_full(&mut self, id: NodeId, is_full: bool) {
        self.nodes[&id].disk.set_full(is_full);
    }

    /// The disk takes batches and does not write them, while everything else goes on.
    pub(super) fn hold_writes(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).expect("a node").held_writes = Some(Vec::new());
    }

    pub(super) fn release_writes(&mut self, id: NodeId) {
        let held = self.nodes.get_mut(&id).expect("a node").held_writes.take();
        held.expect("writes are held").into_iter().for_each(|op| self.submit(id, op));
    }

    /// The process does nothing for a while, and then takes up all that came.
    pub(super) fn freeze(&mut self, id: NodeId, us: u64) {
        self.frozen_until_us.insert(id, self.now_us + us);
    }

    /// Both directions.
    pub(super) fn cut_between(&mut self, a: NodeId, b: NodeId) {
        self.net.cut(a, b);
        self.net.cut(b, a);
    }

    /// With a connection of its own: what the cut took is missing on the one before.
    pub(super) fn mend_between(&mut self, a: NodeId, b: NodeId) {
        self.net.mend(a, b);
        self.net.mend(b, a);
        self.disconnect(a, b);
        self.connect(a, b);
    }

    pub(super) fn stall(&mut self, id: NodeId, us: u64) {
        let until_us = self.now_us + us;
        self.nodes.get_mut(&id).expect("a node").stalled_until_us = until_us;
    }

    pub(super) fn hand_over(&mut self, from: NodeId, to: NodeId) -> Result<(), TransferRefused> {
        let now_us = self.now_us;
        let node = self.nodes.get_mut(&from).expect("a node");
        let now_ms = node.now_ms(now_us);
        let process = node.process.as_mut().expect("it runs");
        let begun = process.replica.transfer_to(to, &mut process.log, now_ms);
        self.pump(from);
        begun
    }

    // What is seen from outside.

    pub(super) fn process(&self, id: NodeId) -> &Process {
        self.nodes[&id].process.as_ref().expect("it runs")
    }

    pub(super) fn has_lease(&self, id: NodeId) -> bool {
        self.process(id).replica.has_lease(self.nodes[&id].now_ms(self.now_us))
    }

    pub(super) fn first_index(&self, id: NodeId) -> u64 {
        self.process(id).log.first_index().0
    }

    pub(super) fn durable_index(&self, id: NodeId) -> u64 {
        self.process(id).log.durable_index().0
    }

    pub(super) fn lag(&self, leader: NodeId, id: NodeId) -> u64 {
        let last = self.process(leader).log.last_index().0;
        last.saturating_sub(self.process(id).log.durable_index().0)
    }

    pub(super) fn conf(&self, id: NodeId) -> &ConfState {
        &self.process(id).replica.group_state().conf
    }

    pub(super) fn is_recovering(&self, id: NodeId) -> bool {
        self.process(id).replica.group_state().recovering
    }

    fn is_well(&self) -> bool {
        let leaders = self.leaders();
        let [leader] = leaders.as_slice() else { return false };
        let process = self.nodes[leader].process.as_ref().expect("it leads");
        let last = process.log.last_index();
        let conf = &process.replica.group_state().conf;
        let all = conf.voters.iter().chain(&conf.learners).chain(&conf.outgoing);
        conf.outgoing.is_empty()
            && all.into_iter().all(|node| {
                let process = self.nodes[node].process.as_ref();
                process.is_some_and(|it| {
                    it.log.committed_index() == last
                        && it.log.last_index() == last
                        && it.log.durable_index() == last
                        && !it.replica.group_state().recovering
                })
            })
    }

    pub(super) fn describe(&self) -> String {
        let mut out = format!("at {} ms, plan {:?}\n", self.now_us / MS, self.plan);
        for node in self.nodes.values() {
            match &node.process {
                Some(process) => {
                    out += &process.replica.status(&process.log, node.now_ms(self.now_us)).to_string();
                    out += &format!("  waits: {}\n", process.replica.describe_pending());
                }
                None => out += &format!("node {} does not run\n", node.id),
            }
        }
        out
    }
}
