//! `apogee admin group`: groups of nodes, one Raft group per shard.
//!
//! Every command begins with a view of the whole group, put together from what each node says of each of its shards; a
//! change then goes to the leader of each shard, one after the other, and is waited for.

mod change;
mod json;
mod print;
mod view;

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Ask, Entry};
use crate::config::BROKER_PORT;
pub(crate) use view::Health;
use view::{GroupView, Wanted};

/// `status` tells by its exit code how the groups are; a command that fails ends with 1, and 2 is clap's own for arguments
/// that it does not understand.
const WELL: u8 = 0;
const DEGRADED: u8 = 3;
const NO_LEADER: u8 = 4;

#[derive(Debug, Args)]
pub(super) struct GroupArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show who leads each shard and why, and how far each replica is. Exit code 0: all is well; 3: every shard has a
    /// leader, but something is amiss; 4: a shard has no leader; 1: nobody answers.
    Status(Status),
    /// Hand leadership over, without an error at clients.
    Transfer(Transfer),
    /// Add a node as a learner: it gets everything and has no vote.
    Add(Add),
    /// Give a learner that has caught up a vote.
    Promote(Promote),
    /// Remove a node. It stops taking part; its data stays where it is.
    Remove(Remove),
    /// Put a new node in the place of another, which may be dead.
    Replace(Replace),
    /// Hand each shard to the node that is to lead it, so that leaders are spread evenly.
    Rebalance(Rebalance),
}

/// Which group.
#[derive(Debug, Clone, Args)]
struct Which {
    #[command(flatten)]
    entry: Entry,
    /// Of this cluster only.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// This group only (the brokers' name without the number of the shard). Needed for changes if there are several.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// This shard only.
    #[arg(long, value_name = "K")]
    shard: Option<u16>,
}

#[derive(Debug, Clone, Copy, Args)]
struct Patience {
    /// How long each shard may take, in seconds: a new node has to catch up first.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
}

#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    which: Which,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Transfer {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    patience: Patience,
    /// Who is to lead. Default: whichever other node has the most.
    #[arg(long, value_name = "NODE", required_unless_present = "from")]
    to: Option<u16>,
    /// Only shards that this node leads: say it before a planned restart.
    #[arg(long, value_name = "NODE")]
    from: Option<u16>,
}

#[derive(Debug, Clone, Copy, Args)]
struct NewNode {
    /// Address of the new node for the others.
    #[arg(long, value_name = "IP")]
    address: IpAddr,
    /// Its base_port.
    #[arg(long, value_name = "PORT", default_value_t = BROKER_PORT)]
    base_port: u16,
}

#[derive(Debug, Args)]
struct Add {
    /// Id of the new node, which runs already, with `join = true`.
    id: u16,
    #[command(flatten)]
    new: NewNode,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Debug, Args)]
struct Promote {
    /// Id of the learner.
    id: u16,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Debug, Args)]
struct Remove {
    /// Id of the node.
    id: u16,
    /// Even if the nodes that remain are no majority that can be reached.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Debug, Args)]
struct Replace {
    /// Id of the node that goes.
    id: u16,
    /// Id of the one that comes, which runs already, with `join = true`.
    #[arg(long, value_name = "NODE")]
    by: u16,
    #[command(flatten)]
    new: NewNode,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    patience: Patience,
}

#[derive(Debug, Args)]
struct Rebalance {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    patience: Patience,
}

impl Which {
    fn wanted(&self) -> anyhow::Result<Wanted> {
        Ok(Wanted {
            ask: self.entry.ask()?,
            cluster: self.cluster.clone(),
            group: self.group.clone(),
            shard: self.shard.map(i64::from),
        })
    }
}

impl Patience {
    fn wait(self) -> Duration {
        Duration::from_secs(self.wait)
    }
}

pub(super) fn run(args: GroupArgs) -> anyhow::Result<ExitCode> {
    run_on(args, &mut io::stdout().lock()).map(ExitCode::from)
}

/// The same, printing to `out`; the exit code as a number.
pub(super) fn run_on(args: GroupArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    match args.command {
        Command::Status(status) => return show(&status, out),
        Command::Transfer(Transfer { which, patience, to, from }) => {
            let (to, from) = (to.map(i64::from), from.map(i64::from));
            change::transfer(&which.wanted()?, to, from, patience.wait(), out)?
        }
        Command::Add(Add { id, new, which, patience }) => {
            change::add(&which.wanted()?, id.into(), new, patience.wait(), out)?
        }
        Command::Promote(Promote { id, which, patience }) => {
            change::promote(&which.wanted()?, id.into(), patience.wait(), out)?
        }
        Command::Remove(Remove { id, force, which, patience }) => {
            change::remove(&which.wanted()?, id.into(), force, patience.wait(), out)?
        }
        Command::Replace(Replace { id, by, new, which, patience }) => {
            change::replace(&which.wanted()?, id.into(), by.into(), new, patience.wait(), out)?
        }
        Command::Rebalance(Rebalance { which, patience }) => {
            change::rebalance(&which.wanted()?, patience.wait(), out)?
        }
    }
    Ok(WELL)
}

/// How the nodes of a group are, and how many there are.
pub(super) fn health(namesrvs: &[SocketAddr], group: &str) -> anyhow::Result<(Health, usize)> {
    let ask = Ask::NameServers(namesrvs.to_vec());
    let group = GroupView::one(&Wanted { ask, cluster: None, group: Some(group.to_owned()), shard: None })?;
    Ok((group.health(), group.nodes().len()))
}

fn show(status: &Status, out: &mut dyn Write) -> anyhow::Result<u8> {
    let groups = GroupView::all(&status.which.wanted()?)?;
    let printed = if status.json { json::print(&groups, out) } else { print::print(&groups, out) };
    match printed {
        // Whoever reads has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(match groups.iter().map(GroupView::health).max() {
        Some(Health::Well) | None => WELL,
        Some(Health::Degraded) => DEGRADED,
        Some(Health::NoLeader) => NO_LEADER,
    })
}
