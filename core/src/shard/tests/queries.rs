//! Messages found by key, by id and by their place in a queue.

use apogee_net::body::{QueryConsumeQueueResponseBody, parse};
use apogee_net::request::{QueryConsumeQueueRequest, QueryMessageRequest, ViewMessageRequest};
use apogee_storage::LogEvent;

use super::*;
use crate::service::ReplyTo;
use crate::shard::query::KeyQuery;

fn by_key<'a>(topic: &'a str, key: &'a str) -> QueryMessageRequest<'a> {
    QueryMessageRequest {
        topic,
        key,
        messages_max: 64,
        begin_timestamp: 0,
        end_timestamp: i64::MAX,
        is_unique_key: false,
    }
}

impl World {
    fn send_keyed(&mut self, topic: &str, body: &str, keys: &str, unique_key: &str) -> Answered {
        let properties = format!("KEYS\u{1}{keys}\u{2}UNIQ_KEY\u{1}{unique_key}\u{2}");
        let send = SendMessageRequest { properties: &properties, ..send_to(topic) };
        let sent = self.asked(PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, body.as_bytes());
        assert_eq!(sent.code, ResponseCode::SUCCESS, "{}", sent.remark);
        sent
    }

    /// The answer to a search, which may take some ticks.
    fn query(&mut self, query: &QueryMessageRequest<'_>) -> Answered {
        let opaque = self.ask(CONSUMER, RequestCode::QUERY_MESSAGE, query, b"");
        self.settle();
        for _ in 0..100 {
            if let Some(answered) = self.answered.remove(&opaque) {
                return answered;
            }
            assert_eq!(self.shard.wake_at_ms(), Some(0), "a search that goes on wants to be woken");
            self.tick(5);
        }
        panic!("no answer");
    }

    fn found(&mut self, query: &QueryMessageRequest<'_>) -> Vec<String> {
        let answered = self.query(query);
        assert!(answered.int("indexLastUpdateTimestamp") > 0 && answered.int("indexLastUpdatePhyoffset") > 0);
        match answered.code {
            ResponseCode::SUCCESS => answered.bodies(),
            code => {
                assert_eq!((code, answered.body.len()), (ResponseCode::QUERY_NOT_FOUND, 0));
                assert_eq!(answered.remark, "can not find message, maybe time range not correct");
                Vec::new()
            }
        }
    }
}

const NONE: [&str; 0] = [];

#[test]
fn messages_are_found_by_each_of_their_keys() {
    let mut world = World::new();
    world.send_keyed("T", "one", "a b", "U1");
    world.send_keyed("T", "two", "b", "U2");
    world.send_keyed("Other", "three", "a b", "U3");
    assert_eq!(world.found(&by_key("T", "a")), ["one"]);
    assert_eq!(world.found(&by_key("T", "b")), ["one", "two"]);
    assert_eq!(world.found(&by_key("Other", "b")), ["three"]);
    assert_eq!(world.found(&by_key("T", "U2")), ["two"]);
    assert_eq!(world.found(&by_key("T", "U3")), NONE);
    assert_eq!(world.found(&by_key("Nowhere", "a")), NONE);
    assert_eq!(world.found(&by_key("T", "a b")), NONE);
}

#[test]
fn the_newest_are_given_in_the_order_of_the_log() {
    let mut world = World::new();
    for number in 0..200 {
        world.send_keyed("T", &number.to_string(), "k", &format!("U{number}"));
        world.now_ms += 10;
    }
    let numbers = |range: std::ops::Range<i32>| range.map(|number| number.to_string()).collect::<Vec<_>>();
    assert_eq!(world.found(&QueryMessageRequest { messages_max: 3, ..by_key("T", "k") }), numbers(197..200));
    assert_eq!(world.found(&by_key("T", "k")), numbers(136..200));
    assert_eq!(
        world.found(&QueryMessageRequest { messages_max: 1000, ..by_key("T", "k") }),
        numbers(136..200)
    );
    let unique = QueryMessageRequest { messages_max: 1, is_unique_key: true, ..by_key("T", "k") };
    assert_eq!(world.found(&unique), numbers(168..200), "the broker chooses");
    assert_eq!(world.found(&QueryMessageRequest { messages_max: 0, ..by_key("T", "k") }), NONE);

    let from = START_MS + 50 * 10;
    let range = QueryMessageRequest { begin_timestamp: from, end_timestamp: from + 20, ..by_key("T", "k") };
    assert_eq!(world.found(&range), numbers(50..53), "both ends are included");
    let reversed = QueryMessageRequest { begin_timestamp: from, end_timestamp: from - 1, ..by_key("T", "k") };
    assert_eq!(world.found(&reversed), NONE);
}

#[test]
fn sealed_segments_are_searched_behind_the_keys_in_memory() {
    let log_config = LogConfig {
        segment_bytes: 1 << 20,
        batch_bytes_max: 1 << 20,
        tail_cache_bytes: 0,
        reserve_bytes: 0,
        ..log_config()
    };
    let mut world = World::with(1, log_config);
    let padding = "0".repeat(50_000);
    for number in 0..100 {
        let key = if number % 10 == 3 { "three" } else { "other" };
        world.send_keyed("T", &format!("{padding}{number}"), key, &format!("U{number}"));
        world.tick(100);
    }
    let sealed = std::iter::from_fn(|| world.shard.take_log_event())
        .filter(|event| matches!(event, LogEvent::Sealed { .. }))
        .count();
    assert!(sealed >= 3, "{sealed}");
    let numbers = |found: Vec<String>| -> Vec<i32> {
        found.iter().map(|body| body.trim_start_matches('0').parse().unwrap_or(0)).collect()
    };
    for evicted in [0, 100] {
        world.disk.evict_indexes(evicted);
        assert_eq!(numbers(world.found(&by_key("T", "three"))), [3, 13, 23, 33, 43, 53, 63, 73, 83, 93]);
        assert_eq!(numbers(world.found(&by_key("T", "U1"))), [1]);
        let range = QueryMessageRequest {
            begin_timestamp: START_MS + 1_300,
            end_timestamp: START_MS + 3_300,
            ..by_key("T", "three")
        };
        assert_eq!(numbers(world.found(&range)), [13, 23, 33]);
        assert_eq!(world.found(&by_key("T", "U100")), NONE);
    }
    let newest = QueryMessageRequest { messages_max: 4, ..by_key("T", "three") };
    assert_eq!(numbers(world.found(&newest)), [63, 73, 83, 93]);
}

#[test]
fn searches_beyond_their_number_are_refused_until_others_are_answered() {
    let mut world = World::with(1, LogConfig { tail_cache_bytes: 0, ..log_config() });
    world.send_keyed("T", "one", "a", "U1");
    // Nothing is settled, so each waits for its record to be read.
    let ask = |world: &mut World, opaque: i32| {
        let to = ReplyTo { connection: CONSUMER, opaque, encoding: HeaderEncoding::Json };
        let (topic, key) = ("T".into(), "a".into());
        let query = KeyQuery { topic, key, times_ms: 0..=i64::MAX, messages_max: 1 };
        world.shard.search(to, query, world.now_ms)
    };
    for opaque in 1000..1064 {
        ask(&mut world, opaque).unwrap();
    }
    let refused = ask(&mut world, 1064).unwrap_err();
    assert_eq!(refused.code, ResponseCode::SYSTEM_BUSY);
    world.settle();
    assert_eq!(world.answered.len(), 64);
    assert!(world.answered.values().all(|answered| answered.bodies() == ["one"]));
    ask(&mut world, 1064).unwrap();
}

#[test]
fn a_message_is_found_by_its_id() {
    let mut world = World::new();
    let first = world.send_keyed("T", "one", "a", "U1");
    let second = world.send_keyed("T", "two", "a", "U2");
    let offset = |sent: &Answered| i64::from_str_radix(&sent.ext["msgId"][16..], 16).unwrap();
    for (sent, body) in [(first, "one"), (second, "two")] {
        let request = ViewMessageRequest { topic: None, offset: offset(&sent) };
        let viewed = world.asked(CONSUMER, RequestCode::VIEW_MESSAGE_BY_ID, &request, b"");
        assert_eq!((viewed.code, viewed.bodies()), (ResponseCode::SUCCESS, vec![body.to_owned()]));

        for wrong in [offset(&sent) + 1, -1, i64::MAX, 0] {
            let request = ViewMessageRequest { topic: None, offset: wrong };
            let viewed = world.asked(CONSUMER, RequestCode::VIEW_MESSAGE_BY_ID, &request, b"");
            assert_eq!(viewed.code, ResponseCode::SYSTEM_ERROR, "{wrong}");
            assert_eq!(viewed.remark, format!("can not find message by the offset, {wrong}"));
        }
    }
}

#[test]
fn an_old_message_is_read_from_disk_by_its_id() {
    let mut world = World::with(1, LogConfig { tail_cache_bytes: 0, ..log_config() });
    let sent = world.send_keyed("T", "one", "a", "U1");
    for _ in 0..3 {
        world.send("T", "later");
    }
    let offset = i64::from_str_radix(&sent.ext["msgId"][16..], 16).unwrap();
    let request = ViewMessageRequest { topic: None, offset };
    let viewed = world.asked(CONSUMER, RequestCode::VIEW_MESSAGE_BY_ID, &request, b"");
    assert_eq!((viewed.code, viewed.bodies()), (ResponseCode::SUCCESS, vec!["one".to_owned()]));
}

#[test]
fn entries_of_a_queue_are_shown() {
    let mut world = World::new();
    for number in 0..5 {
        world.send_tagged("T", &number.to_string(), "TagA");
    }
    world.heartbeat(CONSUMER, "c", "CG", "T", "TagA");
    let ask = |world: &mut World, topic: &str, index: i64, consumer_group: Option<&str>| {
        let request = QueryConsumeQueueRequest { topic, queue_id: 0, index, count: 2, consumer_group };
        world.asked(CONSUMER, RequestCode::QUERY_CONSUME_QUEUE, &request, b"")
    };
    let shown = ask(&mut world, "T", 1, None);
    let body: QueryConsumeQueueResponseBody = parse(&shown.body).unwrap();
    assert_eq!((body.min_queue_index, body.max_queue_index, body.queue_data.len()), (0, 5, 2));
    let pulled = world.pull(&pull_from("T", 0));
    for (entry, message) in body.queue_data.iter().zip(&pulled.messages()[1..]) {
        assert_eq!(entry.physic_offset, message.physical_offset);
        assert_eq!(entry.physic_size as usize, message.total_len);
        assert_eq!((entry.tags_code, entry.eval), (2_598_919, false));
    }
    assert_eq!((body.subscription_data, body.filter_data), (None, None));

    let of_group = ask(&mut world, "T", 4, Some("CG"));
    let body: QueryConsumeQueueResponseBody = parse(&of_group.body).unwrap();
    assert_eq!((body.subscription_data.unwrap().sub_string.as_str(), body.queue_data.len()), ("TagA", 1));
    assert_eq!(body.filter_data.as_deref(), Some("null"));
    let body: QueryConsumeQueueResponseBody = parse(&ask(&mut world, "T", 4, Some("Off")).body).unwrap();
    assert_eq!(body.filter_data.as_deref(), Some("Off@T is not online!"));

    let outside = ask(&mut world, "T", 5, None);
    assert_eq!((outside.code, outside.body.len()), (ResponseCode::SUCCESS, 0));
    assert_eq!(outside.remark, "Index 5 of 0@T is not exist!");
    let unknown = ask(&mut world, "Nowhere", 0, None);
    assert_eq!(
        (unknown.code, unknown.remark.as_str()),
        (ResponseCode::SYSTEM_ERROR, "0@Nowhere is not exist!")
    );
}
