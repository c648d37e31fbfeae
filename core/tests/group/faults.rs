//! What happens to machines. Each fault is done to one node, lasts a while, and is over when this returns: the node is
//! there again and every shard has a leader that the NameServers know.

use std::time::Duration;

use crate::cluster::{Cluster, NODES};
use crate::dice::Dice;
use crate::disk::SlowDisk;
use crate::fabric::Way;
use crate::hosts::CLIENTS;

/// Long enough for an election and all that follows.
const LASTS_LEAST: Duration = Duration::from_secs(2);
const LASTS_MOST: Duration = Duration::from_secs(6);
/// Until a log needs a segment that there is no room for.
const FULL_LASTS: Duration = Duration::from_secs(15);
/// Some hundred times slower than a disk of these machines.
pub(crate) const SLOW_WRITES_PER_SECOND: u32 = 20;

const CUT: Way = Way { cut: true, loss: 0.0, delay: Duration::ZERO, jitter: Duration::ZERO };
const BAD: Way =
    Way { cut: false, loss: 0.05, delay: Duration::from_millis(10), jitter: Duration::from_millis(20) };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL of the broker.
    Kill,
    /// SIGKILL of the NameServer.
    KillNamesrv,
    /// SIGKILL of two NameServers.
    KillTwoNamesrvs,
    /// SIGTERM, and started again.
    Restart,
    /// SIGSTOP, then SIGCONT.
    Pause,
    /// Nobody reaches the node, and it reaches nobody.
    Isolate,
    /// The other nodes hear nothing of it; it hears them, and clients are as ever.
    Mute,
    /// It hears nothing of the other nodes; they hear it.
    Deaf,
    /// It and one other node do not reach each other.
    Link,
    /// Packets to and from it get lost and come late.
    BadNetwork,
    /// Clients do not reach it, the other nodes do.
    NoClients,
    /// Its disk is full.
    FullDisk,
    /// Its disk is a hundred times slower.
    SlowDisk,
}

impl Fault {
    pub(crate) const ALL: [Fault; 13] = [
        Fault::Kill,
        Fault::KillNamesrv,
        Fault::KillTwoNamesrvs,
        Fault::Restart,
        Fault::Pause,
        Fault::Isolate,
        Fault::Mute,
        Fault::Deaf,
        Fault::Link,
        Fault::BadNetwork,
        Fault::NoClients,
        Fault::FullDisk,
        Fault::SlowDisk,
    ];

    /// Whether this cluster can have it.
    pub(crate) fn is_possible(self, cluster: &Cluster) -> bool {
        match self {
            Fault::Kill | Fault::KillNamesrv | Fault::KillTwoNamesrvs | Fault::Restart | Fault::Pause => true,
            Fault::Isolate
            | Fault::Mute
            | Fault::Deaf
            | Fault::Link
            | Fault::BadNetwork
            | Fault::NoClients => cluster.fabric().is_some(),
            Fault::FullDisk => cluster.disk(1).is_some(),
            Fault::SlowDisk => cluster.fabric().is_some(),
        }
    }

    pub(crate) fn happen(self, cluster: &mut Cluster, node: usize, dice: &mut Dice) {
        let lasts = dice.between(LASTS_LEAST, LASTS_MOST);
        let leaders = cluster.leaders();
        println!(
            "  {self:?} at node {node} for {} ms, {:.1} s after the start; leaders {leaders:?}",
            lasts.as_millis(),
            cluster.age().as_secs_f64()
        );
        match self {
            Fault::Kill => {
                cluster.kill(node);
                std::thread::sleep(lasts);
                cluster.restart(node);
            }
            Fault::KillNamesrv => {
                cluster.kill_namesrv(node);
                std::thread::sleep(lasts);
                cluster.start_namesrv(node);
            }
            Fault::KillTwoNamesrvs => {
                let other = node % NODES + 1;
                cluster.kill_namesrv(node);
                cluster.kill_namesrv(other);
                std::thread::sleep(lasts);
                cluster.start_namesrv(node);
                cluster.start_namesrv(other);
            }
            Fault::Restart => {
                let took = cluster.stop(node);
                println!("    stopped in {} ms", took.as_millis());
                cluster.restart(node);
            }
            Fault::Pause => {
                cluster.broker(node).hold();
                std::thread::sleep(lasts);
                cluster.broker(node).go_on();
            }
            Fault::Isolate => on_the_network(cluster, lasts, |fabric| fabric.set_around(node, CUT)),
            Fault::Mute => on_the_network(cluster, lasts, |fabric| {
                others(node).for_each(|other| fabric.set(node, other, CUT));
            }),
            Fault::Deaf => on_the_network(cluster, lasts, |fabric| {
                others(node).for_each(|other| fabric.set(other, node, CUT));
            }),
            Fault::Link => {
                let other = node % NODES + 1;
                on_the_network(cluster, lasts, |fabric| fabric.set_between(node, other, CUT));
            }
            Fault::BadNetwork => on_the_network(cluster, lasts, |fabric| fabric.set_around(node, BAD)),
            Fault::NoClients => {
                on_the_network(cluster, lasts, |fabric| fabric.set_between(node, CLIENTS, CUT));
            }
            Fault::FullDisk => {
                let disk = cluster.disk(node).expect("a disk of its own");
                disk.fill();
                std::thread::sleep(FULL_LASTS);
                disk.relieve();
            }
            Fault::SlowDisk => {
                let pid = cluster.broker(node).pid();
                match SlowDisk::slow(pid, &cluster.data_as_seen(node), SLOW_WRITES_PER_SECOND) {
                    Ok(slow) => {
                        std::thread::sleep(lasts);
                        drop(slow);
                    }
                    Err(reason) => println!("    left out: {reason}"),
                }
            }
        }
        cluster.await_settled();
    }
}

fn on_the_network(cluster: &Cluster, lasts: Duration, change: impl FnOnce(&crate::fabric::Fabric)) {
    let fabric = cluster.fabric().expect("a network with faults");
    let before = fabric.dropped();
    change(fabric);
    std::thread::sleep(lasts);
    fabric.heal();
    println!("    {} packets lost", fabric.dropped() - before);
}

fn others(node: usize) -> impl Iterator<Item = usize> {
    (1..=NODES).filter(move |other| *other != node)
}
