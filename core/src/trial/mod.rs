//! `apogee cluster`: NameServers and a group of nodes on one machine, for trying out what happens when one dies.
//!
//! Every one is a process of its own with a configuration file like in production, written into the data directory. This
//! process starts them, tells what to type next, passes on what is typed, and stops them in order. It restarts nothing by
//! itself: seeing what a death does is the point.

mod console;
mod members;
mod plan;
#[cfg(test)]
mod tests;

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::admin::{self, Health};
use crate::config::{BROKER_PORT, NAMESRV_PORT};
use console::Order;
use members::{Member, Members};
use plan::Plan;

/// How long the group may take until every node has everything.
const READY_WAIT: Duration = Duration::from_secs(60);

/// How often the group is looked at until then, and afterwards whether somebody has died.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Nodes of the group: 1, 3, 5 or 7. As many may die as are less than half.
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: u16,
    /// NameServers, 1 to 9. All but one may die.
    #[arg(long, value_name = "N", default_value_t = 3)]
    namesrvs: u16,
    /// Shards of each node; each has a leader of its own, and leaders are spread over the nodes.
    #[arg(long, value_name = "N", default_value_t = 3)]
    shards: u16,
    /// Directory of configurations, logs and data, made when missing. What is there goes on.
    #[arg(long, value_name = "DIR", default_value = "apogee-cluster")]
    data: PathBuf,
    /// Port of the first NameServer; the others follow.
    #[arg(long, value_name = "PORT", default_value_t = NAMESRV_PORT)]
    namesrv_port: u16,
    /// Port of node 1's shard 0; node n begins 1000·(n-1) above it.
    #[arg(long, value_name = "PORT", default_value_t = BROKER_PORT)]
    base_port: u16,
}

/// What happens while the cluster runs.
enum Event {
    Signal,
    Typed(String),
    /// Nobody types any more.
    NobodyTypes,
}

/// Starts everything, stays until told to stop, and stops everything.
pub(crate) fn run(args: &ClusterArgs) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(args)?;
    plan.check_ports()?;
    plan.write_files()?;
    let events = listen()?;
    let mut members = Members::start(&plan)?;
    let ran = await_ready(&plan, &mut members, &events).and_then(|go_on| {
        if go_on {
            print_welcome(&plan, &members);
            stay(&plan, &mut members, &events)?;
        }
        Ok(())
    });
    println!("Stopping: nodes first, each hands over what it leads. Ctrl-C once more ends them at once.");
    members.stop_all(|| events.try_iter().any(|event| matches!(event, Event::Signal)));
    println!("Stopped. `apogee cluster --data {}` goes on with the same data.", plan.dir.display());
    ran.map(|()| ExitCode::SUCCESS)
}

/// Signals and what is typed, as one stream.
fn listen() -> anyhow::Result<Receiver<Event>> {
    let (sender, events) = channel();
    let typed = sender.clone();
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot catch signals")?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in signals.forever() {
            if sender.send(Event::Signal).is_err() {
                return;
            }
        }
    })?;
    std::thread::Builder::new().name("typed".into()).spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if typed.send(Event::Typed(line)).is_err() {
                return;
            }
        }
        // Nobody listens only when the process is ending already.
        let _ = typed.send(Event::NobodyTypes);
    })?;
    Ok(events)
}

/// Until every node has everything. False if told to stop before.
fn await_ready(plan: &Plan, members: &mut Members, events: &Receiver<Event>) -> anyhow::Result<bool> {
    println!(
        "Starting {} NameServers and {} nodes in {} …",
        plan.namesrvs.len(),
        plan.nodes.len(),
        plan.dir.display()
    );
    let begun = Instant::now();
    loop {
        if let Some(member) = members.reap().into_iter().next() {
            bail!("{member} ended right away. The end of {}:\n{}", member.log().display(), member.log_end());
        }
        if let Ok((Health::Well, nodes)) = admin::group_health(&plan.namesrv_addresses(), &plan.group)
            && nodes == plan.nodes.len()
        {
            return Ok(true);
        }
        if begun.elapsed() > READY_WAIT {
            println!("It is not all well after {} s; going on all the same.", READY_WAIT.as_secs());
            return Ok(true);
        }
        if let Ok(Event::Signal) = events.recv_timeout(LOOK_EVERY) {
            return Ok(false);
        }
    }
}

/// Carries out what is typed and tells of deaths, until told to stop.
fn stay(plan: &Plan, members: &mut Members, events: &Receiver<Event>) -> anyhow::Result<()> {
    prompt();
    loop {
        let event = events.recv_timeout(LOOK_EVERY);
        for member in members.reap() {
            println!(
                "\n{member} has ended ({}). Start it again: `start {}` here.",
                member.ended(),
                member.key()
            );
            prompt();
        }
        match event {
            Ok(Event::Signal) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) | Ok(Event::NobodyTypes) => continue,
            Ok(Event::Typed(line)) => match console::parse(&line) {
                Ok(Some(Order::Quit)) => return Ok(()),
                Ok(Some(order)) => {
                    if let Err(error) = carry_out(plan, members, &order) {
                        println!("{error:#}");
                    }
                }
                Ok(None) => {}
                Err(why) => println!("{why}\n{}", console::HELP),
            },
        }
        prompt();
    }
}

fn carry_out(plan: &Plan, members: &mut Members, order: &Order) -> anyhow::Result<()> {
    match order {
        Order::Help => println!("{}", console::HELP),
        Order::Quit => {}
        Order::Status => {
            let line = ["status", "--namesrv", &plan.namesrv_list()].map(str::to_owned);
            admin::group_command(&line, &mut std::io::stdout().lock())?;
        }
        Order::Member(action, key) => {
            let member = members.get(key).with_context(|| format!("there is no {key}; `help` tells more"))?;
            println!("{}", member.act(*action)?);
        }
    }
    Ok(())
}

fn prompt() {
    print!("cluster> ");
    // A prompt that cannot be shown is missed by nobody.
    let _ = std::io::stdout().flush();
}

fn print_welcome(plan: &Plan, members: &Members) {
    let namesrv = plan.namesrv_list();
    let majority = plan.nodes.len() / 2 + 1;
    println!();
    println!(
        "Ready. Every message is on {} nodes and safe once {majority} have it; {} may die.",
        plan.nodes.len(),
        plan.nodes.len() - majority
    );
    println!();
    println!("  Point any RocketMQ client at the NameServers   {namesrv}");
    println!();
    for member in members.iter() {
        println!("  {}", member.line());
    }
    println!();
    println!("  Try it, in a second terminal:");
    println!("    apogee admin group status --namesrv '{namesrv}'");
    println!("    apogee-loadgen run --namesrv '{namesrv}' --rate 1000 --size 1024 --duration 60s");
    if let Some(pid) = members.iter().find(|member| member.key() == "1").and_then(Member::pid) {
        println!(
            "    kill -9 {pid}     node 1 dies; look at the status, and at what the load generator says"
        );
    }
    println!();
    println!("  Here: {}", console::HELP);
    println!("  Ctrl-C stops all; nothing acknowledged is lost.");
    println!();
}
