//! The status of groups for a person: one table, then the reasons in words, then what it comes to.

use std::collections::BTreeMap;
use std::io::{self, Write};

use apogee_net::body::GroupRole;

use super::view::{GroupView, Health, ReplicaView, ShardView};

const COLUMNS: [Column; 9] = [
    Column { head: "SHARD", right: false },
    Column { head: "NODE", right: true },
    Column { head: "ROLE", right: false },
    Column { head: "TERM", right: true },
    Column { head: "BATCHES", right: true },
    Column { head: "COMMITTED", right: true },
    Column { head: "BEHIND", right: true },
    Column { head: "HEARD OF", right: true },
    Column { head: "ADDRESS", right: false },
];

struct Column {
    head: &'static str,
    right: bool,
}

type Row = [String; COLUMNS.len()];

pub(super) fn print(groups: &[GroupView], out: &mut dyn Write) -> io::Result<()> {
    for (count, group) in groups.iter().enumerate() {
        if count > 0 {
            writeln!(out)?;
        }
        print_group(group, out)?;
    }
    Ok(())
}

fn print_group(group: &GroupView, out: &mut dyn Write) -> io::Result<()> {
    let GroupView { cluster, group: name, shards } = group;
    writeln!(
        out,
        "Group {name} in {cluster}: {}, {}\n",
        counted(group.nodes().len(), "node"),
        counted(shards.len(), "shard")
    )?;
    let mut rows = Vec::new();
    for shard in shards.values() {
        for (count, (&node, replica)) in shard.replicas.iter().enumerate() {
            let name = if count == 0 { shard.broker_name.as_str() } else { "" };
            rows.push(row(name, node, shard, replica));
        }
    }
    print_table(&rows, out)?;
    writeln!(out, "\nWhy")?;
    for shard in shards.values() {
        for (&node, replica) in &shard.replicas {
            writeln!(out, "  {}, node {node}: {}", shard.broker_name, why(shard, node, replica))?;
        }
    }
    writeln!(out)?;
    for sentence in verdict(group) {
        writeln!(out, "{sentence}")?;
    }
    Ok(())
}

fn row(name: &str, node: i64, shard: &ShardView, replica: &ReplicaView) -> Row {
    let status = replica.said.as_ref().ok();
    let leader = shard.leader().map(|(_, status)| status);
    let leads = leader.is_some_and(|leader| leader.node == node);
    // What a node says of itself is newer than what the leader knows of it.
    let member = leader.and_then(|leader| leader.nodes.iter().find(|member| member.node == node));
    // A leader that has not heard of a node since its election knows nothing of it.
    let known = member.filter(|member| member.matched_index != Some(0) || status.is_some());
    let last = status.map(|status| status.last_index).or(known.and_then(|member| member.matched_index));
    let committed =
        status.map(|status| status.committed_index).or(known.and_then(|member| member.committed_index));
    let behind = known.and_then(|member| member.lag_batches).filter(|_| !leads);
    let heard = member.and_then(|member| member.heard_ms_ago).filter(|_| !leads);
    [
        name.to_owned(),
        node.to_string(),
        role(shard, node, replica),
        or_dash(status.map(|status| status.term), |term| term.to_string()),
        or_dash(last, grouped),
        or_dash(committed, grouped),
        or_dash(behind, grouped),
        or_dash(heard, ago),
        or_dash(replica.address, |address| address.to_string()),
    ]
}

/// What the node is, in one or a few words.
fn role(shard: &ShardView, node: i64, replica: &ReplicaView) -> String {
    let Ok(status) = &replica.said else { return "away".to_owned() };
    let member = shard.member(node).map(|member| member.member.as_str());
    let mut role = match (status.role, member) {
        (GroupRole::Leader, _) => "leader".to_owned(),
        (GroupRole::BecomingLeader, _) => "becoming leader".to_owned(),
        (GroupRole::Stopped, _) => "stopped".to_owned(),
        (GroupRole::Follower, None) => "no member".to_owned(),
        (GroupRole::Follower, Some("voter")) => "follower".to_owned(),
        (GroupRole::Follower, Some(other)) => other.to_owned(),
    };
    if status.recovering {
        role.push_str(", recovering");
    }
    if status.disk_trouble.is_some() {
        role.push_str(", sick disk");
    }
    role
}

fn why(shard: &ShardView, node: i64, replica: &ReplicaView) -> String {
    match &replica.said {
        Ok(status) => {
            let mut why = status.why.clone();
            if let Some(trouble) = status.disk_trouble.as_ref().filter(|trouble| !why.contains(*trouble)) {
                why.push_str("; its disk: ");
                why.push_str(trouble);
            }
            why
        }
        Err(silence) => {
            let known = shard.member(node).map(|member| member.why.as_str()).filter(|why| !why.is_empty());
            known.map_or_else(|| silence.clone(), |known| format!("{silence}; the others say: {known}"))
        }
    }
}

/// What it comes to: at least one sentence.
fn verdict(group: &GroupView) -> Vec<String> {
    let mut sentences = Vec::new();
    let leaderless: Vec<_> =
        group.shards.values().filter(|shard| shard.health() == Health::NoLeader).collect();
    if leaderless.is_empty() {
        sentences.push(format!("{} a leader.", all_have(group.shards.len())));
    } else {
        let names: Vec<_> = leaderless.iter().map(|shard| shard.broker_name.as_str()).collect();
        sentences.push(format!(
            "{} no leader: it can be read, and nothing can be sent until a majority of its voters is there.",
            have(&names)
        ));
    }
    for (number, shard) in &group.shards {
        if let Some(nodes) = shard.lost_majority() {
            let list = nodes.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
            sentences.push(format!(
                "{}: of its voters {list} lost data and cannot vote before a leader has sent it again, and without them no \
                 majority is there to elect one. Start the others if they have their disks; if that is not enough, \
                 `apogee recover DATA/shard-{number}` on a stopped node accepts the loss (operations.md: A majority has lost \
                 data).",
                shard.broker_name
            ));
        }
    }
    let mut away: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for shard in group.shards.values() {
        for (&node, replica) in &shard.replicas {
            if replica.said.is_err() {
                away.entry(node).or_default().push(&shard.broker_name);
            }
        }
    }
    for (node, shards) in away {
        let whole = shards.len() == group.shards.len();
        let place = if whole { String::new() } else { format!(" for {}", shards.join(", ")) };
        sentences.push(format!("Node {node} does not answer{place}."));
    }
    for shard in group.shards.values() {
        if let Some(changing) = shard.leader().and_then(|(_, leader)| leader.changing.as_ref()) {
            sentences.push(format!("{}: {changing}.", shard.broker_name));
        }
    }
    let misplaced: Vec<_> = group.shards.values().filter(|shard| is_misplaced(shard)).collect();
    if !misplaced.is_empty() {
        let names: Vec<_> = misplaced.iter().map(|shard| shard.broker_name.as_str()).collect();
        sentences.push(format!(
            "{} not led by the node that is to lead: `apogee admin group rebalance` hands over now.",
            are(&names)
        ));
    }
    if group.health() == Health::Well {
        sentences.push("All is well: every node has everything.".to_owned());
    }
    sentences
}

/// Led by another node than the one that is to lead, although that is there.
fn is_misplaced(shard: &ShardView) -> bool {
    let Some((_, leader)) = shard.leader() else { return false };
    let Some(preferred) = leader.preferred.filter(|node| *node != leader.node) else { return false };
    shard.replicas.get(&preferred).is_some_and(|replica| replica.said.is_ok())
}

fn all_have(shards: usize) -> String {
    if shards == 1 { "The shard has".to_owned() } else { format!("All {shards} shards have") }
}

fn have(names: &[&str]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "has" } else { "have" })
}

fn are(names: &[&str]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn or_dash<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

/// With a comma between each three digits.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

fn ago(ms: i64) -> String {
    match ms {
        ..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min", ms / 60_000),
    }
}

fn print_table(rows: &[Row], out: &mut dyn Write) -> io::Result<()> {
    let heads: Row = COLUMNS.map(|column| column.head.to_owned());
    let width =
        |at: usize| rows.iter().chain([&heads]).map(|row| row[at].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    for row in [&heads].into_iter().chain(rows) {
        let mut line = String::from(" ");
        for ((cell, column), &width) in row.iter().zip(&COLUMNS).zip(&widths) {
            line.push(' ');
            line.push_str(&if column.right { format!("{cell:>width$}") } else { format!("{cell:<width$}") });
            line.push(' ');
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
