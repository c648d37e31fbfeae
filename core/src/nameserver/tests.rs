//! A NameServer as brokers, clients and tools meet it: requests go in as frames of stock peers, and replies are read
//! back as they read them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use apogee_net::body::{
    ClusterInfo, DataVersion, KvTable, RegisterBrokerBody, TopicConfig, TopicList, TopicRouteData, parse,
    perm, to_fastjson,
};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{ReplyHead, encode_reply};
use apogee_net::frame::{HeaderEncoding, RawFrame, split_frame};
use apogee_net::header::Header;
use apogee_net::io::ConnectionId;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use serde_json::json;

use crate::service::Request;

use super::*;

mod leaders;

/// What a 5.3.3 client says of itself.
const NEW: i32 = 479;
/// The last client that reads only bare numeric keys (4.9.3).
const OLD: i32 = 399;

struct World {
    server: NameServer,
    now_ms: i64,
    /// Version in the headers of requests.
    version: i32,
}

/// A reply as its receiver sees it.
#[derive(Debug)]
struct Answer {
    code: ResponseCode,
    remark: String,
    fields: BTreeMap<String, String>,
    body: Bytes,
}

impl Answer {
    #[track_caller]
    fn success(self) -> Self {
        assert_eq!(self.code, ResponseCode::SUCCESS, "{}", self.remark);
        self
    }

    #[track_caller]
    fn refused(self, code: ResponseCode, remark: &str) {
        assert_eq!((self.code, self.remark.as_str()), (code, remark));
        assert!(self.body.is_empty());
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    fn topics(self) -> Vec<String> {
        parse::<TopicList>(&self.success().body).unwrap().topic_list
    }
}

#[derive(Clone)]
struct Broker {
    name: &'static str,
    cluster: &'static str,
    id: i64,
    addr: &'static str,
    connection: u64,
    /// With this many queues each.
    topics: Vec<(&'static str, i32)>,
    version: DataVersion,
    /// Further header fields.
    fields: Vec<(&'static str, &'static str)>,
}

fn broker(name: &'static str, addr: &'static str) -> Broker {
    Broker {
        name,
        cluster: "DefaultCluster",
        id: 0,
        addr,
        connection: addr.bytes().map(u64::from).sum(),
        topics: vec![("TBW102", 8), ("TopicTest", 4)],
        version: DataVersion { counter: 3, state_version: 0, timestamp: 1_700_000_000_000 },
        fields: vec![("enableActingMaster", "false")],
    }
}

impl Broker {
    fn with_topics(mut self, topics: &[(&'static str, i32)]) -> Self {
        self.topics = topics.to_vec();
        self.version.counter += 1;
        self
    }

    fn with_id(self, id: i64) -> Self {
        Self { id, ..self }
    }

    fn on(self, connection: u64) -> Self {
        Self { connection, ..self }
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.retain(|(field, _)| *field != name);
        self.fields.push((name, value));
        self
    }

    fn body(&self) -> RegisterBrokerBody {
        let mut body = RegisterBrokerBody::default();
        let topics = &mut body.topic_config_serialize_wrapper;
        topics.data_version = self.version;
        for (name, queues) in &self.topics {
            let topic = TopicConfig {
                topic_name: (*name).to_owned(),
                read_queue_nums: *queues,
                write_queue_nums: *queues,
                ..TopicConfig::default()
            };
            topics.topic_config_table.insert((*name).to_owned(), topic);
        }
        body
    }

    fn names(&self) -> Vec<(&'static str, String)> {
        vec![
            ("brokerName", self.name.to_owned()),
            ("clusterName", self.cluster.to_owned()),
            ("brokerAddr", self.addr.to_owned()),
            ("brokerId", self.id.to_string()),
        ]
    }
}

impl World {
    fn start() -> Self {
        Self {
            server: NameServer::new(NameServerConfig::default(), KvConfig::default(), 1_000),
            now_ms: 1_000,
            version: NEW,
        }
    }

    fn wait_ms(&mut self, ms: i64) -> &mut Self {
        self.now_ms += ms;
        self.server.on_tick(self.now_ms);
        self
    }

    fn as_version(&mut self, version: i32) -> &mut Self {
        self.version = version;
        self
    }

    fn ask_on(
        &mut self,
        connection: u64,
        code: RequestCode,
        fields: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        let fields: BTreeMap<_, _> = fields.iter().copied().collect();
        let header = json!({
            "code": code.0, "extFields": fields, "flag": 0, "language": "JAVA", "opaque": 7,
            "serializeTypeCurrentRPC": "JSON", "version": self.version,
        });
        let frame = RawFrame {
            encoding: HeaderEncoding::Json,
            header: header.to_string().into(),
            body: Bytes::copy_from_slice(body.as_ref()),
        };
        let peer = SocketAddr::from(([10, 0, 0, 9], 5555));
        let request = Request::decode(ConnectionId(connection), peer, &frame).unwrap();
        let reply = self.server.handle(&request, self.now_ms);

        let body: Bytes = reply
            .body
            .iter()
            .flat_map(|chunk| chunk.in_memory().unwrap().to_vec())
            .collect::<Vec<_>>()
            .into();
        let head =
            ReplyHead { code: reply.code, opaque: 7, remark: reply.remark.as_deref(), ext: &reply.ext };
        let mut out = BytesMut::new();
        encode_reply(&mut out, HeaderEncoding::Json, &head, body.len()).unwrap();
        out.extend_from_slice(&body);
        let frame = split_frame(&mut out).unwrap().expect("a whole frame");
        let header = Header::decode(frame.encoding, &frame.header).unwrap();
        Answer {
            code: ResponseCode(header.code),
            remark: header.remark.as_deref().unwrap_or_default().to_owned(),
            fields: header.ext.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            body: frame.body,
        }
    }

    fn ask(&mut self, code: RequestCode, fields: &[(&str, &str)]) -> Answer {
        self.ask_on(999, code, fields, b"")
    }

    fn ask_about(&mut self, broker: &Broker, code: RequestCode, body: &[u8]) -> Answer {
        let names = broker.names();
        let fields: Vec<_> = names.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.ask_on(broker.connection, code, &fields, body)
    }

    fn register_with(&mut self, broker: &Broker, body: &[u8]) -> Answer {
        let names = broker.names();
        let ha_server_addr = format!("{}2", broker.addr);
        let mut fields: Vec<_> = names.iter().map(|(name, value)| (*name, value.as_str())).collect();
        fields.push(("haServerAddr", &ha_server_addr));
        fields.extend(&broker.fields);
        self.ask_on(broker.connection, RequestCode::REGISTER_BROKER, &fields, body)
    }

    fn register(&mut self, broker: &Broker) -> Answer {
        self.register_with(broker, &to_fastjson(&broker.body()))
    }

    fn close(&mut self, broker: &Broker) {
        self.server.on_connection_closed(ConnectionId(broker.connection));
    }

    fn route_answer(&mut self, topic: &str) -> Answer {
        self.ask(RequestCode::GET_ROUTEINFO_BY_TOPIC, &[("topic", topic)])
    }

    #[track_caller]
    fn route(&mut self, topic: &str) -> TopicRouteData {
        parse(&self.route_answer(topic).success().body).unwrap()
    }

    /// `name:id@address` of each broker in the route of a topic; nothing without a route.
    fn addrs(&mut self, topic: &str) -> Vec<String> {
        let answer = self.route_answer(topic);
        if answer.code == ResponseCode::TOPIC_NOT_EXIST {
            return Vec::new();
        }
        let route: TopicRouteData = parse(&answer.success().body).unwrap();
        let of_broker = |broker: &apogee_net::body::BrokerData| -> Vec<String> {
            broker
                .broker_addrs
                .iter()
                .map(|(id, addr)| format!("{}:{id}@{addr}", broker.broker_name))
                .collect()
        };
        route.broker_datas.iter().flat_map(of_broker).collect()
    }

    fn perm(&mut self, topic: &str) -> i32 {
        self.route(topic).queue_datas[0].perm
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.server.poll_action()).collect()
    }

    fn configure(&mut self, properties: &str) {
        self.ask_on(999, RequestCode::UPDATE_NAMESRV_CONFIG, &[], properties).success();
    }
}

const A: &str = "10.0.0.1:10911";
const B: &str = "10.0.0.2:10911";

// Routes

#[test]
fn a_registered_broker_s_topics_have_routes() {
    let mut world = World::start();
    world.register(&broker("broker-a", A)).success();
    assert_eq!(
        world.route_answer("TopicTest").success().text(),
        r#"{"brokerDatas":[{"brokerAddrs":{"0":"10.0.0.1:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#
    );
    assert_eq!(world.route("TBW102").queue_datas[0].write_queue_nums, 8);
}

#[test]
fn a_topic_that_nobody_has_is_refused_with_17() {
    let mut world = World::start();
    let remark = "No topic route info in name server for the topic: TopicTest";
    world.route_answer("TopicTest").refused(ResponseCode::TOPIC_NOT_EXIST, remark);
    world.register(&broker("broker-a", A)).success();
    assert_eq!(world.route_answer("Other").code, ResponseCode::TOPIC_NOT_EXIST);
}

#[test]
fn old_clients_get_bare_numeric_keys_unless_they_ask_for_standard_json() {
    let mut world = World::start();
    world.register(&broker("broker-a", A)).success();
    world.register(&broker("broker-a", B).with_id(1)).success();
    let bare = r#""brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"}"#;
    let quoted = r#""brokerAddrs":{"0":"10.0.0.1:10911","1":"10.0.0.2:10911"}"#;
    assert!(world.as_version(OLD).route_answer("TopicTest").text().contains(bare));
    let standard = [("topic", "TopicTest"), ("acceptStandardJsonOnly", "true")];
    assert!(world.ask(RequestCode::GET_ROUTEINFO_BY_TOPIC, &standard).text().contains(quoted));
    assert!(world.as_version(401).route_answer("TopicTest").text().contains(quoted));
}

/// rocketmq-client-go `RouteData.decode`: it cuts out what is between the braces behind `brokerAddrs` and splits it at
/// `,` and then at `:`, so a blank or a colon more would end in a wrong address.
#[test]
fn the_go_client_s_way_of_cutting_addresses_works() {
    let mut world = World::start();
    world.register(&broker("broker-a", A)).success();
    world.register(&broker("broker-a", B).with_id(1)).success();
    for version in [317, NEW] {
        let answer = world.as_version(version).route_answer("TopicTest");
        let (_, behind) = answer.text().split_once(r#""brokerAddrs":{"#).expect("compact");
        let (addrs, _) = behind.split_once('}').unwrap();
        let pairs: Vec<_> = addrs
            .split(',')
            .map(|pair| {
                let (id, addr) = pair.split_once(':').unwrap();
                (id.trim_matches('"').parse::<i64>().unwrap(), addr.trim_matches('"'))
            })
            .collect();
        assert_eq!(pairs, [(0, A), (1, B)]);
    }
}

#[test]
fn a_topic_on_several_brokers_has_them_all_in_its_route() {
    let mut world = World::start();
    world.register(&broker("broker-a", A)).success();
    world.register(&broker("broker-b", B).with_topics(&[("TopicTest", 2), ("Other", 1)])).success();
    assert_eq!(world.addrs("TopicTest"), ["broker-a:0@10.0.0.1:10911", "broker-b:0@10.0.0.2:10911"]);
    assert_eq!(world.addrs("Other"), ["broker-b:0@10.0.0.2:10911"]);
    let queues: Vec<_> =
        world.route("TopicTest").queue_datas.iter().map(|queue| queue.read_queue_nums).collect();
    assert_eq!(queues, [4, 2]);
}

#[test]
fn routes_can_be_held_back_until_brokers_had_time_to_register() {
    let mut world = World::start();
    world.configure("needWaitForService=true");
    world.register(&broker("broker-a", A)).success();
    world
        .wait_ms(44_999)
        .route_answer("TopicTest")
        .refused(ResponseCode::SYSTEM_ERROR, "name server not ready");
    world.wait_ms(1).route("TopicTest");
}

#[test]
fn order_configuration_is_part_of_routes_only_if_enabled() {
    let mut world = World::start();
    world.register(&broker("broker-a", A)).success();
    let entry = [("namespace", "ORDER_TOPIC_CONFIG"), ("key", "TopicTest"), ("value", "broker-a:4")];
    world.ask(RequestCode::PUT_KV_CONFIG, &entry).success();
    assert_eq!(world.route("TopicTest").order_topic_conf, None);
    world.configure("orderMessageEnable=true");
    assert_eq!(world.route("TopicTest").order_topic_conf.as_deref(), Some("broker-a:4"));
    assert_eq!(world.route("TBW102").order_topic_conf, None);
}

#[test]
fn a_client_in_a_zone_sees_near_brokers_and_those_without_a_master() {
    let mut world = World::start();
    world.register(&broker("near", A).with("__ZONE_NAME", "Z1")).success();
    world.register(&broker("far", B).with("__ZONE_NAME", "Z2")).success();
    let masterless = broker("masterless", "10.0.0.3:10911").with("__ZONE_NAME", "Z2");
    let mut zone = |mode| {
        let fields = [("topic", "TopicTest"), ("__ZONE_NAME", "z1"), ("__ZONE_MODE", mode)];
        let answer = world.ask(RequestCode::GET_ROUTEINFO_BY_TOPIC, &fields).success();
        let route: TopicRouteData = parse(&answer.body).unwrap();
        let names = route.queue_datas.into_iter().map(|queue| queue.broker_name).collect::<Vec<_>>();
        names.join(" ")
    };
    assert_eq!(zone("true"), "near");
    assert_eq!(zone("false"), "far near");
    world.register(&masterless).success();
    world.register(&masterless.clone().with_id(1)).success();
    assert_eq!(world.addrs("TopicTest").last().unwrap(), "near:0@10.0.0.1:10911");
    let fields = [("topic", "TopicTest"), ("__ZONE_NAME", "z1"), ("__ZONE_MODE", "true")];
    let answer = world.ask(RequestCode::GET_ROUTEINFO_BY_TOPIC, &fields).success();
    assert!(answer.text().contains("masterless") && !answer.text().contains("far"));
}

// Registration

#[test]
fn a_first_registration_with_exactly_one_topic_is_refused_and_leaves_no_trace() {
    let mut world = World::start();
    let one_topic = broker("broker-a", A).with_topics(&[("TopicTest", 4)]);
    world.register(&one_topic).refused(ResponseCode::SYSTEM_ERROR, "register broker failed");
    assert_eq!(
        world.ask(RequestCode::GET_BROKER_CLUSTER_INFO, &[]).text(),
        r#"{"brokerAddrTable":{},"clusterAddrTable":{}}"#
    );
    let no_topic = one_topic.clone().with_topics(&[]);
    world.register(&no_topic).success();
    world.register(&one_topic).success();
    assert_eq!(world.addrs("TopicTest"), ["broker-a:0@10.0.0.1:10911"]);
}

#[test]
fn an_incremental_registration_adds_and_changes_but_removes_nothing() {
    let mut world = World::start();
    let whole = broker("broker-a", A);
    world.register(&whole).success();
    let with_new = whole.with_topics(&[("New", 1)]);
    world.register(&with_new).success();
    let all = world.ask(RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[]).topics();
    assert_eq!(all, ["New", "TBW102", "TopicTest"]);
    world.register(&with_new.with_topics(&[("TopicTest", 16)])).success();
    assert_eq!(world.route("TopicTest").queue_datas[0].read_queue_nums, 16);
    assert_eq!(world.route("TBW102").queue_datas[0].read_queue_nums, 8);
}

#[test]
fn topics_are_taken_again_only_with_another_data_version_or_when_missing() {
    let mut world = World::start();
    let first = broker("broker-a", A);
    world.register(&first).success();
    let same_version = Broker { topics: vec![("TopicTest", 9), ("Missing", 2)], ..first.clone() };
    world.register(&same_version).success();
    assert_eq!(world.route("TopicTest").queue_datas[0].read_queue_nums, 4);
    assert_eq!(world.route("Missing").queue_datas[0].read_queue_nums, 2);
    let later = DataVersion { timestamp: first.version.timestamp + 1, ..first.version };
    world.register(&Broker { version: later, ..same_version }).success();
    assert_eq!(world.route("TopicTest").queue_datas[0].read_queue_nums, 9);
}

#[test]
fn all_forms_of_the_body_are_read() {
    let compressed = broker("broker-a", A).with("compressed", "true");
    let denied = broker("broker-a", A).with("compressed", "false");
    for version in [NEW, OLD] {
        for broker in [&compressed, &denied] {
            let mut world = World::start();
            let body = broker.body().encode_compressed(version);
            world.as_version(version).register_with(broker, &body).success();
            assert_eq!(world.route("TopicTest").queue_datas[0].read_queue_nums, 4);
        }
    }
    let mut world = World::start();
    let topics_alone = r#"{"dataVersion":{"counter":1,"timestamp":5},"topicConfigTable":{"A":{"topicName":"A"},"B":{"topicName":"B"}}}"#;
    world.as_version(36).register_with(&denied, topics_alone.as_bytes()).success();
    assert_eq!(world.addrs("A"), ["broker-a:0@10.0.0.1:10911"]);
    let mut world = World::start();
    world.register_with(&denied, b"").success();
    assert_eq!(world.ask_about(&denied, RequestCode::QUERY_DATA_VERSION, b"").fields["changed"], "true");
}

#[test]
fn a_body_with_a_wrong_checksum_is_refused() {
    let mut world = World::start();
    let broker = broker("broker-a", A);
    let body = to_fastjson(&broker.body());
    let crc32: &'static str = RegisterBrokerBody::crc32(&body).to_string().leak();
    world
        .register(&broker.clone().with("bodyCrc32", "1"))
        .refused(ResponseCode::SYSTEM_ERROR, "crc32 not match");
    assert!(world.addrs("TopicTest").is_empty());
    world.register(&broker.clone().with("bodyCrc32", "0")).success();
    world.register(&broker.with("bodyCrc32", crc32)).success();
}

#[test]
fn a_broken_registration_is_refused_and_changes_nothing() {
    let mut world = World::start();
    let broker = broker("broker-a", A);
    let body = to_fastjson(&broker.body());
    for end in 1..body.len() {
        let refused = world.register_with(&broker, &body[..end]);
        assert_eq!(refused.code, ResponseCode::SYSTEM_ERROR);
        assert!(!refused.remark.is_empty());
    }
    let no_name = [("brokerAddr", A), ("clusterName", "c"), ("brokerId", "0"), ("haServerAddr", A)];
    let refused = world.ask(RequestCode::REGISTER_BROKER, &no_name);
    assert!(refused.remark.contains("brokerName"), "{}", refused.remark);
    assert!(
        parse::<ClusterInfo>(&world.ask(RequestCode::GET_BROKER_CLUSTER_INFO, &[]).body)
            .unwrap()
            .broker_addr_table
            .is_empty()
    );
}

#[test]
fn a_registration_is_answered_with_the_order_table_if_there_is_one() {
    let mut world = World::start();
    let broker = broker("broker-a", A);
    assert!(world.register(&broker).success().body.is_empty());
    let entry = [("namespace", "ORDER_TOPIC_CONFIG"), ("key", "T"), ("value", "broker-a:4")];
    world.ask(RequestCode::PUT_KV_CONFIG, &entry).success();
    let table: KvTable = parse(&world.register(&broker).success().body).unwrap();
    assert_eq!(table.table["T"], "broker-a:4");
    world.configure("returnOrderTopicConfigToBroker=false");
    assert!(world.register(&broker).success().body.is_empty());
}

#[test]
fn a_topic_too_many_does_not_cost_the_broker_its_place() {
    let mut world = World::start();
    let long: &'static str = "x".repeat(NAME_BYTES_MAX + 1).leak();
    let answer = world.register(&broker("broker-a", A).with_topics(&[("TopicTest", 4), (long, 4)])).success();
    assert!(answer.remark.starts_with("1 topics were left out"), "{}", answer.remark);
    assert_eq!(world.addrs("TopicTest").len(), 1);
    assert!(world.addrs(long).is_empty());
}

// Masters and slaves

#[test]
fn a_slave_is_told_where_its_master_is_and_adds_no_topics() {
    let mut world = World::start();
    let master = broker("broker-a", A);
    let slave = broker("broker-a", B).with_id(1).with_topics(&[("OnlyOnSlave", 1), ("TopicTest", 99)]);
    assert!(world.register(&master).success().fields.is_empty());
    let answer = world.register(&slave).success();
    assert_eq!(answer.fields["masterAddr"], A);
    assert_eq!(answer.fields["haServerAddr"], format!("{A}2"));
    assert_eq!(world.addrs("TopicTest"), ["broker-a:0@10.0.0.1:10911", "broker-a:1@10.0.0.2:10911"]);
    assert_eq!(world.route("TopicTest").queue_datas[0].read_queue_nums, 4);
    assert!(world.addrs("OnlyOnSlave").is_empty());
    world.close(&master);
    assert!(world.register(&slave).success().fields.is_empty(), "the master is gone");
}

/// "Prime slave": whatever the value of `enableActingMaster`, a broker that sends it is of 5.x.
#[test]
fn the_smallest_slave_of_5_0_brings_topics_while_there_is_no_master() {
    let mut world = World::start();
    world.register(&broker("broker-a", B).with_id(1)).success();
    world
        .register(&broker("broker-a", A).with_id(2).with_topics(&[("OnlyOnSecond", 1), ("TopicTest", 99)]))
        .success();
    assert_eq!(world.route("TopicTest").queue_datas[0].read_queue_nums, 4);
    assert!(world.addrs("OnlyOnSecond").is_empty());
}

#[test]
fn a_slave_from_before_5_0_brings_no_topics_even_alone() {
    let mut world = World::start();
    let mut slave = broker("broker-a", B).with_id(1);
    slave.fields.clear();
    world.register(&slave).success();
    assert!(world.addrs("TopicTest").is_empty());
}

#[test]
fn a_promoted_slave_has_its_address_under_one_id_only() {
    let mut world = World::start();
    world.register(&broker("broker-a", A)).success();
    world.register(&broker("broker-a", B).with_id(1)).success();
    world.close(&broker("broker-a", A));
    assert_eq!(world.addrs("TopicTest"), ["broker-a:1@10.0.0.2:10911"]);
    world.register(&broker("broker-a", B)).success();
    assert_eq!(world.addrs("TopicTest"), ["broker-a:0@10.0.0.2:10911"]);
    world.register(&broker("broker-a", A).with_id(1)).success();
    assert_eq!(world.addrs("TopicTest"), ["broker-a:0@10.0.0.2:10911", "broker-a:1@10.0.0.1:10911"]);
}

#[test]
fn a_master_of_an_earlier_election_is_ignored() {
    let mut world = World::start();
    let of_election = |broker: Broker, state_version| Broker {
        version: DataVersion { state_version, ..broker.version },
        ..broker
    };
    world.register(&of_election(broker("broker-a", A), 5)).success();
    let old_master = of_election(broker("broker-a", B), 4);
    let answer = world.register(&old_master).success();
    assert!(answer.fields.is_empty());
    assert_eq!(world.addrs("TopicTest"), ["broker-a:0@10.0.0.1:10911"]);
    world.register(&of_election(broker("broker-a", B), 5)).success();
    assert_eq!(world.addrs("TopicTest"), ["broker-a:0@10.0.0.2:10911"]);
}

#[test]
fn the_replaced_master_s_end_does_not_hurt_the_new_one() {
    let mut world = World::start();
    world.register(&broker("broker-a", A)).success();
    world.register(&broker("broker-a", B)).success();
    world.close(&broker("broker-a", A));
    world.ask_about(&broker("broker-a", A), RequestCode::UNREGISTER_BROKER, b"").success();
    assert_eq!(world.addrs("TopicTest"), ["broker-a:0@10.0.0.2:10911"]);
}

#[test]
fn an_acting_master_can_be_read_from_but_takes_no_messages() {
    let mut world = World::start();
    world.configure("supportActingMaster=true");
    let master = broker("broker-a", A).with("enableActingMaster", "true");
    let slave = broker("broker-a", B).with_id(1).with("enableActingMaster", "true");
    world.register(&master).success();
    world.register(&slave).success();
    assert_eq!(world.perm("TopicTest"), perm::READ | perm::WRITE);
    world.close(&master);
    assert_eq!(world.perm("TopicTest"), perm::READ);
    assert_eq!(world.addrs("TopicTest"), ["broker-a:0@10.0.0.2:10911"], "the slave stands in");
    world.register(&slave.with_topics(&[("TopicTest", 4), ("New", 1)])).success();
    assert_eq!(world.perm("New"), perm::READ, "what it brings cannot be written either");
    world.configure("supportActingMaster=false");
    assert_eq!(world.addrs("TopicTest"), ["broker-a:1@10.0.0.2:10911"]);
    world.register(&master).success();
    assert_eq!(world.perm("TopicTest"), perm::READ | perm::WRITE);
}

#[test]
fn without_acting_master_topics_stay_writable_when_the_master_goes() {
    let mut world = World::start();
    world.register(&broker("broker-a", A)).success();
    world.register(&broker("broker-a", B).with_id(1)).success();
    world.close(&broker("broker-a", A));
    assert_eq!(world.perm("TopicTest"), perm::READ | perm::WRITE);
}

#[test]
fn member_group_has_the_addresses_of_one_broker_name() {
    let mut world = World::start();
    world.register(&broker("broker-a", A)).success();
    let fields = [("clusterName", "DefaultCluster"), ("brokerName", "broker-a")];
    let body = r#"{"brokerMemberGroup":{"brokerAddrs":{0:"10.0.0.1:10911"},"brokerName":"broker-a","cluster":"DefaultCluster"}}"#;
    assert_eq!(world.ask(RequestCode::GET_BROKER_MEMBER_GROUP, &fields).success().text(), body);
    let fields = [("clusterName", "DefaultCluster"), ("brokerName", "unknown")];
    let body =
        r#"{"brokerMemberGroup":{"brokerAddrs":{},"brokerName":"unknown","cluster":"DefaultCluster"}}"#;
    assert_eq!(world.ask(RequestCode::GET_BROKER_MEMBER_GROUP, &fields).success().text(), body);
}

// The end of brokers

#[test]
fn a_silent_broker_is_forgotten_after_two_minutes_and_its_connection_closed() {
    let mut world = World::start();
    let broker = broker("broker-a", A).on(42);
    world.register(&broker).success();
    assert_eq!(world.wait_ms(120_000).addrs("TopicTest").len(), 1);
    assert!(world.actions().is_empty());
    assert!(world.wait_ms(1).addrs("TopicTest").is_empty());
    let [Action::CloseConnection { connection: ConnectionId(42), .. }] = world.actions()[..] else {
        panic!("its connection is to be closed")
    };
}

#[test]
fn a_broker_may_promise_another_time() {
    let mut world = World::start();
    world.register(&broker("broker-a", A).with("heartbeatTimeoutMillis", "10000")).success();
    assert_eq!(world.wait_ms(10_000).addrs("TopicTest").len(), 1);
    assert!(world.wait_ms(1).addrs("TopicTest").is_empty());
}

#[test]
fn any_sign_of_life_keeps_a_broker() {
    let mut world = World::start();
    let broker = broker("broker-a", A);
    world.register(&broker).success();
    let version = to_fastjson(&broker.version);
    for round in 0..9 {
        world.wait_ms(119_000);
        match round % 3 {
            0 => world.ask_about(&broker, RequestCode::BROKER_HEARTBEAT, b"").success(),
            1 => world.ask_about(&broker, RequestCode::QUERY_DATA_VERSION, &version).success(),
            _ => world.register(&broker).success(),
        };
        assert_eq!(world.addrs("TopicTest").len(), 1);
    }
}

#[test]
fn signs_of_life_of_an_unknown_broker_register_nothing() {
    let mut world = World::start();
    let broker = broker("broker-a", A);
    world.ask_about(&broker, RequestCode::BROKER_HEARTBEAT, b"").success();
    let answer = world.ask_about(&broker, RequestCode::QUERY_DATA_VERSION, b"").success();
    assert_eq!(answer.fields["changed"], "true");
    assert!(answer.body.is_empty());
    assert!(world.addrs("TopicTest").is_empty());
}

#[test]
fn closing_the_registration_s_connection_removes_the_broker_at_once() {
    let mut world = World::start();
    world.register(&broker("broker-a", A)).success();
    world.register(&broker("broker-b", B)).success();
    world.close(&broker("broker-a", A));
    assert_eq!(world.addrs("TopicTest"), ["broker-b:0@10.0.0.2:10911"]);
    world.close(&broker("broker-b", B));
    assert!(world.ask(RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[]).topics().is_empty());
}

#[test]
fn several_brokers_of_one_connection_go_together() {
    let mut world = World::start();
    world.register(&broker("broker-a", A).on(7)).success();
    world.register(&broker("broker-b", B).on(7)).success();
    world.close(&broker("broker-b", B).on(7));
    assert!(world.addrs("TopicTest").is_empty());
}

#[test]
fn a_broker_that_registered_again_elsewhere_outlives_its_old_connection() {
    let mut world = World::start();
    world.register(&broker("broker-a", A).on(1)).success();
    world.register(&broker("broker-a", A).on(2)).success();
    world.close(&broker("broker-a", A).on(1));
    assert_eq!(world.addrs("TopicTest").len(), 1);
    world.close(&broker("broker-a", A).on(2));
    assert!(world.addrs("TopicTest").is_empty());
}

#[test]
fn a_broker_that_signs_off_is_gone() {
    let mut world = World::start();
    let broker = broker("broker-a", A);
    world.register(&broker).success();
    world.ask_about(&broker, RequestCode::UNREGISTER_BROKER, b"").success();
    assert!(world.addrs("TopicTest").is_empty());
    world.ask_about(&broker, RequestCode::UNREGISTER_BROKER, b"").success();
}

#[test]
fn data_version_query_says_whether_to_register_again() {
    let mut world = World::start();
    let broker = broker("broker-a", A);
    world.register(&broker).success();
    let same =
        world.ask_about(&broker, RequestCode::QUERY_DATA_VERSION, &to_fastjson(&broker.version)).success();
    assert_eq!(same.fields["changed"], "false");
    assert_eq!(same.text(), r#"{"counter":3,"stateVersion":0,"timestamp":1700000000000}"#);
    let next = to_fastjson(&broker.version.next(1_700_000_000_001));
    let other = world.ask_about(&broker, RequestCode::QUERY_DATA_VERSION, &next).success();
    assert_eq!(other.fields["changed"], "true");
    let without = world.ask_about(&broker, RequestCode::QUERY_DATA_VERSION, b"").success();
    assert_eq!(without.fields["changed"], "true");
}

// Tools

#[test]
fn cluster_info_has_bare_numeric_keys_for_every_client() {
    let mut world = World::start();
    world.register(&broker("broker-a", A)).success();
    world.register(&broker("broker-a", B).with_id(1)).success();
    world.register(&Broker { cluster: "Other", ..broker("broker-x", "10.0.0.3:10911") }).success();
    assert_eq!(
        world.ask(RequestCode::GET_BROKER_CLUSTER_INFO, &[]).success().text(),
        r#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false},"broker-x":{"brokerAddrs":{0:"10.0.0.3:10911"},"brokerName":"broker-x","cluster":"Other","enableActingMaster":false}},"clusterAddrTable":{"DefaultCluster":["broker-a"],"Other":["broker-x"]}}"#
    );
}

#[test]
fn topics_are_listed_all_by_cluster_and_the_system_s_own() {
    let mut world = World::start();
    world.register(&broker("broker-a", A)).success();
    let other =
        Broker { cluster: "Other", ..broker("broker-x", B) }.with_topics(&[("TopicTest", 1), ("X", 1)]);
    world.register(&other).success();
    assert_eq!(
        world.ask(RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[]).topics(),
        ["TBW102", "TopicTest", "X"]
    );
    let of_cluster = [("cluster", "Other")];
    assert_eq!(world.ask(RequestCode::GET_TOPICS_BY_CLUSTER, &of_cluster).topics(), ["TopicTest", "X"]);
    assert!(world.ask(RequestCode::GET_TOPICS_BY_CLUSTER, &[("cluster", "None")]).topics().is_empty());
    let system = world.ask(RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_NS, &[]).success();
    assert_eq!(
        system.text(),
        r#"{"brokerAddr":"10.0.0.1:10911","topicList":["DefaultCluster","broker-a","Other","broker-x"]}"#
    );
}

#[test]
fn lists_can_be_disabled() {
    let mut world = World::start();
    world.configure("enableTopicList=false\nenableAllTopicList=false");
    for (code, fields) in [
        (RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &[][..]),
        (RequestCode::GET_TOPICS_BY_CLUSTER, &[("cluster", "c")]),
        (RequestCode::GET_UNIT_TOPIC_LIST, &[]),
        (RequestCode::GET_HAS_UNIT_SUB_TOPIC_LIST, &[]),
        (RequestCode::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST, &[]),
    ] {
        world.ask(code, fields).refused(ResponseCode::SYSTEM_ERROR, "disable");
    }
}

#[test]
fn unit_topics_are_told_by_their_flags() {
    let mut world = World::start();
    let broker = broker("broker-a", A).with_topics(&[("None", 1), ("Unit", 1), ("Sub", 1), ("Both", 1)]);
    let mut body = broker.body();
    for (flag, name) in ["None", "Unit", "Sub", "Both"].into_iter().enumerate() {
        let topics = &mut body.topic_config_serialize_wrapper.topic_config_table;
        topics.get_mut(name).unwrap().topic_sys_flag = flag as i32;
    }
    world.register_with(&broker, &to_fastjson(&body)).success();
    assert_eq!(world.ask(RequestCode::GET_UNIT_TOPIC_LIST, &[]).topics(), ["Both", "Unit"]);
    assert_eq!(world.ask(RequestCode::GET_HAS_UNIT_SUB_TOPIC_LIST, &[]).topics(), ["Both", "Sub"]);
    assert_eq!(world.ask(RequestCode::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST, &[]).topics(), ["Sub"]);
}

#[test]
fn a_broker_s_write_permission_is_wiped_until_it_registers_another_version() {
    let mut world = World::start();
    let broker = broker("broker-a", A);
    world.register(&broker).success();
    let name = [("brokerName", "broker-a")];
    assert_eq!(
        world.ask(RequestCode::WIPE_WRITE_PERM_OF_BROKER, &name).success().fields["wipeTopicCount"],
        "2"
    );
    world.register(&broker).success();
    assert_eq!(world.perm("TopicTest"), perm::READ);
    world.register(&broker.clone().with_topics(&broker.topics)).success();
    assert_eq!(world.perm("TopicTest"), perm::READ | perm::WRITE);
    world.ask(RequestCode::WIPE_WRITE_PERM_OF_BROKER, &name).success();
    assert_eq!(
        world.ask(RequestCode::ADD_WRITE_PERM_OF_BROKER, &name).success().fields["addTopicCount"],
        "2"
    );
    assert_eq!(world.perm("TopicTest"), perm::READ | perm::WRITE);
    let unknown = [("brokerName", "unknown")];
    assert_eq!(
        world.ask(RequestCode::WIPE_WRITE_PERM_OF_BROKER, &unknown).success().fields["wipeTopicCount"],
        "0"
    );
}

#[test]
fn a_topic_is_deleted_everywhere_or_in_one_cluster() {
    let mut world = World::start();
    world.register(&broker("broker-a", A)).success();
    world.register(&Broker { cluster: "Other", ..broker("broker-x", B) }).success();
    let in_cluster = [("topic", "TopicTest"), ("clusterName", "Other")];
    world.ask(RequestCode::DELETE_TOPIC_IN_NAMESRV, &in_cluster).success();
    assert_eq!(world.addrs("TopicTest"), ["broker-a:0@10.0.0.1:10911"]);
    world.ask(RequestCode::DELETE_TOPIC_IN_NAMESRV, &[("topic", "TopicTest")]).success();
    assert!(world.addrs("TopicTest").is_empty());
    world.ask(RequestCode::DELETE_TOPIC_IN_NAMESRV, &[("topic", "TopicTest")]).success();
    assert_eq!(world.addrs("TBW102").len(), 2);
}

#[test]
fn a_single_topic_is_registered_for_known_brokers_only() {
    let mut world = World::start();
    world.register(&broker("broker-a", A)).success();
    let mut register = |queues: &str| {
        let body = format!(r#"{{"queueDatas":[{queues}]}}"#);
        world.ask_on(1, RequestCode::REGISTER_TOPIC_IN_NAMESRV, &[("topic", "New")], body)
    };
    let known = r#"{"brokerName":"broker-a","readQueueNums":3,"writeQueueNums":3,"perm":6}"#;
    let unknown = r#"{"brokerName":"broker-b","readQueueNums":3,"writeQueueNums":3,"perm":6}"#;
    let remark = "broker name broker-b is not registered";
    register(&format!("{known},{unknown}")).refused(ResponseCode::SYSTEM_ERROR, remark);
    register("").success();
    register(known).success();
    assert_eq!(world.addrs("New"), ["broker-a:0@10.0.0.1:10911"]);
    assert_eq!(world.route("New").queue_datas[0].read_queue_nums, 3);
}

#[test]
fn kv_entries_are_put_read_listed_deleted_and_each_change_is_to_be_written() {
    let mut world = World::start();
    let key = [("namespace", "N"), ("key", "K")];
    let entry = [("namespace", "N"), ("key", "K"), ("value", "V")];
    world
        .ask(RequestCode::GET_KV_CONFIG, &key)
        .refused(ResponseCode::QUERY_NOT_FOUND, "No config item, Namespace: N Key: K");
    let namespace = [("namespace", "N")];
    world
        .ask(RequestCode::GET_KVLIST_BY_NAMESPACE, &namespace)
        .refused(ResponseCode::QUERY_NOT_FOUND, "No config item, Namespace: N");
    assert!(world.actions().is_empty());

    world.ask(RequestCode::PUT_KV_CONFIG, &entry).success();
    let [Action::PersistKv(file)] = &world.actions()[..] else { panic!("the entry is to be written") };
    assert_eq!(world.ask(RequestCode::GET_KV_CONFIG, &key).success().fields["value"], "V");
    assert_eq!(
        world.ask(RequestCode::GET_KVLIST_BY_NAMESPACE, &namespace).success().text(),
        r#"{"table":{"K":"V"}}"#
    );
    world.server = NameServer::new(NameServerConfig::default(), KvConfig::from_file(file).unwrap(), 0);
    assert_eq!(world.ask(RequestCode::GET_KV_CONFIG, &key).success().fields["value"], "V");

    world.ask(RequestCode::DELETE_KV_CONFIG, &key).success();
    assert!(matches!(world.actions()[..], [Action::PersistKv(_)]));
    world.ask(RequestCode::DELETE_KV_CONFIG, &key).success();
    assert!(world.actions().is_empty(), "nothing has changed");
    assert_eq!(world.ask(RequestCode::GET_KV_CONFIG, &key).code, ResponseCode::QUERY_NOT_FOUND);
}

#[test]
fn configuration_is_printed_and_changed_as_properties() {
    let mut world = World::start();
    assert!(
        world
            .ask(RequestCode::GET_NAMESRV_CONFIG, &[])
            .success()
            .text()
            .contains("orderMessageEnable=false\n")
    );
    world.configure("orderMessageEnable=true");
    assert!(
        world
            .ask(RequestCode::GET_NAMESRV_CONFIG, &[])
            .success()
            .text()
            .contains("orderMessageEnable=true\n")
    );
    let update = RequestCode::UPDATE_NAMESRV_CONFIG;
    world
        .ask_on(1, update, &[], "kvConfigPath=/tmp/x")
        .refused(ResponseCode::NO_PERMISSION, "Can not update config in black list.");
    assert_eq!(world.ask_on(1, update, &[], "noSuchProperty=1").code, ResponseCode::SYSTEM_ERROR);
}

// Everything else

#[test]
fn an_unknown_code_is_answered_as_not_supported() {
    let mut world = World::start();
    for (code, remark) in [(999, " request type 999 not supported"), (-1, " request type -1 not supported")] {
        world.ask(RequestCode(code), &[]).refused(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, remark);
    }
}

#[test]
fn every_listed_code_is_answered_and_has_a_name() {
    let mut world = World::start();
    for code in CODES {
        assert_ne!(code.name(), "UNKNOWN");
        assert_ne!(world.ask(*code, &[]).code, ResponseCode::REQUEST_CODE_NOT_SUPPORTED, "{code}");
    }
    assert!(CODES.is_sorted(), "in the order of the numbers");
}

proptest! {
    /// Invariants: a reply for whatever comes, and the registered broker keeps its route.
    #[test]
    fn hostile_requests_are_answered_and_harm_nobody(
        requests in prop::collection::vec((
            prop::sample::select(CODES),
            prop::collection::btree_map(
                prop::sample::select(vec![
                    "brokerName", "brokerAddr", "clusterName", "brokerId", "haServerAddr", "topic", "namespace", "key",
                    "value", "cluster", "compressed", "heartbeatTimeoutMillis", "enableActingMaster", "bodyCrc32",
                ]),
                prop_oneof![any::<String>(), Just("true".to_owned()), "-?[0-9]{1,20}", "[a-z]{1,9}:[0-9]{1,5}"],
                0..14,
            ),
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..50),
                "[\\[\\]{}:,\"a-z0-9]{0,50}".prop_map(String::into_bytes),
                Just(to_fastjson(&broker("x", A).body()).to_vec()),
            ],
        ), 0..20),
    ) {
        let mut world = World::start();
        world.register(&broker("broker-a", A)).success();
        for (code, fields, body) in requests {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            world.ask_on(5, code, &fields, body);
            world.wait_ms(10);
            world.actions();
        }
        world.route("TopicTest");
    }
}
