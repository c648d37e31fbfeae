//! One frame between two nodes; every integer is little-endian.
//!
//! ```text
//!     0       4       8       12      16      16+H      16+H+P
//!     +-------+-------+-------+-------+-------+---------+
//!     | magic | H u32 | P u32 | crc   | head  | parts   |
//!     +-------+-------+-------+-------+-------+---------+
//!     H  bytes of the head.   P  bytes of all parts, one after the other.
//!     crc  CRC-32 of everything up to the head's end but itself.
//! ```
//!
//! Not RocketMQ's frame: a part is received straight into memory that it is written to disk from, so its length must be
//! known before most of it is read. A part tells it in its first bytes, to whoever knows what parts are; what a head means
//! is the matter of whoever sends it. Parts are not under the checksum: what travels there has its own. A frame with neither
//! head nor parts only says that its sender lives.

use bytes::{BufMut, BytesMut};

const MAGIC: u32 = u32::from_le_bytes(*b"APL1");

/// Everything before the parts' lengths.
pub(crate) const PREFIX_BYTES: usize = 16;
const CRC_AT: usize = 12;

/// What a frame may be: beyond it its connection ends before memory is taken for it.
#[derive(Debug, Clone, Copy)]
pub struct LinkLimits {
    pub head_bytes_max: u32,
    /// All parts of one frame together: what a connection holds of a frame under way.
    pub parts_bytes_max: u32,
}

/// What makes a byte stream unreadable from here on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("magic number {found:08x}, expected {MAGIC:08x}: not a frame between nodes")]
    Magic { found: u32 },
    #[error("head of {found} bytes, expected at most {max}")]
    HeadTooLong { found: u32, max: u32 },
    #[error("parts of {found} bytes, expected at most {max}")]
    PartsTooLong { found: u32, max: u32 },
    #[error("checksum {found:08x}, expected {expected:08x}")]
    Crc { expected: u32, found: u32 },
    /// Its first bytes are not those of a part.
    #[error("unreadable part: {0}")]
    Part(String),
    #[error("part of {found} bytes where {room} are left")]
    PartLength { found: usize, room: usize },
}

/// The lengths that open a frame, within the limits; not yet believed, for the checksum comes later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prefix {
    pub(crate) head_bytes: usize,
    pub(crate) parts_bytes: usize,
    crc: u32,
}

impl Prefix {
    pub(crate) fn parse(bytes: &[u8; PREFIX_BYTES], limits: &LinkLimits) -> Result<Prefix, LinkError> {
        let at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (magic, head_bytes, parts_bytes, crc) = (at(0), at(4), at(8), at(CRC_AT));
        if magic != MAGIC {
            return Err(LinkError::Magic { found: magic });
        }
        if head_bytes > limits.head_bytes_max {
            return Err(LinkError::HeadTooLong { found: head_bytes, max: limits.head_bytes_max });
        }
        if parts_bytes > limits.parts_bytes_max {
            return Err(LinkError::PartsTooLong { found: parts_bytes, max: limits.parts_bytes_max });
        }
        Ok(Prefix { head_bytes: head_bytes as usize, parts_bytes: parts_bytes as usize, crc })
    }

    pub(crate) fn verify(&self, prefix: &[u8; PREFIX_BYTES], head: &[u8]) -> Result<(), LinkError> {
        let found = crc_of(&prefix[..CRC_AT], head);
        if found == self.crc { Ok(()) } else { Err(LinkError::Crc { expected: self.crc, found }) }
    }
}

/// Appends everything of a frame but its parts, of which exactly `parts_bytes` must follow.
pub fn encode(out: &mut BytesMut, head: &[u8], parts_bytes: u32) {
    let start = out.len();
    out.reserve(PREFIX_BYTES + head.len());
    out.put_u32_le(MAGIC);
    out.put_u32_le(u32::try_from(head.len()).expect("heads are far below 4 GiB"));
    out.put_u32_le(parts_bytes);
    out.put_u32_le(0);
    out.put_slice(head);
    let frame = &mut out[start..];
    let crc = crc_of(&frame[..CRC_AT], &frame[PREFIX_BYTES..]);
    frame[CRC_AT..PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
}

fn crc_of(before: &[u8], after: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(before);
    crc.update(after);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LinkLimits = LinkLimits { head_bytes_max: 64, parts_bytes_max: 8192 };

    fn read(bytes: &[u8]) -> Result<(Vec<u8>, usize), LinkError> {
        let (prefix, head) = bytes.split_first_chunk().unwrap();
        let parsed = Prefix::parse(prefix, &LIMITS)?;
        // A length that grew would have the reader wait for more.
        let head = &head[..parsed.head_bytes.min(head.len())];
        parsed.verify(prefix, head).map(|()| (head.to_vec(), parsed.parts_bytes))
    }

    fn frame(head: &[u8], parts_bytes: u32) -> BytesMut {
        let mut out = BytesMut::new();
        encode(&mut out, head, parts_bytes);
        out
    }

    #[test]
    fn what_was_encoded_is_read_back() {
        for (head, parts_bytes) in [(&b""[..], 0), (b"vote", 0), (b"append", 8192), (b"", 4096)] {
            assert_eq!(read(&frame(head, parts_bytes)).unwrap(), (head.to_vec(), parts_bytes as usize));
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let whole = frame(b"append", 4097);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn limits_are_named_with_what_was_found() {
        assert_eq!(read(&frame(&[0; 65], 0)).unwrap_err(), LinkError::HeadTooLong { found: 65, max: 64 });
        let too_long = LinkError::PartsTooLong { found: 8193, max: 8192 };
        assert_eq!(read(&frame(b"", 8193)).unwrap_err(), too_long);
        assert!(matches!(read(&[b'G'; PREFIX_BYTES]), Err(LinkError::Magic { .. })));
    }
}
