//! One RocketMQ broker: every decision it takes, as plain values.

pub mod attributes;
pub mod control;
pub mod filter;
pub mod groups;
pub mod locks;
pub mod offsets;
pub mod parked;
pub mod topics;
