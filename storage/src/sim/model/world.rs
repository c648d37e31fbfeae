//! One case: a log, its disk, and what is done to them, by seed.

use std::collections::VecDeque;
use std::rc::Rc;

use super::super::{Failing, Lie, Rng, SimDisk};
use super::owed::{CommittedAt, Owed};
use super::record::{Numbered, random_config};
use super::tally::Tally;
use crate::aligned::AlignedBuffer;
use crate::config::{Durability, LogConfig};
use crate::disk::{Completion, DiskOp, FileRun};
use crate::log::{AppendRefused, CommitLog, FailureCause, Grown};
use crate::types::{LogOffset, QueueKey, Ticket};

const STEPS: u64 = 600;
pub(super) const QUEUES: u64 = 6;

pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) disk: SimDisk,
    pub(super) config: LogConfig,
    pub(super) log: CommitLog<AlignedBuffer, Numbered>,
    pub(super) now_ms: i64,
    /// Whether the disk does what it says.
    pub(super) is_honest: bool,
    next_id: u64,
    next_call: u64,
    pub(super) owed: Owed,
    /// Tickets without an end yet, and their queues.
    pub(super) waiting: VecDeque<(Ticket, QueueKey)>,
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
        let log = Self::open_empty(&disk, &config);
        World {
            rng,
            disk,
            config,
            log,
            now_ms: 1000,
            is_honest,
            next_id: 0,
            next_call: 0,
            owed: Owed::default(),
            waiting: VecDeque::new(),
            sync_may_take: false,
            tally: Tally::default(),
        }
    }

    pub(super) fn run(&mut self) {
        for _ in 0..STEPS {
            self.tally.count("steps");
            // A clock may stand still or be set back.
            self.now_ms += self.rng.below(4) as i64 - 1;
            match self.rng.below(1000) {
                0..=399 => self.stage(),
                400..=599 => self.submit(),
                600..=849 => self.complete_one(),
                850..=909 => self.read_somewhere(),
                910..=929 => self.locate_somewhere(),
                930..=939 => self.search_somewhere(),
                940..=954 => self.disk.set_full(self.rng.chance(80)),
                955 => self.disk.set_read_only(true),
                957..=966 => self.settle(),
                967..=968 => self.crash_again_and_again(),
                969..=973 => self.crash(),
                974..=978 => self.kill(),
                979..=980 => self.fail_something(),
                984..=989 if !self.is_honest => self.lie(),
                990..=993 if !self.is_honest => self.damage_something(),
                _ => self.check_all(),
            }
            self.take_outcomes();
            if self.log.poisoned().is_some() && self.rng.chance(10) {
                self.kill();
            }
        }
        self.settle();
        self.check_all();
    }

    pub(super) fn random_queue(&mut self) -> QueueKey {
        QueueKey(self.rng.below(QUEUES))
    }

    fn random_len(&mut self) -> u32 {
        match self.rng.below(20) {
            0 => 1 + self.rng.below(u64::from(self.config.batch_bytes_max) + 4000) as u32,
            1 => 1,
            _ => 1 + self.rng.below(900) as u32,
        }
    }

    fn stage(&mut self) {
        let count = if self.rng.chance(70) { 1 } else { 1 + self.rng.below(4) };
        let mut group = Vec::new();
        for _ in 0..count {
            let queue = match self.rng.below(QUEUES + 1) {
                QUEUES => QueueKey::CONTROL,
                queue => QueueKey(queue),
            };
            self.next_id += 1;
            group.push((queue, Numbered { id: self.next_id, len: self.random_len() }));
        }
        let staged = match self.log.stage(group.iter().map(|(queue, record)| record.append(*queue))) {
            Ok(staged) => staged,
            Err(AppendRefused::Poisoned(_)) => return assert!(self.log.poisoned().is_some()),
            Err(AppendRefused::TooLarge { .. } | AppendRefused::Busy { .. } | AppendRefused::NoSpace(_)) => {
                return;
            }
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
            if let DiskOp::Write { position, segment, buffer, len, .. } = &op {
                if *position == 0 && segment.0 > 0 {
                    self.tally.count("batch rolled over");
                }
                self.owed.push_batch(segment.plus(*position), Rc::clone(buffer), *len);
            }
            self.disk.submit(op);
        }
    }

    fn complete_one(&mut self) {
        let Some(completion) = self.disk.step() else { return };
        let (Completion::Written { result, .. }
        | Completion::Synced { result, .. }
        | Completion::Prepared { result, .. }) = &completion
        else {
            return self.log.on_completion(completion);
        };
        if result.is_err() {
            self.tally.count("operation failed");
        }
        self.log.on_completion(completion);
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
                if grown.iter().all(|grown| grown.queue != queue) {
                    grown.push(Grown { queue, from: place.queue_offset });
                }
                self.tally.count("record committed");
            }
            assert_eq!(committed.queues, grown, "each queue that grew, once, by its first record");
            self.owed.commit_batch(committed.index);
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
                    self.tally.count("out of space");
                    gone.iter().rev().for_each(|(_, queue)| self.owed.take_back(*queue));
                }
                FailureCause::Poisoned(_) => self.tally.count("poisoned"),
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
        let failing = [Failing::Writes, Failing::Syncs, Failing::SyncsForGood, Failing::Preparations];
        let failing = failing[self.rng.below(4) as usize];
        self.sync_may_take |= failing == Failing::SyncsForGood;
        self.disk.fail(failing, 1);
    }

    fn lie(&mut self) {
        self.tally.count("lie about a write");
        let lies = [Lie::Lost, Lie::MisdirectedBehind, Lie::Misdirected, Lie::Flipped];
        self.disk.lie_about_next_write(lies[self.rng.below(4) as usize]);
    }

    /// Turns a bit of a committed batch over, an old one or the newest.
    fn damage_something(&mut self) {
        let bases: Vec<(LogOffset, usize)> =
            self.owed.committed_batches().map(|batch| (batch.base, batch.bytes().len())).collect();
        let Some(last) = bases.len().checked_sub(1) else { return };
        let nth = if self.rng.chance(30) { last } else { self.rng.below(bases.len() as u64) as usize };
        let (base, len) = bases[nth];
        let FileRun { segment, position, .. } = self.run_at(base, 1);
        let position = position + self.rng.below(len as u64);
        self.disk.flip_bit(segment, position, self.rng.below(8) as u8);
        self.tally.count("damage done");
    }

    pub(super) fn run_at(&self, log_offset: LogOffset, len: u32) -> FileRun {
        let position = log_offset.0 % self.config.segment_bytes;
        FileRun { segment: LogOffset(log_offset.0 - position), position, len }
    }
}
