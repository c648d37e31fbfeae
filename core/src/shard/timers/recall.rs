//! Taking a message back before its time has come.

use apogee_net::message::{StoredMessage, property};
use apogee_storage::Buffer;
use bytes::Bytes;

use super::record::{TimerId, TimerRecord};
use super::table::recall_hash;
use crate::service::{Reply, ReplyTo};
use crate::shard::commit::Then;
use crate::shard::control::ControlRecord;
use crate::shard::load::{LoadError, Wanted};
use crate::shard::refusal::Refusal;
use crate::shard::state::Shard;

/// Messages of one recall: a producer that sends again what it got no answer for makes two of the same key.
const RECALLED_MAX: usize = 16;

/// Whom to answer when all messages of a key are gone.
struct Recall {
    topic: String,
    unique_key: String,
    /// Timers that may be meant, not looked into yet.
    left: Vec<TimerId>,
    /// Those that are.
    found: Vec<TimerId>,
    to: Option<ReplyTo>,
    reply: Reply,
}

impl<B: Buffer + 'static> Shard<B> {
    /// Forgets the messages that wait for `topic` with this key, and answers with `reply` when that is durable. As in RocketMQ
    /// it is no error if there is none: it was delivered already.
    pub(in crate::shard) fn recall(
        &mut self,
        topic: &str,
        unique_key: &str,
        (to, reply): (Option<ReplyTo>, Reply),
        now_ms: i64,
    ) {
        let hash = recall_hash(topic, unique_key);
        let candidates = self.timers.table.with_key(hash).take(RECALLED_MAX);
        let mut left = Vec::new();
        for id in candidates {
            if self.timers.window.begin_recall(id) {
                left.push(id);
            }
        }
        let (topic, unique_key) = (topic.to_owned(), unique_key.to_owned());
        self.look_into_next(Recall { topic, unique_key, left, found: Vec::new(), to, reply }, now_ms);
    }

    /// Hashes collide: only the message says whether it is meant.
    fn look_into_next(&mut self, mut recall: Recall, now_ms: i64) {
        let Some(id) = recall.left.pop() else { return self.end_recall(recall, now_ms) };
        let wanted = Wanted::Entry(self.timers.wheel, id.offset);
        self.load(
            wanted,
            now_ms,
            Box::new(move |shard, message, now_ms| {
                match message {
                    Ok(message) if is_meant(&message, &recall) => recall.found.push(id),
                    Ok(_) | Err(LoadError::Missing) => {
                        shard.timers.window.end_recall(&shard.timers.table, id);
                    }
                    Err(error) => {
                        recall.left.push(id);
                        return shard.fail_recall(recall, &error.to_string());
                    }
                }
                shard.look_into_next(recall, now_ms);
            }),
        );
    }

    fn end_recall(&mut self, recall: Recall, now_ms: i64) {
        let Recall { found, to, reply, .. } = recall;
        if found.is_empty() {
            return self.reply(to, reply);
        }
        let done = ControlRecord::Timer(TimerRecord::Done(found.clone()));
        let again = found.clone();
        let then = Then::Do(Box::new(move |shard: &mut Shard<B>, result: Result<_, &str>, _| {
            for id in found {
                shard.timers.window.end_recall(&shard.timers.table, id);
            }
            let reply = match result {
                Ok(_) => reply,
                Err(reason) => not_recalled(reason),
            };
            shard.reply(to, reply);
        }));
        if let Err(Refusal { remark, .. }) = self.stage_with([], vec![done], then, now_ms) {
            for id in again {
                self.timers.window.end_recall(&self.timers.table, id);
            }
            self.reply(to, not_recalled(&remark));
        }
    }

    fn fail_recall(&mut self, recall: Recall, reason: &str) {
        for id in recall.left.into_iter().chain(recall.found) {
            self.timers.window.end_recall(&self.timers.table, id);
        }
        self.reply(recall.to, not_recalled(reason));
    }
}

fn is_meant(message: &Bytes, recall: &Recall) -> bool {
    StoredMessage::decode(message).is_ok_and(|stored| {
        stored.properties.get(property::REAL_TOPIC) == Some(&*recall.topic)
            && stored.properties.get(property::UNIQUE_KEY) == Some(&*recall.unique_key)
    })
}

fn not_recalled(reason: &str) -> Reply {
    Reply::error(
        apogee_net::code::ResponseCode::SYSTEM_ERROR,
        format!("recall failed, execute error: {reason}"),
    )
}
