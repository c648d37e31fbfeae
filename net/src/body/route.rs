//! Where a topic's queues are.

use std::collections::BTreeMap;

use super::fastjson::body;

/// Addresses (`ip:port`) of the brokers of one name by broker id; 0 is the master.
pub type BrokerAddrs = BTreeMap<i64, String>;

body! {
    /// Reply to GET_ROUTEINFO_BY_TOPIC (105), in JSON proper for clients from 4.9.4 on; body of
    /// REGISTER_TOPIC_IN_NAMESRV (217).
    ///
    /// The Go client finds `brokerAddrs` in the text and splits it at `,` and `:`, so that part must stay compact.
    pub struct TopicRouteData {
        "brokerDatas" => broker_datas: Vec<BrokerData>,
        /// Filter servers are history; the member is always `{}`.
        "filterServerTable" => filter_server_table: BTreeMap<String, Vec<String>>,
        /// `broker-a:4;broker-b:4` for a topic in strict global order.
        "orderTopicConf" => order_topic_conf: Option<String>,
        "queueDatas" => queue_datas: Vec<QueueData>,
        /// Static topics only.
        "topicQueueMappingByBroker" => topic_queue_mapping_by_broker: Option<BTreeMap<String, TopicQueueMappingInfo>>,
    }
}

body! {
    /// The brokers of one name.
    #[derive(Eq)]
    pub struct BrokerData {
        "brokerAddrs" => broker_addrs: BrokerAddrs,
        "brokerName" => broker_name: String,
        "cluster" => cluster: String,
        "enableActingMaster" => enable_acting_master: bool,
        "zoneName" => zone_name: Option<String>,
    }
}

body! {
    /// How many queues of a topic one broker name has.
    #[derive(Eq)]
    pub struct QueueData {
        "brokerName" => broker_name: String,
        /// Bits of [`perm`](super::perm).
        "perm" => perm: i32,
        "readQueueNums" => read_queue_nums: i32,
        /// Up to 4.8 and in Go the member is misspelt.
        "topicSysFlag" | "topicSynFlag" => topic_sys_flag: i32,
        "writeQueueNums" => write_queue_nums: i32,
    }
}

body! {
    /// One broker's share of a static topic. A NameServer passes it on.
    #[derive(Eq)]
    pub struct TopicQueueMappingInfo {
        "bname" => bname: String,
        /// Logical to physical queue id.
        "currIdMap" => curr_id_map: BTreeMap<i32, i32>,
        "dirty" => dirty: bool,
        "epoch" => epoch: i64,
        "scope" => scope: Option<String>,
        "topic" => topic: String,
        "totalQueues" => total_queues: i32,
    }
}
