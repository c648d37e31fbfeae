//! What happens behind the tail: segments are sealed, read through their indexes, and leave.

use super::*;
use crate::config::Retention;
use crate::disk::Space;
use crate::index::TimeBound;
use crate::sealed::IndexFault;
use crate::sim::Failing;
use crate::source::{LogFile, LogSource as _};

/// Each record of this length takes a batch of three blocks: five of them fill a segment of 64 KiB.
const LEN: usize = 8200;
pub(super) const PER_SEGMENT: u64 = 5;

pub(super) fn keeps_everything() -> LogConfig {
    LogConfig {
        retention: Retention { age_ms: None, bytes: None, may_reclaim: false },
        snapshot_pause_ms: 0,
        tail_cache_bytes: 0,
        reserve_bytes: 0,
        ..config()
    }
}

pub(super) fn text(nth: u64) -> String {
    format!("{nth:05}").repeat(LEN / 5)
}

impl World {
    /// Fills `segments` segments: records of queue 1, each in a batch and a millisecond of its own.
    pub(super) fn fill(&mut self, segments: u64) {
        for _ in 0..segments * PER_SEGMENT {
            let nth = self.log.tail_offset(QueueKey(1)).0;
            let mut append = append(1, &text(nth));
            append.key_hashes.push(nth as u32 % 7);
            self.log.stage([append]).unwrap();
            self.now_ms += 1;
            self.settle();
        }
        self.committed();
    }

    /// Appends to queue 1 as long as the log takes it.
    pub(super) fn append_until_refused(&mut self) -> AppendRefused {
        loop {
            self.now_ms += 2;
            match self.log.stage([append(1, &text(self.log.tail_offset(QueueKey(1)).0))]) {
                Ok(_) => self.settle(),
                Err(refused) => return refused,
            }
        }
    }

    /// Lets everything come to its end that goes on in steps.
    pub(super) fn rest(&mut self) {
        for _ in 0..10 {
            self.now_ms += 1;
            self.log.on_tick();
            self.settle();
        }
    }

    pub(super) fn events(&mut self) -> Vec<LogEvent> {
        std::iter::from_fn(|| self.log.take_event()).collect()
    }

    pub(super) fn sealed(&self) -> usize {
        self.log.sealed_indexes().count()
    }

    #[track_caller]
    pub(super) fn assert_reads(&self, from: u64, upto: u64) {
        let plan = self.plan(1, from, ALL);
        assert_eq!(plan.fault, None);
        assert_eq!((plan.next_offset.0, u64::from(plan.messages)), (upto, upto - from));
        let expected: String = (from..upto).map(text).collect();
        assert!(self.bytes(&plan) == expected.as_bytes(), "other bytes from {from}");
    }
}

#[test]
fn segment_is_sealed_once_the_log_has_rolled_past_it_and_its_entries_leave_the_memory() {
    let mut world = World::new(keeps_everything());
    world.fill(1);
    world.rest();
    assert_eq!(world.sealed(), 0, "the segment is full, and may still be written to");
    world.fill(1);
    world.rest();
    assert_eq!(world.sealed(), 1);
    assert_eq!(world.log.index_entries(), PER_SEGMENT, "those of the segment that is not sealed");
    let sealed = LogEvent::Sealed { segment: LogOffset(0), records: PER_SEGMENT, queues: 1 };
    assert!(world.events().contains(&sealed));
    world.fill(2);
    world.rest();
    for from in 0..4 * PER_SEGMENT {
        world.assert_reads(from, 4 * PER_SEGMENT);
    }
    assert_eq!((world.log.min_offset(QueueKey(1)).0, world.log.max_offset(QueueKey(1)).0), (0, 20));
}

#[test]
fn read_stops_at_its_limits_within_and_between_segments() {
    let mut world = World::new(keeps_everything());
    world.fill(4);
    world.rest();
    for (from, messages_max, upto) in [(0, 3, 3), (3, 4, 7), (4, 1, 5), (9, 7, 16), (14, 100, 20)] {
        let plan = world.plan(1, from, ReadLimits { messages_max, ..ALL });
        assert_eq!(plan.next_offset.0, upto, "from {from}");
        let plan = world.plan(1, from, ReadLimits { examine_max: messages_max, ..ALL });
        assert_eq!(plan.next_offset.0, upto, "from {from}");
        let bytes_max = u64::from(messages_max) * text(0).len() as u64;
        let plan = world.plan(1, from, ReadLimits { bytes_max, ..ALL });
        assert_eq!(plan.next_offset.0, upto, "from {from}");
    }
    let odd = world.log.plan_read(QueueKey(1), QueueOffset(0), ALL, |entry| entry.log_offset.0 % 8192 == 168);
    assert!(odd.examined == 20 && odd.messages < 20, "{odd:?}");
}

#[test]
fn queues_without_records_in_a_segment_are_found_behind_it() {
    let mut world = World::new(keeps_everything());
    world.stage(2, "early");
    world.settle();
    world.fill(3);
    world.stage(2, "late");
    world.settle();
    world.fill(2);
    world.rest();
    assert!(world.sealed() >= 4);
    let plan = world.plan(2, 0, ALL);
    assert_eq!(world.bytes(&plan), b"earlylate");
    let plan = world.plan(2, 1, ALL);
    assert_eq!(world.bytes(&plan), b"late");
    assert_eq!(world.plan(2, 2, ALL).messages, 0);
    assert_eq!(world.plan(3, 0, ALL).messages, 0);
}

#[test]
fn times_are_found_in_sealed_segments_and_in_memory() {
    let mut world = World::new(keeps_everything());
    world.stage(2, "before");
    world.settle();
    world.fill(4);
    world.rest();
    let times: Vec<i64> = (0..20)
        .map(|nth| world.log.entry(QueueKey(1), QueueOffset(nth)).unwrap().unwrap().store_time_ms)
        .collect();
    let search = |time, bound| world.log.search_by_time(QueueKey(1), time, bound).unwrap().0 as usize;
    for time in times[0] - 2..times[19] + 3 {
        let lower = times.iter().take_while(|at| **at < time).count();
        let upper = times.iter().take_while(|at| **at <= time).count().saturating_sub(1);
        assert_eq!(search(time, TimeBound::Lower), lower, "{time}");
        assert_eq!(search(time, TimeBound::Upper), upper, "{time}");
    }
    let early = |time| world.log.search_by_time(QueueKey(2), time, TimeBound::Lower).unwrap().0;
    assert_eq!((early(0), early(times[3]), early(times[19])), (0, 1, 1));
}

#[test]
fn records_are_located_and_found_by_key_wherever_they_are() {
    let mut world = World::new(keeps_everything());
    world.fill(4);
    world.rest();
    let mut by_key = Vec::new();
    for index in world.log.sealed_indexes() {
        by_key.extend(index.view(crate::sealed::Access::Blocking).find_key(3, 100).unwrap());
    }
    let mut by_key: Vec<LogOffset> = by_key.into_iter().map(|entry| entry.log_offset).collect();
    let mut cursor = Some(crate::unsealed::KeyCursor::START);
    while let Some(at) = cursor {
        cursor = world.log.find_unsealed_key(3, at, |offset, _| by_key.push(offset));
    }
    let expected: Vec<LogOffset> = (0..20)
        .filter(|nth| nth % 7 == 3)
        .map(|nth| world.log.entry(QueueKey(1), QueueOffset(nth)).unwrap().unwrap().log_offset)
        .collect();
    assert_eq!(by_key, expected);
    for nth in 0..20 {
        let entry = world.log.entry(QueueKey(1), QueueOffset(nth)).unwrap().unwrap();
        let Some(Located::InBatch(run)) = world.log.locate(entry.log_offset).unwrap() else {
            panic!("{nth}")
        };
        let bytes = world.disk.read(run);
        let range = RawBatch(&bytes).verify().unwrap().find(entry.log_offset).unwrap();
        assert_eq!(&bytes[range], text(nth).as_bytes());
    }
}

#[test]
fn a_segment_that_cannot_be_sealed_stays_in_memory_and_is_tried_again() {
    let mut world = World::new(LogConfig { retry_ms: 5, ..keeps_everything() });
    world.fill(1);
    world.disk.fail(Failing::SmallFiles, 2);
    world.fill(1);
    assert_eq!(world.sealed(), 0);
    world.now_ms += 10;
    world.rest();
    world.now_ms += 10;
    world.rest();
    assert_eq!(world.sealed(), 1);
    let failed = world.events().iter().filter(|event| matches!(event, LogEvent::SealFailed { .. })).count();
    assert_eq!(failed, 2);
    world.assert_reads(0, 10);
}

#[test]
fn old_segments_leave_by_age_oldest_first_and_two_snapshots_stay_behind_them() {
    let retention = Retention { age_ms: Some(40), bytes: None, may_reclaim: false };
    let mut world = World::new(LogConfig { retention, ..keeps_everything() });
    world.fill(4);
    world.rest();
    assert_eq!(world.log.start(), LogOffset(0), "not old enough");
    let oldest_end = world.log.sealed_indexes().next().unwrap().summary().end;
    assert_eq!(world.log.leaving_below(world.now_ms, 0), None);
    assert_eq!(world.log.leaving_below(world.now_ms, 100), Some(oldest_end));
    world.now_ms += 100;
    world.rest();
    // Segments 0 to 2 are sealed. The newest of them stays, and so does what the older snapshot does not cover.
    assert_eq!(world.log.start(), LogOffset(2 * (64 << 10)));
    assert_eq!(world.log.min_offset(QueueKey(1)).0, 2 * PER_SEGMENT);
    assert_eq!(world.plan(1, 2 * PER_SEGMENT - 1, ALL).messages, 0);
    assert!(world.log.entry(QueueKey(1), QueueOffset(0)).unwrap().is_none());
    world.assert_reads(2 * PER_SEGMENT, 4 * PER_SEGMENT);
    let left: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| match event {
            LogEvent::Left { segment, why, .. } => Some((segment.base.0, why)),
            _ => None,
        })
        .collect();
    assert_eq!(left, [(0, WhyLeft::Age), (64 << 10, WhyLeft::Age)]);
}

#[test]
fn a_snapshot_beyond_what_is_sealed_waits_for_the_index() {
    let mut world = World::new(keeps_everything());
    world.fill(4);
    world.rest();
    let last = world.log.sealed_indexes().last().unwrap().summary().segment.base;
    world.disk.remove_index(last).unwrap();
    let mut world = world.reopened();
    assert_eq!(world.sealed(), 2, "the third is in the tail again");
    world.rest();
    assert_eq!(world.sealed(), 3);
    assert!(!world.events().iter().any(|event| matches!(event, LogEvent::SnapshotTaken { .. })));
    world.fill(1);
    world.rest();
    assert!(world.events().iter().any(|event| matches!(event, LogEvent::SnapshotTaken { .. })));
}

#[test]
fn segments_leave_though_a_crash_left_a_third_snapshot() {
    let retention = Retention { bytes: Some(7 * config().segment_bytes), ..keeps_everything().retention };
    let mut world = World::new(LogConfig { retention, ..keeps_everything() });
    world.fill(3);
    world.rest();
    let oldest = *world.disk.snapshots().unwrap().iter().min().unwrap();
    let bytes = world.disk.read_snapshot(oldest).unwrap();
    world.fill(2);
    world.rest();
    world.disk.write_snapshot(oldest, &bytes).unwrap();
    assert_eq!(world.disk.snapshots().unwrap().len(), 3);
    let mut world = world.reopened();
    world.fill(4);
    world.rest();
    assert!(world.log.start() > LogOffset(0), "9 segments are written to, and 7 may be kept");
}

#[test]
fn a_quiet_log_rolls_once_its_oldest_record_is_too_old() {
    let retention = Retention { age_ms: Some(1000), bytes: None, may_reclaim: false };
    let mut world = World::new(LogConfig { retention, ..keeps_everything() });
    for _ in 0..6 {
        world.stage(1, "now and then");
        world.settle();
        world.now_ms += 900;
        world.rest();
    }
    assert!(world.log.start() > LogOffset(0), "{:?}", world.log.marks());
    let min = world.log.min_offset(QueueKey(1));
    let plan = world.plan(1, min.0, ALL);
    assert_eq!((u64::from(plan.messages), plan.next_offset.0), (6 - min.0, 6));
}

#[test]
fn log_keeps_to_its_size_and_recycles_the_files() {
    let retention = Retention { age_ms: None, bytes: Some(6 * (64 << 10)), may_reclaim: false };
    let mut world = World::new(LogConfig { retention, ..keeps_everything() });
    let mut recycled = 0;
    for _ in 0..30 * PER_SEGMENT {
        let nth = world.log.tail_offset(QueueKey(1)).0;
        world.stage(1, &text(nth));
        world.now_ms += 1;
        while let Some(op) = world.log.poll_op(world.now_ms, SimDisk::alloc) {
            recycled += usize::from(matches!(op, DiskOp::Prepare { recycle: Some(_), .. }));
            world.disk.submit(op);
            while world.disk.pending() > 0 {
                world.complete_one();
            }
            world.log.on_tick();
        }
        world.committed();
        let files = world.disk.segments().unwrap().len();
        assert!(files <= 8, "{files} segments");
    }
    assert!(recycled >= 20, "{recycled} files were used again");
    let (min, max) = (world.log.min_offset(QueueKey(1)).0, world.log.max_offset(QueueKey(1)).0);
    assert!(max - min >= 3 * PER_SEGMENT, "{min} to {max}");
    world.assert_reads(min, max);
    // What lies behind the tail in recycled files is none of the log's.
    let world = world.reopened();
    world.assert_reads(min, max);
}

#[test]
fn a_full_disk_reclaims_before_it_refuses() {
    let retention = Retention { age_ms: None, bytes: None, may_reclaim: true };
    let mut world = World::new(LogConfig { retention, retry_ms: 1, ..keeps_everything() });
    world.disk.set_capacity(7 * (64 << 10));
    for _ in 0..12 {
        world.fill(1);
        world.rest();
        let free_bytes = world.disk.space().free_bytes;
        world.log.on_space(Space { free_bytes, total_bytes: 7 * (64 << 10) });
    }
    assert_eq!(world.log.space_state(), SpaceState::Reclaim);
    let states: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| match event {
            LogEvent::Space { from, to, .. } => Some((from, to)),
            _ => None,
        })
        .collect();
    assert_eq!(states, [(SpaceState::Normal, SpaceState::Reclaim)], "nothing was refused");
    let (min, max) = (world.log.min_offset(QueueKey(1)).0, world.log.max_offset(QueueKey(1)).0);
    assert!(min > 0 && max == 12 * PER_SEGMENT, "{min} to {max}");
    world.assert_reads(min, max);
    world.disk.set_capacity(u64::MAX);
    world.log.on_space(Space { free_bytes: 1 << 40, total_bytes: 1 << 41 });
    assert_eq!(world.log.space_state(), SpaceState::Normal);
}

#[test]
fn a_full_disk_that_may_not_reclaim_refuses_and_recovers_by_itself() {
    let mut world = World::new(LogConfig { retry_ms: 1, ..keeps_everything() });
    world.fill(2);
    world.rest();
    world.disk.set_full(true);
    let refused = world.append_until_refused();
    assert!(matches!(refused, AppendRefused::NoSpace(_)), "{refused}");
    assert_eq!(world.log.space_state(), SpaceState::Refuse);
    let kept = world.log.max_offset(QueueKey(1)).0;
    world.assert_reads(0, kept);
    world.disk.set_full(false);
    world.rest();
    assert_eq!(world.log.space_state(), SpaceState::Normal);
    world.fill(1);
    world.assert_reads(0, kept + PER_SEGMENT);
}

#[test]
fn a_damaged_index_is_made_anew_and_reads_of_it_wait() {
    let mut world = World::new(keeps_everything());
    world.fill(3);
    world.rest();
    let mut world = world.reopened();
    world.settle();
    let damaged = LogOffset(64 << 10);
    for bit in 0..1000 {
        world.disk.flip_bit_of_small_file(LogFile::Index(damaged), 8 * 4096 + bit * 31);
    }
    let mut world = world.reopened();
    let plan = world.plan(1, 0, ALL);
    if let Some(fault) = plan.fault {
        let IndexFault::Damaged { segment, .. } = fault else { panic!("{fault:?}") };
        assert_eq!((segment, plan.next_offset.0), (damaged, PER_SEGMENT), "what lies before is served");
        world.log.on_index_damaged(segment);
        world.rest();
        assert!(world.events().contains(&LogEvent::IndexRebuilt { segment }));
    }
    world.assert_reads(0, 3 * PER_SEGMENT);
}
