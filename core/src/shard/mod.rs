//! One RocketMQ broker: every decision it takes, as plain values.

pub mod attributes;
pub mod control;
pub mod offsets;
pub mod parked;
pub mod topics;
