use std::path::PathBuf;

use super::console::{Action, Order, parse};
use super::plan::Plan;
use super::*;

fn args() -> ClusterArgs {
    ClusterArgs {
        nodes: 3,
        namesrvs: 3,
        shards: 4,
        data: PathBuf::from("/somewhere/with \"quotes\""),
        namesrv_port: 9876,
        base_port: 10911,
    }
}

#[test]
fn the_files_are_what_the_processes_accept_and_fit_each_other() {
    let plan = Plan::new(&args()).unwrap();
    let (namesrvs, nodes) = plan.configurations();
    let listening: Vec<_> = namesrvs.iter().map(|config| config.address()).collect();
    assert_eq!(listening, plan.namesrv_addresses());
    assert_eq!(plan.namesrv_list(), "127.0.0.1:9876;127.0.0.1:9877;127.0.0.1:9878");
    for (number, config) in (1..).zip(&nodes) {
        config.validate().unwrap();
        assert_eq!(config.namesrv, listening);
        let replication = config.replication.as_ref().unwrap();
        assert_eq!(replication.node, number);
        assert_eq!(config.base_port, 10911 + 1000 * (number - 1));
        assert_eq!(replication.nodes, nodes[0].replication.as_ref().unwrap().nodes);
        assert_eq!(config.group_wide(), nodes[0].group_wide());
        let other = plan.nodes.iter().find(|process| process.data == config.data_dir);
        assert_eq!(other.unwrap().key, number.to_string());
    }
}

#[test]
fn every_port_belongs_to_one_process() {
    let plan = Plan::new(&ClusterArgs { nodes: 7, shards: 64, ..args() }).unwrap();
    let mut ports: Vec<u16> = plan.processes().flat_map(|process| process.ports.clone()).collect();
    let all = ports.len();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), all);
    assert_eq!(all, 3 + 7 * 64 * 2);
}

#[test]
fn a_port_in_use_is_named_before_anything_starts() {
    let used = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = used.local_addr().unwrap().port();
    let plan = Plan::new(&ClusterArgs { namesrvs: 1, namesrv_port: port, ..args() }).unwrap();
    let error = plan.check_ports().unwrap_err().to_string();
    assert!(error.contains(&format!("namesrv-1 cannot listen on port {port}")), "{error}");
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (args, expected) in [
        (ClusterArgs { nodes: 2, ..args() }, "--nodes 2: expected 1, 3, 5 or 7"),
        (ClusterArgs { nodes: 9, ..args() }, "--nodes 9"),
        (ClusterArgs { namesrvs: 0, ..args() }, "--namesrvs 0: expected 1 to 9"),
        (ClusterArgs { shards: 0, ..args() }, "--shards 0: expected 1 to 64"),
        (ClusterArgs { base_port: 65_000, ..args() }, "--base-port 65000: no ports left for node 2"),
        (ClusterArgs { namesrv_port: 65_534, ..args() }, "--namesrv-port 65534: no ports left"),
    ] {
        let error = Plan::new(&args).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn typed_lines_are_understood_or_questioned() {
    let member = |action, key: &str| Ok(Some(Order::Member(action, key.to_owned())));
    assert_eq!(parse("  kill 2 "), member(Action::Kill, "2"));
    assert_eq!(parse("start n1"), member(Action::Start, "n1"));
    assert_eq!(parse("pause 3"), member(Action::Pause, "3"));
    assert_eq!(parse("resume 3"), member(Action::Resume, "3"));
    assert_eq!(parse("stop node-3"), member(Action::Stop, "node-3"));
    assert_eq!(parse("status"), Ok(Some(Order::Status)));
    assert_eq!(parse(""), Ok(None));
    assert_eq!(parse("kill"), Err("kill whom?".into()));
    assert_eq!(parse("fly 2"), Err("\"fly 2\" is not understood".into()));
}
