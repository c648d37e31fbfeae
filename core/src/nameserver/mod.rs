//! The NameServer: which brokers are there, and where each topic's queues are.
//!
//! A plain state machine: requests, closed connections and the time go in, replies and [`Action`]s come out. See the
//! README of this folder.

mod config;
mod handlers;
mod kv;
mod refusal;
mod routes;
mod server;
#[cfg(test)]
mod tests;

pub use config::{NameServerConfig, UpdateConfigError};
pub use handlers::CODES;
pub use kv::{KV_BYTES_MAX, KV_ENTRIES_MAX, KvConfig, KvError, KvFileError};
pub use routes::{BROKERS_MAX, MEMBERS_MAX, NAME_BYTES_MAX, QUEUE_ENTRIES_MAX, TOPICS_MAX};
pub use server::{Action, NameServer, TICK_PERIOD};
