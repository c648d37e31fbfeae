//! What tools are shown of a queue.

use super::fastjson::body;
use super::heartbeat::SubscriptionData;

body! {
    /// Reply to QUERY_CONSUME_QUEUE (321).
    pub struct QueryConsumeQueueResponseBody {
        /// JSON in a text, of a filter that is no list of tags.
        "filterData" => filter_data: Option<String>,
        "maxQueueIndex" => max_queue_index: i64,
        "minQueueIndex" => min_queue_index: i64,
        "queueData" => queue_data: Vec<ConsumeQueueData>,
        "subscriptionData" => subscription_data: Option<SubscriptionData>,
    }
}

body! {
    #[derive(Eq)]
    pub struct ConsumeQueueData {
        "bitMap" => bit_map: Option<String>,
        "eval" => eval: bool,
        "extendDataJson" => extend_data_json: Option<String>,
        "msg" => msg: Option<String>,
        "physicOffset" => physic_offset: i64,
        "physicSize" => physic_size: i32,
        "tagsCode" => tags_code: i64,
    }
}
