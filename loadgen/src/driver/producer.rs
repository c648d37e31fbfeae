use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apogee_net::code::RequestCode;
use apogee_net::flags::MessageSysFlag;
use apogee_net::io::{Chunk, Signal};
use apogee_net::message::{UniqueKeys, append_property, property};
use apogee_net::request::SendMessageRequest;
use futures_lite::future;
use rustc_hash::FxHashMap;

use super::books::Books;
use super::link::{Link, RETRY_PAUSE};
use crate::clock::RunTime;
use crate::failure::Failure;
use crate::pace::{BURST_MAX, ClosedLoop, Pace, Pacer};
use crate::payload::PayloadWriter;
use crate::schedule::StreamId;
use crate::stop::StopFlag;

const PRODUCER_GROUP: &str = "apogee-loadgen";

/// Any sleep lets the executor see what has arrived; it lasts a few microseconds at least.
const TURN: Duration = Duration::from_nanos(500);

/// How late the end of the run or an interruption may be noticed.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Where a stream's messages go.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) link: Rc<Link>,
    pub(super) broker: Rc<str>,
    pub(super) topic: Rc<str>,
    pub(super) queue_id: i32,
}

/// Sends the messages of one thread.
pub(super) struct Publisher {
    routes: FxHashMap<StreamId, Route>,
    books: Rc<Books>,
    payload: PayloadWriter,
    timeout: Duration,
    in_flight_max: u32,
    keys: RefCell<UniqueKeys>,
    /// Wall clock at the run's start: messages carry their birth time.
    start_ms: i64,
}

/// What a publisher is made from.
pub(super) struct PublisherParts {
    pub(super) routes: FxHashMap<StreamId, Route>,
    pub(super) books: Rc<Books>,
    pub(super) payload: PayloadWriter,
    pub(super) timeout: Duration,
    pub(super) in_flight_max: u32,
    pub(super) local_ip: IpAddr,
    /// Tells the unique keys of different threads apart.
    pub(super) salt: u32,
}

impl Publisher {
    pub(super) fn new(parts: PublisherParts) -> Rc<Publisher> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
        let until_start_ms = parts.books.clock.until_start().as_millis() as i64;
        Rc::new(Publisher {
            routes: parts.routes,
            books: parts.books,
            payload: parts.payload,
            timeout: parts.timeout,
            in_flight_max: parts.in_flight_max,
            keys: UniqueKeys::new(parts.local_ip, std::process::id(), parts.salt).into(),
            start_ms: now_ms + until_start_ms,
        })
    }

    /// Sends what the plan says, when it says so; ends with the plan.
    pub(super) async fn follow(&self, mut pacer: Pacer, stop: &StopFlag) {
        glommio::timer::sleep(self.books.clock.until_start()).await;
        while !stop.is_set() {
            match pacer.next(self.books.clock.now()) {
                Pace::Send(planned) => self.send(planned.stream, planned.due, || {}),
                Pace::Sleep(wait) => glommio::timer::sleep(wait.min(LOOK_UP)).await,
                Pace::Turn | Pace::Approach => glommio::timer::sleep(TURN).await,
                Pace::Spin => std::hint::spin_loop(),
                Pace::Finished => return,
            }
        }
    }

    /// Keeps the loop's depth in flight over one link, to which all its streams go.
    pub(super) async fn keep_in_flight(
        self: Rc<Self>,
        mut closed: ClosedLoop,
        link: Rc<Link>,
        stop: StopFlag,
    ) {
        glommio::timer::sleep(self.books.clock.until_start()).await;
        let in_flight = Rc::new(Cell::new(0u32));
        let answered = Rc::new(Signal::default());
        let mut burst = 0;
        loop {
            let now = self.books.clock.now();
            if stop.is_set() || closed.is_finished(now) {
                return;
            }
            if link.client().is_none() {
                glommio::timer::sleep(RETRY_PAUSE).await;
                continue;
            }
            if burst == BURST_MAX {
                burst = 0;
                glommio::timer::sleep(TURN).await;
            } else if let Some(stream) = closed.next(now, in_flight.get()) {
                burst += 1;
                in_flight.set(in_flight.get() + 1);
                let (in_flight, answered) = (in_flight.clone(), answered.clone());
                self.send(stream, now, move || {
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

    /// Hands one message to its connection; `then` is called once its fate is known.
    fn send(&self, stream: StreamId, due: RunTime, then: impl FnOnce() + 'static) {
        let route = &self.routes[&stream];
        let mut tally = self.books.tally.borrow_mut();
        let Some(client) = route.link.client() else {
            tally.on_unsent(stream, Failure::NotConnected, self.books.clock.now());
            return then();
        };
        if tally.in_flight() >= self.in_flight_max {
            tally.on_unsent(stream, Failure::InFlightLimit, self.books.clock.now());
            return then();
        }
        let stamp = tally.plan_send(stream, due, self.books.clock.now());
        drop(tally);

        let born_timestamp = self.start_ms + stamp.sent.since_start().as_millis() as i64;
        let mut properties = Vec::with_capacity(64);
        append_property(&mut properties, property::UNIQUE_KEY, &self.keys.borrow_mut().next(born_timestamp));
        append_property(&mut properties, property::WAIT, "true");
        let request = SendMessageRequest {
            producer_group: PRODUCER_GROUP,
            topic: &route.topic,
            default_topic: "TBW102",
            default_topic_queues: 4,
            queue_id: route.queue_id,
            sys_flag: MessageSysFlag(0),
            born_timestamp,
            flag: 0,
            properties: std::str::from_utf8(&properties).expect("made of texts"),
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: false,
            broker_name: Some(&route.broker),
        };
        let body = [Chunk::from(self.payload.write(&stamp))];
        let books = self.books.clone();
        client.start(RequestCode::SEND_MESSAGE_V2, &request, body, self.timeout, move |result| {
            books.on_publish_reply(&stamp, result);
            then();
        });
    }
}
