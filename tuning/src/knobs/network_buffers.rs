//! How much a connection may have under way.

use super::{Change, Finding, Machine, Place, Tuner, Verdict};

/// A window of 16 MiB fills 10 Gbit/s at a round trip of 13 ms.
const BUFFER_BYTES_MAX: u64 = 16 << 20;

pub(super) struct Buffers;
pub(super) struct IdleRestart;

impl Tuner for Buffers {
    fn name(&self) -> &'static str {
        "tcp-buffers"
    }

    fn why(&self) -> &'static str {
        "A connection whose window cannot grow stays below the link's speed, replication and catching-up consumers first."
    }

    fn cost(&self) -> &'static str {
        "throughput of one connection over links with long round trips"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let names = ["net/core/rmem_max", "net/core/wmem_max"];
        let limits = names.into_iter().filter_map(|name| {
            let finding = machine.file_at_least(&format!("proc/sys/{name}"), BUFFER_BYTES_MAX)?;
            Some(Finding { target: name.rsplit('/').next().unwrap_or_default().to_owned(), ..finding })
        });
        let windows = ["tcp_rmem", "tcp_wmem"].into_iter().filter_map(|name| window(machine, name));
        limits.chain(windows).map(|finding| machine.unless_shared(finding)).collect()
    }
}

/// Least, default and most bytes of a window; only the most is raised.
fn window(machine: &Machine<'_>, name: &str) -> Option<Finding> {
    let path = format!("proc/sys/net/ipv4/{name}");
    let found = machine.read(&path)?;
    let [least, default, most] = found.split_ascii_whitespace().collect::<Vec<_>>()[..] else { return None };
    let shown = format!("at most {most}");
    if most.parse::<u64>().is_ok_and(|most| most >= BUFFER_BYTES_MAX) {
        return Some(Finding::right(name, shown));
    }
    let value = format!("{least} {default} {BUFFER_BYTES_MAX}");
    let change = Change { place: Place::File(path.into()), value };
    Some(Finding::new(name, shown, format!("at most {BUFFER_BYTES_MAX}"), Verdict::Change(vec![change])))
}

impl Tuner for IdleRestart {
    fn name(&self) -> &'static str {
        "tcp-idle-restart"
    }

    fn why(&self) -> &'static str {
        "After a pause a connection starts with a small window again, so a burst to a waiting consumer takes several round trips."
    }

    fn cost(&self) -> &'static str {
        "some round trips for bursts after a pause"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        let finding = machine.file("", "proc/sys/net/ipv4/tcp_slow_start_after_idle", "0");
        finding.map(|finding| machine.unless_shared(finding)).into_iter().collect()
    }
}
