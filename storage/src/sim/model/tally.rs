//! What happened in the cases, so that a model that does nothing is noticed.

use std::collections::BTreeMap;
use std::fmt;

/// Everything that must come about, over all cases of an ordinary run together.
const SITUATIONS: [&str; 38] = [
    "append refused for want of space",
    "batch damaged",
    "batch rolled over",
    "calls of stage",
    "cold pages loaded",
    "crash of the machine",
    "cut at recovery",
    "damage not told, and unacknowledged for all that is left",
    "damage read",
    "damage told at recovery",
    "lie about a small file",
    "lie about a write",
    "log inspected",
    "poisoned",
    "preparation failed",
    "process killed",
    "read failed at recovery",
    "record committed",
    "record found by key",
    "record in doubt lost",
    "record read",
    "recovery interrupted",
    "seal failed",
    "search by time",
    "segment left by age",
    "segment left by size",
    "segment left for want of space",
    "segment recycled",
    "segment removed",
    "segment sealed",
    "small file damaged",
    "snapshot failed",
    "snapshot taken",
    "space: normal again",
    "space: reclaim",
    "space: refuse",
    "staged and then denied for want of space",
    "steps",
];

/// What only comes about in long runs.
const RARE_SITUATIONS: [&str; 7] = [
    "damage told by inspection",
    "index damage met by a read",
    "index damage told",
    "index made anew",
    "leaving failed",
    "question without an answer",
    "record in doubt came back",
];

/// At least so often each.
const ENOUGH: u64 = 3;

/// Steps of a run that is long enough for anything.
const LONG_STEPS: u64 = 1_000_000;

#[derive(Clone, Debug)]
pub(super) struct Tally {
    situations: &'static [&'static str],
    rare: &'static [&'static str],
    times: BTreeMap<&'static str, u64>,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally::new(&SITUATIONS, &RARE_SITUATIONS)
    }
}

impl Tally {
    pub(super) fn new(situations: &'static [&'static str], rare: &'static [&'static str]) -> Tally {
        Tally { situations, rare, times: BTreeMap::new() }
    }

    pub(super) fn count(&mut self, situation: &'static str) {
        self.count_many(situation, 1);
    }

    pub(super) fn count_many(&mut self, situation: &'static str, times: u64) {
        let mut known = self.situations.iter().chain(self.rare);
        assert!(known.any(|known| *known == situation), "{situation} is not on the list");
        *self.times.entry(situation).or_default() += times;
    }

    pub(super) fn add(&mut self, other: &Tally) {
        other.times.iter().for_each(|(situation, times)| self.count_many(situation, *times));
    }

    #[track_caller]
    pub(super) fn assert_enough_happened(&self) {
        let is_long = self.times.get("steps").is_some_and(|steps| *steps >= LONG_STEPS);
        let rare = self.rare.iter().filter(|_| is_long);
        for situation in self.situations.iter().chain(rare) {
            let times = self.times.get(situation).copied().unwrap_or(0);
            assert!(times >= ENOUGH, "{situation}: {times} times");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.times.iter().try_for_each(|(situation, times)| writeln!(f, "{times:>10} {situation}"))
    }
}
