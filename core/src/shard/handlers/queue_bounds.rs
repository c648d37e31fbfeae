//! GET_MAX_OFFSET (30), GET_MIN_OFFSET (31), SEARCH_OFFSET_BY_TIMESTAMP (29), GET_EARLIEST_MSG_STORETIME (32).
//!
//! A queue that does not exist is an empty one: all answer with a number, as `AdminBrokerProcessor` does.

use apogee_net::request::{
    Boundary, GetEarliestMsgStoretimeReply, GetEarliestMsgStoretimeRequest, GetMaxOffsetReply,
    GetMaxOffsetRequest, GetMinOffsetReply, GetMinOffsetRequest, SearchOffsetReply, SearchOffsetRequest,
    TypedHeader,
};
use apogee_storage::{Buffer, QueueKey, QueueOffset, TimeBound};

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::state::Shard;

impl<B: Buffer + 'static> Shard<B> {
    fn queue(&self, topic: &str, queue_id: i32) -> Option<QueueKey> {
        self.topics.get(topic)?.queue_to_write(queue_id)
    }
}

pub(super) fn max<B: Buffer + 'static>(shard: &mut Shard<B>, request: &Request<'_>, _: i64) -> Handled {
    let wanted = GetMaxOffsetRequest::decode(&request.header.ext)?;
    let queue = shard.queue(wanted.topic, wanted.queue_id);
    let offset = queue.map_or(QueueOffset(0), |queue| shard.log.max_offset(queue)).0 as i64;
    Ok(Reply::success().with_ext(GetMaxOffsetReply { offset }).into())
}

pub(super) fn min<B: Buffer + 'static>(shard: &mut Shard<B>, request: &Request<'_>, _: i64) -> Handled {
    let wanted = GetMinOffsetRequest::decode(&request.header.ext)?;
    let queue = shard.queue(wanted.topic, wanted.queue_id);
    let offset = queue.map_or(QueueOffset(0), |queue| shard.log.min_offset(queue)).0 as i64;
    Ok(Reply::success().with_ext(GetMinOffsetReply { offset }).into())
}

pub(super) fn search<B: Buffer + 'static>(shard: &mut Shard<B>, request: &Request<'_>, _: i64) -> Handled {
    let wanted = SearchOffsetRequest::decode(&request.header.ext)?;
    let bound = match wanted.boundary {
        Boundary::Lower => TimeBound::Lower,
        Boundary::Upper => TimeBound::Upper,
    };
    let queue = shard.queue(wanted.topic, wanted.queue_id);
    let offset = match queue {
        Some(queue) => shard.log.search_by_time(queue, wanted.timestamp, bound)?,
        None => QueueOffset(0),
    };
    Ok(Reply::success().with_ext(SearchOffsetReply { offset: offset.0 as i64 }).into())
}

pub(super) fn earliest_store_time<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    _: i64,
) -> Handled {
    let wanted = GetEarliestMsgStoretimeRequest::decode(&request.header.ext)?;
    let first = match shard.queue(wanted.topic, wanted.queue_id) {
        Some(queue) => shard.log.entry(queue, shard.log.min_offset(queue))?,
        None => None,
    };
    let timestamp = first.map_or(-1, |entry| entry.store_time_ms);
    Ok(Reply::success().with_ext(GetEarliestMsgStoretimeReply { timestamp }).into())
}
