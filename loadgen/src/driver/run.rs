//! A whole run, from settings to report.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use apogee_net::io::Nudge;
use apogee_net::tls::TlsFileError;
use glommio::ExecutorJoinHandle;

use super::link::Access;
use super::processes::Sampler;
pub use super::runtime::ExecutorError;
use super::runtime::{self, NUDGE_PERIOD};
use super::setup::{self, Broker, SetupError};
use super::stages::{self, Snapshots};
use super::worker::{self, Handshake, WorkerPlan};
use crate::assignment;
use crate::content::Content;
use crate::live::Live;
use crate::payload::RunId;
use crate::report::machine::Machine;
use crate::report::{Report, Surroundings};
use crate::scenario::{Scenario, ScenarioError};
use crate::series::Series;
use crate::stop::StopFlag;
use crate::tally::Measurements;

/// From "all are ready" to the first message: enough for every thread to hear of it and to park its pulls.
const START_LEAD: Duration = Duration::from_millis(200);

/// How often an observer is shown how things are.
pub const TICK: Duration = Duration::from_millis(100);

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error("target.tls: {0}")]
    Tls(#[from] TlsFileError),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    #[error("a thread of the generator failed: {0}")]
    Thread(String),
    #[error("interrupted before the first message")]
    Interrupted,
}

/// Which part of a run is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    WarmUp,
    Measuring,
    /// The plan is through; outstanding replies and messages are awaited.
    Draining,
}

/// A run in progress, as an observer sees it.
#[derive(Debug)]
pub struct View<'a> {
    pub phase: Phase,
    /// Since the first message was due.
    pub elapsed: Duration,
    pub scenario: &'a Scenario,
    pub live: &'a [Arc<Live>],
    /// The intervals that are through.
    pub series: &'a Series,
}

/// Is told how a run goes on; all calls come from the thread that started it.
pub trait Observer {
    /// A step of the preparation begins.
    fn on_step(&mut self, step: &str);
    /// Every `TICK` while messages are sent or awaited.
    fn on_tick(&mut self, view: &View<'_>);
    /// The run is over; the report follows.
    fn on_end(&mut self);
}

/// Prepares, sends, receives and reports. Blocks until all is done or `stop` is set and the rest has been awaited.
pub fn run(scenario: &Scenario, stop: &StopFlag, observer: &mut dyn Observer) -> Result<Report, RunError> {
    scenario.check()?;
    let schedule = scenario.schedule()?;
    let access = Access::new(&scenario.target)?;
    let nudge = Nudge::start(NUDGE_PERIOD);
    let scenario = Arc::new(scenario.clone());

    observer.on_step(&format!(
        "topic {} on the brokers of {}",
        scenario.topics.name,
        scenario.target.namesrv.join(";")
    ));
    let (brokers, stages_before) = prepare(&scenario, &access, &nudge)?;
    if stop.is_set() {
        return Err(RunError::Interrupted);
    }

    let run_id = new_run_id();
    let content = Arc::new(Content::new(run_id, &scenario));
    let topics: Arc<[String]> = scenario.topic_names().into();
    let targets = assignment::number_streams(topics.len(), brokers.len(), scenario.topics.queues);
    let dealt = match scenario.producers.retry {
        0 => assignment::deal_to_threads(&targets, brokers.len(), scenario.threads(), scenario.pops()),
        _ => assignment::deal_rows_to_threads(&targets, brokers.len(), scenario.threads()),
    };
    let threads = dealt.len();
    observer.on_step(&format!("{} queues on {} brokers", targets.len(), brokers.len()));
    let plans = dealt.into_iter().enumerate().map(|(index, own)| WorkerPlan {
        index,
        content: content.clone(),
        scenario: scenario.clone(),
        access: access.clone(),
        topics: topics.clone(),
        brokers: brokers.clone(),
        schedule: schedule.clone(),
        targets: own,
        streams: u32::try_from(targets.len()).expect("streams were numbered with u32"),
        threads,
        live: Arc::new(Live::new(scenario.run.interval)),
        stop: stop.clone(),
    });
    let mut team = Team::start(plans, &nudge)?;
    let connections = team.await_ready()?;
    let start = team.give_start();
    let started = SystemTime::now() + START_LEAD;
    let addresses: Vec<_> = brokers.iter().map(|broker| broker.address).collect();
    let mut sampler = Sampler::new(&addresses, scenario.run.broker_pid);
    let (stopped_after, series) = team.watch(&scenario, start, stop, &mut sampler, observer);
    observer.on_end();
    let mut measured = team.join()?;
    measured.series.merge(&series);
    let stages_after = ask_stages(&brokers, &access, &nudge)?;

    let surroundings = Surroundings {
        run_id: format!("{:016x}", run_id.0),
        brokers: brokers.iter().map(|broker| broker.name.clone()).collect(),
        queues: targets.len(),
        threads,
        connections,
    };
    let ran_for = stopped_after.unwrap_or(scenario.length()).min(scenario.length());
    let measured_for = ran_for.saturating_sub(scenario.run.warmup);
    let mut report = Report::new(&scenario, &surroundings, &measured, measured_for, stopped_after.is_some());
    report.started_unix_ms = millis_since_1970(started);
    report.machine = Machine::read();
    report.usage = sampler.finish();
    report.stages = stages_after
        .iter()
        .filter_map(|(broker, after)| Some(after.since(stages_before.get(broker)?, broker)))
        .collect();
    Ok(report)
}

fn millis_since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// The brokers of the run, and the stages they had counted before it.
fn prepare(
    scenario: &Arc<Scenario>,
    access: &Access,
    nudge: &Nudge,
) -> Result<(Arc<[Broker]>, Snapshots), RunError> {
    let (scenario, access) = (scenario.clone(), access.clone());
    let task = move || async move {
        let brokers = setup::prepare(&scenario, &access).await?;
        let stages = stages::ask(&brokers, &access).await;
        Ok::<_, SetupError>((brokers.into(), stages))
    };
    let handle = runtime::start("loadgen-setup", None, nudge, task)?;
    Ok(handle.join().map_err(|error| RunError::Thread(error.to_string()))??)
}

fn ask_stages(brokers: &Arc<[Broker]>, access: &Access, nudge: &Nudge) -> Result<Snapshots, RunError> {
    let (brokers, access) = (brokers.clone(), access.clone());
    let task = move || async move { stages::ask(&brokers, &access).await };
    let handle = runtime::start("loadgen-stages", None, nudge, task)?;
    handle.join().map_err(|error| RunError::Thread(error.to_string()))
}

/// Nanoseconds since 1970 tell runs apart, also those of several processes.
fn new_run_id() -> RunId {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    RunId(since_1970.as_nanos() as u64 ^ u64::from(std::process::id()).rotate_right(16))
}

/// The threads of a run.
struct Team {
    members: Vec<ExecutorJoinHandle<Option<Measurements>>>,
    ready: Receiver<Result<usize, SetupError>>,
    starts: Vec<SyncSender<Instant>>,
    live: Vec<Arc<Live>>,
    /// Closed when the last thread has ended, however it ended.
    ended: Receiver<()>,
}

impl Team {
    fn start(plans: impl Iterator<Item = WorkerPlan>, nudge: &Nudge) -> Result<Team, ExecutorError> {
        let (ready_sender, ready) = sync_channel(1);
        let (end_guard, ended) = sync_channel(0);
        let mut team = Team { members: vec![], ready, starts: vec![], live: vec![], ended };
        for plan in plans {
            let cpu = plan.scenario.run.cpus.as_ref().map(|cpus| cpus[plan.index]);
            let (start_sender, start) = sync_channel(1);
            let handshake = Handshake { ready: ready_sender.clone(), start };
            let end_guard: SyncSender<()> = end_guard.clone();
            team.live.push(plan.live.clone());
            team.starts.push(start_sender);
            team.members.push(runtime::start("loadgen", cpu, nudge, move || async move {
                let _end_guard = end_guard;
                worker::work(plan, handshake).await
            })?);
        }
        Ok(team)
    }

    /// Waits until every thread is connected; counts the publishing connections.
    fn await_ready(&mut self) -> Result<usize, SetupError> {
        let mut connections = 0;
        for _ in 0..self.members.len() {
            let Ok(ready) = self.ready.recv() else {
                // A thread that died says nothing; `join` reports it, and the others do not begin.
                self.starts.clear();
                break;
            };
            connections += ready?;
        }
        Ok(connections)
    }

    fn give_start(&mut self) -> Instant {
        let start = Instant::now() + START_LEAD;
        for member in self.starts.drain(..) {
            // Fails only if that thread has died, which `join` reports.
            let _ = member.send(start);
        }
        start
    }

    /// Shows the run to the observer and collects its intervals until it is over; also tells when it was interrupted,
    /// if it was.
    fn watch(
        &self,
        scenario: &Scenario,
        start: Instant,
        stop: &StopFlag,
        sampler: &mut Sampler,
        observer: &mut dyn Observer,
    ) -> (Option<Duration>, Series) {
        let mut stopped_after = None;
        let mut series = Series::new(scenario.run.interval);
        loop {
            let is_over = self.ended.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout);
            let elapsed = start.elapsed();
            self.live.iter().for_each(|live| live.intervals.fetch(&mut series));
            if stop.is_set() && stopped_after.is_none() && elapsed < scenario.length() {
                stopped_after = Some(elapsed);
            }
            if is_over {
                return (stopped_after, series);
            }
            let phase = if stopped_after.is_some() || elapsed >= scenario.length() {
                Phase::Draining
            } else if elapsed < scenario.run.warmup {
                Phase::WarmUp
            } else {
                Phase::Measuring
            };
            sampler.on_tick(elapsed);
            observer.on_tick(&View { phase, elapsed, scenario, live: &self.live, series: &series });
        }
    }

    fn join(self) -> Result<Measurements, RunError> {
        let ended: Result<Vec<_>, _> = self.members.into_iter().map(ExecutorJoinHandle::join).collect();
        let mut sum = Measurements::default();
        for measured in ended.map_err(|error| RunError::Thread(error.to_string()))? {
            sum.merge(&measured.ok_or_else(|| RunError::Thread("it was not started".to_owned()))?);
        }
        Ok(sum)
    }
}
