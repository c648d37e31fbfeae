//! The status of groups for programs: what each node said, under the names of the protocol.

use std::io::{self, Write};

use apogee_net::body::to_standard_json;
use serde_json::{Value, json};

use super::view::{GroupView, Health, ReplicaView, ShardView};

pub(super) fn print(groups: &[GroupView], out: &mut dyn Write) -> io::Result<()> {
    let groups: Vec<Value> = groups.iter().map(group).collect();
    serde_json::to_writer_pretty(&mut *out, &json!({ "groups": groups }))?;
    writeln!(out)
}

fn group(group: &GroupView) -> Value {
    json!({
        "cluster": group.cluster,
        "group": group.group,
        "health": health(group.health()),
        "shards": group.shards.iter().map(|(number, view)| shard(*number, view)).collect::<Vec<_>>(),
    })
}

fn shard(number: i64, shard: &ShardView) -> Value {
    json!({
        "shard": number,
        "brokerName": shard.broker_name,
        "health": health(shard.health()),
        "leader": shard.leader().map(|(_, status)| status.node),
        "nodes": shard.replicas.iter().map(|(node, view)| replica(*node, view)).collect::<Vec<_>>(),
    })
}

fn replica(node: i64, replica: &ReplicaView) -> Value {
    let status = replica.said.as_ref().ok().map(|status| {
        serde_json::from_slice::<Value>(&to_standard_json(status)).expect("standard JSON is JSON")
    });
    json!({
        "node": node,
        "address": replica.address.map(|address| address.to_string()),
        "status": status,
        "error": replica.said.as_ref().err(),
    })
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Well => "well",
        Health::Degraded => "degraded",
        Health::NoLeader => "no leader",
    }
}
