//! A client that asks one thing after the other.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{RequestHead, append_request};
use apogee_net::flags::{MessageSysFlag, PullSysFlag};
use apogee_net::frame::{HeaderEncoding, split_frame};
use apogee_net::header::{Header, WriteExt};
use apogee_net::request::{PullMessageRequest, SendMessageRequest};
use bytes::{Bytes, BytesMut};

use crate::server::Server;

pub(crate) struct Client {
    stream: TcpStream,
    received: BytesMut,
    next_opaque: i32,
}

pub(crate) struct Answer {
    pub(crate) code: ResponseCode,
    pub(crate) remark: String,
    pub(crate) ext: BTreeMap<String, String>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn int(&self, field: &str) -> i64 {
        self.ext[field].parse().unwrap()
    }
}

impl Client {
    pub(crate) fn connect(server: &Server) -> Client {
        Client::connect_to(server.address())
    }

    pub(crate) fn connect_to(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Client { stream, received: BytesMut::new(), next_opaque: 1 }
    }

    pub(crate) fn ask(&mut self, code: RequestCode, ext: &dyn WriteExt, body: &[u8]) -> Answer {
        let opaque = self.next_opaque;
        self.next_opaque += 1;
        let mut wire = BytesMut::new();
        let head = RequestHead { code, opaque, oneway: false, ext };
        append_request(&mut wire, HeaderEncoding::Json, &head, body).unwrap();
        self.stream.write_all(&wire).unwrap();
        loop {
            if let Some(frame) = split_frame(&mut self.received).unwrap() {
                let header = Header::decode(frame.encoding, &frame.header).unwrap();
                if !header.is_reply() {
                    continue;
                }
                assert_eq!(header.opaque, opaque, "an answer to something else");
                return Answer {
                    code: ResponseCode(header.code),
                    remark: header.remark.as_deref().unwrap_or_default().to_owned(),
                    ext: header.ext.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                    body: frame.body.clone(),
                };
            }
            let mut piece = [0; 64 * 1024];
            let read = self.stream.read(&mut piece).unwrap();
            assert!(read > 0, "the broker closed the connection");
            self.received.extend_from_slice(&piece[..read]);
        }
    }

    /// Sends one message and waits until it is durable.
    pub(crate) fn send(&mut self, topic: &str, queue_id: i32, body: &[u8], properties: &str) -> Answer {
        let send = send_to(topic, queue_id, properties);
        let answer = self.ask(RequestCode::SEND_MESSAGE_V2, &send, body);
        assert_eq!(answer.code, ResponseCode::SUCCESS, "{}", answer.remark);
        answer
    }

    /// Sends messages to queue 0, each with its properties, many at a time, and waits until all are durable.
    pub(crate) fn send_many(&mut self, topic: &str, messages: impl IntoIterator<Item = (Vec<u8>, String)>) {
        const UNDER_WAY_MAX: usize = 4_096;
        let mut messages = messages.into_iter().peekable();
        let mut under_way = 0;
        while messages.peek().is_some() || under_way > 0 {
            let mut wire = BytesMut::new();
            while under_way < UNDER_WAY_MAX
                && let Some((body, properties)) = messages.next()
            {
                let send = send_to(topic, 0, &properties);
                let head =
                    RequestHead { code: RequestCode::SEND_MESSAGE_V2, opaque: 1, oneway: false, ext: &send };
                append_request(&mut wire, HeaderEncoding::Json, &head, &body).unwrap();
                under_way += 1;
            }
            self.stream.write_all(&wire).unwrap();
            let mut piece = [0; 64 * 1024];
            while under_way > UNDER_WAY_MAX / 2 || messages.peek().is_none() && under_way > 0 {
                let read = self.stream.read(&mut piece).unwrap();
                assert!(read > 0, "the broker closed the connection");
                self.received.extend_from_slice(&piece[..read]);
                while let Some(frame) = split_frame(&mut self.received).unwrap() {
                    let header = Header::decode(frame.encoding, &frame.header).unwrap();
                    assert_eq!(ResponseCode(header.code), ResponseCode::SUCCESS, "{:?}", header.remark);
                    under_way -= 1;
                }
            }
        }
    }

    pub(crate) fn pull(&mut self, topic: &str, queue_id: i32, from: i64, bytes_max: i32) -> Answer {
        let pull = PullMessageRequest {
            consumer_group: "CG",
            topic,
            queue_id,
            queue_offset: from,
            messages_max: 1024,
            sys_flag: PullSysFlag::SUBSCRIPTION,
            commit_offset: 0,
            suspend_timeout_ms: 0,
            subscription: Some("*"),
            sub_version: 0,
            expression_type: Some("TAG"),
            message_bytes_max: Some(bytes_max),
        };
        self.ask(RequestCode::PULL_MESSAGE, &pull, b"")
    }
}

fn send_to<'a>(topic: &'a str, queue_id: i32, properties: &'a str) -> SendMessageRequest<'a> {
    SendMessageRequest {
        producer_group: "PG",
        topic,
        default_topic: "TBW102",
        default_topic_queues: 4,
        queue_id,
        sys_flag: MessageSysFlag(0),
        born_timestamp: 1_700_000_000_000,
        flag: 0,
        properties,
        reconsume_times: 0,
        unit_mode: false,
        max_reconsume_times: None,
        batch: false,
        broker_name: None,
    }
}
