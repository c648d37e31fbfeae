//! Topics by request: UPDATE_AND_CREATE_TOPIC (17), DELETE_TOPIC_IN_BROKER (215), GET_TOPIC_CONFIG (351),
//! GET_ALL_TOPIC_CONFIG (21), GET_TOPIC_STATS_INFO (202), UPDATE_AND_CREATE_TOPIC_LIST (18),
//! GET_SYSTEM_TOPIC_LIST_FROM_BROKER (305).

use std::collections::BTreeSet;

use apogee_net::body::{
    BodyInPieces, CreateTopicListRequestBody, DataVersion, MessageQueue, TopicConfig, TopicFilterType,
    TopicList, TopicOffset, parse, to_fastjson,
};
use apogee_net::code::ResponseCode;
use apogee_net::request::{
    CreateTopicRequest, DeleteTopicRequest, GetAllTopicConfigReply, GetAllTopicConfigRequest,
    GetTopicConfigRequest, GetTopicStatsInfoRequest, TypedHeader,
};
use apogee_storage::{Buffer, QueueOffset};

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::attributes;
use crate::shard::commit::Then;
use crate::shard::control::ControlRecord;
use crate::shard::long_answer::{Progress, STEP_UNITS, done, more};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;
use crate::shard::stats::Period;

/// Topics of UPDATE_AND_CREATE_TOPIC_LIST: more would keep the shard from other work for too long, and this many may
/// wait for room in the log.
const TOPICS_PER_REQUEST_MAX: usize = 256;

/// A configuration is written in the time of this many units of a long answer.
const UNITS_PER_TOPIC: usize = 2;

/// Most topics of a page, for who asks for pages (`splitMetadataSize`).
const PAGE_TOPICS_MAX: usize = 2000;

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
    let topic = shard.topics.get(wanted.topic).ok_or_else(|| {
        let remark = format!("No topic in this broker. topic: {}", wanted.topic);
        Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark)
    })?;
    Ok(Reply::success().with_body(to_fastjson(topic.config())).into())
}

/// All topics in the order of their changes, or a page of them for who asks for one. One that changes meanwhile stands
/// there twice, the second time as it is then.
pub(super) fn get_all<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = GetAllTopicConfigRequest::decode(&request.header.ext)?;
    let GetAllTopicConfigRequest { topic_seq, data_version, max_topic_num } = wanted;
    let version = shard.topics.version();
    let known = data_version.and_then(|json| parse::<DataVersion>(json.as_bytes()).ok());
    let is_paged = topic_seq.is_some() || data_version.is_some() || max_topic_num.is_some();
    // Who saw another version begins anew.
    let first = topic_seq.filter(|_| known == Some(version)).map_or(0, |seq| seq.max(0) as usize);
    let mut left = match is_paged {
        true => max_topic_num.map_or(PAGE_TOPICS_MAX, |max| PAGE_TOPICS_MAX.min(max.max(0) as usize)),
        false => usize::MAX,
    };
    let mut behind = DataVersion::default();
    if let Some(before) = first.checked_sub(1) {
        match shard.topics.changed_since(behind).nth(before) {
            Some(last) => behind.counter = last.changed_at(),
            None => left = 0,
        }
    }
    let mut body = BodyInPieces::default();
    body.open(r#"{"dataVersion":"#);
    body.value(&version);
    body.open(r#","mappingDataVersion":"#);
    body.value(&DataVersion::default());
    body.open(r#","topicConfigTable":{"#);
    let step = move |shard: &mut Shard<B>, _: i64| {
        let step_max = left.min(STEP_UNITS / UNITS_PER_TOPIC);
        let mut written = 0;
        for topic in shard.topics.changed_since(behind).take(step_max) {
            body.entry(&topic.config().topic_name, topic.config());
            behind.counter = topic.changed_at();
            written += 1;
        }
        left -= written;
        if written == step_max && left > 0 {
            return more(&body);
        }
        body.open(r#"},"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{}}"#);
        let total_topic_num = shard.topics.len() as i32;
        Ok(match done(std::mem::take(&mut body))? {
            Progress::Done(reply) => {
                Progress::Done(reply.with_ext(GetAllTopicConfigReply { total_topic_num }))
            }
            progress => progress,
        })
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}

/// Of a topic that is deleted meanwhile, what was found until then.
pub(super) fn stats<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = GetTopicStatsInfoRequest::decode(&request.header.ext)?;
    let topic = shard.topics.get(wanted.topic).ok_or_else(|| Refusal::topic_unknown(wanted.topic))?;
    let config = topic.config();
    let number = topic.number();
    let queues = config.read_queue_nums.max(config.write_queue_nums);
    let topic_name = config.topic_name.clone();
    let put = shard.stats.meters.topic_figures(number, Period::Minute).unwrap_or_default();
    let mut next = 0;
    let mut body = BodyInPieces::default();
    body.open(r#"{"offsetTable":{"#);
    let step = move |shard: &mut Shard<B>, _: i64| {
        let end = queues.min(next + STEP_UNITS as i32);
        while next < end {
            let queue = number.queue(next as u32);
            let (min, max) = (shard.log.min_offset(queue), shard.log.max_offset(queue));
            let last = match max.0.checked_sub(1) {
                Some(last) => shard.log.entry(queue, QueueOffset(last))?,
                None => None,
            };
            let name = MessageQueue {
                topic: topic_name.clone(),
                broker_name: shard.config.broker_name.clone(),
                queue_id: next,
            };
            let offsets = TopicOffset {
                last_update_timestamp: last.map_or(0, |entry| entry.store_time_ms),
                max_offset: max.0 as i64,
                min_offset: min.0 as i64,
            };
            body.entry(&name, &offsets);
            next += 1;
        }
        if next < queues {
            return more(&body);
        }
        body.open(r#"},"topicPutTps":"#);
        body.value(&put.messages_per_second);
        body.open("}");
        done(std::mem::take(&mut body))
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}
