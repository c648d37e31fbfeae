//! The pipeline on disks that are not at hand: the log's own decisions, driven in virtual time on a disk and an
//! executor that are a handful of numbers. Nothing disturbs it, and two runs say the same.
//!
//! The disk writes one thing after the other at its bandwidth, each answer some time after the bytes are there; a sync
//! begins when it is asked for, behind the writes before it. The executor does one thing at a time, each for a price.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::path::Path;

use apogee_storage::driver::ShardDirectory;
use apogee_storage::{AlignedBuffer, CommitLog, Completion, DiskOp, LogConfig, OpId, recover};

use super::Scale;
use super::harness::{Numbered, append, identity};

/// Times in µs.
#[derive(Clone, Copy, Debug)]
struct Machine {
    name: &'static str,
    write_us: f64,
    bytes_per_us: f64,
    sync_us: f64,
}

const MACHINES: [Machine; 4] = [
    Machine { name: "NVMe with power-loss protection", write_us: 25.0, bytes_per_us: 2000.0, sync_us: 10.0 },
    Machine { name: "this virtual disk", write_us: 100.0, bytes_per_us: 1500.0, sync_us: 180.0 },
    Machine { name: "network block storage", write_us: 600.0, bytes_per_us: 250.0, sync_us: 1000.0 },
    Machine { name: "syncs of 8 ms", write_us: 200.0, bytes_per_us: 200.0, sync_us: 8000.0 },
];

/// What the executor pays: for a record as it arrives, for sealing it, for a batch and for each operation's answer.
const ARRIVAL_US: f64 = 4.0;
const RECORD_US: f64 = 1.0;
const OPERATION_US: f64 = 12.0;

const RECORD_LEN: u32 = 1024;

#[derive(Clone, Copy, Debug)]
enum Load {
    /// Records arrive at random, so many a second.
    Open(f64),
    /// So many appenders, each of which appends again some 50 µs after its commit.
    Closed(u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    /// A record of the open load, or of this appender.
    Arrival,
    Written(OpId),
    Synced(OpId),
}

/// Times in whole nanoseconds, so that they have an order.
type Ns = u64;

/// Stands for the latency of what was refused as busy.
const REFUSED: Ns = 1_000_000_000_000;

fn ns(us: f64) -> Ns {
    (us * 1000.0) as Ns
}

struct World {
    log: CommitLog<AlignedBuffer, Numbered>,
    machine: Machine,
    now: Ns,
    /// When the disk has written what it was given so far.
    disk_free: Ns,
    events: BinaryHeap<Reverse<(Ns, u64)>>,
    scheduled: Vec<Event>,
    waiting: VecDeque<Ns>,
    latencies: Vec<Ns>,
    batches: u64,
    batch_bytes: u64,
    busy: Ns,
}

struct Figures {
    per_s: f64,
    quantiles: [f64; 3],
    batch_kib: f64,
    busy: f64,
}

impl World {
    fn schedule(&mut self, at: Ns, event: Event) {
        self.scheduled.push(event);
        self.events.push(Reverse((at, self.scheduled.len() as u64 - 1)));
    }

    fn spend(&mut self, us: f64) {
        self.now += ns(us);
        self.busy += ns(us);
    }

    fn submit(&mut self) {
        loop {
            let staged = self.log.staged_bytes();
            let Some(op) = self.log.poll_op(0, AlignedBuffer::zeroed) else { return };
            self.spend(OPERATION_US);
            match op {
                DiskOp::Write { id, len, .. } => {
                    let records = (staged - self.log.staged_bytes()) / u64::from(RECORD_LEN);
                    self.spend(records as f64 * RECORD_US);
                    self.disk_free =
                        self.disk_free.max(self.now) + ns(f64::from(len) / self.machine.bytes_per_us);
                    self.schedule(self.disk_free + ns(self.machine.write_us), Event::Written(id));
                }
                DiskOp::Sync { id, .. } => {
                    let begins = self.disk_free.max(self.now);
                    self.schedule(begins + ns(self.machine.sync_us), Event::Synced(id));
                }
                DiskOp::Prepare { segment, .. } => {
                    self.log.on_completion(Completion::Prepared { base: segment.base, result: Ok(()) });
                }
                other => panic!("{other:?} in one segment"),
            }
        }
    }

    fn stage(&mut self, due: Ns) {
        self.spend(ARRIVAL_US);
        let nth = self.latencies.len() as u64;
        if self.log.stage([append(nth % 16, nth, RECORD_LEN)]).is_err() {
            self.latencies.push(REFUSED);
            return;
        }
        self.waiting.push_back(due);
    }
}

fn run_one(directory: &Path, config: &LogConfig, machine: Machine, load: Load, length: Ns) -> Figures {
    let shard = ShardDirectory::open(directory, &identity()).expect("a directory");
    let recovered = recover(shard.files(), config, &mut ()).expect("an empty log");
    let term = recovered.next_term();
    let mut world = World {
        log: CommitLog::open(config.clone(), recovered, term).expect("a valid configuration"),
        machine,
        now: 0,
        disk_free: 0,
        events: BinaryHeap::new(),
        scheduled: Vec::new(),
        waiting: VecDeque::new(),
        latencies: Vec::new(),
        batches: 0,
        batch_bytes: 0,
        busy: 0,
    };
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut gap = move |mean: f64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let unit = (random >> 11) as f64 / (1_u64 << 53) as f64;
        ns(-mean * (1.0 - unit).ln())
    };
    world.submit();
    match load {
        Load::Open(_) => world.schedule(0, Event::Arrival),
        Load::Closed(appenders) => (0..appenders).for_each(|_| world.schedule(gap(50.0), Event::Arrival)),
    }
    while let Some(Reverse((at, nth))) = world.events.pop() {
        if at > length {
            break;
        }
        world.now = world.now.max(at);
        // What has come meanwhile is looked at together, as an executor does in one turn.
        let mut turn = vec![(at, nth)];
        while let Some(&Reverse((at, nth))) = world.events.peek()
            && at <= world.now
        {
            world.events.pop();
            turn.push((at, nth));
        }
        // Those of the open load come one by one, each telling of the next.
        if let Load::Open(per_s) = load
            && let Some(&(at, nth)) =
                turn.iter().find(|(_, nth)| world.scheduled[*nth as usize] == Event::Arrival)
        {
            let mut next = at + gap(1e6 / per_s);
            while next <= world.now {
                turn.push((next, nth));
                next += gap(1e6 / per_s);
            }
            world.schedule(next, Event::Arrival);
        }
        for (at, nth) in turn {
            match world.scheduled[nth as usize] {
                Event::Arrival => {
                    world.stage(at);
                }
                Event::Written(id) => {
                    world.spend(OPERATION_US);
                    world.log.on_completion(Completion::Written { id, result: Ok(()) });
                }
                Event::Synced(id) => {
                    world.spend(OPERATION_US);
                    world.log.on_completion(Completion::Synced { id, result: Ok(()) });
                }
            }
            while let Some(committed) = world.log.take_committed() {
                world.batches += 1;
                world.batch_bytes += u64::from(committed.batch_bytes);
                for _ in 0..committed.places.len() {
                    let since = world.waiting.pop_front().expect("it was staged");
                    world.latencies.push(world.now - since);
                    if matches!(load, Load::Closed(_)) {
                        let next = world.now + ns(20.0) + gap(50.0);
                        world.schedule(next, Event::Arrival);
                    }
                }
            }
        }
        if matches!(load, Load::Open(_)) && world.now > length {
            break;
        }
        world.submit();
    }
    let seconds = length as f64 / 1e9;
    let committed = world.latencies.iter().filter(|latency| **latency < REFUSED).count();
    world.latencies.sort_unstable();
    let quantiles = [0.5, 0.99, 0.999].map(|quantile| {
        let nth = (world.latencies.len() as f64 * quantile) as usize;
        world.latencies.get(nth).map_or(0.0, |latency| *latency as f64 / 1000.0)
    });
    Figures {
        per_s: committed as f64 / seconds,
        quantiles,
        batch_kib: world.batch_bytes as f64 / 1024.0 / world.batches.max(1) as f64,
        busy: world.busy as f64 / length as f64,
    }
}

pub(crate) fn run(scale: &Scale, directory: &Path) {
    let length: Ns = if scale.is_smoke { 20_000_000 } else { 500_000_000 };
    let pairs = [(1, 1024), (2, 256), (2, 1024), (4, 512), (8, 512), (32, 512)];
    let loads = [
        Load::Open(1e3),
        Load::Open(1e4),
        Load::Open(5e4),
        Load::Open(1e5),
        Load::Closed(1),
        Load::Closed(32),
        Load::Closed(1024),
        Load::Closed(8192),
    ];
    let only = if scale.is_smoke { 1 } else { usize::MAX };
    for machine in MACHINES.into_iter().take(only) {
        for load in loads.into_iter().take(only) {
            println!(
                "{:<32} {:<15} depth target KiB {:>9} {:>9} {:>9} {:>9} {:>9} {:>5}",
                machine.name,
                format!("{load:?}"),
                "per s",
                "p50 us",
                "p99 us",
                "p99.9 us",
                "KiB/batch",
                "busy"
            );
            for (nth, (depth, target)) in pairs.into_iter().enumerate() {
                let config = LogConfig {
                    batches_in_flight_max: depth,
                    batch_bytes_target: target << 10,
                    tail_cache_bytes: 0,
                    segment_bytes: 4 << 30,
                    ..scale.log_config()
                };
                let figures = run_one(&directory.join(nth.to_string()), &config, machine, load, length);
                let [p50, p99, p999] = figures.quantiles;
                println!(
                    "{depth:>54} {target:>10} {:>9.0} {p50:>9.0} {p99:>9.0} {p999:>9.0} {:>9.1} {:>5.2}",
                    figures.per_s, figures.batch_kib, figures.busy
                );
            }
        }
    }
}
