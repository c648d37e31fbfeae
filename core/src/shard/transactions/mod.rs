//! Transactions: messages that consumers see once their producer says so, and never if it says the contrary
//! (RocketMQ's `TransactionalMessageService`).
//!
//! ```text
//! send with TRAN_MSG ──► half message in RMQ_SYS_TRANS_HALF_TOPIC        + Begun
//!                             │
//!                             │ no verdict: CHECK_TRANSACTION_STATE to a producer of the group,
//!                             │ counted in Checked, about once a second for all
//!                             │
//!                             ├─ commit ───────────► message in its topic                      + Ended
//!                             ├─ rollback ─────────►                                             Ended
//!                             ├─ checked too often,
//!                             │  or leaves the log ► message in TRANS_CHECK_MAX_TIME_TOPIC     + Ended
//!                             └─ gone from the log ►                                             Ended
//! ```
//!
//! What stands in one line is one batch of the log, so it happens once or not at all. A transaction is named by its half
//! message's offset in the half queue. RocketMQ writes ends into `RMQ_SYS_TRANS_OP_HALF_TOPIC` and the half message anew
//! with each check; here the table says what is pending, and the offsets that a producer was told stay valid.

mod begin;
mod check;
mod end;
mod record;
mod table;
#[cfg(test)]
mod tests;

use apogee_storage::QueueOffset;
use rustc_hash::FxHashSet;

pub(super) use self::begin::immunity_ms;
pub(super) use self::check::real_place;
pub(super) use self::end::Outcome;
pub use self::record::{Pending, TransactionRecord};
pub use self::table::{PENDING_MAX, TransactionTable};

/// The pending transactions, and what is under way for them.
#[derive(Debug)]
pub(super) struct Transactions {
    pub table: TransactionTable,
    /// Their end is on its way to the disk. Nothing else can happen to them meanwhile.
    ending: FxHashSet<QueueOffset>,
    /// Their half messages are being read.
    reading: FxHashSet<QueueOffset>,
    /// Until then nobody is asked: clients have to come back first.
    no_checks_before_ms: i64,
    checks_logged_at_ms: i64,
    /// Pending transactions at which half messages are refused.
    pending_max: usize,
}

impl Transactions {
    /// RocketMQ too waits for one interval before it begins to check.
    pub(super) fn new(table: TransactionTable, check_interval_ms: u32, now_ms: i64) -> Self {
        Transactions {
            table,
            ending: FxHashSet::default(),
            reading: FxHashSet::default(),
            no_checks_before_ms: now_ms.saturating_add(check_interval_ms.into()),
            checks_logged_at_ms: now_ms,
            pending_max: PENDING_MAX,
        }
    }

    /// The transaction, if it may be ended now.
    pub(super) fn open(&self, half: QueueOffset) -> Option<Pending> {
        self.table.get(half).filter(|_| !self.ending.contains(&half))
    }
}
