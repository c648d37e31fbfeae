//! Requests that wait until a pop would give something (`PopLongPollingService`).
//!
//! A request leaves in one of three ways: there may be something for its group, its time is up, or its connection
//! closes. What waits is the caller's: this table keeps it and says when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apogee_net::io::ConnectionId;
use rustc_hash::FxHashMap;

use super::super::topics::TopicNumber;

/// Requests that wait on one shard (`maxPopPollingSize`). At the limit more are answered with POLLING_FULL.
pub const POLLS_MAX: usize = 100_000;

/// Requests of one group that wait on one queue, or on all queues of a topic (`popPollingSize`).
pub const POLLS_PER_QUEUE_MAX: usize = 1024;

/// What a request waits on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollKey {
    pub topic: TopicNumber,
    pub group: Arc<str>,
    /// −1: all queues.
    pub queue_id: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollingFull;

/// Counts requests, so that those that wait longest leave first. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct PollId(u64);

#[derive(Debug)]
struct Poll<P> {
    key: PollKey,
    connection: ConnectionId,
    deadline_ms: i64,
    what: P,
}

type OfTopic = BTreeMap<(Arc<str>, i32), BTreeSet<PollId>>;

/// Every request stands in all four maps; inner maps that become empty are removed with their keys.
#[derive(Debug)]
pub struct Polls<P> {
    polls: FxHashMap<PollId, Poll<P>>,
    by_topic: FxHashMap<TopicNumber, OfTopic>,
    by_connection: FxHashMap<ConnectionId, BTreeSet<PollId>>,
    by_deadline: BTreeSet<(i64, PollId)>,
    next_id: u64,
}

impl<P> Default for Polls<P> {
    fn default() -> Self {
        Self {
            polls: FxHashMap::default(),
            by_topic: FxHashMap::default(),
            by_connection: FxHashMap::default(),
            by_deadline: BTreeSet::new(),
            next_id: 0,
        }
    }
}

impl<P> Polls<P> {
    /// Keeps `what` until one of the other calls hands it out.
    pub fn park(
        &mut self,
        key: PollKey,
        connection: ConnectionId,
        deadline_ms: i64,
        what: P,
    ) -> Result<(), (PollingFull, P)> {
        if self.polls.len() >= POLLS_MAX || self.count(&key) >= POLLS_PER_QUEUE_MAX {
            return Err((PollingFull, what));
        }
        let id = PollId(self.next_id);
        self.next_id += 1;
        let of_topic = self.by_topic.entry(key.topic).or_default();
        of_topic.entry((key.group.clone(), key.queue_id)).or_default().insert(id);
        self.by_connection.entry(connection).or_default().insert(id);
        self.by_deadline.insert((deadline_ms, id));
        self.polls.insert(id, Poll { key, connection, deadline_ms, what });
        Ok(())
    }

    pub fn count(&self, key: &PollKey) -> usize {
        let of_topic = self.by_topic.get(&key.topic);
        of_topic
            .and_then(|of_topic| of_topic.get(&(key.group.clone(), key.queue_id)))
            .map_or(0, BTreeSet::len)
    }

    /// Who waits for messages of a queue: on it, or on all queues of its topic.
    pub fn waiting_on(&self, topic: TopicNumber, queue_id: i32) -> impl Iterator<Item = PollKey> {
        let of_topic = self.by_topic.get(&topic);
        let keys = of_topic.into_iter().flat_map(BTreeMap::keys);
        keys.filter(move |(_, waits_on)| *waits_on == queue_id || *waits_on < 0)
            .map(move |(group, queue_id)| PollKey { topic, group: group.clone(), queue_id: *queue_id })
    }

    /// Who of a group waits for messages of a topic, on whichever queue.
    pub fn waiting_of(&self, topic: TopicNumber, group: &Arc<str>) -> impl Iterator<Item = PollKey> {
        let of_topic = self.by_topic.get(&topic);
        let from = (group.clone(), i32::MIN);
        let keys = of_topic.into_iter().flat_map(move |of_topic| of_topic.range(from.clone()..));
        keys.map(|(key, _)| key)
            .take_while(move |(other, _)| other == group)
            .map(move |(group, queue_id)| PollKey { topic, group: group.clone(), queue_id: *queue_id })
    }

    /// The request that waits longest on `key`, with its connection and deadline.
    pub fn take(&mut self, key: &PollKey) -> Option<(ConnectionId, i64, P)> {
        let of_topic = self.by_topic.get(&key.topic)?;
        let id = *of_topic.get(&(key.group.clone(), key.queue_id))?.first().expect("empty sets are removed");
        let poll = self.remove(id);
        Some((poll.connection, poll.deadline_ms, poll.what))
    }

    /// The request whose time is up first, if any is; to be called until it returns `None`.
    pub fn poll_deadline(&mut self, now_ms: i64) -> Option<P> {
        let &(deadline_ms, id) = self.by_deadline.first()?;
        (deadline_ms <= now_ms).then(|| self.remove(id).what)
    }

    /// When [`poll_deadline`](Self::poll_deadline) will have something next.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.by_deadline.first().map(|&(deadline_ms, _)| deadline_ms)
    }

    /// Nobody is left to answer.
    pub fn on_connection_closed(&mut self, connection: ConnectionId) {
        let ids: Vec<PollId> = self.by_connection.get(&connection).into_iter().flatten().copied().collect();
        for id in ids {
            self.remove(id);
        }
    }

    pub fn len(&self) -> usize {
        self.polls.len()
    }

    pub fn is_empty(&self) -> bool {
        self.polls.is_empty()
    }

    fn remove(&mut self, id: PollId) -> Poll<P> {
        let poll = self.polls.remove(&id).expect("an id in an index has its request");
        assert!(self.by_deadline.remove(&(poll.deadline_ms, id)), "{id:?} had no deadline");
        let of_topic = self.by_topic.get_mut(&poll.key.topic).expect("a request stands in every index");
        let name = (poll.key.group.clone(), poll.key.queue_id);
        let ids = of_topic.get_mut(&name).expect("a request stands in every index");
        assert!(ids.remove(&id), "{id:?} missing in an index");
        if ids.is_empty() {
            of_topic.remove(&name);
        }
        if of_topic.is_empty() {
            self.by_topic.remove(&poll.key.topic);
        }
        let ids = self.by_connection.get_mut(&poll.connection).expect("a request stands in every index");
        assert!(ids.remove(&id), "{id:?} missing in an index");
        if ids.is_empty() {
            self.by_connection.remove(&poll.connection);
        }
        poll
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEA: TopicNumber = TopicNumber(7);
    const CLIENT: ConnectionId = ConnectionId(1);

    fn key(group: &str, queue_id: i32) -> PollKey {
        PollKey { topic: TEA, group: group.into(), queue_id }
    }

    fn keys(found: impl Iterator<Item = PollKey>) -> Vec<(String, i32)> {
        found.map(|key| (key.group.to_string(), key.queue_id)).collect()
    }

    #[test]
    fn longest_waiting_leaves_first() {
        let mut polls = Polls::default();
        for (nth, deadline_ms) in [30, 10, 20].into_iter().enumerate() {
            polls.park(key("g", -1), CLIENT, deadline_ms, nth).unwrap();
        }
        assert_eq!(polls.take(&key("g", -1)), Some((CLIENT, 30, 0)));
        assert_eq!(polls.take(&key("g", 0)), None);
        assert_eq!(polls.next_deadline_ms(), Some(10));
        assert_eq!(polls.poll_deadline(9), None);
        assert_eq!(polls.poll_deadline(20), Some(1));
        assert_eq!(polls.poll_deadline(20), Some(2));
        assert!(polls.is_empty() && polls.by_topic.is_empty() && polls.by_connection.is_empty());
    }

    #[test]
    fn all_who_may_be_given_a_message_are_named() {
        let mut polls = Polls::default();
        for (group, queue_id) in [("g", -1), ("g", 0), ("g", 1), ("h", 1), ("f", 0)] {
            polls.park(key(group, queue_id), CLIENT, 9, ()).unwrap();
        }
        assert_eq!(keys(polls.waiting_on(TEA, 1)), [("g".into(), -1), ("g".into(), 1), ("h".into(), 1)]);
        assert_eq!(keys(polls.waiting_on(TopicNumber(8), 1)), []);
        assert_eq!(
            keys(polls.waiting_of(TEA, &"g".into())),
            [("g".into(), -1), ("g".into(), 0), ("g".into(), 1)]
        );
    }

    #[test]
    fn closed_connection_takes_its_requests_along() {
        let mut polls = Polls::default();
        polls.park(key("g", 0), CLIENT, 9, 1).unwrap();
        polls.park(key("g", 0), ConnectionId(2), 9, 2).unwrap();
        polls.on_connection_closed(CLIENT);
        assert_eq!(polls.len(), 1);
        assert_eq!(polls.take(&key("g", 0)), Some((ConnectionId(2), 9, 2)));
    }

    #[test]
    fn one_group_cannot_wait_without_limit_on_a_queue() {
        let mut polls = Polls::default();
        for nth in 0..POLLS_PER_QUEUE_MAX {
            polls.park(key("g", 0), CLIENT, 9, nth).unwrap();
        }
        assert_eq!(polls.park(key("g", 0), CLIENT, 9, 77), Err((PollingFull, 77)));
        assert!(polls.park(key("g", -1), CLIENT, 9, 78).is_ok());
        assert_eq!(polls.count(&key("g", 0)), POLLS_PER_QUEUE_MAX);
        let mut queue_id = 1;
        while polls.len() < POLLS_MAX {
            while polls.len() < POLLS_MAX && polls.park(key("g", queue_id), CLIENT, 9, 0).is_ok() {}
            queue_id += 1;
        }
        assert_eq!(polls.park(key("other", 0), CLIENT, 9, 79), Err((PollingFull, 79)));
    }
}
