//! Whole logs, each kind of damage, and a log that is written to meanwhile.

use std::cell::Cell;
use std::io;
use std::sync::Arc;

use super::*;
use crate::checkpoint::{CheckpointJob, Reset, ResetJob, take_checkpoint};
use crate::disk::{OpId, SegmentInfo};
use crate::format::{BATCH_HEADER_LEN, BatchError, BatchKind};
use crate::group_state::{GroupState, GroupStateError, save_group_state};
use crate::recovery::tests::{BLOCK, BLOCKS, Batch, GROUP, SEGMENT, World, batch, of_queues};
use crate::recovery::{CutCause, IndexFlaw, Mismatch};
use crate::sim::SimDisk;
use crate::source::{IndexBytes, LogFile, LogSource};
use crate::types::{BatchIndex, GroupId, LogOffset, LogStart, NodeId, QueueKey, QueueOffset, Term};

fn verify_all(world: &World) -> (VerifyReport, Vec<Problem>) {
    let (mut problems, mut before) = (Vec::new(), 0);
    let report = verify(&world.0, None, &mut |problem| problems.push(problem), &mut |progress| {
        assert!(progress.bytes >= before && progress.bytes < progress.of_bytes, "{progress:?}");
        before = progress.bytes;
    });
    assert_eq!(report.problems, problems.len() as u64);
    (report, problems)
}

#[track_caller]
fn whole(world: &World) -> VerifyReport {
    let (report, problems) = verify_all(world);
    assert_eq!(problems, []);
    report
}

/// The problems, as file, position and what is wrong.
fn problems(world: &World) -> Vec<(String, u64, Wrong)> {
    let (_, problems) = verify_all(world);
    problems.into_iter().map(|Problem { file, position, wrong }| (file, position, wrong)).collect()
}

fn segment(nth: u64) -> String {
    LogFile::Segment(LogOffset(nth * SEGMENT)).file_name()
}

fn index(nth: u64) -> String {
    LogFile::Index(LogOffset(nth * SEGMENT)).file_name()
}

/// 45 batches, five sealed segments, snapshots at the ends of segments 1 and 3.
fn world() -> World {
    let world = World::sealed(5);
    world.snapshot(1, None);
    world.snapshot(3, Some(1));
    world
}

#[test]
fn whole_log_is_counted() {
    let report = whole(&world());
    assert_eq!((report.group, report.begin, report.end), (Some(GROUP), LogOffset(0), LogOffset(45 * BLOCK)));
    assert_eq!((report.batches, report.records, report.bytes), (45, 45, 45 * BLOCK));
    assert_eq!((report.segments, report.indexes, report.indexes_compared, report.snapshots), (7, 5, 5, 2));
    assert_eq!((report.last_index, report.queues, report.cut), (BatchIndex(45), 4, None));
}

#[test]
fn nothing_is_a_whole_log() {
    let report = whole(&World::of(0, &[]));
    assert_eq!((report.group, report.segments, report.batches), (None, 0, 0));
    let report = whole(&World::with(&[]));
    assert_eq!((report.group, report.segments, report.batches), (None, 3, 0));
}

#[test]
fn nothing_is_changed() {
    let world = world();
    world.0.set_read_only(true);
    whole(&world);
    assert!(batches(&world.0, None, LogOffset(0)).all(|batch| batch.is_ok()));
}

#[test]
fn log_of_a_tail_only_is_whole() {
    let report = whole(&World::sealed(0));
    assert_eq!((report.batches, report.indexes), (45, 0));
}

#[test]
fn rolls_that_leave_room_are_followed() {
    let rolled = |index| Batch { block: index + 2, ..of_queues(index) };
    let world = World::with(&(1..=5).map(of_queues).chain((6..=14).map(rolled)).collect::<Vec<_>>());
    assert_eq!(whole(&world).batches, 14);
    world.seal(0);
    world.seal(1);
    assert_eq!(whole(&world).indexes_compared, 2);
}

#[test]
fn log_that_ends_with_its_sealed_part_is_whole() {
    let world = world();
    (40..45).for_each(|block| world.zero(block));
    assert_eq!(whole(&world).end, LogOffset(40 * BLOCK));
}

#[test]
fn log_without_its_oldest_segments_is_whole() {
    let world = world();
    for nth in [0, 1] {
        world.remove_segment(nth);
    }
    world.remove_index(0);
    let report = whole(&world);
    assert_eq!((report.begin, report.batches), (LogOffset(2 * SEGMENT), 29));
    assert_eq!((report.indexes, report.indexes_compared), (4, 3));
    // Without the index in front nobody knows where the queues stood, or which of them there were.
    world.remove_index(1);
    let report = whole(&world);
    assert_eq!((report.indexes, report.indexes_compared), (3, 2));
}

#[test]
fn what_was_begun_behind_the_end_is_no_problem() {
    let world = world();
    world.put(45, &Batch { hint: 45, ..of_queues(46) }.encode());
    world.tear(45);
    let report = whole(&world);
    assert_eq!((report.batches, report.end), (45, LogOffset(45 * BLOCK)));
    assert!(matches!(report.cut.unwrap().cause, CutCause::Torn(_)));
    world.put(45, &Batch { term: 2, prev_term: 2, hint: 40, ..of_queues(46) }.encode());
    assert!(matches!(whole(&world).cut.unwrap().cause, CutCause::Stale(_)));
    (45..56).for_each(|block| world.put(block, b"what a recycled file held before"));
    assert_eq!(whole(&world).cut, None);
}

// Damage

#[test]
fn damaged_records_are_told() {
    let world = world();
    world.tear(18);
    let (report, problems) = verify_all(&world);
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!((&problem.file, problem.position), (&segment(2), 2 * BLOCK));
    let Wrong::Damaged { index: BatchIndex(19), error: BatchError::RecordsCrc { expected, found } } =
        problem.wrong
    else {
        panic!("{problem}")
    };
    let text = format!(
        "{} at 8192: batch 19 is damaged: records checksum {found:08x}, expected {expected:08x}",
        segment(2)
    );
    assert_eq!(problem.to_string(), text);
    // The directory is whole, so nothing else suffers.
    assert_eq!((report.batches, report.indexes_compared, report.end), (44, 5, LogOffset(45 * BLOCK)));
}

#[test]
fn damaged_directory_is_told() {
    let world = world();
    world.tear_directory(18);
    let (report, problems) = verify_all(&world);
    let [Problem { position, wrong: Wrong::Damaged { index, error: BatchError::DirectoryCrc { .. } }, .. }] =
        problems[..]
    else {
        panic!("{problems:?}")
    };
    assert_eq!((position, index), (2 * BLOCK, BatchIndex(19)));
    assert_eq!((report.batches, report.indexes_compared), (44, 4), "no index to compare segment 2 with");
}

#[test]
fn walk_goes_on_behind_a_damaged_header() {
    for damage in [World::tear_header, World::zero] {
        for block in [0, 18, 23, 24, 39, 40, 43] {
            let world = world();
            damage(&world, block);
            let (report, problems) = verify_all(&world);
            let [Problem { file, position, wrong: Wrong::Missing { index, bytes, goes_on_with, .. } }] =
                &problems[..]
            else {
                panic!("{block}: {problems:?}")
            };
            assert_eq!((file, *position), (&segment(block / BLOCKS), block % BLOCKS * BLOCK), "{block}");
            assert_eq!((*index, *bytes), (Some(BatchIndex(block + 1)), BLOCK), "{block}");
            assert_eq!(*goes_on_with, Some(BatchIndex(block + 2)), "{block}");
            assert_eq!((report.batches, report.end), (44, LogOffset(45 * BLOCK)), "{block}");
        }
    }
}

#[test]
fn walk_goes_on_behind_whole_segments_of_damage() {
    let world = world();
    (10..37).for_each(|block| world.zero(block));
    let (report, problems) = verify_all(&world);
    let missing = problems.iter().find_map(|problem| match problem.wrong {
        Wrong::Missing { index, bytes, goes_on_with, .. } => Some((index, bytes, goes_on_with)),
        _ => None,
    });
    assert_eq!(missing, Some((Some(BatchIndex(11)), 27 * BLOCK, Some(BatchIndex(38)))));
    assert_eq!((report.batches, problems.len()), (18, 1));
}

#[test]
fn damage_up_to_the_end_of_what_is_sealed_is_told() {
    let world = world();
    (38..45).for_each(|block| world.zero(block));
    let expected = Wrong::Missing {
        index: Some(BatchIndex(39)),
        found: "nothing is written there".to_owned(),
        bytes: 18 * BLOCK,
        goes_on_with: None,
    };
    assert_eq!(problems(&world), [(segment(4), 6 * BLOCK, expected)]);
}

#[test]
fn every_damaged_byte_of_sealed_batches_is_told() {
    // All of the header and directory, then here and there; in the first batch, and in the last that is sealed.
    let within = (0..200).chain((200..BLOCK).step_by(89));
    for (nth, within) in within.enumerate() {
        let at = if nth % 2 == 0 { within } else { 7 * BLOCK + within };
        let world = World::with(&(1..=9).map(of_queues).collect::<Vec<_>>());
        world.seal(0);
        world.0.flip_bit(LogOffset(at / SEGMENT * SEGMENT), at % SEGMENT, (at % 8) as u8);
        let (report, problems) = verify_all(&world);
        assert_eq!(problems.len(), 1, "damaged at {at}: {problems:?}");
        assert_eq!(problems[0].position, at % SEGMENT / BLOCK * BLOCK);
        assert_eq!((report.batches, report.end), (8, LogOffset(9 * BLOCK)));
    }
}

#[test]
fn foreign_and_other_formats_are_told() {
    let world = World::with(&[batch(1), batch(2), Batch { group: 8, hint: 1, ..batch(3) }]);
    let expected = Wrong::ForeignGroup { expected: GROUP, found: GroupId(8) };
    assert_eq!(problems(&world), [(segment(0), 2 * BLOCK, expected)]);
    let mut bytes = batch(3).encode();
    bytes[4] = 9;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..BATCH_HEADER_LEN]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    world.put(2, &bytes);
    assert_eq!(problems(&world), [(segment(0), 2 * BLOCK, Wrong::Version { found: 9 })]);
}

#[test]
fn log_of_another_group_is_told() {
    let world = world();
    let mut told = Vec::new();
    let report = verify(&world.0, Some(GroupId(8)), &mut |problem| told.push(problem.wrong), &mut |_| {});
    assert!(told.contains(&Wrong::ForeignGroup { expected: GroupId(8), found: GROUP }), "{told:?}");
    assert_eq!(report.batches, 0);
}

#[test]
fn queue_with_a_hole_is_told() {
    let world = World::with(&[
        batch(1),
        Batch { queue_offset: 2, ..batch(2) },
        Batch { queue_offset: 3, ..batch(3) },
    ]);
    let (queue, expected, found) = (QueueKey(3), QueueOffset(1), QueueOffset(2));
    assert_eq!(problems(&world), [(segment(0), BLOCK, Wrong::QueueOffset { queue, expected, found })]);
    let world = World::with(&[Batch { queue_offset: 5, ..batch(1) }]);
    let (expected, found) = (QueueOffset(0), QueueOffset(5));
    assert_eq!(problems(&world), [(segment(0), 0, Wrong::QueueOffset { queue, expected, found })]);
}

#[test]
fn queue_that_goes_back_behind_damage_is_told() {
    let world = World::with(&(1..=6).map(batch).collect::<Vec<_>>());
    world.tear_header(2);
    world.put(3, &Batch { queue_offset: 1, ..batch(4) }.encode());
    let told = problems(&world);
    let (queue, expected, found) = (QueueKey(3), QueueOffset(2), QueueOffset(1));
    assert_eq!(told[1], (segment(0), 3 * BLOCK, Wrong::QueueOffset { queue, expected, found }));
}

#[test]
fn time_that_goes_back_is_told() {
    let world = World::with(&[batch(1), Batch { store_time_ms: 999, ..batch(2) }]);
    let mismatch = Mismatch { field: "store_time", expected: 1000, found: 999 };
    let expected = Wrong::Inconsistent { index: BatchIndex(2), mismatch };
    assert_eq!(problems(&world), [(segment(0), BLOCK, expected)]);
}

#[test]
fn missing_segment_is_told() {
    let world = world();
    world.remove_segment(2);
    let told = problems(&world);
    let gap = Wrong::Gap { expected: LogOffset(2 * SEGMENT), found: LogOffset(3 * SEGMENT) };
    assert_eq!(told[0], (segment(3), 0, gap));
    assert!(matches!(told[1], (_, _, Wrong::Missing { index: Some(BatchIndex(17)), .. })), "{told:?}");
    assert!(told.contains(&(index(2), 0, Wrong::SegmentMissing)), "{told:?}");
    assert_eq!(verify_all(&world).0.batches, 37);
}

// Indexes and snapshots

#[test]
fn missing_index_is_told_where_a_later_one_is() {
    let world = world();
    world.remove_index(2);
    assert_eq!(problems(&world), [(index(2), 0, Wrong::Index(IndexFlaw::Missing))]);
    let world = self::world();
    world.remove_index(4);
    assert_eq!(problems(&world), []);
}

#[test]
fn damaged_page_of_an_index_is_told() {
    let pages = world().0.map_index(LogOffset(2 * SEGMENT)).unwrap().bytes().len() / 4096;
    for page in 0..pages {
        let world = world();
        world.change_index(2, |bytes| bytes[page * 4096 + 1] ^= 4);
        let told = problems(&world);
        let [(file, 0, Wrong::Index(flaw))] = &told[..] else { panic!("{told:?}") };
        assert_eq!(file, &index(2));
        let is_page = matches!(flaw, IndexFlaw::Page(_));
        assert_eq!(is_page, page > 1, "header, page table, then sections: {flaw}");
        assert_eq!(verify_all(&world).0.indexes_compared, 4);
    }
}

#[test]
fn index_that_is_whole_and_wrong_is_told() {
    // Of a log that is the same but for one batch.
    let differing: [(Batch, &str); 3] = [
        (Batch { queue: QueueKey(7), queue_offset: 0, ..of_queues(24) }, "queues is 5, expected 4"),
        (Batch { store_time_ms: 1001, ..of_queues(24) }, "last_time is 1001, expected 1000"),
        (Batch { key: 5, ..of_queues(24) }, "row 0 of keys is hash 5 of entry"),
    ];
    for (other, expected) in differing {
        let others = (1..24).map(of_queues).chain([other]).chain((25..=45).map(of_queues));
        let wrong = World::of(7, &others.collect::<Vec<_>>());
        (0..3).for_each(|nth| wrong.seal(nth));
        let world = world();
        let bytes = wrong.0.map_index(LogOffset(2 * SEGMENT)).unwrap();
        world.0.write_index(LogOffset(2 * SEGMENT), bytes.bytes()).unwrap();
        let told = problems(&world);
        let [(file, 0, Wrong::IndexDiffers(difference))] = &told[..] else { panic!("{told:?}") };
        assert_eq!(file, &index(2));
        assert!(difference.to_string().starts_with(expected), "{difference}");
    }
}

#[test]
fn index_of_another_place_is_told() {
    let world = world();
    let other = world.0.map_index(LogOffset(3 * SEGMENT)).unwrap();
    world.0.write_index(LogOffset(2 * SEGMENT), other.bytes()).unwrap();
    let told = problems(&world);
    assert!(matches!(told[..], [(_, 0, Wrong::Index(IndexFlaw::OtherSegment { .. }))]), "{told:?}");
}

#[test]
fn snapshots_are_checked() {
    let at = LogOffset(4 * SEGMENT);
    let world = world();
    let mut bytes = world.0.read_snapshot(at).unwrap();
    bytes[60] ^= 1;
    world.0.write_snapshot(at, &bytes).unwrap();
    let told = problems(&world);
    let [(file, 0, Wrong::Snapshot(_))] = &told[..] else { panic!("{told:?}") };
    assert_eq!(*file, LogFile::Snapshot(at).file_name());
}

#[test]
fn snapshot_behind_the_end_is_told() {
    let world = world();
    (4..7).for_each(|nth| world.remove_segment(nth));
    (24..32).for_each(|block| world.zero(block));
    (3..5).for_each(|nth| world.remove_index(nth));
    let end = LogOffset(24 * BLOCK);
    let expected = (LogFile::Snapshot(LogOffset(32 * BLOCK)).file_name(), 0, Wrong::SnapshotAhead { end });
    assert_eq!(problems(&world), [expected]);
}

#[test]
fn snapshot_that_does_not_fit_is_told() {
    let world = World::sealed(5);
    let wrong = |index| Batch { term: 2, prev_term: if index == 1 { 0 } else { 2 }, ..of_queues(index) };
    let other = World::of(7, &(1..=45).map(wrong).collect::<Vec<_>>());
    (0..2).for_each(|nth| other.seal(nth));
    let at = other.snapshot(1, None);
    world.0.write_snapshot(at, &other.0.read_snapshot(at).unwrap()).unwrap();
    let told = problems(&world);
    let [(_, 0, Wrong::Snapshot(flaw))] = &told[..] else { panic!("{told:?}") };
    assert_eq!(flaw.to_string(), "it does not fit the log: term is 2, expected 1");
}

// The log of a group

/// A node's state, saved, with two blocks on the way at once.
fn node(world: &World, change: impl FnOnce(&mut GroupState)) -> GroupState {
    let mut state = GroupState { write_window_bytes: 2 * BLOCK, ..GroupState::new(GROUP, NodeId(1)) };
    change(&mut state);
    save_group_state(&world.0, &state).unwrap();
    state
}

#[test]
fn state_of_a_node_is_shown() {
    let world = world();
    assert_eq!(whole(&world).state, None);
    let state = node(&world, |state| (state.term, state.commit) = (Term(3), BatchIndex(40)));
    let report = whole(&world);
    assert_eq!((report.state, report.begins_anew), (Some(state), false));
}

#[test]
fn state_that_cannot_be_told_is_a_problem() {
    let world = world();
    node(&world, |_| ());
    node(&world, |state| state.term = Term(2));
    let file = || LogFile::GroupState.file_name();
    world.0.flip_bit_of_small_file(LogFile::GroupState, 99);
    assert_eq!(whole(&world).state.unwrap().term, Term(2), "one slot may be torn");
    world.0.flip_bit_of_small_file(LogFile::GroupState, 4096 * 8 + 99);
    let found = problems(&world);
    assert!(
        matches!(&found[..], [(at, 0, Wrong::GroupState(GroupStateError::Both { .. }))] if *at == file())
    );

    let world = World::sealed(5);
    save_group_state(&world.0, &GroupState::new(GroupId(8), NodeId(1))).unwrap();
    let mut found = Vec::new();
    verify(&world.0, Some(GROUP), &mut |problem| found.push(problem.wrong), &mut |_| {});
    assert_eq!(found, [Wrong::ForeignGroup { expected: GROUP, found: GroupId(8) }]);
}

#[test]
fn uncommitted_tail_and_batches_without_records_are_no_problem() {
    let world = World::with(&[
        Batch { kind: BatchKind::NoOp, hint: 0, ..batch(1) },
        Batch {
            kind: BatchKind::Configuration,
            hint: 0,
            queue: QueueKey::MEMBERS,
            queue_offset: 0,
            ..batch(2)
        },
        Batch { hint: 0, queue_offset: 0, ..batch(3) },
    ]);
    node(&world, |_| ());
    let report = whole(&world);
    assert_eq!((report.batches, report.records, report.queues), (3, 2, 2));
    let kinds: Vec<_> =
        batches(&world.0, None, LogOffset(0)).map(|batch| batch.unwrap().header.batch_kind()).collect();
    assert_eq!(kinds, [BatchKind::NoOp, BatchKind::Configuration, BatchKind::Records]);
}

#[test]
fn torn_batch_that_only_others_have_is_no_problem() {
    let world = World::with(&(1..=7).map(batch).collect::<Vec<_>>());
    world.tear(4);
    node(&world, |state| state.commit = BatchIndex(3));
    // The hints behind it say that it was committed.
    let report = whole(&world);
    assert_eq!((report.batches, report.cut.unwrap().batches_behind), (4, 2));
}

#[test]
fn damage_of_what_was_durable_is_a_problem() {
    let damaged = |world: &World| {
        let found = problems(world);
        assert!(
            matches!(&found[..], [(_, at, Wrong::Damaged { index: BatchIndex(5), .. })] if *at == 4 * BLOCK)
        );
    };
    let world = World::with(&(1..=7).map(batch).collect::<Vec<_>>());
    world.tear(4);
    node(&world, |state| state.commit = BatchIndex(5));
    damaged(&world);
    let world = World::with(&(1..=8).map(batch).collect::<Vec<_>>());
    world.tear(4);
    node(&world, |_| ());
    damaged(&world);
    // Left by a leader of an earlier term.
    let mut batches: Vec<_> = (1..=8).map(batch).collect();
    batches[3].term = 2;
    let world = World::with(&batches);
    world.tear(4);
    node(&world, |_| ());
    assert_eq!(whole(&world).batches, 4);
}

#[test]
fn log_that_is_begun_anew_is_whole() {
    let leader = world();
    [0, 1].into_iter().for_each(|nth| leader.remove_segment(nth));
    let start = LogStart { index: BatchIndex(16), term: Term(1), base_offset: LogOffset(2 * SEGMENT) };
    let job = CheckpointJob { id: OpId(1), group: GROUP, start, boundary: Some(LogOffset(SEGMENT)) };
    let checkpoint = take_checkpoint(&leader.0, &job).unwrap();
    let world = World::sealed(1);
    let state = node(&world, |_| ());
    // The process ends behind the new state, before anything is removed.
    world.0.die_after(4);
    let job = ResetJob { id: OpId(1), state: state.clone(), checkpoint };
    let reset = |job| Reset::begin(&world.0, job, Box::new(()))?.finish(&world.0);
    reset(job.clone()).unwrap_err();
    world.0.kill();
    let report = verify_all(&world).0;
    assert!(report.begins_anew || report.state == Some(state), "{report:?}");
    reset(job).unwrap();
    let report = whole(&world);
    assert_eq!((report.begin, report.end, report.segments), (start.base_offset, start.base_offset, 0));
    assert_eq!((report.indexes, report.snapshots, report.begins_anew), (1, 1, false));
    world.0.add_segment(SegmentInfo { base: start.base_offset, bytes: SEGMENT });
    whole(&world);
    (17..=24).for_each(|index| {
        world.put(index - 1, &of_queues(index).encode());
        assert_eq!(whole(&world).batches, index - 16);
    });
    world.0.write_checkpoint(b"nonsense").unwrap();
    assert!(matches!(&problems(&world)[..], [(_, 0, Wrong::Checkpoint(_))]));
}

// A log that is in use

/// A disk on which something happens after a number of reads.
struct Late<'a> {
    disk: &'a SimDisk,
    reads: Cell<u64>,
    after: u64,
    happens: &'a dyn Fn(),
}

impl LogSource for Late<'_> {
    fn read_at(&self, base: LogOffset, position: u64, out: &mut [u8]) -> io::Result<()> {
        if self.reads.get() == self.after {
            (self.happens)();
        }
        self.reads.set(self.reads.get() + 1);
        self.disk.read_at(base, position, out)
    }

    fn segments(&self) -> io::Result<Vec<SegmentInfo>> {
        self.disk.segments()
    }

    fn indexes(&self) -> io::Result<Vec<LogOffset>> {
        self.disk.indexes()
    }

    fn map_index(&self, base: LogOffset) -> io::Result<Arc<dyn IndexBytes>> {
        self.disk.map_index(base)
    }

    fn snapshots(&self) -> io::Result<Vec<LogOffset>> {
        self.disk.snapshots()
    }

    fn read_snapshot(&self, at: LogOffset) -> io::Result<Vec<u8>> {
        self.disk.read_snapshot(at)
    }

    fn name(&self, file: LogFile) -> String {
        self.disk.name(file)
    }

    fn read_group_slots(&self) -> io::Result<Option<Vec<u8>>> {
        self.disk.read_group_slots()
    }

    fn read_checkpoint(&self) -> io::Result<Option<Vec<u8>>> {
        self.disk.read_checkpoint()
    }

    fn write_group_slot(&self, _slot: u32, _bytes: &[u8; 4096]) -> io::Result<()> {
        unreachable!("nothing is changed")
    }

    fn write_checkpoint(&self, _bytes: &[u8]) -> io::Result<()> {
        unreachable!("nothing is changed")
    }

    fn remove_checkpoint(&self) -> io::Result<()> {
        unreachable!("nothing is changed")
    }

    fn remove_segment(&self, _base: LogOffset) -> io::Result<()> {
        unreachable!("nothing is changed")
    }

    fn sync(&self, _base: LogOffset) -> io::Result<()> {
        unreachable!("nothing is changed")
    }

    fn write_index(&self, _base: LogOffset, _bytes: &[u8]) -> io::Result<()> {
        unreachable!("nothing is changed")
    }

    fn remove_index(&self, _base: LogOffset) -> io::Result<()> {
        unreachable!("nothing is changed")
    }

    fn write_snapshot(&self, _at: LogOffset, _bytes: &[u8]) -> io::Result<()> {
        unreachable!("nothing is changed")
    }

    fn remove_snapshot(&self, _at: LogOffset) -> io::Result<()> {
        unreachable!("nothing is changed")
    }
}

fn verify_while(world: &World, after: u64, happens: &dyn Fn()) -> (VerifyReport, Vec<Problem>) {
    let source = Late { disk: &world.0, reads: Cell::new(0), after, happens };
    let mut problems = Vec::new();
    let report = verify(&source, None, &mut |problem| problems.push(problem), &mut |_| {});
    (report, problems)
}

#[test]
fn batch_that_was_looked_at_too_early_is_looked_at_again() {
    for late in [vec![3], vec![3, 4], vec![5]] {
        for after in 0..8 {
            let world = World::with(&(1..=5).map(batch).collect::<Vec<_>>());
            late.iter().for_each(|index| world.tear(index - 1));
            let happens = || late.iter().for_each(|index| world.put(index - 1, &batch(*index).encode()));
            let (report, problems) = verify_while(&world, after, &happens);
            // Read too late to be found, the last one is no part of the log yet.
            let is_last = late == [5] && after > 0;
            if after < 2 || is_last {
                assert_eq!(problems, [], "{late:?} after {after}");
                assert_eq!(report.batches, if is_last && report.cut.is_some() { 4 } else { 5 });
            }
        }
    }
}

#[test]
fn batch_that_comes_meanwhile_is_seen_or_not() {
    for after in 0..8 {
        let world = World::with(&(1..=5).map(batch).collect::<Vec<_>>());
        let happens = || (6..=10).for_each(|index| world.put(index - 1, &batch(index).encode()));
        let (report, problems) = verify_while(&world, after, &happens);
        assert_eq!(problems, [], "after {after}");
        assert!((5..=10).contains(&report.batches));
    }
}

#[test]
fn segment_that_leaves_meanwhile_is_passed_over() {
    let mut passed_over = 0;
    for after in 0..30 {
        let world = world();
        let (report, problems) = verify_while(&world, after, &|| world.remove_segment(0));
        assert_eq!((problems, report.end), (vec![], LogOffset(45 * BLOCK)), "after {after}");
        assert_eq!(report.batches + 8 * report.segments_left as u64, 45, "after {after}");
        passed_over += report.segments_left;
    }
    assert!(passed_over > 0);
}

// Lists

#[test]
fn batches_are_listed_from_anywhere() {
    let world = world();
    for from in 0..46 * BLOCK / 2048 {
        let from = LogOffset(from * 2048);
        let listed: Vec<_> =
            batches(&world.0, None, from).map(|batch| batch.unwrap().header.index().0).collect();
        assert!(listed.iter().copied().eq(from.0 / BLOCK + 1..46), "from {from}: {listed:?}");
    }
    assert_eq!(batches(&world.0, None, LogOffset(u64::MAX)).count(), 0);
}

#[test]
fn records_are_listed_with_what_their_batches_say_of_them() {
    let world = world();
    let listed: Vec<_> = records(&world.0, Some(GROUP), LogOffset(0), None).map(Result::unwrap).collect();
    assert_eq!(listed.len(), 45);
    let record = &listed[17];
    assert_eq!(
        (record.batch, record.queue, record.queue_offset),
        (BatchIndex(18), QueueKey(1), QueueOffset(4))
    );
    assert_eq!((record.store_time_ms, &record.key_hashes[..]), (1000, &[18][..]));
    assert!(record.bytes.len() == BLOCK as usize - 1000 && record.bytes.iter().all(|byte| *byte == 18));
    let of_queue = records(&world.0, None, LogOffset(20 * BLOCK), Some(QueueKey(1)));
    let offsets: Vec<_> = of_queue.map(|record| record.unwrap().queue_offset.0).collect();
    assert_eq!(offsets, [5, 6, 7, 8, 9, 10]);
    let behind = LogOffset(record.log_offset.0 + 1);
    assert_eq!(records(&world.0, None, behind, None).next().unwrap().unwrap().batch, BatchIndex(19));
}

#[test]
fn lists_go_on_behind_damage() {
    let world = world();
    world.tear_header(9);
    world.tear(20);
    let listed: Vec<_> = batches(&world.0, None, LogOffset(0)).collect();
    assert_eq!((listed.len(), listed.iter().filter(|batch| batch.is_err()).count()), (45, 1));
    assert!(listed[20].as_ref().unwrap().damage.is_some());
    let listed: Vec<_> = records(&world.0, None, LogOffset(0), None).collect();
    let told: Vec<_> = listed.iter().filter_map(|record| record.as_ref().err()).collect();
    assert_eq!((listed.len(), told.len()), (45, 2));
    assert!(matches!(told[1].wrong, Wrong::Damaged { index: BatchIndex(21), .. }));
}
