//! Which queues a client of a group consumes, and how, when the broker decides it.

use std::collections::BTreeMap;

use super::fastjson::{body, body_enum};
use super::heartbeat::MessageModel;
use super::message_queue::MessageQueue;

body! {
    /// QUERY_ASSIGNMENT (400)
    #[derive(Eq)]
    pub struct QueryAssignmentRequestBody {
        "clientId" => client_id: String,
        "consumerGroup" => consumer_group: String,
        "messageModel" => message_model: MessageModel = MessageModel::Clustering,
        /// How queues are shared out: `AVG`, `AVG_BY_CIRCLE`.
        "strategyName" => strategy_name: String,
        "topic" => topic: String,
    }
}

body! {
    /// Reply to QUERY_ASSIGNMENT. Nothing: the client leaves everything as it is and asks again later; an empty list:
    /// it gives up all its queues.
    #[derive(Eq)]
    pub struct QueryAssignmentResponseBody {
        "messageQueueAssignments" => assignments: Option<Vec<MessageQueueAssignment>>,
    }
}

body! {
    #[derive(Eq)]
    pub struct MessageQueueAssignment {
        /// Queue −1: all of the broker.
        "messageQueue" => queue: MessageQueue,
        "mode" => mode: MessageRequestMode,
    }
}

body_enum! {
    /// How clients of a group get the messages of a topic.
    pub enum MessageRequestMode {
        Pull = "PULL",
        Pop = "POP",
    }
}

body! {
    /// SET_MESSAGE_REQUEST_MODE (401)
    #[derive(Eq)]
    pub struct SetMessageRequestModeRequestBody {
        "consumerGroup" => consumer_group: String,
        "mode" => mode: MessageRequestMode,
        /// How many more clients get the queues of each; not above 0: all clients get all queues.
        "popShareQueueNum" => pop_share_queue_num: i32,
        "topic" => topic: String,
    }
}

body! {
    /// Reply to GET_ALL_MESSAGE_REQUEST_MODE (402): by topic and group.
    #[derive(Eq)]
    pub struct MessageRequestModeSerializeWrapper {
        "messageRequestModeMap" => modes: BTreeMap<String, BTreeMap<String, SetMessageRequestModeRequestBody>>,
    }
}
