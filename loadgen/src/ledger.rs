//! The books of a run: which messages were sent, acknowledged and received, and what that says about the broker.
//!
//! Each message of a stream has a sequence number and, for each consumer group, two facts, in any order of arrival:
//!
//! ```text
//!                received            not received
//! acknowledged   fine                LOST: the broker broke its word
//! not ack'ed     stored all the same fate open, nothing was promised (refused, timed out, disconnected)
//! ```
//!
//! Beside them stand deliveries that should not have been: a second copy (duplicated), one after a later one of the
//! same stream (out of order), one whose bytes, queue or sequence number are wrong (corrupted), and those of messages
//! that the group was not to be given at all or not yet (unwanted, rolled back, early).
//!
//! A message that was sent again to another broker, as stock producers do, may be there twice; its second copies are
//! counted apart, and its place in a queue tells nothing.
//!
//! The facts are kept in words of 64 messages; words in which everything is settled, that is acknowledged and received
//! by every group, are dropped from the front, so that a healthy run needs memory only for what is in flight. A
//! message that a group is not owed is settled for it from the start.
//!
//! ```text
//! sequence   0 ......... base            base+64          base+128       next
//!            | all fine   | acked ▓▓▓▓▓▓▓ | acked ▓▓▓░░▓▓  | acked ▓░     |
//!   group 0  |            | recvd ▓▓▓▓▓░▓ | recvd ▓▓░░░░░  | recvd ░░     |
//!   group 1  |            | recvd ▓▓▓░░░░ | recvd ░░░░░░░  | recvd ░░     |
//! ```

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::schedule::StreamId;

/// What became of the messages of a run, or of one part of it; parts add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerTotals {
    /// Handed to a connection.
    pub sent: u64,
    /// The broker said it is stored.
    pub acked: u64,
    /// Of those sent, the ones that no answer was asked for.
    pub oneway: u64,
    /// Of those sent, the ones that were rolled back; no group is owed them.
    pub rolled_back: u64,
    /// Different messages that came back, group by group.
    pub received: u64,
    /// Acknowledged and owed to a group, but not received by it. Zero when nothing was to be consumed.
    pub lost: u64,
    /// The same of a group that works on each message and had not got so far when the run ended: no loss.
    pub unread: u64,
    /// Deliveries beyond the first of a message to a group.
    pub duplicated: u64,
    /// Of those sent, the ones that were sent again, to another broker.
    pub resent: u64,
    /// The same as duplicated, of messages that were sent again: the broker tried before may have stored them too.
    pub duplicated_resent: u64,
    /// First deliveries that came after a later message of the same stream, or of the same key if messages have keys.
    pub out_of_order: u64,
    /// Deliveries with changed bytes, from a queue they were not sent to, or with a number never used.
    pub corrupted: u64,
    /// Deliveries of messages that the group's filter does not want.
    pub unwanted: u64,
    /// Deliveries of messages that were rolled back.
    pub rolled_back_received: u64,
    /// First deliveries before their time.
    pub early: u64,
    /// Received by at least one group although no acknowledgement came: stored, but the sender was not told.
    pub received_unacked: u64,
    /// Sent, but neither acknowledged nor received by any group.
    pub unacked: u64,
    /// Deliveries of messages that other programs or runs had written; no fault.
    pub foreign: u64,
}

impl LedgerTotals {
    pub fn add(&mut self, other: &LedgerTotals) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.oneway += other.oneway;
        self.rolled_back += other.rolled_back;
        self.received += other.received;
        self.lost += other.lost;
        self.unread += other.unread;
        self.duplicated += other.duplicated;
        self.resent += other.resent;
        self.duplicated_resent += other.duplicated_resent;
        self.out_of_order += other.out_of_order;
        self.corrupted += other.corrupted;
        self.unwanted += other.unwanted;
        self.rolled_back_received += other.rolled_back_received;
        self.early += other.early;
        self.received_unacked += other.received_unacked;
        self.unacked += other.unacked;
        self.foreign += other.foreign;
    }
}

/// What a delivery turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The first copy; its latency counts.
    First,
    /// The first copy, but a later message of the stream was here before it.
    OutOfOrder,
    /// Another copy.
    Duplicate,
    /// A number that was never sent.
    NeverSent,
}

/// The books of one stream, or of one key in it, for all groups.
///
/// Order of calls: `on_sent` gives a number; `on_not_owed` may follow for groups that are not to get it. `on_acked` may
/// follow once, `on_received` any number of times for each group that is owed it, before or after the acknowledgement.
/// A message that failed is simply never acknowledged.
#[derive(Debug)]
pub struct StreamLedger {
    /// Sequence number of the first bit of `words`; everything before it is settled.
    base: u64,
    words: VecDeque<Word>,
    next: u64,
    /// Whether the broker is asked to answer. Without that none can be called lost.
    acknowledged: bool,
    acked: u64,
    arrived_unacked: u64,
    /// Messages that were sent again, each with the queue that it was sent to last.
    resent: FxHashMap<u64, StreamId>,
    groups: Box<[GroupLedger]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Word {
    acked: u64,
    /// Received by any group.
    arrived: u64,
}

/// What one group received of a stream.
#[derive(Debug, Default)]
struct GroupLedger {
    /// Received, or not owed; one for each of the stream's words.
    settled: VecDeque<u64>,
    /// One past the highest number received.
    end: u64,
    /// Acknowledged, owed and not received; of unanswered messages all that are owed and not received.
    awaited: u64,
    received: u64,
    duplicated: u64,
    duplicated_resent: u64,
    out_of_order: u64,
}

const WORD_BITS: u64 = 64;

impl StreamLedger {
    /// `groups` consumer groups are owed every message; `acknowledged` tells whether the broker is asked to answer.
    pub fn new(groups: usize, acknowledged: bool) -> StreamLedger {
        StreamLedger {
            base: 0,
            words: VecDeque::new(),
            next: 0,
            acknowledged,
            acked: 0,
            arrived_unacked: 0,
            resent: FxHashMap::default(),
            groups: (0..groups).map(|_| GroupLedger::default()).collect(),
        }
    }

    /// The number the next `on_sent` will give.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// A message has been handed to a connection; returns its sequence number.
    pub fn on_sent(&mut self) -> u64 {
        let sequence = self.next;
        self.next += 1;
        if sequence - self.base == self.words.len() as u64 * WORD_BITS {
            self.words.push_back(Word::default());
            self.groups.iter_mut().for_each(|group| group.settled.push_back(0));
        }
        if !self.acknowledged {
            self.groups.iter_mut().for_each(|group| group.awaited += 1);
        }
        sequence
    }

    /// `group` is not to get the message that was just sent.
    pub fn on_not_owed(&mut self, group: usize, sequence: u64) {
        assert_eq!(sequence + 1, self.next, "only of the latest message");
        let (word, bit) = self.slot(sequence).expect("the latest message is not settled");
        let ledger = &mut self.groups[group];
        ledger.settled[word] |= bit;
        if !self.acknowledged {
            ledger.awaited -= 1;
        }
    }

    /// A message that was not acknowledged goes to another queue, `to`, as well. From now on it may come from either, once
    /// or twice, and its place among the others says nothing.
    pub fn on_resent(&mut self, sequence: u64, to: StreamId) {
        assert!(sequence < self.next, "sent {sequence} again, sent only {}", self.next);
        self.resent.insert(sequence, to);
    }

    /// The queue that a message was sent to last, if that is not its own.
    pub fn resent_to(&self, sequence: u64) -> Option<StreamId> {
        self.resent.get(&sequence).copied()
    }

    /// The broker has acknowledged `sequence`; called once per message.
    pub fn on_acked(&mut self, sequence: u64) {
        assert!(sequence < self.next, "acknowledged {sequence}, sent only {}", self.next);
        let (at, bit) = self.slot(sequence).expect("an unacknowledged message is not settled");
        let word = &mut self.words[at];
        assert!(word.acked & bit == 0, "{sequence} acknowledged twice");
        word.acked |= bit;
        self.arrived_unacked -= u64::from(word.arrived & bit != 0);
        self.acked += 1;
        for group in &mut self.groups {
            group.awaited += u64::from(group.settled[at] & bit == 0);
        }
        self.settle();
    }

    /// A delivery to `group`, which is owed it, that carried `sequence` and a good checksum.
    pub fn on_received(&mut self, group: usize, sequence: u64) -> Delivery {
        if sequence >= self.next {
            return Delivery::NeverSent;
        }
        let slot = self.slot(sequence);
        let is_resent = self.resent.contains_key(&sequence);
        let ledger = &mut self.groups[group];
        let Some((at, bit)) = slot.filter(|(at, bit)| ledger.settled[*at] & bit == 0) else {
            if is_resent {
                ledger.duplicated_resent += 1;
            } else {
                ledger.duplicated += 1;
            }
            return Delivery::Duplicate;
        };
        ledger.settled[at] |= bit;
        ledger.received += 1;
        let word = &mut self.words[at];
        let is_acked = word.acked & bit != 0;
        ledger.awaited -= u64::from(is_acked || !self.acknowledged);
        self.arrived_unacked += u64::from(!is_acked && word.arrived & bit == 0);
        word.arrived |= bit;
        let is_in_order = is_resent || sequence >= ledger.end;
        if is_in_order {
            // Another queue's message says nothing about where this one is.
            ledger.end = if is_resent { ledger.end } else { sequence + 1 };
        } else {
            ledger.out_of_order += 1;
        }
        self.settle();
        if is_in_order { Delivery::First } else { Delivery::OutOfOrder }
    }

    /// Messages that are owed and have not come back so far, over all groups: what a drain waits for.
    pub fn awaited(&self) -> u64 {
        self.groups.iter().map(|group| group.awaited).sum()
    }

    /// What was sent, whoever received it.
    pub fn sent_totals(&self) -> LedgerTotals {
        let unknown = self.next - self.acked - self.arrived_unacked;
        LedgerTotals {
            sent: self.next,
            acked: self.acked,
            resent: self.resent.len() as u64,
            oneway: if self.acknowledged { 0 } else { self.next },
            received_unacked: if self.acknowledged { self.arrived_unacked } else { 0 },
            unacked: if self.acknowledged || !self.groups.is_empty() { unknown } else { 0 },
            ..LedgerTotals::default()
        }
    }

    /// What `group` received. Behind the last message that it received nothing counts as lost if it is `unfinished`.
    pub fn group_totals(&self, group: usize, unfinished: bool) -> LedgerTotals {
        let ledger = &self.groups[group];
        let unread = if unfinished { self.awaited_behind(ledger) } else { 0 };
        LedgerTotals {
            received: ledger.received,
            lost: if self.acknowledged { ledger.awaited - unread } else { 0 },
            unread,
            duplicated: ledger.duplicated,
            duplicated_resent: ledger.duplicated_resent,
            out_of_order: ledger.out_of_order,
            ..LedgerTotals::default()
        }
    }

    /// Awaited messages behind the last one received.
    fn awaited_behind(&self, ledger: &GroupLedger) -> u64 {
        let end = ledger.end.max(self.base) - self.base;
        let (first, bits) = ((end / WORD_BITS) as usize, end % WORD_BITS);
        let words = self.words.iter().zip(&ledger.settled).enumerate().skip(first);
        words
            .map(|(at, (word, settled))| {
                let behind = if at == first { u64::MAX << bits } else { u64::MAX };
                u64::from((word.acked & !settled & behind).count_ones())
            })
            .sum()
    }

    /// Which word and bit of it; `None` for numbers that are settled.
    fn slot(&self, sequence: u64) -> Option<(usize, u64)> {
        let position = sequence.checked_sub(self.base)?;
        let word = usize::try_from(position / WORD_BITS).expect("words of a bounded run");
        Some((word, 1 << (position % WORD_BITS)))
    }

    fn settle(&mut self) {
        while let Some(word) = self.words.front() {
            let acked = if self.acknowledged { word.acked } else { u64::MAX };
            let settled = self.groups.iter().fold(acked, |all, group| all & group.settled[0]);
            if settled != u64::MAX {
                break;
            }
            self.words.pop_front();
            for group in &mut self.groups {
                group.settled.pop_front();
            }
            self.base += WORD_BITS;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(count: u64) -> StreamLedger {
        sent_to(1, count)
    }

    fn sent_to(groups: usize, count: u64) -> StreamLedger {
        let mut ledger = StreamLedger::new(groups, true);
        for sequence in 0..count {
            assert_eq!(ledger.on_sent(), sequence);
        }
        ledger
    }

    fn totals(ledger: &StreamLedger) -> LedgerTotals {
        let mut totals = ledger.sent_totals();
        (0..ledger.groups.len()).for_each(|group| totals.add(&ledger.group_totals(group, false)));
        totals
    }

    #[test]
    fn a_clean_run_balances_and_forgets() {
        let mut ledger = sent(1_000);
        for sequence in 0..1_000 {
            ledger.on_acked(sequence);
            assert_eq!(ledger.on_received(0, sequence), Delivery::First);
        }
        assert_eq!(
            totals(&ledger),
            LedgerTotals { sent: 1_000, acked: 1_000, received: 1_000, ..LedgerTotals::default() }
        );
        assert!(ledger.words.len() <= 1, "{} words kept", ledger.words.len());
    }

    #[test]
    fn acknowledged_and_never_received_is_lost() {
        let mut ledger = sent(3);
        ledger.on_acked(0);
        ledger.on_acked(1);
        ledger.on_received(0, 1);
        let totals = totals(&ledger);
        assert_eq!((totals.lost, totals.unacked, ledger.awaited()), (1, 1, 1));
    }

    #[test]
    fn what_was_sent_again_may_come_twice_and_at_any_place() {
        let mut ledger = sent(4);
        ledger.on_resent(1, StreamId(7));
        assert_eq!((ledger.resent_to(1), ledger.resent_to(2)), (Some(StreamId(7)), None));
        (0..4).for_each(|sequence| ledger.on_acked(sequence));
        for sequence in [0, 2, 1, 3, 1, 1] {
            let delivery = ledger.on_received(0, sequence);
            assert!(matches!(delivery, Delivery::First | Delivery::Duplicate), "{sequence}: {delivery:?}");
        }
        let totals = totals(&ledger);
        assert_eq!(
            (totals.resent, totals.duplicated, totals.duplicated_resent, totals.out_of_order),
            (1, 0, 2, 0)
        );
        assert_eq!((totals.lost, totals.received), (0, 4));
    }

    #[test]
    fn every_group_is_owed_every_message() {
        let mut ledger = sent_to(3, 64);
        for sequence in 0..64 {
            ledger.on_acked(sequence);
            assert_eq!(ledger.on_received(0, sequence), Delivery::First);
            assert_eq!(ledger.on_received(2, sequence), Delivery::First);
        }
        ledger.on_received(1, 5);
        assert_eq!(ledger.awaited(), 63);
        let lost: Vec<_> = (0..3).map(|group| ledger.group_totals(group, false).lost).collect();
        assert_eq!(lost, [0, 63, 0]);
        assert_eq!((totals(&ledger).received, totals(&ledger).duplicated), (129, 0));
        for sequence in (0..64).filter(|sequence| *sequence != 5) {
            ledger.on_received(1, sequence);
        }
        assert_eq!((ledger.awaited(), ledger.words.len()), (0, 0));
    }

    #[test]
    fn what_a_group_is_not_owed_is_neither_awaited_nor_kept() {
        let mut ledger = StreamLedger::new(2, true);
        for _ in 0..128 {
            let sequence = ledger.on_sent();
            if sequence.is_multiple_of(2) {
                ledger.on_not_owed(1, sequence);
            }
        }
        for sequence in 0..128 {
            ledger.on_acked(sequence);
            ledger.on_received(0, sequence);
        }
        assert_eq!((ledger.awaited(), ledger.group_totals(1, false).lost), (64, 64));
        (0..128).filter(|sequence| sequence % 2 == 1).for_each(|sequence| {
            assert_eq!(ledger.on_received(1, sequence), Delivery::First);
        });
        assert_eq!((ledger.awaited(), ledger.words.len()), (0, 0));
    }

    #[test]
    fn behind_the_last_message_of_an_unfinished_reader_all_is_unread() {
        let mut ledger = sent(200);
        (0..200).for_each(|sequence| ledger.on_acked(sequence));
        (0..100).filter(|sequence| *sequence != 40).for_each(|sequence| {
            ledger.on_received(0, sequence);
        });
        let unfinished = ledger.group_totals(0, true);
        assert_eq!((unfinished.lost, unfinished.unread), (1, 100));
        assert_eq!(ledger.group_totals(0, false).lost, 101);
    }

    #[test]
    fn unanswered_messages_are_hoped_for_and_never_lost() {
        let mut ledger = StreamLedger::new(1, false);
        (0..64).for_each(|_| {
            ledger.on_sent();
        });
        assert_eq!(ledger.awaited(), 64);
        (0..63).for_each(|sequence| {
            ledger.on_received(0, sequence);
        });
        let totals = totals(&ledger);
        assert_eq!((totals.oneway, totals.lost, totals.unacked, totals.received_unacked), (64, 0, 1, 0));
        ledger.on_received(0, 63);
        assert_eq!((ledger.awaited(), ledger.words.len()), (0, 0));
    }

    #[test]
    fn received_without_acknowledgement_is_no_loss_and_counted_apart() {
        let mut ledger = sent(2);
        ledger.on_received(0, 0);
        let totals = totals(&ledger);
        assert_eq!((totals.received, totals.received_unacked, totals.lost, totals.unacked), (1, 1, 0, 1));
    }

    #[test]
    fn an_acknowledgement_may_come_after_the_message() {
        let mut ledger = sent(1);
        assert_eq!(ledger.on_received(0, 0), Delivery::First);
        ledger.on_acked(0);
        let totals = totals(&ledger);
        assert_eq!((totals.lost, totals.received_unacked), (0, 0));
    }

    #[test]
    fn second_copies_are_seen_even_after_everything_was_settled() {
        let mut ledger = sent(200);
        for sequence in 0..200 {
            ledger.on_acked(sequence);
            ledger.on_received(0, sequence);
        }
        assert_eq!(ledger.on_received(0, 3), Delivery::Duplicate);
        assert_eq!(ledger.on_received(0, 199), Delivery::Duplicate);
        let totals = totals(&ledger);
        assert_eq!((totals.duplicated, totals.received, totals.out_of_order), (2, 200, 0));
    }

    #[test]
    fn the_overtaken_message_is_the_one_out_of_order() {
        let mut ledger = sent(4);
        let deliveries: Vec<_> =
            [0, 2, 1, 3].into_iter().map(|sequence| ledger.on_received(0, sequence)).collect();
        use Delivery::*;
        assert_eq!(deliveries, [First, First, OutOfOrder, First]);
        assert_eq!(totals(&ledger).out_of_order, 1);
    }

    #[test]
    fn numbers_never_sent_are_told_apart() {
        let mut ledger = sent(4);
        assert_eq!(ledger.on_received(0, 4), Delivery::NeverSent);
        assert_eq!(totals(&ledger).received, 0);
    }

    #[test]
    fn without_consumption_nothing_is_lost_and_acknowledged_words_are_forgotten() {
        let mut ledger = StreamLedger::new(0, true);
        for _ in 0..640 {
            let sequence = ledger.on_sent();
            ledger.on_acked(sequence);
        }
        assert_eq!(totals(&ledger), LedgerTotals { sent: 640, acked: 640, ..LedgerTotals::default() });
        assert!(ledger.words.is_empty());
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Send,
        Ack(u64),
        Receive(u64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            3 => Just(Event::Send),
            2 => (0u64..200).prop_map(Event::Ack),
            3 => (0u64..200).prop_map(Event::Receive),
        ];
        proptest::collection::vec(event, 0..600)
    }

    proptest! {
        /// Against a model that simply remembers every delivery.
        #[test]
        fn totals_agree_with_remembering_everything(events in events()) {
            let mut ledger = StreamLedger::new(1, true);
            let mut acked = Vec::<bool>::new();
            let mut deliveries = Vec::<u64>::new();
            for event in events {
                match event {
                    Event::Send => {
                        ledger.on_sent();
                        acked.push(false);
                    }
                    Event::Ack(sequence) => {
                        if acked.get(sequence as usize) == Some(&false) {
                            acked[sequence as usize] = true;
                            ledger.on_acked(sequence);
                        }
                    }
                    Event::Receive(sequence) if (sequence as usize) < acked.len() => {
                        deliveries.push(sequence);
                        ledger.on_received(0, sequence);
                    }
                    Event::Receive(sequence) => {
                        prop_assert_eq!(ledger.on_received(0, sequence), Delivery::NeverSent);
                    }
                }
            }
            let mut firsts = Vec::<u64>::new();
            for sequence in &deliveries {
                if !firsts.contains(sequence) {
                    firsts.push(*sequence);
                }
            }
            let out_of_order = (0..firsts.len()).filter(|at| firsts[..*at].iter().any(|s| *s > firsts[*at])).count();
            let is_received = |sequence: usize| firsts.contains(&(sequence as u64));
            let count = |wanted_ack: bool, wanted_receipt: bool| {
                (0..acked.len()).filter(|s| acked[*s] == wanted_ack && is_received(*s) == wanted_receipt).count() as u64
            };
            prop_assert_eq!(totals(&ledger), LedgerTotals {
                sent: acked.len() as u64,
                acked: acked.iter().filter(|acked| **acked).count() as u64,
                received: firsts.len() as u64,
                lost: count(true, false),
                duplicated: (deliveries.len() - firsts.len()) as u64,
                out_of_order: out_of_order as u64,
                received_unacked: count(false, true),
                unacked: count(false, false),
                ..LedgerTotals::default()
            });
        }
    }
}
