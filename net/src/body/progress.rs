//! What tools ask and change about the progress of consumer groups.

use std::collections::BTreeMap;

use super::data_version::DataVersion;
use super::fastjson::body;
use super::heartbeat::SubscriptionData;
use super::message_queue::MessageQueue;

body! {
    /// Reply to INVOKE_BROKER_TO_RESET_OFFSET (222), and body of RESET_CONSUMER_CLIENT_OFFSET (220) for all clients but
    /// those that a C++ tool asks for.
    #[derive(Eq)]
    pub struct ResetOffsetBody {
        "offsetTable" => offset_table: BTreeMap<MessageQueue, i64>,
    }
}

body! {
    /// RESET_CONSUMER_CLIENT_OFFSET (220) as C++ reads it (`ResetOffsetBodyForC`).
    #[derive(Eq)]
    pub struct ResetOffsetBodyForC {
        "offsetTable" => offset_table: Vec<MessageQueueForC>,
    }
}

body! {
    /// A queue and its offset in one object (`MessageQueueForC`).
    #[derive(Eq)]
    pub struct MessageQueueForC {
        "brokerName" => broker_name: String,
        "offset" => offset: i64,
        "queueId" => queue_id: i32,
        "topic" => topic: String,
    }
}

body! {
    /// Reply to GET_CONSUMER_STATUS_FROM_CLIENT (221), which fills `message_queue_table`, and to
    /// INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223), which fills `consumer_table`: by client, then by queue.
    #[derive(Eq)]
    pub struct GetConsumerStatusBody {
        "consumerTable" => consumer_table: BTreeMap<String, BTreeMap<MessageQueue, i64>>,
        "messageQueueTable" => message_queue_table: BTreeMap<MessageQueue, i64>,
    }
}

body! {
    /// Reply to QUERY_CONSUME_TIME_SPAN (303).
    #[derive(Eq)]
    pub struct QueryConsumeTimeSpanBody {
        "consumeTimeSpanSet" => consume_time_span_set: Vec<QueueTimeSpan>,
    }
}

body! {
    /// Store times of a queue's messages in ms, and as `yyyy-MM-dd#HH:mm:ss:SSS`.
    #[derive(Eq)]
    pub struct QueueTimeSpan {
        /// Of the last message consumed.
        "consumeTimeStamp" => consume_time_stamp: i64,
        "consumeTimeStampStr" => consume_time_stamp_str: String,
        /// How long the next message to consume has been there.
        "delayTime" => delay_time: i64,
        "maxTimeStamp" => max_time_stamp: i64,
        "maxTimeStampStr" => max_time_stamp_str: String,
        "messageQueue" => message_queue: MessageQueue,
        "minTimeStamp" => min_time_stamp: i64,
        "minTimeStampStr" => min_time_stamp_str: String,
    }
}

body! {
    /// Reply to QUERY_SUBSCRIPTION_BY_CONSUMER (345).
    #[derive(Eq)]
    pub struct QuerySubscriptionResponseBody {
        "group" => group: String,
        "subscriptionData" => subscription_data: Option<SubscriptionData>,
        "topic" => topic: Option<String>,
    }
}

body! {
    /// Reply to GET_ALL_CONSUMER_OFFSET (43): by `topic@group`, then by queue id.
    #[derive(Eq)]
    pub struct ConsumerOffsetSerializeWrapper {
        "dataVersion" => data_version: DataVersion,
        "offsetTable" => offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
    }
}

body! {
    /// Reply to GET_ALL_DELAY_OFFSET (45): by delay level.
    #[derive(Eq)]
    pub struct DelayOffsetSerializeWrapper {
        "dataVersion" => data_version: DataVersion,
        "offsetTable" => offset_table: BTreeMap<i32, i64>,
    }
}

body! {
    /// Reply to QUERY_CORRECTION_OFFSET (308): by queue id.
    #[derive(Eq)]
    pub struct QueryCorrectionOffsetBody {
        "correctionOffsets" => correction_offsets: BTreeMap<i32, i64>,
    }
}
