//! What clients notice of sealed segments: nothing, but for messages that left.

use apogee_net::request::{
    Boundary, GetEarliestMsgStoretimeRequest, GetMinOffsetRequest, SearchOffsetRequest,
};
use apogee_storage::{LogEvent, LogOffset, Retention, SpaceState, WhyLeft};

use super::*;
use crate::shard::Shard;

const BODY_BYTES: usize = 100_000;

/// Ten messages fill a segment.
fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 1 << 20,
        batch_bytes_max: 1 << 20,
        tail_cache_bytes: 0,
        reserve_bytes: 0,
        snapshot_pause_ms: 100,
        ..log_config()
    }
}

impl World {
    /// Sends messages whose bodies are their numbers, ten a second.
    fn send_numbered(&mut self, topic: &str, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let digits = number.to_string();
            let sent = self.send(topic, &("0".repeat(BODY_BYTES - digits.len()) + &digits));
            assert_eq!(sent.code, ResponseCode::SUCCESS, "{}", sent.remark);
            self.tick(100);
        }
    }

    /// The number of the message at an offset.
    fn number_at(&mut self, topic: &str, offset: i64) -> i64 {
        let reply = self.pull(&PullMessageRequest { messages_max: 1, ..pull_from(topic, offset) });
        assert_eq!(reply.code, ResponseCode::SUCCESS, "offset {offset}: {}", reply.remark);
        reply.bodies()[0].parse().unwrap()
    }

    fn events(&mut self) -> Vec<LogEvent> {
        std::iter::from_fn(|| self.shard.take_log_event()).collect()
    }

    fn min_offset(&mut self, topic: &str) -> i64 {
        let query = GetMinOffsetRequest { topic, queue_id: 0 };
        self.asked(CONSUMER, RequestCode::GET_MIN_OFFSET, &query, b"").int("offset")
    }
}

fn count_sealed(events: &[LogEvent]) -> usize {
    events.iter().filter(|event| matches!(event, LogEvent::Sealed { .. })).count()
}

#[test]
fn requests_that_need_cold_pages_are_answered_when_asked_again() {
    let mut world = World::with(1, small_segments());
    world.send_numbered("T", 0..60);
    assert!(count_sealed(&world.events()) >= 4);
    let check = |world: &mut World, ask: &dyn Fn(&mut World)| {
        world.disk.evict_indexes(100);
        let loads = world.loads;
        ask(world);
        assert!(world.loads > loads, "nothing had to be loaded");
    };
    for number in [0, 17, 35] {
        check(&mut world, &|world| assert_eq!(world.number_at("T", number), number));
    }
    check(&mut world, &|world| {
        let earliest = GetEarliestMsgStoretimeRequest { topic: "T", queue_id: 0 };
        let earliest = world.asked(CONSUMER, RequestCode::GET_EARLIEST_MSG_STORETIME, &earliest, b"");
        assert_eq!(earliest.int("timestamp"), START_MS);
    });
    check(&mut world, &|world| {
        let (timestamp, boundary) = (START_MS + 2_000, Boundary::Lower);
        let search = SearchOffsetRequest { topic: "T", queue_id: 0, timestamp, boundary };
        let found = world.asked(CONSUMER, RequestCode::SEARCH_OFFSET_BY_TIMESTAMP, &search, b"");
        assert_eq!(found.int("offset"), 20);
    });
}

#[test]
fn asking_again_changes_nothing_twice() {
    let mut world = World::with(1, small_segments());
    world.send_numbered("T", 0..40);
    world.disk.evict_indexes(100);
    let loads = world.loads;
    let pull = PullMessageRequest {
        consumer_group: "NewGroup",
        commit_offset: 3,
        sys_flag: PullSysFlag::SUBSCRIPTION.with(PullSysFlag::COMMIT_OFFSET),
        messages_max: 1,
        ..pull_from("T", 5)
    };
    let groups = world.shard.groups.version().counter;
    assert_eq!(world.pull(&pull).code, ResponseCode::SUCCESS);
    assert!(world.loads > loads);
    assert_eq!(world.shard.groups.version().counter, groups + 1);
    assert_eq!(world.committed_offset("NewGroup", "T").int("offset"), 3);
}

#[test]
fn a_parked_pull_never_waits_for_pages() {
    let mut world = World::with(1, small_segments());
    world.send_numbered("T", 0..1);
    let pull = PullMessageRequest { subscription: Some("Rare"), ..waiting(pull_from("T", 1)) };
    let parked = world.start_pull(&pull);
    world.send_numbered("T", 1..60);
    assert!(!world.answered.contains_key(&parked));
    world.disk.evict_indexes(100);
    world.tick(20_000);
    let reply = &world.answered[&parked];
    assert_eq!(reply.code, ResponseCode::PULL_RETRY_IMMEDIATELY);
    assert_eq!(reply.int("nextBeginOffset"), 1);
}

/// The damaged segment, if damage was met; it must have been mended since.
fn mended(events: &[LogEvent]) -> Option<LogOffset> {
    let segment = events.iter().find_map(|event| match event {
        LogEvent::IndexDamaged { segment } => Some(*segment),
        _ => None,
    })?;
    assert!(events.contains(&LogEvent::IndexRebuilt { segment }), "{events:?}");
    Some(segment)
}

#[test]
fn readers_of_a_damaged_index_come_back_when_it_is_made_anew() {
    let mut damaged = 0;
    for seed in 0..12 {
        let config = LogConfig { snapshot_pause_ms: 3_600_000, ..small_segments() };
        let mut world = World::with(seed, config);
        world.send_numbered("T", 0..15);
        assert_eq!(count_sealed(&world.events()), 1);
        world.disk.flip_next_small_file();
        world.send_numbered("T", 15..25);
        for offset in 0..20 {
            let pull = PullMessageRequest { messages_max: 1, ..pull_from("T", offset) };
            let mut reply = world.pull(&pull);
            if reply.code == ResponseCode::SYSTEM_BUSY {
                damaged += 1;
                assert!(reply.remark.contains("checksum"), "{}", reply.remark);
                world.tick(2_000);
                assert!(mended(&world.events()).is_some());
                reply = world.pull(&pull);
            }
            assert_eq!(reply.bodies()[0].parse(), Ok(offset), "seed {seed}");
        }
    }
    assert!(damaged > 0, "no reader met it");
}

#[test]
fn damage_that_only_the_logs_own_work_meets_is_mended_too() {
    let mut damaged = 0;
    for seed in 0..12 {
        let mut world = World::with(seed, small_segments());
        world.disk.flip_next_small_file();
        world.send_numbered("T", 0..40);
        world.tick(2_000);
        let events = world.events();
        damaged += usize::from(mended(&events).is_some());
        let newest = events.iter().rev().find_map(|event| match event {
            LogEvent::SnapshotTaken { .. } => Some(true),
            LogEvent::SnapshotFailed { .. } => Some(false),
            _ => None,
        });
        assert_eq!(newest, Some(true), "seed {seed}: {events:?}");
    }
    assert!(damaged > 0, "nothing met it");
}

#[test]
fn messages_beyond_the_retention_leave_and_their_readers_are_told() {
    let retention = Retention { age_ms: None, bytes: Some(4 << 20), may_reclaim: true };
    let mut world = World::with(1, LogConfig { retention, ..small_segments() });
    world.send_numbered("T", 0..120);
    let min = world.min_offset("T");
    assert!((60..=100).contains(&min), "{min}");
    assert_eq!(world.number_at("T", min), min);
    let reply = world.pull(&pull_from("T", min - 1));
    assert_eq!((reply.code, reply.int("nextBeginOffset")), (ResponseCode::PULL_OFFSET_MOVED, min));
    let why_left = |event: &LogEvent| match event {
        LogEvent::Left { why, .. } => Some(*why),
        _ => None,
    };
    let left: Vec<_> = world.events().iter().filter_map(why_left).collect();
    assert!(left.len() > 4 && left.iter().all(|why| *why == WhyLeft::Size), "{left:?}");
}

#[test]
fn topics_groups_and_offsets_outlive_the_segments_they_were_logged_in() {
    let retention = Retention { age_ms: None, bytes: Some(4 << 20), may_reclaim: true };
    let mut world = World::with(1, LogConfig { retention, ..small_segments() });
    let commit =
        UpdateConsumerOffsetRequest { consumer_group: "CG", topic: "T", queue_id: 0, commit_offset: 7 };
    world.send_numbered("T", 0..1);
    world.heartbeat(CONSUMER, "c", "CG", "T", "*");
    assert_eq!(
        world.asked(CONSUMER, RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"").code,
        ResponseCode::SUCCESS
    );
    world.send_numbered("T", 1..120);
    assert!(world.min_offset("T") > 50);
    let tables = |world: &World| {
        let Shard { topics, groups, offsets, .. } = &world.shard;
        let topics: Vec<_> = topics.snapshot().collect();
        (topics, groups.snapshot().collect::<Vec<_>>(), offsets.snapshot().collect::<Vec<_>>())
    };
    let before = tables(&world);
    world.tick(2_000);
    world.crash();
    assert_eq!(tables(&world), before);
    assert_eq!(world.committed_offset("CG", "T").int("offset"), 7);
    assert_eq!(world.number_at("T", 119), 119);
}

#[test]
fn old_messages_leave_a_quiet_log() {
    let retention = Retention { age_ms: Some(60_000), bytes: None, may_reclaim: true };
    let mut world = World::with(1, LogConfig { retention, ..small_segments() });
    world.send_numbered("T", 0..60);
    assert_eq!(world.min_offset("T"), 0);
    for _ in 0..100 {
        world.tick(1_000);
    }
    assert!(world.min_offset("T") > 30);
}

fn spaces(events: &[LogEvent]) -> Vec<SpaceState> {
    let space = |event: &LogEvent| match event {
        LogEvent::Space { to, .. } => Some(*to),
        _ => None,
    };
    events.iter().filter_map(space).collect()
}

#[test]
fn a_full_disk_makes_room_by_itself_if_it_may() {
    let mut world = World::with(1, small_segments());
    world.disk.set_capacity(8 << 20);
    world.send_numbered("T", 0..150);
    assert!(world.min_offset("T") > 50);
    let spaces = spaces(&world.events());
    assert_eq!(spaces.first(), Some(&SpaceState::Reclaim));
    assert!(!spaces.contains(&SpaceState::Refuse), "{spaces:?}");
}

#[test]
fn a_full_disk_refuses_sends_by_name_if_it_may_not_make_room() {
    let retention = Retention { may_reclaim: false, ..Retention::default() };
    let mut world = World::with(1, LogConfig { retention, ..small_segments() });
    world.disk.set_capacity(8 << 20);
    let body = "x".repeat(BODY_BYTES);
    let refused = (0..200).find_map(|_| {
        let sent = world.send("T", &body);
        world.tick(100);
        (sent.code != ResponseCode::SUCCESS).then_some(sent)
    });
    let refused = refused.expect("the disk is not that large");
    assert_eq!(refused.code, ResponseCode::SERVICE_NOT_AVAILABLE);
    assert!(refused.remark.contains("space"), "{}", refused.remark);
    assert_eq!(world.min_offset("T"), 0, "nothing may leave");
    assert_eq!(spaces(&world.events()), [SpaceState::Reclaim, SpaceState::Refuse]);
    world.disk.set_capacity(64 << 20);
    for _ in 0..20 {
        world.tick(1_000);
    }
    assert_eq!(world.send("T", "again").code, ResponseCode::SUCCESS);
    assert_eq!(spaces(&world.events()).last(), Some(&SpaceState::Normal));
}
