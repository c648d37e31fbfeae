//! ACK_MESSAGE (200051), BATCH_ACK_MESSAGE (200151): popped messages are consumed.
//!
//! Acknowledgements of what nobody knows, or knows no more, are answered as the others are (`AckMessageProcessor`).

use apogee_net::body::{BatchAck, BatchAckMessageRequestBody, parse};
use apogee_net::code::ResponseCode;
use apogee_net::message::{ORDER_REVIVE_QUEUE_ID, ReceiptHandle, RetryKind};
use apogee_net::request::{AckMessageRequest, TypedHeader};
use apogee_storage::{Buffer, QueueKey, QueueOffset};

use super::Handled;
use super::pop_checks::illegal_queue;
use crate::service::{Reply, Request};
use crate::shard::commit::Then;
use crate::shard::control::ControlRecord;
use crate::shard::pop::{CheckPointId, pop_retry_topic};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;
use crate::shard::topics::TopicNumber;

/// Elements of one batch; what is beyond them is refused.
const ACKS_PER_BATCH_MAX: usize = 4096;

pub(super) fn ack<B: Buffer + 'static>(shard: &mut Shard<B>, request: &Request<'_>, now_ms: i64) -> Handled {
    let wanted = AckMessageRequest::decode(&request.header.ext)?;
    let (topic, group) = (wanted.topic, wanted.consumer_group);
    let queue = shard.acked_queue(topic, wanted.queue_id)?;
    let (min, max) = (shard.log.min_offset(queue).0 as i64, shard.log.max_offset(queue).0 as i64);
    if !(min..=max).contains(&wanted.offset) {
        let remark = format!(
            "offset is illegal, key:{topic}@{}, commit:{}, store:{min}~{max}",
            wanted.queue_id, wanted.offset
        );
        return Err(Refusal::new(ResponseCode::NO_MESSAGE, remark).into());
    }
    let handle = ReceiptHandle::parse(wanted.extra_info)?;
    shard.check_changes_flow()?;
    let record = if handle.is_ordered() {
        shard.ack_ordered(group, queue, handle.pop_ms, |offset| offset as i64 == wanted.offset, now_ms)
    } else {
        let (id, offset) = (check_point(&handle), wanted.offset as u64);
        // A check point holds nothing in front of its start.
        let offsets = if offset >= id.start { vec![offset] } else { Vec::new() };
        Some(shard.pops.ack(group, queue, id, offsets))
    };
    Ok(shard.answer_change(record, Then::Succeed(request.reply_to()), now_ms))
}

pub(super) fn ack_batch<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = match request.body.is_empty() {
        true => BatchAckMessageRequestBody::default(),
        false => parse(request.body)?,
    };
    if wanted.acks.is_empty() {
        return Ok(Reply::new(ResponseCode::NO_MESSAGE).into());
    }
    if wanted.acks.len() > ACKS_PER_BATCH_MAX {
        let remark = format!("{} check points, allowed are {ACKS_PER_BATCH_MAX}", wanted.acks.len());
        return Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark).into());
    }
    shard.check_changes_flow()?;
    let mut records: Vec<_> =
        wanted.acks.iter().filter_map(|ack| shard.ack_check_point(ack, now_ms)).collect();
    let last = records.pop();
    for record in records {
        shard.journal(record, Then::Nothing, now_ms);
    }
    Ok(shard.answer_change(last, Then::Succeed(request.reply_to()), now_ms))
}

pub(super) fn check_point(handle: &ReceiptHandle<'_>) -> CheckPointId {
    CheckPointId {
        start: handle.start_offset as u64,
        due_ms: handle.pop_ms.saturating_add(handle.invisible_ms),
    }
}

impl<B: Buffer + 'static> Shard<B> {
    /// The queue that an acknowledged message lies in.
    pub(super) fn acked_queue(&self, topic: &str, queue_id: i32) -> Result<QueueKey, Refusal> {
        let known = self.topics.get(topic).ok_or_else(|| Refusal::topic_unknown(topic))?;
        known.queue_to_read(queue_id).ok_or_else(|| {
            let remark = illegal_queue(topic, queue_id, known.config().read_queue_nums);
            Refusal::new(ResponseCode::MESSAGE_ILLEGAL, remark)
        })
    }

    fn ack_ordered(
        &mut self,
        group: &str,
        queue: QueueKey,
        pop_ms: i64,
        is_acked: impl Fn(u64) -> bool,
        now_ms: i64,
    ) -> Option<ControlRecord> {
        // An offset that was set further meanwhile stays.
        let committed = self.offsets.query(group, queue).unwrap_or(QueueOffset(0)).0;
        let record =
            self.pops.ack_ordered(group, queue, pop_ms, |offset| offset >= committed && is_acked(offset))?;
        self.offsets.apply(&record);
        if !self.pops.is_blocked(group, queue, None, now_ms) {
            self.look_after_pops_of(group, TopicNumber::of(queue).0);
        }
        Some(record)
    }

    /// What cannot be, or is of no use, is passed over.
    fn ack_check_point(&mut self, ack: &BatchAck, now_ms: i64) -> Option<ControlRecord> {
        let (group, bits) = (&ack.consumer_group, ack.bits()?);
        let start = u64::try_from(ack.start_offset).ok()?;
        let topic = pop_retry_topic(RetryKind::parse(&ack.retry)?, group, &ack.topic);
        let queue = self.topics.get(&topic)?.queue_to_read(ack.queue_id)?;
        let is_acked = |offset: u64| offset.checked_sub(start).is_some_and(|nth| bits.contains(nth));
        if ack.revive_queue_id == ORDER_REVIVE_QUEUE_ID {
            return self.ack_ordered(group, queue, ack.pop_ms, is_acked, now_ms);
        }
        let id = CheckPointId { start, due_ms: ack.pop_ms.saturating_add(ack.invisible_ms) };
        let pending = self.pops.pending(group, queue, id).iter().copied();
        let offsets: Vec<u64> = pending.filter(|offset| is_acked(*offset)).collect();
        Some(self.pops.ack(group, queue, id, offsets))
    }
}
