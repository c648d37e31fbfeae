//! Transactions as producers and consumers see them, over the wire form.

use std::collections::{BTreeMap, BTreeSet};

use apogee_net::body::{HeartbeatData, ProducerData, to_fastjson};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::RequestHead;
use apogee_net::flags::MessageSysFlag;
use apogee_net::header::NoExt;
use apogee_net::io::ConnectionId;
use apogee_net::message::{OffsetMessageId, StoredMessage, property};
use apogee_net::request::{EndTransactionRequest, ResumeCheckHalfMessageRequest, SendMessageRequest};
use apogee_storage::sim::Rng;
use apogee_storage::{LogConfig, Retention};

use crate::shard::tests::world::*;
use crate::shard::topics;

const COMMIT: i32 = MessageSysFlag::TRANSACTION_COMMIT.0;
const ROLLBACK: i32 = MessageSysFlag::TRANSACTION_ROLLBACK.0;
const UNKNOWN: i32 = 0;

/// What a producer remembers of a half message.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Half {
    offset: i64,
    log_offset: i64,
}

fn half_of(sent: &Answered) -> Half {
    assert_eq!(sent.code, ResponseCode::SUCCESS, "{}", sent.remark);
    let id = OffsetMessageId::parse(&sent.ext["msgId"]).unwrap();
    Half { offset: sent.int("queueOffset"), log_offset: id.physical_offset }
}

fn verdict(half: Half, commit_or_rollback: i32) -> EndTransactionRequest<'static> {
    EndTransactionRequest {
        producer_group: "PG",
        tran_state_table_offset: half.offset,
        commit_log_offset: half.log_offset,
        commit_or_rollback,
        from_check: false,
        msg_id: "KEY",
        transaction_id: None,
    }
}

impl World {
    fn try_half(&mut self, body: &str, more: &str) -> Answered {
        let properties = format!("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}PG\u{2}UNIQ_KEY\u{1}KEY{body}\u{2}{more}");
        let send = SendMessageRequest {
            properties: &properties,
            sys_flag: MessageSysFlag::TRANSACTION_PREPARED,
            born_timestamp: self.now_ms,
            ..send_to("T")
        };
        self.asked(PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, body.as_bytes())
    }

    fn half(&mut self, body: &str) -> Half {
        let sent = self.try_half(body, "");
        half_of(&sent)
    }

    fn end(&mut self, end: &EndTransactionRequest<'_>) -> Answered {
        self.asked(PRODUCER, RequestCode::END_TRANSACTION, end, b"")
    }

    /// Gives a verdict as clients do, without waiting for the disk.
    fn end_oneway(&mut self, end: &EndTransactionRequest<'_>) {
        let head = RequestHead { code: RequestCode::END_TRANSACTION, opaque: 0, oneway: true, ext: end };
        self.request(PRODUCER, head, b"");
    }

    fn produce(&mut self, connection: ConnectionId, client_id: &str) {
        let data = HeartbeatData {
            client_id: client_id.into(),
            producer_data_set: vec![ProducerData { group_name: "PG".into() }],
            ..Default::default()
        };
        let beat = self.asked(connection, RequestCode::HEART_BEAT, &NoExt, &to_fastjson(&data));
        assert_eq!(beat.code, ResponseCode::SUCCESS);
    }

    /// Lets time pass, ticking every second, with the producer alive; gives the checks that were pushed.
    fn checks_within(&mut self, seconds: i64) -> Vec<Pushed> {
        for _ in 0..seconds {
            self.produce(PRODUCER, "producer");
            self.tick(1_000);
        }
        let mut pushed = std::mem::take(&mut self.pushed);
        pushed.retain(|pushed| pushed.code == RequestCode::CHECK_TRANSACTION_STATE);
        pushed
    }

    /// Bodies of all messages in queue 0 of a topic.
    fn all_bodies(&mut self, topic: &str) -> Vec<String> {
        let mut bodies = Vec::new();
        loop {
            let pulled = self.pull(&pull_from(topic, bodies.len() as i64));
            if pulled.code != ResponseCode::SUCCESS {
                return bodies;
            }
            bodies.extend(pulled.bodies());
        }
    }
}

fn field(pushed: &Pushed, name: &str) -> i64 {
    pushed.ext[name].parse().unwrap()
}

#[test]
fn a_half_message_is_seen_once_it_is_committed() {
    let mut world = World::new();
    world.send("T", "first");
    let sent = world.try_half("second", "TAGS\u{1}a\u{2}");
    let half = half_of(&sent);
    assert_eq!(
        (sent.int("queueId"), sent.int("queueOffset")),
        (0, 0),
        "its queue, its offset among half messages"
    );
    assert_eq!(sent.ext["transactionId"], "KEYsecond");
    assert_eq!(world.all_bodies("T"), ["first"]);
    let stored = world.pull(&pull_from(topics::HALF, 0));
    let message = stored.messages()[0];
    assert_eq!(message.physical_offset, half.log_offset);
    assert_eq!(message.sys_flag.transaction(), MessageSysFlag(0));
    for (name, value) in [
        (property::REAL_TOPIC, "T"),
        (property::REAL_QUEUE_ID, "0"),
        (property::TRANSACTION_ID, "KEYsecond"),
        (property::CLUSTER, "DefaultCluster"),
    ] {
        assert_eq!(message.properties.get(name), Some(value), "{name}");
    }

    let ended = world.end(&verdict(half, COMMIT));
    assert_eq!(ended.code, ResponseCode::SUCCESS, "{}", ended.remark);
    let pulled = world.pull(&pull_from("T", 1));
    let committed = pulled.messages()[0];
    assert_eq!((committed.topic, committed.queue_id, committed.body), ("T", 0, &b"second"[..]));
    assert_eq!(committed.sys_flag.transaction(), MessageSysFlag::TRANSACTION_COMMIT);
    assert_eq!(committed.prepared_transaction_offset, half.log_offset);
    assert_eq!(committed.born_host, message.born_host);
    assert_eq!(committed.born_timestamp, message.born_timestamp);
    assert_eq!(committed.properties.get(property::TAGS), Some("a"));

    for again in [COMMIT, ROLLBACK] {
        let ended = world.end(&verdict(half, again));
        assert_eq!(ended.code, ResponseCode::SYSTEM_ERROR);
        assert_eq!(ended.remark, "Find prepared transaction message failed");
    }
    assert_eq!(world.all_bodies("T"), ["first", "second"]);
    assert_eq!(world.checks_within(60).len(), 0);
}

#[test]
fn a_rolled_back_message_never_appears() {
    let mut world = World::new();
    let half = world.half("never");
    assert_eq!(world.end(&verdict(half, ROLLBACK)).code, ResponseCode::SUCCESS);
    assert_eq!(world.end(&verdict(half, COMMIT)).code, ResponseCode::SYSTEM_ERROR);
    world.crash();
    assert_eq!(world.end(&verdict(half, COMMIT)).code, ResponseCode::SYSTEM_ERROR);
    assert_eq!(world.checks_within(60).len(), 0);
    assert_eq!(world.all_bodies("T"), [""; 0]);
}

#[test]
fn verdicts_are_checked_as_rocketmq_checks_them() {
    let mut world = World::new();
    let ordinary = world.send("T", "ordinary");
    let ordinary_at = OffsetMessageId::parse(&ordinary.ext["msgId"]).unwrap().physical_offset;
    let half = world.half("h");
    let other = world.half("other");
    let good = verdict(half, COMMIT);
    let not_found = "Find prepared transaction message failed";
    let rows = [
        (EndTransactionRequest { producer_group: "other", ..good.clone() }, "The producer group wrong"),
        (
            EndTransactionRequest { tran_state_table_offset: other.offset, ..good.clone() },
            "The transaction state table offset wrong",
        ),
        (EndTransactionRequest { commit_log_offset: half.log_offset + 1, ..good.clone() }, not_found),
        (EndTransactionRequest { commit_log_offset: 1 << 50, ..good.clone() }, not_found),
        (EndTransactionRequest { commit_log_offset: -1, ..good.clone() }, not_found),
        (EndTransactionRequest { commit_log_offset: ordinary_at, ..good.clone() }, not_found),
        (EndTransactionRequest { commit_or_rollback: 7, ..good.clone() }, "commitOrRollback field wrong"),
    ];
    for (end, remark) in rows {
        let ended = world.end(&end);
        assert_eq!((ended.code, &*ended.remark), (ResponseCode::SYSTEM_ERROR, remark), "{end:?}");
    }
    let unknown = world.ask(PRODUCER, RequestCode::END_TRANSACTION, &verdict(half, UNKNOWN), b"");
    world.settle();
    assert!(!world.answered.contains_key(&unknown), "RocketMQ answers nothing to this");
    assert_eq!(world.end(&good).code, ResponseCode::SUCCESS, "nothing above has ended it");
}

#[test]
fn after_its_immunity_a_verdict_must_follow_a_check() {
    let mut world = World::new();
    let sent = world.try_half("h", "CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}10\u{2}");
    let half = half_of(&sent);
    world.tick(10_001);
    assert_eq!(world.end(&verdict(half, COMMIT)).code, ResponseCode::ILLEGAL_OPERATION);
    let checked = EndTransactionRequest { from_check: true, ..verdict(half, COMMIT) };
    assert_eq!(world.end(&checked).code, ResponseCode::SUCCESS);
    assert_eq!(world.all_bodies("T"), ["h"]);
}

#[test]
fn a_producer_is_asked_and_its_answer_counts() {
    let mut world = World::new();
    assert_eq!(world.checks_within(40).len(), 0);
    let half = world.half("h");
    assert_eq!(world.checks_within(5).len(), 0, "not before 6 s");
    let checks = world.checks_within(1);
    let [check] = &checks[..] else { panic!("{checks:?}") };
    assert_eq!((check.to, check.answered_as), (PRODUCER, None));
    assert_eq!(field(check, "tranStateTableOffset"), half.offset);
    assert_eq!(field(check, "commitLogOffset"), half.log_offset);
    for (name, value) in
        [("msgId", "KEYh"), ("transactionId", "KEYh"), ("bname", BROKER), ("topic", topics::HALF)]
    {
        assert_eq!(check.ext[name], value, "{name}");
    }
    assert_eq!(OffsetMessageId::parse(&check.ext["offsetMsgId"]).unwrap().physical_offset, half.log_offset);
    let message = StoredMessage::decode(&check.body).unwrap();
    assert_eq!((message.topic, message.queue_id, message.body), ("T", 0, &b"h"[..]));
    assert_eq!((message.queue_offset, message.physical_offset), (half.offset, half.log_offset));
    assert_eq!(message.properties.get(property::TRANSACTION_CHECK_TIMES), Some("1"));
    assert_eq!(message.properties.get(property::PRODUCER_GROUP), Some("PG"));

    world.end_oneway(&EndTransactionRequest { from_check: true, ..verdict(half, UNKNOWN) });
    assert_eq!(world.checks_within(29).len(), 0);
    assert_eq!(world.checks_within(1).len(), 1, "every 30 s");
    world.end_oneway(&EndTransactionRequest { from_check: true, ..verdict(half, COMMIT) });
    assert_eq!(world.checks_within(60).len(), 0);
    assert_eq!(world.all_bodies("T"), ["h"]);
}

#[test]
fn a_half_message_may_ask_for_more_time() {
    let mut world = World::new();
    world.checks_within(30);
    world.try_half("h", "CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}20\u{2}DELAY\u{1}3\u{2}");
    assert_eq!(world.checks_within(19).len(), 0);
    assert_eq!(world.checks_within(1).len(), 1);
}

#[test]
fn what_old_clients_send_back_is_no_half_message() {
    let mut world = World::new();
    world.heartbeat(CONSUMER, "consumer", "CG", "T", "*");
    let properties = "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}PG\u{2}DELAY\u{1}3\u{2}";
    let again = SendMessageRequest { properties, reconsume_times: 1, ..send_to("%RETRY%CG") };
    let sent = world.asked(CONSUMER, RequestCode::SEND_MESSAGE_V2, &again, b"again");
    assert_eq!(sent.code, ResponseCode::SUCCESS, "{}", sent.remark);
    assert!(world.shard.transactions.table.is_empty());
    let first = SendMessageRequest { reconsume_times: 0, ..again };
    world.asked(CONSUMER, RequestCode::SEND_MESSAGE_V2, &first, b"first");
    let upper_case = SendMessageRequest { properties: "TRAN_MSG\u{1}TRUE\u{2}", ..send_to("T") };
    world.asked(PRODUCER, RequestCode::SEND_MESSAGE_V2, &upper_case, b"half");
    assert_eq!(world.shard.transactions.table.len(), 2);
}

#[test]
fn producers_of_the_group_are_asked_in_turn() {
    let mut world = World::new();
    for body in ["a", "b", "c"] {
        world.half(body);
    }
    world.tick(29_000);
    world.produce(PRODUCER, "one");
    world.produce(ConnectionId(9), "two");
    world.tick(1_000);
    let asked: Vec<_> = world.take_pushed().into_iter().map(|(to, _)| to).collect();
    assert_eq!(asked, [PRODUCER, ConnectionId(9), PRODUCER]);
}

#[test]
fn after_too_many_checks_the_message_is_given_up() {
    let mut world = World::new();
    let half = world.half("h");
    assert_eq!(world.checks_within(30 * 15 + 29).len(), 15);
    assert_eq!(world.all_bodies(topics::CHECKED_TOO_OFTEN), [""; 0]);
    assert_eq!(world.checks_within(40).len(), 0);
    let given_up = world.pull(&pull_from(topics::CHECKED_TOO_OFTEN, 0));
    let message = given_up.messages()[0];
    assert_eq!(message.body, b"h");
    assert_eq!(message.properties.get(property::REAL_TOPIC), Some("T"));
    assert_eq!(message.properties.get(property::TRANSACTION_CHECK_TIMES), Some("15"));
    assert_eq!(world.end(&verdict(half, COMMIT)).code, ResponseCode::SYSTEM_ERROR);

    let id = message.offset_message_id().to_string();
    let of_half =
        OffsetMessageId { physical_offset: half.log_offset, ..message.offset_message_id() }.to_string();
    for bad in ["", "00", of_half.as_str()] {
        let ext = ResumeCheckHalfMessageRequest { topic: None, msg_id: Some(bad) };
        let resumed = world.asked(PRODUCER, RequestCode::RESUME_CHECK_HALF_MESSAGE, &ext, b"");
        assert_eq!(resumed.code, ResponseCode::SYSTEM_ERROR, "{bad}");
    }
    let ext = ResumeCheckHalfMessageRequest { topic: None, msg_id: Some(&id) };
    let resumed = world.asked(PRODUCER, RequestCode::RESUME_CHECK_HALF_MESSAGE, &ext, b"");
    assert_eq!(resumed.code, ResponseCode::SUCCESS, "{}", resumed.remark);
    world.crash();
    let checks = world.checks_within(40);
    let [check] = &checks[..] else { panic!("{checks:?}") };
    let again =
        Half { offset: field(check, "tranStateTableOffset"), log_offset: field(check, "commitLogOffset") };
    assert_ne!(again, half);
    assert_eq!(world.end(&verdict(again, COMMIT)).code, ResponseCode::SUCCESS);
    assert_eq!(world.all_bodies("T"), ["h"]);
}

#[test]
fn checks_count_without_a_producer_and_survive_a_crash() {
    let mut world = World::new();
    world.half("h");
    // The first check falls due when checking begins, 30 s after the start; ten come until 300 s.
    for _ in 0..302 {
        world.tick(1_000);
    }
    assert_eq!(world.pushed.len(), 0);
    world.crash();
    assert_eq!(world.checks_within(600).len(), 5, "of fifteen");
    assert_eq!(world.all_bodies(topics::CHECKED_TOO_OFTEN), ["h"]);
    world.crash();
    assert_eq!(world.checks_within(100).len(), 0);
    assert_eq!(world.all_bodies(topics::CHECKED_TOO_OFTEN), ["h"], "once");
}

#[test]
fn half_messages_are_refused_when_not_wanted_or_too_many() {
    let mut world = World::new();
    world.shard.transactions.pending_max = 2;
    let first = world.half("a");
    world.half("b");
    let refused = world.try_half("c", "");
    assert_eq!(refused.code, ResponseCode::SERVICE_NOT_AVAILABLE);
    assert!(refused.remark.contains("2 transactions wait"), "{}", refused.remark);
    assert_eq!(world.send("T", "ordinary").code, ResponseCode::SUCCESS);
    assert_eq!(world.end(&verdict(first, ROLLBACK)).code, ResponseCode::SUCCESS);
    world.half("c");

    world.shard.settings.reject_transactions = true;
    let refused = world.try_half("d", "");
    assert_eq!(refused.code, ResponseCode::NO_PERMISSION);
    assert_eq!(refused.remark, "the broker[127.0.0.1] sending transaction message is forbidden");
}

#[test]
fn many_checks_are_spread_over_ticks() {
    let mut world = World::new();
    for number in 0..100 {
        world.half(&number.to_string());
    }
    world.produce(PRODUCER, "producer");
    world.tick(30_000);
    let first = world.take_pushed().len();
    assert!((1..=32).contains(&first), "{first} in one tick");
    assert_eq!(world.shard.wake_at_ms().map(|at| at <= world.now_ms), Some(true), "the rest is due");
    for _ in 0..3 {
        world.tick(5);
    }
    assert_eq!(first + world.take_pushed().len(), 100);
}

/// Ten messages of 100 kB fill a segment.
fn small_segments(retention: Retention) -> LogConfig {
    LogConfig {
        segment_bytes: 1 << 20,
        batch_bytes_max: 1 << 20,
        tail_cache_bytes: 0,
        reserve_bytes: 0,
        snapshot_pause_ms: 100,
        retention,
        ..log_config()
    }
}

#[test]
fn half_messages_are_moved_before_their_segment_leaves() {
    let retention = Retention { age_ms: None, bytes: Some(6 << 20), may_reclaim: false };
    let mut world = World::with(1, small_segments(retention));
    let half = world.half("kept");
    let filler = "x".repeat(100_000);
    let mut sent = 0;
    while world.shard.log.min_offset(world.shard.half_queue()).0 == 0 {
        world.send("Filler", &filler);
        world.tick(100);
        sent += 1;
        assert!(sent < 200, "its segment does not leave");
    }
    assert_eq!(world.all_bodies(topics::CHECKED_TOO_OFTEN), ["kept"]);
    assert_eq!(world.end(&verdict(half, COMMIT)).code, ResponseCode::SYSTEM_ERROR);
    assert!(world.shard.transactions.table.is_empty());
}

#[test]
fn a_half_message_on_disk_is_checked_and_committed_all_the_same() {
    let retention = Retention { age_ms: None, bytes: None, may_reclaim: false };
    let mut world = World::with(1, small_segments(retention));
    let half = world.half("old");
    let filler = "x".repeat(100_000);
    for _ in 0..40 {
        world.send("Filler", &filler);
        world.tick(100);
    }
    world.disk.evict_indexes(100);
    let loads = world.loads;
    assert_eq!(world.checks_within(31).len(), 1);
    assert!(world.loads > loads, "nothing was read from disk");
    assert_eq!(world.end(&verdict(half, COMMIT)).code, ResponseCode::SUCCESS);
    assert_eq!(world.all_bodies("T"), ["old"]);
}

#[test]
fn a_topic_that_is_gone_takes_no_commit() {
    let mut world = World::new();
    let half = world.half("h");
    let delete = apogee_net::request::DeleteTopicRequest { topic: "T" };
    assert_eq!(
        world.asked(PRODUCER, RequestCode::DELETE_TOPIC_IN_BROKER, &delete, b"").code,
        ResponseCode::SUCCESS
    );
    assert_eq!(world.end(&verdict(half, COMMIT)).code, ResponseCode::TOPIC_NOT_EXIST);
    world.send("T", "made anew");
    assert_eq!(world.end(&verdict(half, COMMIT)).code, ResponseCode::SUCCESS);
    assert_eq!(world.all_bodies("T"), ["made anew", "h"]);
}

/// Whatever the moment of the crash, a message of a committed transaction is there exactly once, and one that was not
/// committed is asked about.
#[test]
fn a_crash_at_any_moment_leaves_a_transaction_whole() {
    let mut outcomes = BTreeSet::new();
    for steps in 0..12 {
        let mut world = World::with_seed(steps);
        let half = world.half("h");
        world.end_oneway(&verdict(half, COMMIT));
        for _ in 0..steps {
            world.step();
        }
        world.crash();
        let is_committed = world.all_bodies("T") == ["h"];
        outcomes.insert(is_committed);
        let checks = world.checks_within(40);
        assert_eq!(checks.len(), usize::from(!is_committed), "after {steps} steps");
        let again = world.end(&verdict(half, COMMIT)).code;
        assert_eq!(again == ResponseCode::SUCCESS, !is_committed);
        world.crash();
        assert_eq!(world.all_bodies("T"), ["h"], "after {steps} steps");
    }
    assert_eq!(outcomes.len(), 2, "all crashes came at one side of the commit");
}

/// Half messages, verdicts, checks, time and crashes in any order, against a model: what was acknowledged as committed is
/// there once, what was rolled back is not, what is pending is pending, and what no answer was heard of is one of these.
#[test]
fn any_history_agrees_with_a_model() {
    for seed in 0..10 {
        let mut rng = Rng::new(seed);
        let mut world = World::with_seed(seed);
        world.shard.settings.transaction_checks_max = 1_000;
        let mut pending: BTreeMap<String, Half> = BTreeMap::new();
        let mut committed = BTreeSet::new();
        // A verdict on its way when the power went: committed, or pending still.
        let mut either = BTreeMap::new();
        for number in 0..60 {
            match rng.below(10) {
                0..=3 => {
                    let body = format!("{seed}-{number}");
                    let half = world.half(&body);
                    pending.insert(body, half);
                }
                4..=6 => {
                    let nth = rng.below(pending.len().max(1) as u64) as usize;
                    let Some((body, half)) =
                        pending.iter().nth(nth).map(|(body, half)| (body.clone(), *half))
                    else {
                        continue;
                    };
                    let commits = rng.chance(60);
                    let end = verdict(half, if commits { COMMIT } else { ROLLBACK });
                    assert_eq!(world.end(&end).code, ResponseCode::SUCCESS);
                    pending.remove(&body);
                    if commits {
                        committed.insert(body);
                    }
                }
                7 => {
                    world.checks_within(1 + rng.below(40) as i64);
                }
                8 => {
                    if let Some((body, half)) = pending.pop_last() {
                        world.end_oneway(&verdict(half, COMMIT));
                        for _ in 0..rng.below(6) {
                            world.step();
                        }
                        either.insert(body, half);
                    }
                    world.crash();
                    world.shard.settings.transaction_checks_max = 1_000;
                }
                _ => {
                    world
                        .end(&verdict(Half { offset: 1 << 40, log_offset: rng.below(5_000) as i64 }, COMMIT));
                }
            }
        }
        for (body, half) in either {
            // Once more: it ends what is pending, and what is not it leaves as it is.
            world.end(&verdict(half, COMMIT));
            committed.insert(body);
        }
        let mut seen = world.all_bodies("T");
        seen.sort();
        assert_eq!(seen, committed.into_iter().collect::<Vec<_>>(), "seed {seed}");
        let found: BTreeSet<_> = world
            .shard
            .transactions
            .table
            .from(apogee_storage::QueueOffset(0))
            .map(|half| half.0 as i64)
            .collect();
        assert_eq!(found, pending.values().map(|half| half.offset).collect(), "seed {seed}");
    }
}
