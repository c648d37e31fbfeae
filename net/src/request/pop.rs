use std::borrow::Cow;

headers! {
    /// POP_MESSAGE (200050): messages of one queue or of all, each hidden from the group for a while.
    PopMessageRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        /// Negative: all queues of this broker.
        queue_id: i32 = "queueId",
        messages_max: i32 = "maxMsgNums",
        invisible_ms: i64 = "invisibleTime",
        /// Longest hold, counted from `born_ms`.
        poll_ms: i64 = "pollTime",
        /// By the client's clock; 0 or absent: by the broker's.
        born_ms: i64 = "bornTime" else 0,
        /// Where a group without offset begins: 0 at the first message, 1 at the last.
        init_mode: i32 = "initMode",
        /// `TAG` when absent, or `SQL92`.
        expression_type: Option<&'a str> = "expType",
        /// Empty or absent: all messages.
        expression: Option<&'a str> = "exp",
        order: bool = "order" else false,
        /// Of an ordered pop: who asks again under the same id is given the same messages again.
        attempt_id: Option<&'a str> = "attemptId",
    }

    /// Reply to POP_MESSAGE with any code but an error's. Clients make the receipt handles of the messages from it.
    PopMessageReply<'a> {
        pop_ms: i64 = "popTime",
        invisible_ms: i64 = "invisibleTime",
        revive_queue_id: i32 = "reviveQid",
        /// Messages that the group has not been given yet.
        rest: i64 = "restNum",
        start_offset_info: Option<Cow<'a, str>> = "startOffsetInfo",
        message_offset_info: Option<Cow<'a, str>> = "msgOffsetInfo",
        order_count_info: Option<Cow<'a, str>> = "orderCountInfo",
    }

    /// ACK_MESSAGE (200051): a popped message is consumed.
    AckMessageRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        /// Of a redelivered message, the pop retry topic.
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// A [`ReceiptHandle`](crate::message::ReceiptHandle).
        extra_info: &'a str = "extraInfo",
        offset: i64 = "offset",
    }

    /// CHANGE_MESSAGE_INVISIBLETIME (200053): a popped message is to come again after another time.
    ChangeInvisibleTimeRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        /// Of a redelivered message, the pop retry topic.
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// A [`ReceiptHandle`](crate::message::ReceiptHandle).
        extra_info: &'a str = "extraInfo",
        offset: i64 = "offset",
        /// From now.
        invisible_ms: i64 = "invisibleTime",
    }

    /// Reply to CHANGE_MESSAGE_INVISIBLETIME. Clients make the message's new receipt handle from it.
    ChangeInvisibleTimeReply {
        pop_ms: i64 = "popTime",
        invisible_ms: i64 = "invisibleTime",
        revive_queue_id: i32 = "reviveQid",
    }

    /// PEEK_MESSAGE (200052): what a pop would give, without any change. Answered with [`PopMessageReply`], of which
    /// only `rest` tells anything.
    PeekMessageRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        /// Negative: all queues of this broker.
        queue_id: i32 = "queueId",
        messages_max: i32 = "maxMsgNums",
    }

    /// NOTIFICATION (200054): whether a pop would give anything; held until it would.
    NotificationRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        /// Negative: all queues of this broker.
        queue_id: i32 = "queueId",
        /// Longest hold, counted from `born_ms`.
        poll_ms: i64 = "pollTime",
        /// By the client's clock; 0 or absent: by the broker's.
        born_ms: i64 = "bornTime" else 0,
        order: bool = "order" else false,
        attempt_id: Option<&'a str> = "attemptId",
    }

    NotificationReply {
        has_message: bool = "hasMsg",
        /// Too many wait already: ask again later.
        polling_full: bool = "pollingFull" else false,
    }

    /// POLLING_INFO (200055): how many pops of the group wait on the queue.
    PollingInfoRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
    }

    PollingInfoReply {
        polling: i32 = "pollingNum",
    }
}
