//! What consensus costs per batch: the processor time of a leader's and a follower's replica, without disk and network.
//!
//! Three nodes in one thread, each a `Replica` over a `CommitLog` on a disk in memory. Only the replica's own calls are
//! timed, less what reading the clock takes. In them is what the log does for them: a follower verifies each batch and takes
//! its records in. Not in them: sealing, the disk, bytes on the wire.
//!
//! A node calls its replica as often as a running one does: in one turn it hears all that one connection holds, or one answer
//! of its disk, or one batch is staged; at the end of the turn it asks the replica and the log in turns until both want
//! nothing. The batches of a round are staged one behind the other before anybody is heard: a lone one shows what waiting for
//! each costs, several show a busy shard.
//!
//! `cargo bench -p apogee --bench consensus`. As a test it does little and checks that all nodes commit all.

use std::hint::black_box;
use std::time::{Duration, Instant};

use apogee::replication::{PeerHello, PeerMessage, Replica, ReplicaAction, ReplicaConfig, Role};
use apogee_storage::sim::SimDisk;
use apogee_storage::{
    AlignedBuffer, Append, CommitLog, CommitRule, Completion, DiskOp, GroupId, GroupState, LogConfig, NodeId,
    Place, QueueKey, Record, Run, recover_group,
};
use smallvec::smallvec;

const GROUP: GroupId = GroupId(1);
const NODES: u64 = 3;

/// Parts that a run is cut into, each of which is measured.
const SLICES: u64 = 20;

struct Bytes(u32);

impl Record for Bytes {
    fn encoded_len(&self) -> u32 {
        self.0
    }

    fn encode(&self, _place: Place, out: &mut [u8]) {
        out.fill(7);
    }
}

struct Node {
    log: CommitLog<AlignedBuffer, Bytes>,
    replica: Replica<AlignedBuffer>,
    disk: SimDisk,
    actions: Vec<ReplicaAction<AlignedBuffer>>,
    spent: Duration,
    calls: u32,
}

impl Node {
    fn new(id: NodeId) -> Node {
        let disk = SimDisk::new(id.0);
        let config = LogConfig {
            commit_rule: CommitRule::Group,
            segment_bytes: 64 << 20,
            reserve_bytes: 0,
            batches_in_flight_max: 64,
            ..LogConfig::new(GROUP, id)
        };
        let mut state = GroupState::new(GROUP, id);
        state.conf.voters = (1..=NODES).map(NodeId).collect();
        let recovered = recover_group(&disk, &config, state, &mut ()).expect("an empty disk");
        let mut log =
            CommitLog::open_group(config, recovered.recovered, SimDisk::alloc).expect("a good config");
        let config = ReplicaConfig { preferred_leaders: false, ..ReplicaConfig::new(id, 0) };
        let replica = Replica::open(config, recovered.state, &mut log, 0);
        Node { log, replica, disk, actions: Vec::new(), spent: Duration::ZERO, calls: 0 }
    }

    fn timed<T>(&mut self, call: impl FnOnce(&mut Self) -> T) -> T {
        let begun = Instant::now();
        let result = call(self);
        self.spent += begun.elapsed();
        self.calls += 1;
        result
    }
}

struct Group {
    nodes: Vec<Node>,
    mail: Vec<(NodeId, NodeId, PeerMessage<AlignedBuffer>)>,
    now_ms: i64,
}

impl Group {
    fn new() -> Group {
        let nodes = (1..=NODES).map(|id| Node::new(NodeId(id))).collect();
        let mut group = Group { nodes, mail: Vec::new(), now_ms: 0 };
        for at in 1..=NODES {
            for peer in (1..=NODES).filter(|peer| *peer != at) {
                let hello = PeerHello {
                    cluster: "bench".into(),
                    group: GROUP,
                    shard: 0,
                    node: NodeId(peer),
                    incarnation: 1,
                    format: 1,
                    segment_bytes: 64 << 20,
                    recovering: false,
                    joining: false,
                    term: Default::default(),
                    last_index: Default::default(),
                    committed: Default::default(),
                    client_address: String::new(),
                };
                let node = &mut group.nodes[at as usize - 1];
                node.replica.on_peer_up(hello, &mut node.log, 0);
            }
        }
        group
    }

    fn leader(&self) -> Option<usize> {
        self.nodes.iter().position(|node| matches!(node.replica.role(), Role::Leader { ready: true }))
    }

    /// Until nobody wants anything. The network is faster than the disks here, so that what is on its way to a node is heard
    /// before its own disk answers.
    fn settle(&mut self) {
        loop {
            while self.deliver() {}
            let is_idle = (0..self.nodes.len()).all(|at| !self.complete(at));
            if is_idle {
                break;
            }
        }
    }

    /// A turn of the node that the oldest message is for: all that its connection holds, as one receive gives it.
    fn deliver(&mut self) -> bool {
        let Some(&(from, to, _)) = self.mail.first() else { return false };
        let at = to.0 as usize - 1;
        let now_ms = self.now_ms;
        for (_, _, message) in self.mail.extract_if(.., |mail| (mail.0, mail.1) == (from, to)) {
            self.nodes[at]
                .timed(|node| node.replica.on_message(from, message, &mut node.log, now_ms))
                .expect("a sound peer");
        }
        self.pump(at);
        true
    }

    /// A turn that an answer of the node's disk brings.
    fn complete(&mut self, at: usize) -> bool {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[at];
        match node.disk.step_in_order() {
            None => return false,
            Some(Completion::GroupStateSaved { id, result }) => {
                node.timed(|node| node.replica.on_group_state_saved(id, result, &mut node.log, now_ms));
            }
            Some(completion) => node.log.on_completion(completion),
        }
        self.pump(at);
        true
    }

    /// The end of a turn, with as many calls of the replica as `ShardDriver::pump` makes: one in front of each operation of
    /// the log, and until nothing came of it.
    fn pump(&mut self, at: usize) {
        let now_ms = self.now_ms;
        let own = NodeId(at as u64 + 1);
        let node = &mut self.nodes[at];
        loop {
            node.timed(|node| {
                node.replica.on_log_progress(&mut node.log, now_ms, &mut SimDisk::alloc);
                node.actions.extend(std::iter::from_fn(|| node.replica.take_action()));
            });
            let mut is_idle = node.actions.is_empty();
            for action in node.actions.drain(..) {
                match action {
                    ReplicaAction::Send { to, message } => self.mail.push((own, to, received(message))),
                    ReplicaAction::SaveGroupState { id, state } => {
                        node.disk.submit(DiskOp::SaveGroupState { id, state });
                    }
                    _ => {}
                }
            }
            if let Some(op) = node.log.poll_op(now_ms, SimDisk::alloc) {
                is_idle = false;
                node.disk.submit(op);
            }
            while node.log.take_committed().is_some() {}
            if is_idle {
                break;
            }
        }
    }

    /// Batches that follow each other at once, and all that comes of them.
    fn round(&mut self, leader: usize, batches: u64, record_bytes: u32) {
        for nth in 0..batches {
            let record = Bytes(record_bytes);
            let append = Append { queue: QueueKey(nth % 4), tag_hash: 0, key_hashes: smallvec![], record };
            self.nodes[leader].log.stage([append]).expect("there is room");
            // A turn and a batch of its own.
            self.pump(leader);
        }
        self.settle();
    }

    fn elect(&mut self) -> usize {
        loop {
            self.settle();
            if let Some(leader) = self.leader() {
                return leader;
            }
            self.now_ms += 10;
            let now_ms = self.now_ms;
            for node in &mut self.nodes {
                if node.replica.wake_at_ms() <= now_ms {
                    node.replica.on_tick(&mut node.log, now_ms);
                }
            }
            (0..self.nodes.len()).for_each(|at| self.pump(at));
        }
    }
}

/// What the other side gets: a buffer of its own for each batch.
fn received(message: PeerMessage<Run<AlignedBuffer>>) -> PeerMessage<AlignedBuffer> {
    let mut bytes = Vec::new();
    if let PeerMessage::Append { head, batches } = message {
        let batches = batches.iter().map(|run| {
            let Run::Memory(run) = run else { panic!("what is new is in memory") };
            let mut buffer = SimDisk::alloc(run.range.len());
            buffer.as_mut().copy_from_slice(run.as_ref());
            buffer
        });
        return PeerMessage::Append { head, batches: batches.collect() };
    }
    apogee::replication::codec::encode(&message, &mut bytes);
    let (head, body) = bytes.split_first_chunk().expect("a frame");
    let header = apogee::replication::codec::FrameHeader::decode(head).expect("a frame that was encoded");
    apogee::replication::codec::decode(header, body).expect("a message that was encoded")
}

fn run(batches: u64, per_round: u64, record_bytes: u32) {
    let mut group = Group::new();
    let leader = group.elect();
    let clock = clock_cost();
    let mut of_leader = Vec::new();
    let mut of_followers = Vec::new();
    let rounds = (batches / per_round / SLICES).max(1);
    for _ in 0..SLICES {
        let first = group.nodes[leader].log.last_index().0;
        for node in &mut group.nodes {
            (node.spent, node.calls) = (Duration::ZERO, 0);
        }
        (0..rounds).for_each(|_| group.round(leader, per_round, record_bytes));
        let last = group.nodes[leader].log.last_index().0;
        for (at, node) in group.nodes.iter().enumerate() {
            assert_eq!(node.log.durable_index().0, last, "a node lacks batches");
            let spent = node.spent.saturating_sub(clock * node.calls);
            let micros = spent.as_secs_f64() * 1e6 / (last - first) as f64;
            if at == leader { of_leader.push(micros) } else { of_followers.push(micros) }
        }
    }
    println!(
        "{per_round:>3} batches a round of {record_bytes} bytes: leader {}, follower {} us a batch",
        middle(of_leader),
        middle(of_followers),
    );
    black_box(&group.nodes);
}

/// The median, and between what the middle half lies: other programs on the machine disturb some slices.
fn middle(mut slices: Vec<f64>) -> String {
    slices.sort_by(f64::total_cmp);
    let at = |part: usize| slices[(slices.len() - 1) * part / 4];
    format!("{:.2} ({:.2} to {:.2})", at(2), at(1), at(3))
}

/// What timing nothing takes: a lone batch has some twenty timed calls, many of which find nothing to do.
fn clock_cost() -> Duration {
    let of_many = (0..100_000).map(|_| Instant::now().elapsed());
    of_many.sum::<Duration>() / 100_000
}

fn main() {
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let batches = if is_bench { 50_000 } else { 200 };
    for per_round in [1, 4, 16] {
        run(batches, per_round, 1000);
    }
    run(batches / 10, 4, 60_000);
}
