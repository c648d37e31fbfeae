//! The leader's lease: as long as it holds nobody else can lead, so what this leader has is the newest there is.
//!
//! ```text
//! leader    ──clock c──────────────────────────────echo c──▶  lease until c + 0.8 · timeout − 1 tick, by its own clock
//!                 ╲                               ╱
//! follower         ╲──▶ heard: no vote for the timeout by its own clock
//! ```
//!
//! A follower promises at every append and heartbeat to vote for nobody until the shortest election timeout is over, and says
//! back the clock it was sent. What a majority said back last is when the promises began at the latest. Clocks may differ
//! in speed by a tenth and more, and never have to agree.

use std::collections::BTreeMap;

use apogee_storage::{ConfState, NodeId};

use super::membership::reached_by_majority;

#[derive(Debug, Default)]
pub(super) struct Lease {
    /// The newest clock of this leader's term that each follower said back.
    echoes: BTreeMap<NodeId, i64>,
}

impl Lease {
    /// A new leadership, or none: what was said back before does not count.
    pub(super) fn clear(&mut self) {
        self.echoes.clear();
    }

    pub(super) fn on_echo(&mut self, from: NodeId, echo_ms: i64) {
        let newest = self.echoes.entry(from).or_insert(echo_ms);
        *newest = (*newest).max(echo_ms);
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.echoes.remove(&node);
    }

    /// What is left of the lease: it ends `length_ms` behind the newest clock that a majority said back.
    pub(super) fn left_ms(&self, own: NodeId, conf: &ConfState, length_ms: i64, now_ms: i64) -> i64 {
        let echo_of = |node: NodeId| if node == own { Some(now_ms) } else { self.echoes.get(&node).copied() };
        let begun_ms = reached_by_majority(conf, echo_of);
        begun_ms.map_or(0, |begun_ms| (begun_ms + length_ms - now_ms).max(0))
    }
}
