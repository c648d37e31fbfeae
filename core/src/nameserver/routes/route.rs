//! The route of a topic as clients get it (`RouteInfoManager#pickupTopicRouteData`).

use std::collections::BTreeMap;
use std::rc::Rc;

use apogee_net::body::{BrokerData, QueueData, TopicRouteData, perm};

use super::{BrokerGroup, MASTER_ID, QueueEntry, Routes};

/// Topics by which the brokers of one name find each other: their routes show the true ids
/// (`TopicValidator.SYNC_BROKER_MEMBER_GROUP_PREFIX`).
const MEMBER_TOPIC_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";

/// What of a route a client is to see.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RouteFilter<'a> {
    /// The smallest id of a broker without a master stands in for it.
    pub(crate) acting_master: bool,
    /// Only brokers of this zone, and those that have lost their master.
    pub(crate) zone: Option<&'a str>,
}

impl Routes {
    /// `None` if no broker has the topic. With a zone, the route may be empty.
    pub(crate) fn route(&self, topic: &str, filter: RouteFilter<'_>) -> Option<TopicRouteData> {
        let entries = self.topics.get(topic)?;
        let acting_master = filter.acting_master && !topic.starts_with(MEMBER_TOPIC_PREFIX);
        let mut route = TopicRouteData::default();
        let mut mappings = BTreeMap::new();
        for (broker_name, entry) in entries {
            let group = &self.brokers[broker_name];
            if !filter.zone.is_none_or(|zone| group.is_near(zone)) {
                continue;
            }
            let mut broker = group.to_broker_data(broker_name);
            if acting_master {
                appoint_acting_master(&mut broker, entry);
            }
            route.broker_datas.push(broker);
            route.queue_datas.push(entry.to_queue_data(broker_name));
            if let Some(mapping) = &entry.mapping {
                mappings.insert(mapping.bname.clone(), (**mapping).clone());
            }
        }
        if !mappings.is_empty() {
            route.topic_queue_mapping_by_broker = Some(mappings);
        }
        Some(route)
    }

    /// The brokers of one name.
    pub(crate) fn broker(&self, broker_name: &str) -> Option<BrokerData> {
        self.brokers.get(broker_name).map(|group| group.to_broker_data(broker_name))
    }
}

fn appoint_acting_master(broker: &mut BrokerData, entry: &QueueEntry) {
    let needs_one = broker.enable_acting_master && !broker.broker_addrs.contains_key(&MASTER_ID);
    if needs_one && entry.perm & perm::WRITE == 0 {
        let (_, addr) = broker.broker_addrs.pop_first().expect("a broker has at least one address");
        broker.broker_addrs.insert(MASTER_ID, addr);
    }
}

impl BrokerGroup {
    /// `ZoneRouteRPCHook#filterByZoneName`: without a master, nearness no longer counts.
    fn is_near(&self, zone: &str) -> bool {
        !self.has_master() || self.zone_name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(zone))
    }
}

impl QueueEntry {
    fn to_queue_data(&self, broker_name: &Rc<str>) -> QueueData {
        QueueData {
            broker_name: broker_name.to_string(),
            perm: self.perm,
            read_queue_nums: self.read_queues,
            topic_sys_flag: self.sys_flag,
            write_queue_nums: self.write_queues,
        }
    }
}
