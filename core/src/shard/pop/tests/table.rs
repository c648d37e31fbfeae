//! The table against a plain list of what is hidden, and rebuilt from its records and snapshots.

use apogee_storage::QueueKey;
use proptest::prelude::*;

use super::super::order::{Order, Ordered};
use super::super::record::{CheckPointId, HeldCheckPoint, PopRecord, PoppedQueue};
use super::super::table::{CHECK_POINTS_PER_QUEUE_MAX, PopTable};
use crate::shard::control::ControlRecord;
use crate::shard::topics::TopicNumber;

const GROUPS: [&str; 2] = ["g", "h"];

fn queue(nth: u32) -> QueueKey {
    TopicNumber(nth / 2).queue(nth % 2)
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Pop { group: usize, queue: u32, start: u64, count: u64, hidden_ms: i64 },
    Ack { nth: usize },
    Change { nth: usize, hidden_ms: i64 },
    PopOrdered { group: usize, queue: u32, start: u64, count: u64, hidden_ms: i64 },
    AckOrdered { group: usize, queue: u32, offset: u64 },
    DelayOrdered { group: usize, queue: u32, offset: u64, hidden_ms: i64 },
    ClearOrder { group: usize, queue: u32 },
    DeleteTopic { topic: u32 },
    DeleteGroup { group: usize },
}

fn any_step() -> impl Strategy<Value = Step> {
    let place = || (0..GROUPS.len(), 0..4u32);
    prop_oneof![
        6 => (place(), 0..4u64, 1..5u64, 0..9i64).prop_map(|((group, queue), start, count, hidden_ms)| Step::Pop { group, queue, start, count, hidden_ms }),
        6 => any::<usize>().prop_map(|nth| Step::Ack { nth }),
        3 => (any::<usize>(), 0..9i64).prop_map(|(nth, hidden_ms)| Step::Change { nth, hidden_ms }),
        3 => (place(), 0..4u64, 1..5u64, 0..9i64).prop_map(|((group, queue), start, count, hidden_ms)| Step::PopOrdered { group, queue, start, count, hidden_ms }),
        4 => (place(), 0..8u64).prop_map(|((group, queue), offset)| Step::AckOrdered { group, queue, offset }),
        2 => (place(), 0..8u64, 0..9i64).prop_map(|((group, queue), offset, hidden_ms)| Step::DelayOrdered { group, queue, offset, hidden_ms }),
        1 => place().prop_map(|(group, queue)| Step::ClearOrder { group, queue }),
        1 => (0..2u32).prop_map(|topic| Step::DeleteTopic { topic }),
        1 => (0..GROUPS.len()).prop_map(|group| Step::DeleteGroup { group }),
    ]
}

/// One hidden message: group, queue, check point, offset.
type Hidden = (usize, QueueKey, CheckPointId, u64);

/// The table and the list after all steps, and the records in between.
fn live(steps: &[Step]) -> (PopTable, Vec<Hidden>, Vec<ControlRecord>) {
    let (mut table, mut model, mut log) = (PopTable::default(), Vec::<Hidden>::new(), Vec::new());
    for (now_ms, step) in (100..).zip(steps) {
        match *step {
            Step::Pop { group, queue: nth, start, count, hidden_ms } => {
                let offsets: Vec<u64> = (start..start + count).collect();
                let id = CheckPointId { start, due_ms: now_ms + hidden_ms };
                for &offset in &offsets {
                    if !model.contains(&(group, queue(nth), id, offset)) {
                        model.push((group, queue(nth), id, offset));
                    }
                }
                let popped = PoppedQueue { queue: queue(nth), start, next: start + count, offsets };
                log.push(table.pop(GROUPS[group], now_ms, now_ms + hidden_ms, vec![popped]));
            }
            Step::Ack { nth } if !model.is_empty() => {
                let (group, queue, id, offset) = model.swap_remove(nth % model.len());
                log.push(table.ack(GROUPS[group], queue, id, vec![offset]));
            }
            Step::Change { nth, hidden_ms } if !model.is_empty() => {
                let (group, queue, id, offset) = model.swap_remove(nth % model.len());
                let due_ms = now_ms + hidden_ms;
                let record = table.change_invisible(GROUPS[group], queue, id, offset, (now_ms, due_ms));
                log.push(record.expect("it is hidden"));
                let changed = (group, queue, CheckPointId { start: offset, due_ms }, offset);
                if !model.contains(&changed) {
                    model.push(changed);
                }
            }
            Step::Ack { .. } | Step::Change { .. } => {}
            Step::PopOrdered { group, queue: nth, start, count, hidden_ms } => {
                let offsets: Vec<u64> = (start..start + count).collect();
                let before = table.order(GROUPS[group], queue(nth));
                let order = Order::next(before, None, (now_ms, now_ms + hidden_ms), &offsets);
                log.push(table.pop_ordered(GROUPS[group], queue(nth), start, order));
            }
            Step::AckOrdered { group, queue: nth, offset } => {
                let pop_ms = table.order(GROUPS[group], queue(nth)).map_or(0, |order| order.pop_ms);
                log.extend(table.ack_ordered(GROUPS[group], queue(nth), pop_ms, |acked| acked == offset));
            }
            Step::DelayOrdered { group, queue: nth, offset, hidden_ms } => {
                let pop_ms = table.order(GROUPS[group], queue(nth)).map_or(0, |order| order.pop_ms);
                let visible_ms = now_ms + hidden_ms;
                log.extend(table.delay_ordered(GROUPS[group], queue(nth), pop_ms, offset, visible_ms));
            }
            Step::ClearOrder { group, queue: nth } => {
                log.extend(table.clear_order(GROUPS[group], queue(nth)));
            }
            Step::DeleteTopic { topic } => {
                let number = TopicNumber(topic);
                let deleted = ControlRecord::TopicDelete { number, version: Default::default() };
                table.apply(&deleted);
                log.push(deleted);
                model.retain(|(_, queue, _, _)| TopicNumber::of(*queue).0 != number);
            }
            Step::DeleteGroup { group } => {
                let deleted = ControlRecord::GroupDelete {
                    version: Default::default(),
                    group: GROUPS[group].into(),
                    forget_offsets: false,
                };
                table.apply(&deleted);
                log.push(deleted);
                model.retain(|hidden| hidden.0 != group);
            }
        }
    }
    (table, model, log)
}

fn hidden(table: &PopTable, steps: &[Step]) -> Vec<Hidden> {
    let mut found = Vec::new();
    for (nth, group) in GROUPS.iter().enumerate() {
        for queue in (0..4).map(queue) {
            for start in 0..9 {
                for due_ms in 0..200 + steps.len() as i64 {
                    let id = CheckPointId { start, due_ms };
                    found.extend(
                        table.pending(group, queue, id).iter().map(|&offset| (nth, queue, id, offset)),
                    );
                }
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_hidden_is_what_was_popped_and_is_not_acknowledged(
        steps in prop::collection::vec(any_step(), 0..40),
    ) {
        let (mut table, mut model, _) = live(&steps);
        model.sort_unstable();
        let mut found = hidden(&table, &steps);
        found.sort_unstable();
        prop_assert_eq!(&found, &model);
        let mut check_points: Vec<_> = model.iter().map(|&(group, queue, id, _)| (group, queue, id)).collect();
        check_points.dedup();
        prop_assert_eq!(table.check_points(), check_points.len());
        // Each falls due once, in the order of their times.
        let due: Vec<_> = std::iter::from_fn(|| table.poll_due(i64::MAX)).collect();
        prop_assert!(due.is_sorted_by_key(|due| due.at_ms));
        let of_check_points = due.iter().filter(|due| due.check_point.is_some()).count();
        prop_assert_eq!(of_check_points, check_points.len());
    }

    #[test]
    fn the_table_is_rebuilt_from_its_records_and_from_a_snapshot_and_the_records_behind_it(
        steps in prop::collection::vec(any_step(), 0..60), at: prop::sample::Index,
    ) {
        let (table, _, log) = live(&steps);
        let (before, behind) = log.split_at(at.index(log.len() + 1));
        let apply = |table: &mut PopTable, record: &ControlRecord| {
            table.apply(&ControlRecord::decode(&record.encode()).unwrap());
        };
        let mut replayed = PopTable::default();
        before.iter().for_each(|record| apply(&mut replayed, record));
        let mut restored = PopTable::default();
        replayed.snapshot().for_each(|record| apply(&mut restored, &record));
        prop_assert_eq!(&restored, &replayed);
        behind.iter().for_each(|record| apply(&mut restored, record));
        prop_assert_eq!(&restored, &table);
    }
}

#[test]
fn a_queue_holds_so_many_check_points_and_no_more() {
    let mut table = PopTable::default();
    for start in 0..CHECK_POINTS_PER_QUEUE_MAX as u64 {
        assert!(table.has_room("g", queue(0)));
        let popped = PoppedQueue { queue: queue(0), start, next: start + 1, offsets: vec![start] };
        table.pop("g", 1, 2, vec![popped]);
    }
    assert!(!table.has_room("g", queue(0)) && table.has_room("h", queue(0)) && table.has_room("g", queue(1)));
    table.ack("g", queue(0), CheckPointId { start: 7, due_ms: 2 }, vec![7]);
    assert!(table.has_room("g", queue(0)));
    assert_eq!(table.in_flight("g", queue(0)), CHECK_POINTS_PER_QUEUE_MAX - 1);
}

fn any_offsets() -> impl Strategy<Value = (u64, Vec<u64>)> {
    (0..1u64 << 40, prop::collection::btree_set(0..1000u64, 0..5))
        .prop_map(|(start, steps)| (start, steps.into_iter().map(|step| start + step).collect()))
}

fn any_order() -> impl Strategy<Value = Order> {
    let message = (any::<u64>(), any::<bool>(), any::<i64>(), any::<u32>()).prop_map(
        |(offset, is_acked, visible_ms, deliveries)| Ordered { offset, is_acked, visible_ms, deliveries },
    );
    (prop::option::of("[a-z]{1,9}"), any::<i64>(), prop::collection::vec(message, 0..4)).prop_map(
        |(attempt_id, pop_ms, messages)| Order { attempt_id: attempt_id.map(Into::into), pop_ms, messages },
    )
}

/// Any change, for the tests of control records.
pub(in crate::shard) fn any_pop_record() -> impl Strategy<Value = PopRecord> {
    let place = || (".{0,9}", (0..u64::MAX).prop_map(QueueKey));
    let times = any::<[i64; 2]>();
    prop_oneof![
        (place(), times, any::<u64>(), any_offsets()).prop_map(
            |((group, queue), [pop_ms, due_ms], next, (start, offsets))| {
                PopRecord::Popped {
                    group,
                    pop_ms,
                    due_ms,
                    queues: vec![PoppedQueue { queue, start, next, offsets }],
                }
            }
        ),
        (place(), any::<i64>(), any_offsets()).prop_map(|((group, queue), due_ms, (start, offsets))| {
            PopRecord::Acked { group, queue, check_point: CheckPointId { start, due_ms }, offsets }
        }),
        (place(), any::<[i64; 3]>(), any::<[u64; 2]>()).prop_map(
            |((group, queue), [known_ms, pop_ms, due_ms], [start, offset])| {
                PopRecord::Changed {
                    group,
                    queue,
                    check_point: CheckPointId { start, due_ms: known_ms },
                    offset,
                    pop_ms,
                    due_ms,
                }
            }
        ),
        (place(), any::<u64>(), any_order()).prop_map(|((group, queue), next, order)| PopRecord::Ordered {
            group,
            queue,
            next,
            order
        }),
        (place(), any::<i64>(), any_offsets(), any::<u64>()).prop_map(
            |((group, queue), pop_ms, (_, offsets), next)| {
                PopRecord::OrderAcked { group, queue, pop_ms, offsets, next }
            }
        ),
        (place(), any::<[i64; 2]>(), any::<u64>()).prop_map(
            |((group, queue), [pop_ms, visible_ms], offset)| {
                PopRecord::OrderDelayed { group, queue, pop_ms, offset, visible_ms }
            }
        ),
        place().prop_map(|(group, queue)| PopRecord::OrderCleared { group, queue }),
        (place(), any::<[i64; 2]>(), any_offsets()).prop_map(
            |((group, queue), [pop_ms, due_ms], (start, pending))| {
                let id = CheckPointId { start, due_ms };
                PopRecord::Held { group, queue, check_points: vec![HeldCheckPoint { id, pop_ms, pending }] }
            }
        ),
        (place(), any_order()).prop_map(|((group, queue), order)| PopRecord::OrderHeld {
            group,
            queue,
            order
        }),
    ]
}
