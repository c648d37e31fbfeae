//! Changes: each goes to the leader of each shard, one shard after the other, and is waited for.
//!
//! What is as wanted already is passed over, so a command that was interrupted can be given again. A shard that refuses does not
//! keep the others from being asked; the command fails in the end.

// A thread of its own: no executor runs here that a sleep could block.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use apogee_net::body::GroupStatus;
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::WriteExt;
use apogee_net::request::{ChangeMembersRequest, TransferLeaderRequest};

use super::super::link::ask;
use super::NewNode;
use super::view::{GroupView, ShardView, Wanted};
use crate::config::{NodeAddress, member_address};

/// How often the state of a change is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a shard may be without a leader before a change of it is given up: an election takes less.
const LEADER_WAIT: Duration = Duration::from_secs(5);

/// Whoever has the most.
const ANYBODY: i64 = 0;

/// A change of one shard, told to the person in this order: what is being done, and what has come of it.
struct Shard<'a> {
    wanted: Wanted,
    name: String,
    number: i64,
    deadline: Instant,
    out: &'a mut dyn Write,
}

/// What one attempt came to.
enum Attempt {
    Begun,
    /// Not now; perhaps soon.
    Later(String),
}

pub(super) fn transfer(
    wanted: &Wanted,
    to: Option<i64>,
    from: Option<i64>,
    wait: Duration,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    ensure!(to.is_none() || to != from, "--from and --to name the same node");
    let group = GroupView::one(wanted)?;
    for node in to.into_iter().chain(from) {
        known(&group, node)?;
    }
    each(&group, wanted, wait, out, |shard| {
        let (_, leader) = shard.leader()?;
        if from.is_some_and(|from| from != leader.node) {
            return shard.say(&format!("is led by node {}, nothing to do", leader.node));
        }
        shard.hand_over(to.unwrap_or(ANYBODY))
    })
}

pub(super) fn rebalance(wanted: &Wanted, wait: Duration, out: &mut dyn Write) -> anyhow::Result<()> {
    let group = GroupView::one(wanted)?;
    each(&group, wanted, wait, out, |shard| {
        let (_, leader) = shard.leader()?;
        match leader.preferred {
            Some(node) if node != leader.node => shard.hand_over(node),
            _ => shard.say(&format!("is led by node {}, as it is to be", leader.node)),
        }
    })
}

pub(super) fn add(
    wanted: &Wanted,
    id: i64,
    new: NewNode,
    wait: Duration,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let group = GroupView::one(wanted)?;
    each(&group, wanted, wait, out, |shard| shard.add(id, new))
}

pub(super) fn promote(wanted: &Wanted, id: i64, wait: Duration, out: &mut dyn Write) -> anyhow::Result<()> {
    let group = GroupView::one(wanted)?;
    known(&group, id)?;
    each(&group, wanted, wait, out, |shard| shard.promote(id))
}

pub(super) fn remove(
    wanted: &Wanted,
    id: i64,
    force: bool,
    wait: Duration,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let group = GroupView::one(wanted)?;
    each(&group, wanted, wait, out, |shard| {
        if !force {
            leaves_a_majority(&group.shards[&shard.number], id)?;
        }
        shard.remove(id)
    })
}

pub(super) fn replace(
    wanted: &Wanted,
    id: i64,
    by: i64,
    new: NewNode,
    wait: Duration,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    ensure!(id != by, "node {id} cannot be replaced by itself: give the new node an id of its own");
    let group = GroupView::one(wanted)?;
    each(&group, wanted, wait, out, |shard| {
        shard.add(by, new)?;
        shard.replace(id, by)
    })
}

/// Does the same to each shard, and fails if any of them did not come to its end.
fn each(
    group: &GroupView,
    wanted: &Wanted,
    wait: Duration,
    out: &mut dyn Write,
    mut change: impl FnMut(&mut Shard<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut refused = Vec::new();
    for (&number, view) in &group.shards {
        let mut shard = Shard {
            wanted: Wanted {
                cluster: Some(group.cluster.clone()),
                group: Some(group.group.clone()),
                shard: Some(number),
                ask: wanted.ask.clone(),
            },
            name: view.broker_name.clone(),
            number,
            deadline: Instant::now() + wait,
            out: &mut *out,
        };
        if let Err(error) = change(&mut shard) {
            shard.say(&format!("NOT DONE: {error:#}"))?;
            refused.push(view.broker_name.as_str());
        }
    }
    ensure!(
        refused.is_empty(),
        "not done in {} of {} shards: {}",
        refused.len(),
        group.shards.len(),
        refused.join(", ")
    );
    Ok(())
}

fn known(group: &GroupView, node: i64) -> anyhow::Result<()> {
    let nodes = group.nodes();
    let list = nodes.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    ensure!(nodes.contains(&node), "node {node} is not in group {}, whose nodes are {list}", group.group);
    Ok(())
}

/// Refuses what would leave the shard without a leader.
fn leaves_a_majority(shard: &ShardView, without: i64) -> anyhow::Result<()> {
    let voters: BTreeSet<i64> = shard
        .members()
        .iter()
        .filter(|member| member.member == "voter" && member.node != without)
        .map(|member| member.node)
        .collect();
    let there = |node: &&i64| shard.replicas.get(node).is_some_and(|replica| replica.said.is_ok());
    let reached = voters.iter().filter(there).count();
    ensure!(
        reached > voters.len() / 2,
        "without node {without}, {reached} of {} voters would be there, which is no majority; add a node first, or say --force",
        voters.len()
    );
    Ok(())
}

impl Shard<'_> {
    /// Waits for the shard to have a leader, and returns it.
    fn leader(&self) -> anyhow::Result<(SocketAddr, GroupStatus)> {
        let until = Instant::now() + LEADER_WAIT;
        loop {
            let group = GroupView::one(&self.wanted)?;
            let shard = &group.shards[&self.number];
            if let Some((address, status)) = shard.leader() {
                return Ok((address, status.clone()));
            }
            ensure!(
                Instant::now() < until,
                "it has no leader: a majority of its voters is not there (see `apogee admin group status`)"
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn say(&mut self, what: &str) -> anyhow::Result<()> {
        writeln!(self.out, "{}: {what}", self.name)?;
        Ok(())
    }

    fn hand_over(&mut self, to: i64) -> anyhow::Result<()> {
        let (_, leader) = self.leader()?;
        if leader.node == to {
            return self.say(&format!("is led by node {to} already"));
        }
        let begun = Instant::now();
        self.insist(RequestCode::APOGEE_TRANSFER_LEADER, &TransferLeaderRequest { node: to })?;
        let new = self.until(|new| match to {
            ANYBODY => new.node != leader.node,
            to => new.node == to,
        })?;
        let took = begun.elapsed().as_millis();
        self.say(&format!("node {} handed over to node {} in {took} ms", leader.node, new.node))
    }

    fn add(&mut self, id: i64, new: NewNode) -> anyhow::Result<()> {
        let (_, leader) = self.leader()?;
        if let Some(member) = leader.nodes.iter().find(|member| member.node == id) {
            return self.say(&format!("node {id} is there already, as {}", member.member));
        }
        let node = u16::try_from(id).context("a node's id")?;
        let new =
            NodeAddress { id: node, address: new.address, base_port: Some(new.base_port), learner: true };
        let peer = new.peer_address(u16::try_from(self.number)?, new.base_port.unwrap_or_default())?;
        let address = String::from_utf8(member_address(peer)).expect("an address is a text");
        let change =
            ChangeMembersRequest { change: "ADD_LEARNER", node: id, address: Some(&address), by: None };
        self.insist(RequestCode::APOGEE_CHANGE_MEMBERS, &change)?;
        self.until(|leader| member(leader, id).is_some())?;
        self.say(&format!("node {id} at {peer} is a learner now; `status` shows how far it is"))
    }

    fn promote(&mut self, id: i64) -> anyhow::Result<()> {
        let (_, leader) = self.leader()?;
        if member(&leader, id) == Some("voter") {
            return self.say(&format!("node {id} is a voter already"));
        }
        let change = ChangeMembersRequest { change: "PROMOTE", node: id, address: None, by: None };
        self.insist(RequestCode::APOGEE_CHANGE_MEMBERS, &change)?;
        self.until(|leader| member(leader, id) == Some("voter"))?;
        self.say(&format!("node {id} is a voter now"))
    }

    fn remove(&mut self, id: i64) -> anyhow::Result<()> {
        let (_, leader) = self.leader()?;
        if member(&leader, id).is_none() {
            return self.say(&format!("node {id} is no member"));
        }
        if leader.node == id {
            self.hand_over(ANYBODY)?;
        }
        let change = ChangeMembersRequest { change: "REMOVE", node: id, address: None, by: None };
        self.insist(RequestCode::APOGEE_CHANGE_MEMBERS, &change)?;
        self.until(|leader| member(leader, id).is_none())?;
        self.say(&format!("node {id} is removed"))
    }

    fn replace(&mut self, id: i64, by: i64) -> anyhow::Result<()> {
        let (_, leader) = self.leader()?;
        let is_done =
            |leader: &GroupStatus| member(leader, id).is_none() && member(leader, by) == Some("voter");
        if is_done(&leader) {
            return self.say(&format!("node {by} is there in node {id}'s place already"));
        }
        if leader.node == id {
            self.hand_over(ANYBODY)?;
        }
        let change = ChangeMembersRequest { change: "REPLACE", node: id, address: None, by: Some(by) };
        self.insist(RequestCode::APOGEE_CHANGE_MEMBERS, &change)?;
        self.until(is_done)?;
        self.say(&format!("node {by} has taken the place of node {id}"))
    }

    /// Asks the leader, again while it says that it is not possible yet or no longer leads.
    fn insist(&mut self, code: RequestCode, ext: &dyn WriteExt) -> anyhow::Result<()> {
        let mut told = String::new();
        loop {
            let (address, _) = self.leader()?;
            match attempt(address, code, ext)? {
                Attempt::Begun => return Ok(()),
                Attempt::Later(why) => {
                    ensure!(Instant::now() < self.deadline, "given up: {why}");
                    // Numbers change all the time; what stands before them is said once.
                    let kind: String = why.chars().filter(|letter| !letter.is_ascii_digit()).collect();
                    if kind != told {
                        self.say(&format!("waiting: {why}"))?;
                        told = kind;
                    }
                }
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until the leader, whoever it is, is as wanted.
    fn until(&self, is_done: impl Fn(&GroupStatus) -> bool) -> anyhow::Result<GroupStatus> {
        loop {
            let (_, leader) = self.leader()?;
            if is_done(&leader) {
                return Ok(leader);
            }
            if Instant::now() >= self.deadline {
                bail!(
                    "begun, and not done in time; it may still happen. The leader, node {}: {}",
                    leader.node,
                    leader.why
                );
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn attempt(address: SocketAddr, code: RequestCode, ext: &dyn WriteExt) -> anyhow::Result<Attempt> {
    let answer = match ask(address, code, ext) {
        Ok(answer) => answer,
        Err(error) => return Ok(Attempt::Later(format!("{address}: {error}"))),
    };
    match answer.code {
        ResponseCode::SUCCESS => Ok(Attempt::Begun),
        ResponseCode::SERVICE_NOT_AVAILABLE | ResponseCode::SYSTEM_BUSY => Ok(Attempt::Later(answer.remark)),
        _ => bail!("{}", answer.remark),
    }
}

fn member(leader: &GroupStatus, node: i64) -> Option<&str> {
    leader.nodes.iter().find(|member| member.node == node).map(|member| member.member.as_str())
}
