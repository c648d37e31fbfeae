//! The log under random use, faults and crashes, beside a model of what it owes.
//!
//! Checked all the time:
//!
//! - every append that was taken in ends as committed or failed, exactly once, in the order of tickets;
//! - what is committed is on the disk for good (with `Sync`), is read back as it was staged, and stays so over any crash;
//! - nothing is visible that is not committed; queue offsets are dense;
//! - appends of one call are there together or not at all;
//! - without faults everything staged is committed in the end.
//!
//! `APOGEE_SEED=n` runs that case, `APOGEE_CASES=n` as many from there on; a failure prints its seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use smallvec::SmallVec;

use super::{Rng, SimDisk};
use crate::aligned::AlignedBuffer;
use crate::config::{Durability, LogConfig};
use crate::disk::{DiskOp, FileRun};
use crate::format::{BLOCK_LEN, RawBatch};
use crate::index::TimeBound;
use crate::log::{AppendRefused, CommitLog, FailureCause, Grown, Located, ReadLimits, Run};
use crate::record::{Append, Place, Record};
use crate::recovery::recover;
use crate::types::{GroupId, LogOffset, NodeId, QueueKey, QueueOffset, Ticket};

const CASES: u64 = 80;
const STEPS: u64 = 600;
const QUEUES: u64 = 6;

/// A record whose bytes follow from its number, length and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbered {
    id: u64,
    len: u32,
}

impl Numbered {
    fn bytes(self, log_offset: LogOffset, queue_offset: QueueOffset) -> Vec<u8> {
        let mut rng = Rng::new(self.id ^ log_offset.0 << 20 ^ queue_offset.0 << 40);
        (0..self.len).map(|_| rng.next_u64() as u8).collect()
    }

    fn tag_hash(self) -> i32 {
        (self.id % 3) as i32
    }
}

impl Record for Numbered {
    fn encoded_len(&self) -> u32 {
        self.len
    }

    fn encode(&self, place: Place, out: &mut [u8]) {
        out.copy_from_slice(&self.bytes(place.log_offset, place.queue_offset));
    }
}

/// A record the log has taken in and not denied since.
#[derive(Clone, Copy, Debug)]
struct Owed {
    record: Numbered,
    /// The call of `stage` it came with.
    call: u64,
    committed: Option<Committed>,
}

#[derive(Clone, Copy, Debug)]
struct Committed {
    log_offset: LogOffset,
    store_time_ms: i64,
}

struct World {
    rng: Rng,
    disk: SimDisk,
    config: LogConfig,
    log: CommitLog<AlignedBuffer, Numbered>,
    now_ms: i64,
    next_id: u64,
    next_call: u64,
    queues: BTreeMap<QueueKey, Vec<Owed>>,
    /// Records that a crash took away: they may come back, see `recovery/scan.rs`.
    lost: BTreeMap<(QueueKey, u64), Vec<Owed>>,
    /// Tickets without an end yet, and their queues.
    waiting: VecDeque<(Ticket, QueueKey)>,
    tally: Tally,
}

/// What happened, so that a model that does nothing is noticed.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    committed: u64,
    out_of_space: u64,
    poisoned: u64,
    crashes: u64,
    lost: u64,
    back: u64,
    cuts: u64,
    read: u64,
    rolls: u64,
}

fn random_config(rng: &mut Rng) -> LogConfig {
    let block = BLOCK_LEN as u64;
    let batch_bytes_max = (2 + rng.below(6)) * block;
    let durability = match rng.below(3) {
        0 => Durability::Async { sync_interval_ms: 1 + rng.below(30) as u32 },
        _ => Durability::Sync,
    };
    LogConfig {
        durability,
        segment_bytes: (8 + rng.below(24)) * block,
        segments_ahead: 1 + rng.below(2) as u32,
        batch_bytes_target: (block + rng.below(batch_bytes_max - block + 1)) as u32,
        batch_bytes_max: batch_bytes_max as u32,
        batches_in_flight_max: 1 + rng.below(5) as u32,
        write_window_bytes: (1 + rng.below(20)) * block,
        staged_bytes_max: batch_bytes_max * 2,
        tail_cache_bytes: rng.below(20) * block,
        prepare_retry_ms: 1 + rng.below(20) as u32,
        ..LogConfig::new(GroupId(7), NodeId(1))
    }
}

fn open(disk: &SimDisk, config: &LogConfig) -> CommitLog<AlignedBuffer, Numbered> {
    let recovered = recover(disk, config, &mut |_| {}).unwrap();
    let term = recovered.next_term();
    CommitLog::open(config.clone(), recovered, term).unwrap()
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let config = random_config(&mut rng);
        let disk = SimDisk::new(rng.next_u64());
        let log = open(&disk, &config);
        World {
            rng,
            disk,
            config,
            log,
            now_ms: 1000,
            next_id: 0,
            next_call: 0,
            queues: BTreeMap::new(),
            lost: BTreeMap::new(),
            waiting: VecDeque::new(),
            tally: Tally::default(),
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            // A clock may stand still or be set back.
            self.now_ms += self.rng.below(4) as i64 - 1;
            match self.rng.below(100) {
                0..=39 => self.stage(),
                40..=59 => self.submit(),
                60..=84 => self.complete_one(),
                85..=90 => self.read_somewhere(),
                91..=92 => self.locate_somewhere(),
                93 => self.search_somewhere(),
                94..=95 => self.disk.set_full(self.rng.chance(80)),
                96 => self.settle(),
                97 if self.rng.chance(20) => self.crash_again_and_again(),
                97 if self.rng.chance(50) => self.crash(),
                97 => self.kill(),
                98 if self.rng.chance(50) => self.fail_something(),
                _ => self.check_all(),
            }
            self.take_outcomes();
        }
        self.settle();
        self.check_all();
    }

    fn stage(&mut self) {
        let count = if self.rng.chance(70) { 1 } else { 1 + self.rng.below(4) };
        let mut group = Vec::new();
        for _ in 0..count {
            let queue = match self.rng.below(QUEUES + 1) {
                QUEUES => QueueKey::CONTROL,
                queue => QueueKey(queue),
            };
            let len = match self.rng.below(20) {
                0 => 1 + self.rng.below(u64::from(self.config.batch_bytes_max) + 4000) as u32,
                1 => 1,
                _ => 1 + self.rng.below(900) as u32,
            };
            self.next_id += 1;
            group.push((queue, Numbered { id: self.next_id, len }));
        }
        let appends = group.iter().map(|(queue, record)| Append {
            queue: *queue,
            tag_hash: record.tag_hash(),
            key_hashes: SmallVec::from_elem(record.id as u32, (record.id % 6) as usize),
            record: *record,
        });
        let staged = match self.log.stage(appends) {
            Ok(staged) => staged,
            Err(AppendRefused::Poisoned(_)) => return assert!(self.log.poisoned().is_some()),
            Err(AppendRefused::TooLarge { .. } | AppendRefused::Busy { .. } | AppendRefused::NoSpace(_)) => {
                return;
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(u64::from(staged.count), group.len() as u64);
        self.next_call += 1;
        for (nth, (queue, record)) in group.into_iter().enumerate() {
            let owed = self.queues.entry(queue).or_default();
            if nth == 0 {
                assert_eq!(staged.first_queue_offset.0, owed.len() as u64);
            }
            owed.push(Owed { record, call: self.next_call, committed: None });
            self.waiting.push_back((staged.first_ticket.plus(nth as u64), queue));
        }
        for (queue, owed) in &self.queues {
            assert_eq!(self.log.tail_offset(*queue).0, owed.len() as u64, "tail of queue {queue}");
        }
    }

    fn submit(&mut self) {
        while let Some(op) = self.log.poll_op(self.now_ms, SimDisk::alloc) {
            if let DiskOp::Write { position: 0, segment, .. } = &op {
                self.tally.rolls += u64::from(segment.0 > 0);
            }
            self.disk.submit(op);
        }
    }

    fn complete_one(&mut self) {
        if let Some(completion) = self.disk.step() {
            self.log.on_completion(completion);
        }
    }

    fn take_outcomes(&mut self) {
        while let Some(committed) = self.log.take_committed() {
            let mut grown: Vec<Grown> = Vec::new();
            for (nth, place) in committed.places.iter().enumerate() {
                let (ticket, queue) = self.waiting.pop_front().expect("only what waits is committed");
                assert_eq!(
                    ticket,
                    committed.first_ticket.plus(nth as u64),
                    "committed in the order of tickets"
                );
                let owed = &mut self.queues.get_mut(&queue).unwrap()[place.queue_offset.0 as usize];
                assert!(owed.committed.is_none(), "{owed:?} committed twice");
                let (log_offset, store_time_ms) = (place.log_offset, committed.store_time_ms);
                owed.committed = Some(Committed { log_offset, store_time_ms });
                let record = owed.record;
                if self.config.durability == Durability::Sync {
                    let bytes = self.disk.read_durable(self.run_at(log_offset, record.len));
                    assert_eq!(
                        bytes,
                        record.bytes(log_offset, place.queue_offset),
                        "acknowledged and not durable"
                    );
                }
                if grown.iter().all(|grown| grown.queue != queue) {
                    grown.push(Grown { queue, from: place.queue_offset });
                }
                self.tally.committed += 1;
            }
            assert_eq!(committed.queues, grown, "each queue that grew, once, by its first record");
        }
        while let Some(failed) = self.log.take_failed() {
            let count = usize::try_from(failed.count).unwrap();
            let gone = match failed.cause {
                FailureCause::NoSpace(_) => self.waiting.split_off(self.waiting.len() - count),
                FailureCause::Poisoned(_) => self.waiting.drain(..count).collect(),
            };
            for (nth, (ticket, _)) in gone.iter().enumerate() {
                assert_eq!(*ticket, failed.first_ticket.plus(nth as u64), "failed in the order of tickets");
            }
            match failed.cause {
                FailureCause::NoSpace(_) => {
                    self.tally.out_of_space += 1;
                    for (_, queue) in gone.iter().rev() {
                        let owed = self.queues.get_mut(queue).unwrap().pop().unwrap();
                        assert!(owed.committed.is_none(), "{owed:?} was committed and then denied");
                    }
                }
                FailureCause::Poisoned(_) => self.tally.poisoned += 1,
            }
        }
        if self.log.poisoned().is_some() {
            assert!(self.waiting.is_empty(), "a poisoned log still owes {:?}", self.waiting);
        }
    }

    /// Everything that waits comes to its end once the disk does its work.
    fn settle(&mut self) {
        self.disk.set_full(false);
        for _ in 0..10_000 {
            self.submit();
            self.complete_one();
            self.take_outcomes();
            if self.log.poisoned().is_some() {
                assert!(self.waiting.is_empty());
                return self.kill();
            }
            if self.disk.pending() == 0 && self.waiting.is_empty() {
                return;
            }
            if self.disk.pending() == 0 {
                // Whatever it waits for by time is said by `wake_at_ms`.
                self.submit();
                if self.disk.pending() == 0 {
                    self.now_ms = self.log.wake_at_ms().expect("nothing under way and nothing to wait for");
                }
            }
        }
        panic!("{} appends never end", self.waiting.len());
    }

    fn crash(&mut self) {
        self.disk.crash();
        self.reopen(self.config.durability == Durability::Sync);
    }

    /// Short lives in a row: the tail of each is what the next ones find behind their end.
    fn crash_again_and_again(&mut self) {
        for _ in 0..2 + self.rng.below(6) {
            for _ in 0..self.rng.below(6) {
                self.stage();
                self.submit();
                if self.rng.chance(50) {
                    self.complete_one();
                }
                self.take_outcomes();
            }
            self.crash();
        }
    }

    fn kill(&mut self) {
        self.disk.kill();
        self.reopen(true);
    }

    fn fail_something(&mut self) {
        match self.rng.below(2) {
            0 => self.disk.fail_writes(1),
            _ => self.disk.fail_syncs(1),
        }
    }

    /// Recovers, perhaps stopping in the middle to begin anew, and compares with what is owed.
    fn reopen(&mut self, committed_survives: bool) {
        self.tally.crashes += 1;
        self.waiting.clear();
        self.disk.fail_writes(0);
        self.disk.fail_syncs(0);
        let mut found: BTreeMap<QueueKey, Vec<(LogOffset, i64, Vec<u8>)>> = BTreeMap::new();
        let recovered = recover(&self.disk, &self.config, &mut |record| {
            let queue = found.entry(record.queue).or_default();
            assert_eq!(record.queue_offset.0, queue.len() as u64, "queue {} has a hole", record.queue);
            queue.push((record.log_offset, record.store_time_ms, record.bytes.to_vec()));
        });
        let recovered = recovered.unwrap();
        self.tally.cuts += u64::from(recovered.report.cut.is_some());
        let (mut calls_kept, mut calls_lost) = (BTreeSet::new(), BTreeSet::new());
        for (queue, owed) in &mut self.queues {
            let found = found.remove(queue).unwrap_or_default();
            for (nth, owed) in owed.iter().enumerate().skip(found.len()) {
                assert!(!committed_survives || owed.committed.is_none(), "{owed:?} of queue {queue} is lost");
                calls_lost.insert(owed.call);
                self.lost.entry((*queue, nth as u64)).or_default().push(*owed);
                self.tally.lost += 1;
            }
            owed.truncate(found.len());
            for (nth, (log_offset, store_time_ms, bytes)) in found.into_iter().enumerate() {
                let queue_offset = QueueOffset(nth as u64);
                let fits = |owed: &&Owed| owed.record.bytes(log_offset, queue_offset) == bytes;
                let Some(kept) = owed.get(nth).filter(fits).copied() else {
                    // Not what this life staged here, if it did: then it is what an earlier one did, in doubt since.
                    let was_lost =
                        self.lost.get(&(*queue, nth as u64)).and_then(|lost| lost.iter().find(fits));
                    let back =
                        *was_lost.unwrap_or_else(|| panic!("queue {queue} record {nth}: nobody staged it"));
                    for (at, replaced) in owed.drain(nth..).enumerate() {
                        let committed = replaced.committed.is_some();
                        assert!(
                            !committed_survives || !committed,
                            "{replaced:?} of queue {queue} was replaced"
                        );
                        calls_lost.insert(replaced.call);
                        self.lost.entry((*queue, (nth + at) as u64)).or_default().push(replaced);
                    }
                    calls_kept.insert(back.call);
                    owed.push(Owed { committed: Some(Committed { log_offset, store_time_ms }), ..back });
                    self.tally.back += 1;
                    continue;
                };
                if let Some(committed) = kept.committed {
                    assert_eq!((committed.log_offset, committed.store_time_ms), (log_offset, store_time_ms));
                }
                calls_kept.insert(kept.call);
                owed[nth].committed = Some(Committed { log_offset, store_time_ms });
            }
        }
        assert!(found.is_empty(), "queues that nobody staged to: {:?}", found.keys());
        assert!(calls_kept.is_disjoint(&calls_lost), "an append call was torn apart");
        let term = recovered.next_term();
        self.log = CommitLog::open(self.config.clone(), recovered, term).unwrap();
        self.check_all();
    }

    fn run_at(&self, log_offset: LogOffset, len: u32) -> FileRun {
        let position = log_offset.0 % self.config.segment_bytes;
        FileRun { segment: LogOffset(log_offset.0 - position), position, len }
    }

    /// The committed records of a queue.
    fn visible(&self, queue: QueueKey) -> &[Owed] {
        let owed = self.queues.get(&queue).map_or(&[][..], Vec::as_slice);
        &owed[..owed.iter().take_while(|owed| owed.committed.is_some()).count()]
    }

    fn random_queue(&mut self) -> QueueKey {
        QueueKey(self.rng.below(QUEUES))
    }

    fn check_all(&mut self) {
        for queue in (0..QUEUES).map(QueueKey) {
            let visible = self.visible(queue).len() as u64;
            assert_eq!(self.log.min_offset(queue), QueueOffset(0));
            assert_eq!(self.log.max_offset(queue), QueueOffset(visible), "queue {queue}");
            assert!(self.log.entry(queue, QueueOffset(visible)).is_none());
            self.read(
                queue,
                0,
                ReadLimits { messages_max: 10_000, bytes_max: 1 << 30, examine_max: 10_000 },
                None,
            );
        }
    }

    fn read_somewhere(&mut self) {
        let queue = self.random_queue();
        let from = self.rng.below(self.visible(queue).len() as u64 + 2);
        let limits = ReadLimits {
            messages_max: self.rng.below(40) as u32,
            bytes_max: self.rng.below(8000),
            examine_max: self.rng.below(60) as u32,
        };
        let tag = self.rng.chance(30).then(|| self.rng.below(3) as i32);
        self.read(queue, from, limits, tag);
    }

    /// Reads by plan and compares with a read of the model.
    fn read(&mut self, queue: QueueKey, from: u64, limits: ReadLimits, tag: Option<i32>) {
        let plan = self
            .log
            .plan_read(queue, QueueOffset(from), limits, |entry| tag.is_none_or(|tag| entry.tag_hash == tag));
        let (mut bytes, mut next, mut messages) = (Vec::new(), from, 0);
        for (nth, owed) in self.visible(queue).iter().enumerate().skip(from as usize) {
            if messages >= limits.messages_max || next - from >= u64::from(limits.examine_max) {
                break;
            }
            if tag.is_none_or(|tag| owed.record.tag_hash() == tag) {
                if messages > 0 && bytes.len() as u64 + u64::from(owed.record.len) > limits.bytes_max {
                    break;
                }
                bytes.extend(owed.record.bytes(owed.committed.unwrap().log_offset, QueueOffset(nth as u64)));
                messages += 1;
            }
            next += 1;
        }
        assert_eq!((plan.next_offset.0, plan.messages, plan.bytes), (next, messages, bytes.len() as u64));
        assert_eq!(u64::from(plan.examined), next - from);
        let mut got = Vec::new();
        for run in &plan.runs {
            match run {
                Run::Memory(run) => got.extend_from_slice(run.as_ref()),
                Run::File(run) => got.extend(self.disk.read(*run)),
            }
        }
        assert!(got == bytes, "queue {queue} from {from} reads other bytes");
        self.tally.read += u64::from(messages);
    }

    fn locate_somewhere(&mut self) {
        let queue = self.random_queue();
        let visible = self.visible(queue).len() as u64;
        if visible == 0 {
            return;
        }
        let nth = self.rng.below(visible);
        let owed = self.visible(queue)[nth as usize];
        let log_offset = owed.committed.unwrap().log_offset;
        let bytes = match self.log.locate(log_offset).expect("committed records can be found") {
            Located::Memory(run) => run.as_ref().to_vec(),
            Located::InBatch(run) => {
                let batch = self.disk.read(run);
                let range = RawBatch(&batch).verify().unwrap().find(log_offset).unwrap();
                batch[range].to_vec()
            }
        };
        assert_eq!(bytes, owed.record.bytes(log_offset, QueueOffset(nth)));
    }

    fn search_somewhere(&mut self) {
        let queue = self.random_queue();
        let time_ms = self.now_ms - self.rng.below(300) as i64;
        let times: Vec<i64> =
            self.visible(queue).iter().map(|owed| owed.committed.unwrap().store_time_ms).collect();
        assert!(times.is_sorted(), "store times of queue {queue} go back");
        let lower = times.iter().take_while(|time| **time < time_ms).count();
        let upper = times.iter().take_while(|time| **time <= time_ms).count().saturating_sub(1);
        assert_eq!(self.log.search_by_time(queue, time_ms, TimeBound::Lower).0, lower as u64);
        assert_eq!(self.log.search_by_time(queue, time_ms, TimeBound::Upper).0, upper as u64);
    }
}

/// Says which case it was if the case does not come to its end.
struct SayOnPanic(u64);

impl Drop for SayOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was APOGEE_SEED={}", self.0);
        }
    }
}

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

#[test]
fn log_keeps_what_it_promised() {
    let (first, cases) = (number_from_env("APOGEE_SEED"), number_from_env("APOGEE_CASES"));
    let cases = cases.unwrap_or(if first.is_some() { 1 } else { CASES });
    let seeds = first.unwrap_or(0)..first.unwrap_or(0) + cases;
    let mut all = Tally::default();
    let many = seeds.end - seeds.start >= CASES;
    for seed in seeds {
        let _say = SayOnPanic(seed);
        let mut world = World::new(seed);
        world.run();
        let tally = world.tally;
        all.committed += tally.committed;
        all.out_of_space += tally.out_of_space;
        all.poisoned += tally.poisoned;
        all.crashes += tally.crashes;
        all.lost += tally.lost;
        all.back += tally.back;
        all.cuts += tally.cuts;
        all.read += tally.read;
        all.rolls += tally.rolls;
    }
    println!("{all:?}");
    let happened =
        [all.committed, all.out_of_space, all.poisoned, all.crashes, all.lost, all.cuts, all.read, all.rolls];
    assert!(!many || happened.iter().all(|count| *count > 20), "too little happened: {all:?}");
}
