//! One frame between two nodes; every integer is little-endian.
//!
//! ```text
//!     0       4       8       12      16         16+4P       16+4P+H
//!     +-------+-------+-------+-------+----------+-----------+---------------------------+
//!     | magic | H u32 | P u32 | crc   | P × u32  | head      | parts, one after the other |
//!     +-------+-------+-------+-------+----------+-----------+---------------------------+
//!     H  bytes of the head.   P  number of parts.   P × u32  their lengths.
//!     crc  CRC-32 of everything up to the head's end but itself.
//! ```
//!
//! Not RocketMQ's frame: a part is received straight into memory that it is written to disk from, so its length must be
//! known before its first byte. What a head means is the matter of whoever sends it. Parts are not under the checksum:
//! what travels there has its own. A frame with neither head nor parts only says that its sender lives.

use bytes::{BufMut, BytesMut};

const MAGIC: u32 = u32::from_le_bytes(*b"APL1");

/// Everything before the parts' lengths.
pub(crate) const PREFIX_BYTES: usize = 16;
const CRC_AT: usize = 12;

/// What a frame may be: beyond it its connection ends before memory is taken for it.
#[derive(Debug, Clone, Copy)]
pub struct LinkLimits {
    pub head_bytes_max: u32,
    pub parts_max: u32,
    pub part_bytes_max: u32,
    /// All parts of one frame together: what a connection holds of a frame under way.
    pub frame_bytes_max: u32,
}

/// What makes a byte stream unreadable from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("magic number {found:08x}, expected {MAGIC:08x}: not a frame between nodes")]
    Magic { found: u32 },
    #[error("head of {found} bytes, expected at most {max}")]
    HeadTooLong { found: u32, max: u32 },
    #[error("{found} parts, expected at most {max}")]
    TooManyParts { found: u32, max: u32 },
    #[error("part of {found} bytes, expected 1 to {max}")]
    PartLength { found: u32, max: u32 },
    #[error("parts of {found} bytes together, expected at most {max}")]
    TooLong { found: u64, max: u32 },
    #[error("checksum {found:08x}, expected {expected:08x}")]
    Crc { expected: u32, found: u32 },
}

/// The lengths that open a frame, within the limits; not yet believed, for the checksum comes later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prefix {
    head_bytes: u32,
    parts: u32,
    crc: u32,
}

impl Prefix {
    pub(crate) fn parse(bytes: &[u8; PREFIX_BYTES], limits: &LinkLimits) -> Result<Prefix, LinkError> {
        let at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (magic, head_bytes, parts, crc) = (at(0), at(4), at(8), at(CRC_AT));
        if magic != MAGIC {
            return Err(LinkError::Magic { found: magic });
        }
        if head_bytes > limits.head_bytes_max {
            return Err(LinkError::HeadTooLong { found: head_bytes, max: limits.head_bytes_max });
        }
        if parts > limits.parts_max {
            return Err(LinkError::TooManyParts { found: parts, max: limits.parts_max });
        }
        Ok(Prefix { head_bytes, parts, crc })
    }

    /// Bytes of the lengths and the head.
    pub(crate) fn rest_bytes(&self) -> usize {
        self.lengths_bytes() + self.head_bytes as usize
    }

    fn lengths_bytes(&self) -> usize {
        self.parts as usize * 4
    }

    /// The parts' lengths and the head, of the `rest_bytes` that follow `prefix`.
    pub(crate) fn verify<'a>(
        &self,
        prefix: &[u8; PREFIX_BYTES],
        rest: &'a [u8],
        limits: &LinkLimits,
    ) -> Result<(Vec<u32>, &'a [u8]), LinkError> {
        let found = crc_of(&prefix[..CRC_AT], rest);
        if found != self.crc {
            return Err(LinkError::Crc { expected: self.crc, found });
        }
        let (lengths, head) = rest.split_at(self.lengths_bytes());
        let (lengths, _) = lengths.as_chunks::<4>();
        let lengths: Vec<u32> = lengths.iter().map(|length| u32::from_le_bytes(*length)).collect();
        let max = limits.part_bytes_max;
        if let Some(&found) = lengths.iter().find(|&&length| length == 0 || length > max) {
            return Err(LinkError::PartLength { found, max });
        }
        let found = lengths.iter().copied().map(u64::from).sum();
        if found > limits.frame_bytes_max.into() {
            return Err(LinkError::TooLong { found, max: limits.frame_bytes_max });
        }
        Ok((lengths, head))
    }
}

/// Appends everything of a frame but its parts, which must follow with exactly these lengths.
pub fn encode(out: &mut BytesMut, head: &[u8], part_lengths: &[u32]) {
    let start = out.len();
    out.reserve(PREFIX_BYTES + 4 * part_lengths.len() + head.len());
    out.put_u32_le(MAGIC);
    out.put_u32_le(u32::try_from(head.len()).expect("heads are far below 4 GiB"));
    out.put_u32_le(u32::try_from(part_lengths.len()).expect("so are the numbers of parts"));
    out.put_u32_le(0);
    part_lengths.iter().for_each(|length| out.put_u32_le(*length));
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

    const LIMITS: LinkLimits =
        LinkLimits { head_bytes_max: 64, parts_max: 3, part_bytes_max: 4096, frame_bytes_max: 8192 };

    fn read(bytes: &[u8]) -> Result<(Vec<u32>, Vec<u8>), LinkError> {
        let (prefix, rest) = bytes.split_first_chunk().unwrap();
        let parsed = Prefix::parse(prefix, &LIMITS)?;
        assert_eq!(rest.len(), parsed.rest_bytes());
        parsed.verify(prefix, rest, &LIMITS).map(|(lengths, head)| (lengths, head.to_vec()))
    }

    fn frame(head: &[u8], lengths: &[u32]) -> BytesMut {
        let mut out = BytesMut::new();
        encode(&mut out, head, lengths);
        out
    }

    #[test]
    fn what_was_encoded_is_read_back() {
        for (head, lengths) in [(&b""[..], &[][..]), (b"vote", &[]), (b"append", &[1, 4096]), (b"", &[4096])]
        {
            assert_eq!(read(&frame(head, lengths)).unwrap(), (lengths.to_vec(), head.to_vec()));
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let whole = frame(b"append", &[1, 4096]);
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (prefix, rest) = damaged.split_first_chunk().unwrap();
            let read = Prefix::parse(prefix, &LIMITS).and_then(|parsed| {
                // A length that grew would have the reader wait for more; one that shrank gives it less.
                let rest = &rest[..rest.len().min(parsed.rest_bytes())];
                if rest.len() < parsed.lengths_bytes() {
                    return Err(LinkError::Crc { expected: 0, found: 1 });
                }
                parsed.verify(prefix, rest, &LIMITS)
            });
            assert!(read.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn limits_are_named_with_what_was_found() {
        assert_eq!(read(&frame(&[0; 65], &[])).unwrap_err(), LinkError::HeadTooLong { found: 65, max: 64 });
        assert_eq!(read(&frame(b"", &[1; 4])).unwrap_err(), LinkError::TooManyParts { found: 4, max: 3 });
        for found in [0, 4097] {
            assert_eq!(read(&frame(b"", &[found])).unwrap_err(), LinkError::PartLength { found, max: 4096 });
        }
        assert_eq!(
            read(&frame(b"", &[4096, 4096, 1])).unwrap_err(),
            LinkError::TooLong { found: 8193, max: 8192 }
        );
        assert!(matches!(read(&[b'G'; PREFIX_BYTES]), Err(LinkError::Magic { .. })));
    }
}
