//! The body of a batch send: messages of one topic and queue, back to back.
//!
//! ```text
//!     total length i32 | magic i32 = 0 | body CRC i32 = 0 | flag i32 | body length i32 | body |
//!     properties length i16 | properties                                              every integer big-endian
//! ```
//!
//! Source: RocketMQ `MessageDecoder#encodeMessage`, `MessageDecoder#decodeMessage`.

use bytes::{BufMut, BytesMut};
use zerocopy::big_endian::I32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::properties::{PROPERTIES_BYTES_MAX, Properties};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    total_len: I32,
    /// Written as zero, read by nobody.
    magic: I32,
    /// Written as zero, read by nobody.
    body_crc: I32,
    flag: I32,
    body_len: I32,
}

const HEAD_BYTES: usize = size_of::<Head>();
const PROPERTIES_LEN_BYTES: usize = size_of::<i16>();

/// One message of a batch; all else it shares with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMessage<'a> {
    /// The user's own.
    pub flag: i32,
    pub body: &'a [u8],
    pub properties: Properties<'a>,
}

/// Why a batch cannot be unpacked. Answered with MESSAGE_ILLEGAL (13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("batch ends inside a message: {found} bytes left, expected at least {min}")]
    TooShort { found: usize, min: usize },
    #[error("{field} of {found} bytes in a batch, there is room for {room}")]
    FieldLength { field: &'static str, found: i32, room: usize },
    #[error("{found} bytes left in a message of a batch, expected none")]
    TrailingBytes { found: usize },
}

/// The messages of a batch body, in order. Ends after the first error.
#[derive(Clone, Debug)]
pub struct BatchMessages<'a>(&'a [u8]);

impl<'a> BatchMessages<'a> {
    pub fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    fn read(&mut self) -> Result<BatchMessage<'a>, BatchError> {
        const MIN: usize = HEAD_BYTES + PROPERTIES_LEN_BYTES;
        let too_short = BatchError::TooShort { found: self.0.len(), min: MIN };
        let (head, _) = Head::ref_from_prefix(self.0).map_err(|_| too_short)?;
        let message = take(&mut self.0, "message", head.total_len.get())?;
        let mut rest =
            message.get(HEAD_BYTES..).ok_or(BatchError::TooShort { found: message.len(), min: MIN })?;
        let body = take(&mut rest, "body", head.body_len.get())?;
        let properties_len = take(&mut rest, "properties length", PROPERTIES_LEN_BYTES as i32)?;
        let properties_len = i16::from_be_bytes([properties_len[0], properties_len[1]]);
        let properties = take(&mut rest, "properties", properties_len.into())?;
        if !rest.is_empty() {
            return Err(BatchError::TrailingBytes { found: rest.len() });
        }
        Ok(BatchMessage { flag: head.flag.get(), body, properties: Properties(properties) })
    }
}

fn take<'a>(from: &mut &'a [u8], field: &'static str, len: i32) -> Result<&'a [u8], BatchError> {
    let wrong = BatchError::FieldLength { field, found: len, room: from.len() };
    let len = usize::try_from(len).map_err(|_| wrong)?;
    let (taken, rest) = from.split_at_checked(len).ok_or(wrong)?;
    *from = rest;
    Ok(taken)
}

impl<'a> Iterator for BatchMessages<'a> {
    type Item = Result<BatchMessage<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let message = self.read();
        if message.is_err() {
            self.0 = &[];
        }
        Some(message)
    }
}

/// Bytes that a message takes in a batch body.
pub fn batch_message_len(message: &BatchMessage<'_>) -> usize {
    HEAD_BYTES + message.body.len() + PROPERTIES_LEN_BYTES + message.properties.0.len()
}

/// Appends one message to a batch body.
///
/// # Panics
/// If the properties are longer than [`PROPERTIES_BYTES_MAX`] or the body longer than an `i32` can say.
pub fn append_batch_message(out: &mut BytesMut, message: &BatchMessage<'_>) {
    let properties = message.properties.0;
    assert!(properties.len() <= PROPERTIES_BYTES_MAX, "properties of {} bytes", properties.len());
    let total_len = i32::try_from(batch_message_len(message)).expect("a message below 2 GiB");
    let head = Head {
        total_len: total_len.into(),
        magic: 0.into(),
        body_crc: 0.into(),
        flag: message.flag.into(),
        body_len: (message.body.len() as i32).into(),
    };
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(message.body);
    out.put_i16(properties.len() as i16);
    out.extend_from_slice(properties);
}
