//! All facts together: how they are collected, and the table that the broker prints at start.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cpu_list::CpuList;
use crate::cpus::Cpus;
use crate::data_dir::{BlockDevice, DataDir, DirectIo, WriteCache, nearest_existing};
use crate::io_uring::{Circumstances, IoUring, Refusal};
use crate::kernel::Kernel;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::roots::{Roots, field, read, read_value};
use crate::sys::Answers;

/// What is known about the machine and the data directory, at the moment of asking. A fact that the kernel does
/// not tell is `None`, never a guess.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Facts {
    pub cpus: Cpus,
    pub memory: Memory,
    pub kernel: Kernel,
    pub io_uring: IoUring,
    pub limits: Limits,
    pub data: DataDir,
}

/// Facts without which the others mean nothing could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    #[error("cannot read {}: {error}; is /proc mounted?", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{} has no line '{key}' that can be understood", path.display())]
    Missing { path: PathBuf, key: &'static str },
    #[error("cannot tell the current directory, against which {} is meant: {error}", path.display())]
    NoCurrentDirectory { path: PathBuf, error: io::Error },
}

impl FactsError {
    pub(crate) fn unreadable(path: &Path, error: io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), error }
    }

    pub(crate) fn missing(path: &Path, key: &'static str) -> Self {
        Self::Missing { path: path.to_owned(), key }
    }
}

impl Facts {
    /// Reads `/proc` and `/sys` below `roots`, and asks the running kernel for the rest. `data_dir` need not
    /// exist yet; a file is created and removed in it, or else in the nearest directory above.
    pub fn collect(roots: &Roots, data_dir: &Path) -> Result<Self, FactsError> {
        let path = std::path::absolute(data_dir)
            .map_err(|error| FactsError::NoCurrentDirectory { path: data_dir.to_owned(), error })?;
        let probed = nearest_existing(&path);
        let answers = Answers::ask(&probed);
        Self::from_answers(roots, path, probed, answers)
    }

    /// Whether a bound on locked memory applies to this process, so that registered buffers must be kept small.
    pub fn memlock_limited(&self) -> bool {
        !self.limits.memlock_exempt && self.limits.memlock.soft.is_some()
    }

    /// Everything but the system calls, so that tests can answer for the kernel.
    pub(crate) fn from_answers(
        roots: &Roots,
        path: PathBuf,
        probed: PathBuf,
        answers: Answers,
    ) -> Result<Self, FactsError> {
        let status_path = roots.proc("self/status");
        let status = read(&status_path).map_err(|error| FactsError::unreadable(&status_path, error))?;
        let allowed: CpuList = field(&status, "Cpus_allowed_list")
            .and_then(|list| list.parse().ok())
            .ok_or_else(|| FactsError::missing(&status_path, "Cpus_allowed_list"))?;
        let cpuinfo = read(&roots.proc("cpuinfo")).unwrap_or_default();
        let kernel = Kernel::collect(roots, &cpuinfo)?;
        let io_uring = match answers.uring {
            Ok(probe) => IoUring::Available { features: probe.features, ops_supported: probe.ops_supported },
            Err(errno) => IoUring::Refused(Refusal::explain(Circumstances {
                errno,
                disabled: read_value(&roots.proc("sys/kernel/io_uring_disabled")),
                // 1 is strict mode, in which we could not have asked; 2 is a filter.
                seccomp_filter: field(&status, "Seccomp") == Some("2"),
                version: kernel.version,
            })),
        };
        Ok(Self {
            cpus: Cpus::collect(roots, allowed, &cpuinfo),
            memory: Memory::collect(roots)?,
            io_uring,
            limits: Limits::collect(roots, &status, &answers),
            data: DataDir::collect(roots, path, probed, answers),
            kernel,
        })
    }
}

// --- the table ----------------------------------------------------------------------------------------------

/// One line per subject; no line end after the last.
impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = [
            ("cpus", self.cpus_line()),
            ("numa", self.numa_line()),
            ("memory", self.memory_line()),
            ("kernel", self.kernel_line()),
            ("io_uring", self.io_uring_line()),
            ("memlock", self.memlock_line()),
            ("open files", limit_text(self.limits.nofile.soft, |files| files.to_string())),
            ("data", self.data_line()),
            ("file system", self.file_system_line()),
            ("disk", self.data.device.as_ref().map_or_else(|| "no single device".to_owned(), disk_line)),
            ("direct I/O", self.direct_io_line()),
        ];
        for (n, (subject, text)) in lines.iter().enumerate() {
            let end = if n + 1 < lines.len() { "\n" } else { "" };
            write!(f, "{subject:<12}{text}{end}")?;
        }
        Ok(())
    }
}

impl Facts {
    fn cpus_line(&self) -> String {
        let cpus = &self.cpus;
        let mut line =
            format!("{} allowed ({}) of {} online", cpus.allowed.len(), cpus.allowed, cpus.online.len());
        match cpus.smt_active {
            Some(true) => line += ", SMT on",
            Some(false) => line += ", SMT off",
            None => {}
        }
        if !cpus.isolated.is_empty() {
            line += &format!(", isolated {}", cpus.isolated);
        }
        if let Some(quota) = self.limits.cpu_quota {
            line += &format!(", quota {quota:.2} cpus");
        }
        if let Some(model) = &cpus.model {
            line += &format!("; {model}");
        }
        line
    }

    fn numa_line(&self) -> String {
        if self.cpus.nodes.is_empty() {
            return "not shown by the kernel".to_owned();
        }
        let nodes: Vec<String> = self
            .cpus
            .nodes
            .iter()
            .map(|node| {
                let memory = node.memory_bytes.map(|bytes| format!(", {}", Bytes(bytes))).unwrap_or_default();
                let cpus = if node.cpus.is_empty() { "none".to_owned() } else { node.cpus.to_string() };
                format!("node {}: cpus {cpus}{memory}", node.id)
            })
            .collect();
        nodes.join("; ")
    }

    fn memory_line(&self) -> String {
        let mut line = Bytes(self.memory.total_bytes).to_string();
        if let Some(available) = self.memory.available_bytes {
            line += &format!(", {} available", Bytes(available));
        }
        if let Some(limit) = self.memory.cgroup_limit_bytes {
            line += &format!(", cgroup limit {}", Bytes(limit));
        }
        line
    }

    fn kernel_line(&self) -> String {
        let kernel = &self.kernel;
        let mut line = format!("Linux {}", kernel.release);
        if let Some(clock) = &kernel.clock_source {
            line += &format!(", clock {clock}");
        }
        match &kernel.virtualised_by {
            Some(host) => line += &format!(", virtual machine ({host})"),
            None => line += ", no hypervisor seen",
        }
        line
    }

    fn io_uring_line(&self) -> String {
        match &self.io_uring {
            IoUring::Available { features, ops_supported: Some(ops) } => {
                format!("available, {ops} operations, features {features:#x}")
            }
            IoUring::Available { features, ops_supported: None } => {
                format!("available, operations not told, features {features:#x}")
            }
            IoUring::Refused(refusal) => format!("refused: {refusal}"),
        }
    }

    fn memlock_line(&self) -> String {
        let line = limit_text(self.limits.memlock.soft, |bytes| Bytes(bytes).to_string());
        if self.limits.memlock_exempt { line + ", not applied to this process (CAP_IPC_LOCK)" } else { line }
    }

    fn data_line(&self) -> String {
        let path = self.data.path.display();
        match self.data.space {
            Some(space) => {
                format!("{path}, {} free of {}", Bytes(space.available_bytes), Bytes(space.total_bytes))
            }
            None => path.to_string(),
        }
    }

    fn file_system_line(&self) -> String {
        match &self.data.file_system {
            Some(found) => format!("{} on {} ({})", found.kind, found.mount_point.display(), found.source),
            None => "not found among the mounts".to_owned(),
        }
    }

    fn direct_io_line(&self) -> String {
        match &self.data.direct_io {
            DirectIo::Supported { memory_align_bytes, offset_align_bytes } => {
                format!("aligned to {memory_align_bytes} B in memory, {offset_align_bytes} B in the file")
            }
            DirectIo::Unsupported => "not supported".to_owned(),
            DirectIo::Unknown { error } => format!("not known: {error}"),
        }
    }
}

fn disk_line(device: &BlockDevice) -> String {
    let mut parts = vec![device.name.clone()];
    parts.extend(device.model.clone());
    parts.extend(device.rotational.map(|yes| if yes { "rotational" } else { "not rotational" }.to_owned()));
    parts.extend(device.write_cache.map(|cache| {
        match cache {
            WriteCache::WriteBack => "write-back cache",
            WriteCache::WriteThrough => "write-through",
        }
        .to_owned()
    }));
    parts.extend(device.force_unit_access.map(|yes| if yes { "FUA" } else { "no FUA" }.to_owned()));
    if let (Some(logical), Some(physical)) = (device.logical_block_bytes, device.physical_block_bytes) {
        parts.push(format!("blocks {logical}/{physical} B"));
    }
    parts.extend(device.scheduler.as_ref().map(|name| format!("scheduler {name}")));
    parts.join(", ")
}

fn limit_text(limit: Option<u64>, text: impl Fn(u64) -> String) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), text)
}

/// Bytes in the unit in which they read best, rounded down.
pub(crate) struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        // The largest unit of which there is at least one whole.
        let step = (self.0.max(1).ilog2() / 10) as usize;
        if step == 0 {
            return write!(f, "{} B", self.0);
        }
        let unit = 1u64 << (10 * step);
        let tenths = (self.0 % unit) as u128 * 10 / u128::from(unit);
        match tenths {
            0 => write!(f, "{} {}", self.0 / unit, UNITS[step - 1]),
            _ => write!(f, "{}.{tenths} {}", self.0 / unit, UNITS[step - 1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_in_their_largest_whole_unit() {
        let text = |bytes| Bytes(bytes).to_string();
        assert_eq!(text(0), "0 B");
        assert_eq!(text(1023), "1023 B");
        assert_eq!(text(1024), "1 KiB");
        assert_eq!(text(8 << 20), "8 MiB");
        assert_eq!(text((1 << 30) + (1 << 29)), "1.5 GiB");
        assert_eq!(text((1 << 30) - 1), "1023.9 MiB");
        assert_eq!(text(u64::MAX), "15.9 EiB");
    }
}
