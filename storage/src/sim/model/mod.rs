//! The log under random use, faults, lies and crashes, beside a model of what it owes.
//!
//! Checked all the time:
//!
//! - every append that was taken in ends as committed or failed, exactly once, in the order of tickets;
//! - what is committed is on the disk for good (with `Sync`), is read back as it was staged, and stays so over any crash
//!   of the machine, the process, or a recovery;
//! - nothing is visible that is not committed; queue offsets are dense;
//! - appends of one call are there together or not at all;
//! - without faults everything staged is committed in the end.
//!
//! In some cases the disk lies: it loses or misdirects writes that it calls done, and turns bits over. No log can keep
//! its promises then. What is left of them: damage of what was acknowledged is told when the log is opened, or the log
//! ends in front of it and no batch behind it bears witness; bytes that are not what was staged are only read from places
//! that were damaged, and no checksum calls them good; and a log that was not opened has changed nothing, so that
//! it opens with all it held once the damage is repaired.
//!
//! `world.rs` drives, `owed.rs` is the model, `reads.rs` and `reopen.rs` compare.
//!
//! `APOGEE_SEED=n` runs that case, `APOGEE_CASES=n` as many from there on; a failure prints its seed.

mod owed;
mod reads;
mod record;
mod reopen;
mod tally;
mod world;

use tally::Tally;
use world::World;

/// Some fifty thousand operations.
const CASES: u64 = 80;

/// Says which case it was if the case does not come to its end.
struct SayOnPanic(u64);

impl Drop for SayOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this was APOGEE_SEED={}", self.0);
        }
    }
}

fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

#[test]
fn log_keeps_what_it_promised() {
    let (first, cases) = (number_from_env("APOGEE_SEED"), number_from_env("APOGEE_CASES"));
    let cases = cases.unwrap_or(if first.is_some() { 1 } else { CASES });
    let first = first.unwrap_or(0);
    let mut all = Tally::default();
    for seed in first..first + cases {
        let _say = SayOnPanic(seed);
        let mut world = World::new(seed);
        world.run();
        all.add(&world.tally);
    }
    println!("{all}");
    if cases >= CASES {
        all.assert_enough_happened();
    }
}
