//! Groups of replicas under random use, faults and crashes, in one thread and one seed, with a time of their own.
//!
//! Each node is what it is in the product: a [`Replica`](super::Replica), a `CommitLog`, the recovery of a group's log; the disk
//! is storage's simulated one, and every message goes through the codec. Disks are slow, stall, and lose what was not
//! synced; connections delay, break, go one way only, or (in some cases) drop, double and reorder; clocks run at different
//! speeds; nodes are killed, lose power, and come back; leadership is handed over and members change; bits turn over on one
//! node's disk, or all of them go.
//!
//! Checked at every event, numbers as in the list that the design began with:
//!
//! 1. one leader per term; 2. an index and a term name one batch; 3. all nodes commit the same; 4. at its first commit
//!    a batch is on the disks of a majority; 5. what was acknowledged stays; 6. nothing committed is cut off (the log
//!    asserts it); 7. commit never goes back in a life, and a term is durable before it is spoken in; 8. one vote per node
//!    and term, durable before it is given; 9. with a lease, all that was acknowledged anywhere is committed here, and
//!    nobody has led in a later term; 10. a log begins anew behind what is committed; 11. batches stand at the same place
//!    everywhere (2 compares their bytes); 12. nobody serves what is not committed; 13. once all is well there is a
//!    leader, progress, and equal logs; 14. the same seed gives the same run; 15. what a log calls durable is on its disk;
//!    16. majorities of successive memberships share a node, and what is called committed has its membership on the disk;
//!    19. damage of what was committed is never cut off for good, and its node neither votes nor leads before it has all
//!    again; 20. what is uncommitted and what is on its way stay within their bounds.
//!
//! `world.rs` drives, `net.rs` is the network, `node.rs` a machine, `oracle.rs` compares, `plan.rs` draws a case.
//!
//! `APOGEE_SEED=n` runs that case, `APOGEE_CASES=n` as many from there on; a failure prints its seed.

pub(super) mod flaw;
mod net;
mod node;
mod oracle;
mod plan;
mod scenarios;
mod world;

use plan::Plan;
use world::World;

/// A minute or so.
const CASES: u64 = 24;

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
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

#[test]
fn groups_keep_what_they_acknowledge() {
    let (first, cases) = match (number_from_env("APOGEE_SEED"), number_from_env("APOGEE_CASES")) {
        (None, None) => (0, CASES),
        (Some(seed), None) => (seed, 1),
        (seed, Some(cases)) => (seed.unwrap_or(0), cases),
    };
    let mut tally = oracle::Tally::default();
    for seed in first..first + cases {
        let _say = SayOnPanic(seed);
        let mut world = World::new(seed, Plan::draw(seed));
        world.run();
        tally.add(&world.oracle.tally);
    }
    println!("{cases} cases: {tally}");
}

#[test]
fn same_seed_same_run() {
    let seed = number_from_env("APOGEE_SEED").unwrap_or(7);
    let digest = || {
        let mut world = World::new(seed, Plan::draw(seed));
        world.run();
        world.oracle.digest()
    };
    assert_eq!(digest(), digest());
}
