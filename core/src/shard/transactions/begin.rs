//! The beginning of a transaction: a half message, and the record that it is pending.

use apogee_net::code::ResponseCode;
use apogee_net::message::{Properties, property};
use apogee_storage::{Buffer, QueueKey};

use super::{Pending, TransactionRecord};
use crate::shard::control::ControlRecord;
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

impl<B: Buffer + 'static> Shard<B> {
    /// Refuses half messages while they are not wanted or too many are pending.
    pub(in crate::shard) fn check_transactions_flow(&self) -> Result<(), Refusal> {
        self.check_changes_flow()?;
        let max = self.transactions.pending_max;
        if self.transactions.table.len() >= max {
            let remark = format!("service not available now: {max} transactions wait for a verdict");
            return Err(Refusal::new(ResponseCode::SERVICE_NOT_AVAILABLE, remark));
        }
        Ok(())
    }

    /// The record to be staged together with the next half message, which has these properties.
    pub(in crate::shard) fn begun(
        &self,
        half_queue: QueueKey,
        properties: Properties<'_>,
        now_ms: i64,
    ) -> ControlRecord {
        let timeout_ms = i64::from(self.settings.transaction_timeout_ms);
        let immunity = properties.get(property::CHECK_IMMUNITY_SEC);
        let wait_ms = immunity.map_or(timeout_ms, |seconds| immunity_ms(seconds, timeout_ms));
        ControlRecord::Transaction(TransactionRecord::Begun(Pending {
            half: self.log.tail_offset(half_queue),
            checks: 0,
            check_at_ms: now_ms.saturating_add(wait_ms.max(0)),
        }))
    }
}

/// How long a half message is not checked that says so itself (`TransactionalMessageUtil#getImmunityTime`).
pub(in crate::shard) fn immunity_ms(seconds: &str, timeout_ms: i64) -> i64 {
    match seconds.parse::<i64>() {
        Ok(-1) | Err(_) => timeout_ms,
        Ok(seconds) => seconds.saturating_mul(1000),
    }
}
