//! How far queues and their consumers are.

use std::collections::BTreeMap;

use super::fastjson::body;
use super::message_queue::MessageQueue;

body! {
    /// Reply to GET_TOPIC_STATS_INFO (202).
    pub struct TopicStatsTable {
        "offsetTable" => offset_table: BTreeMap<MessageQueue, TopicOffset>,
        "topicPutTps" => topic_put_tps: f64,
    }
}

body! {
    #[derive(Eq)]
    pub struct TopicOffset {
        /// Store time of the last message, 0 if there is none.
        "lastUpdateTimestamp" => last_update_timestamp: i64,
        "maxOffset" => max_offset: i64,
        "minOffset" => min_offset: i64,
    }
}

body! {
    /// Reply to GET_CONSUME_STATS (208).
    pub struct ConsumeStats {
        "consumeTps" => consume_tps: f64,
        "offsetTable" => offset_table: BTreeMap<MessageQueue, OffsetWrapper>,
    }
}

body! {
    #[derive(Eq)]
    pub struct OffsetWrapper {
        "brokerOffset" => broker_offset: i64,
        "consumerOffset" => consumer_offset: i64,
        /// Store time of the last message consumed.
        "lastTimestamp" => last_timestamp: i64,
        "pullOffset" => pull_offset: i64,
    }
}

body! {
    /// Reply to GET_BROKER_CONSUME_STATS (317): for each group, one `ConsumeStats` per topic.
    pub struct ConsumeStatsList {
        "brokerAddr" => broker_addr: Option<String>,
        "consumeStatsList" => consume_stats_list: Vec<BTreeMap<String, Vec<ConsumeStats>>>,
        "totalDiff" => total_diff: i64,
        "totalInflightDiff" => total_inflight_diff: i64,
    }
}
