use apogee_net::body::{HeartbeatData, ProducerData, to_fastjson};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::NoExt;
use apogee_net::io::ConnectionId;
use apogee_net::message::{Properties, property};
use apogee_net::request::SendMessageRequest;

use crate::shard::tests::world::*;

const REQUESTER: ConnectionId = ConnectionId(7);
const REPLY_TOPIC: &str = "DefaultCluster_REPLY_TOPIC";
const TO_REQUESTER: &str =
    "MSG_TYPE\u{1}reply\u{2}CORRELATION_ID\u{1}c1\u{2}REPLY_TO_CLIENT\u{1}requester\u{2}";

fn reply_with(properties: &str) -> SendMessageRequest<'_> {
    SendMessageRequest { properties, ..send_to(REPLY_TOPIC) }
}

/// A broker with a requester that waits.
fn world() -> World {
    let mut world = World::new();
    let data = HeartbeatData {
        client_id: "requester".into(),
        producer_data_set: vec![ProducerData { group_name: "any".into() }],
        ..Default::default()
    };
    world.asked(REQUESTER, RequestCode::HEART_BEAT, &NoExt, &to_fastjson(&data));
    world
}

impl World {
    fn start_reply(&mut self, code: RequestCode, properties: &str) -> i32 {
        let opaque = self.ask(CONSUMER, code, &reply_with(properties), b"the answer");
        self.settle();
        opaque
    }
}

#[test]
fn a_reply_is_handed_to_the_client_that_waits_for_it() {
    for code in [RequestCode::SEND_REPLY_MESSAGE, RequestCode::SEND_REPLY_MESSAGE_V2] {
        let mut world = world();
        let opaque = world.start_reply(code, TO_REQUESTER);
        let pushed = world.pushed.pop().unwrap();
        assert_eq!((pushed.to, pushed.code), (REQUESTER, RequestCode::PUSH_REPLY_MESSAGE_TO_CLIENT));
        assert_eq!(pushed.body, b"the answer");
        for (name, value) in [
            ("topic", REPLY_TOPIC),
            ("producerGroup", "PG"),
            ("bornHost", "10.0.0.1:5555"),
            ("storeHost", "127.0.0.1:10911"),
            ("storeTimestamp", &START_MS.to_string()),
        ] {
            assert_eq!(pushed.ext[name], value, "{name}");
        }
        let properties = Properties(pushed.ext["properties"].as_bytes());
        assert_eq!(properties.get("CORRELATION_ID"), Some("c1"));
        assert_eq!(properties.get(property::PUSH_REPLY_TIME), Some(&*START_MS.to_string()));
        assert!(!world.answered.contains_key(&opaque), "answered before the requester was");

        world.answer_push(&pushed, ResponseCode::SUCCESS, b"");
        let reply = &world.answered[&opaque];
        assert_eq!(reply.code, ResponseCode::SUCCESS, "{}", reply.remark);
        assert_eq!((reply.int("queueId"), reply.int("queueOffset")), (0, 0));
        assert_eq!((&*reply.ext["MSG_REGION"], &*reply.ext["TRACE_ON"]), ("DefaultRegion", "true"));
        let id = reply.ext["msgId"].clone();
        let stored = world.pull(&pull_from(REPLY_TOPIC, 0));
        assert_eq!(stored.bodies(), ["the answer"]);
        assert_eq!(stored.messages()[0].offset_message_id().to_string(), id);
        assert_eq!(stored.messages()[0].properties.0, TO_REQUESTER.as_bytes(), "as it was sent");
    }
}

#[test]
fn a_reply_that_nobody_takes_is_answered_in_rocketmqs_words() {
    let not_found = "push reply message fail, channel of <nobody> not found.";
    let not_told = "reply message properties[REPLY_TO_CLIENT] is null";
    for (properties, remark) in [("REPLY_TO_CLIENT\u{1}nobody\u{2}", not_found), ("A\u{1}b\u{2}", not_told)] {
        let mut world = world();
        let opaque = world.start_reply(RequestCode::SEND_REPLY_MESSAGE_V2, properties);
        let reply = &world.answered[&opaque];
        assert_eq!((reply.code, &*reply.remark), (ResponseCode::SYSTEM_ERROR, remark));
        assert_eq!(world.pull(&pull_from(REPLY_TOPIC, 0)).bodies(), ["the answer"], "stored all the same");
    }
    let not_taken = "push reply message to requesterfail.";
    type Fail = fn(&mut World);
    let failures: [Fail; 3] = [
        |world| {
            let pushed = world.pushed.pop().unwrap();
            world.answer_push(&pushed, ResponseCode::SYSTEM_ERROR, b"");
        },
        |world| world.tick(10_000),
        |world| {
            let now_ms = world.now_ms;
            world.shard.on_connection_closed(REQUESTER, now_ms);
            world.settle();
        },
    ];
    for fail in failures {
        let mut world = world();
        let opaque = world.start_reply(RequestCode::SEND_REPLY_MESSAGE_V2, TO_REQUESTER);
        fail(&mut world);
        let reply = &world.answered[&opaque];
        assert_eq!((reply.code, &*reply.remark), (ResponseCode::SYSTEM_ERROR, not_taken));
    }
}

#[test]
fn replies_are_not_stored_if_that_is_not_wanted() {
    let mut world = world();
    world.shard.settings.store_replies = false;
    let taken = world.start_reply(RequestCode::SEND_REPLY_MESSAGE_V2, TO_REQUESTER);
    let pushed = world.pushed.pop().unwrap();
    world.answer_push(&pushed, ResponseCode::SUCCESS, b"");
    let reply = &world.answered[&taken];
    assert_eq!((reply.code, &*reply.ext["msgId"]), (ResponseCode::SUCCESS, "0"), "clients parse it");
    let failed = world.start_reply(RequestCode::SEND_REPLY_MESSAGE_V2, "A\u{1}b\u{2}");
    assert!(!world.answered[&failed].ext.contains_key("msgId"));
    assert_eq!(world.answered[&failed].ext["TRACE_ON"], "true");
    assert_eq!(world.pull(&pull_from(REPLY_TOPIC, 0)).code, ResponseCode::PULL_NOT_FOUND);
}

#[test]
fn replies_are_checked_like_sends() {
    let mut world = world();
    let unknown = SendMessageRequest { default_topic: "none", ..send_to("Nowhere") };
    let reply = world.asked(CONSUMER, RequestCode::SEND_REPLY_MESSAGE_V2, &unknown, b"x");
    assert_eq!(reply.code, ResponseCode::TOPIC_NOT_EXIST);
    assert_eq!(world.pushed.len(), 0);
}
