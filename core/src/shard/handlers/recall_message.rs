//! RECALL_MESSAGE (370): a producer takes a message back that waits for its time (`RecallMessageProcessor`).

use apogee_net::code::ResponseCode;
use apogee_net::message::RecallHandle;
use apogee_net::request::{RecallMessageReply, RecallMessageRequest, TypedHeader};
use apogee_storage::Buffer;

use super::{Answer, Handled};
use crate::service::{Reply, Request};
use crate::shard::record::REGION;
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let recall = RecallMessageRequest::decode(&request.header.ext)?;
    if !shard.settings.recall_enable {
        let remark = "recall failed, operation is forbidden";
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark).into());
    }
    if shard.topics.get(recall.topic).is_none() {
        let remark = format!("recall failed, the topic[{}] not exist", recall.topic);
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark).into());
    }
    let illegal = |remark: &'static str| Refusal::new(ResponseCode::ILLEGAL_OPERATION, remark);
    let handle = RecallHandle::decode(recall.recall_handle)
        .map_err(|error| Refusal::new(ResponseCode::ILLEGAL_OPERATION, error.to_string()))?;
    if handle.topic != recall.topic {
        return Err(illegal("recall failed, topic not match").into());
    }
    if handle.broker_name != shard.config.broker_name {
        return Err(illegal("recall failed, broker service not available").into());
    }
    let delay_max_ms = shard.settings.timer_delay_max_sec as i64 * 1_000;
    let due_ms: i64 = handle.due_ms.parse().unwrap_or(-1);
    if due_ms <= now_ms || due_ms - now_ms >= delay_max_ms {
        return Err(illegal("recall failed, timestamp invalid").into());
    }
    let reply = Reply::success().with_ext(RecallMessageReply {
        msg_id: handle.unique_key.clone().into(),
        region: Some(REGION.into()),
    });
    shard.recall(recall.topic, &handle.unique_key, (request.reply_to(), reply), now_ms);
    Ok(Answer::Later)
}
