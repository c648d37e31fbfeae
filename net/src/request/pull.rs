use crate::flags::PullSysFlag;

headers! {
    /// PULL_MESSAGE (11) and LITE_PULL_MESSAGE (361): messages of one queue from an offset.
    PullMessageRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// The first message wanted.
        queue_offset: i64 = "queueOffset",
        messages_max: i32 = "maxMsgNums",
        sys_flag: PullSysFlag = "sysFlag",
        /// The consumer's progress in this queue; counts if [`PullSysFlag::COMMIT_OFFSET`] is set.
        commit_offset: i64 = "commitOffset",
        /// Longest hold; counts if [`PullSysFlag::SUSPEND`] is set.
        suspend_timeout_ms: i64 = "suspendTimeoutMillis",
        /// Filter expression; there if [`PullSysFlag::SUBSCRIPTION`] is set.
        subscription: Option<&'a str> = "subscription",
        /// Version of the subscription, in ms.
        sub_version: i64 = "subVersion",
        /// `TAG` when absent, or `SQL92`.
        expression_type: Option<&'a str> = "expressionType",
        message_bytes_max: Option<i32> = "maxMsgBytes",
    }

    /// Reply with codes 0, 19, 20 and 21. The client unboxes the first four unchecked, the first in the pull callback.
    PullMessageReply {
        suggest_which_broker_id: i64 = "suggestWhichBrokerId",
        next_begin_offset: i64 = "nextBeginOffset",
        min_offset: i64 = "minOffset",
        /// One past the last message.
        max_offset: i64 = "maxOffset",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        group_sys_flag: Option<i32> = "groupSysFlag",
        forbidden_type: Option<i32> = "forbiddenType",
    }

    /// Reply to a pull that is forbidden (code 16), and says by what.
    PullForbiddenReply {
        forbidden_type: i32 = "forbiddenType",
    }
}
