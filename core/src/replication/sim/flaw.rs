//! Faults put into the replica on purpose, to see that the simulator notices them.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::replication) enum Flaw {
    /// A follower says that it has what its disk does not have yet.
    AcknowledgesBeforeDurable,
    /// A leader counts itself for what its disk does not have yet.
    CountsItselfBeforeDurable,
    SpeaksBeforeTermIsDurable,
    /// The only voter writes batches of a term that it may forget.
    WritesBeforeTermIsDurable,
    /// Whom it voted for is not written down.
    ForgetsVote,
    /// A leader commits what only it has.
    CommitsAlone,
    LeaseTooLong,
    LeaseAfterTransfer,
    /// Votes although it promised not to, at its start too.
    VotesAtOnce,
    /// Goes on before a change of members is durable.
    MembersNotDurable,
    RecoveringVotes,
    /// An empty log is taken for all that there ever was.
    NeverDoubts,
    /// Doubts an empty log only for what others call committed.
    DoubtsOnlyCommitted,
    /// A node whose disk was emptied takes batches of a leader that it had voted against.
    ForgetsPromises,
    /// A node that joined long ago and lost its disk takes itself for one that has just joined.
    VotesWithoutItsLog,
    /// What a node had before it lost it still counts.
    CountsLostBatches,
    /// A node is gone as soon as a majority that it belongs to agrees.
    LetsGoAtOnce,
    AcknowledgesResetEarly,
    /// Says that it has batches that were cut off before they were durable.
    AcknowledgesCutBatches,
    IgnoresWindow,
    SealsWithoutBound,
}

impl Flaw {
    pub(super) const ALL: [Flaw; 21] = [
        Flaw::AcknowledgesBeforeDurable,
        Flaw::CountsItselfBeforeDurable,
        Flaw::SpeaksBeforeTermIsDurable,
        Flaw::WritesBeforeTermIsDurable,
        Flaw::ForgetsVote,
        Flaw::CommitsAlone,
        Flaw::LeaseTooLong,
        Flaw::LeaseAfterTransfer,
        Flaw::VotesAtOnce,
        Flaw::MembersNotDurable,
        Flaw::RecoveringVotes,
        Flaw::NeverDoubts,
        Flaw::DoubtsOnlyCommitted,
        Flaw::ForgetsPromises,
        Flaw::VotesWithoutItsLog,
        Flaw::CountsLostBatches,
        Flaw::LetsGoAtOnce,
        Flaw::AcknowledgesResetEarly,
        Flaw::AcknowledgesCutBatches,
        Flaw::IgnoresWindow,
        Flaw::SealsWithoutBound,
    ];
}

thread_local! {
    static FLAW: Cell<Option<Flaw>> = const { Cell::new(None) };
}

/// Whether this thread's replicas have the fault.
pub(in crate::replication) fn is(flaw: Flaw) -> bool {
    FLAW.get() == Some(flaw)
}

pub(super) fn set(flaw: Option<Flaw>) {
    FLAW.set(flaw);
}
