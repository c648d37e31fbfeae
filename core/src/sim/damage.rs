//! One node of a group loses what it had acknowledged, by its disk's fault. The others stay up until it is whole again: no
//! group of three survives a second loss.

use std::rc::Rc;

use apogee_storage::sim::{Lie, SimDisk};
use apogee_storage::{LogConfig, LogFile, LogOffset, read_group_state};

use super::broker::Broker;
use super::executor::{MS, SECOND};
use super::faults::{count, hold_all, release_all, until};
use super::network::Ending;
use super::world::{NODES, SHARDS, World};

/// A replica that is up, and its disk, which is about to do wrong.
struct Victim {
    shard: usize,
    nth: usize,
    broker: Rc<Broker>,
    disk: SimDisk,
}

impl Victim {
    /// Any one, if all nodes can be held: until they are released nothing else happens to them.
    fn hold(world: &World) -> Option<Victim> {
        let shard = world.sim.below(SHARDS.into()) as usize;
        let nth = world.sim.below(NODES.into()) as usize;
        let broker = world.replica(nth, shard)?;
        let disk = world.nodes[nth].drives[shard].disk.clone();
        hold_all(world).then(|| {
            world.is_damaged.set(true);
            Victim { shard, nth, broker, disk }
        })
    }

    /// What its disk did is mended, or was given up.
    fn release(world: &World) {
        world.is_damaged.set(false);
        release_all(world);
    }
}

/// A node comes back from a loss of power with a bit turned over in what it had acknowledged, as its state says, which is
/// written once a second: it must notice, and be mended by the others. They stay up meanwhile: no group of three survives a
/// second loss.
pub(super) async fn of_a_bit(world: &Rc<World>) {
    let Some(Victim { shard, nth, broker, disk }) = Victim::hold(world) else { return };
    let segment_bytes = world.segment_bytes();
    let LogConfig { group, node, .. } = world.nodes[nth].setups[shard].log;
    let state = read_group_state(&disk, group, node).expect("a sound state").expect("it runs");
    let known = broker.base_of(state.commit).unwrap_or_default();
    let agreed = world.audit().agreed_of(broker.name()).min(known.0);
    drop(broker);
    let base = LogOffset(agreed / segment_bytes * segment_bytes);
    world.kill_node(nth, Ending::Power);
    // A segment that has its index is not read when the log is opened.
    let is_sealed = disk.small_files().contains(&LogFile::Index(base));
    if agreed > base.0 && !is_sealed {
        count(world, "bit turned over");
        world.audit().copies_min.set(1);
        disk.flip_bit(base, world.sim.below(agreed - base.0), world.sim.below(8) as u8);
    }
    world.sim.sleep(world.sim.below(SECOND)).await;
    world.start_node(nth).unwrap_or_else(|error| panic!("node {nth} cannot start: {error}"));
    is_mended(world, nth, agreed).await;
    Victim::release(world);
}

/// A write is called done and landed behind its place, or not at all, or with a bit turned over. Nobody can know before the
/// node reads it, so it is soon stopped, and starts again when all others have what it should have. A segment that was
/// sealed by then is not read when a log is opened: somebody who looks it through finds the damage and empties the disk.
pub(super) async fn of_a_write(world: &Rc<World>) {
    let Some(Victim { shard, nth, broker, disk }) = Victim::hold(world) else { return };
    let segment_bytes = world.segment_bytes();
    let base = LogOffset(broker.marks().appended.0 / segment_bytes * segment_bytes);
    let lie = *world.sim.pick(&[Lie::MisdirectedBehind, Lie::Lost, Lie::Flipped]);
    let what = match lie {
        Lie::Lost => "write lost",
        Lie::Flipped => "write with a bit turned over",
        Lie::Misdirected | Lie::MisdirectedBehind => "write misdirected",
    };
    count(world, what);
    world.audit().copies_min.set(1);
    world.audit().is_lied_to.set(true);
    disk.lie_about_next_write(lie);
    until(world, || !disk.is_about_to_lie()).await;
    world.sim.sleep(world.sim.below(200 * MS)).await;
    let upto = broker.marks().committed;
    drop(broker);
    world.kill_node(nth, Ending::Power);
    if disk.small_files().iter().any(|file| matches!(file, LogFile::Index(sealed) if *sealed >= base)) {
        count(world, "disk emptied");
        disk.wipe();
    }
    let others: Vec<_> = (0..usize::from(NODES))
        .filter(|other| *other != nth)
        .filter_map(|other| world.replica(other, shard))
        .collect();
    // What was acknowledged by its word is on one of the others, and soon on both.
    let most = others.iter().map(|broker| broker.marks().durable).max().unwrap_or_default();
    until(world, || others.iter().all(|broker| broker.marks().durable >= most)).await;
    drop(others);
    world.sim.sleep(world.sim.below(200 * MS)).await;
    world.start_node(nth).unwrap_or_else(|error| panic!("node {nth} cannot start: {error}"));
    if is_mended(world, nth, upto.0).await {
        world.audit().is_lied_to.set(false);
    }
    Victim::release(world);
}

/// Waits until the node has again what was there.
async fn is_mended(world: &Rc<World>, nth: usize, agreed: u64) -> bool {
    let is_whole = || {
        (0..usize::from(SHARDS)).all(|shard| {
            world.replica(nth, shard).is_some_and(|broker| {
                let is_recovering = broker.group_status().is_some_and(|status| status.recovering);
                !is_recovering && broker.marks().durable.0 >= agreed.min(broker.marks().committed.0)
            })
        })
    };
    until(world, is_whole).await
}
