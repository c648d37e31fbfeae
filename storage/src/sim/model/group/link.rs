//! What nodes tell each other, in order until a connection breaks.

use std::collections::VecDeque;

use super::world::NODES;
use crate::checkpoint::Checkpoint;
use crate::types::{BatchIndex, Term};

/// Messages under way on one connection, at most; a leader that finds it full sends later.
const MESSAGES_MAX: usize = 6;

#[derive(Clone, Debug)]
pub(super) enum Message {
    /// Batches behind `prev`, and how far the sender has committed.
    Append { prev: BatchIndex, prev_term: Term, batches: Vec<Vec<u8>>, commit: BatchIndex },
    /// All up to here is the leader's, and persisted.
    Matched(BatchIndex),
    /// The batch that an append goes on from is not here; this one may be.
    Missing(BatchIndex),
    /// Begin anew behind this.
    Checkpoint(Box<Checkpoint>),
}

#[derive(Debug, Default)]
pub(super) struct Links {
    /// By sender and receiver: term of the sender, and what it says.
    links: [[VecDeque<(Term, Message)>; NODES]; NODES],
}

impl Links {
    pub(super) fn is_full(&self, from: usize, to: usize) -> bool {
        self.links[from][to].len() >= MESSAGES_MAX
    }

    pub(super) fn send(&mut self, from: usize, to: usize, term: Term, message: Message) {
        self.links[from][to].push_back((term, message));
    }

    pub(super) fn next(&mut self, from: usize, to: usize) -> Option<(Term, Message)> {
        self.links[from][to].pop_front()
    }

    /// The connection between two nodes breaks: what is under way is lost in both directions.
    pub(super) fn reset(&mut self, one: usize, other: usize) {
        self.links[one][other].clear();
        self.links[other][one].clear();
    }
}
