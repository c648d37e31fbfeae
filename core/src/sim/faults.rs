//! What goes wrong, drawn from the seed: one thing after the other, several at a time.

use std::rc::{Rc, Weak};

use super::damage;
use super::executor::{MS, SECOND, Us};
use super::network::{Ending, HostId, Way};
use super::world::{NAMESRVS, NODES, SHARDS, World};
use crate::replication::MemberChange;
use apogee_storage::LogOffset;

/// Makes things go wrong until a time, and repairs them again.
pub(super) async fn happen(world: Weak<World>, until: Us) {
    loop {
        let Some(sim) = world.upgrade().map(|world| world.sim.clone()) else { return };
        sim.sleep(sim.between(100 * MS, 4 * SECOND)).await;
        let Some(world) = world.upgrade() else { return };
        if sim.now() >= until {
            return;
        }
        let weak = Rc::downgrade(&world);
        world.scope.spawn(one(weak));
    }
}

async fn one(weak: Weak<World>) {
    let Some(world) = weak.upgrade() else { return };
    let sim = world.sim.clone();
    let long = sim.between(50 * MS, 8 * SECOND);
    let of_groups = if world.is_in_groups() { 28 } else { 0 };
    match sim.below(108 + of_groups) {
        0..20 if world.keeps_little() => stay_away(&world).await,
        0..25 => crash(&world, long).await,
        25..32 => restart_all_in_turn(&world).await,
        32..45 => cut(&world, long).await,
        45..52 => cut_off(&world, long).await,
        52..62 => worsen(&world, long).await,
        62..72 => {
            let (a, b) = (any_host(&world), any_host(&world));
            if world.network.reset_one(a, b) {
                count(&world, "connection broken");
            }
        }
        72..80 => slow_disk(&world, long).await,
        80..85 => full_disk(&world, long).await,
        85..92 => restart_namesrv(&world, long).await,
        98..100 => {
            count(&world, "popping consumer killed");
            world.replace_popper();
        }
        100..108 => stand_still(&world, long).await,
        108..116 => hand_over(&world),
        116..124 => part_from_peers(&world, long).await,
        124..127 => damage::of_a_bit(&world).await,
        127..129 => damage::of_a_write(&world).await,
        129..132 => replace_node(&world).await,
        132.. => lead_unheard_of(&world).await,
        _ => {
            let in_order = sim.chance(50);
            count(&world, if in_order { "consumer replaced" } else { "consumer killed" });
            world.replace_consumer(in_order).await;
        }
    }
}

pub(super) fn count(world: &World, what: &'static str) {
    world.tally.borrow_mut().count(what);
    world.sim.say(|| format!("fault: {what}"));
    world.sim.note(what.len() as u64 ^ 0xfa01_7000);
}

fn any_host(world: &World) -> HostId {
    let hosts: Vec<_> = world.network.hosts().collect();
    *world.sim.pick(&hosts)
}

fn any_ending(world: &World) -> Ending {
    if world.sim.chance(50) { Ending::Process } else { Ending::Power }
}

async fn crash(world: &Rc<World>, long: Us) {
    // Mostly one, sometimes all.
    let all = world.sim.chance(15);
    let first = world.sim.below(NODES.into()) as usize;
    let nodes: Vec<usize> = if all { (0..usize::from(NODES)).collect() } else { vec![first] };
    for nth in nodes {
        let ending = any_ending(world);
        if !world.is_node_up(nth) || world.nodes[nth].is_busy.replace(true) {
            continue;
        }
        count(
            world,
            match ending {
                Ending::Process => "process killed",
                Ending::Power => "power lost",
            },
        );
        world.sim.say(|| format!("node {nth} ends: {ending:?}"));
        world.kill_node(nth, ending);
        let after = if world.sim.chance(30) { world.sim.below(20 * MS) } else { world.sim.below(long) };
        let weak = Rc::downgrade(world);
        let sim = world.sim.clone();
        world.scope.spawn(async move {
            sim.sleep(after).await;
            let Some(world) = weak.upgrade() else { return };
            world.sim.say(|| format!("node {nth} starts again"));
            world.start_node(nth).unwrap_or_else(|error| panic!("node {nth} cannot start: {error}"));
            world.nodes[nth].is_busy.set(false);
        });
    }
}

/// A node is away until the others have no more of the log that it could go on from, if that comes to be.
async fn stay_away(world: &Rc<World>) {
    let nth = world.sim.below(NODES.into()) as usize;
    if !world.is_node_up(nth) || world.nodes[nth].is_busy.replace(true) {
        return;
    }
    count(world, "node away for long");
    let ends: Vec<_> =
        world.nodes[nth].brokers.borrow().iter().map(|broker| broker.marks().durable).collect();
    world.kill_node(nth, any_ending(world));
    let is_too_late = |shard: usize, end: LogOffset| {
        let others = (0..usize::from(NODES)).filter(|other| *other != nth);
        let mut firsts =
            others.map(|other| world.nodes[other].drives[shard].disk.segment_bases().first().copied());
        firsts.all(|first| first.is_some_and(|first| first > end))
    };
    if until(world, || ends.iter().enumerate().any(|(shard, end)| is_too_late(shard, *end))).await {
        count(world, "log taken from under a node");
    }
    world.start_node(nth).unwrap_or_else(|error| panic!("node {nth} cannot start: {error}"));
    world.nodes[nth].is_busy.set(false);
}

/// As for an upgrade.
async fn restart_all_in_turn(world: &Rc<World>) {
    for nth in 0..usize::from(NODES) {
        if !world.is_node_up(nth) || world.nodes[nth].is_busy.replace(true) {
            continue;
        }
        count(world, "node restarted in order");
        world.stop_node(nth).await;
        world.sim.sleep(world.sim.between(100 * MS, 2 * SECOND)).await;
        world.start_node(nth).unwrap_or_else(|error| panic!("node {nth} cannot start: {error}"));
        world.nodes[nth].is_busy.set(false);
        world.sim.sleep(world.sim.between(500 * MS, 3 * SECOND)).await;
    }
}

fn change(world: &World, from: HostId, to: HostId, change: impl FnOnce(&mut Way)) {
    let mut way = world.network.way(from, to);
    change(&mut way);
    world.network.set_way(from, to, way);
}

/// Nothing gets from one host to another, perhaps nothing back either.
async fn cut(world: &Rc<World>, long: Us) {
    let (a, b) = (any_host(world), any_host(world));
    let both = world.sim.chance(50);
    count(world, if both { "way cut both ways" } else { "way cut one way" });
    let set = |is_cut: bool| {
        change(world, a, b, |way| way.is_cut = is_cut);
        if both {
            change(world, b, a, |way| way.is_cut = is_cut);
        }
    };
    set(true);
    world.sim.sleep(long).await;
    set(false);
}

/// A server speaks with nobody, or hears nobody, or nobody hears it.
async fn cut_off(world: &Rc<World>, long: Us) {
    let host = HostId(world.sim.below(u64::from(NODES + NAMESRVS)) as u16);
    let (hears, speaks) = *world.sim.pick(&[(false, false), (true, false), (false, true)]);
    count(world, "server cut off");
    let set = |is_cut: bool| {
        for other in world.network.hosts().filter(|other| *other != host) {
            if !hears {
                change(world, other, host, |way| way.is_cut = is_cut);
            }
            if !speaks {
                change(world, host, other, |way| way.is_cut = is_cut);
            }
        }
    };
    set(true);
    world.sim.sleep(long).await;
    set(false);
}

/// A node hears nothing of the others of its groups, nor they of it; clients and NameServers reach it still.
async fn part_from_peers(world: &Rc<World>, long: Us) {
    let host = HostId(world.sim.below(NODES.into()) as u16);
    count(world, "node parted from its peers");
    let set = |is_cut: bool| {
        for other in (0..NODES).map(HostId).filter(|other| *other != host) {
            change(world, other, host, |way| way.is_cut = is_cut);
            change(world, host, other, |way| way.is_cut = is_cut);
        }
    };
    set(true);
    world.sim.sleep(long).await;
    set(false);
}

/// A node does nothing for a while, and does not know it.
async fn stand_still(world: &Rc<World>, long: Us) {
    let nth = world.sim.below(NODES.into()) as usize;
    if !world.is_node_up(nth) || world.nodes[nth].is_busy.replace(true) {
        return;
    }
    count(world, "node stood still");
    world.sim.say(|| format!("node {nth} stands still for {long} us"));
    world.stand_still(nth);
    world.sim.sleep(long).await;
    world.go_on(nth);
    world.nodes[nth].is_busy.set(false);
}

/// A host's ways are slow, or lose much.
async fn worsen(world: &Rc<World>, long: Us) {
    let host = any_host(world);
    let is_lossy = world.sim.chance(50);
    count(world, if is_lossy { "ways lossy" } else { "ways slow" });
    let latency = (MS, world.sim.between(2 * MS, 300 * MS));
    let loss = world.sim.between(1, 30);
    for other in world.network.hosts().filter(|other| *other != host) {
        for (from, to) in [(host, other), (other, host)] {
            change(world, from, to, |way| match is_lossy {
                true => way.loss_percent = loss,
                false => way.latency = latency,
            });
        }
    }
    world.sim.sleep(long).await;
    for other in world.network.hosts().filter(|other| *other != host) {
        for (from, to) in [(host, other), (other, host)] {
            change(world, from, to, |way| *way = Way { is_cut: way.is_cut, ..Way::default() });
        }
    }
}

/// A person has another node lead.
fn hand_over(world: &Rc<World>) {
    let shard = world.sim.below(SHARDS.into()) as usize;
    let to = world.sim.below(NODES.into()) as usize;
    if let Some((_, master)) = world.master(shard)
        && master.transfer_to(world.member(to, shard).0)
    {
        count(world, "leadership handed over");
    }
}

/// A node leads for a moment while what it says to NameServers is held up: they hear of it when another one leads.
async fn lead_unheard_of(world: &Rc<World>) {
    let shard = world.sim.below(SHARDS.into()) as usize;
    let nth = world.sim.below(NODES.into()) as usize;
    let Some((first, master)) = world.master(shard).filter(|(first, _)| *first != nth) else { return };
    if !hold_all(world) {
        return;
    }
    count(world, "leader unheard of");
    let set = |is_cut: bool| {
        for namesrv in (NODES..NODES + NAMESRVS).map(HostId) {
            change(world, world.nodes[nth].host, namesrv, |way| way.is_cut = is_cut);
        }
    };
    set(true);
    master.transfer_to(world.member(nth, shard).0);
    drop(master);
    let leads = |nth: usize| world.master(shard).is_some_and(|(leader, _)| leader == nth);
    if until(world, || leads(nth)).await
        && let Some(master) = world.replica(nth, shard)
    {
        master.transfer_to(world.member(first, shard).0);
        drop(master);
        until(world, || !leads(nth)).await;
        world.sim.sleep(world.sim.below(SECOND)).await;
    }
    set(false);
    release_all(world);
}

/// Keeps all nodes from being stopped for other reasons; false if one of them is.
pub(super) fn hold_all(world: &World) -> bool {
    let nodes = 0..usize::from(NODES);
    if nodes.clone().any(|nth| !world.is_node_up(nth) || world.nodes[nth].is_busy.get()) {
        return false;
    }
    nodes.for_each(|nth| world.nodes[nth].is_busy.set(true));
    true
}

pub(super) fn release_all(world: &World) {
    world.nodes.iter().for_each(|node| node.is_busy.set(false));
}

/// Waits until something is so, but not for ever.
pub(super) async fn until(world: &World, is_so: impl Fn() -> bool) -> bool {
    for _ in 0..300 {
        if is_so() {
            return true;
        }
        world.sim.sleep(100 * MS).await;
    }
    false
}

/// A node leaves its groups, and comes back with an empty disk as a new one.
async fn replace_node(world: &Rc<World>) {
    let nth = world.sim.below(NODES.into()) as usize;
    if !hold_all(world) {
        return;
    }
    count(world, "node replaced");
    let shards = 0..usize::from(SHARDS);
    for shard in shards.clone() {
        let (node, _) = world.member(nth, shard);
        let is_gone = |world: &World| {
            let Some((leader, master)) = world.master(shard) else { return false };
            if leader == nth {
                let other = (nth + 1) % usize::from(NODES);
                master.transfer_to(world.member(other, shard).0);
                return false;
            }
            let status = master.group_status().expect("a shard of a group");
            let is_member = status.peers.iter().any(|peer| peer.node == node);
            if is_member {
                master.change_members(MemberChange::Remove { node });
            }
            !is_member && status.changing.is_none()
        };
        if !until(world, || is_gone(world)).await {
            return release_all(world);
        }
    }
    world.kill_node(nth, Ending::Power);
    world.nodes[nth].drives.iter().for_each(|drive| drive.disk.wipe());
    world.nodes[nth].joins.set(true);
    world.sim.sleep(world.sim.below(SECOND)).await;
    world.start_node(nth).expect("an empty disk holds nothing wrong");
    for shard in shards {
        until(world, || bring_back(world, nth, shard)).await;
    }
    release_all(world);
}

/// The next step on a node's way back to its vote; true if there is none.
fn bring_back(world: &World, nth: usize, shard: usize) -> bool {
    let Some((_, master)) = world.master(shard) else { return false };
    let (node, address) = world.member(nth, shard);
    let status = master.group_status().expect("a shard of a group");
    if status.node == node {
        return true;
    }
    match status.peers.iter().find(|peer| peer.node == node) {
        Some(peer) if peer.member == "voter" => return status.changing.is_none(),
        Some(_) => master.change_members(MemberChange::Promote { node }),
        None => master.change_members(MemberChange::AddLearner { node, address }),
    };
    false
}

/// Brings back whatever node was on its way out or in when all was healed.
pub(super) async fn bring_all_back(world: Weak<World>) {
    loop {
        let Some(world) = world.upgrade() else { return };
        for nth in 0..usize::from(NODES) {
            for shard in 0..usize::from(SHARDS) {
                bring_back(&world, nth, shard);
            }
        }
        let sim = world.sim.clone();
        drop(world);
        sim.sleep(200 * MS).await;
    }
}

async fn slow_disk(world: &Rc<World>, long: Us) {
    let node = world.sim.below(NODES.into()) as usize;
    count(world, "disk slow");
    let factor = world.sim.between(10, 1000);
    for drive in &world.nodes[node].drives {
        let (min, max) = super::broker::DISK_LATENCY;
        drive.latency.set((min * factor, max * factor));
    }
    world.sim.sleep(long).await;
    for drive in &world.nodes[node].drives {
        drive.latency.set(super::broker::DISK_LATENCY);
    }
}

async fn full_disk(world: &Rc<World>, long: Us) {
    // A log that is to begin anew and finds no room for its checkpoint stops its group until the next start.
    if world.keeps_little() {
        return;
    }
    let node = world.sim.below(NODES.into()) as usize;
    count(world, "disk full");
    for drive in &world.nodes[node].drives {
        drive.disk.set_full(true);
    }
    world.sim.sleep(long).await;
    for drive in &world.nodes[node].drives {
        drive.disk.set_full(false);
    }
}

async fn restart_namesrv(world: &Rc<World>, long: Us) {
    let nth = world.sim.below(NAMESRVS.into()) as usize;
    if world.namesrvs[nth].running.borrow().is_none() {
        return;
    }
    count(world, "NameServer killed");
    world.kill_namesrv(nth, any_ending(world));
    world.sim.sleep(long).await;
    world.start_namesrv(nth);
}
