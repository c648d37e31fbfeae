//! SET_MESSAGE_REQUEST_MODE (401), GET_ALL_MESSAGE_REQUEST_MODE (402): whether a group pulls or pops a topic.

use apogee_net::body::{
    MessageRequestModeSerializeWrapper, SetMessageRequestModeRequestBody, parse, to_fastjson,
};
use apogee_net::code::ResponseCode;
use apogee_storage::Buffer;

use super::Handled;
use super::query_assignment::has_fixed_mode;
use crate::service::{Reply, Request};
use crate::shard::assignment::RequestModeRecord;
use crate::shard::commit::Then;
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

pub(super) fn set<B: Buffer + 'static>(shard: &mut Shard<B>, request: &Request<'_>, now_ms: i64) -> Handled {
    let wanted: SetMessageRequestModeRequestBody = parse(request.body)?;
    if has_fixed_mode(&wanted.topic) {
        let remark = "retry topic is not allowed to set mode";
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark).into());
    }
    if shard.topics.get(&wanted.topic).is_none() {
        let remark = format!("topic[{}] not exist", wanted.topic);
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark).into());
    }
    shard.ensure_group(&wanted.consumer_group, now_ms).map_err(|refusal| match refusal.code {
        ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST => {
            Refusal { remark: "subscription group does not exist".into(), ..refusal }
        }
        _ => refusal,
    })?;
    shard.check_changes_flow()?;
    let record = shard.request_modes.set(&wanted)?;
    Ok(shard.answer_change(Some(record), Then::Succeed(request.reply_to()), now_ms))
}

pub(super) fn get_all<B: Buffer + 'static>(shard: &mut Shard<B>, _: &Request<'_>, _: i64) -> Handled {
    let mut body = MessageRequestModeSerializeWrapper::default();
    for RequestModeRecord { topic, group, mode, pop_share_queue_num } in shard.request_modes.iter() {
        let of_group = SetMessageRequestModeRequestBody {
            topic: topic.clone(),
            consumer_group: group.clone(),
            mode,
            pop_share_queue_num,
        };
        body.modes.entry(topic).or_default().insert(group, of_group);
    }
    Ok(Reply::success().with_body(to_fastjson(&body)).into())
}
