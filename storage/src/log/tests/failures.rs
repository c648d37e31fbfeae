//! What fails or is damaged behind the tail must not stop the rest for good.

use super::sealed::{PER_SEGMENT, keeps_everything, text};
use super::*;
use crate::config::Retention;
use crate::disk::Space;
use crate::sealed::IndexFault;
use crate::sim::{Failing, Rng};
use crate::source::{LogFile, LogSource as _};

const SEGMENT: u64 = 64 << 10;

fn segment(nth: u64) -> LogOffset {
    LogOffset(nth * SEGMENT)
}

fn by_age() -> LogConfig {
    let retention = Retention { age_ms: Some(40), bytes: None, may_reclaim: false };
    LogConfig { retention, retry_ms: 5, ..keeps_everything() }
}

impl World {
    /// Turns over many bits of an index behind its header and page table.
    fn damage_index(&self, nth: u64) {
        let bytes = self.disk.map_index(segment(nth)).unwrap().bytes().len() as u64;
        for bit in (2 * 4096 * 8..bytes * 8).step_by(64 * 8) {
            self.disk.flip_bit_of_small_file(LogFile::Index(segment(nth)), bit + 3);
        }
    }

    fn begins_at(&self) -> u64 {
        self.log.start().0 / SEGMENT
    }
}

#[test]
fn two_damaged_indexes_are_made_anew_one_after_the_other() {
    let mut world = World::new(keeps_everything());
    world.fill(4);
    world.rest();
    world.log.on_index_damaged(segment(0));
    world.submit();
    assert_eq!(world.disk.pending(), 1);
    world.log.on_index_damaged(segment(1));
    world.log.on_index_damaged(segment(0));
    world.rest();
    let events = world.events();
    let count = |event| events.iter().filter(|other| **other == event).count();
    for nth in 0..2 {
        assert_eq!(count(LogEvent::IndexDamaged { segment: segment(nth) }), 1);
        assert_eq!(count(LogEvent::IndexRebuilt { segment: segment(nth) }), 1);
    }
    world.assert_reads(0, 4 * PER_SEGMENT);
}

#[test]
fn a_segment_leaves_while_its_index_is_made_anew() {
    let mut world = World::new(by_age());
    world.fill(5);
    world.rest();
    world.now_ms += 1000;
    world.submit();
    world.log.on_index_damaged(segment(0));
    world.submit();
    assert_eq!(world.disk.pending(), 2, "the ends are read, the index is made");
    world.complete_one();
    world.log.on_tick();
    assert_eq!(world.begins_at(), 1);
    world.rest();
    assert!(world.begins_at() > 1);
    world.fill(1);
    world.rest();
    assert!(world.sealed() > 0);
}

#[test]
fn damage_met_by_retention_is_repaired() {
    let mut world = World::new(by_age());
    world.fill(5);
    world.rest();
    world.damage_index(1);
    let mut world = world.reopened();
    world.now_ms = 2000;
    for _ in 0..10 {
        world.rest();
    }
    assert!(world.begins_at() > 1, "{:?}", world.events());
}

#[test]
fn damage_met_by_a_seal_is_repaired() {
    let mut world = World::new(LogConfig { retry_ms: 5, ..keeps_everything() });
    world.fill(4);
    world.rest();
    assert_eq!(world.sealed(), 3);
    for bit in [4096 * 8 + 5, 3] {
        let newest = world.sealed() as u64 - 1;
        world.damage_index(newest);
        // Of the page table, and of the header.
        world.disk.flip_bit_of_small_file(LogFile::Index(segment(newest)), bit);
        world.fill(1);
        for _ in 0..10 {
            world.rest();
        }
        assert_eq!(world.sealed() as u64, newest + 2, "{:?}", world.events());
    }
    world.assert_reads(0, 6 * PER_SEGMENT);
}

#[test]
fn damaged_snapshot_is_replaced_by_one_made_from_the_older() {
    let mut world = World::new(LogConfig { retry_ms: 5, ..keeps_everything() });
    world.fill(4);
    world.rest();
    let newest = *world.disk.snapshots().unwrap().iter().max().unwrap();
    world.disk.flip_bit_of_small_file(LogFile::Snapshot(newest), 77);
    world.fill(2);
    for _ in 0..10 {
        world.rest();
    }
    let snapshots = world.disk.snapshots().unwrap();
    assert_eq!(snapshots.len(), 2);
    assert!(
        snapshots.iter().all(|at| !world.disk.is_damaged(LogFile::Snapshot(*at))),
        "{:?}",
        world.events()
    );
    let end = world.log.sealed_indexes().last().unwrap().summary().end;
    assert!(snapshots.contains(&end));
}

#[test]
fn an_index_that_cannot_be_made_anew_does_not_keep_others_from_being_made() {
    let mut world = World::new(LogConfig { retry_ms: 5, ..keeps_everything() });
    world.fill(4);
    world.rest();
    let sealed = world.sealed();
    // The directory of a batch.
    world.disk.overwrite(segment(0), 140, &[0xee; 8]);
    world.log.on_index_damaged(segment(0));
    world.fill(4);
    for _ in 0..20 {
        world.rest();
    }
    assert_eq!(world.sealed(), sealed + 4);
    assert!(world.log.index_entries() <= 2 * PER_SEGMENT);
}

#[test]
fn an_index_is_not_made_without_the_one_before() {
    let mut world = World::new(by_age());
    world.stage(2, "in the first segment only");
    world.settle();
    world.fill(5);
    world.rest();
    world.now_ms += 1000;
    world.rest();
    // A file that left may be there still.
    let world = world.reopened();
    let first = world.begins_at();
    assert!(first > 0);
    world.disk.remove_index(segment(first - 1)).unwrap();
    let mut world = world.reopened();
    world.log.on_index_damaged(segment(first));
    world.log.on_index_damaged(segment(first + 1));
    let mut made = Vec::new();
    while let Some(op) = world.log.poll_op(world.now_ms, SimDisk::alloc) {
        if let DiskOp::Seal(job) = &op {
            made.push(job.segment.base);
        }
        world.disk.submit(op);
        world.complete_one();
    }
    assert_eq!(made, [segment(first + 1)]);
}

#[test]
fn a_segment_that_cannot_be_made_for_other_reasons_than_space_makes_none_leave() {
    let retention = Retention { age_ms: None, bytes: None, may_reclaim: true };
    let mut world = World::new(LogConfig { retention, retry_ms: 1, ..keeps_everything() });
    world.log.on_space(Space { free_bytes: 1 << 40, total_bytes: 1 << 41 });
    world.fill(6);
    world.rest();
    world.disk.fail(Failing::Preparations, 1000);
    let refused = world.append_until_refused();
    assert!(matches!(refused, AppendRefused::NoSpace(_)), "{refused}");
    for _ in 0..20 {
        world.rest();
    }
    assert_eq!(world.begins_at(), 0);
}

#[test]
fn snapshot_that_is_newer_than_the_newest_index_is_enough() {
    let mut world = World::new(keeps_everything());
    world.fill(4);
    world.rest();
    let newest = world.log.sealed_indexes().last().unwrap().summary().clone();
    world.disk.flip_bit_of_small_file(LogFile::Index(newest.segment.base), 9);
    let mut world = world.reopened();
    assert_eq!(world.sealed(), 2, "the third is scanned");
    // In whatever order it goes on.
    let mut ops = Vec::new();
    while let Some(op) = world.log.poll_op(world.now_ms, SimDisk::alloc) {
        ops.push(op);
    }
    assert!(!ops.iter().any(|op| matches!(op, DiskOp::Snapshot(_))), "{ops:?}");
    ops.into_iter().for_each(|op| world.disk.submit(op));
    world.settle();
    world.rest();
    assert_eq!(world.sealed(), 3);
    assert!(!world.events().iter().any(|event| matches!(event, LogEvent::SnapshotFailed { .. })));
}

#[test]
fn failed_snapshot_is_tried_again_after_a_pause_however_short_that_between_good_ones_is() {
    let mut world = World::new(LogConfig { retry_ms: 50, snapshot_pause_ms: 0, ..keeps_everything() });
    let mut failed = 0;
    for nth in 0..200 {
        if nth < 3 * PER_SEGMENT {
            world.log.stage([append(1, &text(nth))]).unwrap();
        }
        world.now_ms += 1;
        while let Some(op) = world.log.poll_op(world.now_ms, SimDisk::alloc) {
            if let DiskOp::Snapshot(job) = op {
                failed += 1;
                let error = DiskError::Io { action: "fail".into(), os_code: None, message: String::new() };
                world.log.on_snapshot(job.at, Err(error));
                continue;
            }
            world.disk.submit(op);
            world.complete_one();
        }
    }
    assert!((3..=5).contains(&failed), "{failed} times in 200 ms");
}

#[test]
fn a_clock_that_jumps_does_not_make_a_segment_that_cannot_be_sealed() {
    let config = LogConfig { batches_in_flight_max: 4, ..keeps_everything() };
    let mut world = World::new(config);
    world.stage(1, "before the clock was set");
    world.submit();
    world.now_ms += 60 * 24 * 3600 * 1000;
    world.stage(1, "after");
    world.settle();
    world.rest();
    for _ in 0..2 * PER_SEGMENT {
        world.log.stage([append_long(1, 8200)]).unwrap();
        world.settle();
    }
    world.rest();
    assert!(world.sealed() > 1, "{:?}", world.events());
}

#[test]
fn an_old_segment_with_room_is_written_on_while_there_is_no_other() {
    let retention = Retention { age_ms: Some(1000), bytes: None, may_reclaim: false };
    let mut world = World::new(LogConfig { retention, ..keeps_everything() });
    world.disk.set_full(true);
    world.fill(1);
    for _ in 0..2 {
        world.stage(2, "in the last segment there is");
        world.now_ms += 5000;
        world.rest();
    }
    assert_eq!(world.log.max_offset(QueueKey(2)).0, 2);
    world.disk.set_full(false);
    for _ in 0..2 {
        world.rest();
        world.now_ms += 5000;
        world.stage(2, "it rolls once it can");
    }
    world.rest();
    let sealed = world.events().into_iter().filter(|event| matches!(event, LogEvent::Sealed { .. })).count();
    assert_eq!(sealed, 2);
}

#[test]
fn an_index_limit_below_the_records_of_a_segment_does_not_end_the_log() {
    let mut world = World::new(LogConfig { index_entries_max: 16, retry_ms: 1, ..keeps_everything() });
    let mut refused = 0;
    for _ in 0..200 {
        world.now_ms += 1;
        refused += u64::from(world.log.stage([append(1, "small")]).is_err());
        world.settle();
        world.log.on_tick();
        world.settle();
        assert!(world.log.index_entries() <= 16);
    }
    assert!(refused < 20, "{refused} of 200");
}

#[test]
fn a_log_reopened_with_a_lower_index_limit_goes_on() {
    let mut world = World::new(LogConfig { retry_ms: 1, ..keeps_everything() });
    for _ in 0..10 {
        world.stage(1, "small");
        world.settle();
    }
    world.disk.kill();
    let mut world = World::on(world.disk, LogConfig { index_entries_max: 4, ..keeps_everything() });
    world.settle();
    for _ in 0..20 {
        world.stage(1, "one more");
        world.settle();
        world.log.on_tick();
        world.settle();
    }
    assert!(world.log.index_entries() <= 4, "{}", world.log.index_entries());
}

#[test]
fn what_left_is_not_located_though_its_batch_is_still_in_memory() {
    let mut world = World::new(LogConfig { tail_cache_bytes: 1 << 30, ..by_age() });
    world.fill(1);
    let at = world.log.entry(QueueKey(1), QueueOffset(0)).unwrap().unwrap().log_offset;
    assert!(matches!(world.log.locate(at).unwrap(), Some(Located::Memory(_))));
    world.fill(4);
    world.rest();
    world.now_ms += 1000;
    world.rest();
    assert!(world.begins_at() > 0);
    assert!(world.log.locate(at).unwrap().is_none());
}

#[test]
fn jobs_on_their_way_are_answered_after_the_log_was_poisoned() {
    let mut world = World::new(by_age());
    world.fill(5);
    world.now_ms += 1000;
    world.disk.fail_writes(1);
    world.stage(1, "unknown");
    world.submit();
    world.log.on_index_damaged(segment(0));
    world.submit();
    assert!(world.disk.pending() > 1, "a write, and what goes on behind it");
    while world.disk.pending() > 0 {
        world.complete_one();
        world.log.on_tick();
    }
    assert!(world.log.poisoned().is_some() && world.submit() == 0);
    let (min, max) = (world.log.min_offset(QueueKey(1)).0, world.log.max_offset(QueueKey(1)).0);
    world.assert_reads(min, max);
}

/// Failures of all kinds, and one file damaged: whatever the order, the log then seals and lets go as if nothing had been.
/// With two damaged at a time an index and the one it is made from may be lost, which only the next opening can tell.
#[test]
fn after_failures_and_one_damage_the_log_goes_on() {
    for seed in 0..10 {
        let mut rng = Rng::new(seed);
        let retention = Retention { age_ms: Some(60), bytes: None, may_reclaim: rng.chance(50) };
        let batches_in_flight_max = 1 + rng.below(3) as u32;
        let config = LogConfig { retention, retry_ms: 3, batches_in_flight_max, ..keeps_everything() };
        let mut world = World::on(SimDisk::new(seed), config);
        let mut is_whole = true;
        for _ in 0..600 {
            world.now_ms += rng.below(4) as i64;
            if rng.chance(40) {
                // Refused while there is no segment.
                let _ = world.log.stage([append_long(1 + rng.below(4), 20 + rng.below(9000) as usize)]);
            }
            world.fail_somehow(&mut rng, &mut is_whole);
            if rng.chance(30) {
                world.log.on_tick();
            }
            world.submit();
            for _ in 0..rng.below(4) {
                if let Some(done) = world.disk.step() {
                    world.log.on_completion(done);
                }
            }
            let queue = 1 + rng.below(4);
            let min = world.log.min_offset(QueueKey(queue)).0;
            if let Some(IndexFault::Damaged { segment, .. }) = world.plan(queue, min, ALL).fault {
                world.log.on_index_damaged(segment);
            }
        }
        for failing in [Failing::SmallFiles, Failing::Reads, Failing::Preparations] {
            world.disk.fail(failing, 0);
        }
        world.disk.set_full(false);
        let before = world.begins_at();
        world.events();
        for _ in 0..60 {
            let _ = world.log.stage([append_long(1, 9000)]);
            world.rest();
        }
        world.now_ms += 1000;
        world.rest();
        world.rest();
        let end = world.log.marks().appended.0 / SEGMENT;
        let sealed = world.log.sealed_indexes().last().map_or(0, |last| last.summary().end.0 / SEGMENT);
        let begin = world.begins_at();
        let told = world.events();
        assert!(sealed + 2 >= end, "seed {seed}: sealed up to {sealed} of {end}: {told:?}");
        assert!(begin > before && begin + 5 >= end, "seed {seed}: {begin} to {end}: {told:?}");
    }
}

impl World {
    fn fail_somehow(&mut self, rng: &mut Rng, is_whole: &mut bool) {
        let bases = self.disk.indexes().unwrap_or_default();
        let base = bases.get(rng.below(bases.len().max(1) as u64) as usize).copied();
        let newest = self.disk.snapshots().unwrap_or_default().into_iter().max();
        match (rng.below(60), base, newest) {
            (0, ..) => self.disk.fail(Failing::SmallFiles, 3),
            (1, ..) => self.disk.fail(Failing::Reads, 3),
            (2, ..) => self.disk.fail(Failing::Preparations, 3),
            (3, ..) => self.disk.set_full(rng.chance(50)),
            (4, Some(base), _) => self.log.on_index_damaged(base),
            (5, ..) if std::mem::take(is_whole) => self.disk.flip_next_small_file(),
            (6, Some(base), _) if std::mem::take(is_whole) => {
                self.disk.flip_bit_of_small_file(LogFile::Index(base), rng.next_u64() >> 20);
            }
            (7, _, Some(newest)) if std::mem::take(is_whole) => {
                self.disk.flip_bit_of_small_file(LogFile::Snapshot(newest), rng.next_u64() >> 20);
            }
            _ => {}
        }
    }
}
