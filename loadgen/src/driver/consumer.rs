use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use apogee_net::client::{CallError, RemotingClient, ReplyFrame};
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::flags::PullSysFlag;
use apogee_net::message::StoredMessages;
use apogee_net::request::{
    GetMaxOffsetReply, GetMaxOffsetRequest, PullMessageReply, PullMessageRequest, TypedHeader,
};

use super::books::Books;
use super::link::{Link, RETRY_PAUSE};
use super::setup::{ADMIN_TIMEOUT, SetupError, ask_broker};
use crate::assignment::QueueTarget;
use crate::failure::Failure;
use crate::schedule::StreamId;

/// Messages asked for at once; brokers have their own, usually lower, limits beside it.
const PULL_MESSAGES_MAX: i32 = 128;

/// How long a broker may hold a pull of an empty queue.
const HOLD: Duration = Duration::from_secs(15);
const PULL_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads one queue from where it ended when the run began.
///
/// The pull carries its own subscription, so that no group membership, heartbeat or rebalance is needed: one pull is
/// in flight, the next leaves when its reply was read.
pub(super) struct QueueReader {
    pub(super) stream: StreamId,
    pub(super) queue_id: i32,
    pub(super) topic: Rc<str>,
    pub(super) group: Rc<str>,
    pub(super) link: Rc<Link>,
    next: Cell<i64>,
    end: Cell<Option<i64>>,
}

impl QueueReader {
    /// Asks where the queue ends now; that is where reading begins.
    pub(super) async fn open(
        target: &QueueTarget,
        broker: &str,
        topic: Rc<str>,
        group: Rc<str>,
        link: Rc<Link>,
    ) -> Result<Rc<QueueReader>, SetupError> {
        let request = GetMaxOffsetRequest { topic: &topic, queue_id: target.queue_id, committed: true };
        let client = link.client().ok_or_else(|| SetupError::BrokerUnreachable {
            name: broker.to_string(),
            address: link.address().to_string(),
            reason: "the connection broke".to_owned(),
        })?;
        let what = "to say where a queue ends";
        let reply = ask_broker(&client, broker, RequestCode::GET_MAX_OFFSET, &request, what).await?;
        let next = max_offset(&reply).ok_or_else(|| SetupError::Refused {
            broker: broker.to_string(),
            what,
            code: reply.code(),
            remark: "the reply has no offset".to_owned(),
        })?;
        let (next, end) = (Cell::new(next), Cell::new(None));
        let QueueTarget { stream, queue_id, .. } = *target;
        Ok(Rc::new(QueueReader { stream, queue_id, topic, group, link, next, end }))
    }

    /// Pulls for ever and writes down what comes.
    pub(super) async fn follow(self: Rc<Self>, books: Rc<Books>) {
        loop {
            let Some(client) = self.link.client() else {
                glommio::timer::sleep(RETRY_PAUSE).await;
                continue;
            };
            let pulled = self.pull(&client).await;
            let is_served = self.on_pulled(pulled, &books);
            books.changed.raise();
            if !is_served {
                glommio::timer::sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Asks where the queue ends now; says whether the answer came.
    pub(super) async fn find_end(&self) -> bool {
        let Some(client) = self.link.client() else { return false };
        let request = GetMaxOffsetRequest { topic: &self.topic, queue_id: self.queue_id, committed: true };
        let reply = client.call(RequestCode::GET_MAX_OFFSET, &request, [], ADMIN_TIMEOUT).await;
        let end = reply
            .ok()
            .filter(|reply| reply.code() == ResponseCode::SUCCESS)
            .and_then(|reply| max_offset(&reply));
        self.end.set(end);
        end.is_some()
    }

    /// Whether the queue has been read to the end that was found; `None` if none was.
    pub(super) fn is_behind(&self) -> Option<bool> {
        self.end.get().map(|end| self.next.get() < end)
    }

    async fn pull(&self, client: &RemotingClient) -> Result<ReplyFrame, CallError> {
        let request = PullMessageRequest {
            consumer_group: &self.group,
            topic: &self.topic,
            queue_id: self.queue_id,
            queue_offset: self.next.get(),
            messages_max: PULL_MESSAGES_MAX,
            sys_flag: PullSysFlag::SUSPEND.with(PullSysFlag::SUBSCRIPTION),
            commit_offset: 0,
            suspend_timeout_ms: HOLD.as_millis() as i64,
            subscription: Some("*"),
            sub_version: 0,
            expression_type: Some("TAG"),
            message_bytes_max: None,
        };
        client.call(RequestCode::PULL_MESSAGE, &request, [], PULL_TIMEOUT).await
    }

    /// Says whether the broker served the pull; if not, the next one waits a little.
    fn on_pulled(&self, pulled: Result<ReplyFrame, CallError>, books: &Books) -> bool {
        let now = books.clock.now();
        let mut tally = books.tally.borrow_mut();
        let reply = match pulled {
            Ok(reply) => reply,
            Err(error) => {
                tally.on_pull_failed(self.stream, now, error.into(), None);
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
            tally.on_pull_failed(self.stream, now, Failure::Answered(code), header.remark.as_deref());
            return false;
        }
        let fields = match PullMessageReply::decode(&header.ext) {
            Ok(fields) => fields,
            Err(error) => {
                tally.on_pull_failed(self.stream, now, Failure::Malformed, Some(&error.to_string()));
                return false;
            }
        };
        if code == ResponseCode::SUCCESS {
            for message in StoredMessages::new(reply.body()) {
                match message {
                    Ok(message) => tally.on_delivery(self.stream, message.body, now),
                    Err(error) => {
                        tally.on_pull_failed(self.stream, now, Failure::Malformed, Some(&error.to_string()))
                    }
                }
            }
        }
        if code == ResponseCode::PULL_OFFSET_MOVED {
            // Nobody trims or resets this topic while it is measured: worth a line in the report.
            tally.on_pull_failed(self.stream, now, Failure::Answered(code), header.remark.as_deref());
        }
        self.next.set(fields.next_begin_offset);
        true
    }
}

fn max_offset(reply: &ReplyFrame) -> Option<i64> {
    let header = reply.header();
    GetMaxOffsetReply::decode(&header.ext).ok().map(|fields| fields.offset)
}
