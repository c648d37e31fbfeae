//! What a message of a run carries, so that its receipt proves what became of it.
//!
//! ```text
//! 0        4        8          16         20            28          36          44
//! +--------+--------+----------+----------+-------------+-----------+-----------+----------+
//! | magic  | crc32  | run id   | stream   | sequence    | due       | sent      | filler   |
//! | u32    | u32    | u64      | u32      | u64         | u64 ns    | u64 ns    | the rest |
//! +--------+--------+----------+----------+-------------+-----------+-----------+----------+
//! ```
//!
//! The upper 16 bits of the sequence are the lane, see [`Stamp::lane`]. All integers are big-endian. The checksum (CRC-32, IEEE) covers everything after itself. The filler is
//! pseudo-random: a disk, link or broker that compresses must not look fast because of a page of zeros.

use bytes::{BufMut, Bytes, BytesMut};

use crate::clock::RunTime;
use crate::random::Random;
use crate::schedule::StreamId;

const MAGIC: u32 = u32::from_be_bytes(*b"ApLg");
const CRC_OFFSET: usize = 4;
const COVERED_OFFSET: usize = 8;
const HEADER_BYTES: usize = 44;
const SEQUENCE_BITS: u32 = 48;

/// Smallest message that can carry the header.
pub const PAYLOAD_BYTES_MIN: usize = HEADER_BYTES;
/// RocketMQ's `maxMessageSize`; brokers refuse more with MESSAGE_ILLEGAL.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Tells the messages of one run from those of every other run on the same topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(pub u64);

/// The identity and the times of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub stream: StreamId,
    /// Which of the stream's keys it has, if messages have keys; messages of one lane keep their order.
    pub lane: u16,
    /// Position among the messages sent to this lane of the stream, from zero, without gaps; below 2^48.
    pub sequence: u64,
    /// When the plan wanted it sent.
    pub due: RunTime,
    /// When it was handed to the connection.
    pub sent: RunTime,
}

impl Stamp {
    /// Due and sent of messages that are written before the run and have no latency.
    pub const PREFILL: RunTime = RunTime::NEVER;

    pub fn is_prefill(&self) -> bool {
        self.due == Stamp::PREFILL
    }
}

/// Why received bytes are no message of this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrecognised {
    /// Written by somebody else: another run, or no load generator at all. Nobody's fault.
    Foreign,
    /// One of ours, with bytes changed on the way.
    Corrupted,
}

/// Makes the messages of one run.
#[derive(Debug)]
pub struct PayloadWriter {
    run: RunId,
    filler: Box<[u8]>,
}

impl PayloadWriter {
    /// The largest message is `size_max` bytes long, within `PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX`.
    pub fn new(run: RunId, size_max: usize) -> PayloadWriter {
        assert!((PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(&size_max), "payload of {size_max} bytes");
        PayloadWriter { run, filler: filler(run.0, size_max - HEADER_BYTES) }
    }

    /// A message of `size_bytes`, from `PAYLOAD_BYTES_MIN` up to the largest.
    pub fn write(&self, stamp: &Stamp, size_bytes: usize) -> Bytes {
        assert!(stamp.sequence >> SEQUENCE_BITS == 0, "sequence {}", stamp.sequence);
        let filler = &self.filler[..size_bytes - HEADER_BYTES];
        let mut body = BytesMut::with_capacity(size_bytes);
        body.put_u32(MAGIC);
        body.put_u32(0);
        body.put_u64(self.run.0);
        body.put_u32(stamp.stream.0);
        body.put_u64(u64::from(stamp.lane) << SEQUENCE_BITS | stamp.sequence);
        body.put_u64(stamp.due.as_nanos());
        body.put_u64(stamp.sent.as_nanos());
        assert_eq!(body.len(), HEADER_BYTES);
        body.extend_from_slice(filler);
        let crc = crc32fast::hash(&body[COVERED_OFFSET..]);
        body[CRC_OFFSET..COVERED_OFFSET].copy_from_slice(&crc.to_be_bytes());
        body.freeze()
    }
}

/// Reads what `PayloadWriter` wrote, and believes nothing before the checksum has been verified.
///
/// A checksum that fails counts as ours: whoever shares a topic with a run and happens to use its magic is unlikely,
/// a flipped bit is what we look for.
pub fn read(run: RunId, body: &[u8]) -> Result<Stamp, Unrecognised> {
    if body.len() < HEADER_BYTES || be_u32(body, 0) != MAGIC {
        return Err(Unrecognised::Foreign);
    }
    if crc32fast::hash(&body[COVERED_OFFSET..]) != be_u32(body, CRC_OFFSET) {
        return Err(Unrecognised::Corrupted);
    }
    if be_u64(body, 8) != run.0 {
        return Err(Unrecognised::Foreign);
    }
    let place = be_u64(body, 20);
    Ok(Stamp {
        stream: StreamId(be_u32(body, 16)),
        lane: (place >> SEQUENCE_BITS) as u16,
        sequence: place & ((1 << SEQUENCE_BITS) - 1),
        due: RunTime::from_nanos(be_u64(body, 28)),
        sent: RunTime::from_nanos(be_u64(body, 36)),
    })
}

fn be_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn be_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn filler(seed: u64, len: usize) -> Box<[u8]> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next_u64().to_be_bytes());
    }
    bytes.truncate(len);
    bytes.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RUN: RunId = RunId(0x1234_5678_9abc_def0);

    fn stamp() -> Stamp {
        Stamp {
            stream: StreamId(7),
            lane: 0x0102,
            sequence: 42,
            due: RunTime::from_nanos(1_000),
            sent: RunTime::from_nanos(1_250),
        }
    }

    #[test]
    fn a_message_is_exactly_as_long_as_asked() {
        for size in [PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MIN + 1, 128, 1024, 16 * 1024] {
            assert_eq!(PayloadWriter::new(RUN, size).write(&stamp(), size).len(), size);
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let body = PayloadWriter::new(RUN, 48).write(&stamp(), 48);
        assert_eq!(&body[..4], b"ApLg");
        assert_eq!(&body[8..16], &RUN.0.to_be_bytes());
        assert_eq!(&body[16..20], &[0, 0, 0, 7]);
        assert_eq!(&body[20..28], &[1, 2, 0, 0, 0, 0, 0, 42]);
        assert_eq!(&body[28..36], &1_000u64.to_be_bytes());
        assert_eq!(&body[36..44], &1_250u64.to_be_bytes());
    }

    #[test]
    fn messages_of_others_are_foreign_not_corrupted() {
        let body = PayloadWriter::new(RunId(1), 64).write(&stamp(), 64);
        assert_eq!(read(RUN, &body), Err(Unrecognised::Foreign));
        assert_eq!(
            read(RUN, b"hello from a stock client, long enough for a header"),
            Err(Unrecognised::Foreign)
        );
        assert_eq!(read(RUN, b""), Err(Unrecognised::Foreign));
    }

    #[test]
    fn every_flipped_bit_behind_the_magic_is_seen() {
        let body = PayloadWriter::new(RUN, 96).write(&stamp(), 96);
        for bit in 32..96 * 8 {
            let mut damaged = body.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(RUN, &damaged), Err(Unrecognised::Corrupted), "bit {bit}");
        }
    }

    #[test]
    fn a_message_cut_short_is_never_accepted() {
        let body = PayloadWriter::new(RUN, 96).write(&stamp(), 96);
        for len in 0..body.len() {
            assert!(read(RUN, &body[..len]).is_err(), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            size in PAYLOAD_BYTES_MIN..4096,
            more in 0usize..100,
            run: u64, stream: u32, lane: u16, sequence in 0u64..1 << 48, due: u64, sent: u64,
        ) {
            let stamp = Stamp {
                stream: StreamId(stream), lane, sequence,
                due: RunTime::from_nanos(due), sent: RunTime::from_nanos(sent),
            };
            let body = PayloadWriter::new(RunId(run), size + more).write(&stamp, size);
            prop_assert_eq!(read(RunId(run), &body), Ok(stamp));
        }
    }
}
