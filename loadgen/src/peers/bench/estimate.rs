//! How long it will take.

use std::time::Duration;

use super::levels;
use super::options::Options;
use crate::peers::peer::Peer;

/// Connecting, making the topic, agreeing on the start, and draining.
pub(super) const STRETCH_OVERHEAD: Duration = Duration::from_millis(900);
/// Sent before a measured stretch.
pub(super) const SETTLE: Duration = Duration::from_millis(800);
/// Each attempt of the calibration, and what is sent before it.
pub(super) const CALIBRATION: Duration = Duration::from_millis(1_000);
pub(super) const CALIBRATION_SETTLE: Duration = Duration::from_millis(300);
/// Load after a start of a peer that was compiled before it runs.
pub(super) const WARMUP_NATIVE: Duration = Duration::from_secs(2);

/// From the start of a peer's programs until it takes messages, and for it to be gone.
const START: Duration = Duration::from_millis(1_500);
const START_OF_A_JVM: Duration = Duration::from_secs(9);

/// Load before anything is measured.
pub(super) fn warmup(options: &Options, peer: Peer) -> Duration {
    if peer.is_compiled_while_running() { Duration::from_secs(options.warmup_seconds) } else { WARMUP_NATIVE }
}

fn start(options: &Options, peer: Peer) -> Duration {
    let start = if peer.is_compiled_while_running() { START_OF_A_JVM } else { START };
    start + warmup(options, peer) + STRETCH_OVERHEAD
}

/// One peer's calibration.
pub(super) fn calibration(options: &Options, peer: Peer) -> Duration {
    let attempt = STRETCH_OVERHEAD + CALIBRATION_SETTLE + CALIBRATION;
    let cells = levels::saturation_cells(options).len() * options.in_flight.len();
    start(options, peer) + attempt * cells as u32
}

/// One peer's turn in one round.
pub(super) fn turn(options: &Options, peer: Peer, levels: usize) -> Duration {
    let stretch = |seconds| STRETCH_OVERHEAD + SETTLE + Duration::from_secs(seconds);
    let saturation = stretch(options.saturation_seconds) * levels::saturation_cells(options).len() as u32;
    start(options, peer) + saturation + stretch(options.seconds) * levels as u32
}

/// All of it, with a guess at the number of shared rates.
pub(super) fn total(options: &Options, peers: &[Peer]) -> Duration {
    let levels = options.fractions.len() + options.shared.len() + options.rates.len() + 1;
    let of = |peer: &Peer| calibration(options, *peer) + turn(options, *peer, levels) * options.rounds;
    peers.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn minutes(line: &str) -> u64 {
        let options =
            Options::try_parse_from(["peers"].into_iter().chain(line.split_whitespace())).unwrap().settle();
        total(&options, &options.peers).as_secs().div_ceil(60)
    }

    #[test]
    fn the_defaults_take_half_an_hour_and_a_quick_look_six_minutes() {
        assert!((20..=31).contains(&minutes("")), "{}", minutes(""));
        assert!(minutes("--quick") <= 6, "{}", minutes("--quick"));
    }

    #[test]
    fn a_peer_that_is_compiled_while_it_runs_takes_longer() {
        assert!(minutes("--peers rocketmq-async") > minutes("--peers apogee"));
    }
}
