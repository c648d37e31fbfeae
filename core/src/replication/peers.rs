//! What this node knows of each other one, and what is on its way to it.

use std::collections::VecDeque;

use apogee_storage::{IndexFault, NodeId, OpId, Run};

use super::checkpoint::PART_BYTES;
use super::group_log::GroupLog;
use super::message::{AppendHead, PeerMessage, ResetHead, ResetPart};

use apogee_storage::{BatchIndex, Term};

/// Bytes of one append, except that one batch is always let through: what follows it on the connection waits no longer.
const APPEND_BYTES_MAX: u64 = 1 << 20;

/// Batches of one append.
const APPEND_BATCHES_MAX: u64 = 64;

/// What a node outside of the group is told: as of which batch it is, and who leads, in which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Farewell {
    pub(super) index: BatchIndex,
    pub(super) leader: Option<(Term, NodeId)>,
}

/// Batches that raft wants a follower to have.
#[derive(Debug)]
struct Job {
    prev_index: u64,
    prev_term: u64,
    upto: u64,
}

/// What an append says of its leader.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaderNow {
    pub(super) term: u64,
    pub(super) commit: u64,
    pub(super) last_index: u64,
    pub(super) now_ms: i64,
    pub(super) window_bytes: u64,
}

impl LeaderNow {
    fn head(&self, prev_index: u64, prev_term: u64) -> AppendHead {
        AppendHead {
            term: Term(self.term),
            prev_index: BatchIndex(prev_index),
            prev_term: Term(prev_term),
            commit: BatchIndex(self.commit),
            last_index: BatchIndex(self.last_index),
            clock_ms: self.now_ms,
        }
    }
}

/// The newest append to a follower: its last batch, or the one that it was to follow on, and what it said to be committed.
#[derive(Clone, Copy, Debug)]
struct Sent {
    index: u64,
    term: u64,
    commit: u64,
}

/// A checkpoint on its way to a follower.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) id: OpId,
    /// None while it is read.
    pub(super) bytes: Option<Vec<u8>>,
    sent: u64,
    pub(super) confirmed: u64,
    pub(super) progress_ms: i64,
}

#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) up: bool,
    /// It lost what it had acknowledged, and has not said since that it is fit.
    pub(super) recovering: bool,
    pub(super) joining: bool,
    /// What it was told in this session, if it is outside of the group.
    pub(super) farewell: Option<Farewell>,
    /// Not to be given leadership, as it says.
    pub(super) unfit: bool,
    pub(super) heard_ms: Option<i64>,
    jobs: VecDeque<Job>,
    /// Last index and bytes of each append on its way.
    in_flight: VecDeque<(u64, u64)>,
    in_flight_bytes: u64,
    sent: Option<Sent>,
    /// In front of the first of `in_flight`, or of `jobs`.
    sent_from: u64,
    /// When an append went or was answered last.
    progress_ms: i64,
    /// Places of batches are being brought into memory.
    pub(super) waits_for_pages: bool,
    pub(super) sending: Option<Sending>,
}

/// What came of [`Peer::fill`].
#[derive(Debug)]
pub(super) enum Filled {
    Done,
    /// The place of a batch is not in memory.
    Fault(IndexFault),
    /// A batch has left the log.
    Gone,
}

impl Peer {
    pub(super) fn connected(recovering: bool, joining: bool, now_ms: i64) -> Peer {
        Peer { up: true, recovering, joining, heard_ms: Some(now_ms), ..Peer::default() }
    }

    pub(super) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    pub(super) fn begin_sending(&mut self, id: OpId, now_ms: i64) {
        self.sending = Some(Sending { id, bytes: None, sent: 0, confirmed: 0, progress_ms: now_ms });
    }

    /// Batches wait for room, or parts of a checkpoint do.
    pub(super) fn is_waiting(&self) -> bool {
        self.up && (!self.jobs.is_empty() || self.sending.is_some())
    }

    /// Nothing is on its way any more.
    pub(super) fn clear(&mut self) {
        self.jobs.clear();
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.sent = None;
        self.waits_for_pages = false;
    }

    /// Raft wants these sent. What does not follow on what was asked before replaces it: raft begins again at an earlier place.
    pub(super) fn push(&mut self, prev_index: u64, prev_term: u64, count: u64, now_ms: i64) {
        let end = self.jobs.back().map(|job| job.upto).or(self.in_flight.back().map(|(last, _)| *last));
        if let Some(end) = end.filter(|end| *end != prev_index) {
            // A connection loses nothing: what raft asks for again while it is on its way is not sent twice.
            if (self.sent_from..end).contains(&prev_index) {
                return;
            }
            self.clear();
        } else if count == 0 && !self.jobs.is_empty() {
            return;
        }
        if self.jobs.is_empty() && self.in_flight.is_empty() {
            (self.progress_ms, self.sent_from) = (now_ms, prev_index);
        }
        self.jobs.push_back(Job { prev_index, prev_term, upto: prev_index + count });
    }

    /// The follower has everything up to `index`.
    pub(super) fn on_taken(&mut self, index: u64, now_ms: i64) {
        while let Some((last, bytes)) = self.in_flight.front().filter(|(last, _)| *last <= index) {
            self.sent_from = *last;
            self.in_flight_bytes -= bytes;
            self.progress_ms = now_ms;
            self.in_flight.pop_front();
        }
    }

    /// Since when appends are on their way without an answer.
    pub(super) fn stuck_since_ms(&self) -> Option<i64> {
        (!self.in_flight.is_empty()).then_some(self.progress_ms)
    }

    /// Sends what is due and fits the window.
    pub(super) fn fill<B, L: GroupLog<B>>(
        &mut self,
        log: &L,
        leader: LeaderNow,
        mut send: impl FnMut(PeerMessage<Run<B>>),
    ) -> Filled {
        while let Some(job) = self.jobs.front_mut() {
            let head = leader.head(job.prev_index, job.prev_term);
            if job.prev_index == job.upto {
                self.sent = Some(Sent { index: job.prev_index, term: job.prev_term, commit: leader.commit });
                send(PeerMessage::Append { head, batches: Vec::new() });
                self.jobs.pop_front();
                continue;
            }
            let upto = job.upto.min(log.last_index().0);
            if upto <= job.prev_index {
                break;
            }
            let room = match self.in_flight_bytes {
                0 => leader.window_bytes,
                on_the_way => leader.window_bytes.saturating_sub(on_the_way),
            };
            let room = if flawed!(IgnoresWindow) { u64::MAX } else { room };
            if room == 0 {
                break;
            }
            let count = (upto - job.prev_index).min(APPEND_BATCHES_MAX) as usize;
            let found = log.batches_from(BatchIndex(job.prev_index + 1), room.min(APPEND_BYTES_MAX), count);
            if found.batches.is_empty() {
                return match found.fault {
                    Some(fault) => Filled::Fault(fault),
                    None => Filled::Gone,
                };
            }
            // The one batch that does not fit waits, unless nothing is on its way.
            if self.in_flight_bytes > 0 && found.bytes > room {
                break;
            }
            if found.prev_term.0 != job.prev_term {
                return Filled::Gone;
            }
            job.prev_index += found.batches.len() as u64;
            job.prev_term = found.batches.last().expect("some were found").0.0;
            let (last, is_done) = (job.prev_index, job.prev_index == job.upto);
            self.sent = Some(Sent { index: last, term: job.prev_term, commit: leader.commit });
            self.in_flight.push_back((last, found.bytes));
            self.in_flight_bytes += found.bytes;
            self.progress_ms = leader.now_ms;
            if is_done {
                self.jobs.pop_front();
            }
            send(PeerMessage::Append { head, batches: found.runs.into_vec() });
        }
        Filled::Done
    }

    /// Tells a follower that takes all it is sent what is committed, unless an append did.
    pub(super) fn tell_commit<B>(&mut self, leader: LeaderNow, send: impl FnOnce(PeerMessage<Run<B>>)) {
        let Some(sent) = self.sent.as_mut().filter(|sent| sent.commit < leader.commit) else { return };
        sent.commit = leader.commit;
        send(PeerMessage::Append { head: leader.head(sent.index, sent.term), batches: Vec::new() });
    }

    /// Sends parts of a checkpoint, as many as fit the window.
    pub(super) fn fill_parts<B>(&mut self, leader: LeaderNow, mut send: impl FnMut(PeerMessage<Run<B>>)) {
        let Some(Sending { id, bytes: Some(bytes), sent, confirmed, .. }) = &mut self.sending else { return };
        let len = bytes.len() as u64;
        while *sent < len && (*sent - *confirmed < leader.window_bytes) {
            if *sent == 0 {
                send(PeerMessage::Reset(ResetHead {
                    term: Term(leader.term),
                    id: *id,
                    bytes: len,
                    clock_ms: leader.now_ms,
                }));
            }
            let end = (*sent + PART_BYTES as u64).min(len);
            let part = bytes[*sent as usize..end as usize].to_vec();
            send(PeerMessage::ResetPart(ResetPart { id: *id, at: *sent, bytes: part }));
            *sent = end;
        }
    }
}

/// The peer that a leader hands over to by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Successor {
    pub(super) matched: u64,
    pub(super) node: NodeId,
}
