//! Configuration of topics.

use std::collections::BTreeMap;

use super::data_version::DataVersion;
use super::fastjson::{self, RawValue, body, body_enum};
use super::route::TopicQueueMappingInfo;

/// The bits of [`Perm`](crate::flags::Perm) as bodies carry them: bare integers.
pub mod perm {
    use crate::flags::Perm;

    pub const INHERIT: i32 = Perm::INHERIT.0;
    pub const WRITE: i32 = Perm::WRITE.0;
    pub const READ: i32 = Perm::READ.0;
    pub const PRIORITY: i32 = Perm::PRIORITY.0;
}

body! {
    /// One topic on one broker.
    #[derive(Eq)]
    pub struct TopicConfig {
        /// Such as `message.type`; names without the sign that requests put before them.
        "attributes" => attributes: BTreeMap<String, String>,
        "order" => order: bool,
        /// Bits of [`perm`].
        "perm" => perm: i32 = perm::READ | perm::WRITE,
        "readQueueNums" => read_queue_nums: i32 = 16,
        "topicFilterType" => topic_filter_type: TopicFilterType,
        "topicName" => topic_name: String,
        /// 1 unit, 2 subscribed by a unit.
        "topicSysFlag" => topic_sys_flag: i32,
        "writeQueueNums" => write_queue_nums: i32 = 16,
    }
}

body_enum! {
    pub enum TopicFilterType {
        SingleTag = "SINGLE_TAG",
        MultiTag = "MULTI_TAG",
    }
}

impl TopicConfig {
    /// The one-line form of a compressed registration (`TopicConfig#encode`):
    /// `name readQueues writeQueues perm filterType {attributes}`.
    pub fn to_text(&self) -> String {
        let attributes = fastjson::to_fastjson(&self.attributes);
        format!(
            "{} {} {} {} {} {}",
            self.topic_name,
            self.read_queue_nums,
            self.write_queue_nums,
            self.perm,
            self.topic_filter_type.name(),
            String::from_utf8_lossy(&attributes),
        )
    }

    /// Reads the one-line form; the attributes may be missing (`TopicConfig#decode`).
    pub fn from_text(text: &str) -> Option<Self> {
        let mut words = text.splitn(6, ' ');
        let mut config = Self { topic_name: words.next()?.to_owned(), ..Self::default() };
        config.read_queue_nums = words.next()?.parse().ok()?;
        config.write_queue_nums = words.next()?.parse().ok()?;
        config.perm = words.next()?.parse().ok()?;
        config.topic_filter_type = TopicFilterType::from_name(words.next()?)?;
        if let Some(attributes) = words.next().filter(|attributes| !attributes.trim().is_empty()) {
            config.attributes = fastjson::parse(attributes.as_bytes()).ok()?;
        }
        Some(config)
    }
}

body! {
    /// All topics of a broker, as brokers before 3.0.11 register them (103).
    #[derive(Eq)]
    pub struct TopicConfigSerializeWrapper {
        "dataVersion" => data_version: DataVersion,
        "topicConfigTable" => topic_config_table: BTreeMap<String, TopicConfig>,
    }
}

body! {
    /// All topics of a broker with static topics beside them: GET_ALL_TOPIC_CONFIG (21) and inside
    /// [`RegisterBrokerBody`](super::RegisterBrokerBody).
    #[derive(Eq)]
    pub struct TopicConfigAndMappingSerializeWrapper {
        "dataVersion" => data_version: DataVersion,
        "mappingDataVersion" => mapping_data_version: DataVersion,
        "topicConfigTable" => topic_config_table: BTreeMap<String, TopicConfig>,
        /// Concerns brokers among themselves; passed on as it came.
        "topicQueueMappingDetailMap" => topic_queue_mapping_detail_map: BTreeMap<String, RawValue>,
        "topicQueueMappingInfoMap" => topic_queue_mapping_info_map: BTreeMap<String, TopicQueueMappingInfo>,
    }
}

body! {
    /// UPDATE_AND_CREATE_TOPIC_LIST (18).
    #[derive(Eq)]
    pub struct CreateTopicListRequestBody {
        "topicConfigList" => topic_config_list: Vec<TopicConfig>,
    }
}
