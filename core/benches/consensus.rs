//! What consensus costs per batch: the processor time of a leader's and a follower's replica, without disk and network.
//!
//! Three nodes in one thread, each a `Replica` over a `CommitLog` on a disk in memory. Only the replica's own calls are
//! timed, less what reading the clock takes: `on_log_progress`, `on_message`, `take_action`. In them is what the log does for them: a follower verifies each batch
//! and takes its records in. Not in them: sealing, the disk, bytes on the wire.
//!
//! `cargo bench -p apogee --bench consensus`. As a test it does little and checks that all nodes commit all.

use std::collections::VecDeque;
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
        Node { log, replica, disk, spent: Duration::ZERO, calls: 0 }
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
    mail: VecDeque<(NodeId, NodeId, PeerMessage<AlignedBuffer>)>,
    now_ms: i64,
}

impl Group {
    fn new() -> Group {
        let nodes = (1..=NODES).map(|id| Node::new(NodeId(id))).collect();
        let mut group = Group { nodes, mail: VecDeque::new(), now_ms: 0 };
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

    /// Until nobody wants anything.
    fn settle(&mut self) {
        loop {
            for at in 0..self.nodes.len() {
                self.pump(at);
            }
            let Some((from, to, message)) = self.mail.pop_front() else { break };
            let now_ms = self.now_ms;
            let node = &mut self.nodes[to.0 as usize - 1];
            node.timed(|node| node.replica.on_message(from, message, &mut node.log, now_ms))
                .expect("a sound peer");
        }
    }

    fn pump(&mut self, at: usize) {
        let now_ms = self.now_ms;
        let own = NodeId(at as u64 + 1);
        let node = &mut self.nodes[at];
        loop {
            while let Some(op) = node.log.poll_op(now_ms, SimDisk::alloc) {
                node.disk.submit(op);
            }
            node.timed(|node| node.replica.on_log_progress(&mut node.log, now_ms, &mut SimDisk::alloc));
            let mut is_idle = true;
            while let Some(action) = node.timed(|node| node.replica.take_action()) {
                is_idle = false;
                match action {
                    ReplicaAction::Send { to, message } => self.mail.push_back((own, to, received(message))),
                    ReplicaAction::SaveGroupState { id, state } => {
                        node.disk.submit(DiskOp::SaveGroupState { id, state });
                    }
                    _ => {}
                }
            }
            while let Some(completion) = node.disk.step_in_order() {
                is_idle = false;
                match completion {
                    Completion::GroupStateSaved { id, result } => {
                        node.replica.on_group_state_saved(id, result, &mut node.log, now_ms);
                    }
                    completion => node.log.on_completion(completion),
                }
            }
            while node.log.take_committed().is_some() {}
            if is_idle {
                break;
            }
        }
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
    for node in &mut group.nodes {
        node.spent = Duration::ZERO;
        node.calls = 0;
    }
    let first = group.nodes[leader].log.last_index().0;
    for _ in 0..batches / per_round {
        for nth in 0..per_round {
            let node = &mut group.nodes[leader];
            let record = Bytes(record_bytes);
            let append = Append { queue: QueueKey(nth % 4), tag_hash: 0, key_hashes: smallvec![], record };
            node.log.stage([append]).expect("there is room");
            // A batch of its own.
            let op = node.log.poll_op(group.now_ms, SimDisk::alloc);
            if let Some(op) = op {
                node.disk.submit(op);
            }
        }
        group.settle();
    }
    let last = group.nodes[leader].log.last_index().0;
    let sealed = last - first;
    for node in &group.nodes {
        assert_eq!(node.log.durable_index().0, last, "a node lacks batches");
    }
    let clock = clock_cost();
    let micros = |at: usize| {
        let node = &group.nodes[at];
        (node.spent - clock * node.calls).as_secs_f64() * 1e6 / sealed as f64
    };
    let followers: Vec<f64> = (0..group.nodes.len()).filter(|at| *at != leader).map(micros).collect();
    println!(
        "{per_round:>3} batches a round of {record_bytes} bytes: leader {:.2} us, follower {:.2} us a batch ({sealed} batches)",
        micros(leader),
        followers.iter().sum::<f64>() / followers.len() as f64,
    );
    black_box(&group.nodes);
}

/// What timing nothing takes: a lone batch has some twenty calls, many of which find nothing to do.
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
