//! POP_MESSAGE (200050): messages of one queue or all, each hidden from the group for a while; parked until there are
//! some.

use apogee_net::code::ResponseCode;
use apogee_net::request::{PopMessageRequest, TypedHeader};
use apogee_storage::Buffer;

use super::{Answer, Handled};
use crate::service::Request;
use crate::shard::filter::parse_expression;
use crate::shard::parked::HOLD_MS_MAX;
use crate::shard::pop::{POP_MESSAGES_MAX, ParkedPop, Pop, Popped};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

/// How much later than its time a request may come before it is not even tried
/// (`PopMessageRequestHeader#isTimeoutTooMuch`).
const LATE_MS_MAX: i64 = 500;

/// A request is not parked for less (`PopRequest#isTimeout`).
const HOLD_MS_MIN: i64 = 50;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = PopMessageRequest::decode(&request.header.ext)?;
    let born_ms = if wanted.born_ms == 0 { now_ms } else { wanted.born_ms };
    let ends_ms = born_ms.saturating_add(wanted.poll_ms);
    if now_ms.saturating_sub(ends_ms) > LATE_MS_MAX {
        let remark = format!("the broker[{}] pop message is timeout too much", shard.config.address.ip());
        return Err(Refusal::new(ResponseCode::POLLING_TIMEOUT, remark).into());
    }
    shard.check_broker_readable("pop")?;
    if wanted.messages_max > POP_MESSAGES_MAX {
        let remark = format!(
            "the broker[{}] pop message's num is greater than {POP_MESSAGES_MAX}",
            shard.config.address.ip()
        );
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark).into());
    }
    let checked = shard.check_pop(wanted.consumer_group, wanted.topic, wanted.queue_id, now_ms)?;
    let expression = wanted.expression.filter(|expression| !expression.is_empty());
    let filter = parse_expression(expression, wanted.expression_type.filter(|_| expression.is_some()))
        .map_err(|_| {
            let remark = "parse the consumer's subscription failed";
            Refusal::new(ResponseCode::SUBSCRIPTION_PARSE_FAILED, remark)
        })?;
    shard.check_changes_flow()?;
    let pop = Pop {
        group: checked.group,
        topic: checked.topic,
        queue_id: wanted.queue_id.max(-1),
        messages_max: wanted.messages_max.max(0) as u32,
        invisible_ms: wanted.invisible_ms,
        filter,
        is_ordered: wanted.order,
        attempt_id: wanted.attempt_id.filter(|id| !id.is_empty()).map(Into::into),
        init_mode: wanted.init_mode,
    };
    // By the client's clock, but not longer than it asked for by ours.
    let held_ms = wanted.poll_ms.clamp(0, HOLD_MS_MAX);
    let deadline_ms = ends_ms.min(now_ms + held_ms);
    let deadline_ms = if deadline_ms - now_ms > HOLD_MS_MIN { deadline_ms } else { now_ms };
    if pop.filter.sql().is_some() {
        if let Some(to) = request.reply_to() {
            shard.sift(ParkedPop { to, pop }, deadline_ms, now_ms);
        }
        return Ok(Answer::Later);
    }
    match (shard.pop(&pop, request.reply_to(), now_ms)?, request.reply_to()) {
        (Popped::Given { rest: 1.. }, _) => shard.popping.look_again(pop.key()),
        (Popped::Nothing { rest, is_cut_short }, Some(to)) => {
            shard.park_pop(ParkedPop { to, pop }, deadline_ms, rest, is_cut_short, now_ms);
        }
        (Popped::Given { .. } | Popped::Nothing { .. }, _) => {}
    }
    Ok(Answer::Later)
}
