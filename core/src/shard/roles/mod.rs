//! What a shard is in its group of nodes, and what follows from it for clients.
//!
//! ```text
//!                 chosen by the group          its first batch is committed,
//!                                              its tables are as the log says
//!   ┌──────────┐ ───────────────────► ┌────────┐ ──────────────────────────► ┌────────┐
//!   │ follower │                      │ chosen │                             │ master │
//!   └──────────┘ ◄─────────────────── └────────┘                             └────────┘
//!        ▲             deposed                                                    │ deposed: step_down
//!        └────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! See the README of this folder.

mod apply;
mod change;
mod drive;
mod forward;
mod gate;
mod held;
mod reads;

use std::collections::VecDeque;
use std::fmt;

use apogee_storage::{Buffer, DiskOp, GroupRecovered, LogOffset, NodeId};

use self::apply::Rebuild;
pub use self::change::{NoChange, NoTransfer};
pub use self::forward::{ForwardAnswer, ForwardExt, ForwardFailed, ForwardId, ForwardRequest, NOT_LEADER};
use self::held::HeldRequests;
pub use self::held::{HELD_BYTES_MAX, HELD_MAX, HELD_MS_MAX};
pub(super) use self::reads::Readers;
use crate::replication::{Replica, ReplicaConfig};
use crate::shard::registration::Rank;

/// A shard's place in its group. A shard without one is a broker of its own and its own master.
pub(super) struct Roles<B> {
    pub replica: Replica<B>,
    /// Number of the shard on its node.
    shard: u32,
    standing: Standing,
    held: HeldRequests,
    has_more_to_move: bool,
    /// The leader that was known last, whom requests are forwarded to.
    asked: Option<NodeId>,
    /// When what earlier ones did not answer is asked of it.
    recall_at_ms: Option<i64>,
    /// Nothing is forwarded before: the last try failed.
    forward_from_ms: i64,
    /// How long a master's lease lasts at most.
    lease_ms_max: i64,
    /// Queue locks are granted from then on: whoever holds one by the last master's word has heard of no other.
    locks_from_ms: i64,
    /// Control records in front of it are in the tables.
    state_at: LogOffset,
    /// The tables hold what was never committed, and are made anew.
    rebuild: Option<Rebuild>,
    next_rebuild: u64,
    /// A change that was made in a table is in the log no more.
    lost_changes: bool,
    /// Slaves that have all but the newest batches, for a master.
    in_sync: Vec<NodeId>,
    looked_at_slaves_ms: i64,
    /// Was told to the driver last.
    told: Option<Rank>,
    /// Leadership was being handed over when it was looked at last.
    was_handing_over: bool,
    /// The group goes on without this node.
    is_removed: bool,
    /// An orderly stop has begun, and leadership was given away or could not be.
    is_leaving: bool,
    /// It has waited long enough for that.
    leaves_anyway: bool,
    ops: VecDeque<DiskOp<B>>,
}

/// What a shard is to its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Follows, or was just chosen and does not know yet what the log says.
    Slave,
    Master,
}

impl<B> fmt::Debug for Roles<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roles({:?}, {} held)", self.standing, self.held.len())
    }
}

impl<B: Buffer + 'static> Roles<B> {
    pub(super) fn new(replica: Replica<B>, shard: u32, lease_ms_max: i64, state_at: LogOffset) -> Self {
        Roles {
            is_removed: replica.is_removed(),
            replica,
            shard,
            lease_ms_max,
            standing: Standing::Slave,
            held: HeldRequests::default(),
            has_more_to_move: false,
            asked: None,
            recall_at_ms: None,
            forward_from_ms: i64::MIN,
            locks_from_ms: i64::MIN,
            state_at,
            rebuild: None,
            next_rebuild: 0,
            lost_changes: false,
            in_sync: Vec::new(),
            looked_at_slaves_ms: i64::MIN / 2,
            told: None,
            was_handing_over: false,
            is_leaving: false,
            leaves_anyway: false,
            ops: VecDeque::new(),
        }
    }
}

/// Where a shard's group begins for it: as recovery left it.
#[derive(Debug)]
pub struct GroupStart {
    pub config: ReplicaConfig,
    pub recovered: GroupRecovered,
}
