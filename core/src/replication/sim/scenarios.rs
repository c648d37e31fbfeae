//! Particular courses of events, and measurements.

use std::panic::{AssertUnwindSafe, catch_unwind};

use apogee_storage::NodeId;

use super::flaw::{self, Flaw};
use super::node::member;
use super::plan::Plan;
use super::world::World;
use super::{SayOnPanic, number_from_env};
use crate::replication::MemberChange;

const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;

fn led(plan: Plan) -> (World, NodeId) {
    led_by_seed(1, plan)
}

fn led_by_seed(seed: u64, plan: Plan) -> (World, NodeId) {
    let mut world = World::new(seed, plan);
    world.run_until("a leader", 3 * SECOND, |world| world.leaders().len() == 1);
    let leader = world.leaders()[0];
    (world, leader)
}

fn other_than(node: NodeId) -> NodeId {
    NodeId(node.0 % 3 + 1)
}

/// Whoever has this many acknowledgements more than now.
fn goes_on(world: &mut World, us: u64) {
    let before = world.oracle.acknowledgements;
    world.run_until("acknowledgements", us, |world| world.oracle.acknowledgements > before + 20);
}

#[test]
fn three_nodes_elect_a_leader_and_commit() {
    let (mut world, _) = led(Plan::calm(3));
    goes_on(&mut world, 2 * SECOND);
}

#[test]
fn one_node_leads_itself() {
    let (mut world, leader) = led(Plan::calm(1));
    goes_on(&mut world, 2 * SECOND);
    assert!(world.has_lease(leader));
}

#[test]
fn leadership_is_handed_over_in_a_few_round_trips() {
    let (mut world, leader) = led(Plan::calm(3));
    let to = other_than(leader);
    world.run_for(200 * MS);
    world.hand_over(leader, to).unwrap();
    assert!(!world.has_lease(leader), "a lease while leadership is handed over");
    world.run_until("the other leads", 5 * MS, |world| world.leaders() == [to]);
    goes_on(&mut world, SECOND);
    assert_eq!(world.oracle.tally.numbers.get("failed appends"), None, "an append failed for it");
}

#[test]
fn the_preferred_node_leads_in_the_end() {
    for seed in 0..3 {
        let plan = Plan { preferred_wait_ms: 1000, ..Plan::calm(3) };
        let mut world = World::new(seed, plan);
        world.run_until("node 1 leads", 6 * SECOND, |world| world.leaders() == [NodeId(1)]);
        world.run_for(3 * SECOND);
        assert_eq!(world.leaders(), [NodeId(1)]);
    }
}

#[test]
fn a_leader_with_a_stalled_disk_hands_over_and_stays_away() {
    let (mut world, leader) = led(Plan::calm(3));
    world.stall(leader, 6 * SECOND);
    world.run_until("another leads", 2 * SECOND, |world| {
        !world.leaders().is_empty() && !world.leaders().contains(&leader)
    });
    goes_on(&mut world, SECOND);
}

#[test]
fn a_leader_that_is_cut_off_loses_its_lease_before_another_leads() {
    let (mut world, leader) = led(Plan::calm(3));
    world.run_for(500 * MS);
    assert!(world.has_lease(leader));
    for node in (1..=3).map(NodeId).filter(|node| *node != leader) {
        world.cut(leader, node);
        world.cut(node, leader);
    }
    world.run_until("the lease ends", 400 * MS, |world| !world.has_lease(leader));
    world.run_until("another leads", 2 * SECOND, |world| world.leaders().iter().any(|node| *node != leader));
    goes_on(&mut world, SECOND);
}

#[test]
fn a_node_far_behind_begins_anew() {
    let (mut world, leader) = led(Plan { append_pause_us: 1000, ..Plan::calm(3) });
    let behind = other_than(leader);
    world.end(behind, false);
    world.run_until("batches leave", 60 * SECOND, |world| world.first_index(leader) > 100);
    world.start(behind);
    world.run_until("a reset", 10 * SECOND, |world| world.oracle.tally.numbers.contains_key("resets"));
    world.run_until("it follows", 10 * SECOND, |world| world.lag(leader, behind) < 20);
}

#[test]
fn a_node_joins_becomes_a_voter_and_takes_the_place_of_another() {
    let (mut world, leader) = led(Plan { spare: 1, ..Plan::calm(3) });
    let (new, old) = (NodeId(4), other_than(leader));
    world.run_for(300 * MS);
    assert!(world.change(leader, MemberChange::AddLearner { node: new, address: member(new).address }));
    world.run_until("a learner", 2 * SECOND, |world| world.conf(leader).learners == [new]);
    assert!(!world.change(leader, MemberChange::Remove { node: leader }), "a leader removes itself");
    world.run_until("it follows", 5 * SECOND, |world| world.lag(leader, new) < 10);
    assert!(world.change(leader, MemberChange::Replace { old, new }));
    world.run_until("in its place", 2 * SECOND, |world| {
        let conf = world.conf(leader);
        conf.voters.contains(&new) && !conf.voters.contains(&old) && conf.outgoing.is_empty()
    });
    world.run_until("everywhere", 2 * SECOND, |world| world.conf(new) == world.conf(leader));
    // The three that are left need no fourth.
    world.end(old, true);
    goes_on(&mut world, 2 * SECOND);
}

#[test]
fn a_damaged_node_neither_votes_nor_leads_before_it_is_whole() {
    for seed in 0..4 {
        let (mut world, leader) = led_by_seed(seed, Plan::calm(3));
        let (damaged, other) = (other_than(leader), other_than(other_than(leader)));
        world.run_for(500 * MS);
        // Idle for long enough that the node writes down how far it has committed.
        world.is_loaded = false;
        world.run_for(7 * SECOND);
        world.damage(damaged);
        world.is_loaded = true;
        world.end(damaged, false);
        for node in [leader, other] {
            world.cut(damaged, node);
            world.cut(node, damaged);
        }
        world.run_for(100 * MS);
        world.start(damaged);
        assert!(world.is_recovering(damaged), "the damage was not found");
        // Alone with it, the other must not be elected: it may lack what the damaged one has lost.
        world.end(leader, false);
        world.net.heal();
        world.run_for(3 * SECOND);
        assert!(world.leaders().is_empty(), "elected with the vote of a node that lost what it had");
        world.start(leader);
        world.run_until("whole again", 5 * SECOND, |world| !world.is_recovering(damaged));
        goes_on(&mut world, 2 * SECOND);
    }
}

/// Somebody puts a new disk into a machine and starts it with its old number.
#[test]
fn a_node_whose_disk_was_emptied_neither_votes_nor_leads_before_it_is_whole() {
    for seed in 0..4 {
        let (mut world, leader) = led_by_seed(seed, Plan::calm(3));
        let (emptied, other) = (other_than(leader), other_than(other_than(leader)));
        world.run_for(500 * MS);
        // What is acknowledged from now on, the leader and the emptied one have alone.
        for node in [leader, emptied] {
            world.cut(other, node);
            world.cut(node, other);
        }
        goes_on(&mut world, 2 * SECOND);
        world.end(leader, false);
        world.end(emptied, true);
        world.wipe(emptied);
        world.net.heal();
        world.start(emptied);
        world.run_for(3 * SECOND);
        assert!(world.leaders().is_empty(), "elected with the vote of a node that lost what it had");
        assert!(world.is_recovering(emptied));
        world.start(leader);
        world.run_until("whole again", 5 * SECOND, |world| !world.is_recovering(emptied));
        goes_on(&mut world, 2 * SECOND);
    }
}

/// The leader and one follower are cut off each other; the other follower starts anew, and the log is idle.
#[test]
fn a_started_voter_keeps_the_promise_of_its_earlier_life() {
    for seed in 0..10 {
        let (mut world, leader) = led_by_seed(seed, Plan::calm(3));
        let (lone, started) = (other_than(leader), other_than(other_than(leader)));
        world.run_for(300 * MS);
        world.cut(leader, lone);
        world.cut(lone, leader);
        // Just before the lone one stands for election.
        for _ in 0..8 {
            world.run_for(60 * MS);
            world.end(started, false);
            world.run_for(MS);
            world.start(started);
        }
        world.run_for(2 * SECOND);
    }
}

/// Courses of events that chance hardly ever takes.
const TARGETED: [(&str, fn()); 3] = [
    ("a started voter", a_started_voter_keeps_the_promise_of_its_earlier_life),
    ("a damaged node", a_damaged_node_neither_votes_nor_leads_before_it_is_whole),
    ("a node far behind", a_node_far_behind_begins_anew),
];

/// Each deliberate fault, and the first case that notices it: `APOGEE_CASES=n` cases at most, and what is targeted.
#[test]
#[ignore = "minutes; prints a table"]
fn faults_put_in_on_purpose_are_noticed() {
    let cases = number_from_env("APOGEE_CASES").unwrap_or(100);
    let first = number_from_env("APOGEE_SEED").unwrap_or(0);
    let skip = number_from_env("APOGEE_FLAW").unwrap_or(0) as usize;
    for flaw in Flaw::ALL.into_iter().skip(skip) {
        flaw::set(Some(flaw));
        let noticed = (first..first + cases).find_map(|seed| {
            let case = || World::new(seed, Plan::draw(seed)).run();
            let panic = catch_unwind(AssertUnwindSafe(case)).err()?;
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            Some((seed - first + 1, text.chars().take(100).collect::<String>()))
        });
        let targeted = TARGETED.into_iter().filter(|(_, scenario)| catch_unwind(scenario).is_err());
        let targeted: Vec<&str> = targeted.map(|(name, _)| name).collect();
        flaw::set(None);
        println!("| {flaw:?} | targeted: {targeted:?} |");
        match noticed {
            Some((case, text)) => println!("| {flaw:?} | {case} | {text}"),
            None => println!("| {flaw:?} | not in {cases} |"),
        }
    }
}

/// How long nobody commits when a leader dies, is cut off, or hands over.
#[test]
#[ignore = "minutes; prints figures"]
fn failover_figures() {
    let rounds = number_from_env("APOGEE_CASES").unwrap_or(100);
    for (election_timeout_ms, heartbeat_ms) in [(300, 60), (400, 80), (500, 100)] {
        for (what, kind) in [("killed", 0), ("cut off", 1), ("handed over", 2)] {
            let mut took = Vec::new();
            for seed in 0..rounds.div_ceil(10) {
                let _say = SayOnPanic(seed);
                let plan = Plan { election_timeout_ms, heartbeat_ms, append_pause_us: 2000, ..Plan::calm(3) };
                let (mut world, _) = led_by_seed(seed, plan);
                for _ in 0..10 {
                    let settle_ms = 1500 + world.rng.below(500);
                    world.run_for(settle_ms * MS);
                    world.run_until("one leader", 5 * SECOND, |world| world.leaders().len() == 1);
                    let leader = world.leaders()[0];
                    let others: Vec<NodeId> = (1..=3).map(NodeId).filter(|node| *node != leader).collect();
                    let began_us = world.now_us;
                    match kind {
                        0 => world.end(leader, false),
                        1 => others.iter().for_each(|other| {
                            world.cut(leader, *other);
                            world.cut(*other, leader);
                        }),
                        _ => world.hand_over(leader, others[0]).unwrap(),
                    }
                    world.run_until("another leads", 10 * SECOND, |world| {
                        world.leaders().iter().any(|node| *node != leader)
                    });
                    took.push((world.now_us - began_us) as f64 / 1000.0);
                    world.net.heal();
                    world.start(leader);
                }
            }
            took.sort_by(f64::total_cmp);
            let at = |percent: usize| took[(took.len() - 1) * percent / 100];
            println!(
                "{election_timeout_ms}-{} ms, heartbeat {heartbeat_ms} ms, leader {what}: p50 {:.0}, p99 {:.0}, max {:.0} ms of {}",
                2 * election_timeout_ms,
                at(50),
                at(99),
                at(100),
                took.len()
            );
        }
    }
}
