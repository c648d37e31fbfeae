//! What `probe` shows beyond the facts that the broker starts by: caches, clocks, sleep, queues and how they are spread.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::cpu_list::CpuList;
use crate::facts::{Bytes, Facts};
use crate::knobs::{NicOption, Place, Settings};
use crate::nics::Nic;
use crate::roots::{chosen, read_line, read_switch, read_value};

/// Caches and idle states of one cpu that are looked at; processors have four and Linux ten.
const CACHES_MAX: u32 = 8;
const IDLE_STATES_MAX: u32 = 10;

/// A fact that the kernel does not tell is absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Details {
    pub sockets: Option<u32>,
    /// Physical cores among the allowed cpus.
    pub cores: Option<u32>,
    /// Of the first allowed cpu, nearest first.
    pub caches: Vec<Cache>,
    pub frequency: Option<Frequency>,
    /// Of the first allowed cpu, shallowest first.
    pub idle_states: Vec<IdleState>,
    pub transparent_hugepages: Option<String>,
    pub disk_queue: Option<DiskQueue>,
    pub mount_options: Option<String>,
    pub nics: Vec<NicSettings>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cache {
    pub level: u32,
    /// `Data`, `Instruction` or `Unified`.
    pub kind: String,
    pub bytes: u64,
    pub shared_by: CpuList,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Frequency {
    pub driver: Option<String>,
    pub governor: String,
    pub least_khz: Option<u64>,
    pub most_khz: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdleState {
    pub name: String,
    /// Microseconds until the cpu runs again.
    pub exit_us: u32,
    pub is_disabled: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskQueue {
    /// 0: requests are merged, 1: with the last one only, 2: never.
    pub nomerges: Option<u32>,
    pub read_ahead_kib: Option<u64>,
    /// Requests that may wait.
    pub depth: Option<u32>,
    pub throttle_us: Option<u64>,
    pub completion_cpu: Option<u32>,
    pub polls: Option<bool>,
}

/// What an interface is set to; what only `ethtool` tells is absent without it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NicSettings {
    pub nic: String,
    pub rx_usecs: Option<String>,
    pub adaptive_rx: Option<String>,
    pub combined_queues: Option<String>,
    pub rx_ring: Option<String>,
    /// Whether rules may steer flows to queues.
    pub ntuple_filters: Option<String>,
    /// Queues whose packets the kernel spreads over cpus, and queues that certain cpus send on.
    pub rps_queues: u32,
    pub xps_queues: u32,
}

impl Details {
    #[must_use]
    pub fn collect(settings: &Settings, facts: &Facts, nics: &[Nic]) -> Details {
        let roots = settings.roots();
        let cpu_dir = |cpu: u32| roots.sys(&format!("devices/system/cpu/cpu{cpu}"));
        let topology = |name: &str| -> Option<BTreeSet<(u32, u32)>> {
            let each = facts.cpus.allowed.iter().map(|cpu| {
                let socket: u32 = read_value(&cpu_dir(cpu).join("topology/physical_package_id"))?;
                let part: u32 = read_value(&cpu_dir(cpu).join("topology").join(name))?;
                Some((socket, part))
            });
            each.collect()
        };
        let first = facts.cpus.allowed.iter().next().map(cpu_dir);
        let disk = facts.data.device.as_ref();
        Details {
            sockets: topology("physical_package_id").map(|sockets| sockets.len() as u32),
            cores: topology("core_id").map(|cores| cores.len() as u32),
            caches: first.as_deref().map(caches).unwrap_or_default(),
            frequency: first.as_deref().and_then(frequency),
            idle_states: first.as_deref().map(idle_states).unwrap_or_default(),
            transparent_hugepages: read_line(&roots.sys("kernel/mm/transparent_hugepage/enabled"))
                .map(|line| chosen(&line).to_owned()),
            disk_queue: disk.map(|disk| disk_queue(&roots.sys(&format!("block/{}/queue", disk.name)))),
            mount_options: facts.data.file_system.as_ref().map(|found| found.options.clone()),
            nics: nics.iter().map(|nic| nic_settings(settings, nic)).collect(),
        }
    }
}

fn caches(cpu: &Path) -> Vec<Cache> {
    let cache = |nth: u32| {
        let dir = cpu.join(format!("cache/index{nth}"));
        let size = read_line(&dir.join("size"))?;
        let kib: u64 = size.strip_suffix('K')?.parse().ok()?;
        Some(Cache {
            level: read_value(&dir.join("level"))?,
            kind: read_line(&dir.join("type"))?,
            bytes: kib * 1024,
            shared_by: read_value(&dir.join("shared_cpu_list")).unwrap_or_default(),
        })
    };
    (0..CACHES_MAX).map_while(cache).collect()
}

fn frequency(cpu: &Path) -> Option<Frequency> {
    let dir = cpu.join("cpufreq");
    Some(Frequency {
        driver: read_line(&dir.join("scaling_driver")),
        governor: read_line(&dir.join("scaling_governor"))?,
        least_khz: read_value(&dir.join("scaling_min_freq")),
        most_khz: read_value(&dir.join("scaling_max_freq")),
    })
}

fn idle_states(cpu: &Path) -> Vec<IdleState> {
    let state = |nth: u32| {
        let dir = cpu.join(format!("cpuidle/state{nth}"));
        Some(IdleState {
            name: read_line(&dir.join("name"))?,
            exit_us: read_value(&dir.join("latency"))?,
            is_disabled: read_switch(&dir.join("disable")).unwrap_or(false),
        })
    };
    (0..IDLE_STATES_MAX).map_while(state).collect()
}

fn disk_queue(dir: &Path) -> DiskQueue {
    DiskQueue {
        nomerges: read_value(&dir.join("nomerges")),
        read_ahead_kib: read_value(&dir.join("read_ahead_kb")),
        depth: read_value(&dir.join("nr_requests")),
        throttle_us: read_value(&dir.join("wbt_lat_usec")),
        completion_cpu: read_value(&dir.join("rq_affinity")),
        polls: read_switch(&dir.join("io_poll")),
    }
}

fn nic_settings(settings: &Settings, nic: &Nic) -> NicSettings {
    let option = |option| settings.read(&Place::Nic { nic: nic.name.clone(), option });
    let spread = |queues: u32, direction: &str, file: &str| {
        let is_spread = |queue: &u32| {
            let path = format!("class/net/{}/queues/{direction}-{queue}/{file}", nic.name);
            let mask = read_line(&settings.roots().sys(&path));
            mask.and_then(|mask| CpuList::from_mask(&mask)).is_some_and(|cpus| !cpus.is_empty())
        };
        (0..queues).filter(is_spread).count() as u32
    };
    NicSettings {
        rx_usecs: option(NicOption::RxUsecs),
        adaptive_rx: option(NicOption::AdaptiveRx),
        combined_queues: option(NicOption::CombinedQueues),
        rx_ring: option(NicOption::RxRing),
        ntuple_filters: option(NicOption::NtupleFilters),
        rps_queues: spread(nic.rx_queues, "rx", "rps_cpus"),
        xps_queues: spread(nic.tx_queues, "tx", "xps_cpus"),
        nic: nic.name.clone(),
    }
}

/// One line per subject, as of the facts; no line end after the last.
impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![
            ("sockets", self.sockets_line()),
            ("caches", self.caches_line()),
            ("frequency", self.frequency_line()),
            ("idle states", self.idle_line()),
            ("huge pages", self.transparent_hugepages.clone().unwrap_or_else(not_told)),
            ("mounted", self.mount_options.clone().unwrap_or_else(not_told)),
            ("disk queue", self.disk_queue.as_ref().map_or_else(not_told, ToString::to_string)),
        ];
        lines.extend(self.nics.iter().map(|nic| ("settings", nic.to_string())));
        for (n, (subject, text)) in lines.iter().enumerate() {
            let end = if n + 1 < lines.len() { "\n" } else { "" };
            write!(f, "{subject:<12}{text}{end}")?;
        }
        Ok(())
    }
}

fn not_told() -> String {
    "not told".to_owned()
}

impl Details {
    fn sockets_line(&self) -> String {
        match (self.sockets, self.cores) {
            (Some(sockets), Some(cores)) => format!("{sockets}, with {cores} cores that may be used"),
            _ => not_told(),
        }
    }

    fn caches_line(&self) -> String {
        let each = self.caches.iter().map(|cache| {
            let kind = if cache.kind == "Unified" {
                String::new()
            } else {
                format!(" {}", cache.kind.to_lowercase())
            };
            format!("L{}{kind} {} for cpu {}", cache.level, Bytes(cache.bytes), cache.shared_by)
        });
        let each: Vec<String> = each.collect();
        if each.is_empty() { not_told() } else { each.join(", ") }
    }

    fn frequency_line(&self) -> String {
        let Some(frequency) = &self.frequency else { return not_told() };
        let mut line = format!("governor {}", frequency.governor);
        if let (Some(least), Some(most)) = (frequency.least_khz, frequency.most_khz) {
            line += &format!(", {} to {} MHz", least / 1000, most / 1000);
        }
        if let Some(driver) = &frequency.driver {
            line += &format!(", driver {driver}");
        }
        line
    }

    fn idle_line(&self) -> String {
        let each = self.idle_states.iter().map(|state| {
            let off = if state.is_disabled { ", off" } else { "" };
            format!("{} ({} µs{off})", state.name, state.exit_us)
        });
        let each: Vec<String> = each.collect();
        if each.is_empty() { not_told() } else { each.join(", ") }
    }
}

impl fmt::Display for DiskQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
        write!(
            f,
            "{} requests, read-ahead {} KiB, nomerges {}, rq_affinity {}, throttle {} µs, polling {}",
            number(self.depth.map(u64::from)),
            number(self.read_ahead_kib),
            number(self.nomerges.map(u64::from)),
            number(self.completion_cpu.map(u64::from)),
            number(self.throttle_us),
            if self.polls == Some(true) { "on" } else { "off" },
        )
    }
}

impl fmt::Display for NicSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.nic)?;
        match (&self.rx_usecs, &self.combined_queues) {
            (None, None) => f.write_str("ethtool tells nothing of it")?,
            (usecs, queues) => {
                let or = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
                write!(
                    f,
                    "{} combined queues, ring {}, waits {} µs, adaptive {}, flow rules {}",
                    or(queues),
                    or(&self.rx_ring),
                    or(usecs),
                    or(&self.adaptive_rx),
                    or(&self.ntuple_filters),
                )?;
            }
        }
        write!(f, "; RPS on {} queues, XPS on {}", self.rps_queues, self.xps_queues)
    }
}
