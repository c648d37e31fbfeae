//! CLEAN_EXPIRED_CONSUMEQUEUE (306), CLEAN_UNUSED_TOPIC (316), DELETE_EXPIRED_COMMITLOG (329).
//!
//! Messages and their index leave together, segment by segment, as soon as they are expired, whether a topic is still
//! there or not. So what these ask for is done already, or at the next tick.

use apogee_storage::Buffer;

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::state::Shard;

pub(super) fn handle<B: Buffer + 'static>(_: &mut Shard<B>, _: &Request<'_>, _: i64) -> Handled {
    Ok(Reply::success().into())
}
