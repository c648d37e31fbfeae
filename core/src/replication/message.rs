//! What replicas tell each other.

use apogee_storage::{BatchIndex, ConfState, GroupId, Member, NodeId, OpId, Run, Term};

/// The connection a message belongs on: bulk must not delay what keeps a leader alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Channel {
    Control,
    Append,
}

/// What each side of a connection says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    pub cluster: String,
    pub group: GroupId,
    pub shard: u32,
    pub node: NodeId,
    /// Of the node's data.
    pub incarnation: u64,
    /// Of batches, as they travel.
    pub format: u32,
    pub segment_bytes: u64,
    /// The node lost what it had acknowledged: what is known of its log no longer holds.
    pub recovering: bool,
    /// The node is in no group yet and waits to be told who is.
    pub joining: bool,
    pub term: Term,
    /// Of the newest batch that is [persisted](apogee_storage::CommitLog::persisted_index).
    pub last_index: BatchIndex,
    /// Of the newest batch that the node knows to be committed.
    pub committed: BatchIndex,
    /// Where clients reach the node.
    pub client_address: String,
}

/// In front of batches: where they follow, and what the leader has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendHead {
    pub term: Term,
    /// Of the batch in front of the first one.
    pub prev_index: BatchIndex,
    pub prev_term: Term,
    pub commit: BatchIndex,
    /// The leader's newest batch.
    pub last_index: BatchIndex,
    /// The leader's clock, to be said back to it.
    pub clock_ms: i64,
}

/// A follower's answer to an append, or to one of a term that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendAnswer {
    pub term: Term,
    /// Taken: durable up to here. Refused: the batch that was to be in front.
    pub index: BatchIndex,
    /// Refused: a batch that may be in front, by what the follower has, and its term.
    pub refused: Option<(BatchIndex, Term)>,
    pub commit: BatchIndex,
    /// The newest clock heard of this leader in this term.
    pub echo_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub term: Term,
    pub commit: BatchIndex,
    pub last_index: BatchIndex,
    pub clock_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    pub term: Term,
    pub commit: BatchIndex,
    pub echo_ms: Option<i64>,
    /// Not to be given leadership: its disk is too slow or full, the node lost what it had acknowledged and does not have all
    /// again, or it is about to stop.
    pub unfit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteRequest {
    /// The term stood for; a pre-vote leaves the terms of both as they are.
    pub term: Term,
    pub pre: bool,
    /// The leader asked for this election: leases do not stand against it.
    pub transfer: bool,
    pub last_index: BatchIndex,
    pub last_term: Term,
    pub commit: BatchIndex,
    pub commit_term: Term,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteAnswer {
    pub term: Term,
    pub pre: bool,
    pub granted: bool,
    pub commit: BatchIndex,
    pub commit_term: Term,
}

/// A checkpoint comes, in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetHead {
    pub term: Term,
    pub id: OpId,
    pub bytes: u64,
    pub clock_ms: i64,
}

/// Bytes of a checkpoint, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetPart {
    pub id: OpId,
    pub at: u64,
    pub bytes: Vec<u8>,
}

/// What a follower has of a checkpoint, in order and without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetAnswer {
    pub id: OpId,
    pub bytes: u64,
    /// It cannot be used; it is to be begun anew.
    pub failed: bool,
}

/// Who belongs to the group, for a node that waits to be added, or that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    pub term: Term,
    /// Who leads in this term, if the sender knows.
    pub leader: Option<NodeId>,
    pub conf: ConfState,
    pub members: Vec<Member>,
}

/// A message to or from another node. `P` holds batches: to be sent, whole ones one behind the other; received, one each.
#[derive(Debug)]
pub enum PeerMessage<P> {
    Append {
        head: AppendHead,
        batches: Vec<P>,
    },
    AppendAnswer(AppendAnswer),
    Heartbeat(Heartbeat),
    HeartbeatAnswer(HeartbeatAnswer),
    VoteRequest(VoteRequest),
    VoteAnswer(VoteAnswer),
    /// Stand for election at once.
    TimeoutNow {
        term: Term,
    },
    Reset(ResetHead),
    ResetPart(ResetPart),
    ResetAnswer(ResetAnswer),
    Members(Box<Members>),
}

impl<P> PeerMessage<P> {
    #[must_use]
    pub fn channel(&self) -> Channel {
        match self {
            PeerMessage::Append { .. } | PeerMessage::Reset(_) | PeerMessage::ResetPart(_) => Channel::Append,
            PeerMessage::AppendAnswer(_)
            | PeerMessage::Heartbeat(_)
            | PeerMessage::HeartbeatAnswer(_)
            | PeerMessage::VoteRequest(_)
            | PeerMessage::VoteAnswer(_)
            | PeerMessage::TimeoutNow { .. }
            | PeerMessage::ResetAnswer(_)
            | PeerMessage::Members(_) => Channel::Control,
        }
    }
}

impl<B> PeerMessage<Run<B>> {
    /// Bytes of batches behind the message's own.
    #[must_use]
    pub fn batch_bytes(&self) -> u64 {
        match self {
            PeerMessage::Append { batches, .. } => batches.iter().map(Run::bytes).sum(),
            _ => 0,
        }
    }
}
