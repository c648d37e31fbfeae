//! How far groups have come: GET_CONSUME_STATS (208), GET_BROKER_CONSUME_STATS (317).

use std::collections::BTreeSet;
use std::ops::Bound;

use apogee_net::body::{BodyInPieces, MessageQueue, OffsetWrapper};
use apogee_net::request::{GetConsumeStatsInBrokerRequest, GetConsumeStatsRequest, TypedHeader};
use apogee_storage::{Buffer, IndexFault, QueueKey, QueueOffset};

use super::Handled;
use crate::service::Request;
use crate::shard::long_answer::{STEP_UNITS, done, done_behind, more};
use crate::shard::state::Shard;
use crate::shard::stats::{GroupMeasure, Period};
use crate::shard::topics::{Topic, TopicNumber};

/// Between the topics of `topicList`.
const TOPIC_SEPARATOR: char = ';';

impl<B: Buffer + 'static> Shard<B> {
    pub(super) fn message_queue(&self, topic: &Topic, queue_id: i32) -> MessageQueue {
        MessageQueue {
            topic: topic.config().topic_name.clone(),
            broker_name: self.config.broker_name.clone(),
            queue_id,
        }
    }

    /// When a message was stored; `None` if it is not there.
    pub(super) fn stored_at(&self, queue: QueueKey, offset: QueueOffset) -> Result<Option<i64>, IndexFault> {
        if offset < self.log.min_offset(queue) || offset >= self.log.max_offset(queue) {
            return Ok(None);
        }
        Ok(self.log.entry(queue, offset)?.map(|entry| entry.store_time_ms))
    }

    fn progress(&self, group: &str, queue: QueueKey) -> Result<OffsetWrapper, IndexFault> {
        let consumed = self.consumed_to(group, queue).unwrap_or(QueueOffset(0));
        let pulled = self.offsets.pulled(group, queue).unwrap_or(QueueOffset(0));
        let last = match consumed.0.checked_sub(1) {
            Some(last) => self.stored_at(queue, QueueOffset(last))?,
            None => None,
        };
        Ok(OffsetWrapper {
            broker_offset: self.log.max_offset(queue).0 as i64,
            consumer_offset: consumed.0 as i64,
            last_timestamp: last.unwrap_or(0),
            pull_offset: pulled.max(consumed).0 as i64,
        })
    }

    /// Messages that a group gets of a topic in a second.
    fn get_tps(&self, group: &str, topic: TopicNumber) -> f64 {
        let figures = self.stats.meters.group_figures(group, topic, GroupMeasure::Got, Period::Minute);
        figures.map_or(0.0, |figures| figures.messages_per_second)
    }

    /// A live group is shown in the topics it subscribes to, one that is offline in all it has consumed.
    pub(super) fn is_shown(&self, group: &str, topic: &str) -> bool {
        self.clients
            .consumer_group(group)
            .is_none_or(|members| members.subscriptions().len() == 0 || members.subscription(topic).is_some())
    }
}

/// The topics that a request about a group means, one after the other.
enum Topics {
    Named(std::vec::IntoIter<String>),
    /// Those the group has offsets in, behind one.
    Consumed(Option<TopicNumber>),
}

impl Topics {
    fn next<B: Buffer + 'static>(&mut self, shard: &Shard<B>, group: &str) -> Option<TopicNumber> {
        loop {
            match self {
                Topics::Named(names) => {
                    if let Some(topic) = shard.topics.get(&names.next()?) {
                        return Some(topic.number());
                    }
                }
                Topics::Consumed(last) => {
                    let number = shard.offsets.topics_after(group, *last).next()?;
                    *last = Some(number);
                    return Some(number);
                }
            }
        }
    }
}

/// Topics: those of `topicList`, else `topic`, else all that the group has offsets in; the latter two only as far as a
/// live group subscribes to them (`AdminBrokerProcessor#getConsumeStats`).
pub(super) fn of_group<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = GetConsumeStatsRequest::decode(&request.header.ext)?;
    let group = wanted.consumer_group.to_owned();
    let listed: BTreeSet<&str> = wanted
        .topic_list
        .into_iter()
        .flat_map(|list| list.split(TOPIC_SEPARATOR))
        .filter(|topic| !topic.is_empty())
        .collect();
    let one = wanted.topic.filter(|topic| !topic.trim().is_empty());
    let asks_subscription = listed.is_empty();
    let mut topics = match one {
        _ if !listed.is_empty() => named(listed),
        Some(topic) => named([topic]),
        None => Topics::Consumed(None),
    };
    let mut body = BodyInPieces::default();
    let mut tps = 0.0;
    let mut at: Option<(TopicNumber, i32)> = None;
    let step = move |shard: &mut Shard<B>, _: i64| {
        for _ in 0..STEP_UNITS {
            let Some((number, queue_id)) = at else {
                let Some(number) = topics.next(shard, &group) else {
                    let mut head = BodyInPieces::default();
                    head.open(r#"{"consumeTps":"#);
                    head.value(&tps);
                    head.open(r#","offsetTable":{"#);
                    body.open("}}");
                    return done_behind(head, std::mem::take(&mut body));
                };
                at = Some((number, 0));
                continue;
            };
            let topic = shard.topics.by_number(number).filter(|topic| {
                let is_shown = !asks_subscription || shard.is_shown(&group, &topic.config().topic_name);
                queue_id < topic.config().read_queue_nums && is_shown
            });
            let Some(topic) = topic else {
                at = None;
                continue;
            };
            let progress = shard.progress(&group, number.queue(queue_id as u32))?;
            if queue_id == 0 {
                tps += shard.get_tps(&group, number);
            }
            body.entry(&shard.message_queue(topic, queue_id), &progress);
            at = Some((number, queue_id + 1));
        }
        more(&body)
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}

fn named<'a>(topics: impl IntoIterator<Item = &'a str>) -> Topics {
    Topics::Named(topics.into_iter().map(str::to_owned).collect::<Vec<_>>().into_iter())
}

/// Where the answer about all groups is.
enum At {
    /// Behind this group.
    Between(Option<String>),
    Group(String, Topics),
    Queue(String, Topics, TopicNumber, i32),
}

/// Every group, also those that have consumed nothing, with one entry for each topic
/// (`AdminBrokerProcessor#fetchAllConsumeStatsInBroker`).
pub(super) fn of_all_groups<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let GetConsumeStatsInBrokerRequest { is_order } =
        GetConsumeStatsInBrokerRequest::decode(&request.header.ext)?;
    let mut body = BodyInPieces::default();
    body.open(r#"{"brokerAddr":"#);
    body.value(&shard.config.address.to_string());
    body.open(r#","consumeStatsList":["#);
    let (mut diff, mut inflight) = (0, 0);
    let mut at = At::Between(None);
    let step = move |shard: &mut Shard<B>, _: i64| {
        for _ in 0..STEP_UNITS {
            match &mut at {
                At::Between(last) => {
                    let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                    let Some(config) = shard.groups.range(from).next() else {
                        body.open(&format!(r#"],"totalDiff":{diff},"totalInflightDiff":{inflight}}}"#));
                        return done(std::mem::take(&mut body));
                    };
                    let group = config.group_name.clone();
                    body.begin("{");
                    body.begin_entry(&group, "[");
                    at = At::Group(group, Topics::Consumed(None));
                }
                At::Group(group, topics) => match topics.next(shard, group) {
                    Some(number) => {
                        let is_shown = shard.topics.by_number(number).is_some_and(|topic| {
                            let config = topic.config();
                            (config.order || !is_order) && shard.is_shown(group, &config.topic_name)
                        });
                        if is_shown {
                            body.begin(r#"{"consumeTps":"#);
                            body.value(&shard.get_tps(group, number));
                            body.open(r#","offsetTable":{"#);
                            let topics = Topics::Consumed(Some(number));
                            at = At::Queue(std::mem::take(group), topics, number, 0);
                        }
                    }
                    None => {
                        body.end("]}");
                        at = At::Between(Some(std::mem::take(group)));
                    }
                },
                At::Queue(group, topics, number, queue_id) => {
                    let topic = shard.topics.by_number(*number);
                    let Some(topic) = topic.filter(|topic| *queue_id < topic.config().write_queue_nums)
                    else {
                        body.end("}}");
                        let topics = std::mem::replace(topics, Topics::Consumed(None));
                        at = At::Group(std::mem::take(group), topics);
                        continue;
                    };
                    let progress = shard.progress(group, number.queue(*queue_id as u32))?;
                    diff += progress.broker_offset - progress.consumer_offset;
                    inflight += progress.pull_offset - progress.consumer_offset;
                    body.entry(&shard.message_queue(topic, *queue_id), &progress);
                    *queue_id += 1;
                }
            }
        }
        more(&body)
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}
