//! A broker's registration at a NameServer.
//!
//! Plain, the body is JSON. Compressed, it is a zlib stream of length-prefixed parts; every integer is a
//! big-endian `i32`:
//!
//! ```text
//!     n, DataVersion as JSON
//!     count, then per topic    n, TopicConfig in its one-line form
//!     n, filter servers as a JSON list
//!     count, then per mapping  n, TopicQueueMappingInfo as JSON        from version 413 (5.0.0) on
//! ```
//!
//! Source: RocketMQ 5, `RegisterBrokerBody#encode` and `#decode`.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::fastjson::{self, BodyError, ELEMENTS_MAX, FromFastjson, body};
use super::route::TopicQueueMappingInfo;
use super::topic_config::{TopicConfig, TopicConfigAndMappingSerializeWrapper, TopicConfigSerializeWrapper};

/// What a compressed registration may grow to: four full frames, that is some 400,000 topics. zlib could turn one
/// frame into 16 GiB.
pub const INFLATED_BYTES_MAX: usize = 64 << 20;

/// Characters of a broken topic that its error repeats.
const TOPIC_TEXT_SHOWN_MAX: usize = 100;

/// First request version whose body is a [`RegisterBrokerBody`] (3.0.11); before, it is the topics alone.
const VERSION_WITH_FILTER_SERVERS: i32 = 37;
/// First request version whose compressed body ends with the static topics (5.0.0).
const VERSION_WITH_MAPPINGS: i32 = 413;

body! {
    /// REGISTER_BROKER (103).
    #[derive(Eq)]
    pub struct RegisterBrokerBody {
        "filterServerList" => filter_server_list: Vec<String>,
        "topicConfigSerializeWrapper" => topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper,
    }
}

/// Why a registration's body was refused.
#[derive(Debug, thiserror::Error)]
pub enum RegisterBodyError {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("compressed body: {0}")]
    Inflate(#[from] std::io::Error),
    #[error("compressed body is larger than {bytes_max} bytes when inflated")]
    TooLarge { bytes_max: usize },
    #[error("compressed body ends within {0}")]
    Truncated(&'static str),
    #[error("compressed body has a negative length of {0}")]
    NegativeLength(&'static str),
    #[error("compressed body has {count} {what}, more than {ELEMENTS_MAX}")]
    TooMany { what: &'static str, count: usize },
    #[error(
        "topic configuration is not \"name readQueues writeQueues perm filterType {{attributes}}\": {0:?}"
    )]
    TopicText(String),
}

impl RegisterBrokerBody {
    /// Reads a registration's body in whichever form it has.
    ///
    /// A Java broker with `compressedRegister=true` compresses while its header says `compressed=false`, so the
    /// first byte decides as well: JSON begins with a brace, zlib never does.
    pub fn decode(body: &[u8], compressed: bool, version: i32) -> Result<Self, RegisterBodyError> {
        if compressed || body.first() == Some(&ZLIB_FIRST_BYTE) {
            return Self::decode_compressed(body, version);
        }
        if version < VERSION_WITH_FILTER_SERVERS {
            let TopicConfigSerializeWrapper { data_version, topic_config_table } = fastjson::parse(body)?;
            let topics = TopicConfigAndMappingSerializeWrapper {
                data_version,
                topic_config_table,
                ..Default::default()
            };
            return Ok(Self { topic_config_serialize_wrapper: topics, ..Self::default() });
        }
        Ok(fastjson::parse(body)?)
    }

    /// What the header's `bodyCrc32` says of these bytes. RocketMQ clears the sign (`UtilAll#crc32`).
    pub fn crc32(body: &[u8]) -> i32 {
        (crc32fast::hash(body) & 0x7fff_ffff) as i32
    }

    fn decode_compressed(body: &[u8], version: i32) -> Result<Self, RegisterBodyError> {
        let inflated = inflate(body, INFLATED_BYTES_MAX)?;
        let mut parts = Parts { rest: &inflated };
        let mut decoded = Self::default();
        let topics = &mut decoded.topic_config_serialize_wrapper;
        topics.data_version = parts.json("the data version")?;
        for _ in 0..parts.count("topics")? {
            let text = String::from_utf8_lossy(parts.part("a topic")?);
            let Some(topic) = TopicConfig::from_text(&text) else {
                return Err(RegisterBodyError::TopicText(text.chars().take(TOPIC_TEXT_SHOWN_MAX).collect()));
            };
            topics.topic_config_table.insert(topic.topic_name.clone(), topic);
        }
        decoded.filter_server_list = parts.json("the filter servers")?;
        if version >= VERSION_WITH_MAPPINGS && !parts.rest.is_empty() {
            for _ in 0..parts.count("mappings")? {
                let mapping: TopicQueueMappingInfo = parts.json("a mapping")?;
                topics.topic_queue_mapping_info_map.insert(mapping.topic.clone(), mapping);
            }
        }
        Ok(decoded)
    }

    /// Writes the compressed form for a header of this `version`.
    pub fn encode_compressed(&self, version: i32) -> Bytes {
        let topics = &self.topic_config_serialize_wrapper;
        let mut parts = Vec::new();
        push_part(&mut parts, &fastjson::to_fastjson(&topics.data_version));
        push_length(&mut parts, topics.topic_config_table.len());
        for topic in topics.topic_config_table.values() {
            push_part(&mut parts, topic.to_text().as_bytes());
        }
        push_part(&mut parts, &fastjson::to_fastjson(&self.filter_server_list));
        if version >= VERSION_WITH_MAPPINGS {
            push_length(&mut parts, topics.topic_queue_mapping_info_map.len());
            for mapping in topics.topic_queue_mapping_info_map.values() {
                push_part(&mut parts, &fastjson::to_fastjson(mapping));
            }
        }
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&parts).expect("compressing into memory cannot fail");
        Bytes::from(encoder.finish().expect("compressing into memory cannot fail"))
    }
}

fn inflate(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, RegisterBodyError> {
    let mut inflated = Vec::new();
    ZlibDecoder::new(body).take(bytes_max as u64 + 1).read_to_end(&mut inflated)?;
    if inflated.len() > bytes_max {
        return Err(RegisterBodyError::TooLarge { bytes_max });
    }
    Ok(inflated)
}

/// Deflate with a window of up to 32 KiB, the only one in use.
const ZLIB_FIRST_BYTE: u8 = 0x78;

/// The inflated body, consumed from the front.
struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn length(&mut self, what: &'static str) -> Result<usize, RegisterBodyError> {
        let (length, rest) = self.rest.split_first_chunk::<4>().ok_or(RegisterBodyError::Truncated(what))?;
        self.rest = rest;
        usize::try_from(i32::from_be_bytes(*length)).map_err(|_| RegisterBodyError::NegativeLength(what))
    }

    fn count(&mut self, what: &'static str) -> Result<usize, RegisterBodyError> {
        let count = self.length(what)?;
        if count > ELEMENTS_MAX as usize {
            return Err(RegisterBodyError::TooMany { what, count });
        }
        Ok(count)
    }

    fn part(&mut self, what: &'static str) -> Result<&'a [u8], RegisterBodyError> {
        let length = self.length(what)?;
        let (part, rest) = self.rest.split_at_checked(length).ok_or(RegisterBodyError::Truncated(what))?;
        self.rest = rest;
        Ok(part)
    }

    fn json<T: FromFastjson>(&mut self, what: &'static str) -> Result<T, RegisterBodyError> {
        Ok(fastjson::parse(self.part(what)?)?)
    }
}

fn push_length(parts: &mut Vec<u8>, length: usize) {
    let length = i32::try_from(length).expect("a registration is far below 2 GiB");
    parts.extend_from_slice(&length.to_be_bytes());
}

fn push_part(parts: &mut Vec<u8>, part: &[u8]) {
    push_length(parts, part.len());
    parts.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inflation_stops_at_its_limit() {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&[b' '; 100_000]).unwrap();
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 1000);
        assert_eq!(inflate(&bomb, 100_000).unwrap().len(), 100_000);
        assert!(matches!(inflate(&bomb, 99_999), Err(RegisterBodyError::TooLarge { bytes_max: 99_999 })));
    }
}
