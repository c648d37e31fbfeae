//! What a shard tells NameServers about itself.

use apogee_net::body::{
    DataVersion, RegisterBrokerBody, TopicConfig, TopicConfigAndMappingSerializeWrapper, perm,
};
use apogee_storage::Buffer;

use super::state::Shard;
use super::topics::Topic;

const READ_WRITE: i32 = perm::READ | perm::WRITE;

/// Topics of one registration: as many as are copied and written in half a millisecond.
const TOPICS_PER_PART: usize = 256;

/// What a NameServer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Of the topics, up to here.
    version: DataVersion,
    /// What the broker allowed then.
    broker_perm: i32,
}

/// One registration at a NameServer.
#[derive(Debug)]
pub struct Registration {
    pub body: RegisterBrokerBody,
    /// What the NameServer was told once it has taken this.
    pub told: Told,
    /// Nothing follows.
    pub is_last: bool,
}

impl<B: Buffer + 'static> Shard<B> {
    /// The version of the topics: what a NameServer compares to know whether it is up to date.
    pub fn topics_version(&self) -> DataVersion {
        self.topics.version()
    }

    /// The next registration for a NameServer that was `told` so much, or nothing. When nothing has changed it says no
    /// more than that the broker lives.
    ///
    /// Topics that are missing in a registration stay as they were: so 100,000 topics are told once, in parts that each
    /// take one turn of the shard, and not at every change. A part goes by the version that the topics had when its last
    /// one changed: a NameServer replaces topics that it knows by those of a registration only if the version is
    /// another than the last (`RouteInfoManager#registerBroker`). A broker that it does not know must not begin with
    /// exactly one topic; every shard has a dozen of its own.
    pub fn registration(&self, told: Option<Told>) -> Registration {
        let broker_perm = self.settings.broker_perm;
        let told = told.filter(|told| told.broker_perm == broker_perm);
        let from = told.map_or(DataVersion::default(), |told| told.version);
        let mut left = self.topics.changed_since(from);
        let part: Vec<&Topic> = left.by_ref().take(TOPICS_PER_PART).collect();
        let mut version = self.topics.version();
        let is_last = left.next().is_none();
        if let (false, Some(last)) = (is_last, part.last()) {
            version.counter = last.changed_at();
        }
        let table = part.iter().map(|topic| (topic.config().topic_name.clone(), self.as_registered(topic)));
        let body = RegisterBrokerBody {
            filter_server_list: Vec::new(),
            topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper {
                data_version: version,
                topic_config_table: table.collect(),
                ..Default::default()
            },
        };
        Registration { body, told: Told { version, broker_perm }, is_last }
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
