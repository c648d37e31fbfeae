//! Apogee: a RocketMQ-compatible broker, one shard per core.
//!
//! Decisions (shards, the NameServer) are plain state machines that take requests, completions and the time, and
//! return actions; what touches clocks, sockets, files and threads drives them.

mod admin;
pub mod cli;
pub mod config;
mod log_tool;
pub mod nameserver;
pub mod node;
mod properties;
mod recover;
pub mod replication;
#[cfg(test)]
mod request_codes;
pub mod service;
pub mod shard;
#[cfg(test)]
mod sim;
mod trial;
