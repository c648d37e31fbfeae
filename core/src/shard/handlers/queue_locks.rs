//! LOCK_BATCH_MQ (41), UNLOCK_BATCH_MQ (42): queues that one client consumes in order (`RebalanceLockManager`).

use apogee_net::body::{
    LockBatchRequestBody, LockBatchResponseBody, MessageQueue, UnlockBatchRequestBody, parse, to_fastjson,
};
use apogee_storage::{Buffer, QueueKey};

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::locks::LockAnswer;
use crate::shard::state::Shard;

pub(super) fn lock<B: Buffer + 'static>(shard: &mut Shard<B>, request: &Request<'_>, now_ms: i64) -> Handled {
    let mut wanted: LockBatchRequestBody = parse(request.body)?;
    let (group, client_id) = (&wanted.consumer_group, &wanted.client_id);
    wanted.mq_set.retain(|queue| {
        shard
            .own_queue(queue)
            .is_some_and(|key| shard.locks.lock(group, key, client_id, now_ms) == LockAnswer::Held)
    });
    let body = to_fastjson(&LockBatchResponseBody { lock_ok_mq_set: wanted.mq_set });
    Ok(Reply::success().with_body(body).into())
}

pub(super) fn unlock<B: Buffer + 'static>(shard: &mut Shard<B>, request: &Request<'_>, _: i64) -> Handled {
    let wanted: UnlockBatchRequestBody = parse(request.body)?;
    for queue in wanted.mq_set.iter().filter_map(|queue| shard.own_queue(queue)).collect::<Vec<_>>() {
        shard.locks.unlock(&wanted.consumer_group, queue, &wanted.client_id);
    }
    Ok(Reply::success().into())
}

impl<B: Buffer + 'static> Shard<B> {
    /// A queue of this shard; those of other brokers and unknown ones are not ours to lock.
    fn own_queue(&self, queue: &MessageQueue) -> Option<QueueKey> {
        let topic = self.topics.get(&queue.topic)?;
        (queue.broker_name == self.config.broker_name).then(|| topic.queue_to_read(queue.queue_id))?
    }
}
