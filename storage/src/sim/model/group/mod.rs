//! Three logs of one group under random use, faults and crashes, beside a model of what the group owes.
//!
//! The model stands for what decides in a group, reduced to the rules of Raft: it elects whom a majority may elect by the last
//! batches of their logs, sends batches and answers over connections that delay and break, counts what is persisted, and
//! commits. Logs, disks and recovery are the real ones.
//!
//! Checked all the time:
//!
//! - a batch is on the disks of a majority, durable, when it is first committed;
//! - what is committed is the same, byte by byte, on every node, in its log, in its queues and on its disk, and stays so over
//!   any crash, cut and reset;
//! - batches of one index and term are the same wherever they are, committed or not;
//! - what a node said it had persisted it still has after a crash, unless a later leader had it cut off;
//! - each ticket ends once: as committed at a place where its record stands, or as failed; and a record that failed for want
//!   of space is never committed;
//! - a change of members and control records are told as they were sealed;
//! - derived state after a crash or a reset, or made anew, is that of exactly the control records in front of its place;
//! - no crash leaves what recovery or `inspect` takes for damage, however often the log was cut off;
//! - two writes on their way never touch (the disk sees to that), and nothing on its way is left out when a log is begun anew;
//! - once all is healed, a leader brings all logs to the same end, and every ticket has ended.
//!
//! `node.rs` is a node, `link.rs` what they tell each other, `world.rs` drives, `owed.rs` compares.

mod link;
mod node;
mod owed;
mod world;

use super::tally::Tally;
use super::{SayOnPanic, number_from_env};
use world::World;

const CASES: u64 = 40;

const SITUATIONS: [&str; 28] = [
    "batch committed",
    "batch cut off",
    "batch cut off while it was written",
    "batch cut off and durable",
    "batch sent again",
    "batches waited for a segment",
    "change of members committed",
    "committed before it was durable here",
    "connection broken",
    "crash",
    "disk full",
    "foreign batch refused as busy",
    "foreign batch taken",
    "leader deposed",
    "leader elected",
    "log begun anew",
    "log cut back over a segment",
    "poisoned",
    "records read",
    "recovered with uncommitted batches",
    "segment left",
    "state made anew",
    "steps",
    "ticket committed",
    "ticket committed after its leadership",
    "ticket failed: another led",
    "ticket failed: overwritten",
    "write waited for one that was cut off",
];

const RARE_SITUATIONS: [&str; 3] =
    ["recovery interrupted", "ticket failed: begun anew", "ticket failed: no space"];

#[test]
fn logs_of_a_group_agree_on_what_it_committed() {
    let (first, cases) = (number_from_env("APOGEE_SEED"), number_from_env("APOGEE_CASES"));
    let cases = cases.unwrap_or(if first.is_some() { 1 } else { CASES });
    let first = first.unwrap_or(0);
    let mut all = Tally::new(&SITUATIONS, &RARE_SITUATIONS);
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
