//! GET_CONSUMER_LIST_BY_GROUP (38): who shares a group's queues.

use apogee_net::body::{GetConsumerListByGroupResponseBody, to_fastjson};
use apogee_net::code::ResponseCode;
use apogee_net::request::{GetConsumerListByGroupRequest, TypedHeader};
use apogee_storage::Buffer;

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    _now_ms: i64,
) -> Handled {
    let wanted = GetConsumerListByGroupRequest::decode(&request.header.ext)?;
    let group = wanted.consumer_group;
    let Some(members) = shard.clients.consumer_group(group) else {
        // Not an empty list: clients then skip this round instead of taking nothing.
        let remark = format!("no consumer for this group, {group}");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark).for_leader().into());
    };
    let consumer_id_list = members.client_ids().map(str::to_owned).collect();
    let body = to_fastjson(&GetConsumerListByGroupResponseBody { consumer_id_list });
    Ok(Reply::success().with_body(body).into())
}
