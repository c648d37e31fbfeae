//! The books of a run: which messages were sent, acknowledged and received, and what that says about the broker.
//!
//! Each message of a stream has a sequence number and two facts, in any order of arrival:
//!
//! ```text
//!                received            not received
//! acknowledged   fine                LOST: the broker broke its word
//! not ack'ed     stored all the same fate open, nothing was promised (refused, timed out, disconnected)
//! ```
//!
//! Beside them stand deliveries that should not have been: a second copy (duplicated), one after a later one of the
//! same stream (out of order), one whose bytes, queue or sequence number are wrong (corrupted).
//!
//! The facts are kept in words of 64 messages; words in which everything is both acknowledged and received are
//! dropped from the front, so that a healthy run needs memory only for what is in flight.
//!
//! ```text
//! sequence   0 ......... base            base+64          base+128       next
//!            | all fine   | acked ▓▓▓▓▓▓▓ | acked ▓▓▓░░▓▓  | acked ▓░     |
//!            |            | recvd ▓▓▓▓▓░▓ | recvd ▓▓░░░░░  | recvd ░░     |
//! ```

use std::collections::VecDeque;

use serde::Serialize;

/// What became of the messages of a run, or of one part of it; parts add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LedgerTotals {
    /// Handed to a connection.
    pub sent: u64,
    /// The broker said it is stored.
    pub acked: u64,
    /// Different messages that came back.
    pub received: u64,
    /// Acknowledged but not received. Zero when nothing was to be consumed.
    pub lost: u64,
    /// Deliveries beyond the first of a message.
    pub duplicated: u64,
    /// First deliveries that came after a later message of the same stream.
    pub out_of_order: u64,
    /// Deliveries with changed bytes, from a queue they were not sent to, or with a number never used.
    pub corrupted: u64,
    /// Received although no acknowledgement came: stored, but the sender was not told.
    pub received_unacked: u64,
    /// Sent, but neither acknowledged nor received.
    pub unacked: u64,
    /// Deliveries of messages that other programs or runs had written; no fault.
    pub foreign: u64,
}

impl LedgerTotals {
    pub fn add(&mut self, other: &LedgerTotals) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.received += other.received;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
        self.corrupted += other.corrupted;
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

/// The books of one stream.
///
/// Order of calls: `on_sent` gives a number; `on_acked` may follow once for it, `on_received` any number of times,
/// before or after the acknowledgement. A message that failed is simply never acknowledged.
#[derive(Debug)]
pub struct StreamLedger {
    /// Sequence number of the first bit of `words`; everything before it was acknowledged and received.
    base: u64,
    words: VecDeque<Word>,
    next: u64,
    received_end: u64,
    consumed: bool,
    acked: u64,
    received: u64,
    acked_and_received: u64,
    duplicated: u64,
    out_of_order: u64,
    corrupted: u64,
    foreign: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Word {
    acked: u64,
    received: u64,
}

const WORD_BITS: u64 = 64;

impl StreamLedger {
    /// `consumed` tells whether messages are to come back; without that none can be called lost.
    pub fn new(consumed: bool) -> StreamLedger {
        StreamLedger {
            base: 0,
            words: VecDeque::new(),
            next: 0,
            received_end: 0,
            consumed,
            acked: 0,
            received: 0,
            acked_and_received: 0,
            duplicated: 0,
            out_of_order: 0,
            corrupted: 0,
            foreign: 0,
        }
    }

    /// The number the next `on_sent` will give; a message is written with it before it is sent.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// A message has been handed to a connection; returns its sequence number.
    pub fn on_sent(&mut self) -> u64 {
        let sequence = self.next;
        self.next += 1;
        if sequence - self.base == self.words.len() as u64 * WORD_BITS {
            self.words.push_back(Word::default());
        }
        sequence
    }

    /// The broker has acknowledged `sequence`; called once per message.
    pub fn on_acked(&mut self, sequence: u64) {
        assert!(sequence < self.next, "acknowledged {sequence}, sent only {}", self.next);
        let (word, bit) = self.slot(sequence).expect("an unacknowledged message is not settled");
        assert!(word.acked & bit == 0, "{sequence} acknowledged twice");
        word.acked |= bit;
        let received = word.received & bit != 0;
        self.acked += 1;
        self.acked_and_received += u64::from(received);
        self.settle();
    }

    /// A delivery that carried `sequence` and a good checksum.
    pub fn on_received(&mut self, sequence: u64) -> Delivery {
        if sequence >= self.next {
            self.corrupted += 1;
            return Delivery::NeverSent;
        }
        let Some((word, bit)) = self.slot(sequence) else {
            self.duplicated += 1;
            return Delivery::Duplicate;
        };
        if word.received & bit != 0 {
            self.duplicated += 1;
            return Delivery::Duplicate;
        }
        word.received |= bit;
        let acked = word.acked & bit != 0;
        self.received += 1;
        self.acked_and_received += u64::from(acked);
        self.settle();
        if sequence < self.received_end {
            self.out_of_order += 1;
            return Delivery::OutOfOrder;
        }
        self.received_end = sequence + 1;
        Delivery::First
    }

    /// A delivery whose bytes or queue are wrong.
    pub fn on_corrupted(&mut self) {
        self.corrupted += 1;
    }

    /// A delivery that is none of this run's messages.
    pub fn on_foreign(&mut self) {
        self.foreign += 1;
    }

    /// Acknowledged messages that have not come back so far: what a drain waits for.
    pub fn awaited(&self) -> u64 {
        if self.consumed { self.acked - self.acked_and_received } else { 0 }
    }

    pub fn totals(&self) -> LedgerTotals {
        LedgerTotals {
            sent: self.next,
            acked: self.acked,
            received: self.received,
            lost: self.awaited(),
            duplicated: self.duplicated,
            out_of_order: self.out_of_order,
            corrupted: self.corrupted,
            received_unacked: self.received - self.acked_and_received,
            unacked: self.next - (self.acked + self.received - self.acked_and_received),
            foreign: self.foreign,
        }
    }

    fn slot(&mut self, sequence: u64) -> Option<(&mut Word, u64)> {
        let position = sequence.checked_sub(self.base)?;
        let word = usize::try_from(position / WORD_BITS).expect("words of a bounded run");
        Some((&mut self.words[word], 1 << (position % WORD_BITS)))
    }

    fn settle(&mut self) {
        while let Some(word) = self.words.front() {
            let received = if self.consumed { word.received } else { u64::MAX };
            if word.acked & received != u64::MAX {
                break;
            }
            self.words.pop_front();
            self.base += WORD_BITS;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(count: u64) -> StreamLedger {
        let mut ledger = StreamLedger::new(true);
        for sequence in 0..count {
            assert_eq!(ledger.on_sent(), sequence);
        }
        ledger
    }

    #[test]
    fn a_clean_run_balances_and_forgets() {
        let mut ledger = sent(1_000);
        for sequence in 0..1_000 {
            ledger.on_acked(sequence);
            assert_eq!(ledger.on_received(sequence), Delivery::First);
        }
        let totals = ledger.totals();
        assert_eq!(
            totals,
            LedgerTotals { sent: 1_000, acked: 1_000, received: 1_000, ..LedgerTotals::default() }
        );
        assert!(ledger.words.len() <= 1, "{} words kept", ledger.words.len());
    }

    #[test]
    fn acknowledged_and_never_received_is_lost() {
        let mut ledger = sent(3);
        ledger.on_acked(0);
        ledger.on_acked(1);
        ledger.on_received(1);
        let totals = ledger.totals();
        assert_eq!((totals.lost, totals.unacked, ledger.awaited()), (1, 1, 1));
    }

    #[test]
    fn received_without_acknowledgement_is_no_loss_and_counted_apart() {
        let mut ledger = sent(2);
        ledger.on_received(0);
        let totals = ledger.totals();
        assert_eq!((totals.received, totals.received_unacked, totals.lost, totals.unacked), (1, 1, 0, 1));
    }

    #[test]
    fn an_acknowledgement_may_come_after_the_message() {
        let mut ledger = sent(1);
        assert_eq!(ledger.on_received(0), Delivery::First);
        ledger.on_acked(0);
        let totals = ledger.totals();
        assert_eq!((totals.lost, totals.received_unacked), (0, 0));
    }

    #[test]
    fn second_copies_are_seen_even_after_everything_was_settled() {
        let mut ledger = sent(200);
        for sequence in 0..200 {
            ledger.on_acked(sequence);
            ledger.on_received(sequence);
        }
        assert_eq!(ledger.on_received(3), Delivery::Duplicate);
        assert_eq!(ledger.on_received(199), Delivery::Duplicate);
        let totals = ledger.totals();
        assert_eq!((totals.duplicated, totals.received, totals.out_of_order), (2, 200, 0));
    }

    #[test]
    fn the_overtaken_message_is_the_one_out_of_order() {
        let mut ledger = sent(4);
        let deliveries: Vec<_> =
            [0, 2, 1, 3].into_iter().map(|sequence| ledger.on_received(sequence)).collect();
        use Delivery::*;
        assert_eq!(deliveries, [First, First, OutOfOrder, First]);
        assert_eq!(ledger.totals().out_of_order, 1);
    }

    #[test]
    fn numbers_never_sent_are_corruption() {
        let mut ledger = sent(4);
        assert_eq!(ledger.on_received(4), Delivery::NeverSent);
        assert_eq!(ledger.totals().corrupted, 1);
    }

    #[test]
    fn without_consumption_nothing_is_lost_and_acknowledged_words_are_forgotten() {
        let mut ledger = StreamLedger::new(false);
        for _ in 0..640 {
            let sequence = ledger.on_sent();
            ledger.on_acked(sequence);
        }
        assert_eq!(ledger.totals(), LedgerTotals { sent: 640, acked: 640, ..LedgerTotals::default() });
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
            let mut ledger = StreamLedger::new(true);
            let mut acked = Vec::<bool>::new();
            let mut deliveries = Vec::<u64>::new();
            let mut never_sent = 0;
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
                        ledger.on_received(sequence);
                    }
                    Event::Receive(sequence) => {
                        never_sent += 1;
                        prop_assert_eq!(ledger.on_received(sequence), Delivery::NeverSent);
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
            prop_assert_eq!(ledger.totals(), LedgerTotals {
                sent: acked.len() as u64,
                acked: acked.iter().filter(|acked| **acked).count() as u64,
                received: firsts.len() as u64,
                lost: count(true, false),
                duplicated: (deliveries.len() - firsts.len()) as u64,
                out_of_order: out_of_order as u64,
                corrupted: never_sent,
                received_unacked: count(false, true),
                unacked: count(false, false),
                foreign: 0,
            });
        }
    }
}
