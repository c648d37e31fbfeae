//! One case: a log, its disk, and what is done to them, by seed.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::super::{Failing, Lie, Rng, SimDisk};
use super::owed::{CommittedAt, Owed};
use super::record::{Numbered, RESERVE_BYTES, random_config};
use super::state::ControlState;
use super::tally::Tally;
use crate::aligned::AlignedBuffer;
use crate::config::{Durability, LogConfig};
use crate::disk::{Completion, DiskOp, FileRun};
use crate::log::{AppendRefused, CommitLog, FailureCause, Grown, SpaceState};
use crate::types::{LogOffset, QueueKey, Ticket};

const STEPS: u64 = 600;
pub(super) const QUEUES: u64 = 6;

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) disk: SimDisk,
    pub(super) config: LogConfig,
    pub(super) log: CommitLog<AlignedBuffer, Numbered>,
    pub(super) now_ms: i64,
    /// The latest it ever was.
    pub(super) latest_ms: i64,
    /// Whether the disk does what it says.
    pub(super) is_honest: bool,
    next_id: u64,
    next_call: u64,
    pub(super) owed: Owed,
    /// Tickets without an end yet, and their queues.
    pub(super) waiting: VecDeque<(Ticket, QueueKey)>,
    /// As the log told it last.
    pub(super) space_state: SpaceState,
    /// A failed sync may have taken what was written and not synced, power or not.
    pub(super) sync_may_take: bool,
    pub(super) tally: Tally,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let config = random_config(&mut rng);
        let is_honest = rng.chance(70);
        let disk = SimDisk::new(rng.next_u64());
        disk.set_slow([0, 0, 5, 30][rng.below(4) as usize]);
        disk.set_cold([0, 30, 100][rng.below(3) as usize]);
        disk.set_new_state(Arc::new(|| Box::new(ControlState::default())));
        let log = Self::open_empty(&disk, &config);
        let mut world = World {
            rng,
            disk,
            config,
            log,
            now_ms: 1000,
            latest_ms: 1000,
            is_honest,
            next_id: 0,
            next_call: 0,
            owed: Owed::default(),
            waiting: VecDeque::new(),
            space_state: SpaceState::Normal,
            sync_may_take: false,
            tally: Tally::default(),
        };
        world.resize_disk();
        world
    }

    pub(super) fn run(&mut self) {
        for _ in 0..STEPS {
            self.tally.count("steps");
            // A clock may stand still or be set back.
            let ms = self.rng.below(4) as i64 - 1;
            self.pass(ms);
            match self.rng.below(1000) {
                0..=379 => self.stage(),
                380..=569 => self.submit(),
                570..=819 => self.complete_one(),
                820..=859 => self.tick(),
                860..=899 => self.read_somewhere(),
                900..=914 => self.locate_somewhere(),
                915..=924 => self.search_somewhere(),
                925..=929 => self.find_by_key(),
                930..=934 => self.evict_indexes(),
                935..=944 => self.disk.set_full(self.rng.chance(70)),
                945..=946 => self.disk.set_read_only(self.rng.chance(50)),
                947..=949 => self.resize_disk(),
                950..=959 => self.settle(),
                960..=961 => self.crash_again_and_again(),
                962..=965 => self.crash(),
                966..=969 => self.kill(),
                970..=974 => self.fail_something(),
                975..=982 if !self.is_honest => self.lie(),
                983..=992 if !self.is_honest => self.damage_something(),
                _ => self.check_all(),
            }
            self.take_outcomes();
            if self.log.poisoned().is_some() && self.rng.chance(10) {
                self.kill();
            }
        }
        self.settle();
        self.check_all();
        self.check_progress();
    }

    pub(super) fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.latest_ms = self.latest_ms.max(self.now_ms);
    }

    pub(super) fn random_queue(&mut self) -> QueueKey {
        match self.rng.below(QUEUES + 1) {
            QUEUES => QueueKey::CONTROL,
            queue => QueueKey(queue),
        }
    }

    pub(super) fn all_queues() -> impl Iterator<Item = QueueKey> {
        (0..QUEUES).map(QueueKey).chain([QueueKey::CONTROL])
    }

    fn random_len(&mut self) -> u32 {
        match self.rng.below(20) {
            0 => 1 + self.rng.below(u64::from(self.config.batch_bytes_max) + 4000) as u32,
            1 => 1,
            _ => 1 + self.rng.below(900) as u32,
        }
    }

    /// Takes some appends in, unless they are refused.
    pub(super) fn stage(&mut self) {
        let count = if self.rng.chance(70) { 1 } else { 1 + self.rng.below(4) };
        let mut group = Vec::new();
        for _ in 0..count {
            let queue = self.random_queue();
            self.next_id += 1;
            group.push((queue, Numbered { id: self.next_id, len: self.random_len() }));
        }
        let staged = match self.log.stage(group.iter().map(|(queue, record)| record.append(*queue))) {
            Ok(staged) => staged,
            Err(AppendRefused::Poisoned(_)) => return assert!(self.log.poisoned().is_some()),
            Err(AppendRefused::TooLarge { .. } | AppendRefused::Busy { .. }) => return,
            Err(AppendRefused::NoSpace(_)) => return self.tally.count("append refused for want of space"),
            Err(error) => panic!("{error}"),
        };
        self.tally.count("calls of stage");
        assert_eq!(u64::from(staged.count), group.len() as u64);
        assert_eq!(staged.first_queue_offset.0, self.owed.records(group[0].0).len() as u64);
        self.next_call += 1;
        for (nth, (queue, record)) in group.into_iter().enumerate() {
            self.owed.push(queue, record, self.next_call);
            self.waiting.push_back((staged.first_ticket.plus(nth as u64), queue));
        }
        for queue in self.owed.queue_keys() {
            let records = self.owed.records(queue).len() as u64;
            assert_eq!(self.log.tail_offset(queue).0, records, "tail of queue {queue}");
        }
    }

    pub(super) fn submit(&mut self) {
        while let Some(op) = self.log.poll_op(self.now_ms, SimDisk::alloc) {
            self.check_op(&op);
            self.disk.submit(op);
        }
    }

    fn check_op(&mut self, op: &DiskOp<AlignedBuffer>) {
        match op {
            DiskOp::Write { position, segment, buffer, len, .. } => {
                if *position == 0 && segment.0 > 0 {
                    self.tally.count("batch rolled over");
                }
                self.owed.push_batch(segment.plus(*position), Rc::clone(buffer), *len);
            }
            DiskOp::Prepare { recycle: Some(segment), .. } => {
                self.tally.count("segment recycled");
                self.owed.give_up(*segment);
            }
            DiskOp::Remove { segment } => {
                self.tally.count("segment removed");
                self.owed.give_up(*segment);
            }
            DiskOp::Seal(job) => {
                let end = self.owed.end_of_committed(job.segment);
                assert_eq!(Some(job.end), end, "all of a sealed segment is committed");
            }
            DiskOp::Erase { .. } => unreachable!("nothing is replaced without a group"),
            DiskOp::Sync { .. }
            | DiskOp::Prepare { .. }
            | DiskOp::Snapshot(_)
            | DiskOp::ReadEnds(_)
            | DiskOp::SaveGroupState { .. }
            | DiskOp::Reset(_)
            | DiskOp::TakeCheckpoint(_)
            | DiskOp::Rebuild(_) => {}
        }
    }

    pub(super) fn complete_one(&mut self) {
        let Some(completion) = self.disk.step() else { return };
        if let Completion::Snapshot { at, result: Ok(()) } = &completion {
            self.check_snapshot(*at);
        }
        self.log.on_completion(completion);
        self.take_events();
    }

    /// What a shard does every now and then.
    pub(super) fn tick(&mut self) {
        self.log.on_tick();
        if self.rng.chance(50) {
            self.log.on_space(self.disk.space());
        }
        self.take_events();
        self.submit();
    }

    pub(super) fn take_outcomes(&mut self) {
        while let Some(committed) = self.log.take_committed() {
            let mut grown: Vec<Grown> = Vec::new();
            for (nth, place) in committed.places.iter().enumerate() {
                let (ticket, queue) = self.waiting.pop_front().expect("only what waits is committed");
                assert_eq!(
                    ticket,
                    committed.first_ticket.plus(nth as u64),
                    "committed in the order of tickets"
                );
                let at = CommittedAt { log_offset: place.log_offset, store_time_ms: committed.store_time_ms };
                let record = self.owed.commit(queue, place.queue_offset, at);
                if self.is_honest && self.config.durability == Durability::Sync {
                    let bytes = self.disk.read_durable(self.run_at(place.log_offset, record.len));
                    let wanted = record.bytes(place.log_offset, place.queue_offset);
                    assert_eq!(bytes, wanted, "acknowledged and not durable");
                }
                let bytes = u64::from(record.len);
                match grown.iter_mut().find(|grown| grown.queue == queue) {
                    Some(grown) => (grown.records, grown.bytes) = (grown.records + 1, grown.bytes + bytes),
                    None => grown.push(Grown { queue, from: place.queue_offset, records: 1, bytes }),
                }
                self.tally.count("record committed");
            }
            assert_eq!(committed.queues, grown, "each queue that grew, once, by its first record");
            self.owed.commit_batch(committed.index);
        }
        while let Some(failed) = self.log.take_failed() {
            let count = usize::try_from(failed.count).unwrap();
            let gone = match &failed.cause {
                FailureCause::NoSpace(_) => self.waiting.split_off(self.waiting.len() - count),
                FailureCause::Poisoned(_) => self.waiting.drain(..count).collect(),
                cause => unreachable!("no group, and {cause}"),
            };
            for (nth, (ticket, _)) in gone.iter().enumerate() {
                assert_eq!(*ticket, failed.first_ticket.plus(nth as u64), "failed in the order of tickets");
            }
            match &failed.cause {
                FailureCause::NoSpace(_) => {
                    self.tally.count("staged and then denied for want of space");
                    gone.iter().rev().for_each(|(_, queue)| self.owed.take_back(*queue));
                }
                FailureCause::Poisoned(_) => self.tally.count("poisoned"),
                cause => unreachable!("no group, and {cause}"),
            }
        }
        if self.log.poisoned().is_some() {
            assert!(self.waiting.is_empty(), "a poisoned log still owes {:?}", self.waiting);
        }
    }

    /// Everything that waits comes to its end once the disk does its work.
    pub(super) fn settle(&mut self) {
        self.disk.set_full(false);
        self.disk.set_read_only(false);
        for _ in 0..10_000 {
            self.submit();
            self.complete_one();
            self.take_outcomes();
            if self.log.poisoned().is_some() {
                return self.kill();
            }
            if self.waiting.is_empty() {
                return;
            }
            if self.disk.pending() == 0 {
                // Whatever it waits for by time is said by `wake_at_ms`.
                self.submit();
                if self.disk.pending() == 0 {
                    let wake_at_ms =
                        self.log.wake_at_ms().expect("nothing under way and nothing to wait for");
                    self.pass(wake_at_ms - self.now_ms);
                }
            }
        }
        panic!("{} appends never end", self.waiting.len());
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

    fn fail_something(&mut self) {
        let failing = Failing::ALL[self.rng.below(Failing::ALL.len() as u64) as usize];
        self.sync_may_take |= failing == Failing::SyncsForGood;
        self.disk.fail(failing, 1);
    }

    fn lie(&mut self) {
        if self.rng.chance(20) {
            self.tally.count("lie about a small file");
            return self.disk.flip_next_small_file();
        }
        self.tally.count("lie about a write");
        let lies = [Lie::Lost, Lie::MisdirectedBehind, Lie::Misdirected, Lie::Flipped];
        self.disk.lie_about_next_write(lies[self.rng.below(4) as usize]);
    }

    /// Turns a bit of a committed batch over, an old one or the newest, or of an index or a snapshot.
    fn damage_something(&mut self) {
        let bit = self.rng.next_u64();
        if self.rng.chance(50) {
            let small = self.disk.small_files();
            if !small.is_empty() {
                self.disk.flip_bit_of_small_file(small[self.rng.below(small.len() as u64) as usize], bit);
                self.tally.count("small file damaged");
            }
            return;
        }
        let start = self.log.start();
        let batches = self.owed.committed_batches().filter(|batch| batch.base >= start);
        let bases: Vec<(LogOffset, u64)> =
            batches.map(|batch| (batch.base, batch.bytes().len() as u64)).collect();
        let Some(last) = bases.len().checked_sub(1) else { return };
        let nth = if self.rng.chance(30) { last } else { self.rng.below(bases.len() as u64) as usize };
        let (base, len) = bases[nth];
        let FileRun { segment, position, .. } = self.run_at(base, 1);
        self.disk.flip_bit(segment, position + bit / 8 % len, (bit % 8) as u8);
        self.tally.count("batch damaged");
    }

    fn evict_indexes(&mut self) {
        self.disk.evict_indexes([20, 100][self.rng.below(2) as usize]);
    }

    /// Gives the disk another capacity: without a limit, or of some segments.
    fn resize_disk(&mut self) {
        let segments = 3 + self.rng.below(12);
        let bytes = segments * self.config.segment_bytes + RESERVE_BYTES;
        self.disk.set_capacity(if self.rng.chance(60) { u64::MAX } else { bytes });
    }

    pub(super) fn run_at(&self, log_offset: LogOffset, len: u32) -> FileRun {
        let position = log_offset.0 % self.config.segment_bytes;
        FileRun { segment: LogOffset(log_offset.0 - position), position, len }
    }
}
