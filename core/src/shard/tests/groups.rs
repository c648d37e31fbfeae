//! What tools are told about groups, and how they change them.

use apogee_net::body::{
    ConsumeStats, ConsumeStatsList, ConsumerConnection, ConsumerData, ConsumerOffsetSerializeWrapper,
    DataVersion, FromFastjson, GroupList, HeartbeatData, ProducerConnection, ProducerData, ProducerTableInfo,
    QueryConsumeTimeSpanBody, QueryCorrectionOffsetBody, QuerySubscriptionResponseBody, SubscriptionData,
    SubscriptionGroupConfig, SubscriptionGroupList, SubscriptionGroupWrapper, TopicList, parse, to_fastjson,
};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::{NoExt, WriteExt};
use apogee_net::io::ConnectionId;
use apogee_net::request::{PullMessageRequest, UpdateConsumerOffsetRequest};

use super::world::*;

type Fields<'a> = [(&'a str, &'a str)];

/// A tool, on a connection of its own.
pub(super) const TOOL: ConnectionId = ConnectionId(99);

impl World {
    pub(super) fn tool(&mut self, code: RequestCode, fields: &Fields<'_>) -> Answered {
        let opaque = self.ask(TOOL, code, &fields as &dyn WriteExt, b"");
        self.settle();
        for _ in 0..1000 {
            if let Some(answer) = self.answered.remove(&opaque) {
                return answer;
            }
            self.tick(5);
        }
        panic!("{code} is not answered");
    }

    pub(super) fn told<T: FromFastjson>(&mut self, code: RequestCode, fields: &Fields<'_>) -> T {
        let answer = self.tool(code, fields);
        assert_eq!(answer.code, ResponseCode::SUCCESS, "{code}: {}", answer.remark);
        parse(&answer.body).unwrap()
    }

    pub(super) fn commit(&mut self, group: &str, topic: &str, queue_id: i32, commit_offset: i64) -> Answered {
        let update = UpdateConsumerOffsetRequest { consumer_group: group, topic, queue_id, commit_offset };
        self.asked(CONSUMER, RequestCode::UPDATE_CONSUMER_OFFSET, &update, b"")
    }

    fn produce_as(&mut self, from: ConnectionId, client_id: &str, group: &str) {
        let data = HeartbeatData {
            client_id: client_id.into(),
            producer_data_set: vec![ProducerData { group_name: group.into() }],
            ..Default::default()
        };
        self.asked(from, RequestCode::HEART_BEAT, &NoExt, &to_fastjson(&data));
    }
}

/// Three messages of `T`, of which the offline group `CG` has consumed two.
fn consumed() -> World {
    let mut world = World::new();
    for body in ["a", "b", "c"] {
        world.send("T", body);
        world.tick(1000);
    }
    world.pull(&pull_from("T", 0));
    assert_eq!(world.commit("CG", "T", 0, 2).code, ResponseCode::SUCCESS);
    world
}

#[test]
fn connections_of_a_group_are_listed_with_its_subscription() {
    let mut world = World::new();
    let code = RequestCode::GET_CONSUMER_CONNECTION_LIST;
    let offline = world.tool(code, &[("consumerGroup", "CG")]);
    assert_eq!(offline.code, ResponseCode::CONSUMER_NOT_ONLINE);
    assert_eq!(offline.remark, "the consumer group[CG] not online");

    world.heartbeat(CONSUMER, "client-1", "CG", "T", "TagA");
    let answer = world.tool(code, &[("consumerGroup", "CG")]);
    let expected = r#"{"connectionSet":[{"clientAddr":"10.0.0.1:5555","clientId":"client-1","language":"JAVA","version":479}],"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","subscriptionTable":{"T":{"classFilterMode":false,"codeSet":[2598919],"expressionType":"TAG","subString":"TagA","subVersion":1700000000000,"tagsSet":["TagA"],"topic":"T"}}}"#;
    assert_eq!(String::from_utf8(answer.body).unwrap(), expected);
}

#[test]
fn many_connections_are_listed_in_turns() {
    let mut world = World::new();
    for connection in 1..=300 {
        world.heartbeat(ConnectionId(1000 + connection), &format!("c{connection}"), "CG", "T", "*");
        world.produce_as(ConnectionId(1000 + connection), &format!("c{connection}"), "PG");
    }
    let all: ConsumerConnection =
        world.told(RequestCode::GET_CONSUMER_CONNECTION_LIST, &[("consumerGroup", "CG")]);
    assert_eq!((all.connection_set.len(), all.subscription_table.len()), (300, 1));
    let all: ProducerConnection =
        world.told(RequestCode::GET_PRODUCER_CONNECTION_LIST, &[("producerGroup", "PG")]);
    assert_eq!(all.connection_set.len(), 300);
    let all: ProducerTableInfo = world.told(RequestCode::GET_ALL_PRODUCER_INFO, &[]);
    assert_eq!(all.data["PG"].len(), 300);
}

#[test]
fn producers_are_listed_by_group() {
    let mut world = World::new();
    let unknown = world.tool(RequestCode::GET_PRODUCER_CONNECTION_LIST, &[("producerGroup", "PG")]);
    assert_eq!(unknown.code, ResponseCode::SYSTEM_ERROR);
    assert_eq!(unknown.remark, "the producer group[PG] not exist");
    assert_eq!(world.tool(RequestCode::GET_ALL_PRODUCER_INFO, &[]).body, br#"{"data":{}}"#);

    world.produce_as(PRODUCER, "p-1", "PG");
    world.produce_as(CONSUMER, "p-2", "QG");
    let known = world.tool(RequestCode::GET_PRODUCER_CONNECTION_LIST, &[("producerGroup", "PG")]);
    let expected = r#"{"connectionSet":[{"clientAddr":"10.0.0.1:5555","clientId":"p-1","language":"JAVA","version":479}]}"#;
    assert_eq!(String::from_utf8(known.body).unwrap(), expected);
    let all = world.tool(RequestCode::GET_ALL_PRODUCER_INFO, &[]);
    let expected = r#"{"data":{"PG":[{"clientId":"p-1","language":"JAVA","lastUpdateTimestamp":1700000000000,"remoteIP":"/10.0.0.1:5555","version":479}],"QG":[{"clientId":"p-2","language":"JAVA","lastUpdateTimestamp":1700000000000,"remoteIP":"/10.0.0.1:5555","version":479}]}}"#;
    assert_eq!(String::from_utf8(all.body).unwrap(), expected);
}

#[test]
fn progress_of_a_group_is_shown_queue_by_queue() {
    let mut world = consumed();
    let stats: ConsumeStats = world.told(RequestCode::GET_CONSUME_STATS, &[("consumerGroup", "CG")]);
    assert_eq!(stats.offset_table.len(), 4, "every queue of the topic it has consumed");
    let (queue, first) = stats.offset_table.first_key_value().unwrap();
    assert_eq!((queue.topic.as_str(), queue.queue_id, queue.broker_name.as_str()), ("T", 0, BROKER));
    assert_eq!((first.broker_offset, first.consumer_offset, first.pull_offset), (3, 2, 2));
    assert_eq!(first.last_timestamp, START_MS + 1000, "when message 1 was stored");

    world.pull(&pull_from("T", 2));
    let stats: ConsumeStats = world.told(RequestCode::GET_CONSUME_STATS, &[("consumerGroup", "CG")]);
    assert_eq!(stats.offset_table.values().next().unwrap().pull_offset, 3);

    world.send("U", "x");
    let chosen: ConsumeStats = world.told(
        RequestCode::GET_CONSUME_STATS,
        &[("consumerGroup", "CG"), ("topic", "T"), ("topicList", "U;Unknown;")],
    );
    assert_eq!(chosen.offset_table.len(), 4);
    assert!(chosen.offset_table.keys().all(|queue| queue.topic == "U"));

    // What a live group does not subscribe to is not its progress, unless a list asks for it.
    world.heartbeat(CONSUMER, "client-1", "CG", "U", "*");
    let live: ConsumeStats = world.told(RequestCode::GET_CONSUME_STATS, &[("consumerGroup", "CG")]);
    assert!(live.offset_table.is_empty());
}

#[test]
fn progress_of_all_groups_is_one_list() {
    let mut world = consumed();
    let all: ConsumeStatsList = world.told(RequestCode::GET_BROKER_CONSUME_STATS, &[("isOrder", "false")]);
    assert_eq!(all.broker_addr.as_deref(), Some("127.0.0.1:10911"));
    assert_eq!(all.total_diff, 1);
    assert_eq!(all.total_inflight_diff, 0);
    let of = |name: &str| all.consume_stats_list.iter().find_map(|group| group.get(name)).unwrap();
    assert_eq!(of("CG")[0].offset_table.values().next().unwrap().consumer_offset, 2);
    assert_eq!(of("TOOLS_CONSUMER").len(), 0, "groups that consumed nothing are there");
    let ordered: ConsumeStatsList = world.told(RequestCode::GET_BROKER_CONSUME_STATS, &[("isOrder", "true")]);
    assert!(ordered.consume_stats_list.iter().all(|group| group.values().all(Vec::is_empty)));
}

#[test]
fn who_consumes_what_is_known_from_heartbeats_and_offsets() {
    let mut world = consumed();
    world.heartbeat(PRODUCER, "client-1", "Live", "T", "TagA");
    let groups: GroupList = world.told(RequestCode::QUERY_TOPIC_CONSUME_BY_WHO, &[("topic", "T")]);
    assert_eq!(groups.group_list, ["CG", "Live"]);
    let topics: TopicList = world.told(RequestCode::QUERY_TOPICS_BY_CONSUMER, &[("group", "CG")]);
    assert_eq!(topics.topic_list, ["T"]);
    assert_eq!(topics.broker_addr.as_deref(), Some("127.0.0.1:10911"));
    let code = RequestCode::QUERY_SUBSCRIPTION_BY_CONSUMER;
    let known: QuerySubscriptionResponseBody = world.told(code, &[("group", "Live"), ("topic", "T")]);
    assert_eq!(known.subscription_data.unwrap().sub_string, "TagA");
    let unknown = world.tool(code, &[("group", "CG"), ("topic", "T")]);
    assert_eq!(unknown.body, br#"{"group":"CG","topic":"T"}"#);

    world.shard.on_connection_closed(PRODUCER, world.now_ms);
    let deleted = world.tool(RequestCode::DELETE_TOPIC_IN_BROKER, &[("topic", "T")]);
    assert_eq!(deleted.code, ResponseCode::SUCCESS);
    let topics: TopicList = world.told(RequestCode::QUERY_TOPICS_BY_CONSUMER, &[("group", "CG")]);
    assert!(topics.topic_list.is_empty());
    assert_eq!(
        world.tool(RequestCode::QUERY_TOPIC_CONSUME_BY_WHO, &[("topic", "T")]).body,
        br#"{"groupList":[]}"#
    );
}

#[test]
fn times_of_what_is_consumed_and_what_is_not() {
    let mut world = consumed();
    let code = RequestCode::QUERY_CONSUME_TIME_SPAN;
    let unknown = world.tool(code, &[("topic", "Unknown"), ("group", "CG")]);
    assert_eq!((unknown.code, &*unknown.remark), (ResponseCode::TOPIC_NOT_EXIST, "topic[Unknown] not exist"));
    let now_ms = world.now_ms;
    let spans: QueryConsumeTimeSpanBody = world.told(code, &[("topic", "T"), ("group", "CG")]);
    let spans = spans.consume_time_span_set;
    assert_eq!(spans.len(), 4);
    let first = &spans[0];
    assert_eq!((first.min_time_stamp, first.max_time_stamp), (START_MS, START_MS + 2000));
    assert_eq!((first.consume_time_stamp, first.delay_time), (START_MS + 1000, now_ms - START_MS - 2000));
    assert_eq!(first.min_time_stamp_str, "2023-11-14#22:13:20:000");
    assert_eq!((spans[1].min_time_stamp, spans[1].delay_time), (-1, 0), "an empty queue");
}

#[test]
fn correction_offsets_are_the_least_of_all_groups() {
    let mut world = consumed();
    for (group, offset) in [("Slow", 1), ("Slower", 0)] {
        world.pull(&PullMessageRequest { consumer_group: group, ..pull_from("T", 0) });
        world.commit(group, "T", 0, offset);
    }
    let code = RequestCode::QUERY_CORRECTION_OFFSET;
    let fields = [("topic", "T"), ("compareGroup", "Other"), ("filterGroups", "Slower")];
    let corrected: QueryCorrectionOffsetBody = world.told(code, &fields);
    assert_eq!(corrected.correction_offsets.into_iter().collect::<Vec<_>>(), [(0, 1)]);
    let fields = [("topic", "T"), ("compareGroup", "Slower"), ("filterGroups", "Slower")];
    let corrected: QueryCorrectionOffsetBody = world.told(code, &fields);
    assert_eq!(corrected.correction_offsets[&0], i64::MAX, "the group that is compared is behind");
    assert_eq!(world.committed_offset("Slower", "T").int("offset"), 0, "asking deletes nothing");
}

#[test]
fn all_offsets_have_javas_form() {
    let mut world = consumed();
    world.send("U", "x");
    world.commit("CG", "U", 0, 1);
    world.commit("CG", "U", 1, 0);
    let answer = world.tool(RequestCode::GET_ALL_CONSUMER_OFFSET, &[]);
    let expected = r#"{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":0},"offsetTable":{"T@CG":{0:2},"U@CG":{0:1,1:0}}}"#;
    assert_eq!(String::from_utf8(answer.body).unwrap(), expected);
}

#[test]
fn answers_about_many_groups_are_made_in_turns() {
    let mut world = World::new();
    world.send("T", "a");
    for group in 0..300 {
        let group = format!("group-{group}");
        world.pull(&PullMessageRequest { consumer_group: &group, ..pull_from("T", 0) });
        for queue_id in 0..4 {
            world.commit(&group, "T", queue_id, 1);
        }
    }
    let offsets: ConsumerOffsetSerializeWrapper = world.told(RequestCode::GET_ALL_CONSUMER_OFFSET, &[]);
    assert_eq!(offsets.offset_table.len(), 300);
    assert!(offsets.offset_table.values().all(|of_group| of_group.len() == 4));
    let all: ConsumeStatsList = world.told(RequestCode::GET_BROKER_CONSUME_STATS, &[("isOrder", "false")]);
    let with_topics =
        all.consume_stats_list.iter().flat_map(|group| group.values()).filter(|of| !of.is_empty());
    assert_eq!(with_topics.count(), 300);
    let groups: GroupList = world.told(RequestCode::QUERY_TOPIC_CONSUME_BY_WHO, &[("topic", "T")]);
    assert_eq!(groups.group_list.len(), 300);
    let configs: SubscriptionGroupWrapper = world.told(RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[]);
    assert_eq!(configs.subscription_group_table.len(), world.shard.groups.len());
}

#[test]
fn groups_come_in_pages_for_who_asks_for_pages() {
    let mut world = World::new();
    let code = RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG;
    let all = world.tool(code, &[]);
    let total = all.int("totalGroupNum");
    let all: SubscriptionGroupWrapper = parse(&all.body).unwrap();
    assert_eq!(all.subscription_group_table.len() as i64, total);
    let version = String::from_utf8(to_fastjson(&all.data_version).to_vec()).unwrap();
    let mut seen = Vec::new();
    for seq in (0..total).step_by(3) {
        let seq = seq.to_string();
        let page = [("groupSeq", &*seq), ("dataVersion", &version), ("maxGroupNum", "3")];
        let page: SubscriptionGroupWrapper = world.told(code, &page);
        seen.extend(page.subscription_group_table.into_keys());
    }
    assert_eq!(seen, all.subscription_group_table.into_keys().collect::<Vec<_>>());
    let old = String::from_utf8(to_fastjson(&DataVersion::default()).to_vec()).unwrap();
    let fields = [("groupSeq", "5"), ("dataVersion", &*old), ("maxGroupNum", "3")];
    let again: SubscriptionGroupWrapper = world.told(code, &fields);
    assert_eq!(
        again.subscription_group_table.into_keys().next(),
        seen.first().cloned(),
        "from the beginning"
    );
}

#[test]
fn one_groups_configuration_is_shown_and_made_when_it_may() {
    let mut world = World::new();
    let config: SubscriptionGroupConfig =
        world.told(RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", "New")]);
    assert_eq!((config.group_name.as_str(), config.retry_max_times), ("New", 16));
    let refused = world.tool(RequestCode::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", "no group")]);
    assert_eq!(refused.code, ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST);
    assert_eq!(refused.remark, "No group in this broker");
}

#[test]
fn a_list_of_groups_is_made_and_survives() {
    let mut world = World::new();
    let config = |group: String| SubscriptionGroupConfig { group_name: group, ..Default::default() };
    let list = |groups: Vec<SubscriptionGroupConfig>| {
        to_fastjson(&SubscriptionGroupList { group_config_list: groups })
    };
    let code = RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST;
    let body = list(vec![config("good".into()), config("not good".into())]);
    assert_eq!(world.asked(TOOL, code, &NoExt, &body).code, ResponseCode::INVALID_PARAMETER);
    assert!(world.shard.groups.get("good").is_none());

    let opaque = world.ask(TOOL, code, &NoExt, &list((0..500).map(|n| config(format!("g{n}"))).collect()));
    while !world.answered.contains_key(&opaque) {
        world.tick(5);
    }
    assert_eq!(world.answered.remove(&opaque).unwrap().code, ResponseCode::SUCCESS);
    world.crash();
    assert!((0..500).all(|n| world.shard.groups.get(&format!("g{n}")).is_some()));
    let unchanged = list(vec![config("g1".into())]);
    assert_eq!(world.asked(TOOL, code, &NoExt, &unchanged).code, ResponseCode::SUCCESS);
    let null = RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
    assert_eq!(world.asked(TOOL, null, &NoExt, b"null").code, ResponseCode::SUCCESS);
}

#[test]
fn cloned_offsets_survive() {
    let mut world = consumed();
    let code = RequestCode::CLONE_GROUP_OFFSET;
    let cloned = world.tool(code, &[("srcGroup", "CG"), ("destGroup", "Copy"), ("offline", "true")]);
    assert_eq!(cloned.code, ResponseCode::SUCCESS);
    world.crash();
    assert_eq!(world.committed_offset("Copy", "T").int("offset"), 2);
    let other = [("srcGroup", "CG"), ("destGroup", "Other"), ("topic", "U"), ("offline", "true")];
    assert_eq!(world.tool(code, &other).code, ResponseCode::SUCCESS);
    assert_eq!(world.committed_offset("Other", "T").code, ResponseCode::QUERY_NOT_FOUND);
}

#[test]
fn commits_are_checked_as_by_java() {
    let mut world = consumed();
    let code = RequestCode::UPDATE_CONSUMER_OFFSET;
    let whole = [("consumerGroup", "CG"), ("topic", "T"), ("queueId", "0"), ("commitOffset", "1")];
    let cases = [
        ("queueId", None, ResponseCode::INVALID_PARAMETER, "QueueId is null, topic is T"),
        ("commitOffset", None, ResponseCode::INVALID_PARAMETER, "Offset is null, topic is T"),
        ("topic", Some("X"), ResponseCode::TOPIC_NOT_EXIST, "Topic X not exist!"),
        ("consumerGroup", Some("X"), ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, "Group X not exist!"),
    ];
    for (different, value, code_expected, remark) in cases {
        let mut fields: Vec<_> = whole.into_iter().filter(|(name, _)| *name != different).collect();
        fields.extend(value.map(|value| (different, value)));
        let answer = world.tool(code, &fields);
        assert_eq!((answer.code, &*answer.remark), (code_expected, remark));
    }
    assert_eq!(world.committed_offset("CG", "T").int("offset"), 2);
    let not_to_zero = world.committed_offset("New", "T");
    assert_eq!(not_to_zero.remark, "Not found, do not set to zero, maybe this group boot first");
}

#[test]
fn a_fingerprint_stands_for_subscriptions_once_they_are_known() {
    let mut world = World::new();
    let heartbeat = |fingerprint, without_sub| {
        let subscription = SubscriptionData::of_tags("T", "*", START_MS);
        let consumer = ConsumerData {
            group_name: "CG".into(),
            subscription_data_set: if without_sub { Vec::new() } else { vec![subscription] },
            ..Default::default()
        };
        to_fastjson(&HeartbeatData {
            client_id: "client-1".into(),
            consumer_data_set: vec![consumer],
            heartbeat_fingerprint: fingerprint,
            without_sub,
            ..Default::default()
        })
    };
    for (fingerprint, without_sub, is_changed) in
        [(0, false, "true"), (7, true, "true"), (7, false, "false"), (7, true, "false"), (8, true, "true")]
    {
        let body = heartbeat(fingerprint, without_sub);
        let answer = world.asked(CONSUMER, RequestCode::HEART_BEAT, &NoExt, &body);
        assert_eq!(answer.ext["IS_SUPPORT_HEART_BEAT_V2"], "true");
        assert_eq!(answer.ext["IS_SUB_CHANGE"], is_changed, "{fingerprint} {without_sub}");
    }
    let members = world.shard.clients.consumer_group("CG").unwrap();
    assert!(members.subscription("T").is_some(), "left out is not taken away");
}

#[test]
fn tags_are_never_refused_before_a_consumer_starts() {
    let mut world = World::new();
    let check = |subscription: &str| {
        format!(r#"{{"clientId":"c","group":"CG","subscriptionData":{subscription}}}"#).into_bytes()
    };
    let code = RequestCode::CHECK_CLIENT_CONFIG;
    for tags in
        [r#"{"topic":"T","subString":" || "}"#, r#"{"topic":"T","subString":"A","expressionType":"TAG"}"#]
    {
        assert_eq!(world.asked(CONSUMER, code, &NoExt, &check(tags)).code, ResponseCode::SUCCESS);
    }
    let sql = r#"{"topic":"T","subString":"a >","expressionType":"SQL92"}"#;
    assert_eq!(
        world.asked(CONSUMER, code, &NoExt, &check(sql)).code,
        ResponseCode::SUBSCRIPTION_PARSE_FAILED
    );
}

#[test]
fn members_hear_at_once_who_comes_and_goes_unless_their_group_does_not_want_to() {
    let notified = RequestCode::NOTIFY_CONSUMER_IDS_CHANGED;
    let (one, two) = (ConnectionId(11), ConnectionId(12));
    for wants in [true, false] {
        let mut world = World::new();
        let config = SubscriptionGroupConfig {
            group_name: "CG".into(),
            notify_consumer_ids_changed_enable: wants,
            ..Default::default()
        };
        let code = RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
        world.asked(TOOL, code, &NoExt, &to_fastjson(&config));
        let heard = |world: &mut World, expected: &[ConnectionId], what: &str| {
            let expected: Vec<_> = expected.iter().filter(|_| wants).map(|to| (*to, notified)).collect();
            assert_eq!(world.take_pushed(), expected, "{what}");
        };
        world.heartbeat(one, "client-1", "CG", "T", "*");
        heard(&mut world, &[one], "a member comes");
        world.heartbeat(two, "client-2", "CG", "T", "*");
        heard(&mut world, &[one, two], "another comes");
        world.tool(RequestCode::UNREGISTER_CLIENT, &[("clientID", "client-9"), ("consumerGroup", "CG")]);
        heard(&mut world, &[], "a stranger leaves");
        let leave = [("clientID", "client-2"), ("consumerGroup", "CG")];
        world.asked(two, RequestCode::UNREGISTER_CLIENT, &leave, b"");
        heard(&mut world, &[one], "a member leaves");
        world.tick(60_000);
        world.heartbeat(two, "client-2", "CG", "T", "*");
        heard(&mut world, &[one, two], "it comes again");
        world.tick(70_000);
        heard(&mut world, &[two], "a member was silent for 120 s");
        world.heartbeat(one, "client-1", "CG", "T", "*");
        world.take_pushed();
        world.shard.on_connection_closed(one, world.now_ms);
        world.settle();
        heard(&mut world, &[two], "a connection is lost");
    }
}
