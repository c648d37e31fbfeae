//! Who is connected to a broker, for tools.

use std::collections::BTreeMap;

use super::fastjson::body;
use super::heartbeat::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};

body! {
    /// One client of a group.
    #[derive(Eq)]
    pub struct Connection {
        "clientAddr" => client_addr: String,
        "clientId" => client_id: String,
        /// Java's `LanguageCode` by name.
        "language" => language: String,
        "version" => version: i32,
    }
}

body! {
    /// Reply to GET_CONSUMER_CONNECTION_LIST (203).
    pub struct ConsumerConnection {
        "connectionSet" => connection_set: Vec<Connection>,
        "consumeFromWhere" => consume_from_where: ConsumeFromWhere,
        "consumeType" => consume_type: ConsumeType,
        "messageModel" => message_model: MessageModel = MessageModel::Clustering,
        /// By topic.
        "subscriptionTable" => subscription_table: BTreeMap<String, SubscriptionData>,
    }
}

body! {
    /// Reply to GET_PRODUCER_CONNECTION_LIST (204).
    pub struct ProducerConnection {
        "connectionSet" => connection_set: Vec<Connection>,
    }
}

body! {
    /// Reply to GET_ALL_PRODUCER_INFO (328): producers by group.
    pub struct ProducerTableInfo {
        "data" => data: BTreeMap<String, Vec<ProducerInfo>>,
    }
}

body! {
    #[derive(Eq)]
    pub struct ProducerInfo {
        "clientId" => client_id: String,
        "language" => language: String,
        /// Milliseconds since 1970.
        "lastUpdateTimestamp" => last_update_timestamp: i64,
        "remoteIP" => remote_ip: String,
        "version" => version: i32,
    }
}
