//! Particular courses of events, and measurements.

use std::cmp::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind};

use apogee_storage::{LogStart, NodeId};

use super::flaw::{self, Flaw};
use super::node::{Node, member};
use super::plan::Plan;
use super::world::World;
use super::{SayOnPanic, number_from_env};
use crate::replication::{ChangeRefused, MemberChange, Role};

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

/// The other two of three nodes.
fn others_than(node: NodeId) -> [NodeId; 2] {
    [other_than(node), other_than(other_than(node))]
}

fn third(a: NodeId, b: NodeId) -> NodeId {
    NodeId(6 - a.0 - b.0)
}

/// Whoever takes itself for the leader.
fn leading(world: &World) -> Vec<NodeId> {
    let is_leading = |node: &&Node| node.process.as_ref().is_some_and(|process| process.log.is_leading());
    world.nodes.values().filter(is_leading).map(|node| node.id).collect()
}

fn cut_off(world: &mut World, node: NodeId, others: &[NodeId]) {
    others.iter().for_each(|other| world.cut_between(node, *other));
}

/// The others that run need the vote of a node that has lost what it had: without the leader nobody is elected, with it all goes on.
fn nobody_leads_without(world: &mut World, leader: NodeId, lost: NodeId) {
    world.run_for(3 * SECOND);
    assert!(world.leaders().is_empty(), "elected with the vote of a node that lost what it had");
    assert!(world.is_recovering(lost));
    world.net.heal();
    world.start(leader);
    becomes_whole(world, lost);
}

fn becomes_whole(world: &mut World, lost: NodeId) {
    world.run_until("whole again", 5 * SECOND, |world| !world.is_recovering(lost));
    goes_on(world, 2 * SECOND);
    // It may lead from now on, without another connection.
    world.run_for(200 * MS);
    let leader = world.leaders()[0];
    if leader != lost {
        world.hand_over(leader, lost).unwrap();
        goes_on(world, SECOND);
    }
}

/// Three nodes with equal logs and nothing to do.
fn idle_and_led(seed: u64) -> (World, NodeId) {
    let (mut world, leader) = led_by_seed(seed, Plan::calm(3));
    world.run_for(300 * MS);
    world.is_loaded = false;
    world.run_for(200 * MS);
    (world, leader)
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
        world.part(leader, node);
    }
    world.run_until("the lease ends", 400 * MS, |world| !world.has_lease(leader));
    world.run_until("another leads", 2 * SECOND, |world| world.leaders().iter().any(|node| *node != leader));
    goes_on(&mut world, SECOND);
}

/// A leader, and a node that does not run and lacks what has left the leader's log.
fn far_behind() -> (World, NodeId, NodeId) {
    let (mut world, leader) = led(Plan { append_pause_us: 1000, ..Plan::calm(3) });
    let behind = other_than(leader);
    world.end(behind, false);
    world.run_until("batches leave", 60 * SECOND, |world| world.first_index(leader) > 100);
    (world, leader, behind)
}

fn begins_anew(world: &mut World, leader: NodeId, behind: NodeId) {
    world.run_until("a reset", 10 * SECOND, |world| world.oracle.tally.numbers.contains_key("resets"));
    world.run_until("it follows", 10 * SECOND, |world| world.lag(leader, behind) < 20);
}

#[test]
fn a_node_far_behind_begins_anew() {
    let (mut world, leader, behind) = far_behind();
    world.start(behind);
    begins_anew(&mut world, leader, behind);
}

#[test]
fn a_node_without_room_for_a_checkpoint_begins_anew_once_there_is() {
    let (mut world, leader, behind) = far_behind();
    world.set_full(behind, true);
    world.start(behind);
    let put_offs = |world: &World| world.oracle.tally.numbers.get("resets put off").copied().unwrap_or(0);
    world.run_until("it has no room", 10 * SECOND, |world| put_offs(world) >= 1);
    // It knows its promises, and no less of the log than before.
    assert_eq!(world.process(behind).replica.group_state().log_start, LogStart::default());
    world.run_until("no room again", 3 * SECOND, |world| put_offs(world) >= 3);
    world.set_full(behind, false);
    begins_anew(&mut world, leader, behind);
    assert_eq!(world.oracle.tally.numbers["starts"], 4, "without a start");
}

fn join_in_place_of(world: &mut World, leader: NodeId, new: NodeId, old: NodeId) {
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
}

#[test]
fn a_node_joins_becomes_a_voter_and_takes_the_place_of_another() {
    let (mut world, leader) = led(Plan { spare: 1, ..Plan::calm(3) });
    let (new, old) = (NodeId(4), other_than(leader));
    join_in_place_of(&mut world, leader, new, old);
    // The three that are left need no fourth.
    world.end(old, true);
    goes_on(&mut world, 2 * SECOND);
}

/// Promoted as soon as the leader has met it, before it has heard that it belongs to the group, it would take itself for a voter
/// that lost everything, and wait for the dead one whose place it takes.
#[test]
fn a_node_that_has_nothing_yet_gets_no_vote() {
    let plan = Plan { spare: 1, append_pause_us: 20_000, ..Plan::calm(3) };
    let (mut world, leader) = led(plan);
    let (new, old) = (NodeId(4), other_than(leader));
    world.run_for(300 * MS);
    world.end(old, false);
    assert!(world.change(leader, MemberChange::AddLearner { node: new, address: member(new).address }));
    let mut refused = Vec::new();
    while let Err(why) = world.try_change(leader, MemberChange::Replace { old, new }) {
        refused.push(why);
        assert!(refused.len() < 2_000, "{:?}", refused.last());
        world.run_for(MS);
    }
    world.run_until("everywhere", 2 * SECOND, |world| {
        let conf = world.conf(leader);
        !conf.voters.contains(&old) && conf.outgoing.is_empty() && world.conf(new) == conf
    });
    assert!(
        !world.is_recovering(new) && refused.contains(&ChangeRefused::Empty { node: new }),
        "{refused:?}"
    );
}

/// What the leader and the one that goes have alone would be on one disk otherwise.
#[test]
fn a_removed_node_is_gone_only_when_those_who_stay_have_all() {
    let (mut world, leader) = led(Plan::calm(3));
    let (removed, behind) = (other_than(leader), other_than(other_than(leader)));
    world.run_for(500 * MS);
    for node in [leader, removed] {
        world.part(behind, node);
    }
    goes_on(&mut world, 500 * MS);
    let newest = world.newest_committed();
    assert!(world.durable_index(behind) < newest);
    assert!(world.change(leader, MemberChange::Remove { node: removed }));
    world.run_for(200 * MS);
    assert!(world.conf(leader).outgoing.contains(&removed), "it is gone already: {:?}", world.conf(leader));
    world.net.heal();
    let without = |world: &World, node| {
        let conf = world.conf(node);
        conf.outgoing.is_empty() && !conf.voters.contains(&removed)
    };
    world.run_until("it is gone", 5 * SECOND, |world| without(world, leader) || without(world, behind));
    assert!(world.durable_index(behind) >= newest, "those who stay lack what is committed");
}

/// The leader dies in the middle of the change, and the one that goes is elected: until the others have all, it may be needed.
#[test]
fn a_node_that_goes_may_lead_until_it_is_gone() {
    for is_leave_on_its_way in [false, true] {
        let mut times_led = 0;
        for seed in 0..8 {
            let plan = Plan { append_pause_us: 1000, net_us: 2000, ..Plan::calm(5) };
            let (mut world, leader) = led_by_seed(seed, plan);
            let removed = NodeId(leader.0 % 5 + 1);
            let stay: Vec<NodeId> =
                (1..=5).map(NodeId).filter(|node| ![leader, removed].contains(node)).collect();
            world.run_for(300 * MS);
            assert!(world.change(leader, MemberChange::Remove { node: removed }));
            world.run_until("both sets of voters decide", SECOND, |world| {
                world.conf(removed).outgoing.contains(&removed)
            });
            if is_leave_on_its_way {
                world.is_loaded = false;
                stay.iter().for_each(|node| world.hold_writes(*node));
                world.run_for(100 * MS);
            }
            world.end(leader, false);
            if is_leave_on_its_way {
                stay.iter().for_each(|node| world.release_writes(*node));
                world.is_loaded = true;
            }
            world.run_until("another leads", 3 * SECOND, |world| !leading(world).is_empty());
            times_led += u32::from(leading(&world) == [removed]);
            world.run_until("it is gone", 3 * SECOND, |world| {
                let is_without = |node: &NodeId| {
                    let conf = world.conf(*node);
                    conf.outgoing.is_empty() && !conf.voters.contains(&removed)
                };
                world.leaders().iter().any(|node| stay.contains(node) && is_without(node))
            });
            goes_on(&mut world, SECOND);
        }
        assert!(times_led > 0, "it was never elected");
    }
}

/// Its disk fails before a change of members is asked for, or when the batch that leaves the joint membership has none yet.
#[test]
fn a_leader_whose_log_is_broken_hands_over_in_the_middle_of_a_change() {
    for is_joint in [false, true] {
        let (mut world, leader) = led(Plan { append_pause_us: 1000, ..Plan::calm(5) });
        let change = MemberChange::Remove { node: NodeId(leader.0 % 5 + 1) };
        world.run_for(300 * MS);
        if is_joint {
            assert!(world.change(leader, change.clone()));
            world.run_until("both sets of voters decide", SECOND, |world| {
                !world.conf(leader).outgoing.is_empty()
            });
        }
        world.nodes[&leader].disk.fail_writes(1);
        world.run_until("it is broken", SECOND, |world| world.process(leader).log.poisoned().is_some());
        let refused = world.try_change(leader, change).unwrap_err();
        assert!(matches!(refused, ChangeRefused::Unfit { .. }), "{refused}");
        world.run_until("another leads", 2 * SECOND, |world| {
            world.leaders().iter().any(|node| *node != leader)
        });
        goes_on(&mut world, SECOND);
    }
}

#[test]
fn a_damaged_node_neither_votes_nor_leads_before_it_is_whole() {
    for seed in 0..4 {
        let (mut world, leader) = led_by_seed(seed, Plan::calm(3));
        let (damaged, other) = (other_than(leader), other_than(other_than(leader)));
        world.run_for(500 * MS);
        // Idle for long enough that the node writes down how far it has committed.
        world.is_loaded = false;
        world.run_for(3 * SECOND);
        world.damage(damaged);
        world.is_loaded = true;
        world.end(damaged, false);
        for node in [leader, other] {
            world.part(damaged, node);
        }
        world.run_for(100 * MS);
        world.start(damaged);
        assert!(world.is_recovering(damaged), "the damage was not found");
        // Alone with it, the other must not be elected: it may lack what the damaged one has lost.
        world.end(leader, false);
        world.net.heal();
        nobody_leads_without(&mut world, leader, damaged);
    }
}

/// Two of three nodes find damage when they are started, and the third, which led, comes back whole or not at all. Until then they
/// have nothing to do.
fn damage_two(seed: u64) -> (World, NodeId, [NodeId; 2]) {
    let (mut world, leader) = led_by_seed(seed, Plan::calm(3));
    let damaged = others_than(leader);
    world.run_for(500 * MS);
    world.is_loaded = false;
    world.run_for(3 * SECOND);
    world.end(leader, false);
    for node in damaged {
        world.turn_bit_over(node);
        world.end(node, false);
        world.start(node);
        assert!(world.is_recovering(node), "the damage was not found");
    }
    world.is_loaded = true;
    (world, leader, damaged)
}

/// Nobody has what they lost but the third, which they do not vote for.
#[test]
fn a_group_with_two_damaged_voters_stands_still_until_one_is_made_to_count() {
    for seed in 0..4 {
        let (mut world, sound, [counts, other]) = damage_two(seed);
        world.start(sound);
        world.run_for(5 * SECOND);
        assert_eq!(leading(&world), [], "elected by nodes that lost what they had");
        let why = world.process(sound).replica.status(&world.process(sound).log, 0).why;
        assert!(why.contains("`apogee recover`"), "{why}");
        world.end(counts, false);
        world.accept_loss(counts);
        world.start(counts);
        // With the vote of the one, the third leads, and has everything.
        world.run_until("the sound one leads", 3 * SECOND, |world| world.leaders() == [sound]);
        becomes_whole(&mut world, other);
        world.run_until("the other has all, too", 3 * SECOND, |world| world.lag(sound, counts) < 20);
    }
}

/// The third does not come back, so what both have lost is gone.
#[test]
fn two_damaged_voters_go_on_with_what_they_have() {
    for seed in 0..4 {
        let (mut world, _, damaged) = damage_two(seed);
        let last = |world: &World, node| world.process(node).log.last_index().0;
        let most = damaged.into_iter().map(|node| last(&world, node)).max().unwrap();
        for node in damaged {
            world.end(node, false);
            world.accept_loss(node);
        }
        world.give_up_behind(most);
        // Again and again nothing of it is found.
        for _ in 0..2 {
            for node in damaged {
                world.start(node);
                assert!(!world.is_recovering(node));
                world.end(node, true);
            }
        }
        damaged.into_iter().for_each(|node| world.start(node));
        world.run_until("one leads", 3 * SECOND, |world| world.leaders().len() == 1);
        goes_on(&mut world, SECOND);
    }
}

/// The loss was accepted on the wrong node: another one has more, which was committed. It takes no part before it is emptied.
#[test]
fn a_node_that_has_more_than_was_kept_stops() {
    let mut times = 0;
    for seed in 0..8 {
        let (mut world, leader) = led_by_seed(seed, Plan::calm(3));
        let [stale, other] = others_than(leader);
        world.run_for(300 * MS);
        cut_off(&mut world, stale, &[leader, other]);
        world.run_for(SECOND);
        world.is_loaded = false;
        world.run_for(3 * SECOND);
        for node in [leader, other] {
            world.turn_bit_over(node);
            world.end(node, false);
            world.start(node);
        }
        let last = |world: &World, node| world.process(node).log.last_index().0;
        let (less, more) = match last(&world, leader).cmp(&last(&world, other)) {
            Ordering::Less => (leader, other),
            Ordering::Equal => continue,
            Ordering::Greater => (other, leader),
        };
        times += 1;
        world.end(less, false);
        world.accept_loss(less);
        world.start(less);
        let kept = last(&world, less);
        assert!(kept > last(&world, stale), "it would not be elected");
        world.give_up_behind(kept);
        world.net.heal();
        let is_stopped = |world: &World| world.process(more).replica.role() == Role::Stopped;
        world.run_until("it stops", 5 * SECOND, is_stopped);
        world.is_loaded = true;
        goes_on(&mut world, 2 * SECOND);
        world.wipe(more);
        world.start(more);
        world.run_until("it has met another", SECOND, |world| world.is_recovering(more));
        becomes_whole(&mut world, more);
    }
    assert!(times > 0, "both always lost as much");
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
            world.part(other, node);
        }
        goes_on(&mut world, 2 * SECOND);
        world.end(leader, false);
        world.wipe(emptied);
        world.net.heal();
        world.start(emptied);
        nobody_leads_without(&mut world, leader, emptied);
    }
}

/// As above, and whoever asks for its vote has heard nothing of what is committed, only of the first batch.
#[test]
fn a_node_whose_disk_was_emptied_does_not_vote_for_one_that_has_missed_everything() {
    for seed in 0..4 {
        let mut world = World::new(seed, Plan::calm(3));
        let is_first = |node: &Node| {
            let process = node.process.as_ref();
            process.is_some_and(|it| !it.log.is_leading() && it.log.last_index().0 == 1)
        };
        let follower = |world: &World| world.nodes.values().find(|node| is_first(node)).map(|node| node.id);
        world.run_until("a first batch", 3 * SECOND, |world| follower(world).is_some());
        let behind = follower(&world).unwrap();
        let leader = leading(&world)[0];
        let emptied = third(behind, leader);
        cut_off(&mut world, behind, &[leader, emptied]);
        goes_on(&mut world, 2 * SECOND);
        world.end(leader, false);
        world.wipe(emptied);
        world.start(emptied);
        world.mend_between(behind, emptied);
        nobody_leads_without(&mut world, leader, emptied);
    }
}

/// It voted, its disk was emptied, and it meets the leader of before that vote, which still takes itself for the leader.
#[test]
fn a_node_whose_disk_was_emptied_takes_nothing_from_a_leader_that_it_voted_against() {
    let mut met = 0;
    for seed in 0..12 {
        let (mut world, old) = idle_and_led(seed);
        cut_off(&mut world, old, &others_than(old));
        let is_other = |node: &NodeId| *node != old;
        world.run_until("another leads", 2 * SECOND, |world| world.leaders().iter().any(is_other));
        if !world.leaders().contains(&old) {
            continue;
        }
        met += 1;
        let new = world.leaders().into_iter().find(is_other).unwrap();
        let emptied = third(old, new);
        world.wipe(emptied);
        world.cut_between(emptied, new);
        world.start(emptied);
        world.mend_between(old, emptied);
        world.is_loaded = true;
        world.run_for(SECOND);
        world.net.heal();
        becomes_whole(&mut world, emptied);
    }
    assert!(met > 0, "the old leader always knew first");
}

/// A node that came later has no place in anybody's configuration: with an empty disk it waits to be added.
#[test]
fn a_node_that_joined_and_lost_its_disk_does_not_vote_before_it_is_whole() {
    for seed in 0..4 {
        let (mut world, leader) = led_by_seed(seed, Plan { spare: 1, ..Plan::calm(3) });
        let [old, other] = others_than(leader);
        let emptied = NodeId(4);
        join_in_place_of(&mut world, leader, emptied, old);
        world.end(old, true);
        // What is acknowledged from now on, the leader and the emptied one have alone.
        world.cut_between(other, leader);
        goes_on(&mut world, 2 * SECOND);
        world.wipe(emptied);
        world.start(emptied);
        world.mend_between(emptied, other);
        world.mend_between(emptied, leader);
        world.run_until("told", SECOND, |world| !world.conf(emptied).voters.is_empty());
        world.end(leader, false);
        nobody_leads_without(&mut world, leader, emptied);
    }
}

/// A follower has acknowledged what its leader has not stored itself yet, and comes back without it.
#[test]
fn a_leader_counts_nothing_that_a_node_has_lost() {
    let (mut world, leader) = led(Plan::calm(3));
    let [emptied, other] = others_than(leader);
    world.run_for(300 * MS);
    cut_off(&mut world, other, &[leader, emptied]);
    world.hold_writes(leader);
    world.run_for(50 * MS);
    let is_ahead = world.process(emptied).log.durable_index() > world.process(leader).log.durable_index();
    assert!(is_ahead, "the follower has stored nothing that its leader has not");
    world.wipe(emptied);
    world.start(emptied);
    world.connect(leader, emptied);
    world.run_for(5 * MS);
    world.release_writes(leader);
    world.run_for(50 * MS);
    world.net.heal();
    world.run_until("whole again", 5 * SECOND, |world| !world.is_recovering(emptied));
    goes_on(&mut world, 2 * SECOND);
}

/// A leader need not have stored itself what the others have: its disk makes nobody wait, not even until the next tick.
#[test]
fn what_both_followers_have_is_committed_while_the_leader_s_disk_works() {
    for seed in 0..5 {
        let (mut world, leader) = idle_and_led(seed);
        world.hold_writes(leader);
        world.append_at_leaders();
        let log = &world.process(leader).log;
        let (last, durable) = (log.last_index(), log.durable_index());
        assert!(last > durable);
        world.run_until("committed", 8 * MS, |world| world.process(leader).log.committed_index() == last);
        world.release_writes(leader);
        world.run_for(50 * MS);
    }
}

/// The leader and one follower are cut off each other. The other follower starts anew just before that one stands for election,
/// and has not heard the leader since; their logs are equal.
#[test]
fn a_started_voter_keeps_the_promise_of_its_earlier_life() {
    for seed in 0..10 {
        let (mut world, leader) = idle_and_led(seed);
        let [lone, started] = others_than(leader);
        world.cut_between(leader, lone);
        world.run_for((420 + 30 * seed) * MS);
        world.end(started, false);
        world.start(started);
        world.cut_between(started, leader);
        world.connect(started, lone);
        world.run_for(2 * SECOND);
    }
}

/// The successor is told to stand for election and does so only when the leader has long given the transfer up.
#[test]
fn a_leader_whose_successor_comes_late_has_no_lease() {
    let (mut world, leader) = idle_and_led(1);
    let [late, other] = others_than(leader);
    world.hand_over(leader, late).unwrap();
    world.freeze(late, 700 * MS);
    world.run_for(690 * MS);
    assert!(!world.process(leader).replica.is_handing_over(), "it has not given up");
    // It hears of nothing from now on.
    cut_off(&mut world, leader, &[late, other]);
    world.is_loaded = true;
    world.run_until("another leads", 3 * SECOND, |world| world.leaders().iter().any(|node| *node != leader));
    world.net.heal();
    goes_on(&mut world, 2 * SECOND);
}

/// A follower of a leader in the minority has its batches cut off before they are stored.
#[test]
fn what_was_cut_off_before_it_was_stored_is_not_acknowledged() {
    let (mut world, old) = led(Plan::calm(5));
    let slow = NodeId(old.0 % 5 + 1);
    let rest: Vec<NodeId> = (1..=5).map(NodeId).filter(|node| ![old, slow].contains(node)).collect();
    world.run_for(300 * MS);
    cut_off(&mut world, old, &rest);
    cut_off(&mut world, slow, &rest);
    world.hold_writes(slow);
    world.run_for(30 * MS);
    world.cut_between(old, slow);
    world.run_until("another leads", 3 * SECOND, |world| {
        world.leaders().iter().any(|node| rest.contains(node))
    });
    rest.iter().for_each(|node| world.mend_between(slow, *node));
    world.run_for(300 * MS);
    world.release_writes(slow);
    world.run_for(300 * MS);
    world.net.heal();
    goes_on(&mut world, 2 * SECOND);
}

#[test]
fn a_node_that_catches_up_gets_no_more_at_once_than_the_window() {
    let plan = Plan { append_pause_us: 1000, window_bytes: 64 << 10, ..Plan::calm(3) };
    let (mut world, leader) = led(plan);
    let behind = other_than(leader);
    world.end(behind, false);
    world.run_for(200 * MS);
    world.start(behind);
    world.run_until("it follows", 2 * SECOND, |world| world.lag(leader, behind) < 20);
}

#[test]
fn a_leader_that_is_cut_off_seals_no_more_than_it_may() {
    let plan = Plan { append_pause_us: 500, uncommitted_bytes_max: 4 << 10, ..Plan::calm(3) };
    let (mut world, leader) = led(plan);
    world.run_for(300 * MS);
    cut_off(&mut world, leader, &others_than(leader));
    world.run_for(SECOND);
    world.net.heal();
    goes_on(&mut world, 2 * SECOND);
}

fn case(seed: u64) {
    World::new(seed, Plan::draw(seed)).run();
}

/// What notices a fault soonest, and what it says then.
fn notices(flaw: Flaw) -> (fn(), &'static str) {
    match flaw {
        Flaw::AcknowledgesBeforeDurable => (three_nodes_elect_a_leader_and_commit, "acknowledges"),
        Flaw::CountsItselfBeforeDurable => (|| case(0), "not on the disks of a majority"),
        Flaw::SpeaksBeforeTermIsDurable => (three_nodes_elect_a_leader_and_commit, "speaks in term"),
        Flaw::WritesBeforeTermIsDurable => (one_node_leads_itself, "writes a batch of its own in term"),
        Flaw::ForgetsVote => (three_nodes_elect_a_leader_and_commit, "and has saved"),
        Flaw::CommitsAlone => (three_nodes_elect_a_leader_and_commit, "not on the disks of a majority"),
        Flaw::LeaseTooLong => {
            (a_leader_that_is_cut_off_loses_its_lease_before_another_leads, "not in 400 ms: the lease ends")
        }
        Flaw::LeaseAfterTransfer => (a_leader_whose_successor_comes_late_has_no_lease, "has a lease in term"),
        Flaw::VotesAtOnce => (a_started_voter_keeps_the_promise_of_its_earlier_life, "has a lease in term"),
        Flaw::MembersNotDurable => {
            (a_node_joins_becomes_a_voter_and_takes_the_place_of_another, "has saved the members as of")
        }
        Flaw::RecoveringVotes => {
            (a_damaged_node_neither_votes_nor_leads_before_it_is_whole, "elected with the vote")
        }
        Flaw::NeverDoubts => (
            a_node_whose_disk_was_emptied_neither_votes_nor_leads_before_it_is_whole,
            "commits another batch",
        ),
        Flaw::DoubtsOnlyCommitted => (
            a_node_whose_disk_was_emptied_does_not_vote_for_one_that_has_missed_everything,
            "commits another batch",
        ),
        Flaw::ForgetsPromises => (
            a_node_whose_disk_was_emptied_takes_nothing_from_a_leader_that_it_voted_against,
            "has a lease in term",
        ),
        Flaw::VotesWithoutItsLog => {
            (a_node_that_joined_and_lost_its_disk_does_not_vote_before_it_is_whole, "commits another batch")
        }
        Flaw::CountsLostBatches => {
            (a_leader_counts_nothing_that_a_node_has_lost, "not on the disks of a majority")
        }
        Flaw::LetsGoAtOnce => {
            (a_removed_node_is_gone_only_when_those_who_stay_have_all, "it is gone already")
        }
        Flaw::AcknowledgesResetEarly => (a_node_far_behind_begins_anew, "acknowledges"),
        Flaw::AcknowledgesCutBatches => {
            (what_was_cut_off_before_it_was_stored_is_not_acknowledged, "acknowledges")
        }
        Flaw::IgnoresWindow => {
            (a_node_that_catches_up_gets_no_more_at_once_than_the_window, "bytes are on the way")
        }
        Flaw::SealsWithoutBound => {
            (a_leader_that_is_cut_off_seals_no_more_than_it_may, "bytes are uncommitted")
        }
    }
}

/// What `run` says of this fault, if it notices it.
fn complaint_about(flaw: Flaw, run: impl FnOnce()) -> Option<String> {
    flaw::set(Some(flaw));
    let outcome = catch_unwind(AssertUnwindSafe(run));
    flaw::set(None);
    let panic = outcome.err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
}

/// A simulator that accepts everything would be content with this code, too.
#[test]
fn each_fault_put_in_on_purpose_is_noticed() {
    for flaw in Flaw::ALL {
        let (run, expected) = notices(flaw);
        let complaint = complaint_about(flaw, run);
        let complaint = complaint.unwrap_or_else(|| panic!("{flaw:?} is not noticed"));
        assert!(complaint.contains(expected), "{flaw:?} is noticed by {complaint}");
    }
}

/// Each deliberate fault, and the first random case that notices it, of `APOGEE_CASES=n` from `APOGEE_SEED=n` on.
#[test]
#[ignore = "minutes; prints a table"]
fn faults_put_in_on_purpose_are_noticed_by_chance() {
    let cases = number_from_env("APOGEE_CASES").unwrap_or(40);
    let first = number_from_env("APOGEE_SEED").unwrap_or(0);
    let skip = number_from_env("APOGEE_FLAW").unwrap_or(0) as usize;
    for flaw in Flaw::ALL.into_iter().skip(skip) {
        let noticed = (first..first + cases)
            .find_map(|seed| Some((seed - first + 1, complaint_about(flaw, || case(seed))?)));
        match noticed {
            Some((nth, text)) => {
                let text = text.lines().next().unwrap_or_default();
                println!("| {flaw:?} | {nth} | {} |", text.chars().take(100).collect::<String>());
            }
            None => println!("| {flaw:?} | not in {cases} | |"),
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
                        1 => others.iter().for_each(|other| world.part(leader, *other)),
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
