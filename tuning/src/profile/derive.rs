//! From facts and measurements to a profile.

use super::{
    ExpectedSetting, Goal, MadeFor, MemoryPerShard, PROFILE_VERSION, Profile, ShardPlan, Steering, WriteDepth,
};
use crate::cpu_list::CpuList;
use crate::cpus::Cpus;
use crate::disk::DiskProfile;
use crate::facts::Facts;
use crate::knobs::{Machine, Settings, Verdict, tuners};
use crate::nics::Nic;

/// Cpus per cpu that is kept for interrupts, the control thread and the rest of the machine.
const LATENCY_CPUS_PER_CONTROL: usize = 8;
const THROUGHPUT_CPUS_PER_CONTROL: usize = 16;

/// With fewer cpus than this none can be spared, and control shares the last shard's.
const CPUS_TO_SPARE: usize = 4;

/// What the operating system, page cache and the process itself get: one part of this many.
const SHARE_OF_SYSTEM: u64 = 4;

/// A tail cache larger than this holds more than consumers that keep up ever lag.
const TAIL_CACHE_BYTES_MAX: u64 = 4 << 30;
const TAIL_CACHE_BYTES_MIN: u64 = 32 << 20;

/// One part of a shard's memory in this many is its tail cache, one its index.
const TAIL_CACHE_SHARE: u64 = 4;
const INDEX_SHARE: u64 = 8;

/// Bytes of an index entry in memory.
const INDEX_ENTRY_BYTES: u64 = 24;
const INDEX_ENTRIES_MIN: u64 = 1 << 20;
const INDEX_ENTRIES_MAX: u64 = 64 << 20;

/// What the broker has without a profile.
const DEFAULT_DEPTH: WriteDepth =
    WriteDepth { batches_in_flight_max: 4, batch_bytes_target: 512 * 1024, catch_up_bytes_max: None };

/// Part of the disk's read bandwidth that lagging consumers may take: one in this many.
const CATCH_UP_SHARE: u64 = 4;

/// What is on its way for them is what that share reads in one part of a second of this many: a write that comes behind it waits
/// no longer. Within the broker's bounds.
const CATCH_UP_PER_SECOND: u64 = 500;
const CATCH_UP_BYTES_MIN: u64 = 64 << 10;
const CATCH_UP_BYTES_MAX: u64 = 64 << 20;

/// What a profile is derived for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Absent: [`Goal::Vm`] on a virtual machine, else [`Goal::Latency`].
    pub goal: Option<Goal>,
    /// Absent: as many as the goal gives.
    pub shards: Option<u16>,
    pub base_port: u16,
    pub port_stride: u16,
    pub disk: Option<DiskProfile>,
}

#[derive(Debug, thiserror::Error)]
pub enum DeriveError {
    #[error("this process may run on no cpu")]
    NoCpu,
    #[error("{shards} shards are asked for, and the highest port would be {port}, which is none")]
    Ports { shards: usize, port: u64 },
}

/// A sound profile for the machine; deterministic.
pub fn derive(
    settings: &Settings,
    facts: &Facts,
    nics: &[Nic],
    request: &Request,
) -> Result<Profile, DeriveError> {
    let goal = request.goal.unwrap_or(match facts.kernel.virtualised_by {
        Some(_) => Goal::Vm,
        None => Goal::Latency,
    });
    let (workers, control_cpus) = divide(&facts.cpus, goal, facts.limits.cpu_quota);
    if workers.is_empty() {
        return Err(DeriveError::NoCpu);
    }
    let count = request.shards.map_or(workers.len(), usize::from);
    let highest = u64::from(request.base_port) + u64::from(request.port_stride) * (count as u64 - 1);
    if highest > u64::from(u16::MAX) {
        return Err(DeriveError::Ports { shards: count, port: highest });
    }
    let node_of = |cpu: u32| facts.cpus.each.iter().find(|each| each.id == cpu).and_then(|each| each.node);
    let shards: Vec<ShardPlan> = (0..count)
        .map(|nth| {
            let cpu = workers[nth % workers.len()];
            let shard = nth as u16;
            ShardPlan {
                shard,
                cpu,
                node: node_of(cpu),
                port: request.base_port + request.port_stride * shard,
            }
        })
        .collect();
    let mut profile = Profile {
        version: PROFILE_VERSION,
        goal,
        made_for: MadeFor {
            allowed_cpus: facts.cpus.allowed.clone(),
            memory_bytes: facts.memory.usable_bytes(),
            kernel: facts.kernel.release.clone(),
            virtualised_by: facts.kernel.virtualised_by.clone(),
        },
        spin_us: spin_us(goal, facts),
        memory: memory(facts, goal, shards.len()),
        disk: depth(goal, request.disk.as_ref()),
        measured_disk: request.disk.clone(),
        steering: steering(nics, &shards, &control_cpus),
        control_cpus,
        shards,
        settings: Vec::new(),
    };
    profile.settings = expected(&Machine { settings, facts, nics, profile: &profile });
    Ok(profile)
}

/// The cpus of shards, in order, and those of everything else.
fn divide(cpus: &Cpus, goal: Goal, quota: Option<f64>) -> (Vec<u32>, CpuList) {
    let mut usable: Vec<u32> = cpus.allowed.iter().collect();
    if goal == Goal::Latency {
        // A sibling thread takes turns with the shard for one core's units.
        let all = std::mem::take(&mut usable);
        for cpu in all {
            let siblings = cpus.each.iter().find(|each| each.id == cpu).map(|each| &each.smt_siblings);
            if !siblings.is_some_and(|siblings| siblings.iter().any(|other| usable.contains(&other))) {
                usable.push(cpu);
            }
        }
    }
    let spare = match goal {
        Goal::Latency if usable.len() >= CPUS_TO_SPARE => usable.len().div_ceil(LATENCY_CPUS_PER_CONTROL),
        Goal::Throughput if usable.len() >= CPUS_TO_SPARE => usable.len() / THROUGHPUT_CPUS_PER_CONTROL,
        Goal::SharedHost => usable.len() / 2,
        Goal::Latency | Goal::Throughput | Goal::Vm | Goal::Dev => 0,
    };
    // Cpu 0 takes the interrupts that cannot be moved, so control has the first ones, of each node in turn.
    let control = spread_over_nodes(cpus, &usable, spare);
    let mut workers: Vec<u32> = usable.iter().copied().filter(|cpu| !control.contains(cpu)).collect();
    if goal == Goal::Dev {
        workers.truncate(2);
    }
    if let Some(quota) = quota {
        // More threads than the quota pays for are stopped in the middle of each period.
        workers.truncate((quota.floor() as usize).max(1));
    }
    let control = if control.is_empty() { workers.iter().copied().take(1).collect() } else { control };
    // The siblings of the shards' threads stay idle with the goal latency; those of control serve it too.
    let control = control.iter().flat_map(|cpu| {
        let siblings = cpus.each.iter().find(|each| each.id == *cpu).map(|each| each.smt_siblings.clone());
        let siblings = siblings.unwrap_or_default();
        let own: Vec<u32> = siblings.iter().filter(|other| !workers.contains(other)).collect();
        std::iter::once(*cpu).chain(own)
    });
    let control = control.collect();
    (workers, control)
}

/// `count` of the cpus, taken from the nodes by turns, lowest numbers first.
fn spread_over_nodes(cpus: &Cpus, usable: &[u32], count: usize) -> Vec<u32> {
    let node_of = |cpu: u32| cpus.each.iter().find(|each| each.id == cpu).and_then(|each| each.node);
    let mut nodes: Vec<Option<u32>> = usable.iter().map(|cpu| node_of(*cpu)).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let mut of_nodes: Vec<std::collections::VecDeque<u32>> = nodes
        .iter()
        .map(|node| usable.iter().copied().filter(|cpu| node_of(*cpu) == *node).collect())
        .collect();
    let mut taken = Vec::new();
    while taken.len() < count && of_nodes.iter().any(|cpus| !cpus.is_empty()) {
        for cpus in &mut of_nodes {
            if taken.len() < count {
                taken.extend(cpus.pop_front());
            }
        }
    }
    taken
}

/// Spinning pays where a wake-up is slower than the wait it saves, and nobody else wants the core.
fn spin_us(goal: Goal, facts: &Facts) -> u32 {
    match goal {
        Goal::Latency if facts.cpus.allowed.len() >= CPUS_TO_SPARE => 100,
        Goal::Latency | Goal::Throughput | Goal::SharedHost | Goal::Vm | Goal::Dev => 0,
    }
}

fn memory(facts: &Facts, goal: Goal, shards: usize) -> MemoryPerShard {
    let all = facts.memory.usable_bytes();
    let ours = match goal {
        Goal::Latency | Goal::Throughput | Goal::Vm => all - all / SHARE_OF_SYSTEM,
        Goal::SharedHost => all / 4,
        Goal::Dev => all / 16,
    };
    let each = ours / shards.max(1) as u64;
    let mib = |bytes: u64| bytes >> 20 << 20;
    MemoryPerShard {
        tail_cache_bytes: mib((each / TAIL_CACHE_SHARE).clamp(TAIL_CACHE_BYTES_MIN, TAIL_CACHE_BYTES_MAX)),
        index_entries_max: (each / INDEX_SHARE / INDEX_ENTRY_BYTES)
            .clamp(INDEX_ENTRIES_MIN, INDEX_ENTRIES_MAX),
    }
}

/// By the disk's measurements, where there are some: as deep as it goes on gaining.
fn depth(goal: Goal, disk: Option<&DiskProfile>) -> WriteDepth {
    let Some(disk) = disk else { return DEFAULT_DEPTH };
    let best = match goal {
        Goal::Throughput => disk.deepest_gainful(),
        Goal::Latency | Goal::SharedHost | Goal::Vm | Goal::Dev => disk.lowest_latency(),
    };
    let catch_up = (disk.read_bytes_per_s / CATCH_UP_SHARE / CATCH_UP_PER_SECOND)
        .clamp(CATCH_UP_BYTES_MIN, CATCH_UP_BYTES_MAX);
    let Some((bytes, depth)) = best else {
        return WriteDepth { catch_up_bytes_max: Some(catch_up), ..DEFAULT_DEPTH };
    };
    WriteDepth {
        batches_in_flight_max: depth.clamp(1, 64),
        batch_bytes_target: bytes.max(64 * 1024),
        catch_up_bytes_max: Some(catch_up),
    }
}

/// Queue `k` of the fastest interface that is up is shard `k`'s, if there are as many; else they are shared in turn, on the
/// control cpus.
fn steering(nics: &[Nic], shards: &[ShardPlan], control: &CpuList) -> Vec<Steering> {
    let fastest = nics
        .iter()
        .filter(|nic| nic.is_up && nic.rx_queues > 0)
        .max_by_key(|nic| (nic.speed_mbits.unwrap_or(0), nic.rx_queues, std::cmp::Reverse(nic.name.clone())));
    let Some(nic) = fastest else { return Vec::new() };
    let control: Vec<u32> = control.iter().collect();
    let has_one_each = nic.rx_queues as usize >= shards.len();
    shards
        .iter()
        .enumerate()
        .map(|(nth, shard)| {
            let queue = nth as u32 % nic.rx_queues;
            let cpu = if has_one_each { shard.cpu } else { control[queue as usize % control.len()] };
            Steering { nic: nic.name.clone(), queue, cpu, port: shard.port }
        })
        .collect()
}

/// What each knob should be that can be read here: as it is where it is right, else as `apply` would make it.
fn expected(machine: &Machine<'_>) -> Vec<ExpectedSetting> {
    let mut settings = Vec::new();
    for tuner in tuners() {
        for finding in tuner.look(machine) {
            let changes = match finding.verdict {
                Verdict::Change(changes) => changes,
                Verdict::Right => Vec::from_iter(finding.keep),
                Verdict::Advice(_) | Verdict::NotHere(_) => continue,
            };
            settings.extend(changes.into_iter().map(|change| ExpectedSetting {
                tuner: tuner.name().to_owned(),
                place: change.place,
                value: change.value,
            }));
        }
    }
    settings
}
