use std::fmt;

use serde::{Deserialize, Serialize};

use crate::figures;

/// How messages are offered to the broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Load {
    /// Open loop: messages per second over all queues, evenly spaced, whatever the broker does.
    Constant { rate: u64 },
    /// A fixed number of requests in flight on each connection; the next leaves when one is answered.
    Closed { depth: u32 },
}

impl Default for Load {
    fn default() -> Load {
        Load::Constant { rate: 1_000 }
    }
}

impl Load {
    /// Whether sends follow a plan, so that a message has a time at which it is due.
    pub fn is_open(&self) -> bool {
        !matches!(self, Load::Closed { .. })
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Load::Constant { rate } => write!(f, "open loop, {} msg/s planned", figures::count(*rate)),
            Load::Closed { depth } => write!(f, "closed loop, {depth} in flight per connection"),
        }
    }
}
