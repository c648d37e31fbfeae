//! HEART_BEAT (34): which groups a client belongs to and what it subscribes to (`ClientManageProcessor#heartBeat`).

use apogee_net::body::{ConsumerData, HeartbeatData, parse};
use apogee_net::request::HeartbeatReply;
use apogee_storage::Buffer;

use super::Handled;
use crate::service::{Reply, Request};
use crate::shard::clients::{Client, Subscriptions};
use crate::shard::commit::Then;
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let heartbeat: HeartbeatData = parse(request.body)?;
    shard.check_changes_flow()?;
    let client = Client {
        connection: request.connection,
        address: request.peer,
        client_id: &heartbeat.client_id,
        language: request.header.language,
        version: request.header.version,
    };
    for producer in &heartbeat.producer_data_set {
        shard.clients.register_producer(client, &producer.group_name, now_ms)?;
    }
    let subscriptions = Subscriptions::of(&heartbeat);
    let mut knows_subscriptions = true;
    for consumer in &heartbeat.consumer_data_set {
        match shard.register_consumer(client, consumer, subscriptions, now_ms) {
            Ok(knows) => knows_subscriptions &= knows,
            // The client's other groups must not suffer; the pulls of this one are refused, with the reason.
            Err(refusal) => {
                knows_subscriptions = false;
                let (group, remark) = (&consumer.group_name, &refusal.remark);
                tracing::debug!(client = heartbeat.client_id, group, %remark, "group left out of a heartbeat");
            }
        }
    }
    // A client that does not know of fingerprints hears `true`, as from a Java broker. One that does may leave its
    // subscriptions out from now on if it hears `false`.
    let subscription_changed = match subscriptions {
        Subscriptions::Full { fingerprint: 0 } => true,
        Subscriptions::Full { .. } | Subscriptions::LeftOut { .. } => !knows_subscriptions,
    };
    let reply = HeartbeatReply { subscription_changed: Some(subscription_changed), supports_v2: Some(true) };
    Ok(Reply::success().with_ext(reply).into())
}

impl<B: Buffer + 'static> Shard<B> {
    /// Whether the group's subscriptions are known.
    fn register_consumer(
        &mut self,
        client: Client<'_>,
        consumer: &ConsumerData,
        subscriptions: Subscriptions,
        now_ms: i64,
    ) -> Result<bool, Refusal> {
        let group = consumer.group_name.as_str();
        let notifies = if self.is_working() {
            let config = self.ensure_group(group, now_ms)?;
            let (retry_queues, notifies) =
                (config.retry_queue_nums, config.notify_consumer_ids_changed_enable);
            // Consumers subscribe to their retry topic and expect its route at once.
            if let Some(record) =
                self.topics.ensure_retry_topic(group, retry_queues, consumer.unit_mode, now_ms)?
            {
                self.journal(record, Then::Register(None), now_ms);
            }
            notifies
        } else {
            // The leader hears of the client by itself, and makes what is missing.
            self.groups.get(group).is_none_or(|config| config.notify_consumer_ids_changed_enable)
        };
        let registered = self.clients.register_consumer(client, consumer, subscriptions, notifies, now_ms)?;
        self.notify(registered.notify);
        Ok(registered.knows_subscriptions)
    }
}
