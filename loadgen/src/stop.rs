//! When a run is over: how long a thread waits for what is still outstanding, and whether the run was good.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::clock::RunTime;
use crate::ledger::LedgerTotals;

/// Set once, by whoever wants the run to end early; seen by all threads.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    pub fn new(flag: Arc<AtomicBool>) -> StopFlag {
        StopFlag(flag)
    }

    pub fn is_set(&self) -> bool {
        // Relaxed: nothing else is published with it.
        self.0.load(Ordering::Relaxed)
    }
}

/// What a drain looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// Messages sent whose reply is still to come.
    pub in_flight: u32,
    /// Acknowledged messages still to be received.
    pub awaited: u64,
    /// Queues not read up to the end they had when asked; `None` while they have not been asked.
    pub queues_behind: Option<usize>,
}

/// What a draining thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainStep {
    /// Something outstanding may still arrive.
    Wait,
    /// All that is owed has arrived: ask each queue where it ends now, for unacknowledged messages and second
    /// copies may lie behind.
    AskEnds,
    Done,
    /// Out of patience; what is outstanding now stays so in the books.
    TimedOut,
}

/// Ends a thread's part of a run after its last planned message.
///
/// Nothing is called lost before the patience is used up, and nothing is called complete before every queue has been
/// read to an end that was asked for after the last reply.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    pub deadline: RunTime,
    pub consumed: bool,
}

impl Drain {
    pub fn step(&self, now: RunTime, outstanding: Outstanding) -> DrainStep {
        if now >= self.deadline {
            return DrainStep::TimedOut;
        }
        if outstanding.in_flight > 0 || outstanding.awaited > 0 {
            return DrainStep::Wait;
        }
        match outstanding.queues_behind {
            _ if !self.consumed => DrainStep::Done,
            None => DrainStep::AskEnds,
            Some(0) => DrainStep::Done,
            Some(_) => DrainStep::Wait,
        }
    }
}

/// Something that makes a run fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NothingAcked,
    /// Of one-way messages, which nobody acknowledges.
    NothingReceived,
    Lost(u64),
    Duplicated(u64),
    Corrupted(u64),
    /// Only of messages that were to keep an order.
    OutOfOrder(u64),
    Unwanted(u64),
    RolledBack(u64),
    Early(u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NothingAcked => f.write_str("no message was acknowledged"),
            Fault::NothingReceived => f.write_str("no one-way message was received"),
            Fault::Lost(count) => write!(f, "{count} acknowledged messages were not received"),
            Fault::Duplicated(count) => write!(f, "{count} messages were delivered once too often"),
            Fault::Corrupted(count) => write!(f, "{count} deliveries were corrupted"),
            Fault::OutOfOrder(count) => write!(f, "{count} messages came after a later one of the same key"),
            Fault::Unwanted(count) => {
                write!(f, "{count} messages were delivered although the filter does not want them")
            }
            Fault::RolledBack(count) => {
                write!(f, "{count} messages were delivered although they were rolled back")
            }
            Fault::Early(count) => write!(f, "{count} messages were delivered before their time"),
        }
    }
}

/// What is wrong with a run's books; empty for a good run. Order counts only where it was asked for: `ordered`.
pub fn faults(ledger: &LedgerTotals, ordered: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    if ledger.acked == 0 && ledger.oneway == 0 {
        faults.push(Fault::NothingAcked);
    }
    if ledger.oneway > 0 && ledger.unacked == ledger.oneway {
        faults.push(Fault::NothingReceived);
    }
    let out_of_order = if ordered { ledger.out_of_order } else { 0 };
    let counted = [
        (ledger.lost, Fault::Lost as fn(u64) -> Fault),
        (ledger.duplicated, Fault::Duplicated),
        (ledger.corrupted, Fault::Corrupted),
        (out_of_order, Fault::OutOfOrder),
        (ledger.unwanted, Fault::Unwanted),
        (ledger.rolled_back_received, Fault::RolledBack),
        (ledger.early, Fault::Early),
    ];
    faults.extend(counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, fault)| fault(count)));
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(
        now: u64,
        consumed: bool,
        in_flight: u32,
        awaited: u64,
        queues_behind: Option<usize>,
    ) -> DrainStep {
        let drain = Drain { deadline: RunTime::from_nanos(100), consumed };
        drain.step(RunTime::from_nanos(now), Outstanding { in_flight, awaited, queues_behind })
    }

    #[test]
    fn every_situation_of_a_drain() {
        use DrainStep::*;
        // (consumed, in flight, awaited, queues behind) -> before the deadline
        let table = [
            (true, 1, 0, None, Wait),
            (true, 1, 1, None, Wait),
            (true, 0, 1, None, Wait),
            (true, 0, 0, None, AskEnds),
            (true, 0, 0, Some(2), Wait),
            (true, 0, 0, Some(0), Done),
            (false, 1, 0, None, Wait),
            (false, 0, 0, None, Done),
        ];
        for (consumed, in_flight, awaited, behind, expected) in table {
            assert_eq!(
                step(99, consumed, in_flight, awaited, behind),
                expected,
                "{in_flight} {awaited} {behind:?}"
            );
            assert_eq!(step(100, consumed, in_flight, awaited, behind), TimedOut);
        }
    }

    #[test]
    fn each_fault_is_named_and_order_is_one_only_where_it_was_asked_for() {
        let good = LedgerTotals {
            sent: 5,
            acked: 5,
            received: 5,
            out_of_order: 3,
            foreign: 9,
            ..Default::default()
        };
        assert_eq!(faults(&good, false), []);
        assert_eq!(faults(&good, true), [Fault::OutOfOrder(3)]);
        let bad = LedgerTotals { acked: 5, lost: 1, duplicated: 2, corrupted: 3, ..Default::default() };
        assert_eq!(faults(&bad, false), [Fault::Lost(1), Fault::Duplicated(2), Fault::Corrupted(3)]);
        assert_eq!(faults(&LedgerTotals::default(), false), [Fault::NothingAcked]);
        let oneway = LedgerTotals { sent: 5, oneway: 5, unacked: 4, ..Default::default() };
        assert_eq!(faults(&oneway, false), []);
        assert_eq!(faults(&LedgerTotals { unacked: 5, ..oneway }, false), [Fault::NothingReceived]);
        let others =
            LedgerTotals { acked: 1, unwanted: 1, rolled_back_received: 2, early: 3, ..Default::default() };
        assert_eq!(faults(&others, false), [Fault::Unwanted(1), Fault::RolledBack(2), Fault::Early(3)]);
    }
}
