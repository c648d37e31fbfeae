//! The tables stay consistent whatever comes, and full tables refuse by name.

use std::collections::BTreeSet;

use apogee_net::body::{DataVersion, QueueData, TopicConfig, TopicConfigAndMappingSerializeWrapper};
use proptest::prelude::*;

use super::*;

impl Routes {
    /// What holds after every call.
    fn invariants(&self) {
        let mut queue_entries = 0;
        for (topic, entries) in &self.topics {
            assert!(!entries.is_empty(), "topic {topic} is nowhere");
            queue_entries += entries.len();
            for broker_name in entries.keys() {
                let (name, _) = self.brokers.get_key_value(broker_name).expect("a registered broker");
                assert!(Rc::ptr_eq(name, broker_name), "{broker_name} is stored twice");
            }
        }
        assert_eq!(self.queue_entries, queue_entries);
        for (broker_name, group) in &self.brokers {
            let addrs: BTreeSet<_> = group.members.values().map(|member| &member.addr).collect();
            assert!(!addrs.is_empty(), "{broker_name} has no member");
            assert_eq!(addrs.len(), group.members.len(), "{broker_name} has an address under two ids");
        }
    }

    fn everything(&self) -> (String, Vec<String>) {
        (format!("{:?}", self.cluster_info()), self.all_topics().topic_list)
    }
}

fn topics(names: impl IntoIterator<Item = String>) -> TopicConfigAndMappingSerializeWrapper {
    let configs = names
        .into_iter()
        .map(|name| (name.clone(), TopicConfig { topic_name: name, ..TopicConfig::default() }));
    TopicConfigAndMappingSerializeWrapper { topic_config_table: configs.collect(), ..Default::default() }
}

fn registration(broker_name: &str, topics: TopicConfigAndMappingSerializeWrapper) -> Registration<'_> {
    Registration {
        connection: ConnectionId(1),
        cluster: "C",
        broker_name,
        broker_id: MASTER_ID,
        addr: "10.0.0.1:10911",
        ha_server_addr: "10.0.0.1:10912",
        timeout_ms: 120_000,
        enable_acting_master: Some(false),
        zone_name: None,
        topics,
    }
}

/// How many topics of an accepted registration were left out, and the first of them.
fn left_out(registered: Result<Registered, RegisterError>) -> Option<(usize, String)> {
    match registered {
        Ok(Registered::Accepted { left_out, .. }) => {
            left_out.map(|left_out| (left_out.count, left_out.first))
        }
        other => panic!("not accepted: {other:?}"),
    }
}

#[test]
fn broker_names_beyond_the_limit_are_refused() {
    let mut routes = Routes::default();
    for number in 0..BROKERS_MAX {
        routes.register(registration(&format!("broker-{number}"), topics([])), 0).unwrap();
    }
    assert_eq!(routes.register(registration("one-more", topics([])), 0), Err(RegisterError::TooManyBrokers));
    routes.register(registration("broker-7", topics([])), 1).expect("a known broker may come again");
    assert_eq!(routes.brokers.len(), BROKERS_MAX);
}

#[test]
fn brokers_of_one_name_beyond_the_limit_are_refused() {
    let mut routes = Routes::default();
    let addrs: Vec<_> = (0..=MEMBERS_MAX).map(|id| format!("10.0.0.{id}:10911")).collect();
    let with_id =
        |id: usize, addr| Registration { broker_id: id as i64, addr, ..registration("broker-a", topics([])) };
    for (id, addr) in addrs.iter().enumerate().take(MEMBERS_MAX) {
        routes.register(with_id(id, addr), 0).unwrap();
    }
    let refused = routes.register(with_id(MEMBERS_MAX, &addrs[MEMBERS_MAX]), 0);
    assert_eq!(refused, Err(RegisterError::TooManyMembers { broker_name: "broker-a".into() }));
    routes.register(with_id(MEMBERS_MAX, &addrs[3]), 0).expect("a change of id needs no room");
    routes.invariants();
}

#[test]
fn topics_beyond_the_limit_are_left_out_and_said() {
    let mut routes = Routes::default();
    routes
        .register(registration("broker-a", topics((0..TOPICS_MAX).map(|topic| format!("t{topic}")))), 0)
        .unwrap();
    let mut more = topics(["new-1", "new-2", "t5"].map(String::from));
    more.data_version.counter = 1;
    more.topic_config_table.get_mut("t5").unwrap().read_queue_nums = 77;
    let left_out = left_out(routes.register(registration("broker-a", more), 1));
    assert_eq!(left_out, Some((2, "new-1".into())));
    let route = routes.route("t5", RouteFilter::default()).expect("known topics stay");
    assert_eq!(route.queue_datas[0].read_queue_nums, 77);
    assert!(
        routes.heard_of("C", "broker-a", "10.0.0.1:10911", 2).is_some(),
        "the broker itself is registered"
    );
    routes.invariants();
}

#[test]
fn entries_of_topics_beyond_the_limit_are_left_out_and_said() {
    let mut routes = Routes::default();
    routes.register(registration("broker-a", topics(["a", "b"].map(String::from))), 0).unwrap();
    routes.queue_entries = QUEUE_ENTRIES_MAX - 1;
    let left_out =
        left_out(routes.register(registration("broker-b", topics(["a", "b"].map(String::from))), 0));
    assert_eq!(left_out, Some((1, "b".into())));
}

#[test]
fn names_that_no_table_should_hold_are_refused() {
    let mut routes = Routes::default();
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let name_length = |field, found| Err(RegisterError::NameLength { field, found });
    assert_eq!(routes.register(registration("", topics([])), 0), name_length("brokerName", 0));
    assert_eq!(routes.register(registration(&long, topics([])), 0), name_length("brokerName", 256));
    let in_cluster = |cluster| Registration { cluster, ..registration("broker-a", topics([])) };
    assert_eq!(routes.register(in_cluster(""), 0), name_length("clusterName", 0));
    for addr in
        ["", "10.0.0.1", ":10911", "10.0.0.1:", "10.0.0.1:x", "10.0.0.1:65536", "a b:1", "a,b:1", "\"a\":1"]
    {
        assert!(
            routes.register(Registration { addr, ..registration("b", topics([])) }, 0).is_err(),
            "{addr}"
        );
    }
    for addr in ["10.0.0.1:10911", "broker-1.example.org:10911", "[fe80::1%eth0]:10911"] {
        routes.register(Registration { addr, ..registration("b", topics([])) }, 0).unwrap();
    }
    let left_out = left_out(routes.register(registration("b", topics([String::new(), long.clone()])), 0));
    assert_eq!(left_out, Some((2, String::new())));
    routes.invariants();
}

#[test]
fn a_broker_name_belongs_to_one_cluster() {
    let mut routes = Routes::default();
    routes.register(registration("broker-a", topics([])), 0).unwrap();
    let elsewhere = Registration { cluster: "D", ..registration("broker-a", topics([])) };
    let refused = RegisterError::OtherCluster { broker_name: "broker-a".into(), cluster: "C".into() };
    assert_eq!(routes.register(elsewhere, 0), Err(refused));
    assert_eq!(routes.unregister("D", "broker-a", "10.0.0.1:10911"), None);
    assert!(routes.unregister("C", "broker-a", "10.0.0.1:10911").is_some());
}

#[derive(Clone, Debug)]
enum Event {
    Register {
        broker: usize,
        id: i64,
        addr: usize,
        topics: Vec<usize>,
        version: DataVersion,
        acting: Option<bool>,
        connection: u64,
    },
    Unregister {
        broker: usize,
        addr: usize,
    },
    Close {
        connection: u64,
    },
    Expire {
        now_ms: i64,
    },
    DeleteTopic {
        topic: usize,
        cluster: Option<usize>,
    },
    RegisterTopic {
        topic: usize,
        brokers: Vec<usize>,
    },
    WipeWrite {
        broker: usize,
    },
}

const CLUSTERS: [&str; 2] = ["C", "D"];
const BROKERS: [&str; 3] = ["broker-a", "broker-b", "broker-c"];
const ADDRS: [&str; 4] = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1"];

/// The first two broker names are of the first cluster.
fn cluster_of(broker: usize) -> &'static str {
    CLUSTERS[usize::from(broker >= 2)]
}

fn any_event() -> impl Strategy<Value = Event> {
    let any_version = (0..3i64, 0..3i64).prop_map(|(counter, state_version)| DataVersion {
        counter,
        state_version,
        timestamp: 0,
    });
    prop_oneof![
        4 => (
            (0..3usize, 0..3i64, 0..4usize, 0..4u64),
            prop::collection::vec(0..5usize, 0..4),
            any_version,
            any::<Option<bool>>(),
        )
            .prop_map(|((broker, id, addr, connection), topics, version, acting)| Event::Register {
                broker, id, addr, topics, version, acting, connection,
            }),
        1 => (0..3usize, 0..4usize).prop_map(|(broker, addr)| Event::Unregister { broker, addr }),
        1 => (0..4u64).prop_map(|connection| Event::Close { connection }),
        1 => (0..300i64).prop_map(|now_ms| Event::Expire { now_ms }),
        1 => (0..5usize, prop::option::of(0..2usize))
            .prop_map(|(topic, cluster)| Event::DeleteTopic { topic, cluster }),
        1 => (0..5usize, prop::collection::vec(0..3usize, 0..3))
            .prop_map(|(topic, brokers)| Event::RegisterTopic { topic, brokers }),
        1 => (0..3usize).prop_map(|broker| Event::WipeWrite { broker }),
    ]
}

fn apply(routes: &mut Routes, event: Event, now_ms: i64) {
    match event {
        Event::Register { broker, id, addr, topics: names, version, acting, connection } => {
            let before = routes.everything();
            let mut topics = topics(names.into_iter().map(|topic| format!("t{topic}")));
            topics.data_version = version;
            let registration = Registration {
                connection: ConnectionId(connection),
                cluster: cluster_of(broker),
                broker_id: id,
                addr: ADDRS[addr],
                timeout_ms: 100,
                enable_acting_master: acting,
                ..registration(BROKERS[broker], topics)
            };
            match routes.register(registration, now_ms) {
                Ok(Registered::Accepted { master, .. }) => {
                    assert_eq!(routes.brokers[BROKERS[broker]].members[&id].addr, ADDRS[addr]);
                    assert!(master.is_none() || id != MASTER_ID);
                }
                Ok(Registered::Fenced) => {
                    // It may have been the last of its name.
                    let group = routes.brokers.get(BROKERS[broker]);
                    assert_eq!(group.and_then(|group| group.id_of(ADDRS[addr])), None);
                }
                Err(refused) => {
                    assert_eq!(refused, RegisterError::UnknownBrokerWithOneTopic);
                    assert_eq!(routes.everything(), before, "a refusal changes nothing");
                }
            }
        }
        Event::Unregister { broker, addr } => {
            routes.unregister(cluster_of(broker), BROKERS[broker], ADDRS[addr]);
            let data_version = routes.heard_of(cluster_of(broker), BROKERS[broker], ADDRS[addr], now_ms);
            assert_eq!(data_version, None);
        }
        Event::Close { connection } => {
            routes.remove_of_connection(ConnectionId(connection));
            assert!(routes.remove_of_connection(ConnectionId(connection)).is_empty());
        }
        Event::Expire { now_ms } => drop(routes.remove_expired(now_ms)),
        Event::DeleteTopic { topic, cluster } => {
            let topic = format!("t{topic}");
            routes.delete_topic(&topic, cluster.map(|cluster| CLUSTERS[cluster]));
            assert!(cluster.is_some() || routes.route(&topic, RouteFilter::default()).is_none());
        }
        Event::RegisterTopic { topic, brokers } => {
            let queue =
                |broker: usize| QueueData { broker_name: BROKERS[broker].into(), ..QueueData::default() };
            let queues: Vec<_> = brokers.into_iter().map(queue).collect();
            let known = queues.iter().all(|queue| routes.brokers.contains_key(queue.broker_name.as_str()));
            assert_eq!(routes.register_topic(&format!("t{topic}"), &queues).is_ok(), known);
        }
        Event::WipeWrite { broker } => {
            let topics = routes.wipe_write_perm(BROKERS[broker]);
            assert_eq!(topics, routes.queue_entries_of(BROKERS[broker]).count());
        }
    }
}

proptest! {
    /// Invariants: see `Routes::invariants`; and every listed topic has a route whose brokers all have addresses.
    #[test]
    fn tables_stay_consistent_whatever_happens(events in prop::collection::vec(any_event(), 0..60)) {
        let mut routes = Routes::default();
        for (now_ms, event) in events.into_iter().enumerate() {
            apply(&mut routes, event, now_ms as i64 * 10);
            routes.invariants();
            for topic in routes.all_topics().topic_list {
                for acting_master in [false, true] {
                    let filter = RouteFilter { acting_master, zone: None };
                    let route = routes.route(&topic, filter).expect("a listed topic has a route");
                    prop_assert_eq!(route.broker_datas.len(), route.queue_datas.len());
                    for (broker, queue) in route.broker_datas.iter().zip(&route.queue_datas) {
                        prop_assert_eq!(&broker.broker_name, &queue.broker_name);
                        prop_assert!(!broker.broker_addrs.is_empty());
                    }
                }
            }
        }
    }
}
