use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use apogee_net::client::{CallError, RemotingClient, ReplyFrame};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::flags::PullSysFlag;
use apogee_net::message::{MessageError, StoredMessage, StoredMessages};
use apogee_net::request::{
    GetMaxOffsetReply, GetMaxOffsetRequest, PullMessageReply, PullMessageRequest, TypedHeader,
    UpdateConsumerOffsetRequest,
};

use super::{Queue, Subscription};
use crate::clock::RunTime;
use crate::driver::books::Books;
use crate::driver::link::RETRY_PAUSE;
use crate::driver::setup::{ADMIN_TIMEOUT, SetupError, ask_broker};
use crate::failure::Failure;
use crate::tally::{CatchUp, Tally};

/// How long a broker may hold a pull of an empty queue.
const HOLD: Duration = Duration::from_secs(15);
const PULL_TIMEOUT: Duration = Duration::from_secs(30);
const COMMIT_TIMEOUT: Duration = Duration::from_secs(3);

/// Reads one queue from an offset of its own.
///
/// The pull carries its own subscription, so that no group membership, heartbeat or rebalance is needed: one pull is
/// in flight, the next leaves when its reply was read.
pub(in crate::driver) struct PullReader {
    pub(super) queue: Queue,
    pub(super) subscription: Rc<Subscription>,
    next: Cell<i64>,
    end: Cell<Option<i64>>,
    /// Messages received, of whomever.
    received: Cell<u64>,
    /// The same when a silence began, if one did.
    received_before: Cell<u64>,
    /// Whether the silence was one; `None` until it is over.
    was_quiet: Cell<Option<bool>>,
    /// Whether the end of the queue was reached once.
    caught_up: Cell<bool>,
}

impl PullReader {
    /// Asks where the queue ends now; that is where reading begins.
    pub(super) async fn open(
        queue: Queue,
        subscription: Rc<Subscription>,
    ) -> Result<Rc<PullReader>, SetupError> {
        let next = ask_end(&queue).await?;
        Ok(Rc::new(PullReader {
            queue,
            subscription,
            next: Cell::new(next),
            end: Cell::default(),
            received: Cell::default(),
            received_before: Cell::default(),
            was_quiet: Cell::default(),
            caught_up: Cell::default(),
        }))
    }

    /// Pulls for ever and writes down what comes.
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
            let pulled = self.pull(&client).await;
            let is_served = self.on_pulled(pulled, &books, began).await;
            books.changed.raise();
            if !is_served {
                glommio::timer::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Stores the position with the broker whenever it has changed.
    pub(super) async fn keep_committed(self: Rc<Self>, books: Rc<Books>, every: Duration) {
        let mut committed = None;
        loop {
            glommio::timer::sleep(every).await;
            let next = self.next.get();
            let Some(client) = self.queue.link.client().filter(|_| committed != Some(next)) else { continue };
            let request = UpdateConsumerOffsetRequest {
                consumer_group: &self.subscription.name,
                topic: &self.queue.topic,
                queue_id: self.queue.target.queue_id,
                commit_offset: next,
            };
            let (asked, stream) = (books.now(), self.queue.target.stream);
            let reply = client.call(RequestCode::UPDATE_CONSUMER_OFFSET, &request, [], COMMIT_TIMEOUT).await;
            let mut tally = books.tally.borrow_mut();
            let now = books.now();
            match reply {
                Ok(reply) if reply.code() == ResponseCode::SUCCESS => {
                    committed = Some(next);
                    tally.on_consume_acked(stream, asked, now);
                }
                Ok(reply) => {
                    let remark = reply.header().remark.map(String::from);
                    tally.on_consume_failed(stream, now, Failure::Answered(reply.code()), remark.as_deref());
                }
                Err(error) => tally.on_consume_failed(stream, now, error.into(), None),
            }
        }
    }

    pub(super) fn listen(&self) {
        self.received_before.set(self.received.get());
        self.was_quiet.set(None);
    }

    pub(super) async fn find_end(&self) -> bool {
        if self.subscription.consumer.filter.is_some() {
            self.was_quiet.set(Some(self.received.get() == self.received_before.get()));
            return true;
        }
        let Some(client) = self.queue.link.client() else { return false };
        let queue_id = self.queue.target.queue_id;
        let request = GetMaxOffsetRequest { topic: &self.queue.topic, queue_id, committed: true };
        let reply = client.call(RequestCode::GET_MAX_OFFSET, &request, [], ADMIN_TIMEOUT).await;
        let end = reply
            .ok()
            .filter(|reply| reply.code() == ResponseCode::SUCCESS)
            .and_then(|reply| max_offset(&reply));
        self.end.set(end);
        end.is_some()
    }

    pub(super) fn is_behind(&self) -> Option<bool> {
        if self.subscription.consumer.filter.is_some() {
            // A silence that was none is to be tried again: as good as not asked.
            return self.was_quiet.get().filter(|quiet| *quiet).map(|_| false);
        }
        self.end.get().map(|end| self.next.get() < end)
    }

    async fn pull(&self, client: &RemotingClient) -> Result<ReplyFrame, CallError> {
        let (subscription, expression_type) = self.subscription.expression();
        let request = PullMessageRequest {
            consumer_group: &self.subscription.name,
            topic: &self.queue.topic,
            queue_id: self.queue.target.queue_id,
            queue_offset: self.next.get(),
            messages_max: self.subscription.consumer.messages() as i32,
            sys_flag: PullSysFlag::SUSPEND.with(PullSysFlag::SUBSCRIPTION),
            commit_offset: 0,
            suspend_timeout_ms: HOLD.as_millis() as i64,
            subscription: Some(subscription),
            sub_version: 0,
            expression_type: Some(expression_type),
            message_bytes_max: None,
        };
        client.call(RequestCode::PULL_MESSAGE, &request, [], PULL_TIMEOUT).await
    }

    /// Says whether the broker served the pull; if not, the next one waits a little.
    async fn on_pulled(&self, pulled: Result<ReplyFrame, CallError>, books: &Books, began: RunTime) -> bool {
        let stream = self.queue.target.stream;
        let failed = |failure, remark: Option<&str>| {
            books.tally.borrow_mut().on_consume_failed(stream, books.now(), failure, remark);
        };
        let reply = match pulled {
            Ok(reply) => reply,
            Err(error) => {
                failed(error.into(), None);
                return false;
            }
        };
        let header = reply.header();
        let code = reply.code();
        let moves_on = matches!(
            code,
            ResponseCode::SUCCESS
                | ResponseCode::PULL_NOT_FOUND
                | ResponseCode::PULL_RETRY_IMMEDIATELY
                | ResponseCode::PULL_OFFSET_MOVED
        );
        if !moves_on {
            failed(Failure::Answered(code), header.remark.as_deref());
            return false;
        }
        let fields = match PullMessageReply::decode(&header.ext) {
            Ok(fields) => fields,
            Err(error) => {
                failed(Failure::Malformed, Some(&error.to_string()));
                return false;
            }
        };
        if code == ResponseCode::SUCCESS {
            self.take(reply.body(), books).await;
        }
        if code == ResponseCode::PULL_OFFSET_MOVED {
            // Nobody trims or resets this topic while it is measured: worth a line in the report.
            failed(Failure::Answered(code), header.remark.as_deref());
        }
        self.next.set(fields.next_begin_offset);
        let behind = u64::try_from(fields.max_offset.saturating_sub(fields.next_begin_offset)).unwrap_or(0);
        let mut tally = books.tally.borrow_mut();
        tally.on_lag(self.subscription.group, behind);
        if behind == 0 && !self.caught_up.replace(true) {
            let (messages, ended) = (self.received.get(), books.now());
            tally.on_caught_up(self.subscription.group, CatchUp { queues: 1, messages, began, ended });
        }
        true
    }

    /// Writes down the messages of a reply, each when its turn comes if there is work to do on each.
    async fn take(&self, body: &[u8], books: &Books) {
        let pause = self.subscription.consumer.pause;
        let messages = StoredMessages::new(body);
        if pause.is_zero() {
            let now = books.now();
            let mut tally = books.tally.borrow_mut();
            messages.for_each(|message| self.on_message(&mut tally, message, now));
            return;
        }
        for message in messages {
            self.on_message(&mut books.tally.borrow_mut(), message, books.now());
            books.changed.raise();
            glommio::timer::sleep(pause).await;
        }
    }

    fn on_message(&self, tally: &mut Tally, message: Result<StoredMessage<'_>, MessageError>, now: RunTime) {
        let stream = self.queue.target.stream;
        match message {
            Ok(message) => tally.on_delivery(self.subscription.group, Some(stream), message.body, now),
            Err(error) => {
                tally.on_consume_failed(stream, now, Failure::Malformed, Some(&error.to_string()));
            }
        }
        self.received.set(self.received.get() + 1);
    }
}

/// Asks where the queue ends now.
pub(super) async fn ask_end(queue: &Queue) -> Result<i64, SetupError> {
    let client = queue.client()?;
    let queue_id = queue.target.queue_id;
    let request = GetMaxOffsetRequest { topic: &queue.topic, queue_id, committed: true };
    let what = "to say where a queue ends";
    let reply = ask_broker(&client, &queue.broker, RequestCode::GET_MAX_OFFSET, &request, what).await?;
    max_offset(&reply).ok_or_else(|| SetupError::Refused {
        broker: queue.broker.to_string(),
        what,
        code: reply.code(),
        remark: "the reply has no offset".to_owned(),
    })
}

fn max_offset(reply: &ReplyFrame) -> Option<i64> {
    let header = reply.header();
    GetMaxOffsetReply::decode(&header.ext).ok().map(|fields| fields.offset)
}
