//! What drivers do wrong on purpose, to show that it is noticed.

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::request::{PullMessageReply, PullMessageRequest, TypedHeader};
use apogee_storage::{AlignedBuffer, BatchIndex, Run};

use crate::replication::{AppendAnswer, PeerMessage};
use crate::service::{Reply, Request};
use crate::shard::Shard;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    /// Some writes are called done and are not: what is acknowledged is not on a majority.
    LostWrites,
    /// Term and vote are called durable and are not.
    LostVotes,
    /// A leader takes what it sends for what its followers have: it acknowledges what only it has.
    EarlyAnswers,
    /// Replicas take what they get for committed: consumers see what may never be.
    UncommittedReads,
    /// What a replica has not got yet is called moved (21): the client is to begin anew where the replica ends.
    MovedOffsets,
    /// NameServers take whoever comes for the master, of an earlier election, too.
    UnfencedMasters,
}

impl Mutant {
    pub(super) const ALL: [Mutant; 6] = [
        Mutant::LostWrites,
        Mutant::LostVotes,
        Mutant::EarlyAnswers,
        Mutant::UncommittedReads,
        Mutant::MovedOffsets,
        Mutant::UnfencedMasters,
    ];

    /// Goes wrong in any run, not only where several things come together.
    pub(super) fn is_plain(self) -> bool {
        !matches!(self, Mutant::LostVotes | Mutant::UnfencedMasters)
    }
}

/// So many of a hundred writes are lost.
pub(super) const LOST_PERCENT: u64 = 5;

/// The answer that a follower would give to an append once all of it is durable there.
pub(super) fn early_answer(sent: &PeerMessage<Run<AlignedBuffer>>) -> Option<PeerMessage<AlignedBuffer>> {
    let PeerMessage::Append { head, batches } = sent else { return None };
    Some(PeerMessage::AppendAnswer(AppendAnswer {
        term: head.term,
        index: BatchIndex(head.prev_index.0 + batches.len() as u64),
        refused: None,
        commit: head.commit,
        echo_ms: None,
    }))
}

/// Makes an append call all of its batches committed.
pub(super) fn call_committed(message: &mut PeerMessage<AlignedBuffer>) {
    if let PeerMessage::Append { head, batches } = message {
        head.commit = BatchIndex(head.prev_index.0 + batches.len() as u64);
    }
}

/// What a replica says of an offset behind all that it has if it does not know that it is behind others.
pub(super) fn moved(shard: &Shard<AlignedBuffer>, request: &Request<'_>) -> Option<Reply> {
    if request.code() != RequestCode::PULL_MESSAGE {
        return None;
    }
    let pull = PullMessageRequest::decode(&request.header.ext).ok()?;
    let (min, max) = shard.bounds_of(pull.topic, pull.queue_id)?;
    (pull.queue_offset as u64 > max).then(|| {
        Reply::new(ResponseCode::PULL_OFFSET_MOVED).with_ext(PullMessageReply {
            suggest_which_broker_id: 0,
            next_begin_offset: max as i64,
            min_offset: min as i64,
            max_offset: max as i64,
            topic_sys_flag: None,
            group_sys_flag: None,
            forbidden_type: None,
        })
    })
}
