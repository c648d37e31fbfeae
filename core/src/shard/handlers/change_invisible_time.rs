//! CHANGE_MESSAGE_INVISIBLETIME (200053): a popped message is to come again after another time, counted from now.
//!
//! A message that was acknowledged, or comes again already, stays as it is, and the answer is the same.

use apogee_net::code::ResponseCode;
use apogee_net::message::ReceiptHandle;
use apogee_net::request::{ChangeInvisibleTimeReply, ChangeInvisibleTimeRequest, TypedHeader};
use apogee_storage::{Buffer, QueueOffset};

use super::ack_message::check_point;
use super::{Answer, Handled};
use crate::service::{Reply, Request};
use crate::shard::commit::Then;
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = ChangeInvisibleTimeRequest::decode(&request.header.ext)?;
    let group = wanted.consumer_group;
    let queue = shard.acked_queue(wanted.topic, wanted.queue_id)?;
    let (min, max) = (shard.log.min_offset(queue).0 as i64, shard.log.max_offset(queue).0 as i64);
    if !(min..max).contains(&wanted.offset) {
        return Err(Refusal::new(ResponseCode::NO_MESSAGE, "").into());
    }
    let offset = wanted.offset as u64;
    let handle = ReceiptHandle::parse(wanted.extra_info)?;
    shard.check_changes_flow()?;
    let due_ms = now_ms.saturating_add(wanted.invisible_ms);
    let (record, reply) = if handle.is_ordered() {
        let committed = shard.offsets.query(group, queue).unwrap_or(QueueOffset(0));
        if offset < committed.0 {
            let nothing = ChangeInvisibleTimeReply { pop_ms: 0, invisible_ms: 0, revive_queue_id: 0 };
            return Ok(Reply::success().with_ext(nothing).into());
        }
        let record = shard.pops.delay_ordered(group, queue, handle.pop_ms, offset, due_ms);
        let invisible_ms = due_ms.saturating_sub(handle.pop_ms);
        (
            record,
            ChangeInvisibleTimeReply {
                pop_ms: handle.pop_ms,
                invisible_ms,
                revive_queue_id: handle.revive_queue_id,
            },
        )
    } else {
        let times = (now_ms, due_ms);
        let record = shard.pops.change_invisible(group, queue, check_point(&handle), offset, times);
        let invisible_ms = wanted.invisible_ms;
        (
            record,
            ChangeInvisibleTimeReply {
                pop_ms: now_ms,
                invisible_ms,
                revive_queue_id: handle.revive_queue_id,
            },
        )
    };
    let reply = Reply::success().with_ext(reply);
    match record {
        Some(record) => {
            shard.journal(record, Then::Reply(request.reply_to(), reply), now_ms);
            Ok(Answer::Later)
        }
        None => Ok(reply.into()),
    }
}
