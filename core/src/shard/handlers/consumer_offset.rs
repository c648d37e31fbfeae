//! QUERY_CONSUMER_OFFSET (14), UPDATE_CONSUMER_OFFSET (15): a group's progress in a queue.

use apogee_net::code::ResponseCode;
use apogee_net::request::{
    QueryConsumerOffsetReply, QueryConsumerOffsetRequest, TypedHeader, UpdateConsumerOffsetRequest,
};
use apogee_storage::{Buffer, QueueKey, QueueOffset, ReadLimits, Run};

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

pub(super) fn query<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    _now_ms: i64,
) -> Handled {
    let wanted = QueryConsumerOffsetRequest::decode(&request.header.ext)?;
    let queue = shard.topics.get(wanted.topic).and_then(|topic| topic.queue_to_read(wanted.queue_id));
    let stored = queue.and_then(|queue| shard.consumed_to(wanted.consumer_group, queue));
    if stored.is_none() && !wanted.set_zero_if_not_found {
        let remark = "Not found, do not set to zero, maybe this group boot first";
        return Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark).into());
    }
    // A group that comes to a young topic for the first time sees it from its first message, whatever it says about
    // where to start (`ConsumerManageProcessor#queryConsumerOffset`).
    let begins_at_zero = || queue.is_some_and(|queue| shard.holds_first_message_in_memory(queue));
    match stored {
        Some(offset) => Ok(found(offset).into()),
        None if begins_at_zero() => Ok(found(QueueOffset(0)).into()),
        // The only right "unknown": any other error makes 4.x consumers start at the end of the queue.
        None => Err(Refusal::new(
            ResponseCode::QUERY_NOT_FOUND,
            "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first",
        )
        .into()),
    }
}

fn found(offset: QueueOffset) -> Reply {
    Reply::success().with_ext(QueryConsumerOffsetReply { offset: offset.0 as i64 })
}

impl<B: Buffer + 'static> Shard<B> {
    /// Where a group goes on in a queue; `None` if it has never committed an offset there.
    pub(in crate::shard) fn consumed_to(&self, group: &str, queue: QueueKey) -> Option<QueueOffset> {
        self.resets.pending(group, queue).or_else(|| self.offsets.query(group, queue))
    }

    pub(in crate::shard) fn holds_first_message_in_memory(&self, queue: QueueKey) -> bool {
        let first = ReadLimits { messages_max: 1, bytes_max: u64::MAX, examine_max: 1 };
        let plan = self.log.plan_read(queue, QueueOffset(0), first, |_| true);
        matches!(plan.runs.first(), Some(Run::Memory(_)))
    }
}

pub(super) fn update<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    _now_ms: i64,
) -> Handled {
    let invalid = |remark| Refusal::new(ResponseCode::INVALID_PARAMETER, remark);
    let ext = &request.header.ext;
    for (field, what) in [("queueId", "QueueId"), ("commitOffset", "Offset")] {
        if ext.iter().all(|(name, _)| name != field) {
            let topic = ext.iter().find(|(name, _)| *name == "topic").map_or("null", |(_, topic)| topic);
            return Err(invalid(format!("{what} is null, topic is {topic}")).into());
        }
    }
    let wanted = UpdateConsumerOffsetRequest::decode(ext)?;
    if shard.groups.get(wanted.consumer_group).is_none() {
        let remark = format!("Group {} not exist!", wanted.consumer_group);
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark).into());
    }
    let topic = shard.topics.get(wanted.topic).ok_or_else(|| {
        let remark = format!("Topic {} not exist!", wanted.topic);
        Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark)
    })?;
    let (queue, offset) =
        topic.queue_to_read(wanted.queue_id).zip(u64::try_from(wanted.commit_offset).ok()).ok_or_else(
            || invalid(format!("queueId {} or offset {} is illegal", wanted.queue_id, wanted.commit_offset)),
        )?;
    if shard.resets.pending(wanted.consumer_group, queue).is_some() {
        return Ok(Reply::success().with_remark("Offset has been previously reset").into());
    }
    shard.offsets.commit(wanted.consumer_group, queue, QueueOffset(offset))?;
    Ok(Reply::success().into())
}
