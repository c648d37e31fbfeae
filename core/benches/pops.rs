//! Messages a second that are popped and acknowledged, through the real binary: each one hidden, delivered, acknowledged,
//! with a check point and an acknowledgement that are durable before they are answered.
//!
//! ```text
//! cargo bench --bench pops -- [messages [connections [pops in flight per connection [batch]]]]
//! ```
//!
//! A closed loop over messages that were sent before: each pop asks for 32 of all queues, and the next begins when all
//! of them are acknowledged, each by a request of its own as the Java client does, or with `batch` by one for the pop as
//! proxies do. Bodies have 1 KiB; one shard, client and broker on the same machine.

// Client threads block as they please: no executor runs here.
#![allow(clippy::disallowed_methods)]

#[path = "../tests/interop/ports.rs"]
mod ports;
#[path = "../tests/broker/server.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod server;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use apogee_net::body::{BatchAck, BatchAckMessageRequestBody, to_fastjson};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{RequestHead, append_request};
use apogee_net::flags::MessageSysFlag;
use apogee_net::frame::{HeaderEncoding, RawFrame, split_frame};
use apogee_net::header::{Header, NoExt, WriteExt};
use apogee_net::message::{ReceiptHandle, RetryKind, StoredMessages};
use apogee_net::request::{
    AckMessageRequest, PopMessageReply, PopMessageRequest, SendMessageRequest, TypedHeader,
};
use bytes::BytesMut;
use server::Server;

const BODY: [u8; 1024] = [b'x'; 1024];
const TOPIC: &str = "Pops";
const GROUP: &str = "Poppers";
const QUEUES: usize = 4;
const SENDS_IN_FLIGHT: usize = 256;
const POP_MESSAGES: i32 = 32;

/// Opaques that one pop uses: its own, and one for each acknowledgement.
const OPAQUES: i32 = 64;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut numbers = args.iter().filter_map(|arg| arg.parse::<usize>().ok());
    let messages = numbers.next().unwrap_or(300_000);
    let connections = numbers.next().unwrap_or(8);
    let in_flight = numbers.next().unwrap_or(4);
    let is_batch = args.iter().any(|arg| arg == "batch");

    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let server = Server::start(dir.path(), "");
    let connect = || {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Client { stream, out: BytesMut::new(), received: BytesMut::new() }
    };
    let share = messages / QUEUES;
    let senders: Vec<_> = (0..QUEUES)
        .map(|queue| {
            let client = connect();
            std::thread::spawn(move || client.send_all(queue as i32, share))
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());

    let started = Instant::now();
    let poppers: Vec<_> = (0..connections)
        .map(|_| {
            let client = connect();
            std::thread::spawn(move || client.pop_all(in_flight, is_batch))
        })
        .collect();
    let mut took: Vec<Duration> = Vec::new();
    let mut count = 0;
    for popper in poppers {
        let (messages, times) = popper.join().unwrap();
        count += messages;
        took.extend(times);
    }
    let elapsed = started.elapsed();
    server.stop();
    assert_eq!(count, share * QUEUES, "each message is popped once");
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!(
        "{count} messages popped and acknowledged in {elapsed:?}: {:.0} a second, {connections} connections with \
         {in_flight} pops each, acknowledged {}; pop to last acknowledgement p50 {:?}, p99 {:?}, max {:?}",
        count as f64 / elapsed.as_secs_f64(),
        if is_batch { "by pop" } else { "one by one" },
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

struct Client {
    stream: TcpStream,
    out: BytesMut,
    received: BytesMut,
}

impl Client {
    fn send_all(mut self, queue_id: i32, count: usize) {
        let send = SendMessageRequest {
            producer_group: "PG",
            topic: TOPIC,
            default_topic: "TBW102",
            default_topic_queues: QUEUES as i32,
            queue_id,
            sys_flag: MessageSysFlag(0),
            born_timestamp: 1_700_000_000_000,
            flag: 0,
            properties: "WAIT\u{1}true\u{2}",
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: false,
            broker_name: None,
        };
        let (mut begun, mut done) = (0, 0);
        while done < count {
            while begun < count.min(done + SENDS_IN_FLIGHT) {
                self.request(RequestCode::SEND_MESSAGE_V2, 0, &send, &BODY);
                begun += 1;
            }
            for frame in self.exchange() {
                let header = Header::decode(frame.encoding, &frame.header).unwrap();
                assert_eq!(ResponseCode(header.code), ResponseCode::SUCCESS, "{:?}", header.remark);
                done += 1;
            }
        }
    }

    /// How many messages it got, and how long each pop took with its acknowledgements.
    fn pop_all(mut self, in_flight: usize, is_batch: bool) -> (usize, Vec<Duration>) {
        let mut begun = vec![(Instant::now(), 0); in_flight];
        let (mut count, mut took, mut under_way) = (0, Vec::new(), in_flight);
        (0..in_flight).for_each(|nth| self.pop(nth));
        while under_way > 0 {
            for frame in self.exchange() {
                let header = Header::decode(frame.encoding, &frame.header).unwrap();
                let nth = (header.opaque / OPAQUES) as usize;
                let code = ResponseCode(header.code);
                if header.opaque % OPAQUES != 0 {
                    assert_eq!(code, ResponseCode::SUCCESS, "{:?}", header.remark);
                    begun[nth].1 -= 1;
                    if begun[nth].1 == 0 {
                        took.push(begun[nth].0.elapsed());
                        begun[nth].0 = Instant::now();
                        self.pop(nth);
                    }
                } else if code == ResponseCode::SUCCESS {
                    let popped = PopMessageReply::decode(&header.ext).unwrap();
                    let (messages, acks) = self.ack_all(nth, &popped, &frame.body, is_batch);
                    count += messages;
                    begun[nth].1 = acks;
                } else {
                    assert_eq!(code, ResponseCode::POLLING_TIMEOUT, "{:?}", header.remark);
                    under_way -= 1;
                }
            }
        }
        (count, took)
    }

    fn pop(&mut self, nth: usize) {
        let pop = PopMessageRequest {
            consumer_group: GROUP,
            topic: TOPIC,
            queue_id: -1,
            messages_max: POP_MESSAGES,
            invisible_ms: 60_000,
            poll_ms: 0,
            born_ms: 0,
            init_mode: 0,
            expression_type: Some("TAG"),
            expression: Some("*"),
            order: false,
            attempt_id: None,
        };
        self.request(RequestCode::POP_MESSAGE, nth as i32 * OPAQUES, &pop, b"");
    }

    /// How many messages there were, and how many answers follow.
    fn ack_all(
        &mut self,
        nth: usize,
        popped: &PopMessageReply<'_>,
        body: &[u8],
        is_batch: bool,
    ) -> (usize, usize) {
        let starts = popped.start_offset_info.as_deref().unwrap().split(';').map(|entry| {
            let mut values = entry.split(' ').skip(1).map(|value| value.parse::<i64>().unwrap());
            (values.next().unwrap() as i32, values.next().unwrap())
        });
        let starts: BTreeMap<i32, i64> = starts.collect();
        let mut by_queue: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for message in StoredMessages::new(body) {
            let message = message.unwrap();
            by_queue.entry(message.queue_id).or_default().push(message.queue_offset);
        }
        let messages = by_queue.values().map(Vec::len).sum();
        let first = nth as i32 * OPAQUES + 1;
        if is_batch {
            let ack = |(&queue_id, offsets): (&i32, &Vec<i64>)| BatchAck {
                bit_set: base64_of_ones(offsets.len()),
                consumer_group: GROUP.into(),
                invisible_ms: popped.invisible_ms,
                pop_ms: popped.pop_ms,
                queue_id,
                retry: RetryKind::Normal.letter().into(),
                revive_queue_id: popped.revive_queue_id,
                start_offset: starts[&queue_id],
                topic: TOPIC.into(),
            };
            let acks = by_queue.iter().map(ack).collect();
            let body = to_fastjson(&BatchAckMessageRequestBody { acks, broker_name: String::new() });
            self.request(RequestCode::BATCH_ACK_MESSAGE, first, &NoExt, &body);
            return (messages, 1);
        }
        let all =
            by_queue.iter().flat_map(|(&queue, offsets)| offsets.iter().map(move |&offset| (queue, offset)));
        for (opaque, (queue_id, offset)) in (first..).zip(all) {
            let handle = ReceiptHandle {
                start_offset: starts[&queue_id],
                pop_ms: popped.pop_ms,
                invisible_ms: popped.invisible_ms,
                revive_queue_id: popped.revive_queue_id,
                retry: RetryKind::Normal,
                broker: "broker",
                queue_id,
                offset,
            };
            let ack = AckMessageRequest {
                consumer_group: GROUP,
                topic: TOPIC,
                queue_id,
                extra_info: &handle.to_string(),
                offset,
            };
            self.request(RequestCode::ACK_MESSAGE, opaque, &ack, b"");
        }
        (messages, messages)
    }

    fn request(&mut self, code: RequestCode, opaque: i32, ext: &dyn WriteExt, body: &[u8]) {
        let head = RequestHead { code, opaque, oneway: false, ext };
        append_request(&mut self.out, HeaderEncoding::Json, &head, body).unwrap();
    }

    /// Sends what was asked and returns what has come, at least one reply.
    fn exchange(&mut self) -> Vec<RawFrame> {
        self.stream.write_all(&self.out.split()).unwrap();
        let mut frames = Vec::new();
        let mut piece = [0; 64 * 1024];
        while frames.is_empty() {
            let read = self.stream.read(&mut piece).unwrap();
            assert!(read > 0, "the broker closed the connection");
            self.received.extend_from_slice(&piece[..read]);
            while let Some(frame) = split_frame(&mut self.received).unwrap() {
                frames.push(frame);
            }
        }
        frames
    }
}

/// So many bits from the lowest on, little-endian, in base64.
fn base64_of_ones(count: usize) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = u64::MAX >> (64 - count);
    let bytes = bits.to_le_bytes();
    let mut text = String::new();
    for group in bytes[..count.div_ceil(8)].chunks(3) {
        let mut padded = [0; 4];
        padded[1..=group.len()].copy_from_slice(group);
        let value = u32::from_be_bytes(padded);
        for digit in 0..=group.len() {
            text.push(DIGITS[(value >> (18 - 6 * digit) & 63) as usize] as char);
        }
    }
    text
}
