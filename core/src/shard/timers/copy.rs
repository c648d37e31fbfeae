//! A message that waited, once more: in the queue it is for, or in the timer topic for another while.
//!
//! RocketMQ says of a delivered message where it waited (`REAL_TOPIC`, `REAL_QID`) and for how long (`DELAY`,
//! `TIMER_OUT_MS`): it takes these properties out of its map, but not out of the string that it stores
//! (`ScheduleMessageService#messageTimeUp`, `TimerMessageStore#convertMessage`). Clients show them, so they stay here too.

use std::net::SocketAddr;

use apogee_net::message::{PropertyEdit, StoredMessage, property};
use apogee_storage::{Append, QueueKey};
use bytes::Bytes;

use crate::shard::record::{NewMessage, ShardRecord};
use crate::shard::topics::{TIMER, TopicTable};

/// Bytes that delivery and rolling may add to the properties of a message in the timer topic.
pub(super) const ADDED_BYTES_MAX: usize = 128;

/// The queue that a delayed message is for; none if its topic is gone. A queue that is no more leaves its messages to
/// another.
fn real_queue(topics: &TopicTable, stored: &StoredMessage<'_>) -> Option<(String, i32, QueueKey)> {
    let topic = topics.get(stored.properties.get(property::REAL_TOPIC)?)?;
    let config = topic.config();
    let asked: i32 = stored.properties.get(property::REAL_QUEUE_ID)?.parse().ok()?;
    let queues = config.write_queue_nums.max(config.read_queue_nums).max(1);
    let queue_id = asked.rem_euclid(queues);
    let key = topic.queue_to_write(queue_id)?;
    Some((config.topic_name.clone(), queue_id, key))
}

/// The message as it is delivered; none if there is nobody to deliver it to.
pub(super) fn delivered(
    topics: &TopicTable,
    store_host: SocketAddr,
    message: &Bytes,
    stored: &StoredMessage<'_>,
    set: &[(&str, &str)],
) -> Option<Append<ShardRecord>> {
    let (topic, queue_id, key) = real_queue(topics, stored)?;
    let body = message.slice_ref(stored.body);
    let properties = PropertyEdit { received: stored.properties.0, set, remove: &[] };
    NewMessage::copy_of(stored, body, store_host, (&topic, queue_id), properties).into_append(key).ok()
}

/// The message as it waits on, in the timer topic.
pub(super) fn rolled(
    wheel: QueueKey,
    store_host: SocketAddr,
    message: &Bytes,
    stored: &StoredMessage<'_>,
) -> Option<Append<ShardRecord>> {
    let times = stored.properties.get(property::TIMER_ROLL_TIMES).and_then(|times| times.parse::<u32>().ok());
    let times = times.unwrap_or(0).saturating_add(1).to_string();
    let set = [(property::TIMER_ROLL_TIMES, &*times)];
    let body = message.slice_ref(stored.body);
    let properties = PropertyEdit { received: stored.properties.0, set: &set, remove: &[] };
    NewMessage::copy_of(stored, body, store_host, (TIMER, 0), properties).into_append(wheel).ok()
}
