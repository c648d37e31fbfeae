//! The bench from its options to its report; start here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::estimate::{self, CALIBRATION, CALIBRATION_SETTLE, SETTLE};
use super::levels::{self, Best};
use super::markdown;
use super::measure::{self, Generator, MeasureError, Offer, Pace};
use super::options::Options;
use super::record::{self, Cell, Participant, Record, Skipped, Stretch, Trouble, What};
use crate::driver;
use crate::driver::run::RunError;
use crate::peers::apogee::Apogee;
use crate::peers::broker::{Broker, Obtained, Place, Ports};
use crate::peers::machine;
use crate::peers::peer::{Peer, Product};
use crate::peers::rocketmq::RocketMq;
use crate::peers::rocketmq_rust::RocketMqRust;
use crate::peers::tools::Missing;
use crate::stop::StopFlag;

/// Requests in flight while a peer warms up.
const WARMUP_IN_FLIGHT: u32 = 256;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("{0}")]
    Options(String),
    #[error("none of the peers can be had")]
    Nobody,
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: std::io::Error },
}

/// Where things are if the options do not say it.
#[derive(Clone, Debug)]
pub struct Defaults {
    pub work: PathBuf,
    pub apogee: PathBuf,
}

/// Obtains the peers, measures them and returns the report; writes the files that were asked for.
pub fn run(options: Options, defaults: Defaults, stop: &StopFlag) -> Result<String, BenchError> {
    let mut options = options.settle();
    options.check().map_err(BenchError::Options)?;
    let allowed = driver::allowed_cpus();
    if let Some(cpu) =
        options.broker_cpus.iter().chain([&options.generator_cpu]).find(|cpu| !allowed.contains(cpu))
    {
        return Err(BenchError::Options(format!("there is no CPU {cpu} for this process, only {allowed:?}")));
    }
    let work = options.work.clone().unwrap_or(defaults.work);
    options.apogee.get_or_insert(defaults.apogee);
    let work = std::path::absolute(&work).map_err(|error| BenchError::File { path: work, error })?;
    std::fs::create_dir_all(&work).map_err(|error| BenchError::File { path: work.clone(), error })?;

    let mut bench = Bench::obtain(options, work, stop.clone());
    if bench.record.participants.is_empty() {
        return Err(BenchError::Nobody);
    }
    if !bench.options.obtain_only {
        bench.measure();
    }
    let report = markdown::render(&bench.record);
    if let Some(path) = &bench.options.json {
        let text = serde_json::to_string_pretty(&bench.record).expect("plain values");
        write(path, &text)?;
    }
    if let Some(path) = &bench.options.markdown {
        write(path, &report)?;
    }
    Ok(report)
}

fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    std::fs::write(path, text).map_err(|error| BenchError::File { path: path.to_owned(), error })
}

/// A bench in progress.
struct Bench {
    options: Options,
    work: PathBuf,
    products: BTreeMap<Product, Obtained>,
    record: Record,
    started: Instant,
    /// How long what is still to come should take.
    left: Duration,
    stop: StopFlag,
}

impl Bench {
    fn obtain(options: Options, work: PathBuf, stop: StopFlag) -> Bench {
        let mut record = Record {
            generator_version: env!("CARGO_PKG_VERSION"),
            machine: machine::facts(&work),
            settings: settings(&options),
            command: std::env::args().collect::<Vec<_>>().join(" "),
            broker_cpus: options.broker_cpus.len(),
            rounds: options.rounds,
            latency_size: options.latency_size,
            participants: vec![],
            skipped: vec![],
            stretches: vec![],
            troubles: vec![],
            interrupted: false,
        };
        let mut products: BTreeMap<Product, Result<Obtained, Missing>> = BTreeMap::new();
        for peer in &options.peers {
            let obtained = products.entry(peer.product()).or_insert_with(|| {
                eprintln!("obtaining {}", peer.product());
                obtain(peer.product(), &options, &work)
            });
            match obtained {
                Ok(obtained) => record.participants.push(Participant {
                    peer: *peer,
                    version: obtained.version(),
                    commands: vec![],
                    memory_at_start: vec![],
                }),
                Err(missing) => {
                    eprintln!("SKIPPED {peer}: {missing}");
                    record.skipped.push(Skipped { peer: *peer, reason: missing.to_string() });
                }
            }
        }
        let products = products.into_iter().filter_map(|(product, had)| Some((product, had.ok()?))).collect();
        Bench { options, work, products, record, started: Instant::now(), left: Duration::ZERO, stop }
    }

    fn measure(&mut self) {
        self.started = Instant::now();
        let peers: Vec<Peer> = self.record.participants.iter().map(|participant| participant.peer).collect();
        self.left = estimate::total(&self.options, &peers);
        eprintln!("about {} minutes", self.left.as_secs().div_ceil(60));

        let mut calibrated = BTreeMap::new();
        for peer in &peers {
            let takes = estimate::calibration(&self.options, *peer);
            self.with_broker(*peer, "calibration", takes, |bench, broker| {
                bench.calibrate(*peer, broker, &mut calibrated)
            });
        }
        let key = Cell { size: self.options.latency_size, consumed: true };
        let of =
            |(peer, cells): (&Peer, &BTreeMap<Cell, Best>)| Some((*peer, cells.get(&key)?.published_per_s));
        let saturations: BTreeMap<Peer, f64> = calibrated.iter().filter_map(of).collect();
        let plan = levels::latency_levels(&self.options, &saturations);

        let takes = |options: &Options, peer: Peer| estimate::turn(options, peer, plan[&peer].len());
        self.left =
            plan.keys().map(|peer| takes(&self.options, *peer)).sum::<Duration>() * self.options.rounds;
        for round in 0..self.options.rounds {
            for peer in levels::order(&plan.keys().copied().collect::<Vec<_>>(), round) {
                let turn = format!("round {} of {}", round + 1, self.options.rounds);
                let takes = takes(&self.options, peer);
                self.with_broker(peer, &turn, takes, |bench, broker| {
                    bench.saturate(peer, round, broker, &calibrated[&peer])?;
                    bench.latencies(peer, round, broker, &plan[&peer])
                });
            }
        }
        self.record.interrupted = self.stop.is_set();
    }

    /// Starts a peer, warms it up, and lets `then` measure. One that fails is in the record; the bench goes on.
    fn with_broker(
        &mut self,
        peer: Peer,
        turn: &str,
        takes: Duration,
        then: impl FnOnce(&mut Bench, &mut Broker) -> Result<(), MeasureError>,
    ) {
        if self.stop.is_set() {
            return;
        }
        eprintln!(
            "{:>3}:{:02}  {peer}, {turn}, {} min left",
            self.started.elapsed().as_secs() / 60,
            self.started.elapsed().as_secs() % 60,
            self.left.as_secs().div_ceil(60),
        );
        self.left = self.left.saturating_sub(takes);
        let result = self.start(peer).and_then(|mut broker| then(self, &mut broker));
        match result {
            Ok(()) | Err(MeasureError::Run(RunError::Interrupted)) => {}
            Err(error) => {
                eprintln!("        FAILED {peer}: {error}");
                let error = error.to_string();
                self.record.troubles.push(Trouble { peer, turn: turn.to_owned(), error });
            }
        }
        write_back();
    }

    fn start(&mut self, peer: Peer) -> Result<Broker, MeasureError> {
        let place = Place {
            folder: self.work.join("run"),
            ports: Ports::from_base(self.options.port_base).expect("checked"),
            cpus: self.options.broker_cpus.clone(),
            memory_bytes: machine::memory_bytes(),
        };
        let obtained = &self.products[&peer.product()];
        let mut broker = Broker::start(obtained, peer.flush(), place)?;
        measure::await_ready(&mut broker, &self.generator(), &self.stop)?;
        let memory = broker.memory()?;
        if let Some(participant) = self.participant(peer) {
            participant.commands = broker.commands.clone();
            participant.memory_at_start.push(memory);
        }
        let offer = Offer {
            size: self.options.latency_size,
            consumed: true,
            settle: Duration::ZERO,
            measured: estimate::warmup(&self.options, peer),
            pace: Pace::InFlight(WARMUP_IN_FLIGHT),
        };
        measure::measure(&mut broker, &self.generator(), offer, &self.stop)?;
        Ok(broker)
    }

    /// Looks for the number of requests in flight at which most goes through.
    fn calibrate(
        &mut self,
        peer: Peer,
        broker: &mut Broker,
        calibrated: &mut BTreeMap<Peer, BTreeMap<Cell, Best>>,
    ) -> Result<(), MeasureError> {
        for cell in levels::saturation_cells(&self.options) {
            write_back();
            let mut best: Option<Best> = None;
            for in_flight in self.options.in_flight.clone() {
                let offer = offer(cell, in_flight, CALIBRATION_SETTLE, CALIBRATION);
                let (figures, _) = measure::measure(broker, &self.generator(), offer, &self.stop)?;
                let published_per_s = figures.published_per_s;
                eprintln!("        {}", markdown::line(cell.saturation(in_flight), &figures));
                if best.is_none_or(|best| published_per_s > best.published_per_s) {
                    best = Some(Best { in_flight, published_per_s });
                }
            }
            let best = best.filter(|best| best.published_per_s >= 1.0).ok_or(MeasureError::TakesNothing)?;
            calibrated.entry(peer).or_default().insert(cell, best);
        }
        Ok(())
    }

    fn saturate(
        &mut self,
        peer: Peer,
        round: u32,
        broker: &mut Broker,
        calibrated: &BTreeMap<Cell, Best>,
    ) -> Result<(), MeasureError> {
        for (cell, best) in calibrated {
            write_back();
            let length = Duration::from_secs(self.options.saturation_seconds);
            let offer = offer(*cell, best.in_flight, SETTLE, length);
            self.stretch(peer, round, cell.saturation(best.in_flight), offer, broker)?;
        }
        Ok(())
    }

    fn latencies(
        &mut self,
        peer: Peer,
        round: u32,
        broker: &mut Broker,
        levels: &[What],
    ) -> Result<(), MeasureError> {
        write_back();
        for what in levels {
            let offer = Offer {
                size: self.options.latency_size,
                consumed: true,
                settle: SETTLE,
                measured: Duration::from_secs(self.options.seconds),
                pace: Pace::Rate(what.rate().expect("levels are rates")),
            };
            self.stretch(peer, round, *what, offer, broker)?;
        }
        Ok(())
    }

    /// One stretch that goes into the record, unless the user ended it.
    fn stretch(
        &mut self,
        peer: Peer,
        round: u32,
        what: What,
        offer: Offer,
        broker: &mut Broker,
    ) -> Result<(), MeasureError> {
        let (figures, interrupted) = measure::measure(broker, &self.generator(), offer, &self.stop)?;
        if interrupted || self.stop.is_set() {
            return Err(RunError::Interrupted.into());
        }
        eprintln!("        {}", markdown::line(what, &figures));
        self.record.stretches.push(Stretch { peer, round, what, figures });
        Ok(())
    }

    fn participant(&mut self, peer: Peer) -> Option<&mut Participant> {
        self.record.participants.iter_mut().find(|participant| participant.peer == peer)
    }

    fn generator(&self) -> Generator {
        Generator {
            cpu: self.options.generator_cpu,
            connections: self.options.connections,
            queues: self.options.queues,
        }
    }
}

fn offer(cell: Cell, in_flight: u32, settle: Duration, measured: Duration) -> Offer {
    let Cell { size, consumed } = cell;
    Offer { size, consumed, settle, measured, pace: Pace::InFlight(in_flight) }
}

fn obtain(product: Product, options: &Options, work: &Path) -> Result<Obtained, Missing> {
    match product {
        Product::Apogee => {
            let program =
                options.apogee.as_deref().ok_or_else(|| Missing("no program is named".to_owned()))?;
            Apogee::obtain(program).map(Obtained::Apogee)
        }
        Product::RocketMq => {
            RocketMq::obtain(&options.rocketmq_version, &options.rocketmq_set, work).map(Obtained::RocketMq)
        }
        Product::RocketMqRust => {
            RocketMqRust::obtain(&options.rocketmq_rust_version, work).map(Obtained::RocketMqRust)
        }
    }
}

/// What every peer is measured with, one a line.
fn settings(options: &Options) -> Vec<String> {
    let list = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    vec![
        format!(
            "broker and NameServer on CPU {}, generator on CPU {} (one thread, busy all the time)",
            list(&options.broker_cpus),
            options.generator_cpu
        ),
        format!("one topic of {} queues, {} publishing connections", options.queues, options.connections),
        format!(
            "a calibration and {} rounds; in each the peers take turns, every turn on a fresh broker with an empty \
             folder, after {} s of load for a JVM and {} s for the others",
            options.rounds,
            options.warmup_seconds,
            estimate::WARMUP_NATIVE.as_secs()
        ),
        format!(
            "saturation: closed loop, the best of {:?} requests in flight, {} s",
            options.in_flight, options.saturation_seconds
        ),
        format!(
            "latency: open loop, {} messages, read by a consumer meanwhile, {} s",
            record::bytes(options.latency_size),
            options.seconds
        ),
    ]
}

/// What an earlier stretch, or broker, left in the page cache is none of the next one's business.
fn write_back() {
    // SAFETY: no arguments, no memory.
    unsafe { libc::sync() };
}
