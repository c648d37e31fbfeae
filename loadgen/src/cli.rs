//! The command line: what can be asked, and how it becomes a scenario.

mod target;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use self::target::TargetArgs;
use crate::driver;
use crate::driver::floor::{self, FloorSettings};
use crate::driver::run;
use crate::progress;
use crate::scenario::{self, Consumer, Load, Messages, Producers, Run, Scenario, Sizes, Topics};
use crate::stop::StopFlag;

/// Measures latency tails of any RocketMQ-compatible broker, and keeps books on every message.
#[derive(Debug, Parser)]
#[command(name = "apogee-loadgen", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send at a planned rate, receive everything back, report latencies and losses
    Run(Box<RunArgs>),
    /// Measure raw TCP round trips on loopback: the limit that no broker can go below
    Floor(FloorArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Messages per second over all queues, sent when planned whatever the broker does
    #[arg(long, default_value_t = 1_000, conflicts_with = "closed_loop")]
    rate: u64,
    /// Instead of a rate: keep so many requests in flight on each connection
    #[arg(long, value_name = "DEPTH")]
    closed_loop: Option<u32>,
    /// Bytes of a message body
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Length of the measured part
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30s")]
    duration: Duration,
    /// Sent before it, not measured
    #[arg(long, value_parser = humantime::parse_duration, default_value = "2s")]
    warmup: Duration,
    /// Topic; made on every broker
    #[arg(long, default_value = scenario::TOPIC_DEFAULT)]
    topic: String,
    /// Topics; with more than one they are called TOPIC-0, TOPIC-1, ...
    #[arg(long, default_value_t = 1)]
    topics: u32,
    /// Queues of each topic on each broker
    #[arg(long, default_value_t = 4)]
    queues: u32,
    /// Threads [default: half of the CPUs, or as many as --pin names]
    #[arg(long)]
    threads: Option<usize>,
    /// CPUs for the threads, like 1 or 2-3,6; each is then busy all the time
    #[arg(long, value_name = "CPUS", value_parser = parse_cpus)]
    pin: Option<CpuList>,
    /// Publishing connections per broker and thread
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[command(flatten)]
    target: TargetArgs,
    /// Do not receive the messages
    #[arg(long)]
    no_consume: bool,
    /// Unanswered messages per thread; what is due beyond counts as an error [default: 48 MiB of bodies, at most 100000]
    #[arg(long, value_name = "MESSAGES")]
    in_flight_max: Option<u32>,
    /// How long to wait for the reply to a message
    #[arg(long, value_parser = humantime::parse_duration, default_value = "3s")]
    send_timeout: Duration,
    /// How long to wait at the end for what is outstanding
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    drain_timeout: Duration,
    /// Process whose CPU and memory are the broker's [default: who listens at its address, on this machine]
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// Also write the report to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct FloorArgs {
    /// Bytes each way
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Round trips under way at once
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Length of the measured part
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    duration: Duration,
    /// Before it, not measured
    #[arg(long, value_parser = humantime::parse_duration, default_value = "500ms")]
    warmup: Duration,
    /// CPU of the echoing side
    #[arg(long, value_name = "CPU")]
    pin_server: Option<usize>,
    /// CPU of the asking side
    #[arg(long, value_name = "CPU")]
    pin_client: Option<usize>,
    /// Also write the report to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Whether what was measured is in order; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Good,
    Faulty,
}

impl Cli {
    /// Does what was asked and prints the result.
    pub fn execute(self) -> anyhow::Result<Outcome> {
        match self.command {
            Command::Run(args) => execute_run(*args),
            Command::Floor(args) => execute_floor(args),
        }
    }
}

fn execute_run(args: RunArgs) -> anyhow::Result<Outcome> {
    let allowed = driver::allowed_cpus();
    let json = create(args.json.as_deref())?;
    let scenario = args.into_scenario(&allowed)?;
    scenario.check()?;
    eprintln!(
        "{}, {}, {:?} after {:?} of warm-up (Ctrl-C ends it early)",
        scenario.load, scenario.messages.size, scenario.run.duration, scenario.run.warmup
    );
    let report = run::run(&scenario, &stop_on_ctrl_c()?, &mut *progress::for_stderr())?;
    print!("{}", report.text());
    write(json, &report)?;
    Ok(if report.faults.is_empty() { Outcome::Good } else { Outcome::Faulty })
}

fn execute_floor(args: FloorArgs) -> anyhow::Result<Outcome> {
    let json = create(args.json.as_deref())?;
    let report = floor::measure(&FloorSettings {
        size_bytes: args.size,
        depth: args.depth,
        duration: args.duration,
        warmup: args.warmup,
        server_cpu: args.pin_server,
        client_cpu: args.pin_client,
    })?;
    print!("{}", report.text());
    write(json, &report)?;
    Ok(Outcome::Good)
}

/// The first Ctrl-C ends the run with a report, the second ends the process.
fn stop_on_ctrl_c() -> anyhow::Result<StopFlag> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(StopFlag::new(flag))
}

/// Opened before the run: a wrong path must not cost the result.
fn create(path: Option<&std::path::Path>) -> anyhow::Result<Option<File>> {
    let Some(path) = path else { return Ok(None) };
    Ok(Some(File::create(path).with_context(|| format!("cannot write {}", path.display()))?))
}

fn write(file: Option<File>, report: &impl Serialize) -> anyhow::Result<()> {
    match file {
        Some(file) => serde_json::to_writer_pretty(file, report).context("cannot write the report"),
        None => Ok(()),
    }
}

impl RunArgs {
    fn into_scenario(self, allowed_cpus: &[usize]) -> anyhow::Result<Scenario> {
        let cpus = self.pin.map(|list| list.0);
        if let Some(cpu) = cpus.iter().flatten().find(|cpu| !allowed_cpus.contains(cpu)) {
            bail!("--pin names CPU {cpu}; this process may use {allowed_cpus:?}");
        }
        Ok(Scenario {
            target: self.target.into_target(),
            topics: Topics { name: self.topic, count: self.topics, queues: self.queues },
            load: match self.closed_loop {
                Some(depth) => Load::Closed { depth },
                None => Load::Constant { rate: self.rate },
            },
            messages: Messages { size: Sizes::Fixed(self.size), ..Messages::default() },
            producers: Producers {
                connections: self.connections,
                in_flight_max: self.in_flight_max,
                timeout: self.send_timeout,
                ..Producers::default()
            },
            consumers: if self.no_consume { vec![] } else { vec![Consumer::default()] },
            run: Run {
                duration: self.duration,
                warmup: self.warmup,
                drain: self.drain_timeout,
                threads: self.threads,
                cpus,
                broker_pid: self.broker_pid,
                ..Run::default()
            },
            ..Scenario::default()
        })
    }
}

/// CPUs as the kernel lists them: numbers and ranges, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CpuList(Vec<usize>);

/// More than any machine has; a longer list is a mistake.
const CPUS_MAX: usize = 4096;

fn parse_cpus(text: &str) -> Result<CpuList, String> {
    let number = |text: &str| text.trim().parse::<usize>().map_err(|_| format!("'{text}' is no CPU number"));
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= CPUS_MAX {
            return Err(format!("'{part}' is no range of CPUs"));
        }
        cpus.extend(first..=last);
    }
    let mut unique = cpus.clone();
    unique.sort_unstable();
    unique.dedup();
    if unique.len() < cpus.len() {
        return Err("a CPU is named twice".to_owned());
    }
    Ok(CpuList(cpus))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Tls;

    fn scenario(line: &str) -> anyhow::Result<Scenario> {
        let cli = Cli::try_parse_from(["apogee-loadgen", "run"].into_iter().chain(line.split_whitespace()))?;
        match cli.command {
            Command::Run(args) => args.into_scenario(&[0, 1, 2, 3]),
            Command::Floor(_) => bail!("not a run"),
        }
    }

    #[test]
    fn the_readmes_command_is_understood() {
        let scenario = scenario("--namesrv 127.0.0.1:9876 --rate 5000 --size 1024 --duration 30s").unwrap();
        assert_eq!(scenario, Scenario { load: Load::Constant { rate: 5_000 }, ..Scenario::default() });
        assert_eq!(scenario.check(), Ok(()));
    }

    #[test]
    fn threads_follow_the_pinned_cpus() {
        let scenario = scenario("--namesrv a:1;b:2 --pin 1,3 --closed-loop 8 --brokers x,y").unwrap();
        assert_eq!((scenario.threads(), scenario.run.cpus), (2, Some(vec![1, 3])));
        assert_eq!(scenario.load, Load::Closed { depth: 8 });
        assert_eq!(scenario.target.namesrv, ["a:1", "b:2"]);
        assert_eq!(scenario.target.brokers, Some(vec!["x".into(), "y".into()]));
    }

    #[test]
    fn tls_and_credentials_reach_the_target() {
        let target = |line: &str| scenario(line).map(|scenario| scenario.target);
        assert_eq!(target("--tls").unwrap().tls, Some(Tls::default()));
        assert_eq!(target("--tls-ca ca.pem").unwrap().tls.unwrap().ca, Some("ca.pem".into()));
        let acl = target("--access-key me --secret-key hush").unwrap().acl.unwrap();
        assert_eq!((acl.access_key.as_str(), acl.secret_key.as_str()), ("me", "hush"));
        for half in ["--access-key me", "--secret-key hush", "--tls-cert c.pem", "--tls-server-name n"] {
            assert!(target(half).is_err(), "{half}");
        }
    }

    #[test]
    fn contradictions_and_foreign_cpus_are_refused() {
        assert!(scenario("--rate 5 --closed-loop 3").is_err());
        assert!(scenario("--pin 4").unwrap_err().to_string().contains("CPU 4"));
        assert!(scenario("--rate x").is_err());
    }

    #[test]
    fn cpu_lists_are_read_like_the_kernels() {
        assert_eq!(parse_cpus("1"), Ok(CpuList(vec![1])));
        assert_eq!(parse_cpus("2-4,0"), Ok(CpuList(vec![2, 3, 4, 0])));
        for wrong in ["", "a", "3-1", "1,1", "0-9999999", "-"] {
            assert!(parse_cpus(wrong).is_err(), "{wrong}");
        }
    }
}
