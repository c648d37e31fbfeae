//! Pops and notifications that wait, and who is looked after when something may have come.

use std::collections::VecDeque;
use std::sync::Arc;

use apogee_net::code::ResponseCode;
use apogee_net::io::ConnectionId;
use apogee_net::message::ORDER_REVIVE_QUEUE_ID;
use apogee_net::request::{NotificationReply, PopMessageReply};
use apogee_storage::{Buffer, QueueKey};
use rustc_hash::FxHashSet;

use super::super::state::Shard;
use super::super::topics::TopicNumber;
use super::plan::{Pop, Popped};
use super::polls::{PollKey, Polls};
use crate::service::{Reply, ReplyTo};

/// Pops that one arrival executes for one group and queue; others follow at the next tick.
const POPS_PER_WAKE_MAX: usize = 16;

/// Pops and notifications whose time is up, or who are to be looked after, in one tick; others follow at the next.
const POLLS_PER_TICK_MAX: usize = 128;

/// Groups and queues that are to be looked after at the next tick. Beyond it one waits for the next arrival.
const LOOK_AGAIN_MAX: usize = 65_536;

/// What pops have in memory only: whoever waits asks again after a restart.
#[derive(Debug, Default)]
pub(in crate::shard) struct Popping {
    pub polls: Polls<ParkedPop>,
    pub notifications: Polls<ParkedNotification>,
    /// Counts pops, so that queues and the retry topic take turns.
    pub turn: u32,
    /// Check points whose messages are on their way into a retry topic.
    pub(super) reviving: usize,
    look_again: VecDeque<PollKey>,
    /// Queues that a pop with an expression reads.
    pub(super) sifted: FxHashSet<(Arc<str>, QueueKey)>,
}

#[derive(Debug)]
pub(in crate::shard) struct ParkedPop {
    pub to: ReplyTo,
    pub pop: Pop,
}

#[derive(Debug)]
pub(in crate::shard) struct ParkedNotification {
    pub to: ReplyTo,
    pub is_ordered: bool,
    pub attempt_id: Option<Box<str>>,
    pub key: PollKey,
}

impl Pop {
    pub(in crate::shard) fn key(&self) -> PollKey {
        PollKey { topic: self.topic, group: self.group.clone(), queue_id: self.queue_id.max(-1) }
    }

    /// The answer to a pop that got nothing.
    pub(in crate::shard) fn nothing(&self, code: ResponseCode, rest: i64, now_ms: i64) -> Reply {
        Reply::new(code).with_remark("NO_MESSAGE_IN_QUEUE").with_ext(PopMessageReply {
            pop_ms: now_ms,
            invisible_ms: self.invisible_ms,
            revive_queue_id: if self.is_ordered { ORDER_REVIVE_QUEUE_ID } else { 0 },
            rest,
            start_offset_info: Some("".into()),
            message_offset_info: Some("".into()),
            order_count_info: self.is_ordered.then(|| "".into()),
        })
    }
}

impl Popping {
    pub(in crate::shard) fn on_connection_closed(&mut self, connection: ConnectionId) {
        self.polls.on_connection_closed(connection);
        self.notifications.on_connection_closed(connection);
    }

    /// Has whoever waits on `key` looked after at the next tick.
    pub(in crate::shard) fn look_again(&mut self, key: PollKey) {
        if self.look_again.len() < LOOK_AGAIN_MAX && !self.look_again.contains(&key) {
            self.look_again.push_back(key);
        }
    }

    /// Whether a pop with an expression reads the queue.
    pub(super) fn is_sifted(&self, group: &Arc<str>, queue: QueueKey) -> bool {
        !self.sifted.is_empty() && self.sifted.contains(&(group.clone(), queue))
    }

    /// When a tick has something to do.
    fn wake_at_ms(&self) -> Option<i64> {
        let now = (!self.look_again.is_empty()).then_some(0);
        let deadlines = [self.polls.next_deadline_ms(), self.notifications.next_deadline_ms()];
        deadlines.into_iter().chain([now]).flatten().min()
    }
}

impl<B: Buffer + 'static> Shard<B> {
    /// What falls due by time.
    pub(in crate::shard) fn pop_tick(&mut self, now_ms: i64) {
        self.revive(now_ms);
        for _ in 0..self.popping.look_again.len().min(POLLS_PER_TICK_MAX) {
            let Some(key) = self.popping.look_again.pop_front() else { break };
            self.serve(&key, now_ms);
            self.notify_pops(&key, now_ms);
        }
        for _ in 0..POLLS_PER_TICK_MAX {
            let Some(parked) = self.popping.polls.poll_deadline(now_ms) else { break };
            self.finish_pop(parked, now_ms);
        }
        for _ in 0..POLLS_PER_TICK_MAX {
            let Some(parked) = self.popping.notifications.poll_deadline(now_ms) else { break };
            let has_message = self.would_pop(&parked, now_ms);
            self.notified(parked.to, has_message);
        }
    }

    pub(in crate::shard) fn pop_wake_at_ms(&self) -> Option<i64> {
        [self.revive_at_ms(), self.popping.wake_at_ms()].into_iter().flatten().min()
    }

    /// Messages became visible in `queue`.
    pub(in crate::shard) fn wake_pops(&mut self, queue: QueueKey, now_ms: i64) {
        if self.popping.polls.is_empty() && self.popping.notifications.is_empty()
            || queue == QueueKey::CONTROL
        {
            return;
        }
        let (topic, queue_id) = TopicNumber::of(queue);
        let queue_id = i32::try_from(queue_id).unwrap_or(i32::MAX);
        let keys: Vec<_> = self.popping.polls.waiting_on(topic, queue_id).collect();
        for key in keys {
            self.serve(&key, now_ms);
        }
        let keys: Vec<_> = self.popping.notifications.waiting_on(topic, queue_id).collect();
        for key in keys {
            self.notify_pops(&key, now_ms);
        }
    }

    /// A group may get something of a topic that did not just arrive: messages come again, or a queue is free.
    pub(in crate::shard) fn wake_pops_of(&mut self, group: &str, topic: TopicNumber, now_ms: i64) {
        if self.popping.polls.is_empty() && self.popping.notifications.is_empty() {
            return;
        }
        let group: Arc<str> = group.into();
        let keys: Vec<_> = self.popping.polls.waiting_of(topic, &group).collect();
        for key in keys {
            self.serve(&key, now_ms);
        }
        let keys: Vec<_> = self.popping.notifications.waiting_of(topic, &group).collect();
        for key in keys {
            self.notify_pops(&key, now_ms);
        }
    }

    /// Whoever waits asks again: this node no longer leads.
    pub(in crate::shard) fn end_polls(&mut self, now_ms: i64) {
        while let Some(ParkedPop { to, pop }) = self.popping.polls.poll_deadline(i64::MAX) {
            let reply = pop.nothing(ResponseCode::POLLING_TIMEOUT, 0, now_ms);
            self.reply(Some(to), reply);
        }
        while let Some(parked) = self.popping.notifications.poll_deadline(i64::MAX) {
            self.notified(parked.to, false);
        }
    }

    /// Has a group's waiting requests looked after at the next tick.
    pub(in crate::shard) fn look_after_pops_of(&mut self, group: &str, topic: TopicNumber) {
        let group: Arc<str> = group.into();
        let pops: Vec<_> = self.popping.polls.waiting_of(topic, &group).collect();
        let notifications: Vec<_> = self.popping.notifications.waiting_of(topic, &group).collect();
        for key in pops.into_iter().chain(notifications) {
            self.popping.look_again(key);
        }
    }

    /// Executes waiting pops as long as they get something. Who gets nothing waits on.
    fn serve(&mut self, key: &PollKey, now_ms: i64) {
        for _ in 0..POPS_PER_WAKE_MAX {
            let Some((_, deadline_ms, parked)) = self.popping.polls.take(key) else { return };
            if parked.pop.filter.sql().is_some() {
                return self.sift(parked, deadline_ms, now_ms);
            }
            let ParkedPop { to, pop } = parked;
            match self.pop(&pop, Some(to), now_ms) {
                Ok(Popped::Given { rest: 1.. }) => {}
                Ok(Popped::Given { .. }) => return,
                Ok(Popped::Nothing { rest, is_cut_short }) => {
                    let parked = ParkedPop { to, pop };
                    return self.park_pop(parked, deadline_ms, rest, is_cut_short, now_ms);
                }
                // What it would get lies in an index file, or cannot be taken: the client asks again.
                Err(_) => {
                    let reply = pop.nothing(ResponseCode::POLLING_TIMEOUT, 0, now_ms);
                    self.reply(Some(to), reply);
                    return;
                }
            }
        }
        self.popping.look_again(key.clone());
    }

    /// A last try, for its time is up.
    fn finish_pop(&mut self, parked: ParkedPop, now_ms: i64) {
        if parked.pop.filter.sql().is_some() {
            return self.sift(parked, now_ms, now_ms);
        }
        let ParkedPop { to, pop } = parked;
        let rest = match self.pop(&pop, Some(to), now_ms) {
            Ok(Popped::Given { .. }) => return,
            Ok(Popped::Nothing { rest, .. }) => rest,
            Err(_) => 0,
        };
        let reply = pop.nothing(ResponseCode::POLLING_TIMEOUT, rest, now_ms);
        self.reply(Some(to), reply);
    }

    fn notify_pops(&mut self, key: &PollKey, now_ms: i64) {
        for _ in 0..self.popping.notifications.count(key) {
            let Some((connection, deadline_ms, parked)) = self.popping.notifications.take(key) else {
                return;
            };
            if self.would_pop(&parked, now_ms) {
                self.notified(parked.to, true);
            } else {
                let refused = self.popping.notifications.park(key.clone(), connection, deadline_ms, parked);
                assert!(refused.is_ok(), "a notification that waited has its place");
            }
        }
    }

    fn notified(&mut self, to: ReplyTo, has_message: bool) {
        self.reply(
            Some(to),
            Reply::success().with_ext(NotificationReply { has_message, polling_full: false }),
        );
    }

    /// Whether there is anything that the group has not been given yet (`NotificationProcessor#hasMsgFromQueue`): no
    /// filter is asked.
    pub(in crate::shard) fn would_pop(&self, wanted: &ParkedNotification, now_ms: i64) -> bool {
        let PollKey { topic, ref group, queue_id } = wanted.key;
        let attempt_id = wanted.attempt_id.as_deref();
        self.pop_sources(topic, group, queue_id, false).into_iter().any(|source| {
            let is_blocked =
                wanted.is_ordered && self.pops.is_blocked(group, source.queue, attempt_id, now_ms);
            !is_blocked && self.pop_position(group, source, 0).0 < self.log.max_offset(source.queue)
        })
    }
}
