use apogee_net::body::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};
use proptest::prelude::*;

use super::*;

const FULL: Subscriptions = Subscriptions::Full { fingerprint: 0 };

fn client(connection: u64) -> Client<'static> {
    let client_id = ["a", "b", "c", "d"][connection as usize % 4];
    let address = "10.0.0.1:5555".parse().unwrap();
    Client {
        connection: ConnectionId(connection),
        address,
        client_id,
        language: Language::Java,
        version: 479,
    }
}

fn consumes(group: &str, topics: &[(&str, &str, i64)]) -> ConsumerData {
    let subscription =
        |(topic, tags, version): &(&str, &str, i64)| SubscriptionData::of_tags(topic, tags, *version);
    ConsumerData {
        group_name: group.into(),
        consume_type: ConsumeType::Passively,
        subscription_data_set: topics.iter().map(subscription).collect(),
        ..ConsumerData::default()
    }
}

fn tea(version: i64) -> ConsumerData {
    consumes("g", &[("Tea", "*", version)])
}

fn hear(table: &mut ClientTable, connection: u64, data: &ConsumerData, now_ms: i64) -> Option<Notify> {
    let registered = table.register_consumer(client(connection), data, FULL, true, now_ms).unwrap();
    assert!(registered.knows_subscriptions);
    registered.notify
}

fn to(group: &str, connections: &[u64]) -> Option<Notify> {
    let connections = connections.iter().copied().map(ConnectionId).collect();
    Some(Notify { group: group.into(), connections })
}

fn client_ids(table: &ClientTable) -> Vec<&str> {
    table.consumer_group("g").unwrap().client_ids().collect()
}

fn topics(table: &ClientTable, group: &str) -> Vec<String> {
    let group = table.consumer_group(group).unwrap();
    let mut topics: Vec<_> = group.subscriptions().map(|known| known.data().topic.clone()).collect();
    topics.sort();
    topics
}

#[test]
fn members_are_told_of_each_other() {
    let mut table = ClientTable::default();
    assert_eq!(hear(&mut table, 1, &tea(1), 0), to("g", &[1]));
    assert_eq!(hear(&mut table, 2, &tea(1), 0), to("g", &[1, 2]));
    assert_eq!(hear(&mut table, 1, &tea(1), 30_000), None, "a repeated heartbeat is no news");
    assert_eq!(client_ids(&table), ["b", "c"]);

    assert_eq!(table.unregister_consumer(ConnectionId(1), "g"), to("g", &[2]));
    assert_eq!(table.unregister_consumer(ConnectionId(1), "g"), None);
    assert_eq!(table.on_connection_closed(ConnectionId(2)), []);
    assert!(table.consumer_group("g").is_none(), "a group ends with its last member");
    assert!(table.connections.is_empty());
}

#[test]
fn closing_leaves_all_groups() {
    let mut table = ClientTable::default();
    for group in ["f", "g"] {
        for connection in [1, 2, 3] {
            hear(&mut table, connection, &consumes(group, &[("Tea", "*", 1)]), 0);
        }
        table.register_producer(client(1), group, 0).unwrap();
    }
    let expected = [to("f", &[2, 3]), to("g", &[2, 3])];
    assert_eq!(table.on_connection_closed(ConnectionId(1)), expected.map(Option::unwrap));
    assert_eq!(table.producers("f").count(), 0);
    assert_eq!(table.on_connection_closed(ConnectionId(1)), []);
}

#[test]
fn broadcasting_and_silenced_groups_are_not_notified() {
    let mut table = ClientTable::default();
    let broadcasting = ConsumerData { message_model: MessageModel::Broadcasting, ..tea(1) };
    assert_eq!(hear(&mut table, 1, &broadcasting, 0), None);
    assert_eq!(hear(&mut table, 2, &broadcasting, 0), None);
    assert_eq!(table.on_connection_closed(ConnectionId(1)), []);

    let silenced = consumes("h", &[]);
    for connection in [1, 2] {
        let registered = table.register_consumer(client(connection), &silenced, FULL, false, 0).unwrap();
        assert_eq!(registered.notify, None);
    }
    assert_eq!(table.on_connection_closed(ConnectionId(1)), []);
}

#[test]
fn latest_heartbeat_says_how_the_group_consumes() {
    let mut table = ClientTable::default();
    hear(&mut table, 1, &tea(1), 0);
    let data = ConsumerData {
        consume_type: ConsumeType::Actively,
        message_model: MessageModel::Broadcasting,
        consume_from_where: ConsumeFromWhere::Timestamp,
        ..tea(1)
    };
    hear(&mut table, 2, &data, 0);
    let group = table.consumer_group("g").unwrap();
    assert_eq!(group.consume_type(), ConsumeType::Actively);
    assert_eq!(group.message_model(), MessageModel::Broadcasting);
    assert_eq!(group.consume_from_where(), ConsumeFromWhere::Timestamp);
}

#[test]
fn reconnected_client_counts_once() {
    let mut table = ClientTable::default();
    hear(&mut table, 1, &tea(1), 0);
    hear(&mut table, 5, &tea(1), 0);
    assert_eq!(table.consumer_group("g").unwrap().members().len(), 2);
    assert_eq!(client_ids(&table), ["b"]);
}

#[test]
fn connection_may_become_another_client() {
    let mut table = ClientTable::default();
    hear(&mut table, 1, &tea(1), 0);
    let renamed = Client { client_id: "new", ..client(1) };
    let registered = table.register_consumer(renamed, &tea(1), FULL, true, 0).unwrap();
    assert_eq!(registered.notify, to("g", &[1]));
    assert_eq!(table.memberships, 1);
    assert_eq!(client_ids(&table), ["new"]);
}

#[test]
fn topics_that_come_and_go_are_news() {
    let mut table = ClientTable::default();
    hear(&mut table, 1, &tea(1), 0);
    let both = consumes("g", &[("Tea", "*", 1), ("Rum", "*", 1)]);
    assert_eq!(hear(&mut table, 1, &both, 0), to("g", &[1]));
    assert_eq!(topics(&table, "g"), ["Rum", "Tea"]);
    assert_eq!(hear(&mut table, 1, &tea(1), 0), to("g", &[1]));
    assert_eq!(topics(&table, "g"), ["Tea"]);

    hear(&mut table, 1, &both, 0);
    let tea_twice = consumes("g", &[("Tea", "*", 1), ("Tea", "*", 1)]);
    assert_eq!(hear(&mut table, 1, &tea_twice, 0), to("g", &[1]));
    assert_eq!(topics(&table, "g"), ["Tea"]);
}

#[test]
fn larger_version_replaces_without_news() {
    let mut table = ClientTable::default();
    let with_tags = |tags, version| consumes("g", &[("Tea", tags, version)]);
    let current = |table: &ClientTable| {
        let data = table.consumer_group("g").unwrap().subscription("Tea").unwrap().data().clone();
        (data.sub_string, data.sub_version)
    };
    hear(&mut table, 1, &with_tags("A", 5), 0);
    assert_eq!(hear(&mut table, 1, &with_tags("B", 5), 0), None);
    assert_eq!(hear(&mut table, 1, &with_tags("B", 4), 0), None);
    assert_eq!(current(&table), ("A".into(), 5));
    assert_eq!(hear(&mut table, 1, &with_tags("B", 6), 0), None);
    assert_eq!(current(&table), ("B".into(), 6));
}

fn beat(table: &mut ClientTable, connection: u64, data: &ConsumerData, subscriptions: Subscriptions) -> bool {
    table.register_consumer(client(connection), data, subscriptions, true, 0).unwrap().knows_subscriptions
}

#[test]
fn subscriptions_may_be_left_out_once_they_are_known() {
    let full = |fingerprint| Subscriptions::Full { fingerprint };
    let left_out = |fingerprint| Subscriptions::LeftOut { fingerprint };
    let nothing = consumes("g", &[]);
    let mut table = ClientTable::default();
    assert!(!beat(&mut table, 1, &nothing, left_out(7)), "a broker just started knows nothing");
    assert_eq!(table.consumer_group("g").unwrap().members().len(), 1, "but counts the member");
    assert!(beat(&mut table, 1, &tea(1), full(7)));
    assert!(beat(&mut table, 1, &nothing, left_out(7)));
    assert_eq!(topics(&table, "g"), ["Tea"], "left out is not removed");

    assert!(beat(&mut table, 2, &tea(2), full(8)));
    assert!(beat(&mut table, 1, &nothing, left_out(7)), "the same wish under two fingerprints");
    assert!(!beat(&mut table, 1, &nothing, left_out(0)));

    assert!(beat(&mut table, 2, &consumes("g", &[("Tea", "A", 3)]), full(9)));
    assert!(!beat(&mut table, 1, &nothing, left_out(7)), "another wish makes the old ones unknown");
    assert!(beat(&mut table, 2, &nothing, left_out(9)));

    assert!(beat(&mut table, 2, &consumes("g", &[("Rum", "A", 3)]), FULL));
    assert!(!beat(&mut table, 2, &nothing, left_out(9)));
}

#[test]
fn only_so_many_fingerprints_are_kept() {
    let mut table = ClientTable::default();
    for fingerprint in 1..=17 {
        beat(&mut table, 1, &tea(1), Subscriptions::Full { fingerprint });
    }
    assert!(!beat(&mut table, 1, &tea(1), Subscriptions::LeftOut { fingerprint: 1 }));
    assert!(beat(&mut table, 1, &tea(1), Subscriptions::LeftOut { fingerprint: 2 }));
    assert!(beat(&mut table, 1, &tea(1), Subscriptions::LeftOut { fingerprint: 17 }));
}

#[test]
fn heartbeat_says_whether_subscriptions_are_left_out() {
    let data = HeartbeatData { heartbeat_fingerprint: 7, ..HeartbeatData::default() };
    assert_eq!(Subscriptions::of(&data), Subscriptions::Full { fingerprint: 7 });
    let data = HeartbeatData { without_sub: true, ..data };
    assert_eq!(Subscriptions::of(&data), Subscriptions::LeftOut { fingerprint: 7 });
}

#[test]
fn silent_members_leave_everywhere() {
    let mut table = ClientTable::default();
    hear(&mut table, 1, &tea(1), 0);
    hear(&mut table, 2, &tea(1), 1);
    hear(&mut table, 3, &tea(1), 90_000);
    table.register_producer(client(1), "p", 90_000).unwrap();
    table.register_producer(client(4), "p", 0).unwrap();

    assert_eq!(table.expire(SILENCE_MS_MAX), Expired { is_complete: true, ..Expired::default() });
    let expired = table.expire(SILENCE_MS_MAX + 1);
    assert_eq!(expired.connections, [ConnectionId(1), ConnectionId(4)]);
    assert_eq!(expired.notify, [to("g", &[2, 3]).unwrap()]);
    assert_eq!(table.producers("p").count(), 0, "the connection of a silent member is closed");
    let expired = table.expire(SILENCE_MS_MAX + 90_001);
    assert_eq!(expired.connections, [ConnectionId(2), ConnectionId(3)]);
    assert_eq!(expired.notify, [], "nobody is left");
}

#[test]
fn producers_have_their_turns() {
    let mut table = ClientTable::default();
    assert_eq!(table.next_producer("p"), None);
    for (connection, group) in [(1, "p"), (2, "p"), (3, "p"), (2, "q")] {
        table.register_producer(client(connection), group, 0).unwrap();
    }
    let mut turns = |groups: &[&str]| -> Vec<u64> {
        groups.iter().map(|group| table.next_producer(group).unwrap().0).collect()
    };
    assert_eq!(turns(&["p", "q", "p", "q", "p", "p"]), [1, 2, 2, 2, 3, 1]);
    table.on_connection_closed(ConnectionId(2));
    assert_eq!(table.next_producer("p"), Some(ConnectionId(3)), "who left has no turn");
    assert_eq!(table.next_producer("q"), None);
}

#[test]
fn producers_are_found_by_their_newest_connection() {
    let mut table = ClientTable::default();
    table.register_producer(client(1), "p", 0).unwrap();
    table.register_producer(client(5), "p", 0).unwrap();
    assert_eq!(table.producer_connection("b"), Some(ConnectionId(5)));
    table.on_connection_closed(ConnectionId(1));
    assert_eq!(
        table.producer_connection("b"),
        Some(ConnectionId(5)),
        "an old connection's end changes nothing"
    );
    table.register_producer(client(5), "q", 0).unwrap();
    table.unregister_producer(ConnectionId(5), "p");
    assert_eq!(table.producer_connection("b"), Some(ConnectionId(5)), "it is still a producer of q");
    table.unregister_producer(ConnectionId(5), "q");
    assert_eq!(table.producer_connection("b"), None);
}

#[test]
fn producers_are_members_until_they_leave() {
    let mut table = ClientTable::default();
    table.register_producer(client(1), "p", 0).unwrap();
    table.register_producer(client(2), "p", 0).unwrap();
    table.register_producer(client(1), "p", 30_000).unwrap();
    let ids: Vec<_> = table.producers("p").map(|(_, member)| member.client_id()).collect();
    assert_eq!(ids, ["b", "c"]);
    table.unregister_producer(ConnectionId(1), "p");
    table.unregister_producer(ConnectionId(1), "p");
    assert_eq!(table.producers("p").count(), 1);
    assert_eq!(table.producers("q").count(), 0);
}

#[test]
fn names_have_a_length() {
    let mut table = ClientTable::default();
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let too_long = |what| ClientError::NameTooLong { what, len: NAME_BYTES_MAX + 1 };
    let named = |client_id| Client { client_id, ..client(1) };
    assert_eq!(table.register_consumer(named(&long), &tea(1), FULL, true, 0), Err(too_long("client id")));
    assert_eq!(table.register_producer(named(&long), "p", 0), Err(too_long("client id")));
    assert_eq!(table.register_producer(client(1), &long, 0), Err(too_long("producer group")));
    assert_eq!(table.register_producer(named(""), "p", 0), Err(ClientError::NoClientId));
    assert!(table.connections.is_empty() && table.consumer_groups.is_empty());
}

#[test]
fn full_table_takes_no_members_and_hears_those_it_has() {
    let mut table = ClientTable { memberships: MEMBERSHIPS_MAX - 2, ..ClientTable::default() };
    for connection in [6, 7] {
        table.register_producer(client(connection), "p", 0).unwrap();
    }
    let one_more = client(u64::MAX);
    assert_eq!(table.register_producer(one_more, "p", 0), Err(ClientError::TooManyMembers));
    assert_eq!(table.register_consumer(one_more, &tea(1), FULL, true, 0), Err(ClientError::TooManyMembers));
    assert!(table.consumer_group("g").is_none(), "a refused member leaves nothing behind");
    table.register_producer(client(7), "p", 1).unwrap();
    table.on_connection_closed(ConnectionId(7));
    table.register_producer(one_more, "p", 0).unwrap();
}

#[test]
fn subscriptions_have_their_memory() {
    let mut table = ClientTable::default();
    let expression = SubscriptionData {
        expression_type: "SQL92".into(),
        sub_string: "x".repeat(SUBSCRIPTION_BYTES_MAX / 2),
        ..SubscriptionData::of_tags("Tea", "*", 1)
    };
    let large = |group: &str| ConsumerData {
        group_name: group.into(),
        subscription_data_set: vec![expression.clone()],
        ..ConsumerData::default()
    };
    hear(&mut table, 1, &large("g"), 0);
    hear(&mut table, 1, &large("g"), 1);
    assert_eq!(
        table.register_consumer(client(1), &large("h"), FULL, true, 0),
        Err(ClientError::TooManySubscriptions)
    );
    assert!(table.consumer_group("h").is_none(), "a refused heartbeat leaves nothing behind");
    table.on_connection_closed(ConnectionId(1));
    assert_eq!(table.subscription_bytes, 0);
    hear(&mut table, 1, &large("h"), 0);
}

proptest! {
    /// Members are those of a plain list; books about connections, counts and bytes agree with the groups.
    #[test]
    fn books_agree_whatever_happens(
        steps in prop::collection::vec((0..8u8, 0..4u64, 0..2usize, 0..3usize), 0..60),
    ) {
        let mut table = ClientTable::default();
        let mut consumers: BTreeSet<(&str, ConnectionId)> = BTreeSet::new();
        let mut producers = consumers.clone();
        for (action, connection, group, topic_count) in steps {
            let group = ["f", "g"][group];
            let id = ConnectionId(connection);
            match action {
                0 => {
                    table.on_connection_closed(id);
                    consumers.retain(|(_, member)| *member != id);
                    producers.retain(|(_, member)| *member != id);
                }
                1 => {
                    table.unregister_consumer(id, group);
                    consumers.remove(&(group, id));
                }
                2 => {
                    table.unregister_producer(id, group);
                    producers.remove(&(group, id));
                }
                3 => {
                    table.register_producer(client(connection), group, 0).unwrap();
                    producers.insert((group, id));
                }
                _ => {
                    let topics = [("Tea", "*", 1), ("Rum", "A || B", 1)];
                    hear(&mut table, connection, &consumes(group, &topics[..topic_count]), 0);
                    consumers.insert((group, id));
                }
            }
            for group in ["f", "g"] {
                let members = table.consumer_group(group).map(|group| group.members.keys().copied());
                let expected = consumers.iter().filter(|(of_group, _)| *of_group == group);
                prop_assert!(members.into_iter().flatten().eq(expected.map(|(_, member)| *member)));
                prop_assert!(table.consumer_group(group).is_none_or(|group| !group.members.is_empty()));
                let expected = producers.iter().filter(|(of_group, _)| *of_group == group);
                let members = table.producers(group).map(|(connection, _)| connection);
                prop_assert!(members.eq(expected.map(|(_, member)| *member)));
                let next = table.next_producer(group);
                prop_assert_eq!(next.is_some(), next.is_some_and(|id| producers.contains(&(group, id))));
                prop_assert_eq!(next.is_none(), table.producers(group).next().is_none());
            }
            prop_assert!(table.last_turns.keys().all(|group| table.producer_groups.contains_key(group)));
            let producing: BTreeSet<_> = producers.iter().map(|(_, id)| (client(id.0).client_id, *id)).collect();
            let found: BTreeSet<_> = table.producer_connections.iter().map(|(id, at)| (&**id, *at)).collect();
            prop_assert_eq!(found, producing);
            prop_assert_eq!(table.memberships, consumers.len() + producers.len());
            let groups_of = |id: &ConnectionId, memberships: &Memberships| {
                let consumer_groups = memberships.consumer_groups.iter().all(|group| consumers.contains(&(&**group, *id)));
                let producer_groups = memberships.producer_groups.iter().all(|group| producers.contains(&(&**group, *id)));
                assert!(consumer_groups && producer_groups, "{id} is in {memberships:?}");
                memberships.consumer_groups.len() + memberships.producer_groups.len()
            };
            let counts: Vec<_> = table.connections.iter().map(|(id, groups)| groups_of(id, groups)).collect();
            prop_assert!(counts.iter().all(|count| *count > 0));
            prop_assert_eq!(counts.iter().sum::<usize>(), table.memberships);
            for topic in ["Tea", "Rum"] {
                let subscribes = |group: &&str| {
                    table.consumer_group(group).is_some_and(|group| group.subscription(topic).is_some())
                };
                let subscribers = table.subscribers(topic, None).map(|group| &**group);
                prop_assert!(subscribers.eq(["f", "g"].into_iter().filter(subscribes)));
            }
            let bytes = table.consumer_groups.values().map(|group| group.subscription_bytes);
            prop_assert_eq!(table.subscription_bytes, bytes.sum::<usize>());
        }
    }
}
