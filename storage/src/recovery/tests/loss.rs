//! What a person gives up, and what not.

use super::group::{committed, open, opens_whole};
use super::*;
use crate::group_state::{ConfState, GroupState, read_saved_group_state};
use crate::inspect::verify;
use crate::types::LogStart;

/// A voter of three that all up to `commit` is known of.
fn voter(commit: u64) -> GroupState {
    let conf = ConfState { voters: [1, 2, 3].map(NodeId).to_vec(), ..ConfState::default() };
    GroupState { conf, ..committed(commit) }
}

/// Eight batches, the fifth of which is damaged, as the last one proves. The node knows.
fn damaged() -> World {
    let world = World::of(3, &(1..=8).map(of_queues).collect::<Vec<_>>());
    world.tear(4);
    let (found, _) = open(&world, voter(3));
    assert!(found.state.recovering);
    world
}

fn saved(world: &World) -> GroupState {
    read_saved_group_state(&world.0).unwrap().unwrap().state
}

#[track_caller]
fn survey(world: &World) -> LossSurvey {
    survey_loss(&world.0).unwrap().unwrap()
}

#[track_caller]
fn refused(world: &World) -> LossRefused {
    let before = saved(world);
    let survey = survey(world);
    let refused = survey.may_be_accepted().unwrap_err();
    assert_eq!(survey.accept(&world.0), Err(LossError::Refused(refused.clone())));
    assert_eq!(saved(world), before);
    refused
}

#[test]
fn node_keeps_what_is_in_front_of_the_damage_and_recovers_no_more() {
    let world = damaged();
    let survey = survey(&world);
    assert_eq!((survey.state.commit, survey.report.last_index), (BatchIndex(3), BatchIndex(4)));
    assert_eq!(survey.damage.as_ref().unwrap().index, BatchIndex(5));
    let state = survey.accept(&world.0).unwrap();
    assert_eq!((state.recovering, state.loss_accepted), (false, Some(Term(1))));
    assert_eq!((state.term, state.vote), (Term(2), None), "what it promised in term 1 stays promised");
    assert_eq!(saved(&world), state);
    // As often as it is opened, nothing behind the end proves anything any more.
    for _ in 0..2 {
        opens_whole(&world, saved(&world), 4, 3);
    }
    let report = verify(&world.0, None, &mut |problem| panic!("{problem:?}"), &mut |_| {});
    assert_eq!(report.last_index, BatchIndex(4));
    assert_eq!(refused(&world), LossRefused::NotRecovering);
}

#[test]
fn damage_of_what_came_later_is_found_as_ever() {
    let world = damaged();
    survey(&world).accept(&world.0).unwrap();
    for index in 5..=12 {
        let prev_term = if index == 5 { 1 } else { 2 };
        world.put(index - 1, &Batch { term: 2, prev_term, ..of_queues(index) }.encode());
    }
    opens_whole(&world, saved(&world), 12, 11);
    world.tear(8);
    let (found, _) = open(&world, GroupState { commit: BatchIndex(7), ..saved(&world) });
    assert!(matches!(found.damage.unwrap().proof, DamageProof::Behind { witness: BatchIndex(12), .. }));
    let state = survey(&world).accept(&world.0).unwrap();
    assert_eq!((state.loss_accepted, state.term), (Some(Term(2)), Term(3)));
    opens_whole(&world, state, 8, 7);
}

#[test]
fn term_is_later_than_any_that_lies_behind() {
    let world = World::of(3, &(1..=8).map(of_queues).collect::<Vec<_>>());
    for index in 6..=8 {
        world.put(index - 1, &Batch { term: 6, prev_term: 6, ..of_queues(index) }.encode());
    }
    world.tear(4);
    open(&world, voter(3));
    let state = survey(&world).accept(&world.0).unwrap();
    assert_eq!((state.loss_accepted, state.term), (Some(Term(6)), Term(7)));
    opens_whole(&world, state, 4, 3);
}

#[test]
fn snapshots_of_what_is_given_up_go_with_it() {
    let world = World::sealed(5);
    world.snapshot(1, None);
    world.snapshot(4, Some(1));
    (2..5).for_each(|nth| world.remove_index(nth));
    (24..45).for_each(|block| world.zero(block));
    let (found, journal) = open(&world, voter(20));
    assert_eq!((found.state.recovering, journal), (true, Journal::of(40)));
    survey(&world).accept(&world.0).unwrap();
    assert_eq!(world.0.snapshots().unwrap(), [LogOffset(16 * BLOCK)]);
    let found = opens_whole(&world, saved(&world), 24, 24);
    assert!(found.state_at <= found.recovered.report.end);
}

#[test]
fn node_whose_state_is_of_what_is_lost_is_refused() {
    let world = World::sealed(5);
    world.snapshot(4, None);
    (2..5).for_each(|nth| world.remove_index(nth));
    (0..2).for_each(|nth| world.remove_segment(nth));
    (24..45).for_each(|block| world.zero(block));
    let (found, _) = open(&world, voter(20));
    assert_eq!(
        found.recovered.restored.start,
        LogStart { index: BatchIndex(16), term: Term(1), base_offset: LogOffset(2 * SEGMENT) }
    );
    assert_eq!(refused(&world), LossRefused::State { end: LogOffset(24 * BLOCK) });
    assert_eq!(world.0.snapshots().unwrap(), [LogOffset(40 * BLOCK)]);
}

#[test]
fn node_that_nobody_waits_for_is_refused() {
    let world = World::with(&(1..=7).map(of_queues).collect::<Vec<_>>());
    open(&world, voter(3));
    assert_eq!(refused(&world), LossRefused::NotRecovering);
    let learner = GroupState { recovering: true, ..committed(3) };
    open(&world, learner);
    assert_eq!(refused(&world), LossRefused::NoVote);
}

#[test]
fn node_without_a_batch_is_refused() {
    let world = World::with(&[]);
    open(&world, GroupState { recovering: true, ..voter(0) });
    assert_eq!(refused(&world), LossRefused::Empty);
    assert!(survey_loss(&World::with(&[]).0).unwrap().is_none(), "no node of a group");
}

#[test]
fn node_whose_members_are_of_what_is_lost_is_refused() {
    let world = damaged();
    let mut state = saved(&world);
    state.conf.index = BatchIndex(4);
    open(&world, state.clone());
    survey(&world).may_be_accepted().unwrap();
    state.conf.index = BatchIndex(5);
    open(&world, state);
    assert_eq!(refused(&world), LossRefused::Members { of: BatchIndex(5), last: BatchIndex(4) });
}

#[test]
fn stopped_at_any_point_the_node_recovers_or_counts() {
    let mut outcomes = [false; 2];
    for calls in 0..8 {
        let world = damaged();
        let survey = survey(&world);
        world.0.die_after(calls);
        let is_done = survey.accept(&world.0).is_ok();
        world.0.kill();
        let (found, _) = open(&world, saved(&world));
        assert!(found.state.recovering || found.state.loss_accepted.is_some());
        assert!(!is_done || !found.state.recovering);
        outcomes[usize::from(is_done)] = true;
    }
    assert_eq!(outcomes, [true; 2]);
}
