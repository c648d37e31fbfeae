//! A message that becomes visible once its transaction is committed (`TransactionalMessageBridge#parseHalfMessageInner`).

use apogee_net::code::ResponseCode;
use apogee_net::flags::MessageSysFlag;
use apogee_net::message::{HexId, Properties, PropertyEdit, property};
use apogee_net::request::SendMessageRequest;
use apogee_storage::Buffer;

use super::delivery::Asked;
use super::{REMOVED, Target, sent};
use crate::service::Request;
use crate::shard::record::NewMessage;
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;
use crate::shard::topics;

impl<B: Buffer + 'static> Shard<B> {
    /// What a half message asks for besides, a delay or a time, is ignored. The producer is told the queue it meant, and
    /// the offset of the half message.
    pub(super) fn stage_half(
        &mut self,
        request: &Request<'_>,
        send: &SendMessageRequest<'_>,
        asked: &Asked<'_>,
        target: &Target,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        if self.settings.reject_transactions {
            let ip = self.config.address.ip();
            let remark = format!("the broker[{ip}] sending transaction message is forbidden");
            return Err(Refusal::new(ResponseCode::NO_PERMISSION, remark));
        }
        self.check_transactions_flow()?;
        let received = Properties(send.properties.as_bytes());
        let made: HexId;
        let unique_key = match asked.unique_key {
            Some(key) => key,
            None => {
                made = self.unique_keys.next(now_ms);
                &made
            }
        };
        let mut digits = itoa::Buffer::new();
        let cluster = self.config.cluster.clone();
        let mut set = self.added_properties(&cluster);
        set.extend([
            (property::UNIQUE_KEY, unique_key),
            (property::TRANSACTION_ID, unique_key),
            (property::REAL_TOPIC, &target.topic),
            (property::REAL_QUEUE_ID, digits.format(target.queue_id)),
        ]);
        let properties = PropertyEdit { received: received.0, set: &set, remove: REMOVED };
        let message = NewMessage {
            topic: topics::HALF,
            queue_id: 0,
            sys_flag: send.sys_flag.with(target.sys_flag).without(MessageSysFlag::TRANSACTION_ROLLBACK),
            ..self.message(request, send, target, send.flag, request.body.clone(), properties)
        };
        let queue = self.half_queue();
        let append = message.into_append(queue)?;
        let then = sent(request, target, Some(unique_key.to_owned()));
        self.stage_with([append], vec![self.begun(queue, received, now_ms)], then, now_ms)
    }
}
