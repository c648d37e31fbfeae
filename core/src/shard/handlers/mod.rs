//! One file per kind of request. Each decodes, asks the shard's tables and log, and answers.
//!
//! Dispatch and the list of supported codes follow from one list, below.

mod ack_message;
mod ask_client;
mod auth_admin;
mod broker_config;
mod broker_stats;
mod broker_status;
mod change_invisible_time;
mod check_client_config;
mod clean_up;
mod cold_data;
mod connections;
mod consume_stats;
mod consumer_list;
mod consumer_offset;
mod end_transaction;
mod forbidden;
mod group_admin;
mod heartbeat;
mod node_group;
mod notification;
mod peek_message;
mod pop_checks;
mod pop_message;
mod progress;
mod pull_message;
mod query_assignment;
mod query_consume_queue;
mod query_message;
mod queue_bounds;
mod queue_locks;
mod recall_message;
mod reply_message;
mod request_mode;
mod reset_offset;
mod send_back;
mod send_message;
mod timer_metrics;
mod topic_admin;
mod unregister_client;
mod view_message;

use apogee_net::code::RequestCode;
use apogee_storage::{Buffer, IndexFault};

use super::refusal::Refusal;
use super::state::Shard;
use crate::service::{Reply, Request};

/// What a handler has to say.
pub(super) enum Answer {
    Now(Reply),
    /// The reply comes as an action: when a message is durable, or has arrived.
    Later,
}

pub(super) type Handled = Result<Answer, Unanswered>;

/// Why a handler has no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    Refused(Refusal),
    /// An index file could not be looked into. The handler has changed nothing that it would change once more.
    Fault(IndexFault),
}

impl<E: Into<Refusal>> From<E> for Unanswered {
    fn from(error: E) -> Self {
        Unanswered::Refused(error.into())
    }
}

impl From<IndexFault> for Unanswered {
    fn from(fault: IndexFault) -> Self {
        Unanswered::Fault(fault)
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Answer::Now(reply)
    }
}

/// Who of a group's replicas answers a request. A broker without a group answers all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnsweredBy {
    /// Whoever is asked, by what is committed here: stale at worst, never wrong. A handler that finds that it would have
    /// to change something, or to know what is newest, says so ([`Refusal::for_leader`]).
    Any,
    /// The leader, while it is sure to be it: the request changes something, or asks for what is newest.
    Leader,
    /// Whoever is asked, also before it knows anything of its group: about itself, or about the clients connected to it.
    /// Clients tell every replica by themselves; only the leader makes the groups and topics that they bring with them.
    Each,
}

macro_rules! handlers {
    ($($code:ident => $handler:path, $by:ident;)*) => {
        /// Request codes that shards answer; every other is answered as not supported.
        pub const SUPPORTED: &[RequestCode] = &[$(RequestCode::$code),*];

        /// Unknown codes are refused by whoever is asked.
        pub fn answered_by(code: RequestCode) -> AnsweredBy {
            match code {
                $(RequestCode::$code => AnsweredBy::$by,)*
                _ => AnsweredBy::Any,
            }
        }

        pub(super) fn dispatch<B: Buffer + 'static>(
            shard: &mut Shard<B>,
            request: &Request<'_>,
            now_ms: i64,
        ) -> Handled {
            match request.code() {
                $(RequestCode::$code => $handler(shard, request, now_ms),)*
                code => Ok(Reply::not_supported(code).into()),
            }
        }
    };
}

handlers! {
    SEND_MESSAGE => send_message::handle, Leader;
    SEND_MESSAGE_V2 => send_message::handle, Leader;
    SEND_BATCH_MESSAGE => send_message::handle, Leader;
    CONSUMER_SEND_MSG_BACK => send_back::handle, Leader;
    RECALL_MESSAGE => recall_message::handle, Leader;
    GET_ALL_DELAY_OFFSET => timer_metrics::delay_offsets, Any;
    GET_TIMER_CHECK_POINT => timer_metrics::check_point, Any;
    GET_TIMER_METRICS => timer_metrics::metrics, Any;
    END_TRANSACTION => end_transaction::end, Leader;
    RESUME_CHECK_HALF_MESSAGE => end_transaction::resume, Leader;
    SEND_REPLY_MESSAGE => reply_message::handle, Leader;
    SEND_REPLY_MESSAGE_V2 => reply_message::handle, Leader;
    PULL_MESSAGE => pull_message::handle, Any;
    LITE_PULL_MESSAGE => pull_message::handle, Any;
    QUERY_MESSAGE => query_message::handle, Any;
    VIEW_MESSAGE_BY_ID => view_message::handle, Any;
    QUERY_CONSUME_QUEUE => query_consume_queue::handle, Any;
    POP_MESSAGE => pop_message::handle, Leader;
    ACK_MESSAGE => ack_message::ack, Leader;
    BATCH_ACK_MESSAGE => ack_message::ack_batch, Leader;
    CHANGE_MESSAGE_INVISIBLETIME => change_invisible_time::handle, Leader;
    PEEK_MESSAGE => peek_message::handle, Leader;
    NOTIFICATION => notification::notification, Leader;
    POLLING_INFO => notification::polling_info, Leader;
    QUERY_ASSIGNMENT => query_assignment::handle, Any;
    SET_MESSAGE_REQUEST_MODE => request_mode::set, Leader;
    GET_ALL_MESSAGE_REQUEST_MODE => request_mode::get_all, Any;
    HEART_BEAT => heartbeat::handle, Each;
    UNREGISTER_CLIENT => unregister_client::handle, Each;
    GET_CONSUMER_LIST_BY_GROUP => consumer_list::handle, Any;
    CHECK_CLIENT_CONFIG => check_client_config::handle, Each;
    QUERY_CONSUMER_OFFSET => consumer_offset::query, Leader;
    UPDATE_CONSUMER_OFFSET => consumer_offset::update, Leader;
    GET_MAX_OFFSET => queue_bounds::max, Leader;
    GET_MIN_OFFSET => queue_bounds::min, Leader;
    SEARCH_OFFSET_BY_TIMESTAMP => queue_bounds::search, Leader;
    GET_EARLIEST_MSG_STORETIME => queue_bounds::earliest_store_time, Leader;
    LOCK_BATCH_MQ => queue_locks::lock, Leader;
    UNLOCK_BATCH_MQ => queue_locks::unlock, Leader;
    UPDATE_AND_CREATE_TOPIC => topic_admin::update, Leader;
    DELETE_TOPIC_IN_BROKER => topic_admin::delete, Leader;
    GET_TOPIC_CONFIG => topic_admin::get, Any;
    GET_ALL_TOPIC_CONFIG => topic_admin::get_all, Any;
    GET_TOPIC_STATS_INFO => topic_admin::stats, Any;
    UPDATE_AND_CREATE_TOPIC_LIST => topic_admin::update_list, Leader;
    GET_SYSTEM_TOPIC_LIST_FROM_BROKER => topic_admin::system, Any;
    UPDATE_BROKER_CONFIG => broker_config::update, Leader;
    GET_BROKER_CONFIG => broker_config::get, Each;
    GET_BROKER_RUNTIME_INFO => broker_status::runtime_info, Each;
    GET_BROKER_HA_STATUS => broker_status::ha_status, Each;
    RESET_MASTER_FLUSH_OFFSET => broker_status::reset_master_flush_offset, Each;
    VIEW_BROKER_STATS_DATA => broker_stats::view, Any;
    CLEAN_EXPIRED_CONSUMEQUEUE => clean_up::handle, Any;
    CLEAN_UNUSED_TOPIC => clean_up::handle, Any;
    DELETE_EXPIRED_COMMITLOG => clean_up::handle, Any;
    UPDATE_COLD_DATA_FLOW_CTR_CONFIG => cold_data::update, Any;
    REMOVE_COLD_DATA_FLOW_CTR_CONFIG => cold_data::remove, Any;
    GET_COLD_DATA_FLOW_CTR_INFO => cold_data::info, Any;
    SET_COMMITLOG_READ_MODE => cold_data::set_read_mode, Any;
    AUTH_CREATE_USER => auth_admin::handle, Any;
    AUTH_UPDATE_USER => auth_admin::handle, Any;
    AUTH_DELETE_USER => auth_admin::handle, Any;
    AUTH_GET_USER => auth_admin::handle, Any;
    AUTH_LIST_USER => auth_admin::handle, Any;
    AUTH_CREATE_ACL => auth_admin::handle, Any;
    AUTH_UPDATE_ACL => auth_admin::handle, Any;
    AUTH_DELETE_ACL => auth_admin::handle, Any;
    AUTH_GET_ACL => auth_admin::handle, Any;
    AUTH_LIST_ACL => auth_admin::handle, Any;
    UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => group_admin::update, Leader;
    DELETE_SUBSCRIPTIONGROUP => group_admin::delete, Leader;
    UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => group_admin::update_list, Leader;
    GET_SUBSCRIPTIONGROUP_CONFIG => group_admin::get, Any;
    GET_ALL_SUBSCRIPTIONGROUP_CONFIG => group_admin::get_all, Any;
    GET_CONSUMER_CONNECTION_LIST => connections::consumers, Any;
    GET_PRODUCER_CONNECTION_LIST => connections::producers, Each;
    GET_ALL_PRODUCER_INFO => connections::all_producers, Each;
    GET_CONSUME_STATS => consume_stats::of_group, Any;
    GET_BROKER_CONSUME_STATS => consume_stats::of_all_groups, Any;
    QUERY_TOPIC_CONSUME_BY_WHO => progress::groups_of_topic, Any;
    QUERY_TOPICS_BY_CONSUMER => progress::topics_of_group, Any;
    QUERY_SUBSCRIPTION_BY_CONSUMER => progress::subscription, Any;
    QUERY_CONSUME_TIME_SPAN => progress::time_span, Any;
    QUERY_CORRECTION_OFFSET => progress::correction_offsets, Any;
    GET_ALL_CONSUMER_OFFSET => progress::all_offsets, Any;
    CLONE_GROUP_OFFSET => progress::clone_offsets, Leader;
    UPDATE_AND_GET_GROUP_FORBIDDEN => forbidden::update, Leader;
    INVOKE_BROKER_TO_RESET_OFFSET => reset_offset::handle, Leader;
    GET_CONSUMER_RUNNING_INFO => ask_client::running_info, Any;
    CONSUME_MESSAGE_DIRECTLY => ask_client::consume_directly, Any;
    INVOKE_BROKER_TO_GET_CONSUMER_STATUS => ask_client::consumer_status, Any;
    APOGEE_GROUP_STATUS => node_group::status, Each;
    APOGEE_TRANSFER_LEADER => node_group::transfer, Each;
    APOGEE_CHANGE_MEMBERS => node_group::change, Each;
}
