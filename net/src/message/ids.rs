use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;

use super::layout::{canonical, host_len, read_host, write_host};

/// An id of hexadecimal digits, on the stack.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HexId {
    digits: [u8; Self::DIGITS_MAX],
    len: u8,
}

impl HexId {
    /// IPv6 address, port, offset.
    const DIGITS_MAX: usize = 2 * (16 + 4 + 8);

    pub(super) fn new(bytes: &[u8]) -> Self {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let mut digits = [0; Self::DIGITS_MAX];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        Self { digits, len: 2 * bytes.len() as u8 }
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.digits[..self.len.into()]).expect("only hexadecimal digits")
    }
}

impl Deref for HexId {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for HexId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for HexId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a message is: its broker's address and its offset in that broker's log (`MessageDecoder#createMessageId`).
///
/// `msgId` in send replies, `offsetMsgId` in clients: hexadecimal IP (4 or 16 bytes), port (4), offset (8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OffsetMessageId {
    pub host: SocketAddr,
    pub physical_offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffsetMessageIdError {
    #[error("id of {found} characters, expected 32 or 56")]
    Length { found: usize },
    #[error("id is not hexadecimal")]
    NotHex,
    #[error("id has a port above 65535")]
    Port,
}

const OFFSET_BYTES: usize = size_of::<i64>();

impl OffsetMessageId {
    pub fn to_hex(self) -> HexId {
        let host = canonical(self.host);
        let host_len = host_len(host.is_ipv6());
        let mut bytes = [0; HexId::DIGITS_MAX / 2];
        write_host(host, &mut bytes[..host_len]);
        bytes[host_len..][..OFFSET_BYTES].copy_from_slice(&self.physical_offset.to_be_bytes());
        HexId::new(&bytes[..host_len + OFFSET_BYTES])
    }

    /// The length tells the address family, as in Java.
    pub fn parse(text: &str) -> Result<Self, OffsetMessageIdError> {
        const DIGITS_IPV4: usize = 2 * (host_len(false) + OFFSET_BYTES);
        const DIGITS_IPV6: usize = 2 * (host_len(true) + OFFSET_BYTES);
        let (DIGITS_IPV4 | DIGITS_IPV6) = text.len() else {
            return Err(OffsetMessageIdError::Length { found: text.len() });
        };
        let mut bytes = [0; HexId::DIGITS_MAX / 2];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = hex_byte(pair[0], pair[1]).ok_or(OffsetMessageIdError::NotHex)?;
        }
        let (host, offset) = bytes[..text.len() / 2].split_last_chunk().expect("longer than an offset");
        let host = read_host(host).ok_or(OffsetMessageIdError::Port)?;
        Ok(Self { host, physical_offset: i64::from_be_bytes(*offset) })
    }
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |char: u8| char::from(char).to_digit(16);
    Some((digit(high)? << 4 | digit(low)?) as u8)
}

impl fmt::Display for OffsetMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_hex().fmt(f)
    }
}
