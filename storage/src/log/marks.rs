//! The marks of the log, each one past the last byte it covers.

use crate::config::CommitRule;
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
    /// Visible to readers and acknowledged. In a group it may be ahead of what is durable or written here.
    pub committed: LogOffset,
}

impl Marks {
    pub(crate) fn all_at(end: LogOffset) -> Marks {
        Marks { appended: end, written: end, durable: end, committed: end }
    }

    /// Holds after every change.
    fn check(&self, rule: CommitRule) {
        assert!(
            self.durable <= self.written && self.written <= self.appended,
            "marks out of order: {self:?}"
        );
        let committed_max = match rule {
            CommitRule::Local => self.written,
            CommitRule::Group => self.appended,
        };
        assert!(self.committed <= committed_max, "committed too early: {self:?}");
    }

    /// None of the marks goes back.
    pub(crate) fn advance(&mut self, to: Marks, rule: CommitRule) {
        let from = *self;
        to.check(rule);
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

    /// The log of a group is cut off at `end`; what is committed stays.
    pub(crate) fn cut(&mut self, end: LogOffset) {
        assert!(self.committed <= end, "cut at {end}: {self:?}");
        for mark in [&mut self.appended, &mut self.written, &mut self.durable] {
            *mark = end.min(*mark);
        }
        self.check(CommitRule::Group);
    }
}
