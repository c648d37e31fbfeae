//! Frames as stock peers write and read them.

use std::collections::BTreeMap;

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::command::{ReplyHead, RequestHead, append_request, encode_reply};
use apogee_net::frame::{HeaderEncoding, RawFrame, split_frame};
use apogee_net::header::{Header, WriteExt};
use apogee_net::io::Chunk;
use bytes::{Bytes, BytesMut};

use crate::service::{Reply, ReplyTo};

/// A reply as its receiver reads it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) remark: String,
    pub(super) ext: BTreeMap<String, String>,
    pub(super) body: Bytes,
    /// As it came.
    pub(super) frame: RawFrame,
}

impl Answer {
    pub(super) fn int(&self, field: &str) -> i64 {
        let value = self.ext.get(field).unwrap_or_else(|| panic!("no {field} in {self:?}"));
        value.parse().unwrap_or_else(|_| panic!("{field} is {value}"))
    }

    pub(super) fn is_success(&self) -> bool {
        self.code == ResponseCode::SUCCESS
    }
}

/// A request from a server, as a client reads it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) code: RequestCode,
    pub(super) opaque: i32,
    pub(super) is_oneway: bool,
    pub(super) ext: BTreeMap<String, String>,
    pub(super) body: Bytes,
}

#[derive(Clone, Debug)]
pub(super) enum Received {
    Answer { opaque: i32, answer: Answer },
    Asked(Asked),
}

pub(super) fn frame(bytes: &Bytes) -> RawFrame {
    let mut wire = BytesMut::from(&bytes[..]);
    split_frame(&mut wire).expect("a frame").expect("a whole frame")
}

pub(super) fn request(
    code: RequestCode,
    opaque: i32,
    oneway: bool,
    ext: &dyn WriteExt,
    body: &[u8],
) -> Bytes {
    let mut wire = BytesMut::new();
    append_request(&mut wire, HeaderEncoding::Json, &RequestHead { code, opaque, oneway, ext }, body)
        .expect("a request fits a frame");
    wire.freeze()
}

pub(super) fn reply(to: ReplyTo, reply: &Reply) -> Bytes {
    let body: Vec<u8> = reply.body.iter().flat_map(in_memory).copied().collect();
    let head =
        ReplyHead { code: reply.code, opaque: to.opaque, remark: reply.remark.as_deref(), ext: &reply.ext };
    let mut wire = BytesMut::new();
    encode_reply(&mut wire, to.encoding, &head, body.len()).expect("a reply fits a frame");
    wire.extend_from_slice(&body);
    wire.freeze()
}

pub(super) fn in_memory(chunk: &Chunk) -> &[u8] {
    chunk.in_memory().expect("the simulation sends nothing from files")
}

pub(super) fn receive(bytes: &Bytes) -> Received {
    let frame = frame(bytes);
    let header =
        Header::decode(frame.encoding, &frame.header).expect("servers write headers that can be read");
    let body = frame.body.clone();
    let ext = header.ext.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if header.is_reply() {
        let remark = header.remark.as_deref().unwrap_or_default().to_owned();
        let (code, opaque) = (ResponseCode(header.code), header.opaque);
        drop(header);
        return Received::Answer { opaque, answer: Answer { code, remark, ext, body, frame } };
    }
    Received::Asked(Asked {
        code: RequestCode(header.code),
        opaque: header.opaque,
        is_oneway: header.is_oneway(),
        ext,
        body,
    })
}
