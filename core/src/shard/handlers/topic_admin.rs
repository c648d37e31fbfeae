//! Topics by request: UPDATE_AND_CREATE_TOPIC (17), DELETE_TOPIC_IN_BROKER (215), GET_TOPIC_CONFIG (351),
//! GET_ALL_TOPIC_CONFIG (21), GET_TOPIC_STATS_INFO (202), UPDATE_AND_CREATE_TOPIC_LIST (18),
//! GET_SYSTEM_TOPIC_LIST_FROM_BROKER (305).

use std::collections::BTreeSet;

use apogee_net::body::{
    CreateTopicListRequestBody, MessageQueue, TopicConfig, TopicConfigAndMappingSerializeWrapper,
    TopicFilterType, TopicList, TopicOffset, TopicStatsTable, parse, to_fastjson,
};
use apogee_net::code::ResponseCode;
use apogee_net::request::{
    CreateTopicRequest, DeleteTopicRequest, GetTopicConfigRequest, GetTopicStatsInfoRequest, TypedHeader,
};
use apogee_storage::{Buffer, QueueOffset};

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::attributes;
use crate::shard::commit::Then;
use crate::shard::control::ControlRecord;
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

/// Topics of UPDATE_AND_CREATE_TOPIC_LIST: more would keep the shard from other work for too long, and this many may
/// wait for room in the log.
const TOPICS_PER_REQUEST_MAX: usize = 256;

/// Answered when the change is durable and the NameServers know it: tools read the route right after.
pub(super) fn update<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = CreateTopicRequest::decode(&request.header.ext)?;
    shard.check_changes_flow()?;
    let topic_filter_type = TopicFilterType::from_name(wanted.filter_type).ok_or_else(|| {
        let remark = format!("topicFilterType {:?}, expected SINGLE_TAG or MULTI_TAG", wanted.filter_type);
        Refusal::new(ResponseCode::INVALID_PARAMETER, remark)
    })?;
    let config = TopicConfig {
        attributes: attributes::parse_changes(wanted.attributes.unwrap_or_default())?,
        order: wanted.order,
        perm: wanted.perm.0,
        read_queue_nums: wanted.read_queues,
        topic_filter_type,
        topic_name: wanted.topic.to_owned(),
        topic_sys_flag: wanted.topic_sys_flag.unwrap_or(0),
        write_queue_nums: wanted.write_queues,
    };
    let change = shard.topics.update(config, now_ms)?;
    Ok(shard.answer_change(change, Then::Register(request.reply_to()), now_ms))
}

/// All of them or none. Answered as a single one is.
pub(super) fn update_list<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let CreateTopicListRequestBody { topic_config_list: wanted } = parse(request.body)?;
    shard.check_changes_flow()?;
    if wanted.len() > TOPICS_PER_REQUEST_MAX {
        let remark =
            format!("{} topics in one request, at most {TOPICS_PER_REQUEST_MAX} are taken", wanted.len());
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark).into());
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = wanted.iter().find(|config| !names.insert(&config.topic_name)) {
        let remark = format!("topic[{}] stands in the request twice", twice.topic_name);
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark).into());
    }
    let mut changes = shard.topics.update_all(wanted, now_ms)?;
    let last = changes.pop();
    for change in changes {
        shard.journal(change, Then::Nothing, now_ms);
    }
    Ok(shard.answer_change(last, Then::Register(request.reply_to()), now_ms))
}

pub(super) fn system<B: Buffer + 'static>(shard: &mut Shard<B>, _: &Request<'_>, _: i64) -> Handled {
    let topic_list = shard.topics.system_names().map(str::to_owned).collect();
    let body = TopicList { topic_list, broker_addr: None };
    Ok(Reply::success().with_body(to_fastjson(&body)).into())
}

/// NameServers are told by the tool that deletes (216); a registration never takes a topic away.
pub(super) fn delete<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = DeleteTopicRequest::decode(&request.header.ext)?;
    shard.check_changes_flow()?;
    let retry_topics = shard.pop_retry_topics_of(wanted.topic);
    let change = shard.topics.delete(wanted.topic, now_ms)?;
    if let Some(ControlRecord::TopicDelete { number, .. }) = &change {
        shard.stats.meters.on_topic_deleted(*number);
    }
    change.iter().for_each(|record| shard.forget(record));
    for topic in retry_topics {
        if let Some(record) = shard.topics.delete(&topic, now_ms)? {
            shard.forget(&record);
            shard.journal(record, Then::Nothing, now_ms);
        }
    }
    Ok(shard.answer_change(change, Then::Succeed(request.reply_to()), now_ms))
}

pub(super) fn get<B: Buffer + 'static>(shard: &mut Shard<B>, request: &Request<'_>, _: i64) -> Handled {
    let wanted = GetTopicConfigRequest::decode(&request.header.ext)?;
    let topic = shard.topics.get(wanted.topic).ok_or_else(|| Refusal::topic_unknown(wanted.topic))?;
    Ok(Reply::success().with_body(to_fastjson(topic.config())).into())
}

pub(super) fn get_all<B: Buffer + 'static>(shard: &mut Shard<B>, _: &Request<'_>, _: i64) -> Handled {
    let body = TopicConfigAndMappingSerializeWrapper {
        data_version: shard.topics.version(),
        topic_config_table: shard
            .topics
            .iter()
            .map(|topic| (topic.config().topic_name.clone(), topic.config().clone()))
            .collect(),
        ..Default::default()
    };
    Ok(Reply::success().with_body(to_fastjson(&body)).into())
}

pub(super) fn stats<B: Buffer + 'static>(shard: &mut Shard<B>, request: &Request<'_>, _: i64) -> Handled {
    let wanted = GetTopicStatsInfoRequest::decode(&request.header.ext)?;
    let topic = shard.topics.get(wanted.topic).ok_or_else(|| Refusal::topic_unknown(wanted.topic))?;
    let config = topic.config();
    let mut table = TopicStatsTable::default();
    for queue_id in 0..config.read_queue_nums.max(config.write_queue_nums) {
        let Some(queue) = topic.queue_to_write(queue_id) else { continue };
        let (min, max) = (shard.log.min_offset(queue), shard.log.max_offset(queue));
        let last = match max.0.checked_sub(1) {
            Some(last) => shard.log.entry(queue, QueueOffset(last))?,
            None => None,
        };
        let name = MessageQueue {
            topic: config.topic_name.clone(),
            broker_name: shard.config.broker_name.clone(),
            queue_id,
        };
        let offsets = TopicOffset {
            last_update_timestamp: last.map_or(0, |entry| entry.store_time_ms),
            max_offset: max.0 as i64,
            min_offset: min.0 as i64,
        };
        table.offset_table.insert(name, offsets);
    }
    Ok(Reply::success().with_body(to_fastjson(&table)).into())
}
