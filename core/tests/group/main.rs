//! Three nodes as real processes, with everything done to them that happens to machines, under load that keeps books.
//!
//! `README.md` beside this file says what there is and how to run it. The tests are ignored by default, for they need
//! Linux namespaces, a JDK with Maven, and minutes.

// No shard runs here: these threads start programs and wait for them.
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, reason = "the interop suites use other clients too")]
#[path = "../interop/client.rs"]
mod client;
mod cluster;
mod dice;
mod disk;
mod fabric;
mod faults;
mod hosts;
mod load;
#[allow(dead_code, reason = "one program with one scenario needs no table")]
#[path = "../interop/matrix.rs"]
mod matrix;
mod probe;
mod process;
#[allow(dead_code, reason = "the interop suites are asked for more")]
#[path = "../interop/session.rs"]
mod session;
#[path = "../interop/sources.rs"]
mod sources;
mod sys;
mod watch;

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use Senders::{All, Sync};
use cluster::{Cluster, NODES, SPARE, Shape};
use dice::Dice;
use disk::SlowDisk;
use faults::Fault;
use load::{JavaLoad, Loadgen};
use watch::Watch;

/// More than one for each node to lead.
const SHARDS: u16 = 6;

/// On a file system of a node's own, beside the segments of the beginning. It takes what is written to it.
const DISK_BYTES: u64 = 4 << 30;

/// A full disk refuses messages
/// rather than dropping old ones early, which the books would call a loss.
const SETTINGS: &str = "reclaim_early = false\n";

/// Longer than the longest test, which ends it.
const LOADGEN: &[&str] = &["--scenario", "failover", "--duration", "10h", "--drain-timeout", "60s"];

/// What an operator may expect of a planned transfer.
const TRANSFER_TIME_MAX: Duration = Duration::from_millis(200);

/// As many as the machine has CPUs, so that one replica is what one node would be.
const COST_SHARDS: u16 = 2;

/// Shown that the clients go on.
const ACKED_AFTER_FAULT: u64 = 300;

/// Longer than stock clients go on with a route (`pollNameServerInterval`).
const LINGER: Duration = Duration::from_secs(35);

const SHAPE: Shape =
    Shape { shards: SHARDS, replicas: NODES, disk_bytes: None, linger: Duration::ZERO, namespaces: true };

/// Each node is killed while stock clients work: a stock producer with default settings sees no failure, nothing
/// acknowledged is lost, nothing changes its order.
#[test]
#[ignore = "needs namespaces, a JDK and Maven"]
fn kills() {
    trial("kills", SHAPE, |trial| {
        for node in 1..=NODES {
            trial.happens(Fault::Kill, node);
        }
        trial.nothing_failed(Sync);
    });
}

/// All nodes are stopped and started again, one after the other.
#[test]
#[ignore = "needs namespaces, a JDK and Maven"]
fn rolling_restart() {
    trial("rolling_restart", Shape { linger: LINGER, ..SHAPE }, |trial| {
        for node in 1..=NODES {
            trial.happens(Fault::Restart, node);
        }
        trial.nothing_failed(All);
    });
}

/// One and two of three NameServers die and come back.
#[test]
#[ignore = "needs namespaces, a JDK and Maven"]
fn name_servers() {
    trial("name_servers", SHAPE, |trial| {
        for node in 1..=NODES {
            trial.happens(Fault::KillNamesrv, node);
            trial.happens(Fault::KillTwoNamesrvs, node);
        }
        trial.nothing_failed(All);
    });
}

/// Whatever can happen to the network.
#[test]
#[ignore = "needs namespaces, a JDK and Maven"]
fn networks() {
    trial("networks", SHAPE, |trial| {
        for fault in
            [Fault::Isolate, Fault::Mute, Fault::Deaf, Fault::Link, Fault::BadNetwork, Fault::NoClients]
        {
            for node in 1..=NODES {
                trial.happens(fault, node);
            }
        }
    });
}

/// Nodes stand still, and go on as if nothing had been.
#[test]
#[ignore = "needs namespaces, a JDK and Maven"]
fn pauses() {
    trial("pauses", SHAPE, |trial| {
        for node in 1..=NODES {
            trial.happens(Fault::Pause, node);
        }
    });
}

/// Disks are full, and slow. There is more to write than in the other tests, for a full disk is noticed when a log needs
/// its next segment.
#[test]
#[ignore = "needs namespaces, a JDK and Maven"]
fn disks() {
    let bytes = u64::from(SHARDS) * 2 * cluster::SEGMENT_BYTES + DISK_BYTES;
    let shape = Shape { disk_bytes: Some(bytes), ..SHAPE };
    trial_under("disks", shape, &["--rate", "500", "--size", "16384"], |trial| {
        for node in 1..=NODES {
            trial.happens(Fault::FullDisk, node);
            trial.happens(Fault::SlowDisk, node);
        }
    });
}

/// A new node takes the place of one that leaves, and of one that is dead, while everything goes on.
#[test]
#[ignore = "needs namespaces, a JDK and Maven"]
fn replaced_nodes() {
    trial("replaced_nodes", SHAPE, |trial| {
        let Trial { cluster, .. } = trial;
        cluster.restart(SPARE);
        cluster.administer(&["add", "4", "--address", &cluster.ip(SPARE)]);
        cluster.administer(&["promote", "4"]);
        cluster.administer(&["transfer", "--from", "1"]);
        cluster.administer(&["remove", "1"]);
        cluster.await_forgotten(1);
        // Clients that do not know yet still send to it, and it hands on what they send.
        assert!(trial.load.wait_for_acked(ACKED_AFTER_FAULT), "the clients do not go on");
        trial.nothing_failed(All);
        let Trial { cluster, .. } = trial;
        cluster.stop(1);
        cluster.await_settled();
        trial.nothing_failed(Sync);

        // As an operator has to: a client's three tries go to three names, which are to lead to more than one node.
        let Trial { cluster, .. } = trial;
        cluster.await_spread();
        cluster.kill(2);
        cluster.wipe(1);
        cluster.restart(1);
        cluster.administer(&["replace", "2", "--by", "1", "--address", &cluster.ip(1)]);
        cluster.await_settled();
        trial.nothing_failed(Sync);
    });
}

/// A bit of everything, in a minute or two.
#[test]
#[ignore = "needs namespaces, a JDK and Maven"]
fn short() {
    trial("short", SHAPE, |trial| {
        let mut nodes = [1, 2, 3];
        nodes.rotate_left(trial.dice.below(NODES));
        let [one, two, three] = nodes;
        trial.happens(Fault::Kill, one);
        trial.happens(Fault::Restart, two);
        trial.happens(Fault::KillNamesrv, three);
        trial.nothing_failed(Sync);
        trial.happens(Fault::Isolate, two);
        trial.happens(Fault::Deaf, three);
        trial.happens(Fault::Pause, one);
    });
}

/// Anything, anywhere, for as many minutes as `APOGEE_GROUP_MINUTES` says.
#[test]
#[ignore = "takes as long as it is told to"]
fn chaos() {
    let minutes = number_from("APOGEE_GROUP_MINUTES", 10);
    let bytes = u64::from(SHARDS) * 2 * cluster::SEGMENT_BYTES + DISK_BYTES;
    trial("chaos", Shape { disk_bytes: Some(bytes), ..SHAPE }, |trial| {
        let end = Instant::now() + Duration::from_secs(60 * minutes);
        let mut happened = 0;
        while Instant::now() < end {
            let fault = Fault::ALL[trial.dice.below(Fault::ALL.len())];
            let node = 1 + trial.dice.below(NODES);
            trial.happens(fault, node);
            happened += 1;
        }
        println!("  {happened} faults");
    });
}

/// How long a shard takes no messages when its leader is killed: `APOGEE_GROUP_KILLS` times, without other load.
#[test]
#[ignore = "takes as long as it is told to"]
fn failover_time() {
    suite("failover_time", |work| {
        let kills = number_from("APOGEE_GROUP_KILLS", 100);
        let mut cluster = Cluster::start(work, SHAPE, SETTINGS);
        let watch = Watch::start(&cluster, SHARDS);
        let mut dice = Dice::from_environment();
        let mut times = Vec::new();
        for kill in 1..=kills {
            cluster.await_spread();
            // Elections and heartbeats are periodic; the kill is not to be in step with them.
            std::thread::sleep(dice.between(Duration::ZERO, Duration::from_millis(700)));
            let leaders = cluster.leaders();
            let node = 1 + (kill as usize % NODES);
            let led = (0..SHARDS).filter(|shard| leaders[usize::from(*shard)] == Some(node));
            let led = led.collect::<Vec<_>>();
            let killed = Instant::now();
            cluster.kill(node);
            for shard in led {
                let back = watch.await_taken_since(shard, killed, Duration::from_secs(30));
                let back =
                    back.unwrap_or_else(|| panic!("shard {shard} takes no messages 30 s after kill {kill}"));
                times.push(back.duration_since(killed));
            }
            cluster.restart(node);
            cluster.await_settled();
        }
        print_times(&format!("leader lost to writable, {kills} kills"), &mut times);
        drop(watch);
        cluster.stop_all();
    });
}

/// Leadership is handed over while everything goes on: no send of a stock client fails, and the shard is away for no
/// longer than [`TRANSFER_TIME_MAX`].
#[test]
#[ignore = "needs namespaces, a JDK and Maven"]
fn transfers() {
    trial("transfers", SHAPE, |trial| {
        let watch = Watch::start(&trial.cluster, SHARDS);
        let mut times = Vec::new();
        for round in 0..number_from("APOGEE_GROUP_TRANSFERS", 10) {
            trial.cluster.await_settled();
            trial.cluster.await_spread();
            let shard = (round % u64::from(SHARDS)) as u16;
            let leader = trial.cluster.leaders()[usize::from(shard)].expect("a leader of each shard");
            watch.take_longest_gaps();
            let to = leader % NODES + 1;
            trial.cluster.transfer(shard, to);
            let asked = Instant::now();
            while trial.cluster.leaders()[usize::from(shard)] != Some(to) {
                assert!(
                    asked.elapsed() < Duration::from_secs(5),
                    "shard {shard} was not handed over to {to}"
                );
            }
            std::thread::sleep(Duration::from_millis(300));
            times.push(watch.take_longest_gaps()[usize::from(shard)]);
        }
        trial.nothing_failed(All);
        print_times("longest time without an acknowledgement around a transfer", &mut times);
        let longest = times.last().expect("some transfers");
        assert!(*longest <= TRANSFER_TIME_MAX, "a shard was away for {longest:?}");
    });
}

/// What three replicas on one machine cost, against one: the load generator's figures of both, in turns, without Java
/// clients and without namespaces. And what one replica with a slow disk costs.
#[test]
#[ignore = "takes minutes, and a quiet machine"]
fn costs() {
    suite("costs", |work| {
        let seconds = number_from("APOGEE_GROUP_SECONDS", 20);
        let rate = number_from("APOGEE_GROUP_RATE", 2_000);
        load::loadgen_program();
        let mut runs = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..number_from("APOGEE_GROUP_ROUNDS", 3) {
            for (runs, (name, replicas, slow)) in
                runs.iter_mut().zip([("one", 1, false), ("three", NODES, false), ("slow", NODES, true)])
            {
                let work = work.join(format!("{name}-{round}"));
                std::fs::create_dir_all(&work).expect("make a folder");
                runs.push(cost_of(&work, replicas, slow, rate, seconds));
                std::fs::remove_dir_all(&work).expect("remove a folder");
            }
        }
        let [one, three, slow] = runs.map(|runs| Cost::median(&runs));
        println!("  {rate} messages of 1 KiB a second, publish from due, medians");
        println!("  one replica             {one}");
        println!("  three replicas          {three}: {}", three.against(one));
        println!("  three, one of them slow {slow}: {}", slow.against(three));
    });
}

/// Percentiles of publishing, in ms.
#[derive(Clone, Copy)]
struct Cost {
    p50: f64,
    p99: f64,
    p999: f64,
}

fn cost_of(work: &Path, replicas: usize, slow: bool, rate: u64, seconds: u64) -> Cost {
    let shape = Shape { replicas, namespaces: false, shards: COST_SHARDS, ..SHAPE };
    let mut cluster = Cluster::start(work, shape, SETTINGS);
    if replicas > 1 {
        cluster.await_spread();
    }
    // Not a leader of all shards, but of its part of them: those hand over when their disk stalls.
    let pid = cluster.broker(replicas).pid();
    let slow =
        slow.then(|| SlowDisk::slow(pid, &cluster.data_as_seen(replicas), faults::SLOW_WRITES_PER_SECOND));
    let slow = slow.transpose().expect("a slow disk can be had");
    if slow.is_some() {
        std::thread::sleep(Duration::from_secs(5));
    }
    let (rate, duration) = (rate.to_string(), format!("{seconds}s"));
    let args = ["--rate", &rate, "--size", "1024", "--duration", &duration, "--warmup", "3s"];
    let report = Loadgen::start(&cluster, work, "loadgen", &args).finish(Duration::from_secs(seconds + 120));
    report.assert_books_balance();
    drop(slow);
    cluster.stop_all();
    let percentile = |name: &str| report.number(&format!("/publish/{name}")) / 1e3;
    Cost { p50: percentile("p50_us"), p99: percentile("p99_us"), p999: percentile("p999_us") }
}

impl Cost {
    fn median(runs: &[Cost]) -> Cost {
        let middle = |figure: fn(&Cost) -> f64| {
            let mut figures = runs.iter().map(figure).collect::<Vec<_>>();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Cost { p50: middle(|run| run.p50), p99: middle(|run| run.p99), p999: middle(|run| run.p999) }
    }

    fn against(self, other: Cost) -> String {
        let ratios = [self.p50 / other.p50, self.p99 / other.p99, self.p999 / other.p999];
        format!("p50 x {:.2}, p99 x {:.2}, p99.9 x {:.2}", ratios[0], ratios[1], ratios[2])
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms", self.p50, self.p99, self.p999)
    }
}

/// What a test of faults is around.
struct Trial {
    cluster: Cluster,
    load: JavaLoad,
    /// Beside the Java clients: it says what a message felt, and books every one of many.
    generator: Loadgen,
    dice: Dice,
}

/// Which of the applications' sends may not have failed.
#[derive(Clone, Copy, Debug)]
enum Senders {
    Sync,
    All,
}

/// A cluster, stock Java clients at work, faults, and the clients' books at the end.
fn trial(name: &'static str, shape: Shape, faults: impl FnOnce(&mut Trial)) {
    trial_under(name, shape, &["--rate", "300", "--size", "1024"], faults);
}

/// With another load from the load generator.
fn trial_under(name: &'static str, shape: Shape, rate: &[&str], faults: impl FnOnce(&mut Trial)) {
    suite(name, |work| {
        let Some(client) = load::java_client() else { return };
        load::loadgen_program();
        let cluster = Cluster::start(work, shape, SETTINGS);
        let load = JavaLoad::start(&cluster, name, work, client);
        let generator = Loadgen::start(&cluster, work, "loadgen", &[LOADGEN, rate].concat());
        let mut trial = Trial { cluster, load, generator, dice: Dice::from_environment() };
        faults(&mut trial);
        let Trial { mut cluster, generator, load, .. } = trial;
        cluster.await_settled();
        generator.stop().assert_books_balance();
        println!("  {:?}", load.finish());
        cluster.stop_all();
    });
}

impl Trial {
    fn happens(&mut self, fault: Fault, node: usize) {
        if !fault.is_possible(&self.cluster) {
            println!("  {fault:?} is left out: it cannot be had here");
            return;
        }
        // A client's second try goes to another node only if the leaders are spread.
        self.cluster.await_spread();
        let before = self.load.failed();
        fault.happen(&mut self.cluster, node, &mut self.dice);
        assert!(self.load.wait_for_acked(ACKED_AFTER_FAULT), "the clients do not go on after {fault:?}");
        println!("    failed sends {:?}", self.load.failed().since(before));
    }

    fn nothing_failed(&mut self, senders: Senders) {
        let failed = self.load.failed();
        let counted = match senders {
            Sync => failed.sync,
            All => failed.sync + failed.asynchronous + failed.ordered,
        };
        assert_eq!(counted, 0, "failed sends, of which none of {senders:?} may be: {failed:?}");
    }
}

fn print_times(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize].as_secs_f64() * 1e3;
    println!(
        "  {what}: {} samples, p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, max {:.0} ms",
        times.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// What is around each test: one at a time, a folder for it, which is kept if it fails.
fn suite(name: &str, run: impl FnOnce(&Path)) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = Instant::now();
    println!("{name}");
    let work = tempfile::Builder::new()
        .prefix(&format!("group-{name}-"))
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a folder for data and logs");
    let path = work.keep();
    println!("  data and logs are in {} until it passes", path.display());
    run(&path);
    std::fs::remove_dir_all(&path).expect("remove the folder of a suite that passed");
    println!("{name}: passed in {:.1} s", begun.elapsed().as_secs_f64());
}
