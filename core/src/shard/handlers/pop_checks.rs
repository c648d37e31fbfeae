//! What all requests about pops are checked for, in the order of `PopMessageProcessor`.

use std::sync::Arc;

use apogee_net::body::perm;
use apogee_net::code::ResponseCode;
use apogee_storage::Buffer;

use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;
use crate::shard::topics::TopicNumber;

/// A topic that a group may consume.
pub(super) struct Checked {
    pub topic: TopicNumber,
    pub group: Arc<str>,
}

impl<B: Buffer + 'static> Shard<B> {
    pub(super) fn check_broker_readable(&self, doing: &str) -> Result<(), Refusal> {
        if self.settings.broker_perm & perm::READ != 0 {
            return Ok(());
        }
        let remark = format!("the broker[{}] {doing} message is forbidden", self.config.address.ip());
        Err(Refusal::new(ResponseCode::NO_PERMISSION, remark))
    }

    pub(super) fn check_pop(
        &mut self,
        group: &str,
        topic: &str,
        queue_id: i32,
        now_ms: i64,
    ) -> Result<Checked, Refusal> {
        self.check_broker_readable("peeking")?;
        let known = self.topics.get(topic).ok_or_else(|| Refusal::topic_unknown(topic))?;
        if !known.may_be_read() {
            let remark = format!("the topic[{topic}] peeking message is forbidden");
            return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
        }
        let queues = known.config().read_queue_nums;
        if queue_id >= queues {
            return Err(Refusal::new(
                ResponseCode::INVALID_PARAMETER,
                illegal_queue(topic, queue_id, queues),
            ));
        }
        let checked = Checked { topic: known.number(), group: group.into() };
        if !self.ensure_group(group, now_ms)?.consume_enable {
            let remark = format!("subscription group no permission, {group}");
            return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
        }
        Ok(checked)
    }
}

pub(super) fn illegal_queue(topic: &str, queue_id: i32, queues: i32) -> String {
    format!("queueId[{queue_id}] is illegal, topic:[{topic}] topicConfig.readQueueNums:[{queues}]")
}
