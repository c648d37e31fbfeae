//! The answer to a pop: the messages, and the lists that clients make receipt handles from.

use std::fmt::Write as _;
use std::sync::Arc;

use apogee_net::code::ResponseCode;
use apogee_net::io::Chunk;
use apogee_net::message::{
    MessageRecord, ORDER_REVIVE_QUEUE_ID, Place, PropertyEdit, ReceiptHandle, RetryKind, StoredMessage,
    StoredMessages, property,
};
use apogee_net::request::PopMessageReply;
use apogee_storage::{Buffer, Run};
use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::super::action::{Action, Fetch};
use super::super::state::Shard;
use super::super::stats::{GroupMeasure, Totals};
use super::super::topics::TopicNumber;
use super::order::{Order, separate};
use super::plan::{FoundQueue, Messages, Pop};
use super::retry_topic::retry_kind;
use crate::service::{Reply, ReplyTo};

/// The revive queue of unordered pops. RocketMQ spreads check points over eight; clients pass on what they are told.
const REVIVE_QUEUE_ID: i32 = 0;

/// Messages on their way to a client.
#[derive(Debug)]
pub(super) struct Delivery<B> {
    group: Arc<str>,
    topic: TopicNumber,
    pop_ms: i64,
    invisible_ms: i64,
    is_ordered: bool,
    rest: i64,
    /// `startOffsetInfo`, `msgOffsetInfo`, `orderCountInfo`.
    starts: String,
    offsets: String,
    order_counts: Option<String>,
    messages: SmallVec<[Fetch; 4]>,
    /// Of retry topics: they are delivered under their original topic, so they have to be read and written anew.
    retries: SmallVec<[Run<B>; 4]>,
    retries_read: SmallVec<[Bytes; 2]>,
    retry_starts: SmallVec<[(RetryKind, u64); 2]>,
    /// All of it.
    got: Totals,
}

impl<B: Buffer + 'static> Delivery<B> {
    pub(super) fn new(pop: &Pop, pop_ms: i64, rest: i64, order_counts: Option<String>) -> Self {
        Delivery {
            group: pop.group.clone(),
            topic: pop.topic,
            pop_ms,
            invisible_ms: pop.invisible_ms,
            is_ordered: pop.is_ordered,
            rest,
            starts: String::new(),
            offsets: String::new(),
            order_counts,
            messages: SmallVec::new(),
            retries: SmallVec::new(),
            retries_read: SmallVec::new(),
            retry_starts: SmallVec::new(),
            got: Totals::default(),
        }
    }

    pub(super) fn count_order(&mut self, order: &Order, queue_id: i32) {
        if let Some(counts) = &mut self.order_counts {
            order.write_counts(queue_id, counts);
        }
    }

    /// One entry for each queue: `{retry} {queue} {start}` and `{retry} {queue} {offset},…`.
    pub(super) fn add(&mut self, queues: SmallVec<[FoundQueue<B>; 4]>) {
        for FoundQueue { source, start, next: _, offsets, messages } in queues {
            let (retry, queue_id) = (source.kind.letter(), source.queue_id);
            self.got.messages += offsets.len() as u64;
            self.got.bytes += messages.bytes();
            separate(&mut self.starts);
            let _ = write!(self.starts, "{retry} {queue_id} {start}");
            separate(&mut self.offsets);
            let _ = write!(self.offsets, "{retry} {queue_id} ");
            for (nth, offset) in offsets.iter().enumerate() {
                let comma = if nth > 0 { "," } else { "" };
                let _ = write!(self.offsets, "{comma}{offset}");
            }
            let is_retry = source.kind != RetryKind::Normal;
            if is_retry {
                self.retry_starts.push((source.kind, start));
            }
            match messages {
                Messages::Runs(runs) if is_retry => self.retries.extend(runs),
                Messages::Loaded(read) if is_retry => self.retries_read.extend(read),
                Messages::Runs(runs) => self.messages.extend(runs.into_iter().map(Fetch::from)),
                Messages::Loaded(read) => {
                    self.messages.extend(read.into_iter().map(|read| Fetch::Here(Chunk::from(read))));
                }
            }
        }
    }

    fn reply(&self) -> Reply {
        Reply::success().with_remark("FOUND").with_ext(PopMessageReply {
            pop_ms: self.pop_ms,
            invisible_ms: self.invisible_ms,
            revive_queue_id: self.revive_queue_id(),
            rest: self.rest,
            start_offset_info: Some(self.starts.clone().into()),
            message_offset_info: Some(self.offsets.clone().into()),
            order_count_info: self.order_counts.clone().map(Into::into),
        })
    }

    fn revive_queue_id(&self) -> i32 {
        if self.is_ordered { ORDER_REVIVE_QUEUE_ID } else { REVIVE_QUEUE_ID }
    }

    /// Messages of retry topics as they are delivered: under their original topic, with a receipt handle.
    ///
    /// Where the handle has no room among the properties, or bytes are no message, they stay as they are: a client
    /// makes the handle of such a message itself, from its topic.
    fn rewrite(&self, stored: &Bytes, topic: &str, broker: &str) -> Bytes {
        let mut out = BytesMut::with_capacity(stored.len() + stored.len() / 8);
        let mut left = &stored[..];
        for message in StoredMessages::new(stored) {
            let Ok(message) = message else { break };
            let (bytes, behind) = left.split_at(message.total_len);
            left = behind;
            match self.rewritten(&message, topic, broker) {
                Some(rewritten) => out.extend_from_slice(&rewritten),
                None => out.extend_from_slice(bytes),
            }
        }
        out.extend_from_slice(left);
        out.freeze()
    }

    fn rewritten(&self, message: &StoredMessage<'_>, topic: &str, broker: &str) -> Option<Vec<u8>> {
        let retry = retry_kind(message.topic);
        let (_, start) = self.retry_starts.iter().find(|(kind, _)| *kind == retry)?;
        let handle = ReceiptHandle {
            start_offset: *start as i64,
            pop_ms: self.pop_ms,
            invisible_ms: self.invisible_ms,
            revive_queue_id: self.revive_queue_id(),
            retry,
            broker,
            queue_id: message.queue_id,
            offset: message.queue_offset,
        };
        let handle = handle.to_string();
        let record = MessageRecord {
            topic,
            queue_id: message.queue_id,
            flag: message.flag,
            sys_flag: message.sys_flag,
            born_timestamp: message.born_timestamp,
            born_host: message.born_host,
            store_host: message.store_host,
            reconsume_times: message.reconsume_times,
            prepared_transaction_offset: message.prepared_transaction_offset,
            body: message.body,
            properties: PropertyEdit {
                received: message.properties.0,
                set: &[(property::POP_CHECK_POINT, &handle)],
                remove: &[],
            },
        };
        let place = Place {
            queue_offset: message.queue_offset,
            physical_offset: message.physical_offset,
            store_timestamp: message.store_timestamp,
        };
        let mut out = vec![0; record.encoded_len().ok()?];
        record.encode(place, &mut out);
        Some(out)
    }
}

impl<B: Buffer + 'static> Shard<B> {
    /// Answers a pop whose check points are durable.
    pub(super) fn deliver_popped(&mut self, mut delivery: Delivery<B>, to: ReplyTo, now_ms: i64) {
        let retries = std::mem::take(&mut delivery.retries);
        if retries.is_empty() && delivery.retries_read.is_empty() {
            return self.send_delivery(delivery, to);
        }
        let then = move |shard: &mut Shard<B>, read: Result<Bytes, _>, _| match (
            read,
            shard.topics.by_number(delivery.topic),
        ) {
            (Ok(read), Some(topic)) => {
                let topic = &topic.config().topic_name;
                for read in std::mem::take(&mut delivery.retries_read).iter().chain([&read]) {
                    let rewritten = delivery.rewrite(read, topic, &shard.config.broker_name);
                    if !rewritten.is_empty() {
                        delivery.messages.push(Fetch::Here(Chunk::from(rewritten)));
                    }
                }
                shard.send_delivery(delivery, to);
            }
            (Ok(_), None) => {
                let remark = "the topic was deleted meanwhile";
                shard.reply(Some(to), Reply::error(ResponseCode::TOPIC_NOT_EXIST, remark));
            }
            (Err(error), _) => {
                let remark = format!("cannot read messages: {error}");
                shard.reply(Some(to), Reply::error(ResponseCode::SYSTEM_ERROR, remark));
            }
        };
        self.load_plan(retries, now_ms, Box::new(then));
    }

    fn send_delivery(&mut self, delivery: Delivery<B>, to: ReplyTo) {
        let Delivery { ref group, topic, got, .. } = delivery;
        let meter = self.stats.meters.of_group(group, topic, GroupMeasure::Got, || false);
        self.stats.on_found(meter, got);
        let reply = delivery.reply();
        self.send_read(to, reply, delivery.messages);
    }

    /// Answers with a body that lies in memory, or has to be fetched first.
    pub(in crate::shard) fn send_read(&mut self, to: ReplyTo, mut reply: Reply, runs: SmallVec<[Fetch; 4]>) {
        if runs.iter().any(|run| matches!(run, Fetch::File(_))) {
            return self.act(Action::Read { to, reply, runs });
        }
        reply.body.extend(runs.into_iter().filter_map(|run| match run {
            Fetch::Here(chunk) => Some(chunk),
            Fetch::File(_) => None,
        }));
        self.act(Action::Reply { to, reply });
    }
}
