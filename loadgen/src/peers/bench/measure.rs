//! One stretch of load against one broker: the only place of the bench that knows how the generator is driven.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use super::record::Figures;
use crate::driver::run::{Observer, Phase, RunError, View, run};
use crate::peers::broker::{Broker, StartError};
use crate::peers::tools;
use crate::peers::usage::{self, CpuTime};
use crate::report::Report;
use crate::scenario::{Load, Scenario, Sizes};
use crate::stop::StopFlag;

/// A reply that takes longer is an error.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Patience with a reader that has fallen behind.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Longest wait for a first message to be taken, after the ports are open: brokers register some time later.
const READY_WAIT_MAX: Duration = Duration::from_secs(60);
const READY_PAUSE: Duration = Duration::from_millis(250);

/// What the generator has, whatever it is asked to do with it.
#[derive(Clone, Debug)]
pub(super) struct Generator {
    pub(super) cpu: usize,
    pub(super) connections: usize,
    pub(super) queues: u32,
}

/// What is offered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub(super) size: usize,
    pub(super) consumed: bool,
    pub(super) settle: Duration,
    pub(super) measured: Duration,
    pub(super) pace: Pace,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// Messages per second.
    Rate(u64),
    /// Requests in flight over all connections.
    InFlight(u32),
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(super) enum MeasureError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Broker(#[from] StartError),
    #[error("cannot read what the broker has used: {0}")]
    Usage(#[from] io::Error),
    #[error("it acknowledges nothing under load")]
    TakesNothing,
    #[error("it takes no message after {waited:?}: {last}; {log}")]
    NotReady { waited: Duration, last: String, log: String },
}

/// Waits until a message has gone through and come back.
pub(super) fn await_ready(
    broker: &mut Broker,
    generator: &Generator,
    stop: &StopFlag,
) -> Result<(), MeasureError> {
    let offer = Offer {
        size: 128,
        consumed: true,
        settle: Duration::ZERO,
        measured: Duration::from_millis(100),
        pace: Pace::Rate(20),
    };
    let since = Instant::now();
    loop {
        let last = match run(&scenario(broker, generator, offer), stop, &mut Unseen) {
            Ok(report) if report.ledger.received > 0 => return Ok(()),
            Ok(report) => format!("{} sent, {} acknowledged", report.ledger.sent, report.ledger.acked),
            Err(error @ RunError::Interrupted) => return Err(error.into()),
            Err(error) => error.to_string(),
        };
        broker.check()?;
        if since.elapsed() > READY_WAIT_MAX {
            let (waited, log) = (READY_WAIT_MAX, broker.log_tails());
            return Err(MeasureError::NotReady { waited, last, log });
        }
        tools::pause(READY_PAUSE);
    }
}

/// Offers load and says what came of it; also whether the user ended it early.
pub(super) fn measure(
    broker: &mut Broker,
    generator: &Generator,
    offer: Offer,
    stop: &StopFlag,
) -> Result<(Figures, bool), MeasureError> {
    let mut meter = Meter { broker, first: None, last: None };
    let result = run(&scenario(meter.broker, generator, offer), stop, &mut meter);
    let (first, last) = (meter.first, meter.last);
    broker.check()?;
    let report = result?;
    let interrupted = report.interrupted;
    let mut figures = figures(&report);
    if let (Some(first), Some(last)) = (first, last) {
        figures.broker_cpus = last.cpus_since(first, |sample| sample.broker.total());
        figures.broker_cpus_system = last.cpus_since(first, |sample| sample.broker.system);
        figures.generator_cpus = last.cpus_since(first, |sample| sample.generator.total());
    }
    figures.memory = broker.memory()?;
    Ok((figures, interrupted))
}

fn scenario(broker: &Broker, generator: &Generator, offer: Offer) -> Scenario {
    let mut scenario = Scenario {
        load: match offer.pace {
            Pace::Rate(rate) => Load::Constant { rate },
            Pace::InFlight(all) => Load::Closed { depth: all.div_ceil(generator.connections as u32) },
        },
        ..Scenario::default()
    };
    scenario.target.namesrv = vec![broker.namesrv()];
    scenario.topics.name = "peers".to_owned();
    scenario.topics.queues = generator.queues;
    scenario.messages.size = Sizes::Fixed(offer.size);
    scenario.producers.connections = generator.connections;
    scenario.producers.timeout = SEND_TIMEOUT;
    if !offer.consumed {
        scenario.consumers.clear();
    }
    scenario.run.duration = offer.measured;
    scenario.run.warmup = offer.settle;
    scenario.run.drain = DRAIN_MAX;
    scenario.run.threads = Some(1);
    scenario.run.cpus = Some(vec![generator.cpu]);
    scenario
}

fn figures(report: &Report) -> Figures {
    let mut errors = BTreeMap::new();
    for (what, failures) in [("publish", &report.errors.publish), ("consume", &report.errors.consume)] {
        for (failure, counted) in failures.iter() {
            let remark = counted.remark.as_ref().map(|remark| format!(": {remark}")).unwrap_or_default();
            *errors.entry(format!("{what} {failure}{remark}")).or_default() += counted.count;
        }
    }
    Figures {
        published_per_s: report.throughput.published_per_s,
        received_per_s: report.throughput.received_per_s,
        publish: report.publish.clone(),
        e2e: report.e2e.clone(),
        lateness: report.scheduling.lateness.clone(),
        generator_warning: report.scheduling.objection(),
        errors,
        unsent: report.errors.unsent,
        ledger: report.ledger,
        faults: report.faults.clone(),
        ..Figures::default()
    }
}

/// What was used until an instant.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    broker: CpuTime,
    generator: CpuTime,
}

impl Sample {
    fn cpus_since(self, earlier: Sample, time: impl Fn(&Sample) -> Duration) -> f64 {
        let passed = (self.at - earlier.at).as_secs_f64();
        let used = time(&self).saturating_sub(time(&earlier)).as_secs_f64();
        if passed > 0.0 { used / passed } else { 0.0 }
    }
}

/// Reads what broker and generator have used while the measured part goes on.
struct Meter<'a> {
    broker: &'a Broker,
    first: Option<Sample>,
    last: Option<Sample>,
}

impl Observer for Meter<'_> {
    fn on_step(&mut self, _: &str) {}

    fn on_tick(&mut self, view: &View<'_>) {
        if view.phase != Phase::Measuring {
            return;
        }
        // A broker that is gone is found and named after the run.
        let (Ok(broker), Ok(generator)) = (self.broker.cpu_time(), usage::cpu_time("self")) else { return };
        let sample = Sample { at: Instant::now(), broker, generator };
        self.first.get_or_insert(sample);
        self.last = Some(sample);
    }

    fn on_end(&mut self) {}
}

struct Unseen;

impl Observer for Unseen {
    fn on_step(&mut self, _: &str) {}
    fn on_tick(&mut self, _: &View<'_>) {}
    fn on_end(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_cpu_time_by_time() {
        let sample = |at, millis| Sample {
            at,
            broker: CpuTime { user: Duration::from_millis(millis), system: Duration::ZERO },
            generator: CpuTime::default(),
        };
        let now = Instant::now();
        let (first, last) = (sample(now, 100), sample(now + Duration::from_secs(2), 1_600));
        assert_eq!(last.cpus_since(first, |sample| sample.broker.total()), 0.75);
        assert_eq!(first.cpus_since(first, |sample| sample.broker.total()), 0.0);
    }
}
