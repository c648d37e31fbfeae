use std::borrow::Cow;

use crate::flags::Perm;

headers! {
    /// UPDATE_AND_CREATE_TOPIC (17).
    CreateTopicRequest<'a> {
        topic: &'a str = "topic",
        default_topic: &'a str = "defaultTopic",
        read_queues: i32 = "readQueueNums",
        write_queues: i32 = "writeQueueNums",
        perm: Perm = "perm",
        /// `SINGLE_TAG` or `MULTI_TAG`.
        filter_type: &'a str = "topicFilterType",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        order: bool = "order" else false,
        /// Changes of attributes: `+name=value,-name`.
        attributes: Option<&'a str> = "attributes",
        force: bool = "force" else false,
    }

    /// DELETE_TOPIC_IN_BROKER (215).
    DeleteTopicRequest<'a> {
        topic: &'a str = "topic",
    }

    /// GET_TOPIC_CONFIG (351).
    GetTopicConfigRequest<'a> {
        topic: &'a str = "topic",
    }

    /// GET_TOPIC_STATS_INFO (202): bounds of a topic's queues.
    GetTopicStatsInfoRequest<'a> {
        topic: &'a str = "topic",
    }

    /// GET_CONSUME_STATS (208): a group's progress, in all its topics or some.
    GetConsumeStatsRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: Option<&'a str> = "topic",
        topic_list: Option<&'a str> = "topicList",
    }

    /// GET_CONSUMER_CONNECTION_LIST (203).
    GetConsumerConnectionListRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
    }

    /// GET_PRODUCER_CONNECTION_LIST (204).
    GetProducerConnectionListRequest<'a> {
        producer_group: &'a str = "producerGroup",
    }

    /// DELETE_SUBSCRIPTIONGROUP (207).
    DeleteSubscriptionGroupRequest<'a> {
        group_name: &'a str = "groupName",
        clean_offset: bool = "cleanOffset" | "removeOffset" else false,
    }

    /// QUERY_TOPIC_CONSUME_BY_WHO (300): groups that consume a topic.
    QueryTopicConsumeByWhoRequest<'a> {
        topic: &'a str = "topic",
    }

    /// QUERY_TOPICS_BY_CONSUMER (343): topics that a group has consumed.
    QueryTopicsByConsumerRequest<'a> {
        group: &'a str = "group",
    }

    /// QUERY_SUBSCRIPTION_BY_CONSUMER (345): what a live group wants of a topic.
    QuerySubscriptionByConsumerRequest<'a> {
        group: &'a str = "group",
        topic: Option<&'a str> = "topic",
    }

    /// QUERY_CONSUME_TIME_SPAN (303): store times of what a group has and has not consumed.
    QueryConsumeTimeSpanRequest<'a> {
        topic: &'a str = "topic",
        group: &'a str = "group",
    }

    /// QUERY_CORRECTION_OFFSET (308): the least offsets of all groups but some.
    QueryCorrectionOffsetRequest<'a> {
        filter_groups: Option<&'a str> = "filterGroups",
        compare_group: &'a str = "compareGroup",
        topic: &'a str = "topic",
    }

    /// GET_BROKER_CONSUME_STATS (317): the progress of every group.
    GetConsumeStatsInBrokerRequest {
        /// Only topics in strict order.
        is_order: bool = "isOrder",
    }

    /// GET_SUBSCRIPTIONGROUP_CONFIG (352).
    GetSubscriptionGroupConfigRequest<'a> {
        group: &'a str = "group",
    }

    /// GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201). Without any field, as up to 5.3.3: all groups.
    GetAllSubscriptionGroupRequest<'a> {
        /// The first one wanted, of the groups in order of their names.
        group_seq: Option<i32> = "groupSeq",
        /// The `DataVersion` of the pages before, as JSON: if it is another by now, begin again.
        data_version: Option<&'a str> = "dataVersion",
        max_group_num: Option<i32> = "maxGroupNum",
    }

    GetAllSubscriptionGroupReply {
        total_group_num: i32 = "totalGroupNum",
    }

    /// GET_ALL_TOPIC_CONFIG (21): all of them, or, if any field is there, a page of them.
    GetAllTopicConfigRequest<'a> {
        /// The first one wanted, in the broker's own order.
        topic_seq: Option<i32> = "topicSeq",
        /// The `DataVersion` of the pages before, as JSON: if it is another by now, begin again.
        data_version: Option<&'a str> = "dataVersion",
        max_topic_num: Option<i32> = "maxTopicNum",
    }

    GetAllTopicConfigReply {
        total_topic_num: i32 = "totalTopicNum",
    }

    /// UPDATE_AND_GET_GROUP_FORBIDDEN (353): forbids a group a topic, or allows it again, or asks.
    UpdateGroupForbiddenRequest<'a> {
        group: &'a str = "group",
        topic: &'a str = "topic",
        readable: Option<bool> = "readable",
    }

    /// INVOKE_BROKER_TO_RESET_OFFSET (222), and broker to client RESET_CONSUMER_CLIENT_OFFSET (220).
    ResetOffsetRequest<'a> {
        topic: &'a str = "topic",
        group: &'a str = "group",
        /// Negative: all queues.
        queue_id: i32 = "queueId" else -1,
        offset: Option<i64> = "offset",
        /// Negative: the end of the queue.
        timestamp: i64 = "timestamp",
        is_force: bool = "isForce",
    }

    /// INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223), and broker to client GET_CONSUMER_STATUS_FROM_CLIENT (221).
    GetConsumerStatusRequest<'a> {
        topic: &'a str = "topic",
        group: &'a str = "group",
        /// The id of a client, whatever its name says.
        client_addr: Option<&'a str> = "clientAddr",
    }

    /// CLONE_GROUP_OFFSET (314).
    CloneGroupOffsetRequest<'a> {
        src_group: &'a str = "srcGroup",
        dest_group: &'a str = "destGroup",
        topic: Option<&'a str> = "topic",
        /// Also topics that the group does not subscribe to just now.
        offline: bool = "offline" else false,
    }

    /// GET_CONSUMER_RUNNING_INFO (307), from a tool to the broker and on to the client.
    GetConsumerRunningInfoRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        client_id: &'a str = "clientId",
        jstack_enable: Option<bool> = "jstackEnable",
    }

    /// CONSUME_MESSAGE_DIRECTLY (309), from a tool to the broker and on to the client.
    ConsumeMessageDirectlyRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        client_id: Option<&'a str> = "clientId",
        /// An offset message id.
        msg_id: Option<&'a str> = "msgId",
        broker_name: Option<&'a str> = "brokerName",
        topic: Option<&'a str> = "topic",
    }

    /// VIEW_MESSAGE_BY_ID (33): the message at an offset of the commit log.
    ViewMessageRequest<'a> {
        topic: Option<&'a str> = "topic",
        offset: i64 = "offset",
    }

    /// VIEW_BROKER_STATS_DATA (315).
    ViewBrokerStatsDataRequest<'a> {
        /// Such as `TOPIC_PUT_NUMS`.
        stats_name: &'a str = "statsName",
        /// A topic, `topic@group`, or the cluster.
        stats_key: &'a str = "statsKey",
    }

    /// RESET_MASTER_FLUSH_OFFSET (908).
    ResetMasterFlushOffsetRequest {
        master_flush_offset: i64 = "masterFlushOffset",
    }

    /// SET_COMMITLOG_READ_MODE (2004).
    SetCommitLogReadModeRequest {
        /// Of `madvise`: 0 normal, 1 random.
        read_ahead_mode: i32 = "READ_AHEAD_MODE",
    }

    /// Reply to GET_BROKER_CONFIG (26); the configuration is the body.
    GetBrokerConfigReply<'a> {
        /// A `DataVersion` as JSON.
        version: Cow<'a, str> = "version",
    }
}
