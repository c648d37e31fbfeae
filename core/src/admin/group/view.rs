//! The whole of a group, put together from what every node says of every shard.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::bail;
use apogee_net::body::{ClusterInfo, GroupNode, GroupRole, GroupStatus, parse};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::NoExt;

use super::super::Ask;
use super::super::link::{AskError, ask};
use crate::config::{
    PEER_PORT_DISTANCE, PORT_STRIDE, SHARDS_MAX, broker_name, parse_member_address, shard_port,
};

/// Servers that are asked at once.
const ASKED_AT_ONCE: usize = 64;

/// A replica that has so few batches to go is as good as there: under load some are always under way.
const BEHIND_WELL: i64 = 256;

/// What a command is about, and whom to ask.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) ask: Ask,
    pub(super) cluster: Option<String>,
    pub(super) group: Option<String>,
    pub(super) shard: Option<i64>,
}

/// The nodes of a group with all that they say.
#[derive(Debug)]
pub(super) struct GroupView {
    pub(super) cluster: String,
    pub(super) group: String,
    pub(super) shards: BTreeMap<i64, ShardView>,
}

/// One shard at all of its nodes.
#[derive(Debug)]
pub(super) struct ShardView {
    pub(super) broker_name: String,
    pub(super) replicas: BTreeMap<i64, ReplicaView>,
}

#[derive(Debug)]
pub(super) struct ReplicaView {
    /// Where it was asked; where clients find it, too. None if nobody knows.
    pub(super) address: Option<SocketAddr>,
    /// What it says, or why it says nothing.
    pub(super) said: Result<GroupStatus, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    Well,
    /// Everything works, and less than usual may fail.
    Degraded,
    NoLeader,
}

/// What one address answered.
enum Said {
    Status(Box<GroupStatus>),
    /// A broker without a group, or not one of ours.
    Alone,
    Nothing(String),
}

impl GroupView {
    /// All groups that are wanted, by cluster and name. Fails if nobody can be asked.
    pub(super) fn all(wanted: &Wanted) -> anyhow::Result<Vec<GroupView>> {
        let mut said = BTreeMap::new();
        let mut found = match &wanted.ask {
            Ask::NameServers(addresses) => brokers_of(addresses, wanted)?,
            Ask::Node(address) => BTreeSet::from([*address]),
        };
        while !found.is_empty() {
            ask_all(&found, &mut said);
            if let Ask::Node(address) = &wanted.ask {
                said[address].of_a_member(*address)?;
            }
            // A node that is down is known to the others only, and a shard that never had a leader to no NameServer.
            found = places(&said);
            found.retain(|address| !said.contains_key(address));
        }
        let groups = assemble(said);
        let mut groups: Vec<_> = groups.into_iter().filter_map(|group| group.only(wanted)).collect();
        groups.sort_by(|a, b| (&a.cluster, &a.group).cmp(&(&b.cluster, &b.group)));
        if groups.is_empty() {
            bail!("{} no group of nodes that is asked for", wanted.ask.knows());
        }
        Ok(groups)
    }

    /// The one group that is wanted.
    pub(super) fn one(wanted: &Wanted) -> anyhow::Result<GroupView> {
        let mut groups = GroupView::all(wanted)?;
        if groups.len() > 1 {
            let names: Vec<_> = groups.iter().map(|group| group.group.as_str()).collect();
            bail!("there are several groups, say which by --group: {}", names.join(", "));
        }
        Ok(groups.remove(0))
    }

    pub(super) fn health(&self) -> Health {
        self.shards.values().map(ShardView::health).max().unwrap_or(Health::Well)
    }

    pub(super) fn nodes(&self) -> BTreeSet<i64> {
        self.shards.values().flat_map(|shard| shard.replicas.keys().copied()).collect()
    }

    fn only(mut self, wanted: &Wanted) -> Option<GroupView> {
        let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        self.shards.retain(|&shard, _| wanted.shard.is_none_or(|wanted| wanted == shard));
        let is_wanted = is(&wanted.cluster, &self.cluster) && is(&wanted.group, &self.group);
        (is_wanted && !self.shards.is_empty()).then_some(self)
    }
}

impl ShardView {
    /// The leader that clients see, and where to ask it.
    pub(super) fn leader(&self) -> Option<(SocketAddr, &GroupStatus)> {
        let leaders = self.replicas.values().filter_map(|replica| match &replica.said {
            Ok(status) if status.role == GroupRole::Leader => Some((replica.address?, status)),
            _ => None,
        });
        // A deposed one may not know it yet.
        leaders.max_by_key(|(_, status)| status.term)
    }

    /// Who belongs to the shard's group as its leader sees it, else as whoever answers with the latest term does.
    pub(super) fn members(&self) -> &[GroupNode] {
        let newest = || {
            let statuses = self.replicas.values().filter_map(|replica| replica.said.as_ref().ok());
            statuses.max_by_key(|status| status.term)
        };
        let status = self.leader().map(|(_, status)| status).or_else(newest);
        status.map_or(&[], |status| &status.nodes)
    }

    pub(super) fn member(&self, node: i64) -> Option<&GroupNode> {
        self.members().iter().find(|member| member.node == node)
    }

    /// The voters that lost data, where nobody leads and the others that answer are no majority: nobody is elected before others
    /// come, and only a leader could send it again.
    pub(super) fn lost_majority(&self) -> Option<Vec<i64>> {
        if self.leader().is_some() {
            return None;
        }
        let has_vote = |member: &&GroupNode| member.member.starts_with("voter");
        let voters: Vec<i64> = self.members().iter().filter(has_vote).map(|member| member.node).collect();
        let said = |node: &i64| self.replicas.get(node)?.said.as_ref().ok();
        let are = |recovering: bool| {
            let such = |node: &&i64| said(node).is_some_and(|status| status.recovering == recovering);
            voters.iter().filter(such).copied().collect::<Vec<i64>>()
        };
        // While the members change this is a little less than what both sets of voters need.
        (!are(true).is_empty() && are(false).len() <= voters.len() / 2).then(|| are(true))
    }

    pub(super) fn health(&self) -> Health {
        let Some((_, leader)) = self.leader() else { return Health::NoLeader };
        let is_well = |member: &GroupNode| {
            let replica = self.replicas.get(&member.node);
            let says_well = replica.is_some_and(|replica| {
                matches!(&replica.said, Ok(status) if !status.recovering && status.disk_trouble.is_none()
                    && status.role != GroupRole::Stopped)
            });
            let is_there = member.node == leader.node
                || member.connected && member.lag_batches.is_none_or(|batches| batches <= BEHIND_WELL);
            says_well && is_there && is_settled(member)
        };
        if leader.nodes.iter().all(is_well) { Health::Well } else { Health::Degraded }
    }
}

/// Not on the way to something else.
fn is_settled(member: &GroupNode) -> bool {
    matches!(member.member.as_str(), "voter" | "learner")
}

impl Said {
    fn status(&self) -> Option<&GroupStatus> {
        match self {
            Said::Status(status) => Some(status),
            Said::Alone | Said::Nothing(_) => None,
        }
    }

    /// Fails, saying why, if it is no status.
    fn of_a_member(&self, address: SocketAddr) -> anyhow::Result<()> {
        match self {
            Said::Status(_) => Ok(()),
            Said::Alone => bail!("{address} is no member of a group: it runs without [replication]"),
            Said::Nothing(why) => bail!("{address}: {why}"),
        }
    }
}

impl Ask {
    fn knows(&self) -> String {
        let list = |addresses: &[SocketAddr]| {
            addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
        };
        match self {
            Ask::NameServers(addresses) => {
                format!("the brokers known to NameServer {} form", list(addresses))
            }
            Ask::Node(address) => format!("{address} belongs to"),
        }
    }
}

/// Where clients reach a member.
fn client_address(member: &GroupNode) -> Option<SocketAddr> {
    let peer = parse_member_address(member.address.as_bytes())?;
    Some(SocketAddr::new(peer.ip(), peer.port().checked_sub(PEER_PORT_DISTANCE)?))
}

/// How many shards the nodes of a group have, by one of them.
fn shards_of(status: &GroupStatus) -> u16 {
    // An older one does not say, and has this one at least.
    let shards = status.shards.max(status.shard.saturating_add(1));
    u16::try_from(shards).map_or(SHARDS_MAX, |shards| shards.min(SHARDS_MAX))
}

/// The base address of the node that has this shard here.
fn base_of(here: SocketAddr, shard: i64) -> Option<SocketAddr> {
    let distance = PORT_STRIDE.checked_mul(u16::try_from(shard).ok()?)?;
    Some(SocketAddr::new(here.ip(), here.port().checked_sub(distance)?))
}

/// Where clients reach a shard of the node with this base address.
fn shard_at(base: SocketAddr, shard: u16) -> Option<SocketAddr> {
    Some(SocketAddr::new(base.ip(), shard_port(base.port(), shard).ok()?))
}

/// Where all shards of all nodes are that anything said so far names.
fn places(said: &BTreeMap<SocketAddr, Said>) -> BTreeSet<SocketAddr> {
    let mut nodes: BTreeMap<SocketAddr, u16> = BTreeMap::new();
    for (&address, status) in said.iter().filter_map(|(address, said)| Some((address, said.status()?))) {
        // Not all nodes may know each other by the address by which this one was reached.
        let members = status.nodes.iter().filter_map(client_address).chain([address]);
        for base in members.filter_map(|member| base_of(member, status.shard)) {
            let shards = nodes.entry(base).or_default();
            *shards = shards_of(status).max(*shards);
        }
    }
    let all =
        nodes.into_iter().flat_map(|(base, shards)| (0..shards).map(move |shard| shard_at(base, shard)));
    all.flatten().collect()
}

/// Addresses of all brokers that any of the NameServers knows: one that has just begun may not know all.
fn brokers_of(nameservers: &[SocketAddr], wanted: &Wanted) -> anyhow::Result<BTreeSet<SocketAddr>> {
    let mut found = BTreeSet::new();
    let mut failed = Vec::new();
    let mut any_answered = false;
    for &address in nameservers {
        let answer = ask(address, RequestCode::GET_BROKER_CLUSTER_INFO, &NoExt);
        let info = answer.map_err(|error| error.to_string()).and_then(|answer| {
            parse::<ClusterInfo>(&answer.body)
                .map_err(|error| format!("what it answers is unexpected: {error}"))
        });
        match info {
            Ok(info) => {
                any_answered = true;
                let brokers = info.broker_addr_table.values();
                let wanted = brokers.filter(|broker| {
                    wanted.cluster.as_ref().is_none_or(|cluster| *cluster == broker.cluster)
                });
                let addresses = wanted.flat_map(|broker| broker.broker_addrs.values());
                found.extend(addresses.filter_map(|address| address.parse::<SocketAddr>().ok()));
            }
            Err(error) => failed.push(format!("{address}: {error}")),
        }
    }
    if !any_answered {
        bail!(
            "no NameServer answers; ask a node by --node, or name others by --namesrv\n  {}",
            failed.join("\n  ")
        );
    }
    if found.is_empty() {
        bail!("no broker is registered at the NameServers");
    }
    Ok(found)
}

fn ask_all(addresses: &BTreeSet<SocketAddr>, said: &mut BTreeMap<SocketAddr, Said>) {
    let addresses: Vec<SocketAddr> = addresses.iter().copied().collect();
    for some in addresses.chunks(ASKED_AT_ONCE) {
        std::thread::scope(|scope| {
            let asked: Vec<_> =
                some.iter().map(|&address| (address, scope.spawn(move || status_of(address)))).collect();
            for (address, answer) in asked {
                said.insert(address, answer.join().expect("asking does not panic"));
            }
        });
    }
}

fn status_of(address: SocketAddr) -> Said {
    match ask(address, RequestCode::APOGEE_GROUP_STATUS, &NoExt) {
        Ok(answer) if answer.code == ResponseCode::SUCCESS => match parse::<GroupStatus>(&answer.body) {
            Ok(status) => Said::Status(Box::new(status)),
            Err(error) => Said::Nothing(format!("its status cannot be read ({error})")),
        },
        Ok(_) => Said::Alone,
        Err(
            error
            @ (AskError::Unreachable(_) | AskError::Silent(_) | AskError::Closed | AskError::Garbled(_)),
        ) => Said::Nothing(error.to_string()),
    }
}

/// Puts together what belongs together. What nobody reached, a member or all of a shard, stands there with the reason.
fn assemble(said: BTreeMap<SocketAddr, Said>) -> Vec<GroupView> {
    let mut reasons = BTreeMap::new();
    let mut groups: BTreeMap<(String, String), GroupView> = BTreeMap::new();
    for (address, said) in said {
        let status = match said {
            Said::Status(status) => *status,
            Said::Nothing(why) => {
                reasons.insert(address, why);
                continue;
            }
            Said::Alone => continue,
        };
        let suffix = format!("-{}", status.shard);
        let name = status.broker_name.strip_suffix(&suffix).unwrap_or(&status.broker_name).to_owned();
        let key = (status.cluster_name.clone(), name.clone());
        let group = groups.entry(key).or_insert_with(|| GroupView {
            cluster: status.cluster_name.clone(),
            group: name,
            shards: BTreeMap::new(),
        });
        let shard = group.shards.entry(status.shard).or_insert_with(|| ShardView {
            broker_name: status.broker_name.clone(),
            replicas: BTreeMap::new(),
        });
        // The same node may be reached under two addresses.
        let node = status.node;
        shard.replicas.entry(node).or_insert(ReplicaView { address: Some(address), said: Ok(status) });
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    for group in &mut groups {
        group.shards.values_mut().for_each(|shard| shard.add_silent_members(&reasons));
        group.add_silent_shards(&reasons);
    }
    groups
}

/// Why there is no status from an address.
type Reasons = BTreeMap<SocketAddr, String>;

fn silent(address: SocketAddr, reasons: &Reasons) -> ReplicaView {
    let why = reasons.get(&address).cloned().unwrap_or_else(|| "it was not asked".to_owned());
    ReplicaView { address: Some(address), said: Err(why) }
}

impl ShardView {
    fn add_silent_members(&mut self, reasons: &Reasons) {
        let members = self.members().iter().filter(|member| !self.replicas.contains_key(&member.node));
        let missing: Vec<_> = members
            .map(|member| {
                let replica = match client_address(member) {
                    Some(address) => silent(address, reasons),
                    None => {
                        let why = format!("its address {:?} is none", member.address);
                        ReplicaView { address: None, said: Err(why) }
                    }
                };
                (member.node, replica)
            })
            .collect();
        self.replicas.extend(missing);
    }
}

impl GroupView {
    fn add_silent_shards(&mut self, reasons: &Reasons) {
        let all = self.shards.values().flat_map(|shard| shard.replicas.values());
        let shards = all.filter_map(|replica| replica.said.as_ref().ok()).map(shards_of).max().unwrap_or(0);
        // All have the same nodes, but for a moment.
        let Some((&known, shard)) = self.shards.first_key_value() else { return };
        let base = |replica: &ReplicaView| base_of(replica.address?, known);
        let nodes: Vec<_> =
            shard.replicas.iter().filter_map(|(&node, replica)| Some((node, base(replica)?))).collect();
        for number in 0..shards {
            let Entry::Vacant(shard) = self.shards.entry(number.into()) else { continue };
            let place = |&(node, base)| Some((node, silent(shard_at(base, number)?, reasons)));
            shard.insert(ShardView {
                broker_name: broker_name(&self.group, number),
                replicas: nodes.iter().filter_map(place).collect(),
            });
        }
    }
}
