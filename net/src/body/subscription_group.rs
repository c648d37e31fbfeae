//! Configuration of consumer groups.

use std::collections::BTreeMap;

use super::data_version::DataVersion;
use super::fastjson::{RawValue, body, body_enum};

body! {
    /// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP (200), GET_SUBSCRIPTIONGROUP_CONFIG (352). Defaults are those of a new
    /// group.
    pub struct SubscriptionGroupConfig {
        "attributes" => attributes: BTreeMap<String, String>,
        "brokerId" => broker_id: i64,
        "consumeBroadcastEnable" => consume_broadcast_enable: bool = true,
        "consumeEnable" => consume_enable: bool = true,
        "consumeFromMinEnable" => consume_from_min_enable: bool = true,
        "consumeMessageOrderly" => consume_message_orderly: bool,
        "consumeTimeoutMinute" => consume_timeout_minute: i32 = 15,
        "groupName" => group_name: String,
        "groupRetryPolicy" => group_retry_policy: GroupRetryPolicy,
        "groupSysFlag" => group_sys_flag: i32,
        "notifyConsumerIdsChangedEnable" => notify_consumer_ids_changed_enable: bool = true,
        "retryMaxTimes" => retry_max_times: i32 = 16,
        "retryQueueNums" => retry_queue_nums: i32 = 1,
        /// Static subscriptions, passed on as they came.
        "subscriptionDataSet" => subscription_data_set: Option<RawValue>,
        /// Which slave serves a consumer that lags beyond the master's memory.
        "whichBrokerWhenConsumeSlowly" => which_broker_when_consume_slowly: i64 = 1,
    }
}

body! {
    /// Only used by RocketMQ's proxy; kept so that tools read back what they wrote.
    pub struct GroupRetryPolicy {
        "customizedRetryPolicy" => customized_retry_policy: Option<RawValue>,
        "exponentialRetryPolicy" => exponential_retry_policy: Option<RawValue>,
        "type" => kind: GroupRetryPolicyType = GroupRetryPolicyType::Customized,
    }
}

body_enum! {
    pub enum GroupRetryPolicyType {
        Exponential = "EXPONENTIAL",
        Customized = "CUSTOMIZED",
    }
}

body! {
    /// Reply to GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201).
    pub struct SubscriptionGroupWrapper {
        "dataVersion" => data_version: DataVersion,
        /// Group, topic, forbidden bits; only after 5.3.3.
        "forbiddenTable" => forbidden_table: BTreeMap<String, BTreeMap<String, i32>>,
        "subscriptionGroupTable" => subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
    }
}

body! {
    /// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST (225).
    pub struct SubscriptionGroupList {
        "groupConfigList" => group_config_list: Vec<SubscriptionGroupConfig>,
    }
}

body! {
    /// Reply to UPDATE_AND_GET_GROUP_FORBIDDEN (353).
    #[derive(Eq)]
    pub struct GroupForbidden {
        "group" => group: String,
        "readable" => readable: bool,
        "topic" => topic: String,
    }
}
