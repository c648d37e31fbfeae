//! SEND_MESSAGE (10), SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320): messages for a queue.
//!
//! The checks and their order are those of `AbstractSendMessageProcessor#msgCheck` and `SendMessageProcessor`.
//! Whether the body is a batch is said by the header, not by the code.

mod delayed;
mod delivery;
mod half;
mod limits;

use apogee_net::body::{TopicFilterType, perm};
use apogee_net::code::ResponseCode;
use apogee_net::flags::MessageSysFlag;
use apogee_net::message::{
    BatchMessages, HexId, Properties, PropertyEdit, RETRY_PREFIX, check_topic, property,
};
use apogee_net::request::{SendMessageRequest, TypedHeader};
use apogee_storage::{Buffer, QueueKey};
use bytes::Bytes;
use smallvec::SmallVec;

use self::delivery::{Asked, Delivery};
use super::{Answer, Handled};
use crate::service::Request;
use crate::shard::commit::{Sent, Then};
use crate::shard::record::{NewMessage, REGION};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;
use crate::shard::topics::{self, AutoCreate};

/// Properties that a stored message never has (`SendMessageProcessor` clears the first).
const REMOVED: &[&str] = &[property::POP_CHECK_POINT];

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let send = SendMessageRequest::decode(&request.header.ext)?;
    shard.check_topic(&send, now_ms)?;
    let asked = Asked::of(&send);
    let target = shard.choose_queue(&send, now_ms)?;
    limits::check(&send, &asked, request.body.len(), &target, shard.config.message_bytes_max)?;
    if send.batch {
        if asked.delivery == Delivery::Later {
            let remark = "messages of a batch cannot be delayed";
            return Err(Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark).into());
        }
        shard.stage_batch(request, &send, &asked, &target, now_ms)?;
    } else if asked.delivery == Delivery::Half {
        shard.stage_half(request, &send, &asked, &target, now_ms)?;
    } else {
        shard.stage_one(request, &send, &asked, &target, now_ms)?;
    }
    Ok(Answer::Later)
}

/// Where a message goes: its topic, or the dead letters of its group.
pub(super) struct Target {
    pub topic: String,
    pub queue_id: i32,
    pub queue: QueueKey,
    /// Set in every message, as its topic wants it.
    sys_flag: MessageSysFlag,
    /// `queue.type=BatchCQ`: batches with an id of their own are one message to their producers.
    has_inner_batches: bool,
    /// `cleanup.policy=COMPACTION`.
    needs_keys: bool,
}

impl<B: Buffer + 'static> Shard<B> {
    /// The checks of every send, up to the topic's own (`AbstractSendMessageProcessor#msgCheck`).
    pub(super) fn check_topic(&mut self, send: &SendMessageRequest<'_>, now_ms: i64) -> Result<(), Refusal> {
        self.check_changes_flow()?;
        check_topic(send.topic).map_err(|error| {
            Refusal::new(ResponseCode::INVALID_PARAMETER, format!("topic {:?}: {error}", send.topic))
        })?;
        if self.settings.broker_perm & perm::WRITE == 0
            && self.topics.get(send.topic).is_some_and(|topic| topic.config().order)
        {
            let remark = format!("the broker[{}] sending message is forbidden", self.config.address.ip());
            return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
        }
        if !topics::may_clients_send(send.topic) {
            let remark = format!("Sending message to topic[{}] is forbidden.", send.topic);
            return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
        }
        self.ensure_topic(send, now_ms)
    }

    fn ensure_topic(&mut self, send: &SendMessageRequest<'_>, now_ms: i64) -> Result<(), Refusal> {
        let wanted = AutoCreate {
            topic: send.topic,
            template: send.default_topic,
            queues: send.default_topic_queues,
            unit_mode: send.unit_mode,
        };
        if let Some(record) = self.topics.create_for_send(wanted, now_ms)? {
            self.journal(record, Then::Register(None), now_ms);
        }
        Ok(())
    }

    pub(super) fn choose_queue(
        &mut self,
        send: &SendMessageRequest<'_>,
        now_ms: i64,
    ) -> Result<Target, Refusal> {
        if let Some(group) = topics::group_of_retry_topic(send.topic) {
            let config = self.ensure_group(group, now_ms)?;
            let max = send.max_reconsume_times.unwrap_or(config.retry_max_times);
            if send.reconsume_times > max || self.locks.is_group_ordered(group, now_ms) {
                if let Some(record) = self.topics.ensure_dead_letter_topic(group, now_ms)? {
                    self.journal(record, Then::Register(None), now_ms);
                }
                return self.target(&topics::dead_letter_topic(group), 0);
            }
        }
        let queue_id = if send.queue_id < 0 { self.next_write_queue(send.topic) } else { send.queue_id };
        self.target(send.topic, queue_id)
    }

    fn target(&self, topic: &str, queue_id: i32) -> Result<Target, Refusal> {
        let known = self.topics.get(topic).ok_or_else(|| Refusal::topic_unknown(topic))?;
        let queue = known.queue_to_write(queue_id).ok_or_else(|| {
            let config = known.config();
            Refusal::new(
                ResponseCode::INVALID_PARAMETER,
                format!(
                    "request queueId[{queue_id}] is illegal, {topic} has {} read and {} write queues",
                    config.read_queue_nums, config.write_queue_nums
                ),
            )
        })?;
        let config = known.config();
        let has = |name, value| config.attributes.get(name).is_some_and(|found| found == value);
        let sys_flag = match config.topic_filter_type {
            TopicFilterType::SingleTag => MessageSysFlag(0),
            TopicFilterType::MultiTag => MessageSysFlag::MULTI_TAGS,
        };
        Ok(Target {
            topic: topic.to_owned(),
            queue_id,
            queue,
            sys_flag,
            has_inner_batches: has("queue.type", "BatchCQ"),
            needs_keys: has("cleanup.policy", "COMPACTION"),
        })
    }

    /// Java takes a random one; taking turns spreads better.
    pub(in crate::shard) fn next_write_queue(&mut self, topic: &str) -> i32 {
        let queues = self.topics.get(topic).map_or(1, |topic| topic.config().write_queue_nums.max(1));
        self.next_queue = self.next_queue.wrapping_add(1);
        (self.next_queue % queues as u32) as i32
    }

    fn stage_one(
        &mut self,
        request: &Request<'_>,
        send: &SendMessageRequest<'_>,
        asked: &Asked<'_>,
        target: &Target,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        let received = Properties(send.properties.as_bytes());
        let made: HexId;
        let cluster = self.config.cluster.clone();
        let mut set = self.added_properties(&cluster);
        let unique_key = match asked.unique_key {
            Some(key) => key,
            None => {
                made = self.unique_keys.next(now_ms);
                set.push((property::UNIQUE_KEY, &made));
                &made
            }
        };
        if target.topic != send.topic {
            set.push((property::DELAY, "-1"));
        }
        let properties = PropertyEdit { received: received.0, set: &set, remove: REMOVED };
        let message = self.message(request, send, target, send.flag, request.body.clone(), properties);
        // A dead letter waits for nothing.
        if asked.delivery == Delivery::Later
            && target.topic == send.topic
            && let Some(delay) = self.delay_asked_for(received, now_ms)?
        {
            return self.stage_delayed(request, message, delay, now_ms);
        }
        let append = message.into_append(target.queue)?;
        let then = sent(request, target, Some(unique_key.to_owned()));
        self.stage([append], then, now_ms)
    }

    /// A batch is stored as its messages, next to each other; each keeps its own unique key.
    ///
    /// Also in a topic with a queue of batches, where RocketMQ stores it as one message that takes as many offsets and
    /// that clients unwrap: what they see is the same. The producer is told what it would be told there.
    fn stage_batch(
        &mut self,
        request: &Request<'_>,
        send: &SendMessageRequest<'_>,
        asked: &Asked<'_>,
        target: &Target,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        if send.topic.starts_with(RETRY_PREFIX) {
            return Err(Refusal::new(
                ResponseCode::MESSAGE_ILLEGAL,
                "batch request does not support retry group",
            ));
        }
        let cluster = self.config.cluster.clone();
        let set = self.added_properties(&cluster);
        let mut appends = Vec::new();
        for message in BatchMessages::new(request.body) {
            let message = message?;
            let properties = PropertyEdit { received: message.properties.0, set: &set, remove: REMOVED };
            let body = request.body.slice_ref(message.body);
            let message = self.message(request, send, target, message.flag, body, properties);
            appends.push(message.into_append(target.queue)?);
        }
        if appends.is_empty() {
            return Err(Refusal::new(ResponseCode::MESSAGE_ILLEGAL, "the batch is empty"));
        }
        let unique_key = asked.unique_key.map(str::to_owned);
        let is_inner_batch = target.has_inner_batches && unique_key.is_some();
        let mut then = sent(request, target, unique_key);
        if let Then::Sent(sent) = &mut then {
            sent.is_inner_batch = is_inner_batch;
        }
        self.stage(appends, then, now_ms)
    }

    /// What every stored message says of its broker.
    fn added_properties<'a>(&self, cluster: &'a str) -> SmallVec<[(&'a str, &'a str); 6]> {
        SmallVec::from_slice(&[
            (property::REGION, REGION),
            (property::TRACE_ON, if self.settings.trace_on { "true" } else { "false" }),
            (property::CLUSTER, cluster),
        ])
    }

    fn message<'a>(
        &self,
        request: &Request<'_>,
        send: &SendMessageRequest<'_>,
        target: &'a Target,
        flag: i32,
        body: Bytes,
        properties: PropertyEdit<'a>,
    ) -> NewMessage<'a> {
        NewMessage {
            topic: &target.topic,
            queue_id: target.queue_id,
            flag,
            sys_flag: send.sys_flag.with(target.sys_flag),
            born_timestamp: send.born_timestamp,
            born_host: request.peer,
            store_host: self.config.address,
            reconsume_times: send.reconsume_times,
            prepared_transaction_offset: 0,
            body,
            properties,
        }
    }
}

fn sent<B>(request: &Request<'_>, target: &Target, unique_key: Option<String>) -> Then<B> {
    match request.reply_to() {
        Some(to) => Then::Sent(Sent {
            to,
            queue_id: target.queue_id,
            unique_key,
            is_inner_batch: false,
            recall_handle: None,
        }),
        None => Then::Nothing,
    }
}
