//! Which groups consume what, and where they stand: QUERY_TOPIC_CONSUME_BY_WHO (300), QUERY_TOPICS_BY_CONSUMER (343),
//! QUERY_SUBSCRIPTION_BY_CONSUMER (345), QUERY_CONSUME_TIME_SPAN (303), QUERY_CORRECTION_OFFSET (308),
//! GET_ALL_CONSUMER_OFFSET (43), CLONE_GROUP_OFFSET (314).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use apogee_net::body::{
    BodyInPieces, DataVersion, QueryCorrectionOffsetBody, QuerySubscriptionResponseBody, QueueTimeSpan,
    to_fastjson,
};
use apogee_net::code::ResponseCode;
use apogee_net::request::{
    CloneGroupOffsetRequest, QueryConsumeTimeSpanRequest, QueryCorrectionOffsetRequest,
    QuerySubscriptionByConsumerRequest, QueryTopicConsumeByWhoRequest, QueryTopicsByConsumerRequest,
    TypedHeader,
};
use apogee_storage::{Buffer, IndexFault, QueueKey, QueueOffset};

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::commit::Then;
use crate::shard::long_answer::{Progress, STEP_UNITS, done, more};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;
use crate::shard::topics::TopicNumber;

/// Live groups that subscribe to the topic, and groups that have offsets in it.
pub(super) fn groups_of_topic<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = QueryTopicConsumeByWhoRequest::decode(&request.header.ext)?;
    let topic = wanted.topic.to_owned();
    let mut body = BodyInPieces::default();
    body.open(r#"{"groupList":["#);
    let mut last: Option<Arc<str>> = None;
    let step = move |shard: &mut Shard<B>, _: i64| {
        for _ in 0..STEP_UNITS {
            let number = shard.topics.get(&topic).map(|topic| topic.number());
            let live = shard.clients.subscribers(&topic, last.as_deref()).next();
            let stored = number.and_then(|number| shard.offsets.groups_of(number, last.as_deref()).next());
            let Some(group) = live.into_iter().chain(stored).min().cloned() else {
                body.open("]}");
                return done(std::mem::take(&mut body));
            };
            body.element(&group.to_string());
            last = Some(group);
        }
        more(&body)
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}

pub(super) fn topics_of_group<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = QueryTopicsByConsumerRequest::decode(&request.header.ext)?;
    let group = wanted.group.to_owned();
    let mut body = BodyInPieces::default();
    body.open(r#"{"brokerAddr":"#);
    body.value(&shard.config.address.to_string());
    body.open(r#","topicList":["#);
    let mut last = None;
    let step = move |shard: &mut Shard<B>, _: i64| {
        for _ in 0..STEP_UNITS {
            let Some(number) = shard.offsets.topics_after(&group, last).next() else {
                body.open("]}");
                return done(std::mem::take(&mut body));
            };
            if let Some(topic) = shard.topics.by_number(number) {
                body.element(&topic.config().topic_name);
            }
            last = Some(number);
        }
        more(&body)
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}

/// Without a live group, or without its subscription: an answer that leaves the subscription out.
pub(super) fn subscription<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    _now_ms: i64,
) -> Handled {
    let wanted = QuerySubscriptionByConsumerRequest::decode(&request.header.ext)?;
    let members = shard.clients.consumer_group(wanted.group);
    let known = members.zip(wanted.topic).and_then(|(members, topic)| members.subscription(topic));
    let body = QuerySubscriptionResponseBody {
        group: wanted.group.to_owned(),
        subscription_data: known.map(|known| known.data().clone()),
        topic: wanted.topic.map(str::to_owned),
    };
    Ok(Reply::success().with_body(to_fastjson(&body)).into())
}

pub(super) fn time_span<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = QueryConsumeTimeSpanRequest::decode(&request.header.ext)?;
    let (name, group) = (wanted.topic.to_owned(), wanted.group.to_owned());
    let mut body = BodyInPieces::default();
    body.open(r#"{"consumeTimeSpanSet":["#);
    let mut queue_id = 0;
    let step = move |shard: &mut Shard<B>, now_ms: i64| {
        let topic = shard
            .topics
            .get(&name)
            .ok_or_else(|| Refusal::new(ResponseCode::TOPIC_NOT_EXIST, format!("topic[{name}] not exist")))?;
        for _ in 0..STEP_UNITS / 4 {
            if queue_id >= topic.config().write_queue_nums {
                body.open("]}");
                return done(std::mem::take(&mut body));
            }
            let queue = topic.number().queue(queue_id as u32);
            let times = shard.times(&group, queue, now_ms)?;
            body.element(&QueueTimeSpan { message_queue: shard.message_queue(topic, queue_id), ..times });
            queue_id += 1;
        }
        more(&body)
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}

/// What RocketMQ says of a message that is not there.
const NO_TIME: i64 = -1;

impl<B: Buffer + 'static> Shard<B> {
    fn times(&self, group: &str, queue: QueueKey, now_ms: i64) -> Result<QueueTimeSpan, IndexFault> {
        let (min, max) = (self.log.min_offset(queue), self.log.max_offset(queue));
        let at = |offset| self.stored_at(queue, offset);
        let first = at(min)?.unwrap_or(NO_TIME);
        let last = match max.0.checked_sub(1) {
            Some(last) => at(QueueOffset(last))?.unwrap_or(NO_TIME),
            None => NO_TIME,
        };
        let next = self.consumed_to(group, queue).unwrap_or(min).max(min);
        let consumed = match next.0.checked_sub(1) {
            Some(last) if last >= min.0 => at(QueueOffset(last))?.unwrap_or(first),
            _ => first,
        };
        let delay = at(next)?.map_or(0, |stored_ms| now_ms - stored_ms);
        Ok(QueueTimeSpan {
            consume_time_stamp: consumed,
            consume_time_stamp_str: time_text(consumed),
            delay_time: delay,
            max_time_stamp: last,
            max_time_stamp_str: time_text(last),
            min_time_stamp: first,
            min_time_stamp_str: time_text(first),
            ..QueueTimeSpan::default()
        })
    }
}

/// `yyyy-MM-dd#HH:mm:ss:SSS`, in UTC; RocketMQ takes the broker's time zone.
fn time_text(ms: i64) -> String {
    const DAY_MS: i64 = 86_400_000;
    let (day, of_day) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    let (year, month, day) = date(day);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}#{hour:02}:{minute:02}:{second:02}:{milli:03}")
}

/// Year, month and day of a day counted from 1970-01-01, by H. Hinnant's `civil_from_days`: years begin in March, so
/// that the day that is there only sometimes is the last one.
fn date(days: i64) -> (i64, i64, i64) {
    const ERA_DAYS: i64 = 146_097;
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// For each queue the least offset of all groups but those of `filterGroups`, and the greatest number there is where
/// `compareGroup` is behind it. RocketMQ also deletes the offsets of the filtered groups, which nobody can want.
pub(super) fn correction_offsets<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = QueryCorrectionOffsetRequest::decode(&request.header.ext)?;
    let filtered = wanted.filter_groups.into_iter().flat_map(|groups| groups.split(','));
    let filtered: BTreeSet<String> = filtered.map(str::to_owned).collect();
    let (topic, compared) = (wanted.topic.to_owned(), wanted.compare_group.to_owned());
    let mut least: BTreeMap<i32, i64> = BTreeMap::new();
    let mut last: Option<Arc<str>> = None;
    let step = move |shard: &mut Shard<B>, _: i64| {
        let number = shard.topics.get(&topic).map(|topic| topic.number());
        let mut units = 0;
        while units < STEP_UNITS {
            let next = number.and_then(|number| {
                shard
                    .offsets
                    .groups_of(number, last.as_deref())
                    .next()
                    .map(|group| (number, Arc::clone(group)))
            });
            let Some((number, group)) = next else {
                let compared =
                    number.into_iter().flat_map(|number| shard.offsets.of_topic(&compared, number));
                for (queue, offset) in compared {
                    let (_, queue_id) = TopicNumber::of(queue);
                    if let Some(least) = least.get_mut(&(queue_id as i32))
                        && *least > offset.0 as i64
                    {
                        *least = i64::MAX;
                    }
                }
                let body = QueryCorrectionOffsetBody { correction_offsets: std::mem::take(&mut least) };
                return Ok(Progress::Done(Reply::success().with_body(to_fastjson(&body))));
            };
            units += 1;
            let offsets = shard.offsets.of_topic(&group, number).filter(|_| !filtered.contains(&*group));
            for (queue, offset) in offsets {
                units += 1;
                if offset >= shard.log.min_offset(queue) {
                    let (_, queue_id) = TopicNumber::of(queue);
                    let least = least.entry(queue_id as i32).or_insert(i64::MAX);
                    *least = (*least).min(offset.0 as i64);
                }
            }
            last = Some(group);
        }
        Ok(Progress::More)
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}

/// Every group's offset in every queue, for replicas of RocketMQ's. The table has no version of its own.
pub(super) fn all_offsets<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let mut body = BodyInPieces::default();
    body.open(r#"{"dataVersion":"#);
    body.value(&DataVersion::default());
    body.open(r#","offsetTable":{"#);
    let mut group: Option<Arc<str>> = None;
    let mut last: Option<QueueKey> = None;
    let mut open_topic: Option<TopicNumber> = None;
    let step = move |shard: &mut Shard<B>, _: i64| {
        for _ in 0..STEP_UNITS {
            let next = group.as_deref().and_then(|group| shard.offsets.of_group_after(group, last).next());
            let Some((queue, offset)) = next else {
                if open_topic.take().is_some() {
                    body.end("}");
                }
                let from = group.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let Some(next) = shard.offsets.groups_from(from).next() else {
                    body.open("}}");
                    return done(std::mem::take(&mut body));
                };
                (group, last) = (Some(Arc::clone(next)), None);
                continue;
            };
            last = Some(queue);
            let (number, queue_id) = TopicNumber::of(queue);
            if open_topic != Some(number) {
                if open_topic.take().is_some() {
                    body.end("}");
                }
                let (Some(topic), Some(group)) = (shard.topics.by_number(number), &group) else { continue };
                body.begin_entry(&format!("{}@{group}", topic.config().topic_name), "{");
                open_topic = Some(number);
            }
            body.entry(&(queue_id as i32), &(offset.0 as i64));
        }
        more(&body)
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}

/// Gives a group the offsets of another, in one topic or in all; answered when that is durable.
pub(super) fn clone_offsets<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = CloneGroupOffsetRequest::decode(&request.header.ext)?;
    let (source, target) = (wanted.src_group.to_owned(), wanted.dest_group.to_owned());
    let only = wanted.topic.filter(|topic| !topic.trim().is_empty()).map(str::to_owned);
    let offline = wanted.offline;
    let to = request.reply_to();
    let mut last: Option<QueueKey> = None;
    let step = move |shard: &mut Shard<B>, now_ms: i64| {
        shard.check_changes_flow()?;
        let offsets: Vec<_> = shard.offsets.of_group_after(&source, last).take(STEP_UNITS).collect();
        let is_last = offsets.len() < STEP_UNITS;
        last = offsets.last().map_or(last, |(queue, _)| Some(*queue));
        for (queue, offset) in offsets {
            let topic = shard.topics.by_number(TopicNumber::of(queue).0);
            let Some(topic) = topic.map(|topic| topic.config().topic_name.as_str()) else { continue };
            let is_wanted = only.as_deref().is_none_or(|only| only == topic);
            if is_wanted && (offline || shard.is_shown(&source, topic)) {
                shard.offsets.commit(&target, queue, offset)?;
            }
        }
        if !is_last {
            return Ok(Progress::More);
        }
        shard.log_offsets_then(Then::Succeed(to), now_ms);
        Ok(Progress::Elsewhere)
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_java_does() {
        for (ms, text) in [
            (0, "1970-01-01#00:00:00:000"),
            (-1, "1969-12-31#23:59:59:999"),
            (951_827_696_789, "2000-02-29#12:34:56:789"),
            (1_700_000_000_123, "2023-11-14#22:13:20:123"),
            (4_107_542_400_000, "2100-03-01#00:00:00:000"),
        ] {
            assert_eq!(time_text(ms), text);
        }
    }
}
