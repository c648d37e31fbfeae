//! The marks of the log, each one past the last byte it covers.

use crate::types::LogOffset;

/// How far the log has come. `durable <= written <= appended` and `committed <= appended` hold at all times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Sealed into batches.
    pub appended: LogOffset,
    /// Handed to the disk and answered, without a gap below.
    pub written: LogOffset,
    /// Synced.
    pub durable: LogOffset,
    /// Visible to readers and acknowledged.
    pub committed: LogOffset,
}

impl Marks {
    pub(crate) fn all_at(end: LogOffset) -> Marks {
        Marks { appended: end, written: end, durable: end, committed: end }
    }

    /// Holds after every change, and none of the marks ever goes back.
    pub(crate) fn advance(&mut self, to: Marks) {
        let from = *self;
        assert!(to.durable <= to.written && to.written <= to.appended, "marks out of order: {to:?}");
        assert!(to.committed <= to.written, "committed before written: {to:?}");
        assert!(
            from.durable <= to.durable && from.written <= to.written,
            "marks went back: {from:?} to {to:?}"
        );
        assert!(
            from.committed <= to.committed && from.appended <= to.appended,
            "marks went back: {from:?} to {to:?}"
        );
        *self = to;
    }
}
