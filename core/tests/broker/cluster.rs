//! `apogee cluster` and `apogee admin group`, as a person uses them: a node is killed, comes back, is replaced.

// No executor runs here that a sleep could block.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use apogee_net::body::{TopicRouteData, parse};
use apogee_net::code::RequestCode;
use apogee_net::request::GetRouteInfoRequest;
use serde_json::Value;

use crate::client::Client;
use crate::place;
use crate::ports::{are_free, free_ports};
use crate::server::APOGEE;

/// What takes well below it, but for a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(120);

const WELL: i32 = 0;
const DEGRADED: i32 = 3;

/// Nodes a thousand ports apart, below the ports that other tests take.
const BASE_PORTS: Range<u16> = 11_000..16_000;

/// Ports of each node that are looked at.
const PORTS_OF_NODE: u16 = 30;

/// Base port of node 1, with ports for four nodes free.
fn free_base_port() -> u16 {
    let is_node_free = |first: u16| are_free(first..first + PORTS_OF_NODE);
    let places = BASE_PORTS.len() / usize::from(PORTS_OF_NODE);
    let bases = BASE_PORTS.step_by(PORTS_OF_NODE.into()).cycle().skip(std::process::id() as usize % places);
    bases.take(places).find(|base| (0..4).all(|node| is_node_free(base + 1000 * node))).expect("free ports")
}

/// The command as it runs in a terminal.
struct Cluster {
    dir: PathBuf,
    process: Child,
    typed: ChildStdin,
    lines: Receiver<String>,
    said: Vec<String>,
    namesrv: SocketAddr,
    base_port: u16,
}

impl Cluster {
    /// Two shards on three nodes.
    fn start(dir: &Path) -> Cluster {
        for _ in 0..20 {
            let mut cluster = Cluster::run(dir, free_ports(3), free_base_port());
            match cluster.await_line("Ready.") {
                Ok(()) => return cluster,
                // Somebody else took a port since it was looked at. The group begun has the addresses of these ports.
                Err(said) if said.contains("cannot listen on") => {
                    drop(cluster);
                    std::fs::remove_dir_all(dir).unwrap();
                    std::fs::create_dir(dir).unwrap();
                }
                Err(said) => panic!("{said}"),
            }
        }
        panic!("no free ports");
    }

    fn run(dir: &Path, namesrv: u16, base_port: u16) -> Cluster {
        let mut command = Command::new(APOGEE);
        command.args(["cluster", "--shards", "2", "--data"]).arg(dir);
        command.args(["--namesrv-port", &namesrv.to_string(), "--base-port", &base_port.to_string()]);
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let out: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(process.stdout.take().unwrap()), Box::new(process.stderr.take().unwrap())];
        for out in out {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Cluster {
            dir: dir.to_owned(),
            typed: process.stdin.take().unwrap(),
            process,
            lines,
            said: Vec::new(),
            namesrv: ([127, 0, 0, 1], namesrv).into(),
            base_port,
        }
    }

    /// Waits for a line with this text. Fails with all that was said when the process ends before, or never says it.
    fn await_line(&mut self, text: &str) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let is_it = line.contains(text);
                    self.said.push(line);
                    if is_it {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {
                    return Err(self.said.join("\n"));
                }
            }
        }
    }

    #[track_caller]
    fn order(&mut self, order: &str, answer: &str) {
        writeln!(self.typed, "{order}").unwrap();
        if let Err(said) = self.await_line(answer) {
            panic!("{order:?} is not answered with {answer:?}:\n{said}");
        }
    }

    /// Runs an `admin group` command; its exit code and what it printed.
    fn admin(&self, words: &str) -> (i32, String) {
        let namesrv = self.namesrv.to_string();
        let output = Command::new(APOGEE)
            .args(["admin", "group"])
            .args(words.split_whitespace())
            .args(["--namesrv", &namesrv])
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    #[track_caller]
    fn change(&self, words: &str) -> String {
        let (code, text) = self.admin(words);
        assert_eq!(code, 0, "{words}:\n{text}");
        text
    }

    /// Waits until `status` ends with this code.
    #[track_caller]
    fn await_health(&self, expected: i32) {
        let until = Instant::now() + PATIENCE;
        loop {
            let (code, text) = self.admin("status");
            if code == expected {
                return;
            }
            assert!(Instant::now() < until, "exit code {code}, not {expected}:\n{text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn shards(&self) -> Vec<Value> {
        let (_, text) = self.admin("status --json");
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        json["groups"][0]["shards"].as_array().unwrap().clone()
    }

    fn leaders(&self) -> Vec<i64> {
        self.shards().iter().map(|shard| shard["leader"].as_i64().unwrap_or_default()).collect()
    }

    fn nodes(&self) -> Vec<Vec<i64>> {
        let nodes = |shard: &Value| {
            let nodes = shard["nodes"].as_array().unwrap().iter();
            nodes.map(|node| node["node"].as_i64().unwrap()).collect()
        };
        self.shards().iter().map(nodes).collect()
    }

    /// A client connected to a shard of a node.
    fn client(&self, node: u16, shard: u16) -> Client {
        Client::connect_to(([127, 0, 0, 1], self.base_port + 1000 * (node - 1) + 10 * shard).into())
    }
}

/// Asks a NameServer for a topic's route all the time.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Vec<String>)>,
}

impl Watch {
    fn start(namesrv: SocketAddr, topic: &'static str) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut client = Client::connect_to(namesrv);
            let header = GetRouteInfoRequest {
                topic,
                accept_standard_json_only: true,
                zone_name: None,
                zone_mode: false,
            };
            let (mut asked, mut gaps) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                let answer = client.ask(RequestCode::GET_ROUTEINFO_BY_TOPIC, &header, b"");
                asked += 1;
                let route: TopicRouteData = parse(&answer.body).unwrap();
                let brokers = route.broker_datas.into_iter();
                let leaderless = brokers.filter(|broker| !broker.broker_addrs.contains_key(&0));
                gaps.extend(leaderless.map(|broker| format!("{broker:?}")));
                std::thread::sleep(Duration::from_millis(1));
            }
            (asked, gaps)
        });
        Watch { stop, thread }
    }

    /// Fails if a client could have seen a broker without a master.
    #[track_caller]
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (asked, gaps) = self.thread.join().unwrap();
        assert!(gaps.is_empty(), "in {} of {asked} answers, such as {}", gaps.len(), gaps[0]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Ended already, as a rule.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let said = self.lines.try_iter();
            eprintln!(
                "the cluster said:\n{}",
                self.said.iter().cloned().chain(said).collect::<Vec<_>>().join("\n")
            );
            for node in 1..=4 {
                let log = std::fs::read_to_string(self.dir.join(format!("node-{node}.log")));
                eprintln!("node {node} said:\n{}", log.unwrap_or_else(|error| error.to_string()));
            }
        }
    }
}

#[test]
fn a_cluster_is_tried_out_a_node_dies_comes_back_and_is_replaced() {
    let Some(dir) = place() else { return };
    let mut cluster = Cluster::start(dir.path());
    cluster.await_health(WELL);
    assert_eq!(cluster.nodes(), [[1, 2, 3], [1, 2, 3]]);

    // Any node takes a send: who does not lead forwards it.
    for node in 1..=3 {
        cluster.client(node, 0).send("Tried", 0, format!("from node {node}").as_bytes(), "");
    }

    // A death: the others go on, and the status says what is amiss.
    let victim = cluster.leaders()[0];
    cluster.order(&format!("kill {victim}"), "is dead");
    cluster.await_health(DEGRADED);
    let (_, text) = cluster.admin("status");
    assert!(text.contains(&format!("Node {victim} does not answer.")), "{text}");
    assert!(text.contains("All 2 shards have a leader."), "{text}");
    assert!(!cluster.leaders().contains(&victim));
    let alive = u16::try_from(if victim == 1 { 2 } else { 1 }).unwrap();
    cluster.client(alive, 0).send("Tried", 0, b"while one is dead", "");
    cluster.order(&format!("start {victim}"), "is started");
    cluster.await_health(WELL);

    // Planned: a node gives away what it leads, and gets it back; another one is restarted. Clients always find a master.
    let watch = Watch::start(cluster.namesrv, "Tried");
    let leaders = cluster.leaders();
    let text = cluster.change(&format!("transfer --from {}", leaders[0]));
    assert!(text.contains(&format!("node {} handed over to node", leaders[0])), "{text}");
    assert!(!cluster.leaders().contains(&leaders[0]));
    cluster.change("rebalance");
    let preferred: Vec<i64> = cluster
        .shards()
        .iter()
        .map(|shard| shard["nodes"][0]["status"]["preferred"].as_i64().unwrap())
        .collect();
    assert_eq!(cluster.leaders(), preferred);
    cluster.order(&format!("stop {}", preferred[0]), "has stopped within");
    cluster.order(&format!("start {}", preferred[0]), "is started");
    cluster.await_health(WELL);
    watch.end();

    // Node 3 is dead for ever; node 4 takes its place.
    cluster.order("kill 3", "is dead");
    let mut fourth = start_fourth(dir.path(), cluster.base_port);
    let replace =
        format!("replace 3 --by 4 --address 127.0.0.1 --base-port {} --wait 100", cluster.base_port + 3000);
    let (code, text) = cluster.admin(&replace);
    if code != 0 {
        let (_, status) = cluster.admin("status");
        panic!("{replace}:\n{text}\n{status}");
    }
    assert!(text.contains("node 4 has taken the place of node 3"), "{text}");
    assert_eq!(cluster.nodes(), [[1, 2, 4], [1, 2, 4]]);
    cluster.await_health(WELL);
    let mut client = cluster.client(4, 0);
    client.send("Tried", 0, b"by way of the new node", "");
    let bodies = crate::pull_all(&mut client, "Tried", 0, 1 << 20);
    assert_eq!(bodies.len(), 5, "{bodies:?}");

    // The dead one comes back and hears that it was replaced: it is nobody's slave, and hands on what clients ask of it.
    cluster.order("start 3", "is started");
    let began = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", cluster.base_port + 2000)).is_err() {
        assert!(began.elapsed() < PATIENCE, "node 3 does not come back");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut client = cluster.client(3, 0);
    client.send("Tried", 0, b"by way of the one that was replaced", "");
    let bodies = crate::pull_all(&mut client, "Tried", 0, 1 << 20);
    assert_eq!(bodies.len(), 6, "{bodies:?}");
    cluster.await_health(WELL);
    assert_eq!(cluster.nodes(), [[1, 2, 4], [1, 2, 4]]);

    cluster.order("quit", "Stopped.");
    assert!(cluster.process.wait().unwrap().success());
    // SAFETY: a plain system call; the process is our child and was not waited for, so the number is its.
    unsafe { libc::kill(libc::pid_t::try_from(fourth.id()).unwrap(), libc::SIGTERM) };
    fourth.wait().unwrap();
}

/// Starts a node that waits to be added. Ends by itself when this thread does.
fn start_fourth(dir: &Path, base_port: u16) -> Child {
    let third = std::fs::read_to_string(dir.join("node-3.toml")).unwrap();
    let (port_3, port_4) = (base_port + 2000, base_port + 3000);
    let text = third
        .replace("node = 3\n", "node = 4\njoin = true\n")
        .replace(&format!("\nbase_port = {port_3}"), &format!("\nbase_port = {port_4}"))
        .replace("node-3", "node-4")
        .replace(
            "nodes = [\n",
            &format!("nodes = [\n    {{ id = 4, address = \"127.0.0.1\", base_port = {port_4} }},\n"),
        );
    let config = dir.join("node-4.toml");
    std::fs::write(&config, text).unwrap();
    let log = std::fs::File::create(dir.join("node-4.log")).unwrap();
    let mut command = Command::new(APOGEE);
    command.args(["broker", "--config"]).arg(&config);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    // SAFETY: the closure makes one system call, which may be made between fork and exec.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn().unwrap()
}
