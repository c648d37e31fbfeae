//! UPDATE_AND_GET_GROUP_FORBIDDEN (353): may a group consume a topic?

use apogee_net::body::{GroupForbidden, to_fastjson};
use apogee_net::request::{TypedHeader, UpdateGroupForbiddenRequest};
use apogee_storage::Buffer;

use super::{Answer, Handled};
use crate::service::{Reply, Request};
use crate::shard::commit::Then;
use crate::shard::state::Shard;

pub(super) fn update<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let UpdateGroupForbiddenRequest { group, topic, readable } =
        UpdateGroupForbiddenRequest::decode(&request.header.ext)?;
    let change = match readable {
        Some(readable) => {
            shard.check_changes_flow()?;
            shard.forbidden.set(group, topic, readable)?
        }
        None => None,
    };
    let body = GroupForbidden {
        group: group.to_owned(),
        readable: shard.forbidden.is_readable(group, topic),
        topic: topic.to_owned(),
    };
    let reply = Reply::success().with_body(to_fastjson(&body));
    match change {
        Some(record) => {
            shard.journal(record, Then::Reply(request.reply_to(), reply), now_ms);
            Ok(Answer::Later)
        }
        None => Ok(reply.into()),
    }
}
