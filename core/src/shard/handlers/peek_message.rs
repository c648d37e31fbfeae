//! PEEK_MESSAGE (200052): what a pop would give, without any change (`PeekMessageProcessor`).

use apogee_net::code::ResponseCode;
use apogee_net::request::{PeekMessageRequest, PopMessageReply, TypedHeader};
use apogee_storage::{Buffer, ReadLimits};
use smallvec::SmallVec;

use super::{Answer, Handled};
use crate::service::{Reply, Request};
use crate::shard::action::Fetch;
use crate::shard::pull::PULL_BYTES_DEFAULT;
use crate::shard::state::Shard;

/// Messages of one peek.
const PEEK_MESSAGES_MAX: i32 = 1024;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = PeekMessageRequest::decode(&request.header.ext)?;
    let checked = shard.check_pop(wanted.consumer_group, wanted.topic, wanted.queue_id, now_ms)?;
    let mut fetches: SmallVec<[Fetch; 4]> = SmallVec::new();
    let mut messages_left = wanted.messages_max.clamp(0, PEEK_MESSAGES_MAX) as u32;
    let mut bytes_left = PULL_BYTES_DEFAULT;
    let mut rest = 0;
    for source in shard.pop_sources(checked.topic, &checked.group, wanted.queue_id, false) {
        let (from, max) =
            (shard.pop_position(&checked.group, source, 0).0, shard.log.max_offset(source.queue));
        rest += (max.0 - from.0) as i64;
        if messages_left == 0 || bytes_left == 0 || from == max {
            continue;
        }
        let limits =
            ReadLimits { messages_max: messages_left, bytes_max: bytes_left, examine_max: messages_left };
        let plan = shard.log.plan_read(source.queue, from, limits, |_| true);
        messages_left -= plan.messages;
        bytes_left = bytes_left.saturating_sub(plan.bytes);
        fetches.extend(plan.runs.into_iter().map(Fetch::from));
        if let Some(fault) = plan.fault {
            if fetches.is_empty() {
                return Err(fault.into());
            }
            break;
        }
    }
    let (code, remark) = match fetches.is_empty() {
        true => (ResponseCode::PULL_NOT_FOUND, "NO_MESSAGE_IN_QUEUE"),
        false => (ResponseCode::SUCCESS, "FOUND"),
    };
    let reply = Reply::new(code).with_remark(remark).with_ext(PopMessageReply {
        pop_ms: 0,
        invisible_ms: 0,
        revive_queue_id: 0,
        rest,
        start_offset_info: None,
        message_offset_info: None,
        order_count_info: None,
    });
    match request.reply_to() {
        Some(to) => shard.send_read(to, reply, fetches),
        None => drop(fetches),
    }
    Ok(Answer::Later)
}
