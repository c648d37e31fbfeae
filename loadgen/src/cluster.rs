//! What a NameServer's answers mean for a run: which brokers take part, and whether their queues are there yet.

use apogee_net::body::{ClusterInfo, TopicRouteData};
use apogee_net::flags::Perm;

/// RocketMQ's id of a master among the brokers of one name.
const MASTER_ID: i64 = 0;

/// A broker that takes part in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerTarget {
    pub name: String,
    /// `host:port` of its master, as registered.
    pub address: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    #[error("no broker is registered there; start one and let it register first")]
    NoBroker,
    #[error("broker '{name}' is not registered; registered are: {}", .known.join(", "))]
    UnknownBroker { name: String, known: Vec<String> },
    #[error("broker '{name}' has no master at the moment")]
    NoMaster { name: String },
}

/// The brokers a run sends to, by name: those `wanted`, or all that have a master.
pub fn select_brokers(
    cluster: &ClusterInfo,
    wanted: Option<&[String]>,
) -> Result<Vec<BrokerTarget>, ClusterError> {
    let registered = &cluster.broker_addr_table;
    if registered.is_empty() {
        return Err(ClusterError::NoBroker);
    }
    let master = |name: &String| {
        let address = registered.get(name)?.broker_addrs.get(&MASTER_ID)?.clone();
        Some(BrokerTarget { name: name.clone(), address })
    };
    let Some(wanted) = wanted else {
        let brokers: Vec<_> = registered.keys().filter_map(master).collect();
        let nobody = || registered.keys().next().map(|name| ClusterError::NoMaster { name: name.clone() });
        return if brokers.is_empty() { Err(nobody().expect("not empty")) } else { Ok(brokers) };
    };
    let mut names: Vec<_> = wanted.to_vec();
    names.sort_unstable();
    names.dedup();
    names
        .iter()
        .map(|name| {
            if !registered.contains_key(name) {
                let known = registered.keys().cloned().collect();
                return Err(ClusterError::UnknownBroker { name: name.clone(), known });
            }
            master(name).ok_or_else(|| ClusterError::NoMaster { name: name.clone() })
        })
        .collect()
}

/// Where the route says that the master of `broker` is; `None` while it has none.
pub fn master_address<'a>(route: &'a TopicRouteData, broker: &str) -> Option<&'a str> {
    let data = route.broker_datas.iter().find(|data| data.broker_name == broker)?;
    data.broker_addrs.get(&MASTER_ID).map(String::as_str)
}

/// Brokers whose part of the topic's route is not usable yet: too few queues, or not readable and writable.
pub fn not_yet_routed<'a>(
    route: &TopicRouteData,
    brokers: &'a [BrokerTarget],
    queues_per_broker: u32,
) -> Vec<&'a str> {
    let is_routed = |broker: &BrokerTarget| {
        route.queue_datas.iter().any(|queues| {
            let fewest = queues.read_queue_nums.min(queues.write_queue_nums);
            queues.broker_name == broker.name
                && Perm(queues.perm).contains(Perm::READ_WRITE)
                && u32::try_from(fewest).is_ok_and(|fewest| fewest >= queues_per_broker)
        })
    };
    brokers.iter().filter(|broker| !is_routed(broker)).map(|broker| broker.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use apogee_net::body::{BrokerData, QueueData};

    use super::*;

    fn cluster(brokers: &[(&str, i64, &str)]) -> ClusterInfo {
        let mut cluster = ClusterInfo::default();
        for (name, id, address) in brokers {
            let data =
                cluster.broker_addr_table.entry((*name).to_owned()).or_insert_with(BrokerData::default);
            data.broker_addrs.insert(*id, (*address).to_owned());
        }
        cluster
    }

    fn names(brokers: &[BrokerTarget]) -> Vec<&str> {
        brokers.iter().map(|broker| broker.name.as_str()).collect()
    }

    #[test]
    fn all_masters_take_part_unless_some_are_named() {
        let cluster = cluster(&[("b", 0, "h:2"), ("a", 0, "h:1"), ("a", 1, "h:3"), ("slave-only", 1, "h:4")]);
        let all = select_brokers(&cluster, None).unwrap();
        assert_eq!(names(&all), ["a", "b"]);
        assert_eq!(all[0].address, "h:1");
        let some = select_brokers(&cluster, Some(&["b".into(), "b".into()])).unwrap();
        assert_eq!(names(&some), ["b"]);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let cluster = cluster(&[("a", 1, "h:1")]);
        let no_master = ClusterError::NoMaster { name: "a".into() };
        assert_eq!(select_brokers(&ClusterInfo::default(), None), Err(ClusterError::NoBroker));
        assert_eq!(select_brokers(&cluster, None), Err(no_master.clone()));
        assert_eq!(select_brokers(&cluster, Some(&["a".into()])), Err(no_master));
        let unknown = select_brokers(&cluster, Some(&["c".into()])).unwrap_err();
        assert_eq!(unknown.to_string(), "broker 'c' is not registered; registered are: a");
    }

    #[test]
    fn a_route_tells_where_masters_are() {
        let datas = cluster(&[("a", 0, "h:1"), ("b", 1, "h:2")]).broker_addr_table.into_iter();
        let datas = datas.map(|(broker_name, data)| BrokerData { broker_name, ..data });
        let route = TopicRouteData { broker_datas: datas.collect(), ..TopicRouteData::default() };
        assert_eq!(master_address(&route, "a"), Some("h:1"));
        assert_eq!((master_address(&route, "b"), master_address(&route, "c")), (None, None));
    }

    #[test]
    fn a_broker_is_routed_once_it_has_enough_usable_queues() {
        let brokers = select_brokers(&cluster(&[("a", 0, "h:1"), ("b", 0, "h:2")]), None).unwrap();
        let queues = |name: &str, read, write, perm| QueueData {
            broker_name: name.into(),
            read_queue_nums: read,
            write_queue_nums: write,
            perm,
            ..QueueData::default()
        };
        let missing = |datas: Vec<QueueData>| {
            let route = TopicRouteData { queue_datas: datas, ..TopicRouteData::default() };
            not_yet_routed(&route, &brokers, 4).join(" ")
        };
        assert_eq!(missing(vec![]), "a b");
        assert_eq!(missing(vec![queues("a", 4, 4, 6), queues("b", 4, 3, 6)]), "b");
        assert_eq!(missing(vec![queues("a", 4, 4, 2), queues("b", 4, 4, 4)]), "a b");
        assert_eq!(missing(vec![queues("a", 8, 8, 6), queues("b", 4, 4, 7)]), "");
    }
}
