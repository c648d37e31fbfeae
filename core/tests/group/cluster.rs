//! Three nodes, each a machine with a NameServer and a broker with several shards.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::fabric::Fabric;
use crate::hosts::{CLIENTS, Host, Hosts};
use crate::probe::{self, Asker, Routes};
use crate::process::{APOGEE, Process};

/// Of a group, each with a NameServer.
pub(crate) const NODES: usize = 3;
/// One more machine, for a node that takes another's place.
pub(crate) const SPARE: usize = 4;

const NAMESRV_PORT: u16 = 9876;
const BROKER_PORT: u16 = 10911;
/// The smallest, for there are several shards on each of three nodes of one machine, and two segments each from the start.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;
/// For a leader of every shard, and all of them known to the NameServers.
const SETTLED_TIME_MAX: Duration = Duration::from_secs(60);
/// For leaders to be led back to the nodes that are to have them.
const SPREAD_TIME_MAX: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// A topic that every broker has: its route names them all.
pub(crate) const TOPIC_OF_ALL: &str = "TBW102";

/// What kind of cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) shards: u16,
    /// Nodes of the group: one to [`NODES`]. One is a broker by itself, without replication.
    pub(crate) replicas: usize,
    /// A file system of its own for each node, so large, that can be full or slow.
    pub(crate) disk_bytes: Option<u64>,
    /// How long a node that was told to stop goes on for clients that do not know yet.
    pub(crate) linger: Duration,
    /// Network namespaces with faults rather than loopback addresses.
    pub(crate) namespaces: bool,
}

pub(crate) struct Cluster {
    shape: Shape,
    begun: Instant,
    work: PathBuf,
    nodes: Vec<Node>,
    hosts: Hosts,
}

/// Number `n` is on host `n`.
struct Node {
    config: PathBuf,
    data: PathBuf,
    disk: Option<Disk>,
    namesrv: Option<Process>,
    broker: Option<Process>,
}

impl Cluster {
    /// All of it, settled.
    pub(crate) fn start(work: &Path, shape: Shape, settings: &str) -> Cluster {
        let hosts = if shape.namespaces { Hosts::new(SPARE) } else { Hosts::on_loopback(SPARE + 1) };
        let mut cluster =
            Cluster { shape, begun: Instant::now(), work: work.to_owned(), nodes: Vec::new(), hosts };
        for number in 1..=SPARE {
            let folder = work.join(format!("node-{number}"));
            std::fs::create_dir_all(&folder).expect("make a node's folder");
            let host = cluster.host(number);
            let disk =
                shape.disk_bytes.filter(|_| host.has_mounts()).map(|bytes| Disk::new(host, &folder, bytes));
            let data = disk.as_ref().map_or(folder.as_path(), Disk::folder).join("data");
            let config = folder.join("broker.toml");
            std::fs::write(&config, cluster.config(number, &data, settings)).expect("write a configuration");
            cluster.nodes.push(Node { config, data, disk, namesrv: None, broker: None });
        }
        for number in 1..=NODES {
            cluster.start_namesrv(number);
        }
        for number in 1..=shape.replicas {
            cluster.launch(number);
        }
        for number in 1..=shape.replicas {
            cluster.node_mut(number).broker.as_mut().expect("just launched").await_ready();
        }
        cluster.await_settled();
        cluster
    }

    fn config(&self, number: usize, data: &Path, settings: &str) -> String {
        let namesrvs = self.namesrvs().map(|address| format!("\"{address}\"")).join(", ");
        let mut text = format!(
            "group = \"set\"\nnamesrv = [{namesrvs}]\nlisten = \"{}\"\nbase_port = {BROKER_PORT}\ndata_dir = {data:?}\n\
             shards = {}\nsegment_bytes = {SEGMENT_BYTES}\ntail_cache_bytes = {}\ndisk_reserve_bytes = {}\n{settings}",
            self.host(number).ip,
            self.shape.shards,
            8 << 20,
            if self.shape.disk_bytes.is_some() { 16 << 20 } else { 0 },
        );
        if self.shape.replicas > 1 {
            let joins = number > self.shape.replicas;
            text += &format!("[replication]\nnode = {number}\njoin = {joins}\nnodes = [\n");
            for other in (1..=self.shape.replicas).chain(joins.then_some(number)) {
                text += &format!("  {{ id = {other}, address = \"{}\" }},\n", self.host(other).ip);
            }
            let linger_ms = self.shape.linger.as_millis();
            text += &format!("]\npreferred_leaders_wait_ms = 1000\nstop_linger_ms = {linger_ms}\n");
        }
        text
    }

    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    fn host(&self, number: usize) -> &Host {
        self.hosts.host(number)
    }

    pub(crate) fn clients(&self) -> &Host {
        self.hosts.host(CLIENTS)
    }

    pub(crate) fn fabric(&self) -> Option<&Fabric> {
        self.hosts.fabric()
    }

    fn node_mut(&mut self, number: usize) -> &mut Node {
        &mut self.nodes[number - 1]
    }

    pub(crate) fn disk(&self, number: usize) -> Option<&Disk> {
        self.nodes[number - 1].disk.as_ref()
    }

    /// A node's data folder as this process sees it.
    pub(crate) fn data_as_seen(&self, number: usize) -> PathBuf {
        self.host(number).path(&self.nodes[number - 1].data)
    }

    pub(crate) fn namesrvs(&self) -> [SocketAddr; NODES] {
        std::array::from_fn(|i| SocketAddr::new(self.host(i + 1).ip, NAMESRV_PORT))
    }

    /// As clients are told of them.
    pub(crate) fn namesrv_list(&self) -> String {
        self.namesrvs().map(|address| address.to_string()).join(";")
    }

    /// The node whose broker listens there.
    pub(crate) fn node_at(&self, address: SocketAddr) -> usize {
        (1..=SPARE).find(|number| self.host(*number).ip == address.ip()).expect("an address of a node")
    }

    pub(crate) fn start_namesrv(&mut self, number: usize) {
        let folder = self.work.join(format!("node-{number}"));
        let (ip, port, data) =
            (self.host(number).ip.to_string(), NAMESRV_PORT.to_string(), folder.join("namesrv"));
        let data = data.to_str().expect("a plain path");
        let args = ["namesrv", "--listen", &ip, "--port", &port, "--data", data];
        let mut process = Process::start(self.host(number), &args, &folder.join("namesrv.log"));
        process.await_ready();
        self.node_mut(number).namesrv = Some(process);
    }

    pub(crate) fn kill_namesrv(&mut self, number: usize) {
        self.node_mut(number).namesrv.take().expect("a NameServer that runs").kill();
    }

    /// Starts a node's broker and does not wait for it.
    pub(crate) fn launch(&mut self, number: usize) {
        let node = &self.nodes[number - 1];
        assert!(node.broker.is_none(), "node {number} runs");
        let config = node.config.to_str().expect("a plain path").to_owned();
        let log = self.log(number);
        let process = Process::start(self.host(number), &["broker", "--config", &config], &log);
        self.node_mut(number).broker = Some(process);
    }

    /// Starts a node's broker; returns when it says that it is ready.
    pub(crate) fn restart(&mut self, number: usize) {
        self.launch(number);
        self.node_mut(number).broker.as_mut().expect("just launched").await_ready();
    }

    pub(crate) fn log(&self, number: usize) -> PathBuf {
        self.work.join(format!("node-{number}")).join("broker.log")
    }

    pub(crate) fn broker(&mut self, number: usize) -> &mut Process {
        self.node_mut(number).broker.as_mut().expect("a broker that runs")
    }

    pub(crate) fn runs(&self, number: usize) -> bool {
        self.nodes[number - 1].broker.is_some()
    }

    fn running(&self) -> Vec<usize> {
        (1..=SPARE).filter(|number| self.runs(*number)).collect()
    }

    /// What `apogee admin group` says to these words, and whether it was content.
    pub(crate) fn admin(&self, words: &[&str]) -> (bool, String) {
        let namesrvs = self.namesrv_list();
        let mut command = self.clients().command(APOGEE);
        command.args(["admin", "group"]).args(words).args(["--namesrv", &namesrvs]);
        let output = command.output().expect("run apogee admin");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// The same, of which something is wanted that must be possible.
    pub(crate) fn administer(&self, words: &[&str]) {
        let begun = Instant::now();
        let (well, said) = self.admin(words);
        println!("  apogee admin group {}: {:.1} s", words.join(" "), begun.elapsed().as_secs_f64());
        assert!(well, "{said}");
    }

    pub(crate) fn ip(&self, number: usize) -> String {
        self.host(number).ip.to_string()
    }

    /// A stopped node's disk is another one.
    pub(crate) fn wipe(&mut self, number: usize) {
        assert!(!self.runs(number), "node {number} runs");
        std::fs::remove_dir_all(self.data_as_seen(number)).expect("remove a node's data");
        // It has to be added again, as the group has it no more.
        let config = &self.nodes[number - 1].config;
        let text = std::fs::read_to_string(config).expect("read a configuration");
        std::fs::write(config, text.replace("join = false", "join = true")).expect("write a configuration");
    }

    pub(crate) fn kill(&mut self, number: usize) {
        self.node_mut(number).broker.take().expect("a broker that runs").kill();
    }

    /// In good order.
    pub(crate) fn stop(&mut self, number: usize) -> Duration {
        self.node_mut(number).broker.take().expect("a broker that runs").stop()
    }

    /// What the first NameServer that answers knows of the brokers' addresses.
    pub(crate) fn routes(&self) -> Option<Routes> {
        probe::on_host(self.clients(), || probe::routes(&self.namesrvs(), TOPIC_OF_ALL))
    }

    /// The nodes that lead the shards, by shard; empty where a shard has no leader.
    pub(crate) fn leaders(&self) -> Vec<Option<usize>> {
        let routes = self.routes().unwrap_or_default();
        (0..self.shape.shards)
            .map(|shard| {
                routes.get(&broker_name(shard)).and_then(|ids| ids.get(&0)).map(|at| self.node_at(*at))
            })
            .collect()
    }

    /// Asks a shard's leader to hand over.
    pub(crate) fn transfer(&self, shard: u16, to: usize) {
        let leader = self.routes().and_then(|routes| routes.get(&broker_name(shard))?.get(&0).copied());
        let leader = leader.expect("a leader of the shard");
        probe::on_host(self.clients(), || Asker::connect(leader)?.transfer(to)).expect("ask for a transfer");
    }

    /// Until every node leads as many shards as any other, give or take one, and neighbours among the shards have other
    /// leaders: a client goes from one broker name to the next.
    pub(crate) fn await_spread(&self) {
        let begun = Instant::now();
        loop {
            let leaders = self.leaders();
            let led = |number| leaders.iter().filter(|leader| **leader == Some(number)).count();
            let led = self.running().into_iter().map(led).collect::<Vec<_>>();
            let is_even =
                led.iter().max().zip(led.iter().min()).is_some_and(|(most, least)| most - least <= 1);
            if is_even && leaders.windows(2).all(|pair| pair[0].is_some() && pair[0] != pair[1]) {
                return;
            }
            assert!(begun.elapsed() < SPREAD_TIME_MAX, "leaders are {leaders:?} after {SPREAD_TIME_MAX:?}");
            std::thread::sleep(POLL);
        }
    }

    /// Until every NameServer that runs knows a leader of every shard, and every node that runs as its leader or follower.
    pub(crate) fn await_settled(&mut self) {
        let running = self.running();
        self.await_known(|cluster, routes| cluster.is_whole(routes, &running));
    }

    /// Until no NameServer that runs knows a node that was removed, and still runs.
    pub(crate) fn await_forgotten(&mut self, number: usize) {
        self.await_known(|cluster, routes| {
            routes.values().flat_map(|ids| ids.values()).all(|at| cluster.node_at(*at) != number)
        });
    }

    /// Until every NameServer that runs knows what is wanted.
    fn await_known(&mut self, is_wanted: impl Fn(&Cluster, &Routes) -> bool) {
        let begun = Instant::now();
        let running = self.running();
        let asked = (1..=NODES).filter(|number| self.nodes[number - 1].namesrv.is_some());
        let asked = asked.map(|number| self.namesrvs()[number - 1]).collect::<Vec<_>>();
        loop {
            let known = probe::on_host(self.clients(), || {
                asked.iter().map(|namesrv| probe::routes(&[*namesrv], TOPIC_OF_ALL)).collect::<Vec<_>>()
            });
            if known.iter().all(|routes| routes.as_ref().is_some_and(|routes| is_wanted(self, routes))) {
                return;
            }
            for number in &running {
                self.broker(*number).assert_runs();
            }
            assert!(begun.elapsed() < SETTLED_TIME_MAX, "not so after {SETTLED_TIME_MAX:?}: {known:?}");
            std::thread::sleep(POLL);
        }
    }

    fn is_whole(&self, routes: &Routes, running: &[usize]) -> bool {
        (0..self.shape.shards).all(|shard| {
            routes.get(&broker_name(shard)).is_some_and(|ids| {
                let nodes = ids.values().map(|at| self.node_at(*at)).collect::<Vec<_>>();
                ids.contains_key(&0) && running.iter().all(|number| nodes.contains(number))
            })
        })
    }

    /// Everything in good order, which is part of the test.
    pub(crate) fn stop_all(mut self) {
        for number in self.running() {
            self.stop(number);
        }
        for number in 1..=SPARE {
            if let Some(namesrv) = self.node_mut(number).namesrv.take() {
                namesrv.stop();
            }
            let log = std::fs::read_to_string(self.log(number)).unwrap_or_default();
            assert!(!log.contains("panicked at"), "something panicked, see {}", self.log(number).display());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() && self.shape.replicas > 1 {
            println!("{}", self.admin(&["status"]).1);
        }
    }
}

pub(crate) fn broker_name(shard: u16) -> String {
    format!("set-{shard}")
}
