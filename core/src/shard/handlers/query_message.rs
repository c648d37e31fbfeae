//! QUERY_MESSAGE (12): messages by key (`QueryMessageProcessor#queryMessage`).

use apogee_net::request::{QueryMessageRequest, TypedHeader};
use apogee_storage::Buffer;

use super::{Answer, Handled};
use crate::service::Request;
use crate::shard::query::KeyQuery;
use crate::shard::state::Shard;

/// `defaultQueryMaxNum`: for a message's own key the broker chooses how many.
const OF_UNIQUE_KEY_MAX: usize = 32;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = QueryMessageRequest::decode(&request.header.ext)?;
    let Some(to) = request.reply_to() else { return Ok(Answer::Later) };
    let messages_max = match wanted.is_unique_key {
        true => OF_UNIQUE_KEY_MAX,
        false => usize::try_from(wanted.messages_max).unwrap_or(0),
    };
    let query = KeyQuery {
        topic: wanted.topic.into(),
        key: wanted.key.into(),
        times_ms: wanted.begin_timestamp..=wanted.end_timestamp,
        messages_max,
    };
    shard.search(to, query, now_ms)?;
    Ok(Answer::Later)
}
