//! One handler per request code; dispatch and [`CODES`] follow from one list.

mod broker_heartbeat;
mod delete_topic;
mod get_broker_cluster_info;
mod get_broker_member_group;
mod get_route_info;
mod kv_config;
mod namesrv_config;
mod query_data_version;
mod register_broker;
mod register_topic;
mod topic_lists;
mod unregister_broker;
mod write_perm;

use apogee_net::body::{ToFastjson, to_fastjson};
use apogee_net::code::RequestCode;
use apogee_net::request::{FieldError, TypedHeader};

use crate::service::{Reply, Request};

use super::refusal::Refusal;
use super::server::NameServer;

macro_rules! handlers {
    ($( $code:ident => $handler:path, )*) => {
        /// Every request that a NameServer answers; any other is answered as not supported.
        pub const CODES: &[RequestCode] = &[$( RequestCode::$code ),*];

        pub(super) fn dispatch(
            server: &mut NameServer,
            request: &Request<'_>,
            now_ms: i64,
        ) -> Result<Reply, Refusal> {
            match request.code() {
                $( RequestCode::$code => $handler(server, request, now_ms), )*
                other => Err(Refusal::NotSupported(other)),
            }
        }
    };
}

handlers! {
    PUT_KV_CONFIG => kv_config::put,
    GET_KV_CONFIG => kv_config::get,
    DELETE_KV_CONFIG => kv_config::delete,
    REGISTER_BROKER => register_broker::handle,
    UNREGISTER_BROKER => unregister_broker::handle,
    GET_ROUTEINFO_BY_TOPIC => get_route_info::handle,
    GET_BROKER_CLUSTER_INFO => get_broker_cluster_info::handle,
    WIPE_WRITE_PERM_OF_BROKER => write_perm::wipe,
    GET_ALL_TOPIC_LIST_FROM_NAMESERVER => topic_lists::all,
    DELETE_TOPIC_IN_NAMESRV => delete_topic::handle,
    REGISTER_TOPIC_IN_NAMESRV => register_topic::handle,
    GET_KVLIST_BY_NAMESPACE => kv_config::list,
    GET_TOPICS_BY_CLUSTER => topic_lists::of_cluster,
    GET_SYSTEM_TOPIC_LIST_FROM_NS => topic_lists::system,
    GET_UNIT_TOPIC_LIST => topic_lists::unit,
    GET_HAS_UNIT_SUB_TOPIC_LIST => topic_lists::unit_sub,
    GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => topic_lists::unit_sub_without_unit,
    UPDATE_NAMESRV_CONFIG => namesrv_config::update,
    GET_NAMESRV_CONFIG => namesrv_config::get,
    QUERY_DATA_VERSION => query_data_version::handle,
    ADD_WRITE_PERM_OF_BROKER => write_perm::add,
    GET_BROKER_MEMBER_GROUP => get_broker_member_group::handle,
    BROKER_HEARTBEAT => broker_heartbeat::handle,
}

/// The request's typed header.
fn typed_header<'a, H: TypedHeader<'a>>(request: &'a Request<'_>) -> Result<H, FieldError> {
    H::decode(&request.header.ext)
}

fn reply_with_json(body: &impl ToFastjson) -> Reply {
    Reply::success().with_body(to_fastjson(body))
}
