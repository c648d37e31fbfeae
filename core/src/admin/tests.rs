//! The command line against a group that is made up: real sockets and frames, and nodes that do at once what they are told.

mod fake;

use super::group_command;
use fake::FakeGroup;

/// Runs a command line; what it printed and its exit code, or the same and why it failed.
fn run(line: &str) -> Result<(String, u8), String> {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let mut out = Vec::new();
    let done = group_command(&words, &mut out);
    let printed = String::from_utf8(out).unwrap();
    match done {
        Ok(code) => Ok((printed, code)),
        Err(error) => Err(format!("{printed}{error:#}")),
    }
}

/// Runs a command line, asking the group's NameServer.
fn run_at(fake: &FakeGroup, line: &str) -> Result<(String, u8), String> {
    run(&format!("{line} --namesrv {}", fake.namesrv()))
}

#[track_caller]
fn assert_has(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn a_group_that_is_well_is_told_in_a_table_and_in_words() {
    let fake = FakeGroup::start();
    let (text, code) = run_at(&fake, "status").unwrap();
    assert_eq!(code, 0, "{text}");
    assert_has(
        &text,
        &[
            "Group set in C: 3 nodes, 2 shards",
            "SHARD  NODE  ROLE",
            "set-0     1  leader       7    1,204      1,204       -         -  127.0.0.1:",
            "          2  follower     7    1,204      1,204       0     40 ms  127.0.0.2:",
            "set-0, node 1: it leads since term 7",
            "set-1, node 3: it follows node 2",
            "All 2 shards have a leader.",
            "All is well: every node has everything.",
        ],
    );
}

#[test]
fn any_node_will_do_in_place_of_a_nameserver() {
    let fake = FakeGroup::start();
    for node in 1..=3 {
        for shard in 0..2 {
            let (text, code) = run(&format!("status --node {}", fake.address(node, shard))).unwrap();
            assert_eq!(code, 0, "{text}");
            assert_has(&text, &["3 nodes, 2 shards"]);
        }
    }
}

#[test]
fn a_dead_node_is_named_with_what_the_others_know_of_it() {
    let fake = FakeGroup::start();
    fake.kill(3);
    let (text, code) = run_at(&fake, "status").unwrap();
    assert_eq!(code, 3, "{text}");
    assert_has(
        &text,
        &[
            "3  away         -    1,190      1,180      14     2.3 s  127.0.0.3:",
            "node 3: it cannot be reached (connection refused",
            "the others say: not heard of for 2300 ms",
            "Node 3 does not answer.",
            "All 2 shards have a leader.",
        ],
    );
    assert!(!text.contains("All is well"), "{text}");
}

#[test]
fn a_shard_without_a_leader_is_told_and_counts_most() {
    let fake = FakeGroup::start();
    fake.kill(3);
    fake.set_leader(1, None);
    let (text, code) = run_at(&fake, "status").unwrap();
    assert_eq!(code, 4, "{text}");
    assert_has(&text, &["set-1 has no leader: it can be read, and nothing can be sent until a majority"]);
    let (_, code) = run_at(&fake, "status --shard 0").unwrap();
    assert_eq!(code, 3);
}

#[test]
fn a_shard_that_no_nameserver_knows_is_found_at_the_nodes() {
    let fake = FakeGroup::start();
    fake.unregister(0);
    let (text, code) = run_at(&fake, "status").unwrap();
    assert_eq!(code, 0, "{text}");
    assert_has(&text, &["3 nodes, 2 shards", "All 2 shards have a leader."]);
    // What is done for one shard only would be half a change.
    let (text, _) = run_at(&fake, "transfer --to 3").unwrap();
    assert_has(&text, &["set-0: node 1 handed over to node 3", "set-1: node 2 handed over to node 3"]);
}

#[test]
fn a_shard_that_runs_nowhere_is_missed() {
    let fake = FakeGroup::start();
    fake.hold_back(1);
    for ask in [format!("--namesrv {}", fake.namesrv()), format!("--node {}", fake.address(2, 0))] {
        let (text, code) = run(&format!("status {ask}")).unwrap();
        assert_eq!(code, 4, "{text}");
        assert_has(
            &text,
            &[
                "3 nodes, 2 shards",
                "set-1     1  away",
                "set-1 has no leader",
                "Node 3 does not answer for set-1.",
            ],
        );
    }
    let failed = run_at(&fake, "transfer --to 3 --wait 0").unwrap_err();
    assert_has(&failed, &["set-1: NOT DONE: it has no leader", "not done in 1 of 2 shards: set-1"]);
}

#[test]
fn the_way_out_is_told_where_too_many_voters_lost_data() {
    let fake = FakeGroup::start();
    let told = |text: &str| text.contains("`apogee recover DATA/shard-1`");
    let status = || run_at(&fake, "status").unwrap();
    fake.damage(3);
    fake.set_leader(1, None);
    let (text, code) = status();
    assert!(code == 4 && !told(&text), "the two others are a majority:\n{text}");
    fake.damage(2);
    let (text, code) = status();
    assert!(code == 4 && told(&text), "{text}");
    assert_has(&text, &["set-1: of its voters 2, 3 lost data and cannot vote"]);
    assert!(
        !text.contains("`apogee recover DATA/shard-0`"),
        "it has a leader, which sends it again:\n{text}"
    );
    // With another one away, one is enough.
    let fake = FakeGroup::start();
    fake.damage(3);
    fake.set_leader(1, None);
    fake.kill(2);
    let (text, _) = run_at(&fake, "status").unwrap();
    assert_has(&text, &["set-1: of its voters 3 lost data and cannot vote"]);
}

#[test]
fn status_as_json_holds_what_each_node_said() {
    let fake = FakeGroup::start();
    fake.kill(2);
    let (text, code) = run_at(&fake, "status --json").unwrap();
    assert_eq!(code, 4, "node 2 led shard 1");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let group = &json["groups"][0];
    assert_eq!((&group["cluster"], &group["group"]), (&"C".into(), &"set".into()));
    let shard = &group["shards"][0];
    assert_eq!((&shard["leader"], &shard["health"]), (&1.into(), &"degraded".into()));
    assert_eq!(shard["nodes"][0]["status"]["committedIndex"], 1204);
    assert_eq!(shard["nodes"][0]["status"]["role"], "LEADER");
    assert_eq!(shard["nodes"][1]["status"], serde_json::Value::Null);
    assert!(shard["nodes"][1]["error"].as_str().unwrap().contains("cannot be reached"));
    assert_eq!(group["shards"][1]["leader"], serde_json::Value::Null);
}

#[test]
fn leadership_is_handed_over_and_waited_for() {
    let fake = FakeGroup::start();
    let (text, _) = run_at(&fake, "transfer --to 3").unwrap();
    assert_has(&text, &["set-0: node 1 handed over to node 3 in", "set-1: node 2 handed over to node 3 in"]);
    assert_eq!(fake.leaders(), [Some(3), Some(3)]);
    let (text, _) = run_at(&fake, "transfer --to 3").unwrap();
    assert_has(&text, &["set-0: is led by node 3 already"]);
    // Before a planned restart of node 3.
    let (text, _) = run_at(&fake, "transfer --from 3 --shard 1").unwrap();
    assert_has(&text, &["set-1: node 3 handed over to node"]);
    assert_eq!(fake.leaders()[0], Some(3), "only the shard that was named");
    let (text, _) = run_at(&fake, "transfer --from 1 --to 2 --shard 0").unwrap();
    assert_has(&text, &["set-0: is led by node 3, nothing to do"]);
}

#[test]
fn leaders_go_back_to_the_nodes_that_are_to_have_them() {
    let fake = FakeGroup::start();
    fake.set_leader(0, Some(3));
    fake.set_leader(1, Some(3));
    let (text, code) = run_at(&fake, "status").unwrap();
    assert_eq!(code, 0);
    assert_has(&text, &["set-0, set-1 are not led by the node that is to lead"]);
    run_at(&fake, "rebalance").unwrap();
    assert_eq!(fake.leaders(), [Some(1), Some(2)]);
    let (text, _) = run_at(&fake, "rebalance").unwrap();
    assert_has(&text, &["set-0: is led by node 1, as it is to be"]);
}

#[test]
fn a_dead_node_is_replaced_step_by_step() {
    let fake = FakeGroup::start();
    fake.kill(3);
    let at = fake.add_node(4);
    let line = format!("add 4 --address {} --base-port {}", at.ip(), at.port());
    let (text, _) = run_at(&fake, &line).unwrap();
    assert_has(&text, &["set-0: node 4 at 127.0.0.4:", "is a learner now", "set-1: node 4"]);
    assert_eq!(fake.members(0), [(1, "voter"), (2, "voter"), (3, "voter"), (4, "learner")]);
    let (text, _) = run_at(&fake, &line).unwrap();
    assert_has(&text, &["set-0: node 4 is there already, as learner"]);

    // It has to catch up first: the leader says twice that it is behind.
    fake.set_behind(2);
    let (text, _) = run_at(&fake, "promote 4").unwrap();
    assert_has(&text, &["set-0: waiting: node 4 is 2 batches behind", "set-0: node 4 is a voter now"]);
    assert_eq!(text.matches("waiting").count(), 1, "said once:\n{text}");

    let (text, _) = run_at(&fake, "remove 3").unwrap();
    assert_has(&text, &["set-0: node 3 is removed", "set-1: node 3 is removed"]);
    assert_eq!(fake.members(1), [(1, "voter"), (2, "voter"), (4, "voter")]);
    let (text, code) = run_at(&fake, "status").unwrap();
    assert_eq!(code, 0, "{text}");
}

#[test]
fn a_dead_node_is_replaced_at_one_go_and_the_command_may_be_given_again() {
    let fake = FakeGroup::start();
    fake.kill(3);
    let at = fake.add_node(4);
    let (ip, port) = (at.ip(), at.port());
    let line = format!("replace 3 --by 4 --address {ip} --base-port {port}");
    let (text, _) = run_at(&fake, &line).unwrap();
    assert_has(&text, &["set-0: node 4 has taken the place of node 3", "set-1: node 4 has taken"]);
    assert_eq!(fake.members(0), [(1, "voter"), (2, "voter"), (4, "voter")]);
    let (text, _) = run_at(&fake, &line).unwrap();
    assert_has(&text, &["set-0: node 4 is there in node 3's place already"]);
}

#[test]
fn a_leader_hands_over_before_it_is_removed() {
    let fake = FakeGroup::start();
    let at = fake.add_node(4);
    run_at(&fake, &format!("add 4 --address {} --base-port {}", at.ip(), at.port())).unwrap();
    run_at(&fake, "promote 4").unwrap();
    let (text, _) = run_at(&fake, "remove 1").unwrap();
    assert_has(
        &text,
        &["set-0: node 1 handed over to node", "set-0: node 1 is removed", "set-1: node 1 is removed"],
    );
}

#[test]
fn what_would_leave_no_majority_is_refused() {
    let fake = FakeGroup::start();
    fake.kill(3);
    let refused = run_at(&fake, "remove 2 --shard 0").unwrap_err();
    assert_has(
        &refused,
        &["set-0: NOT DONE: without node 2, 1 of 2 voters would be there, which is no majority", "--force"],
    );
    run_at(&fake, "remove 2 --force --shard 0").unwrap();
    assert_eq!(fake.members(0), [(1, "voter"), (3, "voter")]);
}

#[test]
fn refusals_are_said_in_the_leader_s_words() {
    let fake = FakeGroup::start();
    let refused = run_at(&fake, "transfer --to 9").unwrap_err();
    assert_has(&refused, &["node 9 is not in group set, whose nodes are 1, 2, 3"]);
    fake.refuse("node 3 is not heard of for 9 s");
    let refused = run_at(&fake, "transfer --to 3").unwrap_err();
    assert_has(
        &refused,
        &[
            "set-0: NOT DONE: node 3 is not heard of for 9 s",
            "set-1: NOT DONE",
            "not done in 2 of 2 shards: set-0, set-1",
        ],
    );
}

#[test]
fn a_shard_that_refuses_does_not_keep_the_others_from_being_asked() {
    let fake = FakeGroup::start();
    fake.set_leader(0, None);
    let failed = run_at(&fake, "transfer --to 3 --wait 0").unwrap_err();
    assert_has(
        &failed,
        &[
            "set-0: NOT DONE: it has no leader",
            "set-1: node 2 handed over to node 3",
            "not done in 1 of 2 shards: set-0",
        ],
    );
    assert_eq!(fake.leaders(), [None, Some(3)]);
}

#[test]
fn a_change_that_does_not_come_about_in_time_is_said_to_be_unknown() {
    let fake = FakeGroup::start();
    fake.ignore_orders();
    let failed = run_at(&fake, "transfer --to 3 --wait 0").unwrap_err();
    assert_has(&failed, &["begun, and not done in time; it may still happen. The leader, node 1: it leads"]);
}

#[test]
fn nobody_to_ask_is_told_by_address() {
    let (nowhere, _closed) = fake::closed_port("127.0.0.1:0".parse().unwrap()).unwrap();
    let failed = run(&format!("status --namesrv {nowhere}")).unwrap_err();
    assert_has(&failed, &["no NameServer answers", &nowhere.to_string(), "connection refused"]);
    let failed = run(&format!("status --node {nowhere}")).unwrap_err();
    assert_has(&failed, &[&nowhere.to_string(), "connection refused"]);
    let failed = run("status --namesrv nonsense").unwrap_err();
    assert_has(&failed, &["nonsense"]);
}

#[test]
fn a_nameserver_that_is_down_or_a_group_that_is_not_meant_is_passed_over() {
    let fake = FakeGroup::start();
    let (nowhere, _closed) = fake::closed_port("127.0.0.1:0".parse().unwrap()).unwrap();
    let two = format!("{nowhere};{}", fake.namesrv());
    let (_, code) = run(&format!("status --namesrv {two} --group set --cluster C")).unwrap();
    assert_eq!(code, 0);
    let failed = run(&format!("status --namesrv {two} --group other")).unwrap_err();
    assert_has(&failed, &["no group of nodes that is asked for"]);
}

#[test]
fn a_broker_without_a_group_is_told_apart() {
    let fake = FakeGroup::start();
    fake.dissolve();
    let failed = run(&format!("status --node {}", fake.address(1, 0))).unwrap_err();
    assert_has(&failed, &["is no member of a group: it runs without [replication]"]);
}

#[test]
fn arguments_are_checked() {
    for (line, expected) in [
        ("transfer", "--to <NODE>"),
        ("transfer --to 1 --from 1", "name the same node"),
        ("add 4", "--address <IP>"),
        ("replace 3 --address 10.0.0.4", "--by <NODE>"),
        ("replace 3 --by 3 --address 10.0.0.4", "cannot be replaced by itself"),
        ("remove", "<ID>"),
        ("frobnicate", "frobnicate"),
    ] {
        let refused = run(line).unwrap_err();
        assert!(refused.contains(expected), "{line}: {refused}");
    }
}
