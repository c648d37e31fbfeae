use proptest::prelude::*;

use super::super::attributes::Attributes;
use super::*;

const NOW: i64 = 1_700_000_000_000;

fn policy() -> TopicPolicy {
    TopicPolicy {
        cluster_name: "Cluster".into(),
        broker_name: "node-0".into(),
        auto_create: true,
        has_trace_topic: false,
    }
}

fn started_table() -> TopicTable {
    let mut table = TopicTable::new(policy());
    table.ensure_system_topics(NOW).unwrap();
    table
}

fn wanted(name: &str, queues: i32) -> TopicConfig {
    TopicConfig {
        topic_name: name.into(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        ..TopicConfig::default()
    }
}

fn send_to(topic: &str) -> AutoCreate<'_> {
    AutoCreate { topic, template: AUTO_CREATE_TEMPLATE, queues: 4, unit_mode: false }
}

fn shape(table: &TopicTable, name: &str) -> (i32, i32, i32) {
    let config = table.get(name).unwrap().config();
    (config.read_queue_nums, config.write_queue_nums, config.perm)
}

fn rebuilt_from(records: &[ControlRecord]) -> TopicTable {
    let mut table = TopicTable::new(policy());
    for record in records {
        table.apply(&ControlRecord::decode(&record.encode()).unwrap()).unwrap();
    }
    table
}

#[test]
fn queue_keys_hold_number_and_queue_id() {
    let queue = TopicNumber(3).queue(7);
    assert_eq!(queue, QueueKey(0x3_0000_0007));
    assert_eq!(TopicNumber::of(queue), (TopicNumber(3), 7));
    assert!(TopicNumber(3).queues().contains(&queue));
    assert!(!TopicNumber(3).queues().contains(&TopicNumber(4).queue(0)));
    assert!(*TopicNumber::MAX.queues().end() < QueueKey::CONTROL);
}

#[test]
fn system_topics_are_made_once() {
    let mut table = TopicTable::new(policy());
    let records = table.ensure_system_topics(NOW).unwrap();
    assert_eq!(records.len(), 11);
    let expected = [
        ("TBW102", (8, 8, 7)),
        ("Cluster", (16, 16, 7)),
        ("node-0", (1, 1, 7)),
        ("SELF_TEST_TOPIC", (1, 1, 6)),
        ("BenchmarkTest", (1024, 1024, 6)),
        ("OFFSET_MOVED_EVENT", (1, 1, 6)),
        ("SCHEDULE_TOPIC_XXXX", (18, 18, 6)),
        ("rmq_sys_wheel_timer", (1, 1, 6)),
        ("RMQ_SYS_TRANS_HALF_TOPIC", (1, 1, 6)),
        ("RMQ_SYS_TRANS_OP_HALF_TOPIC", (1, 1, 6)),
        ("Cluster_REPLY_TOPIC", (1, 1, 6)),
    ];
    for (name, topic) in expected {
        assert_eq!(shape(&table, name), topic, "{name}");
        assert!(table.is_system(name), "{name}");
    }
    assert_eq!(table.ensure_system_topics(NOW).unwrap(), []);
    assert_eq!(table.version(), DataVersion { counter: 11, state_version: 0, timestamp: NOW });
}

#[test]
fn trace_topic_and_template_follow_the_policy() {
    let policy = TopicPolicy { auto_create: false, has_trace_topic: true, ..policy() };
    let mut table = TopicTable::new(policy);
    table.ensure_system_topics(NOW).unwrap();
    assert!(table.get("RMQ_SYS_TRACE_TOPIC").is_some());
    assert!(table.get("TBW102").is_none());
}

#[test]
fn broker_name_that_is_no_topic_name_is_refused() {
    let mut table = TopicTable::new(TopicPolicy { broker_name: "node.0".into(), ..policy() });
    let problem = NameError::IllegalCharacter { what: "topic", found: '.' };
    assert_eq!(table.ensure_system_topics(NOW), Err(TopicError::Name { topic: "node.0".into(), problem }));
}

#[test]
fn topics_are_found_by_name_and_number() {
    let mut table = started_table();
    assert!(table.get("Tea").is_none());
    table.update(wanted("Tea", 2), NOW).unwrap().unwrap();
    let topic = table.get("Tea").unwrap();
    assert_eq!(table.by_number(topic.number()), Some(topic));
    assert_eq!(table.by_number(TopicNumber(9_999)), None);
}

#[test]
fn queues_are_bounded_by_what_the_topic_has() {
    let mut table = started_table();
    let config = TopicConfig { read_queue_nums: 4, write_queue_nums: 2, ..wanted("Tea", 0) };
    table.update(config, NOW).unwrap();
    let topic = table.get("Tea").unwrap();
    let number = topic.number();
    assert_eq!(topic.queue_to_read(3), Some(number.queue(3)));
    assert_eq!(topic.queue_to_write(3), Some(number.queue(3)), "writable as long as it is readable");
    for none in [-1, 4, i32::MIN, i32::MAX] {
        assert_eq!(topic.queue_to_read(none), None);
        assert_eq!(topic.queue_to_write(none), None);
    }

    table.update(TopicConfig { read_queue_nums: 2, write_queue_nums: 4, ..wanted("Tea", 0) }, NOW).unwrap();
    let topic = table.get("Tea").unwrap();
    assert_eq!(topic.queue_to_read(2), None);
    assert_eq!(topic.queue_to_write(2), Some(number.queue(2)));
}

#[test]
fn send_makes_a_topic_from_its_template() {
    let mut table = started_table();
    assert!(table.create_for_send(send_to("Tea"), NOW).unwrap().is_some());
    assert_eq!(shape(&table, "Tea"), (4, 4, 6));
    assert_eq!(table.create_for_send(send_to("Tea"), NOW), Ok(None));

    table.create_for_send(AutoCreate { queues: 100, ..send_to("Many") }, NOW).unwrap();
    assert_eq!(shape(&table, "Many"), (8, 8, 6));
    table.create_for_send(AutoCreate { queues: -3, ..send_to("Few") }, NOW).unwrap();
    assert_eq!(shape(&table, "Few"), (1, 1, 6));
    table.create_for_send(AutoCreate { template: "Cluster", queues: 100, ..send_to("Wide") }, NOW).unwrap();
    assert_eq!(shape(&table, "Wide"), (16, 16, 6));

    table.create_for_send(AutoCreate { unit_mode: true, ..send_to("Unit") }, NOW).unwrap();
    assert_eq!(table.get("Unit").unwrap().config().topic_sys_flag, 1);
}

#[test]
fn send_without_template_makes_nothing() {
    let mut table = started_table();
    for template in ["Nowhere", "BenchmarkTest"] {
        let error = table.create_for_send(AutoCreate { template, ..send_to("Tea") }, NOW);
        let (topic, template) = ("Tea".into(), template.into());
        assert_eq!(error, Err(TopicError::NoTemplate { topic, template }));
    }
    let error = table.create_for_send(send_to("bad name"), NOW).unwrap_err();
    assert!(matches!(error, TopicError::Name { .. }), "{error}");
}

#[test]
fn template_from_before_auto_creation_was_switched_off_is_none() {
    let mut table = started_table();
    table.policy.auto_create = false;
    let error = table.create_for_send(send_to("Tea"), NOW).unwrap_err();
    assert!(matches!(error, TopicError::NoTemplate { .. }), "{error}");
}

#[test]
fn retry_and_dead_letter_topics_need_no_template() {
    let mut table = TopicTable::new(policy());
    table.create_for_send(send_to("%RETRY%g"), NOW).unwrap();
    assert_eq!(shape(&table, "%RETRY%g"), (1, 1, 6));
    assert_eq!(table.ensure_retry_topic("g", 5, false, NOW), Ok(None), "an existing one stays as it is");

    table.ensure_retry_topic("h", 3, true, NOW).unwrap();
    assert_eq!(shape(&table, "%RETRY%h"), (3, 3, 6));
    assert_eq!(table.get("%RETRY%h").unwrap().config().topic_sys_flag, 2);

    table.ensure_dead_letter_topic("g", NOW).unwrap();
    assert_eq!(shape(&table, "%DLQ%g"), (1, 1, 6));
}

#[test]
fn update_changes_what_it_names_and_nothing_else() {
    let mut table = started_table();
    table.update(wanted("Tea", 2), NOW).unwrap();
    let number = table.get("Tea").unwrap().number();
    let before = table.version();

    assert_eq!(table.update(wanted("Tea", 2), NOW), Ok(None));
    assert_eq!(table.version(), before);

    let attributes = attributes::parse_changes("+message.type=FIFO").unwrap();
    let record = table.update(TopicConfig { attributes, ..wanted("Tea", 3) }, NOW + 5).unwrap();
    assert!(matches!(record, Some(ControlRecord::TopicPut { .. })));
    let topic = table.get("Tea").unwrap();
    assert_eq!(topic.number(), number);
    assert_eq!(topic.config().attributes["message.type"], "FIFO");
    assert_eq!(table.version(), before.next(NOW + 5));

    assert_eq!(table.update(wanted("Tea", 3), NOW), Ok(None), "attributes stay unless they are removed");
}

#[test]
fn update_refuses_what_no_topic_can_be() {
    let mut table = started_table();
    let mut error = |config| table.update(config, NOW).unwrap_err();
    assert_eq!(error(wanted("TBW102", 1)), TopicError::System("TBW102".into()));
    assert_eq!(error(wanted("node-0", 1)), TopicError::System("node-0".into()));
    assert_eq!(error(wanted("rmq_sys_new", 1)), TopicError::System("rmq_sys_new".into()));
    assert_eq!(error(wanted("Tea", -1)), TopicError::Queues(-1));
    assert_eq!(error(wanted("Tea", 65_537)), TopicError::Queues(65_537));
    assert_eq!(error(TopicConfig { perm: 8, ..wanted("Tea", 1) }), TopicError::Permission(8));
    let attributes = Attributes::from([("+colour".into(), "red".into())]);
    assert_eq!(
        error(TopicConfig { attributes, ..wanted("Tea", 1) }),
        TopicError::Attribute(AttributeError::Unknown("colour".into()))
    );
    assert!(table.get("Tea").is_none());
}

#[test]
fn deleted_topic_comes_back_under_a_new_number() {
    let mut table = started_table();
    table.update(wanted("Tea", 1), NOW).unwrap();
    let old = table.get("Tea").unwrap().number();
    table.delete("Tea", NOW).unwrap().unwrap();
    assert_eq!(table.get("Tea"), None);
    assert_eq!(table.by_number(old), None);
    assert_eq!(table.delete("Tea", NOW), Ok(None));
    assert_eq!(table.delete("TBW102", NOW), Err(TopicError::System("TBW102".into())));

    table.update(wanted("Tea", 1), NOW).unwrap();
    assert!(table.get("Tea").unwrap().number() > old);
}

#[test]
fn numbers_end_below_the_one_of_control_records() {
    let mut table = TopicTable::new(policy());
    table.next_number = TopicNumber::MAX.0;
    table.update(wanted("Last", 1), NOW).unwrap();
    assert_eq!(table.get("Last").unwrap().number(), TopicNumber::MAX);
    assert_eq!(table.update(wanted("OneMore", 1), NOW), Err(TopicError::NumbersUsedUp));
}

#[test]
fn full_table_makes_no_topic_and_changes_those_it_has() {
    let mut table = TopicTable::new(policy());
    for topic in 0..TOPICS_MAX {
        table.update(wanted(&format!("t{topic}"), 1), NOW).unwrap();
    }
    assert_eq!(table.update(wanted("Tea", 1), NOW), Err(TopicError::TableFull));
    assert!(table.update(wanted("t7", 2), NOW).unwrap().is_some());
    table.delete("t7", NOW).unwrap();
    assert!(table.update(wanted("Tea", 1), NOW).unwrap().is_some());
}

#[test]
fn changes_are_told_once_each_in_order() {
    let mut table = started_table();
    let told = table.version();
    let names = |table: &TopicTable| -> Vec<String> {
        table.changed_since(told).map(|topic| topic.config().topic_name.clone()).collect()
    };
    assert_eq!(names(&table), [""; 0]);
    table.update(wanted("A", 1), NOW).unwrap();
    table.update(wanted("B", 1), NOW).unwrap();
    table.update(wanted("C", 1), NOW).unwrap();
    table.update(wanted("A", 2), NOW).unwrap();
    table.delete("C", NOW).unwrap();
    assert_eq!(names(&table), ["B", "A"]);
    assert_ne!(table.version(), told);
    assert_eq!(table.changed_since(table.version()).count(), 0);
    assert_eq!(table.changed_since(DataVersion::default()).count(), table.len());
}

#[test]
fn contradicting_records_are_refused() {
    let mut table = TopicTable::new(policy());
    let version = |counter| DataVersion { counter, ..DataVersion::default() };
    let record = |number, name, counter| ControlRecord::TopicPut {
        number: TopicNumber(number),
        version: version(counter),
        config: Box::new(wanted(name, 1)),
    };
    table.apply(&record(0, "A", 1)).unwrap();
    assert_eq!(
        table.apply(&record(0, "B", 2)),
        Err(TopicReplayError::OtherName { number: TopicNumber(0), known: "A".into(), logged: "B".into() })
    );
    assert_eq!(
        table.apply(&record(1, "A", 2)),
        Err(TopicReplayError::OtherNumber {
            name: "A".into(),
            known: TopicNumber(0),
            logged: TopicNumber(1)
        })
    );
    let state =
        |next_number, counter| ControlRecord::TopicTableState { next_number, version: version(counter) };
    assert_eq!(table.apply(&state(0, 1)), Err(TopicReplayError::NumberGiven { next: 0, known: 0 }));
    assert_eq!(table.apply(&state(1, 0)), Err(TopicReplayError::OldVersion { known: 1, logged: 0 }));
    let delete = ControlRecord::TopicDelete { number: TopicNumber(5), version: version(2) };
    assert_eq!(table.apply(&delete), Err(TopicReplayError::DeletedBefore(TopicNumber(5))));
    assert_eq!(table.apply(&record(1, "B", 1)), Err(TopicReplayError::OldVersion { known: 1, logged: 1 }));
    assert_eq!(table.len(), 1);
}

proptest! {
    #[test]
    fn records_rebuild_the_table(
        steps in prop::collection::vec((0..6usize, 0..4u8, 1..4i32), 0..40),
    ) {
        let mut table = TopicTable::new(policy());
        let mut records = table.ensure_system_topics(NOW).unwrap();
        for (time, (name, action, queues)) in (NOW..).zip(steps) {
            let name = ["A", "B", "C", "D", "E", "F"][name];
            let record = match action {
                0 => table.delete(name, time),
                1 => table.create_for_send(AutoCreate { queues, ..send_to(name) }, time),
                2 => table.ensure_retry_topic(name, queues, false, time),
                _ => table.update(wanted(name, queues), time),
            };
            records.extend(record.unwrap());
        }
        prop_assert_eq!(&rebuilt_from(&records), &table);
    }
}
