//! What a shard stages in its log: messages and control records, encoded only when their batch is sealed.

use std::net::SocketAddr;

use apogee_net::flags::MessageSysFlag;
use apogee_net::message::{
    self, MessageRecord, Properties, PropertyEdit, RecordError, StoredMessage, property, tag_hash,
};
use apogee_storage::format::KEY_HASHES_MAX;
use apogee_storage::{Append, Place, QueueKey, Record};
use bytes::Bytes;
use smallvec::SmallVec;

use super::control::ControlRecord;

/// Region that messages and replies name (RocketMQ: `regionId`).
pub(super) const REGION: &str = "DefaultRegion";

/// A record on its way into the log.
#[derive(Debug)]
pub(super) enum ShardRecord {
    Message(StagedMessage),
    Control(Box<[u8]>),
}

/// A message whose body still lies in the buffer it was received in.
#[derive(Debug)]
pub(super) struct StagedMessage {
    queue_id: i32,
    flag: i32,
    sys_flag: MessageSysFlag,
    born_timestamp: i64,
    born_host: SocketAddr,
    store_host: SocketAddr,
    reconsume_times: i32,
    prepared_transaction_offset: i64,
    body: Bytes,
    /// The topic, then the property string as it will be stored: one allocation for both.
    texts: Box<[u8]>,
    topic_len: usize,
    encoded_len: u32,
}

/// What a send says of a message, together with what the broker adds.
#[derive(Debug)]
pub(super) struct NewMessage<'a> {
    pub topic: &'a str,
    pub queue_id: i32,
    pub flag: i32,
    pub sys_flag: MessageSysFlag,
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    /// Where the half message was, of a committed one; otherwise 0.
    pub prepared_transaction_offset: i64,
    pub body: Bytes,
    pub properties: PropertyEdit<'a>,
}

impl<'a> NewMessage<'a> {
    /// A stored message once more, in another place: what its producer said of it stays.
    pub(super) fn copy_of(
        stored: &StoredMessage<'_>,
        body: Bytes,
        store_host: SocketAddr,
        (topic, queue_id): (&'a str, i32),
        properties: PropertyEdit<'a>,
    ) -> Self {
        NewMessage {
            topic,
            queue_id,
            flag: stored.flag,
            sys_flag: stored.sys_flag,
            born_timestamp: stored.born_timestamp,
            born_host: stored.born_host,
            store_host,
            reconsume_times: stored.reconsume_times,
            prepared_transaction_offset: 0,
            body,
            properties,
        }
    }

    /// Ready to be staged in `queue`, with its tag and key hashes for the index.
    pub(super) fn into_append(self, queue: QueueKey) -> Result<Append<ShardRecord>, RecordError> {
        let mut texts = Vec::with_capacity(self.topic.len() + self.properties.encoded_len_max());
        texts.extend_from_slice(self.topic.as_bytes());
        let mut indexed = Indexed::default();
        self.properties.write_and_show(&mut texts, |name, value| indexed.see(name, value));
        let mut staged = StagedMessage {
            queue_id: self.queue_id,
            flag: self.flag,
            sys_flag: self.sys_flag,
            born_timestamp: self.born_timestamp,
            born_host: self.born_host,
            store_host: self.store_host,
            reconsume_times: self.reconsume_times,
            prepared_transaction_offset: self.prepared_transaction_offset,
            body: self.body,
            texts: texts.into(),
            topic_len: self.topic.len(),
            encoded_len: 0,
        };
        staged.encoded_len = u32::try_from(staged.layout().encoded_len()?).expect("a message fits a frame");
        Ok(Append {
            queue,
            tag_hash: indexed.tags().map_or(0, tag_hash),
            key_hashes: indexed.key_hashes(self.topic),
            record: ShardRecord::Message(staged),
        })
    }
}

/// The properties that the index goes by. Found while the string is written: every message comes through here, and
/// a walk for each of them was 2 % of a busy shard's time.
#[derive(Default)]
struct Indexed<'a> {
    tags: Option<&'a [u8]>,
    keys: Option<&'a [u8]>,
    unique_key: Option<&'a [u8]>,
}

impl<'a> Indexed<'a> {
    /// Of a repeated property the last value counts, as for [`Properties::get`].
    fn see(&mut self, name: &[u8], value: &'a [u8]) {
        const TAGS: &[u8] = property::TAGS.as_bytes();
        const KEYS: &[u8] = property::KEYS.as_bytes();
        const UNIQUE_KEY: &[u8] = property::UNIQUE_KEY.as_bytes();
        match name {
            TAGS => self.tags = Some(value),
            KEYS => self.keys = Some(value),
            UNIQUE_KEY => self.unique_key = Some(value),
            _ => {}
        }
    }

    fn tags(&self) -> Option<&'a str> {
        std::str::from_utf8(self.tags?).ok()
    }

    /// Hashes under which a message can be found by key: of its unique key and of each word of `KEYS`, each together
    /// with the topic. Words beyond what the log keeps per record are not found by key.
    fn key_hashes(&self, topic: &str) -> SmallVec<[u32; 4]> {
        let text = |value: Option<&'a [u8]>| value.and_then(|value| std::str::from_utf8(value).ok());
        let words = text(self.keys).into_iter().flat_map(|keys| keys.split_ascii_whitespace());
        let keys = text(self.unique_key).into_iter().chain(words).take(KEY_HASHES_MAX);
        keys.map(|key| key_hash(topic, key)).collect()
    }
}

impl StagedMessage {
    /// The message's own id, which a producer gets back as its transaction id.
    pub(super) fn unique_key(&self) -> Option<&str> {
        self.properties().get(property::UNIQUE_KEY)
    }

    fn properties(&self) -> Properties<'_> {
        Properties(&self.texts[self.topic_len..])
    }

    fn layout(&self) -> MessageRecord<'_> {
        MessageRecord {
            topic: std::str::from_utf8(&self.texts[..self.topic_len]).expect("copied from a str"),
            queue_id: self.queue_id,
            flag: self.flag,
            sys_flag: self.sys_flag,
            born_timestamp: self.born_timestamp,
            born_host: self.born_host,
            store_host: self.store_host,
            reconsume_times: self.reconsume_times,
            prepared_transaction_offset: self.prepared_transaction_offset,
            body: &self.body,
            properties: PropertyEdit::unchanged(&self.texts[self.topic_len..]),
        }
    }
}

impl ShardRecord {
    /// A message's own id.
    pub(super) fn unique_key(&self) -> Option<&str> {
        match self {
            ShardRecord::Message(message) => message.unique_key(),
            ShardRecord::Control(_) => None,
        }
    }

    pub(super) fn control(record: &ControlRecord) -> Append<ShardRecord> {
        Append {
            queue: QueueKey::CONTROL,
            tag_hash: 0,
            key_hashes: SmallVec::new(),
            record: ShardRecord::Control(record.encode().into()),
        }
    }
}

impl Record for ShardRecord {
    fn encoded_len(&self) -> u32 {
        match self {
            ShardRecord::Message(message) => message.encoded_len,
            ShardRecord::Control(bytes) => bytes.len() as u32,
        }
    }

    fn encode(&self, place: Place, out: &mut [u8]) {
        match self {
            ShardRecord::Message(message) => {
                let place = message::Place {
                    queue_offset: place.queue_offset.0 as i64,
                    physical_offset: place.log_offset.0 as i64,
                    store_timestamp: place.store_time_ms,
                };
                message.layout().encode(place, out);
            }
            ShardRecord::Control(bytes) => out.copy_from_slice(bytes),
        }
    }
}

/// CRC-32C of `topic#key`. Stored in batch directories: not to be changed without a new batch format.
pub(super) fn key_hash(topic: &str, key: &str) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(topic.as_bytes()), b"#"), key.as_bytes())
}
