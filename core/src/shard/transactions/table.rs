//! The pending transactions: which half messages wait for a verdict, and when their producers are asked.

use std::collections::{BTreeMap, BTreeSet};

use apogee_storage::QueueOffset;

use super::record::{Pending, TransactionRecord};

/// Pending transactions of one shard, about 60 bytes each. At the limit half messages are refused; as those on their way to the
/// disk do not count yet, it may be passed by as many as the log takes at once.
pub const PENDING_MAX: usize = 1_048_576;

/// Checks told in one record: some 16 KiB.
const CHECKED_PER_RECORD: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checks {
    count: u32,
    next_ms: i64,
}

/// Rebuilt from [`TransactionRecord`]s. The verdicts change it through [`apply`](Self::apply) alone, once they are
/// durable; checks are counted at once and logged in bulk, so a crash may forget those of the last second.
#[derive(Debug, Default, PartialEq)]
pub struct TransactionTable {
    pending: BTreeMap<QueueOffset, Checks>,
    /// Each of `pending`, by the time of its next check.
    by_check: BTreeSet<(i64, QueueOffset)>,
    /// Those of `pending` whose checks were counted and not logged yet.
    uncounted: BTreeSet<QueueOffset>,
}

impl TransactionTable {
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub fn get(&self, half: QueueOffset) -> Option<Pending> {
        let Checks { count, next_ms } = *self.pending.get(&half)?;
        Some(Pending { half, checks: count, check_at_ms: next_ms })
    }

    /// Half messages without a verdict from `from` on, oldest first.
    pub fn from(&self, from: QueueOffset) -> impl Iterator<Item = QueueOffset> {
        self.pending.range(from..).map(|(half, _)| *half)
    }

    /// The transaction whose check falls due first, and when.
    pub fn next_check(&self) -> Option<(i64, QueueOffset)> {
        self.by_check.first().copied()
    }

    /// Moves the next check to another time, without counting one.
    pub fn postpone(&mut self, half: QueueOffset, check_at_ms: i64) {
        if let Some(checks) = self.pending.get_mut(&half) {
            self.by_check.remove(&(checks.next_ms, half));
            checks.next_ms = check_at_ms;
            self.by_check.insert((check_at_ms, half));
        }
    }

    /// Counts a check, with the time of the next one; to be logged with [`take_checked`](Self::take_checked).
    pub fn count_check(&mut self, half: QueueOffset, next_ms: i64) {
        self.postpone(half, next_ms);
        if let Some(checks) = self.pending.get_mut(&half) {
            checks.count = checks.count.saturating_add(1);
            self.uncounted.insert(half);
        }
    }

    /// The checks counted since, or some of them: to be called until there are none.
    pub fn take_checked(&mut self) -> Option<TransactionRecord> {
        let mut checked = Vec::new();
        while checked.len() < CHECKED_PER_RECORD
            && let Some(half) = self.uncounted.pop_first()
        {
            checked.push(self.get(half).expect("what ended is counted no more"));
        }
        (!checked.is_empty()).then_some(TransactionRecord::Checked(checked))
    }

    /// Whether checks were counted and not logged.
    pub fn has_checks(&self) -> bool {
        !self.uncounted.is_empty()
    }

    /// Ends a transaction that leads to nothing, for its half message is gone.
    pub fn end(&mut self, half: QueueOffset) -> Option<TransactionRecord> {
        self.remove(half).then_some(TransactionRecord::Ended { half })
    }

    /// Repeats a logged change, or takes a record of a snapshot.
    pub fn apply(&mut self, record: &TransactionRecord) {
        match record {
            TransactionRecord::Begun(pending) => self.put(pending),
            TransactionRecord::Ended { half } => {
                self.remove(*half);
            }
            TransactionRecord::Checked(checked) => {
                for pending in checked {
                    if self.pending.contains_key(&pending.half) {
                        self.put(pending);
                    }
                }
            }
        }
    }

    /// Records that rebuild the table, for a snapshot.
    pub fn snapshot(&self) -> impl Iterator<Item = TransactionRecord> {
        self.pending.iter().map(|(half, checks)| {
            TransactionRecord::Begun(Pending {
                half: *half,
                checks: checks.count,
                check_at_ms: checks.next_ms,
            })
        })
    }

    fn put(&mut self, pending: &Pending) {
        let Pending { half, checks, check_at_ms } = *pending;
        let new = Checks { count: checks, next_ms: check_at_ms };
        if let Some(old) = self.pending.insert(half, new) {
            self.by_check.remove(&(old.next_ms, half));
        }
        self.by_check.insert((check_at_ms, half));
    }

    fn remove(&mut self, half: QueueOffset) -> bool {
        let Some(checks) = self.pending.remove(&half) else { return false };
        self.by_check.remove(&(checks.next_ms, half));
        self.uncounted.remove(&half);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn begun(half: u64, check_at_ms: i64) -> TransactionRecord {
        TransactionRecord::Begun(Pending { half: QueueOffset(half), checks: 0, check_at_ms })
    }

    fn ended(half: u64) -> TransactionRecord {
        TransactionRecord::Ended { half: QueueOffset(half) }
    }

    #[test]
    fn checks_fall_due_in_the_order_of_time() {
        let mut table = TransactionTable::default();
        for (half, at) in [(0, 30), (1, 10), (2, 20)] {
            table.apply(&begun(half, at));
        }
        assert_eq!(table.next_check(), Some((10, QueueOffset(1))));
        table.count_check(QueueOffset(1), 40);
        assert_eq!(table.next_check(), Some((20, QueueOffset(2))));
        table.apply(&ended(2));
        table.apply(&ended(0));
        assert_eq!(table.next_check(), Some((40, QueueOffset(1))));
    }

    #[test]
    fn checks_are_logged_together_and_of_pending_transactions_only() {
        let mut table = TransactionTable::default();
        (0..3).for_each(|half| table.apply(&begun(half, 10)));
        (0..3).for_each(|half| table.count_check(QueueOffset(half), 40));
        table.apply(&ended(1));
        let of = |half| Pending { half: QueueOffset(half), checks: 1, check_at_ms: 40 };
        assert_eq!(table.take_checked(), Some(TransactionRecord::Checked(vec![of(0), of(2)])));
        assert_eq!(table.take_checked(), None);
    }

    #[test]
    fn a_check_logged_behind_the_end_of_its_transaction_is_nothing() {
        let mut table = TransactionTable::default();
        table.apply(&begun(7, 10));
        table.apply(&ended(7));
        let late = Pending { half: QueueOffset(7), checks: 1, check_at_ms: 40 };
        table.apply(&TransactionRecord::Checked(vec![late]));
        assert_eq!(table, TransactionTable::default());
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Begin { at: i64 },
        End { half: u64 },
        Check { half: u64, next: i64 },
        LogChecks,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..50i64).prop_map(|at| Step::Begin { at }),
            2 => (0..20u64).prop_map(|half| Step::End { half }),
            3 => (0..20u64, 0..50i64).prop_map(|(half, next)| Step::Check { half, next }),
            1 => Just(Step::LogChecks),
        ]
    }

    proptest! {
        /// The table that lived through the steps, the one its log rebuilds, and the one that a snapshot anywhere and
        /// the log behind it rebuild, are the same; and each finds what a plain map would.
        #[test]
        fn the_log_rebuilds_the_table(steps in prop::collection::vec(any_step(), 0..80), at: prop::sample::Index) {
            let (mut table, mut log) = (TransactionTable::default(), Vec::new());
            let mut model: BTreeMap<u64, (u32, i64)> = BTreeMap::new();
            let mut next_half = 0;
            for step in steps {
                let record = match step {
                    Step::Begin { at } => {
                        next_half += 1;
                        model.insert(next_half - 1, (0, at));
                        Some(begun(next_half - 1, at))
                    }
                    Step::End { half } => {
                        model.remove(&half);
                        Some(ended(half))
                    }
                    Step::Check { half, next } => {
                        table.count_check(QueueOffset(half), next);
                        if let Some((count, at)) = model.get_mut(&half) {
                            (*count, *at) = (*count + 1, next);
                        }
                        None
                    }
                    Step::LogChecks => {
                        log.extend(table.take_checked());
                        None
                    }
                };
                record.iter().for_each(|record| table.apply(record));
                log.extend(record);
            }
            log.extend(table.take_checked());
            let found: BTreeMap<_, _> =
                table.from(QueueOffset(0)).map(|half| (half.0, (table.get(half).unwrap().checks, table.get(half).unwrap().check_at_ms))).collect();
            prop_assert_eq!(&found, &model);
            prop_assert_eq!(table.next_check(), model.iter().map(|(half, (_, at))| (*at, QueueOffset(*half))).min());

            let mut rebuilt = TransactionTable::default();
            log.iter().for_each(|record| rebuilt.apply(record));
            prop_assert_eq!(&rebuilt, &table);
            let (before, behind) = log.split_at(at.index(log.len() + 1));
            let mut some = TransactionTable::default();
            before.iter().for_each(|record| some.apply(record));
            let mut restored = TransactionTable::default();
            some.snapshot().for_each(|record| restored.apply(&record));
            behind.iter().for_each(|record| restored.apply(record));
            prop_assert_eq!(&restored, &table);
        }
    }
}
