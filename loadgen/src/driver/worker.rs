//! One thread of a run: its connections, its share of the plan, its queues, and how it ends.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Instant;

use apogee_net::io::Signal;
use futures_lite::future;
use glommio::Task;
use rustc_hash::{FxHashMap, FxHashSet};

use super::books::Books;
use super::consume::{QUIET, Queue, Reader, Subscription};
use super::link::{Access, Link, RETRY_PAUSE};
use super::produce::{Publisher, PublisherParts, Route};
use super::setup::{Broker, SetupError};
use super::watch::RouteWatch;
use crate::assignment::{self, QueueTarget};
use crate::clock::{RunClock, RunTime};
use crate::content::Content;
use crate::live::Live;
use crate::pace::{ClosedLoop, Pacer};
use crate::scenario::{Load, Scenario};
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

/// The connections of one thread.
struct Wiring {
    routes: FxHashMap<StreamId, Route>,
    /// Publishing connections and their streams.
    lanes: Vec<(Rc<Link>, Vec<StreamId>)>,
    readers: Vec<Reader>,
    /// All of them, with their brokers' names.
    links: Vec<(Rc<str>, Rc<Link>)>,
    /// Raised when one of them breaks.
    broke: Rc<Signal>,
}

/// Runs one thread's part to its end; `None` if the run was called off before the start.
pub(super) async fn work(plan: WorkerPlan, handshake: Handshake) -> Option<Measurements> {
    let wired = wire(&plan).await;
    let report = wired.as_ref().map(|wiring| wiring.lanes.len()).map_err(SetupError::clone);
    // The other side is gone only if it has called the run off.
    handshake.ready.send(report).ok()?;
    let wiring = wired.ok()?;
    // Blocks this executor on purpose: until every thread is ready there is nothing for it to do.
    let start = handshake.start.recv().ok()?;
    Some(run(plan, wiring, RunClock::starting_at(start)).await)
}

async fn wire(plan: &WorkerPlan) -> Result<Wiring, SetupError> {
    let scenario = &plan.scenario;
    let topics: Vec<Rc<str>> = plan.topics.iter().map(|topic| topic.as_str().into()).collect();
    let subscriptions = Subscription::all(&plan.content, scenario);
    let mut wiring = Wiring {
        routes: FxHashMap::default(),
        lanes: vec![],
        readers: vec![],
        links: vec![],
        broke: Rc::default(),
    };
    for (at, broker) in plan.brokers.iter().enumerate() {
        let name: Rc<str> = broker.name.as_str().into();
        let queues: Vec<_> = plan.targets.iter().filter(|target| target.broker == at).copied().collect();
        for part in assignment::deal_to_connections(&queues, scenario.producers.connections) {
            let link = open(broker, &plan.access, &wiring.broke).await?;
            for target in &part {
                let route = Route {
                    link: link.clone(),
                    broker: name.clone(),
                    topic: topics[target.topic].clone(),
                    queue_id: target.queue_id,
                };
                wiring.routes.insert(target.stream, route);
            }
            wiring.lanes.push((link.clone(), part.iter().map(|target| target.stream).collect()));
            wiring.links.push((name.clone(), link));
        }
        for subscription in subscriptions.iter().filter(|_| !queues.is_empty()) {
            // Its own connection: a reply full of messages must not hold up acknowledgements.
            let link = open(broker, &plan.access, &wiring.broke).await?;
            for target in &queues {
                let (topic, broker, link) = (topics[target.topic].clone(), name.clone(), link.clone());
                let queue = Queue { target: *target, topic, broker, link };
                wiring.readers.push(Reader::open(queue, subscription.clone()).await?);
            }
            wiring.links.push((name.clone(), link));
        }
    }
    Ok(wiring)
}

async fn open(broker: &Broker, access: &Access, broke: &Rc<Signal>) -> Result<Rc<Link>, SetupError> {
    Link::open(broker.address, access.options(), broke.clone()).await.map_err(|error| {
        SetupError::BrokerUnreachable {
            name: broker.name.clone(),
            address: broker.address.to_string(),
            reason: error.to_string(),
        }
    })
}

async fn run(plan: WorkerPlan, wiring: Wiring, clock: RunClock) -> Measurements {
    let scenario = &plan.scenario;
    let streams: Vec<_> = plan.targets.iter().map(|target| target.stream).collect();
    let end = RunTime::after_start(scenario.length());
    let window = Window { start: RunTime::after_start(scenario.run.warmup), end };
    let tally = Tally::new(plan.content.clone(), window, &plan.targets, plan.live.clone());
    let books = Rc::new(Books::new(tally));
    books.begin(clock);

    // Dropping a task ends it; these live until the books are closed.
    let mut background: Vec<Task<()>> = Vec::new();
    background.extend(wiring.links.iter().map(|(_, link)| glommio::spawn_local(link.clone().keep())));
    background.push(glommio::spawn_local(route_watch(&plan, &wiring).run()));
    background.extend(wiring.readers.iter().flat_map(|reader| reader.start(&books)));

    publish(&plan, &wiring, &books, &streams, end).await;
    let patience = scenario.run.drain + scenario.messages.kind.delay();
    let drain = Drain { deadline: clock.now() + patience, consumed: scenario.consumes() };
    finish(drain, &wiring.readers, &books).await;
    drop(background);
    let behind = |reader: &Reader| reader.is_behind() != Some(false);
    let behind: FxHashSet<(usize, StreamId)> = wiring
        .readers
        .iter()
        .filter(|reader| behind(reader))
        .map(|reader| (reader.group(), reader.stream()))
        .collect();
    books.tally.borrow_mut().finish(|group, stream| behind.contains(&(group, stream)))
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

async fn publish(plan: &WorkerPlan, wiring: &Wiring, books: &Rc<Books>, streams: &[StreamId], end: RunTime) {
    let scenario = &plan.scenario;
    let Some((first, _)) = wiring.lanes.first() else { return };
    let publisher = Publisher::new(PublisherParts {
        routes: wiring.routes.clone(),
        books: books.clone(),
        content: plan.content.clone(),
        messages: &scenario.messages,
        timeout: scenario.producers.timeout,
        in_flight_max: match scenario.load.is_open() {
            true => scenario.in_flight_max(),
            // A closed loop is bounded by its depth.
            false => u32::MAX,
        },
        local_ip: first.address().ip(),
        salt: (plan.content.run().0 as u32).wrapping_add(plan.index as u32),
    });
    if let Some(schedule) = &plan.schedule {
        publisher.follow(Pacer::new(schedule.share(plan.streams, streams)), &plan.stop).await;
    }
    if let Load::Closed { depth } = scenario.load {
        let messages_max = MESSAGES_MAX / (wiring.lanes.len() * plan.threads) as u64;
        let requests_max = messages_max / u64::from(scenario.messages.batch);
        let lane = |(link, streams): &(Rc<Link>, Vec<StreamId>)| {
            let closed = ClosedLoop::new(streams, depth, end, requests_max);
            glommio::spawn_local(publisher.clone().keep_in_flight(closed, link.clone(), plan.stop.clone()))
        };
        let lanes: Vec<Task<()>> = wiring.lanes.iter().map(lane).collect();
        for lane in lanes {
            lane.await;
        }
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
