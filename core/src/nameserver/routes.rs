//! Who is registered, and which queues they have.
//!
//! ```text
//!     brokers   name ─▶ group: cluster, members by id (0 is the master), each with its address and last sign of life
//!     topics    name ─▶ by broker name: how many queues there, with which permission
//! ```
//!
//! A broker name stands in `topics` only while it stands in `brokers`, so a route never names a broker without an
//! address. Source of the rules: RocketMQ 5, `RouteInfoManager`.

mod lists;
mod register;
mod remove;
mod route;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::rc::Rc;

use apogee_net::body::{BrokerAddrs, BrokerData, DataVersion, TopicQueueMappingInfo, perm};
use apogee_net::io::ConnectionId;

pub(super) use lists::RegisterTopicError;
pub(super) use register::{MasterAddrs, RegisterError, Registered, Registration};
pub(super) use remove::Removed;
pub(super) use route::RouteFilter;

/// Broker names. With one broker per core this is some hundred machines.
pub const BROKERS_MAX: usize = 8192;

/// Brokers of one name: a master and its slaves.
pub const MEMBERS_MAX: usize = 32;

/// Topics, retry topics among them.
pub const TOPICS_MAX: usize = 1 << 18;

/// Topics times brokers that have them; about 60 bytes each.
pub const QUEUE_ENTRIES_MAX: usize = 1 << 23;

/// Names of clusters, brokers and topics, and addresses. RocketMQ's own longest are retry topics with 255.
pub const NAME_BYTES_MAX: usize = 255;

/// The id of a master.
const MASTER_ID: i64 = 0;

#[derive(Debug, Default)]
pub(super) struct Routes {
    brokers: BTreeMap<Rc<str>, BrokerGroup>,
    /// No topic is without an entry.
    topics: BTreeMap<Box<str>, QueueEntries>,
    /// Entries of all topics together.
    queue_entries: usize,
    #[cfg(test)]
    is_unfenced: bool,
}

/// By broker name, which shares its text with `brokers`.
type QueueEntries = BTreeMap<Rc<str>, QueueEntry>;

/// What one broker has of a topic.
#[derive(Debug)]
struct QueueEntry {
    read_queues: i32,
    write_queues: i32,
    perm: i32,
    sys_flag: i32,
    /// Static topics only.
    mapping: Option<Box<TopicQueueMappingInfo>>,
}

/// The brokers of one name. Never without a member.
#[derive(Debug)]
struct BrokerGroup {
    cluster: String,
    enable_acting_master: bool,
    zone_name: Option<String>,
    members: BTreeMap<i64, Member>,
    /// The highest `stateVersion` that any of them came with, though it may have gone since, and its address.
    latest_election: (i64, String),
}

/// One registered broker.
#[derive(Debug)]
struct Member {
    addr: String,
    ha_server_addr: String,
    data_version: DataVersion,
    /// Closing it removes the broker.
    connection: ConnectionId,
    last_seen_ms: i64,
    timeout_ms: i64,
}

impl Routes {
    /// What is known of a broker's configuration; a sign of life of that broker as well.
    pub(super) fn heard_of(
        &mut self,
        cluster: &str,
        broker_name: &str,
        addr: &str,
        now_ms: i64,
    ) -> Option<DataVersion> {
        let group = self.brokers.get_mut(broker_name).filter(|group| group.cluster == cluster)?;
        let member = group.members.values_mut().find(|member| member.addr == addr)?;
        member.last_seen_ms = now_ms;
        Some(member.data_version)
    }

    /// Each broker name with a master, and of which election that is.
    #[cfg(test)]
    pub(super) fn masters(&self) -> impl Iterator<Item = (&str, i64)> {
        let master = |group: &BrokerGroup| Some(group.members.get(&MASTER_ID)?.data_version.state_version);
        self.brokers.iter().filter_map(move |(name, group)| Some((&**name, master(group)?)))
    }

    /// Whether any broker of that name is known.
    #[cfg(test)]
    pub(super) fn knows(&self, broker_name: &str) -> bool {
        self.brokers.contains_key(broker_name)
    }

    #[cfg(test)]
    pub(super) fn forget_to_fence(&mut self) {
        self.is_unfenced = true;
    }

    /// The entries of one broker in all topics.
    fn queue_entries_of(&mut self, broker_name: &str) -> impl Iterator<Item = &mut QueueEntry> {
        self.topics.values_mut().filter_map(move |entries| entries.get_mut(broker_name))
    }

    fn remove_queue_entries_of(&mut self, broker_name: &str) {
        let mut removed = 0;
        self.topics.retain(|_, entries| {
            removed += usize::from(entries.remove(broker_name).is_some());
            !entries.is_empty()
        });
        self.queue_entries -= removed;
    }
}

impl BrokerGroup {
    fn has_master(&self) -> bool {
        self.members.contains_key(&MASTER_ID)
    }

    fn addrs(&self) -> BrokerAddrs {
        self.members.iter().map(|(id, member)| (*id, member.addr.clone())).collect()
    }

    fn to_broker_data(&self, broker_name: &str) -> BrokerData {
        BrokerData {
            broker_addrs: self.addrs(),
            broker_name: broker_name.to_owned(),
            cluster: self.cluster.clone(),
            enable_acting_master: self.enable_acting_master,
            zone_name: self.zone_name.clone(),
        }
    }

    /// The id under which an address is registered.
    fn id_of(&self, addr: &str) -> Option<i64> {
        self.members.iter().find(|(_, member)| member.addr == addr).map(|(id, _)| *id)
    }
}

impl QueueEntry {
    fn wipe_write(&mut self) {
        self.perm &= !perm::WRITE;
    }
}
