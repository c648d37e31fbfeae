//! What clients notice of a node that was removed from its group and goes on running.

use apogee_net::code::{RequestCode, ResponseCode};
use apogee_storage::NodeId;

use super::group::Group;
use super::world::{Answered, CONSUMER, PRODUCER, pull_from, send_to, waiting};
use crate::replication::MemberChange;

/// Led by node 1, with a message, a group that consumes, and all nodes knowing it.
fn with_a_message() -> Group {
    let mut group = Group::led_by_1();
    group.sends_at_once(1, "first");
    group.reads_at_once(1, 0);
    group.pass(200);
    group
}

impl Group {
    fn begin_change(&mut self, leader: u64, change: MemberChange) {
        let now_ms = self.now_ms;
        self.at(leader).shard.change_members(change, now_ms).unwrap();
    }

    /// Removes a node, which may not be able to hear of it.
    fn remove(&mut self, leader: u64, node: u64) {
        self.begin_change(leader, MemberChange::Remove { node: NodeId(node) });
        self.until("the others go on without it", |group| {
            let status = group.node(leader).shard.group_status(group.now_ms).unwrap();
            status.changing.is_none() && status.peers.iter().all(|peer| peer.node.0 != node)
        });
        self.pass(50);
    }

    /// What a node has answered without any time passing.
    fn at_once(&mut self, node: u64, opaque: i32) -> Answered {
        assert!(self.has_answer(node, opaque), "node {node} does not answer");
        self.answer(node, opaque)
    }

    fn sent_at_once(&mut self, node: u64, body: &str) -> ResponseCode {
        let opaque = self.ask(node, PRODUCER, RequestCode::SEND_MESSAGE_V2, &send_to("T"), body.as_bytes());
        self.at_once(node, opaque).code
    }

    fn sends_at_once(&mut self, node: u64, body: &str) {
        assert_eq!(self.sent_at_once(node, body), ResponseCode::SUCCESS, "{body} to node {node}");
    }

    fn reads_at_once(&mut self, node: u64, from: i64) -> Vec<String> {
        let opaque = self.ask(node, CONSUMER, RequestCode::PULL_MESSAGE, &pull_from("T", from), b"");
        self.at_once(node, opaque).bodies()
    }

    fn is_removed(&self, node: u64) -> bool {
        self.node(node).shard.is_removed()
    }

    /// Whether it stands for no election.
    fn follows(&self, node: u64) -> bool {
        let status = self.node(node).shard.group_status(self.now_ms).unwrap();
        status.leader.is_some()
            && status.why.ends_with("no member of the group")
            && !status.why.contains("election")
    }
}

#[test]
fn a_removed_node_hands_on_what_it_is_asked_to_whoever_leads() {
    let mut group = with_a_message();
    let parked = group.ask(3, CONSUMER, RequestCode::PULL_MESSAGE, &waiting(pull_from("T", 1)), b"");
    group.remove(1, 3);
    assert!(group.is_removed(3));
    assert!(group.has_answer(3, parked), "no message would ever come");
    // Longer than it waits for a leader.
    group.pass(2_000);
    assert!(group.follows(3));
    group.sends_at_once(3, "second");
    assert_eq!(group.reads_at_once(3, 1), ["second"]);
    // Its clients come to the new leader, too.
    let now_ms = group.now_ms;
    group.at(1).shard.transfer_to(NodeId(2), now_ms).unwrap();
    group.until("node 2 leads", |group| group.leader() == Some(2));
    group.pass(100);
    group.sends_at_once(3, "third");
    group.kill(2);
    let held = group.ask(3, PRODUCER, RequestCode::SEND_MESSAGE_V2, &send_to("T"), b"fourth");
    group.restart(2);
    let leader = group.elect();
    assert_eq!(group.answer(3, held).code, ResponseCode::SUCCESS, "held until node {leader} led");
}

#[test]
fn a_node_that_was_away_when_it_was_removed_hears_of_it() {
    for restarts in [false, true] {
        let mut group = with_a_message();
        match restarts {
            true => group.kill(3),
            false => group.cut_off(3),
        }
        group.remove(1, 3);
        group.pass(1_000);
        match restarts {
            true => group.restart(3),
            false => group.heal(3),
        }
        group.pass(100);
        assert!(group.is_removed(3), "restarted: {restarts}");
        assert!(group.follows(3));
        group.sends_at_once(3, "second");
    }
}

#[test]
fn a_removed_node_that_has_lost_sight_of_the_others_refuses_at_once_and_serves_what_it_has() {
    let mut group = with_a_message();
    group.remove(1, 3);
    group.cut_off(3);
    assert_eq!(group.sent_at_once(3, "second"), ResponseCode::SERVICE_NOT_AVAILABLE);
    assert_eq!(group.reads_at_once(3, 0), ["first"]);
}

#[test]
fn a_removed_node_that_is_added_again_is_one_like_the_others() {
    let mut group = with_a_message();
    group.remove(1, 3);
    group.sends_at_once(1, "second");
    group.begin_change(1, MemberChange::AddLearner { node: NodeId(3), address: b"10.0.0.3:10912".to_vec() });
    group.until("it belongs to the group", |group| !group.is_removed(3));
    group.begin_change(1, MemberChange::Promote { node: NodeId(3) });
    group.pass(200);
    group.kill(2);
    group.sends_at_once(1, "third");
    group.agree();
}
