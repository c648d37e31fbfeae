//! What the log does about a full disk.
//!
//! ```text
//!             too little left for one more segment          staged records find no segment
//!   normal ──────────────────────────────────────► reclaim ──────────────────────────────► refuse
//!      ▲                                            │   ▲                                    │
//!      └────────────── room for a segment ──────────┘   └──────── a segment was made ────────┘
//! ```
//!
//! Reclaim: the oldest segments leave before their time, if retention allows it, and their files are written again.
//! Refuse: appends are refused by name. Making a segment is tried again all the time, so the log goes on by itself.

use crate::disk::Space;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpaceState {
    #[default]
    Normal,
    Reclaim,
    Refuse,
}

/// What the state follows from.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpaceInputs {
    /// As last heard of.
    pub(super) space: Option<Space>,
    pub(super) reserve_bytes: u64,
    pub(super) segment_bytes: u64,
    /// The last try to make a segment failed for want of space.
    pub(super) segment_failed: bool,
    /// Appends are refused, since there was no segment for staged ones.
    pub(super) refuses: bool,
}

impl SpaceInputs {
    pub(super) fn is_tight(&self) -> bool {
        let needed = self.reserve_bytes.saturating_add(self.segment_bytes);
        self.segment_failed || self.space.is_some_and(|space| space.free_bytes < needed)
    }

    pub(super) fn state(&self) -> SpaceState {
        match (self.refuses, self.is_tight()) {
            (true, _) => SpaceState::Refuse,
            (false, true) => SpaceState::Reclaim,
            (false, false) => SpaceState::Normal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_the_table() {
        let free = |free_bytes| Some(Space { free_bytes, total_bytes: 1000 });
        let rows = [
            (None, false, false, SpaceState::Normal),
            (free(150), false, false, SpaceState::Normal),
            (free(149), false, false, SpaceState::Reclaim),
            (free(150), true, false, SpaceState::Reclaim),
            (None, true, false, SpaceState::Reclaim),
            (free(149), true, true, SpaceState::Refuse),
            (free(999), false, true, SpaceState::Refuse),
        ];
        for (space, segment_failed, refuses, state) in rows {
            let inputs =
                SpaceInputs { space, reserve_bytes: 100, segment_bytes: 50, segment_failed, refuses };
            assert_eq!(inputs.state(), state, "{inputs:?}");
        }
    }
}
