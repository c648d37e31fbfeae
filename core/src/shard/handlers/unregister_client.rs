//! UNREGISTER_CLIENT (35): a client leaves its groups, and stays connected for now.

use apogee_net::request::{TypedHeader, UnregisterClientRequest};
use apogee_storage::Buffer;

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::state::Shard;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    _now_ms: i64,
) -> Handled {
    let wanted = UnregisterClientRequest::decode(&request.header.ext)?;
    if let Some(group) = wanted.producer_group {
        shard.clients.unregister_producer(request.connection, group);
    }
    if let Some(group) = wanted.consumer_group {
        let notify = shard.clients.unregister_consumer(request.connection, group);
        shard.notify(notify);
    }
    Ok(Reply::success().into())
}
