//! Which processes there are, on which ports, with which configuration.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::ClusterArgs;
use crate::config::{PEER_PORT_DISTANCE, PORT_STRIDE};

/// From the ports of one node to those of the next.
const NODE_DISTANCE: u16 = 1000;

/// Small segments, since every shard of every node prepares two of them at start.
const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;

/// More than these and ports run out.
const SHARDS_MAX: u16 = 64;

const CLUSTER: &str = "TrialCluster";
const GROUP: &str = "trial";

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) dir: PathBuf,
    pub(super) group: String,
    pub(super) namesrvs: Vec<Process>,
    pub(super) nodes: Vec<Process>,
    shards: u16,
}

/// One process and where it keeps what.
#[derive(Debug)]
pub(super) struct Process {
    /// What it is called at the console: `1` is node 1, `n1` NameServer 1.
    pub(super) key: String,
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) config: PathBuf,
    pub(super) log: PathBuf,
    pub(super) data: PathBuf,
    /// All that it listens on, the first one first.
    pub(super) ports: Vec<u16>,
}

impl Plan {
    pub(super) fn new(args: &ClusterArgs) -> anyhow::Result<Plan> {
        let ClusterArgs { nodes, namesrvs, shards, ref data, namesrv_port, base_port } = *args;
        ensure!(
            nodes % 2 == 1 && nodes <= 7,
            "--nodes {nodes}: expected 1, 3, 5 or 7, for an even number survives no more deaths than one less"
        );
        ensure!((1..=9).contains(&namesrvs), "--namesrvs {namesrvs}: expected 1 to 9");
        ensure!((1..=SHARDS_MAX).contains(&shards), "--shards {shards}: expected 1 to {SHARDS_MAX}");
        // Processes find their files wherever they are started from.
        let dir = std::path::absolute(data).with_context(|| format!("--data {}", data.display()))?;
        let namesrvs = (0..namesrvs)
            .map(|number| {
                let port = namesrv_port.checked_add(number);
                let port = port.with_context(|| format!("--namesrv-port {namesrv_port}: no ports left"))?;
                Ok(Process::new(&dir, format!("n{}", number + 1), "namesrv", number + 1, vec![port]))
            })
            .collect::<anyhow::Result<_>>()?;
        let nodes = (0..nodes)
            .map(|number| {
                let ports = (NODE_DISTANCE.checked_mul(number))
                    .and_then(|distance| base_port.checked_add(distance))
                    .filter(|first| first.checked_add(PORT_STRIDE * shards).is_some())
                    .with_context(|| {
                        format!("--base-port {base_port}: no ports left for node {}", number + 1)
                    })
                    .map(|first| {
                        let shards = (0..shards).map(move |shard| first + PORT_STRIDE * shard);
                        shards.flat_map(|port| [port, port + PEER_PORT_DISTANCE]).collect()
                    })?;
                Ok(Process::new(&dir, (number + 1).to_string(), "node", number + 1, ports))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Plan { dir, group: GROUP.into(), namesrvs, nodes, shards })
    }

    /// All processes, in the order in which they start.
    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.namesrvs.iter().chain(&self.nodes)
    }

    /// Refuses, before anything is started, what cannot be listened on.
    pub(super) fn check_ports(&self) -> anyhow::Result<()> {
        for process in self.processes() {
            for &port in &process.ports {
                TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| {
                    format!(
                        "{} cannot listen on port {port}; choose others by --namesrv-port and --base-port",
                        process.name
                    )
                })?;
            }
        }
        Ok(())
    }

    /// Writes the configuration of every process into the directory.
    pub(super) fn write_files(&self) -> anyhow::Result<()> {
        for (process, text) in self.files() {
            std::fs::create_dir_all(&process.data)
                .with_context(|| format!("cannot make {}", process.data.display()))?;
            std::fs::write(&process.config, text)
                .with_context(|| format!("cannot write {}", process.config.display()))?;
        }
        Ok(())
    }

    fn files(&self) -> impl Iterator<Item = (&Process, String)> {
        let namesrvs = self.namesrvs.iter().map(|process| (process, self.namesrv_file(process)));
        namesrvs.chain(self.nodes.iter().map(|process| (process, self.node_file(process))))
    }

    fn namesrv_file(&self, process: &Process) -> String {
        format!(
            "# Start it by hand:  apogee namesrv --config {}\n\
             listen = \"127.0.0.1\"\n\
             port = {}\n\
             data_dir = {:?}\n",
            process.config.display(),
            process.ports[0],
            process.data
        )
    }

    fn node_file(&self, process: &Process) -> String {
        let nodes: String = self
            .nodes
            .iter()
            .map(|node| {
                format!(
                    "    {{ id = {}, address = \"127.0.0.1\", base_port = {} }},\n",
                    node.key, node.ports[0]
                )
            })
            .collect();
        format!(
            "# Start it by hand:  apogee broker --config {}\n\
             cluster = {CLUSTER:?}\n\
             group = {GROUP:?}\n\
             namesrv = {:?}\n\
             listen = \"127.0.0.1\"\n\
             base_port = {}\n\
             shards = {}\n\
             data_dir = {:?}\n\
             # Small, for trying out; the default is 1 GiB.\n\
             segment_bytes = {SEGMENT_BYTES}\n\
             \n\
             [replication]\n\
             node = {}\n\
             nodes = [\n{nodes}]\n",
            process.config.display(),
            self.namesrv_list(),
            process.ports[0],
            self.shards,
            process.data,
            process.key
        )
    }

    pub(super) fn namesrv_addresses(&self) -> Vec<SocketAddr> {
        self.namesrvs.iter().map(|process| (Ipv4Addr::LOCALHOST, process.ports[0]).into()).collect()
    }

    /// As clients are told.
    pub(super) fn namesrv_list(&self) -> String {
        self.namesrv_addresses().iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(";")
    }

    /// What the files say, read as the processes read it.
    #[cfg(test)]
    pub(super) fn configurations(
        &self,
    ) -> (Vec<crate::config::NamesrvConfig>, Vec<crate::config::BrokerConfig>) {
        let files: Vec<_> = self.files().map(|(_, text)| text).collect();
        let (namesrvs, nodes) = files.split_at(self.namesrvs.len());
        let namesrvs = namesrvs.iter().map(|text| toml::from_str(text).unwrap()).collect();
        (namesrvs, nodes.iter().map(|text| toml::from_str(text).unwrap()).collect())
    }
}

impl Process {
    fn new(dir: &Path, key: String, role: &'static str, number: u16, ports: Vec<u16>) -> Process {
        let name = format!("{role}-{number}");
        Process {
            config: dir.join(format!("{name}.toml")),
            log: dir.join(format!("{name}.log")),
            data: dir.join(&name),
            key,
            name,
            role,
            ports,
        }
    }

    /// The sub-command that plays its role.
    pub(super) fn command(&self) -> &'static str {
        if self.role == "node" { "broker" } else { self.role }
    }
}
