//! One thread of a run: its connections, its share of the plan, its queues, and how it ends.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use apogee_net::client::ConnectOptions;
use apogee_net::frame::HeaderEncoding;
use apogee_net::io::Signal;
use futures_lite::future;
use glommio::Task;
use rustc_hash::{FxHashMap, FxHashSet};

use super::books::Books;
use super::consume::{QUIET, Queue, Reader, Subscription};
use super::link::{Access, Link, RETRY_PAUSE};
use super::produce::{self, Answerer, Identity, Publisher, PublisherParts, Route};
use super::runtime::ThreadClock;
use super::setup::{Broker, SetupError};
use super::watch::RouteWatch;
use crate::assignment::{self, QueueTarget};
use crate::clock::{RunClock, RunTime};
use crate::content::Content;
use crate::live::Live;
use crate::pace::{ClosedLoop, Pacer};
use crate::scenario::{By, From, Kind, Load, Scenario};
use crate::schedule::{MESSAGES_MAX, Schedule, StreamId};
use crate::stop::{Drain, DrainStep, Outstanding, StopFlag};
use crate::tally::{Measurements, Tally, Window};

/// What one thread has to do.
pub(super) struct WorkerPlan {
    pub(super) index: usize,
    pub(super) content: Arc<Content>,
    pub(super) scenario: Arc<Scenario>,
    pub(super) access: Access,
    /// Names, in the order of the targets' indexes.
    pub(super) topics: Arc<[String]>,
    pub(super) brokers: Arc<[Broker]>,
    /// The plan of an open loop.
    pub(super) schedule: Option<Schedule>,
    /// Queues of this thread.
    pub(super) targets: Vec<QueueTarget>,
    /// Streams and threads of the whole run.
    pub(super) streams: u32,
    pub(super) threads: usize,
    pub(super) live: Arc<Live>,
    pub(super) stop: StopFlag,
}

/// How a thread and the run's main thread agree on the start.
pub(super) struct Handshake {
    /// The thread is connected to everything it needs, with so many publishing connections.
    pub(super) ready: SyncSender<Result<usize, SetupError>>,
    /// The instant of the first planned message; closed if there will be none.
    pub(super) start: Receiver<Instant>,
}

/// The connections of one thread, and its books.
struct Wiring {
    books: Rc<Books>,
    /// Of the producers.
    group: Rc<str>,
    routes: FxHashMap<StreamId, Route>,
    /// Publishing connections and their streams.
    lanes: Vec<(Rc<Link>, Vec<StreamId>)>,
    readers: Vec<Reader>,
    /// All of them, with their brokers' names.
    links: Vec<(Rc<str>, Rc<Link>)>,
    /// Raised when one of them breaks.
    broke: Rc<Signal>,
    identities: Vec<(Rc<Link>, Identity)>,
}

/// How long after the last message a broker may ask what became of a transaction: it looks every 30 s, 60 s in 4.x, for
/// those that are older than 6 s.
const QUESTION_WAIT: Duration = Duration::from_secs(75);

/// Runs one thread's part to its end; `None` if the run was called off before the start.
pub(super) async fn work(plan: WorkerPlan, handshake: Handshake) -> Option<Measurements> {
    let wired = wire(&plan).await;
    let report = wired.as_ref().map(|wiring| wiring.lanes.len()).map_err(SetupError::clone);
    let Handshake { ready, start } = handshake;
    // The other side is gone only if it has called the run off. It waits until all have spoken or are gone.
    ready.send(report).ok()?;
    drop(ready);
    let wiring = wired.ok()?;
    // Blocks this executor on purpose: until every thread is ready there is nothing for it to do.
    let start = start.recv().ok()?;
    Some(run(plan, wiring, RunClock::starting_at(start)).await)
}

async fn wire(plan: &WorkerPlan) -> Result<Wiring, SetupError> {
    let scenario = &plan.scenario;
    let end = RunTime::after_start(scenario.length());
    let window = Window { start: RunTime::after_start(scenario.run.warmup), end };
    let tally = Tally::new(plan.content.clone(), window, &plan.targets, plan.live.clone());
    let mut wiring = Wiring {
        books: Rc::new(Books::new(tally)),
        group: match scenario.messages.kind {
            // Its own: brokers ask any member of the group about a transaction, and only this run can answer.
            Kind::Transactional { .. } => format!("{}-{:016x}", produce::GROUP, plan.content.run().0).into(),
            _ => produce::GROUP.into(),
        },
        routes: FxHashMap::default(),
        lanes: vec![],
        readers: vec![],
        links: vec![],
        broke: Rc::default(),
        identities: vec![],
    };
    wire_producers(plan, &mut wiring).await?;
    wire_consumers(plan, &mut wiring, From::Start).await?;
    if scenario.messages.prefill > 0 {
        prefill(plan, &wiring).await?;
    }
    wire_consumers(plan, &mut wiring, From::End).await?;
    Ok(wiring)
}

/// One connection after the other: no listener's queue overflows, however many there are.
async fn wire_producers(plan: &WorkerPlan, wiring: &mut Wiring) -> Result<(), SetupError> {
    let scenario = &plan.scenario;
    let topics: Vec<Rc<str>> = plan.topics.iter().map(|topic| topic.as_str().into()).collect();
    for (at, broker) in plan.brokers.iter().enumerate() {
        let name: Rc<str> = broker.name.as_str().into();
        let queues: Vec<_> = plan.targets.iter().filter(|target| target.broker == at).copied().collect();
        for part in assignment::deal_to_connections(&queues, scenario.producers.connections) {
            let answerer = Answerer::new(plan.content.clone(), wiring.group.clone());
            let mut options = plan.access.options();
            if let Kind::Transactional { .. } = scenario.messages.kind {
                options.on_request = answerer.on_request();
            }
            let link = open(broker, options, &wiring.broke).await?;
            answerer.answer_over(&link);
            for target in &part {
                let route = || Route {
                    links: vec![],
                    turn: Cell::default(),
                    broker: name.clone(),
                    topic: topics[target.topic].clone(),
                    queue_id: target.queue_id,
                };
                wiring.routes.entry(target.stream).or_insert_with(route).links.push(link.clone());
            }
            if scenario.producers_are_known() {
                let (run, thread, lane) = (plan.content.run().0, plan.index, wiring.lanes.len());
                let client_id = format!("{}@{run:x}-{thread}-{lane}", link.address().ip());
                let identity = Identity { client_id, group: wiring.group.clone() };
                if let Some(client) = link.client() {
                    identity.introduce(&client, &broker.name).await?;
                }
                wiring.identities.push((link.clone(), identity));
            }
            wiring.lanes.push((link.clone(), part.iter().map(|target| target.stream).collect()));
            wiring.links.push((name.clone(), link));
        }
    }
    Ok(())
}

/// Readers of the groups that begin here; each finds its queue's present end.
async fn wire_consumers(plan: &WorkerPlan, wiring: &mut Wiring, from: From) -> Result<(), SetupError> {
    let topics: Vec<Rc<str>> = plan.topics.iter().map(|topic| topic.as_str().into()).collect();
    let subscriptions = Subscription::all(&plan.content, &plan.scenario);
    for (at, broker) in plan.brokers.iter().enumerate() {
        let name: Rc<str> = broker.name.as_str().into();
        let queues: Vec<_> = plan.targets.iter().filter(|target| target.broker == at).copied().collect();
        let begin_here = subscriptions.iter().filter(|subscription| subscription.consumer.from == from);
        for subscription in begin_here.filter(|_| !queues.is_empty()) {
            let mut options = plan.access.options();
            if subscription.consumer.by == By::Pop {
                // The binary header has 16 bits for a request's code; those of pops need more.
                options.encoding = HeaderEncoding::Json;
            }
            // Its own connection: a reply full of messages must not hold up acknowledgements.
            let link = open(broker, options, &wiring.broke).await?;
            for target in &queues {
                let (topic, broker, link) = (topics[target.topic].clone(), name.clone(), link.clone());
                let queue = Queue { target: *target, topic, broker, link };
                wiring.readers.push(Reader::open(queue, subscription.clone()).await?);
            }
            wiring.links.push((name.clone(), link));
        }
    }
    Ok(())
}

async fn open(broker: &Broker, options: ConnectOptions, broke: &Rc<Signal>) -> Result<Rc<Link>, SetupError> {
    Link::open(broker.address, options, broke.clone()).await.map_err(|error| SetupError::BrokerUnreachable {
        name: broker.name.clone(),
        address: broker.address.to_string(),
        reason: error.to_string(),
    })
}

/// Writes this thread's part of what is to be there when the run begins.
async fn prefill(plan: &WorkerPlan, wiring: &Wiring) -> Result<(), SetupError> {
    let Some(publisher) = publisher(plan, wiring) else { return Ok(()) };
    // Each queue gets the same, the first ones of the run one more where that does not come out even.
    let (messages, streams) = (plan.scenario.messages.prefill, u64::from(plan.streams));
    let share = |stream: &StreamId| messages / streams + u64::from(u64::from(stream.0) < messages % streams);
    let mut unfilled: Vec<StreamId> = plan.targets.iter().map(|target| target.stream).collect();
    let mut tasks = Vec::new();
    for (link, streams) in &wiring.lanes {
        // A queue that several connections share is filled by the first.
        let own: Vec<_> = streams.iter().copied().filter(|stream| unfilled.contains(stream)).collect();
        unfilled.retain(|stream| !own.contains(stream));
        for stream in own {
            let filling = publisher.clone().prefill(link.clone(), stream, share(&stream), plan.stop.clone());
            tasks.push(glommio::spawn_local(filling));
        }
    }
    for task in tasks {
        task.await;
    }
    Ok(())
}

fn publisher(plan: &WorkerPlan, wiring: &Wiring) -> Option<Rc<Publisher>> {
    let scenario = &plan.scenario;
    let (first, _) = wiring.lanes.first()?;
    Some(Publisher::new(PublisherParts {
        routes: wiring.routes.clone(),
        books: wiring.books.clone(),
        content: plan.content.clone(),
        messages: &scenario.messages,
        group: wiring.group.clone(),
        timeout: scenario.producers.timeout,
        retry: scenario.producers.retry,
        brokers: plan.brokers.len(),
        in_flight_max: match scenario.load.is_open() {
            true => scenario.in_flight_max(),
            // A closed loop is bounded by its depth.
            false => u32::MAX,
        },
        local_ip: first.address().ip(),
        salt: (plan.content.run().0 as u32).wrapping_add(plan.index as u32),
    }))
}

async fn run(plan: WorkerPlan, mut wiring: Wiring, clock: RunClock) -> Measurements {
    let scenario = &plan.scenario;
    let identities = std::mem::take(&mut wiring.identities);
    let books = &wiring.books;
    books.begin(clock);

    // Dropping a task ends it; these live until the books are closed.
    let mut background: Vec<Task<()>> = Vec::new();
    background.extend(wiring.links.iter().map(|(_, link)| glommio::spawn_local(link.clone().keep())));
    background.push(glommio::spawn_local(route_watch(&plan, &wiring).run()));
    background.extend(wiring.readers.iter().flat_map(|reader| reader.start(books)));
    let keep_known = |(link, identity): (Rc<Link>, Identity)| glommio::spawn_local(identity.keep(link));
    background.extend(identities.into_iter().map(keep_known));

    let publisher = publisher(&plan, &wiring);
    let before = ThreadClock::now();
    if let Some(publisher) = &publisher {
        publish(&plan, &wiring, publisher).await;
    }
    if plan.stop.is_set() {
        books.tally.borrow_mut().cut(books.now());
    }
    let used = before.used();
    let asked_late = matches!(scenario.messages.kind, Kind::Transactional { check: 1.., .. });
    let question_wait = if asked_late { QUESTION_WAIT } else { Duration::ZERO };
    let patience = scenario.run.drain + scenario.messages.kind.delay() + question_wait;
    let drain = Drain { deadline: clock.now() + patience, consumed: scenario.consumes() };
    finish(drain, &wiring.readers, books).await;
    drop(background);
    if let Some(publisher) = publisher {
        publisher.give_up_waiting();
    }
    let is_behind = |reader: &&Reader| reader.is_behind() != Some(false);
    let behind: FxHashSet<(usize, StreamId)> =
        wiring.readers.iter().filter(is_behind).map(|reader| (reader.group(), reader.stream())).collect();
    let mut measured = books.tally.borrow_mut().finish(|group, stream| behind.contains(&(group, stream)));
    measured.threads.push(used);
    measured
}

fn route_watch(plan: &WorkerPlan, wiring: &Wiring) -> RouteWatch {
    RouteWatch {
        namesrv: plan.scenario.target.namesrv.clone(),
        access: plan.access.clone(),
        // Every broker has every topic.
        topic: plan.topics[0].as_str().into(),
        interval: plan.scenario.target.route_interval,
        links: wiring.links.clone(),
        broke: wiring.broke.clone(),
    }
}

async fn publish(plan: &WorkerPlan, wiring: &Wiring, publisher: &Rc<Publisher>) {
    let scenario = &plan.scenario;
    if let Some(schedule) = &plan.schedule {
        let streams: Vec<_> = plan.targets.iter().map(|target| target.stream).collect();
        publisher.follow(Pacer::new(schedule.share(plan.streams, &streams)), &plan.stop).await;
    }
    if let Load::Closed { depth } = scenario.load {
        let end = RunTime::after_start(scenario.length());
        let messages_max = MESSAGES_MAX / (wiring.lanes.len() * plan.threads) as u64;
        let requests_max = messages_max / u64::from(scenario.messages.batch);
        let lane = |(link, streams): &(Rc<Link>, Vec<StreamId>)| {
            let closed = ClosedLoop::new(streams, depth, end, requests_max);
            glommio::spawn_local(publisher.clone().keep_in_flight(closed, link.clone(), plan.stop.clone()))
        };
        let _pulse = glommio::spawn_local(pulse(wiring.books.clone()));
        let lanes: Vec<Task<()>> = wiring.lanes.iter().map(lane).collect();
        for lane in lanes {
            lane.await;
        }
    }
}

/// How often a thread that only reacts looks whether it still would.
const PULSE: Duration = Duration::from_millis(1);

/// A closed loop has no plan by which a stall of the generator would show; this shows it.
async fn pulse(books: Rc<Books>) {
    loop {
        books.tally.borrow_mut().on_look(books.now(), PULSE);
        glommio::timer::sleep(PULSE).await;
    }
}

/// Waits for what is outstanding, as long as `drain` has patience.
async fn finish(drain: Drain, readers: &[Reader], books: &Books) {
    loop {
        let now = books.now();
        let behind = |count: usize, reader: &Reader| Some(count + usize::from(reader.is_behind()?));
        let outstanding = {
            let tally = books.tally.borrow();
            let queues_behind = readers.iter().try_fold(0, behind);
            Outstanding { in_flight: tally.in_flight(), awaited: tally.awaited(), queues_behind }
        };
        match drain.step(now, outstanding) {
            DrainStep::Wait => {
                let too_late = async {
                    glommio::timer::sleep(drain.deadline.since(now)).await;
                };
                future::or(books.changed.wait(), too_late).await;
            }
            DrainStep::AskEnds => {
                if readers.iter().any(Reader::needs_quiet) {
                    readers.iter().for_each(Reader::listen);
                    glommio::timer::sleep(QUIET).await;
                }
                for reader in readers {
                    if !reader.find_end().await {
                        glommio::timer::sleep(RETRY_PAUSE).await;
                        break;
                    }
                }
            }
            DrainStep::Done | DrainStep::TimedOut => return,
        }
    }
}
