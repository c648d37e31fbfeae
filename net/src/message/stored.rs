use std::net::SocketAddr;

use zerocopy::FromBytes;

use crate::flags::MessageSysFlag;

use super::ids::OffsetMessageId;
use super::layout::{
    HEAD_BYTES, Head, MAGIC_V1, MAGIC_V2, PROPERTIES_LEN_BYTES, STORE_TIMESTAMP_BYTES, TAIL_BYTES, Tail,
    body_crc, host_len, read_host, topic_len_bytes,
};
use super::properties::Properties;

/// A stored message, read where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredMessage<'a> {
    pub topic: &'a str,
    pub queue_id: i32,
    /// The user's own.
    pub flag: i32,
    pub sys_flag: MessageSysFlag,
    /// In messages.
    pub queue_offset: i64,
    /// In bytes, of the message's first.
    pub physical_offset: i64,
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    pub store_timestamp: i64,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    /// As the writer computed it; see [`StoredMessage::is_body_intact`].
    pub body_crc: u32,
    /// Perhaps compressed by the producer: the flag tells.
    pub body: &'a [u8],
    pub properties: Properties<'a>,
    /// Bytes of the whole message.
    pub total_len: usize,
}

/// Where a message breaks off or contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("message of {found} bytes, expected at least {min}")]
    TooShort { found: usize, min: usize },
    #[error("message announces {found} bytes, there are {room}")]
    TotalLength { found: i32, room: usize },
    #[error("magic {found:#010x}, expected {MAGIC_V1:#010x} or {MAGIC_V2:#010x}")]
    UnknownMagic { found: u32 },
    #[error("{field} of {found} bytes, there is room for {room}")]
    FieldLength { field: &'static str, found: i64, room: usize },
    #[error("{field} port is not a port")]
    Port { field: &'static str },
    #[error("topic is not UTF-8")]
    TopicNotUtf8,
    #[error("{found} bytes left after the last field, expected none")]
    TrailingBytes { found: usize },
}

impl<'a> StoredMessage<'a> {
    /// Decodes the message at the beginning of `bytes`; `total_len` tells where the next one begins.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, MessageError> {
        let too_short = || MessageError::TooShort { found: bytes.len(), min: HEAD_BYTES };
        let (head, _) = Head::ref_from_prefix(bytes).map_err(|_| too_short())?;
        let wrong_total = || MessageError::TotalLength { found: head.total_len.get(), room: bytes.len() };
        let total_len = usize::try_from(head.total_len.get()).map_err(|_| wrong_total())?;
        let message = bytes.get(..total_len).ok_or_else(wrong_total)?;
        let magic = head.magic.get();
        if magic != MAGIC_V1 && magic != MAGIC_V2 {
            return Err(MessageError::UnknownMagic { found: magic });
        }
        let sys_flag = MessageSysFlag(head.sys_flag.get());

        let mut fields = Fields(message);
        fields.take("head", HEAD_BYTES as i64)?;
        let born_host = fields.take_host("born host", sys_flag.contains(MessageSysFlag::BORN_HOST_IPV6))?;
        let store_timestamp = fields.take_int("store timestamp", STORE_TIMESTAMP_BYTES)?;
        let store_host =
            fields.take_host("store host", sys_flag.contains(MessageSysFlag::STORE_HOST_IPV6))?;
        let tail = fields.take("tail", TAIL_BYTES as i64)?;
        let tail = Tail::ref_from_bytes(tail).expect("as many bytes as taken");
        let body = fields.take("body", tail.body_len.get().into())?;
        let topic_len = fields.take_int("topic length", topic_len_bytes(magic))?;
        // Signed in either width, as in Java: a length above 127 in one byte is an error, not a topic.
        let topic = fields.take("topic", topic_len)?;
        let properties_len = fields.take_int("properties length", PROPERTIES_LEN_BYTES)?;
        let properties = fields.take("properties", properties_len)?;
        if !fields.0.is_empty() {
            return Err(MessageError::TrailingBytes { found: fields.0.len() });
        }
        Ok(Self {
            topic: std::str::from_utf8(topic).map_err(|_| MessageError::TopicNotUtf8)?,
            queue_id: head.queue_id.get(),
            flag: head.flag.get(),
            sys_flag,
            queue_offset: head.queue_offset.get(),
            physical_offset: head.physical_offset.get(),
            born_timestamp: head.born_timestamp.get(),
            born_host,
            store_timestamp,
            store_host,
            reconsume_times: tail.reconsume_times.get(),
            prepared_transaction_offset: tail.prepared_transaction_offset.get(),
            body_crc: head.body_crc.get(),
            body,
            properties: Properties(properties),
            total_len,
        })
    }

    /// Whether the body is the one the CRC was computed of. Clients do not ask; whoever reads the log does.
    pub fn is_body_intact(&self) -> bool {
        body_crc(self.body) == self.body_crc
    }

    /// The id by which brokers find this message.
    pub fn offset_message_id(&self) -> OffsetMessageId {
        OffsetMessageId { host: self.store_host, physical_offset: self.physical_offset }
    }
}

/// Several messages back to back, as a pull answers with them. Ends after the first error.
#[derive(Clone, Debug)]
pub struct StoredMessages<'a>(&'a [u8]);

impl<'a> StoredMessages<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for StoredMessages<'a> {
    type Item = Result<StoredMessage<'a>, MessageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let message = StoredMessage::decode(self.0);
        self.0 = match &message {
            Ok(message) => &self.0[message.total_len..],
            Err(_) => &[],
        };
        Some(message)
    }
}

/// What is left of one message; each step checks what it takes against it.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, field: &'static str, len: i64) -> Result<&'a [u8], MessageError> {
        let wrong = MessageError::FieldLength { field, found: len, room: self.0.len() };
        let len = usize::try_from(len).map_err(|_| wrong)?;
        let (taken, rest) = self.0.split_at_checked(len).ok_or(wrong)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A signed integer of one, two or eight bytes.
    fn take_int(&mut self, field: &'static str, bytes: usize) -> Result<i64, MessageError> {
        let mut taken = self.take(field, bytes as i64)?;
        Ok(bytes::Buf::get_int(&mut taken, bytes))
    }

    fn take_host(&mut self, field: &'static str, is_ipv6: bool) -> Result<SocketAddr, MessageError> {
        let host = self.take(field, host_len(is_ipv6) as i64)?;
        read_host(host).ok_or(MessageError::Port { field })
    }
}
