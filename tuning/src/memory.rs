//! Memory of the machine, and what the process's control group leaves of it.

use serde::Serialize;

use crate::cgroup;
use crate::facts::FactsError;
use crate::roots::{Roots, kib_field, read};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub total_bytes: u64,
    /// What could be allocated now without swapping, by the kernel's estimate.
    pub available_bytes: Option<u64>,
    /// The tightest limit of the process's control groups, where it is below the machine's memory.
    pub cgroup_limit_bytes: Option<u64>,
}

impl Memory {
    /// What the process may use of it.
    #[must_use]
    pub fn usable_bytes(&self) -> u64 {
        self.cgroup_limit_bytes.unwrap_or(self.total_bytes)
    }

    pub(crate) fn collect(roots: &Roots) -> Result<Self, FactsError> {
        let path = roots.proc("meminfo");
        let text = read(&path).map_err(|error| FactsError::unreadable(&path, error))?;
        let total_bytes =
            kib_field(&text, "MemTotal").ok_or_else(|| FactsError::missing(&path, "MemTotal"))?;
        Ok(Self {
            total_bytes,
            available_bytes: kib_field(&text, "MemAvailable"),
            cgroup_limit_bytes: cgroup::memory_limit_bytes(roots).filter(|&limit| limit < total_bytes),
        })
    }
}
