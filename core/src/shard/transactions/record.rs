//! What is logged of transactions, in control records.
//!
//! ```text
//! Begun    0 | half | checks | check_at      with its half message, in one batch
//! Ended    1 | half                          with the message that it leads to, if any, in one batch
//! Checked  2 | count | count times (half | checks | check_at), by ascending half
//! ```
//!
//! Numbers are variable-length, `check_at` signed. A snapshot holds one `Begun` for each pending transaction.

use apogee_storage::QueueOffset;

use crate::shard::control::ControlError;
use crate::shard::control::codec::{Fields, put_signed, put_unsigned};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionRecord {
    /// A half message waits for its producer's verdict.
    Begun(Pending),
    /// It waits no more: committed, rolled back, checked too often or gone.
    Ended { half: QueueOffset },
    /// Producers were asked about these. What is not pending any more is left as it is.
    Checked(Vec<Pending>),
}

/// A transaction without a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The half message's offset in the half queue, which names the transaction.
    pub half: QueueOffset,
    /// How often a producer was asked, or would have been if there had been one.
    pub checks: u32,
    /// When one is asked next.
    pub check_at_ms: i64,
}

const BEGUN: u8 = 0;
const ENDED: u8 = 1;
const CHECKED: u8 = 2;

impl TransactionRecord {
    pub(in crate::shard) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Begun(pending) => {
                out.push(BEGUN);
                put_pending(out, pending);
            }
            Self::Ended { half } => {
                out.push(ENDED);
                put_unsigned(out, half.0);
            }
            Self::Checked(checked) => {
                out.push(CHECKED);
                put_unsigned(out, checked.len() as u64);
                for pending in checked {
                    put_pending(out, pending);
                }
            }
        }
    }

    pub(in crate::shard) fn decode(fields: &mut Fields<'_>) -> Result<Self, ControlError> {
        match fields.byte("change of a transaction")? {
            BEGUN => Ok(Self::Begun(pending(fields)?)),
            ENDED => Ok(Self::Ended { half: QueueOffset(fields.unsigned("half message")?) }),
            CHECKED => {
                let mut checked: Vec<Pending> = Vec::new();
                for _ in 0..fields.unsigned("count of checked")? {
                    let next = pending(fields)?;
                    if checked.last().is_some_and(|last| last.half >= next.half) {
                        return Err(fields.bad("half message", "offsets not in ascending order"));
                    }
                    checked.push(next);
                }
                Ok(Self::Checked(checked))
            }
            _ => Err(fields.bad("change of a transaction", "neither begun, ended nor checked")),
        }
    }
}

fn put_pending(out: &mut Vec<u8>, pending: &Pending) {
    put_unsigned(out, pending.half.0);
    put_unsigned(out, pending.checks.into());
    put_signed(out, pending.check_at_ms);
}

fn pending(fields: &mut Fields<'_>) -> Result<Pending, ControlError> {
    Ok(Pending {
        half: QueueOffset(fields.unsigned("half message")?),
        checks: fields.u32("checks")?,
        check_at_ms: fields.signed("time of the next check")?,
    })
}
