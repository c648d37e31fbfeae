//! INVOKE_BROKER_TO_RESET_OFFSET (222): a group goes on elsewhere.
//!
//! By default the broker does it (5.x): the offset is set, and the group hears of it with its next pull (see
//! [`resets`](crate::shard::resets)). With `useServerSideResetOffset=false` the clients do it (4.x): the live ones are
//! told where to go on (RESET_CONSUMER_CLIENT_OFFSET, 220), and commit that themselves.

use apogee_net::body::{MessageQueue, MessageQueueForC, ResetOffsetBody, ResetOffsetBodyForC, to_fastjson};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::{ExtWriter, Language, WriteExt};
use apogee_net::io::Chunk;
use apogee_net::request::{PullMessageReply, ResetOffsetRequest, TypedHeader};
use apogee_storage::{Buffer, IndexFault, QueueKey, QueueOffset, TimeBound};
use smallvec::smallvec;

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::action::{Action, Push};
use crate::shard::commit::Then;
use crate::shard::long_answer::{Progress, STEP_UNITS};
use crate::shard::pull::{ParkedPull, Pull, Pulled};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;
use crate::shard::topics::{Topic, TopicNumber};

/// Clients older than this do not know the request (`MQVersion.Version.V3_0_7_SNAPSHOT`).
pub(super) const CLIENT_VERSION_MIN: i32 = 28;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = ResetOffsetRequest::decode(&request.header.ext)?;
    let wanted = Reset {
        topic: wanted.topic.to_owned(),
        group: wanted.group.to_owned(),
        timestamp: wanted.timestamp,
        is_force: wanted.is_force,
    };
    match shard.config.server_side_reset {
        true => by_broker(shard, request, wanted, now_ms),
        false => by_clients(shard, request, wanted, now_ms),
    }
}

struct Reset {
    topic: String,
    group: String,
    /// In ms; negative for the end of the queue.
    timestamp: i64,
    is_force: bool,
}

impl<B: Buffer + 'static> Shard<B> {
    /// Where a queue is at a time.
    fn offset_at(&self, queue: QueueKey, timestamp: i64) -> Result<QueueOffset, IndexFault> {
        match timestamp {
            ..0 => Ok(self.log.max_offset(queue)),
            0.. => self.log.search_by_time(queue, timestamp, TimeBound::Lower),
        }
    }

    fn body_of(&self, topic: &Topic, offsets: &[(QueueKey, QueueOffset)]) -> ResetOffsetBody {
        let entry = |&(queue, offset): &(QueueKey, QueueOffset)| {
            let (_, queue_id) = TopicNumber::of(queue);
            (self.message_queue(topic, queue_id as i32), offset.0 as i64)
        };
        ResetOffsetBody { offset_table: offsets.iter().map(entry).collect() }
    }

    /// Sets a group's offsets and leaves word for its consumers; `then` follows once that is durable.
    fn reset_offsets(
        &mut self,
        then: Then<B>,
        group: &str,
        offsets: &[(QueueKey, QueueOffset)],
        now_ms: i64,
    ) -> Result<Progress, Refusal> {
        let mut records = self.resets.set(group, offsets)?;
        let Some(last) = records.pop() else {
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "No queues to reset."));
        };
        for &(queue, offset) in offsets {
            // The records set it as well: in a table that is full it stands with the next start.
            let _ = self.offsets.commit(group, queue, offset);
            self.offsets.note_pulled(group, queue, offset);
        }
        for record in records {
            self.journal(record, Then::Nothing, now_ms);
        }
        self.journal(last, then, now_ms);
        self.wake_members(group, offsets, now_ms);
        Ok(Progress::Elsewhere)
    }

    /// What a group's pull is answered with if it was reset: where it goes on. The log hears of it after the client: a
    /// crash in between tells the client once more, and never lets it miss the reset.
    pub(super) fn hear_of_reset(&mut self, group: &str, pull: &Pull, now_ms: i64) -> Option<Reply> {
        let (next, record) = self.resets.take(group, pull.queue)?;
        self.journal(record, Then::Nothing, now_ms);
        let ext = PullMessageReply {
            suggest_which_broker_id: 0,
            next_begin_offset: next.0 as i64,
            min_offset: self.log.min_offset(pull.queue).0 as i64,
            max_offset: self.log.max_offset(pull.queue).0 as i64,
            topic_sys_flag: Some(pull.topic_sys_flag),
            group_sys_flag: Some(pull.group_sys_flag),
            forbidden_type: None,
        };
        Some(Reply::new(ResponseCode::PULL_OFFSET_MOVED).with_remark("OFFSET_RESET").with_ext(ext))
    }

    /// A group that pops begins where the offsets say, so its next pop knows of the reset; of at most
    /// [`STEP_UNITS`] queues at once.
    pub(in crate::shard) fn pop_hears_of_resets(&mut self, group: &str, topic: TopicNumber, now_ms: i64) {
        for _ in 0..STEP_UNITS {
            let Some(queue) = self.resets.first_of(group, topic) else { return };
            if let Some((_, record)) = self.resets.take(group, queue) {
                self.journal(record, Then::Nothing, now_ms);
            }
            // What an ordered pop gave out before stops the queue no more.
            if let Some(record) = self.pops.clear_order(group, queue) {
                self.journal(record, Then::Nothing, now_ms);
            }
        }
    }

    /// Parked pulls of a group end, so that it asks again and hears of its reset.
    pub(in crate::shard) fn wake_members(
        &mut self,
        group: &str,
        offsets: &[(QueueKey, QueueOffset)],
        now_ms: i64,
    ) {
        let Some(members) = self.clients.consumer_group(group) else { return };
        let mut woken = Vec::new();
        for &(queue, _) in offsets {
            self.parked.take_of(queue, |connection| members.has_connection(connection), &mut woken);
        }
        for ParkedPull { to, pull, .. } in woken {
            let again = Pulled::NothingMatched { next: pull.from };
            self.answer_pull(Some(to), &pull, again, now_ms);
        }
    }
}

/// `AdminBrokerProcessor#resetOffsetInner`.
fn by_broker<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    reset: Reset,
    now_ms: i64,
) -> Handled {
    let ResetOffsetRequest { queue_id, offset, .. } = ResetOffsetRequest::decode(&request.header.ext)?;
    shard.check_changes_flow()?;
    let Reset { topic: name, group, timestamp, .. } = reset;
    let topic = shard
        .topics
        .get(&name)
        .ok_or_else(|| Refusal::new(ResponseCode::TOPIC_NOT_EXIST, format!("Topic {name} does not exist")))?;
    if shard.groups.get(&group).is_none() {
        let remark = format!("Group {group} does not exist");
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark).into());
    }
    let (number, to) = (topic.number(), request.reply_to());
    let given = offset.filter(|offset| queue_id >= 0 && *offset != -1);
    if queue_id >= 0 {
        let bounds = topic
            .queue_to_write(queue_id)
            .map(|queue| (shard.log.min_offset(queue).0 as i64, shard.log.max_offset(queue).0 as i64));
        let is_possible = |(min, max): (i64, i64)| given.is_none_or(|given| (min..=max + 1).contains(&given));
        if !bounds.is_some_and(is_possible) {
            let (min, max) = bounds.unwrap_or((0, 0));
            let offset = given.unwrap_or(-1);
            let remark = format!("Target offset {offset} not in consume queue range [{min}-{max}]");
            return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark).into());
        }
    }
    let mut queues = match queue_id {
        0.. => queue_id..queue_id + 1,
        ..0 => 0..topic.config().read_queue_nums,
    };
    let mut offsets = Vec::new();
    let step = move |shard: &mut Shard<B>, now_ms: i64| {
        for _ in 0..STEP_UNITS / 4 {
            let Some(queue_id) = queues.clone().next() else {
                let topic = shard.topics.by_number(number).ok_or_else(|| Refusal::topic_unknown(&name))?;
                let body = shard.body_of(topic, &offsets);
                let reply = Reply::success().with_body(to_fastjson(&body));
                return Ok(shard.reset_offsets(Then::Reply(to, reply), &group, &offsets, now_ms)?);
            };
            let queue = number.queue(queue_id as u32);
            let offset = match given {
                Some(given) => QueueOffset(given as u64),
                None => shard.offset_at(queue, timestamp)?,
            };
            offsets.push((queue, offset));
            queues.next();
        }
        Ok(Progress::More)
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}

/// `Broker2Client#resetOffset`.
fn by_clients<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    reset: Reset,
    now_ms: i64,
) -> Handled {
    let topic = shard.topics.get(&reset.topic).ok_or_else(|| {
        let remark =
            format!("[reset-offset] reset offset failed, no topic in this broker. topic={}", reset.topic);
        Refusal::new(ResponseCode::TOPIC_NOT_EXIST, remark)
    })?;
    let (number, mut queues) = (topic.number(), 0..topic.config().write_queue_nums);
    let mut offsets = Vec::new();
    let step = move |shard: &mut Shard<B>, _: i64| {
        for _ in 0..STEP_UNITS / 4 {
            let Some(queue_id) = queues.clone().next() else {
                return Ok(Progress::Done(shard.tell_clients(&reset, number, &offsets)?));
            };
            let queue = number.queue(queue_id as u32);
            let consumed = shard.consumed_to(&reset.group, queue).ok_or_else(|| {
                let remark = format!("THe consumer group <{}> not exist", reset.group);
                Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
            })?;
            let at = shard.offset_at(queue, reset.timestamp)?;
            // Without force a group only goes back.
            offsets.push((queue, if reset.is_force { at } else { at.min(consumed) }));
            queues.next();
        }
        Ok(Progress::More)
    };
    shard.answer_in_steps(request, Box::new(step), now_ms)
}

impl<B: Buffer + 'static> Shard<B> {
    /// Each in the form that its language reads; RocketMQ takes the form of the tool's language for all of them.
    fn tell_clients(
        &mut self,
        reset: &Reset,
        number: TopicNumber,
        offsets: &[(QueueKey, QueueOffset)],
    ) -> Result<Reply, Refusal> {
        let Some(members) = self.clients.consumer_group(&reset.group) else {
            let remark = format!(
                "Consumer not online, so can not reset offset, Group: {} Topic: {} Timestamp: {}",
                reset.group, reset.topic, reset.timestamp
            );
            return Err(Refusal::new(ResponseCode::CONSUMER_NOT_ONLINE, remark));
        };
        let topic = self.topics.by_number(number).ok_or_else(|| Refusal::topic_unknown(&reset.topic))?;
        let body = self.body_of(topic, offsets);
        let (for_c, for_others) = (to_fastjson(&list_of(&body)), to_fastjson(&body));
        let mut told = Vec::new();
        let mut too_old = None;
        for (connection, member) in members.members() {
            if member.version() < CLIENT_VERSION_MIN {
                too_old = Some(member.version());
                break;
            }
            let body = if member.language() == Language::Cpp { &for_c } else { &for_others };
            told.push((connection, body.clone()));
        }
        for (to, body) in told {
            let ext = ClientReset {
                topic: reset.topic.clone(),
                group: reset.group.clone(),
                timestamp: reset.timestamp,
            };
            let code = RequestCode::RESET_CONSUMER_CLIENT_OFFSET;
            let body = smallvec![Chunk::Bytes(body)];
            self.act(Action::Push { to, push: Push { code, ext: Box::new(ext), body, answered_as: None } });
        }
        match too_old {
            Some(version) => {
                let remark = format!("the client does not support this feature. version={version}");
                Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark))
            }
            None => Ok(Reply::success().with_body(for_others)),
        }
    }
}

fn list_of(body: &ResetOffsetBody) -> ResetOffsetBodyForC {
    let entry = |(queue, offset): (&MessageQueue, &i64)| MessageQueueForC {
        broker_name: queue.broker_name.clone(),
        offset: *offset,
        queue_id: queue.queue_id,
        topic: queue.topic.clone(),
    };
    ResetOffsetBodyForC { offset_table: body.offset_table.iter().map(entry).collect() }
}

/// The header of RESET_CONSUMER_CLIENT_OFFSET, owning its texts. RocketMQ does not pass the tool's force on.
struct ClientReset {
    topic: String,
    group: String,
    timestamp: i64,
}

impl WriteExt for ClientReset {
    fn write_ext(&self, fields: &mut ExtWriter<'_>) {
        let ClientReset { topic, group, timestamp } = self;
        let (queue_id, offset, is_force) = (-1, None, false);
        ResetOffsetRequest { topic, group, queue_id, offset, timestamp: *timestamp, is_force }
            .write_ext(fields);
    }
}
