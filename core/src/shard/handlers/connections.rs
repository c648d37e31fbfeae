//! Who is connected: GET_CONSUMER_CONNECTION_LIST (203), GET_PRODUCER_CONNECTION_LIST (204), GET_ALL_PRODUCER_INFO
//! (328).

use std::ops::Bound;

use apogee_net::body::{BodyInPieces, Connection, ProducerInfo};
use apogee_net::code::ResponseCode;
use apogee_net::io::ConnectionId;
use apogee_net::request::{GetConsumerConnectionListRequest, GetProducerConnectionListRequest, TypedHeader};
use apogee_storage::Buffer;

use super::Handled;
use crate::service::Request;
use crate::shard::clients::Member;
use crate::shard::long_answer::{STEP_UNITS, done, more};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

/// Tools take this code for "offline" and any other for a failure.
pub(super) fn consumers<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = GetConsumerConnectionListRequest::decode(&request.header.ext)?;
    let group = wanted.consumer_group.to_owned();
    let mut body = BodyInPieces::default();
    body.open(r#"{"connectionSet":["#);
    let mut last = None;
    let mut topics: Option<std::vec::IntoIter<String>> = None;
    let step = move |shard: &mut Shard<B>, _: i64| {
        let members = shard.clients.consumer_group(&group).ok_or_else(|| {
            let remark = format!("the consumer group[{group}] not online");
            Refusal::new(ResponseCode::CONSUMER_NOT_ONLINE, remark)
        })?;
        let topics = match &mut topics {
            Some(topics) => topics,
            None => {
                if write_members(members.members_after(last), &mut last, &mut body) {
                    return more(&body);
                }
                body.open(r#"],"consumeFromWhere":"#);
                body.value(&members.consume_from_where());
                body.open(r#","consumeType":"#);
                body.value(&members.consume_type());
                body.open(r#","messageModel":"#);
                body.value(&members.message_model());
                body.open(r#","subscriptionTable":{"#);
                let mut names: Vec<_> =
                    members.subscriptions().map(|known| known.data().topic.clone()).collect();
                names.sort_unstable();
                topics.insert(names.into_iter())
            }
        };
        for topic in topics.by_ref().take(STEP_UNITS) {
            if let Some(subscription) = members.subscription(&topic) {
                body.entry(&topic, subscription.data());
            }
        }
        if topics.len() > 0 {
            return more(&body);
        }
        body.open("}}");
        done(std::mem::take(&mut body))
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}

pub(super) fn producers<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = GetProducerConnectionListRequest::decode(&request.header.ext)?;
    let group = wanted.producer_group.to_owned();
    let mut body = BodyInPieces::default();
    body.open(r#"{"connectionSet":["#);
    let mut last = None;
    let step = move |shard: &mut Shard<B>, _: i64| {
        if shard.clients.producers(&group).next().is_none() {
            let remark = format!("the producer group[{group}] not exist");
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark).into());
        }
        if write_members(shard.clients.producers_after(&group, last), &mut last, &mut body) {
            return more(&body);
        }
        body.open("]}");
        done(std::mem::take(&mut body))
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}

/// Writes the members of one step. True if there may be more, behind `last`.
fn write_members<'a>(
    members: impl Iterator<Item = (ConnectionId, &'a Member)>,
    last: &mut Option<ConnectionId>,
    body: &mut BodyInPieces,
) -> bool {
    let mut count = 0;
    for (connection, member) in members.take(STEP_UNITS) {
        body.element(&Connection {
            client_addr: member.address().to_string(),
            client_id: member.client_id().to_owned(),
            language: member.language().name().to_owned(),
            version: member.version(),
        });
        *last = Some(connection);
        count += 1;
    }
    count == STEP_UNITS
}

pub(super) fn all_producers<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let mut body = BodyInPieces::default();
    body.open(r#"{"data":{"#);
    // The group whose list is open, and its member that was written last.
    let mut at: Option<(String, Option<ConnectionId>)> = None;
    let mut done_group: Option<String> = None;
    let step = move |shard: &mut Shard<B>, _: i64| {
        for _ in 0..STEP_UNITS {
            let Some((group, last)) = &mut at else {
                let from = done_group.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let Some(group) = shard.clients.producer_group_from(from) else {
                    body.open("}}");
                    return done(std::mem::take(&mut body));
                };
                let group = group.to_owned();
                body.begin_entry(&group, "[");
                at = Some((group, None));
                continue;
            };
            let Some((connection, member)) = shard.clients.producers_after(group, *last).next() else {
                body.end("]");
                done_group = at.take().map(|(group, _)| group);
                continue;
            };
            body.element(&ProducerInfo {
                client_id: member.client_id().to_owned(),
                language: member.language().name().to_owned(),
                last_update_timestamp: member.heard_ms(),
                // As Java writes an address (`Channel#remoteAddress`).
                remote_ip: format!("/{}", member.address()),
                version: member.version(),
            });
            *last = Some(connection);
        }
        more(&body)
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}
