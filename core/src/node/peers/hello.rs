//! What two nodes tell each other before anything else, and why they may refuse each other.
//!
//! ```text
//!     hello     1 | version u16 | kind u8 | session u64 | to u64 | group | count u16, each: setting, value u64 | peer
//!     refusal   2 | version u16 | field | found | expected
//! ```
//!
//! Little-endian; a text is its length (u16) and its bytes, and so is what the replica says of itself ([`PeerHello`]). The
//! version stands where it does in every version, so that two programs that do not understand each other can say so.

use std::fmt;

use apogee_storage::NodeId;
use bytes::{Buf, BufMut};

use crate::replication::PeerHello;
use crate::replication::codec::CodecError;

/// Of everything that nodes say to each other, batches aside: they have a format of their own.
pub(in crate::node) const PROTOCOL_VERSION: u16 = 1;

const HELLO: u8 = 1;
const REFUSAL: u8 = 2;

/// Settings that a hello may tell, more than there are.
const VALUES_MAX: usize = 64;

/// What a connection is for. A large batch on its way must not delay a heartbeat, so there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum LinkKind {
    /// Votes, heartbeats, answers.
    Control = 0,
    /// Batches of the log, snapshots.
    Appends = 1,
    /// Nothing: asks to be called now rather than when the other has waited long enough.
    Knock = 2,
}

impl LinkKind {
    fn from_byte(byte: u8) -> Option<LinkKind> {
        [LinkKind::Control, LinkKind::Appends, LinkKind::Knock].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What a shard of a node says of itself, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct Hello {
    pub(in crate::node) kind: LinkKind,
    /// The two connections of one call have the same.
    pub(in crate::node) session: u64,
    pub(in crate::node) about: About,
    /// Whom it believes to talk to.
    pub(in crate::node) to: NodeId,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct About {
    pub(in crate::node) peer: PeerHello,
    /// The group's name; the replica knows its number.
    pub(in crate::node) group: String,
    /// Settings that should be the same at all nodes, by name. Those that differ are told to people.
    pub(in crate::node) values: Vec<(String, u64)>,
}

/// Why two nodes do not talk: something that must be the same is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {found}, expected {expected}")]
pub(in crate::node) struct Refusal {
    pub(in crate::node) field: String,
    pub(in crate::node) found: String,
    pub(in crate::node) expected: String,
}

impl Refusal {
    fn new(field: &str, found: impl fmt::Display, expected: impl fmt::Display) -> Refusal {
        Refusal { field: field.to_owned(), found: found.to_string(), expected: expected.to_string() }
    }
}

/// The first frame of a connection, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) enum First {
    Hello(Hello),
    Refusal(Refusal),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::node) enum FirstError {
    #[error("the first frame is no hello")]
    NoHello,
    #[error("the other speaks version {found} of the protocol between nodes, expected {PROTOCOL_VERSION}")]
    Version { found: u16 },
    #[error("a hello without a readable {0}")]
    Field(&'static str),
    #[error("a hello whose replica says nonsense: {0}")]
    Peer(#[from] CodecError),
}

impl About {
    /// Whether one with this may talk to one with `other`'s. Told in `other`'s words: what it says is what is found.
    pub(in crate::node) fn check(&self, other: &About) -> Result<(), Refusal> {
        let (own, its) = (&self.peer, &other.peer);
        if its.cluster != own.cluster {
            return Err(Refusal::new("cluster", &its.cluster, &own.cluster));
        }
        if other.group != self.group {
            return Err(Refusal::new("group", &other.group, &self.group));
        }
        if its.shard != own.shard {
            return Err(Refusal::new("shard", its.shard, own.shard));
        }
        if its.group != own.group {
            return Err(Refusal::new("number of the group", its.group, own.group));
        }
        if its.node == own.node {
            let another = format_args!("another than {}, which is mine", own.node);
            return Err(Refusal::new("node", its.node, another));
        }
        if its.format != own.format {
            return Err(Refusal::new("format of batches", its.format, own.format));
        }
        if its.segment_bytes != own.segment_bytes {
            return Err(Refusal::new("segment_bytes", its.segment_bytes, own.segment_bytes));
        }
        Ok(())
    }

    /// Settings that differ from `own` and should not: name, here, there.
    pub(in crate::node) fn differences<'a>(
        &'a self,
        own: &'a [(String, u64)],
    ) -> impl Iterator<Item = (&'a str, u64, u64)> {
        own.iter().filter_map(|(name, here)| {
            let (_, there) = self.values.iter().find(|(its, _)| its == name)?;
            (there != here).then_some((name.as_str(), *here, *there))
        })
    }
}

impl Hello {
    /// Whether the call is for this shard, and from one it may talk to.
    pub(in crate::node) fn check_call(&self, own: &About) -> Result<(), Refusal> {
        own.check(&self.about)?;
        if self.to != own.peer.node {
            return Err(Refusal::new("node called", self.to, own.peer.node));
        }
        Ok(())
    }
}

impl First {
    pub(in crate::node) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        match self {
            First::Hello(Hello { kind, session, about, to }) => {
                out.put_u8(HELLO);
                out.put_u16_le(PROTOCOL_VERSION);
                out.put_u8(*kind as u8);
                out.put_u64_le(*session);
                out.put_u64_le(to.0);
                put_bytes(&mut out, about.group.as_bytes());
                out.put_u16_le(about.values.len() as u16);
                for (name, value) in &about.values {
                    put_bytes(&mut out, name.as_bytes());
                    out.put_u64_le(*value);
                }
                put_bytes(&mut out, &about.peer.encode());
            }
            First::Refusal(Refusal { field, found, expected }) => {
                out.put_u8(REFUSAL);
                out.put_u16_le(PROTOCOL_VERSION);
                [field, found, expected].into_iter().for_each(|text| put_bytes(&mut out, text.as_bytes()));
            }
        }
        out
    }

    pub(in crate::node) fn decode(mut bytes: &[u8]) -> Result<First, FirstError> {
        let from = &mut bytes;
        let what = from.try_get_u8().map_err(|_| FirstError::NoHello)?;
        if !matches!(what, HELLO | REFUSAL) {
            return Err(FirstError::NoHello);
        }
        let found = from.try_get_u16_le().map_err(|_| FirstError::NoHello)?;
        if found != PROTOCOL_VERSION {
            return Err(FirstError::Version { found });
        }
        if what == REFUSAL {
            let (field, found, expected) =
                (text(from, "refusal")?, text(from, "refusal")?, text(from, "refusal")?);
            return Ok(First::Refusal(Refusal { field, found, expected }));
        }
        let kind = from.try_get_u8().ok().and_then(LinkKind::from_byte).ok_or(FirstError::Field("kind"))?;
        let session = u64_of(from, "session")?;
        let to = NodeId(u64_of(from, "node called")?);
        let group = text(from, "group")?;
        let count = usize::from(u16_of(from, "settings")?);
        if count > VALUES_MAX {
            return Err(FirstError::Field("number of settings"));
        }
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push((text(from, "setting")?, u64_of(from, "setting")?));
        }
        let peer = PeerHello::decode(bytes_of(from, "word of the replica")?)?;
        Ok(First::Hello(Hello { kind, session, about: About { peer, group, values }, to }))
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // Names are checked to be short where they come from; what is longer is cut rather than sent wrong.
    let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
    out.put_u16_le(bytes.len() as u16);
    out.put_slice(bytes);
}

fn bytes_of<'a>(from: &mut &'a [u8], field: &'static str) -> Result<&'a [u8], FirstError> {
    let len = usize::from(u16_of(from, field)?);
    from.split_off(..len).ok_or(FirstError::Field(field))
}

fn text(from: &mut &[u8], field: &'static str) -> Result<String, FirstError> {
    std::str::from_utf8(bytes_of(from, field)?).map(str::to_owned).map_err(|_| FirstError::Field(field))
}

fn u16_of(from: &mut &[u8], field: &'static str) -> Result<u16, FirstError> {
    from.try_get_u16_le().map_err(|_| FirstError::Field(field))
}

fn u64_of(from: &mut &[u8], field: &'static str) -> Result<u64, FirstError> {
    from.try_get_u64_le().map_err(|_| FirstError::Field(field))
}

#[cfg(test)]
pub(super) mod tests {
    use apogee_storage::{BatchIndex, GroupId, Term};

    use super::*;

    pub(in crate::node::peers) fn about(node: u64) -> About {
        let peer = PeerHello {
            cluster: "c".into(),
            group: GroupId(9),
            shard: 3,
            node: NodeId(node),
            incarnation: 77,
            format: 2,
            segment_bytes: 1 << 30,
            recovering: false,
            joining: false,
            term: Term(4),
            last_index: BatchIndex(5),
            committed: BatchIndex(4),
            client_address: format!("127.0.0.1:{node}"),
        };
        let values = vec![("heartbeat_ms".into(), 100), ("window_bytes".into(), 8 << 20)];
        About { peer, group: "g".into(), values }
    }

    fn hello() -> Hello {
        Hello { kind: LinkKind::Appends, session: 5, about: about(1), to: NodeId(2) }
    }

    #[test]
    fn first_frames_are_read_back_and_every_prefix_cut_short_is_refused() {
        let refusal = Refusal { field: "cluster".into(), found: "x".into(), expected: "y".into() };
        for first in [First::Hello(hello()), First::Refusal(refusal)] {
            let bytes = first.encode();
            assert_eq!(First::decode(&bytes), Ok(first));
            for len in 0..bytes.len() {
                assert!(First::decode(&bytes[..len]).is_err(), "{len}");
            }
        }
    }

    #[test]
    fn another_version_is_told_from_nonsense() {
        let mut bytes = First::Hello(hello()).encode();
        bytes[1] = 9;
        assert_eq!(First::decode(&bytes), Err(FirstError::Version { found: 9 }));
        assert_eq!(First::decode(b"GET /"), Err(FirstError::NoHello));
    }

    #[test]
    fn refusals_name_what_differs() {
        let own = about(2);
        hello().check_call(&own).unwrap();
        type Change = fn(&mut Hello);
        let table: [(Change, &str); 7] = [
            (|hello| hello.about.peer.cluster = "d".into(), "cluster is d, expected c"),
            (|hello| hello.about.group = "h".into(), "group is h, expected g"),
            (|hello| hello.about.peer.shard = 4, "shard is 4, expected 3"),
            (|hello| hello.about.peer.node = NodeId(2), "node is 2, expected another than 2, which is mine"),
            (|hello| hello.about.peer.format = 3, "format of batches is 3, expected 2"),
            (|hello| hello.about.peer.segment_bytes = 7, "segment_bytes is 7, expected 1073741824"),
            (|hello| hello.to = NodeId(3), "node called is 3, expected 2"),
        ];
        for (change, text) in table {
            let mut hello = hello();
            change(&mut hello);
            assert_eq!(hello.check_call(&own).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn settings_that_differ_are_named() {
        let mut other = about(1);
        other.values[1].1 = 1;
        let own = about(2);
        let differences: Vec<_> = other.differences(&own.values).collect();
        assert_eq!(differences, [("window_bytes", 8 << 20, 1)]);
    }
}
