use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apogee_net::body::{self, BatchAck, BatchAckMessageRequestBody, SubscriptionGroupConfig};
use apogee_net::client::{CallError, RemotingClient, ReplyFrame};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::header::NoExt;
use apogee_net::io::{Chunk, Signal};
use apogee_net::message::{ReceiptHandle, RetryKind, StoredMessage, StoredMessages, property};
use apogee_net::request::{
    AckMessageRequest, PopMessageReply, PopMessageRequest, TypedHeader, UpdateConsumerOffsetRequest,
};
use futures_lite::future;

use super::{Queue, Subscription, pull};
use crate::clock::RunTime;
use crate::driver::books::Books;
use crate::driver::link::RETRY_PAUSE;
use crate::driver::setup::{ADMIN_TIMEOUT, SetupError, ask_broker};
use crate::failure::Failure;
use crate::scenario::Ack;
use crate::tally::CatchUp;

/// How long a broker may hold a pop that finds nothing.
const HOLD: Duration = Duration::from_secs(15);
const POP_TIMEOUT: Duration = Duration::from_secs(30);
const ACK_TIMEOUT: Duration = Duration::from_secs(3);

/// Unanswered acknowledgements of one reader above which it pops no more.
const ACKS_IN_FLIGHT_MAX: u32 = 1024;

/// Offsets that one check point spans at most; a pop has 32 messages.
const PLACES_MAX: u64 = 4096;

/// A group that has no offset begins at the last message; every group here has one.
const FROM_LAST: i32 = 1;

/// Pops one queue, and acknowledges what it was given.
pub(in crate::driver) struct PopReader {
    pub(super) queue: Queue,
    pub(super) subscription: Rc<Subscription>,
    received: Cell<u64>,
    received_before: Cell<u64>,
    was_quiet: Cell<Option<bool>>,
    caught_up: Cell<bool>,
    acks_in_flight: Rc<Cell<u32>>,
    acked: Rc<Signal>,
}

impl PopReader {
    /// Makes the group and sets it to where the queue ends now; that is where reading begins.
    pub(super) async fn open(
        queue: Queue,
        subscription: Rc<Subscription>,
    ) -> Result<Rc<PopReader>, SetupError> {
        let client = queue.client()?;
        let group = SubscriptionGroupConfig {
            group_name: subscription.name.clone(),
            ..SubscriptionGroupConfig::default()
        };
        let refused = |what, reply: &ReplyFrame| SetupError::Refused {
            broker: queue.broker.to_string(),
            what,
            code: reply.code(),
            remark: reply.header().remark.map(String::from).unwrap_or_default(),
        };
        let body = [Chunk::from(body::to_fastjson(&group))];
        let code = RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP;
        let made = client.call(code, &NoExt, body, ADMIN_TIMEOUT).await;
        let made = made.map_err(|error| queue.unreachable(error.to_string()))?;
        if made.code() != ResponseCode::SUCCESS {
            return Err(refused("to make a group", &made));
        }
        let request = UpdateConsumerOffsetRequest {
            consumer_group: &subscription.name,
            topic: &queue.topic,
            queue_id: queue.target.queue_id,
            commit_offset: pull::ask_end(&queue).await?,
        };
        let what = "to set a group's offset";
        ask_broker(&client, &queue.broker, RequestCode::UPDATE_CONSUMER_OFFSET, &request, what).await?;
        Ok(Rc::new(PopReader {
            queue,
            subscription,
            received: Cell::default(),
            received_before: Cell::default(),
            was_quiet: Cell::default(),
            caught_up: Cell::default(),
            acks_in_flight: Rc::default(),
            acked: Rc::default(),
        }))
    }

    /// Pops for ever and writes down what comes.
    pub(super) async fn follow(self: Rc<Self>, books: Rc<Books>) {
        let join = self.subscription.consumer.join;
        if !join.is_zero() {
            glommio::timer::sleep(books.until_start() + join).await;
        }
        let began = books.now();
        loop {
            let Some(client) = self.queue.link.client() else {
                glommio::timer::sleep(RETRY_PAUSE).await;
                continue;
            };
            let popped = self.pop(&client).await;
            let is_served = self.on_popped(popped, &client, &books, began).await;
            books.changed.raise();
            if !is_served {
                glommio::timer::sleep(RETRY_PAUSE).await;
            }
            while self.acks_in_flight.get() > ACKS_IN_FLIGHT_MAX {
                let look_up = async {
                    glommio::timer::sleep(RETRY_PAUSE).await;
                };
                future::or(self.acked.wait(), look_up).await;
            }
        }
    }

    pub(super) fn listen(&self) {
        self.received_before.set(self.received.get());
        self.was_quiet.set(None);
    }

    pub(super) fn find_end(&self) -> bool {
        let is_quiet = self.received.get() == self.received_before.get() && self.acks_in_flight.get() == 0;
        self.was_quiet.set(Some(is_quiet));
        true
    }

    /// A silence that was none is to be tried again: as good as not asked.
    pub(super) fn is_behind(&self) -> Option<bool> {
        self.was_quiet.get().filter(|quiet| *quiet).map(|_| false)
    }

    async fn pop(&self, client: &RemotingClient) -> Result<ReplyFrame, CallError> {
        let (expression, expression_type) = self.subscription.expression();
        let request = PopMessageRequest {
            consumer_group: &self.subscription.name,
            topic: &self.queue.topic,
            queue_id: self.queue.target.queue_id,
            messages_max: self.subscription.consumer.messages() as i32,
            invisible_ms: self.subscription.consumer.invisible.as_millis() as i64,
            poll_ms: HOLD.as_millis() as i64,
            born_ms: now_ms(),
            init_mode: FROM_LAST,
            expression_type: Some(expression_type),
            expression: Some(expression),
            order: false,
            attempt_id: None,
        };
        client.call(RequestCode::POP_MESSAGE, &request, [], POP_TIMEOUT).await
    }

    /// Says whether the broker served the pop; if not, the next one waits a little.
    async fn on_popped(
        &self,
        popped: Result<ReplyFrame, CallError>,
        client: &RemotingClient,
        books: &Rc<Books>,
        began: RunTime,
    ) -> bool {
        let stream = self.queue.target.stream;
        let failed = |failure, remark: Option<&str>| {
            books.tally.borrow_mut().on_consume_failed(stream, books.now(), failure, remark);
            false
        };
        let reply = match popped {
            Ok(reply) => reply,
            Err(error) => return failed(error.into(), None),
        };
        let header = reply.header();
        match reply.code() {
            ResponseCode::SUCCESS => {}
            ResponseCode::POLLING_TIMEOUT | ResponseCode::PULL_NOT_FOUND => {
                self.on_rest(0, books, began);
                return true;
            }
            code => return failed(Failure::Answered(code), header.remark.as_deref()),
        }
        let fields = match PopMessageReply::decode(&header.ext) {
            Ok(fields) => fields,
            Err(error) => return failed(Failure::Malformed, Some(&error.to_string())),
        };
        let start_offset = fields
            .start_offset_info
            .as_deref()
            .and_then(|info| start_offset(info, self.queue.target.queue_id));
        let mut handles = Vec::new();
        for message in StoredMessages::new(reply.body()) {
            let message = match message {
                Ok(message) => message,
                Err(error) => return failed(Failure::Malformed, Some(&error.to_string())),
            };
            // Messages that come again carry their handle; of others it is made from the reply.
            let again = message.properties.get(property::POP_CHECK_POINT);
            self.receive(&message, again.is_some(), books).await;
            let handle = match again.map(ReceiptHandle::parse) {
                Some(Ok(handle)) => handle,
                Some(Err(error)) => return failed(Failure::Malformed, Some(&error.to_string())),
                None => ReceiptHandle {
                    start_offset: start_offset.unwrap_or(message.queue_offset),
                    pop_ms: fields.pop_ms,
                    invisible_ms: fields.invisible_ms,
                    revive_queue_id: fields.revive_queue_id,
                    retry: RetryKind::Normal,
                    broker: &self.queue.broker,
                    queue_id: message.queue_id,
                    offset: message.queue_offset,
                },
            };
            let is_batched = self.subscription.consumer.ack == Ack::Batch && start_offset.is_some();
            if is_batched && handle.retry == RetryKind::Normal && place_in_batch(&handle).is_some() {
                handles.push(handle);
            } else {
                self.ack(client, &handle, books);
            }
        }
        if let Some(first) = handles.first() {
            self.ack_batch(client, first, &handles, books);
        }
        self.on_rest(u64::try_from(fields.rest).unwrap_or(0), books, began);
        true
    }

    async fn receive(&self, message: &StoredMessage<'_>, again: bool, books: &Books) {
        let group = self.subscription.group;
        let target = &self.queue.target;
        // What comes from a queue that was not asked for is none of this stream's, unless it comes again.
        let from = Some(target.stream).filter(|_| !again);
        let now = books.now();
        books.tally.borrow_mut().on_delivery(group, from, message.body, now);
        self.received.set(self.received.get() + 1);
        let pause = self.subscription.consumer.pause;
        if !pause.is_zero() {
            books.changed.raise();
            glommio::timer::sleep(pause).await;
        }
    }

    fn on_rest(&self, rest: u64, books: &Books, began: RunTime) {
        let mut tally = books.tally.borrow_mut();
        tally.on_lag(self.subscription.group, rest);
        if rest == 0 && !self.caught_up.replace(true) {
            let (messages, ended) = (self.received.get(), books.now());
            tally.on_caught_up(self.subscription.group, CatchUp { queues: 1, messages, began, ended });
        }
    }

    fn ack(&self, client: &RemotingClient, handle: &ReceiptHandle<'_>, books: &Rc<Books>) {
        let (group, topic) = (&self.subscription.name, &self.queue.topic);
        let topic = match handle.retry {
            RetryKind::Normal => topic.to_string(),
            RetryKind::V1 => format!("%RETRY%{group}_{topic}"),
            RetryKind::V2 => format!("%RETRY%{group}+{topic}"),
        };
        let request = AckMessageRequest {
            consumer_group: group,
            topic: &topic,
            queue_id: handle.queue_id,
            extra_info: &handle.to_string(),
            offset: handle.offset,
        };
        client.start(RequestCode::ACK_MESSAGE, &request, [], ACK_TIMEOUT, self.on_ack_answered(books));
    }

    /// Acknowledges messages of one check point, that of `first`.
    fn ack_batch(
        &self,
        client: &RemotingClient,
        first: &ReceiptHandle<'_>,
        handles: &[ReceiptHandle<'_>],
        books: &Rc<Books>,
    ) {
        let places = handles.iter().filter_map(|handle| place_in_batch(handle));
        let ack = BatchAck {
            bit_set: BatchAck::bit_set_of(places),
            consumer_group: self.subscription.name.clone(),
            invisible_ms: first.invisible_ms,
            pop_ms: first.pop_ms,
            queue_id: first.queue_id,
            retry: first.retry.letter().to_string(),
            revive_queue_id: first.revive_queue_id,
            start_offset: first.start_offset,
            topic: self.queue.topic.to_string(),
        };
        let body = BatchAckMessageRequestBody { acks: vec![ack], broker_name: self.queue.broker.to_string() };
        let body = [Chunk::from(body::to_fastjson(&body))];
        let answered = self.on_ack_answered(books);
        client.start(RequestCode::BATCH_ACK_MESSAGE, &NoExt, body, ACK_TIMEOUT, answered);
    }

    fn on_ack_answered(
        &self,
        books: &Rc<Books>,
    ) -> impl FnOnce(Result<ReplyFrame, CallError>) + 'static + use<> {
        self.acks_in_flight.set(self.acks_in_flight.get() + 1);
        let (books, stream, asked) = (books.clone(), self.queue.target.stream, books.now());
        let (in_flight, acked) = (self.acks_in_flight.clone(), self.acked.clone());
        move |result| {
            in_flight.set(in_flight.get() - 1);
            acked.raise();
            let now = books.now();
            let mut tally = books.tally.borrow_mut();
            match result {
                Ok(reply) if reply.code() == ResponseCode::SUCCESS => {
                    tally.on_consume_acked(stream, asked, now)
                }
                Ok(reply) => {
                    let remark = reply.header().remark.map(String::from);
                    tally.on_consume_failed(stream, now, Failure::Answered(reply.code()), remark.as_deref());
                }
                Err(error) => tally.on_consume_failed(stream, now, error.into(), None),
            }
        }
    }
}

/// Of the queue itself in `{retry} {queue} {offset}` joined by `;` (`ExtraInfoUtil#parseStartOffsetInfo`).
fn start_offset(info: &str, queue_id: i32) -> Option<i64> {
    info.split(';').find_map(|entry| {
        let mut values = entry.split(' ');
        let is_it = values.next()? == "0" && values.next()?.parse() == Ok(queue_id);
        values.next().filter(|_| is_it)?.parse().ok()
    })
}

fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// The place of a message in its check point's bit set, if the broker gave it a sensible one.
fn place_in_batch(handle: &ReceiptHandle<'_>) -> Option<u64> {
    let place = u64::try_from(handle.offset.checked_sub(handle.start_offset)?).ok()?;
    (place < PLACES_MAX).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_the_right_queue_is_found() {
        let info = "1 0 7;0 0 100;0 3 250";
        assert_eq!((start_offset(info, 0), start_offset(info, 3)), (Some(100), Some(250)));
        assert_eq!((start_offset(info, 1), start_offset("", 0), start_offset("0 0", 0)), (None, None, None));
    }
}
