//! The machine a run was made on, as far as the kernel shows it: figures without it are hearsay.

use std::fs;

use serde::{Deserialize, Serialize};

/// What the generator ran on; the broker too, if it is on the same machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    pub kernel: Option<String>,
    pub cpu: Option<String>,
    pub cpus: usize,
    pub memory_mib: Option<u64>,
    /// How the CPU's frequency is chosen; not visible in most virtual machines.
    pub governor: Option<String>,
    /// Whether a hypervisor lies between, whose other guests nobody here sees.
    pub is_virtual: bool,
}

impl Machine {
    /// Asks the kernel; what it does not show stays empty.
    pub fn read() -> Machine {
        let read = |path: &str| fs::read_to_string(path).ok();
        let line = |path: &str| read(path).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
        Machine {
            kernel: line("/proc/sys/kernel/osrelease"),
            cpu: field(&cpuinfo, "model name").map(str::to_owned),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_mib: read("/proc/meminfo").and_then(|text| memory_mib(&text)),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            is_virtual: is_virtual(&cpuinfo),
        }
    }
}

/// The first value of a name in a list of "name : value".
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(key, value)| (key.trim(), value.trim())).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn memory_mib(meminfo: &str) -> Option<u64> {
    let kib: u64 = field(meminfo, "MemTotal")?.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

/// The flag by which x86 processors tell a guest that it is one.
fn is_virtual(cpuinfo: &str) -> bool {
    field(cpuinfo, "flags").is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_understood() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2.5GHz\nflags\t\t: fpu sse hypervisor avx\n";
        assert_eq!(field(cpuinfo, "model name"), Some("Some CPU @ 2.5GHz"));
        assert!(is_virtual(cpuinfo) && !is_virtual("flags : fpu sse"));
        assert_eq!(memory_mib("MemTotal:       24683724 kB\nMemFree: 5 kB\n"), Some(24_105));
        assert_eq!((memory_mib("MemTotal: much"), field("", "flags")), (None, None));
    }
}
