//! Messages for later, over the wire format: levels, timers, recalls, redeliveries, and the loss of power.

use std::collections::{BTreeMap, BTreeSet};

use apogee_net::body::{
    DelayOffsetSerializeWrapper, SubscriptionGroupConfig, TimerMetrics, parse, to_fastjson,
};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::NoExt;
use apogee_net::message::{OffsetMessageId, RecallHandle, property};
use apogee_net::request::{ConsumerSendMsgBackRequest, RecallMessageRequest, SendMessageRequest};
use apogee_storage::LogConfig;
use apogee_storage::sim::Rng;

use super::world::*;

const WHEEL: &str = "rmq_sys_wheel_timer";

fn properties(of: &[(&str, String)]) -> String {
    of.iter().map(|(name, value)| format!("{name}\u{1}{value}\u{2}")).collect()
}

fn send_with(world: &mut World, topic: &str, of: &[(&str, String)], body: &str) -> Answered {
    let properties = properties(of);
    let send = SendMessageRequest { properties: &properties, ..send_to(topic) };
    world.asked(PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, body.as_bytes())
}

fn send_level(world: &mut World, level: i32, body: &str) -> Answered {
    send_with(world, "T", &[(property::DELAY, level.to_string())], body)
}

fn send_timer(world: &mut World, delay_ms: i64, body: &str) -> Answered {
    let key = format!("key-of-{body}");
    send_with(
        world,
        "T",
        &[(property::TIMER_DELAY_MS, delay_ms.to_string()), (property::UNIQUE_KEY, key)],
        body,
    )
}

/// Everything in queue 0 of a topic.
fn all(world: &mut World, topic: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    loop {
        let pulled = world.pull(&pull_from(topic, bodies.len() as i64));
        if pulled.code != ResponseCode::SUCCESS {
            return bodies;
        }
        bodies.extend(pulled.bodies());
    }
}

/// Time passes in steps, as the driver lets it: whenever something is due.
fn pass(world: &mut World, ms: i64) {
    let end = world.now_ms + ms;
    while world.now_ms < end {
        let tick_at = world.now_ms + 100;
        let wake_at = world.shard.wake_at_ms().map_or(tick_at, |wake_at| wake_at.min(tick_at));
        let step = wake_at.max(world.now_ms + 5).min(end) - world.now_ms;
        world.tick(step);
    }
}

#[test]
fn a_level_delays_as_long_as_it_says() {
    let mut world = World::new();
    world.send("T", "now");
    let sent = send_level(&mut world, 1, "later");
    assert_eq!((sent.code, sent.int("queueId"), sent.int("queueOffset")), (ResponseCode::SUCCESS, 0, 0));
    assert!(!sent.ext.contains_key("recallHandle"));
    world.tick(999);
    assert_eq!(all(&mut world, "T"), ["now"]);
    world.tick(1);
    assert_eq!(all(&mut world, "T"), ["now", "later"]);
    let pulled = world.pull(&pull_from("T", 1));
    let message = pulled.messages()[0];
    assert_eq!((message.topic, message.queue_id, message.store_timestamp), ("T", 0, START_MS + 1000));
    assert_eq!(message.properties.get(property::REAL_TOPIC), Some("T"));
    assert_eq!(message.properties.get(property::UNIQUE_KEY), Some(&*sent.ext["transactionId"]));
    let waited = OffsetMessageId::parse(&sent.ext["msgId"]).unwrap();
    assert!(waited.physical_offset < message.physical_offset, "a message of its own");
}

#[test]
fn levels_are_clamped_and_win_over_times() {
    let mut world = World::new();
    let level = |level: &str| (property::DELAY, level.to_owned());
    let after = |ms: i64| (property::TIMER_DELAY_MS, ms.to_string());
    assert_eq!(
        send_with(&mut world, "T", &[after(1), level("1")], "first level").code,
        ResponseCode::SUCCESS
    );
    assert_eq!(send_with(&mut world, "T", &[level("99")], "last level").code, ResponseCode::SUCCESS);
    assert_eq!(send_with(&mut world, "T", &[level("-1")], "no level").code, ResponseCode::SUCCESS);
    assert_eq!(send_with(&mut world, "T", &[level("x")], "refused").code, ResponseCode::SYSTEM_ERROR);
    assert_eq!(all(&mut world, "T"), ["no level"]);
    pass(&mut world, 1_100);
    assert_eq!(all(&mut world, "T"), ["no level", "first level"]);
    let pulled = world.pull(&pull_from("T", 1));
    assert_eq!(pulled.messages()[0].properties.get(property::TIMER_DELAY_MS), None);
    world.tick(7_200_000 - 1_200);
    assert_eq!(all(&mut world, "T").len(), 2);
    pass(&mut world, 200);
    assert_eq!(all(&mut world, "T").last().unwrap(), "last level");
}

#[test]
fn many_messages_of_a_level_come_in_order() {
    let mut world = World::new();
    let bodies: Vec<String> = (0..700).map(|n| n.to_string()).collect();
    bodies.iter().for_each(|body| assert_eq!(send_level(&mut world, 2, body).code, ResponseCode::SUCCESS));
    pass(&mut world, 5_100);
    assert_eq!(all(&mut world, "T"), bodies);
    let progress = world.asked(PRODUCER, RequestCode::GET_ALL_DELAY_OFFSET, &NoExt, b"");
    let progress: DelayOffsetSerializeWrapper = parse(&progress.body).unwrap();
    assert_eq!(progress.offset_table, BTreeMap::from([(2, 700)]));
}

#[test]
fn a_timer_is_delivered_at_its_time_and_never_before() {
    let mut world = World::new();
    let sent = send_timer(&mut world, 2_500, "later");
    assert_eq!((sent.code, sent.int("queueId"), sent.int("queueOffset")), (ResponseCode::SUCCESS, 0, 0));
    let due_ms = START_MS + 2_500;
    let handle = RecallHandle::decode(&sent.ext["recallHandle"]).unwrap();
    assert_eq!(
        handle,
        RecallHandle {
            topic: "T".into(),
            broker_name: BROKER.into(),
            due_ms: (due_ms + 1).to_string(),
            unique_key: "key-of-later".into(),
        }
    );
    world.tick(2_499);
    assert_eq!(all(&mut world, "T"), [""; 0]);
    world.tick(1);
    let pulled = world.pull(&pull_from("T", 0));
    assert_eq!(pulled.bodies(), ["later"]);
    let message = pulled.messages()[0];
    assert_eq!(message.store_timestamp, due_ms);
    assert_eq!(message.properties.get(property::TIMER_OUT_MS), Some(&*due_ms.to_string()));
    assert_eq!(message.properties.get(property::TIMER_DEQUEUE_MS), Some(&*due_ms.to_string()));
    assert_eq!(message.properties.get(property::TIMER_ENQUEUE_MS), Some(&*START_MS.to_string()));
    assert_eq!(message.properties.get(property::UNIQUE_KEY), Some("key-of-later"));
    assert!(world.shard.timers.table.is_empty());
}

#[test]
fn times_are_taken_by_rocketmqs_rules() {
    let mut world = World::new();
    let three_days = 3 * 86_400;
    let cases = [
        (property::TIMER_DELAY_SEC, "0".to_owned(), ResponseCode::SUCCESS, true),
        (property::TIMER_DELAY_SEC, "-5".to_owned(), ResponseCode::SUCCESS, true),
        (property::TIMER_DELIVER_MS, START_MS.to_string(), ResponseCode::SUCCESS, true),
        (property::TIMER_DELIVER_MS, (START_MS + 1).to_string(), ResponseCode::SUCCESS, false),
        (property::TIMER_DELAY_SEC, three_days.to_string(), ResponseCode::SUCCESS, false),
        (property::TIMER_DELAY_SEC, (three_days + 1).to_string(), ResponseCode::MESSAGE_ILLEGAL, false),
        (property::TIMER_DELAY_SEC, i64::MAX.to_string(), ResponseCode::MESSAGE_ILLEGAL, false),
        (property::TIMER_DELAY_MS, "soon".to_owned(), ResponseCode::MESSAGE_ILLEGAL, false),
    ];
    let mut delivered = 0;
    for (name, value, code, is_now) in cases {
        let sent = send_with(&mut world, "T", &[(name, value.clone())], "x");
        assert_eq!(sent.code, code, "{name} {value}: {sent:?}");
        delivered += usize::from(is_now);
        assert_eq!(all(&mut world, "T").len(), delivered, "{name} {value}");
    }
    world.shard.settings.timer_enable = false;
    let off = send_timer(&mut world, 1_000, "x");
    assert_eq!(off.code, ResponseCode::SYSTEM_ERROR);
    assert!(off.remark.contains("timerWheelEnable"), "{}", off.remark);
    assert_eq!(world.send(WHEEL, "by hand").code, ResponseCode::NO_PERMISSION);
}

#[test]
fn timers_come_in_the_order_of_their_times() {
    let mut world = World::new();
    // Some are due at the same time.
    let delays: Vec<i64> = (0..600).map(|n| (n * 7919) % 500 * 10 + 500).collect();
    for (n, delay_ms) in delays.iter().enumerate() {
        assert_eq!(send_timer(&mut world, *delay_ms, &n.to_string()).code, ResponseCode::SUCCESS);
    }
    pass(&mut world, 6_000);
    let mut expected: Vec<usize> = (0..delays.len()).collect();
    expected.sort_by_key(|n| delays[*n]);
    let expected: Vec<String> = expected.iter().map(usize::to_string).collect();
    assert_eq!(all(&mut world, "T"), expected);
}

#[test]
fn timers_on_disk_are_delivered_as_well() {
    let mut world = World::with(1, LogConfig { tail_cache_bytes: 0, ..log_config() });
    for n in 0..50 {
        send_timer(&mut world, 1_000 + n % 7, &n.to_string());
        world.send("Other", &"x".repeat(1 + 300 * n as usize));
    }
    pass(&mut world, 1_100);
    let delivered: BTreeSet<String> = all(&mut world, "T").into_iter().collect();
    assert_eq!(delivered.len(), 50);
    assert!(world.loads > 0, "the messages were in memory");
}

#[test]
fn a_long_timer_moves_on_in_the_log() {
    let mut world = World::new();
    world.shard.config.timers.roll_window_ms_max = 10_000;
    send_timer(&mut world, 25_000, "late");
    send_timer(&mut world, 9_000, "early");
    pass(&mut world, 24_900);
    assert_eq!(all(&mut world, "T"), ["early"]);
    let moved = world.pull(&pull_from(WHEEL, 0));
    assert_eq!(moved.bodies(), ["late", "early", "late", "late"]);
    pass(&mut world, 200);
    let pulled = world.pull(&pull_from("T", 1));
    assert_eq!(pulled.bodies(), ["late"]);
    let message = pulled.messages()[0];
    assert_eq!(message.properties.get(property::TIMER_ROLL_TIMES), Some("2"));
    assert_eq!(message.store_timestamp, START_MS + 25_000);
    assert!(world.shard.timers.table.is_empty());
}

fn recall(world: &mut World, topic: &str, handle: &str) -> Answered {
    let request = RecallMessageRequest { producer_group: Some("PG"), topic, recall_handle: handle };
    world.asked(PRODUCER, RequestCode::RECALL_MESSAGE, &request, b"")
}

#[test]
fn a_recalled_message_is_not_delivered() {
    let mut world = World::new();
    let handle = send_timer(&mut world, 60_000, "regretted").ext["recallHandle"].clone();
    let soon = send_timer(&mut world, 500, "hasty").ext["recallHandle"].clone();
    send_timer(&mut world, 60_000, "kept");
    // Its message is in memory already.
    world.tick(100);
    for (handle, key) in [(&soon, "key-of-hasty"), (&handle, "key-of-regretted")] {
        let recalled = recall(&mut world, "T", handle);
        assert_eq!((recalled.code, &*recalled.ext["msgId"]), (ResponseCode::SUCCESS, key));
    }
    assert_eq!(world.shard.timers.table.len(), 1);
    world.crash();
    pass(&mut world, 61_000);
    assert_eq!(all(&mut world, "T"), ["kept"]);
}

#[test]
fn a_recall_is_refused_by_rocketmqs_rules() {
    let mut world = World::new();
    let sent = send_timer(&mut world, 60_000, "x");
    let good = RecallHandle::decode(&sent.ext["recallHandle"]).unwrap();
    world.send("Other", "x");
    let cases = [
        (
            "T",
            RecallHandle { broker_name: "b".into(), ..good.clone() }.encode(),
            ResponseCode::ILLEGAL_OPERATION,
        ),
        ("Other", good.encode(), ResponseCode::ILLEGAL_OPERATION),
        ("None", good.encode(), ResponseCode::TOPIC_NOT_EXIST),
        ("T", "nonsense".into(), ResponseCode::ILLEGAL_OPERATION),
        (
            "T",
            RecallHandle { due_ms: START_MS.to_string(), ..good.clone() }.encode(),
            ResponseCode::ILLEGAL_OPERATION,
        ),
        ("T", RecallHandle { due_ms: "x".into(), ..good.clone() }.encode(), ResponseCode::ILLEGAL_OPERATION),
        // Nobody knows whether there was such a message.
        ("T", RecallHandle { unique_key: "other".into(), ..good.clone() }.encode(), ResponseCode::SUCCESS),
    ];
    for (topic, handle, code) in cases {
        assert_eq!(recall(&mut world, topic, &handle).code, code, "{topic} {handle}");
    }
    world.shard.settings.recall_enable = false;
    assert_eq!(recall(&mut world, "T", &good.encode()).code, ResponseCode::NO_PERMISSION);
    assert_eq!(world.shard.timers.table.len(), 1);
}

fn send_back(world: &mut World, offset: i64, level: i32, max: Option<i32>) -> Answered {
    let request = ConsumerSendMsgBackRequest {
        offset,
        group: "CG",
        delay_level: level,
        origin_message_id: None,
        origin_topic: Some("T"),
        unit_mode: false,
        max_reconsume_times: max,
    };
    world.asked(CONSUMER, RequestCode::CONSUMER_SEND_MSG_BACK, &request, b"")
}

#[test]
fn a_message_sent_back_comes_again_later_and_later() {
    let mut world = World::new();
    world.heartbeat(CONSUMER, "client", "CG", "T", "*");
    let sent = world.send_tagged("T", "hard to digest", "TagA");
    let mut offset = OffsetMessageId::parse(&sent.ext["msgId"]).unwrap().physical_offset;
    for (times, delay_ms) in [(1, 10_000), (2, 30_000), (3, 60_000)] {
        assert_eq!(send_back(&mut world, offset, 0, None).code, ResponseCode::SUCCESS);
        pass(&mut world, delay_ms - 100);
        assert_eq!(all(&mut world, "%RETRY%CG").len(), times - 1, "too early");
        pass(&mut world, 300);
        let pulled = world.pull(&pull_from("%RETRY%CG", times as i64 - 1));
        assert_eq!(pulled.bodies(), ["hard to digest"]);
        let message = pulled.messages()[0];
        assert_eq!(message.reconsume_times, times as i32);
        let property = |name| message.properties.get(name);
        assert_eq!(property(property::RETRY_TOPIC), Some("T"));
        assert_eq!(property(property::ORIGIN_MESSAGE_ID), Some(&*sent.ext["msgId"]));
        assert_eq!((property(property::TAGS), property(property::WAIT)), (Some("TagA"), Some("false")));
        offset = message.physical_offset;
    }
}

#[test]
fn a_message_sent_back_too_often_is_a_dead_letter() {
    let mut world = World::new();
    world.heartbeat(CONSUMER, "client", "CG", "T", "*");
    let offset = |sent: &Answered| OffsetMessageId::parse(&sent.ext["msgId"]).unwrap().physical_offset;
    let given_up = offset(&world.send("T", "given up"));
    assert_eq!(send_back(&mut world, given_up, -1, None).code, ResponseCode::SUCCESS);
    assert_eq!(all(&mut world, "%DLQ%CG"), ["given up"]);

    // The group's own limit counts when the client says none.
    let config = SubscriptionGroupConfig {
        group_name: "CG".into(),
        retry_max_times: 0,
        ..SubscriptionGroupConfig::default()
    };
    world.asked(PRODUCER, RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &NoExt, &to_fastjson(&config));
    let limited = offset(&world.send("T", "limited"));
    assert_eq!(send_back(&mut world, limited, 0, None).code, ResponseCode::SUCCESS);
    assert_eq!(all(&mut world, "%DLQ%CG"), ["given up", "limited"]);
    let pulled = world.pull(&pull_from("%DLQ%CG", 1));
    assert_eq!(pulled.messages()[0].properties.get(property::RETRY_TOPIC), Some("T"));
}

#[test]
fn a_message_that_cannot_be_sent_back_is_refused() {
    let mut world = World::new();
    let sent = world.send("T", "x");
    let offset = OffsetMessageId::parse(&sent.ext["msgId"]).unwrap().physical_offset;
    for wrong in [offset + 1, offset + 1_000_000, -1] {
        let refused = send_back(&mut world, wrong, 0, None);
        assert_eq!(refused.code, ResponseCode::SYSTEM_ERROR);
        assert_eq!(refused.remark, format!("look message by offset failed, {wrong}"));
    }
    let config = SubscriptionGroupConfig {
        group_name: "CG".into(),
        retry_queue_nums: 0,
        ..SubscriptionGroupConfig::default()
    };
    world.asked(PRODUCER, RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &NoExt, &to_fastjson(&config));
    let before = world.shard.log.marks().appended;
    assert_eq!(send_back(&mut world, offset, 0, None).code, ResponseCode::SUCCESS);
    assert_eq!(world.shard.log.marks().appended, before, "a group without retries stores nothing");
}

#[test]
fn tools_see_how_much_waits() {
    let mut world = World::new();
    send_timer(&mut world, 60_000, "a");
    send_timer(&mut world, 60_000, "b");
    let metrics = world.asked(PRODUCER, RequestCode::GET_TIMER_METRICS, &NoExt, b"");
    let metrics: TimerMetrics = parse(&metrics.body).unwrap();
    assert_eq!(
        metrics.timing_count.iter().map(|(topic, of)| (&**topic, of.count)).collect::<Vec<_>>(),
        [("T", 2)]
    );
    let check_point = world.asked(PRODUCER, RequestCode::GET_TIMER_CHECK_POINT, &NoExt, b"");
    let field = |nth: usize| i64::from_be_bytes(check_point.body[8 * nth..][..8].try_into().unwrap());
    assert_eq!((check_point.body.len(), field(0), field(2)), (56, world.now_ms, 2));
    pass(&mut world, 60_100);
    let metrics = world.asked(PRODUCER, RequestCode::GET_TIMER_METRICS, &NoExt, b"");
    assert!(parse::<TimerMetrics>(&metrics.body).unwrap().timing_count.is_empty());
}

#[test]
fn a_delivery_that_finds_no_room_is_tried_again() {
    let mut world = World::new();
    send_level(&mut world, 1, "level");
    send_timer(&mut world, 1_000, "timer");
    world.disk.set_full(true);
    let large = "x".repeat(3 << 20);
    while world.send("Other", &large).code == ResponseCode::SUCCESS {
        world.tick(1);
    }
    pass(&mut world, 3_000);
    world.disk.set_full(false);
    pass(&mut world, 5_000);
    let mut delivered = all(&mut world, "T");
    delivered.sort();
    assert_eq!(delivered, ["level", "timer"]);
}

#[test]
fn timers_of_a_deleted_topic_are_dropped() {
    let mut world = World::new();
    send_timer(&mut world, 1_000, "orphan");
    send_level(&mut world, 1, "orphan");
    let delete = apogee_net::request::DeleteTopicRequest { topic: "T" };
    assert_eq!(
        world.asked(PRODUCER, RequestCode::DELETE_TOPIC_IN_BROKER, &delete, b"").code,
        ResponseCode::SUCCESS
    );
    pass(&mut world, 1_200);
    assert!(world.shard.timers.table.is_empty());
    assert_eq!(world.shard.wake_at_ms(), None);
}

/// Messages with all kinds of delays, and the power goes at any moment: what was acknowledged is delivered exactly once,
/// and nothing before its time; what was not acknowledged, at most once.
#[test]
fn delayed_messages_survive_crashes_at_any_moment() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds = match number("APOGEE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("APOGEE_SEEDS").unwrap_or(5),
    };
    for seed in seeds {
        let mut rng = Rng::new(seed);
        let tail_cache_bytes = if rng.below(2) == 0 { 0 } else { 1 << 20 };
        let mut world = World::with(seed, LogConfig { tail_cache_bytes, ..log_config() });
        world.send("T", "made");
        // When each message may be delivered.
        let mut due: BTreeMap<String, i64> = BTreeMap::new();
        let mut sent: BTreeMap<i32, String> = BTreeMap::new();
        let mut acknowledged = BTreeSet::new();
        for step in 0..200 {
            world.shard.config.timers.roll_window_ms_max = 1_500;
            match rng.below(20) {
                0 => {
                    world.crash();
                    sent.clear();
                    world.answered.clear();
                }
                1..=7 => {
                    let body = format!("{seed}-{step}");
                    let (of, delay_ms) = if rng.below(2) == 0 {
                        ((property::DELAY, "1".to_owned()), 1_000)
                    } else {
                        let delay_ms = 1 + rng.below(4_000) as i64;
                        ((property::TIMER_DELAY_MS, delay_ms.to_string()), delay_ms)
                    };
                    let properties = properties(&[of]);
                    let send = SendMessageRequest { properties: &properties, ..send_to("T") };
                    due.insert(body.clone(), world.now_ms + delay_ms);
                    let opaque = world.ask(PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, body.as_bytes());
                    sent.insert(opaque, body);
                }
                8..=12 => {
                    // The disk does not keep up.
                    world.now_ms += rng.below(200) as i64;
                    let now_ms = world.now_ms;
                    world.shard.on_tick(now_ms);
                    world.submit();
                }
                _ => {
                    world.step();
                }
            }
            while let Some((opaque, reply)) = world.answered.pop_first() {
                let body = sent.remove(&opaque).expect("a reply to what was sent in this life");
                assert_eq!(reply.code, ResponseCode::SUCCESS, "seed {seed}: {reply:?}");
                acknowledged.insert(body);
            }
        }
        world.crash();
        pass(&mut world, 6_000);
        let mut delivered = BTreeSet::new();
        let mut next = 1;
        loop {
            let pulled = world.pull(&pull_from("T", next));
            if pulled.code != ResponseCode::SUCCESS {
                break;
            }
            for message in pulled.messages() {
                let body = String::from_utf8(message.body.to_vec()).unwrap();
                assert!(message.store_timestamp >= due[&body], "seed {seed}: {body} came early");
                assert!(delivered.insert(body.clone()), "seed {seed}: {body} came twice");
                next += 1;
            }
        }
        let missing: Vec<_> = acknowledged.difference(&delivered).collect();
        assert!(missing.is_empty(), "seed {seed}: lost {missing:?}");
        assert!(world.shard.timers.table.is_empty(), "seed {seed}");
    }
}
