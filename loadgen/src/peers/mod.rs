//! Other brokers beside Apogee on one machine: obtained from package registries, started alike, measured alike.
//!
//! `docs/peers.md` says how each is set up and why. Read `peer.rs` first (who takes part), then `broker.rs` (what it
//! is to start one), then `bench/run.rs` (what is measured).

pub mod apogee;
pub mod bench;
pub mod broker;
pub mod machine;
pub mod peer;
pub mod process;
pub mod rocketmq;
pub mod rocketmq_rust;
pub mod tools;
pub mod usage;
