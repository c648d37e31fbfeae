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
        clean_offset: bool = "cleanOffset" else false,
    }

    /// VIEW_MESSAGE_BY_ID (33): the message at an offset of the commit log.
    ViewMessageRequest<'a> {
        topic: Option<&'a str> = "topic",
        offset: i64 = "offset",
    }

    /// Reply to GET_BROKER_CONFIG (26); the configuration is the body.
    GetBrokerConfigReply<'a> {
        /// A `DataVersion` as JSON.
        version: Cow<'a, str> = "version",
    }
}
