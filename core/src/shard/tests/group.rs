//! Three shards of one group in one thread: their disks are in memory, and their links deliver at once, later, or never.

use std::collections::{BTreeSet, VecDeque};

use apogee_net::code::RequestCode;
use apogee_net::command::RequestHead;
use apogee_net::io::ConnectionId;
use apogee_storage::format::{BATCH_HEADER_LEN, RawHeader};
use apogee_storage::sim::SimDisk;
use apogee_storage::{
    AlignedBuffer, CommitRule, ConfState, GroupState, LogConfig, Member, NodeId, Run, read_group_state,
    recover_group,
};

use super::world::{Answered, START_MS, World, log_config, policy, shard_config};
use crate::replication::{PeerMessage, ReplicaConfig};
use crate::shard::control::ControlRecord;
use crate::shard::{ForwardAnswer, ForwardFailed, ForwardId, GroupStart, Replay, Shard};

/// Nodes are numbered from 1.
pub(in crate::shard) const NODES: u64 = 3;

/// Longest that anything in these tests may take.
const PATIENCE_MS: i64 = 20_000;

/// Time passes in steps of this.
const STEP_MS: i64 = 10;

/// A forwarded request comes in on a connection of the node that forwards.
fn connection_of(node: u64) -> ConnectionId {
    ConnectionId(1_000 + node)
}

pub(in crate::shard) struct Group {
    nodes: Vec<World>,
    /// Up to date with what was sent, in order; a message lies here while its link is slow.
    links: Vec<Link>,
    /// Nodes that nobody reaches, and that reach nobody.
    cut: BTreeSet<u64>,
    /// Nodes that do nothing: their process is gone.
    down: BTreeSet<u64>,
    /// Nodes whose disks do nothing.
    stalled: BTreeSet<u64>,
    /// Forwarded requests that are under way: who asked, as what, whom, and the number there.
    asked: Vec<(u64, ForwardId, u64, i32)>,
    next_forward: i32,
    pub(in crate::shard) now_ms: i64,
}

struct Link {
    from: u64,
    to: u64,
    messages: VecDeque<PeerMessage<AlignedBuffer>>,
    is_slow: bool,
}

fn open(disk: &SimDisk, log_config: &LogConfig, now_ms: i64) -> Shard<AlignedBuffer> {
    let node = log_config.node.0;
    let voters: Vec<_> = (1..=NODES).map(NodeId).collect();
    let member = |node: &NodeId| Member { node: *node, address: format!("10.0.0.{node}:10912").into_bytes() };
    let new = GroupState {
        incarnation: node,
        members: voters.iter().map(member).collect(),
        conf: ConfState { voters, ..ConfState::default() },
        segment_bytes: log_config.segment_bytes,
        write_window_bytes: log_config.write_window_bytes,
        ..GroupState::new(log_config.group, NodeId(node))
    };
    let state = read_group_state(disk, log_config.group, NodeId(node)).unwrap().unwrap_or(new);
    let mut replay = Replay::new(policy(), true);
    let recovered = recover_group(disk, log_config, state, &mut replay).unwrap();
    let config = ReplicaConfig { preferred_leaders: false, ..ReplicaConfig::new(NodeId(node), 0) };
    let start = GroupStart { config, recovered };
    let address = format!("127.0.0.{node}:10911").parse().unwrap();
    let log_config = log_config.clone();
    Shard::open_in_group(shard_config(address), log_config, start, replay, now_ms, SimDisk::alloc).unwrap()
}

impl Group {
    /// A group that has just been made, and has no leader yet.
    pub(in crate::shard) fn new() -> Self {
        Self::with(&log_config())
    }

    fn with(log_config: &LogConfig) -> Self {
        let nodes = (1..=NODES).map(|node| {
            let disk = SimDisk::new(node);
            disk.set_new_state(Replay::new_state(policy(), true));
            let log_config =
                LogConfig { node: NodeId(node), commit_rule: CommitRule::Group, ..log_config.clone() };
            World::of(open(&disk, &log_config, START_MS), disk, log_config, START_MS)
        });
        let pairs = (1..=NODES).flat_map(|from| (1..=NODES).map(move |to| (from, to)));
        let links = pairs.filter(|(from, to)| from != to).map(|(from, to)| Link {
            from,
            to,
            messages: VecDeque::new(),
            is_slow: false,
        });
        let mut group = Group {
            nodes: nodes.collect(),
            links: links.collect(),
            cut: BTreeSet::new(),
            down: BTreeSet::new(),
            stalled: BTreeSet::new(),
            asked: Vec::new(),
            next_forward: 1_000_000,
            now_ms: START_MS,
        };
        for node in 1..=NODES {
            group.connect(node);
        }
        group
    }

    /// A group whose first node leads.
    pub(in crate::shard) fn led_by_1() -> Self {
        Self::led_by_1_with(&log_config())
    }

    pub(in crate::shard) fn led_by_1_with(log_config: &LogConfig) -> Self {
        let mut group = Group::with(log_config);
        let leader = group.elect();
        if leader != 1 {
            let now_ms = group.now_ms;
            group.at(leader).shard.transfer_to(NodeId(1), now_ms).unwrap();
            group.until("node 1 leads", |group| group.leader() == Some(1));
        }
        group
    }

    pub(in crate::shard) fn at(&mut self, node: u64) -> &mut World {
        &mut self.nodes[node as usize - 1]
    }

    pub(in crate::shard) fn node(&self, node: u64) -> &World {
        &self.nodes[node as usize - 1]
    }

    fn is_alive(&self, node: u64) -> bool {
        !self.down.contains(&node)
    }

    fn is_linked(&self, from: u64, to: u64) -> bool {
        [from, to].iter().all(|node| self.is_alive(*node) && !self.cut.contains(node))
    }

    /// The node whose clients take it for the master, and which may answer as such.
    pub(in crate::shard) fn leader(&self) -> Option<u64> {
        self.leader_but(0)
    }

    /// Lets time pass until there is a leader.
    pub(in crate::shard) fn elect(&mut self) -> u64 {
        self.until("somebody leads", |group| group.leader().is_some());
        self.leader().unwrap()
    }

    /// Lets time pass until another node leads.
    pub(in crate::shard) fn elect_another(&mut self, than: u64) -> u64 {
        self.until("another node leads", |group| group.leader_but(than).is_some());
        self.leader_but(than).unwrap()
    }

    fn leader_but(&self, excluded: u64) -> Option<u64> {
        let leads = |node: &u64| self.is_alive(*node) && self.node(*node).shard.leads(self.now_ms);
        (1..=NODES).filter(|node| *node != excluded).find(leads)
    }

    pub(in crate::shard) fn until(&mut self, what: &str, is_so: impl Fn(&Group) -> bool) {
        let deadline_ms = self.now_ms + PATIENCE_MS;
        while !is_so(self) {
            assert!(self.now_ms < deadline_ms, "{what}: not within {PATIENCE_MS} ms; {}", self.roles());
            self.pass(STEP_MS);
        }
    }

    fn roles(&self) -> String {
        let role = |node: u64| format!("{node}: {:?}", self.node(node).shard.roles);
        (1..=NODES).map(role).collect::<Vec<_>>().join(", ")
    }

    /// Lets time pass.
    pub(in crate::shard) fn pass(&mut self, ms: i64) {
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            self.now_ms = (self.now_ms + STEP_MS).min(until_ms);
            for node in 1..=NODES {
                let (now_ms, is_alive) = (self.now_ms, self.is_alive(node));
                let world = self.at(node);
                world.now_ms = now_ms;
                if is_alive {
                    world.shard.on_tick(now_ms);
                    world.submit();
                }
            }
            self.settle();
        }
    }

    /// Carries everything on until nothing moves at this moment.
    pub(in crate::shard) fn settle(&mut self) {
        loop {
            let mut moved = false;
            for node in (1..=NODES).filter(|node| !self.down.contains(node)).collect::<Vec<_>>() {
                let is_stalled = self.stalled.contains(&node);
                let world = self.at(node);
                world.submit();
                while !is_stalled && world.step() {
                    moved = true;
                }
                moved |= self.take_sent(node);
                moved |= self.take_forwards(node);
            }
            moved |= self.deliver();
            moved |= self.answer_forwards();
            if !moved {
                return;
            }
        }
    }

    fn take_sent(&mut self, from: u64) -> bool {
        let mut moved = false;
        while let Some((to, message)) = self.at(from).group.to_peers.pop_front() {
            moved = true;
            let message = received(message, &self.node(from).disk);
            if self.is_linked(from, to.0) {
                let link = self.links.iter_mut().find(|link| (link.from, link.to) == (from, to.0)).unwrap();
                link.messages.push_back(message);
            }
        }
        moved
    }

    fn deliver(&mut self) -> bool {
        let mut moved = false;
        for at in 0..self.links.len() {
            if self.links[at].is_slow {
                continue;
            }
            while let Some(message) = self.links[at].messages.pop_front() {
                moved = true;
                let (from, to, now_ms) = (self.links[at].from, self.links[at].to, self.now_ms);
                let world = self.at(to);
                world.shard.on_peer_message(NodeId(from), message, now_ms).unwrap();
                world.submit();
            }
        }
        moved
    }

    fn take_forwards(&mut self, from: u64) -> bool {
        let mut moved = false;
        while let Some((id, to, request)) = self.at(from).group.forwards.pop_front() {
            moved = true;
            if !self.is_linked(from, to.0) {
                self.fail_forward(from, id);
                continue;
            }
            let opaque = self.next_forward;
            self.next_forward += 1;
            let head = RequestHead { code: request.code, opaque, oneway: id.is_none(), ext: &request.ext };
            let peer = format!("127.0.0.{from}:40000").parse().unwrap();
            self.at(to.0).request_of(peer, connection_of(from), head, &request.body);
            self.asked.extend(id.map(|id| (from, id, to.0, opaque)));
        }
        moved
    }

    fn fail_forward(&mut self, from: u64, id: Option<ForwardId>) {
        let now_ms = self.now_ms;
        if let Some(id) = id {
            let world = self.at(from);
            world.shard.on_forwarded(id, Err(ForwardFailed), now_ms);
            world.submit();
        }
    }

    fn answer_forwards(&mut self) -> bool {
        let mut moved = false;
        for (from, id, to, opaque) in std::mem::take(&mut self.asked) {
            let answered = self.is_linked(from, to).then(|| self.at(to).answered.remove(&opaque)).flatten();
            let Some(Answered { code, remark, ext, body }) = answered else {
                // Whoever is cut off says nothing; a dead one's connections close.
                if self.is_alive(to) {
                    self.asked.push((from, id, to, opaque));
                } else if self.is_alive(from) {
                    self.fail_forward(from, Some(id));
                }
                continue;
            };
            if !self.is_alive(from) {
                continue;
            }
            moved = true;
            let remark = Some(remark).filter(|remark| !remark.is_empty());
            let answer = ForwardAnswer { code, remark, ext: ext.into_iter().collect(), body: body.into() };
            let now_ms = self.now_ms;
            let world = self.at(from);
            world.shard.on_forwarded(id, Ok(answer), now_ms);
            world.submit();
        }
        moved
    }

    /// Both sides of each link of a node hear that it is there.
    fn connect(&mut self, node: u64) {
        let now_ms = self.now_ms;
        for other in (1..=NODES).filter(|other| *other != node) {
            if self.is_linked(node, other) {
                for (here, there) in [(node, other), (other, node)] {
                    let hello = self.node(there).shard.peer_hello().unwrap();
                    self.at(here).shard.on_peer_down(NodeId(there), now_ms);
                    self.at(here).shard.on_peer_up(hello, now_ms);
                }
            }
        }
    }

    fn disconnect(&mut self, node: u64) {
        let now_ms = self.now_ms;
        self.links.iter_mut().filter(|link| link.from == node || link.to == node).for_each(|link| {
            link.messages.clear();
            link.is_slow = false;
        });
        for other in (1..=NODES).filter(|other| *other != node) {
            for (here, there) in [(node, other), (other, node)] {
                if self.is_alive(here) {
                    self.at(here).shard.on_peer_down(NodeId(there), now_ms);
                }
            }
        }
    }

    /// Nobody reaches the node any more, nor does it reach anybody; its clients do.
    pub(in crate::shard) fn cut_off(&mut self, node: u64) {
        self.cut.insert(node);
        self.disconnect(node);
    }

    pub(in crate::shard) fn heal(&mut self, node: u64) {
        self.cut.remove(&node);
        self.connect(node);
        self.settle();
    }

    /// The node's process ends without a word, and the machine loses what was not synced.
    pub(in crate::shard) fn kill(&mut self, node: u64) {
        self.down.insert(node);
        self.disconnect(node);
        let world = self.at(node);
        world.disk.crash();
        world.answered.clear();
    }

    pub(in crate::shard) fn restart(&mut self, node: u64) {
        let now_ms = self.now_ms;
        let world = self.at(node);
        world.shard = open(&world.disk, &world.log_config, now_ms);
        world.group = Default::default();
        self.down.remove(&node);
        self.connect(node);
        self.settle();
    }

    /// A client of a node goes away.
    pub(in crate::shard) fn close(&mut self, node: u64, connection: ConnectionId) {
        let now_ms = self.now_ms;
        self.at(node).shard.on_connection_closed(connection, now_ms);
        self.settle();
    }

    /// Messages from one node to another are on their way until [`quicken`](Self::quicken).
    pub(in crate::shard) fn slow_down(&mut self, from: u64, to: u64) {
        let link = self.links.iter_mut().find(|link| (link.from, link.to) == (from, to)).unwrap();
        link.is_slow = true;
    }

    /// A node's disk does nothing until [`quicken`](Self::quicken).
    pub(in crate::shard) fn stall_disk(&mut self, node: u64) {
        self.stalled.insert(node);
    }

    pub(in crate::shard) fn quicken(&mut self) {
        self.stalled.clear();
        self.links.iter_mut().for_each(|link| link.is_slow = false);
        self.settle();
    }

    /// Asks a node over the wire form, and gives the number its reply will carry.
    pub(in crate::shard) fn ask(
        &mut self,
        node: u64,
        from: ConnectionId,
        code: RequestCode,
        ext: &dyn apogee_net::header::WriteExt,
        body: &[u8],
    ) -> i32 {
        let opaque = self.at(node).ask(from, code, ext, body);
        self.settle();
        opaque
    }

    /// Asks a node and waits for the answer.
    pub(in crate::shard) fn asked(
        &mut self,
        node: u64,
        from: ConnectionId,
        code: RequestCode,
        ext: &dyn apogee_net::header::WriteExt,
        body: &[u8],
    ) -> Answered {
        let opaque = self.ask(node, from, code, ext, body);
        self.answer(node, opaque)
    }

    /// Waits for an answer.
    pub(in crate::shard) fn answer(&mut self, node: u64, opaque: i32) -> Answered {
        self.until(&format!("an answer from node {node}"), |group| {
            group.node(node).answered.contains_key(&opaque)
        });
        self.at(node).answered.remove(&opaque).unwrap()
    }

    /// Nodes that run, and those that others reach.
    pub(in crate::shard) fn alive(&self) -> Vec<u64> {
        (1..=NODES).filter(|node| self.is_alive(*node)).collect()
    }

    pub(in crate::shard) fn is_whole(&self) -> bool {
        self.down.is_empty() && self.cut.is_empty()
    }

    /// What was killed runs again, what was cut off is reached again.
    pub(in crate::shard) fn mend(&mut self) {
        for node in self.cut.clone() {
            self.heal(node);
        }
        for node in self.down.clone() {
            self.restart(node);
        }
        self.quicken();
    }

    /// Whether a request is answered already.
    pub(in crate::shard) fn has_answer(&self, node: u64, opaque: i32) -> bool {
        self.node(node).answered.contains_key(&opaque)
    }

    /// Lets everybody get what the leader has, and checks that all have the same.
    pub(in crate::shard) fn agree(&mut self) {
        self.mend();
        self.elect();
        self.pass(2_000);
        let leader = self.leader().expect("a leader of a quiet group");
        let of = |node: u64| {
            let shard = &self.node(node).shard;
            (shard.log.committed_index(), tables_of(shard))
        };
        let expected = of(leader);
        for node in 1..=NODES {
            let (found, tables) = of(node);
            assert_eq!(found, expected.0, "node {node} has another log than node {leader}");
            assert!(tables == expected.1, "node {node} has other tables than node {leader}");
        }
    }
}

/// All tables, as the records that would make them.
fn tables_of(shard: &Shard<AlignedBuffer>) -> Vec<Vec<u8>> {
    let transactions = shard.transactions.table.snapshot().map(ControlRecord::Transaction);
    let of_topics = shard.topics.snapshot().chain(shard.groups.snapshot()).chain(shard.offsets.snapshot());
    let waiting = shard.timers.table.snapshot().chain(transactions).chain(shard.pops.snapshot());
    let rest =
        shard.request_modes.snapshot().chain(shard.forbidden.snapshot()).chain(shard.resets.snapshot());
    let all = of_topics.chain(waiting).chain(rest).chain(shard.settings_changed.snapshot());
    all.map(|record| record.encode()).collect()
}

/// A message as it comes in: batches in memory, one by one.
fn received(message: PeerMessage<Run<AlignedBuffer>>, disk: &SimDisk) -> PeerMessage<AlignedBuffer> {
    match message {
        PeerMessage::Append { head, batches } => {
            let mut bytes = Vec::new();
            for run in batches {
                match run {
                    Run::Memory(run) => bytes.extend_from_slice(run.as_ref()),
                    Run::File(run) => bytes.extend_from_slice(&disk.read(run)),
                }
            }
            let mut left = bytes.as_slice();
            let mut batches = Vec::new();
            while !left.is_empty() {
                let len = RawHeader(&left[..BATCH_HEADER_LEN]).verify().unwrap().batch_len();
                let mut buffer = SimDisk::alloc(len);
                buffer.as_mut()[..len].copy_from_slice(&left[..len]);
                batches.push(buffer);
                left = &left[len..];
            }
            PeerMessage::Append { head, batches }
        }
        PeerMessage::AppendAnswer(answer) => PeerMessage::AppendAnswer(answer),
        PeerMessage::Heartbeat(beat) => PeerMessage::Heartbeat(beat),
        PeerMessage::HeartbeatAnswer(answer) => PeerMessage::HeartbeatAnswer(answer),
        PeerMessage::VoteRequest(request) => PeerMessage::VoteRequest(request),
        PeerMessage::VoteAnswer(answer) => PeerMessage::VoteAnswer(answer),
        PeerMessage::TimeoutNow { term } => PeerMessage::TimeoutNow { term },
        PeerMessage::Reset(head) => PeerMessage::Reset(head),
        PeerMessage::ResetPart(part) => PeerMessage::ResetPart(part),
        PeerMessage::ResetAnswer(answer) => PeerMessage::ResetAnswer(answer),
        PeerMessage::Members(members) => PeerMessage::Members(members),
    }
}
