use std::time::Duration;

use super::plan::{evenly, messages};
use crate::clock::RunTime;

/// A part of a plan whose rate is the same throughout, or changes evenly from one to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Piece {
    start: RunTime,
    /// Number of its first message.
    first: u64,
    from: u64,
    /// Change of the rate, in messages per second, every second.
    slope: f64,
}

/// Lays parts, given as first rate, last rate and length, one after the other; also counts their messages.
pub(super) fn lay(parts: &[(u64, u64, Duration)]) -> (Vec<Piece>, u128) {
    let mut pieces = Vec::with_capacity(parts.len());
    let (mut start, mut planned) = (RunTime::START, 0u128);
    for &(from, to, length) in parts.iter().filter(|(_, _, length)| !length.is_zero()) {
        let slope = (to as f64 - from as f64) / length.as_secs_f64();
        // A plan of more messages than a `u64` can number is refused by its length.
        let first = u64::try_from(planned).unwrap_or(u64::MAX);
        pieces.push(Piece { start, first, from, slope });
        // Half the sum of the rates over the length: the area below the ramp.
        planned += messages(from + to, length).div_ceil(2);
        start = start + length;
    }
    (pieces, planned)
}

/// When message `index` of the whole plan is due. `pieces` must not be empty.
pub(super) fn due(pieces: &[Piece], index: u64) -> RunTime {
    // Of pieces without messages, the last one that begins with this message's number has it.
    let after = pieces.partition_point(|piece| piece.first <= index);
    let piece = pieces[after - 1];
    piece.start + piece.due(index - piece.first)
}

impl Piece {
    fn due(&self, index: u64) -> Duration {
        if self.slope == 0.0 {
            return evenly(index, self.from).since_start();
        }
        // from * t + slope / 2 * t² = index, solved so that nothing cancels when the slope is small.
        let (index, from) = (index as f64, self.from as f64);
        if index == 0.0 {
            return Duration::ZERO;
        }
        let root = (from * from + 2.0 * self.slope * index).max(0.0).sqrt();
        Duration::from_nanos((2.0 * index / (from + root) * 1e9) as u64)
    }
}
