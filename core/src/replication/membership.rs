//! Who belongs to the group, and how that changes.

use apogee_storage::{ConfState, GroupState, Member, NodeId};
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};

use super::codec::{ADDRESS_BYTES_MAX, CodecError, NODES_MAX, Reader, Writer};

/// Nodes of a group: all must fit the group's state on the disk, and each message while they change.
pub const MEMBERS_MAX: usize = GroupState::NODES_MAX;

/// A change of the group's nodes. One at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A node that gets everything and has no vote. How a new node begins, or an asynchronous slave.
    AddLearner {
        node: NodeId,
        address: Vec<u8>,
    },
    /// A learner that is caught up gets a vote.
    Promote {
        node: NodeId,
    },
    Remove {
        node: NodeId,
    },
    /// The learner `new`, caught up, takes the place of `old`.
    Replace {
        old: NodeId,
        new: NodeId,
    },
}

/// Why a change was not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    #[error("this node does not lead the group{}", named(.leader))]
    NotLeader { leader: Option<NodeId> },
    #[error("another change of the group's nodes is not done yet")]
    Busy,
    #[error("leadership is being handed over")]
    HandingOver,
    #[error("this node leads only until another can: {why}")]
    Unfit { why: String },
    #[error("node {node} is no member of the group")]
    Unknown { node: NodeId },
    #[error("node {node} is a {role} already")]
    Already { node: NodeId, role: &'static str },
    #[error("node {node} is no learner")]
    NotLearner { node: NodeId },
    #[error("node {node} is {lag_batches} batches behind; {lag_batches_max} are allowed")]
    Behind { node: NodeId, lag_batches: u64, lag_batches_max: u64 },
    #[error("node {node} has nothing yet")]
    Empty { node: NodeId },
    #[error("node {node} is not heard of")]
    Away { node: NodeId },
    #[error("node {node} leads the group; transfer leadership first")]
    IsLeader { node: NodeId },
    #[error("node {node} is the last voter")]
    LastVoter { node: NodeId },
    #[error("{found} nodes are more than the {limit} a group can have")]
    TooMany { found: usize, limit: usize },
    #[error("an address of {found} bytes; {limit} are allowed")]
    Address { found: usize, limit: usize },
}

fn named(leader: &Option<NodeId>) -> String {
    leader.map_or_else(String::new, |leader| format!("; node {leader} does"))
}

/// One node's part of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// With how to reach it; empty if that is known already.
    Voter {
        node: NodeId,
        address: Vec<u8>,
    },
    Learner {
        node: NodeId,
        address: Vec<u8>,
    },
    Gone {
        node: NodeId,
    },
}

/// The body of a batch that changes the members.
///
/// ```text
/// u8 version 1, u16 count, each: u8 kind (1 voter, 2 learner, 3 gone), u64 node, u16 length, address
/// ```
///
/// No step at all leaves the joint configuration that some changes go through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Configuration {
    pub(super) steps: Vec<Step>,
}

const VERSION: u8 = 1;

impl Configuration {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        assert!(self.steps.len() <= NODES_MAX, "{} steps", self.steps.len());
        out.extend_from_slice(&(self.steps.len() as u16).to_le_bytes());
        for step in &self.steps {
            let (kind, node, address) = match step {
                Step::Voter { node, address } => (1, node, address.as_slice()),
                Step::Learner { node, address } => (2, node, address.as_slice()),
                Step::Gone { node } => (3, node, [].as_slice()),
            };
            let mut writer = Writer(&mut out);
            writer.0.push(kind);
            writer.numbers([node.0]);
            writer.bytes(address, ADDRESS_BYTES_MAX);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Configuration, CodecError> {
        let mut reader = Reader(bytes);
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(CodecError::Value { field: "version", found: version.into() });
        }
        let count = reader.count("steps")?;
        let mut steps = Vec::new();
        for _ in 0..count {
            let kind = reader.u8("kind")?;
            let node = reader.node()?;
            let address = reader.bytes(ADDRESS_BYTES_MAX, "address")?.to_vec();
            steps.push(match kind {
                1 => Step::Voter { node, address },
                2 => Step::Learner { node, address },
                3 if address.is_empty() => Step::Gone { node },
                found => return Err(CodecError::Value { field: "kind", found: found.into() }),
            });
        }
        reader.end()?;
        Ok(Configuration { steps })
    }

    /// Whether both sets of voters decide until a batch of its own leaves that, made by whoever leads then: raft's own leaving is
    /// forgotten by a change of leader.
    ///
    /// One that goes does so in this way too. A majority that it belongs to may have committed what it alone holds beside the
    /// leader; the batch that leaves is committed only when a majority of those who stay has all of that. So once a node is
    /// no member, its disk is owed to nobody and may be emptied.
    fn is_joint(&self) -> bool {
        let lets_go = self.steps.iter().any(|step| matches!(step, Step::Gone { .. }));
        self.steps.len() > 1 || lets_go && !flawed!(LetsGoAtOnce)
    }

    /// For raft, which never sees the bytes of a batch.
    pub(super) fn change(&self) -> ConfChangeV2 {
        let mut change = ConfChangeV2::default();
        if self.is_joint() {
            change.set_transition(ConfChangeTransition::Explicit);
        }
        for step in &self.steps {
            let (kind, node) = match step {
                Step::Voter { node, .. } => (ConfChangeType::AddNode, node),
                Step::Learner { node, .. } => (ConfChangeType::AddLearnerNode, node),
                Step::Gone { node } => (ConfChangeType::RemoveNode, node),
            };
            let mut single = ConfChangeSingle::default();
            single.set_change_type(kind);
            single.node_id = node.0;
            change.mut_changes().push(single);
        }
        change
    }

    /// How the members are reached once this has made `conf`. Whoever leaves is reached for as long as its vote counts.
    pub(super) fn apply_to(&self, members: &mut Vec<Member>, conf: &ConfState) {
        for step in &self.steps {
            match step {
                Step::Voter { address, .. } | Step::Learner { address, .. } if address.is_empty() => {}
                Step::Voter { node, address } | Step::Learner { node, address } => {
                    members.retain(|member| member.node != *node);
                    members.push(Member { node: *node, address: address.clone() });
                    members.sort_by_key(|member| member.node);
                }
                Step::Gone { .. } => {}
            }
        }
        members.retain(|member| is_member(conf, member.node));
    }
}

/// Our conf state as raft has it.
pub(super) fn to_raft(conf: &ConfState) -> raft::eraftpb::ConfState {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<u64>>();
    let mut state = raft::eraftpb::ConfState::default();
    state.set_voters(ids(&conf.voters));
    state.set_voters_outgoing(ids(&conf.outgoing));
    state.set_learners(ids(&conf.learners));
    state.set_learners_next(ids(&conf.learners_next));
    state.auto_leave = conf.auto_leave;
    state
}

/// Raft's conf state as ours, made by the batch at `index`.
pub(super) fn from_raft(index: apogee_storage::BatchIndex, state: &raft::eraftpb::ConfState) -> ConfState {
    let nodes = |ids: &[u64]| {
        let mut nodes: Vec<NodeId> = ids.iter().map(|id| NodeId(*id)).collect();
        nodes.sort_unstable();
        nodes
    };
    ConfState {
        index,
        voters: nodes(state.get_voters()),
        outgoing: nodes(state.get_voters_outgoing()),
        learners: nodes(state.get_learners()),
        learners_next: nodes(state.get_learners_next()),
        auto_leave: state.auto_leave,
    }
}

/// All nodes of a conf state, each once, ascending.
pub(super) fn nodes_of(conf: &ConfState) -> Vec<NodeId> {
    let all = [&conf.voters, &conf.outgoing, &conf.learners, &conf.learners_next];
    let mut nodes: Vec<NodeId> = all.into_iter().flatten().copied().collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Whether a node belongs to the group, also if only until or from the end of a change that is under way.
pub(super) fn is_member(conf: &ConfState, node: NodeId) -> bool {
    [&conf.voters, &conf.outgoing, &conf.learners, &conf.learners_next]
        .iter()
        .any(|nodes| nodes.contains(&node))
}

/// Whether a node is a voter, before or after a change of members that is under way.
pub(super) fn has_vote(conf: &ConfState, node: NodeId) -> bool {
    conf.voters.contains(&node) || conf.outgoing.contains(&node)
}

/// The greatest value that a majority has reached, of both sets of voters while the members change.
pub(super) fn reached_by_majority(conf: &ConfState, value_of: impl Fn(NodeId) -> Option<i64>) -> Option<i64> {
    let reached = |voters: &[NodeId]| {
        let mut values = [None; MEMBERS_MAX];
        let values = &mut values[..voters.len()];
        values.iter_mut().zip(voters).for_each(|(value, node)| *value = value_of(*node));
        // What has no value comes last.
        values.sort_unstable_by(|one, other| other.cmp(one));
        values.get(voters.len() / 2).copied().flatten()
    };
    let of_voters = reached(&conf.voters)?;
    if conf.outgoing.is_empty() { Some(of_voters) } else { Some(of_voters.min(reached(&conf.outgoing)?)) }
}
