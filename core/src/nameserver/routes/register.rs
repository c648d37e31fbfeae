//! What a registration changes (`RouteInfoManager#registerBroker`).

use std::collections::BTreeMap;
use std::rc::Rc;

use apogee_net::body::{TopicConfig, TopicConfigAndMappingSerializeWrapper};
use apogee_net::io::ConnectionId;

use super::{
    BROKERS_MAX, BrokerGroup, MASTER_ID, MEMBERS_MAX, Member, NAME_BYTES_MAX, QUEUE_ENTRIES_MAX, QueueEntry,
    Routes, TOPICS_MAX,
};

/// A broker says that it is there and what it has.
pub(crate) struct Registration<'a> {
    pub(crate) connection: ConnectionId,
    pub(crate) cluster: &'a str,
    pub(crate) broker_name: &'a str,
    pub(crate) broker_id: i64,
    pub(crate) addr: &'a str,
    pub(crate) ha_server_addr: &'a str,
    /// The broker is gone after this long without a sign of life.
    pub(crate) timeout_ms: i64,
    /// Absent from brokers before 5.0.
    pub(crate) enable_acting_master: Option<bool>,
    pub(crate) zone_name: Option<&'a str>,
    /// All topics of the broker, or for a known broker those that changed.
    pub(crate) topics: TopicConfigAndMappingSerializeWrapper,
}

/// A registration that was not refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    Accepted {
        /// For a slave: where its master is.
        master: Option<MasterAddrs>,
        /// This id was not registered before.
        is_new: bool,
        left_out: Option<TopicsLeftOut>,
    },
    /// Ignored: there has been a later election.
    Fenced,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MasterAddrs {
    pub(crate) addr: String,
    pub(crate) ha_server_addr: String,
}

/// Why a registration was refused. Nothing has changed then.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegisterError {
    /// An incremental registration of a broker that must first register whole.
    #[error("register broker failed")]
    UnknownBrokerWithOneTopic,
    #[error("{field} has {found} bytes, expected at least one and at most {NAME_BYTES_MAX}")]
    NameLength { field: &'static str, found: usize },
    /// The Go client cuts a route's text at blanks, commas and colons.
    #[error("brokerAddr is {0:?}, expected host:port")]
    Addr(String),
    #[error("broker name {broker_name} belongs to cluster {cluster}")]
    OtherCluster { broker_name: String, cluster: String },
    #[error("there are {BROKERS_MAX} broker names already")]
    TooManyBrokers,
    #[error("broker name {broker_name} has {MEMBERS_MAX} brokers already")]
    TooManyMembers { broker_name: String },
}

/// Topics of a registration that no table has room for. Everything else of it was taken: a topic too many must not
/// cost the broker its place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{count} topics were left out, {first:.100?} among them: there are {TOPICS_MAX} topics or \
     {QUEUE_ENTRIES_MAX} entries of topics already, or a name is not 1 to {NAME_BYTES_MAX} bytes long"
)]
pub(crate) struct TopicsLeftOut {
    pub(crate) count: usize,
    pub(crate) first: String,
}

impl Routes {
    /// Takes a registration in, or refuses it.
    pub(crate) fn register(
        &mut self,
        registration: Registration<'_>,
        now_ms: i64,
    ) -> Result<Registered, RegisterError> {
        registration.check_names()?;
        if self.is_fenced(&registration) {
            // The place it had is out of date as well.
            let group = &self.brokers[registration.broker_name];
            if let Some(broker_id) = group.id_of(registration.addr) {
                self.remove_member(registration.broker_name, broker_id);
            }
            return Ok(Registered::Fenced);
        }
        self.check_place(&registration)?;

        let place = self.take_place(&registration, now_ms);
        let left_out = if place.takes_topics { self.take_topics(&place, &registration.topics) } else { None };
        Ok(Registered::Accepted { master: self.master_for(&registration), is_new: place.is_new, left_out })
    }

    /// True if the sender was master before an election that it has not heard of: the id is held by another address with
    /// a higher `stateVersion`, or nobody is master and a later election has been heard of.
    ///
    /// The second is our own: a group's slaves register with their term as well, so a master that was cut off from its
    /// group cannot come back by the death of its successor. Who is master already is left alone, for its successor
    /// will replace it and until then it forwards.
    fn is_fenced(&self, registration: &Registration<'_>) -> bool {
        #[cfg(test)]
        if self.is_unfenced {
            return false;
        }
        let Some(group) = self.brokers.get(registration.broker_name) else { return false };
        let is_later = |state_version: i64, addr: &str| {
            addr != registration.addr && state_version > registration.topics.data_version.state_version
        };
        match group.members.get(&registration.broker_id) {
            Some(holder) => is_later(holder.data_version.state_version, &holder.addr),
            None => {
                let (election, addr) = &group.latest_election;
                registration.broker_id == MASTER_ID && is_later(*election, addr)
            }
        }
    }

    /// Refuses what must not or cannot be given a place.
    fn check_place(&self, registration: &Registration<'_>) -> Result<(), RegisterError> {
        let group = self.brokers.get(registration.broker_name);
        let is_new = group.is_none_or(|group| !group.members.contains_key(&registration.broker_id));
        if is_new && registration.topics.topic_config_table.len() == 1 {
            return Err(RegisterError::UnknownBrokerWithOneTopic);
        }
        let Some(group) = group else {
            if self.brokers.len() >= BROKERS_MAX {
                return Err(RegisterError::TooManyBrokers);
            }
            return Ok(());
        };
        // Two clusters that share NameServers must not share broker names: their addresses would replace each other.
        if group.cluster != registration.cluster {
            return Err(RegisterError::OtherCluster {
                broker_name: registration.broker_name.to_owned(),
                cluster: group.cluster.clone(),
            });
        }
        let only_moves = group.id_of(registration.addr).is_some();
        if is_new && !only_moves && group.members.len() >= MEMBERS_MAX {
            return Err(RegisterError::TooManyMembers { broker_name: registration.broker_name.to_owned() });
        }
        Ok(())
    }

    /// Puts the broker where it belongs. An address has one id only: after a change of role it leaves the old one.
    fn take_place(&mut self, registration: &Registration<'_>, now_ms: i64) -> Place {
        let broker_id = registration.broker_id;
        if !self.brokers.contains_key(registration.broker_name) {
            let group = BrokerGroup {
                cluster: registration.cluster.to_owned(),
                enable_acting_master: false,
                zone_name: None,
                members: BTreeMap::new(),
                latest_election: (0, String::new()),
            };
            self.brokers.insert(registration.broker_name.into(), group);
        }
        let (name, _) = self.brokers.get_key_value(registration.broker_name).expect("inserted above");
        let broker_name = name.clone();
        let group = self.brokers.get_mut(&broker_name).expect("inserted above");

        group.enable_acting_master = registration.enable_acting_master.unwrap_or(false);
        group.zone_name = registration.zone_name.map(str::to_owned);
        let before = group.id_of(registration.addr).and_then(|id| Some((id, group.members.remove(&id)?)));
        let data_version = registration.topics.data_version;
        if data_version.state_version >= group.latest_election.0 {
            group.latest_election = (data_version.state_version, registration.addr.to_owned());
        }
        let member = Member {
            addr: registration.addr.to_owned(),
            ha_server_addr: registration.ha_server_addr.to_owned(),
            data_version,
            connection: registration.connection,
            last_seen_ms: now_ms,
            timeout_ms: registration.timeout_ms,
        };
        let replaced = group.members.insert(broker_id, member);

        let is_new = replaced.is_none() && before.as_ref().is_none_or(|(id, _)| *id != broker_id);
        let is_prime_slave = broker_id != MASTER_ID
            && registration.enable_acting_master.is_some()
            && group.members.keys().next() == Some(&broker_id);
        Place {
            broker_name,
            is_new,
            // What it said under another id may have been passed over.
            is_changed: before
                .is_none_or(|(id, before)| id != broker_id || before.data_version != data_version),
            takes_topics: broker_id == MASTER_ID || is_prime_slave,
            read_only: is_prime_slave && group.enable_acting_master,
        }
    }

    /// Topics that the broker did not name are kept: later registrations may hold only what changed.
    fn take_topics(
        &mut self,
        place: &Place,
        topics: &TopicConfigAndMappingSerializeWrapper,
    ) -> Option<TopicsLeftOut> {
        let mut left_out: Option<TopicsLeftOut> = None;
        for topic in topics.topic_config_table.values() {
            let known = self
                .topics
                .get(topic.topic_name.as_str())
                .and_then(|entries| entries.get(&place.broker_name));
            if known.is_some() && !place.is_new && !place.is_changed {
                continue;
            }
            let mut entry = QueueEntry::from(topic);
            if place.read_only {
                entry.wipe_write();
            }
            if !self.put_queue_entry(&topic.topic_name, &place.broker_name, entry) {
                let first = || TopicsLeftOut { count: 0, first: topic.topic_name.clone() };
                left_out.get_or_insert_with(first).count += 1;
            }
        }
        if place.is_new || place.is_changed {
            for (topic, mapping) in &topics.topic_queue_mapping_info_map {
                let entries = self.topics.get_mut(topic.as_str());
                if let Some(entry) = entries.and_then(|entries| entries.get_mut(&place.broker_name)) {
                    entry.mapping = Some(Box::new(mapping.clone()));
                }
            }
        }
        left_out
    }

    /// False if a limit does not let it in.
    pub(super) fn put_queue_entry(&mut self, topic: &str, broker_name: &Rc<str>, entry: QueueEntry) -> bool {
        if let Some(entries) = self.topics.get_mut(topic) {
            if let Some(known) = entries.get_mut(broker_name) {
                let mapping = entry.mapping.or(known.mapping.take());
                *known = QueueEntry { mapping, ..entry };
                return true;
            }
            if self.queue_entries >= QUEUE_ENTRIES_MAX {
                return false;
            }
            entries.insert(broker_name.clone(), entry);
        } else {
            let is_legal = (1..=NAME_BYTES_MAX).contains(&topic.len());
            if !is_legal || self.topics.len() >= TOPICS_MAX || self.queue_entries >= QUEUE_ENTRIES_MAX {
                return false;
            }
            self.topics.insert(topic.into(), BTreeMap::from([(broker_name.clone(), entry)]));
        }
        self.queue_entries += 1;
        true
    }

    fn master_for(&self, registration: &Registration<'_>) -> Option<MasterAddrs> {
        if registration.broker_id == MASTER_ID {
            return None;
        }
        let master = self.brokers.get(registration.broker_name)?.members.get(&MASTER_ID)?;
        Some(MasterAddrs { addr: master.addr.clone(), ha_server_addr: master.ha_server_addr.clone() })
    }
}

/// Where a registration has put its broker, and what follows for its topics.
struct Place {
    broker_name: Rc<str>,
    is_new: bool,
    /// The broker's configuration is not the one it registered last.
    is_changed: bool,
    takes_topics: bool,
    /// An acting master takes no messages.
    read_only: bool,
}

impl Registration<'_> {
    fn check_names(&self) -> Result<(), RegisterError> {
        for (field, name, bytes_min) in [
            ("clusterName", self.cluster, 1),
            ("brokerName", self.broker_name, 1),
            ("brokerAddr", self.addr, 1),
            ("haServerAddr", self.ha_server_addr, 0),
            ("__ZONE_NAME", self.zone_name.unwrap_or_default(), 0),
        ] {
            if !(bytes_min..=NAME_BYTES_MAX).contains(&name.len()) {
                return Err(RegisterError::NameLength { field, found: name.len() });
            }
        }
        if !is_host_and_port(self.addr) {
            return Err(RegisterError::Addr(self.addr.to_owned()));
        }
        Ok(())
    }
}

fn is_host_and_port(addr: &str) -> bool {
    let Some((host, port)) = addr.rsplit_once(':') else { return false };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]%".contains(&byte);
    !host.is_empty() && host.bytes().all(is_host) && port.parse::<u16>().is_ok()
}

impl From<&TopicConfig> for QueueEntry {
    fn from(topic: &TopicConfig) -> Self {
        Self {
            read_queues: topic.read_queue_nums,
            write_queues: topic.write_queue_nums,
            perm: topic.perm,
            sys_flag: topic.topic_sys_flag,
            mapping: None,
        }
    }
}
