//! What stock producers do when a broker does not take a message: they try the next one, within the same time.
//!
//! Source: `DefaultMQProducerImpl.sendDefaultImpl`, `MQFaultStrategy.selectOneMessageQueue`.

use std::rc::Rc;

use apogee_net::client::RemotingClient;
use apogee_net::code::{RequestCode, ResponseCode};
use apogee_net::io::Chunk;
use bytes::Bytes;

use super::Publisher;
use crate::assignment::next_in_row;
use crate::clock::RunTime;
use crate::driver::link::Link;
use crate::failure::Failure;
use crate::payload::Stamp;
use crate::schedule::StreamId;

/// One message and what is left for it.
#[derive(Clone)]
struct Attempt {
    stamp: Stamp,
    body: Bytes,
    properties: String,
    /// Where it goes now.
    to: StreamId,
    tries_left: u32,
    deadline: RunTime,
}

impl Publisher {
    /// Hands one message to its queue's connection or, if there is none at the moment, to the next one's that is there.
    pub(super) fn send_until_taken(
        self: &Rc<Self>,
        stream: StreamId,
        link: &Link,
        due: RunTime,
        then: impl FnOnce() + 'static,
    ) {
        let first = match link.client() {
            Some(_) => Some((0, stream)),
            None => self.next_connected(stream, self.retry).map(|(skipped, next, _)| (skipped, next)),
        };
        // None is there: written down as not sent, like any message.
        let (skipped, to) = first.unwrap_or((0, stream));
        let link = if to == stream { link } else { self.routes[&to].next_link() };
        let Some(client) = self.connection(stream, link, 1) else { return then() };
        let now = self.books.now();
        let stamp = {
            let mut tally = self.books.tally.borrow_mut();
            let stamp = tally.plan_send(stream, 0, due.into(), now);
            if to != stream {
                tally.on_resent(&stamp, to, now, Failure::NotConnected);
            }
            stamp
        };
        let attempt = Attempt {
            body: self.body(&stamp),
            properties: self.properties(&stamp),
            stamp,
            to,
            tries_left: self.retry - skipped,
            deadline: now + self.timeout,
        };
        self.try_once(attempt, &client, then);
    }

    fn try_once(self: &Rc<Self>, attempt: Attempt, client: &RemotingClient, then: impl FnOnce() + 'static) {
        // The request borrows from the attempt while the closure keeps it.
        let attempt = Rc::new(attempt);
        let request = self.request(&self.routes[&attempt.to], &attempt.stamp, &attempt.properties, false);
        let body = [Chunk::from(attempt.body.clone())];
        let time_left = attempt.deadline.since(self.books.now());
        let this = self.clone();
        let kept = attempt.clone();
        client.start(RequestCode::SEND_MESSAGE_V2, &request, body, time_left, move |result| {
            let failure = match &result {
                Ok(reply) if reply.code() == ResponseCode::SUCCESS => None,
                Ok(reply) => Some(Failure::Answered(reply.code())),
                Err(error) => Some((*error).into()),
            };
            let again = failure.filter(|failure| failure.is_for_another_broker()).and_then(|failure| {
                let is_time = this.books.now() < kept.deadline;
                let tries = if is_time { kept.tries_left } else { 0 };
                this.next_connected(kept.to, tries).map(|next| (failure, next))
            });
            let Some((failure, (used, to, client))) = again else {
                this.books.on_publish_reply(&kept.stamp, &result);
                return then();
            };
            this.books.tally.borrow_mut().on_resent(&kept.stamp, to, this.books.now(), failure);
            let next = Attempt { to, tries_left: kept.tries_left - used, ..(*kept).clone() };
            // From here the connection that broke is still telling others so.
            glommio::spawn_local(async move { this.try_once(next, &client, then) }).detach();
        });
    }

    /// The first of the next queues, `tries` of them at most, whose broker there is a connection to; with the number of
    /// tries that were used up by then.
    fn next_connected(&self, from: StreamId, tries: u32) -> Option<(u32, StreamId, Rc<RemotingClient>)> {
        let mut to = from;
        for used in 1..=tries {
            to = next_in_row(to, self.brokers);
            if let Some(client) = self.routes[&to].next_link().client() {
                return Some((used, to, client));
            }
        }
        None
    }
}
