//! Requests and replies as types: what Java calls custom headers.
//!
//! Each is declared once, field by field with its wire name, and from that is read out of [`ExtFields`] in one pass
//! and written back. Names and required fields follow RocketMQ's header classes; unknown fields are ignored.
//!
//! [`ExtFields`]: crate::header::ExtFields

#[macro_use]
mod typed;

mod admin;
mod client;
mod group;
mod nameserver;
mod offset;
mod pop;
mod pull;
mod query;
mod reply;
mod send;
#[cfg(test)]
mod tests;
mod transaction;

pub use admin::*;
pub use client::*;
pub use group::*;
pub use nameserver::*;
pub use offset::*;
pub use pop::*;
pub use pull::*;
pub use query::*;
pub use reply::*;
pub use send::*;
pub use transaction::*;
pub use typed::{Field, FieldError, TypedHeader};
