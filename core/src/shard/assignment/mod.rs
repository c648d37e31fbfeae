//! Which queues of a topic a client of a group gets when its broker decides it (`clientRebalance=false`), and whether
//! it pulls or pops them.

mod modes;
mod routes;
mod strategy;

pub use modes::{REQUEST_MODES_MAX, RequestModeError, RequestModeRecord, RequestModeTable};
pub use routes::{FoundRoute, ROUTES_MAX, RouteCache};
pub(in crate::shard) use routes::{Known, QueueCount};
pub(in crate::shard) use strategy::{Members, Strategy};
