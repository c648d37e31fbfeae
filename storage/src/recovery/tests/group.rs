//! The rows of the tables in `group.rs`, and what comes after.

use proptest::prelude::*;

use super::*;
use crate::config::CommitRule;
use crate::group_state::{GroupState, read_saved_group_state};
use crate::sim::SimDisk;
use crate::source::LogFile;
use crate::types::{LogStart, TermRun};
use crate::{AlignedBuffer, CommitLog, ForeignBatch};

/// Two batches of a block.
const WINDOW: u64 = 2 * BLOCK;

fn group_config() -> LogConfig {
    LogConfig {
        commit_rule: CommitRule::Group,
        batch_bytes_target: BLOCK_LEN as u32,
        batch_bytes_max: BLOCK_LEN as u32,
        write_window_bytes: WINDOW,
        ..config()
    }
}

/// The node's state while all up to `commit` was committed and durable.
pub(super) fn committed(commit: u64) -> GroupState {
    GroupState {
        commit: BatchIndex(commit),
        term: Term(1),
        vote: Some(NodeId(2)),
        ..GroupState::new(GROUP, NodeId(1))
    }
}

/// A batch whose leader knew of no commit.
fn unknown(index: u64) -> Batch {
    Batch { hint: 0, ..of_queues(index) }
}

fn try_open(world: &World, state: GroupState) -> Result<(GroupRecovered, Journal), RecoveryError> {
    let mut journal = Journal::default();
    let recovered = recover_group(&world.0, &group_config(), state, &mut journal)?;
    Ok((recovered, journal))
}

#[track_caller]
pub(super) fn open(world: &World, state: GroupState) -> (GroupRecovered, Journal) {
    try_open(world, state).unwrap()
}

/// Opens a log of so many batches, the first of which are known to be committed. All of them are there as they were.
#[track_caller]
fn opens(world: &World, state: GroupState, batches: u64, of_them_committed: u64) -> GroupRecovered {
    let (found, journal) = open(world, state);
    let restored = &found.recovered.restored;
    assert_eq!((found.recovered.report.last_index.0, restored.last_index.0), (batches, of_them_committed));
    assert_eq!(found.uncommitted as u64, batches - of_them_committed);
    let indexes: Vec<_> = restored.uncommitted.iter().map(|batch| batch.index.0).collect();
    assert!(indexes.iter().copied().eq(of_them_committed + 1..=batches), "{indexes:?}");
    for batch in &restored.uncommitted {
        let mut bytes = vec![0; batch.bytes.len()];
        world.0.read_at(batch.segment, batch.position, &mut bytes).unwrap();
        assert!(bytes == batch.bytes, "batch {}", batch.index);
    }
    assert_eq!(journal, Journal::of(of_them_committed), "what is not committed is not in the state");
    assert_eq!(found.state.commit, restored.last_index);
    let saved = read_saved_group_state(&world.0).unwrap().unwrap();
    assert_eq!(saved.state, found.state, "durable before anything follows from it");
    found
}

/// Likewise, and no damage was found.
#[track_caller]
pub(super) fn opens_whole(
    world: &World,
    state: GroupState,
    batches: u64,
    of_them_committed: u64,
) -> GroupRecovered {
    let found = opens(world, state, batches, of_them_committed);
    assert_eq!((found.damage.as_ref(), found.state.recovering), (None, false));
    found
}

/// Likewise, and the node is recovering.
#[track_caller]
fn opens_damaged(world: &World, state: GroupState, batches: u64, of_them_committed: u64) -> Damage {
    let found = opens(world, state, batches, of_them_committed);
    assert!(found.state.recovering);
    let damage = found.damage.unwrap();
    assert_eq!(damage.index.0, batches + 1);
    // It stays so until somebody says otherwise.
    let (again, _) = open(world, found.state);
    assert!(again.state.recovering);
    damage
}

// What is committed

#[test]
fn empty_source_is_an_empty_log() {
    let found = opens_whole(&World(SimDisk::new(1)), committed(0), 0, 0);
    assert_eq!(found.recovered.restored.start, LogStart::default());
    assert_eq!((found.state_at, found.interrupted), (LogOffset(0), None));
}

#[test]
fn batches_that_nobody_called_committed_wait() {
    let world = World::with(&(1..=7).map(unknown).collect::<Vec<_>>());
    opens_whole(&world, committed(0), 7, 0);
}

#[test]
fn state_tells_what_is_committed() {
    let world = World::with(&(1..=11).map(unknown).collect::<Vec<_>>());
    for commit in 0..=11 {
        opens_whole(&world, committed(commit), 11, commit);
    }
}

#[test]
fn commit_hint_tells_what_is_committed() {
    let mut batches: Vec<_> = (1..=11).map(unknown).collect();
    batches[6].hint = 4;
    batches[9].hint = 9;
    opens_whole(&World::with(&batches), committed(2), 11, 9);
    batches.truncate(9);
    opens_whole(&World::with(&batches), committed(2), 9, 4);
}

#[test]
fn what_is_sealed_or_in_a_snapshot_is_committed() {
    let batches: Vec<_> = (1..=20).map(unknown).collect();
    let world = World::of(4, &batches);
    world.seal(0);
    opens_whole(&world, committed(3), 20, 8);
    world.seal(1);
    world.snapshot(1, None);
    world.remove_index(1);
    let found = opens_whole(&world, committed(3), 20, 16);
    assert_eq!(found.state_at, LogOffset(16 * BLOCK));
}

#[test]
fn batches_without_records_are_taken() {
    let noop = |index| Batch { kind: BatchKind::NoOp, ..unknown(index) };
    let change = Batch {
        kind: BatchKind::Configuration,
        queue: QueueKey::MEMBERS,
        queue_offset: 0,
        fill: 200,
        ..unknown(3)
    };
    let world = World::with(&[noop(1), noop(2), change, noop(4)]);
    let (found, journal) = open(&world, committed(3));
    assert_eq!((found.recovered.restored.last_index, found.uncommitted), (BatchIndex(3), 1));
    assert_eq!(journal, Journal::default(), "a change of members is no control record");
}

// Terms

#[test]
fn term_is_at_least_that_of_the_last_batch_and_a_vote_before_it_is_none() {
    let world = World::with(&[batch(1), Batch { term: 4, ..batch(2) }]);
    for (term, expected) in [(3, (4, None)), (4, (4, Some(NodeId(2)))), (6, (6, Some(NodeId(2))))] {
        let state = GroupState { term: Term(term), ..committed(0) };
        let (found, _) = open(&world, state);
        assert_eq!((found.state.term.0, found.state.vote), expected);
    }
}

/// A leader of term 5 wrote 15 and 16 here and nowhere else; a leader elected since sends the 15 of term 2.
#[test]
fn batch_behind_one_that_was_replaced_does_not_follow() {
    let mut batches: Vec<_> = (1..=14).map(unknown).collect();
    let of_term_5 = |index, prev_term| Batch { term: 5, prev_term, ..unknown(index) };
    batches.extend([of_term_5(15, 1), of_term_5(16, 5)]);
    let world = World::with(&batches);
    opens_whole(&world, committed(14), 16, 14);
    world.put(14, &Batch { term: 2, prev_term: 1, fill: 99, ..unknown(15) }.encode());
    let state = GroupState { term: Term(6), ..committed(14) };
    let found = opens_whole(&world, state, 15, 14);
    let cut = found.recovered.report.cut.unwrap();
    assert!(matches!(cut.cause, CutCause::Stale(Mismatch { field: "prev_term", expected: 2, found: 5 })));
    let runs = [(1, 1), (15, 2)].map(|(first, term)| TermRun { first: BatchIndex(first), term: Term(term) });
    assert_eq!(found.recovered.restored.term_runs, runs);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn term_runs_are_those_of_the_batches(rises in proptest::collection::vec(0..3u64, 45), sealed in 0..6u64) {
        // Mostly none, as in a log of few leaders; rises[0] makes the first term.
        let mut term = 1;
        let (mut batches, mut runs) = (Vec::new(), Vec::<TermRun>::new());
        for (nth, rise) in rises.iter().enumerate() {
            let (index, prev_term) = (nth as u64 + 1, if nth == 0 { 0 } else { term });
            term += if nth % 5 == 0 { *rise } else { rise / 2 };
            batches.push(Batch { term, prev_term, ..of_queues(index) });
            if runs.last().is_none_or(|last| last.term.0 != term) {
                runs.push(TermRun { first: BatchIndex(index), term: Term(term) });
            }
        }
        let world = World::of(7, &batches);
        (0..sealed).for_each(|nth| world.seal(nth));
        let found = opens_whole(&world, committed(40), 45, 44);
        prop_assert_eq!(&found.recovered.restored.term_runs, &runs);
    }
}

#[test]
fn damaged_header_that_hides_a_term_is_told() {
    let batches = (1..=20).map(|index| {
        let term = if index < 5 { 1 } else { 2 };
        Batch { term, prev_term: if index < 6 { 1 } else { 2 }, ..batch(index) }
    });
    let mut batches: Vec<_> = batches.collect();
    batches[0].prev_term = 0;
    let world = World::of(3, &batches);
    world.seal(0);
    world.tear_header(3);
    assert!(matches!(try_open(&world, committed(8)), Err(RecoveryError::Sealed(_))));
}

#[test]
fn damaged_page_of_batches_is_made_anew() {
    let batches = (1..=20).map(|index| Batch { term: index, prev_term: index - 1, ..of_queues(index) });
    let world = World::of(3, &batches.collect::<Vec<_>>());
    world.seal(0);
    world.change_index(0, |bytes| {
        let last = bytes.len() - BLOCK_LEN;
        bytes[last] ^= 1;
    });
    let found = opens_whole(&world, committed(8), 20, 19);
    assert_eq!(found.recovered.restored.term_runs.len(), 20);
    assert_eq!(found.recovered.report.indexes_replaced.len(), 1);
}

// Holes and damage

#[test]
fn torn_batch_with_whole_ones_on_the_way_behind_it_was_never_acknowledged() {
    // The group may have committed it meanwhile, as the hint says, and it was not durable here even so.
    for tear in [World::tear, World::tear_header, World::zero] {
        let world = World::with(&(1..=7).map(of_queues).collect::<Vec<_>>());
        tear(&world, 4);
        opens_whole(&world, committed(3), 4, 3);
    }
}

#[test]
fn whole_batch_further_behind_than_is_written_at_once_proves_damage() {
    for tear in [World::tear, World::tear_header, World::zero] {
        let world = World::of(3, &(1..=8).map(of_queues).collect::<Vec<_>>());
        tear(&world, 4);
        let damage = opens_damaged(&world, committed(3), 4, 3);
        assert_eq!(damage.position, 4 * BLOCK);
        let proof =
            DamageProof::Behind { witness: BatchIndex(8), behind_bytes: 3 * BLOCK, window_bytes: WINDOW };
        assert_eq!(damage.proof, proof);
        assert!(
            damage.to_string().contains("and it was durable: batch 8 lies 12288 bytes behind"),
            "{damage}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Wherever the log is damaged: what could have been on its way is cut off, all else is damage, and nothing in front of it is lost.
    #[test]
    fn batch_that_is_not_whole_is_torn_or_damaged(
        batches in 1..=30u64,
        bad in 1..=30u64,
        commit in 0..=30u64,
        window in 2..=9u64,
        how in 0..3usize,
    ) {
        let (bad, commit) = (bad.min(batches), commit.min(batches));
        let world = World::of(5, &(1..=batches).map(of_queues).collect::<Vec<_>>());
        [World::tear, World::tear_header, World::zero][how](&world, bad - 1);
        let state = GroupState { write_window_bytes: window * BLOCK, ..committed(commit) };
        let first_of_segment = |index: u64| (index - 1) / BLOCKS * BLOCKS + 1;
        let is_witness = |index: &u64| {
            let counted_from = if first_of_segment(*index) == first_of_segment(bad) { bad } else { first_of_segment(*index) };
            index - counted_from > window
        };
        let is_damage = bad <= commit || (bad + 1..=batches).any(|index| is_witness(&index));
        let known = commit.max((bad - 1).saturating_sub(1)).min(bad - 1);
        if is_damage {
            opens_damaged(&world, state, bad - 1, known);
        } else {
            opens_whole(&world, state, bad - 1, known);
        }
    }
}

#[test]
fn window_is_that_under_which_was_written() {
    let world = World::of(3, &(1..=8).map(of_queues).collect::<Vec<_>>());
    world.tear(4);
    let state = GroupState { write_window_bytes: 3 * BLOCK, ..committed(3) };
    let found = opens_whole(&world, state, 4, 3);
    assert_eq!(found.state.write_window_bytes, WINDOW, "all that was on its way is durable or gone");
}

#[test]
fn gap_of_a_roll_counts_for_nothing() {
    // Batch 3 stands at the start of the next segment, and the three behind it.
    let rolled = (3..=6).map(|index| Batch { block: index + 5, ..of_queues(index) });
    let batches: Vec<_> = [of_queues(1), of_queues(2)].into_iter().chain(rolled).collect();
    let world = World::of(3, &batches);
    world.tear(8);
    world.zero(11);
    opens_whole(&world, committed(0), 2, 1);
    let world = World::of(3, &batches);
    world.tear(8);
    opens_damaged(&world, committed(0), 2, 1);
}

#[test]
fn leftovers_of_smaller_indexes_prove_nothing() {
    // Longer batches than those there are now stood there before.
    let world = World::with(&(1..=4).map(of_queues).collect::<Vec<_>>());
    world.put(7, &Batch { block: 7, ..of_queues(4) }.encode());
    world.tear(3);
    opens_whole(&world, committed(2), 3, 2);
}

#[test]
fn leftovers_of_earlier_terms_prove_nothing() {
    // All but the first two were cut off once; of the leader of term 3 one batch came so far.
    let mut batches: Vec<_> = (1..=8).map(of_queues).collect();
    batches[2] = Batch { term: 3, ..batches[2] };
    let world = World::with(&batches);
    world.tear(3);
    opens_whole(&world, committed(2), 3, 2);
}

#[test]
fn torn_batch_that_the_state_calls_durable_is_damaged() {
    for tear in [World::tear, World::tear_header, World::zero] {
        let world = World::with(&[of_queues(1), of_queues(2), of_queues(3)]);
        tear(&world, 2);
        let damage = opens_damaged(&world, committed(3), 2, 2);
        assert_eq!(damage.proof, DamageProof::State { durable: BatchIndex(3) });
        assert_eq!((damage.file, damage.position), (LogFile::Segment(LogOffset(0)).file_name(), 2 * BLOCK));
        opens_whole(&world, committed(2), 2, 2);
    }
}

#[test]
fn files_that_are_gone_are_damage() {
    let damage = opens_damaged(&World(SimDisk::new(1)), committed(3), 0, 0);
    assert_eq!((damage.found.as_str(), damage.position), ("it is missing", 0));
    let world = World::sealed(2);
    (2..7).for_each(|nth| world.remove_segment(nth));
    let damage = opens_damaged(&world, committed(40), 16, 16);
    assert_eq!(damage.proof, DamageProof::State { durable: BatchIndex(40) });
}

#[test]
fn snapshot_behind_the_end_is_damage_or_of_a_checkpoint() {
    let world = World::sealed(5);
    world.snapshot(4, None);
    (3..5).for_each(|nth| world.remove_index(nth));
    (24..45).for_each(|block| world.zero(block));
    let at = LogOffset(40 * BLOCK);
    let (found, journal) = open(&world, committed(20));
    assert_eq!((found.state.recovering, found.recovered.restored.last_index), (true, BatchIndex(24)));
    assert!(matches!(found.damage.unwrap().proof, DamageProof::Snapshot { .. }));
    assert_eq!((found.state_at, journal), (at, Journal::of(40)), "nobody is served before the log is there");

    let state = GroupState { checkpoint_at: at, ..committed(20) };
    let (found, journal) = open(&world, state);
    assert_eq!((found.state.recovering, found.damage), (false, None));
    assert_eq!((found.state_at, journal), (at, Journal::of(40)));
}

#[test]
fn what_no_right_writer_makes_is_an_error_here_too() {
    let foreign = |change: fn(&mut Batch)| {
        let mut third = of_queues(3);
        change(&mut third);
        World::with(&[of_queues(1), of_queues(2), third])
    };
    let error = try_open(&foreign(|batch| batch.group = 8), committed(0)).unwrap_err();
    assert!(matches!(error, RecoveryError::ForeignGroup { .. }));
    let error = try_open(&foreign(|batch| batch.store_time_ms = 5), committed(0)).unwrap_err();
    assert!(matches!(error, RecoveryError::Inconsistent { .. }));
}

#[test]
fn segments_are_of_the_size_that_the_group_has() {
    let state = GroupState { segment_bytes: 2 * SEGMENT, ..committed(0) };
    match try_open(&World::with(&[]), state) {
        Err(RecoveryError::SegmentBytes { expected, found }) => {
            assert_eq!((expected, found), (2 * SEGMENT, SEGMENT));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn segment_in_front_of_the_logs_start_is_refused() {
    let state = GroupState {
        log_start: LogStart { index: BatchIndex(8), term: Term(1), base_offset: LogOffset(SEGMENT) },
        ..committed(0)
    };
    let error = try_open(&World::with(&[]), state).unwrap_err();
    assert!(matches!(error, RecoveryError::BeforeStart { start: LogOffset(SEGMENT), .. }));
}

#[test]
fn log_that_retention_shortened_begins_behind_its_boundary() {
    let world = World::sealed(5);
    world.snapshot(2, None);
    world.snapshot(3, Some(2));
    world.remove_segment(0);
    world.remove_segment(1);
    let found = opens_whole(&world, committed(40), 45, 44);
    let start = LogStart { index: BatchIndex(16), term: Term(1), base_offset: LogOffset(2 * SEGMENT) };
    assert_eq!(found.recovered.restored.start, start);
    let runs = [TermRun { first: BatchIndex(17), term: Term(1) }];
    assert_eq!(found.recovered.restored.term_runs, runs);
}

#[test]
fn state_that_did_not_change_is_not_written_again() {
    let world = World::with(&(1..=7).map(of_queues).collect::<Vec<_>>());
    let (found, _) = open(&world, committed(3));
    let seq = |world: &World| read_saved_group_state(&world.0).unwrap().unwrap().seq;
    let before = seq(&world);
    open(&world, found.state);
    assert_eq!(seq(&world), before);
}

// The log that is opened

#[test]
fn log_goes_on_with_what_the_group_says_of_the_uncommitted_batches() {
    let batches: Vec<_> = (1..=11).map(unknown).collect();
    for keep in 6..=11 {
        let world = World::with(&batches);
        let (found, _) = open(&world, committed(6));
        let mut log: CommitLog<AlignedBuffer, NoRecord> =
            CommitLog::open_group(group_config(), found.recovered, SimDisk::alloc).unwrap();
        assert_eq!((log.committed_index(), log.last_index()), (BatchIndex(6), BatchIndex(11)));
        assert_eq!(log.persisted_index(), BatchIndex(11));
        assert_eq!(log.term_of(BatchIndex(11)), Some(Term(1)));
        assert!(log.take_committed().is_none(), "recovery has told what was committed before");
        log.truncate_from(BatchIndex(keep + 1));
        log.commit_to(BatchIndex(keep));
        let committed = std::iter::from_fn(|| log.take_committed()).map(|committed| committed.index.0);
        assert!(committed.eq(7..=keep));
        assert_eq!((log.last_index(), log.settled().0), (BatchIndex(keep), BatchIndex(keep)));
    }
}

/// Carries out what the log wants, so many answers at most.
fn drive(world: &World, log: &mut CommitLog<AlignedBuffer, NoRecord>, answers: usize) {
    for _ in 0..answers {
        while let Some(op) = log.poll_op(1000, SimDisk::alloc) {
            world.0.submit(op);
        }
        let Some(completion) = world.0.step() else { return };
        log.on_completion(completion);
    }
}

fn foreign(batch: Batch) -> ForeignBatch<AlignedBuffer> {
    let bytes = batch.encode();
    let mut buffer = SimDisk::alloc(bytes.len());
    buffer.as_mut().copy_from_slice(&bytes);
    ForeignBatch::verify(buffer, GROUP).unwrap()
}

/// A leader's no-op is the last in its segment. The batch that replaces it is longer and begins the next one: both follow the
/// batch in front, and only one of them was acknowledged last.
#[test]
fn batch_that_was_replaced_by_one_of_the_next_segment_does_not_come_back() {
    let noop = Batch { kind: BatchKind::NoOp, term: 5, hint: 0, ..batch(8) };
    let rolled = Batch { term: 2, block: 8, blocks: 2, hint: 0, ..batch(8) };
    let (mut came_back, mut gone, mut kept) = (0, 0, 0);
    for seed in 0..60 {
        for answers in 0..12 {
            let world = World(SimDisk::new(seed));
            let (found, _) = open(&world, committed(0));
            let mut log = CommitLog::open_group(group_config(), found.recovered, SimDisk::alloc).unwrap();
            (1..=7).for_each(|index| log.append_foreign(foreign(batch(index))).unwrap());
            log.append_foreign(foreign(noop)).unwrap();
            drive(&world, &mut log, 1000);
            assert_eq!(log.persisted_index(), BatchIndex(8));
            log.truncate_from(BatchIndex(8));
            log.append_foreign(foreign(rolled)).unwrap();
            drive(&world, &mut log, answers);
            let is_persisted = log.persisted_index() == BatchIndex(8);
            world.0.crash();
            let (found, _) = open(&world, committed(7));
            let report = &found.recovered.report;
            match (report.last_index.0, report.last_term.0) {
                (8, 2) => kept += 1,
                (8, 5) if !is_persisted => came_back += 1,
                (7, 1) if !is_persisted => gone += 1,
                other => panic!("{other:?} with {answers} answers in seed {seed}"),
            }
            assert_eq!((&found.damage, found.state.recovering), (&None, false));
            // Whatever is found, it goes on.
            let mut log = CommitLog::open_group(group_config(), found.recovered, SimDisk::alloc).unwrap();
            log.truncate_from(BatchIndex(8));
            log.append_foreign(foreign(rolled)).unwrap();
            drive(&world, &mut log, 1000);
            log.append_foreign(foreign(Batch { prev_term: 2, term: 2, block: 10, ..batch(9) })).unwrap();
            drive(&world, &mut log, 1000);
            let (found, _) = open(&world, committed(7));
            assert_eq!((found.recovered.report.last_index.0, found.recovered.report.last_term.0), (9, 2));
        }
    }
    assert!(came_back > 50 && gone > 20 && kept > 200, "{came_back} came back, {gone} gone, {kept} kept");
}
