//! A send of a message for later: stored where it waits, answered as if it were where it will go.

use apogee_net::code::RequestCode;
use apogee_net::message::{RETRY_PREFIX, RecallHandle};
use apogee_storage::Buffer;

use crate::service::Request;
use crate::shard::commit::{Sent, Then};
use crate::shard::record::NewMessage;
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;
use crate::shard::timers::Delay;

impl<B: Buffer + 'static> Shard<B> {
    /// Stages a message that waits. The answer names its real queue, and its place in the topic where it waits.
    pub(super) fn stage_delayed(
        &mut self,
        request: &Request<'_>,
        message: NewMessage<'_>,
        delay: Delay,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        let (real_topic, queue_id) = (message.topic, message.queue_id);
        let delayed = self.delayed(message, delay, 0, now_ms)?;
        let then = match request.reply_to() {
            Some(to) => {
                let unique_key = delayed.append.record.unique_key().map(str::to_owned);
                let recall_handle = self.recall_handle(request, real_topic, delay, unique_key.as_deref());
                Then::Sent(Sent { to, queue_id, unique_key, is_inner_batch: false, recall_handle })
            }
            None => Then::Nothing,
        };
        self.stage_with([delayed.append], delayed.change.into_iter().collect(), then, now_ms)
    }

    /// `SendMessageProcessor#attachRecallHandle`: not for levels, nor for redeliveries.
    fn recall_handle(
        &self,
        request: &Request<'_>,
        real_topic: &str,
        delay: Delay,
        unique_key: Option<&str>,
    ) -> Option<String> {
        let Delay::Until(due_ms) = delay else { return None };
        if request.code() == RequestCode::SEND_BATCH_MESSAGE || real_topic.starts_with(RETRY_PREFIX) {
            return None;
        }
        let handle = RecallHandle {
            topic: real_topic.to_owned(),
            broker_name: self.config.broker_name.clone(),
            due_ms: (due_ms + 1).to_string(),
            unique_key: unique_key?.to_owned(),
        };
        Some(handle.encode())
    }
}
