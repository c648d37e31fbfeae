//! APOGEE_GROUP_STATUS (760001), APOGEE_TRANSFER_LEADER (760002), APOGEE_CHANGE_MEMBERS (760003): the group of nodes that
//! this shard belongs to.
//!
//! Answered by whoever is asked: who asks wants to know of this very node, or has looked for the leader. A change is only
//! begun; its end is seen in the status.

use std::net::SocketAddr;

use apogee_net::body::{GroupNode, GroupRole, GroupStatus, to_fastjson};
use apogee_net::code::ResponseCode;
use apogee_net::request::{ChangeMembersRequest, TransferLeaderRequest, TypedHeader};
use apogee_storage::{Buffer, NodeId};

use super::Handled;
use crate::config::{PEER_PORT_DISTANCE, member_address, parse_member_address};
use crate::replication::{self, ChangeRefused, MemberChange, PeerStatus, Role, TransferRefused};
use crate::service::{Reply, Request};
use crate::shard::refusal::Refusal;
use crate::shard::roles::{NoChange, NoTransfer};
use crate::shard::state::{Shard, ShardConfig};

/// Of a broker without a group.
const NO_GROUP: &str = "this broker belongs to no group of nodes";

/// Whoever has the most.
const ANYBODY: i64 = 0;

pub(super) fn status<B: Buffer + 'static>(shard: &mut Shard<B>, _: &Request<'_>, now_ms: i64) -> Handled {
    let Some(status) = shard.group_status(now_ms) else {
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, NO_GROUP).into());
    };
    let number = shard.number_in_group().unwrap_or_default();
    let address = shard.own_member_address().and_then(parse_member_address);
    let body = told(shard.config(), number, address, status);
    Ok(Reply::success().with_body(to_fastjson(&body)).into())
}

pub(super) fn transfer<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let node = TransferLeaderRequest::decode(&request.header.ext)?.node;
    let begun = match node {
        ANYBODY => shard.transfer_away(now_ms).map(drop),
        _ => shard.transfer_to(node_id("node", node)?, now_ms),
    };
    match begun {
        // What is asked for is so already.
        Ok(()) | Err(NoTransfer::Refused(TransferRefused::Leads { .. })) => Ok(Reply::success().into()),
        Err(refused) => Err(Refusal::new(transfer_code(&refused), refused.to_string()).into()),
    }
}

pub(super) fn change<B: Buffer + 'static>(
    shard: &mut Shard<B>,
    request: &Request<'_>,
    now_ms: i64,
) -> Handled {
    let change = wanted(&ChangeMembersRequest::decode(&request.header.ext)?)?;
    match shard.change_members(change, now_ms) {
        Ok(()) => Ok(Reply::success().into()),
        Err(refused) => Err(Refusal::new(change_code(&refused), refused.to_string()).into()),
    }
}

fn wanted(request: &ChangeMembersRequest<'_>) -> Result<MemberChange, Refusal> {
    let ChangeMembersRequest { change, node, address, by } = *request;
    let invalid = |what: String| Refusal::new(ResponseCode::INVALID_PARAMETER, what);
    let node = node_id("node", node)?;
    Ok(match change {
        "ADD_LEARNER" => {
            let address = address.unwrap_or_default();
            // As the group keeps it for ever: nothing that no node could connect to.
            let address: SocketAddr = address
                .parse()
                .ok()
                .filter(|address: &SocketAddr| {
                    !address.ip().is_unspecified() && address.port() > PEER_PORT_DISTANCE
                })
                .ok_or_else(|| invalid(format!("address = {address:?}: expected ip:port")))?;
            MemberChange::AddLearner { node, address: member_address(address) }
        }
        "PROMOTE" => MemberChange::Promote { node },
        "REMOVE" => MemberChange::Remove { node },
        "REPLACE" => MemberChange::Replace { old: node, new: node_id("by", by.unwrap_or_default())? },
        _ => {
            return Err(invalid(format!(
                "change = {change:?}: expected ADD_LEARNER, PROMOTE, REMOVE or REPLACE"
            )));
        }
    })
}

fn node_id(field: &str, number: i64) -> Result<NodeId, Refusal> {
    match u64::try_from(number) {
        Ok(number @ 1..) => Ok(NodeId(number)),
        _ => {
            let remark = format!("{field} = {number}: expected the number of a node, 1 and more");
            Err(Refusal::new(ResponseCode::INVALID_PARAMETER, remark))
        }
    }
}

/// What may be possible in a moment is told apart from what is not.
fn transfer_code(refused: &NoTransfer) -> ResponseCode {
    match refused {
        NoTransfer::Refused(TransferRefused::NotLeader { .. }) => ResponseCode::SERVICE_NOT_AVAILABLE,
        NoTransfer::Refused(
            TransferRefused::Away { .. }
            | TransferRefused::Nobody
            | TransferRefused::Busy { .. }
            | TransferRefused::Changing,
        ) => ResponseCode::SYSTEM_BUSY,
        NoTransfer::NoGroup
        | NoTransfer::Refused(TransferRefused::NotVoter { .. } | TransferRefused::Leads { .. }) => {
            ResponseCode::SYSTEM_ERROR
        }
    }
}

fn change_code(refused: &NoChange) -> ResponseCode {
    match refused {
        NoChange::Refused(ChangeRefused::NotLeader { .. }) => ResponseCode::SERVICE_NOT_AVAILABLE,
        NoChange::Refused(
            ChangeRefused::Busy
            | ChangeRefused::HandingOver
            | ChangeRefused::Unfit { .. }
            | ChangeRefused::Behind { .. }
            | ChangeRefused::Empty { .. }
            | ChangeRefused::Away { .. },
        ) => ResponseCode::SYSTEM_BUSY,
        NoChange::NoGroup
        | NoChange::Refused(
            ChangeRefused::Unknown { .. }
            | ChangeRefused::Already { .. }
            | ChangeRefused::NotLearner { .. }
            | ChangeRefused::IsLeader { .. }
            | ChangeRefused::LastVoter { .. }
            | ChangeRefused::TooMany { .. }
            | ChangeRefused::Address { .. },
        ) => ResponseCode::SYSTEM_ERROR,
    }
}

/// A status as tools read it.
fn told(
    config: &ShardConfig,
    shard: u32,
    address: Option<SocketAddr>,
    status: replication::GroupStatus,
) -> GroupStatus {
    let own = GroupNode {
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        committed_index: Some(number(status.committed_index.0)),
        connected: true,
        heard_ms_ago: Some(0),
        in_flight_bytes: 0,
        lag_batches: Some(0),
        matched_index: Some(number(status.persisted_index.0)),
        member: status.member.to_owned(),
        node: number(status.node.0),
        recovering: status.recovering,
        why: status.why.clone(),
    };
    let is_member = status.member != replication::NO_MEMBER;
    let mut nodes: Vec<GroupNode> =
        is_member.then_some(own).into_iter().chain(status.peers.iter().map(told_node)).collect();
    nodes.sort_by_key(|node| node.node);
    GroupStatus {
        broker_name: config.broker_name.clone(),
        changing: status.changing,
        cluster_name: config.cluster.to_string(),
        committed_index: number(status.committed_index.0),
        disk_trouble: status.disk_trouble,
        first_index: number(status.first_index.0),
        last_index: number(status.last_index.0),
        leader: status.leader.map(|node| number(node.0)),
        lease_ms: status.lease_ms,
        node: number(status.node.0),
        nodes,
        persisted_index: number(status.persisted_index.0),
        preferred: status.preferred.map(|node| number(node.0)),
        recovering: status.recovering,
        role: match status.role {
            Role::Leader { ready: true } => GroupRole::Leader,
            Role::Leader { ready: false } => GroupRole::BecomingLeader,
            Role::Follower { .. } => GroupRole::Follower,
            Role::Stopped => GroupRole::Stopped,
        },
        shard: shard.into(),
        shards: config.shards.into(),
        term: number(status.term.0),
        uncommitted_bytes: number(status.uncommitted_bytes),
        why: status.why,
    }
}

fn told_node(peer: &PeerStatus) -> GroupNode {
    GroupNode {
        address: parse_member_address(&peer.address).map(|address| address.to_string()).unwrap_or_default(),
        committed_index: peer.committed_index.map(|index| number(index.0)),
        connected: peer.connected,
        heard_ms_ago: peer.heard_ms_ago,
        in_flight_bytes: number(peer.in_flight_bytes),
        lag_batches: peer.lag_batches.map(number),
        matched_index: peer.matched_index.map(|index| number(index.0)),
        member: peer.member.to_owned(),
        node: number(peer.node.0),
        recovering: peer.recovering,
        why: peer.why.clone(),
    }
}

/// As the protocol has numbers: none of ours comes near its limit.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
