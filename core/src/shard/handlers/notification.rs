//! NOTIFICATION (200054): whether a pop would give anything, held until it would; POLLING_INFO (200055): how many pops
//! wait.

use apogee_net::request::{
    NotificationReply, NotificationRequest, PollingInfoReply, PollingInfoRequest, TypedHeader,
};
use apogee_storage::Buffer;

use super::{Answer, Handled};
use crate::service::{Reply, Request};
use crate::shard::parked::HOLD_MS_MAX;
use crate::shard::pop::{ParkedNotification, PollKey};
use crate::shard::state::Shard;

pub(super) fn notification<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = NotificationRequest::decode(&request.header.ext)?;
    let checked = shard.check_pop(wanted.consumer_group, wanted.topic, wanted.queue_id, now_ms)?;
    let Some(to) = request.reply_to() else { return Ok(Answer::Later) };
    let key = PollKey { topic: checked.topic, group: checked.group, queue_id: wanted.queue_id.max(-1) };
    let parked = ParkedNotification {
        to,
        is_ordered: wanted.order,
        attempt_id: wanted.attempt_id.filter(|id| !id.is_empty()).map(Into::into),
        key: key.clone(),
    };
    let answer = |has_message, polling_full| {
        Ok(Reply::success().with_ext(NotificationReply { has_message, polling_full }).into())
    };
    if shard.would_pop(&parked, now_ms) {
        return answer(true, false);
    }
    let born_ms = if wanted.born_ms == 0 { now_ms } else { wanted.born_ms };
    let held_ms = wanted.poll_ms.clamp(0, HOLD_MS_MAX);
    let deadline_ms = born_ms.saturating_add(held_ms).min(now_ms + held_ms);
    if deadline_ms <= now_ms {
        return answer(false, false);
    }
    match shard.popping.notifications.park(key, request.connection, deadline_ms, parked) {
        Ok(()) => Ok(Answer::Later),
        Err(_) => answer(false, true),
    }
}

pub(super) fn polling_info<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = PollingInfoRequest::decode(&request.header.ext)?;
    let checked = shard.check_pop(wanted.consumer_group, wanted.topic, wanted.queue_id, now_ms)?;
    let key = PollKey { topic: checked.topic, group: checked.group, queue_id: wanted.queue_id.max(-1) };
    let polling = shard.popping.polls.count(&key) as i32;
    Ok(Reply::success().with_ext(PollingInfoReply { polling }).into())
}
