//! The log under random use, faults, lies and crashes, beside a model of what it owes.
//!
//! Checked all the time:
//!
//! - every append that was taken in ends as committed or failed, exactly once, in the order of tickets;
//! - what is committed is on the disk for good (with `Sync`), is read back as it was staged, from memory and through sealed
//!   indexes, is found by offset, time, key and log position, and stays so over any crash of the machine, the process, or
//!   a recovery, at any point of any operation, until it leaves by retention;
//! - segments leave oldest first, for a reason that holds, and only with two snapshots behind them; minima are those of the
//!   segments that are there;
//! - the state that recovery gives, and each snapshot, is that of exactly the control records in front of it;
//! - nothing is visible that is not committed; queue offsets are dense;
//! - appends of one call are there together or not at all;
//! - each transition of the space states is told, and a disk that is honest fails in the background only as it was told to;
//! - without faults everything staged is committed in the end, and what is written to its end is sealed and followed by a snapshot.
//!
//! In some cases the disk lies: it loses or misdirects writes that it calls done, and turns bits over, in segments, indexes
//! and snapshots. No log can keep its promises then. What is left of them: damage of what was acknowledged is told when the log
//! is opened, or the log ends in front of it and no batch behind it bears witness; an index answers rightly or says that it is
//! damaged, and is made anew unless its segment is damaged too; bytes that are not what was staged are only read from places
//! that were damaged; and a log that was not opened has changed nothing, so that it opens with all it held once the
//! damage is repaired. Records of a sealed segment are not read by the opening: whoever reads them compares their checksum,
//! and `inspect::verify` finds them.
//!
//! `group/` is a model of its own, of three logs that belong together. Here `world.rs` drives, `owed.rs` is the model; `events.rs`, `reads.rs` and `reopen.rs` compare.
//!
//! `APOGEE_SEED=n` runs that case, `APOGEE_CASES=n` as many from there on; a failure prints its seed.

mod events;
mod group;
mod owed;
mod reads;
mod record;
mod reopen;
mod state;
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
