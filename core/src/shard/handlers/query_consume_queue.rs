//! QUERY_CONSUME_QUEUE (321): entries of a queue, for tools (`AdminBrokerProcessor#queryConsumeQueue`).

use apogee_net::body::{ConsumeQueueData, QueryConsumeQueueResponseBody, to_fastjson};
use apogee_net::code::ResponseCode;
use apogee_net::request::{QueryConsumeQueueRequest, TypedHeader};
use apogee_storage::{Buffer, QueueOffset, ReadLimits};

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::filter::{Filter, Subscription};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

/// Entries of one answer; tools ask for ten.
const ENTRIES_MAX: u32 = 4096;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    _now_ms: i64,
) -> Handled {
    let wanted = QueryConsumeQueueRequest::decode(&request.header.ext)?;
    let name = format!("{}@{}", wanted.queue_id, wanted.topic);
    let unknown = || Refusal::new(ResponseCode::SYSTEM_ERROR, format!("{name} is not exist!"));
    let queue = shard
        .topics
        .get(wanted.topic)
        .and_then(|topic| topic.queue_to_write(wanted.queue_id))
        .ok_or_else(unknown)?;
    let (min, max) = (shard.log.min_offset(queue), shard.log.max_offset(queue));
    // A queue has no file before its first message.
    if max == QueueOffset(0) {
        return Err(unknown().into());
    }
    let index = u64::try_from(wanted.index).ok().map(QueueOffset).filter(|index| (min..max).contains(index));
    let Some(index) = index else {
        let remark = format!("Index {} of {name} is not exist!", wanted.index);
        return Ok(Reply::success().with_remark(remark).into());
    };
    let count = u32::try_from(wanted.count).unwrap_or(0).min(ENTRIES_MAX);
    let mut entries = Vec::new();
    let limits = ReadLimits { messages_max: count, bytes_max: u64::MAX, examine_max: count };
    let plan = shard.log.plan_read(queue, index, limits, |entry| {
        entries.push(ConsumeQueueData {
            physic_offset: entry.log_offset.0 as i64,
            physic_size: entry.size as i32,
            tags_code: entry.tag_hash.into(),
            ..Default::default()
        });
        // Only looked at.
        false
    });
    if let (true, Some(fault)) = (entries.is_empty(), plan.fault) {
        return Err(fault.into());
    }
    let subscription = wanted.consumer_group.map(|group| {
        shard
            .clients
            .consumer_group(group)
            .and_then(|members| members.subscription(wanted.topic))
            .ok_or(group)
    });
    let body = QueryConsumeQueueResponseBody {
        filter_data: subscription.map(|subscription| match subscription {
            Ok(subscription) => filter_data(subscription, wanted.consumer_group.unwrap_or_default()),
            Err(group) => format!("{group}@{} is not online!", wanted.topic),
        }),
        max_queue_index: max.0 as i64,
        min_queue_index: min.0 as i64,
        queue_data: entries,
        subscription_data: subscription.and_then(Result::ok).map(|known| known.data().clone()),
    };
    Ok(Reply::success().with_body(to_fastjson(&body)).into())
}

/// `ConsumerFilterData` as JSON, of what there is of it here; `null` for tags.
fn filter_data(subscription: &Subscription, group: &str) -> String {
    match subscription.filter() {
        Ok(Filter::Sql(_)) => {
            let data = subscription.data();
            let json = serde_json::json!({
                "clientVersion": data.sub_version,
                "consumerGroup": group,
                "dead": false,
                "expression": data.sub_string,
                "expressionType": data.expression_type,
                "topic": data.topic,
            });
            format!("{json:#}")
        }
        Ok(Filter::Tags(_)) | Err(_) => "null".to_owned(),
    }
}
