//! Messages handed out one by one, each hidden from its group until it is acknowledged or its time is up.

mod deliver;
mod order;
mod plan;
mod polls;
mod record;
mod retry_topic;
mod revive;
mod sift;
mod table;
#[cfg(test)]
pub(in crate::shard) mod tests;
mod wake;

pub use plan::POP_MESSAGES_MAX;
pub(in crate::shard) use plan::{Pop, Popped};
pub use polls::{POLLS_MAX, POLLS_PER_QUEUE_MAX, PollKey, PollingFull, Polls};
pub use record::{CheckPointId, PopRecord};
pub(in crate::shard) use retry_topic::pop_retry_topic;
pub use table::{CHECK_POINTS_MAX, CHECK_POINTS_PER_QUEUE_MAX, ORDERS_MAX, PopTable};
pub(in crate::shard) use wake::{ParkedNotification, ParkedPop, Popping};
