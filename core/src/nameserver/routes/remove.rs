//! How brokers and topics go (`RouteInfoManager#unRegisterBroker`, `#scanNotActiveBroker`, `#deleteTopic`).

use std::rc::Rc;

use apogee_net::io::ConnectionId;

use super::{BrokerGroup, Member, Routes};

/// A broker that is no longer registered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) broker_name: Rc<str>,
    pub(crate) broker_id: i64,
    pub(crate) addr: String,
    pub(crate) connection: ConnectionId,
}

impl Routes {
    /// A broker signs off. Nothing happens if its address is not registered, for it may have been replaced.
    pub(crate) fn unregister(&mut self, cluster: &str, broker_name: &str, addr: &str) -> Option<Removed> {
        let in_cluster = |group: &BrokerGroup| group.cluster == cluster;
        let removed = self.remove_members(|name, group, member| {
            name == broker_name && in_cluster(group) && member.addr == addr
        });
        removed.into_iter().next()
    }

    pub(crate) fn remove_of_connection(&mut self, connection: ConnectionId) -> Vec<Removed> {
        self.remove_members(|_, _, member| member.connection == connection)
    }

    pub(crate) fn remove_expired(&mut self, now_ms: i64) -> Vec<Removed> {
        self.remove_members(|_, _, member| member.last_seen_ms.saturating_add(member.timeout_ms) < now_ms)
    }

    /// Removes a topic everywhere, or from the brokers of one cluster.
    pub(crate) fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let Some(entries) = self.topics.get_mut(topic) else { return };
        let before = entries.len();
        entries.retain(|broker_name, _| {
            cluster.is_some_and(|cluster| self.brokers[broker_name].cluster != cluster)
        });
        self.queue_entries -= before - entries.len();
        if entries.is_empty() {
            self.topics.remove(topic);
        }
    }

    fn remove_members(&mut self, is_gone: impl Fn(&str, &BrokerGroup, &Member) -> bool) -> Vec<Removed> {
        let mut gone = Vec::new();
        for (broker_name, group) in &self.brokers {
            for (broker_id, member) in &group.members {
                if is_gone(broker_name, group, member) {
                    gone.push(Removed {
                        broker_name: broker_name.clone(),
                        broker_id: *broker_id,
                        addr: member.addr.clone(),
                        connection: member.connection,
                    });
                }
            }
        }
        for Removed { broker_name, broker_id, .. } in &gone {
            self.remove_member(broker_name, *broker_id);
        }
        gone
    }

    /// Removes a member that is there, and what only stood for it.
    pub(super) fn remove_member(&mut self, broker_name: &str, broker_id: i64) {
        let group = self.brokers.get_mut(broker_name).expect("the member's group is there");
        group.members.remove(&broker_id);
        if group.members.is_empty() {
            self.brokers.remove(broker_name);
            self.remove_queue_entries_of(broker_name);
        } else if group.enable_acting_master && !group.has_master() {
            // What remains can be read from, but takes no messages (`RouteInfoManager#cleanTopicByUnRegisterRequests`).
            self.queue_entries_of(broker_name).for_each(super::QueueEntry::wipe_write);
        }
    }
}
