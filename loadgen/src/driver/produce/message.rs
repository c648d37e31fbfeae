//! What goes over the wire for one message.

use apogee_net::client::RemotingClient;
use apogee_net::code::RequestCode;
use apogee_net::flags::MessageSysFlag;
use apogee_net::io::Chunk;
use apogee_net::message::{append_property, property};
use apogee_net::request::SendMessageRequest;
use bytes::Bytes;

use super::{Publisher, Route};
use crate::payload::Stamp;
use crate::scenario::Kind;

/// The property that SQL filters of scenarios are about.
const NUMBER: &str = "n";

const NANOS_PER_MS: u128 = 1_000_000;

impl Publisher {
    pub(super) fn body(&self, stamp: &Stamp) -> Bytes {
        self.payload.write(stamp, self.content.size(stamp))
    }

    /// By the wall clock, in ms. What is written before the run is born when the publisher was made.
    fn born_ms(&self, stamp: &Stamp) -> i64 {
        let after_start = if stamp.is_prefill() { 0 } else { stamp.sent.since_start().as_nanos() };
        ((self.start_ns + after_start) / NANOS_PER_MS) as i64
    }

    /// The properties that every message has.
    pub(super) fn unique_key_property(&self, stamp: &Stamp) -> String {
        let mut properties = Vec::with_capacity(64);
        let key = self.keys.borrow_mut().next(self.born_ms(stamp));
        append_property(&mut properties, property::UNIQUE_KEY, &key);
        append_property(&mut properties, property::WAIT, "true");
        String::from_utf8(properties).expect("made of texts")
    }

    pub(super) fn properties(&self, stamp: &Stamp) -> String {
        let properties = self.unique_key_property(stamp);
        if !self.has_extras {
            return properties;
        }
        let mut properties = properties.into_bytes();
        let mut add = |name: &str, value: &str| append_property(&mut properties, name, value);
        if let Some(tag) = self.content.tag(stamp.sequence) {
            add(property::TAGS, tag);
        }
        if let Some(number) = self.content.number(stamp.sequence) {
            add(NUMBER, &number.to_string());
        }
        if self.with_keys {
            let Stamp { stream, lane, sequence, .. } = stamp;
            add(property::KEYS, &format!("{:x}-{}-{lane}-{sequence}", self.content.run().0, stream.0));
        }
        match &self.kind {
            Kind::Normal | Kind::Oneway => {}
            Kind::Ordered { .. } => add(property::SHARDING_KEY, &stamp.lane.to_string()),
            Kind::Delayed { level } => add(property::DELAY, &level.to_string()),
            Kind::Timed { after, relative: true, .. } => {
                add(property::TIMER_DELAY_MS, &after.as_millis().to_string());
            }
            Kind::Timed { after, relative: false, .. } => {
                // Rounded up: what is delivered at this millisecond is not early.
                let due = self.start_ns + stamp.due.since_start().as_nanos() + after.as_nanos();
                add(property::TIMER_DELIVER_MS, &due.div_ceil(NANOS_PER_MS).to_string());
            }
            Kind::Transactional { .. } => {
                add(property::TRANSACTION_PREPARED, "true");
                add(property::PRODUCER_GROUP, &self.group);
            }
        }
        String::from_utf8(properties).expect("made of texts")
    }

    pub(super) fn request<'a>(
        &'a self,
        route: &'a Route,
        stamp: &Stamp,
        properties: &'a str,
        batch: bool,
    ) -> SendMessageRequest<'a> {
        SendMessageRequest {
            producer_group: &self.group,
            topic: &route.topic,
            default_topic: "TBW102",
            default_topic_queues: 4,
            queue_id: route.queue_id,
            sys_flag: match self.kind {
                Kind::Transactional { .. } => MessageSysFlag::TRANSACTION_PREPARED,
                _ => MessageSysFlag(0),
            },
            born_timestamp: self.born_ms(stamp),
            flag: 0,
            properties,
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch,
            broker_name: Some(&route.broker),
        }
    }

    /// Nobody tells what became of these.
    pub(super) fn send_oneway(
        &self,
        client: &RemotingClient,
        code: RequestCode,
        request: &SendMessageRequest<'_>,
        body: [Chunk; 1],
        stamps: &[Stamp],
    ) {
        if let Err(error) = client.oneway(code, request, body) {
            let mut tally = self.books.tally.borrow_mut();
            for stamp in stamps {
                tally.on_publish_failed(stamp.stream, self.books.now(), error.into(), None);
            }
        }
    }
}
