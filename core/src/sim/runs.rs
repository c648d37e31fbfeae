//! Many runs, each from a seed of its own.
//!
//! `APOGEE_SEED=n` runs that seed, `APOGEE_CASES=n` as many from there on, `APOGEE_SECONDS=n` as many as fit. Without a seed
//! the time decides where to begin, which is printed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::executor::{SECOND, Us};
use super::mutant::Mutant;
use super::world::{Outcome, World};

/// With the ordinary tests: so many runs, or as many as fit into this time.
const CASES: u64 = 24;
const TIME: Duration = Duration::from_secs(60);

fn number_from_env(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

/// What many runs came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    faults: BTreeMap<&'static str, u64>,
    sent: u64,
    acknowledged: u64,
    failed: u64,
    delivered: u64,
    again: u64,
    frames: u64,
    late: u64,
    time: Us,
    steps: u64,
    agreed: u64,
    looks: u64,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.runs += 1;
        for (what, count) in &outcome.tally.faults {
            *self.faults.entry(what).or_default() += count;
        }
        self.sent += outcome.counts.sent;
        self.acknowledged += outcome.counts.acknowledged;
        self.failed += outcome.counts.failed;
        self.delivered += outcome.counts.delivered;
        self.again += outcome.counts.again;
        self.frames += outcome.frames;
        self.late += outcome.late;
        self.time += outcome.time;
        self.steps += outcome.steps;
        self.agreed += outcome.agreed;
        self.looks += outcome.looks;
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let faults: u64 = self.faults.values().sum();
        writeln!(
            f,
            "{} schedules of {} s altogether, {faults} faults injected; messages: {} sent, {} acknowledged, {} sends failed, \
             {} consumed, {} of them again; {} frames, {} of them hindered; {} turns of tasks; {} bytes of logs compared \
             over all replicas, {} looks at everything",
            self.runs,
            self.time / SECOND,
            self.sent,
            self.acknowledged,
            self.failed,
            self.delivered,
            self.again,
            self.frames,
            self.late,
            self.steps,
            self.agreed,
            self.looks
        )?;
        for (what, count) in &self.faults {
            writeln!(f, "{count:>10} {what}")?;
        }
        Ok(())
    }
}

/// Says which run it was if it does not come to its end.
struct SayOnPanic(u64);

impl Drop for SayOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was APOGEE_SEED={}", self.0);
        }
    }
}

fn run_one(seed: u64, in_groups: bool) -> Outcome {
    let _say = SayOnPanic(seed);
    World::new(seed, in_groups).run(true)
}

#[test]
fn shards_without_a_group_keep_their_promises() {
    run_many(false);
}

#[test]
fn groups_keep_their_promises() {
    run_many(true);
}

fn run_many(in_groups: bool) {
    let given = number_from_env("APOGEE_SEED");
    let cases = number_from_env("APOGEE_CASES").unwrap_or(if given.is_some() { 1 } else { CASES });
    let time = number_from_env("APOGEE_SECONDS").map_or(TIME, Duration::from_secs);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let fresh = now.as_nanos() as u64 % 1_000_000_000_000;
    let first = given.unwrap_or(fresh);
    println!("from APOGEE_SEED={first} on");
    let (next, began, is_over) = (AtomicU64::new(0), Instant::now(), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    let work = || {
        while !is_over.load(Relaxed) {
            let nth = next.fetch_add(1, Relaxed);
            let is_late = given.is_none() && began.elapsed() > time;
            if nth >= cases || is_late {
                return;
            }
            let Ok(outcome) = std::panic::catch_unwind(|| run_one(first + nth, in_groups)) else {
                return is_over.store(true, Relaxed);
            };
            sum.lock().expect("nobody panics with it").add(&outcome);
        }
    };
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..workers.min(cases as usize) {
            scope.spawn(work);
        }
    });
    println!("{}", sum.lock().expect("nobody panics with it"));
    assert!(!is_over.load(Relaxed), "a run failed: its seed stands above");
}

/// Runs until one notices what drivers do wrong on purpose.
fn noticed(mutant: Mutant, cases: u64) -> Option<u64> {
    let first = number_from_env("APOGEE_SEED").unwrap_or(1);
    let run = |seed: u64| {
        let run = || World::with(seed, true, Some(mutant)).run(true);
        std::panic::catch_unwind(run).is_err()
    };
    let nth = (first..first + cases).position(run).map(|nth| nth as u64 + 1);
    println!("{mutant:?}: noticed by run {nth:?}");
    nth
}

#[test]
fn what_is_plainly_wrong_is_noticed_at_once() {
    const WITHIN: u64 = 3;
    for mutant in Mutant::ALL.into_iter().filter(|mutant| mutant.is_plain()) {
        assert!(noticed(mutant, WITHIN).is_some(), "{mutant:?} is not noticed");
    }
}

#[test]
#[ignore = "takes minutes: to be run when what is checked changes"]
fn what_is_wrong_on_purpose_is_noticed() {
    const WITHIN: u64 = 100;
    let cases = number_from_env("APOGEE_CASES").unwrap_or(WITHIN);
    let missed: Vec<_> = Mutant::ALL.into_iter().filter(|mutant| noticed(*mutant, cases).is_none()).collect();
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}

#[test]
fn the_same_seed_comes_to_the_same() {
    let seed = number_from_env("APOGEE_SEED").unwrap_or(11);
    assert_eq!(run_one(seed, true).digest, run_one(seed, true).digest, "seed {seed}");
}

#[test]
fn a_calm_cluster_loses_nothing_and_fails_nothing() {
    for in_groups in [false, true] {
        let outcome = World::new(7, in_groups).run(false);
        assert_eq!(outcome.counts.failed, 0, "{outcome:?}");
    }
}
