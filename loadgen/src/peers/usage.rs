//! What the kernel says a process has used. Source: proc_pid_stat(5), proc_pid_status(5).

use std::io;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// CPU time of all threads of a process, also of those that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    pub user: Duration,
    pub system: Duration,
}

impl CpuTime {
    pub fn total(self) -> Duration {
        self.user + self.system
    }
}

impl Add for CpuTime {
    type Output = CpuTime;

    fn add(self, other: CpuTime) -> CpuTime {
        CpuTime { user: self.user + other.user, system: self.system + other.system }
    }
}

impl Sub for CpuTime {
    type Output = CpuTime;

    fn sub(self, earlier: CpuTime) -> CpuTime {
        CpuTime {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// Bytes of memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// In RAM now.
    pub resident: u64,
    /// The most that was ever in RAM.
    pub resident_peak: u64,
    /// Of `resident`: what no file backs, heap and stacks.
    pub anonymous: u64,
    /// Of `resident`: pages of mapped files, which the kernel can take back.
    pub file: u64,
}

impl Add for Memory {
    type Output = Memory;

    fn add(self, other: Memory) -> Memory {
        Memory {
            resident: self.resident + other.resident,
            resident_peak: self.resident_peak + other.resident_peak,
            anonymous: self.anonymous + other.anonymous,
            file: self.file + other.file,
        }
    }
}

/// `process` is an id or "self".
pub fn cpu_time(process: &str) -> io::Result<CpuTime> {
    // SAFETY: takes and returns plain numbers.
    let ticks_per_s = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    parse_stat(&text, ticks_per_s).ok_or_else(|| malformed(&text))
}

pub fn memory(process: u32) -> io::Result<Memory> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    parse_status(&text).ok_or_else(|| malformed(&text))
}

fn malformed(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not understood: {text}"))
}

/// The name in the second field may hold anything, blanks and brackets too; the last bracket ends it.
fn parse_stat(text: &str, ticks_per_s: u64) -> Option<CpuTime> {
    let (_, after_name) = text.rsplit_once(')')?;
    // The state, field 3, comes first here; utime and stime are fields 14 and 15.
    let mut times = after_name.split_ascii_whitespace().skip(14 - 3);
    let mut next = || {
        let ticks: u64 = times.next()?.parse().ok()?;
        Some(Duration::from_nanos(ticks * 1_000_000_000 / ticks_per_s))
    };
    Some(CpuTime { user: next()?, system: next()? })
}

fn parse_status(text: &str) -> Option<Memory> {
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(number * 1024)
    };
    Some(Memory {
        resident: kib("VmRSS")?,
        resident_peak: kib("VmHWM")?,
        anonymous: kib("RssAnon")?,
        file: kib("RssFile")? + kib("RssShmem")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_brackets_and_blanks() {
        let text = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 200 3 4 250 75 9 9 20 0 12 0 100 1 2";
        let expected = CpuTime { user: Duration::from_millis(2_500), system: Duration::from_millis(750) };
        assert_eq!(parse_stat(text, 100), Some(expected));
        assert_eq!(expected.total(), Duration::from_millis(3_250));
        assert_eq!(parse_stat("42 (a) S 1 2", 100), None);
    }

    #[test]
    fn memory_is_told_apart_by_what_backs_it() {
        let text = "Name:\tx\nVmHWM:\t    9000 kB\nVmRSS:\t    8000 kB\nRssAnon:\t    5000 kB\n\
                    RssFile:\t    2000 kB\nRssShmem:\t    1000 kB\n";
        let kib = 1024;
        let expected = Memory {
            resident: 8000 * kib,
            resident_peak: 9000 * kib,
            anonymous: 5000 * kib,
            file: 3000 * kib,
        };
        assert_eq!(parse_status(text), Some(expected));
        assert_eq!(parse_status("VmHWM:\t 1 kB\n"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        assert!(cpu_time("self").is_ok());
        assert!(memory(std::process::id()).unwrap().resident_peak > 0);
    }
}
