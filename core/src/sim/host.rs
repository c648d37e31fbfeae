//! A machine's clock: it starts anywhere, and runs a little fast or slow.

use super::executor::{Sim, Us};

/// Where all clocks would stand at the start if they were right.
pub(super) const START_MS: i64 = 1_700_000_000_000;

/// How far a clock is off when its process starts, and how wrong its rate is.
pub(super) const SKEW_MS_MAX: u64 = 2_000;
const DRIFT_PER_MILLE_MAX: u64 = 20;

/// And by how much more it comes to be off: machines are told the time. Two clocks are less apart than what a broker allows
/// for a pop's time of waiting, which it counts from when the client says that it was born.
const DRIFT_NS_MAX: i64 = 600_000_000;

/// The clock of one process; it never goes back, as `node/clock.rs` has it.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    began: Us,
    began_ms: i64,
    /// Of a true second, in thousandths.
    rate: u64,
}

impl Clock {
    pub(super) fn right(sim: &Sim) -> Clock {
        Clock { began: sim.now(), began_ms: START_MS + (sim.now() / 1000) as i64, rate: 1000 }
    }

    pub(super) fn wrong(sim: &Sim) -> Clock {
        let Clock { began, began_ms, .. } = Clock::right(sim);
        let skew = sim.below(2 * SKEW_MS_MAX + 1) as i64 - SKEW_MS_MAX as i64;
        let rate = 1000 - DRIFT_PER_MILLE_MAX + sim.below(2 * DRIFT_PER_MILLE_MAX + 1);
        Clock { began, began_ms: began_ms + skew, rate }
    }

    pub(super) fn ms(&self, sim: &Sim) -> i64 {
        self.began_ms + (self.ns(sim) / 1_000_000) as i64
    }

    /// Since the process started.
    pub(super) fn ns(&self, sim: &Sim) -> u64 {
        let true_ns = (sim.now() - self.began) * 1000;
        let drift_ns = true_ns as i64 / 1000 * (self.rate as i64 - 1000);
        true_ns.saturating_add_signed(drift_ns.clamp(-DRIFT_NS_MAX, DRIFT_NS_MAX))
    }
}
