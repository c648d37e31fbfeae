//! CONSUMER_SEND_MSG_BACK (36): a consumer could not consume a message; it comes again later, or is a dead letter.
//!
//! The steps are those of `AbstractSendMessageProcessor#consumerSendMsgBack`.

use apogee_net::body::perm;
use apogee_net::code::ResponseCode;
use apogee_net::message::{PropertyEdit, StoredMessage, property};
use apogee_net::request::{ConsumerSendMsgBackRequest, TypedHeader};
use apogee_storage::{Buffer, LogOffset};
use bytes::Bytes;
use smallvec::SmallVec;

use super::{Answer, Handled};
use crate::service::{Reply, ReplyTo, Request};
use crate::shard::commit::Then;
use crate::shard::load::{LoadError, Wanted};
use crate::shard::record::NewMessage;
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;
use crate::shard::stats::GroupMeasure;
use crate::shard::timers::Delay;
use crate::shard::topics;

/// Clients before it do not say how often they retry (`MQVersion.Version.V3_4_9`).
const VERSION_WITH_MAX_RECONSUME_TIMES: i32 = 121;

/// The first redelivery comes after this level, each later one a level further.
const FIRST_LEVEL: i32 = 3;

/// What is remembered of the request while the message is read.
struct SendBack {
    to: Option<ReplyTo>,
    group: String,
    offset: i64,
    delay_level: i32,
    max_reconsume_times: i32,
}

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let back = ConsumerSendMsgBackRequest::decode(&request.header.ext)?;
    shard.check_changes_flow()?;
    let config = shard.ensure_group(back.group, now_ms)?;
    let (retry_queues, group_max) = (config.retry_queue_nums, config.retry_max_times);
    if shard.settings.broker_perm & perm::WRITE == 0 {
        let remark = format!("the broker[{}] sending message is forbidden", shard.config.address.ip());
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark).into());
    }
    if retry_queues <= 0 {
        return Ok(Reply::success().into());
    }
    if let Some(record) = shard.topics.ensure_retry_topic(back.group, retry_queues, back.unit_mode, now_ms)? {
        shard.journal(record, Then::Register(None), now_ms);
    }
    let retry_topic = topics::retry_topic(back.group);
    let retry = shard.topics.get(&retry_topic).ok_or_else(|| Refusal::topic_unknown(&retry_topic))?;
    if retry.config().perm & perm::WRITE == 0 {
        let remark = format!("the topic[{retry_topic}] sending message is forbidden");
        return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark).into());
    }
    let asked_max =
        back.max_reconsume_times.filter(|_| request.header.version >= VERSION_WITH_MAX_RECONSUME_TIMES);
    let send_back = SendBack {
        to: request.reply_to(),
        group: back.group.to_owned(),
        offset: back.offset,
        delay_level: back.delay_level,
        max_reconsume_times: asked_max.unwrap_or(group_max),
    };
    let Ok(offset) = u64::try_from(back.offset) else { return Err(not_found(back.offset).into()) };
    shard.load(
        Wanted::At(LogOffset(offset)),
        now_ms,
        Box::new(move |shard, message, now_ms| {
            let to = send_back.to;
            if let Err(refusal) = shard.send_back(send_back, message, now_ms) {
                shard.reply(to, refusal.into());
            }
        }),
    );
    Ok(Answer::Later)
}

fn not_found(offset: i64) -> Refusal {
    Refusal::new(ResponseCode::SYSTEM_ERROR, format!("look message by offset failed, {offset}"))
}

impl<B: Buffer + 'static> Shard<B> {
    /// Stores a copy of the message where it waits for its next turn, or among the dead letters.
    fn send_back(
        &mut self,
        back: SendBack,
        message: Result<Bytes, LoadError>,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        let message = match message {
            Ok(message) => message,
            Err(LoadError::Missing) => return Err(not_found(back.offset)),
            Err(error) => return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string())),
        };
        // Any offset can be asked for, also one where a record begins that is no message.
        let stored = StoredMessage::decode(&message).map_err(|_| not_found(back.offset))?;
        let is_dead = stored.reconsume_times >= back.max_reconsume_times || back.delay_level < 0;
        let (topic, level) = if is_dead {
            if let Some(record) = self.topics.ensure_dead_letter_topic(&back.group, now_ms)? {
                self.journal(record, Then::Register(None), now_ms);
            }
            (topics::dead_letter_topic(&back.group), 0)
        } else {
            let asked = back.delay_level;
            let level = if asked == 0 { FIRST_LEVEL.saturating_add(stored.reconsume_times) } else { asked };
            (topics::retry_topic(&back.group), level)
        };
        let queue_id = if is_dead { 0 } else { self.next_write_queue(&topic) };
        let target = self.topics.get(&topic).ok_or_else(|| Refusal::topic_unknown(&topic))?;
        let queue = target.queue_to_write(queue_id).ok_or_else(|| Refusal::topic_unknown(&topic))?;

        let level_text = level.to_string();
        let offset_id = stored.offset_message_id().to_hex();
        let origin = stored.properties.get(property::ORIGIN_MESSAGE_ID).filter(|id| !id.trim().is_empty());
        let mut set: SmallVec<[(&str, &str); 4]> = SmallVec::new();
        set.push((property::WAIT, "false"));
        set.push((property::DELAY, &level_text));
        set.push((property::ORIGIN_MESSAGE_ID, origin.unwrap_or(&offset_id)));
        if stored.properties.get(property::RETRY_TOPIC).is_none() {
            set.push((property::RETRY_TOPIC, stored.topic));
        }
        let properties = PropertyEdit { received: stored.properties.0, set: &set, remove: &[] };
        let body = message.slice_ref(stored.body);
        let copy = NewMessage::copy_of(&stored, body, self.config.address, (&topic, queue_id), properties);
        let copy = NewMessage { reconsume_times: stored.reconsume_times.saturating_add(1), ..copy };
        let then = Then::Succeed(back.to);
        match self.config.timers.levels.clamp(level) {
            Some(level) => {
                let delayed = self.delayed(copy, Delay::Level(level), 0, now_ms)?;
                self.stage_with([delayed.append], delayed.change.into_iter().collect(), then, now_ms)
            }
            None => self.stage([copy.into_append(queue)?], then, now_ms),
        }?;
        let topic = stored.properties.get(property::RETRY_TOPIC).unwrap_or(stored.topic);
        if let Some(topic) = self.topics.get(topic) {
            self.stats.meters.count_group(&back.group, topic.number(), GroupMeasure::SentBack, 1);
        }
        Ok(())
    }
}
