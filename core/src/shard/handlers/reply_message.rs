//! SEND_REPLY_MESSAGE (324), SEND_REPLY_MESSAGE_V2 (325): the reply to a request-reply message, handed to the client that
//! waits for it (`ReplyMessageProcessor`).

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::net::SocketAddr;

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::io::Chunk;
use apogee_net::message::{OffsetMessageId, Properties, PropertyEdit, property};
use apogee_net::request::{PushReplyRequest, SendMessageReply, SendMessageRequest, TypedHeader};
use apogee_storage::{Append, Buffer};
use smallvec::smallvec;

use super::{Answer, Handled};
use crate::service::{Reply, ReplyTo, Request};
use crate::shard::commit::Then;
use crate::shard::record::{NewMessage, REGION, ShardRecord};
use crate::shard::state::Shard;

/// How long the requester has to take the reply (`Broker2Client#callClient`).
const PUSH_TIMEOUT_MS: i64 = 10_000;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let send = SendMessageRequest::decode(&request.header.ext)?;
    shard.check_topic(&send, now_ms)?;
    let target = shard.choose_queue(&send, now_ms)?;
    let message = NewMessage {
        topic: &target.topic,
        queue_id: target.queue_id,
        flag: send.flag,
        sys_flag: send.sys_flag,
        born_timestamp: send.born_timestamp,
        born_host: request.peer,
        store_host: shard.config.address,
        reconsume_times: send.reconsume_times,
        prepared_transaction_offset: 0,
        body: request.body.clone(),
        properties: PropertyEdit::unchanged(send.properties.as_bytes()),
    };
    // As in RocketMQ, a reply that cannot be stored is handed over all the same.
    let can_be_stored = (1..=shard.config.message_bytes_max).contains(&request.body.len());
    let is_stored = can_be_stored && shard.settings.store_replies;
    let stored = is_stored.then(|| message.into_append(target.queue).ok()).flatten();
    let answering = Answering { to: request.reply_to(), queue_id: target.queue_id, stored };

    let requester = Properties(send.properties.as_bytes()).get(property::REPLY_TO_CLIENT);
    let Some(requester) = requester else {
        let remark = format!("reply message properties[{}] is null", property::REPLY_TO_CLIENT);
        shard.finish_reply(Err(remark), answering, now_ms);
        return Ok(Answer::Later);
    };
    let Some(connection) = shard.clients.producer_connection(requester) else {
        let remark = format!("push reply message fail, channel of <{requester}> not found.");
        shard.finish_reply(Err(remark), answering, now_ms);
        return Ok(Answer::Later);
    };
    let push = push_of(&send, request.peer, shard.config.address, now_ms);
    let not_taken = format!("push reply message to {requester}fail.");
    shard.call(
        connection,
        RequestCode::PUSH_REPLY_MESSAGE_TO_CLIENT,
        Box::new(push),
        smallvec![Chunk::Bytes(request.body.clone())],
        now_ms,
        PUSH_TIMEOUT_MS,
        Box::new(move |shard, answer, now_ms| {
            let is_taken = answer.is_ok_and(|answer| answer.code == ResponseCode::SUCCESS);
            shard.finish_reply(if is_taken { Ok(()) } else { Err(not_taken) }, answering, now_ms);
        }),
    );
    Ok(Answer::Later)
}

/// Who sent the reply and waits for its own answer.
struct Answering {
    to: Option<ReplyTo>,
    queue_id: i32,
    /// The reply as a message, if it is to be stored.
    stored: Option<Append<ShardRecord>>,
}

impl<B: Buffer + 'static> Shard<B> {
    /// The requester has the reply or will not get it; in either case it is stored, if that is wanted.
    fn finish_reply(&mut self, pushed: Result<(), String>, answering: Answering, now_ms: i64) {
        let Answering { to, queue_id, stored } = answering;
        let (Some(append), address) = (stored, self.config.address) else {
            return self.reply(to, answer(pushed, queue_id, None));
        };
        let unstored = pushed.clone();
        let then = Then::Do(Box::new(move |shard: &mut Shard<B>, stored, _| {
            let place = stored.ok().map(|places| {
                let physical_offset = places[0].log_offset.0 as i64;
                (OffsetMessageId { host: address, physical_offset }, places[0].queue_offset.0 as i64)
            });
            shard.reply(to, answer(pushed, queue_id, place));
        }));
        if self.stage([append], then, now_ms).is_err() {
            self.reply(to, answer(unstored, queue_id, None));
        }
    }
}

/// `ReplyMessageProcessor#handlePushReplyResult` and `#handlePutMessageResult`.
fn answer(pushed: Result<(), String>, queue_id: i32, place: Option<(OffsetMessageId, i64)>) -> Reply {
    let reply = match &pushed {
        Ok(()) => Reply::success(),
        Err(remark) => Reply::error(ResponseCode::SYSTEM_ERROR, remark.clone()),
    };
    let (msg_id, queue_offset) = match place {
        Some((id, queue_offset)) => (Cow::Owned(id.to_string()), queue_offset),
        // The client cannot do without the fields.
        None if pushed.is_ok() => (Cow::Borrowed("0"), 0),
        None => return reply.with_ext([("MSG_REGION", REGION), ("TRACE_ON", "true")]),
    };
    reply.with_ext(SendMessageReply {
        msg_id,
        queue_id,
        queue_offset,
        transaction_id: None,
        batch_uniq_id: None,
        recall_handle: None,
        region: Some(REGION.into()),
        trace_on: Some(true),
    })
}

fn push_of(
    send: &SendMessageRequest<'_>,
    peer: SocketAddr,
    broker: SocketAddr,
    now_ms: i64,
) -> PushReplyRequest<'static> {
    let owned = |text: &str| Cow::Owned(text.to_owned());
    // Java writes IPv6 addresses without brackets.
    let host = |host: SocketAddr| Cow::Owned(format!("{}:{}", host.ip().to_canonical(), host.port()));
    let mut properties = Vec::new();
    let mut digits = itoa::Buffer::new();
    let set = [(property::PUSH_REPLY_TIME, digits.format(now_ms))];
    PropertyEdit { received: send.properties.as_bytes(), set: &set, remove: &[] }.write(&mut properties);
    let properties = String::from_utf8(properties).expect("made of texts");
    PushReplyRequest {
        producer_group: owned(send.producer_group),
        topic: owned(send.topic),
        default_topic: owned(send.default_topic),
        default_topic_queues: send.default_topic_queues,
        queue_id: send.queue_id,
        sys_flag: send.sys_flag,
        born_timestamp: send.born_timestamp,
        flag: send.flag,
        properties: Some(properties.into()),
        reconsume_times: Some(send.reconsume_times),
        unit_mode: send.unit_mode,
        born_host: host(peer),
        store_host: host(broker),
        store_timestamp: now_ms,
    }
}
