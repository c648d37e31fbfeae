//! What is measured in which order.

use std::collections::BTreeMap;

use super::options::Options;
use super::record::{Cell, What};
use crate::peers::peer::Peer;

/// A shared rate is only asked of peers that saturate above it by this factor; beyond, any broker's latency is that of an
/// ever longer queue.
const HEADROOM: f64 = 1.1;

/// Shared rates that differ by less are one.
const APART_MIN: f64 = 1.25;

/// Share of each peer's saturation at which it is compared with all that are faster.
const PAIR_PERCENT: u32 = 60;

/// The peers of one round: A B C, then B C A, so that none always follows the same neighbour.
pub(super) fn order(peers: &[Peer], round: u32) -> Vec<Peer> {
    let mut order = peers.to_vec();
    if !order.is_empty() {
        order.rotate_left(round as usize % peers.len());
    }
    order
}

/// What is saturated: every size without a reader, and the size of the latencies with one, for there messages are read
/// too.
pub(super) fn saturation_cells(options: &Options) -> Vec<Cell> {
    let mut cells: Vec<_> = options.sizes.iter().map(|size| Cell { size: *size, consumed: false }).collect();
    cells.push(Cell { size: options.latency_size, consumed: true });
    cells
}

/// What the calibration found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Best {
    pub(super) in_flight: u32,
    pub(super) published_per_s: f64,
}

/// What each peer is measured at, from the saturation of all that have one.
pub(super) fn latency_levels(
    options: &Options,
    saturations: &BTreeMap<Peer, f64>,
) -> BTreeMap<Peer, Vec<What>> {
    let shared = shared_rates(options, saturations);
    let levels = saturations.iter().map(|(peer, saturation)| {
        let own = options
            .fractions
            .iter()
            .map(|percent| What::Own { percent: *percent, rate: percent_of(*saturation, *percent) });
        let shared = shared.iter().copied().filter(|rate| *rate as f64 * HEADROOM <= *saturation);
        (*peer, own.chain(shared.map(|rate| What::Shared { rate })).collect())
    });
    levels.collect()
}

/// Shares of the slowest, then a share of each faster one but the fastest, then what was asked for; rising.
fn shared_rates(options: &Options, saturations: &BTreeMap<Peer, f64>) -> Vec<u64> {
    let mut rising: Vec<f64> = saturations.values().copied().collect();
    rising.sort_by(f64::total_cmp);
    let Some(slowest) = rising.first() else { return vec![] };
    // What the user wants comes first and stays as it is; the others give way.
    let mut rates: Vec<u64> = options.rates.clone();
    let of_slowest = options.shared.iter().map(|percent| percent_of(*slowest, *percent));
    let between = rising.get(1..rising.len() - 1).unwrap_or_default();
    let of_others = between.iter().map(|saturation| percent_of(*saturation, PAIR_PERCENT));
    for rate in of_slowest.chain(of_others) {
        let is_near = |other: &u64| {
            let (low, high) = (rate.min(*other) as f64, rate.max(*other) as f64);
            high < low * APART_MIN
        };
        if !rates.iter().any(is_near) {
            rates.push(rate);
        }
    }
    rates.sort_unstable();
    rates.dedup();
    rates
}

fn percent_of(saturation: f64, percent: u32) -> u64 {
    ((saturation * f64::from(percent) / 100.0) as u64).max(1)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn options(line: &str) -> Options {
        Options::try_parse_from(["peers"].into_iter().chain(line.split_whitespace())).unwrap()
    }

    fn shared(levels: &[What]) -> Vec<u64> {
        levels
            .iter()
            .filter(|what| matches!(what, What::Shared { .. }))
            .filter_map(|what| what.rate())
            .collect()
    }

    #[test]
    fn each_round_begins_with_another_peer() {
        let peers = [Peer::Apogee, Peer::RocketmqAsync, Peer::RocketmqSync];
        assert_eq!(order(&peers, 0), peers);
        assert_eq!(order(&peers, 4), [Peer::RocketmqAsync, Peer::RocketmqSync, Peer::Apogee]);
        assert_eq!(order(&[], 1), []);
    }

    #[test]
    fn fractions_are_of_the_own_saturation_and_shared_rates_of_what_a_peer_can_take() {
        let saturations = BTreeMap::from([
            (Peer::Apogee, 100_000.0),
            (Peer::RocketmqAsync, 20_000.0),
            (Peer::RocketmqSync, 5_000.0),
        ]);
        let levels = latency_levels(&options("--fractions 10,80 --shared 30,80"), &saturations);
        let own = |peer| levels[&peer][..2].to_vec();
        assert_eq!(
            own(Peer::Apogee),
            [What::Own { percent: 10, rate: 10_000 }, What::Own { percent: 80, rate: 80_000 }]
        );
        assert_eq!(own(Peer::RocketmqSync)[1], What::Own { percent: 80, rate: 4_000 });
        // 60 % of the one in the middle is too much for the slowest.
        assert_eq!(shared(&levels[&Peer::Apogee]), [1_500, 4_000, 12_000]);
        assert_eq!(shared(&levels[&Peer::RocketmqAsync]), [1_500, 4_000, 12_000]);
        assert_eq!(shared(&levels[&Peer::RocketmqSync]), [1_500, 4_000]);
    }

    #[test]
    fn near_rates_are_one_and_the_users_own_stay() {
        let saturations = BTreeMap::from([
            (Peer::Apogee, 90_000.0),
            (Peer::ApogeeAsync, 100_000.0),
            (Peer::RocketmqAsync, 10_000.0),
            (Peer::RocketmqSync, 11_000.0),
        ]);
        let levels = latency_levels(&options("--shared 60 --rates 50000,30000"), &saturations);
        assert_eq!(shared(&levels[&Peer::ApogeeAsync]), [6_000, 30_000, 50_000]);
        assert_eq!(shared(&levels[&Peer::RocketmqAsync]), [6_000]);
    }

    #[test]
    fn without_peers_there_is_nothing_to_measure() {
        assert!(latency_levels(&options(""), &BTreeMap::new()).is_empty());
    }

    #[test]
    fn the_size_of_the_latencies_is_saturated_with_a_reader() {
        let cells = saturation_cells(&options("--sizes 128,16384"));
        let cell = |size, consumed| Cell { size, consumed };
        assert_eq!(cells, [cell(128, false), cell(16_384, false), cell(1024, true)]);
    }
}
