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
    rank: Rank,
}

/// As what a broker registers, and since which election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// 0 is the master of its broker name; others are slaves.
    pub broker_id: i64,
    /// A NameServer ignores who claims an id in an earlier term than its holder. 0 without a group.
    pub term: i64,
}

impl Rank {
    /// Without a group there is nobody else.
    pub const ALONE: Rank = Rank { broker_id: MASTER_ID, term: 0 };

    pub fn is_master(self) -> bool {
        self.broker_id == MASTER_ID
    }
}

impl Told {
    pub fn rank(&self) -> Rank {
        self.rank
    }
}

/// The broker id of a master.
const MASTER_ID: i64 = 0;

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
    /// As what the shard is to be registered now.
    pub fn rank(&self) -> Rank {
        let Some(roles) = &self.roles else { return Rank::ALONE };
        let state = roles.replica.group_state();
        let broker_id = if self.is_master() { MASTER_ID } else { state.node.0 as i64 };
        Rank { broker_id, term: state.term.0 as i64 }
    }

    /// The version of the topics: what a NameServer compares to know whether it is up to date.
    pub fn topics_version(&self) -> DataVersion {
        DataVersion { state_version: self.rank().term, ..self.topics.version() }
    }

    /// The next registration for a NameServer that was `told` so much, or nothing. When nothing has changed it says no
    /// more than that the broker lives.
    ///
    /// Topics that are missing in a registration stay as they were: so 100,000 topics are told once, in parts that each
    /// take one turn of the shard, and not at every change. A part goes by the version that the topics had when its last
    /// one changed: a NameServer replaces topics that it knows by those of a registration only if the version is
    /// another than the last (`RouteInfoManager#registerBroker`).
    ///
    /// A change of role is told with all topics, for a NameServer passes over most of what slaves say of them. A broker
    /// under an id that it does not know must not begin with exactly one topic: then none is told first.
    pub fn registration(&self, told: Option<Told>) -> Registration {
        let (broker_perm, rank) = (self.settings.broker_perm, self.rank());
        let is_same = |told: &Told| told.broker_perm == broker_perm && told.rank.broker_id == rank.broker_id;
        let told = told.filter(is_same);
        let from = told.map_or(DataVersion::default(), |told| told.version);
        let mut left = self.topics.changed_since(from);
        let mut part: Vec<&Topic> = left.by_ref().take(TOPICS_PER_PART).collect();
        let mut version = self.topics_version();
        let mut is_last = left.next().is_none();
        if told.is_none() && part.len() == 1 {
            part.clear();
            version.counter = 0;
            is_last = false;
        }
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
        Registration { body, told: Told { version, broker_perm, rank }, is_last }
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
