//! `[replication]`: which group of nodes this one belongs to, and how the group behaves.
//!
//! Some keys are this node's own; the others say how the group as a whole behaves and must be the same at every node:
//! what one node may rely on follows from what the others do. [`BrokerConfig::group_wide`] gives these, so that nodes can
//! compare them when they meet.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail, ensure};
use apogee_storage::NodeId;
use serde::{Deserialize, Serialize};

use super::{BrokerConfig, MIB, PORT_STRIDE, between, host};
use crate::replication::MEMBERS_MAX;

/// How far above a shard's port for clients the one for the other nodes is.
pub const PEER_PORT_DISTANCE: u16 = 1;

/// Node ids are RocketMQ's broker ids, which follow the master's 0.
const NODE_ID_MAX: u16 = 1000;

/// Nodes of a group: as many as a group can have. A NameServer takes more brokers of one name, for one that moves is
/// registered twice for a moment.
const NODES_MAX: usize = MEMBERS_MAX;

/// Voters of a new group. With more, each message waits for more machines and nothing is gained.
const VOTERS_MAX: usize = 7;

/// A node belongs to a group of nodes, each of which has every shard.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct ReplicationConfig {
    /// This node's id, 1 to 1000; one of `nodes`. Its own. Clients see it as the broker id of a slave.
    pub node: u16,
    /// Whether the node waits to be added to a group that exists, rather than forming a new one with the others of
    /// `nodes`. Counts only while its data directory is empty. Its own.
    #[serde(default)]
    pub join: bool,
    /// The nodes that the group begins with. Later the group's own record counts, which `apogee admin group` changes;
    /// a node that joins needs itself and one that is there.
    pub nodes: Vec<NodeAddress>,
    /// How long a follower hears nothing of its leader before it stands for election, in milliseconds; each time it is
    /// this and up to as much again. At least three heartbeats; 100 to 60,000. Group-wide. Default 400:
    /// with it somebody else leads within a second of a leader's end (`replication/README.md`).
    #[serde(default = "default_election_timeout_ms")]
    pub election_timeout_ms: u32,
    /// How often a leader tells its followers that it is there, in milliseconds. 10 to 10,000. Group-wide. Default 80.
    #[serde(default = "default_heartbeat_ms")]
    pub heartbeat_ms: u32,
    /// Bytes on their way to one follower which it has not confirmed yet. 1 MiB to 1 GiB. Group-wide, since a restarted
    /// node tells by it an unfinished write from damage. Default 8 MiB.
    #[serde(default = "default_window_bytes")]
    pub window_bytes: u64,
    /// Bytes of the log that may wait for a majority; beyond it nothing more is sealed, and sends are answered as busy
    /// once they have waited. At least `window_bytes`; up to 4 GiB. Group-wide. Default 32 MiB.
    #[serde(default = "default_uncommitted_bytes_max")]
    pub uncommitted_bytes_max: u64,
    /// Whether shards' leaders are led back to the nodes that are to have them, so that they are spread evenly.
    /// Group-wide. Default true.
    #[serde(default = "default_preferred_leaders")]
    pub preferred_leaders: bool,
    /// How long a leader stays before it hands over to the node that is to lead, in milliseconds. 1,000 to 3,600,000.
    /// Group-wide. Default 30,000.
    #[serde(default = "default_preferred_leaders_wait_ms")]
    pub preferred_leaders_wait_ms: u32,
    /// How long a leader's own disk may keep a write before the leader hands over, in milliseconds. 100 to 60,000. Its
    /// own: disks differ. Default 1,000.
    #[serde(default = "default_disk_stall_ms")]
    pub disk_stall_ms: u32,
    /// How long a node that was told to stop, and has handed over what it led, goes on serving those who do not know yet:
    /// stock clients ask for routes every 30 seconds, and go to the old place until then. Up to 600,000. Its own.
    /// Default 0.
    #[serde(default)]
    pub stop_linger_ms: u32,
}

/// Where a node is for the other nodes of its group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct NodeAddress {
    /// 1 to 1000.
    pub id: u16,
    /// Address or host name.
    #[serde(deserialize_with = "host")]
    pub address: IpAddr,
    /// Port of its shard 0 for clients; the one above it is for nodes. Default: this node's own `base_port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_port: Option<u16>,
    /// It gets everything and has no vote: RocketMQ's asynchronous slave.
    #[serde(default)]
    pub learner: bool,
}

/// What must be the same at all nodes of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupWide {
    pub election_timeout_ms: u32,
    pub heartbeat_ms: u32,
    pub window_bytes: u64,
    pub uncommitted_bytes_max: u64,
    pub preferred_leaders: bool,
    pub preferred_leaders_wait_ms: u32,
    pub segment_bytes: u64,
    pub message_bytes_max: u32,
}

fn default_election_timeout_ms() -> u32 {
    400
}

fn default_heartbeat_ms() -> u32 {
    80
}

fn default_window_bytes() -> u64 {
    8 * MIB
}

fn default_uncommitted_bytes_max() -> u64 {
    32 * MIB
}

fn default_preferred_leaders() -> bool {
    true
}

fn default_preferred_leaders_wait_ms() -> u32 {
    30_000
}

fn default_disk_stall_ms() -> u32 {
    1_000
}

impl ReplicationConfig {
    /// Node `node` of a group of `nodes`, with defaults for everything else.
    pub fn new(node: u16, nodes: Vec<NodeAddress>) -> Self {
        ReplicationConfig {
            node,
            join: false,
            nodes,
            election_timeout_ms: default_election_timeout_ms(),
            heartbeat_ms: default_heartbeat_ms(),
            window_bytes: default_window_bytes(),
            uncommitted_bytes_max: default_uncommitted_bytes_max(),
            preferred_leaders: default_preferred_leaders(),
            preferred_leaders_wait_ms: default_preferred_leaders_wait_ms(),
            disk_stall_ms: default_disk_stall_ms(),
            stop_linger_ms: 0,
        }
    }

    pub fn node_id(&self) -> NodeId {
        NodeId(self.node.into())
    }

    /// The nodes that vote from the beginning, in the order of their ids.
    pub fn voters(&self) -> Vec<NodeId> {
        self.ids(|node| !node.learner)
    }

    /// The nodes that only learn from the beginning, in the order of their ids.
    pub fn learners(&self) -> Vec<NodeId> {
        self.ids(|node| node.learner)
    }

    fn ids(&self, wanted: impl Fn(&NodeAddress) -> bool) -> Vec<NodeId> {
        let ids: BTreeSet<u16> = self.nodes.iter().filter(|node| wanted(node)).map(|node| node.id).collect();
        ids.into_iter().map(|id| NodeId(id.into())).collect()
    }

    /// This node's own entry.
    ///
    /// # Panics
    /// If the configuration is not [valid](BrokerConfig::validate).
    pub fn own(&self) -> &NodeAddress {
        self.find(self.node).expect("validated")
    }

    fn find(&self, id: u16) -> Option<&NodeAddress> {
        self.nodes.iter().find(|node| node.id == id)
    }

    pub(super) fn own_address(&self) -> Option<IpAddr> {
        self.find(self.node).map(|node| node.address)
    }

    pub(super) fn validate(&self, broker: &BrokerConfig) -> anyhow::Result<()> {
        let key = |name: &str| format!("replication.{name}");
        between(&key("node"), self.node.into(), 1, NODE_ID_MAX.into())?;
        between(&key("nodes: number"), self.nodes.len() as u64, 1, NODES_MAX as u64)?;
        for node in &self.nodes {
            between(&key("nodes: id"), node.id.into(), 1, NODE_ID_MAX.into())?;
            ensure!(
                !node.address.is_unspecified(),
                "replication.nodes: node {}: address = {}: no node can connect to that",
                node.id,
                node.address
            );
            if let Some(port) = node.base_port {
                between(&key(&format!("nodes: node {}: base_port", node.id)), port.into(), 1024, 65_000)?;
            }
        }
        self.validate_nodes(broker)?;
        between(&key("heartbeat_ms"), self.heartbeat_ms.into(), 10, 10_000)?;
        between(&key("election_timeout_ms"), self.election_timeout_ms.into(), 100, 60_000)?;
        ensure!(
            self.election_timeout_ms >= self.heartbeat_ms.saturating_mul(3),
            "replication.election_timeout_ms = {}: expected at least three times heartbeat_ms = {}, or one late \
             heartbeat starts an election",
            self.election_timeout_ms,
            self.heartbeat_ms
        );
        between(&key("window_bytes"), self.window_bytes, MIB, 1024 * MIB)?;
        // A window that does not hold the largest batch would never let it pass.
        let batch_bytes_max = u64::from(broker.log(super::GroupId(0), NodeId(0)).batch_bytes_max);
        ensure!(
            self.window_bytes >= batch_bytes_max,
            "replication.window_bytes = {}: expected at least {batch_bytes_max}, the largest batch with \
             message_bytes_max = {}",
            self.window_bytes,
            broker.message_bytes_max
        );
        between(&key("uncommitted_bytes_max"), self.uncommitted_bytes_max, self.window_bytes, 4096 * MIB)?;
        between(
            &key("preferred_leaders_wait_ms"),
            self.preferred_leaders_wait_ms.into(),
            1_000,
            super::HOUR_MS,
        )?;
        between(&key("disk_stall_ms"), self.disk_stall_ms.into(), 100, 60_000)?;
        between(&key("stop_linger_ms"), self.stop_linger_ms.into(), 0, 600_000)?;
        ensure!(
            broker.shards.is_some(),
            "shards is not set: all nodes of a group have as many, so replication needs it said"
        );
        Ok(())
    }

    /// That the nodes are told apart, and that this one is among them.
    fn validate_nodes(&self, broker: &BrokerConfig) -> anyhow::Result<()> {
        let mut ids = BTreeSet::new();
        for node in &self.nodes {
            ensure!(ids.insert(node.id), "replication.nodes: id {} stands there twice", node.id);
        }
        let own = self.find(self.node).with_context(|| {
            let ids = ids.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            format!("replication.node = {}: not among replication.nodes, which are {ids}", self.node)
        })?;
        if let Some(port) = own.base_port {
            ensure!(
                port == broker.base_port,
                "replication.nodes: node {}, which is this one, has base_port = {port}; the node's own base_port is {}",
                self.node,
                broker.base_port
            );
        }
        let span = PORT_STRIDE * broker.shards.unwrap_or(1).min(super::SHARDS_MAX);
        for (count, node) in self.nodes.iter().enumerate() {
            let port = node.base_port.unwrap_or(broker.base_port);
            let twin = self.nodes[..count].iter().find(|other| {
                other.address == node.address
                    && other.base_port.unwrap_or(broker.base_port).abs_diff(port) < span
            });
            if let Some(twin) = twin {
                bail!(
                    "replication.nodes: nodes {} and {} share {}, and their ports overlap: with {} shards base_port \
                     must differ by at least {span}",
                    twin.id,
                    node.id,
                    node.address,
                    span / PORT_STRIDE
                );
            }
        }
        let voters = self.voters().len();
        ensure!(
            self.join || (voters % 2 == 1 && voters <= VOTERS_MAX),
            "replication.nodes: {voters} voters: expected 1, 3, 5 or {VOTERS_MAX}, for an even number survives no more \
             failures than one less"
        );
        Ok(())
    }
}

/// A replica's address as the group's own record keeps it: where the shard listens for the other nodes, `ip:port`.
pub fn member_address(peer: SocketAddr) -> Vec<u8> {
    peer.to_string().into_bytes()
}

/// Reads what [`member_address`] wrote; `None` if it is not that.
pub fn parse_member_address(bytes: &[u8]) -> Option<SocketAddr> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

impl NodeAddress {
    pub fn node_id(&self) -> NodeId {
        NodeId(self.id.into())
    }

    /// Where shard `shard` of this node listens for the other nodes; `base_port` is the asking node's own.
    pub fn peer_address(&self, shard: u16, base_port: u16) -> anyhow::Result<SocketAddr> {
        let client = self.client_address(shard, base_port)?;
        Ok(SocketAddr::new(client.ip(), client.port() + PEER_PORT_DISTANCE))
    }

    /// Where shard `shard` of this node listens for clients, as nodes reach it.
    pub fn client_address(&self, shard: u16, base_port: u16) -> anyhow::Result<SocketAddr> {
        let port = super::shard_port(self.base_port.unwrap_or(base_port), shard)?;
        Ok(SocketAddr::new(self.address, port))
    }
}

impl BrokerConfig {
    /// Where shard `shard` listens for the other nodes of its group.
    pub fn peer_port(&self, shard: u16) -> anyhow::Result<u16> {
        Ok(self.port(shard)? + PEER_PORT_DISTANCE)
    }

    /// What must be the same at all nodes of this one's group; `None` without one.
    pub fn group_wide(&self) -> Option<GroupWide> {
        let replication = self.replication.as_ref()?;
        Some(GroupWide {
            election_timeout_ms: replication.election_timeout_ms,
            heartbeat_ms: replication.heartbeat_ms,
            window_bytes: replication.window_bytes,
            uncommitted_bytes_max: replication.uncommitted_bytes_max,
            preferred_leaders: replication.preferred_leaders,
            preferred_leaders_wait_ms: replication.preferred_leaders_wait_ms,
            segment_bytes: self.segment_bytes,
            message_bytes_max: self.message_bytes_max,
        })
    }
}

impl GroupWide {
    /// Each with its name, in a fixed order.
    pub fn values(&self) -> [(&'static str, u64); 8] {
        let GroupWide {
            election_timeout_ms,
            heartbeat_ms,
            window_bytes,
            uncommitted_bytes_max,
            preferred_leaders,
            preferred_leaders_wait_ms,
            segment_bytes,
            message_bytes_max,
        } = *self;
        [
            ("election_timeout_ms", election_timeout_ms.into()),
            ("heartbeat_ms", heartbeat_ms.into()),
            ("window_bytes", window_bytes),
            ("uncommitted_bytes_max", uncommitted_bytes_max),
            ("preferred_leaders", preferred_leaders.into()),
            ("preferred_leaders_wait_ms", preferred_leaders_wait_ms.into()),
            ("segment_bytes", segment_bytes),
            ("message_bytes_max", message_bytes_max.into()),
        ]
    }
}

#[cfg(test)]
mod tests;
