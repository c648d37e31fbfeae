//! What clients notice of a shard, request by request.

mod broker_admin;
mod filtered;
mod group;
mod groups;
mod node_group;
mod queries;
mod removed;
mod resets;
mod roles;
mod sealed;
mod sends;
mod timers;
pub(super) mod world;

use std::collections::BTreeMap;

use apogee_net::body::{
    GetConsumerListByGroupResponseBody, LockBatchRequestBody, LockBatchResponseBody, MessageQueue, parse,
    to_fastjson,
};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{RequestHead, append_request};
use apogee_net::flags::PullSysFlag;
use apogee_net::frame::{HeaderEncoding, RawFrame, split_frame};
use apogee_net::header::NoExt;
use apogee_net::io::ConnectionId;
use apogee_net::message::{BatchMessage, Properties, append_batch_message, property};
use apogee_net::request::{
    GetConsumerListByGroupRequest, PullMessageRequest, QueryConsumerOffsetRequest, SendMessageRequest,
    UpdateConsumerOffsetRequest,
};
use apogee_storage::LogConfig;
use apogee_storage::sim::Rng;
use bytes::{Bytes, BytesMut};

use self::world::*;
use crate::service::Request;

#[test]
fn a_send_is_acknowledged_when_durable_and_not_before() {
    let mut world = World::new();
    world.send("T", "first");
    // The group that it makes is not in the way below.
    world.pull(&pull_from("T", 0));
    let opaque = world.ask(PRODUCER, RequestCode::SEND_MESSAGE_V2, &send_to("T"), b"hello");
    let pull = world.ask(CONSUMER, RequestCode::PULL_MESSAGE, &pull_from("T", 1), b"");
    assert_eq!(world.answered[&pull].code, ResponseCode::PULL_NOT_FOUND, "visible before it was durable");
    while world.disk.pending() > 0 {
        assert!(!world.answered.contains_key(&opaque), "acknowledged with the disk still busy");
        world.step();
    }
    let reply = &world.answered[&opaque];
    assert_eq!(reply.code, ResponseCode::SUCCESS);
    assert_eq!((reply.int("queueId"), reply.int("queueOffset")), (0, 1));
    assert_eq!(reply.ext["MSG_REGION"], "DefaultRegion");
    assert_eq!(reply.ext["msgId"].len(), 32);
    assert_eq!(world.pull(&pull_from("T", 0)).bodies(), ["first", "hello"]);
}

#[test]
fn a_stored_message_says_where_it_is_and_who_stored_it() {
    let mut world = World::new();
    let sent = world.send_tagged("T", "hello", "TagA");
    let pulled = world.pull(&pull_from("T", 0));
    let message = pulled.messages()[0];
    assert_eq!(message.offset_message_id().to_hex().as_str(), sent.ext["msgId"]);
    assert_eq!((message.topic, message.queue_id, message.queue_offset), ("T", 0, 0));
    assert_eq!(message.store_host, "127.0.0.1:10911".parse().unwrap());
    assert_eq!(message.born_host, "10.0.0.1:5555".parse().unwrap());
    assert!(message.is_body_intact());
    assert_eq!(message.properties.get(property::TAGS), Some("TagA"));
    assert_eq!(message.properties.get(property::REGION), Some("DefaultRegion"));
    assert_eq!(message.properties.get(property::CLUSTER), Some("DefaultCluster"));
    let unique_key = message.properties.get(property::UNIQUE_KEY).expect("the broker adds one");
    assert_eq!(sent.ext["transactionId"], unique_key);
}

#[test]
fn pulls_answer_by_the_table_of_statuses() {
    let mut world = World::new();
    world.send("T", "a");
    world.send("T", "b");
    let cases: [(&str, i64, i32, ResponseCode, i64); 7] = [
        ("T", 0, 0, ResponseCode::SUCCESS, 2),
        ("T", 1, 0, ResponseCode::SUCCESS, 2),
        ("T", 2, 0, ResponseCode::PULL_NOT_FOUND, 2),
        ("T", 3, 0, ResponseCode::PULL_OFFSET_MOVED, 2),
        ("T", 0, 1, ResponseCode::PULL_NOT_FOUND, 0),
        ("T", 5, 1, ResponseCode::PULL_OFFSET_MOVED, 0),
        ("T", -1, 0, ResponseCode::SUCCESS, 2),
    ];
    for (topic, offset, queue_id, code, next) in cases {
        let reply = world.pull(&PullMessageRequest { queue_id, ..pull_from(topic, offset) });
        assert_eq!(
            (reply.code, reply.int("nextBeginOffset")),
            (code, next),
            "offset {offset} queue {queue_id}"
        );
        assert_eq!(reply.int("suggestWhichBrokerId"), 0);
    }
    let wrong = [
        (PullMessageRequest { topic: "Unknown", ..pull_from("T", 0) }, ResponseCode::TOPIC_NOT_EXIST),
        (PullMessageRequest { queue_id: 4, ..pull_from("T", 0) }, ResponseCode::INVALID_PARAMETER),
        (PullMessageRequest { queue_id: -1, ..pull_from("T", 0) }, ResponseCode::INVALID_PARAMETER),
        (
            PullMessageRequest { expression_type: Some("SQL92"), ..pull_from("T", 0) },
            ResponseCode::SUBSCRIPTION_PARSE_FAILED,
        ),
        (
            PullMessageRequest { sys_flag: PullSysFlag(0), ..pull_from("T", 0) },
            ResponseCode::SUBSCRIPTION_NOT_EXIST,
        ),
    ];
    for (pull, code) in wrong {
        assert_eq!(world.pull(&pull).code, code, "{pull:?}");
    }
}

#[test]
fn a_parked_pull_is_answered_by_the_message_it_waits_for() {
    let mut world = World::new();
    world.send("T", "old");
    let pull = PullMessageRequest { subscription: Some("TagB"), ..waiting(pull_from("T", 1)) };
    let parked = world.start_pull(&pull);
    world.send_tagged("T", "not this", "TagA");
    assert!(!world.answered.contains_key(&parked), "woken by a tag it does not want");
    world.send_tagged("T", "this", "TagB");
    let reply = &world.answered[&parked];
    assert_eq!((reply.code, reply.bodies()), (ResponseCode::SUCCESS, vec!["this".to_owned()]));
    assert_eq!(reply.int("nextBeginOffset"), 3);
}

#[test]
fn a_parked_pull_ends_with_its_time_or_its_connection() {
    let mut world = World::new();
    world.send("T", "old");
    let parked = world.start_pull(&waiting(pull_from("T", 1)));
    world.tick(14_900);
    assert!(!world.answered.contains_key(&parked));
    world.tick(200);
    assert_eq!(world.answered[&parked].code, ResponseCode::PULL_NOT_FOUND);

    let orphan = world.start_pull(&waiting(pull_from("T", 1)));
    world.shard.on_connection_closed(CONSUMER, world.now_ms);
    world.send("T", "new");
    assert!(!world.answered.contains_key(&orphan));
}

#[test]
fn a_batch_is_stored_as_its_messages_side_by_side() {
    let mut world = World::new();
    let mut body = BytesMut::new();
    for (i, text) in ["x", "y", "z"].iter().enumerate() {
        let properties = format!("UNIQ_KEY\u{1}key{i}\u{2}TAGS\u{1}Tag{text}\u{2}");
        let message = BatchMessage {
            flag: i as i32,
            body: text.as_bytes(),
            properties: Properties(properties.as_bytes()),
        };
        append_batch_message(&mut body, &message);
    }
    let send = SendMessageRequest { batch: true, properties: "UNIQ_KEY\u{1}batch\u{2}", ..send_to("T") };
    let reply = world.asked(PRODUCER, RequestCode::SEND_BATCH_MESSAGE, &send, &body);
    assert_eq!((reply.code, reply.int("queueOffset")), (ResponseCode::SUCCESS, 0));
    assert_eq!(reply.ext["msgId"].split(',').count(), 3);
    let pulled = world.pull(&pull_from("T", 0));
    assert_eq!(pulled.bodies(), ["x", "y", "z"]);
    let keys: Vec<_> = pulled
        .messages()
        .iter()
        .map(|message| message.properties.get(property::UNIQUE_KEY).unwrap())
        .collect();
    assert_eq!(keys, ["key0", "key1", "key2"], "the batch's own key must not replace theirs");
    let filtered = PullMessageRequest { subscription: Some("Tagy"), ..pull_from("T", 0) };
    assert_eq!(world.pull(&filtered).bodies(), ["y"]);

    let torn = world.asked(PRODUCER, RequestCode::SEND_BATCH_MESSAGE, &send, &body[..body.len() - 3]);
    assert_eq!(torn.code, ResponseCode::MESSAGE_ILLEGAL);
}

#[test]
fn topics_groups_and_offsets_survive_the_loss_of_power() {
    let mut world = World::new();
    world.send("T", "kept");
    world.heartbeat(CONSUMER, "client", "CG", "T", "*");
    let commit =
        UpdateConsumerOffsetRequest { consumer_group: "CG", topic: "T", queue_id: 0, commit_offset: 1 };
    world.asked(CONSUMER, RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"");
    world.tick(1_000);
    world.crash();
    assert_eq!(world.pull(&pull_from("T", 0)).bodies(), ["kept"]);
    assert_eq!(world.committed_offset("CG", "T").int("offset"), 1);
    assert_eq!(world.send("T", "next").int("queueOffset"), 1);
    assert!(world.shard.topics.get("%RETRY%CG").is_some());
}

#[test]
fn an_unknown_offset_is_not_found_unless_the_first_message_is_in_memory() {
    let mut world = World::new();
    world.send("T", "young");
    assert_eq!(world.committed_offset("CG", "T").code, ResponseCode::QUERY_NOT_FOUND);
    let query = QueryConsumerOffsetRequest {
        consumer_group: "CG",
        topic: "T",
        queue_id: 0,
        set_zero_if_not_found: true,
    };
    let reply = world.asked(CONSUMER, RequestCode::QUERY_CONSUMER_OFFSET, &query, b"");
    assert_eq!((reply.code, reply.int("offset")), (ResponseCode::SUCCESS, 0));
    // More than the tail cache holds: the first message is on disk only.
    let large = "x".repeat(300_000);
    for _ in 0..5 {
        world.send("T", &large);
    }
    let reply = world.asked(CONSUMER, RequestCode::QUERY_CONSUMER_OFFSET, &query, b"");
    assert_eq!(reply.code, ResponseCode::QUERY_NOT_FOUND);
    assert_eq!(world.pull(&PullMessageRequest { messages_max: 1, ..pull_from("T", 0) }).bodies(), ["young"]);
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_reads_go_on() {
    let mut world = World::new();
    world.send("T", "before");
    world.disk.fail_syncs(1);
    let refused = world.send("T", "lost");
    assert_eq!(refused.code, ResponseCode::SERVICE_NOT_AVAILABLE);
    assert!(refused.remark.contains("sync"), "{}", refused.remark);
    assert_eq!(world.send("T", "after").code, ResponseCode::SERVICE_NOT_AVAILABLE);
    assert_eq!(world.pull(&pull_from("T", 0)).bodies(), ["before"]);
}

#[test]
fn a_full_disk_is_a_clear_refusal() {
    let mut world = World::new();
    let large = "x".repeat(3 << 20);
    world.disk.set_full(true);
    let mut last = world.send("T", &large);
    for _ in 0..20 {
        last = world.send("T", &large);
        world.tick(100);
        if last.code != ResponseCode::SUCCESS {
            break;
        }
    }
    assert_eq!(last.code, ResponseCode::SERVICE_NOT_AVAILABLE, "{last:?}");
    world.disk.set_full(false);
    world.tick(2_000);
    world.tick(2_000);
    assert_eq!(world.send("T", "again").code, ResponseCode::SUCCESS);
}

#[test]
fn a_change_that_found_no_space_is_logged_once_there_is_some() {
    let mut world = World::new();
    world.disk.set_full(true);
    let large = "x".repeat(3 << 20);
    while world.send("T", &large).code == ResponseCode::SUCCESS {
        world.tick(100);
    }
    // Its topic is made in the table; neither that nor the message can be logged.
    assert_eq!(world.send("New", "refused").code, ResponseCode::SERVICE_NOT_AVAILABLE);
    world.disk.set_full(false);
    world.tick(2_000);
    world.tick(2_000);
    assert_eq!(world.send("New", "kept").code, ResponseCode::SUCCESS);
    world.crash();
    assert_eq!(world.pull(&pull_from("New", 0)).bodies(), ["kept"]);
}

#[test]
fn members_of_a_group_hear_of_each_other() {
    let mut world = World::new();
    let (one, two) = (ConnectionId(11), ConnectionId(12));
    let reply = world.heartbeat(one, "client-1", "CG", "T", "*");
    assert_eq!(reply.ext["IS_SUPPORT_HEART_BEAT_V2"], "true");
    assert!(world.registrations > 0, "the retry topic needs a route");
    world.pushed.clear();
    world.heartbeat(two, "client-2", "CG", "T", "*");
    let notified = RequestCode::NOTIFY_CONSUMER_IDS_CHANGED;
    assert_eq!(world.take_pushed(), [(one, notified), (two, notified)]);

    let ask = GetConsumerListByGroupRequest { consumer_group: "CG" };
    let reply = world.asked(one, RequestCode::GET_CONSUMER_LIST_BY_GROUP, &ask, b"");
    let list: GetConsumerListByGroupResponseBody = parse(&reply.body).unwrap();
    assert_eq!(list.consumer_id_list, ["client-1", "client-2"]);

    world.pushed.clear();
    world.shard.on_connection_closed(one, world.now_ms);
    world.settle();
    assert_eq!(world.take_pushed(), [(two, notified)]);
    world.shard.on_connection_closed(two, world.now_ms);
    let reply = world.asked(one, RequestCode::GET_CONSUMER_LIST_BY_GROUP, &ask, b"");
    assert_eq!(reply.code, ResponseCode::SYSTEM_ERROR);
}

#[test]
fn a_pull_without_expression_uses_the_heartbeat() {
    let mut world = World::new();
    world.send_tagged("T", "a", "TagA");
    world.send_tagged("T", "b", "TagB");
    world.heartbeat(CONSUMER, "client", "CG", "T", "TagB");
    let pull = PullMessageRequest { sys_flag: PullSysFlag(0), sub_version: START_MS, ..pull_from("T", 0) };
    assert_eq!(world.pull(&pull).bodies(), ["b"]);
    let newer = PullMessageRequest { sub_version: START_MS + 1, ..pull };
    assert_eq!(world.pull(&newer).code, ResponseCode::SUBSCRIPTION_NOT_LATEST);
}

#[test]
fn a_locked_queue_is_one_clients_until_it_expires() {
    let mut world = World::new();
    world.send("T", "a");
    let lock = |world: &mut World, client: &str, broker: &str| {
        let queue = MessageQueue { topic: "T".into(), broker_name: broker.into(), queue_id: 0 };
        let body = LockBatchRequestBody {
            client_id: client.into(),
            consumer_group: "CG".into(),
            mq_set: vec![queue],
            only_this_broker: false,
        };
        let reply = world.asked(CONSUMER, RequestCode::LOCK_BATCH_MQ, &NoExt, &to_fastjson(&body));
        parse::<LockBatchResponseBody>(&reply.body).unwrap().lock_ok_mq_set.len()
    };
    assert_eq!(lock(&mut world, "one", BROKER), 1);
    assert_eq!(lock(&mut world, "two", BROKER), 0);
    assert_eq!(lock(&mut world, "one", "another broker"), 0);
    world.tick(60_001);
    assert_eq!(lock(&mut world, "two", BROKER), 1);
}

#[test]
fn what_is_not_built_yet_is_refused_by_name() {
    let mut world = World::new();
    let reply = world.asked(PRODUCER, RequestCode(999), &NoExt, b"");
    assert_eq!(reply.code, ResponseCode::REQUEST_CODE_NOT_SUPPORTED);
    assert_eq!(reply.remark, " request type 999 not supported");
}

#[test]
fn sends_are_checked_in_rocketmqs_order() {
    let mut world = World::new();
    let cases = [
        (SendMessageRequest { topic: "a b", ..send_to("T") }, ResponseCode::INVALID_PARAMETER),
        (SendMessageRequest { topic: "SCHEDULE_TOPIC_XXXX", ..send_to("T") }, ResponseCode::NO_PERMISSION),
        (SendMessageRequest { default_topic: "none", ..send_to("New") }, ResponseCode::TOPIC_NOT_EXIST),
        (SendMessageRequest { queue_id: 4, ..send_to("T") }, ResponseCode::INVALID_PARAMETER),
        // Its group is made (`AbstractSendMessageProcessor` asks `findSubscriptionGroupConfig`).
        (SendMessageRequest { topic: "%RETRY%nobody", ..send_to("T") }, ResponseCode::SUCCESS),
    ];
    for (send, code) in cases {
        let reply = world.asked(PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, b"x");
        assert_eq!(reply.code, code, "{send:?}");
    }
    let empty = world.asked(PRODUCER, RequestCode::SEND_MESSAGE_V2, &send_to("T"), b"");
    assert_eq!(empty.code, ResponseCode::MESSAGE_ILLEGAL);
    let too_large =
        world.asked(PRODUCER, RequestCode::SEND_MESSAGE_V2, &send_to("T"), &vec![0; (4 << 20) + 1]);
    assert_eq!(too_large.code, ResponseCode::MESSAGE_ILLEGAL);
}

#[test]
fn a_message_retried_too_often_is_a_dead_letter() {
    let mut world = World::new();
    world.heartbeat(CONSUMER, "client", "CG", "T", "*");
    let retry = SendMessageRequest {
        reconsume_times: 17,
        max_reconsume_times: Some(16),
        properties: "DELAY\u{1}3\u{2}",
        ..send_to("%RETRY%CG")
    };
    let reply = world.asked(PRODUCER, RequestCode::SEND_MESSAGE_V2, &retry, b"dead");
    assert_eq!(reply.code, ResponseCode::SUCCESS);
    assert_eq!(world.pull(&pull_from("%DLQ%CG", 0)).bodies(), ["dead"]);
    let alive = SendMessageRequest { reconsume_times: 3, ..retry };
    world.asked(PRODUCER, RequestCode::SEND_MESSAGE_V2, &alive, b"alive");
    world.tick(9_000);
    assert_eq!(world.pull(&pull_from("%RETRY%CG", 0)).code, ResponseCode::PULL_NOT_FOUND, "level 3 is 10 s");
    world.tick(1_000);
    assert_eq!(world.pull(&pull_from("%RETRY%CG", 0)).bodies(), ["alive"]);
}

#[test]
fn a_oneway_request_is_never_answered() {
    let mut world = World::new();
    let ext = send_to("T");
    let head = RequestHead { code: RequestCode::SEND_MESSAGE_V2, opaque: 77, oneway: true, ext: &ext };
    world.request(PRODUCER, head, b"stored");
    let head = RequestHead { code: RequestCode(999), opaque: 78, oneway: true, ext: &NoExt };
    world.request(PRODUCER, head, b"");
    world.settle();
    assert!(!world.answered.contains_key(&77) && !world.answered.contains_key(&78));
    assert_eq!(world.pull(&pull_from("T", 0)).bodies(), ["stored"]);
}

#[test]
fn a_request_without_its_fields_is_an_error_and_nothing_else() {
    let mut world = World::new();
    for code in super::handlers::SUPPORTED {
        let opaque = world.ask(CONSUMER, *code, &NoExt, b"");
        world.settle();
        assert!(world.answered.contains_key(&opaque), "{code} was not answered");
    }
    assert_eq!(world.send("T", "alive").code, ResponseCode::SUCCESS);
}

/// Sends from several producers, crashes at any moment: what was acknowledged is there, in order, exactly once.
#[test]
fn acknowledged_messages_survive_crashes_at_any_moment() {
    // A failure names its seed; APOGEE_SEED repeats that one, APOGEE_SEEDS tries so many.
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds = match number("APOGEE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("APOGEE_SEEDS").unwrap_or(10),
    };
    for seed in seeds {
        let mut rng = Rng::new(seed);
        let mut world = World::with_seed(seed);
        world.send("T", "made");
        let mut acknowledged: BTreeMap<(i64, i64), String> = BTreeMap::new();
        let mut sent: BTreeMap<i32, String> = BTreeMap::new();
        for step in 0..300 {
            match rng.below(20) {
                0 => {
                    world.crash();
                    sent.clear();
                    world.answered.clear();
                }
                1..=9 => {
                    let text = format!("{seed}-{step}-{}", "x".repeat(rng.below(9000) as usize));
                    let send = SendMessageRequest { queue_id: rng.below(4) as i32, ..send_to("T") };
                    let opaque = world.ask(PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, text.as_bytes());
                    sent.insert(opaque, text);
                }
                _ => {
                    world.step();
                }
            }
            while let Some((opaque, reply)) = world.answered.pop_first() {
                let text = sent.remove(&opaque).expect("a reply to what was sent in this life");
                assert_eq!(reply.code, ResponseCode::SUCCESS, "seed {seed}: {reply:?}");
                let place = (reply.int("queueId"), reply.int("queueOffset"));
                assert!(acknowledged.insert(place, text).is_none(), "seed {seed}: {place:?} given twice");
            }
        }
        world.crash();
        for ((queue_id, offset), text) in acknowledged {
            let pull =
                PullMessageRequest { queue_id: queue_id as i32, messages_max: 1, ..pull_from("T", offset) };
            assert_eq!(world.pull(&pull).bodies(), [text], "seed {seed}: queue {queue_id} offset {offset}");
        }
    }
}

/// Bytes held by a message in flight are the receive buffer's own.
#[test]
fn a_body_is_staged_by_reference() {
    let mut world = World::new();
    world.send("T", "make the topic");
    let body = Bytes::from(vec![7; 100_000]);
    let frame = {
        let mut wire = BytesMut::new();
        let ext = send_to("T");
        let head = RequestHead { code: RequestCode::SEND_MESSAGE_V2, opaque: 5, oneway: false, ext: &ext };
        append_request(&mut wire, HeaderEncoding::Json, &head, &body).unwrap();
        split_frame(&mut wire).unwrap().unwrap()
    };
    let request = Request::decode(PRODUCER, "10.0.0.1:1".parse().unwrap(), &frame).unwrap();
    world.shard.on_request(&request, START_MS).unwrap();
    drop(request);
    let RawFrame { header, body, .. } = frame;
    drop(header);
    assert!(!body.is_unique(), "the shard should still hold the body it has not sealed");
    world.settle();
    assert!(body.is_unique(), "sealed: encoded once, and let go");
}
