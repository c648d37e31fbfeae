//! What a replica says to those that read: from whom they shall read on, and how far the group is.

use apogee_net::body::{HaClientRuntimeInfo, HaConnectionRuntimeInfo, HaRuntimeInfo};
use apogee_storage::{BatchIndex, Buffer, NodeId};

use crate::replication::PeerStatus;
use crate::shard::state::Shard;

/// Batches that a replica may be behind and still count as in sync.
const IN_SYNC_BATCHES_MAX: u64 = 64;

/// How often a master looks which slaves are in sync.
const SLAVES_LOOKED_AT_EVERY_MS: i64 = 1_000;

fn is_in_sync(peer: &PeerStatus) -> bool {
    let is_near = peer.lag_batches.is_some_and(|lag| lag <= IN_SYNC_BATCHES_MAX);
    is_near && peer.connected && !peer.recovering
}

/// Whom a group wants to read from (`SubscriptionGroupConfig`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct Readers {
    /// `brokerId`: as long as it keeps up.
    pub usual: i64,
    /// `whichBrokerWhenConsumeSlowly`
    pub slow: i64,
}

impl<B: Buffer + 'static> Shard<B> {
    /// The broker that a consumer shall pull from next (`PullMessageProcessor#composeResponseHeader`). A master has whoever
    /// reads what is in memory no more read from a slave; a slave has it back when it has caught up.
    pub(in crate::shard) fn suggested_broker(&self, readers: Readers, is_slow: bool) -> i64 {
        let Some(roles) = &self.roles else { return 0 };
        if self.is_master() {
            if !is_slow {
                return readers.usual;
            }
            let wanted = NodeId(u64::try_from(readers.slow).unwrap_or(0));
            let slaves = &roles.in_sync;
            let slave = slaves.iter().find(|slave| **slave == wanted).or(slaves.first());
            return slave.map_or(0, |node| node.0 as i64);
        }
        let own = roles.replica.group_state().node.0 as i64;
        if is_slow || self.leader().is_none() { own } else { readers.usual }
    }

    /// Finds out now and then which slaves consumers can be sent to.
    pub(super) fn look_at_slaves(&mut self, now_ms: i64) {
        let is_due = |looked_at_ms: i64| now_ms - looked_at_ms >= SLAVES_LOOKED_AT_EVERY_MS;
        if !self.is_master() || !self.roles.as_ref().is_some_and(|roles| is_due(roles.looked_at_slaves_ms)) {
            return;
        }
        let Some(status) = self.group_status(now_ms) else { return };
        let slaves = status.peers.iter().filter(|peer| peer.node != status.node && is_in_sync(peer));
        let slaves = slaves.map(|peer| peer.node).collect();
        let roles = self.group_roles();
        (roles.in_sync, roles.looked_at_slaves_ms) = (slaves, now_ms);
    }

    /// `BrokerRole`: a master in a group acknowledges what a majority has.
    pub(in crate::shard) fn role_name(&self) -> &'static str {
        match (&self.roles, self.is_master()) {
            (None, _) => "ASYNC_MASTER",
            (Some(_), true) => "SYNC_MASTER",
            (Some(_), false) => "SLAVE",
        }
    }

    /// Requests that wait for a leader, or for its answer.
    pub(in crate::shard) fn requests_held(&self) -> usize {
        self.roles.as_ref().map_or(0, |roles| roles.held.len())
    }

    /// GET_BROKER_HA_STATUS.
    pub(in crate::shard) fn ha_runtime_info(&self, now_ms: i64) -> HaRuntimeInfo {
        let committed = self.log.marks().committed.0 as i64;
        let Some(status) = self.group_status(now_ms) else {
            return HaRuntimeInfo {
                master: true,
                master_commit_log_max_offset: committed,
                ..Default::default()
            };
        };
        let own = status.node;
        let others = || status.peers.iter().filter(|peer| peer.node != own);
        if self.is_master() {
            let connections: Vec<_> =
                others().filter(|peer| peer.connected).map(|peer| self.ha_connection(peer)).collect();
            return HaRuntimeInfo {
                master: true,
                master_commit_log_max_offset: committed,
                in_sync_slave_nums: connections.iter().filter(|connection| connection.in_sync).count() as i32,
                ha_connection_info: connections,
                ..Default::default()
            };
        }
        let master = others().find(|peer| Some(peer.node) == status.leader);
        let heard_ms = master.and_then(|peer| peer.heard_ms_ago).map_or(0, |ago_ms| now_ms - ago_ms);
        HaRuntimeInfo {
            master: false,
            ha_client_runtime_info: HaClientRuntimeInfo {
                activated: master.is_some_and(|peer| peer.connected),
                last_read_timestamp: heard_ms,
                last_write_timestamp: heard_ms,
                master_addr: master.map(|peer| String::from_utf8_lossy(&peer.address).into_owned()),
                master_flush_offset: committed,
                max_offset: self.log.marks().appended.0 as i64,
                transferred_byte_in_second: 0,
            },
            ..Default::default()
        }
    }

    fn ha_connection(&self, peer: &PeerStatus) -> HaConnectionRuntimeInfo {
        let end = self.log.marks().committed.0 as i64;
        let acked = peer.matched_index.and_then(|index| self.end_of(index)).unwrap_or(0);
        HaConnectionRuntimeInfo {
            addr: String::from_utf8_lossy(&peer.address).into_owned(),
            diff: (end - acked).max(0),
            in_sync: is_in_sync(peer),
            slave_ack_offset: acked,
            transfer_from_where: acked,
            transferred_byte_in_second: 0,
        }
    }

    /// Where a batch ends in the log, if that is known without the disk.
    fn end_of(&self, index: BatchIndex) -> Option<i64> {
        let place = self.log.batch_at(index).ok()??;
        Some((place.base_offset.0 + u64::from(place.len)) as i64)
    }
}
