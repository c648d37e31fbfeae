//! Requests over a plain socket, and what an answer is made of.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use apogee_net::command::{RequestHead, append_request};
use apogee_net::frame::{HeaderEncoding, split_frame};
use apogee_net::header::{ExtWriter, Header, WriteExt};
use apogee_net::message::StoredMessages;
use bytes::{Bytes, BytesMut};

use crate::keys;
use crate::normal::{self, Detail};
use crate::requests::{Receiver, Request};
use crate::side::Side;

/// An answer that has not come by then will not come.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Fields whose values are compared too: they mean the same on both sides.
const VALUES: &[&str] = &[
    "nextBeginOffset",
    "minOffset",
    "maxOffset",
    "offset",
    "suggestWhichBrokerId",
    "MSG_REGION",
    "TRACE_ON",
    "topicSysFlag",
    "groupSysFlag",
    "value",
    "hasMsg",
    "pollingFull",
    "changed",
];

/// Asks one side everything, over one connection to each server.
pub(crate) struct Asker<'a> {
    side: &'a Side,
    broker: Connection,
    namesrv: Connection,
    /// What the last send was answered with.
    msg_id: String,
}

struct Answer {
    code: i32,
    ext: Vec<(String, String)>,
    body: Bytes,
}

enum Outcome {
    Answered(Answer),
    Silence,
    Closed,
}

impl<'a> Asker<'a> {
    pub(crate) fn new(side: &'a Side) -> Asker<'a> {
        let broker = Connection::open(side.ports.broker);
        let namesrv = Connection::open(side.ports.namesrv);
        Asker { side, broker, namesrv, msg_id: String::new() }
    }

    /// What the answer is made of, as lines.
    pub(crate) fn ask(&mut self, request: &Request) -> Vec<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let mut request = request.clone();
        for (_, value) in &mut request.ext {
            *value = value
                .replace("$msgId", &self.msg_id)
                .replace("$place", &place_in_log(&self.msg_id).to_string())
                .replace("$now", &now.to_string());
        }
        let connection = match request.to {
            Receiver::Broker => &mut self.broker,
            Receiver::Namesrv => &mut self.namesrv,
        };
        let answer = match connection.ask(&request) {
            Outcome::Answered(answer) => answer,
            Outcome::Silence => return vec!["no answer".to_owned()],
            Outcome::Closed => {
                *connection = Connection::open(connection.address);
                return vec!["connection closed".to_owned()];
            }
        };
        if let Some((_, id)) = answer.ext.iter().find(|(name, _)| name == "msgId") {
            id.clone_into(&mut self.msg_id);
        }
        if request.only_code { vec![format!("code {}", answer.code)] } else { self.describe(&answer) }
    }

    fn describe(&self, answer: &Answer) -> Vec<String> {
        let mut lines = vec![format!("code {}", answer.code)];
        for (name, value) in &answer.ext {
            let value = if VALUES.contains(&name.as_str()) { format!(" = {value}") } else { String::new() };
            lines.push(format!("field {name}{value}"));
        }
        lines.extend(body(&answer.body));
        // Short lines of a body's keys: addresses in them, ids and times.
        normal::lines(&lines.join("\n"), self.side, Detail::Exact)
    }
}

/// The last eight bytes of an offset message id; zero without one.
fn place_in_log(msg_id: &str) -> u64 {
    msg_id.get(msg_id.len().saturating_sub(16)..).map_or(0, |hex| u64::from_str_radix(hex, 16).unwrap_or(0))
}

/// Messages, JSON, `key=value` lines, or something else.
fn body(bytes: &[u8]) -> Vec<String> {
    if bytes.is_empty() {
        return Vec::new();
    }
    if let Ok(messages) = StoredMessages::new(bytes).collect::<Result<Vec<_>, _>>() {
        return messages
            .iter()
            .map(|message| {
                let mut names = message
                    .properties
                    .iter()
                    .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
                    .collect::<Vec<_>>();
                names.sort();
                format!(
                    "message {} offset {} flag {} sysFlag {} reconsumeTimes {} body of {} bytes",
                    message.topic,
                    message.queue_offset,
                    message.flag,
                    message.sys_flag.0,
                    message.reconsume_times,
                    message.body.len()
                ) + &format!(", properties {}", names.join(" "))
            })
            .collect();
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return vec!["body of bytes".to_owned()] };
    if let Some(keys) = keys::of(text) {
        return keys.into_iter().map(|key| format!("body {key}")).collect();
    }
    text.lines().map(|line| format!("body line {}", line.split('=').next().unwrap_or_default())).collect()
}

struct Connection {
    address: SocketAddr,
    stream: TcpStream,
    received: BytesMut,
    next_opaque: i32,
}

impl Connection {
    fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).expect("connect");
        Connection { address, stream, received: BytesMut::new(), next_opaque: 1 }
    }

    fn ask(&mut self, request: &Request) -> Outcome {
        let opaque = self.next_opaque;
        self.next_opaque += 1;
        let mut wire = BytesMut::new();
        let head = RequestHead { code: request.code, opaque, oneway: false, ext: &Fields(&request.ext) };
        append_request(&mut wire, HeaderEncoding::Json, &head, &request.body).expect("a request that fits");
        if self.stream.write_all(&wire).is_err() {
            return Outcome::Closed;
        }
        let deadline = Instant::now() + ANSWER_TIME_MAX;
        loop {
            if let Some(frame) = split_frame(&mut self.received).expect("a frame") {
                let header = Header::decode(frame.encoding, &frame.header).expect("a header");
                // Others are requests of the server, and late answers.
                if header.is_reply() && header.opaque == opaque {
                    let ext =
                        header.ext.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                    return Outcome::Answered(Answer { code: header.code, ext, body: frame.body.clone() });
                }
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Outcome::Silence;
            }
            self.stream.set_read_timeout(Some(left)).expect("a read timeout");
            let mut piece = [0; 64 * 1024];
            match self.stream.read(&mut piece) {
                Ok(0) => return Outcome::Closed,
                Ok(read) => self.received.extend_from_slice(&piece[..read]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Outcome::Silence;
                }
                Err(_) => return Outcome::Closed,
            }
        }
    }
}

struct Fields<'a>(&'a [(String, String)]);

impl WriteExt for Fields<'_> {
    fn write_ext(&self, fields: &mut ExtWriter<'_>) {
        for (name, value) in self.0 {
            fields.str(name, value);
        }
    }
}
