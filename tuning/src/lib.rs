//! The machine a broker runs on: what it has, what it can do, what each core is for, which knobs it has.
//!
//! [`Facts::collect`] asks once, at start: files under `/proc` and `/sys` through [`Roots`], a handful of
//! system calls for what stands in no file. [`requirements`] decides from the facts alone whether the broker can run.
//! [`derive`] makes a [`Profile`] of them; the tuners of [`tuners`] compare the machine with it; [`apply`] changes what they
//! want changed, and [`undo`] takes it back.
#![deny(unsafe_code)]

mod cgroup;
mod change;
mod cpu_list;
mod cpus;
mod data_dir;
mod details;
mod disk;
mod facts;
mod io_uring;
mod kernel;
mod knobs;
mod limits;
mod memory;
mod net;
mod nics;
mod profile;
mod requirements;
mod roots;
#[allow(unsafe_code)]
mod sys;
pub mod table;
#[cfg(test)]
mod tests;
mod verify;

pub use change::{
    Applied, JOURNAL_PATH, Journal, JournalEntry, JournalError, Report, Undone, Wanted, apply, look, script,
    undo, wanted,
};
pub use cpu_list::{CPU_ID_MAX, CpuList, CpuListError};
pub use cpus::{Cpu, Cpus, Node};
pub use data_dir::{BlockDevice, DataDir, DirectIo, FileSystem, Space, WriteCache};
pub use details::{Cache, Details, DiskQueue, Frequency, IdleState, NicSettings};
pub use disk::{DiskError, DiskProfile, Load, Plan as DiskPlan, Row, measure as measure_disk};
pub use facts::{Facts, FactsError};
pub use io_uring::{IoUring, Refusal};
pub use kernel::{Kernel, Version};
pub use knobs::{Change, Finding, Machine, NicOption, Place, PlaceError, Settings, Tuner, Verdict, tuners};
pub use limits::{Limit, Limits};
pub use memory::Memory;
pub use net::{NetError, NetRow, measure as measure_net, serve as serve_net};
pub use nics::{Irq, Nic, nics};
pub use profile::{
    DeriveError, Drift, ExpectedSetting, Goal, MadeFor, MemoryPerShard, PROFILE_VERSION, Profile,
    ProfileError, Request as ProfileRequest, ShardPlan, Steering, WriteDepth, derive, drift,
};
pub use requirements::{KERNEL_OLDEST, Needs, Unmet, requirements};
pub use roots::Roots;
pub use verify::{
    CommandError, CommandProbe, DiskProbe, Judgement, NetProbe, PAIRS_MIN, Probe, ProbeError, Verified,
    VerifyError, verify,
};
