//! Transactions a second through the real binary: a half message, its acknowledgement, the commit and its answer are one.
//!
//! ```text
//! cargo bench --bench transactions -- [seconds [connections [in flight per connection]]]
//! ```
//!
//! A closed loop: each connection keeps so many transactions under way and begins the next when one is done, so the
//! figure is what the broker takes, not how it bears more than that. Both answers promise durability; stock producers do
//! not wait for the second. Bodies have 1 KiB; one shard, client and broker on the same machine.

// Client threads block as they please: no executor runs here.
#![allow(clippy::disallowed_methods)]

#[path = "../tests/interop/ports.rs"]
mod ports;
#[path = "../tests/broker/server.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{RequestHead, append_request};
use apogee_net::flags::MessageSysFlag;
use apogee_net::frame::{HeaderEncoding, split_frame};
use apogee_net::header::{Header, WriteExt};
use apogee_net::message::OffsetMessageId;
use apogee_net::request::{EndTransactionRequest, SendMessageReply, SendMessageRequest, TypedHeader};
use bytes::BytesMut;
use server::Server;

const BODY: [u8; 1024] = [b'x'; 1024];
const PROPERTIES: &str = "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}PG\u{2}WAIT\u{1}true\u{2}";
const QUEUES: usize = 4;

/// The second segment is made meanwhile.
const WARM_UP: Duration = Duration::from_secs(5);

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<u64>().ok());
    let seconds = numbers.next().unwrap_or(10);
    let connections = numbers.next().unwrap_or(8) as usize;
    let in_flight = numbers.next().unwrap_or(16) as usize;

    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let server = Server::start(dir.path(), "");
    let address = server.address();
    // One to its end: a new broker has no segment yet.
    let now = Instant::now();
    Producer::new(TcpStream::connect(address).unwrap(), 0, 1).run(now, now);
    let from = Instant::now() + WARM_UP;
    let until = from + Duration::from_secs(seconds);
    let clients: Vec<_> = (0..connections)
        .map(|number| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            std::thread::spawn(move || Producer::new(stream, number, in_flight).run(from, until))
        })
        .collect();
    let mut took: Vec<Duration> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    server.stop();
    assert!(!took.is_empty(), "no transaction ended in the time measured");
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!(
        "{} transactions in {seconds} s: {} a second, {connections} connections with {in_flight} each; \
         half message to end p50 {:?}, p99 {:?}, max {:?}",
        took.len(),
        took.len() as u64 / seconds,
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

struct Producer {
    stream: TcpStream,
    out: BytesMut,
    received: BytesMut,
    queue_id: i32,
    /// When each of the transactions under way began; its place is the opaque of its requests, halved.
    begun: Vec<Instant>,
}

impl Producer {
    fn new(stream: TcpStream, number: usize, in_flight: usize) -> Self {
        let queue_id = (number % QUEUES) as i32;
        let (out, received) = (BytesMut::new(), BytesMut::new());
        Producer { stream, out, received, queue_id, begun: vec![Instant::now(); in_flight] }
    }

    /// How long each transaction took that ended in the time measured.
    fn run(mut self, from: Instant, until: Instant) -> Vec<Duration> {
        let mut took = Vec::new();
        let mut under_way = self.begun.len();
        (0..under_way).for_each(|nth| self.begin(nth));
        while under_way > 0 {
            self.stream.write_all(&self.out.split()).unwrap();
            let mut piece = [0; 64 * 1024];
            let read = self.stream.read(&mut piece).unwrap();
            assert!(read > 0, "the broker closed the connection");
            self.received.extend_from_slice(&piece[..read]);
            while let Some(frame) = split_frame(&mut self.received).unwrap() {
                let header = Header::decode(frame.encoding, &frame.header).unwrap();
                assert_eq!(ResponseCode(header.code), ResponseCode::SUCCESS, "{:?}", header.remark);
                let (nth, is_end) = ((header.opaque / 2) as usize, header.opaque % 2 == 1);
                if !is_end {
                    self.commit(nth, &SendMessageReply::decode(&header.ext).unwrap());
                    continue;
                }
                let now = Instant::now();
                if (from..until).contains(&now) {
                    took.push(now - self.begun[nth]);
                }
                if now < until {
                    self.begin(nth);
                } else {
                    under_way -= 1;
                }
            }
        }
        took
    }

    fn begin(&mut self, nth: usize) {
        self.begun[nth] = Instant::now();
        let send = SendMessageRequest {
            producer_group: "PG",
            topic: "Transactions",
            default_topic: "TBW102",
            default_topic_queues: QUEUES as i32,
            queue_id: self.queue_id,
            sys_flag: MessageSysFlag::TRANSACTION_PREPARED,
            born_timestamp: 1_700_000_000_000,
            flag: 0,
            properties: PROPERTIES,
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: false,
            broker_name: None,
        };
        self.request(RequestCode::SEND_MESSAGE_V2, 2 * nth as i32, &send, &BODY);
    }

    fn commit(&mut self, nth: usize, half: &SendMessageReply<'_>) {
        let end = EndTransactionRequest {
            producer_group: "PG",
            tran_state_table_offset: half.queue_offset,
            commit_log_offset: OffsetMessageId::parse(&half.msg_id).unwrap().physical_offset,
            commit_or_rollback: MessageSysFlag::TRANSACTION_COMMIT.0,
            from_check: false,
            msg_id: half.transaction_id.as_deref().unwrap_or_default(),
            transaction_id: None,
        };
        self.request(RequestCode::END_TRANSACTION, 2 * nth as i32 + 1, &end, b"");
    }

    fn request(&mut self, code: RequestCode, opaque: i32, ext: &dyn WriteExt, body: &[u8]) {
        let head = RequestHead { code, opaque, oneway: false, ext };
        append_request(&mut self.out, HeaderEncoding::Json, &head, body).unwrap();
    }
}
