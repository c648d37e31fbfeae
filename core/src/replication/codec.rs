//! Peer messages as bytes.
//!
//! ```text
//! frame                                        all numbers little endian
//!  0        1        2        4           8             12        16         16 + body        + batches
//!  ├────────┼────────┼────────┼───────────┼─────────────┼─────────┼──────────┼────────────────┤
//!  │ kind   │ 0      │ 0      │ body len  │ batch bytes │ crc32c  │ body     │ whole batches  │
//!  └────────┴────────┴────────┴───────────┴─────────────┴─────────┴──────────┴────────────────┘
//!                                                       of bytes 0..12 and the body
//!
//! body by kind             u64 unless said otherwise; `?` is a byte, 0 or 1
//!   1 append               term, prev index, prev term, commit, last index, clock i64;    batches follow
//!   2 append answer        term, index, commit, refused?, hint index, hint term, echo?, echo i64
//!   3 heartbeat            term, commit, last index, clock i64
//!   4 heartbeat answer     term, commit, echo?, echo i64, unfit?
//!   5 vote request         term, last index, last term, commit, commit term, pre?, transfer?
//!   6 vote answer          term, commit, commit term, pre?, granted?
//!   7 timeout now          term
//!   8 reset                term, id, bytes, clock i64
//!   9 reset part           id, at, the bytes
//!  10 reset answer         id, bytes, failed?
//!  11 members              term, leader or 0, conf state, members
//!
//! conf state    index, auto leave?, then four lists (voters, outgoing, learners, next learners): u16 count, nodes
//! members       u16 count, each: node, u16 length, address
//! ```
//!
//! A batch says itself what its index, term, kind and length are, so the append says none of it; each batch has checksums
//! of its own. What is not needed is 0 and what is behind the last field is refused: one message has one form.

use apogee_storage::format::BATCH_BYTES_LIMIT;
use apogee_storage::{BatchIndex, ConfState, GroupId, Member, NodeId, OpId, Run, Term};

use super::message::{
    AppendAnswer, AppendHead, Heartbeat, HeartbeatAnswer, Members, PeerHello, PeerMessage, ResetAnswer,
    ResetHead, ResetPart, VoteAnswer, VoteRequest,
};

pub const FRAME_HEADER_LEN: usize = 16;

/// Bytes of a message without batches.
pub const BODY_BYTES_MAX: u32 = (1 << 20) + 64;

/// Bytes of batches behind one append: what one batch can have, and as much again.
pub const BATCHES_BYTES_MAX: u32 = 2 * BATCH_BYTES_LIMIT;

/// Nodes in any one list of a message.
pub(super) const NODES_MAX: usize = 64;

/// Bytes of a node's address.
pub(super) const ADDRESS_BYTES_MAX: usize = 512;

/// Bytes of a name in a hello.
const NAME_BYTES_MAX: usize = 512;

const HELLO_MAGIC: u32 = u32::from_le_bytes(*b"APPH");
const CRC_AT: usize = 12;

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("the message ends within {field}")]
    Short { field: &'static str },
    #[error("{found} bytes behind the message")]
    Trailing { found: usize },
    #[error("a message of kind {found}")]
    Kind { found: u8 },
    #[error("{field} is {found}; {limit} is the most")]
    TooLarge { field: &'static str, found: u64, limit: u64 },
    #[error("{field} is {found}")]
    Value { field: &'static str, found: u64 },
    #[error("checksum {found:08x}, expected {expected:08x}")]
    Crc { expected: u32, found: u32 },
}

/// The first bytes of a frame: how many follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    kind: u8,
    crc: u32,
    /// Bytes that follow, for [`decode`].
    pub body_len: u32,
    /// Bytes of batches that follow the body.
    pub batch_bytes: u32,
}

impl FrameHeader {
    /// Checks every length against its limit; the checksum is checked with the body.
    pub fn decode(bytes: &[u8; FRAME_HEADER_LEN]) -> Result<FrameHeader, CodecError> {
        let mut reader = Reader(bytes);
        let kind = reader.u8("kind")?;
        if !(1..=11).contains(&kind) {
            return Err(CodecError::Kind { found: kind });
        }
        for reserved in [u64::from(reader.u8("reserved")?), u64::from(reader.u16("reserved")?)] {
            if reserved != 0 {
                return Err(CodecError::Value { field: "reserved", found: reserved });
            }
        }
        let body_len = reader.u32("body length")?;
        let batch_bytes = reader.u32("batch bytes")?;
        let crc = reader.u32("crc")?;
        let batch_limit = if kind == 1 { BATCHES_BYTES_MAX } else { 0 };
        for (field, found, limit) in
            [("body length", body_len, BODY_BYTES_MAX), ("batch bytes", batch_bytes, batch_limit)]
        {
            if found > limit {
                return Err(CodecError::TooLarge { field, found: found.into(), limit: limit.into() });
            }
        }
        Ok(FrameHeader { kind, crc, body_len, batch_bytes })
    }
}

/// Appends header and body of a message to `out`; its batches, [`PeerMessage::batch_bytes`] of them, follow on the wire.
pub fn encode<B>(message: &PeerMessage<Run<B>>, out: &mut Vec<u8>) {
    encode_with(message, message.batch_bytes(), out);
}

pub(super) fn encode_with<P>(message: &PeerMessage<P>, batch_bytes: u64, out: &mut Vec<u8>) {
    let begin = out.len();
    let batch_bytes = u32::try_from(batch_bytes).expect("appends are bounded");
    assert!(batch_bytes <= BATCHES_BYTES_MAX, "an append of {batch_bytes} bytes");
    out.extend_from_slice(&[0; FRAME_HEADER_LEN]);
    let mut writer = Writer(out);
    let kind = match message {
        PeerMessage::Append { head, .. } => {
            writer.numbers([
                head.term.0,
                head.prev_index.0,
                head.prev_term.0,
                head.commit.0,
                head.last_index.0,
                head.clock_ms as u64,
            ]);
            1
        }
        PeerMessage::AppendAnswer(answer) => {
            writer.numbers([answer.term.0, answer.index.0, answer.commit.0]);
            let (index, term) = answer.refused.unwrap_or_default();
            writer.flag(answer.refused.is_some());
            writer.numbers([index.0, term.0]);
            writer.echo(answer.echo_ms);
            2
        }
        PeerMessage::Heartbeat(beat) => {
            writer.numbers([beat.term.0, beat.commit.0, beat.last_index.0, beat.clock_ms as u64]);
            3
        }
        PeerMessage::HeartbeatAnswer(answer) => {
            writer.numbers([answer.term.0, answer.commit.0]);
            writer.echo(answer.echo_ms);
            writer.flag(answer.unfit);
            4
        }
        PeerMessage::VoteRequest(vote) => {
            writer.numbers([
                vote.term.0,
                vote.last_index.0,
                vote.last_term.0,
                vote.commit.0,
                vote.commit_term.0,
            ]);
            writer.flag(vote.pre);
            writer.flag(vote.transfer);
            5
        }
        PeerMessage::VoteAnswer(answer) => {
            writer.numbers([answer.term.0, answer.commit.0, answer.commit_term.0]);
            writer.flag(answer.pre);
            writer.flag(answer.granted);
            6
        }
        PeerMessage::TimeoutNow { term } => {
            writer.numbers([term.0]);
            7
        }
        PeerMessage::Reset(head) => {
            writer.numbers([head.term.0, head.id.0, head.bytes, head.clock_ms as u64]);
            8
        }
        PeerMessage::ResetPart(part) => {
            writer.numbers([part.id.0, part.at]);
            writer.0.extend_from_slice(&part.bytes);
            9
        }
        PeerMessage::ResetAnswer(answer) => {
            writer.numbers([answer.id.0, answer.bytes]);
            writer.flag(answer.failed);
            10
        }
        PeerMessage::Members(members) => {
            writer.numbers([members.term.0, members.leader.map_or(0, |leader| leader.0)]);
            writer.conf(&members.conf);
            writer.members(&members.members);
            11
        }
    };
    let body_len = u32::try_from(out.len() - begin - FRAME_HEADER_LEN).expect("bodies are bounded");
    assert!(body_len <= BODY_BYTES_MAX, "a message of {body_len} bytes");
    out[begin] = kind;
    out[begin + 4..begin + 8].copy_from_slice(&body_len.to_le_bytes());
    out[begin + 8..begin + CRC_AT].copy_from_slice(&batch_bytes.to_le_bytes());
    let crc = crc32c::crc32c(&out[begin..begin + CRC_AT]);
    let crc = crc32c::crc32c_append(crc, &out[begin + FRAME_HEADER_LEN..]);
    out[begin + CRC_AT..begin + FRAME_HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
}

/// Reads a message from its header and body; an append still without its batches, which the receiver adds.
pub fn decode<P>(header: FrameHeader, body: &[u8]) -> Result<PeerMessage<P>, CodecError> {
    let mut prefix = [0; CRC_AT];
    prefix[0] = header.kind;
    prefix[4..8].copy_from_slice(&header.body_len.to_le_bytes());
    prefix[8..].copy_from_slice(&header.batch_bytes.to_le_bytes());
    let found = crc32c::crc32c_append(crc32c::crc32c(&prefix), body);
    if found != header.crc {
        return Err(CodecError::Crc { expected: header.crc, found });
    }
    let mut reader = Reader(body);
    let message = match header.kind {
        1 => PeerMessage::Append {
            head: AppendHead {
                term: reader.term()?,
                prev_index: reader.index()?,
                prev_term: reader.term()?,
                commit: reader.index()?,
                last_index: reader.index()?,
                clock_ms: reader.i64("clock")?,
            },
            batches: Vec::new(),
        },
        2 => {
            let (term, index, commit) = (reader.term()?, reader.index()?, reader.index()?);
            let is_refused = reader.flag("refused")?;
            let hint = (reader.index()?, reader.term()?);
            if !is_refused && hint != Default::default() {
                return Err(CodecError::Value { field: "hint", found: hint.0.0 });
            }
            let refused = is_refused.then_some(hint);
            PeerMessage::AppendAnswer(AppendAnswer { term, index, refused, commit, echo_ms: reader.echo()? })
        }
        3 => PeerMessage::Heartbeat(Heartbeat {
            term: reader.term()?,
            commit: reader.index()?,
            last_index: reader.index()?,
            clock_ms: reader.i64("clock")?,
        }),
        4 => PeerMessage::HeartbeatAnswer(HeartbeatAnswer {
            term: reader.term()?,
            commit: reader.index()?,
            echo_ms: reader.echo()?,
            unfit: reader.flag("unfit")?,
        }),
        5 => PeerMessage::VoteRequest(VoteRequest {
            term: reader.term()?,
            last_index: reader.index()?,
            last_term: reader.term()?,
            commit: reader.index()?,
            commit_term: reader.term()?,
            pre: reader.flag("pre")?,
            transfer: reader.flag("transfer")?,
        }),
        6 => PeerMessage::VoteAnswer(VoteAnswer {
            term: reader.term()?,
            commit: reader.index()?,
            commit_term: reader.term()?,
            pre: reader.flag("pre")?,
            granted: reader.flag("granted")?,
        }),
        7 => PeerMessage::TimeoutNow { term: reader.term()? },
        8 => PeerMessage::Reset(ResetHead {
            term: reader.term()?,
            id: OpId(reader.u64("id")?),
            bytes: reader.u64("bytes")?,
            clock_ms: reader.i64("clock")?,
        }),
        9 => PeerMessage::ResetPart(ResetPart {
            id: OpId(reader.u64("id")?),
            at: reader.u64("at")?,
            bytes: std::mem::take(&mut reader.0).to_vec(),
        }),
        10 => PeerMessage::ResetAnswer(ResetAnswer {
            id: OpId(reader.u64("id")?),
            bytes: reader.u64("bytes")?,
            failed: reader.flag("failed")?,
        }),
        11 => PeerMessage::Members(Box::new(Members {
            term: reader.term()?,
            leader: Some(NodeId(reader.u64("leader")?)).filter(|leader| leader.0 != 0),
            conf: reader.conf()?,
            members: reader.members()?,
        })),
        found => return Err(CodecError::Kind { found }),
    };
    reader.end()?;
    Ok(message)
}

impl PeerHello {
    /// ```text
    /// magic "APPH", u32 format, group, u32 shard, node, incarnation, segment bytes, term, last index, committed index,
    /// recovering?, joining?, cluster, client address, crc32c of all before it         strings: u16 length, UTF-8
    /// ```
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer(&mut out);
        writer.0.extend_from_slice(&HELLO_MAGIC.to_le_bytes());
        writer.0.extend_from_slice(&self.format.to_le_bytes());
        writer.numbers([self.group.0]);
        writer.0.extend_from_slice(&self.shard.to_le_bytes());
        writer.numbers([self.node.0, self.incarnation, self.segment_bytes]);
        writer.numbers([self.term.0, self.last_index.0, self.committed.0]);
        writer.flag(self.recovering);
        writer.flag(self.joining);
        writer.bytes(self.cluster.as_bytes(), NAME_BYTES_MAX);
        writer.bytes(self.client_address.as_bytes(), NAME_BYTES_MAX);
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads what [`encode`](PeerHello::encode) gave. Whether the other node belongs here is the receiver's to tell.
    pub fn decode(bytes: &[u8]) -> Result<PeerHello, CodecError> {
        let (before, crc) = bytes.split_last_chunk::<4>().ok_or(CodecError::Short { field: "crc" })?;
        let (expected, found) = (u32::from_le_bytes(*crc), crc32c::crc32c(before));
        let mut reader = Reader(before);
        let magic = reader.u32("magic")?;
        if magic != HELLO_MAGIC {
            return Err(CodecError::Value { field: "magic", found: magic.into() });
        }
        if found != expected {
            return Err(CodecError::Crc { expected, found });
        }
        let format = reader.u32("format")?;
        let group = GroupId(reader.u64("group")?);
        let hello = PeerHello {
            format,
            group,
            shard: reader.u32("shard")?,
            node: NodeId(reader.u64("node")?),
            incarnation: reader.u64("incarnation")?,
            segment_bytes: reader.u64("segment bytes")?,
            term: reader.term()?,
            last_index: reader.index()?,
            committed: reader.index()?,
            recovering: reader.flag("recovering")?,
            joining: reader.flag("joining")?,
            cluster: reader.string("cluster")?,
            client_address: reader.string("client address")?,
        };
        reader.end()?;
        Ok(hello)
    }
}

pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        numbers.iter().for_each(|number| self.0.extend_from_slice(&number.to_le_bytes()));
    }

    pub(super) fn flag(&mut self, flag: bool) {
        self.0.push(flag.into());
    }

    fn echo(&mut self, echo_ms: Option<i64>) {
        self.flag(echo_ms.is_some());
        self.numbers([echo_ms.unwrap_or(0) as u64]);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8], limit: usize) {
        assert!(bytes.len() <= limit, "{} bytes where {limit} are the most", bytes.len());
        self.0.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn count(&mut self, count: usize) {
        assert!(count <= NODES_MAX, "{count} nodes where {NODES_MAX} are the most");
        self.0.extend_from_slice(&(count as u16).to_le_bytes());
    }

    pub(super) fn conf(&mut self, conf: &ConfState) {
        self.numbers([conf.index.0]);
        self.flag(conf.auto_leave);
        for list in [&conf.voters, &conf.outgoing, &conf.learners, &conf.learners_next] {
            self.count(list.len());
            list.iter().for_each(|node| self.numbers([node.0]));
        }
    }

    pub(super) fn members(&mut self, members: &[Member]) {
        self.count(members.len());
        for member in members {
            self.numbers([member.node.0]);
            self.bytes(&member.address, ADDRESS_BYTES_MAX);
        }
    }
}

pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(CodecError::Short { field })?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CodecError> {
        Ok(self.take(N, field)?.try_into().expect("of this length"))
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        Ok(self.array::<1>(field)?[0])
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, CodecError> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, CodecError> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, CodecError> {
        self.array(field).map(i64::from_le_bytes)
    }

    fn term(&mut self) -> Result<Term, CodecError> {
        self.u64("term").map(Term)
    }

    fn index(&mut self) -> Result<BatchIndex, CodecError> {
        self.u64("index").map(BatchIndex)
    }

    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool, CodecError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(CodecError::Value { field, found: found.into() }),
        }
    }

    fn echo(&mut self) -> Result<Option<i64>, CodecError> {
        let is_there = self.flag("echo")?;
        let echo_ms = self.i64("echo")?;
        match is_there {
            true => Ok(Some(echo_ms)),
            false if echo_ms == 0 => Ok(None),
            false => Err(CodecError::Value { field: "echo", found: echo_ms as u64 }),
        }
    }

    pub(super) fn bytes(&mut self, limit: usize, field: &'static str) -> Result<&'a [u8], CodecError> {
        let len = self.u16(field)?;
        if usize::from(len) > limit {
            return Err(CodecError::TooLarge { field, found: len.into(), limit: limit as u64 });
        }
        self.take(len.into(), field)
    }

    fn string(&mut self, field: &'static str) -> Result<String, CodecError> {
        let bytes = self.bytes(NAME_BYTES_MAX, field)?;
        let text = std::str::from_utf8(bytes)
            .map_err(|error| CodecError::Value { field, found: error.valid_up_to() as u64 })?;
        Ok(text.into())
    }

    pub(super) fn count(&mut self, field: &'static str) -> Result<usize, CodecError> {
        let found = self.u16(field)?;
        if usize::from(found) > NODES_MAX {
            return Err(CodecError::TooLarge { field, found: found.into(), limit: NODES_MAX as u64 });
        }
        Ok(found.into())
    }

    pub(super) fn node(&mut self) -> Result<NodeId, CodecError> {
        match self.u64("node")? {
            0 => Err(CodecError::Value { field: "node", found: 0 }),
            node => Ok(NodeId(node)),
        }
    }

    pub(super) fn conf(&mut self) -> Result<ConfState, CodecError> {
        let index = self.index()?;
        let auto_leave = self.flag("auto leave")?;
        let mut list = || -> Result<Vec<NodeId>, CodecError> {
            let count = self.count("nodes")?;
            (0..count).map(|_| self.node()).collect()
        };
        let (voters, outgoing, learners, learners_next) = (list()?, list()?, list()?, list()?);
        Ok(ConfState { index, voters, outgoing, learners, learners_next, auto_leave })
    }

    pub(super) fn members(&mut self) -> Result<Vec<Member>, CodecError> {
        let count = self.count("members")?;
        let member = |reader: &mut Reader<'a>| {
            let node = reader.node()?;
            Ok(Member { node, address: reader.bytes(ADDRESS_BYTES_MAX, "address")?.to_vec() })
        };
        (0..count).map(|_| member(self)).collect()
    }

    pub(super) fn end(&self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError::Trailing { found: self.0.len() }) }
    }
}
