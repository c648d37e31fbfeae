//! What may be sent, and what its producer is told: limits, batches, topics with attributes, traces.

use apogee_net::flags::{MessageSysFlag, Perm};
use apogee_net::request::{CreateTopicRequest, QueryMessageRequest};

use super::*;

impl World {
    fn create(&mut self, topic: &str, filter_type: &str, attributes: &str) -> Answered {
        let create = CreateTopicRequest {
            topic,
            default_topic: "TBW102",
            read_queues: 1,
            write_queues: 1,
            perm: Perm(6),
            filter_type,
            topic_sys_flag: None,
            order: false,
            attributes: Some(attributes),
            force: false,
        };
        self.asked(PRODUCER, RequestCode::UPDATE_AND_CREATE_TOPIC, &create, b"")
    }

    fn send_as(&mut self, send: &SendMessageRequest<'_>, body: &[u8]) -> Answered {
        self.asked(PRODUCER, RequestCode::SEND_MESSAGE_V2, send, body)
    }
}

fn batch_of(texts: &[&str]) -> BytesMut {
    let mut body = BytesMut::new();
    for (nth, text) in texts.iter().enumerate() {
        let properties = format!("UNIQ_KEY\u{1}key{nth}\u{2}");
        let message =
            BatchMessage { flag: 0, body: text.as_bytes(), properties: Properties(properties.as_bytes()) };
        append_batch_message(&mut body, &message);
    }
    body
}

#[track_caller]
fn illegal(reply: &Answered, remark: &str) {
    assert_eq!(reply.code, ResponseCode::MESSAGE_ILLEGAL, "{}", reply.remark);
    assert!(reply.remark.contains(remark), "{}", reply.remark);
}

#[test]
fn a_message_has_rocketmqs_limits() {
    let mut world = World::new();
    let max = world.shard.config().message_bytes_max;
    let too_large = world.send_as(&send_to("T"), &vec![b'x'; max + 1]);
    illegal(&too_large, "msg body length limit 4194304B, msg properties length limit 32KB.");
    assert_eq!(world.send_as(&send_to("T"), &vec![b'x'; max]).code, ResponseCode::SUCCESS);
    illegal(&world.send_as(&send_to("T"), b""), "no body");

    let with = |len: usize| format!("a\u{1}{}\u{2}", "x".repeat(len - 3));
    let too_long = with(32_768);
    let reply = world.send_as(&SendMessageRequest { properties: &too_long, ..send_to("T") }, b"x");
    illegal(&reply, "msg properties length limit 32KB.");
    // It fits, but not together with what the broker adds.
    let full = with(32_767);
    let reply = world.send_as(&SendMessageRequest { properties: &full, ..send_to("T") }, b"x");
    illegal(&reply, "the message is illegal, maybe msg body or properties length not matched");
    let fits = with(32_000);
    let reply = world.send_as(&SendMessageRequest { properties: &fits, ..send_to("T") }, b"x");
    assert_eq!(reply.code, ResponseCode::SUCCESS);

    let topic = "t".repeat(128);
    assert_eq!(world.send(&topic, "x").code, ResponseCode::INVALID_PARAMETER);
    assert_eq!(world.send(&topic[1..], "x").code, ResponseCode::SUCCESS);
    let nowhere = world.send_as(&SendMessageRequest { queue_id: 99, ..send_to("T") }, b"x");
    assert_eq!(nowhere.code, ResponseCode::INVALID_PARAMETER);
    let empty_nowhere = world.send_as(&SendMessageRequest { queue_id: 99, ..send_to("T") }, b"");
    assert_eq!(empty_nowhere.code, ResponseCode::INVALID_PARAMETER, "the queue is looked at first");
}

#[test]
fn a_compressed_body_is_stored_as_it_came() {
    let mut world = World::new();
    let sys_flag = MessageSysFlag::COMPRESSED.with(MessageSysFlag(0x200));
    let body = [0x78, 0x9c, 0, 1, 2, 255];
    world.send_as(&SendMessageRequest { sys_flag, ..send_to("T") }, &body);
    let pulled = world.pull(&pull_from("T", 0));
    let message = pulled.messages()[0];
    assert_eq!((message.body, message.sys_flag), (&body[..], sys_flag));
    assert!(message.is_body_intact());
}

#[test]
fn messages_of_a_topic_with_many_tags_say_so() {
    let mut world = World::new();
    assert_eq!(world.create("Many", "MULTI_TAG", "").code, ResponseCode::SUCCESS);
    world.send("Many", "x");
    let batch = SendMessageRequest { batch: true, ..send_to("Many") };
    world.asked(PRODUCER, RequestCode::SEND_BATCH_MESSAGE, &batch, &batch_of(&["y"]));
    world.send("T", "x");
    let flags = |world: &mut World, topic: &str| -> Vec<MessageSysFlag> {
        world.pull(&pull_from(topic, 0)).messages().iter().map(|message| message.sys_flag).collect()
    };
    assert_eq!(flags(&mut world, "Many"), [MessageSysFlag::MULTI_TAGS; 2]);
    assert_eq!(flags(&mut world, "T"), [MessageSysFlag(0)]);
}

#[test]
fn a_topic_of_mixed_messages_is_refused() {
    let mut world = World::new();
    let refused = world.create("Mixed", "SINGLE_TAG", "+message.type=MIXED");
    assert_eq!(refused.code, ResponseCode::INVALID_PARAMETER);
    assert_eq!(refused.remark, "MIXED message type is not supported.");
    let refused = world.create("Mixed", "SINGLE_TAG", "+message.type=ODD");
    assert_eq!(refused.code, ResponseCode::SYSTEM_ERROR);
    assert_eq!(world.create("Fifo", "SINGLE_TAG", "+message.type=FIFO").code, ResponseCode::SUCCESS);
}

#[test]
fn a_compacted_topic_wants_keys() {
    let mut world = World::new();
    world.create("Compact", "SINGLE_TAG", "+cleanup.policy=COMPACTION");
    illegal(&world.send("Compact", "x"), "Required message key is missing");
    let blank = SendMessageRequest { properties: "KEYS\u{1} \u{2}", ..send_to("Compact") };
    illegal(&world.send_as(&blank, b"x"), "Required message key is missing");
    let keyed = SendMessageRequest { properties: "KEYS\u{1}k\u{2}", ..send_to("Compact") };
    assert_eq!(world.send_as(&keyed, b"x").code, ResponseCode::SUCCESS);
}

/// The answer is the one for a single message, and consumers see what they would see after unwrapping it.
#[test]
fn a_batch_in_a_queue_of_batches_is_one_message_to_its_producer() {
    let mut world = World::new();
    assert_eq!(world.create("Batches", "SINGLE_TAG", "+queue.type=BatchCQ").code, ResponseCode::SUCCESS);
    world.send("Batches", "alone");
    let properties = "UNIQ_KEY\u{1}batch\u{2}";
    let send = SendMessageRequest { batch: true, properties, ..send_to("Batches") };
    let reply = world.asked(PRODUCER, RequestCode::SEND_BATCH_MESSAGE, &send, &batch_of(&["x", "y", "z"]));
    assert_eq!((reply.code, reply.int("queueOffset")), (ResponseCode::SUCCESS, 1));
    assert_eq!((reply.ext["batchUniqId"].as_str(), reply.ext["transactionId"].as_str()), ("batch", "batch"));
    assert_eq!(reply.ext["msgId"].len(), 32, "one id: a client takes a comma for another kind of batch");
    assert_eq!(world.send("Batches", "later").int("queueOffset"), 4, "it took three places");

    let pulled = world.pull(&pull_from("Batches", 0));
    assert_eq!(pulled.bodies(), ["alone", "x", "y", "z", "later"]);
    let wrapped = MessageSysFlag::INNER_BATCH.0 | MessageSysFlag::NEEDS_UNWRAP.0;
    for (nth, message) in pulled.messages().iter().enumerate() {
        assert_eq!((message.queue_offset, message.sys_flag.0 & wrapped), (nth as i64, 0));
    }
    let keys: Vec<_> =
        pulled.messages()[1..4].iter().map(|message| message.properties.get(property::UNIQUE_KEY)).collect();
    assert_eq!(keys, [Some("key0"), Some("key1"), Some("key2")]);

    // A batch without an id comes from an old client, which knows nothing of inner batches.
    let old = SendMessageRequest { batch: true, ..send_to("Batches") };
    let reply = world.asked(PRODUCER, RequestCode::SEND_BATCH_MESSAGE, &old, &batch_of(&["x", "y"]));
    assert_eq!((reply.ext.get("batchUniqId"), reply.ext["msgId"].split(',').count()), (None, 2));
}

#[test]
fn only_brokers_make_inner_batches() {
    let mut world = World::new();
    world.create("Batches", "SINGLE_TAG", "+queue.type=BatchCQ");
    for topic in ["T", "Batches"] {
        for sys_flag in [MessageSysFlag::INNER_BATCH, MessageSysFlag::NEEDS_UNWRAP] {
            illegal(
                &world.send_as(&SendMessageRequest { sys_flag, ..send_to(topic) }, b"x"),
                "inner batches",
            );
        }
        let numbered = SendMessageRequest { properties: "INNER_NUM\u{1}3\u{2}", ..send_to(topic) };
        illegal(&world.send_as(&numbered, b"x"), "inner batches");
        let named = SendMessageRequest { properties: "MY_INNER_NUM\u{1}INNER_NUM\u{2}", ..send_to(topic) };
        assert_eq!(world.send_as(&named, b"x").code, ResponseCode::SUCCESS);
    }
}

/// As clients' hooks send them: to the trace topic, with the ids of the traced messages as keys.
#[test]
fn traces_are_found_by_the_id_of_their_message() {
    let mut world = World::new();
    let send = SendMessageRequest {
        producer_group: "_INNER_TRACE_PRODUCER-PG-PRODUCE",
        properties: "KEYS\u{1}7F000001AAAA 7F000001BBBB TopicTest\u{2}UNIQ_KEY\u{1}7F000001CCCC\u{2}",
        ..send_to("RMQ_SYS_TRACE_TOPIC")
    };
    let body = "Pub\u{1}1700000000000\u{1}DefaultRegion\u{1}PG\u{1}TopicTest\u{1}7F000001AAAA\u{2}";
    assert_eq!(world.send_as(&send, body.as_bytes()).code, ResponseCode::SUCCESS);
    for key in ["7F000001AAAA", "7F000001BBBB"] {
        let query = QueryMessageRequest {
            topic: "RMQ_SYS_TRACE_TOPIC",
            key,
            messages_max: 64,
            begin_timestamp: 0,
            end_timestamp: i64::MAX,
            is_unique_key: false,
        };
        let found = world.asked(CONSUMER, RequestCode::QUERY_MESSAGE, &query, b"");
        assert_eq!((found.code, found.bodies()), (ResponseCode::SUCCESS, vec![body.to_owned()]));
    }
}
