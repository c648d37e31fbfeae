use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::plan::{Arrivals, Schedule};
use super::poisson::PoissonStream;
use crate::clock::RunTime;

/// One queue's sequence of messages; numbered over all queues of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// One message of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Planned {
    pub due: RunTime,
    pub stream: StreamId,
}

impl Schedule {
    /// The part of the plan that falls to `own`, of `streams` streams in all.
    ///
    /// `own` must be sorted and below `streams`.
    pub fn share(&self, streams: u32, own: &[StreamId]) -> Share {
        assert!(own.iter().all(|stream| stream.0 < streams), "streams {own:?} of {streams}");
        assert!(own.windows(2).all(|pair| pair[0] < pair[1]), "unsorted streams {own:?}");
        match &self.arrivals {
            Arrivals::Poisson(poisson) => {
                Share::Drawn(Drawn::new(own.iter().map(|id| (*id, poisson.stream(streams, *id)))))
            }
            _ => Share::Dealt(Dealt {
                schedule: self.clone(),
                streams: u64::from(streams),
                own: own.into(),
                round: 0,
                position: 0,
            }),
        }
    }
}

/// One thread's part of a schedule, in the order in which it falls due.
#[derive(Clone, Debug)]
pub enum Share {
    /// Numbered arrivals, dealt to the streams in turn.
    Dealt(Dealt),
    /// Each stream draws its own.
    Drawn(Drawn),
}

impl Iterator for Share {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        match self {
            Share::Dealt(dealt) => dealt.next(),
            Share::Drawn(drawn) => drawn.next(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Dealt {
    schedule: Schedule,
    streams: u64,
    own: Box<[StreamId]>,
    /// Times the round robin has gone over all streams.
    round: u64,
    /// Place within `own` in this round.
    position: usize,
}

impl Dealt {
    fn next(&mut self) -> Option<Planned> {
        let stream = *self.own.get(self.position)?;
        let index = self.round * self.streams + u64::from(stream.0);
        if index >= self.schedule.total() {
            return None;
        }
        self.position += 1;
        if self.position == self.own.len() {
            self.position = 0;
            self.round += 1;
        }
        Some(Planned { due: self.schedule.due(index), stream })
    }
}

/// Streams with a process each, merged: the next message of every stream waits in a heap.
#[derive(Clone, Debug)]
pub struct Drawn {
    next: BinaryHeap<Reverse<(Planned, usize)>>,
    streams: Vec<PoissonStream>,
}

impl Drawn {
    fn new(own: impl Iterator<Item = (StreamId, PoissonStream)>) -> Drawn {
        let mut drawn = Drawn { next: BinaryHeap::new(), streams: Vec::new() };
        for (at, (stream, mut process)) in own.enumerate() {
            drawn.next.extend(process.next().map(|due| Reverse((Planned { due, stream }, at))));
            drawn.streams.push(process);
        }
        drawn
    }

    fn next(&mut self) -> Option<Planned> {
        let mut first = self.next.peek_mut()?;
        let Reverse((planned, at)) = *first;
        match self.streams[at].next() {
            Some(due) => first.0.0.due = due,
            None => drop(PeekMut::pop(first)),
        }
        Some(planned)
    }
}
