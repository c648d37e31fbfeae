use std::borrow::Cow;

use crate::flags::MessageSysFlag;

headers! {
    /// SEND_MESSAGE (10), SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320), and the replies 324 and 325: a message for
    /// a queue.
    ///
    /// Code 10 spells names out (`SendMessageRequestHeader`), 310 and 320 use letters (`SendMessageRequestHeaderV2`).
    /// Either spelling is read, whatever the code; letters are written.
    SendMessageRequest<'a> {
        producer_group: &'a str = "a" | "producerGroup",
        topic: &'a str = "b" | "topic",
        /// Template from which the topic is created if it is unknown, normally `TBW102`.
        default_topic: &'a str = "c" | "defaultTopic",
        /// Queues wanted if the topic is created.
        default_topic_queues: i32 = "d" | "defaultTopicQueueNums",
        /// Negative: the broker chooses.
        queue_id: i32 = "e" | "queueId",
        sys_flag: MessageSysFlag = "f" | "sysFlag",
        /// By the producer's clock, in ms.
        born_timestamp: i64 = "g" | "bornTimestamp",
        /// The user's own, stored as it is.
        flag: i32 = "h" | "flag",
        /// A property string; see [`crate::message::Properties`].
        properties: &'a str = "i" | "properties" else "",
        /// How often the message was consumed without success; retry topics only.
        reconsume_times: i32 = "j" | "reconsumeTimes" else 0,
        unit_mode: bool = "k" | "unitMode" else false,
        /// Retry topics only.
        max_reconsume_times: Option<i32> = "l" | "maxReconsumeTimes",
        /// The body is a batch. Not the code tells so: the C++ client sends batches with 310.
        batch: bool = "m" | "batch" else false,
        /// Which broker the client believes to be talking to.
        broker_name: Option<&'a str> = "n" | "brokerName" | "bname",
    }

    /// CONSUMER_SEND_MSG_BACK (36): a consumer could not consume a message and wants it again later.
    ConsumerSendMsgBackRequest<'a> {
        /// Of the message in this broker's log.
        offset: i64 = "offset",
        group: &'a str = "group",
        /// 0: the broker decides; negative: no more retries.
        delay_level: i32 = "delayLevel",
        origin_message_id: Option<&'a str> = "originMsgId",
        origin_topic: Option<&'a str> = "originTopic",
        unit_mode: bool = "unitMode" else false,
        max_reconsume_times: Option<i32> = "maxReconsumeTimes",
    }

    /// RECALL_MESSAGE (370): a message that waits for its time shall not be delivered.
    RecallMessageRequest<'a> {
        producer_group: Option<&'a str> = "producerGroup",
        topic: &'a str = "topic",
        recall_handle: &'a str = "recallHandle",
    }

    /// Reply to RECALL_MESSAGE (370).
    RecallMessageReply<'a> {
        /// The message's unique key.
        msg_id: Cow<'a, str> = "msgId",
        region: Option<Cow<'a, str>> = "MSG_REGION",
    }

    /// Reply to a stored message (`SendMessageResponseHeader`), also with codes 10, 11 and 12.
    ///
    /// Clients read the required fields and the last two unchecked.
    SendMessageReply<'a> {
        /// Offset message id; of a batch, all of them separated by commas.
        msg_id: Cow<'a, str> = "msgId",
        queue_id: i32 = "queueId",
        /// Of a batch, the first message's.
        queue_offset: i64 = "queueOffset",
        /// The message's unique key.
        transaction_id: Option<Cow<'a, str>> = "transactionId",
        /// Tells the client that the batch was stored as one message.
        batch_uniq_id: Option<Cow<'a, str>> = "batchUniqId",
        recall_handle: Option<Cow<'a, str>> = "recallHandle",
        region: Option<Cow<'a, str>> = "MSG_REGION",
        trace_on: Option<bool> = "TRACE_ON",
    }
}
