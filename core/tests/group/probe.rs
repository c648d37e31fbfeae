//! A client that asks one thing after the other and knows what time it is: routes, and whether a shard takes messages.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use apogee_net::body::{self, TopicRouteData};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{RequestHead, append_request};
use apogee_net::flags::{MessageSysFlag, Perm};
use apogee_net::frame::{HeaderEncoding, split_frame};
use apogee_net::header::{Header, WriteExt};
use apogee_net::request::{
    CreateTopicRequest, GetRouteInfoRequest, SendMessageRequest, TransferLeaderRequest,
};
use bytes::{Bytes, BytesMut};

use crate::hosts::Host;

/// Addresses by broker id, by broker name.
pub(crate) type Routes = BTreeMap<String, BTreeMap<i64, SocketAddr>>;

const CONNECT_TIME_MAX: Duration = Duration::from_millis(300);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);

/// Runs something on a host's network.
pub(crate) fn on_host<T: Send>(host: &Host, what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            host.enter();
            what()
        };
        scope.spawn(run).join().expect("a thread on a host")
    })
}

/// What the first NameServer that answers says.
pub(crate) fn routes(namesrvs: &[SocketAddr], topic: &str) -> Option<Routes> {
    namesrvs.iter().find_map(|namesrv| Asker::connect(*namesrv).ok()?.routes(topic).ok())
}

pub(crate) struct Asker {
    stream: TcpStream,
    received: BytesMut,
    next_opaque: i32,
}

impl Asker {
    pub(crate) fn connect(address: SocketAddr) -> Result<Asker> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIME_MAX)?;
        stream.set_nodelay(true)?;
        Ok(Asker { stream, received: BytesMut::new(), next_opaque: 1 })
    }

    pub(crate) fn ask(
        &mut self,
        code: RequestCode,
        ext: &dyn WriteExt,
        body: &[u8],
    ) -> Result<(ResponseCode, Bytes)> {
        let opaque = self.next_opaque;
        self.next_opaque += 1;
        let mut wire = BytesMut::new();
        let head = RequestHead { code, opaque, oneway: false, ext };
        append_request(&mut wire, HeaderEncoding::Json, &head, body)
            .expect("a request of ours is well formed");
        self.stream.write_all(&wire)?;
        let deadline = Instant::now() + ANSWER_TIME_MAX;
        loop {
            if let Some(frame) = split_frame(&mut self.received).map_err(Error::other)? {
                let header = Header::decode(frame.encoding, &frame.header).map_err(Error::other)?;
                if header.is_reply() && header.opaque == opaque {
                    return Ok((ResponseCode(header.code), frame.body.clone()));
                }
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut piece = [0; 16 * 1024];
            let read = self.stream.read(&mut piece)?;
            if read == 0 {
                return Err(ErrorKind::ConnectionReset.into());
            }
            self.received.extend_from_slice(&piece[..read]);
        }
    }

    fn routes(&mut self, topic: &str) -> Result<Routes> {
        let request =
            GetRouteInfoRequest { topic, accept_standard_json_only: true, zone_name: None, zone_mode: false };
        let (code, body) = self.ask(RequestCode::GET_ROUTEINFO_BY_TOPIC, &request, &[])?;
        match code {
            ResponseCode::SUCCESS => {
                let route: TopicRouteData = body::parse(&body).map_err(Error::other)?;
                let address = |text: &String| text.parse().expect("an address in a route");
                let brokers = route.broker_datas.iter().map(|broker| {
                    let addresses =
                        broker.broker_addrs.iter().map(|(id, text)| (*id, address(text))).collect();
                    (broker.broker_name.clone(), addresses)
                });
                Ok(brokers.collect())
            }
            ResponseCode::TOPIC_NOT_EXIST => Ok(Routes::new()),
            code => Err(Error::other(format!("asked for a route: {code}"))),
        }
    }

    /// One queue at this broker.
    pub(crate) fn create_topic(&mut self, topic: &str) -> Result<()> {
        let request = CreateTopicRequest {
            topic,
            default_topic: "TBW102",
            read_queues: 1,
            write_queues: 1,
            perm: Perm::READ_WRITE,
            filter_type: "SINGLE_TAG",
            topic_sys_flag: Some(0),
            order: false,
            attributes: None,
            force: false,
        };
        self.expect_success(RequestCode::UPDATE_AND_CREATE_TOPIC, &request, &[])
    }

    /// Asks this leader to hand over to another node.
    pub(crate) fn transfer(&mut self, node: usize) -> Result<()> {
        let request = TransferLeaderRequest { node: node as i64 };
        self.expect_success(RequestCode::APOGEE_TRANSFER_LEADER, &request, &[])
    }

    /// Returns when it is acknowledged.
    pub(crate) fn send(&mut self, topic: &str, body: &[u8]) -> Result<()> {
        let request = SendMessageRequest {
            producer_group: "probe",
            topic,
            default_topic: "TBW102",
            default_topic_queues: 1,
            queue_id: 0,
            sys_flag: MessageSysFlag(0),
            born_timestamp: 1_700_000_000_000,
            flag: 0,
            properties: "",
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: false,
            broker_name: None,
        };
        self.expect_success(RequestCode::SEND_MESSAGE_V2, &request, body)
    }

    fn expect_success(&mut self, code: RequestCode, request: &dyn WriteExt, body: &[u8]) -> Result<()> {
        match self.ask(code, request, body)?.0 {
            ResponseCode::SUCCESS => Ok(()),
            code => Err(Error::other(format!("refused: {code}"))),
        }
    }
}
