//! A log is the old one or the new one, whatever happens on the way; and what a leader gives is what a log needs.

use std::any::Any;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::config::{CommitRule, LogConfig};
use crate::disk::{DiskError, OpId, SegmentInfo};
use crate::group_state::{GroupState, read_saved_group_state, save_group_state};
use crate::job_error::JobError;
use crate::recovery::tests::{BLOCK, Batch, GROUP, Journal, SEGMENT, World, config, of_queues};
use crate::recovery::{GroupRecovered, recover_group};
use crate::sim::{Failing, SimDisk};
use crate::snapshot::{DerivedState, Snapshot, SnapshotError};
use crate::source::{LogFile, LogSource as _};
use crate::types::{BatchIndex, GroupId, LogOffset, LogStart, NodeId, QueueKey, QueueOffset, Term};

fn group_config() -> LogConfig {
    LogConfig { commit_rule: CommitRule::Group, ..config() }
}

fn state() -> GroupState {
    GroupState { term: Term(4), vote: Some(NodeId(2)), ..GroupState::new(GROUP, NodeId(1)) }
}

fn open(world: &World, state: GroupState) -> (GroupRecovered, Journal) {
    let mut journal = Journal::default();
    let found = recover_group(&world.0, &group_config(), state, &mut journal).unwrap();
    (found, journal)
}

/// Opens with what the files say.
fn reopen(world: &World) -> (GroupRecovered, Journal) {
    let saved = read_saved_group_state(&world.0).unwrap().unwrap();
    open(world, saved.state)
}

/// A log of 45 batches in six segments, of which the first two have left; snapshots at the ends of segments 2 and 3.
fn leader() -> World {
    let world = World::sealed(5);
    world.snapshot(2, None);
    world.snapshot(3, Some(2));
    world.remove_segment(0);
    world.remove_segment(1);
    world.remove_index(0);
    world
}

fn start() -> LogStart {
    LogStart { index: BatchIndex(16), term: Term(1), base_offset: LogOffset(2 * SEGMENT) }
}

fn job(start: LogStart, boundary: Option<u64>) -> CheckpointJob {
    let boundary = boundary.map(|nth| LogOffset(nth * SEGMENT));
    CheckpointJob { id: OpId(1), group: GROUP, start, boundary }
}

fn checkpoint() -> Checkpoint {
    take_checkpoint(&leader().0, &job(start(), Some(1))).unwrap()
}

/// A log of 20 batches that never heard of the leader's.
fn follower() -> World {
    follower_on(SimDisk::new(1))
}

fn follower_on(disk: SimDisk) -> World {
    let world = World(disk);
    for nth in 0..3 {
        world.0.add_segment(SegmentInfo { base: LogOffset(nth * SEGMENT), bytes: SEGMENT });
    }
    (1..=20).for_each(|index| world.put(index - 1, &of_queues(index).encode()));
    world.seal(0);
    world.seal(1);
    world.snapshot(1, None);
    open(&world, state());
    world
}

fn reset(world: &World) -> Result<ResetDone, JobError> {
    let state = read_saved_group_state(&world.0).unwrap().unwrap().state;
    let job = ResetJob { id: OpId(2), state, checkpoint: checkpoint() };
    reset_log(world, job)
}

fn reset_log(world: &World, job: ResetJob) -> Result<ResetDone, JobError> {
    Reset::begin(&world.0, job, Box::new(Journal::default()))?.finish(&world.0)
}

/// All control records of the leader's log up to its newest snapshot.
fn derived() -> Journal {
    Journal::of(32)
}

#[track_caller]
fn is_old(world: &World) {
    let (found, journal) = reopen(world);
    assert_eq!(found.recovered.report.last_index, BatchIndex(20));
    assert_eq!(found.recovered.restored.start, LogStart::default());
    assert_eq!((journal, found.state.recovering), (Journal::of(19), false));
    assert_eq!(world.0.read_checkpoint().unwrap(), None);
}

#[track_caller]
fn is_new(world: &World) {
    let (found, journal) = reopen(world);
    let restored = &found.recovered.restored;
    assert_eq!(
        (restored.start, restored.end, restored.last_index),
        (start(), start().base_offset, start().index)
    );
    assert_eq!((found.state.recovering, found.damage), (false, None));
    assert_eq!((found.state_at, journal), (LogOffset(4 * SEGMENT), derived()));
    assert_eq!((found.state.term, found.state.vote), (Term(4), Some(NodeId(2))), "what was promised stays");
    let ends = [(0, 4), (1, 4), (2, 4), (u64::MAX, 4)];
    for (queue, end) in ends {
        let queue = restored.queues.get(QueueKey(queue)).unwrap();
        assert_eq!((queue.min.0, queue.tail.0, queue.index.max().0), (end, end, end));
    }
    assert_eq!(world.0.segment_bases(), []);
    let files = [
        LogFile::Index(LogOffset(2 * SEGMENT - BLOCK)),
        LogFile::Snapshot(LogOffset(4 * SEGMENT)),
        LogFile::GroupState,
    ];
    assert_eq!(world.0.small_files(), files);
}

// The leader's side

#[test]
fn checkpoint_tells_where_queues_stand_and_what_the_control_records_come_to() {
    let checkpoint = checkpoint();
    assert_eq!((checkpoint.start, checkpoint.last_store_time_ms), (start(), 1000));
    let ends = [0, 1, 2, u64::MAX].map(|queue| (QueueKey(queue), QueueOffset(4)));
    assert_eq!(checkpoint.queue_ends, ends);
    let snapshot = checkpoint.check(GROUP).unwrap().unwrap();
    assert_eq!(
        (snapshot.at, snapshot.index, snapshot.body),
        (LogOffset(4 * SEGMENT), BatchIndex(32), derived().encode())
    );
}

#[test]
fn log_from_its_first_batch_on_needs_no_checkpoint_of_anything() {
    let world = World::sealed(5);
    world.snapshot(2, None);
    let checkpoint = take_checkpoint(&world.0, &job(LogStart::default(), None)).unwrap();
    assert_eq!((checkpoint.queue_ends, checkpoint.snapshot), (Vec::new(), None));
}

#[test]
fn damaged_newest_snapshot_gives_way_to_the_one_before() {
    let world = leader();
    world.0.flip_bit_of_small_file(LogFile::Snapshot(LogOffset(4 * SEGMENT)), 99);
    let checkpoint = take_checkpoint(&world.0, &job(start(), Some(1))).unwrap();
    assert_eq!(checkpoint.snapshot.unwrap().at, LogOffset(3 * SEGMENT));
    world.0.flip_bit_of_small_file(LogFile::Snapshot(LogOffset(3 * SEGMENT)), 99);
    let error = take_checkpoint(&world.0, &job(start(), Some(1))).unwrap_err();
    assert!(matches!(error, JobError::Snapshot { at: LogOffset(at), .. } if at == 4 * SEGMENT));
}

#[test]
fn checkpoint_of_another_start_is_refused() {
    let world = leader();
    let no_index = take_checkpoint(&world.0, &job(start(), None)).unwrap_err();
    let expected = CheckpointError::NoBoundary { index: BatchIndex(16) };
    assert!(matches!(no_index, JobError::Checkpoint { error, .. } if error == expected));
    let left = take_checkpoint(&world.0, &job(start(), Some(0))).unwrap_err();
    assert!(matches!(left, JobError::Io { .. }));
    let others = [
        ("last_index", LogStart { index: BatchIndex(17), ..start() }),
        ("last_term", LogStart { term: Term(2), ..start() }),
        ("segment end", LogStart { base_offset: LogOffset(SEGMENT), ..start() }),
    ];
    for (name, other) in others {
        match take_checkpoint(&world.0, &job(other, Some(1))) {
            Err(JobError::Unexpected { field, .. }) => assert_eq!(field, name),
            other => panic!("{other:?}"),
        }
    }
}

// Its bytes

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn checkpoint_is_what_was_encoded(
        queues in btree_map(any::<u64>(), any::<u64>(), 0..50),
        index in 1..u64::MAX / 2,
        blocks in 1..u64::MAX / 8192,
        term in any::<u64>(),
        last_store_time_ms in any::<i64>(),
        at in any::<u64>(),
        body in vec(any::<u8>(), 0..200),
        seq in any::<u64>(),
    ) {
        let snapshot = Snapshot { group: GROUP, at: LogOffset(at), index: BatchIndex(index + 5), term: Term(term), body };
        let file = snapshot.encode().unwrap();
        let checkpoint = Checkpoint {
            start: LogStart { index: BatchIndex(index), term: Term(term), base_offset: LogOffset(blocks * BLOCK) },
            last_store_time_ms,
            queue_ends: queues.into_iter().map(|(queue, end)| (QueueKey(queue), QueueOffset(end))).collect(),
            snapshot: Some(CheckpointSnapshot { at: LogOffset(at), file }),
        };
        let bytes = checkpoint.encode(GROUP, seq);
        prop_assert_eq!(Checkpoint::decode(GROUP, &bytes).unwrap(), (seq, checkpoint.clone()));
    }

    #[test]
    fn arbitrary_bytes_are_no_checkpoint(bytes in vec(any::<u8>(), 0..400)) {
        prop_assert!(Checkpoint::decode(GROUP, &bytes).is_err());
    }

    /// With a checksum that holds, whatever the fields say.
    #[test]
    fn damaged_fields_are_refused_or_say_all_they_mean(
        changes in vec((0..88usize, any::<u8>()), 1..6),
    ) {
        let mut bytes = checkpoint().encode(GROUP, 3);
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        reseal(&mut bytes);
        if let Ok((seq, decoded)) = Checkpoint::decode(GROUP, &bytes) {
            prop_assert_eq!(decoded.encode(GROUP, seq), bytes);
        }
    }
}

/// Puts the checksum right again.
fn reseal(bytes: &mut [u8]) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn every_bit_and_every_cut_is_noticed() {
    let bytes = checkpoint().encode(GROUP, 3);
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Checkpoint::decode(GROUP, &bad).is_err(), "bit {bit} turned over and nobody saw");
    }
    for len in 0..bytes.len() {
        assert!(Checkpoint::decode(GROUP, &bytes[..len]).is_err(), "cut to {len} bytes and nobody saw");
    }
}

#[test]
fn impossible_checkpoints_are_refused_by_field() {
    type Change = fn(&mut Vec<u8>);
    let table: [(&str, Change); 7] = [
        ("header_len is", |bytes| bytes[6] = 80),
        ("version 2", |bytes| bytes[4] = 2),
        ("reserved is 1", |bytes| bytes[12] = 1),
        ("group is", |bytes| bytes[16] = 9),
        ("length is", |bytes| bytes[80] = 9),
        ("start_offset", |bytes| bytes[48] = 1),
        // The first queue is 0, and the second would be too.
        ("queue is 0", |bytes| bytes[88 + 16] = 0),
    ];
    for (expected, change) in table {
        let mut bytes = checkpoint().encode(GROUP, 3);
        change(&mut bytes);
        reseal(&mut bytes);
        let error = Checkpoint::decode(GROUP, &bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let foreign = Checkpoint::decode(GroupId(8), &checkpoint().encode(GROUP, 3)).unwrap_err();
    assert!(matches!(foreign, CheckpointError::Field { field: "group", .. }));
}

#[test]
fn checkpoint_that_no_log_can_begin_behind_is_refused() {
    type Change = fn(&mut Checkpoint);
    let table: [(&str, Change); 5] = [
        ("no snapshot tells", |checkpoint| checkpoint.snapshot = None),
        ("start_index is 0", |checkpoint| checkpoint.start.index = BatchIndex(0)),
        ("start_index is 16", |checkpoint| checkpoint.start.base_offset = LogOffset(0)),
        ("snapshot_at", |checkpoint| checkpoint.snapshot.as_mut().unwrap().at.0 += 1),
        ("index is 32", |checkpoint| checkpoint.start.index = BatchIndex(33)),
    ];
    for (expected, change) in table {
        let mut bad = checkpoint();
        change(&mut bad);
        let error = Checkpoint::decode(GROUP, &bad.encode(GROUP, 3)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let mut bad = checkpoint();
    bad.snapshot.as_mut().unwrap().file[60] ^= 1;
    let error = Checkpoint::decode(GROUP, &bad.encode(GROUP, 3)).unwrap_err();
    assert!(matches!(error, CheckpointError::Snapshot(SnapshotError::Crc { .. })));
}

// Beginning anew

#[test]
fn log_begins_anew_behind_the_checkpoint() {
    let world = follower();
    let done = reset(&world).unwrap();
    let saved = read_saved_group_state(&world.0).unwrap().unwrap().state;
    assert_eq!((done.state.log_start, done.state.commit), (start(), BatchIndex(16)));
    assert_eq!(
        (done.state.checkpoint_at, done.snapshot),
        (LogOffset(4 * SEGMENT), Some(LogOffset(4 * SEGMENT)))
    );
    assert_eq!((saved, done.queue_ends), (done.state, checkpoint().queue_ends));
    let derived_state: Box<dyn Any> = done.derived;
    assert_eq!(*derived_state.downcast::<Journal>().unwrap(), derived());
    let boundary = done.boundary.unwrap();
    assert_eq!(
        (boundary.summary().last_index, boundary.summary().segment.end()),
        (BatchIndex(16), start().base_offset)
    );
    is_new(&world);
    // It is the log's own state by now.
    is_new(&world);
}

#[test]
fn empty_node_begins_behind_the_checkpoint() {
    let world = World(SimDisk::new(1));
    save_group_state(&world.0, &state()).unwrap();
    reset(&world).unwrap();
    is_new(&world);
}

#[test]
fn log_may_begin_anew_from_its_first_batch_on() {
    let world = follower();
    let checkpoint = Checkpoint {
        start: LogStart::default(),
        last_store_time_ms: i64::MIN,
        queue_ends: Vec::new(),
        snapshot: None,
    };
    let job = ResetJob { id: OpId(2), state: state(), checkpoint };
    let done = reset_log(&world, job).unwrap();
    assert!(done.boundary.is_none() && done.snapshot.is_none());
    let (found, journal) = reopen(&world);
    assert_eq!((found.recovered.report.last_index, journal), (BatchIndex(0), Journal::default()));
    assert_eq!(world.0.small_files(), [LogFile::GroupState]);
}

/// The leader's batches come, the log is opened in between, and again once it has reached its snapshot.
#[test]
fn batches_behind_the_checkpoint_make_the_log_whole() {
    let world = follower();
    reset(&world).unwrap();
    for nth in 2..6 {
        world.0.add_segment(SegmentInfo { base: LogOffset(nth * SEGMENT), bytes: SEGMENT });
    }
    for index in 17..=45 {
        world.put(index - 1, &of_queues(index).encode());
        let (found, journal) = reopen(&world);
        assert_eq!((found.recovered.report.last_index.0, found.damage), (index, None));
        let restored = &found.recovered.restored;
        // What its hint says, and the snapshot knows better.
        let committed = if index <= 32 { index } else { index - 1 };
        assert_eq!(restored.last_index.0, committed);
        assert_eq!(restored.start, start());
        assert_eq!(found.state_at.0, (4 * SEGMENT).max(committed * BLOCK));
        assert_eq!(journal, Journal::of(committed.max(32)));
    }
}

#[test]
fn sealing_goes_on_behind_the_checkpoint() {
    let world = follower();
    reset(&world).unwrap();
    for nth in 2..6 {
        world.0.add_segment(SegmentInfo { base: LogOffset(nth * SEGMENT), bytes: SEGMENT });
    }
    (17..=45).for_each(|index| world.put(index - 1, &of_queues(index).encode()));
    let leader = leader();
    world.seal_behind(2, LogOffset(2 * SEGMENT - BLOCK));
    for nth in 3..5 {
        world.seal(nth);
    }
    for nth in 2..5 {
        let index = |world: &World| world.0.map_index(LogOffset(nth * SEGMENT)).unwrap();
        assert!(index(&world).bytes() == index(&leader).bytes(), "the index of segment {nth} is another one");
    }
    let (found, _) = reopen(&world);
    assert_eq!(found.recovered.report.sealed_segments, 3);
    assert_eq!(found.recovered.restored.start, start());
}

/// At every call of the disk, with whatever a crash leaves of the last one.
#[test]
fn crash_at_any_point_leaves_the_old_log_or_the_new_one() {
    let (mut old, mut new) = (0, 0);
    for calls in 0..40 {
        for seed in 0..4 {
            let world = follower_on(SimDisk::new(seed));
            world.0.die_after(calls);
            let done = reset_with(&world, checkpoint()).is_ok();
            world.0.crash();
            let committed = world.0.read_checkpoint().unwrap().is_some()
                && read_saved_group_state(&world.0).unwrap().unwrap().state.log_start == start();
            if done || committed || world.0.segment_bases().is_empty() {
                is_new(&world);
                new += 1;
            } else {
                is_old(&world);
                old += 1;
            }
        }
    }
    assert!(old >= 8 && new >= 40, "{old} old, {new} new");
}

#[test]
fn without_room_for_the_checkpoint_nothing_has_changed() {
    let world = follower();
    world.0.set_full(true);
    let error = DiskError::job("begin anew", &reset(&world).unwrap_err()).not_begun();
    assert!(matches!(error, DiskError::NotBegun { .. }), "{error}");
    assert!(error.is_no_space() && error.to_string().ends_with("nothing has changed"), "{error}");
    is_old(&world);
    world.0.set_full(false);
    reset(&world).unwrap();
    is_new(&world);
}

fn reset_with(world: &World, checkpoint: Checkpoint) -> Result<ResetDone, JobError> {
    // The state was read when the node was opened.
    let state = GroupState {
        segment_bytes: SEGMENT,
        write_window_bytes: 32 << 20,
        commit: BatchIndex(19),
        ..state()
    };
    reset_log(world, ResetJob { id: OpId(2), state, checkpoint })
}

/// The opening that ends the reset dies as well, any number of times.
#[test]
fn crash_while_a_reset_is_ended_changes_nothing() {
    for first in 3..25 {
        for second in 0..25 {
            let world = follower();
            world.0.die_after(first);
            let _ = reset_with(&world, checkpoint());
            world.0.crash();
            let is_begun = read_saved_group_state(&world.0).unwrap().unwrap().state.log_start == start();
            for calls in [second, second / 2] {
                let saved = read_saved_group_state(&world.0).unwrap().unwrap().state;
                world.0.die_after(calls);
                let _ = recover_group(&world.0, &group_config(), saved, &mut Journal::default());
                world.0.crash();
            }
            if is_begun { is_new(&world) } else { is_old(&world) }
        }
    }
}

#[test]
fn failure_at_any_point_leaves_the_old_log_or_the_new_one() {
    for failing in [Failing::SmallFiles, Failing::Reads] {
        for working in 0..20 {
            let world = follower();
            world.0.fail_after(failing, working);
            let done = reset_with(&world, checkpoint());
            world.0.fail(failing, 0);
            let begun = read_saved_group_state(&world.0).unwrap().unwrap().state.log_start == start();
            assert!(begun || done.is_err());
            if begun { is_new(&world) } else { is_old(&world) }
        }
    }
}

#[test]
fn checkpoint_that_was_never_begun_behind_is_removed() {
    let world = follower();
    let seq = read_saved_group_state(&world.0).unwrap().unwrap().seq;
    let bytes = checkpoint().encode(GROUP, seq + 1);
    world.0.write_checkpoint(&bytes).unwrap();
    let (found, _) = reopen(&world);
    assert_eq!(found.interrupted, Some(Interrupted::Undone));
    is_old(&world);
    // Neither when states were saved since that say nothing of it.
    world.0.write_checkpoint(&bytes).unwrap();
    let saved = read_saved_group_state(&world.0).unwrap().unwrap().state;
    for term in 5..8 {
        save_group_state(&world.0, &GroupState { term: Term(term), ..saved.clone() }).unwrap();
    }
    save_group_state(&world.0, &saved).unwrap();
    is_old(&world);
}

#[test]
fn damaged_checkpoint_is_told() {
    let world = follower();
    world.0.write_checkpoint(&checkpoint().encode(GROUP, 2)).unwrap();
    world.0.flip_bit_of_small_file(LogFile::Checkpoint, 500);
    let saved = read_saved_group_state(&world.0).unwrap().unwrap().state;
    let error = recover_group(&world.0, &group_config(), saved, &mut ()).unwrap_err();
    assert!(error.to_string().starts_with("checkpoint: checksum"), "{error}");
}

#[test]
fn snapshot_that_is_not_understood_is_refused_before_anything_is_lost() {
    let world = follower();
    let mut checkpoint = checkpoint();
    let snapshot = Snapshot {
        group: GROUP,
        at: LogOffset(4 * SEGMENT),
        index: BatchIndex(32),
        term: Term(1),
        body: b"nonsense".to_vec(),
    };
    checkpoint.snapshot.as_mut().unwrap().file = snapshot.encode().unwrap();
    assert!(matches!(reset_with(&world, checkpoint), Err(JobError::State { .. })));
    is_old(&world);
}

/// The index in front of a log that began anew does for its first segment what a true one does.
#[test]
fn index_of_the_first_segment_is_made_anew_behind_a_checkpoint() {
    let world = follower();
    reset(&world).unwrap();
    for nth in 2..6 {
        world.0.add_segment(SegmentInfo { base: LogOffset(nth * SEGMENT), bytes: SEGMENT });
    }
    (17..=45).for_each(|index| world.put(index - 1, &Batch { hint: 0, ..of_queues(index) }.encode()));
    world.seal_behind(2, LogOffset(2 * SEGMENT - BLOCK));
    world.seal(3);
    world.remove_index(2);
    let (found, _) = reopen(&world);
    assert_eq!(found.recovered.report.indexes_replaced.len(), 1);
    assert_eq!(found.recovered.restored.last_index, BatchIndex(32));
}
