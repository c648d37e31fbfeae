//! How many connections and packets may wait.

use super::{Finding, Machine, Tuner};

/// Of the broker's own listeners; a smaller limit of the kernel would cut it.
const CONNECTIONS_WAITING: u64 = 4096;

const PACKETS_WAITING: u64 = 5000;

pub(super) struct ListenBacklog;
pub(super) struct DeviceBacklog;

impl Tuner for ListenBacklog {
    fn name(&self) -> &'static str {
        "listen-backlog"
    }

    fn why(&self) -> &'static str {
        "When thousands of clients come back at once after a failover, those beyond the backlog are dropped and try again a second later."
    }

    fn cost(&self) -> &'static str {
        "1 s and more for the clients that do not fit"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        ["proc/sys/net/core/somaxconn", "proc/sys/net/ipv4/tcp_max_syn_backlog"]
            .into_iter()
            .filter_map(|path| {
                let finding = machine.file_at_least(path, CONNECTIONS_WAITING)?;
                Some(Finding { target: path.rsplit('/').next().unwrap_or_default().to_owned(), ..finding })
            })
            .collect()
    }
}

impl Tuner for DeviceBacklog {
    fn name(&self) -> &'static str {
        "packet-backlog"
    }

    fn why(&self) -> &'static str {
        "Packets that arrive while a core is busy are dropped beyond this number, and TCP sends them again much later."
    }

    fn cost(&self) -> &'static str {
        "200 ms for the connection that lost one"
    }

    fn look(&self, machine: &Machine<'_>) -> Vec<Finding> {
        machine.file_at_least("proc/sys/net/core/netdev_max_backlog", PACKETS_WAITING).into_iter().collect()
    }
}
