//! `apogee admin`: asks and changes a running cluster over the same ports and protocol as clients.
//!
//! Threads and blocking sockets of its own: it runs in no executor.

mod group;
mod link;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, FromArgMatches, Subcommand};

use crate::config::{self, NAMESRV_PORT};
pub(crate) use group::Health;

#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Groups of nodes: how they are, who leads, which nodes belong to them.
    Group(group::GroupArgs),
}

/// Where to begin: NameServers, or any node.
#[derive(Debug, Clone, Args)]
struct Entry {
    /// NameServers, host:port, separated by ';' or ','. One that answers is enough.
    #[arg(long, value_name = "ADDRESSES", default_value_t = format!("127.0.0.1:{NAMESRV_PORT}"))]
    namesrv: String,
    /// Ask this node, host:port of any of its shards, instead of NameServers: it knows the others.
    #[arg(long, value_name = "ADDRESS")]
    node: Option<String>,
}

/// The same, looked up.
#[derive(Debug, Clone)]
enum Ask {
    NameServers(Vec<SocketAddr>),
    Node(SocketAddr),
}

impl Entry {
    fn ask(&self) -> anyhow::Result<Ask> {
        Ok(match &self.node {
            Some(node) => {
                let found = config::parse_addresses(node)?;
                anyhow::ensure!(found.len() == 1, "--node {node}: expected one host:port");
                Ask::Node(found[0])
            }
            None => {
                let found = config::parse_addresses(&self.namesrv)?;
                anyhow::ensure!(!found.is_empty(), "--namesrv {:?}: expected host:port", self.namesrv);
                Ask::NameServers(found)
            }
        })
    }
}

/// Runs the command to its end and tells how it went by the exit code.
pub(crate) fn run(args: AdminArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Group(args) => group::run(args),
    }
}

/// How the nodes of a group are, and how many there are.
pub(crate) fn group_health(namesrvs: &[SocketAddr], group: &str) -> anyhow::Result<(Health, usize)> {
    group::health(namesrvs, group)
}

/// Runs the words of an `admin group` command, printing to `out`.
pub(crate) fn group_command(words: &[String], out: &mut dyn Write) -> anyhow::Result<u8> {
    let command = group::GroupArgs::augment_args(clap::Command::new("group"));
    let matches = command.no_binary_name(true).try_get_matches_from(words)?;
    group::run_on(group::GroupArgs::from_arg_matches(&matches)?, out)
}
