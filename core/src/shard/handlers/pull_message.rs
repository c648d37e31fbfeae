//! PULL_MESSAGE (11), LITE_PULL_MESSAGE (361): messages of one queue from an offset; parked until there are some.
//!
//! The checks and their order are those of `PullMessageProcessor`.

use apogee_net::body::{MessageModel, perm};
use apogee_net::code::ResponseCode;
use apogee_net::flags::PullSysFlag;
use apogee_net::request::{PullMessageRequest, TypedHeader};
use apogee_storage::{Buffer, QueueOffset};

use super::{Answer, Handled, Unanswered};
use crate::service::Request;
use crate::shard::filter::{Filter, parse_expression};
use crate::shard::parked::{HOLD_MS_MAX, Wait};
use crate::shard::pull::{PULL_BYTES_DEFAULT, PULL_BYTES_MAX, PULL_MESSAGES_MAX, ParkedPull, Pull, Pulled};
use crate::shard::refusal::{ForbiddenBy, Refusal};
use crate::shard::roles::Readers;
use crate::shard::state::Shard;
use crate::shard::stats::GroupMeasure;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted = PullMessageRequest::decode(&request.header.ext)?;
    let pull = shard.check_pull(&wanted, now_ms)?;
    let is_master = shard.is_working();
    if is_master {
        if let Some(reply) = shard.hear_of_reset(wanted.consumer_group, &pull, now_ms) {
            return Ok(reply.into());
        }
    } else if shard.resets.pending(wanted.consumer_group, pull.queue).is_some() {
        return Err(unknown_here("the group was reset"));
    }
    // A slave keeps no offsets of its own; clients that know it for one do not even say theirs. A pull may have waited at
    // one leader for messages and then go to the next: its client has told the progress of since by other requests.
    let says_progress = wanted.sys_flag.contains(PullSysFlag::COMMIT_OFFSET) && wanted.commit_offset >= 0;
    if is_master && says_progress && !request.has_waited {
        let offset = QueueOffset(wanted.commit_offset as u64);
        // A full table must not stop the consumption; the client commits by requests of its own as well.
        let _ = shard.offsets.commit(wanted.consumer_group, pull.queue, offset);
    }
    let pulled = shard.pull(&pull, now_ms)?;
    if let Pulled::ForLeader = pulled {
        return Err(unknown_here("the offset is not among those that are here"));
    }
    if matches!(pulled, Pulled::NothingNew { .. }) && shard.is_removed() && shard.leader().is_some() {
        return Err(unknown_here("no message comes to a node that was removed"));
    }
    let next = if let Pulled::Found(plan) = &pulled { plan.next_offset } else { pull.from };
    shard.offsets.note_pulled(wanted.consumer_group, pull.queue, next);
    if let (Pulled::NothingNew { .. }, true, Some(to)) =
        (&pulled, wanted.sys_flag.contains(PullSysFlag::SUSPEND), request.reply_to())
    {
        let wait = Wait {
            queue: pull.queue,
            connection: request.connection,
            filter: pull.filter.clone(),
            hold_ms: wanted.suspend_timeout_ms,
        };
        let deadline_ms = now_ms + wanted.suspend_timeout_ms.clamp(0, HOLD_MS_MAX);
        let parked = ParkedPull { to, pull, deadline_ms };
        shard.parked.park(wait, now_ms, parked).map_err(|refused| refused.reason)?;
        return Ok(Answer::Later);
    }
    shard.answer_pull(request.reply_to(), &pull, pulled, now_ms);
    Ok(Answer::Later)
}

/// The leader is asked; a client that hears of it all the same asks again.
fn unknown_here(remark: &'static str) -> Unanswered {
    Refusal::new(ResponseCode::PULL_RETRY_IMMEDIATELY, remark).for_leader().into()
}

impl<B: Buffer + 'static> Shard<B> {
    fn check_pull(&mut self, wanted: &PullMessageRequest<'_>, now_ms: i64) -> Result<Pull, Refusal> {
        if self.settings.broker_perm & perm::READ == 0 {
            let remark = format!("the broker[{}] pulling message is forbidden", self.config.address.ip());
            return Err(Refusal::forbidden(ForbiddenBy::Broker, remark));
        }
        let group = self.ensure_group(wanted.consumer_group, now_ms)?;
        if !group.consume_enable {
            let remark = format!("subscription group no permission, {}", wanted.consumer_group);
            return Err(Refusal::forbidden(ForbiddenBy::Group, remark));
        }
        let group_sys_flag = group.group_sys_flag;
        let readers = Readers { usual: group.broker_id, slow: group.which_broker_when_consume_slowly };
        let topic =
            self.topics.get(wanted.topic).ok_or_else(|| Refusal::topic_unknown(wanted.topic).for_leader())?;
        if !topic.may_be_read() {
            let remark = format!("the topic[{}] pulling message is forbidden", wanted.topic);
            return Err(Refusal::forbidden(ForbiddenBy::Topic, remark));
        }
        let queue = topic.queue_to_read(wanted.queue_id).ok_or_else(|| {
            let queues = topic.config().read_queue_nums;
            let remark = format!(
                "queueId[{}] is illegal, topic:[{}] topicConfig.readQueueNums:[{queues}]",
                wanted.queue_id, wanted.topic
            );
            Refusal::new(ResponseCode::INVALID_PARAMETER, remark).for_leader()
        })?;
        let topic_sys_flag = topic.config().topic_sys_flag;
        let topics = &self.topics;
        let meter =
            self.stats.meters.of_group(wanted.consumer_group, topic.number(), GroupMeasure::Got, || {
                topics.is_system(wanted.topic)
            });
        let bytes_max = wanted.message_bytes_max.and_then(|bytes| u64::try_from(bytes).ok());
        Ok(Pull {
            queue,
            // A negative offset is no queue's: read from the beginning.
            from: QueueOffset(u64::try_from(wanted.queue_offset).unwrap_or(0)),
            messages_max: wanted.messages_max.clamp(1, PULL_MESSAGES_MAX as i32) as u32,
            bytes_max: bytes_max.filter(|&bytes| bytes > 0).unwrap_or(PULL_BYTES_DEFAULT).min(PULL_BYTES_MAX),
            filter: self.filter_of_pull(wanted)?,
            topic_sys_flag,
            group_sys_flag,
            readers,
            meter,
        })
    }

    /// From the request when it brings an expression, otherwise from the group's heartbeats.
    fn filter_of_pull(&self, wanted: &PullMessageRequest<'_>) -> Result<Filter, Refusal> {
        let filter = if wanted.sys_flag.contains(PullSysFlag::SUBSCRIPTION) {
            parse_expression(wanted.subscription, wanted.expression_type)?
        } else {
            self.subscribed_filter(wanted)?
        };
        filter.check_allowed(self.config.enable_property_filter)?;
        Ok(filter)
    }

    fn subscribed_filter(&self, wanted: &PullMessageRequest<'_>) -> Result<Filter, Refusal> {
        let (group, topic) = (wanted.consumer_group, wanted.topic);
        let unknown = |what: &str| {
            let remark = format!("the consumer's {what} not exist");
            Refusal::new(ResponseCode::SUBSCRIPTION_NOT_EXIST, remark).for_leader()
        };
        let members = self.clients.consumer_group(group).ok_or_else(|| unknown("group info"))?;
        let may_broadcast = self.groups.get(group).is_some_and(|group| group.consume_broadcast_enable);
        if members.message_model() == MessageModel::Broadcasting && !may_broadcast {
            let remark = format!("the consumer group[{group}] can not consume by broadcast way");
            return Err(Refusal::forbidden(ForbiddenBy::Broadcasting, remark));
        }
        if !self.forbidden.is_readable(group, topic) {
            let remark = format!("the consumer group[{group}] is forbidden for topic[{topic}]");
            return Err(Refusal::forbidden(ForbiddenBy::Subscription, remark));
        }
        let subscription = members.subscription(topic).ok_or_else(|| unknown("subscription"))?;
        if subscription.data().sub_version < wanted.sub_version {
            let remark = "the consumer's subscription not latest";
            return Err(Refusal::new(ResponseCode::SUBSCRIPTION_NOT_LATEST, remark));
        }
        Ok(subscription.filter()?.clone())
    }
}
