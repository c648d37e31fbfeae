use std::borrow::Cow;

use crate::flags::MessageSysFlag;

headers! {
    /// PUSH_REPLY_MESSAGE_TO_CLIENT (326), broker to requester: the reply to its request, body and all. Answered with a
    /// code only.
    PushReplyRequest<'a> {
        producer_group: Cow<'a, str> = "producerGroup",
        topic: Cow<'a, str> = "topic",
        default_topic: Cow<'a, str> = "defaultTopic",
        default_topic_queues: i32 = "defaultTopicQueueNums",
        queue_id: i32 = "queueId",
        sys_flag: MessageSysFlag = "sysFlag",
        born_timestamp: i64 = "bornTimestamp",
        flag: i32 = "flag",
        properties: Option<Cow<'a, str>> = "properties",
        reconsume_times: Option<i32> = "reconsumeTimes",
        unit_mode: bool = "unitMode" else false,
        /// `ip:port` of the replier.
        born_host: Cow<'a, str> = "bornHost",
        /// `ip:port` of the broker.
        store_host: Cow<'a, str> = "storeHost",
        store_timestamp: i64 = "storeTimestamp",
    }
}
