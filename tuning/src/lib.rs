//! Facts about the machine a broker runs on, and whether it can run there.
//!
//! [`Facts::collect`] asks once, at start: files under `/proc` and `/sys` through [`Roots`], a handful of
//! system calls for what stands in no file. [`requirements`] decides from the facts alone.
#![deny(unsafe_code)]

mod cgroup;
mod cpu_list;
mod cpus;
mod data_dir;
mod facts;
mod io_uring;
mod kernel;
mod limits;
mod memory;
mod requirements;
mod roots;
#[allow(unsafe_code)]
mod sys;
#[cfg(test)]
mod tests;

pub use cpu_list::{CPU_ID_MAX, CpuList, CpuListError};
pub use cpus::{Cpu, Cpus, Node};
pub use data_dir::{BlockDevice, DataDir, DirectIo, FileSystem, Space, WriteCache};
pub use facts::{Facts, FactsError};
pub use io_uring::{IoUring, Refusal};
pub use kernel::{Kernel, Version};
pub use limits::{Limit, Limits};
pub use memory::Memory;
pub use requirements::{KERNEL_OLDEST, Needs, Unmet, requirements};
pub use roots::Roots;
