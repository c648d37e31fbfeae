//! The kernel's version, its clock, and whether it runs on hardware of its own.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::facts::FactsError;
use crate::roots::{Roots, field, read, read_line};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// As `uname -r` prints it.
    pub release: String,
    /// The release's leading two numbers. Absent when it does not begin with such.
    pub version: Option<Version>,
    /// What the kernel reads time from. `tsc`, `kvm-clock` and `arch_sys_counter` are read without a system
    /// call; with `hpet` and `acpi_pm` each look at the clock costs microseconds.
    pub clock_source: Option<String>,
    /// What the machine is a guest of; absent on hardware of its own. `unnamed hypervisor` where it does not say.
    pub virtualised_by: Option<String>,
}

/// A kernel's version, compared by its first two numbers: what a kernel can do changes only with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl Version {
    pub(crate) fn of_release(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some(Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Kernel {
    /// `cpuinfo` is the text of `/proc/cpuinfo`.
    pub(crate) fn collect(roots: &Roots, cpuinfo: &str) -> Result<Self, FactsError> {
        let path = roots.proc("sys/kernel/osrelease");
        let release = read(&path).map_err(|error| FactsError::unreadable(&path, error))?.trim().to_owned();
        Ok(Self {
            version: Version::of_release(&release),
            release,
            clock_source: read_line(
                &roots.sys("devices/system/clocksource/clocksource0/current_clocksource"),
            ),
            virtualised_by: virtualised_by(roots, cpuinfo),
        })
    }
}

/// Names under which hypervisors present their guests' mainboards. A maker's name alone says nothing:
/// bare-metal machines of a cloud carry it too.
const GUEST_BOARDS: [&str; 8] =
    ["QEMU", "KVM", "VMware", "VirtualBox", "Xen", "Bochs", "Parallels", "Virtual Machine"];

fn virtualised_by(roots: &Roots, cpuinfo: &str) -> Option<String> {
    // Xen guests say so here, with or without the processor flag.
    let xen = read_line(&roots.sys("hypervisor/type"));
    // x86 only: the bit that every hypervisor sets in CPUID for its guests.
    let flagged = field(cpuinfo, "flags")
        .is_some_and(|flags| flags.split_ascii_whitespace().any(|flag| flag == "hypervisor"));
    let board: Vec<String> = ["sys_vendor", "product_name"]
        .iter()
        .filter_map(|name| read_line(&roots.sys(&format!("class/dmi/id/{name}"))))
        .collect();
    let board = board.join(" ");
    let guest_board = GUEST_BOARDS.iter().any(|name| board.contains(name));
    if xen.is_none() && !flagged && !guest_board {
        return None;
    }
    let named = (!board.is_empty()).then_some(board);
    Some(xen.or(named).unwrap_or_else(|| "unnamed hypervisor".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_first_two_numbers_of_a_release() {
        let version = |release: &str| Version::of_release(release).map(|version| version.to_string());
        assert_eq!(version("6.18.44-fc"), Some("6.18".into()));
        assert_eq!(version("5.15-rc2"), Some("5.15".into()));
        assert_eq!(version("4.18.0-553.el8_10.x86_64"), Some("4.18".into()));
        assert_eq!(version("next"), None);
        assert_eq!(version("6"), None);
    }

    #[test]
    fn versions_compare_as_numbers_not_as_text() {
        assert!(Version { major: 5, minor: 10 } > Version { major: 5, minor: 8 });
        assert!(Version { major: 6, minor: 0 } > Version { major: 5, minor: 19 });
    }
}
