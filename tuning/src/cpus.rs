//! The cpus, which of them this process may use, and how they hang together.

use std::fs;

use serde::Serialize;

use crate::cpu_list::{CPU_ID_MAX, CpuList};
use crate::roots::{Roots, field, kib_field, read, read_line, read_switch, read_value};

/// Hardware threads of the machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cpus {
    /// As the processor names itself, where it does.
    pub model: Option<String>,
    pub online: CpuList,
    /// Those that the process may run on: affinity mask and cgroup cpuset together.
    pub allowed: CpuList,
    /// Kept free of other tasks by the kernel's `isolcpus`.
    pub isolated: CpuList,
    /// Whether several hardware threads share a core. Absent where the kernel does not say.
    pub smt_active: Option<bool>,
    /// The allowed cpus, one entry each.
    pub each: Vec<Cpu>,
    /// NUMA nodes; empty where the kernel shows none.
    pub nodes: Vec<Node>,
}

/// One cpu that the process may run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cpu {
    pub id: u32,
    pub node: Option<u32>,
    /// The other hardware threads of the same core; empty also where the kernel does not say.
    pub smt_siblings: CpuList,
}

/// One NUMA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    pub id: u32,
    pub cpus: CpuList,
    pub memory_bytes: Option<u64>,
}

impl Cpus {
    /// `allowed` is from `/proc/self/status`, `cpuinfo` the text of `/proc/cpuinfo`.
    pub(crate) fn collect(roots: &Roots, allowed: CpuList, cpuinfo: &str) -> Self {
        let nodes = nodes(roots);
        let each = allowed
            .iter()
            .map(|id| Cpu {
                id,
                node: nodes.iter().find(|node| node.cpus.contains(id)).map(|node| node.id),
                smt_siblings: smt_siblings(roots, id),
            })
            .collect();
        Self {
            model: field(cpuinfo, "model name").map(str::to_owned),
            // Some sandboxes show no /sys; a cpu one may run on is surely online.
            online: read_value(&roots.sys("devices/system/cpu/online")).unwrap_or_else(|| allowed.clone()),
            allowed,
            isolated: read_value(&roots.sys("devices/system/cpu/isolated")).unwrap_or_default(),
            smt_active: read_switch(&roots.sys("devices/system/cpu/smt/active")),
            each,
            nodes,
        }
    }
}

fn smt_siblings(roots: &Roots, id: u32) -> CpuList {
    let path = format!("devices/system/cpu/cpu{id}/topology/thread_siblings_list");
    let threads: CpuList = read_value(&roots.sys(&path)).unwrap_or_default();
    threads.iter().filter(|&thread| thread != id).collect()
}

fn nodes(roots: &Roots) -> Vec<Node> {
    let dir = roots.sys("devices/system/node");
    let Ok(entries) = fs::read_dir(&dir) else { return Vec::new() };
    let mut nodes: Vec<Node> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let id = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            Some(Node {
                id,
                // A node of memory only has an empty list.
                cpus: read_line(&entry.path().join("cpulist")).unwrap_or_default().parse().ok()?,
                memory_bytes: read(&entry.path().join("meminfo"))
                    .ok()
                    .and_then(|text| kib_field(&text, &format!("Node {id} MemTotal"))),
            })
        })
        // The kernel has no more nodes than cpus; a directory beyond that is not one of its own.
        .take(CPU_ID_MAX as usize + 1)
        .collect();
    nodes.sort_unstable_by_key(|node| node.id);
    nodes
}
