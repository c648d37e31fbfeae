//! What control groups leave to the process: a share of the cpus' time, an amount of memory.
//!
//! Both versions of the interface are read. A limit holds for all groups below it, so each group from the
//! process's own up to the root is asked and the tightest answer counts. In a container the path that
//! `/proc/self/cgroup` names may lie outside of what `/sys/fs/cgroup` shows; groups that are not there are
//! passed over, and the walk still ends at the container's own root.

use std::path::{Component, Path, PathBuf};

use crate::roots::{Roots, read, read_line, read_value};

/// Groups looked at on the way up. Deeper nesting than systemd slices in nested containers is not seen in
/// practice; what lies above is not asked.
const DEPTH_MAX: usize = 64;

/// Cpu time per time, e.g. 1.5 for 150 ms in every 100 ms; the tightest on the way up.
pub(crate) fn cpu_quota(roots: &Roots) -> Option<f64> {
    let groups = Groups::of_process(roots);
    let v2 = groups.unified.iter().filter_map(|dir| {
        let line = read_line(&dir.join("cpu.max"))?;
        let (quota, period) = line.split_once(' ')?;
        ratio(quota.parse().ok()?, period.parse().ok()?)
    });
    let v1 = groups.cpu.iter().filter_map(|dir| {
        // -1 means no quota and does not parse as one.
        ratio(read_value(&dir.join("cpu.cfs_quota_us"))?, read_value(&dir.join("cpu.cfs_period_us"))?)
    });
    v2.chain(v1).min_by(f64::total_cmp)
}

fn ratio(quota_us: u64, period_us: u64) -> Option<f64> {
    (period_us > 0).then(|| quota_us as f64 / period_us as f64)
}

/// The tightest limit on the way up. Version 1 says "none" as a number larger than any machine's memory; the
/// caller drops what is above the machine's own.
pub(crate) fn memory_limit_bytes(roots: &Roots) -> Option<u64> {
    let groups = Groups::of_process(roots);
    let v2 = groups.unified.iter().filter_map(|dir| read_value::<u64>(&dir.join("memory.max")));
    let v1 = groups.memory.iter().filter_map(|dir| read_value::<u64>(&dir.join("memory.limit_in_bytes")));
    v2.chain(v1).min()
}

/// The process's group and those above it, innermost first, in each hierarchy that we ask.
#[derive(Default)]
struct Groups {
    unified: Vec<PathBuf>,
    cpu: Vec<PathBuf>,
    memory: Vec<PathBuf>,
}

impl Groups {
    /// Reads lines of the form `5:cpu,cpuacct:/docker/4f2a`; version 2 is `0::/user.slice`.
    fn of_process(roots: &Roots) -> Self {
        let text = read(&roots.proc("self/cgroup")).unwrap_or_default();
        let root = roots.sys("fs/cgroup");
        let mut groups = Self::default();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
                continue;
            };
            if controllers.is_empty() {
                groups.unified = upwards(&root, path);
            }
            // A hierarchy of several controllers is mounted under their joined names or under a link for each.
            for controller in controllers.split(',') {
                match controller {
                    "cpu" => groups.cpu = upwards(&root.join("cpu"), path),
                    "memory" => groups.memory = upwards(&root.join("memory"), path),
                    _ => {}
                }
            }
        }
        groups
    }
}

fn upwards(mount: &Path, group: &str) -> Vec<PathBuf> {
    let below: PathBuf =
        Path::new(group).components().filter(|part| matches!(part, Component::Normal(_))).collect();
    below.ancestors().take(DEPTH_MAX).map(|group| mount.join(group)).collect()
}
