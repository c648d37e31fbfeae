//! One frame on a connection; every integer is big-endian.
//!
//! ```text
//!     0       4      5         8                 8+H               4+L
//!     +-------+------+---------+-----------------+-----------------+
//!     | L u32 | E u8 | H u24   | header, H bytes | body, the rest  |
//!     +-------+------+---------+-----------------+-----------------+
//!     L  bytes after this field: 4 + H + body.   E  header encoding: 0 JSON, 1 ROCKETMQ.
//! ```
//!
//! Source: RocketMQ `RemotingCommand#decode`, `RemotingCommand#markProtocolType`, `NettyDecoder`.

use bytes::{Bytes, BytesMut};

/// Longest frame that is read or written, its length field included.
/// Java's default (`com.rocketmq.remoting.frameMaxLength`), which its clients apply to what they receive.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The field L.
pub(crate) const LENGTH_BYTES: usize = 4;
/// The fields E and H.
const MARK_BYTES: usize = 4;
/// Everything before the header.
pub(crate) const PREFIX_BYTES: usize = LENGTH_BYTES + MARK_BYTES;

// A header that fits the frame also fits H.
const _: () = assert!(FRAME_BYTES_MAX - PREFIX_BYTES < 1 << 24);

/// How a frame's header is written; a reply mirrors its request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HeaderEncoding {
    Json = 0,
    /// RocketMQ's own binary form (`RocketMQSerializable`).
    RocketMq = 1,
}

impl HeaderEncoding {
    fn from_byte(byte: u8) -> Result<Self, FrameError> {
        match byte {
            0 => Ok(Self::Json),
            1 => Ok(Self::RocketMq),
            found => Err(FrameError::UnknownEncoding { found }),
        }
    }
}

/// A whole frame, its header not yet decoded. Both parts share the receive buffer's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    pub encoding: HeaderEncoding,
    pub header: Bytes,
    /// Empty where Java would have null: the two are one on the wire.
    pub body: Bytes,
}

/// What makes a byte stream unreadable from here on: its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {found} bytes, expected at most {max}")]
    TooLong { found: usize, max: usize },
    #[error("frame length field is {found}, expected at least 4")]
    TooShort { found: u32 },
    #[error("header encoding {found}, expected 0 (JSON) or 1 (ROCKETMQ)")]
    UnknownEncoding { found: u8 },
    #[error("header of {found} bytes in a frame with room for {room}")]
    HeaderTooLong { found: usize, room: usize },
}

/// Takes the first frame out of `buffer`, without copying; `None` while it is not whole.
///
/// A frame that will be refused is refused as soon as the field that condemns it has arrived, so `buffer` never
/// has to grow beyond [`FRAME_BYTES_MAX`]. After an error the buffer is of no further use.
pub fn split_frame(buffer: &mut BytesMut) -> Result<Option<RawFrame>, FrameError> {
    let prefix = match Prefix::read(buffer)? {
        Some(prefix) if buffer.len() >= prefix.frame_len => prefix,
        _ => return Ok(None),
    };
    let mut frame = buffer.split_to(prefix.frame_len).freeze();
    let mut header = frame.split_off(PREFIX_BYTES);
    let body = header.split_off(prefix.header_len);
    Ok(Some(RawFrame { encoding: prefix.encoding, header, body }))
}

/// How many bytes must still arrive before [`split_frame`] gives the next frame: what a reader reserves.
///
/// Zero if the frame is there. While the length itself has not arrived, what is missing of the prefix.
pub fn bytes_missing(buffer: &[u8]) -> Result<usize, FrameError> {
    if let Some(prefix) = Prefix::read(buffer)? {
        return Ok(prefix.frame_len.saturating_sub(buffer.len()));
    }
    Ok(match read_frame_len(buffer)? {
        Some(frame_len) => frame_len - buffer.len(),
        None => PREFIX_BYTES - buffer.len(),
    })
}

/// The first eight bytes, checked against each other.
struct Prefix {
    frame_len: usize,
    encoding: HeaderEncoding,
    header_len: usize,
}

impl Prefix {
    fn read(buffer: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(frame_len) = read_frame_len(buffer)? else { return Ok(None) };
        let Some(&[encoding, h2, h1, h0]) = buffer[LENGTH_BYTES..].first_chunk::<MARK_BYTES>() else {
            return Ok(None);
        };
        let encoding = HeaderEncoding::from_byte(encoding)?;
        let header_len = u32::from_be_bytes([0, h2, h1, h0]) as usize;
        let room = frame_len - PREFIX_BYTES;
        if header_len > room {
            return Err(FrameError::HeaderTooLong { found: header_len, room });
        }
        Ok(Some(Self { frame_len, encoding, header_len }))
    }
}

/// Length of the whole frame, its length field included; within `PREFIX_BYTES..=FRAME_BYTES_MAX`.
fn read_frame_len(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length);
    if (length as usize) < MARK_BYTES {
        return Err(FrameError::TooShort { found: length });
    }
    let frame_len = LENGTH_BYTES + length as usize;
    if frame_len > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong { found: frame_len, max: FRAME_BYTES_MAX });
    }
    Ok(Some(frame_len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame_bytes(encoding: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
        let mut bytes = ((MARK_BYTES + header.len() + body.len()) as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&(header.len() as u32).to_be_bytes());
        bytes[LENGTH_BYTES] = encoding;
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn frames_are_taken_one_by_one_without_copying() {
        let mut buffer = BytesMut::from(&frame_bytes(0, b"{}", b"body")[..]);
        buffer.extend_from_slice(&frame_bytes(1, b"head", b""));
        buffer.extend_from_slice(b"\0");
        let header_at = buffer[PREFIX_BYTES..].as_ptr();

        let first = split_frame(&mut buffer).unwrap().unwrap();
        assert_eq!(
            (first.encoding, &first.header[..], &first.body[..]),
            (HeaderEncoding::Json, &b"{}"[..], &b"body"[..])
        );
        assert_eq!(first.header.as_ptr(), header_at);
        assert_eq!(first.body.as_ptr(), header_at.wrapping_add(2));
        assert_eq!(bytes_missing(&buffer), Ok(0));
        let second = split_frame(&mut buffer).unwrap().unwrap();
        assert_eq!((second.encoding, second.body.len()), (HeaderEncoding::RocketMq, 0));
        assert_eq!(split_frame(&mut buffer), Ok(None));
        assert_eq!(bytes_missing(&buffer), Ok(7));
    }

    #[test]
    fn malformed_prefixes_are_refused_as_soon_as_they_are_seen() {
        let refused = |bytes: &[u8], error| {
            assert_eq!(split_frame(&mut BytesMut::from(bytes)), Err(error));
            assert_eq!(bytes_missing(bytes), Err(error));
        };
        refused(&[0, 0, 0, 3], FrameError::TooShort { found: 3 });
        refused(
            &[0, 0xff, 0xff, 0xfd],
            FrameError::TooLong { found: FRAME_BYTES_MAX + 1, max: FRAME_BYTES_MAX },
        );
        refused(b"GET /", FrameError::TooLong { found: 0x4745_5420 + 4, max: FRAME_BYTES_MAX });
        refused(&[0, 0, 0, 9, 2, 0, 0, 0], FrameError::UnknownEncoding { found: 2 });
        refused(&[0, 0, 0, 9, 0, 0, 0, 6], FrameError::HeaderTooLong { found: 6, room: 5 });
        // The longest frame and the fullest header pass.
        assert_eq!(bytes_missing(&[0, 0xff, 0xff, 0xfc]), Ok(FRAME_BYTES_MAX - 4));
        assert_eq!(bytes_missing(&[0, 0, 0, 9, 0, 0, 0, 5]), Ok(5));
    }

    #[test]
    fn errors_say_what_was_expected_and_found() {
        assert_eq!(
            FrameError::UnknownEncoding { found: 7 }.to_string(),
            "header encoding 7, expected 0 (JSON) or 1 (ROCKETMQ)"
        );
    }

    proptest! {
        #[test]
        fn every_cut_waits_for_exactly_what_is_missing(
            encoding in 0u8..2,
            header in proptest::collection::vec(any::<u8>(), 0..40),
            body in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let whole = frame_bytes(encoding, &header, &body);
            for cut in 0..whole.len() {
                let mut buffer = BytesMut::from(&whole[..cut]);
                prop_assert_eq!(split_frame(&mut buffer), Ok(None));
                prop_assert_eq!(buffer.len(), cut);
                let expected = if cut < LENGTH_BYTES { PREFIX_BYTES } else { whole.len() };
                prop_assert_eq!(bytes_missing(&buffer), Ok(expected - cut));
            }
            let frame = split_frame(&mut BytesMut::from(&whole[..])).unwrap().unwrap();
            prop_assert_eq!(frame.encoding as u8, encoding);
            prop_assert_eq!((&frame.header[..], &frame.body[..]), (&header[..], &body[..]));
        }

        #[test]
        fn arbitrary_bytes_give_frames_an_error_or_a_bounded_wait(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), 0u8..16, any::<u8>()], 0..200),
        ) {
            let mut buffer = BytesMut::from(&bytes[..]);
            let mut taken = 0;
            while let Ok(Some(frame)) = split_frame(&mut buffer) {
                taken += PREFIX_BYTES + frame.header.len() + frame.body.len();
            }
            prop_assert_eq!(taken + buffer.len(), bytes.len());
            if let Ok(missing) = bytes_missing(&buffer) {
                prop_assert!(missing > 0 && buffer.len() + missing <= FRAME_BYTES_MAX);
            }
        }
    }
}
