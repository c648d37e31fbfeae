use std::net::Ipv4Addr;

use super::*;

const THREE_NODES: &str = r#"
    listen = "0.0.0.0"
    shards = 4
    [replication]
    node = 2
    nodes = [
        { id = 1, address = "10.0.0.1" },
        { id = 2, address = "10.0.0.2" },
        { id = 3, address = "10.0.0.3", base_port = 20911 },
    ]
"#;

fn three_nodes() -> BrokerConfig {
    toml::from_str(THREE_NODES).unwrap()
}

/// Why `change` of a good configuration is refused.
fn refused(change: impl FnOnce(&mut ReplicationConfig)) -> String {
    let mut config = three_nodes();
    change(config.replication.as_mut().unwrap());
    config.validate().unwrap_err().to_string()
}

#[track_caller]
fn assert_says(error: &str, expected: &str) {
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_node_of_three_knows_where_the_others_are() {
    let config = three_nodes();
    config.validate().unwrap();
    assert_eq!(config.node_id(), NodeId(2));
    assert_eq!(config.advertised_ip().unwrap().to_string(), "10.0.0.2", "its own among the nodes");
    assert_eq!(config.peer_port(1).unwrap(), 10922);
    let replication = config.replication.as_ref().unwrap();
    assert_eq!(replication.voters(), [NodeId(1), NodeId(2), NodeId(3)]);
    assert_eq!(replication.learners(), []);
    let third = &replication.nodes[2];
    assert_eq!(third.peer_address(3, config.base_port).unwrap().to_string(), "10.0.0.3:20942");
    assert_eq!(third.client_address(3, config.base_port).unwrap().to_string(), "10.0.0.3:20941");
}

#[test]
fn defaults_are_those_of_a_group_made_in_code() {
    let config = three_nodes();
    let replication = config.replication.unwrap();
    assert_eq!(replication, ReplicationConfig::new(2, replication.nodes.clone()));
}

#[test]
fn a_node_shows_its_settings_one_by_one() {
    let properties = three_nodes().properties();
    assert_eq!(properties["replication.node"], "2");
    assert_eq!(properties["replication.heartbeat_ms"], "80");
    assert!(properties["replication.nodes"].contains(r#""address":"10.0.0.1""#), "{properties:?}");
}

#[test]
fn a_broker_without_a_group_is_as_before() {
    let config = BrokerConfig { listen: IpAddr::V4(Ipv4Addr::LOCALHOST), ..BrokerConfig::default() };
    config.validate().unwrap();
    assert_eq!(config.node_id(), NodeId(0));
    assert_eq!(config.group_wide(), None);
    assert!(!config.properties().contains_key("replication"));
}

#[test]
fn unknown_keys_are_refused_by_name() {
    for (line, key) in [
        ("[replication]\nnode = 1\nnodes = []\nheartbeat = 5", "heartbeat"),
        ("[replication]\nnode = 1\nnodes = [{ id = 1, address = \"10.0.0.1\", port = 5 }]", "port"),
    ] {
        let error = toml::from_str::<BrokerConfig>(line).unwrap_err().to_string();
        assert!(error.contains("unknown field") && error.contains(key), "{error}");
    }
}

#[test]
fn what_has_no_default_is_asked_for() {
    let error = toml::from_str::<BrokerConfig>("[replication]\nnode = 1").unwrap_err().to_string();
    assert_says(&error, "nodes");
    let error = toml::from_str::<BrokerConfig>("[replication]\nnodes = []").unwrap_err().to_string();
    assert_says(&error, "node");
}

#[test]
fn an_address_that_nobody_knows_is_named() {
    let text = "[replication]\nnode = 1\nnodes = [{ id = 1, address = \"no such host\" }]";
    let error = toml::from_str::<BrokerConfig>(text).unwrap_err().to_string();
    assert_says(&error, "\"no such host\" is no address and no known host");
}

#[test]
fn bounds_are_named_with_what_was_found() {
    for (expected, change) in [
        ("replication.node = 0: expected 1 to 1000", (|r| r.node = 0) as fn(&mut ReplicationConfig)),
        ("replication.nodes: number = 0: expected 1 to 16", |r| r.nodes.clear()),
        ("replication.nodes: id = 1001: expected 1 to 1000", |r| r.nodes[2].id = 1001),
        ("replication.nodes: node 1: base_port = 80", |r| r.nodes[0].base_port = Some(80)),
        ("replication.heartbeat_ms = 5: expected 10 to 10000", |r| r.heartbeat_ms = 5),
        ("replication.election_timeout_ms = 99: expected 100 to 60000", |r| r.election_timeout_ms = 99),
        ("replication.election_timeout_ms = 239: expected at least three times heartbeat_ms = 80", |r| {
            r.election_timeout_ms = 239;
        }),
        ("replication.window_bytes = 7: expected 1048576 to 1073741824", |r| r.window_bytes = 7),
        ("replication.window_bytes = 4194304: expected at least 5242880, the largest batch", |r| {
            r.window_bytes = 4 * MIB;
        }),
        ("replication.uncommitted_bytes_max = 8388607: expected 8388608 to 4294967296", |r| {
            r.uncommitted_bytes_max = r.window_bytes - 1;
        }),
        ("replication.preferred_leaders_wait_ms = 999", |r| r.preferred_leaders_wait_ms = 999),
        ("replication.disk_stall_ms = 99", |r| r.disk_stall_ms = 99),
        ("replication.stop_linger_ms = 600001", |r| r.stop_linger_ms = 600_001),
    ] {
        assert_says(&refused(change), expected);
    }
}

#[test]
fn nodes_that_cannot_be_told_apart_are_refused() {
    assert_says(&refused(|r| r.nodes[2].id = 1), "id 1 stands there twice");
    assert_says(
        &refused(|r| r.node = 4),
        "replication.node = 4: not among replication.nodes, which are 1, 2, 3",
    );
    assert_says(
        &refused(|r| r.nodes[0].address = "0.0.0.0".parse().unwrap()),
        "node 1: address = 0.0.0.0: no node can connect to that",
    );
    assert_says(
        &refused(|r| r.nodes[1].base_port = Some(9000)),
        "node 2, which is this one, has base_port = 9000; the node's own base_port is 10911",
    );
    let overlapping = refused(|r| {
        r.nodes[2].address = r.nodes[1].address;
        r.nodes[2].base_port = Some(10941);
    });
    assert_says(&overlapping, "nodes 2 and 3 share 10.0.0.2, and their ports overlap: with 4 shards");
}

#[test]
fn an_even_number_of_voters_is_refused_unless_the_node_joins() {
    assert_says(&refused(|r| r.nodes.truncate(2)), "2 voters: expected 1, 3, 5 or 7");
    let mut config = three_nodes();
    let replication = config.replication.as_mut().unwrap();
    replication.nodes[2].learner = true;
    replication.nodes[0].learner = true;
    assert_eq!(replication.learners(), [NodeId(1), NodeId(3)]);
    config.validate().unwrap();
    let replication = config.replication.as_mut().unwrap();
    replication.nodes.truncate(2);
    replication.nodes[0].learner = false;
    replication.join = true;
    config.validate().unwrap();
}

#[test]
fn a_group_needs_its_number_of_shards_said() {
    let config = BrokerConfig { shards: None, ..three_nodes() };
    assert_says(&config.validate().unwrap_err().to_string(), "shards is not set");
}

#[test]
fn values_of_the_group_are_compared_and_a_node_s_own_are_not() {
    let one = three_nodes();
    let mut other = three_nodes();
    let replication = other.replication.as_mut().unwrap();
    replication.node = 3;
    replication.disk_stall_ms = 5_000;
    assert_eq!(one.group_wide(), other.group_wide());
    other.replication.as_mut().unwrap().election_timeout_ms = 1_000;
    let (one, other) = (one.group_wide().unwrap().values(), other.group_wide().unwrap().values());
    let different: Vec<_> = one.iter().zip(&other).filter(|(one, other)| one != other).collect();
    assert_eq!(different, [(&("election_timeout_ms", 400), &("election_timeout_ms", 1_000))]);
}

#[test]
fn a_member_s_address_is_read_back() {
    let replication = three_nodes().replication.unwrap();
    let address = replication.nodes[2].peer_address(1, 10911).unwrap();
    assert_eq!(member_address(address), b"10.0.0.3:20922");
    assert_eq!(parse_member_address(&member_address(address)), Some(address));
    for wrong in [b"".as_slice(), b"\xff", b"10.0.0.3"] {
        assert_eq!(parse_member_address(wrong), None);
    }
}

#[test]
fn the_example_of_three_nodes_is_valid_and_its_nodes_agree() {
    let nodes = [
        include_str!("../../../docs/examples/three-nodes/node-1.toml"),
        include_str!("../../../docs/examples/three-nodes/node-2.toml"),
        include_str!("../../../docs/examples/three-nodes/node-3.toml"),
        include_str!("../../../docs/examples/three-nodes/node-4.toml"),
    ]
    .map(|text| toml::from_str::<BrokerConfig>(text).unwrap());
    for (number, config) in (1..).zip(&nodes) {
        config.validate().unwrap();
        let replication = config.replication.as_ref().unwrap();
        assert_eq!((replication.node, replication.join), (number, number == 4));
        assert_eq!(config.advertise, Some(replication.own().address));
        assert_eq!(config.group_wide(), nodes[0].group_wide());
        assert_eq!((config.shards, &config.namesrv), (nodes[0].shards, &nodes[0].namesrv));
    }
    let namesrv = include_str!("../../../docs/examples/three-nodes/namesrv.toml");
    toml::from_str::<crate::config::NamesrvConfig>(namesrv).unwrap();
}
