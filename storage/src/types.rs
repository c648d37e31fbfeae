//! The numbers of the log, one type each, so that bytes, messages and batches cannot be swapped.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A byte of the whole log, counted over all segments from its very first byte.
    LogOffset
}
number! {
    /// A record's place in its queue: 0 for the first record the queue ever had.
    QueueOffset
}
number! {
    /// A queue as the log knows it: an opaque number that the layer above chooses.
    QueueKey
}
number! {
    /// The number of a leadership, Raft's. Without a group it grows by one at each opening of the log.
    Term
}
number! {
    /// A batch's number in the log, dense, 1 for the first batch.
    BatchIndex
}
number! {
    /// Names one staged record until it is committed or failed; grows by one per record within one process.
    Ticket
}
number! {
    /// The replication group (without replicas: the shard) that a log belongs to. Stands in each batch header.
    GroupId
}
number! {
    /// The node that sealed a batch.
    NodeId
}

/// Where a log begins: the batch in front of its first, which no longer has to be there. The default is that of a log
/// from its very first batch on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStart {
    /// Of the batch in front.
    pub index: BatchIndex,
    /// Of the batch in front.
    pub term: Term,
    /// Of the log's first byte, where a segment begins.
    pub base_offset: LogOffset,
}

/// Batches of one term, up to the next run's first or the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermRun {
    pub first: BatchIndex,
    pub term: Term,
}

impl LogOffset {
    #[must_use]
    pub fn plus(self, bytes: u64) -> LogOffset {
        LogOffset(self.0 + bytes)
    }
}

impl QueueOffset {
    #[must_use]
    pub fn next(self) -> QueueOffset {
        QueueOffset(self.0 + 1)
    }
}

impl QueueKey {
    /// Control records of the layer above: given back by recovery in log order, counted, but not indexed.
    pub const CONTROL: QueueKey = QueueKey(u64::MAX);

    /// Changes of a group's members: the bodies of configuration batches, and nothing else. The state derived from
    /// control records never sees them.
    pub const MEMBERS: QueueKey = QueueKey(u64::MAX - 1);
}

impl Term {
    #[must_use]
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl BatchIndex {
    #[must_use]
    pub fn next(self) -> BatchIndex {
        BatchIndex(self.0 + 1)
    }
}

impl Ticket {
    #[must_use]
    pub fn plus(self, records: u64) -> Ticket {
        Ticket(self.0 + records)
    }
}
