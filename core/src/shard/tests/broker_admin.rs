//! Status, settings and figures of the broker, over the wire format.

use std::collections::BTreeMap;

use apogee_net::body::{
    BrokerStatsData, CreateTopicListRequestBody, HaRuntimeInfo, KvTable, TopicConfig,
    TopicConfigAndMappingSerializeWrapper, TopicList, TopicStatsTable, parse, perm, to_fastjson,
};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::flags::Perm;
use apogee_net::header::{NoExt, WriteExt};
use apogee_net::request::{
    CreateTopicRequest, GetAllTopicConfigRequest, GetTopicConfigRequest, GetTopicStatsInfoRequest,
    SendMessageRequest, ViewBrokerStatsDataRequest,
};
use apogee_storage::Space;

use super::world::*;
use crate::shard::Told;

impl World {
    fn update_config(&mut self, properties: &str) -> Answered {
        self.asked(CONSUMER, RequestCode::UPDATE_BROKER_CONFIG, &NoExt, properties.as_bytes())
    }

    fn property(&mut self, name: &str) -> Option<String> {
        let reply = self.asked(CONSUMER, RequestCode::GET_BROKER_CONFIG, &NoExt, b"");
        let text = String::from_utf8(reply.body).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.map(str::to_owned)
    }

    fn runtime(&mut self, key: &str) -> String {
        let reply = self.asked(CONSUMER, RequestCode::GET_BROKER_RUNTIME_INFO, &NoExt, b"");
        let KvTable { table } = parse(&reply.body).unwrap();
        table.get(key).unwrap_or_else(|| panic!("{key} in {table:?}")).clone()
    }

    /// An answer that is made in several turns.
    fn asked_in_turns(&mut self, code: RequestCode, ext: &dyn WriteExt) -> Answered {
        let opaque = self.ask(CONSUMER, code, ext, b"");
        self.settle();
        for _ in 0..1000 {
            if let Some(answered) = self.answered.remove(&opaque) {
                return answered;
            }
            self.tick(5);
        }
        panic!("{code} is not answered");
    }

    /// What a NameServer that was told so much hears by the registrations that follow.
    fn told_from(&self, mut told: Option<Told>) -> (BTreeMap<String, TopicConfig>, Told) {
        let mut topics = BTreeMap::new();
        let mut versions = Vec::new();
        loop {
            let part = self.shard.registration(told);
            let wrapper = part.body.topic_config_serialize_wrapper;
            topics.extend(wrapper.topic_config_table);
            assert!(!versions.contains(&wrapper.data_version), "taken over only with another version");
            versions.push(wrapper.data_version);
            told = Some(part.told);
            if part.is_last {
                assert_eq!(wrapper.data_version, self.shard.topics_version());
                return (topics, part.told);
            }
        }
    }

    fn topic_page(&mut self, wanted: &GetAllTopicConfigRequest<'_>) -> TopicConfigAndMappingSerializeWrapper {
        let reply = self.asked_in_turns(RequestCode::GET_ALL_TOPIC_CONFIG, wanted);
        assert_eq!(reply.int("totalTopicNum"), self.shard.topics.len() as i64);
        parse(&reply.body).unwrap()
    }

    fn create_ordered(&mut self, topic: &str) {
        let create = CreateTopicRequest {
            topic,
            default_topic: "TBW102",
            read_queues: 1,
            write_queues: 1,
            perm: Perm(6),
            filter_type: "SINGLE_TAG",
            topic_sys_flag: None,
            order: true,
            attributes: None,
            force: false,
        };
        let reply = self.asked(CONSUMER, RequestCode::UPDATE_AND_CREATE_TOPIC, &create, b"");
        assert_eq!(reply.code, ResponseCode::SUCCESS);
    }

    fn stats(&mut self, stats_name: &str, stats_key: &str) -> Option<BrokerStatsData> {
        let wanted = ViewBrokerStatsDataRequest { stats_name, stats_key };
        let reply = self.asked(CONSUMER, RequestCode::VIEW_BROKER_STATS_DATA, &wanted, b"");
        match reply.code {
            ResponseCode::SUCCESS => Some(parse(&reply.body).unwrap()),
            code => {
                assert_eq!(code, ResponseCode::SYSTEM_ERROR);
                assert_eq!(reply.remark, format!("The stats <{stats_name}> <{stats_key}> not exist"));
                None
            }
        }
    }
}

#[test]
fn settings_are_changed_at_once_and_survive_a_crash() {
    let mut world = World::new();
    assert_eq!(world.property("brokerName").as_deref(), Some(BROKER));
    assert_eq!(world.property("autoCreateTopicEnable").as_deref(), Some("true"));
    let reply = world.update_config("autoCreateTopicEnable=false\nfileReservedTime=48\nnoSuchKey=1\n");
    assert_eq!(reply.code, ResponseCode::SUCCESS);
    assert_eq!(world.send("New", "x").code, ResponseCode::TOPIC_NOT_EXIST);
    world.crash();
    assert_eq!(world.property("fileReservedTime").as_deref(), Some("48"));
    assert_eq!(world.property("noSuchKey"), None);
    assert_eq!(world.send("New", "x").code, ResponseCode::TOPIC_NOT_EXIST);
    let age_ms = world.shard.log.config().retention.age_ms;
    assert_eq!(age_ms, Some(48 * 3_600_000));
    world.update_config("autoCreateTopicEnable = true");
    assert_eq!(world.send("New", "x").code, ResponseCode::SUCCESS);
    let reply = world.asked(CONSUMER, RequestCode::GET_BROKER_CONFIG, &NoExt, b"");
    assert!(reply.ext["version"].starts_with("{\"counter\":2,"), "{reply:?}");
}

#[test]
fn settings_that_cannot_be_are_refused_with_rocketmq_s_codes() {
    let mut world = World::new();
    for (properties, code) in [
        ("brokerConfigPath=/x", ResponseCode::NO_PERMISSION),
        ("a=\\u12", ResponseCode::SYSTEM_ERROR),
        ("brokerPermission=many", ResponseCode::SYSTEM_ERROR),
        ("brokerName=other", ResponseCode::SYSTEM_ERROR),
        ("", ResponseCode::SUCCESS),
        ("brokerName=broker-a-0", ResponseCode::SUCCESS),
    ] {
        assert_eq!(world.update_config(properties).code, code, "{properties:?}");
    }
    assert_eq!(world.property("brokerPermission").as_deref(), Some("6"));
}

#[test]
fn a_broker_that_is_only_read_from_says_so_to_name_servers_and_clients() {
    let mut world = World::new();
    world.send("T", "before");
    world.create_ordered("Ordered");
    let known = world.shard.topics_version();
    let told = world.told_from(None).1;
    let before = world.registrations;
    assert_eq!(world.update_config("brokerPermission=4").code, ResponseCode::SUCCESS);
    assert_eq!(world.registrations, before + 1);
    assert_ne!(world.shard.topics_version(), known, "otherwise NameServers take nothing over");
    let (topics, _) = world.told_from(Some(told));
    assert_eq!(topics["T"].perm, perm::READ, "all topics are told anew");
    assert_eq!(world.send("T", "routes take a while").code, ResponseCode::SUCCESS, "as RocketMQ");
    assert_eq!(world.send("Ordered", "x").code, ResponseCode::NO_PERMISSION);
    assert_eq!(world.pull(&pull_from("T", 0)).code, ResponseCode::SUCCESS);

    world.update_config("brokerPermission=2");
    let reply = world.pull(&pull_from("T", 0));
    assert_eq!(reply.code, ResponseCode::NO_PERMISSION);
    assert_eq!(reply.remark, "the broker[127.0.0.1] pulling message is forbidden");
    let topic = GetTopicConfigRequest { topic: "T" };
    let reply = world.asked(CONSUMER, RequestCode::GET_TOPIC_CONFIG, &topic, b"");
    assert_eq!(parse::<TopicConfig>(&reply.body).unwrap().perm, 6, "the topic's own stays");
}

#[test]
fn runtime_info_tells_what_happened() {
    let mut world = World::new();
    world.shard.on_space(Space { free_bytes: 60 << 30, total_bytes: 80 << 30 });
    for second in 0..20 {
        world.send("T", &format!("message {second}"));
        world.pull(&pull_from("T", second));
        world.pull(&pull_from("T", second + 1));
        world.tick(1000);
    }
    assert_eq!(world.runtime("putTps"), "1.0 1.0 1.0");
    assert_eq!(world.runtime("getTotalTps"), "2.0 2.0 2.0");
    assert_eq!(world.runtime("getTransferredTps"), "1.0 1.0 1.0");
    assert_eq!(world.runtime("putMessageTimesTotal"), "20");
    assert_eq!(world.runtime("msgPutTotalTodayNow"), "20");
    assert_eq!(world.runtime("msgGetTotalTodayNow"), "20");
    assert_eq!(world.runtime("msgPutTotalTodayMorning"), "0");
    assert_eq!(world.runtime("runtime"), "[ 0 days, 0 hours, 0 minutes, 20 seconds ]");
    assert_eq!(world.runtime("bootTimestamp"), START_MS.to_string());
    assert_eq!(world.runtime("earliestMessageTimeStamp"), START_MS.to_string());
    assert_eq!(world.runtime("commitLogDiskRatio"), "0.25");
    assert_eq!(world.runtime("commitLogDirCapacity"), "Total : 80.0 GiB, Free : 60.0 GiB.");
    assert_eq!(world.runtime("dispatchBehindBytes"), "0");
    assert_eq!(world.runtime("brokerActive"), "true");
    assert!(world.runtime("putMessageDistributeTime").starts_with("[<=0ms]:20 "));
    assert_eq!(world.runtime("commitLogMaxOffset"), world.shard.log.marks().committed.0.to_string());
}

#[test]
fn messages_are_counted_by_topic_group_and_broker() {
    let mut world = World::new();
    world.send("T", "one");
    world.send("T", "two");
    world.send("U", "three");
    world.pull(&pull_from("T", 0));
    assert_eq!(world.stats("TOPIC_PUT_NUMS", "T").unwrap(), BrokerStatsData::default(), "no sample yet");
    world.tick(10_000);
    world.tick(10_000);
    let put = world.stats("TOPIC_PUT_NUMS", "T").unwrap();
    assert_eq!((put.stats_minute.sum, put.stats_minute.tps, put.stats_minute.avgpt), (2, 0.1, 1.0));
    assert_eq!((put.stats_hour.sum, put.stats_day.sum), (2, 2));
    let size = world.stats("TOPIC_PUT_SIZE", "T").unwrap().stats_minute;
    assert!(size.sum > 200 && size.avgpt == size.sum as f64 / 2.0, "{size:?}");
    assert_eq!(world.stats("GROUP_GET_NUMS", "T@CG").unwrap().stats_minute.sum, 2);
    assert_eq!(world.stats("GROUP_GET_SIZE", "T@CG").unwrap().stats_minute.sum, size.sum);
    assert_eq!(world.stats("BROKER_PUT_NUMS", "DefaultCluster").unwrap().stats_day.sum, 3);
    assert_eq!(world.stats("BROKER_GET_NUMS", "DefaultCluster").unwrap().stats_day.sum, 2);
    for (name, key) in [
        ("TOPIC_PUT_NUMS", "none"),
        ("GROUP_GET_NUMS", "T"),
        ("GROUP_GET_NUMS", "T@none"),
        ("SNDBCK_PUT_NUMS", "T@CG"),
        ("BROKER_PUT_NUMS", "other"),
        ("NO_SUCH", "T"),
    ] {
        assert_eq!(world.stats(name, key), None);
    }
}

#[test]
fn topics_of_a_list_are_made_all_or_none() {
    let mut world = World::new();
    let topic = |name: &str, attributes: &[(&str, &str)]| TopicConfig {
        topic_name: name.into(),
        attributes: attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        ..TopicConfig::default()
    };
    let mut update = |topics: Vec<TopicConfig>| {
        let body = to_fastjson(&CreateTopicListRequestBody { topic_config_list: topics });
        world.asked(CONSUMER, RequestCode::UPDATE_AND_CREATE_TOPIC_LIST, &NoExt, &body)
    };
    for (bad, code) in [
        (topic("a b", &[]), ResponseCode::INVALID_PARAMETER),
        (topic("TBW102", &[]), ResponseCode::INVALID_PARAMETER),
        (topic("M", &[("+message.type", "MIXED")]), ResponseCode::INVALID_PARAMETER),
        (topic("M", &[("+no.such", "1")]), ResponseCode::SYSTEM_ERROR),
        (topic("A", &[]), ResponseCode::INVALID_PARAMETER),
    ] {
        let reply = update(vec![topic("A", &[]), bad]);
        assert_eq!(reply.code, code, "{reply:?}");
    }
    assert_eq!(
        update(vec![topic("B", &[]), topic("C", &[("+message.type", "FIFO")])]).code,
        ResponseCode::SUCCESS
    );
    world.crash();
    assert!(world.shard.topics.get("A").is_none());
    assert_eq!(world.shard.topics.get("C").unwrap().config().attributes["message.type"], "FIFO");
}

#[test]
fn many_topics_are_told_in_parts() {
    let mut world = World::new();
    for list in 0..4 {
        let topic = |topic| TopicConfig { topic_name: format!("t{list}-{topic}"), ..TopicConfig::default() };
        let body =
            to_fastjson(&CreateTopicListRequestBody { topic_config_list: (0..200).map(topic).collect() });
        let reply = world.asked(CONSUMER, RequestCode::UPDATE_AND_CREATE_TOPIC_LIST, &NoExt, &body);
        assert_eq!(reply.code, ResponseCode::SUCCESS);
    }
    let all = world.shard.topics.len();
    let (topics, told) = world.told_from(None);
    assert_eq!(topics.len(), all);
    assert_eq!(world.told_from(Some(told)).0.len(), 0);
    world.send("One", "more");
    assert_eq!(world.told_from(Some(told)).0.len(), 1);

    let whole = world
        .topic_page(&GetAllTopicConfigRequest { topic_seq: None, data_version: None, max_topic_num: None })
        .topic_config_table;
    assert_eq!(whole.len(), all + 1);
    let mut paged = BTreeMap::new();
    let mut version = String::new();
    while paged.len() < whole.len() {
        let page = world.topic_page(&GetAllTopicConfigRequest {
            topic_seq: Some(paged.len() as i32),
            data_version: Some(&version),
            max_topic_num: Some(300),
        });
        assert!((1..=300).contains(&page.topic_config_table.len()));
        version = String::from_utf8(to_fastjson(&page.data_version).to_vec()).unwrap();
        paged.extend(page.topic_config_table);
    }
    assert_eq!(paged, whole);
    let page =
        GetAllTopicConfigRequest { topic_seq: Some(700), data_version: Some("{}"), max_topic_num: None };
    assert_eq!(
        world.topic_page(&page).topic_config_table.len(),
        all + 1,
        "another version: from the beginning"
    );
}

#[test]
fn bounds_of_many_queues_are_told() {
    let mut world = World::new();
    world.asked(
        PRODUCER,
        RequestCode::SEND_MESSAGE_V2,
        &SendMessageRequest { queue_id: 1000, ..send_to("BenchmarkTest") },
        b"x",
    );
    let wanted = GetTopicStatsInfoRequest { topic: "BenchmarkTest" };
    let reply = world.asked_in_turns(RequestCode::GET_TOPIC_STATS_INFO, &wanted);
    let TopicStatsTable { offset_table, .. } = parse(&reply.body).unwrap();
    assert_eq!(offset_table.len(), 1024);
    let used: Vec<_> = offset_table.iter().filter(|(_, offset)| offset.max_offset > 0).collect();
    let [(queue, offset)] = used[..] else { panic!("one queue: {used:?}") };
    assert_eq!((queue.queue_id, offset.max_offset, offset.last_update_timestamp), (1000, 1, START_MS));
}

#[test]
fn small_questions_of_tools_are_answered() {
    let mut world = World::new();
    let reply = world.asked(CONSUMER, RequestCode::GET_SYSTEM_TOPIC_LIST_FROM_BROKER, &NoExt, b"");
    let TopicList { topic_list, .. } = parse(&reply.body).unwrap();
    for name in ["TBW102", "SCHEDULE_TOPIC_XXXX", BROKER, "DefaultCluster", "DefaultCluster_REPLY_TOPIC"] {
        assert!(topic_list.iter().any(|topic| topic == name), "{name} in {topic_list:?}");
    }
    let reply = world.asked(CONSUMER, RequestCode::GET_BROKER_HA_STATUS, &NoExt, b"");
    let status: HaRuntimeInfo = parse(&reply.body).unwrap();
    assert!(status.master && status.ha_connection_info.is_empty());
    assert_eq!(status.master_commit_log_max_offset, world.shard.log.marks().committed.0 as i64);
    for code in [
        RequestCode::CLEAN_EXPIRED_CONSUMEQUEUE,
        RequestCode::CLEAN_UNUSED_TOPIC,
        RequestCode::DELETE_EXPIRED_COMMITLOG,
        RequestCode::GET_COLD_DATA_FLOW_CTR_INFO,
    ] {
        assert_eq!(world.asked(CONSUMER, code, &NoExt, b"").code, ResponseCode::SUCCESS, "{code}");
    }
    let reply = world.asked(CONSUMER, RequestCode::AUTH_LIST_USER, &NoExt, b"");
    assert_eq!(reply.code, ResponseCode::SYSTEM_ERROR);
}
