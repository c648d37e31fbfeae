//! The network: a connection between any two nodes, each a pair of ordered streams, that breaks and comes back.

use std::collections::{BTreeMap, BTreeSet};

use apogee_storage::NodeId;
use apogee_storage::sim::Rng;

use crate::replication::Channel;

/// Two nodes, the lesser first.
pub(super) type Pair = (NodeId, NodeId);

pub(super) fn pair(a: NodeId, b: NodeId) -> Pair {
    (a.min(b), a.max(b))
}

#[derive(Debug, Default)]
struct Link {
    is_up: bool,
    /// Counts connections: what was sent on an earlier one is dropped.
    epoch: u64,
}

#[derive(Debug)]
pub(super) struct Net {
    links: BTreeMap<Pair, Link>,
    /// From and to: nothing gets through.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// When the last message of each stream arrives.
    busy_until_us: BTreeMap<(NodeId, NodeId, bool), u64>,
    pub(super) is_lossy: bool,
    hiccups: bool,
    delay_us: u64,
}

/// What becomes of a message.
#[derive(Debug)]
pub(super) enum Fate {
    Lost,
    Arrives { at_us: u64 },
    Twice { at_us: u64, again_us: u64 },
}

impl Net {
    pub(super) fn new(is_lossy: bool, hiccups: bool, delay_us: u64) -> Net {
        Net {
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            busy_until_us: BTreeMap::new(),
            is_lossy,
            hiccups,
            delay_us,
        }
    }

    pub(super) fn epoch(&self, a: NodeId, b: NodeId) -> Option<u64> {
        self.links.get(&pair(a, b)).filter(|link| link.is_up).map(|link| link.epoch)
    }

    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to))
    }

    pub(super) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
    }

    pub(super) fn mend(&mut self, from: NodeId, to: NodeId) {
        self.cut.remove(&(from, to));
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(super) fn connect(&mut self, a: NodeId, b: NodeId) {
        let link = self.links.entry(pair(a, b)).or_default();
        assert!(!link.is_up, "{a} and {b} are connected");
        link.is_up = true;
        link.epoch += 1;
        self.busy_until_us.retain(|(from, to, _), _| pair(*from, *to) != pair(a, b));
    }

    /// Whether there was a connection.
    pub(super) fn disconnect(&mut self, a: NodeId, b: NodeId) -> bool {
        self.links.get_mut(&pair(a, b)).is_some_and(|link| std::mem::take(&mut link.is_up))
    }

    pub(super) fn fate(
        &mut self,
        from: NodeId,
        to: NodeId,
        channel: Channel,
        now_us: u64,
        rng: &mut Rng,
    ) -> Fate {
        if self.is_cut(from, to) {
            return Fate::Lost;
        }
        let mut delay_us = self.delay_us / 2 + rng.below(self.delay_us + 1);
        if self.hiccups && rng.chance(1) {
            delay_us += rng.below(50_000);
        }
        let at_us = now_us + delay_us;
        if self.is_lossy {
            return match rng.below(100) {
                0..=2 => Fate::Lost,
                3..=4 => Fate::Twice { at_us, again_us: at_us + rng.below(20_000) },
                _ => Fate::Arrives { at_us },
            };
        }
        let busy = self.busy_until_us.entry((from, to, channel == Channel::Append)).or_default();
        *busy = at_us.max(*busy + 1);
        Fate::Arrives { at_us: *busy }
    }
}
