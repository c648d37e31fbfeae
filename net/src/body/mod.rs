//! Bodies of requests and replies: RocketMQ's JSON, declared as Rust structs.
//!
//! Each body can be read ([`parse`]) and written ([`to_fastjson`], for routes also [`to_standard_json`]). What
//! fastjson does differently from JSON is in [`fastjson`] alone; see the README of this folder.

mod assignment;
mod broker;
mod client;
mod cluster;
mod connection;
mod data_version;
pub mod fastjson;
mod group;
mod heartbeat;
mod kv_table;
mod list;
mod lock;
mod message_queue;
mod pieces;
mod pop;
mod progress;
mod query;
mod register;
mod route;
mod stats;
mod subscription_group;
#[cfg(test)]
mod tests;
mod timer;
mod topic_config;

pub use assignment::{
    MessageQueueAssignment, MessageRequestMode, MessageRequestModeSerializeWrapper,
    QueryAssignmentRequestBody, QueryAssignmentResponseBody, SetMessageRequestModeRequestBody,
};
pub use broker::{
    BrokerStatsData, BrokerStatsItem, HaClientRuntimeInfo, HaConnectionRuntimeInfo, HaRuntimeInfo,
};
pub use client::CheckClientRequestBody;
pub use cluster::{BrokerMemberGroup, ClusterInfo, GetBrokerMemberGroupResponseBody};
pub use connection::{Connection, ConsumerConnection, ProducerConnection, ProducerInfo, ProducerTableInfo};
pub use data_version::DataVersion;
pub use fastjson::{
    BodyError, BodyProblem, FromFastjson, RawValue, ToFastjson, parse, to_fastjson, to_standard_json,
};
pub use group::{GroupNode, GroupRole, GroupStatus};
pub use heartbeat::{
    ConsumeFromWhere, ConsumeType, ConsumerData, HeartbeatData, MessageModel, ProducerData, SubscriptionData,
};
pub use kv_table::KvTable;
pub use list::{GroupList, TopicList};
pub use lock::{
    GetConsumerListByGroupResponseBody, LockBatchRequestBody, LockBatchResponseBody, UnlockBatchRequestBody,
};
pub use message_queue::MessageQueue;
pub use pieces::{BodyInPieces, PIECE_BYTES};
pub use pop::{AckedBits, BatchAck, BatchAckMessageRequestBody};
pub use progress::{
    ConsumerOffsetSerializeWrapper, DelayOffsetSerializeWrapper, GetConsumerStatusBody, MessageQueueForC,
    QueryConsumeTimeSpanBody, QueryCorrectionOffsetBody, QuerySubscriptionResponseBody, QueueTimeSpan,
    ResetOffsetBody, ResetOffsetBodyForC,
};
pub use query::{ConsumeQueueData, QueryConsumeQueueResponseBody};
pub use register::{INFLATED_BYTES_MAX, RegisterBodyError, RegisterBrokerBody};
pub use route::{BrokerAddrs, BrokerData, QueueData, TopicQueueMappingInfo, TopicRouteData};
pub use stats::{ConsumeStats, ConsumeStatsList, OffsetWrapper, TopicOffset, TopicStatsTable};
pub use subscription_group::{
    GroupForbidden, GroupRetryPolicy, GroupRetryPolicyType, SubscriptionGroupConfig, SubscriptionGroupList,
    SubscriptionGroupWrapper,
};
pub use timer::{TIMER_CHECKPOINT_BYTES, TimerCheckpoint, TimerMetric, TimerMetrics};
pub use topic_config::{
    CreateTopicListRequestBody, TopicConfig, TopicConfigAndMappingSerializeWrapper,
    TopicConfigSerializeWrapper, TopicFilterType, perm,
};
