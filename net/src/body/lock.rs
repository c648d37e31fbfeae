//! Queue locks of ordered consumers, and the member list that assignment starts from.

use super::fastjson::body;
use super::message_queue::MessageQueue;

body! {
    /// LOCK_BATCH_MQ (41): take or refresh the locks of these queues.
    #[derive(Eq)]
    pub struct LockBatchRequestBody {
        "clientId" => client_id: String,
        "consumerGroup" => consumer_group: String,
        "mqSet" => mq_set: Vec<MessageQueue>,
        /// Do not ask the other replicas. C++ and Go leave it out.
        "onlyThisBroker" => only_this_broker: bool,
    }
}

/// UNLOCK_BATCH_MQ (42) has the same members.
pub type UnlockBatchRequestBody = LockBatchRequestBody;

body! {
    /// Reply to LOCK_BATCH_MQ: the queues that the client holds now.
    #[derive(Eq)]
    pub struct LockBatchResponseBody {
        "lockOKMQSet" => lock_ok_mq_set: Vec<MessageQueue>,
    }
}

body! {
    /// Reply to GET_CONSUMER_LIST_BY_GROUP (38): client ids, the asking one among them.
    #[derive(Eq)]
    pub struct GetConsumerListByGroupResponseBody {
        "consumerIdList" => consumer_id_list: Vec<String>,
    }
}
