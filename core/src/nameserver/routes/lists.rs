//! What tools ask about everything at once, and what they change at once.

use std::collections::BTreeMap;
use std::rc::Rc;

use apogee_net::body::{ClusterInfo, QueueData, TopicList, perm};

use super::{QueueEntries, QueueEntry, Routes};

/// The topic is used by units of a deployment (`TopicSysFlag`).
const FLAG_UNIT: i32 = 1;
/// The topic is subscribed to by units of a deployment.
const FLAG_UNIT_SUB: i32 = 1 << 1;

/// Why a single topic was not registered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RegisterTopicError {
    #[error("broker name {0} is not registered")]
    UnknownBroker(String),
    #[error("topic {0:.100?} was not registered: its name is too long or there are too many topics")]
    TopicLeftOut(String),
}

impl Routes {
    pub(crate) fn cluster_info(&self) -> ClusterInfo {
        let mut info = ClusterInfo::default();
        for (broker_name, group) in &self.brokers {
            info.broker_addr_table.insert(broker_name.to_string(), group.to_broker_data(broker_name));
            info.cluster_addr_table.entry(group.cluster.clone()).or_default().push(broker_name.to_string());
        }
        info
    }

    pub(crate) fn all_topics(&self) -> TopicList {
        self.topics_where(|_| true)
    }

    pub(crate) fn topics_of_cluster(&self, cluster: &str) -> TopicList {
        self.topics_where(|entries| {
            entries.keys().any(|broker_name| self.brokers[broker_name].cluster == cluster)
        })
    }

    pub(crate) fn unit_topics(&self) -> TopicList {
        self.topics_where(|entries| has_flags(entries, FLAG_UNIT))
    }

    pub(crate) fn unit_sub_topics(&self) -> TopicList {
        self.topics_where(|entries| has_flags(entries, FLAG_UNIT_SUB))
    }

    pub(crate) fn unit_sub_topics_without_unit(&self) -> TopicList {
        self.topics_where(|entries| has_flags(entries, FLAG_UNIT_SUB) && !has_flags(entries, FLAG_UNIT))
    }

    /// Every cluster and broker name is a topic of the system's own, and some broker is asked for the others
    /// (`RouteInfoManager#getSystemTopicList`).
    pub(crate) fn system_topics(&self) -> TopicList {
        let ClusterInfo { cluster_addr_table, .. } = self.cluster_info();
        let mut topic_list = Vec::new();
        for (cluster, broker_names) in cluster_addr_table {
            topic_list.push(cluster);
            topic_list.extend(broker_names);
        }
        let some_member = self.brokers.values().flat_map(|group| group.members.values()).next();
        TopicList { broker_addr: some_member.map(|member| member.addr.clone()), topic_list }
    }

    /// Stops sends to a broker. Lasts until the broker registers another version of its configuration. Returns how
    /// many topics it has.
    pub(crate) fn wipe_write_perm(&mut self, broker_name: &str) -> usize {
        self.queue_entries_of(broker_name).map(QueueEntry::wipe_write).count()
    }

    /// Lets a broker take sends again. Returns how many topics it has.
    pub(crate) fn add_write_perm(&mut self, broker_name: &str) -> usize {
        self.queue_entries_of(broker_name).map(|entry| entry.perm = perm::READ | perm::WRITE).count()
    }

    /// Sets what the named brokers have of a topic; if one of them is unknown, nothing.
    pub(crate) fn register_topic(
        &mut self,
        topic: &str,
        queues: &[QueueData],
    ) -> Result<(), RegisterTopicError> {
        let mut names = BTreeMap::new();
        for queue in queues {
            let (name, _) = self
                .brokers
                .get_key_value(queue.broker_name.as_str())
                .ok_or_else(|| RegisterTopicError::UnknownBroker(queue.broker_name.clone()))?;
            names.insert(Rc::clone(name), QueueEntry::from(queue));
        }
        for (broker_name, entry) in names {
            if !self.put_queue_entry(topic, &broker_name, entry) {
                return Err(RegisterTopicError::TopicLeftOut(topic.to_owned()));
            }
        }
        Ok(())
    }

    fn topics_where(&self, wanted: impl Fn(&QueueEntries) -> bool) -> TopicList {
        let topics = self.topics.iter().filter(|(_, entries)| wanted(entries));
        TopicList { broker_addr: None, topic_list: topics.map(|(topic, _)| topic.to_string()).collect() }
    }
}

/// Judged by one broker's entry, as RocketMQ does: all brokers of a topic have the same flags.
fn has_flags(entries: &QueueEntries, flags: i32) -> bool {
    entries.values().next().is_some_and(|entry| entry.sys_flag & flags == flags)
}

impl From<&QueueData> for QueueEntry {
    fn from(queue: &QueueData) -> Self {
        Self {
            read_queues: queue.read_queue_nums,
            write_queues: queue.write_queue_nums,
            perm: queue.perm,
            sys_flag: queue.topic_sys_flag,
            mapping: None,
        }
    }
}
