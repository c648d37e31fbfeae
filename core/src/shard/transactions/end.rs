//! The end of a transaction: its half message becomes another message or none, and it is pending no more.

use apogee_net::flags::MessageSysFlag;
use apogee_net::message::{PropertyEdit, StoredMessage, property};
use apogee_storage::{Append, Buffer};
use bytes::Bytes;

use super::check::real_place;
use super::{Pending, TransactionRecord};
use crate::service::{Reply, ReplyTo};
use crate::shard::commit::Then;
use crate::shard::control::ControlRecord;
use crate::shard::record::{NewMessage, ShardRecord};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;
use crate::shard::topics;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Outcome {
    Committed,
    RolledBack,
    /// Nobody gave a verdict: for an administrator to look at.
    GivenUp,
}

impl<B: Buffer + 'static> Shard<B> {
    /// Ends a transaction that may be ended, with all that follows in one batch; whoever asked for it is answered when
    /// that is durable. Refused, it is pending as before.
    pub(in crate::shard) fn end_transaction(
        &mut self,
        pending: Pending,
        message: &Bytes,
        outcome: Outcome,
        to: Option<ReplyTo>,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        let half = pending.half;
        let append = match outcome {
            Outcome::RolledBack => None,
            Outcome::Committed | Outcome::GivenUp => Some(self.follower(pending, message, outcome)?),
        };
        let ended = ControlRecord::Transaction(TransactionRecord::Ended { half });
        let then = Then::Do(Box::new(move |shard: &mut Shard<B>, stored, _| {
            shard.transactions.ending.remove(&half);
            let reply = match stored {
                Ok(_) => Reply::success(),
                Err(reason) => Refusal::not_stored(reason).into(),
            };
            shard.reply(to, reply);
        }));
        self.stage_with(append, vec![ended], then, now_ms)?;
        self.transactions.ending.insert(half);
        Ok(())
    }

    /// The message that a half message becomes (`EndTransactionProcessor#endMessageTransaction`,
    /// `DefaultTransactionalMessageCheckListener#toMessageExtBrokerInner`).
    fn follower(
        &self,
        pending: Pending,
        message: &Bytes,
        outcome: Outcome,
    ) -> Result<Append<ShardRecord>, Refusal> {
        let half = StoredMessage::decode(message).map_err(|_| Refusal::half_not_found())?;
        let (topic, queue_id) = match outcome {
            Outcome::GivenUp => (topics::CHECKED_TOO_OFTEN, 0),
            _ => real_place(&half).ok_or_else(Refusal::half_not_found)?,
        };
        // A topic may have lost queues since; one that is gone takes no message.
        let number = self.topics.get(topic).ok_or_else(|| Refusal::topic_unknown(topic))?.number();
        let mut digits = itoa::Buffer::new();
        let checks = [(property::TRANSACTION_CHECK_TIMES, digits.format(pending.checks))];
        let properties = PropertyEdit {
            received: half.properties.0,
            set: if pending.checks == 0 { &[] } else { &checks },
            remove: &[],
        };
        let body = message.slice_ref(half.body);
        let mut new = NewMessage::copy_of(&half, body, self.config.address, (topic, queue_id), properties);
        if outcome == Outcome::Committed {
            new.sys_flag = new.sys_flag.with(MessageSysFlag::TRANSACTION_COMMIT);
            new.prepared_transaction_offset = half.physical_offset;
        }
        Ok(new.into_append(number.queue(queue_id as u32))?)
    }
}
