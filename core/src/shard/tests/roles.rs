//! What clients notice of a shard whose group changes its leader.

use apogee_net::body::{
    HaRuntimeInfo, HeartbeatData, LockBatchRequestBody, LockBatchResponseBody, MessageQueue, ProducerData,
    parse, to_fastjson,
};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::RequestHead;
use apogee_net::flags::{MessageSysFlag, Perm, PullSysFlag};
use apogee_net::header::NoExt;
use apogee_net::message::{OffsetMessageId, property};
use apogee_net::request::{
    CreateTopicRequest, EndTransactionRequest, GetMaxOffsetRequest, GetTopicConfigRequest,
    PullMessageRequest, QueryConsumerOffsetRequest, SendMessageRequest, UpdateConsumerOffsetRequest,
};
use apogee_storage::sim::Rng;
use apogee_storage::{LogConfig, NodeId, Retention};

use super::group::{Group, NODES};
use super::world::{Answered, BROKER, CLIENT, CONSUMER, PRODUCER, log_config, pull_from, send_to, waiting};
use crate::replication::{MemberChange, TransferRefused};
use crate::service::FORWARDED_FOR;
use crate::shard::pop::tests::{INVISIBLE_MS, Received, ack_of, bodies, pop_of, received};
use crate::shard::{HELD_BYTES_MAX, HELD_MS_MAX, NOT_LEADER, NoTransfer, Rank};

impl Group {
    fn start_send(&mut self, node: u64, topic: &str, body: &str) -> i32 {
        self.ask(node, PRODUCER, RequestCode::SEND_MESSAGE_V2, &send_to(topic), body.as_bytes())
    }

    fn send(&mut self, node: u64, topic: &str, body: &str) -> Answered {
        let opaque = self.start_send(node, topic, body);
        self.answer(node, opaque)
    }

    fn stored(&mut self, node: u64, topic: &str, body: &str) {
        let answer = self.send(node, topic, body);
        assert_eq!(answer.code, ResponseCode::SUCCESS, "{answer:?}");
    }

    fn send_with(&mut self, node: u64, properties: &str, body: &str) -> Answered {
        let send = SendMessageRequest { properties, ..send_to("T") };
        self.asked(node, PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, body.as_bytes())
    }

    fn pull(&mut self, node: u64, topic: &str, offset: i64) -> Answered {
        self.asked(node, CONSUMER, RequestCode::PULL_MESSAGE, &pull_from(topic, offset), b"")
    }

    /// All that a node serves of a topic's first queue.
    fn bodies(&mut self, node: u64, topic: &str) -> Vec<String> {
        let answer = self.pull(node, topic, 0);
        if answer.code == ResponseCode::PULL_NOT_FOUND { Vec::new() } else { answer.bodies() }
    }

    fn start_create(&mut self, node: u64, topic: &str) -> i32 {
        let create = CreateTopicRequest {
            topic,
            default_topic: "TBW102",
            read_queues: 1,
            write_queues: 1,
            perm: Perm(6),
            filter_type: "SINGLE_TAG",
            topic_sys_flag: None,
            order: false,
            attributes: None,
            force: false,
        };
        self.ask(node, CONSUMER, RequestCode::UPDATE_AND_CREATE_TOPIC, &create, b"")
    }

    fn has_topic(&mut self, node: u64, topic: &str) -> bool {
        let wanted = GetTopicConfigRequest { topic };
        self.asked(node, CONSUMER, RequestCode::GET_TOPIC_CONFIG, &wanted, b"").code == ResponseCode::SUCCESS
    }

    fn commit_offset_of(&mut self, topic: &str, commit_offset: i64) {
        let commit = UpdateConsumerOffsetRequest { consumer_group: "CG", topic, queue_id: 0, commit_offset };
        let answer = self.asked(1, CONSUMER, RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"");
        assert_eq!(answer.code, ResponseCode::SUCCESS, "{answer:?}");
    }

    fn commit_offset(&mut self, node: u64, commit_offset: i64) -> Answered {
        let commit =
            UpdateConsumerOffsetRequest { consumer_group: "CG", topic: "T", queue_id: 0, commit_offset };
        self.asked(node, CONSUMER, RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"")
    }

    fn start_query_offset(&mut self, node: u64) -> i32 {
        let query = QueryConsumerOffsetRequest {
            consumer_group: "CG",
            topic: "T",
            queue_id: 0,
            set_zero_if_not_found: false,
        };
        self.ask(node, CONSUMER, RequestCode::QUERY_CONSUMER_OFFSET, &query, b"")
    }

    fn committed_offset(&mut self, node: u64) -> i64 {
        let opaque = self.start_query_offset(node);
        let answer = self.answer(node, opaque);
        assert_eq!(answer.code, ResponseCode::SUCCESS, "{answer:?}");
        answer.int("offset")
    }

    fn pop(&mut self, node: u64) -> Vec<Received> {
        let answer = self.asked(node, CONSUMER, RequestCode::POP_MESSAGE, &pop_of("T"), b"");
        if answer.code == ResponseCode::SUCCESS { received(&answer) } else { Vec::new() }
    }

    fn lock(&mut self, node: u64, client: &str) -> usize {
        let queue = MessageQueue { topic: "T".into(), broker_name: BROKER.into(), queue_id: 0 };
        let body = LockBatchRequestBody {
            client_id: client.into(),
            consumer_group: "CG".into(),
            mq_set: vec![queue],
            only_this_broker: false,
        };
        let answer = self.asked(node, CONSUMER, RequestCode::LOCK_BATCH_MQ, &NoExt, &to_fastjson(&body));
        parse::<LockBatchResponseBody>(&answer.body).unwrap().lock_ok_mq_set.len()
    }

    /// The leader dies, and another node leads soon.
    fn fail_over(&mut self) -> u64 {
        let leader = self.leader().expect("somebody leads");
        self.kill(leader);
        self.elect()
    }

    fn transfer(&mut self, from: u64, to: u64) {
        let now_ms = self.now_ms;
        self.at(from).shard.transfer_to(NodeId(to), now_ms).unwrap();
        self.until("leadership is handed over", |group| group.leader() == Some(to));
    }
}

#[test]
fn a_group_gets_a_leader_and_takes_messages() {
    let mut group = Group::new();
    let leader = group.elect();
    group.stored(leader, "T", "first");
    assert_eq!(group.bodies(leader, "T"), ["first"]);
    group.agree();
}

#[test]
fn a_send_is_acknowledged_when_a_majority_has_it_and_seen_by_nobody_before() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.pass(500);
    group.slow_down(1, 2);
    group.slow_down(1, 3);
    let opaque = group.start_send(1, "T", "second");
    assert!(!group.has_answer(1, opaque), "acknowledged by one of three");
    for node in 1..=NODES {
        assert_eq!(group.bodies(node, "T"), ["first"], "at node {node}");
    }
    group.quicken();
    assert_eq!(group.answer(1, opaque).code, ResponseCode::SUCCESS);
    group.pass(200);
    for node in 1..=NODES {
        assert_eq!(group.bodies(node, "T"), ["first", "second"], "at node {node}");
    }
}

#[test]
fn one_slow_follower_delays_nobody() {
    let mut group = Group::led_by_1();
    group.slow_down(1, 3);
    let opaque = group.start_send(1, "T", "first");
    assert!(group.has_answer(1, opaque));
}

#[test]
fn what_was_acknowledged_outlives_its_leader() {
    let mut group = Group::led_by_1();
    let expected: Vec<String> = (0..20).map(|nth| format!("message {nth}")).collect();
    for body in &expected {
        group.stored(1, "T", body);
    }
    let leader = group.fail_over();
    assert_ne!(leader, 1);
    assert_eq!(group.bodies(leader, "T"), expected);
    group.stored(leader, "T", "one more");
    assert_eq!(group.pull(leader, "T", 20).bodies(), ["one more"]);
    group.agree();
    assert_eq!(group.bodies(1, "T").len(), 21);
}

#[test]
fn what_only_a_deposed_leader_had_is_not_acknowledged_and_gone() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.cut_off(1);
    let lost = group.start_send(1, "T", "lost");
    let leader = group.elect_another(1);
    assert_ne!(leader, 1);
    group.stored(leader, "T", "second");
    group.heal(1);
    let answer = group.answer(1, lost);
    assert_eq!(answer.code, ResponseCode::SERVICE_NOT_AVAILABLE, "{answer:?}");
    group.agree();
    for node in 1..=NODES {
        assert_eq!(group.bodies(node, "T"), ["first", "second"], "at node {node}");
    }
}

#[test]
fn what_a_deposed_leader_left_and_its_successor_commits_is_acknowledged_all_the_same() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    // Node 2 gets the batch, and nobody hears of that.
    group.slow_down(1, 3);
    group.slow_down(2, 1);
    let sent = group.start_send(1, "T", "second");
    assert!(!group.has_answer(1, sent));
    group.cut_off(1);
    assert_eq!(group.elect_another(1), 2, "node 3 lacks a batch");
    group.heal(1);
    let answer = group.answer(1, sent);
    assert_eq!((answer.code, answer.int("queueOffset")), (ResponseCode::SUCCESS, 1));
    group.agree();
    for node in 1..=NODES {
        assert_eq!(group.bodies(node, "T"), ["first", "second"], "at node {node}");
    }
}

#[test]
fn a_topic_that_was_never_committed_is_forgotten_by_who_made_it() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.cut_off(1);
    let lost = group.start_create(1, "Lost");
    assert!(group.has_topic(1, "Lost"), "the table changes first");
    let leader = group.elect_another(1);
    let made = group.start_create(leader, "Made");
    assert_eq!(group.answer(leader, made).code, ResponseCode::SUCCESS);
    assert_eq!(group.answer(1, lost).code, ResponseCode::SERVICE_NOT_AVAILABLE);
    group.heal(1);
    group.agree();
    for node in 1..=NODES {
        assert!(!group.has_topic(node, "Lost"), "at node {node}");
        assert!(group.has_topic(node, "Made"), "at node {node}");
    }
    group.stored(leader, "Lost", "now it is there");
    group.agree();
}

#[test]
fn a_topic_is_not_said_to_exist_before_it_is_committed() {
    let mut group = Group::led_by_1();
    group.cut_off(1);
    let first = group.start_create(1, "Lost");
    let again = group.start_create(1, "Lost");
    assert!(!group.has_answer(1, first) && !group.has_answer(1, again));
    group.elect_another(1);
    for opaque in [first, again] {
        assert_eq!(group.answer(1, opaque).code, ResponseCode::SERVICE_NOT_AVAILABLE);
    }
}

#[test]
fn a_slave_serves_what_is_committed_and_lets_pulls_wait() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.pass(200);
    assert_eq!(group.bodies(2, "T"), ["first"]);
    let parked = group.ask(2, CONSUMER, RequestCode::PULL_MESSAGE, &waiting(pull_from("T", 1)), b"");
    assert!(!group.has_answer(2, parked));
    group.stored(1, "T", "second");
    group.pass(200);
    assert_eq!(group.answer(2, parked).bodies(), ["second"]);
}

#[test]
fn a_slave_never_says_that_an_offset_it_does_not_have_is_wrong() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    // Makes the group, which a slave does not.
    group.bodies(1, "T");
    group.pass(200);
    // Read at another node that had more.
    for node in [2, 3] {
        assert_eq!(group.pull(node, "T", 7).code, ResponseCode::PULL_NOT_FOUND);
    }
    assert_eq!(group.pull(1, "T", 7).code, ResponseCode::PULL_OFFSET_MOVED, "the leader knows");
    group.cut_off(1);
    group.pass(3_000);
    assert_eq!(group.pull(1, "T", 7).code, ResponseCode::PULL_NOT_FOUND, "it knows no longer");
}

#[test]
fn a_leader_that_commits_behind_others_does_not_call_wrong_what_they_have_shown() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.bodies(1, "T");
    group.pass(200);
    group.stall_disk(1);
    let now_ms = group.now_ms;
    let learner = MemberChange::AddLearner { node: NodeId(4), address: b"127.0.0.4:10912".to_vec() };
    group.at(1).shard.change_members(learner, now_ms).unwrap();
    let sent = group.start_send(1, "T", "second");
    group.pass(200);
    assert_eq!(group.bodies(2, "T"), ["first", "second"]);
    assert_eq!(group.bodies(1, "T"), ["first"], "the change of members is not on its disk yet");
    assert_eq!(group.pull(1, "T", 2).code, ResponseCode::PULL_NOT_FOUND);
    assert_eq!(group.pull(1, "T", 3).code, ResponseCode::PULL_OFFSET_MOVED, "nobody can have seen so much");
    group.quicken();
    assert_eq!(group.answer(1, sent).code, ResponseCode::SUCCESS);
    assert_eq!(group.pull(1, "T", 1).bodies(), ["second"]);
}

#[test]
fn consumers_read_on_at_a_deposed_leader() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    let parked = group.ask(1, CONSUMER, RequestCode::PULL_MESSAGE, &waiting(pull_from("T", 1)), b"");
    group.transfer(1, 2);
    group.stored(2, "T", "second");
    group.pass(200);
    assert_eq!(group.answer(1, parked).bodies(), ["second"]);
    assert_eq!(group.bodies(1, "T"), ["first", "second"]);
}

#[test]
fn a_send_that_reaches_a_slave_is_forwarded_and_keeps_where_it_was_born() {
    let mut group = Group::led_by_1();
    group.stored(2, "T", "by node 2");
    group.stored(3, "T", "by node 3");
    assert_eq!(group.bodies(1, "T"), ["by node 2", "by node 3"]);
    let answer = group.pull(1, "T", 0);
    for message in answer.messages() {
        assert_eq!(message.born_host.to_string(), CLIENT);
    }
}

#[test]
fn a_forwarded_request_is_not_forwarded_again() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    let (wanted, mark) = (send_to("T"), [(FORWARDED_FOR, "10.9.9.9:1")]);
    let answer = group.asked(2, PRODUCER, RequestCode::SEND_MESSAGE_V2, &(mark, &wanted), b"second");
    assert_eq!(answer.code, ResponseCode::SERVICE_NOT_AVAILABLE);
    assert_eq!(answer.ext[NOT_LEADER], "true");
}

#[test]
fn what_a_leader_that_is_cut_off_did_not_answer_is_asked_of_the_next() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.pass(200);
    // It reaches node 1 and gets no further.
    group.slow_down(1, 2);
    group.slow_down(1, 3);
    let sent = group.start_send(2, "T", "second");
    group.cut_off(1);
    let answer = group.answer(2, sent);
    assert_eq!((answer.code, answer.int("queueOffset")), (ResponseCode::SUCCESS, 1));
    group.agree();
    assert_eq!(group.bodies(1, "T"), ["first", "second"]);
}

#[test]
fn offsets_are_kept_by_the_leader_whoever_is_told_and_asked() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.bodies(1, "T");
    assert_eq!(group.commit_offset(3, 1).code, ResponseCode::SUCCESS);
    for node in 1..=NODES {
        assert_eq!(group.committed_offset(node), 1, "at node {node}");
    }
    // Logged once a second.
    group.pass(1_500);
    let leader = group.fail_over();
    assert_eq!(group.committed_offset(leader), 1);
}

#[test]
fn a_pull_that_waited_elsewhere_takes_no_progress_back() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.bodies(1, "T");
    group.commit_offset(1, 1);
    let sys_flag = PullSysFlag::SUBSCRIPTION.with(PullSysFlag::COMMIT_OFFSET);
    let pull = PullMessageRequest { sys_flag, commit_offset: 0, ..pull_from("T", 0) };
    let mark = [(FORWARDED_FOR, "10.9.9.9:1")];
    group.asked(1, CONSUMER, RequestCode::PULL_MESSAGE, &(mark, &pull), b"");
    assert_eq!(group.committed_offset(1), 1, "its client may have told more since");
    group.asked(1, CONSUMER, RequestCode::PULL_MESSAGE, &pull, b"");
    assert_eq!(group.committed_offset(1), 0, "the client's own word counts, backwards too");
}

#[test]
fn requests_that_meet_no_leader_wait_for_the_next_one() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.kill(1);
    let sent: Vec<i32> = (0..50).map(|nth| group.start_send(2, "T", &format!("{nth:02}"))).collect();
    assert!(sent.iter().all(|opaque| !group.has_answer(2, *opaque)), "there is nobody to take it");
    let mut offsets = Vec::new();
    for opaque in sent {
        let answer = group.answer(2, opaque);
        assert_eq!(answer.code, ResponseCode::SUCCESS, "{answer:?}");
        offsets.push(answer.int("queueOffset"));
    }
    assert!(offsets.is_sorted(), "one overtook another: {offsets:?}");
}

#[test]
fn without_a_leader_sends_are_refused_in_time_and_offsets_are_not_said() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.kill(1);
    group.kill(3);
    let sent = group.start_send(2, "T", "second");
    let queried = group.start_query_offset(2);
    group.pass(HELD_MS_MAX - 100);
    assert!(!group.has_answer(2, sent));
    group.pass(200);
    assert_eq!(group.answer(2, sent).code, ResponseCode::SERVICE_NOT_AVAILABLE);
    group.pass(10_000);
    assert!(!group.has_answer(2, queried), "any error makes a 4.x consumer begin at the end of its queue");
}

#[test]
fn a_leader_that_is_cut_off_says_nothing_that_must_be_newest() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.cut_off(1);
    group.pass(450);
    let wanted = GetMaxOffsetRequest { topic: "T", queue_id: 0, committed: true };
    let asked = group.ask(1, CONSUMER, RequestCode::GET_MAX_OFFSET, &wanted, b"");
    assert!(!group.has_answer(1, asked), "its lease is over");
    let leader = group.elect_another(1);
    group.stored(leader, "T", "second");
    group.heal(1);
    assert_eq!(group.answer(1, asked).int("offset"), 2, "the new leader's answer");
}

#[test]
fn a_planned_transfer_costs_no_client_an_error() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.bodies(1, "T");
    let mut sent = Vec::new();
    let now_ms = group.now_ms;
    group.at(1).shard.transfer_to(NodeId(2), now_ms).unwrap();
    for nth in 0..60 {
        sent.push(group.start_send(1, "T", &format!("{nth:02}")));
        sent.push(group.commit_offset_later(1));
        group.pass(10);
    }
    assert_eq!(group.leader(), Some(2));
    for opaque in sent {
        let answer = group.answer(1, opaque);
        assert_eq!(answer.code, ResponseCode::SUCCESS, "{answer:?}");
    }
    let answer = group.pull(2, "T", 1);
    assert!(answer.bodies().is_sorted(), "{:?}", answer.bodies());
    group.agree();
}

impl Group {
    fn commit_offset_later(&mut self, node: u64) -> i32 {
        let commit =
            UpdateConsumerOffsetRequest { consumer_group: "CG", topic: "T", queue_id: 0, commit_offset: 1 };
        self.ask(node, CONSUMER, RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"")
    }
}

#[test]
fn a_transfer_that_fails_leaves_a_leader_that_works() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    let now_ms = group.now_ms;
    group.slow_down(1, 2);
    group.at(1).shard.transfer_to(NodeId(2), now_ms).unwrap();
    let sent = group.start_send(1, "T", "second");
    let due = group.start_send(1, "T", "third");
    for opaque in [sent, due] {
        assert_eq!(group.answer(1, opaque).code, ResponseCode::SUCCESS);
    }
    group.agree();
}

#[test]
fn an_orderly_stop_hands_leadership_over_first() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    let mut stops = 0;
    while !group.node(1).shard.is_idle() {
        let now_ms = group.now_ms;
        group.at(1).shard.prepare_stop(now_ms);
        group.pass(10);
        stops += 1;
        assert!(stops < 100, "does not come to rest");
    }
    let leader = group.leader().expect("another node leads");
    assert!(matches!(leader, 2 | 3));
    // Nor is it given back while the node is still there.
    group.pass(200);
    let now_ms = group.now_ms;
    let refused = group.at(leader).shard.transfer_to(NodeId(1), now_ms);
    assert_eq!(refused, Err(NoTransfer::Refused(TransferRefused::Away { node: NodeId(1) })));
    let status = group.node(1).shard.group_status(now_ms).expect("it is in a group");
    assert!(status.why.contains("about to stop"), "{}", status.why);
}

#[test]
fn whoever_leads_is_registered_as_the_master_and_the_others_as_slaves() {
    let mut group = Group::led_by_1();
    let told = |group: &Group, node: u64| group.node(node).group.ranks.last().unwrap().broker_id;
    assert_eq!([told(&group, 1), told(&group, 2), told(&group, 3)], [0, 2, 3]);
    let before: Rank = group.node(1).shard.rank();
    group.transfer(1, 3);
    group.pass(100);
    assert_eq!([told(&group, 1), told(&group, 2), told(&group, 3)], [1, 2, 0]);
    assert!(group.node(3).shard.rank().term > before.term);
}

#[test]
fn timers_and_levels_go_on_at_the_new_leader() {
    let mut group = Group::led_by_1();
    let due_ms = group.now_ms + 3_000;
    let timer = format!("TIMER_DELIVER_MS\u{1}{due_ms}\u{2}");
    assert_eq!(group.send_with(1, &timer, "timer").code, ResponseCode::SUCCESS);
    // Level 2 is 5 s.
    assert_eq!(group.send_with(1, "DELAY\u{1}2\u{2}", "level").code, ResponseCode::SUCCESS);
    let leader = group.fail_over();
    assert!(group.now_ms < due_ms - 500, "nothing is due yet");
    assert_eq!(group.bodies(leader, "T"), [""; 0]);
    group.until("the timer is delivered", |group| group.now_ms >= due_ms + 100);
    assert_eq!(group.bodies(leader, "T"), ["timer"]);
    group.pass(3_000);
    assert_eq!(group.bodies(leader, "T"), ["timer", "level"]);
    group.agree();
    group.fail_over();
    group.pass(6_000);
    let leader = group.leader().unwrap();
    assert_eq!(group.bodies(leader, "T"), ["timer", "level"], "delivered once");
}

#[test]
fn a_transaction_is_ended_at_the_new_leader() {
    let mut group = Group::led_by_1();
    let half = "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}PG\u{2}UNIQ_KEY\u{1}KEY\u{2}";
    let send = SendMessageRequest {
        properties: half,
        sys_flag: MessageSysFlag::TRANSACTION_PREPARED,
        ..send_to("T")
    };
    let sent = group.asked(1, PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, b"half");
    assert_eq!(sent.code, ResponseCode::SUCCESS);
    let leader = group.fail_over();
    assert_eq!(group.bodies(leader, "T"), [""; 0]);
    let end = EndTransactionRequest {
        producer_group: "PG",
        tran_state_table_offset: sent.int("queueOffset"),
        commit_log_offset: OffsetMessageId::parse(&sent.ext["msgId"]).unwrap().physical_offset,
        commit_or_rollback: MessageSysFlag::TRANSACTION_COMMIT.0,
        from_check: false,
        msg_id: "KEY",
        transaction_id: None,
    };
    let ended = group.asked(leader, PRODUCER, RequestCode::END_TRANSACTION, &end, b"");
    assert_eq!(ended.code, ResponseCode::SUCCESS, "{ended:?}");
    assert_eq!(group.bodies(leader, "T"), ["half"]);
    group.agree();
}

#[test]
fn producers_are_asked_about_transactions_by_the_new_leader() {
    let mut group = Group::led_by_1();
    let half = "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}PG\u{2}UNIQ_KEY\u{1}KEY\u{2}";
    let send = SendMessageRequest {
        properties: half,
        sys_flag: MessageSysFlag::TRANSACTION_PREPARED,
        ..send_to("T")
    };
    group.asked(1, PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, b"half");
    let leader = group.fail_over();
    let data = HeartbeatData {
        client_id: "producer".into(),
        producer_data_set: vec![ProducerData { group_name: "PG".into() }],
        ..Default::default()
    };
    for _ in 0..4 {
        group.asked(leader, PRODUCER, RequestCode::HEART_BEAT, &NoExt, &to_fastjson(&data));
        group.pass(15_000);
    }
    let pushed = group.at(leader).take_pushed();
    assert!(pushed.contains(&(PRODUCER, RequestCode::CHECK_TRANSACTION_STATE)), "{pushed:?}");
}

#[test]
fn what_was_popped_stays_hidden_comes_again_and_is_acknowledged_at_the_new_leader() {
    let mut group = Group::led_by_1();
    for body in ["first", "second"] {
        group.stored(1, "T", body);
    }
    let popped = group.pop(2);
    assert_eq!(bodies(&popped), ["first", "second"], "a pop that reaches a slave is forwarded");
    let leader = group.fail_over();
    assert!(group.pop(leader).is_empty(), "hidden");
    let acked = group.asked(leader, CONSUMER, RequestCode::ACK_MESSAGE, &ack_of(&popped[0]), b"");
    assert_eq!(acked.code, ResponseCode::SUCCESS);
    group.pass(INVISIBLE_MS + 500);
    let again = group.pop(leader);
    assert_eq!(bodies(&again), ["second"]);
    group.agree();
}

#[test]
fn a_pop_that_waits_at_a_leader_is_told_to_ask_again_when_it_is_deposed() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.pop(1);
    let waits =
        apogee_net::request::PopMessageRequest { poll_ms: 15_000, born_ms: group.now_ms, ..pop_of("T") };
    let parked = group.ask(1, CONSUMER, RequestCode::POP_MESSAGE, &waits, b"");
    assert!(!group.has_answer(1, parked));
    group.transfer(1, 2);
    assert_eq!(group.answer(1, parked).code, ResponseCode::POLLING_TIMEOUT);
}

#[test]
fn locks_are_granted_when_those_of_the_last_leader_have_run_out() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.pass(1_000);
    assert_eq!(group.lock(1, "one"), 1);
    assert_eq!(group.lock(2, "two"), 0, "forwarded, and held by another");
    group.transfer(1, 2);
    let begun_ms = group.now_ms;
    assert_eq!(group.lock(2, "two"), 1);
    assert!(group.now_ms >= begun_ms + 300, "granted after {} ms", group.now_ms - begun_ms);
}

#[test]
fn a_leader_that_leads_again_at_once_knows_only_what_is_committed() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.commit_offset(1, 1);
    for _ in 0..3 {
        group.transfer(1, 2);
        group.stored(2, "T", "more");
        group.transfer(2, 1);
        group.stored(1, "T", "more");
    }
    group.agree();
    assert_eq!(group.bodies(3, "T").len(), 7);
}

#[test]
fn a_killed_group_comes_back_with_all_that_was_acknowledged() {
    let mut group = Group::led_by_1();
    for nth in 0..5 {
        group.stored(1, "T", &format!("{nth}"));
    }
    for node in 1..=NODES {
        group.kill(node);
    }
    for node in 1..=NODES {
        group.restart(node);
    }
    let leader = group.elect();
    assert_eq!(group.bodies(leader, "T"), ["0", "1", "2", "3", "4"]);
    group.stored(leader, "T", "5");
    group.agree();
}

#[test]
fn ha_status_tells_who_is_in_sync() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.pass(500);
    let status = |group: &mut Group, node: u64| -> HaRuntimeInfo {
        let answer = group.asked(node, CONSUMER, RequestCode::GET_BROKER_HA_STATUS, &NoExt, b"");
        parse(&answer.body).unwrap()
    };
    let of_leader = status(&mut group, 1);
    assert!(of_leader.master);
    assert_eq!((of_leader.in_sync_slave_nums, of_leader.ha_connection_info.len()), (2, 2));
    assert!(of_leader.ha_connection_info.iter().all(|slave| slave.diff == 0), "{of_leader:?}");
    let of_slave = status(&mut group, 2);
    assert!(!of_slave.master);
    assert_eq!(of_slave.ha_client_runtime_info.master_addr.as_deref(), Some("10.0.0.1:10912"));
    group.kill(3);
    group.pass(500);
    assert_eq!(status(&mut group, 1).in_sync_slave_nums, 1);
}

#[test]
fn oneway_requests_are_forwarded_too() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    let send = send_to("T");
    let head = RequestHead { code: RequestCode::SEND_MESSAGE_V2, opaque: 0, oneway: true, ext: &send };
    group.at(2).request(PRODUCER, head, b"second");
    group.pass(100);
    assert_eq!(group.bodies(1, "T"), ["first", "second"]);
}

#[test]
fn a_message_keeps_its_properties_on_its_way_through_a_slave() {
    let mut group = Group::led_by_1();
    let sent = group.send_with(3, "TAGS\u{1}a\u{2}KEYS\u{1}k\u{2}", "first");
    assert_eq!(sent.code, ResponseCode::SUCCESS);
    let answer = group.pull(1, "T", 0);
    let message = &answer.messages()[0];
    assert_eq!(message.properties.get(property::TAGS), Some("a"));
    assert_eq!(message.properties.get(property::KEYS), Some("k"));
}

#[test]
fn consumers_that_lag_are_sent_to_a_slave_and_come_back() {
    let mut group = Group::led_by_1();
    let body = "x".repeat(100_000);
    // More than the tail cache holds.
    for _ in 0..16 {
        group.stored(1, "T", &body);
    }
    group.pass(2_000);
    let suggested = |group: &mut Group, node: u64, offset: i64| {
        let answer = group.pull(node, "T", offset);
        assert_eq!(answer.code, ResponseCode::SUCCESS);
        answer.int("suggestWhichBrokerId")
    };
    let slave = suggested(&mut group, 1, 0);
    assert!(slave == 2 || slave == 3, "broker {slave}");
    assert_eq!(suggested(&mut group, slave as u64, 0), slave, "it reads on there");
    assert_eq!(suggested(&mut group, slave as u64, 15), 0, "until it has caught up");
    assert_eq!(suggested(&mut group, 1, 15), 0);
}

#[test]
fn requests_that_wait_are_bounded_and_forgotten_with_their_client() {
    let mut group = Group::led_by_1();
    group.stored(1, "T", "first");
    group.kill(1);
    let body = "x".repeat(4_000_000);
    let sent: Vec<i32> = (0..HELD_BYTES_MAX / body.len()).map(|_| group.start_send(2, "T", &body)).collect();
    let too_much = group.start_send(2, "T", &body);
    assert_eq!(group.answer(2, too_much).code, ResponseCode::SERVICE_NOT_AVAILABLE);
    group.close(2, PRODUCER);
    let leader = group.elect();
    group.pass(500);
    assert!(sent.iter().all(|opaque| !group.has_answer(2, *opaque)), "nobody is left to answer");
    assert_eq!(group.bodies(leader, "T"), ["first"]);
}

#[test]
fn a_node_that_was_away_too_long_begins_anew_behind_what_the_others_still_have() {
    let retention = Retention { age_ms: None, bytes: Some(4 << 20), may_reclaim: true };
    let config = LogConfig {
        segment_bytes: 2 << 20,
        batch_bytes_max: 1 << 20,
        batch_bytes_target: 256 << 10,
        snapshot_pause_ms: 100,
        retention,
        ..log_config()
    };
    let mut group = Group::led_by_1_with(&config);
    group.stored(1, "Old", "before all");
    group.bodies(1, "Old");
    group.commit_offset_of("Old", 1);
    group.pass(2_000);
    group.kill(3);
    let body = "x".repeat(200_000);
    while group.node(1).shard.log.start().0 == 0 {
        group.stored(1, "T", &body);
        group.pass(100);
    }
    group.start_create(1, "Last");
    group.restart(3);
    group.until("node 3 has what is left", |group| {
        group.node(3).shard.log.committed_index() == group.node(1).shard.log.committed_index()
    });
    assert!(group.node(3).shard.log.start().0 > 0, "its log begins anew");
    group.agree();
    assert!(group.has_topic(3, "Old"), "its topic is in the tables, its message is gone");
    group.transfer(1, 3);
    group.stored(3, "Old", "after all");
    assert_eq!(group.pull(3, "Old", 1).bodies(), ["after all"]);
    group.agree();
}

/// A send that nobody has answered yet.
struct Unanswered {
    node: u64,
    opaque: i32,
    body: String,
}

/// What a run of failures and requests has come to.
struct History {
    group: Group,
    rng: Rng,
    unanswered: Vec<Unanswered>,
    /// Offset and body of each message that was acknowledged.
    acknowledged: Vec<(i64, String)>,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut group = Group::new();
        let leader = group.elect();
        group.stored(leader, "T", "first");
        group.bodies(leader, "T");
        History { group, rng: Rng::new(seed), unanswered: Vec::new(), acknowledged: Vec::new() }
    }

    fn some_node(&mut self) -> u64 {
        let alive = self.group.alive();
        alive[self.rng.below(alive.len() as u64) as usize]
    }

    fn step(&mut self, nth: usize) {
        let node = self.some_node();
        match self.rng.below(24) {
            0 if self.group.is_whole() => {
                self.group.kill(node);
                self.unanswered.retain(|send| send.node != node);
            }
            1 if self.group.is_whole() => self.group.cut_off(node),
            2 | 3 => self.group.mend(),
            4 | 5 => {
                let now_ms = self.group.now_ms;
                if let Some(leader) = self.group.leader() {
                    // Refused if the node is away, or is the leader.
                    let _ = self.group.at(leader).shard.transfer_to(NodeId(node), now_ms);
                }
            }
            6 => {
                let to = self.rng.below(NODES) + 1;
                if to != node {
                    self.group.slow_down(node, to);
                }
            }
            7 => self.group.quicken(),
            8 => drop(self.group.start_create(node, &format!("T{nth}"))),
            9 => drop(self.group.commit_offset_later(node)),
            10 => {
                let commit_offset = self.acknowledged.len() as i64;
                let commit = UpdateConsumerOffsetRequest {
                    consumer_group: "CG",
                    topic: "T",
                    queue_id: 0,
                    commit_offset,
                };
                self.group.ask(node, CONSUMER, RequestCode::UPDATE_CONSUMER_OFFSET, &commit, b"");
            }
            11 => {
                let send = SendMessageRequest { properties: "DELAY\u{1}1\u{2}", ..send_to("Later") };
                self.group.ask(node, PRODUCER, RequestCode::SEND_MESSAGE_V2, &send, b"later");
            }
            12 => drop(self.group.ask(node, CONSUMER, RequestCode::POP_MESSAGE, &pop_of("Later"), b"")),
            13 => {
                let from = self.rng.below(self.acknowledged.len() as u64 + 1) as i64;
                let pull = pull_from("T", from);
                let opaque = self.group.ask(node, CONSUMER, RequestCode::PULL_MESSAGE, &pull, b"");
                if self.group.has_answer(node, opaque) {
                    let code = self.group.answer(node, opaque).code;
                    assert_ne!(code, ResponseCode::PULL_OFFSET_MOVED, "node {node}, offset {from}");
                }
            }
            _ => {
                let body = format!("message {nth}");
                let opaque = self.group.start_send(node, "T", &body);
                self.unanswered.push(Unanswered { node, opaque, body });
            }
        }
        let ms = self.rng.below(200) as i64;
        self.group.pass(ms);
        self.hear();
    }

    fn hear(&mut self) {
        for Unanswered { node, opaque, body } in std::mem::take(&mut self.unanswered) {
            if !self.group.has_answer(node, opaque) {
                self.unanswered.push(Unanswered { node, opaque, body });
                continue;
            }
            let answer = self.group.answer(node, opaque);
            match answer.code {
                ResponseCode::SUCCESS => self.acknowledged.push((answer.int("queueOffset"), body)),
                code => assert_eq!(code, ResponseCode::SERVICE_NOT_AVAILABLE, "{answer:?}"),
            }
        }
    }

    fn end(mut self) -> usize {
        self.group.agree();
        self.hear();
        for node in 1..=NODES {
            for (offset, body) in &self.acknowledged {
                let answer = self.group.pull(node, "T", *offset);
                assert_eq!(answer.bodies().first(), Some(body), "node {node}, offset {offset}");
            }
        }
        self.acknowledged.len()
    }
}

/// Failures, transfers and requests in any order. `APOGEE_SEEDS` histories, or the one of `APOGEE_SEED`.
#[test]
fn any_history_of_failures_keeps_what_was_acknowledged_and_ends_in_agreement() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds = match number("APOGEE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("APOGEE_SEEDS").unwrap_or(8),
    };
    let (mut acknowledged, histories) = (0, seeds.end - seeds.start);
    for seed in seeds {
        eprintln!("seed {seed}");
        let mut history = History::new(seed);
        (0..60).for_each(|nth| history.step(nth));
        acknowledged += history.end();
    }
    assert!(acknowledged as u64 > histories * 10, "only {acknowledged} messages in {histories} histories");
}
