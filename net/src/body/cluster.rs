//! What tools learn about clusters and their brokers.

use std::collections::BTreeMap;

use super::fastjson::body;
use super::route::{BrokerAddrs, BrokerData};

body! {
    /// GET_BROKER_CLUSTER_INFO (106): every broker name and the clusters they form.
    ///
    /// Tools take `broker_addrs[0]` of each broker as its master.
    pub struct ClusterInfo {
        "brokerAddrTable" => broker_addr_table: BTreeMap<String, BrokerData>,
        "clusterAddrTable" => cluster_addr_table: BTreeMap<String, Vec<String>>,
    }
}

body! {
    /// Reply to GET_BROKER_MEMBER_GROUP (901).
    pub struct GetBrokerMemberGroupResponseBody {
        "brokerMemberGroup" => broker_member_group: Option<BrokerMemberGroup>,
    }
}

body! {
    /// The brokers of one name: master and slaves.
    #[derive(Eq)]
    pub struct BrokerMemberGroup {
        "brokerAddrs" => broker_addrs: BrokerAddrs,
        "brokerName" => broker_name: String,
        "cluster" => cluster: String,
    }
}
