//! What tools ask of the group of nodes, and what NameServers are told of it.

use apogee_net::body::{GroupRole, GroupStatus, parse};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::NoExt;
use apogee_net::request::{ChangeMembersRequest, TransferLeaderRequest};

use super::group::{Group, NODES};
use super::world::{Answered, BROKER, CONSUMER, World};
use crate::shard::Rank;

impl Group {
    fn status(&mut self, node: u64) -> GroupStatus {
        let answer = self.asked(node, CONSUMER, RequestCode::APOGEE_GROUP_STATUS, &NoExt, b"");
        assert_eq!(answer.code, ResponseCode::SUCCESS, "{answer:?}");
        parse(&answer.body).unwrap()
    }

    fn asked_to_transfer(&mut self, node: u64, to: i64) -> Answered {
        let request = TransferLeaderRequest { node: to };
        self.asked(node, CONSUMER, RequestCode::APOGEE_TRANSFER_LEADER, &request, b"")
    }

    fn change(&mut self, node: u64, change: &ChangeMembersRequest<'_>) -> Answered {
        self.asked(node, CONSUMER, RequestCode::APOGEE_CHANGE_MEMBERS, change, b"")
    }
}

fn change<'a>(
    change: &'a str,
    node: i64,
    address: Option<&'a str>,
    by: Option<i64>,
) -> ChangeMembersRequest<'a> {
    ChangeMembersRequest { change, node, address, by }
}

#[test]
fn every_node_tells_what_it_knows_and_the_leader_how_far_the_others_are() {
    let mut group = Group::led_by_1();
    group.agree();
    let status = group.status(1);
    assert_eq!((status.node, status.role, status.leader), (1, GroupRole::Leader, Some(1)));
    assert_eq!((status.broker_name.as_str(), status.shard, status.shards), (BROKER, 0, 1));
    assert!(status.why.starts_with("leads; elected"), "{}", status.why);
    assert!(status.lease_ms > 0);
    let nodes: Vec<_> = status.nodes.iter().map(|node| (node.node, node.member.as_str())).collect();
    assert_eq!(nodes, [(1, "voter"), (2, "voter"), (3, "voter")]);
    for node in &status.nodes {
        assert_eq!(node.address, format!("10.0.0.{}:10912", node.node));
        assert!(node.connected);
        assert_eq!((node.lag_batches, node.matched_index), (Some(0), Some(status.last_index)), "{node:?}");
    }
    for number in 2..=NODES {
        let follower = group.status(number);
        assert_eq!((follower.role, follower.leader), (GroupRole::Follower, Some(1)));
        assert_eq!(follower.why, "follows node 1");
        assert_eq!((follower.term, follower.committed_index), (status.term, status.committed_index));
        let others = follower.nodes.iter().filter(|node| node.node != follower.node);
        assert!(others.clone().all(|node| node.lag_batches.is_none()), "only the leader knows");
    }
}

#[test]
fn leadership_is_handed_over_on_request() {
    let mut group = Group::led_by_1();
    assert_eq!(group.asked_to_transfer(1, 3).code, ResponseCode::SUCCESS);
    group.until("node 3 leads", |group| group.leader() == Some(3));
    let refused = group.asked_to_transfer(1, 2);
    assert_eq!(
        refused.code,
        ResponseCode::SERVICE_NOT_AVAILABLE,
        "not the leader: who asks looks for it anew"
    );
    assert_eq!(group.asked_to_transfer(3, 3).code, ResponseCode::SUCCESS, "it is so already");
    assert_eq!(group.asked_to_transfer(3, 0).code, ResponseCode::SUCCESS);
    group.until("somebody else leads", |group| group.leader().is_some_and(|leader| leader != 3));
}

#[test]
fn what_cannot_be_handed_over_is_refused_in_words() {
    let mut group = Group::led_by_1();
    for (node, code, why) in [
        (9, ResponseCode::SYSTEM_ERROR, "node 9 is no voter of the group"),
        (-1, ResponseCode::INVALID_PARAMETER, "node = -1: expected the number of a node"),
    ] {
        let refused = group.asked_to_transfer(1, node);
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.remark.contains(why), "{refused:?}");
    }
    group.kill(3);
    group.pass(2_000);
    let refused = group.asked_to_transfer(1, 3);
    assert_eq!(refused.code, ResponseCode::SYSTEM_BUSY, "it may come back: {refused:?}");
}

#[test]
fn nodes_are_removed_and_added_on_request() {
    let mut group = Group::led_by_1();
    assert_eq!(group.change(2, &change("REMOVE", 3, None, None)).code, ResponseCode::SERVICE_NOT_AVAILABLE);
    let refused = group.change(1, &change("REMOVE", 1, None, None));
    assert_eq!(refused.code, ResponseCode::SYSTEM_ERROR);
    assert!(refused.remark.contains("transfer leadership first"), "{refused:?}");
    assert_eq!(group.change(1, &change("REMOVE", 3, None, None)).code, ResponseCode::SUCCESS);
    group.pass(500);
    let members = |status: &GroupStatus| {
        status.nodes.iter().map(|node| (node.node, node.member.clone())).collect::<Vec<_>>()
    };
    assert_eq!(members(&group.status(1)), [(1, "voter".to_owned()), (2, "voter".to_owned())]);
    group.cut_off(3);
    let add = change("ADD_LEARNER", 3, Some("10.0.0.3:20912"), None);
    assert_eq!(group.change(1, &add).code, ResponseCode::SUCCESS);
    group.pass(500);
    let status = group.status(1);
    assert_eq!(members(&status)[2], (3, "learner".to_owned()));
    assert_eq!(status.nodes[2].address, "10.0.0.3:20912");
    let refused = group.change(1, &change("PROMOTE", 3, None, None));
    assert_eq!(refused.code, ResponseCode::SYSTEM_BUSY, "it may come: {refused:?}");
    group.heal(3);
    group.pass(1_000);
    assert_eq!(group.change(1, &change("PROMOTE", 3, None, None)).code, ResponseCode::SUCCESS);
    group.pass(500);
    assert_eq!(members(&group.status(1))[2], (3, "voter".to_owned()));
}

#[test]
fn changes_that_make_no_sense_are_refused_by_name() {
    let mut group = Group::led_by_1();
    for (wanted, why) in [
        (change("FIRE", 3, None, None), "change = \"FIRE\": expected ADD_LEARNER"),
        (change("REMOVE", 0, None, None), "node = 0: expected the number of a node"),
        (change("ADD_LEARNER", 4, None, None), "address = \"\": expected ip:port"),
        (change("ADD_LEARNER", 4, Some("0.0.0.0:10912"), None), "address = \"0.0.0.0:10912\""),
        (change("ADD_LEARNER", 4, Some("10.0.0.4"), None), "address = \"10.0.0.4\""),
        (change("REPLACE", 3, None, None), "by = 0: expected the number of a node"),
    ] {
        let refused = group.change(1, &wanted);
        assert_eq!(refused.code, ResponseCode::INVALID_PARAMETER, "{refused:?}");
        assert!(refused.remark.contains(why), "{refused:?}");
    }
}

#[test]
fn a_broker_without_a_group_says_so() {
    let mut world = World::new();
    for (code, ext) in [
        (RequestCode::APOGEE_GROUP_STATUS, None),
        (RequestCode::APOGEE_TRANSFER_LEADER, Some([("node", "2")])),
    ] {
        let refused = match ext {
            None => world.asked(CONSUMER, code, &NoExt, b""),
            Some(ext) => world.asked(CONSUMER, code, &ext, b""),
        };
        assert_eq!(refused.code, ResponseCode::SYSTEM_ERROR);
        assert!(refused.remark.contains("no group"), "{refused:?}");
    }
}

#[test]
fn nameservers_are_told_the_rank_and_a_new_role_with_all_topics() {
    let mut group = Group::led_by_1();
    group.agree();
    let told = |group: &Group, node: u64, told| {
        let part = group.node(node).shard.registration(told);
        let topics = &part.body.topic_config_serialize_wrapper;
        (part.told, topics.data_version.state_version, topics.topic_config_table.len(), part.is_last)
    };
    let term = group.status(1).term;
    let (leader, version, topics, is_last) = told(&group, 1, None);
    assert_eq!((leader.rank(), version, is_last), (Rank { broker_id: 0, term }, term, true));
    assert!(topics > 1);
    let (follower, version, _, _) = told(&group, 2, None);
    assert_eq!((follower.rank(), version), (Rank { broker_id: 2, term }, term));
    // Nothing has changed: no more than that they live.
    assert_eq!(told(&group, 1, Some(leader)).2, 0);
    assert_eq!(told(&group, 2, Some(follower)).2, 0);

    assert_eq!(group.asked_to_transfer(1, 2).code, ResponseCode::SUCCESS);
    group.until("node 2 leads", |group| group.leader() == Some(2));
    group.agree();
    let (new, version, all, _) = told(&group, 2, Some(follower));
    assert_eq!(new.rank().broker_id, 0);
    assert!(version > term, "term {version} fences {term}");
    assert_eq!(all, topics, "what it said as a slave was passed over");
    assert_eq!(told(&group, 1, Some(leader)).0.rank(), Rank { broker_id: 1, term: version });
    assert_eq!(told(&group, 3, None).0.rank(), Rank { broker_id: 3, term: version });
}
