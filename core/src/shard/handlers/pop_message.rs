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
    if filter.sql().is_some() {
        let remark = "pops filter by tags only";
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_PARSE_FAILED, remark).into());
    }
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
    let (rest, is_cut_short) = match shard.pop(&pop, request.reply_to(), now_ms)? {
        Popped::Given { rest } => {
            if rest > 0 {
                shard.popping.look_again(pop.key());
            }
            return Ok(Answer::Later);
        }
        Popped::Nothing { rest, is_cut_short } => (rest, is_cut_short),
    };
    // By the client's clock, but not longer than it asked for by ours.
    let held_ms = wanted.poll_ms.clamp(0, HOLD_MS_MAX);
    let deadline_ms = ends_ms.min(now_ms + held_ms);
    let (Some(to), true) = (request.reply_to(), wanted.poll_ms > 0 && deadline_ms - now_ms > HOLD_MS_MIN)
    else {
        return Ok(pop.nothing(ResponseCode::POLLING_TIMEOUT, rest, now_ms).into());
    };
    let key = pop.key();
    match shard.popping.polls.park(key.clone(), request.connection, deadline_ms, ParkedPop { to, pop }) {
        Ok(()) => {
            if is_cut_short {
                shard.popping.look_again(key);
            }
            Ok(Answer::Later)
        }
        Err((_, ParkedPop { pop, .. })) => Ok(pop.nothing(ResponseCode::POLLING_FULL, rest, now_ms).into()),
    }
}
