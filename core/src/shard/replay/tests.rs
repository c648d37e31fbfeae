use apogee_net::body::{DataVersion, SubscriptionGroupConfig, TopicConfig};
use apogee_storage::QueueOffset;
use proptest::prelude::*;

use super::*;
use crate::shard::topics::TopicNumber;

const NOW: i64 = 1_700_000_000_000;

fn empty() -> Replay {
    let policy = TopicPolicy {
        cluster_name: "DefaultCluster".into(),
        broker_name: "broker-a-0".into(),
        auto_create: true,
        has_trace_topic: false,
    };
    Replay::new(policy, true)
}

fn rebuilt_from<'a>(records: impl IntoIterator<Item = &'a ControlRecord>) -> Replay {
    let mut tables = empty();
    for record in records {
        tables.apply(&record.encode()).unwrap();
    }
    tables
}

fn restored_from(snapshot: &[u8]) -> Replay {
    let mut tables = empty();
    tables.restore(snapshot).unwrap();
    tables
}

fn frame(record: &[u8]) -> Vec<u8> {
    [&(record.len() as u32).to_le_bytes(), record].concat()
}

/// What one client or tool does.
#[derive(Clone, Copy, Debug)]
enum Step {
    MakeTopic { topic: usize, queues: i32 },
    DeleteTopic { topic: usize },
    MakeGroup { group: usize, retries: i32 },
    DeleteGroup { group: usize, forget_offsets: bool },
    Commit { group: usize, topic: usize, queue: i32, offset: u64 },
    Reset { group: usize, topic: usize, offset: u64 },
    HearOfReset { group: usize, topic: usize },
    Forbid { group: usize, topic: usize, readable: bool },
    LogOffsets,
}

const TOPICS: [&str; 4] = ["A", "B", "C", "D"];
const GROUPS: [&str; 3] = ["f", "g", "h"];

fn any_step() -> impl Strategy<Value = Step> {
    let (topic, group) = (0..TOPICS.len(), 0..GROUPS.len());
    prop_oneof![
        3 => (topic.clone(), 1..4i32).prop_map(|(topic, queues)| Step::MakeTopic { topic, queues }),
        2 => topic.clone().prop_map(|topic| Step::DeleteTopic { topic }),
        2 => (group.clone(), 1..4i32).prop_map(|(group, retries)| Step::MakeGroup { group, retries }),
        1 => (group.clone(), any::<bool>())
            .prop_map(|(group, forget_offsets)| Step::DeleteGroup { group, forget_offsets }),
        2 => (group.clone(), topic.clone(), 0..9u64)
            .prop_map(|(group, topic, offset)| Step::Reset { group, topic, offset }),
        1 => (group.clone(), topic.clone())
            .prop_map(|(group, topic)| Step::HearOfReset { group, topic }),
        1 => (group.clone(), topic.clone(), any::<bool>())
            .prop_map(|(group, topic, readable)| Step::Forbid { group, topic, readable }),
        4 => (group, topic, 0..3i32, 0..9u64)
            .prop_map(|(group, topic, queue, offset)| Step::Commit { group, topic, queue, offset }),
        2 => Just(Step::LogOffsets),
    ]
}

/// The records that a shard logs when it lives through these steps.
fn log_of(steps: &[Step]) -> Vec<ControlRecord> {
    let Replay { mut topics, mut groups, mut offsets, mut resets, mut forbidden, .. } = empty();
    let mut log = topics.ensure_system_topics(NOW).unwrap();
    log.extend(groups.ensure_system_groups(NOW).unwrap());
    for (now, step) in (NOW..).zip(steps) {
        match *step {
            Step::MakeTopic { topic, queues } => {
                let wanted = TopicConfig {
                    topic_name: TOPICS[topic].into(),
                    read_queue_nums: queues,
                    write_queue_nums: queues,
                    perm: 6,
                    ..TopicConfig::default()
                };
                log.extend(topics.update(wanted, now).unwrap());
            }
            Step::DeleteTopic { topic } => {
                let deleted = topics.delete(TOPICS[topic], now).unwrap();
                deleted.iter().for_each(|record| offsets.apply(record));
                deleted.iter().for_each(|record| resets.apply(record));
                log.extend(deleted);
            }
            Step::MakeGroup { group, retries } => {
                let wanted = SubscriptionGroupConfig {
                    group_name: GROUPS[group].into(),
                    retry_max_times: retries,
                    ..SubscriptionGroupConfig::default()
                };
                log.extend(groups.update(wanted, now).unwrap());
            }
            Step::DeleteGroup { group, forget_offsets } => {
                let deleted = groups.delete(GROUPS[group], forget_offsets, now);
                deleted.iter().for_each(|record| offsets.apply(record));
                deleted.iter().for_each(|record| resets.apply(record));
                deleted.iter().for_each(|record| forbidden.apply(record));
                log.extend(deleted);
            }
            Step::Commit { group, topic, queue, offset } => {
                if let Some(queue) = topics.get(TOPICS[topic]).and_then(|topic| topic.queue_to_read(queue)) {
                    offsets.commit(GROUPS[group], queue, QueueOffset(offset)).unwrap();
                }
            }
            Step::Reset { group, topic, offset } => {
                if let Some(topic) = topics.get(TOPICS[topic]) {
                    let reset = [(topic.number().queue(0), QueueOffset(offset))];
                    offsets.commit(GROUPS[group], reset[0].0, reset[0].1).unwrap();
                    log.extend(resets.set(GROUPS[group], &reset).unwrap());
                }
            }
            Step::HearOfReset { group, topic } => {
                let queue = topics.get(TOPICS[topic]).map(|topic| topic.number().queue(0));
                let heard = queue.and_then(|queue| resets.take(GROUPS[group], queue));
                log.extend(heard.map(|(_, record)| record));
            }
            Step::Forbid { group, topic, readable } => {
                log.extend(forbidden.set(GROUPS[group], TOPICS[topic], readable).unwrap());
            }
            Step::LogOffsets => log.extend(offsets.take_changes()),
        }
    }
    log
}

proptest! {
    #[test]
    fn snapshot_anywhere_and_the_records_behind_it_are_all_records(
        steps in prop::collection::vec(any_step(), 0..60),
        at: prop::sample::Index,
    ) {
        let log = log_of(&steps);
        let (before, behind) = log.split_at(at.index(log.len() + 1));
        let snapshot = rebuilt_from(before).encode();
        let mut tables = restored_from(&snapshot);
        prop_assert_eq!(&tables, &rebuilt_from(before));
        prop_assert_eq!(tables.encode(), snapshot);
        for record in behind {
            tables.apply(&record.encode()).unwrap();
        }
        prop_assert_eq!(&tables, &rebuilt_from(&log));
        prop_assert_eq!(tables.encode(), rebuilt_from(&log).encode());
    }

    #[test]
    fn snapshot_cut_short_is_refused_or_lacks_what_was_cut_off(
        steps in prop::collection::vec(any_step(), 0..20),
        at: prop::sample::Index,
    ) {
        let whole = rebuilt_from(&log_of(&steps));
        let snapshot = whole.encode();
        let mut tables = empty();
        let left = &snapshot[..at.index(snapshot.len())];
        match tables.restore(left) {
            Ok(()) => {
                prop_assert_eq!(&tables.topics, &whole.topics);
                prop_assert_eq!(&tables.groups, &whole.groups);
                prop_assert_eq!(tables.encode(), left);
            }
            Err(SnapshotError::CutShort { .. } | SnapshotError::Incomplete { .. }) => {
                prop_assert_eq!(&tables, &empty());
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

#[test]
fn numbers_of_deleted_topics_are_not_given_again() {
    let make = |topic| Step::MakeTopic { topic, queues: 1 };
    let log = log_of(&[make(0), make(1), Step::DeleteTopic { topic: 1 }]);
    let mut tables = restored_from(&rebuilt_from(&log).encode());
    let given: Vec<_> = log
        .iter()
        .filter_map(|record| match record {
            ControlRecord::TopicPut { number, .. } => Some(*number),
            _ => None,
        })
        .collect();
    let wanted = TopicConfig { topic_name: "New".into(), perm: 6, ..TopicConfig::default() };
    tables.topics.update(wanted, NOW).unwrap();
    let new = tables.topics.get("New").unwrap().number();
    assert!(given.iter().all(|number| *number < new), "{new:?} after {given:?}");
}

#[test]
fn empty_tables_have_a_snapshot() {
    let topics = [6, 1, 0, 0, 0, 0];
    let groups = [7, 1, 0, 0, 0];
    let snapshot = [frame(&topics), frame(&groups)].concat();
    assert_eq!(empty().encode(), snapshot);
    assert_eq!(restored_from(&snapshot), empty());
    assert_eq!(
        empty().restore(&[]),
        Err(SnapshotError::Incomplete { at: 0, missing: ControlKind::TopicTableState }),
        "no bytes at all are no snapshot"
    );
}

#[test]
fn what_a_snapshot_cannot_hold_is_refused_by_name() {
    let topics = frame(&[6, 1, 0, 0, 0, 0]);
    let groups = frame(&[7, 1, 0, 0, 0]);
    let delete = ControlRecord::TopicDelete { number: TopicNumber(0), version: DataVersion::default() };
    let out_of_place = |at, kind, after| SnapshotError::OutOfPlace { at, kind, after: Some(after) };
    let error = |error: ControlError| SnapshotError::Record { at: topics.len(), error: error.into() };
    let rows = [
        (frame(&[200, 1]), error(ControlError::UnknownKind { kind: 200 })),
        (frame(&[7, 2]), error(ControlError::UnknownForm { kind: ControlKind::GroupTableState, form: 2 })),
        (frame(&[]), error(ControlError::NoHead)),
        (
            topics.clone(),
            out_of_place(topics.len(), ControlKind::TopicTableState, ControlKind::TopicTableState),
        ),
        (
            frame(&delete.encode()),
            out_of_place(topics.len(), ControlKind::TopicDelete, ControlKind::TopicTableState),
        ),
        (
            [groups.clone(), groups.clone()].concat(),
            out_of_place(
                topics.len() + groups.len(),
                ControlKind::GroupTableState,
                ControlKind::GroupTableState,
            ),
        ),
    ];
    for (behind_the_topics, expected) in rows {
        let mut tables = rebuilt_from(&log_of(&[Step::MakeTopic { topic: 0, queues: 1 }]));
        let before = tables.encode();
        let snapshot = [topics.clone(), behind_the_topics].concat();
        assert_eq!(tables.restore(&snapshot), Err(expected.clone()));
        assert_eq!(tables.encode(), before, "after {expected}");
    }
}

#[test]
fn records_of_snapshots_are_refused_in_the_log() {
    let mut tables = empty();
    let record = ControlRecord::TopicTableState { next_number: 9, version: DataVersion::default() };
    let refused = Err(ReplayError::OfSnapshots(ControlKind::TopicTableState));
    assert_eq!(tables.apply(&record.encode()), refused);
    assert_eq!(tables, empty());
    assert_eq!(
        tables.apply(&[200, 1]),
        Err(ReplayError::Record(ControlError::UnknownKind { kind: 200 })),
        "never skipped"
    );
}
