use std::collections::BTreeMap;

use apogee_storage::QueueOffset;
use bytes::Bytes;
use proptest::prelude::*;

use super::levels::DelayLevel;
use super::record::{TimerId, TimerPut, TimerRecord};
use super::table::{TimerTable, recall_hash};
use super::window::{LOOK_AHEAD_MS, RETRY_MS, Window};
use crate::shard::control::ControlRecord;
use crate::shard::topics::TopicNumber;

fn id(due_ms: i64, offset: u64) -> TimerId {
    TimerId { due_ms, offset: QueueOffset(offset) }
}

fn put(id: TimerId) -> TimerRecord {
    TimerRecord::Put(vec![TimerPut { id, key_hash: id.offset.0 as u32 % 3, topic: TopicNumber(1) }])
}

fn table_of(ids: &[TimerId]) -> TimerTable {
    let mut table = TimerTable::default();
    ids.iter().for_each(|id| table.apply(&put(*id)));
    table
}

fn coded(record: &TimerRecord) -> TimerRecord {
    match ControlRecord::decode(&ControlRecord::Timer(record.clone()).encode()).unwrap() {
        ControlRecord::Timer(record) => record,
        other => panic!("{other:?} instead of a timer"),
    }
}

fn any_id() -> impl Strategy<Value = TimerId> {
    (0..20_i64, 0..20_u64).prop_map(|(due_ms, offset)| id(due_ms, offset))
}

fn any_record() -> impl Strategy<Value = TimerRecord> {
    let any_put = (any_id(), 0..3_u32, 0..3_u32).prop_map(|(id, key_hash, topic)| TimerPut {
        id,
        key_hash,
        topic: TopicNumber(topic),
    });
    let level = (1..=18_u8, any::<u64>());
    prop_oneof![
        3 => prop::collection::vec(any_put, 0..4).prop_map(TimerRecord::Put),
        2 => prop::collection::vec(any_id(), 0..4).prop_map(TimerRecord::Done),
        1 => level.prop_map(|(level, next)| TimerRecord::Level {
            level: DelayLevel::new(level).unwrap(),
            next: QueueOffset(next),
        }),
    ]
}

proptest! {
    #[test]
    fn records_come_back(ids in prop::collection::vec((any::<i64>(), any::<u64>(), any::<u32>(), any::<u32>()), 0..9)) {
        let puts = ids.iter().map(|(due_ms, offset, key_hash, topic)| TimerPut {
            id: id(*due_ms, *offset),
            key_hash: *key_hash,
            topic: TopicNumber(*topic),
        });
        let puts = TimerRecord::Put(puts.collect());
        prop_assert_eq!(coded(&puts), puts);
        let done = TimerRecord::Done(ids.iter().map(|(due_ms, offset, ..)| id(*due_ms, *offset)).collect());
        prop_assert_eq!(coded(&done), done);
    }

    /// Against plain maps; rebuilt from its records, and from its snapshot.
    #[test]
    fn table_is_a_map_and_its_records_rebuild_it(records in prop::collection::vec(any_record(), 0..60)) {
        let mut table = TimerTable::default();
        let mut model: BTreeMap<TimerId, (u32, TopicNumber)> = BTreeMap::new();
        let mut levels: BTreeMap<DelayLevel, QueueOffset> = BTreeMap::new();
        for record in &records {
            table.apply(&coded(record));
            match record {
                TimerRecord::Put(puts) => {
                    model.extend(puts.iter().map(|put| (put.id, (put.key_hash, put.topic))));
                }
                TimerRecord::Done(ids) => ids.iter().for_each(|id| {
                    model.remove(id);
                }),
                TimerRecord::Level { level, next } => {
                    levels.insert(*level, *next);
                }
            }
            // Offsets are never used twice by a shard; a model that does may keep either.
            let mut next = table.next(TimerId::MIN);
            for id in model.keys() {
                prop_assert_eq!(next, Some(*id));
                next = table.next(TimerId { offset: id.offset.next(), ..*id });
            }
            prop_assert_eq!(next, None);
            prop_assert_eq!(table.len(), model.len());
            for level in DelayLevel::all() {
                prop_assert_eq!(table.level_next(level), levels.get(&level).copied().unwrap_or(QueueOffset(0)));
            }
            let mut counts: BTreeMap<TopicNumber, u64> = BTreeMap::new();
            model.values().for_each(|(_, topic)| *counts.entry(*topic).or_default() += 1);
            prop_assert_eq!(table.counts().collect::<BTreeMap<_, _>>(), counts);
        }
        let mut restored = TimerTable::default();
        for record in table.snapshot() {
            let ControlRecord::Timer(record) = record else { panic!("{record:?} in a snapshot of timers") };
            restored.apply(&coded(&record));
        }
        prop_assert_eq!(
            restored.snapshot().map(|record| record.encode()).collect::<Vec<_>>(),
            table.snapshot().map(|record| record.encode()).collect::<Vec<_>>()
        );
    }
}

#[test]
fn timers_are_found_by_their_key() {
    let table = table_of(&[id(5, 1), id(3, 4), id(9, 2), id(1, 7)]);
    assert_eq!(table.with_key(1).collect::<Vec<_>>(), [id(5, 1), id(3, 4), id(1, 7)]);
    assert_eq!(table.with_key(2).collect::<Vec<_>>(), [id(9, 2)]);
    assert_eq!(table.with_key(0).count(), 0);
    assert_ne!(recall_hash("Tea", "1"), recall_hash("Te", "a1"));
}

#[test]
fn a_wrong_record_is_refused() {
    for fields in [&[3][..], &[2, 0, 0], &[2, 19, 0], &[0, 1, 0], &[1, 1, 2, 0, 0], &[]] {
        let bytes = [&[8, 1], fields].concat();
        assert!(ControlRecord::decode(&bytes).is_err(), "{fields:?}");
    }
}

#[test]
fn timers_are_read_ahead_in_order_and_delivered_at_their_time() {
    let table = table_of(&[id(LOOK_AHEAD_MS + 100, 0), id(50, 1), id(60, 2)]);
    let mut window = Window::default();
    assert_eq!(window.wake_at_ms(&table), Some(50 - LOOK_AHEAD_MS));
    assert_eq!([window.take(&table, 0), window.take(&table, 0)], [Some(id(50, 1)), Some(id(60, 2))]);
    assert_eq!(window.take(&table, 0), None, "too early for the third");
    for timer in [id(60, 2), id(50, 1)] {
        window.hold(1);
        window.on_ready(timer, Bytes::from_static(b"x"));
    }
    assert_eq!(window.wake_at_ms(&table), Some(50));
    assert_eq!(window.poll_due(&table, 49), None, "never early");
    assert_eq!(window.poll_due(&table, 60).unwrap().0, id(50, 1));
    assert_eq!(window.poll_due(&table, 60).unwrap().0, id(60, 2));
    assert_eq!(window.take(&table, 100), Some(id(LOOK_AHEAD_MS + 100, 0)));
}

#[test]
fn a_timer_put_behind_the_cursor_is_taken_all_the_same() {
    let mut table = table_of(&[id(50, 0)]);
    let mut window = Window::default();
    assert_eq!(window.take(&table, 0), Some(id(50, 0)));
    table.apply(&put(id(10, 1)));
    window.on_put(id(10, 1));
    assert_eq!(window.take(&table, 0), Some(id(10, 1)));
    assert_eq!(window.take(&table, 0), None, "once");
    window.pause(0);
    window.give_back(id(10, 1));
    assert_eq!(window.take(&table, RETRY_MS - 1), None);
    assert_eq!(window.wake_at_ms(&table), Some(RETRY_MS));
    assert_eq!(window.take(&table, RETRY_MS), Some(id(10, 1)));
}

#[test]
fn what_is_due_has_room_when_what_is_early_has_none() {
    let large = Bytes::from(vec![0; 17 << 20]);
    let table = table_of(&[id(10, 0), id(20, 1), id(1000, 2)]);
    let mut window = Window::default();
    assert_eq!(window.take(&table, 0), Some(id(10, 0)));
    window.hold(large.len() as u32);
    window.on_ready(id(10, 0), large.clone());
    assert_eq!(window.take(&table, 0), None, "half is full");
    assert_eq!(window.wake_at_ms(&table), Some(10));
    assert_eq!(window.take(&table, 20), Some(id(20, 1)));
    window.hold(large.len() as u32);
    window.on_ready(id(20, 1), large);
    assert_eq!(window.take(&table, 2000), None, "full");
    let (first, message) = window.poll_due(&table, 20).unwrap();
    assert_eq!(window.take(&table, 2000), None, "on its way, and still in memory");
    window.on_delivered(first, &message);
    assert_eq!(window.take(&table, 2000), Some(id(1000, 2)));
}

#[test]
fn a_timer_is_recalled_before_its_delivery_or_not_at_all() {
    let mut table = table_of(&[id(10, 0), id(20, 1), id(30, 2)]);
    let mut window = Window::default();
    for _ in 0..2 {
        let timer = window.take(&table, 0).unwrap();
        window.hold(1);
        window.on_ready(timer, Bytes::from_static(b"x"));
    }
    assert!(window.begin_recall(id(10, 0)) && window.begin_recall(id(30, 2)));
    assert!(!window.begin_recall(id(10, 0)), "twice at a time");
    assert_eq!(window.poll_due(&table, 20).unwrap().0, id(20, 1), "the first is being recalled");
    assert!(!window.begin_recall(id(20, 1)), "on its way");
    assert_eq!(window.take(&table, 30), None);
    // The first recall fails, the other is durable.
    window.end_recall(&table, id(10, 0));
    assert_eq!(window.take(&table, 30), Some(id(10, 0)));
    table.apply(&TimerRecord::Done(vec![id(30, 2)]));
    window.end_recall(&table, id(30, 2));
    assert_eq!(window.take(&table, 30), None);
}

/// What is pinned here is on disks: if it fails, the kind needs a new form.
#[test]
fn timer_records_keep_their_bytes() {
    let puts = [(id(300, 7), 200), (id(299, 9), 1)];
    let puts = puts.map(|(id, key_hash)| TimerPut { id, key_hash, topic: TopicNumber(5) });
    let put = ControlRecord::Timer(TimerRecord::Put(puts.into()));
    assert_eq!(put.encode(), [8, 1, 0, 2, 0xd8, 0x04, 14, 0xc8, 0x01, 5, 1, 4, 1, 5]);
    let done = ControlRecord::Timer(TimerRecord::Done(vec![id(1, 2)]));
    assert_eq!(done.encode(), [8, 1, 1, 1, 2, 4]);
    let level = TimerRecord::Level { level: DelayLevel::new(18).unwrap(), next: QueueOffset(300) };
    assert_eq!(ControlRecord::Timer(level).encode(), [8, 1, 2, 18, 0xac, 0x02]);
    // Of `Tea+K1`.
    assert_eq!(recall_hash("Tea", "K1"), crc32c::crc32c(b"Tea+K1"));
}
