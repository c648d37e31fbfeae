//! What a person at the terminal is told: the machine, whether it will do, and what to type next.

use std::path::Path;

use anyhow::Context;
use apogee_storage::format::BLOCK_LEN;
use apogee_tuning::{Facts, Needs, Roots, requirements};

use super::Plan;

/// glommio refuses to start an executor below this limit of locked memory.
const MEMLOCK_FLOOR: u64 = 512 * 1024;

/// Each executor registers its I/O memory with three rings, and each registration counts.
const REGISTRATIONS: u64 = 3;

/// Registered I/O memory of one executor: as much as pays, and the least that is worth having. What does not fit is
/// taken from ordinary memory, at the price of a page look-up per write.
const IO_MEMORY: u64 = 32 * 1024 * 1024;
const IO_MEMORY_MIN: u64 = 64 * 1024;

pub(super) fn machine_facts(data_dir: &Path) -> anyhow::Result<Facts> {
    Ok(Facts::collect(&Roots::machine(), data_dir)?)
}

/// Refuses, in one sentence, a machine that will not do for so many executors.
pub(super) fn check_machine(facts: &Facts, executors: usize) -> anyhow::Result<()> {
    let needs = Needs {
        memlock_bytes: executors as u64 * REGISTRATIONS * IO_MEMORY_MIN,
        memlock_floor_bytes: MEMLOCK_FLOOR,
        direct_io_align_bytes: BLOCK_LEN as u32,
    };
    requirements(facts, needs).context("Apogee cannot run here")
}

/// I/O memory of each of so many executors: half of what may be locked, since the rings themselves count too.
pub(super) fn io_memory(facts: &Facts, executors: usize) -> usize {
    let share = match facts.limits.memlock.soft {
        Some(limit) if facts.memlock_limited() => limit / 2 / (executors as u64 * REGISTRATIONS),
        _ => IO_MEMORY,
    };
    // Whole pages.
    (share.clamp(IO_MEMORY_MIN, IO_MEMORY) & !4095) as usize
}

pub(super) fn print_facts(facts: &Facts) {
    println!("{facts}");
}

/// What the broker runs by that nobody configured.
pub(super) fn print_taken(taken: &[String]) {
    for value in taken {
        println!("{:<12}{value}", "profile");
    }
}

/// Says that everything runs, on one line that begins with `ready`, and for a first try what to do with it.
pub(super) fn print_ready(plan: &Plan, shards: usize) {
    let namesrv = plan.namesrv.as_ref().map(|config| config.address());
    match (&plan.broker, namesrv) {
        (Some(broker), _) => {
            let first = broker.base_port;
            let last = broker.port(shards.saturating_sub(1) as u16).unwrap_or(first);
            let node = broker.replication.as_ref().map_or_else(String::new, |replication| {
                format!(", node {} of group {}", replication.node, broker.group)
            });
            println!(
                "ready: {shards} shards on ports {first} to {last}{node}, NameServers {:?}",
                broker.namesrv
            );
        }
        (None, Some(address)) => println!("ready: NameServer on {address}"),
        (None, None) => println!("ready"),
    }
    if let (true, Some(broker), Some(address)) = (plan.welcome, &plan.broker, namesrv) {
        let client = broker.namesrv.first().copied().unwrap_or(address);
        println!();
        println!("  Point any RocketMQ client (Java, Go, C++ …) at the NameServer  {client}");
        println!(
            "  Data is in                                                     {}",
            broker.data_dir.display()
        );
        println!();
        println!("  Try it, in a second terminal:");
        println!(
            "    cargo run --release -p apogee-loadgen -- run --namesrv {client} --rate 5000 --size 1024 --duration 30s"
        );
        println!();
        println!("  Ctrl-C stops it; nothing acknowledged is lost.");
    }
}
