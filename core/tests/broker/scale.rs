//! Many topics, groups and connections at once, on one shard: what takes long must not keep others waiting.

// A test waits for a process, and serves nobody meanwhile.
#![allow(clippy::disallowed_methods)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use apogee_net::body::{
    ConsumerData, CreateTopicListRequestBody, HeartbeatData, MessageModel, SubscriptionData,
    SubscriptionGroupWrapper, TopicConfig, TopicConfigAndMappingSerializeWrapper, TopicList, parse,
    to_fastjson,
};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{RequestHead, append_request};
use apogee_net::frame::{HeaderEncoding, split_frame};
use apogee_net::header::{Header, NoExt};
use bytes::BytesMut;

use crate::client::Client;
use crate::place;
use crate::server::Server;

const TOPICS: usize = 50_000;
const TOPICS_PER_REQUEST: usize = 250;
const CONNECTIONS: usize = 5_000;
const GROUPS_PER_CONNECTION: usize = 2;

/// Sends go on from the first topic to the last heartbeat, each answered before the next: the longest wait for an
/// answer shows for how long the shard did something else.
#[test]
#[ignore = "takes a minute"]
fn fifty_thousand_topics_ten_thousand_groups_and_five_thousand_connections() {
    let Some(dir) = place() else { return };
    let is_quiet = load() < 1.0;
    let server = Server::start_standalone(dir.path());
    let is_done = AtomicBool::new(false);
    let waits = std::thread::scope(|scope| {
        let sender = scope.spawn(|| send_until(&is_done, &server));
        drive(&server);
        is_done.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    let log = server.log();
    let stalls = stalls(&log);
    let of = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize];
    eprintln!("{} sends: p50 {:?}, p99 {:?}, longest {:?}", waits.len(), of(0.5), of(0.99), of(1.0));
    eprintln!("{} stalls of more than 10 ms; load before the start below 1: {is_quiet}", stalls.len());
    // A thread that others push off its CPU looks as one that does not yield, and code that is not optimised as slow.
    let is_strict = is_quiet && !cfg!(debug_assertions);
    assert!(!is_strict || stalls.is_empty(), "the shard's thread was kept:\n{}", stalls.join("\n"));
    server.stop();
}

fn drive(server: &Server) {
    let mut admin = Client::connect(server);
    let began = Instant::now();
    for begin in (0..TOPICS).step_by(TOPICS_PER_REQUEST) {
        let topics = begin..begin + TOPICS_PER_REQUEST;
        let topic = |topic| TopicConfig {
            topic_name: format!("topic-{topic:05}"),
            read_queue_nums: 4,
            write_queue_nums: 4,
            ..TopicConfig::default()
        };
        let body =
            to_fastjson(&CreateTopicListRequestBody { topic_config_list: topics.map(topic).collect() });
        let answer = admin.ask(RequestCode::UPDATE_AND_CREATE_TOPIC_LIST, &NoExt, &body);
        assert_eq!(answer.code, ResponseCode::SUCCESS, "{}", answer.remark);
    }
    eprintln!("{TOPICS} topics: {:?}", began.elapsed());

    let began = Instant::now();
    let mut members: Vec<Member> = (0..CONNECTIONS).map(|number| Member::join(server, number)).collect();
    members.iter_mut().for_each(Member::await_answer);
    eprintln!("{CONNECTIONS} connections with their first heartbeats: {:?}", began.elapsed());
    let began = Instant::now();
    members.iter_mut().for_each(Member::heartbeat);
    members.iter_mut().for_each(Member::await_answer);
    eprintln!("one more heartbeat of each: {:?}", began.elapsed());

    let groups = CONNECTIONS * GROUPS_PER_CONNECTION;
    let began = Instant::now();
    let answer = admin.ask(RequestCode::GET_ALL_TOPIC_CONFIG, &NoExt, b"");
    let topics: TopicConfigAndMappingSerializeWrapper = parse(&answer.body).unwrap();
    assert!(topics.topic_config_table.len() >= TOPICS + groups, "retry topics among them");
    eprintln!("all topics told, {} bytes: {:?}", answer.body.len(), began.elapsed());
    let began = Instant::now();
    let answer = admin.ask(RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &NoExt, b"");
    let table: SubscriptionGroupWrapper = parse(&answer.body).unwrap();
    assert!(table.subscription_group_table.len() >= groups);
    eprintln!("all groups told, {} bytes: {:?}", answer.body.len(), began.elapsed());
    assert_eq!(admin.ask(RequestCode::GET_BROKER_RUNTIME_INFO, &NoExt, b"").code, ResponseCode::SUCCESS);

    // Retry topics are told to NameServers after the heartbeats were answered.
    let mut namesrv = Client::connect_to(server.namesrv());
    let began = Instant::now();
    loop {
        let answer = namesrv.ask(RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &NoExt, b"");
        let TopicList { topic_list, .. } = parse(&answer.body).unwrap();
        if topic_list.len() >= TOPICS + groups {
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "the NameServer knows {} topics",
            topic_list.len()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The waits for acknowledgements, in ascending order.
fn send_until(is_done: &AtomicBool, server: &Server) -> Vec<Duration> {
    let mut client = Client::connect(server);
    let mut waits = Vec::new();
    while !is_done.load(Ordering::Relaxed) {
        let began = Instant::now();
        client.send("sends-go-on", 0, b"x", "");
        waits.push(began.elapsed());
    }
    waits.sort_unstable();
    waits
}

/// A consumer that says which groups it is in, and nothing else.
struct Member {
    stream: TcpStream,
    received: BytesMut,
    heartbeat: BytesMut,
}

impl Member {
    fn join(server: &Server, number: usize) -> Member {
        let group = |nth| ConsumerData {
            group_name: format!("group-{:05}", number * GROUPS_PER_CONNECTION + nth),
            message_model: MessageModel::Clustering,
            subscription_data_set: vec![SubscriptionData::of_tags(&format!("topic-{number:05}"), "*", 1)],
            ..ConsumerData::default()
        };
        let data = HeartbeatData {
            client_id: format!("10.0.0.1@{number}"),
            consumer_data_set: (0..GROUPS_PER_CONNECTION).map(group).collect(),
            ..HeartbeatData::default()
        };
        let mut heartbeat = BytesMut::new();
        let head = RequestHead { code: RequestCode::HEART_BEAT, opaque: 1, oneway: false, ext: &NoExt };
        append_request(&mut heartbeat, HeaderEncoding::Json, &head, &to_fastjson(&data)).unwrap();
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut member = Member { stream, received: BytesMut::new(), heartbeat };
        member.heartbeat();
        member
    }

    fn heartbeat(&mut self) {
        self.stream.write_all(&self.heartbeat).unwrap();
    }

    /// Passes over what the broker says by itself.
    fn await_answer(&mut self) {
        loop {
            while let Some(frame) = split_frame(&mut self.received).unwrap() {
                let header = Header::decode(frame.encoding, &frame.header).unwrap();
                if header.is_reply() {
                    return assert_eq!(ResponseCode(header.code), ResponseCode::SUCCESS);
                }
            }
            let mut piece = [0; 4096];
            let read = self.stream.read(&mut piece).unwrap();
            assert!(read > 0, "the broker closed the connection");
            self.received.extend_from_slice(&piece[..read]);
        }
    }
}

/// What the stall detector said, by its first lines.
fn stalls(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("[stall-detector")).collect()
}

/// Of the last minute: how many threads ran or wanted to.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
