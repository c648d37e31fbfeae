headers! {
    /// QUERY_MESSAGE (12): messages by key, of a time range.
    QueryMessageRequest<'a> {
        topic: &'a str = "topic",
        key: &'a str = "key",
        messages_max: i32 = "maxNum",
        /// Store times, both included.
        begin_timestamp: i64 = "beginTimestamp",
        end_timestamp: i64 = "endTimestamp",
        /// The key is a message's own: the broker chooses how many to answer.
        is_unique_key: bool = "_UNIQUE_KEY_QUERY" else false,
    }

    QueryMessageReply {
        /// Up to when and where messages can be found by key.
        index_last_update_timestamp: i64 = "indexLastUpdateTimestamp",
        index_last_update_offset: i64 = "indexLastUpdatePhyoffset",
    }

    /// QUERY_CONSUME_QUEUE (321): entries of a queue.
    QueryConsumeQueueRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        index: i64 = "index",
        count: i32 = "count",
        /// Whose subscription is to be shown.
        consumer_group: Option<&'a str> = "consumerGroup",
    }
}
