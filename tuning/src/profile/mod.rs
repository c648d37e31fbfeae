//! The profile of a machine: which cpu does what, how memory is divided, how deep the disk is written.
//!
//! `apogee-tune profile` derives one from facts and measurements and writes it as TOML; the broker starts from it
//! (`--profile FILE`), and `check`, `apply` and the broker's own watch compare the machine with it.

mod derive;
mod drift;

pub use derive::{DeriveError, Request, derive};
pub use drift::{Drift, drift};

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cpu_list::CpuList;
use crate::disk::DiskProfile;
use crate::knobs::Place;

/// Longest profile that is read: a machine of 8,192 cpus needs some 2 MiB.
const PROFILE_BYTES_MAX: u64 = 16 << 20;

/// Version of the file that this program writes and reads.
pub const PROFILE_VERSION: u32 = 1;

/// For what a machine is to be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// The lowest tails: a core per shard, cores that stay awake and spin before they sleep.
    Latency,
    /// The most messages: every hardware thread works, batches are large, nothing spins.
    Throughput,
    /// Other programs live here too: half the cores, no spinning, nothing changed that they would see.
    SharedHost,
    /// A guest: what the host decides is left to it.
    Vm,
    /// A developer's machine: small, and nothing is changed.
    Dev,
}

impl Goal {
    pub const ALL: [Goal; 5] = [Goal::Latency, Goal::Throughput, Goal::SharedHost, Goal::Vm, Goal::Dev];
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Goal::Latency => "latency",
            Goal::Throughput => "throughput",
            Goal::SharedHost => "shared-host",
            Goal::Vm => "vm",
            Goal::Dev => "dev",
        })
    }
}

impl FromStr for Goal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Goal::ALL.into_iter().find(|goal| goal.to_string() == text);
        known.ok_or_else(|| {
            format!("{text:?} is no goal; known are latency, throughput, shared-host, vm, dev")
        })
    }
}

/// What `apogee-tune profile` writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub version: u32,
    pub goal: Goal,
    pub made_for: MadeFor,
    /// Interrupts, the control thread and all else that is not a shard. May overlap the shards' where cpus are few.
    pub control_cpus: CpuList,
    /// Microseconds that an idle shard polls before it sleeps; 0 for none.
    pub spin_us: u32,
    /// Of each shard, so that nobody takes from a neighbour.
    pub memory: MemoryPerShard,
    pub disk: WriteDepth,
    /// What was measured of the data directory's disk, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_disk: Option<DiskProfile>,
    pub shards: Vec<ShardPlan>,
    /// Which queue of which interface is whose.
    #[serde(default)]
    pub steering: Vec<Steering>,
    /// Every setting that the tuners looked at and what it should be; the broker tells when one is changed.
    #[serde(default)]
    pub settings: Vec<ExpectedSetting>,
}

/// The machine that a profile is of; another one needs another profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MadeFor {
    pub allowed_cpus: CpuList,
    pub memory_bytes: u64,
    pub kernel: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtualised_by: Option<String>,
}

/// One shard and its core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardPlan {
    pub shard: u16,
    pub cpu: u32,
    /// NUMA node of the cpu, where its memory is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryPerShard {
    pub tail_cache_bytes: u64,
    /// Entries of queues' indexes that stay in memory.
    pub index_entries_max: u64,
}

/// How much a shard has on its way to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteDepth {
    pub batches_in_flight_max: u32,
    pub batch_bytes_target: u32,
    /// Bytes that reads for lagging consumers may have on their way; absent: as the broker has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up_bytes_max: Option<u64>,
}

/// TCP to `port` arrives on queue `queue`, whose interrupt runs on `cpu`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steering {
    pub nic: String,
    pub queue: u32,
    pub cpu: u32,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedSetting {
    pub tuner: String,
    pub place: Place,
    pub value: String,
}

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("cannot read the profile {path}: {error}")]
    Unreadable { path: String, error: std::io::Error },
    #[error("the profile {path} has more than {PROFILE_BYTES_MAX} bytes")]
    TooLarge { path: String },
    #[error("the profile {path} cannot be understood: {error}")]
    Malformed { path: String, error: toml::de::Error },
    #[error("the profile {path} has version {found}, expected {PROFILE_VERSION}: make it anew")]
    Version { path: String, found: u32 },
    #[error(
        "the profile {path} gives cpu {cpu} to shard {shard}, and this process may use {allowed} only: it is of another machine"
    )]
    OtherMachine { path: String, shard: u16, cpu: u32, allowed: CpuList },
    #[error("the profile {path}: {what}")]
    Invalid { path: String, what: String },
}

impl Profile {
    /// The cpus of the shards.
    #[must_use]
    pub fn shard_cpus(&self) -> CpuList {
        self.shards.iter().map(|shard| shard.cpu).collect()
    }

    /// All cpus that the profile speaks of.
    #[must_use]
    pub fn cpus(&self) -> CpuList {
        self.shards.iter().map(|shard| shard.cpu).chain(self.control_cpus.iter()).collect()
    }

    /// Reads a profile, and sees that it is of a machine with these cpus.
    pub fn read(path: &Path, allowed: &CpuList) -> Result<Profile, ProfileError> {
        let name = || path.display().to_string();
        let unreadable = |error| ProfileError::Unreadable { path: name(), error };
        if std::fs::metadata(path).map_err(unreadable)?.len() > PROFILE_BYTES_MAX {
            return Err(ProfileError::TooLarge { path: name() });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let profile: Profile =
            toml::from_str(&text).map_err(|error| ProfileError::Malformed { path: name(), error })?;
        if profile.version != PROFILE_VERSION {
            return Err(ProfileError::Version { path: name(), found: profile.version });
        }
        if let Some(what) = profile.flaw() {
            return Err(ProfileError::Invalid { path: name(), what });
        }
        match profile.shards.iter().find(|shard| !allowed.contains(shard.cpu)) {
            Some(&ShardPlan { shard, cpu, .. }) => {
                Err(ProfileError::OtherMachine { path: name(), shard, cpu, allowed: allowed.clone() })
            }
            None => Ok(profile),
        }
    }

    /// What no profile that this program wrote has.
    fn flaw(&self) -> Option<String> {
        if self.shards.is_empty() {
            return Some("it has no shards".to_owned());
        }
        let misnumbered = self.shards.iter().enumerate().find(|(nth, plan)| usize::from(plan.shard) != *nth);
        if let Some((nth, plan)) = misnumbered {
            return Some(format!("shard {} stands where shard {nth} is expected", plan.shard));
        }
        if self.disk.batches_in_flight_max == 0 || self.disk.batch_bytes_target < 4096 {
            return Some("disk: at least one batch in flight and 4096 bytes a batch are expected".to_owned());
        }
        None
    }

    /// As TOML, with a heading for people.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let body = toml::to_string(self).expect("a profile has nothing that TOML cannot say");
        format!(
            "# Profile of this machine for Apogee, goal: {}. Made by `apogee-tune profile`; the broker reads it with\n\
             # --profile, `apogee-tune check|apply` compare the machine with it. Make it anew after changing hardware.\n\n{body}",
            self.goal
        )
    }
}
