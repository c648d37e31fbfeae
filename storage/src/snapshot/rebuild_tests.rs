//! State that is made anew is what all control records come to that are committed and durable.

use super::{Rebuilt, rebuild_state};
use crate::AlignedBuffer;
use crate::config::{CommitRule, LogConfig};
use crate::disk::OpId;
use crate::group_state::GroupState;
use crate::job_error::JobError;
use crate::log::CommitLog;
use crate::recovery::recover_group;
use crate::recovery::tests::{BLOCK, Batch, GROUP, Journal, NoRecord, SEGMENT, World, config, of_queues};
use crate::sim::{Failing, SimDisk};
use crate::source::LogFile;
use crate::types::{BatchIndex, LogOffset, NodeId};

type Log = CommitLog<AlignedBuffer, NoRecord>;

/// Six segments of 45 batches, of which so many are committed and so many segments sealed.
fn world(sealed: u64, commit: u64) -> (World, Log) {
    let batches: Vec<_> = (1..=45).map(|index| Batch { hint: 0, ..of_queues(index) }).collect();
    let world = World::of(7, &batches);
    (0..sealed).for_each(|nth| world.seal(nth));
    let log = open(&world, commit);
    (world, log)
}

fn open(world: &World, commit: u64) -> Log {
    let config = LogConfig { commit_rule: CommitRule::Group, ..config() };
    let state = GroupState { commit: BatchIndex(commit), ..GroupState::new(GROUP, NodeId(1)) };
    let found = recover_group(&world.0, &config, state, &mut Journal::default()).unwrap();
    CommitLog::open_group(config, found.recovered, SimDisk::alloc).unwrap()
}

fn rebuild(world: &World, log: &Log) -> Result<(LogOffset, Journal), JobError> {
    let job = log.rebuild_job(OpId(1));
    let Rebuilt { at, state } = rebuild_state(&world.0, &job, Box::new(Journal::default()))?;
    let state: Box<dyn std::any::Any> = state;
    Ok((at, *state.downcast::<Journal>().unwrap()))
}

#[test]
fn state_is_that_of_all_control_records_that_are_committed() {
    for sealed in 0..=5 {
        for commit in [0, 3, 8, 9, 16, 23, 24, 31, 40, 44, 45] {
            let (world, mut log) = world(sealed, commit);
            let committed = commit.max(sealed * 8);
            let expected = |upto: u64| (LogOffset(upto * BLOCK), Journal::of(upto));
            assert_eq!(rebuild(&world, &log).unwrap(), expected(committed), "{sealed} sealed, {commit}");
            log.commit_to(BatchIndex(committed + 1));
            assert_eq!(rebuild(&world, &log).unwrap(), expected(45.min(committed + 1)));
        }
    }
}

#[test]
fn what_is_in_a_snapshot_is_not_read() {
    let (world, _) = world(4, 45);
    world.snapshot(1, None);
    world.snapshot(3, Some(1));
    let log = open(&world, 45);
    // Batches in front of it, with control records in them.
    [3, 11, 27].into_iter().for_each(|block| world.tear(block));
    assert_eq!(rebuild(&world, &log).unwrap().1, Journal::of(45));
    world.0.flip_bit_of_small_file(LogFile::Snapshot(LogOffset(4 * SEGMENT)), 99);
    assert!(matches!(rebuild(&world, &log), Err(JobError::Batch { position, .. }) if position == 3 * BLOCK));
    world.put(27, &of_queues(28).encode());
    assert_eq!(rebuild(&world, &log).unwrap().1, Journal::of(45), "from the older one");
    world.0.flip_bit_of_small_file(LogFile::Snapshot(LogOffset(2 * SEGMENT)), 99);
    let error = rebuild(&world, &log).unwrap_err();
    assert!(matches!(error, JobError::Snapshot { at: LogOffset(at), .. } if at == 4 * SEGMENT));
}

#[test]
fn damage_and_failures_are_told() {
    let (world, log) = world(1, 45);
    world.tear(19);
    assert!(matches!(rebuild(&world, &log), Err(JobError::Batch { .. })));
    world.put(19, &of_queues(20).encode());
    world.0.fail(Failing::Reads, 1);
    assert!(matches!(rebuild(&world, &log), Err(JobError::Io { .. })));
    assert_eq!(rebuild(&world, &log).unwrap().1, Journal::of(45));
}
