//! Sends the messages of one thread: when, over which connection, and in which of the ways a message can be sent.

mod known;
mod message;
mod ordered;
mod prefill;
mod retry;
mod transaction;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apogee_net::client::RemotingClient;
use apogee_net::code::RequestCode;
use apogee_net::io::{Chunk, Signal};
use apogee_net::message::{BatchMessage, Properties, UniqueKeys, append_batch_message, property};
use bytes::BytesMut;
use futures_lite::future;
use rustc_hash::FxHashMap;

pub(super) use self::known::Identity;
use self::ordered::Turns;
pub(super) use self::transaction::Answerer;
use super::books::Books;
use super::link::{Link, RETRY_PAUSE};
use crate::clock::RunTime;
use crate::content::Content;
use crate::failure::Failure;
use crate::pace::{BURST_MAX, ClosedLoop, Pace, Pacer};
use crate::payload::{PayloadWriter, Stamp};
use crate::scenario::{IN_FLIGHT_BYTES_MAX, Kind, Messages};
use crate::schedule::StreamId;
use crate::stop::StopFlag;
use crate::tally::Wanted;

/// Any sleep lets the executor see what has arrived; it lasts a few microseconds at least.
const TURN: Duration = Duration::from_nanos(500);

/// How late the end of the run or an interruption may be noticed.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Longest planned sleep of an open loop: a stall that falls into a sleep is not seen, and so is shorter than this.
const ATTENTION: Duration = Duration::from_millis(5);

/// Pause of a closed loop whose connection takes no more.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// Where a stream's messages go.
#[derive(Clone)]
pub(super) struct Route {
    /// One, or several that take turns.
    pub(super) links: Vec<Rc<Link>>,
    pub(super) turn: Cell<usize>,
    pub(super) broker: Rc<str>,
    pub(super) topic: Rc<str>,
    pub(super) queue_id: i32,
}

impl Route {
    fn next_link(&self) -> &Link {
        let turn = self.turn.get();
        self.turn.set(if turn + 1 == self.links.len() { 0 } else { turn + 1 });
        &self.links[turn]
    }

    /// The connection of one key: its messages all go over the same.
    fn link_of(&self, lane: usize) -> &Link {
        &self.links[lane % self.links.len()]
    }
}

/// Producer group of messages that are no transactions.
pub(super) const GROUP: &str = "apogee-loadgen";

/// Sends the messages of one thread.
pub(super) struct Publisher {
    routes: FxHashMap<StreamId, Route>,
    books: Rc<Books>,
    content: Arc<Content>,
    kind: Kind,
    batch: usize,
    payload: PayloadWriter,
    timeout: Duration,
    retry: u32,
    brokers: usize,
    in_flight_max: u32,
    keys: RefCell<UniqueKeys>,
    /// Whether messages have more properties than every message has.
    has_extras: bool,
    with_keys: bool,
    /// Wall clock at the run's start, in nanoseconds since 1970: messages carry their birth time.
    start_ns: u128,
    /// Batches that are not full yet: when their messages are due.
    unfilled: RefCell<FxHashMap<StreamId, Vec<RunTime>>>,
    group: Rc<str>,
    turns: RefCell<FxHashMap<StreamId, Turns>>,
    /// Messages that wait for others of their key.
    waiting: Cell<u32>,
}

/// What a publisher is made from.
pub(super) struct PublisherParts<'a> {
    pub(super) routes: FxHashMap<StreamId, Route>,
    pub(super) books: Rc<Books>,
    pub(super) content: Arc<Content>,
    pub(super) messages: &'a Messages,
    pub(super) group: Rc<str>,
    pub(super) timeout: Duration,
    pub(super) retry: u32,
    /// Of the whole run.
    pub(super) brokers: usize,
    pub(super) in_flight_max: u32,
    pub(super) local_ip: IpAddr,
    /// Tells the unique keys of different threads apart.
    pub(super) salt: u32,
}

impl Publisher {
    pub(super) fn new(parts: PublisherParts<'_>) -> Rc<Publisher> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let kind = parts.messages.kind.clone();
        let has_extras = parts.messages.keys
            || !parts.messages.tags.is_empty()
            || parts.content.number(0).is_some()
            || !matches!(kind, Kind::Normal | Kind::Oneway);
        Rc::new(Publisher {
            routes: parts.routes,
            payload: PayloadWriter::new(parts.content.run(), parts.content.size_max()),
            content: parts.content,
            kind,
            batch: parts.messages.batch as usize,
            timeout: parts.timeout,
            retry: parts.retry,
            brokers: parts.brokers,
            in_flight_max: parts.in_flight_max,
            keys: UniqueKeys::new(parts.local_ip, std::process::id(), parts.salt).into(),
            has_extras,
            with_keys: parts.messages.keys,
            start_ns: (since_1970 + parts.books.until_start()).as_nanos(),
            unfilled: RefCell::default(),
            group: parts.group,
            turns: RefCell::default(),
            waiting: Cell::default(),
            books: parts.books,
        })
    }

    /// Sends what the plan says, when it says so; ends with the plan.
    pub(super) async fn follow(self: &Rc<Self>, mut pacer: Pacer, stop: &StopFlag) {
        glommio::timer::sleep(self.books.until_start()).await;
        while !stop.is_set() {
            let now = self.books.now();
            match pacer.next(now) {
                Pace::Send(planned) => self.send_planned(planned.stream, planned.due),
                Pace::Sleep(wait) => self.look(now, wait.min(ATTENTION)).await,
                Pace::Turn | Pace::Approach => self.look(now, TURN).await,
                Pace::Spin => std::hint::spin_loop(),
                Pace::Finished => break,
            }
        }
        self.send_unfilled();
    }

    /// Lets the executor look for replies; it comes back after `asleep`.
    async fn look(&self, now: RunTime, asleep: Duration) {
        self.books.tally.borrow_mut().on_look(now, asleep);
        glommio::timer::sleep(asleep).await;
    }

    /// Keeps the loop's depth in flight over one link, to which all its streams go.
    pub(super) async fn keep_in_flight(
        self: Rc<Self>,
        mut closed: ClosedLoop,
        link: Rc<Link>,
        stop: StopFlag,
    ) {
        glommio::timer::sleep(self.books.until_start()).await;
        let in_flight = Rc::new(Cell::new(0u32));
        let answered = Rc::new(Signal::default());
        let mut burst = 0;
        loop {
            let now = self.books.now();
            if stop.is_set() || closed.is_finished(now) {
                return;
            }
            if link.client().is_none() {
                glommio::timer::sleep(RETRY_PAUSE).await;
                continue;
            }
            if link.client().is_some_and(|client| client.unsent_bytes() > IN_FLIGHT_BYTES_MAX) {
                // The socket takes no more: a loop that is closed waits, and counts nothing as failed.
                burst = 0;
                glommio::timer::sleep(FULL_PAUSE).await;
            } else if burst == BURST_MAX {
                burst = 0;
                glommio::timer::sleep(TURN).await;
            } else if let Some(stream) = closed.next(now, in_flight.get()) {
                burst += 1;
                in_flight.set(in_flight.get() + 1);
                let (in_flight, answered) = (in_flight.clone(), answered.clone());
                self.send_next(stream, &link, now, move || {
                    in_flight.set(in_flight.get() - 1);
                    answered.raise();
                });
            } else {
                burst = 0;
                future::or(answered.wait(), async {
                    glommio::timer::sleep(LOOK_UP).await;
                })
                .await;
            }
        }
    }

    /// A message of an open loop is due.
    fn send_planned(self: &Rc<Self>, stream: StreamId, due: RunTime) {
        if self.batch == 1 {
            let route = &self.routes[&stream];
            return self.send_one(stream, route, route.next_link(), due, || {});
        }
        let mut unfilled = self.unfilled.borrow_mut();
        let batch = unfilled.entry(stream).or_default();
        batch.push(due);
        if batch.len() == self.batch {
            let batch = std::mem::take(batch);
            drop(unfilled);
            self.send_batch(stream, self.routes[&stream].next_link(), &batch, due, || {});
        }
    }

    /// The plan is through: batches that will not be filled leave as they are.
    fn send_unfilled(&self) {
        for (stream, batch) in std::mem::take(&mut *self.unfilled.borrow_mut()) {
            if let Some(last) = batch.last() {
                self.send_batch(stream, self.routes[&stream].next_link(), &batch, *last, || {});
            }
        }
    }

    /// A closed loop has room for one more request. `then` is called once its fate is known.
    fn send_next(
        self: &Rc<Self>,
        stream: StreamId,
        link: &Link,
        now: RunTime,
        then: impl FnOnce() + 'static,
    ) {
        if self.batch == 1 {
            self.send_one(stream, &self.routes[&stream], link, now, then);
        } else {
            self.send_batch(stream, link, &vec![now; self.batch], now, then);
        }
    }

    fn send_one(
        self: &Rc<Self>,
        stream: StreamId,
        route: &Route,
        link: &Link,
        due: RunTime,
        then: impl FnOnce() + 'static,
    ) {
        if let Kind::Ordered { .. } = self.kind {
            return self.send_in_turn(stream, due, then);
        }
        if self.retry > 0 {
            return self.send_until_taken(stream, link, due, then);
        }
        let Some(client) = self.connection(stream, link, 1) else { return then() };
        self.send(stream, route, &client, 0, due.into(), then);
    }

    /// The connection, if `messages` may be sent over it now; otherwise they are written down as not sent.
    fn connection(&self, stream: StreamId, link: &Link, messages: u32) -> Option<Rc<RemotingClient>> {
        let client = link.client();
        let mut tally = self.books.tally.borrow_mut();
        let failure = match &client {
            None => Failure::NotConnected,
            Some(_) if tally.in_flight().saturating_add(messages) > self.in_flight_max => {
                Failure::InFlightLimit
            }
            // Nothing that is unanswered tells how much one-way messages have piled up.
            Some(client) if client.unsent_bytes() > IN_FLIGHT_BYTES_MAX => Failure::InFlightLimit,
            Some(_) => return client,
        };
        (0..messages).for_each(|_| tally.on_unsent(stream, failure, self.books.now()));
        None
    }

    /// Hands one message to its connection; `then` is called once its fate is known.
    fn send(
        self: &Rc<Self>,
        stream: StreamId,
        route: &Route,
        client: &Rc<RemotingClient>,
        lane: u16,
        wanted: Wanted,
        then: impl FnOnce() + 'static,
    ) {
        let stamp = self.books.tally.borrow_mut().plan_send(stream, lane, wanted, self.books.now());
        let properties = self.properties(&stamp);
        let request = self.request(route, &stamp, &properties, false);
        let body = [Chunk::from(self.body(&stamp))];
        if matches!(self.kind, Kind::Oneway) {
            self.send_oneway(client, RequestCode::SEND_MESSAGE_V2, &request, body, &[stamp]);
            return then();
        }
        if matches!(self.kind, Kind::Transactional { .. }) {
            let (this, over) = (self.clone(), client.clone());
            let properties = properties.clone();
            client.start(RequestCode::SEND_MESSAGE_V2, &request, body, self.timeout, move |result| {
                let is_stored = this.books.on_publish_reply(&stamp, &result);
                if let Some(half) = result.ok().filter(|_| is_stored) {
                    let key = Properties(properties.as_bytes()).get(property::UNIQUE_KEY);
                    this.end_transaction(&over, &stamp, &half, key.unwrap_or_default());
                }
                then();
            });
            return;
        }
        let books = self.books.clone();
        client.start(RequestCode::SEND_MESSAGE_V2, &request, body, self.timeout, move |result| {
            books.on_publish_reply(&stamp, &result);
            then();
        });
    }

    /// Hands consecutive messages of one queue, due at these times, to a connection in one request.
    fn send_batch(
        &self,
        stream: StreamId,
        link: &Link,
        due: &[RunTime],
        ready: RunTime,
        then: impl FnOnce() + 'static,
    ) {
        let messages = u32::try_from(due.len()).expect("bounded by BATCH_MAX");
        let Some(client) = self.connection(stream, link, messages) else { return then() };
        let route = &self.routes[&stream];
        let mut tally = self.books.tally.borrow_mut();
        let now = self.books.now();
        let plan = |due: &RunTime| tally.plan_send(stream, 0, Wanted { due: *due, ready }, now);
        let stamps: Vec<Stamp> = due.iter().map(plan).collect();
        drop(tally);
        let mut body = BytesMut::new();
        for stamp in &stamps {
            let properties = self.properties(stamp);
            let properties = Properties(properties.as_bytes());
            append_batch_message(&mut body, &BatchMessage { flag: 0, body: &self.body(stamp), properties });
        }
        // The batch as a whole has the properties that brokers look at; each message has its own beside it.
        let properties = self.unique_key_property(&stamps[0]);
        let request = self.request(route, &stamps[0], &properties, true);
        let body = [Chunk::from(body.freeze())];
        if matches!(self.kind, Kind::Oneway) {
            self.send_oneway(&client, RequestCode::SEND_BATCH_MESSAGE, &request, body, &stamps);
            return then();
        }
        let books = self.books.clone();
        client.start(RequestCode::SEND_BATCH_MESSAGE, &request, body, self.timeout, move |result| {
            books.on_publish_replies(&stamps, &result);
            then();
        });
    }
}
