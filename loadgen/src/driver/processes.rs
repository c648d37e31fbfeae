//! Finds the brokers' processes and reads their CPU time and memory, if they run on this machine.
//!
//! Runs on the thread that watches a run, never on one that sends: a sample is two small files per process.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::report::usage::{Cadence, ProcessUsage, Usage, UsageSample};

/// Brokers' processes that are watched; of more, the first.
const BROKERS_MAX: usize = 16;

/// `/proc/net/tcp`'s number for a listening socket. Source: Linux, `include/net/tcp_states.h`.
const LISTENING: &str = "0A";

/// Samples the processes of a run.
#[derive(Debug)]
pub(super) struct Sampler {
    cadence: Cadence,
    usage: Usage,
    page_bytes: f64,
    ticks_per_second: f64,
}

impl Sampler {
    /// Watches this process, and the ones that listen at `brokers` or, if given, just `broker_pid`.
    pub(super) fn new(brokers: &[SocketAddr], broker_pid: Option<u32>) -> Sampler {
        let own = std::process::id();
        let mut pids = match broker_pid {
            Some(pid) => vec![pid],
            None => brokers.iter().filter(|address| is_local(address.ip())).flat_map(listeners).collect(),
        };
        pids.sort_unstable();
        pids.dedup();
        // A broker inside this process cannot be told apart from the generator.
        pids.retain(|pid| *pid != own);
        pids.truncate(BROKERS_MAX);
        let process = |pid| ProcessUsage { pid, name: name(pid), samples: Vec::new() };
        let usage = Usage { generator: process(own), brokers: pids.into_iter().map(process).collect() };
        // SAFETY: `sysconf` only reads a constant of the system.
        let constant = |which| unsafe { libc::sysconf(which) } as f64;
        let (page_bytes, ticks_per_second) = (constant(libc::_SC_PAGESIZE), constant(libc::_SC_CLK_TCK));
        Sampler { cadence: Cadence::default(), usage, page_bytes, ticks_per_second }
    }

    /// Takes a sample if one is due; `elapsed` since the first message was due.
    pub(super) fn on_tick(&mut self, elapsed: Duration) {
        let at_s = elapsed.as_secs_f64();
        // Before the first message nothing is worth a sample.
        if elapsed.is_zero() || !self.cadence.is_due(at_s) {
            return;
        }
        let Usage { generator, brokers } = &mut self.usage;
        for process in std::iter::once(&mut *generator).chain(brokers.iter_mut()) {
            // A process that ended has no further samples, which is what a reader sees.
            let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).ok();
            let Some((cpu_ticks, pages)) = stat.as_deref().and_then(cpu_and_memory) else { continue };
            process.samples.push(UsageSample {
                at_s,
                cpu_s: cpu_ticks as f64 / self.ticks_per_second,
                resident_mib: pages as f64 * self.page_bytes / (1024.0 * 1024.0),
            });
        }
        self.cadence.thin(std::iter::once(generator).chain(brokers));
    }

    /// What was seen.
    pub(super) fn finish(self) -> Usage {
        self.usage
    }
}

/// Whether packets to `address` stay on this machine: only then can a socket be bound to it.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// The processes that listen on the port of `address`. Those of other users stay hidden.
fn listeners(address: &SocketAddr) -> Vec<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let inodes: Vec<u64> = tables.iter().flat_map(|table| listening_inodes(table, address.port())).collect();
    if inodes.is_empty() {
        return vec![];
    }
    let sockets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds_one = |pid: &u32| {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        let mut links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        links.any(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str()))
    };
    pids.filter(holds_one).collect()
}

/// Inodes of the sockets that listen on a port. Source: Linux, `get_tcp4_sock` and `get_tcp6_sock`.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    let inode = |line: &str| {
        let mut words = line.split_whitespace();
        let local_port = words.nth(1)?.rsplit_once(':')?.1;
        let is_listening = words.nth(1)? == LISTENING;
        let inode = words.nth(5)?.parse().ok()?;
        (is_listening && u16::from_str_radix(local_port, 16) == Ok(port)).then_some(inode)
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// CPU time in clock ticks and resident memory in pages, from `/proc/<pid>/stat`. Source: `proc_pid_stat(5)`.
fn cpu_and_memory(stat: &str) -> Option<(u64, u64)> {
    // The name stands in parentheses and may hold anything, spaces and parentheses too.
    let after_name = &stat[stat.rfind(')')? + 1..];
    // Fields are numbered from 1; the state is number 3.
    let field = |number: usize| after_name.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
    Some((field(14)? + field(15)?, field(24)?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_kernels_tables_are_understood() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:2694 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0\n   \
            1: 0100007F:2694 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0 20 4 30 10 -1\n";
        assert_eq!(listening_inodes(table, 0x2694), [4242]);
        assert!(listening_inodes(table, 80).is_empty());
        let stat = "17 (a (b) c) S 1 17 17 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 3 0 800 99999 1234 18446744073709551615";
        assert_eq!(cpu_and_memory(stat), Some((300, 1_234)));
        assert_eq!(cpu_and_memory("17 (cut"), None);
    }

    #[test]
    fn a_listener_on_this_machine_is_found_and_sampled() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        assert!(listeners(&address).contains(&std::process::id()));
        assert!(is_local(address.ip()) && !is_local(IpAddr::from([192, 0, 2, 1])));

        let mut sampler = Sampler::new(&[address], None);
        assert!(sampler.usage.brokers.is_empty(), "a broker in this process is the generator");
        for millis in [0, 1, 100, 1_001] {
            sampler.on_tick(Duration::from_millis(millis));
        }
        let generator = sampler.finish().generator;
        assert_eq!(generator.samples.len(), 2);
        assert!(generator.samples[0].resident_mib > 1.0, "{generator:?}");
    }
}
