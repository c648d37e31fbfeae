use std::net::SocketAddr;

use bytes::BufMut;
use zerocopy::IntoBytes;

use crate::flags::MessageSysFlag;
use crate::frame::FRAME_BYTES_MAX;

use super::layout::{
    HEAD_BYTES, Head, MAGIC_V1, MAGIC_V2, PROPERTIES_LEN_BYTES, STORE_TIMESTAMP_BYTES, TAIL_BYTES,
    TOPIC_V1_BYTES_MAX, TOPIC_V2_BYTES_MAX, Tail, body_crc, canonical, host_len, topic_len_bytes, write_host,
};
use super::properties::{PROPERTIES_BYTES_MAX, PropertyEdit};

/// A message about to be stored: everything but its place in the log.
///
/// The body stays where it was received until [`MessageRecord::encode`] copies it to its final place, once.
#[derive(Clone, Copy, Debug)]
pub struct MessageRecord<'a> {
    pub topic: &'a str,
    pub queue_id: i32,
    /// The user's own.
    pub flag: i32,
    /// The two bits that tell the hosts' address families are set by the encoder.
    pub sys_flag: MessageSysFlag,
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    /// Where clients reach this broker: message ids and redelivery requests are built from it.
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    pub body: &'a [u8],
    pub properties: PropertyEdit<'a>,
}

/// What is known of a message only when its batch is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// In messages.
    pub queue_offset: i64,
    /// In bytes, of the message's first.
    pub physical_offset: i64,
    /// In ms, by the broker's clock.
    pub store_timestamp: i64,
}

/// Which part of a message is too long for the layout. Answered with MESSAGE_ILLEGAL (13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("topic of {found} bytes, expected at most {max}")]
    Topic { found: usize, max: usize },
    #[error("properties of {found} bytes, expected at most {max}")]
    Properties { found: usize, max: usize },
    #[error("body of {found} bytes, expected at most {max}")]
    Body { found: usize, max: usize },
}

impl MessageRecord<'_> {
    /// Bytes that [`MessageRecord::encode`] will write, if the message fits the layout at all.
    pub fn encoded_len(&self) -> Result<usize, RecordError> {
        let (topic, body, properties) = (self.topic.len(), self.body.len(), self.properties.encoded_len());
        if topic > TOPIC_V2_BYTES_MAX {
            return Err(RecordError::Topic { found: topic, max: TOPIC_V2_BYTES_MAX });
        }
        if body > FRAME_BYTES_MAX {
            return Err(RecordError::Body { found: body, max: FRAME_BYTES_MAX });
        }
        if properties > PROPERTIES_BYTES_MAX {
            return Err(RecordError::Properties { found: properties, max: PROPERTIES_BYTES_MAX });
        }
        Ok(self.len_without_properties() + properties)
    }

    /// Writes the message into `out`, which must have [`MessageRecord::encoded_len`] bytes. The body's CRC is computed
    /// on the way.
    ///
    /// # Panics
    /// If `out` has another length.
    pub fn encode(&self, place: Place, out: &mut [u8]) {
        let total_len = out.len();
        let properties_len = total_len
            .checked_sub(self.len_without_properties())
            .and_then(|len| i16::try_from(len).ok())
            .unwrap_or_else(|| panic!("{total_len} bytes for a message of another length"));
        let born_host = canonical(self.born_host);
        let store_host = canonical(self.store_host);
        let magic = self.magic();
        let head = Head {
            total_len: (total_len as i32).into(),
            magic: magic.into(),
            body_crc: body_crc(self.body).into(),
            queue_id: self.queue_id.into(),
            flag: self.flag.into(),
            queue_offset: place.queue_offset.into(),
            physical_offset: place.physical_offset.into(),
            sys_flag: host_bits(self.sys_flag, born_host, store_host).0.into(),
            born_timestamp: self.born_timestamp.into(),
        };
        let tail = Tail {
            reconsume_times: self.reconsume_times.into(),
            prepared_transaction_offset: self.prepared_transaction_offset.into(),
            body_len: (self.body.len() as i32).into(),
        };

        let mut rest = out;
        rest.put_slice(head.as_bytes());
        put_host(&mut rest, born_host);
        rest.put_i64(place.store_timestamp);
        put_host(&mut rest, store_host);
        rest.put_slice(tail.as_bytes());
        rest.put_slice(self.body);
        rest.put_uint(self.topic.len() as u64, topic_len_bytes(magic));
        rest.put_slice(self.topic.as_bytes());
        rest.put_i16(properties_len);
        self.properties.write(&mut rest);
        assert!(rest.is_empty(), "{total_len} bytes for a message of another length");
    }

    fn magic(&self) -> u32 {
        if self.topic.len() > TOPIC_V1_BYTES_MAX { MAGIC_V2 } else { MAGIC_V1 }
    }

    fn len_without_properties(&self) -> usize {
        HEAD_BYTES
            + host_len(canonical(self.born_host).is_ipv6())
            + STORE_TIMESTAMP_BYTES
            + host_len(canonical(self.store_host).is_ipv6())
            + TAIL_BYTES
            + self.body.len()
            + topic_len_bytes(self.magic())
            + self.topic.len()
            + PROPERTIES_LEN_BYTES
    }
}

fn host_bits(flag: MessageSysFlag, born_host: SocketAddr, store_host: SocketAddr) -> MessageSysFlag {
    let set = |flag: MessageSysFlag, bit, host: SocketAddr| {
        if host.is_ipv6() { flag.with(bit) } else { flag.without(bit) }
    };
    let flag = set(flag, MessageSysFlag::BORN_HOST_IPV6, born_host);
    set(flag, MessageSysFlag::STORE_HOST_IPV6, store_host)
}

fn put_host(rest: &mut &mut [u8], host: SocketAddr) {
    let (out, after) = std::mem::take(rest).split_at_mut(host_len(host.is_ipv6()));
    write_host(host, out);
    *rest = after;
}
