//! The bytes of one slot, drawn in `docs/format.md`: a header, lists of nodes, members, the term of an accepted loss, zeros.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::state::{ConfState, GroupState, Member};
use crate::format::{BLOCK_LEN, age};
use crate::types::{BatchIndex, GroupId, LogOffset, LogStart, NodeId, Term};

pub(crate) const SLOT_MAGIC: [u8; 4] = *b"APGV";
pub(crate) const SLOT_VERSION: u16 = 1;
pub(crate) const SLOT_HEADER_LEN: usize = 144;
/// One direct write.
pub(crate) const SLOT_LEN: usize = BLOCK_LEN;
pub(crate) const GROUP_FILE_LEN: usize = 2 * SLOT_LEN;

const RECOVERING: u32 = 1;
const AUTO_LEAVE: u32 = 2;
const LOSS_ACCEPTED: u32 = 4;
const FLAGS: u32 = RECOVERING | AUTO_LEAVE | LOSS_ACCEPTED;
const NODE_LEN: usize = 8;
/// Of a member without its address.
const MEMBER_LEN: usize = 10;
const LOSS_LEN: usize = 8;

/// Opens a slot. Little-endian.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub(crate) struct SlotHeader {
    pub(crate) magic: [u8; 4],
    pub(crate) version: U16,
    /// Bytes of the header.
    pub(crate) header_len: U16,
    /// CRC32C of the whole slot without these four bytes. With `magic` and `version` it keeps its place in every
    /// version, so that another version is told from damage.
    pub(crate) crc: U32,
    /// Bit 0: recovering. Bit 1: the change of members ends by itself. Bit 2: behind the members stands the term of an accepted
    /// loss. All others zero.
    pub(crate) flags: U32,
    /// One more than that of the slot written before; the greater of two counts.
    pub(crate) seq: U64,
    pub(crate) group: U64,
    pub(crate) node: U64,
    pub(crate) incarnation: U64,
    pub(crate) term: U64,
    /// The node voted for in the term; 0 for none.
    pub(crate) vote: U64,
    pub(crate) commit: U64,
    /// Of the batch that made the members what they are.
    pub(crate) conf_index: U64,
    /// Of the batch in front of the log's first.
    pub(crate) start_index: U64,
    pub(crate) start_term: U64,
    /// Log offset of the log's first byte.
    pub(crate) start_offset: U64,
    /// Log offset from which on derived state is valid.
    pub(crate) checkpoint_at: U64,
    pub(crate) write_window: U64,
    pub(crate) segment_bytes: U64,
    /// Node numbers in each list, members behind them.
    pub(crate) voters: U16,
    pub(crate) outgoing: U16,
    pub(crate) learners: U16,
    pub(crate) learners_next: U16,
    pub(crate) members: U16,
    /// Zero.
    pub(crate) reserved: [u8; 6],
}

const _: () = assert!(size_of::<SlotHeader>() == SLOT_HEADER_LEN);
/// Whatever is allowed fits a slot.
const _: () = assert!(
    SLOT_HEADER_LEN
        + GroupState::NODES_MAX * (4 * NODE_LEN + MEMBER_LEN + GroupState::ADDRESS_BYTES_MAX)
        + LOSS_LEN
        <= SLOT_LEN
);

/// Why bytes are not the state of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupStateError {
    #[error("{found} bytes, expected {GROUP_FILE_LEN}")]
    Length { found: u64 },
    /// The slot was never written.
    #[error("nothing is written there")]
    Zero,
    #[error("magic number {found:02x?}, expected {SLOT_MAGIC:02x?}")]
    Magic { found: [u8; 4] },
    #[error("checksum {found:08x}, expected {expected:08x}")]
    Crc { expected: u32, found: u32 },
    /// Whole, and written by a program that knows another version of the format.
    #[error(
        "version {found} of a group's state, {} than the only one this program knows, {SLOT_VERSION}",
        age(*found, SLOT_VERSION)
    )]
    Version { found: u16 },
    /// The checksum holds, yet a field is not what it must be.
    #[error("{field} is {found}, expected {expected}")]
    Field { field: &'static str, expected: u64, found: u64 },
    /// Neither slot can be believed, so that nobody knows what the node has promised.
    #[error(
        "both slots are damaged (first: {first}; second: {second}): remove this node from its group, and let it join anew \
         with an empty directory"
    )]
    Both { first: Box<GroupStateError>, second: Box<GroupStateError> },
    /// More than a slot may hold.
    #[error("{what}: {found}, at most {limit} are allowed")]
    TooMany { what: &'static str, found: u64, limit: u64 },
}

impl GroupState {
    /// The bytes of the slot that is written as number `seq`.
    pub(crate) fn encode(&self, seq: u64) -> Result<[u8; SLOT_LEN], GroupStateError> {
        assert!(self.vote != Some(NodeId(0)), "node 0 stands for no vote");
        let conf = &self.conf;
        let lists = [&conf.voters, &conf.outgoing, &conf.learners, &conf.learners_next];
        let counts = lists.iter().map(|list| list.len()).chain([self.members.len()]);
        let nodes = counts.max().unwrap_or(0);
        let address = self.members.iter().map(|member| member.address.len()).max().unwrap_or(0);
        let limits = [
            ("nodes", nodes, GroupState::NODES_MAX),
            ("bytes of an address", address, GroupState::ADDRESS_BYTES_MAX),
        ];
        if let Some((what, found, limit)) = limits.into_iter().find(|(_, found, limit)| found > limit) {
            return Err(GroupStateError::TooMany { what, found: found as u64, limit: limit as u64 });
        }
        let flag = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        let count = |list: &[NodeId]| U16::new(list.len() as u16);
        let header = SlotHeader {
            magic: SLOT_MAGIC,
            version: U16::new(SLOT_VERSION),
            header_len: U16::new(SLOT_HEADER_LEN as u16),
            crc: U32::ZERO,
            flags: (flag(self.recovering, RECOVERING)
                | flag(conf.auto_leave, AUTO_LEAVE)
                | flag(self.loss_accepted.is_some(), LOSS_ACCEPTED))
            .into(),
            seq: seq.into(),
            group: self.group.0.into(),
            node: self.node.0.into(),
            incarnation: self.incarnation.into(),
            term: self.term.0.into(),
            vote: self.vote.map_or(0, |node| node.0).into(),
            commit: self.commit.0.into(),
            conf_index: conf.index.0.into(),
            start_index: self.log_start.index.0.into(),
            start_term: self.log_start.term.0.into(),
            start_offset: self.log_start.base_offset.0.into(),
            checkpoint_at: self.checkpoint_at.0.into(),
            write_window: self.write_window_bytes.into(),
            segment_bytes: self.segment_bytes.into(),
            voters: count(&conf.voters),
            outgoing: count(&conf.outgoing),
            learners: count(&conf.learners),
            learners_next: count(&conf.learners_next),
            members: U16::new(self.members.len() as u16),
            reserved: [0; 6],
        };
        let mut bytes = Vec::with_capacity(SLOT_LEN);
        bytes.extend_from_slice(header.as_bytes());
        for node in lists.into_iter().flatten() {
            bytes.extend_from_slice(&node.0.to_le_bytes());
        }
        for Member { node, address } in &self.members {
            bytes.extend_from_slice(&node.0.to_le_bytes());
            bytes.extend_from_slice(&(address.len() as u16).to_le_bytes());
            bytes.extend_from_slice(address);
        }
        if let Some(term) = self.loss_accepted {
            bytes.extend_from_slice(&term.0.to_le_bytes());
        }
        bytes.resize(SLOT_LEN, 0);
        let mut slot: [u8; SLOT_LEN] = bytes.try_into().expect("resized to it");
        let crc = slot_crc(&slot);
        slot[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        Ok(slot)
    }

    /// Believes a slot of which everything holds; gives its number too.
    pub(crate) fn decode(slot: &[u8]) -> Result<(u64, GroupState), GroupStateError> {
        let length = GroupStateError::Length { found: slot.len() as u64 };
        let slot: &[u8; SLOT_LEN] = slot.try_into().map_err(|_| length)?;
        let (header, rest) = SlotHeader::ref_from_prefix(slot).expect("a slot holds its header");
        if header.magic != SLOT_MAGIC {
            let is_zero = slot.iter().all(|byte| *byte == 0);
            return Err(match is_zero {
                true => GroupStateError::Zero,
                false => GroupStateError::Magic { found: header.magic },
            });
        }
        let (expected, found) = (header.crc.get(), slot_crc(slot));
        if found != expected {
            return Err(GroupStateError::Crc { expected, found });
        }
        if header.version.get() != SLOT_VERSION {
            return Err(GroupStateError::Version { found: header.version.get() });
        }
        let rules = [
            ("header_len", SLOT_HEADER_LEN as u64, header.header_len.get().into()),
            ("flags", 0, (header.flags.get() & !FLAGS).into()),
            ("reserved", 0, u64::from(header.reserved != [0; 6])),
        ];
        for (field, expected, found) in rules {
            if expected != found {
                return Err(GroupStateError::Field { field, expected, found });
            }
        }
        let mut rest = Rest(rest);
        let conf = ConfState {
            index: BatchIndex(header.conf_index.get()),
            voters: rest.nodes("voters", header.voters)?,
            outgoing: rest.nodes("outgoing", header.outgoing)?,
            learners: rest.nodes("learners", header.learners)?,
            learners_next: rest.nodes("learners_next", header.learners_next)?,
            auto_leave: header.flags.get() & AUTO_LEAVE != 0,
        };
        let members = rest.members(header.members)?;
        let loss_accepted = match header.flags.get() & LOSS_ACCEPTED != 0 {
            true => Some(Term(rest.number("loss_accepted")?)),
            false => None,
        };
        let behind = rest.0.iter().filter(|byte| **byte != 0).count() as u64;
        if behind > 0 {
            return Err(GroupStateError::Field {
                field: "bytes behind the members",
                expected: 0,
                found: behind,
            });
        }
        let state = GroupState {
            group: GroupId(header.group.get()),
            node: NodeId(header.node.get()),
            incarnation: header.incarnation.get(),
            term: Term(header.term.get()),
            vote: Some(NodeId(header.vote.get())).filter(|node| node.0 != 0),
            commit: BatchIndex(header.commit.get()),
            conf,
            members,
            log_start: LogStart {
                index: BatchIndex(header.start_index.get()),
                term: Term(header.start_term.get()),
                base_offset: LogOffset(header.start_offset.get()),
            },
            checkpoint_at: LogOffset(header.checkpoint_at.get()),
            write_window_bytes: header.write_window.get(),
            recovering: header.flags.get() & RECOVERING != 0,
            loss_accepted,
            segment_bytes: header.segment_bytes.get(),
        };
        Ok((header.seq.get(), state))
    }
}

/// What is not read yet behind the header.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn nodes(&mut self, what: &'static str, count: U16) -> Result<Vec<NodeId>, GroupStateError> {
        check_count(what, count.get().into(), GroupState::NODES_MAX)?;
        (0..count.get()).map(|_| self.number(what).map(NodeId)).collect()
    }

    fn members(&mut self, count: U16) -> Result<Vec<Member>, GroupStateError> {
        const WHAT: &str = "members";
        check_count(WHAT, count.get().into(), GroupState::NODES_MAX)?;
        (0..count.get())
            .map(|_| {
                let node = NodeId(self.number(WHAT)?);
                let len = self.take::<2>(WHAT)?;
                let len = usize::from(u16::from_le_bytes(len));
                check_count("bytes of an address", len, GroupState::ADDRESS_BYTES_MAX)?;
                let (address, rest) = self.0.split_at_checked(len).ok_or(cut_short(WHAT))?;
                self.0 = rest;
                Ok(Member { node, address: address.to_vec() })
            })
            .collect()
    }

    fn number(&mut self, what: &'static str) -> Result<u64, GroupStateError> {
        self.take(what).map(u64::from_le_bytes)
    }

    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], GroupStateError> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(cut_short(what))?;
        self.0 = rest;
        Ok(*bytes)
    }
}

fn check_count(what: &'static str, found: usize, limit: usize) -> Result<(), GroupStateError> {
    if found <= limit {
        return Ok(());
    }
    Err(GroupStateError::TooMany { what, found: found as u64, limit: limit as u64 })
}

fn cut_short(field: &'static str) -> GroupStateError {
    GroupStateError::Field { field, expected: SLOT_LEN as u64, found: SLOT_LEN as u64 + 1 }
}

const CRC_AT: usize = std::mem::offset_of!(SlotHeader, crc);

/// The checksum of a slot, without the bytes where it stands.
pub(super) fn slot_crc(slot: &[u8; SLOT_LEN]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&slot[..CRC_AT]), &slot[CRC_AT + 4..])
}
