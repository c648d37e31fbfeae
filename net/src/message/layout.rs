//! A message as it is stored and transferred; every integer is big-endian, nothing is padded.
//!
//! ```text
//!     Head                       48 bytes  sizes, queue, offsets, flags, birth time
//!     born host                  8 or 20   IP (4 or 16 bytes), port i32
//!     store timestamp i64        8         ms, by the broker's clock
//!     store host                 8 or 20   likewise; clients connect to it
//!     Tail                       16        redeliveries, transaction, body length
//!     body                       n
//!     topic length               1 (V1) or 2 (V2)
//!     topic                      n         UTF-8
//!     properties length i16      2
//!     properties                 n
//! ```
//!
//! Source: RocketMQ `MessageDecoder#decode`, `MessageExtEncoder#encode`, `MessageVersion`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use zerocopy::big_endian::{I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The topic's length takes one byte.
pub(super) const MAGIC_V1: u32 = 0xDAA3_20A7;
/// The topic's length takes two. Clients before 5.0 misread it, so it is only for topics that do not fit V1.
pub(super) const MAGIC_V2: u32 = 0xDAA3_20AB;

/// Longest topic of a V1 message, and of any: the two-byte length is signed.
pub(super) const TOPIC_V1_BYTES_MAX: usize = i8::MAX as usize;
pub(super) const TOPIC_V2_BYTES_MAX: usize = i16::MAX as usize;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub(super) struct Head {
    /// Of the whole message, this field included.
    pub(super) total_len: I32,
    pub(super) magic: U32,
    /// CRC-32 (IEEE) of the body `& 0x7FFFFFFF`; 0 for an empty body.
    pub(super) body_crc: U32,
    pub(super) queue_id: I32,
    /// The user's own.
    pub(super) flag: I32,
    /// Which message of its queue this is.
    pub(super) queue_offset: I64,
    /// Where it begins in the commit log.
    pub(super) physical_offset: I64,
    pub(super) sys_flag: I32,
    pub(super) born_timestamp: I64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub(super) struct Tail {
    pub(super) reconsume_times: I32,
    pub(super) prepared_transaction_offset: I64,
    pub(super) body_len: I32,
}

pub(super) const HEAD_BYTES: usize = size_of::<Head>();
pub(super) const TAIL_BYTES: usize = size_of::<Tail>();
pub(super) const STORE_TIMESTAMP_BYTES: usize = size_of::<i64>();
pub(super) const PROPERTIES_LEN_BYTES: usize = size_of::<i16>();

const _: () = assert!(HEAD_BYTES == 48 && TAIL_BYTES == 16);

/// A host of an IPv4 or IPv6 message: address bytes, then the port.
pub(super) const fn host_len(is_ipv6: bool) -> usize {
    if is_ipv6 { 16 + 4 } else { 4 + 4 }
}

pub(super) const fn topic_len_bytes(magic: u32) -> usize {
    if magic == MAGIC_V2 { 2 } else { 1 }
}

/// A mapped IPv6 address, as a dual-stack listener sees IPv4 peers, is the IPv4 address.
pub(super) fn canonical(host: SocketAddr) -> SocketAddr {
    SocketAddr::new(host.ip().to_canonical(), host.port())
}

/// `host` is canonical and `out` of [`host_len`].
pub(super) fn write_host(host: SocketAddr, out: &mut [u8]) {
    let (ip, port) = out.split_at_mut(out.len() - size_of::<i32>());
    match host.ip() {
        IpAddr::V4(v4) => ip.copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => ip.copy_from_slice(&v6.octets()),
    }
    port.copy_from_slice(&i32::from(host.port()).to_be_bytes());
}

/// `None` if the port is not one.
pub(super) fn read_host(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk()?;
    let ip = match *ip {
        [a, b, c, d] => Ipv4Addr::new(a, b, c, d).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?).into(),
    };
    Some(SocketAddr::new(ip, u16::try_from(i32::from_be_bytes(*port)).ok()?))
}

/// Zero for an empty body, else CRC-32 without its highest bit (`UtilAll#crc32`).
pub(super) fn body_crc(body: &[u8]) -> u32 {
    if body.is_empty() { 0 } else { crc32fast::hash(body) & 0x7FFF_FFFF }
}
