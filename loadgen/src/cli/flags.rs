//! How a scenario is asked for: by file or name, by `--set`, by flags; the later goes before the earlier.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::cpus::{CpuList, parse_cpus};
use super::target::TargetArgs;
use crate::driver;
use crate::scenario::{By, Consumer, Filter, Kind, Load, Scenario, Setting, Sizes, WeightedSize};

/// Rate of a shape that is named without one.
const RATE_DEFAULT: u64 = 1_000;

/// Every flag is optional: it changes what it names in the scenario and nothing else.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Scenario")]
pub(super) struct ScenarioArgs {
    /// A TOML file, or the name of a ready-made scenario (see `apogee-loadgen scenario list`)
    #[arg(long, value_name = "FILE|NAME")]
    scenario: Option<String>,
    /// Set any key of the scenario, the value in TOML, like topics.count=8 or 'topics.name="t"'
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<Setting>,
    #[command(flatten)]
    target: TargetArgs,
    /// Messages per second over all queues, sent when planned whatever the broker does [default: 1000]
    #[arg(long)]
    rate: Option<u64>,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Bytes of a message body: 1024, or from 100..2000 evenly, or 128:9,4096:1 with their weights [default: 1024]
    #[arg(long, value_name = "BYTES", value_parser = parse_sizes)]
    size: Option<Sizes>,
    /// normal, oneway, ordered=KEYS, delayed=LEVEL, timed=AFTER or transactional=ROLLBACK_PERCENT [default: normal]
    #[arg(long, value_parser = parse_kind)]
    kind: Option<Kind>,
    /// Messages per request [default: 1]
    #[arg(long, value_name = "MESSAGES")]
    batch: Option<u32>,
    /// Tags that messages take in turn, separated by commas
    #[arg(long, value_delimiter = ',')]
    tags: Option<Vec<String>>,
    /// Messages written unmeasured before the run, for consumers that read from the start
    #[arg(long, value_name = "MESSAGES")]
    prefill: Option<u64>,
    /// Topic; made on every broker [default: apogee-loadgen]
    #[arg(long)]
    topic: Option<String>,
    /// Topics; with more than one they are called TOPIC-0, TOPIC-1, ... [default: 1]
    #[arg(long)]
    topics: Option<u32>,
    /// Queues of each topic on each broker [default: 4]
    #[arg(long)]
    queues: Option<u32>,
    /// Publishing connections per broker and thread [default: 1]
    #[arg(long)]
    connections: Option<usize>,
    /// Unanswered messages per thread; what is due beyond counts as an error [default: 48 MiB of bodies, at most 100000]
    #[arg(long, value_name = "MESSAGES")]
    in_flight_max: Option<u32>,
    /// How long to wait for the reply to a message [default: 3s]
    #[arg(long, value_parser = humantime::parse_duration)]
    send_timeout: Option<Duration>,
    /// Try a message that one broker did not take so often with the next one; stock producers do twice [default: 0]
    #[arg(long, value_name = "TIMES")]
    retry: Option<u32>,
    /// Do not receive the messages
    #[arg(long, conflicts_with_all = ["groups", "pop", "filter_tags"])]
    no_consume: bool,
    /// Consumer groups of each kind that the scenario has, each of which gets all messages [default: 1]
    #[arg(long)]
    groups: Option<u32>,
    /// All consumers fetch by pop instead of pull (5.x brokers)
    #[arg(long)]
    pop: bool,
    /// All consumers want only messages with one of these tags, like 'A || B'
    #[arg(long, value_name = "TAGS")]
    filter_tags: Option<String>,
    /// Length of the measured part [default: 30s]
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Sent before it, not measured [default: 2s]
    #[arg(long, value_parser = humantime::parse_duration)]
    warmup: Option<Duration>,
    /// How long to wait at the end for what is outstanding [default: 10s]
    #[arg(long, value_parser = humantime::parse_duration)]
    drain_timeout: Option<Duration>,
    /// Length of the intervals in which the run is shown over time [default: 1s]
    #[arg(long, value_parser = humantime::parse_duration)]
    interval: Option<Duration>,
    /// Threads [default: half of the CPUs, or as many as --pin names]
    #[arg(long)]
    threads: Option<usize>,
    /// CPUs for the threads, like 1 or 2-3,6; each is then busy all the time
    #[arg(long, value_name = "CPUS", value_parser = parse_cpus)]
    pin: Option<CpuList>,
    /// Process whose CPU and memory are the broker's [default: who listens at its address, on this machine]
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
}

fn parse_sizes(text: &str) -> Result<Sizes, String> {
    let number = |text: &str| text.trim().parse().map_err(|_| format!("'{text}' is no number of bytes"));
    if let Some((min, max)) = text.split_once("..") {
        return Ok(Sizes::Uniform { min: number(min)?, max: number(max)? });
    }
    if !text.contains(':') {
        return Ok(Sizes::Fixed(number(text)?));
    }
    let weighted = |part: &str| {
        let (bytes, weight) = part.split_once(':').ok_or_else(|| format!("'{part}' is not BYTES:WEIGHT"))?;
        let weight = weight.trim().parse().map_err(|_| format!("'{weight}' is no weight"))?;
        Ok(WeightedSize { bytes: number(bytes)?, weight })
    };
    text.split(',').map(weighted).collect::<Result<_, String>>().map(Sizes::Weighted)
}

/// The kinds that one figure describes; the others, and their other figures, are for a file or `--set`.
fn parse_kind(text: &str) -> Result<Kind, String> {
    let (name, figure) = text.split_once('=').unwrap_or((text, ""));
    let number = || figure.parse().map_err(|_| format!("'{name}' needs a number, like {name}=4"));
    match name {
        "normal" if figure.is_empty() => Ok(Kind::Normal),
        "oneway" if figure.is_empty() => Ok(Kind::Oneway),
        "ordered" => Ok(Kind::Ordered { keys: number()? }),
        "delayed" => Ok(Kind::Delayed { level: number()? }),
        "timed" => {
            let after = humantime::parse_duration(figure);
            let after =
                after.map_err(|error| format!("'{figure}': {error}; a time is needed, like timed=2s"))?;
            Ok(Kind::Timed { after, relative: false, early_max: Duration::from_secs(1) })
        }
        "transactional" => Ok(Kind::Transactional { rollback: number()?, check: 0, reply: false }),
        _ => {
            Err("not one of normal, oneway, ordered=KEYS, delayed=LEVEL, timed=AFTER, transactional=PERCENT"
                .into())
        }
    }
}

/// How arrivals are spread over time. At most one; without any, as in the scenario, or evenly.
#[derive(Clone, Debug, Default, Args)]
#[group(multiple = false)]
#[command(next_help_heading = "Scenario")]
struct ShapeArgs {
    /// Spread the rate evenly
    #[arg(long)]
    constant: bool,
    /// Arrivals that know nothing of each other, at the rate on average
    #[arg(long)]
    poisson: bool,
    /// All messages in the first ON of every ON + OFF, at the rate on average, like 10ms/90ms
    #[arg(long, value_name = "ON/OFF", value_parser = parse_bursts)]
    bursts: Option<Bursts>,
    /// From one rate to another over the measured part, like 1000..20000
    #[arg(long, value_name = "FROM..TO", value_parser = parse_ramp, conflicts_with = "rate")]
    ramp: Option<Ramp>,
    /// One rate after the other, each for an equal part, like 1000,5000,1000
    #[arg(long, value_name = "RATES", value_delimiter = ',', conflicts_with = "rate")]
    steps: Option<Vec<u64>>,
    /// The arrivals recorded in a file: seconds since its beginning, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "rate")]
    trace: Option<PathBuf>,
    /// Instead of a rate: keep so many requests in flight on each connection
    #[arg(long, value_name = "DEPTH", conflicts_with = "rate")]
    closed_loop: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Bursts {
    on: Duration,
    off: Duration,
}

fn parse_bursts(text: &str) -> Result<Bursts, String> {
    let (on, off) = text.split_once('/').ok_or_else(|| format!("'{text}' is not ON/OFF"))?;
    let time = |text: &str| humantime::parse_duration(text).map_err(|error| format!("'{text}': {error}"));
    Ok(Bursts { on: time(on)?, off: time(off)? })
}

#[derive(Clone, Copy, Debug)]
struct Ramp {
    from: u64,
    to: u64,
}

fn parse_ramp(text: &str) -> Result<Ramp, String> {
    let (from, to) = text.split_once("..").ok_or_else(|| format!("'{text}' is not FROM..TO"))?;
    let rate = |text: &str| text.parse().map_err(|_| format!("'{text}' is no rate"));
    Ok(Ramp { from: rate(from)?, to: rate(to)? })
}

impl ShapeArgs {
    /// The load that `load` becomes, if a flag names one.
    fn apply(self, load: &Load) -> Option<Load> {
        let rate = load.mean_rate().unwrap_or(RATE_DEFAULT);
        if self.constant {
            return Some(Load::Constant { rate });
        }
        if self.poisson {
            return Some(Load::Poisson { rate, seed: 0 });
        }
        let bursts = self.bursts.map(|Bursts { on, off }| Load::Bursts { rate, on, off });
        let ramp = self.ramp.map(|Ramp { from, to }| Load::Ramp { from, to });
        let steps = self.steps.map(|rates| Load::Steps { rates });
        let trace = self.trace.map(|file| Load::Trace { file, speed: 1.0 });
        let closed = self.closed_loop.map(|depth| Load::Closed { depth });
        bursts.or(ramp).or(steps).or(trace).or(closed)
    }
}

impl ScenarioArgs {
    /// For commands that choose the rate themselves: a flag that does nothing is refused.
    pub(super) fn refuse_rate(&self, instead: &str) -> anyhow::Result<()> {
        match self.rate {
            Some(_) => bail!("--rate cannot be given: {instead}"),
            None => Ok(()),
        }
    }

    /// The scenario that is meant, checked.
    pub(super) fn resolve(self) -> anyhow::Result<Scenario> {
        self.resolve_on(&driver::allowed_cpus())
    }

    fn resolve_on(self, allowed_cpus: &[usize]) -> anyhow::Result<Scenario> {
        let mut scenario = match &self.scenario {
            Some(name) => Scenario::open(name)?,
            None => Scenario::default(),
        };
        for setting in &self.set {
            setting.apply(&mut scenario)?;
        }
        self.apply(&mut scenario)?;
        if let Some(cpu) = scenario.run.cpus.iter().flatten().find(|cpu| !allowed_cpus.contains(cpu)) {
            bail!("run.cpus (--pin) names CPU {cpu}; this process may use {allowed_cpus:?}");
        }
        scenario.check()?;
        Ok(scenario)
    }

    fn apply(self, scenario: &mut Scenario) -> anyhow::Result<()> {
        let Scenario { target, topics, load, messages, producers, consumers, run, .. } = scenario;
        self.target.apply(target)?;
        put(load, self.shape.apply(load));
        if let Some(rate) = self.rate {
            let at_rate = load.at_rate(rate);
            *load = at_rate.with_context(|| {
                format!("--rate does not fit this load ({load}); name another, like --constant")
            })?;
        }
        put(&mut messages.size, self.size);
        put(&mut messages.kind, self.kind);
        put(&mut messages.batch, self.batch);
        put(&mut messages.tags, self.tags);
        put(&mut messages.prefill, self.prefill);
        put(&mut topics.name, self.topic);
        put(&mut topics.count, self.topics);
        put(&mut topics.queues, self.queues);
        put(&mut producers.connections, self.connections);
        put_some(&mut producers.in_flight_max, self.in_flight_max);
        put(&mut producers.timeout, self.send_timeout);
        put(&mut producers.retry, self.retry);
        put(consumers, self.no_consume.then(Vec::<Consumer>::new));
        if consumers.is_empty() && (self.groups.is_some() || self.pop || self.filter_tags.is_some()) {
            bail!("--groups, --pop and --filter-tags speak of consumers, and the scenario has none");
        }
        for consumer in consumers {
            put(&mut consumer.groups, self.groups);
            put(&mut consumer.by, self.pop.then_some(By::Pop));
            put_some(&mut consumer.filter, self.filter_tags.clone().map(Filter::Tags));
        }
        put(&mut run.duration, self.duration);
        put(&mut run.warmup, self.warmup);
        put(&mut run.drain, self.drain_timeout);
        put(&mut run.interval, self.interval);
        put_some(&mut run.threads, self.threads);
        put_some(&mut run.cpus, self.pin.map(|list| list.0));
        put_some(&mut run.broker_pid, self.broker_pid);
        Ok(())
    }
}

pub(super) fn put<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

pub(super) fn put_some<T>(place: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::scenario::Tls;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ScenarioArgs,
    }

    fn scenario(line: &str) -> anyhow::Result<Scenario> {
        let words = ["apogee-loadgen"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words)?.args.resolve_on(&[0, 1, 2, 3])
    }

    fn complaint(line: &str) -> String {
        scenario(line).expect_err(line).to_string()
    }

    #[test]
    fn the_readmes_command_is_understood() {
        let scenario = scenario("--namesrv 127.0.0.1:9876 --rate 5000 --size 1024 --duration 30s").unwrap();
        assert_eq!(scenario, Scenario { load: Load::Constant { rate: 5_000 }, ..Scenario::default() });
    }

    #[test]
    fn no_flag_is_the_default() {
        assert_eq!(scenario("").unwrap(), Scenario::default());
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
    fn messages_and_consumers_are_described_by_flags() {
        let found = scenario("--size 100..200 --batch 4 --tags A,B --filter-tags A --groups 3").unwrap();
        assert_eq!(found.messages.size, Sizes::Uniform { min: 100, max: 200 });
        assert_eq!((found.messages.batch, found.messages.tags.len(), found.consumers[0].groups), (4, 2, 3));
        assert_eq!(found.consumers[0].filter, Some(Filter::Tags("A".into())));
        assert_eq!(found.consumers[0].group, Consumer::default().group);
        assert!(complaint("--set consumers=[] --groups 2").contains("has none"));
        assert!(scenario("--no-consume --groups 2").is_err());
    }

    #[test]
    fn sizes_and_kinds_are_written_as_the_help_says() {
        let weighted = |bytes, weight| WeightedSize { bytes, weight };
        assert_eq!(parse_sizes("1024"), Ok(Sizes::Fixed(1024)));
        assert_eq!(
            parse_sizes("128:9,4096:1"),
            Ok(Sizes::Weighted(vec![weighted(128, 9), weighted(4096, 1)]))
        );
        for wrong in ["", "a", "1..", "1:2,3", "1:x"] {
            assert!(parse_sizes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_kind("ordered=4"), Ok(Kind::Ordered { keys: 4 }));
        assert_eq!(parse_kind("delayed=3").unwrap().delay(), Duration::from_secs(10));
        assert_eq!(parse_kind("timed=2s").unwrap().delay(), Duration::from_secs(2));
        for wrong in ["", "odd", "ordered", "timed", "timed=x", "normal=1"] {
            assert!(parse_kind(wrong).is_err(), "{wrong}");
        }
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
    fn a_setting_leaves_the_secrets_of_the_file_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "[target.acl]\naccess_key = 'me'\nsecret_key = 'hush'\nsecurity_token = 't'\n")
            .unwrap();
        let path = file.path().to_str().unwrap();
        let acl = |line: &str| scenario(&format!("--scenario {path} {line}")).unwrap().target.acl.unwrap();
        let kept = acl("--set topics.count=2");
        assert_eq!((kept.secret_key.as_str(), kept.security_token.as_deref()), ("hush", Some("t")));
        assert_eq!(acl("--set target.acl.secret_key='other'").secret_key, "other");
        assert_eq!(acl("--secret-key other").access_key, "me");
    }

    #[test]
    fn contradictions_and_foreign_cpus_are_refused() {
        assert!(scenario("--rate 5 --closed-loop 3").is_err());
        assert!(complaint("--pin 4").contains("CPU 4"));
        assert!(complaint("--set run.cpus=[4]").contains("CPU 4"));
        assert!(scenario("--rate x").is_err());
        assert!(scenario("--ramp 1..2 --rate 5").is_err());
        assert!(scenario("--poisson --steps 1,2").is_err());
        assert!(complaint("--set load={kind='ramp',from=1,to=2} --rate 5").contains("--rate does not fit"));
    }

    #[test]
    fn a_shape_keeps_the_rate_and_a_rate_the_shape() {
        let load = |line: &str| scenario(line).unwrap().load;
        assert_eq!(load("--poisson"), Load::Poisson { rate: 1_000, seed: 0 });
        assert_eq!(load("--poisson --rate 70"), Load::Poisson { rate: 70, seed: 0 });
        assert_eq!(
            load("--set load={kind='poisson',rate=50,seed=3} --rate 70"),
            Load::Poisson { rate: 70, seed: 3 }
        );
        assert_eq!(load("--set load={kind='poisson',rate=50} --constant"), Load::Constant { rate: 50 });
        let (on, off) = (Duration::from_millis(10), Duration::from_millis(90));
        assert_eq!(load("--bursts 10ms/90ms --rate 70"), Load::Bursts { rate: 70, on, off });
        assert_eq!(load("--ramp 10..200"), Load::Ramp { from: 10, to: 200 });
        assert_eq!(load("--steps 10,200,10"), Load::Steps { rates: vec![10, 200, 10] });
    }

    #[test]
    fn flags_go_before_settings_and_settings_before_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            &file,
            "[topics]\ncount = 3\nqueues = 7\nname = 'mine'\n[load]\nkind = 'closed'\ndepth = 9\n",
        )
        .unwrap();
        let path = file.path().to_str().unwrap();
        let found = scenario(&format!("--scenario {path} --set topics.count=5 --queues 2")).unwrap();
        assert_eq!((found.topics.name.as_str(), found.topics.count, found.topics.queues), ("mine", 5, 2));
        assert_eq!(found.load, Load::Closed { depth: 9 });
        let found =
            scenario(&format!("--queues 2 --scenario {path} --set topics.queues=5 --rate 8")).unwrap();
        assert_eq!((found.topics.queues, found.load), (2, Load::Constant { rate: 8 }));
    }
}
