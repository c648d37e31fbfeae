//! Messages with keys: of each key one is under way, the next leaves when it is answered.
//!
//! More would overtake each other: brokers handle the requests of one connection on several threads.

use std::collections::VecDeque;
use std::rc::Rc;

use super::Publisher;
use crate::clock::RunTime;
use crate::failure::Failure;
use crate::schedule::StreamId;
use crate::tally::Wanted;

/// The keys of one queue.
pub(super) struct Turns {
    /// The key that the next message has.
    next: usize,
    keys: Box<[Key]>,
}

#[derive(Default)]
struct Key {
    is_busy: bool,
    waiting: VecDeque<Waiting>,
}

/// A message that waits for the one before it. They are bounded, with those in flight, by the in-flight limit.
struct Waiting {
    due: RunTime,
    then: Box<dyn FnOnce()>,
}

impl Turns {
    pub(super) fn new(keys: u32) -> Turns {
        Turns { next: 0, keys: (0..keys).map(|_| Key::default()).collect() }
    }
}

impl Publisher {
    /// Sends one message of the stream's next key, at once or when its turn comes.
    pub(super) fn send_in_turn(
        self: &Rc<Self>,
        stream: StreamId,
        due: RunTime,
        then: impl FnOnce() + 'static,
    ) {
        let mut turns = self.turns.borrow_mut();
        let turns_of = turns.entry(stream).or_insert_with(|| Turns::new(self.content.lanes()));
        let lane = turns_of.next;
        turns_of.next = (lane + 1) % turns_of.keys.len();
        let key = &mut turns_of.keys[lane];
        let waiting = Waiting { due, then: Box::new(then) };
        if key.is_busy {
            let in_flight = self.books.tally.borrow().in_flight();
            if in_flight.saturating_add(self.waiting.get()) < self.in_flight_max {
                key.waiting.push_back(waiting);
                self.waiting.set(self.waiting.get() + 1);
                return;
            }
            drop(turns);
            self.books.tally.borrow_mut().on_unsent(stream, Failure::InFlightLimit, self.books.now());
            return (waiting.then)();
        }
        key.is_busy = true;
        drop(turns);
        self.send_turn(stream, lane, Wanted::from(due), waiting.then);
    }

    /// Sends the message whose turn it is; without a connection, those that waited for it fare no better.
    fn send_turn(
        self: &Rc<Self>,
        stream: StreamId,
        lane: usize,
        mut wanted: Wanted,
        mut then: Box<dyn FnOnce()>,
    ) {
        let route = &self.routes[&stream];
        loop {
            if let Some(client) = self.connection(stream, route.link_of(lane), 1) {
                let this = self.clone();
                let lane_id = u16::try_from(lane).expect("bounded by KEYS_MAX");
                return self.send(stream, route, &client, lane_id, wanted, move || {
                    then();
                    if let Some((wanted, then)) = this.next_turn(stream, lane) {
                        this.send_turn(stream, lane, wanted, then);
                    }
                });
            }
            then();
            let Some(next) = self.next_turn(stream, lane) else { return };
            (wanted, then) = next;
        }
    }

    /// The message of this key that waited longest; without one the key is free.
    fn next_turn(&self, stream: StreamId, lane: usize) -> Option<(Wanted, Box<dyn FnOnce()>)> {
        let mut turns = self.turns.borrow_mut();
        let key = &mut turns.get_mut(&stream).expect("a key that was sent to").keys[lane];
        let Some(waiting) = key.waiting.pop_front() else {
            key.is_busy = false;
            return None;
        };
        self.waiting.set(self.waiting.get() - 1);
        Some((Wanted { due: waiting.due, ready: self.books.now() }, waiting.then))
    }

    /// The run is over: what still waits was never sent.
    pub(in crate::driver) fn give_up_waiting(&self) {
        let mut tally = self.books.tally.borrow_mut();
        for (stream, turns) in self.turns.borrow_mut().iter_mut() {
            for waiting in turns.keys.iter_mut().flat_map(|key| key.waiting.drain(..)) {
                tally.on_unsent(*stream, Failure::InFlightLimit, self.books.now());
                drop(waiting);
            }
        }
        self.waiting.set(0);
    }
}
