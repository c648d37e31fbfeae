//! The group's state on its way to the disk: one write at a time, in order.

use apogee_storage::{GroupState, OpId};

/// ```text
/// wanted ≥ asked ≥ saved        each counts changes of the state
/// ```
#[derive(Debug)]
pub(super) struct StateFile {
    pub(super) state: GroupState,
    wanted: u64,
    asked: u64,
    saved: u64,
    /// Since when the write on its way is.
    since_ms: Option<i64>,
    /// Term and vote as they are durable.
    saved_term: u64,
    asked_term: u64,
}

impl StateFile {
    /// `state` is as it is on the disk.
    pub(super) fn new(state: GroupState) -> StateFile {
        let term = state.term.0;
        StateFile { state, wanted: 0, asked: 0, saved: 0, since_ms: None, saved_term: term, asked_term: term }
    }

    /// The state changed: it is durable once [`is_saved`](StateFile::is_saved) says so of what this returns.
    pub(super) fn changed(&mut self) -> u64 {
        self.wanted += 1;
        self.wanted
    }

    pub(super) fn is_saved(&self, change: u64) -> bool {
        change <= self.saved
    }

    /// Of the newest change.
    pub(super) fn newest(&self) -> u64 {
        self.wanted
    }

    pub(super) fn saved_term(&self) -> u64 {
        self.saved_term
    }

    pub(super) fn is_idle(&self) -> bool {
        self.since_ms.is_none()
    }

    pub(super) fn since_ms(&self) -> Option<i64> {
        self.since_ms
    }

    /// The write to start now, if one is due and none is on its way.
    pub(super) fn poll(&mut self, now_ms: i64) -> Option<(OpId, Box<GroupState>)> {
        if self.since_ms.is_some() || self.asked == self.wanted {
            return None;
        }
        Some(self.ask(now_ms))
    }

    /// The state goes to the disk with something else.
    pub(super) fn ask(&mut self, now_ms: i64) -> (OpId, Box<GroupState>) {
        assert!(self.since_ms.is_none(), "two writes of the group's state at once");
        self.asked = self.wanted;
        self.asked_term = self.state.term.0;
        self.since_ms = Some(now_ms);
        (OpId(self.asked), Box::new(self.state.clone()))
    }

    /// The write that was to go with something else was not begun: what is on the disk is as it was.
    pub(super) fn on_put_off(&mut self, id: OpId) {
        assert!(self.since_ms.take().is_some() && id.0 == self.asked, "state {id:?} is not on its way");
        self.asked = self.saved;
        self.asked_term = self.saved_term;
    }

    pub(super) fn on_saved(&mut self, id: OpId) {
        assert!(
            self.since_ms.take().is_some() && id.0 == self.asked,
            "state {id:?} was answered, {} is on its way",
            self.asked
        );
        self.saved = self.asked;
        self.saved_term = self.asked_term;
    }
}
