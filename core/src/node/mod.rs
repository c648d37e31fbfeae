//! What drives the decisions: executors, sockets, disk, timers, signals, start and stop.
//!
//! ```text
//!     control thread (main)      signals, start-up report, orderly stop
//!        │ StopSignal   ▲ NodeEvent
//!        ▼              │
//!     executor per CPU: shard drivers      executor of the NameServer
//! ```
//!
//! The control thread talks to executors by these two only and never touches their state.

mod clock;
mod data_dir;
mod executor;
mod log_events;
mod machine;
mod namesrv;
mod open;
mod peers;
mod registrar;
mod segment_source;
mod shard;
mod stop;
mod welcome;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use apogee_net::io::Nudge;
use glommio::ExecutorJoinHandle;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{BrokerConfig, NamesrvConfig};
use crate::shard::DriftGauge;
use data_dir::DataDir;
pub use executor::prepare_process;
use executor::{ExecutorConfig, NUDGE_PERIOD};
use machine::Machine;
use stop::StopSignal;

/// How long an orderly stop may take before the process ends anyway; the log loses nothing by that.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Roles this process plays.
#[derive(Debug)]
pub struct Plan {
    pub namesrv: Option<NamesrvConfig>,
    pub broker: Option<BrokerConfig>,
    /// Print what to do next once everything runs.
    pub welcome: bool,
}

/// What executors tell the control thread.
#[derive(Debug)]
enum NodeEvent {
    /// The NameServer accepts connections.
    NamesrvReady,
    /// The shard accepts connections and a NameServer knows it.
    ShardReady(u16),
    /// A part cannot start or go on.
    Failed(anyhow::Error),
    Signal(i32),
}

/// Runs the roles until a signal or a failure. Returns when everything has stopped.
pub fn run(plan: Plan) -> anyhow::Result<()> {
    start_logging();
    executor::abort_on_panic();
    raise_descriptor_limit();
    let mut node = Node::new()?;
    let result = node.start(&plan).and_then(|(parts, machine)| node.supervise(&plan, parts, machine));
    let replication = plan.broker.as_ref().and_then(|broker| broker.replication.as_ref());
    let linger_ms = replication.map_or(0, |replication| replication.stop_linger_ms);
    node.stop(Duration::from_millis(linger_ms.into()));
    result
}

struct Node {
    nudge: Nudge,
    stop: StopSignal,
    sender: Sender<NodeEvent>,
    events: Receiver<NodeEvent>,
    executors: Vec<ExecutorJoinHandle<()>>,
    /// How far the machine has drifted from its profile, for the shards to tell.
    drift: DriftGauge,
    /// Held until the process ends, so that no second process opens the same directory.
    data_dir: Option<DataDir>,
}

/// How many parts must report before the node is ready.
#[derive(Debug, Clone, Copy)]
struct Parts {
    namesrv: usize,
    shards: usize,
}

impl Node {
    fn new() -> anyhow::Result<Self> {
        let (sender, events) = channel();
        let signals = sender.clone();
        let mut caught = Signals::new([SIGINT, SIGTERM]).context("cannot catch signals")?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for (count, signal) in caught.forever().enumerate() {
                // A second signal means now.
                if count > 0 || signals.send(NodeEvent::Signal(signal)).is_err() {
                    std::process::exit(1);
                }
            }
        })?;
        Ok(Node {
            nudge: Nudge::start(NUDGE_PERIOD),
            stop: StopSignal::default(),
            sender,
            events,
            executors: Vec::new(),
            drift: DriftGauge::default(),
            data_dir: None,
        })
    }

    fn start(&mut self, plan: &Plan) -> anyhow::Result<(Parts, Option<Machine>)> {
        let mut machine = None;
        let mut parts = Parts { namesrv: 0, shards: 0 };
        if let Some(config) = &plan.namesrv {
            std::fs::create_dir_all(&config.data_dir)
                .with_context(|| format!("cannot make the data directory {}", config.data_dir.display()))?;
            let facts = welcome::machine_facts(&config.data_dir)?;
            welcome::check_machine(&facts, 1)?;
            let executor = ExecutorConfig {
                name: "namesrv".into(),
                cpu: None,
                io_memory: welcome::io_memory(&facts, 1),
                blocking_threads: 1,
                spin: Duration::ZERO,
                detect_stalls: detect_stalls(),
            };
            let (config, stop, sender) = (config.clone(), self.stop.clone(), self.sender.clone());
            let handle = executor::spawn(&executor, &self.nudge, move || namesrv::run(config, stop, sender))?;
            self.executors.push(handle);
            parts.namesrv = 1;
        }
        if let Some(config) = &plan.broker {
            config.validate()?;
            let facts = welcome::machine_facts(&config.data_dir)?;
            welcome::print_facts(&facts);
            let machine = machine.insert(Machine::new(facts, config)?);
            parts.shards = self.start_broker(machine, config)?;
        }
        Ok((parts, machine))
    }

    fn start_broker(&mut self, machine: &mut Machine, config: &BrokerConfig) -> anyhow::Result<usize> {
        let asked = config;
        let (config, taken) = machine.complete(asked);
        config.validate()?;
        welcome::print_taken(&taken);
        machine.watch(&self.drift);
        if let Some(control) = machine.control_cpus() {
            executor::run_this_thread_on(control);
        }
        let facts = machine.facts();
        let (allowed, cpus) = (&facts.cpus.allowed, &config.cpus);
        if let Some(cpu) = cpus.iter().find(|&cpu| !allowed.contains(cpu)) {
            bail!("CPU {cpu} is not usable by this process, which may run on {allowed}");
        }
        // One more than run shards: the NameServer may have its own.
        let executors = cpus.len() + 1;
        welcome::check_machine(facts, executors)?;
        let io_memory = welcome::io_memory(facts, executors);
        let data_dir = DataDir::open(&config, machine.shards(asked, cpus.len()))?;
        let shards = data_dir.shards();
        self.data_dir = Some(data_dir);
        for (slot, cpu) in cpus.iter().enumerate().take(usize::from(shards)) {
            // A directory made on more cores runs on fewer: an executor then hosts several shards.
            let numbers: Vec<u16> =
                (0..shards).filter(|&shard| usize::from(shard) % cpus.len() == slot).collect();
            let hosted = shard::Hosted { numbers, of: shards };
            let executor = ExecutorConfig {
                name: format!("shard-{}", hosted.numbers[0]),
                cpu: Some(cpu as usize),
                io_memory,
                blocking_threads: hosted.numbers.len() * config.disk().pool_threads(),
                spin: Duration::from_micros(config.spin_us),
                detect_stalls: detect_stalls(),
            };
            let (config, drift) = (config.clone(), self.drift.clone());
            let (stop, sender) = (self.stop.clone(), self.sender.clone());
            let handle = executor::spawn(&executor, &self.nudge, move || {
                shard::run_all(config, hosted, drift, stop, sender)
            })?;
            self.executors.push(handle);
        }
        Ok(usize::from(shards))
    }

    /// Waits for the parts to become ready, says so, and stays until a signal or a failure.
    fn supervise(&mut self, plan: &Plan, parts: Parts, mut machine: Option<Machine>) -> anyhow::Result<()> {
        let (mut namesrv, mut shards) = (0, 0);
        loop {
            let event = match &mut machine {
                Some(machine) => machine.next_event(&self.events, &self.drift),
                None => self.events.recv().ok(),
            };
            match event.context("every executor has gone")? {
                NodeEvent::NamesrvReady => namesrv += 1,
                NodeEvent::ShardReady(shard) => {
                    tracing::info!(shard, "ready");
                    shards += 1;
                }
                NodeEvent::Failed(error) => return Err(error),
                NodeEvent::Signal(signal) => {
                    tracing::info!(signal, "stopping");
                    return Ok(());
                }
            }
            if (namesrv, shards) == (parts.namesrv, parts.shards) {
                welcome::print_ready(plan, shards);
            }
        }
    }

    /// Stops every executor, waiting at most [`STOP_MAX`] beyond the time that shards linger.
    fn stop(&mut self, linger: Duration) {
        self.stop.give();
        let started = Instant::now();
        let executors = std::mem::take(&mut self.executors);
        let (done, finished) = channel();
        std::thread::spawn(move || {
            for executor in executors {
                // An executor's own failure was reported as an event before.
                let _ = executor.join();
            }
            let _ = done.send(());
        });
        if finished.recv_timeout(STOP_MAX + linger).is_err() {
            tracing::warn!(waited = ?started.elapsed(), "not everything stopped in time; ending anyway");
        }
    }
}

fn detect_stalls() -> bool {
    std::env::var_os("APOGEE_STALL_DETECTOR").is_some_and(|value| value == "1")
}

fn start_logging() {
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_env("APOGEE_LOG").unwrap_or_else(|_| EnvFilter::new("info,glommio=warn"));
    // Fails only when a logger exists already, as in tests: that one is as good.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .try_init();
}

/// A connection is a descriptor: takes as many as the hard limit allows.
fn raise_descriptor_limit() {
    // SAFETY: plain data, filled by the call.
    let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: `limit` is valid for both calls; failing leaves the limit as it was.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
