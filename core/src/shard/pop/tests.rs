//! Pops over the wire format, and the table against a model.
//!
//! What holds, whenever the power goes: a message that was acknowledged in time never comes again, and one that was
//! not comes again.

pub(in crate::shard) mod table;

use std::collections::{BTreeMap, BTreeSet};

use apogee_net::body::{BatchAck, BatchAckMessageRequestBody, to_fastjson};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::NoExt;
use apogee_net::message::property;
use apogee_net::request::{
    AckMessageRequest, ChangeInvisibleTimeRequest, NotificationRequest, PeekMessageRequest,
    PollingInfoRequest, PopMessageRequest,
};
use apogee_storage::sim::Rng;

use super::super::tests::world::*;

pub(in crate::shard) const INVISIBLE_MS: i64 = 10_000;

pub(in crate::shard) fn pop_of(topic: &str) -> PopMessageRequest<'_> {
    PopMessageRequest {
        consumer_group: "CG",
        topic,
        queue_id: -1,
        messages_max: 32,
        invisible_ms: INVISIBLE_MS,
        poll_ms: 0,
        born_ms: 0,
        init_mode: 0,
        expression_type: Some("TAG"),
        expression: Some("*"),
        order: false,
        attempt_id: None,
    }
}

/// A popped message as the Java client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::shard) struct Received {
    pub(in crate::shard) body: String,
    handle: String,
    topic: String,
    queue_id: i32,
    offset: i64,
    deliveries: i32,
}

/// Makes receipt handles as `MQClientAPIImpl#processPopResponse` does.
pub(in crate::shard) fn received(reply: &Answered) -> Vec<Received> {
    let info = |field: &str| -> BTreeMap<(String, String), String> {
        let entries = reply.ext[field].split(';').filter(|entry| !entry.is_empty()).map(|entry| {
            let values: Vec<&str> = entry.split(' ').collect();
            let [retry, queue, value] = values[..] else { panic!("{entry:?}") };
            ((retry.to_owned(), queue.to_owned()), value.to_owned())
        });
        let all: Vec<_> = entries.collect();
        let map: BTreeMap<_, _> = all.iter().cloned().collect();
        assert_eq!(map.len(), all.len(), "duplicate in {field}");
        map
    };
    let (starts, offsets) = (info("startOffsetInfo"), info("msgOffsetInfo"));
    let mut seen: BTreeMap<(String, String), usize> = BTreeMap::new();
    let receive = |message: &apogee_net::message::StoredMessage<'_>| {
        let retry = message
            .properties
            .get(property::POP_CHECK_POINT)
            .map_or("0", |handle| handle.split(' ').nth(4).unwrap());
        let key = (retry.to_owned(), message.queue_id.to_string());
        let nth = seen.entry(key.clone()).or_default();
        let listed: Vec<i64> = offsets[&key].split(',').map(|offset| offset.parse().unwrap()).collect();
        assert_eq!(listed[*nth], message.queue_offset);
        *nth += 1;
        let made = format!(
            "{} {} {} {} {retry} {BROKER} {} {}",
            starts[&key],
            reply.ext["popTime"],
            reply.ext["invisibleTime"],
            reply.ext["reviveQid"],
            message.queue_id,
            message.queue_offset
        );
        let handle = message.properties.get(property::POP_CHECK_POINT).map_or(made.clone(), str::to_owned);
        assert_eq!(handle, made);
        let topic = message.topic.to_owned();
        let mut deliveries = message.reconsume_times;
        if let Some(counts) = reply.ext.get("orderCountInfo") {
            let counts: BTreeMap<&str, &str> =
                counts.split(';').filter_map(|entry| entry[2..].split_once(' ')).collect();
            let of_message = format!("qo{}%{}", message.queue_id, message.queue_offset);
            let count = counts.get(&*of_message).or_else(|| counts.get(&*message.queue_id.to_string()));
            deliveries = count.unwrap().parse().unwrap();
        }
        Received {
            body: String::from_utf8(message.body.to_vec()).unwrap(),
            topic: if retry == "1" { format!("%RETRY%CG_{topic}") } else { topic },
            handle,
            queue_id: message.queue_id,
            offset: message.queue_offset,
            deliveries,
        }
    };
    reply.messages().iter().map(receive).collect()
}

pub(in crate::shard) fn bodies(received: &[Received]) -> Vec<&str> {
    received.iter().map(|received| received.body.as_str()).collect()
}

pub(in crate::shard) fn ack_of(received: &Received) -> AckMessageRequest<'_> {
    AckMessageRequest {
        consumer_group: "CG",
        topic: &received.topic,
        queue_id: received.queue_id,
        extra_info: &received.handle,
        offset: received.offset,
    }
}

fn change_of(received: &Received, invisible_ms: i64) -> ChangeInvisibleTimeRequest<'_> {
    ChangeInvisibleTimeRequest {
        consumer_group: "CG",
        topic: &received.topic,
        queue_id: received.queue_id,
        extra_info: &received.handle,
        offset: received.offset,
        invisible_ms,
    }
}

impl World {
    fn start_pop(&mut self, pop: &PopMessageRequest<'_>) -> i32 {
        let opaque = self.ask(CONSUMER, RequestCode::POP_MESSAGE, pop, b"");
        self.settle();
        opaque
    }

    fn try_pop(&mut self, pop: &PopMessageRequest<'_>) -> Answered {
        self.asked(CONSUMER, RequestCode::POP_MESSAGE, pop, b"")
    }

    fn popped(&mut self, pop: &PopMessageRequest<'_>) -> Vec<Received> {
        let reply = self.try_pop(pop);
        match reply.code {
            ResponseCode::SUCCESS => received(&reply),
            ResponseCode::POLLING_TIMEOUT => Vec::new(),
            _ => panic!("{reply:?}"),
        }
    }

    fn ack(&mut self, received: &Received) -> ResponseCode {
        self.asked(CONSUMER, RequestCode::ACK_MESSAGE, &ack_of(received), b"").code
    }

    /// The message's new receipt handle.
    fn change(&mut self, received: &Received, invisible_ms: i64) -> Received {
        let change = change_of(received, invisible_ms);
        let reply = self.asked(CONSUMER, RequestCode::CHANGE_MESSAGE_INVISIBLETIME, &change, b"");
        assert_eq!(reply.code, ResponseCode::SUCCESS, "{reply:?}");
        let old: Vec<&str> = received.handle.split(' ').collect();
        let offset = received.offset;
        let (pop, invisible, revive) =
            (&reply.ext["popTime"], &reply.ext["invisibleTime"], &reply.ext["reviveQid"]);
        let handle = format!("{offset} {pop} {invisible} {revive} {} {} {} {offset}", old[4], old[5], old[6]);
        Received { handle, ..received.clone() }
    }
}

fn world_with(messages: &[&str]) -> World {
    let mut world = World::new();
    for message in messages {
        world.send("T", message);
    }
    world
}

#[test]
fn what_is_popped_is_hidden_and_what_is_not_acknowledged_comes_again() {
    let mut world = world_with(&["a", "b", "c"]);
    let reply = world.try_pop(&pop_of("T"));
    assert_eq!((reply.code, &*reply.remark), (ResponseCode::SUCCESS, "FOUND"));
    assert_eq!((reply.int("restNum"), reply.int("popTime")), (0, world.now_ms));
    assert_eq!((&*reply.ext["startOffsetInfo"], &*reply.ext["msgOffsetInfo"]), ("0 0 0", "0 0 0,1,2"));
    let first = received(&reply);
    let nothing = world.try_pop(&pop_of("T"));
    assert_eq!((nothing.code, &*nothing.remark), (ResponseCode::POLLING_TIMEOUT, "NO_MESSAGE_IN_QUEUE"));
    assert_eq!(world.committed_offset("CG", "T").int("offset"), 3, "tools see how far it was popped");

    assert_eq!(world.ack(&first[1]), ResponseCode::SUCCESS);
    assert_eq!(world.ack(&first[1]), ResponseCode::SUCCESS, "repeated");
    world.tick(INVISIBLE_MS - 1);
    assert_eq!(world.popped(&pop_of("T")), []);
    world.tick(1);
    let reply = world.try_pop(&pop_of("T"));
    let second = received(&reply);
    assert_eq!(bodies(&second), ["a", "c"]);
    for message in reply.messages() {
        assert_eq!((message.topic, message.reconsume_times), ("T", 1));
        assert_eq!(message.properties.get(property::FIRST_POP_TIME), Some(&*START_MS.to_string()));
    }
    // Too late: it lies in the retry topic already.
    assert_eq!(world.ack(&first[0]), ResponseCode::SUCCESS);
    assert_eq!(world.ack(&second[0]), ResponseCode::SUCCESS);
    world.tick(INVISIBLE_MS);
    let third = world.try_pop(&pop_of("T"));
    assert_eq!(third.bodies(), ["c"]);
    assert_eq!(third.messages()[0].reconsume_times, 2);
    let last = received(&third);
    assert_eq!(last[0].topic, "%RETRY%CG_T");
    assert_eq!(world.ack(&last[0]), ResponseCode::SUCCESS);
    world.tick(INVISIBLE_MS);
    assert_eq!(world.popped(&pop_of("T")), []);
    assert_eq!(world.shard.pops.check_points(), 0);
}

#[test]
fn check_points_survive_the_loss_of_power() {
    let mut world = world_with(&["a", "b", "c"]);
    let first = world.popped(&pop_of("T"));
    world.ack(&first[0]);
    let changed = world.change(&first[1], 3 * INVISIBLE_MS);
    world.crash();
    assert_eq!(world.popped(&pop_of("T")), [], "still hidden");
    world.tick(INVISIBLE_MS);
    world.crash();
    let second = world.popped(&pop_of("T"));
    assert_eq!(bodies(&second), ["c"]);
    world.ack(&second[0]);
    world.crash();
    assert_eq!(world.ack(&changed), ResponseCode::SUCCESS);
    world.tick(9 * INVISIBLE_MS);
    assert_eq!(world.popped(&pop_of("T")), []);
}

#[test]
fn all_queues_are_popped_by_turns_and_one_alone() {
    let mut world = World::new();
    world.send("T", "0");
    for queue_id in 1..4 {
        let send = apogee_net::request::SendMessageRequest { queue_id, ..send_to("T") };
        world.asked(PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, queue_id.to_string().as_bytes());
    }
    let only = world.popped(&PopMessageRequest { queue_id: 2, ..pop_of("T") });
    assert_eq!(bodies(&only), ["2"]);
    let mut seen = BTreeSet::new();
    for rest in [2, 1, 0] {
        let reply = world.try_pop(&PopMessageRequest { messages_max: 1, ..pop_of("T") });
        assert_eq!(reply.int("restNum"), rest);
        seen.extend(reply.bodies());
    }
    assert_eq!(seen, BTreeSet::from(["0".into(), "1".into(), "3".into()]));
}

#[test]
fn filters_pass_over_and_beginnings_differ() {
    let mut world = World::new();
    for tag in ["A", "B", "A"] {
        world.send_tagged("T", tag, tag);
    }
    let only_b = PopMessageRequest { expression: Some("B"), ..pop_of("T") };
    let reply = world.try_pop(&only_b);
    assert_eq!((reply.bodies(), &*reply.ext["msgOffsetInfo"]), (vec!["B".to_owned()], "0 0 1"));
    assert_eq!(&*reply.ext["startOffsetInfo"], "0 0 0");
    assert_eq!(received(&reply)[0].offset, 1);
    assert_eq!(world.popped(&only_b), []);
    assert_eq!(world.committed_offset("CG", "T").int("offset"), 3);
    // A young topic is consumed from its first message, whatever is asked for.
    let late = PopMessageRequest { consumer_group: "late", init_mode: 1, ..pop_of("T") };
    assert_eq!(world.try_pop(&late).bodies(), ["A", "B", "A"]);
    let large = "x".repeat(300_000);
    for _ in 0..5 {
        world.send("T", &large);
    }
    world.send("T", "last");
    let later = PopMessageRequest { consumer_group: "later", init_mode: 1, ..pop_of("T") };
    assert_eq!(world.try_pop(&later).bodies(), ["last"]);
}

#[test]
fn waiting_pops_are_answered_by_what_arrives_comes_again_or_not_at_all() {
    let mut world = World::new();
    world.send("T", "first");
    assert_eq!(world.popped(&pop_of("T")).len(), 1);
    let waiting = PopMessageRequest { poll_ms: 15_000, born_ms: world.now_ms, ..pop_of("T") };
    let (one, two) = (world.start_pop(&waiting), world.start_pop(&waiting));
    let info = PollingInfoRequest { consumer_group: "CG", topic: "T", queue_id: -1 };
    assert_eq!(world.asked(CONSUMER, RequestCode::POLLING_INFO, &info, b"").int("pollingNum"), 2);
    world.send("T", "new");
    assert_eq!(world.answered.remove(&one).unwrap().bodies(), ["new"]);
    assert!(!world.answered.contains_key(&two));
    world.tick(INVISIBLE_MS);
    assert_eq!(world.answered.remove(&two).unwrap().bodies(), ["first", "new"], "revived");
    let three = world.start_pop(&PopMessageRequest { born_ms: world.now_ms, poll_ms: 1_000, ..waiting });
    world.tick(999);
    assert!(!world.answered.contains_key(&three));
    world.tick(1);
    assert_eq!(world.answered.remove(&three).unwrap().code, ResponseCode::POLLING_TIMEOUT);
    let late = PopMessageRequest { born_ms: world.now_ms - 2_000, poll_ms: 1_000, ..waiting };
    assert_eq!(world.try_pop(&late).code, ResponseCode::POLLING_TIMEOUT);
    world.shard.on_connection_closed(CONSUMER, world.now_ms);
}

#[test]
fn an_ordered_queue_is_blocked_until_acknowledged_or_visible_again() {
    let mut world = world_with(&["a", "b", "c"]);
    let ordered = PopMessageRequest { order: true, queue_id: 0, messages_max: 2, ..pop_of("T") };
    let attempt = PopMessageRequest { attempt_id: Some("one"), ..ordered };
    let reply = world.try_pop(&attempt);
    assert_eq!((reply.int("reviveQid"), &*reply.ext["orderCountInfo"]), (999, "0 0 0"));
    let first = received(&reply);
    assert_eq!(bodies(&first), ["a", "b"]);
    assert_eq!(world.popped(&PopMessageRequest { attempt_id: Some("two"), ..ordered }), []);
    world.crash();
    assert_eq!(world.popped(&ordered), [], "blocked across a crash");
    assert_eq!(bodies(&world.popped(&attempt)), ["a", "b"], "the same attempt is given the same");

    // The attempt made the handles anew; those of the first time are worth nothing.
    assert_eq!(world.ack(&first[0]), ResponseCode::SUCCESS);
    assert_eq!(world.committed_offset("CG", "T").int("offset"), 0);
    world.tick(INVISIBLE_MS);
    let second = world.popped(&ordered);
    assert_eq!(second.iter().map(|message| message.deliveries).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(world.ack(&second[0]), ResponseCode::SUCCESS);
    assert_eq!(world.committed_offset("CG", "T").int("offset"), 1);
    let waiting = PopMessageRequest { poll_ms: 15_000, born_ms: world.now_ms, ..ordered };
    let opaque = world.start_pop(&waiting);
    assert_eq!(world.ack(&second[1]), ResponseCode::SUCCESS);
    world.tick(1);
    let third = received(&world.answered.remove(&opaque).unwrap());
    assert_eq!((bodies(&third), third[0].deliveries), (vec!["c"], 0));

    let changed = world.change(&third[0], 3 * INVISIBLE_MS);
    world.tick(2 * INVISIBLE_MS);
    assert_eq!(world.popped(&ordered), []);
    assert_eq!(world.ack(&changed), ResponseCode::SUCCESS);
    world.crash();
    assert_eq!(world.committed_offset("CG", "T").int("offset"), 3);
    assert_eq!(world.popped(&ordered), []);
}

#[test]
fn an_ordered_queue_wakes_who_waits_when_its_time_is_up() {
    let mut world = world_with(&["a"]);
    let ordered = PopMessageRequest { order: true, queue_id: 0, ..pop_of("T") };
    assert_eq!(world.popped(&ordered).len(), 1);
    let waiting = PopMessageRequest { poll_ms: 15_000, born_ms: world.now_ms, ..ordered };
    let opaque = world.start_pop(&waiting);
    world.tick(INVISIBLE_MS);
    let again = received(&world.answered.remove(&opaque).unwrap());
    assert_eq!((bodies(&again), again[0].deliveries), (vec!["a"], 1));
}

#[test]
fn a_changed_time_counts_and_makes_the_old_handle_worthless() {
    let mut world = world_with(&["a", "b"]);
    let first = world.popped(&pop_of("T"));
    let sooner = world.change(&first[0], 1_000);
    let later = world.change(&first[1], 60_000);
    assert_eq!(world.ack(&first[1]), ResponseCode::SUCCESS, "an old handle: answered and of no effect");
    world.tick(1_000);
    assert_eq!(bodies(&world.popped(&pop_of("T"))), ["a"]);
    // It comes again already, so nothing is left to change.
    world.change(&sooner, 1_000);
    world.tick(2_000);
    assert_eq!(world.popped(&pop_of("T")), []);
    world.tick(57_000);
    let last = world.popped(&pop_of("T"));
    assert_eq!(bodies(&last), ["a", "b"]);
    assert_eq!(world.ack(&later), ResponseCode::SUCCESS);
}

#[test]
fn a_batch_acknowledges_what_its_bits_say() {
    let mut world = world_with(&["a", "b", "c", "d"]);
    let first = world.popped(&pop_of("T"));
    let ack = |bits: &str, received: &Received| {
        let values: Vec<i64> = received.handle.split(' ').map(|value| value.parse().unwrap_or(0)).collect();
        BatchAck {
            bit_set: bits.into(),
            consumer_group: "CG".into(),
            invisible_ms: values[2],
            pop_ms: values[1],
            queue_id: received.queue_id,
            retry: values[4].to_string(),
            revive_queue_id: values[3] as i32,
            start_offset: values[0],
            topic: "T".into(),
        }
    };
    let body = |acks| to_fastjson(&BatchAckMessageRequestBody { acks, broker_name: BROKER.into() });
    let unknown = BatchAck { topic: "none".into(), ..ack("BQ==", &first[0]) };
    let acks = body(vec![unknown, ack("BQ==", &first[0]), ack("not base64", &first[0])]);
    let reply = world.asked(CONSUMER, RequestCode::BATCH_ACK_MESSAGE, &NoExt, &acks);
    assert_eq!(reply.code, ResponseCode::SUCCESS);
    let reply = world.asked(CONSUMER, RequestCode::BATCH_ACK_MESSAGE, &NoExt, &body(vec![]));
    assert_eq!(reply.code, ResponseCode::NO_MESSAGE);
    world.tick(INVISIBLE_MS);
    let second = world.popped(&pop_of("T"));
    assert_eq!(bodies(&second), ["b", "d"]);
    let acks = body(vec![ack("Aw==", &second[0])]);
    world.asked(CONSUMER, RequestCode::BATCH_ACK_MESSAGE, &NoExt, &acks);
    world.tick(INVISIBLE_MS);
    assert_eq!(world.popped(&pop_of("T")), []);
}

#[test]
fn requests_are_checked_in_rocketmqs_order() {
    let mut world = world_with(&["a"]);
    let cases = [
        (PopMessageRequest { messages_max: 33, ..pop_of("none") }, ResponseCode::INVALID_PARAMETER),
        (pop_of("none"), ResponseCode::TOPIC_NOT_EXIST),
        (PopMessageRequest { queue_id: 4, ..pop_of("T") }, ResponseCode::INVALID_PARAMETER),
        (
            PopMessageRequest { expression: Some(" || "), ..pop_of("T") },
            ResponseCode::SUBSCRIPTION_PARSE_FAILED,
        ),
    ];
    for (pop, code) in cases {
        assert_eq!(world.try_pop(&pop).code, code, "{pop:?}");
    }
    let first = world.popped(&pop_of("T"));
    let good = ack_of(&first[0]);
    let cases = [
        (AckMessageRequest { topic: "none", ..good.clone() }, ResponseCode::TOPIC_NOT_EXIST),
        (AckMessageRequest { queue_id: 4, ..good.clone() }, ResponseCode::MESSAGE_ILLEGAL),
        (AckMessageRequest { queue_id: -1, ..good.clone() }, ResponseCode::MESSAGE_ILLEGAL),
        (AckMessageRequest { offset: 2, ..good.clone() }, ResponseCode::NO_MESSAGE),
        (AckMessageRequest { extra_info: "1 2", ..good.clone() }, ResponseCode::SYSTEM_ERROR),
        (AckMessageRequest { extra_info: "9 2 3 4 0 b 0 0", ..good.clone() }, ResponseCode::SUCCESS),
        (AckMessageRequest { extra_info: "-9 2 3 4 0 b 0 0", ..good.clone() }, ResponseCode::SUCCESS),
        (AckMessageRequest { offset: 1, ..good }, ResponseCode::SUCCESS),
    ];
    for (ack, code) in cases {
        assert_eq!(world.asked(CONSUMER, RequestCode::ACK_MESSAGE, &ack, b"").code, code, "{ack:?}");
    }
    let good = change_of(&first[0], 1);
    let cases = [
        (ChangeInvisibleTimeRequest { topic: "none", ..good.clone() }, ResponseCode::TOPIC_NOT_EXIST),
        (ChangeInvisibleTimeRequest { queue_id: 4, ..good.clone() }, ResponseCode::MESSAGE_ILLEGAL),
        (ChangeInvisibleTimeRequest { offset: 1, ..good }, ResponseCode::NO_MESSAGE),
    ];
    for (change, code) in cases {
        let reply = world.asked(CONSUMER, RequestCode::CHANGE_MESSAGE_INVISIBLETIME, &change, b"");
        assert_eq!(reply.code, code, "{change:?}");
    }
}

#[test]
fn a_peek_changes_nothing_and_a_notification_waits() {
    let mut world = World::new();
    world.send("T", "a");
    let peek = PeekMessageRequest { consumer_group: "CG", topic: "T", queue_id: -1, messages_max: 8 };
    for _ in 0..2 {
        let reply = world.asked(CONSUMER, RequestCode::PEEK_MESSAGE, &peek, b"");
        assert_eq!((reply.bodies(), reply.int("restNum")), (vec!["a".to_owned()], 1));
    }
    let ask = NotificationRequest {
        consumer_group: "CG",
        topic: "T",
        queue_id: -1,
        poll_ms: 15_000,
        born_ms: 0,
        order: false,
        attempt_id: None,
    };
    assert_eq!(world.asked(CONSUMER, RequestCode::NOTIFICATION, &ask, b"").ext["hasMsg"], "true");
    assert_eq!(world.popped(&pop_of("T")).len(), 1);
    assert_eq!(
        world.asked(CONSUMER, RequestCode::PEEK_MESSAGE, &peek, b"").code,
        ResponseCode::PULL_NOT_FOUND
    );
    let opaque = world.ask(CONSUMER, RequestCode::NOTIFICATION, &ask, b"");
    world.settle();
    assert!(!world.answered.contains_key(&opaque));
    world.send("T", "b");
    assert_eq!(world.answered.remove(&opaque).unwrap().ext["hasMsg"], "true");
    world.popped(&pop_of("T"));
    let opaque = world.ask(CONSUMER, RequestCode::NOTIFICATION, &ask, b"");
    world.tick(INVISIBLE_MS);
    assert_eq!(world.answered.remove(&opaque).unwrap().ext["hasMsg"], "true", "revived");
}

#[test]
fn what_is_deleted_does_not_come_again() {
    let mut world = world_with(&["a"]);
    world.popped(&pop_of("T"));
    let delete = apogee_net::request::DeleteTopicRequest { topic: "T" };
    assert_eq!(
        world.asked(CONSUMER, RequestCode::DELETE_TOPIC_IN_BROKER, &delete, b"").code,
        ResponseCode::SUCCESS
    );
    world.tick(INVISIBLE_MS);
    assert_eq!(world.shard.pops.check_points(), 0);
    assert!(world.shard.topics.get("%RETRY%CG_T").is_none());
}

/// Pops, acknowledgements, changes and the power going at any moment.
#[test]
fn acknowledged_never_comes_again_and_everything_else_does() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds = match number("APOGEE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("APOGEE_SEEDS").unwrap_or(12),
    };
    for seed in seeds {
        let mut rng = Rng::new(seed);
        let mut world = World::with_seed(seed);
        world.send("T", "made");
        let mut sent = BTreeSet::from(["made".to_owned()]);
        let mut acked: BTreeSet<String> = BTreeSet::new();
        // Perhaps acknowledged: the answer was lost with the power, or it was too late.
        let mut tried: BTreeSet<String> = BTreeSet::new();
        // In flight: what was asked, by its number; and what is received, with when it comes again.
        let mut asked: BTreeMap<i32, Option<(String, i64)>> = BTreeMap::new();
        let mut held: Vec<(Received, i64)> = Vec::new();
        for step in 0..400 {
            match rng.below(24) {
                0 => {
                    world.crash();
                    asked.clear();
                    world.answered.clear();
                }
                1..=3 => {
                    let body = format!("{seed}-{step}");
                    let queue_id = rng.below(4) as i32;
                    let send = apogee_net::request::SendMessageRequest { queue_id, ..send_to("T") };
                    let opaque = world.ask(PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, body.as_bytes());
                    asked.insert(opaque, None);
                    sent.insert(body);
                }
                4..=6 => {
                    let pop = PopMessageRequest { messages_max: 1 + rng.below(4) as i32, ..pop_of("T") };
                    let opaque = world.ask(CONSUMER, RequestCode::POP_MESSAGE, &pop, b"");
                    asked.insert(opaque, None);
                }
                7..=9 if !held.is_empty() => {
                    let (received, due_ms) = held.swap_remove(rng.below(held.len() as u64) as usize);
                    let opaque = world.ask(CONSUMER, RequestCode::ACK_MESSAGE, &ack_of(&received), b"");
                    let in_time = world.now_ms < due_ms;
                    tried.insert(received.body.clone());
                    asked.insert(opaque, in_time.then_some((received.body, due_ms)));
                }
                10 if !held.is_empty() => {
                    let (received, _) = held.swap_remove(rng.below(held.len() as u64) as usize);
                    let change = change_of(&received, 1 + rng.below(20_000) as i64);
                    let code = RequestCode::CHANGE_MESSAGE_INVISIBLETIME;
                    let opaque = world.ask(CONSUMER, code, &change, b"");
                    asked.insert(opaque, None);
                }
                11 => {
                    world.now_ms += rng.below(6_000) as i64;
                    world.shard.on_tick(world.now_ms);
                    world.submit();
                }
                _ => {
                    world.step();
                }
            }
            while let Some((opaque, reply)) = world.answered.pop_first() {
                let Some(asked) = asked.remove(&opaque) else { continue };
                if let Some((body, _)) = asked {
                    assert_eq!(reply.code, ResponseCode::SUCCESS, "seed {seed}: {reply:?}");
                    acked.insert(body);
                }
                if reply.ext.contains_key("startOffsetInfo") && reply.code == ResponseCode::SUCCESS {
                    let due_ms = reply.int("popTime") + INVISIBLE_MS;
                    for received in received(&reply) {
                        assert!(!acked.contains(&received.body), "seed {seed}: {received:?} came again");
                        held.push((received, due_ms));
                    }
                }
            }
        }
        world.crash();
        world.answered.clear();
        let mut came: BTreeSet<String> = BTreeSet::new();
        // Every check point's time passes, and the retry topic is emptied.
        for _ in 0..12 {
            world.tick(25_000);
            loop {
                let popped = world.popped(&pop_of("T"));
                for received in &popped {
                    assert!(!acked.contains(&received.body), "seed {seed}: {received:?} came again");
                    came.insert(received.body.clone());
                    world.ack(received);
                }
                if popped.is_empty() {
                    break;
                }
            }
        }
        assert_eq!(world.shard.pops.check_points(), 0, "seed {seed}");
        let stored: BTreeSet<String> = (0..4)
            .flat_map(|queue_id| {
                let pull = apogee_net::request::PullMessageRequest {
                    queue_id,
                    messages_max: 1000,
                    ..pull_from("T", 0)
                };
                world.pull(&pull).bodies()
            })
            .collect();
        assert!(stored.is_subset(&sent));
        let lost: Vec<_> =
            stored.iter().filter(|body| !tried.contains(*body) && !came.contains(*body)).collect();
        assert!(lost.is_empty(), "seed {seed}: {lost:?} never came");
    }
}

/// Sends with a property `n`.
fn send_numbered(world: &mut World, body: &str, n: i32) {
    let properties = format!("n\u{1}{n}\u{2}");
    let send = apogee_net::request::SendMessageRequest { properties: &properties, ..send_to("T") };
    world.asked(PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, body.as_bytes());
}

#[test]
fn an_expression_decides_by_properties_in_memory_on_disk_and_when_it_comes_again() {
    let mut world = World::new();
    let sql = PopMessageRequest { expression_type: Some("SQL92"), expression: Some("n > 5"), ..pop_of("T") };
    // More than the tail cache holds: the first messages are on disk only.
    let large = "x".repeat(300_000);
    for n in [7, 1, 9, 2, 8] {
        send_numbered(&mut world, &large, n);
    }
    send_numbered(&mut world, "small", 6);
    let mut seen = Vec::new();
    loop {
        let reply = world.try_pop(&PopMessageRequest { messages_max: 2, ..sql });
        if reply.code != ResponseCode::SUCCESS {
            assert_eq!(reply.code, ResponseCode::POLLING_TIMEOUT, "{reply:?}");
            break;
        }
        let of_n = |message: &apogee_net::message::StoredMessage<'_>| {
            message.properties.get("n").unwrap().parse::<i32>().unwrap()
        };
        seen.extend(reply.messages().iter().map(of_n));
        for received in received(&reply).iter().filter(|received| received.body != "small") {
            assert_eq!(world.ack(received), ResponseCode::SUCCESS);
        }
    }
    assert_eq!(seen, [7, 9, 8, 6]);
    assert_eq!(world.committed_offset("CG", "T").int("offset"), 6);
    world.crash();
    world.tick(INVISIBLE_MS);
    let again = world.try_pop(&sql);
    assert_eq!(bodies(&received(&again)), ["small"]);
    let bad = PopMessageRequest { expression: Some("n >"), ..sql };
    assert_eq!(world.try_pop(&bad).code, ResponseCode::SUBSCRIPTION_PARSE_FAILED);
}

#[test]
fn a_waiting_expression_is_answered_by_what_it_wants() {
    let mut world = World::new();
    send_numbered(&mut world, "first", 1);
    let sql = PopMessageRequest {
        expression_type: Some("SQL92"),
        expression: Some("n > 5"),
        poll_ms: 15_000,
        born_ms: world.now_ms,
        ..pop_of("T")
    };
    let opaque = world.start_pop(&sql);
    send_numbered(&mut world, "no", 2);
    assert!(!world.answered.contains_key(&opaque));
    send_numbered(&mut world, "yes", 6);
    assert_eq!(world.answered.remove(&opaque).unwrap().bodies(), ["yes"]);
    let opaque = world.start_pop(&sql);
    world.tick(INVISIBLE_MS);
    let reply = world.answered.remove(&opaque).unwrap();
    assert_eq!(reply.code, ResponseCode::SUCCESS, "what was popped first came again: {reply:?}");
    let opaque = world.start_pop(&PopMessageRequest { born_ms: world.now_ms, poll_ms: 1_000, ..sql });
    world.tick(1_000);
    assert_eq!(world.answered.remove(&opaque).unwrap().code, ResponseCode::POLLING_TIMEOUT);
    assert!(world.shard.popping.polls.is_empty());
}

#[test]
fn queues_are_shared_out_as_the_mode_says() {
    use apogee_net::body::{
        MessageRequestMode, QueryAssignmentRequestBody, QueryAssignmentResponseBody, QueueData,
        SetMessageRequestModeRequestBody, TopicRouteData, parse,
    };

    let mut world = world_with(&["a"]);
    world.heartbeat(CONSUMER, "client-1", "CG", "T", "*");
    world.heartbeat(PRODUCER, "client-2", "CG", "T", "*");
    let wanted = QueryAssignmentRequestBody {
        client_id: "client-2".into(),
        consumer_group: "CG".into(),
        strategy_name: "AVG".into(),
        topic: "T".into(),
        ..Default::default()
    };
    let route = || {
        let queues = |broker: &str| QueueData {
            broker_name: broker.into(),
            perm: 6,
            read_queue_nums: 4,
            write_queue_nums: 4,
            ..Default::default()
        };
        let queue_datas = vec![queues("broker-b-0"), queues(BROKER)];
        crate::shard::assignment::FoundRoute::Found(Box::new(TopicRouteData {
            queue_datas,
            ..Default::default()
        }))
    };
    let ask = |world: &mut World, wanted: &QueryAssignmentRequestBody| {
        let opaque = world.ask(CONSUMER, RequestCode::QUERY_ASSIGNMENT, &NoExt, &to_fastjson(wanted));
        for topic in std::mem::take(&mut world.route_asked) {
            world.shard.on_route(&topic, route(), world.now_ms);
        }
        world.settle();
        let reply = world.answered.remove(&opaque).unwrap();
        assert_eq!(reply.code, ResponseCode::SUCCESS);
        let body: QueryAssignmentResponseBody = parse(&reply.body).unwrap();
        body.assignments.map(|assigned| {
            let of = |assigned: apogee_net::body::MessageQueueAssignment| {
                (assigned.queue.broker_name, assigned.queue.queue_id, assigned.mode)
            };
            assigned.into_iter().map(of).collect::<Vec<_>>()
        })
    };
    let pulled: Vec<_> = (0..4).map(|id| ("broker-b-0".to_owned(), id, MessageRequestMode::Pull)).collect();
    assert_eq!(ask(&mut world, &wanted), Some(pulled));
    let unknown = QueryAssignmentRequestBody { strategy_name: "MACHINE_ROOM".into(), ..wanted.clone() };
    assert_eq!(ask(&mut world, &unknown), None);
    let stranger = QueryAssignmentRequestBody { consumer_group: "nobody".into(), ..wanted.clone() };
    assert_eq!(ask(&mut world, &stranger), None);

    let set = |topic: &str| {
        to_fastjson(&SetMessageRequestModeRequestBody {
            consumer_group: "CG".into(),
            mode: MessageRequestMode::Pop,
            pop_share_queue_num: 0,
            topic: topic.into(),
        })
    };
    for (topic, code) in [
        ("%RETRY%CG", ResponseCode::NO_PERMISSION),
        ("none", ResponseCode::TOPIC_NOT_EXIST),
        ("T", ResponseCode::SUCCESS),
    ] {
        let reply = world.asked(CONSUMER, RequestCode::SET_MESSAGE_REQUEST_MODE, &NoExt, &set(topic));
        assert_eq!(reply.code, code, "{topic}");
    }
    world.crash();
    world.heartbeat(CONSUMER, "client-2", "CG", "T", "*");
    let popped: Vec<_> =
        [BROKER, "broker-b-0"].map(|broker| (broker.to_owned(), -1, MessageRequestMode::Pop)).into();
    assert_eq!(ask(&mut world, &wanted), Some(popped));
    let all = world.asked(CONSUMER, RequestCode::GET_ALL_MESSAGE_REQUEST_MODE, &NoExt, b"");
    assert_eq!(
        String::from_utf8(all.body).unwrap(),
        r#"{"messageRequestModeMap":{"T":{"CG":{"consumerGroup":"CG","mode":"POP","popShareQueueNum":0,"topic":"T"}}}}"#
    );
}
