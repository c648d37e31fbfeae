//! QUERY_ASSIGNMENT (400): the queues that a client is to consume, and how (`QueryAssignmentProcessor`).
//!
//! An answer without a list makes the client leave everything as it is and ask again: whenever something is not known.

use apogee_net::body::{
    MessageModel, MessageQueue, MessageQueueAssignment, MessageRequestMode, QueryAssignmentRequestBody,
    QueryAssignmentResponseBody, parse, to_fastjson,
};
use apogee_net::message::RETRY_PREFIX;
use apogee_storage::Buffer;

use super::{Answer, Handled};
use crate::service::{Reply, Request};
use crate::shard::action::Action;
use crate::shard::assignment::{FoundRoute, Known, Members, QueueCount, Strategy};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

/// `defaultPopShareQueueNum`
const POP_SHARE_QUEUE_NUM: i32 = -1;

pub(super) fn handle<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let wanted: QueryAssignmentRequestBody = parse(request.body)?;
    if !shard.is_master() && shard.clients.consumer_group(&wanted.consumer_group).is_none() {
        return Err(Refusal::group_unknown(&wanted.consumer_group).for_leader().into());
    }
    if let Known::Queues(queues) = shard.routes.known(&wanted.topic, now_ms) {
        return Ok(shard.assignment(&wanted, queues).into());
    }
    let Some(to) = request.reply_to() else { return Ok(Answer::Later) };
    let topic = wanted.topic.clone();
    match shard.routes.wait(to, wanted) {
        Ok(true) => shard.act(Action::FindRoute { topic }),
        Ok(false) => {}
        Err(wanted) => return Ok(shard.assignment(&wanted, None).into()),
    }
    Ok(Answer::Later)
}

impl<B: Buffer + 'static> Shard<B> {
    /// The answer to [`Action::FindRoute`].
    pub fn on_route(&mut self, topic: &str, found: FoundRoute, now_ms: i64) {
        for (to, wanted) in self.routes.on_found(topic, found, now_ms) {
            let reply = self.assignment(&wanted, self.routes.last(topic));
            self.reply(Some(to), reply);
        }
    }

    fn assignment(&self, wanted: &QueryAssignmentRequestBody, queues: Option<&[QueueCount]>) -> Reply {
        let mode = self.request_modes.get(&wanted.topic, &wanted.consumer_group);
        // Retry topics are pulled; so is everything else unless it is said otherwise (`defaultMessageRequestMode`).
        let (mode, shared) = mode.unwrap_or((MessageRequestMode::Pull, POP_SHARE_QUEUE_NUM));
        let assigned = queues.and_then(|queues| self.assigned(wanted, queues, (mode, shared)));
        let assignments = assigned
            .map(|queues| queues.into_iter().map(|queue| MessageQueueAssignment { queue, mode }).collect());
        Reply::success().with_body(to_fastjson(&QueryAssignmentResponseBody { assignments }))
    }

    fn assigned(
        &self,
        wanted: &QueryAssignmentRequestBody,
        queues: &[QueueCount],
        (mode, shared): (MessageRequestMode, i32),
    ) -> Option<Vec<MessageQueue>> {
        let of_broker = |count: &QueueCount| {
            let broker_name = count.broker_name.clone();
            let queue = move |queue_id| MessageQueue {
                topic: wanted.topic.clone(),
                broker_name: broker_name.clone(),
                queue_id,
            };
            (0..count.queues).map(queue).collect::<Vec<_>>()
        };
        let all: Vec<MessageQueue> = queues.iter().flat_map(of_broker).collect();
        if wanted.message_model == MessageModel::Broadcasting {
            return Some(all);
        }
        let group = self.clients.consumer_group(&wanted.consumer_group)?;
        let mut clients: Vec<&str> = group.client_ids().collect();
        clients.sort_unstable();
        clients.dedup();
        let strategy = Strategy::of_name(&wanted.strategy_name)?;
        if all.is_empty() || wanted.client_id.is_empty() {
            return None;
        }
        let members =
            Members { count: clients.len(), nth: clients.binary_search(&wanted.client_id.as_str()).ok() };
        Some(match mode {
            MessageRequestMode::Pull => members.pull(strategy, &all),
            MessageRequestMode::Pop => members.pop(strategy, &all, shared),
        })
    }
}

/// Whether the mode of a topic may be set at all.
pub(super) fn has_fixed_mode(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX)
}
