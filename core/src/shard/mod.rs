//! One RocketMQ broker: every decision it takes, as plain values.

pub mod attributes;
pub mod clients;
pub mod control;
pub mod filter;
pub mod groups;
pub mod handlers;
pub mod locks;
pub mod offsets;
pub mod parked;
pub mod topics;

mod action;
mod cold;
mod commit;
mod pull;
mod record;
mod refusal;
mod registration;
mod replay;
mod state;
#[cfg(test)]
mod tests;

pub use action::{Action, Fetch, Push};
pub use cold::ColdPages;
pub use replay::{Replay, ReplayError};
pub use state::{OpenError, Shard, ShardConfig};
