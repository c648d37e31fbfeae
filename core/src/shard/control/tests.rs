use apogee_net::body::MessageRequestMode;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::shard::assignment::RequestModeRecord;
use crate::shard::pop::tests::table::any_pop_record;
use crate::shard::transactions::Pending;

fn any_version() -> impl Strategy<Value = DataVersion> {
    any::<(i64, i64, i64)>().prop_map(|(counter, state_version, timestamp)| DataVersion {
        counter,
        state_version,
        timestamp,
    })
}

fn any_number() -> impl Strategy<Value = TopicNumber> {
    (0..=TopicNumber::MAX.0).prop_map(TopicNumber)
}

fn any_attributes() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(any::<String>(), any::<String>(), 0..4)
}

fn any_topic_config() -> impl Strategy<Value = Box<TopicConfig>> {
    let numbers = any::<[i32; 4]>();
    let flags = any::<[bool; 2]>();
    (any::<String>(), numbers, flags, any_attributes()).prop_map(
        |(topic_name, numbers, flags, attributes)| {
            Box::new(TopicConfig {
                topic_name,
                read_queue_nums: numbers[0],
                write_queue_nums: numbers[1],
                perm: numbers[2],
                topic_sys_flag: numbers[3],
                topic_filter_type: if flags[0] {
                    TopicFilterType::MultiTag
                } else {
                    TopicFilterType::SingleTag
                },
                order: flags[1],
                attributes,
            })
        },
    )
}

fn any_json() -> impl Strategy<Value = Option<RawValue>> {
    prop_oneof![Just(""), Just("{\"next\":[1,2]}"), Just("[]"), Just("7")]
        .prop_map(|text| (!text.is_empty()).then(|| RawValue::parse(text).unwrap()))
}

fn any_group_config() -> impl Strategy<Value = Box<SubscriptionGroupConfig>> {
    let flags = any::<[bool; 6]>();
    let numbers = any::<[i32; 4]>();
    let brokers = any::<[i64; 2]>();
    let json = [any_json(), any_json(), any_json()];
    (any::<String>(), flags, numbers, brokers, json, any_attributes()).prop_map(
        |(group_name, flags, numbers, brokers, json, attributes)| {
            let [exponential_retry_policy, customized_retry_policy, subscription_data_set] = json;
            let kind = match flags[5] {
                true => GroupRetryPolicyType::Customized,
                false => GroupRetryPolicyType::Exponential,
            };
            Box::new(SubscriptionGroupConfig {
                group_name,
                consume_enable: flags[0],
                consume_broadcast_enable: flags[1],
                consume_from_min_enable: flags[2],
                consume_message_orderly: flags[3],
                notify_consumer_ids_changed_enable: flags[4],
                consume_timeout_minute: numbers[0],
                retry_max_times: numbers[1],
                retry_queue_nums: numbers[2],
                group_sys_flag: numbers[3],
                broker_id: brokers[0],
                which_broker_when_consume_slowly: brokers[1],
                group_retry_policy: GroupRetryPolicy {
                    kind,
                    exponential_retry_policy,
                    customized_retry_policy,
                },
                subscription_data_set,
                attributes,
            })
        },
    )
}

fn any_group_offsets() -> impl Strategy<Value = GroupOffsets> {
    let offsets = btree_map(0..u64::MAX, any::<u64>(), 0..6);
    (any::<String>(), offsets).prop_map(|(group, offsets)| GroupOffsets {
        group,
        offsets: offsets.into_iter().map(|(queue, offset)| (QueueKey(queue), QueueOffset(offset))).collect(),
    })
}

fn any_transaction() -> impl Strategy<Value = TransactionRecord> {
    let one = (any::<u64>(), any::<u32>(), any::<i64>()).prop_map(|(half, checks, check_at_ms)| Pending {
        half: QueueOffset(half),
        checks,
        check_at_ms,
    });
    let checked = btree_map(any::<u64>(), one.clone(), 0..4).prop_map(|some| {
        some.into_iter().map(|(half, pending)| Pending { half: QueueOffset(half), ..pending }).collect()
    });
    prop_oneof![
        one.prop_map(TransactionRecord::Begun),
        any::<u64>().prop_map(|half| TransactionRecord::Ended { half: QueueOffset(half) }),
        checked.prop_map(TransactionRecord::Checked),
    ]
}

fn any_record() -> impl Strategy<Value = ControlRecord> {
    prop_oneof![
        any_group_offsets().prop_map(|offsets| ControlRecord::OffsetReset(OffsetReset::Set(offsets))),
        any_group_offsets().prop_map(|offsets| ControlRecord::OffsetReset(OffsetReset::Pending(offsets))),
        ("[a-z]{0,9}", 0..u64::MAX).prop_map(|(group, queue)| {
            ControlRecord::OffsetReset(OffsetReset::Done { group, queue: QueueKey(queue) })
        }),
        ("[a-z]{0,9}", "[a-z]{0,9}", any::<bool>()).prop_map(|(group, topic, readable)| {
            ControlRecord::Forbidden(ForbiddenRecord { group, topic, readable })
        }),
        (any_number(), any_version(), any_topic_config())
            .prop_map(|(number, version, config)| ControlRecord::TopicPut { number, version, config }),
        (any_number(), any_version())
            .prop_map(|(number, version)| ControlRecord::TopicDelete { number, version }),
        (any_version(), any_group_config())
            .prop_map(|(version, config)| ControlRecord::GroupPut { version, config }),
        (any_version(), any::<String>(), any::<bool>()).prop_map(|(version, group, forget_offsets)| {
            ControlRecord::GroupDelete { version, group, forget_offsets }
        }),
        vec(any_group_offsets(), 0..4).prop_map(ControlRecord::Offsets),
        (any::<u32>(), any_version())
            .prop_map(|(next_number, version)| ControlRecord::TopicTableState { next_number, version }),
        any_version().prop_map(|version| ControlRecord::GroupTableState { version }),
        any_transaction().prop_map(ControlRecord::Transaction),
        (any_version(), any_attributes()).prop_map(|(version, changed)| {
            ControlRecord::BrokerSettings(SettingsRecord { version, changed })
        }),
        any_pop_record().prop_map(ControlRecord::Pop),
        (any::<String>(), any::<String>(), any::<bool>(), any::<i32>()).prop_map(
            |(topic, group, pops, share)| {
                ControlRecord::RequestMode(RequestModeRecord {
                    topic,
                    group,
                    mode: if pops { MessageRequestMode::Pop } else { MessageRequestMode::Pull },
                    pop_share_queue_num: share,
                })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn records_round_trip(record in any_record()) {
        prop_assert_eq!(ControlRecord::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn every_prefix_is_cut_short(record in any_record()) {
        let bytes = record.encode();
        for len in 0..bytes.len() {
            let error = ControlRecord::decode(&bytes[..len]).unwrap_err();
            match error {
                ControlError::NoHead => prop_assert!(len < 2),
                ControlError::CutShort { kind, .. } => prop_assert_eq!(kind, record.kind()),
                other => prop_assert!(false, "{} of {} bytes: {}", len, bytes.len(), other),
            }
        }
    }

    #[test]
    fn bytes_after_a_record_are_refused(record in any_record(), tail in vec(any::<u8>(), 1..9)) {
        let mut bytes = record.encode();
        bytes.extend_from_slice(&tail);
        let expected = ControlError::TrailingBytes { kind: record.kind(), count: tail.len() };
        prop_assert_eq!(ControlRecord::decode(&bytes), Err(expected));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_are_what_they_decode_to(
        kind in 0..=16u8,
        form in 0..=2u8,
        fields in vec(prop_oneof![3 => 0..4u8, 1 => any::<u8>()], 0..48),
    ) {
        let bytes = [&[kind, form][..], &fields].concat();
        if let Ok(record) = ControlRecord::decode(&bytes) {
            prop_assert_eq!(record.encode(), bytes);
        }
    }

    #[test]
    fn changed_bytes_are_refused_or_are_what_they_decode_to(
        record in any_record(),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut bytes = record.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(record) = ControlRecord::decode(&bytes) {
            prop_assert_eq!(record.encode(), bytes);
        }
    }
}

#[test]
fn unknown_kinds_and_forms_are_named() {
    assert_eq!(ControlRecord::decode(&[0, 1]), Err(ControlError::UnknownKind { kind: 0 }));
    assert_eq!(ControlRecord::decode(&[200, 1, 7]), Err(ControlError::UnknownKind { kind: 200 }));
    assert_eq!(
        ControlRecord::decode(&[5, 2, 0]),
        Err(ControlError::UnknownForm { kind: ControlKind::Offsets, form: 2 })
    );
    let text = ControlError::UnknownKind { kind: 200 }.to_string();
    assert!(text.contains("unknown kind 200"), "{text}");
}

fn version() -> DataVersion {
    DataVersion { counter: 3, state_version: 0, timestamp: 100 }
}

/// What these tests pin is on disks: if one fails, the kind needs a new form.
#[test]
fn topic_records_keep_their_bytes() {
    let config = TopicConfig {
        topic_name: "Tea".into(),
        read_queue_nums: 4,
        write_queue_nums: 8,
        perm: 6,
        topic_filter_type: TopicFilterType::MultiTag,
        topic_sys_flag: 1,
        order: true,
        attributes: BTreeMap::from([("k".into(), "v".into())]),
    };
    let put =
        ControlRecord::TopicPut { number: TopicNumber(300), version: version(), config: Box::new(config) };
    let bytes =
        [&[1, 1, 0xac, 0x02, 6, 0, 0xc8, 0x01, 3][..], b"Tea", &[8, 16, 12, 1, 2, 1, 1, 1, b'k', 1, b'v']]
            .concat();
    assert_eq!(put.encode(), bytes);

    let delete = ControlRecord::TopicDelete { number: TopicNumber(1), version: version() };
    assert_eq!(delete.encode(), [2, 1, 1, 6, 0, 0xc8, 0x01]);
}

#[test]
fn group_records_keep_their_bytes() {
    let config = SubscriptionGroupConfig {
        group_name: "g".into(),
        subscription_data_set: Some(RawValue::parse("[]").unwrap()),
        ..SubscriptionGroupConfig::default()
    };
    let put = ControlRecord::GroupPut { version: version(), config: Box::new(config) };
    let head = [3, 1, 6, 0, 0xc8, 0x01, 1, b'g'];
    let switches_and_numbers = [1, 1, 1, 0, 1, 30, 32, 2, 0, 0, 2];
    let policy_and_rest = [1, 0, 0, 2, b'[', b']', 0];
    assert_eq!(put.encode(), [&head[..], &switches_and_numbers, &policy_and_rest].concat());

    let delete = ControlRecord::GroupDelete { version: version(), group: "g".into(), forget_offsets: true };
    assert_eq!(delete.encode(), [4, 1, 6, 0, 0xc8, 0x01, 1, b'g', 1]);
}

#[test]
fn offsets_records_keep_their_bytes() {
    let of_group = GroupOffsets {
        group: "g".into(),
        offsets: vec![(QueueKey(2), QueueOffset(300)), (QueueKey(3), QueueOffset(0))],
    };
    let record = ControlRecord::Offsets(vec![of_group]);
    assert_eq!(record.encode(), [5, 1, 1, 1, b'g', 2, 2, 0xac, 0x02, 1, 0]);
}

#[test]
fn transaction_records_keep_their_bytes() {
    let pending = Pending { half: QueueOffset(300), checks: 2, check_at_ms: 1 };
    let begun = ControlRecord::Transaction(TransactionRecord::Begun(pending));
    assert_eq!(begun.encode(), [9, 1, 0, 0xac, 0x02, 2, 2]);
    let ended = ControlRecord::Transaction(TransactionRecord::Ended { half: QueueOffset(300) });
    assert_eq!(ended.encode(), [9, 1, 1, 0xac, 0x02]);
    let checked = ControlRecord::Transaction(TransactionRecord::Checked(vec![pending]));
    assert_eq!(checked.encode(), [9, 1, 2, 1, 0xac, 0x02, 2, 2]);
}

#[test]
fn records_of_snapshots_keep_their_bytes() {
    let topics = ControlRecord::TopicTableState { next_number: 300, version: version() };
    assert_eq!(topics.encode(), [6, 1, 0xac, 0x02, 6, 0, 0xc8, 0x01]);
    let groups = ControlRecord::GroupTableState { version: version() };
    assert_eq!(groups.encode(), [7, 1, 6, 0, 0xc8, 0x01]);
}

#[test]
fn settings_records_keep_their_bytes() {
    let changed = BTreeMap::from([("k".into(), "v".into())]);
    let record = ControlRecord::BrokerSettings(SettingsRecord { version: version(), changed });
    assert_eq!(record.encode(), [14, 1, 6, 0, 0xc8, 0x01, 1, 1, b'k', 1, b'v']);
}

#[test]
fn offsets_of_no_message_queue_are_refused() {
    let bad = |problem| Err(ControlError::BadField { kind: ControlKind::Offsets, field: "queue", problem });
    let record = |steps: &[u64]| {
        let mut bytes = vec![5, 1, 1, 0, steps.len() as u8];
        for step in steps {
            put_unsigned(&mut bytes, *step);
            bytes.push(0);
        }
        ControlRecord::decode(&bytes)
    };
    assert!(record(&[u64::MAX - 1]).is_ok());
    assert_eq!(record(&[u64::MAX]), bad("no message queue"));
    assert_eq!(record(&[u64::MAX - 1, 1]), bad("no message queue"));
    assert_eq!(record(&[u64::MAX - 1, 2]), bad("no message queue"));
    assert_eq!(record(&[7, 0]), bad("the same queue twice"));
}

#[test]
fn topic_number_of_control_records_is_refused() {
    let mut bytes = vec![2, 1];
    put_unsigned(&mut bytes, u32::MAX.into());
    bytes.extend_from_slice(&[0, 0, 0]);
    let error = ControlRecord::decode(&bytes).unwrap_err();
    assert!(matches!(error, ControlError::BadField { field: "topic number", .. }), "{error}");
}

#[test]
fn records_of_resets_and_forbidden_topics_keep_their_bytes() {
    let offsets =
        vec![(TopicNumber(1).queue(0), QueueOffset(300)), (TopicNumber(1).queue(1), QueueOffset(0))];
    let set = OffsetReset::Set(GroupOffsets { group: "g".into(), offsets });
    let bytes = [13, 1, 0, 1, b'g', 2, 0x80, 0x80, 0x80, 0x80, 0x10, 0xac, 0x02, 1, 0];
    assert_eq!(ControlRecord::OffsetReset(set).encode(), bytes);
    let done = OffsetReset::Done { group: "g".into(), queue: QueueKey(5) };
    assert_eq!(ControlRecord::OffsetReset(done).encode(), [13, 1, 1, 1, b'g', 5]);
    let forbidden = ForbiddenRecord { group: "g".into(), topic: "T".into(), readable: false };
    assert_eq!(ControlRecord::Forbidden(forbidden).encode(), [12, 1, 1, b'g', 1, b'T', 0]);
}
