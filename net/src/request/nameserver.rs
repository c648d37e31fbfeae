use std::borrow::Cow;

headers! {
    /// REGISTER_BROKER (103): a broker and its topics. The NameServer forgets it when this connection closes.
    RegisterBrokerRequest<'a> {
        broker_name: &'a str = "brokerName",
        /// `ip:port`, where clients connect.
        broker_addr: &'a str = "brokerAddr",
        cluster_name: &'a str = "clusterName",
        ha_server_addr: &'a str = "haServerAddr",
        /// 0 is the master.
        broker_id: i64 = "brokerId",
        /// After which time without a sign of life it is forgotten; 120 s when absent.
        heartbeat_timeout_ms: Option<i64> = "heartbeatTimeoutMillis",
        /// Absent from brokers before 5.0.
        enable_acting_master: Option<bool> = "enableActingMaster",
        /// The body is a zlib stream with a layout of its own rather than JSON.
        compressed: bool = "compressed" else false,
        /// CRC-32 of the body `& 0x7FFFFFFF`; 0 is not checked.
        body_crc32: i32 = "bodyCrc32" else 0,
        zone_name: Option<&'a str> = "__ZONE_NAME",
    }

    /// Both only for brokers other than the master.
    RegisterBrokerReply<'a> {
        ha_server_addr: Option<Cow<'a, str>> = "haServerAddr",
        master_addr: Option<Cow<'a, str>> = "masterAddr",
    }

    /// UNREGISTER_BROKER (104).
    UnregisterBrokerRequest<'a> {
        broker_name: &'a str = "brokerName",
        broker_addr: &'a str = "brokerAddr",
        cluster_name: &'a str = "clusterName",
        broker_id: i64 = "brokerId",
    }

    /// QUERY_DATA_VERSION (322): is what the NameServer knows of this broker still true? The body is a `DataVersion`.
    QueryDataVersionRequest<'a> {
        broker_name: &'a str = "brokerName",
        broker_addr: &'a str = "brokerAddr",
        cluster_name: &'a str = "clusterName",
        broker_id: i64 = "brokerId",
    }

    QueryDataVersionReply {
        changed: bool = "changed",
    }

    /// BROKER_HEARTBEAT (904): a sign of life.
    BrokerHeartbeatRequest<'a> {
        cluster_name: &'a str = "clusterName",
        broker_addr: &'a str = "brokerAddr",
        broker_name: &'a str = "brokerName",
        broker_id: Option<i64> = "brokerId",
        epoch: Option<i32> = "epoch",
        max_offset: Option<i64> = "maxOffset",
        confirm_offset: Option<i64> = "confirmOffset",
        heartbeat_timeout_ms: Option<i64> = "heartbeatTimeoutMills",
        election_priority: Option<i32> = "electionPriority",
    }

    /// GET_BROKER_MEMBER_GROUP (901): the addresses of one broker name.
    GetBrokerMemberGroupRequest<'a> {
        cluster_name: &'a str = "clusterName",
        broker_name: &'a str = "brokerName",
    }

    /// GET_ROUTEINFO_BY_TOPIC (105): where a topic's queues are.
    GetRouteInfoRequest<'a> {
        topic: &'a str = "topic",
        /// The client cannot read fastjson's unquoted numeric keys.
        accept_standard_json_only: bool = "acceptStandardJsonOnly" else false,
        /// With `zone_mode`: only brokers of this zone.
        zone_name: Option<&'a str> = "__ZONE_NAME",
        zone_mode: bool = "__ZONE_MODE" else false,
    }

    /// PUT_KV_CONFIG (100).
    PutKvConfigRequest<'a> {
        namespace: &'a str = "namespace",
        key: &'a str = "key",
        value: &'a str = "value",
    }

    /// GET_KV_CONFIG (101).
    GetKvConfigRequest<'a> {
        namespace: &'a str = "namespace",
        key: &'a str = "key",
    }

    GetKvConfigReply<'a> {
        value: Option<Cow<'a, str>> = "value",
    }

    /// DELETE_KV_CONFIG (102).
    DeleteKvConfigRequest<'a> {
        namespace: &'a str = "namespace",
        key: &'a str = "key",
    }

    /// GET_KVLIST_BY_NAMESPACE (219).
    GetKvListByNamespaceRequest<'a> {
        namespace: &'a str = "namespace",
    }

    /// DELETE_TOPIC_IN_NAMESRV (216): everywhere, or only from one cluster's brokers.
    DeleteTopicInNamesrvRequest<'a> {
        topic: &'a str = "topic",
        cluster_name: Option<&'a str> = "clusterName",
    }

    /// REGISTER_TOPIC_IN_NAMESRV (217); the body is a `TopicRouteData`.
    RegisterTopicInNamesrvRequest<'a> {
        topic: &'a str = "topic",
    }

    /// GET_TOPICS_BY_CLUSTER (224).
    GetTopicsByClusterRequest<'a> {
        cluster: &'a str = "cluster",
    }

    /// WIPE_WRITE_PERM_OF_BROKER (205): no more sends to this broker.
    WipeWritePermOfBrokerRequest<'a> {
        broker_name: &'a str = "brokerName",
    }

    WipeWritePermOfBrokerReply {
        topics: i32 = "wipeTopicCount",
    }

    /// ADD_WRITE_PERM_OF_BROKER (327): takes sends again.
    AddWritePermOfBrokerRequest<'a> {
        broker_name: &'a str = "brokerName",
    }

    AddWritePermOfBrokerReply {
        topics: i32 = "addTopicCount",
    }
}
