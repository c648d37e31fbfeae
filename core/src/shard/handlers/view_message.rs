//! VIEW_MESSAGE_BY_ID (33): one message by its place in the log (`QueryMessageProcessor#viewMessageById`).

use apogee_net::code::ResponseCode;
use apogee_net::message::StoredMessage;
use apogee_net::request::{TypedHeader, ViewMessageRequest};
use apogee_storage::{Buffer, LogOffset};
use bytes::Bytes;

use super::{Answer, Handled};
use crate::service::{Reply, Request};
use crate::shard::load::{LoadError, Wanted};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let ViewMessageRequest { offset, .. } = ViewMessageRequest::decode(&request.header.ext)?;
    let to = request.reply_to();
    let Ok(at) = u64::try_from(offset) else { return Ok(not_found(offset).into()) };
    if at >= shard.log.marks().committed.0 {
        let remark = format!("can not find message by the offset, {offset}");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark).for_leader().into());
    }
    let then = move |shard: &mut Shard<B>, loaded: Result<Bytes, LoadError>, _: i64| {
        let reply = match loaded {
            // What else is in the log is no message.
            Ok(bytes) if StoredMessage::decode(&bytes).is_ok() => Reply::success().with_body(bytes),
            Ok(_) | Err(LoadError::Missing) => not_found(offset),
            Err(error @ LoadError::Busy) => Reply::error(ResponseCode::SYSTEM_BUSY, error.to_string()),
            Err(error) => Reply::error(ResponseCode::SYSTEM_ERROR, error.to_string()),
        };
        shard.reply(to, reply);
    };
    shard.load(Wanted::At(LogOffset(at)), now_ms, Box::new(then));
    Ok(Answer::Later)
}

fn not_found(offset: i64) -> Reply {
    Reply::error(ResponseCode::SYSTEM_ERROR, format!("can not find message by the offset, {offset}"))
}
