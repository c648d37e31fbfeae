//! What a shard tells NameServers about itself.

use apogee_net::body::{
    DataVersion, RegisterBrokerBody, TopicConfig, TopicConfigAndMappingSerializeWrapper, perm,
};
use apogee_storage::Buffer;

use super::state::Shard;
use super::topics::Topic;

const READ_WRITE: i32 = perm::READ | perm::WRITE;

/// Topics of one registration: with the longest names and attributes still a fraction of a frame.
const TOPICS_PER_PART: usize = 4096;

impl<B: Buffer + 'static> Shard<B> {
    /// The version of the topics: what a NameServer compares to know whether it is up to date.
    pub fn topics_version(&self) -> DataVersion {
        self.topics.version()
    }

    /// Registrations for a NameServer that was told everything up to `known`, to be sent in order; of all topics when
    /// it knows nothing. At least one, which says no more than that the broker lives when nothing has changed.
    ///
    /// Topics that are missing in a registration stay as they were: so 100,000 topics are sent once, in parts that
    /// each fit a frame, and not at every change. A broker that the NameServer does not know must not begin with
    /// exactly one topic (`RouteInfoManager#registerBroker`); every shard has a dozen of its own.
    pub fn registration(&self, known: Option<DataVersion>) -> Vec<RegisterBrokerBody> {
        let topics: Vec<&Topic> = match known {
            Some(version) if version.counter >= self.broker_perm_changed_at => {
                self.topics.changed_since(version).collect()
            }
            Some(_) | None => self.topics.iter().collect(),
        };
        let part = |topics: &[&Topic]| RegisterBrokerBody {
            filter_server_list: Vec::new(),
            topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper {
                data_version: self.topics.version(),
                topic_config_table: topics
                    .iter()
                    .map(|topic| (topic.config().topic_name.clone(), self.as_registered(topic)))
                    .collect(),
                ..Default::default()
            },
        };
        match topics.is_empty() {
            true => vec![part(&[])],
            false => topics.chunks(TOPICS_PER_PART).map(part).collect(),
        }
    }

    /// A topic allows no more than its broker (`BrokerController#registerBrokerAll`).
    fn as_registered(&self, topic: &Topic) -> TopicConfig {
        let config = topic.config();
        let perm = match self.settings.broker_perm {
            all if all & READ_WRITE == READ_WRITE => config.perm,
            some => config.perm & some,
        };
        TopicConfig { perm, ..config.clone() }
    }
}
