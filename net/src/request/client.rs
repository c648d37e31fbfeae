headers! {
    /// HEART_BEAT (34) is answered with these. A broker without V2 heartbeats leaves both out.
    HeartbeatReply {
        /// The broker does not know the subscriptions behind this fingerprint: send them in full.
        subscription_changed: Option<bool> = "IS_SUB_CHANGE",
        supports_v2: Option<bool> = "IS_SUPPORT_HEART_BEAT_V2",
    }

    /// UNREGISTER_CLIENT (35): a client leaves its groups.
    UnregisterClientRequest<'a> {
        client_id: &'a str = "clientID",
        producer_group: Option<&'a str> = "producerGroup",
        consumer_group: Option<&'a str> = "consumerGroup",
    }

    /// GET_CONSUMER_LIST_BY_GROUP (38): the live members of a group.
    GetConsumerListByGroupRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
    }

    /// NOTIFY_CONSUMER_IDS_CHANGED (40), broker to client, oneway: rebalance now.
    NotifyConsumerIdsChangedRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
    }
}
