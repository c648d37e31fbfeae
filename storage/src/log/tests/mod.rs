//! The log on a disk in memory.

use smallvec::SmallVec;

mod failures;
mod group;
mod sealed;

use super::*;
use crate::aligned::AlignedBuffer;
use crate::config::{CommitRule, Durability, LogConfig};
use crate::disk::{Completion, DiskError, DiskOp};
use crate::format::{BATCH_HEADER_LEN, BLOCK_LEN, DIRECTORY_ENTRY_LEN, RawBatch};
use crate::record::{Append, Place, Record};
use crate::recovery::recover;
use crate::sim::SimDisk;
use crate::snapshot::Seen;
use crate::types::{BatchIndex, GroupId, LogOffset, NodeId, QueueKey, QueueOffset, Ticket};

#[derive(Clone)]
struct Text(String);

impl Record for Text {
    fn encoded_len(&self) -> u32 {
        self.0.len() as u32
    }

    fn encode(&self, _place: Place, out: &mut [u8]) {
        out.copy_from_slice(self.0.as_bytes());
    }
}

fn append(queue: u64, text: &str) -> Append<Text> {
    Append {
        queue: QueueKey(queue),
        tag_hash: text.len() as i32,
        key_hashes: SmallVec::new(),
        record: Text(text.to_owned()),
    }
}

/// A record of so many bytes.
fn append_long(queue: u64, len: usize) -> Append<Text> {
    append(queue, &"x".repeat(len))
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 10,
        batch_bytes_target: 16 << 10,
        batch_bytes_max: 32 << 10,
        staged_bytes_max: 64 << 10,
        batches_in_flight_max: 1,
        ..LogConfig::new(GroupId(7), NodeId(1))
    }
}

struct World {
    disk: SimDisk,
    log: CommitLog<AlignedBuffer, Text>,
    now_ms: i64,
}

impl World {
    /// A log whose first segments are ready.
    fn new(config: LogConfig) -> World {
        let mut world = World::on(SimDisk::new(1), config);
        world.settle();
        world
    }

    fn on(disk: SimDisk, config: LogConfig) -> World {
        let recovered = recover(&disk, &config, &mut ()).unwrap();
        let term = recovered.next_term();
        let log = match config.commit_rule {
            CommitRule::Local => CommitLog::open(config, recovered, term),
            CommitRule::Group => CommitLog::open_group(config, recovered, SimDisk::alloc),
        };
        World { disk, log: log.unwrap(), now_ms: 1000 }
    }

    fn reopened(self) -> World {
        let config = self.log.config().clone();
        self.disk.kill();
        World::on(self.disk, config)
    }

    fn stage(&mut self, queue: u64, text: &str) -> Staged {
        self.log.stage([append(queue, text)]).unwrap()
    }

    /// Hands all operations to the disk; returns how many batches were sealed.
    fn submit(&mut self) -> usize {
        let mut sealed = 0;
        while let Some(op) = self.log.poll_op(self.now_ms, SimDisk::alloc) {
            sealed += usize::from(matches!(op, DiskOp::Write { .. }));
            self.disk.submit(op);
        }
        sealed
    }

    /// Carries out the oldest operation.
    fn complete_one(&mut self) {
        let completion = self.disk.step_in_order().unwrap();
        self.log.on_completion(completion);
    }

    /// Until the disk has nothing to do.
    fn settle(&mut self) {
        self.submit();
        while self.disk.pending() > 0 {
            self.complete_one();
            self.submit();
        }
    }

    fn committed(&mut self) -> Vec<Committed<AlignedBuffer>> {
        std::iter::from_fn(|| self.log.take_committed()).collect()
    }

    fn plan(&self, queue: u64, from: u64, limits: ReadLimits) -> ReadPlan<AlignedBuffer> {
        self.log.plan_read(QueueKey(queue), QueueOffset(from), limits, |_| true)
    }

    fn bytes(&self, plan: &ReadPlan<AlignedBuffer>) -> Vec<u8> {
        let bytes = plan.runs.iter().map(|run| match run {
            Run::Memory(run) => run.as_ref().to_vec(),
            Run::File(run) => self.disk.read(*run),
        });
        bytes.collect::<Vec<_>>().concat()
    }
}

const ALL: ReadLimits = ReadLimits { messages_max: 1000, bytes_max: 1 << 20, examine_max: 1000 };

fn poison_reason(refused: AppendRefused) -> Poison {
    match refused {
        AppendRefused::Poisoned(poison) => poison,
        other => panic!("{other}"),
    }
}

// Staging and sealing

#[test]
fn staged_record_is_visible_once_synced() {
    let mut world = World::new(config());
    let staged = world.log.stage([append(3, "one"), append(4, "two")]).unwrap();
    assert_eq!((staged.first_ticket, staged.count), (Ticket(0), 2));
    assert_eq!(world.log.tail_offset(QueueKey(3)), QueueOffset(1));
    world.submit();
    world.complete_one();
    world.submit();
    assert_eq!(world.log.max_offset(QueueKey(3)), QueueOffset(0), "written, not yet durable");
    assert!(world.committed().is_empty());
    world.complete_one();
    assert_eq!(world.log.max_offset(QueueKey(3)), QueueOffset(1));
    let [committed] = &world.committed()[..] else { panic!("one batch") };
    assert_eq!((committed.first_ticket, committed.places.len()), (Ticket(0), 2));
    let grown = |queue| Grown { queue: QueueKey(queue), from: QueueOffset(0), records: 1, bytes: 3 };
    assert_eq!(committed.queues, [grown(3), grown(4)]);
    let marks = world.log.marks();
    assert!(marks.durable == marks.appended && marks.committed == marks.appended);
}

#[test]
fn what_is_staged_while_a_batch_is_on_its_way_becomes_one_batch() {
    let mut world = World::new(config());
    world.stage(1, "first");
    assert_eq!(world.submit(), 1, "a single message seals at once");
    for _ in 0..10 {
        world.stage(1, "more");
        assert_eq!(world.submit(), 0, "one batch is on its way already");
    }
    world.settle();
    let committed = world.committed();
    assert_eq!(committed.iter().map(|batch| batch.places.len()).collect::<Vec<_>>(), [1, 10]);
}

#[test]
fn records_of_a_queue_stand_together_whatever_the_order_of_staging() {
    let mut world = World::new(config());
    for (queue, text) in [(2, "b0"), (1, "a0"), (2, "b1"), (1, "a1"), (3, "c0"), (2, "b2")] {
        world.stage(queue, text);
    }
    world.settle();
    for (queue, text) in [(1, "a0a1"), (2, "b0b1b2"), (3, "c0")] {
        let plan = world.plan(queue, 0, ALL);
        assert_eq!(plan.runs.len(), 1);
        assert_eq!(world.bytes(&plan), text.as_bytes());
    }
    let committed = &world.committed()[0];
    let offsets: Vec<u64> = committed.places.iter().map(|place| place.queue_offset.0).collect();
    assert_eq!(offsets, [0, 0, 1, 1, 0, 2], "places are in the order of tickets");
    let grown: Vec<u64> = committed.queues.iter().map(|grown| grown.queue.0).collect();
    assert_eq!(grown, [2, 1, 3], "the order of groups is that of their first records");
}

#[test]
fn batch_closes_at_its_target_and_never_splits_a_call() {
    let mut world = World::new(config());
    world.stage(1, "on its way");
    world.submit();
    world.log.stage([append_long(1, 11_000)]).unwrap();
    world.log.stage([append_long(1, 3000), append_long(2, 3000)]).unwrap();
    world.log.stage([append_long(1, 9000), append_long(1, 9000), append_long(1, 9000)]).unwrap();
    world.stage(1, "last");
    world.settle();
    let committed = world.committed();
    let sizes: Vec<_> = committed.iter().map(|batch| (batch.places.len(), batch.batch_bytes)).collect();
    assert_eq!(sizes, [(1, 4096), (1, 12288), (2, 8192), (3, 28672), (1, 4096)]);
    assert!(sizes.iter().all(|(_, bytes)| *bytes <= 16384 || *bytes == 28672), "only one call alone exceeds");
}

#[test]
fn pipeline_depth_bounds_batches_on_their_way() {
    let mut world = World::new(LogConfig { batches_in_flight_max: 3, ..config() });
    let mut sealed = 0;
    for _ in 0..10 {
        world.stage(1, "one more");
        sealed += world.submit();
    }
    assert_eq!(sealed, 3);
    world.settle();
    assert_eq!(world.committed().iter().map(|batch| batch.places.len()).collect::<Vec<_>>(), [1, 1, 1, 7]);
}

#[test]
fn window_bounds_bytes_on_their_way() {
    let config = LogConfig { batches_in_flight_max: 10, write_window_bytes: 20 << 10, ..config() };
    let mut world = World::new(config);
    for _ in 0..4 {
        world.log.stage([append_long(1, 7000)]).unwrap();
        world.submit();
    }
    let marks = world.log.marks();
    assert_eq!(marks.appended.0 - marks.durable.0, 16 << 10, "a third batch of 8 KiB does not fit 20 KiB");
    world.settle();
    assert_eq!(world.log.max_offset(QueueKey(1)), QueueOffset(4));
}

#[test]
fn batch_above_the_window_goes_alone() {
    let mut world =
        World::new(LogConfig { write_window_bytes: 4 << 10, batches_in_flight_max: 4, ..config() });
    world.log.stage([append_long(1, 20_000)]).unwrap();
    world.log.stage([append_long(1, 20_000)]).unwrap();
    assert_eq!(world.submit(), 1);
    world.settle();
    assert_eq!(world.committed().len(), 2);
}

#[test]
fn one_sync_covers_all_batches_written_before_it() {
    let mut world = World::new(LogConfig { batches_in_flight_max: 4, ..config() });
    for _ in 0..4 {
        world.stage(1, "batch");
        world.submit();
    }
    for _ in 0..4 {
        world.complete_one();
    }
    let Some(sync @ DiskOp::Sync { .. }) = world.log.poll_op(0, SimDisk::alloc) else {
        panic!("a sync is due")
    };
    assert!(world.log.poll_op(0, SimDisk::alloc).is_none());
    world.disk.submit(sync);
    world.complete_one();
    assert_eq!(world.committed().len(), 4);
}

#[test]
fn writes_that_finish_out_of_order_are_committed_in_order() {
    let mut world = World::new(LogConfig { batches_in_flight_max: 2, ..config() });
    let mut ids = Vec::new();
    for text in ["first", "second"] {
        world.stage(1, text);
        match world.log.poll_op(0, SimDisk::alloc) {
            Some(DiskOp::Write { id, .. }) => ids.push(id),
            other => panic!("{other:?}"),
        }
    }
    world.log.on_written(ids[1], Ok(()));
    assert!(world.log.poll_op(0, SimDisk::alloc).is_none(), "nothing is written without a gap yet");
    assert_eq!(world.log.marks().written, LogOffset(0));
    world.log.on_written(ids[0], Ok(()));
    let Some(DiskOp::Sync { id, .. }) = world.log.poll_op(0, SimDisk::alloc) else { panic!("a sync is due") };
    world.log.on_synced(id, Ok(()));
    assert_eq!(world.committed().iter().map(|batch| batch.index.0).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn batch_written_during_a_sync_waits_for_the_next() {
    let mut world = World::new(LogConfig { batches_in_flight_max: 2, ..config() });
    world.stage(1, "covered");
    world.submit();
    world.complete_one();
    world.submit();
    world.stage(1, "not covered");
    world.submit();
    // The sync was taken first, the write finishes first.
    let Completion::Synced { id, .. } = world.disk.step_in_order().unwrap() else {
        panic!("a sync was first")
    };
    world.complete_one();
    world.log.on_synced(id, Ok(()));
    assert_eq!(world.log.max_offset(QueueKey(1)), QueueOffset(1));
    world.settle();
    assert_eq!(world.log.max_offset(QueueKey(1)), QueueOffset(2));
}

#[test]
fn store_time_never_goes_back() {
    let mut world = World::new(config());
    for now_ms in [1000, 400, 1000, 1001] {
        world.now_ms = now_ms;
        world.stage(1, "tick");
        world.settle();
    }
    let mut world = world.reopened();
    world.now_ms = 5;
    world.stage(1, "after a restart with a clock set back");
    world.settle();
    let time = |nth| world.log.entry(QueueKey(1), QueueOffset(nth)).unwrap().unwrap().store_time_ms;
    assert_eq!((0..5).map(time).collect::<Vec<_>>(), [1000, 1000, 1000, 1001, 1001]);
}

// Refusals

#[test]
fn staging_is_refused_as_busy_at_its_limit_and_open_again_after_a_commit() {
    let mut world = World::new(config());
    let mut taken = 0;
    let refused = loop {
        match world.log.stage([append_long(1, 10_000)]) {
            Ok(_) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, AppendRefused::Busy { limit: 65536, .. }), "{refused}");
    assert_eq!(world.log.tail_offset(QueueKey(1)), QueueOffset(taken), "the refused one left no trace");
    world.settle();
    world.log.stage([append_long(1, 10_000)]).unwrap();
}

#[test]
fn call_too_large_for_a_batch_is_refused_whole() {
    let mut world = World::new(config());
    let refused = world.log.stage([append(1, "small"), append_long(1, 33_000)]).unwrap_err();
    assert_eq!(refused, AppendRefused::TooLarge { bytes: 36_864, limit: 32_768 });
    assert_eq!(world.log.tail_offset(QueueKey(1)), QueueOffset(0));
    assert_eq!(world.submit(), 0);
    let whole = (32 << 10) - BATCH_HEADER_LEN - DIRECTORY_ENTRY_LEN;
    world.log.stage([append_long(1, whole)]).unwrap();
    assert!(world.log.stage([append_long(1, whole + 1)]).is_err());
}

#[test]
fn full_index_refuses_further_appends() {
    let mut world = World::new(LogConfig { index_entries_max: 3, ..config() });
    world.stage(1, "a");
    world.settle();
    world.log.stage([append(1, "b"), append(2, "c")]).unwrap();
    let refused = world.log.stage([append(1, "d")]).unwrap_err();
    assert_eq!(refused, AppendRefused::IndexFull { entries: 3, limit: 3 });
    world.settle();
    assert_eq!(world.log.index_entries(), 3);
}

#[test]
fn unknown_queue_is_refused_at_the_limit_of_queues() {
    let mut world = World::new(LogConfig { queues_max: 2, ..config() });
    world.stage(1, "a");
    world.stage(2, "b");
    let refused = world.log.stage([append(3, "c")]).unwrap_err();
    assert_eq!(refused, AppendRefused::QueuesFull { queues: 2, limit: 2 });
    world.stage(1, "known queues go on");
}

#[test]
fn full_disk_fails_what_waits_and_the_log_goes_on_by_itself() {
    let mut world = World::new(config());
    world.disk.set_full(true);
    let mut taken = 0;
    let refused = loop {
        world.now_ms += 1;
        match world.log.stage([append_long(1, 14_000)]) {
            Ok(staged) => taken = staged.first_ticket.0 + 1,
            Err(refused) => break refused,
        }
        world.settle();
    };
    assert!(matches!(refused, AppendRefused::NoSpace(DiskError::NoSpace { .. })), "{refused}");
    let failed = world.log.take_failed().unwrap();
    assert_eq!((failed.first_ticket, failed.count), (Ticket(taken - 1), 1));
    assert!(matches!(failed.cause, FailureCause::NoSpace(_)));
    assert_eq!(world.log.tail_offset(QueueKey(1)).0, taken - 1, "its offset is given to the next");
    assert_eq!(world.committed().len() as u64, taken - 1);

    world.disk.set_full(false);
    world.settle();
    assert!(world.log.stage([append(1, "too early")]).is_err(), "it is tried again after a pause only");
    world.now_ms = world.log.wake_at_ms().expect("a pause has an end");
    world.settle();
    assert_eq!(world.stage(1, "again").first_queue_offset, QueueOffset(taken - 1));
    world.settle();
    assert_eq!(world.log.max_offset(QueueKey(1)), QueueOffset(taken));
}

#[test]
fn clock_set_back_does_not_stretch_the_pause_of_a_failed_preparation() {
    let config = config();
    let pause_ms = i64::from(config.retry_ms);
    let mut world = World::on(SimDisk::new(1), config);
    world.disk.set_full(true);
    world.now_ms = 1_000_000;
    world.settle();
    assert_eq!(world.log.wake_at_ms(), Some(1_000_000 + pause_ms));
    world.now_ms = 500;
    world.settle();
    assert_eq!(world.log.wake_at_ms(), Some(500 + pause_ms));
}

#[test]
fn staged_records_wait_for_the_first_segment() {
    let mut world = World::on(SimDisk::new(1), config());
    world.stage(1, "early");
    assert_eq!(world.submit(), 0, "there is no segment yet");
    world.settle();
    assert_eq!(world.log.max_offset(QueueKey(1)), QueueOffset(1));
}

#[test]
fn failed_write_poisons_the_log_and_reads_go_on() {
    let mut world = World::new(config());
    world.stage(1, "kept");
    world.settle();
    world.committed();
    world.disk.fail_writes(1);
    world.stage(1, "unknown");
    world.submit();
    world.stage(1, "never written");
    world.settle();
    let tickets: Vec<_> = std::iter::from_fn(|| world.log.take_failed())
        .map(|failed| {
            (failed.first_ticket.0, failed.count, matches!(failed.cause, FailureCause::Poisoned(_)))
        })
        .collect();
    assert_eq!(tickets, [(1, 1, true), (2, 1, true)]);
    let poison = poison_reason(world.log.stage([append(1, "refused")]).unwrap_err());
    assert_eq!(poison.operation, "write");
    assert!(poison.to_string().contains("takes no appends since a write failed"), "{poison}");
    assert_eq!(world.bytes(&world.plan(1, 0, ALL)), b"kept");
    assert!(world.log.poll_op(0, SimDisk::alloc).is_none() && world.committed().is_empty());
    assert_eq!(world.log.wake_at_ms(), None);

    let mut world = world.reopened();
    assert!(world.log.max_offset(QueueKey(1)) >= QueueOffset(1));
    world.stage(1, "a recovered log takes appends");
}

#[test]
fn failed_sync_poisons_the_log_and_nothing_after_it_is_acknowledged() {
    let mut world = World::new(LogConfig { batches_in_flight_max: 4, ..config() });
    world.disk.fail_syncs(1);
    for _ in 0..3 {
        world.stage(1, "batch");
        world.submit();
    }
    world.settle();
    assert!(world.committed().is_empty());
    assert_eq!(world.log.max_offset(QueueKey(1)), QueueOffset(0));
    assert_eq!(poison_reason(world.log.stage([append(1, "x")]).unwrap_err()).operation, "sync");
    let failed: u64 = std::iter::from_fn(|| world.log.take_failed()).map(|failed| failed.count).sum();
    assert_eq!(failed, 3);
}

// Asynchronous durability

fn asynchronous() -> LogConfig {
    LogConfig { durability: Durability::Async { sync_interval_ms: 100 }, ..config() }
}

#[test]
fn async_commits_after_the_write_and_syncs_later() {
    let mut world = World::new(asynchronous());
    world.stage(1, "soon");
    world.settle();
    assert_eq!(world.committed().len(), 1);
    let marks = world.log.marks();
    assert_eq!((marks.committed, marks.durable), (marks.appended, LogOffset(0)));
    assert_eq!(world.log.wake_at_ms(), Some(1100));
    world.now_ms = 1099;
    world.settle();
    assert_eq!(world.log.marks().durable, LogOffset(0));
    world.now_ms = 1100;
    world.settle();
    assert_eq!(world.log.marks().durable, marks.appended);
    assert!(world.log.is_idle() && world.log.wake_at_ms().is_none());
}

#[test]
fn async_syncs_at_once_when_asked() {
    let mut world = World::new(asynchronous());
    world.stage(1, "soon");
    world.settle();
    assert!(!world.log.is_idle());
    world.log.ask_sync();
    world.settle();
    assert!(world.log.is_idle());
    world.stage(1, "later");
    world.settle();
    assert!(!world.log.is_idle(), "it was asked once, not for ever");
}

#[test]
fn async_syncs_early_when_half_the_window_is_not_durable() {
    let mut world = World::new(LogConfig { write_window_bytes: 32 << 10, ..asynchronous() });
    for _ in 0..3 {
        world.stage(1, "block");
        world.settle();
    }
    assert_eq!(world.log.marks().durable, LogOffset(0));
    world.stage(1, "block");
    world.settle();
    // The fourth was still being written when it made the half full.
    assert_eq!(world.log.marks().durable, LogOffset(12 << 10));
}

// Reading

#[test]
fn plan_stops_at_each_limit() {
    let mut world = World::new(config());
    let appends = (0..10).map(|_| append_long(1, 100));
    world.log.stage(appends).unwrap();
    world.settle();
    let table = [
        (ReadLimits { messages_max: 3, ..ALL }, 3),
        (ReadLimits { bytes_max: 350, ..ALL }, 3),
        (ReadLimits { bytes_max: 400, ..ALL }, 4),
        (ReadLimits { bytes_max: 0, ..ALL }, 1),
        (ReadLimits { examine_max: 5, ..ALL }, 5),
        (ReadLimits { messages_max: 0, ..ALL }, 0),
        (ALL, 10),
    ];
    for (limits, messages) in table {
        let plan = world.plan(1, 0, limits);
        let expected = (messages, u64::from(messages) * 100, u64::from(messages));
        assert_eq!((plan.messages, plan.bytes, plan.next_offset.0), expected, "{limits:?}");
    }
}

#[test]
fn filter_passes_over_entries_and_they_count_as_examined() {
    let mut world = World::new(config());
    world.log.stage(["a", "bb", "a", "bb", "bb", "a"].map(|text| append(1, text))).unwrap();
    world.settle();
    let limits = ReadLimits { messages_max: 2, ..ALL };
    let plan = world.log.plan_read(QueueKey(1), QueueOffset(0), limits, |entry| entry.tag_hash == 1);
    assert_eq!(world.bytes(&plan), b"aa");
    assert_eq!((plan.messages, plan.examined, plan.next_offset.0, plan.runs.len()), (2, 3, 3, 2));
    let plan = world.log.plan_read(QueueKey(1), QueueOffset(3), ALL, |_| false);
    assert_eq!((plan.messages, plan.examined, plan.next_offset.0), (0, 3, 6));
}

#[test]
fn plan_outside_of_what_can_be_read_is_empty() {
    let mut world = World::new(config());
    world.stage(1, "only");
    for (queue, from) in [(1, 0), (1, 5), (9, 0), (1, u64::MAX)] {
        let plan = world.plan(queue, from, ALL);
        assert_eq!((plan.messages, plan.next_offset.0), (0, from));
    }
}

#[test]
fn runs_of_two_batches_are_not_joined_where_their_positions_touch() {
    let mut world = World::new(config());
    world.log.stage([append_long(1, 100)]).unwrap();
    world.settle();
    // The second batch has one more entry in front, and a first record that is shorter by as much.
    let pad = 100 - DIRECTORY_ENTRY_LEN;
    world.log.stage([append_long(2, pad), append(1, "next")]).unwrap();
    world.settle();
    let plan = world.plan(1, 0, ALL);
    let [Run::Memory(one), Run::Memory(two)] = &plan.runs[..] else { panic!("{plan:?}") };
    assert_eq!(one.range.end, two.range.start, "as the test wants it");
    assert!(world.bytes(&plan).ends_with(b"xnext"));
}

#[test]
fn evicted_batches_are_read_from_the_file_and_a_run_keeps_its_buffer() {
    let mut world = World::new(LogConfig { tail_cache_bytes: 8 << 10, ..config() });
    world.stage(1, "zero");
    world.settle();
    let held = world.plan(1, 0, ALL);
    for text in ["one", "two", "three"] {
        world.stage(1, text);
        world.settle();
    }
    assert_eq!(world.log.tail_cache_bytes(), 8 << 10);
    let plan = world.plan(1, 0, ALL);
    let kinds: Vec<bool> = plan.runs.iter().map(|run| matches!(run, Run::Memory(_))).collect();
    assert_eq!(kinds, [false, false, true, true]);
    assert_eq!(world.bytes(&plan), b"zeroonetwothree");
    assert_eq!(world.bytes(&held), b"zero");
}

#[test]
fn batches_that_are_not_durable_are_read_from_memory_whatever_its_size() {
    let mut world = World::new(LogConfig { tail_cache_bytes: 0, ..asynchronous() });
    let is_in_memory = |world: &World| matches!(&world.plan(1, 0, ALL).runs[..], [Run::Memory(_)]);
    world.stage(1, "written");
    world.settle();
    assert_eq!(world.committed().len(), 1);
    assert!(is_in_memory(&world));
    world.disk.fail_syncs(1);
    world.now_ms += 1000;
    world.settle();
    assert!(world.log.poisoned().is_some());
    assert!(is_in_memory(&world), "what the file has nobody knows");

    let mut world = World::new(LogConfig { tail_cache_bytes: 0, ..asynchronous() });
    world.stage(1, "synced");
    world.settle();
    world.now_ms += 1000;
    world.settle();
    assert!(!is_in_memory(&world));
}

#[test]
fn file_runs_of_one_batch_are_joined() {
    let mut world = World::new(LogConfig { tail_cache_bytes: 0, ..config() });
    world.log.stage(["a", "bb", "ccc"].map(|text| append(1, text))).unwrap();
    world.settle();
    let plan = world.plan(1, 0, ALL);
    assert_eq!(plan.runs.len(), 1);
    assert_eq!(world.bytes(&plan), b"abbccc");
}

#[test]
fn record_is_located_by_its_log_offset_alone() {
    let mut world = World::new(LogConfig { tail_cache_bytes: 4 << 10, ..config() });
    let mut offsets = Vec::new();
    for texts in [["old a", "old b"], ["new a", "new b"]] {
        world.log.stage(texts.map(|text| append(1, text))).unwrap();
        world.settle();
        offsets.extend(world.committed()[0].places.iter().map(|place| place.log_offset));
    }
    match world.log.locate(offsets[1]).unwrap().unwrap() {
        Located::InBatch(run) => {
            let batch = world.disk.read(run);
            let batch = RawBatch(&batch).verify().unwrap();
            assert_eq!(batch.header().index(), BatchIndex(1));
            assert!(batch.find(LogOffset(offsets[1].0 + 1)).is_none());
            let range = batch.find(offsets[1]).unwrap();
            assert_eq!(world.disk.read(run)[range], *b"old b");
        }
        other => panic!("{other:?}"),
    }
    match world.log.locate(offsets[3]).unwrap().unwrap() {
        Located::Memory(run) => assert_eq!(run.as_ref(), b"new b"),
        other => panic!("{other:?}"),
    }
    assert!(world.log.locate(LogOffset(offsets[3].0 + 1)).unwrap().is_none(), "no record begins there");
    assert!(world.log.locate(world.log.marks().appended).unwrap().is_none());
    world.stage(1, "not committed");
    world.submit();
    assert!(world.log.locate(LogOffset(2 * BLOCK_LEN as u64 + 200)).unwrap().is_none());
}

#[test]
fn control_records_are_a_queue_like_any_other_and_given_back() {
    let mut world = World::new(config());
    world.stage(QueueKey::CONTROL.0, "first");
    assert_eq!(world.stage(QueueKey::CONTROL.0, "second").first_queue_offset, QueueOffset(1));
    world.stage(1, "message");
    world.settle();
    assert_eq!(world.log.tail_offset(QueueKey::CONTROL), QueueOffset(2));
    assert_eq!(world.log.max_offset(QueueKey::CONTROL), QueueOffset(2));
    assert_eq!(world.log.index_entries(), 3);
    let mut seen = Seen::default();
    recover(&world.disk, world.log.config(), &mut seen).unwrap();
    assert_eq!(seen.0, [b"first" as &[u8], b"second"]);
}

// Segments and reopening

#[test]
fn batch_that_does_not_fit_begins_the_next_segment() {
    let mut world = World::new(config());
    for _ in 0..6 {
        world.log.stage([append_long(1, 14_000)]).unwrap();
        world.settle();
    }
    let bases: Vec<u64> =
        world.committed().iter().map(|batch| batch.places[0].log_offset.0 / 4096 * 4096).collect();
    assert_eq!(bases, [0, 16384, 32768, 49152, 65536, 81920]);
    world.log.stage([append_long(1, 29_000)]).unwrap();
    world.settle();
    world.stage(1, "behind the gap");
    world.settle();
    let bases: Vec<u64> =
        world.committed().iter().map(|batch| batch.places[0].log_offset.0 / 4096 * 4096).collect();
    assert_eq!(bases, [98304, 131072]);
    let world = world.reopened();
    assert_eq!(world.log.max_offset(QueueKey(1)), QueueOffset(8));
    assert_eq!(world.plan(1, 0, ALL).messages, 8);
}

#[test]
fn segments_are_made_ahead() {
    let mut world = World::on(SimDisk::new(1), LogConfig { segments_ahead: 2, ..config() });
    let mut made = Vec::new();
    while let Some(op) = world.log.poll_op(0, SimDisk::alloc) {
        let DiskOp::Prepare { segment, .. } = op else { panic!("{op:?}") };
        made.push(segment.base.0);
        assert!(world.log.poll_op(0, SimDisk::alloc).is_none(), "one at a time");
        world.log.on_prepared(segment.base, Ok(()));
    }
    assert_eq!(made, [0, 65536, 131_072]);
}

#[test]
fn reopened_log_gives_the_same_records_and_goes_on() {
    let mut world = World::new(config());
    world.log.stage([append(3, "one"), append(3, "three")]).unwrap();
    world.settle();
    let mut world = world.reopened();
    assert_eq!(world.log.max_offset(QueueKey(3)), QueueOffset(2));
    assert_eq!(world.stage(3, "two").first_queue_offset, QueueOffset(2));
    world.settle();
    let plan = world.plan(3, 0, ALL);
    let [Run::File(old), Run::Memory(new)] = &plan.runs[..] else { panic!("{plan:?}") };
    assert_eq!(world.disk.read(*old), b"onethree");
    assert_eq!(new.as_ref(), b"two");
}

#[test]
fn each_life_of_the_log_has_a_greater_term() {
    let mut world = World::new(config());
    for term in 1..4 {
        assert_eq!(world.log.term().0, term);
        world.stage(1, "life");
        world.settle();
        world = world.reopened();
    }
}

#[test]
#[should_panic(expected = "a call of stage without appends")]
fn call_without_appends_is_a_bug() {
    let _ = World::new(config()).log.stage([]);
}
