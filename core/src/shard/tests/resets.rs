//! Offsets that are reset, by the broker or by the clients, and what only clients know.

use apogee_net::body::{
    ConsumerData, GetConsumerStatusBody, HeartbeatData, MessageQueue, ResetOffsetBody, SubscriptionData,
    parse, to_fastjson,
};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{RequestHead, append_request};
use apogee_net::flags::PullSysFlag;
use apogee_net::frame::{HeaderEncoding, split_frame};
use apogee_net::header::NoExt;
use apogee_net::io::ConnectionId;
use apogee_net::request::PullMessageRequest;
use bytes::BytesMut;

use super::groups::TOOL;
use super::world::*;
use crate::service::Request;

const RESET: RequestCode = RequestCode::INVOKE_BROKER_TO_RESET_OFFSET;

/// Five messages of `T`, a second apart, of which `CG` has consumed all.
fn consumed() -> World {
    let mut world = World::new();
    for body in ["a", "b", "c", "d", "e"] {
        world.send("T", body);
        world.tick(1000);
    }
    world.pull(&pull_from("T", 0));
    world.commit("CG", "T", 0, 5);
    world
}

fn reset_to(timestamp: i64) -> [(&'static str, String); 4] {
    let fields = [("topic", "T"), ("group", "CG"), ("isForce", "true")];
    let [topic, group, force] = fields.map(|(name, value)| (name, value.to_owned()));
    [topic, group, force, ("timestamp", timestamp.to_string())]
}

impl World {
    fn reset(&mut self, timestamp: i64) -> Answered {
        let fields = reset_to(timestamp);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.tool(RESET, &fields)
    }

    /// Sends the bytes of a heartbeat as a client of another language does.
    fn heartbeat_of(&mut self, from: ConnectionId, language: &str, version: i32, client_id: &str) {
        let consumer = ConsumerData {
            group_name: "CG".into(),
            subscription_data_set: vec![SubscriptionData::of_tags("T", "*", START_MS)],
            ..Default::default()
        };
        let data = HeartbeatData {
            client_id: client_id.into(),
            consumer_data_set: vec![consumer],
            ..Default::default()
        };
        let mut wire = BytesMut::new();
        let head = RequestHead { code: RequestCode::HEART_BEAT, opaque: 1, oneway: true, ext: &NoExt };
        append_request(&mut wire, HeaderEncoding::Json, &head, &to_fastjson(&data)).unwrap();
        let mut frame = split_frame(&mut wire).unwrap().unwrap();
        let text = std::str::from_utf8(&frame.header).unwrap();
        let text = text.replace("\"JAVA\"", &format!("{language:?}"));
        let text = text.replace("\"version\":479", &format!("\"version\":{version}"));
        frame.header = text.into_bytes().into();
        let request = Request::decode(from, "10.0.0.1:5555".parse().unwrap(), &frame).unwrap();
        self.shard.on_request(&request, self.now_ms).unwrap();
        self.settle();
    }
}

#[test]
fn a_group_hears_of_its_reset_once_and_commits_again_after() {
    let mut world = consumed();
    let answer = world.reset(START_MS + 1500);
    assert_eq!(answer.code, ResponseCode::SUCCESS, "{}", answer.remark);
    let body: ResetOffsetBody = parse(&answer.body).unwrap();
    assert_eq!(body.offset_table.len(), 4, "all queues");
    assert_eq!(body.offset_table.first_key_value().unwrap().1, &2, "the first message after that time");
    assert_eq!(world.committed_offset("CG", "T").int("offset"), 2);

    let ignored = world.commit("CG", "T", 0, 5);
    assert_eq!((ignored.code, &*ignored.remark), (ResponseCode::SUCCESS, "Offset has been previously reset"));
    let piggybacked = PullMessageRequest {
        sys_flag: PullSysFlag::SUBSCRIPTION.with(PullSysFlag::COMMIT_OFFSET),
        commit_offset: 5,
        ..pull_from("T", 5)
    };
    let moved = world.pull(&piggybacked);
    assert_eq!((moved.code, &*moved.remark), (ResponseCode::PULL_OFFSET_MOVED, "OFFSET_RESET"));
    assert_eq!(moved.int("nextBeginOffset"), 2);
    assert_eq!((moved.int("minOffset"), moved.int("maxOffset")), (0, 5));
    assert_eq!(world.committed_offset("CG", "T").int("offset"), 2, "the pull's own offset is from before");
    assert_eq!(world.pull(&pull_from("T", 2)).bodies(), ["c", "d", "e"], "once");
    assert_eq!(world.commit("CG", "T", 0, 3).remark, "");
    assert_eq!(world.committed_offset("CG", "T").int("offset"), 3);
}

#[test]
fn a_reset_survives_until_the_group_has_heard_of_it() {
    let mut world = consumed();
    world.reset(START_MS);
    world.crash();
    assert_eq!(world.committed_offset("CG", "T").int("offset"), 0);
    assert_eq!(world.pull(&pull_from("T", 5)).code, ResponseCode::PULL_OFFSET_MOVED);
    world.crash();
    assert_eq!(world.pull(&pull_from("T", 5)).code, ResponseCode::PULL_NOT_FOUND, "once");
}

#[test]
fn a_waiting_pull_of_the_group_ends_with_the_reset() {
    let mut world = consumed();
    world.heartbeat(CONSUMER, "client-1", "CG", "T", "*");
    let parked = world.start_pull(&waiting(pull_from("T", 5)));
    assert!(!world.answered.contains_key(&parked));
    world.reset(START_MS);
    assert_eq!(world.answered[&parked].code, ResponseCode::PULL_RETRY_IMMEDIATELY);
    assert_eq!(world.pull(&waiting(pull_from("T", 5))).int("nextBeginOffset"), 0);
}

#[test]
fn resets_are_checked_as_by_java() {
    let mut world = consumed();
    let cases = [
        (vec![("topic", "X")], ResponseCode::TOPIC_NOT_EXIST, "Topic X does not exist"),
        (vec![("group", "X")], ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, "Group X does not exist"),
        (
            vec![("queueId", "0"), ("offset", "7")],
            ResponseCode::SYSTEM_ERROR,
            "Target offset 7 not in consume queue range [0-5]",
        ),
        (
            vec![("queueId", "9"), ("offset", "0")],
            ResponseCode::SYSTEM_ERROR,
            "Target offset 0 not in consume queue range [0-0]",
        ),
    ];
    for (different, code, remark) in cases {
        let mut fields =
            vec![("topic", "T"), ("group", "CG"), ("timestamp", "0"), ("isForce", "true"), ("queueId", "-1")];
        for (name, value) in different {
            fields.retain(|(known, _)| *known != name);
            fields.push((name, value));
        }
        let answer = world.tool(RESET, &fields);
        assert_eq!((answer.code, &*answer.remark), (code, remark));
    }
    let one = [
        ("topic", "T"),
        ("group", "CG"),
        ("timestamp", "0"),
        ("isForce", "true"),
        ("queueId", "0"),
        ("offset", "4"),
    ];
    let body: ResetOffsetBody = world.told(RESET, &one);
    assert_eq!(body.offset_table.into_values().collect::<Vec<_>>(), [4]);
    let body: ResetOffsetBody = parse(&world.reset(-1).body).unwrap();
    assert_eq!(body.offset_table.into_values().collect::<Vec<_>>(), [5, 0, 0, 0], "the ends of the queues");
}

#[test]
fn clients_are_told_in_the_form_their_language_reads() {
    let mut world = consumed();
    world.shard.config.server_side_reset = false;
    let unknown = world.reset(START_MS + 1500);
    assert_eq!(
        (unknown.code, &*unknown.remark),
        (ResponseCode::SYSTEM_ERROR, "THe consumer group <CG> not exist")
    );
    for queue_id in 1..4 {
        world.commit("CG", "T", queue_id, 0);
    }
    let offline = world.reset(START_MS + 1500);
    assert_eq!(offline.code, ResponseCode::CONSUMER_NOT_ONLINE);
    assert_eq!(
        offline.remark,
        "Consumer not online, so can not reset offset, Group: CG Topic: T Timestamp: 1700000001500"
    );

    let (java, cpp) = (ConnectionId(11), ConnectionId(12));
    world.heartbeat_of(java, "JAVA", 409, "client-java");
    world.heartbeat_of(cpp, "CPP", 333, "client-cpp");
    world.pushed.clear();
    assert_eq!(world.reset(START_MS + 1500).code, ResponseCode::SUCCESS);
    let pushed = std::mem::take(&mut world.pushed);
    assert_eq!(pushed.iter().map(|pushed| pushed.to).collect::<Vec<_>>(), [java, cpp]);
    for push in &pushed {
        assert_eq!((push.code, push.answered_as), (RequestCode::RESET_CONSUMER_CLIENT_OFFSET, None));
        assert_eq!((&*push.ext["topic"], &*push.ext["group"]), ("T", "CG"));
        assert_eq!(push.ext["timestamp"], "1700000001500");
    }
    let keys = r#"{"offsetTable":{{"brokerName":"broker-a-0","queueId":0,"topic":"T"}:2,"#;
    assert!(pushed[0].body.starts_with(keys.as_bytes()));
    let list = r#"{"offsetTable":[{"brokerName":"broker-a-0","offset":2,"queueId":0,"topic":"T"},"#;
    assert!(pushed[1].body.starts_with(list.as_bytes()));
    assert_eq!(world.committed_offset("CG", "T").int("offset"), 5, "clients commit it themselves");
    assert_eq!(world.pull(&pull_from("T", 5)).code, ResponseCode::PULL_NOT_FOUND);

    world.heartbeat_of(ConnectionId(13), "JAVA", 27, "client-old");
    let too_old = world.reset(START_MS);
    assert_eq!(too_old.remark, "the client does not support this feature. version=27");
}

#[test]
fn a_forbidden_topic_is_not_pulled_until_it_is_allowed() {
    let mut world = consumed();
    world.heartbeat(CONSUMER, "client-1", "CG", "T", "*");
    let code = RequestCode::UPDATE_AND_GET_GROUP_FORBIDDEN;
    let asked = world.tool(code, &[("group", "CG"), ("topic", "T")]);
    assert_eq!(asked.body, br#"{"group":"CG","readable":true,"topic":"T"}"#);
    let forbidden = world.tool(code, &[("group", "CG"), ("topic", "T"), ("readable", "false")]);
    assert_eq!(forbidden.body, br#"{"group":"CG","readable":false,"topic":"T"}"#);
    world.crash();
    world.heartbeat(CONSUMER, "client-1", "CG", "T", "*");
    let subscribed = PullMessageRequest { sys_flag: PullSysFlag(0), ..pull_from("T", 0) };
    let refused = world.pull(&subscribed);
    assert_eq!(refused.code, ResponseCode::NO_PERMISSION);
    assert_eq!(refused.remark, "the consumer group[CG] is forbidden for topic[T]");
    assert_eq!(refused.int("forbiddenType"), 5);
    let groups = world.tool(RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &[]);
    let groups = String::from_utf8(groups.body).unwrap();
    assert!(groups.contains(r#""forbiddenTable":{"CG":{"T":4}}"#), "{groups}");
    world.tool(code, &[("group", "CG"), ("topic", "T"), ("readable", "true")]);
    assert_eq!(world.pull(&subscribed).code, ResponseCode::SUCCESS);
}

#[test]
fn running_info_is_the_clients_own_answer() {
    let mut world = World::new();
    let code = RequestCode::GET_CONSUMER_RUNNING_INFO;
    let fields = [("consumerGroup", "CG"), ("clientId", "client-1"), ("jstackEnable", "true")];
    let offline = world.tool(code, &fields);
    assert_eq!(
        (offline.code, &*offline.remark),
        (ResponseCode::SYSTEM_ERROR, "The Consumer <CG> <client-1> not online")
    );
    world.heartbeat_of(CONSUMER, "JAVA", 61, "client-old");
    let too_old = world.tool(code, &[("consumerGroup", "CG"), ("clientId", "client-old")]);
    assert!(too_old.remark.ends_with("too low to finish, please upgrade it to V3_1_8_SNAPSHOT"));

    let client = ConnectionId(11);
    world.heartbeat(client, "client-1", "CG", "T", "*");
    world.pushed.clear();
    let opaque = world.ask(TOOL, code, &fields, b"");
    let [pushed] = &std::mem::take(&mut world.pushed)[..] else { panic!("one call") };
    assert_eq!((pushed.to, pushed.code, &*pushed.ext["jstackEnable"]), (client, code, "true"));
    world.answer_push(pushed, ResponseCode::SUCCESS, b"{\"whatever\":1}");
    let answer = world.answered.remove(&opaque).unwrap();
    assert_eq!((answer.code, &*answer.body), (ResponseCode::SUCCESS, &b"{\"whatever\":1}"[..]));

    let opaque = world.ask(TOOL, code, &fields, b"");
    world.tick(9_999);
    assert!(!world.answered.contains_key(&opaque));
    world.tick(1);
    assert_eq!(world.answered.remove(&opaque).unwrap().code, ResponseCode::CONSUME_MSG_TIMEOUT);
    let opaque = world.ask(TOOL, code, &fields, b"");
    world.shard.on_connection_closed(client, world.now_ms);
    world.settle();
    assert_eq!(world.answered.remove(&opaque).unwrap().code, ResponseCode::SYSTEM_ERROR);
}

#[test]
fn a_client_consumes_a_stored_message_on_request() {
    let mut world = World::new();
    world.heartbeat(CONSUMER, "client-1", "CG", "T", "*");
    let id = world.send("T", "hello").ext["msgId"].clone();
    let stored = world.pull(&pull_from("T", 0)).body;
    world.pushed.clear();
    let code = RequestCode::CONSUME_MESSAGE_DIRECTLY;
    let fields = [("consumerGroup", "CG"), ("clientId", "client-1"), ("msgId", &*id), ("topic", "T")];
    let opaque = world.ask(TOOL, code, &fields, b"");
    world.settle();
    let [pushed] = &std::mem::take(&mut world.pushed)[..] else { panic!("one call") };
    assert_eq!(pushed.body, stored);
    assert_eq!((&*pushed.ext["brokerName"], &*pushed.ext["msgId"]), (BROKER, &*id));
    assert_eq!((&*pushed.ext["topicSysFlag"], &*pushed.ext["groupSysFlag"]), ("0", "0"));
    let result = br#"{"autoCommit":true,"consumeResult":"CR_SUCCESS","order":false,"spentTimeMills":3}"#;
    world.answer_push(pushed, ResponseCode::SUCCESS, result);
    assert_eq!(world.answered.remove(&opaque).unwrap().body, result);

    let nothing = "7F00000100002A9F0000000000FFFFFF";
    for wrong in ["nonsense", nothing] {
        let fields = [("consumerGroup", "CG"), ("clientId", "client-1"), ("msgId", wrong)];
        let answer = world.tool(code, &fields);
        assert_eq!(answer.code, ResponseCode::SYSTEM_ERROR);
        assert!(answer.remark.starts_with(&format!("no message {wrong:?} to consume")), "{}", answer.remark);
    }
}

#[test]
fn the_status_of_a_group_is_what_its_clients_say() {
    let mut world = World::new();
    let code = RequestCode::INVOKE_BROKER_TO_GET_CONSUMER_STATUS;
    let fields = [("topic", "T"), ("group", "CG")];
    let offline = world.tool(code, &fields);
    assert_eq!(offline.code, ResponseCode::SYSTEM_ERROR);
    assert_eq!(offline.remark, "No Any Consumer online in the consumer group: [CG]");

    for (connection, client_id) in [(11, "client-1"), (12, "client-2"), (13, "client-3")] {
        world.heartbeat(ConnectionId(connection), client_id, "CG", "T", "*");
    }
    world.pushed.clear();
    let opaque = world.ask(TOOL, code, &fields, b"");
    let pushed = std::mem::take(&mut world.pushed);
    assert_eq!(pushed.len(), 3);
    assert!(pushed.iter().all(|push| push.code == RequestCode::GET_CONSUMER_STATUS_FROM_CLIENT));
    assert!(pushed.iter().all(|push| push.ext["topic"] == "T" && push.ext["group"] == "CG"));
    let queue = |queue_id| MessageQueue { topic: "T".into(), broker_name: BROKER.into(), queue_id };
    for (push, queue_id) in pushed[..2].iter().zip(0..) {
        let status = GetConsumerStatusBody {
            message_queue_table: [(queue(queue_id), 7)].into(),
            ..Default::default()
        };
        world.answer_push(push, ResponseCode::SUCCESS, &to_fastjson(&status));
    }
    assert!(!world.answered.contains_key(&opaque));
    world.tick(5_000);
    let answer = world.answered.remove(&opaque).unwrap();
    let body: GetConsumerStatusBody = parse(&answer.body).unwrap();
    assert_eq!(body.consumer_table.keys().collect::<Vec<_>>(), ["client-1", "client-2"]);
    assert_eq!(body.consumer_table["client-2"][&queue(1)], 7);

    let opaque = world.ask(TOOL, code, &[("topic", "T"), ("group", "CG"), ("clientAddr", "client-2")], b"");
    let [pushed] = &std::mem::take(&mut world.pushed)[..] else { panic!("one call") };
    assert_eq!(pushed.to, ConnectionId(12));
    world.answer_push(pushed, ResponseCode::SYSTEM_ERROR, b"");
    assert_eq!(
        world.answered.remove(&opaque).unwrap().body,
        br#"{"consumerTable":{},"messageQueueTable":{}}"#
    );
}
