//! AUTH_CREATE_USER (3001) to AUTH_LIST_ACL (3010), as a RocketMQ answers them that is not set up for authentication
//! (`AdminBrokerProcessor#handleAuthException`).

use apogee_net::code::ResponseCode;
use apogee_storage::Buffer;

use super::Handled;
use crate::service::Request;
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

pub(super) fn handle<B: Buffer + 'static>(_: &mut Shard<B>, _: &Request<'_>, _: i64) -> Handled {
    let remark = "The authenticationMetadataProvider is not configured";
    Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark).into())
}
