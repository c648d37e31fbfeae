//! What a shard tells NameServers about itself.

use apogee_net::body::{DataVersion, RegisterBrokerBody, TopicConfigAndMappingSerializeWrapper};
use apogee_storage::Buffer;

use super::state::Shard;

impl<B: Buffer + 'static> Shard<B> {
    /// The version of the topics: what a NameServer compares to know whether it is up to date.
    pub fn topics_version(&self) -> DataVersion {
        self.topics.version()
    }

    /// A registration for a NameServer that was told everything up to `known`; of all topics when it knows nothing.
    ///
    /// Topics that are missing in a registration stay as they were, so that 100,000 topics are sent once and not at
    /// every change. An unknown broker must begin with all: a body of exactly one topic is refused then
    /// (`RouteInfoManager#registerBroker`).
    pub fn registration(&self, known: Option<DataVersion>) -> RegisterBrokerBody {
        let entry =
            |topic: &super::topics::Topic| (topic.config().topic_name.clone(), topic.config().clone());
        let topic_config_table = match known {
            Some(version) => self.topics.changed_since(version).map(entry).collect(),
            None => self.topics.iter().map(entry).collect(),
        };
        RegisterBrokerBody {
            filter_server_list: Vec::new(),
            topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper {
                data_version: self.topics.version(),
                topic_config_table,
                ..Default::default()
            },
        }
    }
}
