//! One RocketMQ broker: every decision it takes, as plain values.

pub mod assignment;
pub mod attributes;
pub mod clients;
pub mod control;
pub mod filter;
pub mod forbidden;
pub mod groups;
pub mod handlers;
pub mod locks;
pub mod offsets;
pub mod parked;
pub mod pop;
pub mod resets;
pub mod settings;
pub mod stats;
pub mod timers;
pub mod topics;
pub mod transactions;

mod action;
mod call;
mod cold;
mod commit;
mod load;
mod long_answer;
mod pull;
mod query;
mod record;
mod refusal;
mod registration;
mod replay;
mod roles;
#[cfg(test)]
pub(crate) mod seen;
mod stages;
mod state;
#[cfg(test)]
mod tests;

pub use action::{Action, Fetch, Push};
pub use call::CALLS_MAX;
pub use cold::ColdPages;
pub use load::{LOADS_MAX, LoadId, Need};
pub use long_answer::{ANSWER_BYTES_MAX, LONG_ANSWERS_MAX};
pub use query::{SearchError, SearchId};
pub use registration::{Rank, Registration, Told};
pub use replay::{Replay, ReplayError};
pub use roles::{
    ForwardAnswer, ForwardExt, ForwardFailed, ForwardId, ForwardRequest, GroupStart, HELD_BYTES_MAX,
    HELD_MAX, HELD_MS_MAX, NOT_LEADER, NoChange, NoTransfer,
};
pub use stages::Moment;
pub use state::{OpenError, Shard, ShardConfig};
pub use stats::DriftGauge;
