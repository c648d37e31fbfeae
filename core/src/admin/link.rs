//! One question to one server, and its answer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{RequestHead, append_request};
use apogee_net::frame::{HeaderEncoding, split_frame};
use apogee_net::header::{Header, WriteExt};
use bytes::{Bytes, BytesMut};

const CONNECT_WAIT: Duration = Duration::from_secs(1);
const ANSWER_WAIT: Duration = Duration::from_secs(3);

/// Its number is of no account: a connection carries one question.
const OPAQUE: i32 = 1;

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) remark: String,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("it cannot be reached ({})", .0.kind())]
    Unreachable(io::Error),
    #[error("it does not answer ({})", .0.kind())]
    Silent(io::Error),
    #[error("it closes the connection")]
    Closed,
    #[error("what it answers is not RocketMQ's protocol ({0})")]
    Garbled(String),
}

/// Asks over a connection of its own.
pub(super) fn ask(address: SocketAddr, code: RequestCode, ext: &dyn WriteExt) -> Result<Answer, AskError> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_WAIT).map_err(AskError::Unreachable)?;
    let mut wire = BytesMut::new();
    let head = RequestHead { code, opaque: OPAQUE, oneway: false, ext };
    append_request(&mut wire, HeaderEncoding::Json, &head, b"").expect("far smaller than a frame");
    stream.set_write_timeout(Some(ANSWER_WAIT)).map_err(AskError::Silent)?;
    stream.write_all(&wire).map_err(AskError::Silent)?;
    let asked = Instant::now();
    let mut received = BytesMut::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let frame = split_frame(&mut received).map_err(|error| AskError::Garbled(error.to_string()))?;
        if let Some(frame) = frame {
            let header = Header::decode(frame.encoding, &frame.header)
                .map_err(|error| AskError::Garbled(error.to_string()))?;
            // Servers may ask something themselves.
            if !header.is_reply() || header.opaque != OPAQUE {
                continue;
            }
            return Ok(Answer {
                code: ResponseCode(header.code),
                remark: header.remark.as_deref().unwrap_or_default().to_owned(),
                body: frame.body.clone(),
            });
        }
        let left = ANSWER_WAIT.saturating_sub(asked.elapsed());
        if left.is_zero() {
            return Err(AskError::Silent(io::ErrorKind::TimedOut.into()));
        }
        stream.set_read_timeout(Some(left)).map_err(AskError::Silent)?;
        match stream.read(&mut piece) {
            Ok(0) => return Err(AskError::Closed),
            Ok(read) => received.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(AskError::Silent(error)),
        }
    }
}
