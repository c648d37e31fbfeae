//! Pulls that found nothing and wait for a message (long polling).
//!
//! A parked pull leaves in one of three ways: a message that its filter lets through becomes visible in its queue,
//! its time is up, or its connection closes. The first two execute the pull again, without leave to park; the last
//! drops it (RocketMQ's `PullRequestHoldService#notifyMessageArriving` and `#checkHoldRequest`; those also scan all
//! held pulls every 5 s, for their check and their hold can interleave. Here both happen in one turn of the shard:
//! who parks right after looking cannot miss a message).
//!
//! What is parked is the caller's: this table keeps it and says when.

use std::collections::BTreeSet;

use apogee_net::io::ConnectionId;
use apogee_storage::QueueKey;
use rustc_hash::FxHashMap;

use super::filter::Filter;

/// Parked pulls of one shard. At the limit `park` refuses, and the client tries again a second or three later.
pub const PULLS_PARKED_MAX: usize = 65_536;

/// Parked pulls of one connection, so that one client cannot take every place. A client keeps one pull per queue
/// and group in flight: this is a consumer of 2,000 topics with eight queues each.
pub const PULLS_PARKED_PER_CONNECTION_MAX: usize = 16_384;

/// Longest hold; a longer one asked for is cut to it. Clients ask for 15 to 20 s and give up after 30 s.
pub const HOLD_MS_MAX: i64 = 60_000;

/// What a pull waits for.
#[derive(Clone, Debug)]
pub struct Wait {
    pub queue: QueueKey,
    pub connection: ConnectionId,
    pub filter: Filter,
    /// How long, from now; `suspendTimeoutMillis` of the request. Not above zero: until the next
    /// [`ParkedPulls::poll_deadline`].
    pub hold_ms: i64,
}

/// Why a pull was not parked; the pull comes back with it, to be answered.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct ParkRefused<P> {
    pub reason: ParkRefusal,
    pub pull: P,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParkRefusal {
    #[error("{PULLS_PARKED_MAX} pulls wait on this broker already")]
    ShardFull,
    #[error("{PULLS_PARKED_PER_CONNECTION_MAX} pulls of this connection wait already")]
    ConnectionFull,
}

/// Counts parkings, so that those that wait longest wake first. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct ParkId(u64);

#[derive(Debug)]
struct Parked<P> {
    queue: QueueKey,
    connection: ConnectionId,
    filter: Filter,
    deadline_ms: i64,
    pull: P,
}

/// Every pull stands in all four maps; an inner set that becomes empty is removed with its key, so nothing is kept
/// for a queue or connection without parked pulls.
#[derive(Debug)]
pub struct ParkedPulls<P> {
    pulls: FxHashMap<ParkId, Parked<P>>,
    by_queue: FxHashMap<QueueKey, BTreeSet<ParkId>>,
    by_connection: FxHashMap<ConnectionId, BTreeSet<ParkId>>,
    by_deadline: BTreeSet<(i64, ParkId)>,
    next_id: u64,
}

impl<P> Default for ParkedPulls<P> {
    fn default() -> Self {
        Self {
            pulls: FxHashMap::default(),
            by_queue: FxHashMap::default(),
            by_connection: FxHashMap::default(),
            by_deadline: BTreeSet::new(),
            next_id: 0,
        }
    }
}

impl<P> ParkedPulls<P> {
    /// Keeps `pull` until one of the other calls hands it out.
    pub fn park(&mut self, wait: Wait, now_ms: i64, pull: P) -> Result<(), ParkRefused<P>> {
        if self.pulls.len() >= PULLS_PARKED_MAX {
            return Err(ParkRefused { reason: ParkRefusal::ShardFull, pull });
        }
        let of_connection = self.by_connection.get(&wait.connection).map_or(0, BTreeSet::len);
        if of_connection >= PULLS_PARKED_PER_CONNECTION_MAX {
            return Err(ParkRefused { reason: ParkRefusal::ConnectionFull, pull });
        }

        let Wait { queue, connection, filter, hold_ms } = wait;
        let deadline_ms = now_ms.saturating_add(hold_ms.clamp(0, HOLD_MS_MAX));
        let id = ParkId(self.next_id);
        self.next_id += 1;
        self.by_queue.entry(queue).or_default().insert(id);
        self.by_connection.entry(connection).or_default().insert(id);
        self.by_deadline.insert((deadline_ms, id));
        self.pulls.insert(id, Parked { queue, connection, filter, deadline_ms, pull });
        Ok(())
    }

    /// Messages with these tag hashes became visible in `queue`: moves to `woken` each pull that wants one of them,
    /// the longest parked first. Costs one look-up when nobody waits.
    pub fn on_arrival<T>(&mut self, queue: QueueKey, tag_hashes: T, woken: &mut Vec<P>)
    where
        T: IntoIterator<Item = i32> + Clone,
    {
        let Some(waiting) = self.by_queue.get(&queue) else { return };
        let pulls = &self.pulls;
        let wanting = |id: &ParkId| {
            let filter = &pulls[id].filter;
            tag_hashes.clone().into_iter().any(|tag_hash| filter.may_match_hash(tag_hash))
        };
        let ids: Vec<ParkId> = waiting.iter().copied().filter(wanting).collect();
        woken.extend(ids.into_iter().map(|id| self.remove(id)));
    }

    /// Moves the pulls of some connections in `queue` to `taken`, the longest parked first.
    pub fn take_of(&mut self, queue: QueueKey, is_wanted: impl Fn(ConnectionId) -> bool, taken: &mut Vec<P>) {
        let Some(waiting) = self.by_queue.get(&queue) else { return };
        let of_wanted = |id: &ParkId| is_wanted(self.pulls[id].connection);
        let ids: Vec<ParkId> = waiting.iter().copied().filter(of_wanted).collect();
        taken.extend(ids.into_iter().map(|id| self.remove(id)));
    }

    /// The pull whose time is up first, if any is; to be called until it returns `None`.
    pub fn poll_deadline(&mut self, now_ms: i64) -> Option<P> {
        let &(deadline_ms, id) = self.by_deadline.first()?;
        (deadline_ms <= now_ms).then(|| self.remove(id))
    }

    /// When [`poll_deadline`](Self::poll_deadline) will have something next.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.by_deadline.first().map(|&(deadline_ms, _)| deadline_ms)
    }

    /// Nobody is left to answer: the pulls of `connection`, to be dropped.
    pub fn on_connection_closed(&mut self, connection: ConnectionId) -> Vec<P> {
        let ids: Vec<ParkId> = self.by_connection.get(&connection).into_iter().flatten().copied().collect();
        ids.into_iter().map(|id| self.remove(id)).collect()
    }

    pub fn len(&self) -> usize {
        self.pulls.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pulls.is_empty()
    }

    fn remove(&mut self, id: ParkId) -> P {
        let parked = self.pulls.remove(&id).expect("an id in an index has its pull");
        assert!(self.by_deadline.remove(&(parked.deadline_ms, id)), "{id:?} had no deadline");
        remove_from(&mut self.by_queue, &parked.queue, id);
        remove_from(&mut self.by_connection, &parked.connection, id);
        parked.pull
    }
}

fn remove_from<K: Eq + std::hash::Hash>(index: &mut FxHashMap<K, BTreeSet<ParkId>>, key: &K, id: ParkId) {
    let ids = index.get_mut(key).expect("a parked pull stands in every index");
    assert!(ids.remove(&id), "{id:?} missing in an index");
    if ids.is_empty() {
        index.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use apogee_net::message::TagExpression;
    use proptest::prelude::*;

    use super::*;

    const QUEUE: QueueKey = QueueKey(7 << 32);
    const CLIENT: ConnectionId = ConnectionId(1);
    const NONE: [u32; 0] = [];

    fn wait(queue: QueueKey, hold_ms: i64) -> Wait {
        Wait { queue, connection: CLIENT, filter: Filter::ALL, hold_ms }
    }

    fn parked(pulls: impl IntoIterator<Item = (Wait, u32)>) -> ParkedPulls<u32> {
        let mut parked = ParkedPulls::default();
        for (wait, pull) in pulls {
            parked.park(wait, 0, pull).unwrap();
        }
        parked
    }

    fn woken_by(parked: &mut ParkedPulls<u32>, queue: QueueKey, tag_hashes: &[i32]) -> Vec<u32> {
        let mut woken = Vec::new();
        parked.on_arrival(queue, tag_hashes.iter().copied(), &mut woken);
        woken
    }

    fn expired(parked: &mut ParkedPulls<u32>, now_ms: i64) -> Vec<u32> {
        std::iter::from_fn(|| parked.poll_deadline(now_ms)).collect()
    }

    #[test]
    fn arrival_wakes_its_queue_longest_parked_first() {
        let mut parked = parked([(wait(QUEUE, 9), 1), (wait(QueueKey(1), 9), 2), (wait(QUEUE, 5), 3)]);
        assert_eq!(woken_by(&mut parked, QueueKey(2), &[0]), NONE);
        assert_eq!(woken_by(&mut parked, QUEUE, &[0]), [1, 3]);
        assert_eq!(woken_by(&mut parked, QUEUE, &[0]), NONE, "a woken pull is gone");
        assert_eq!(parked.len(), 1);
    }

    #[test]
    fn arrival_wakes_those_that_want_one_of_the_tags() {
        let filtered = |expression| Wait {
            filter: Filter::Tags(TagExpression::parse(expression).unwrap()),
            ..wait(QUEUE, 9)
        };
        let mut parked = parked([(filtered("A"), 1), (filtered("B || C"), 2), (filtered("*"), 3)]);
        let hash = apogee_net::message::tag_hash;
        assert_eq!(woken_by(&mut parked, QUEUE, &[]), NONE);
        assert_eq!(woken_by(&mut parked, QUEUE, &[hash("D"), hash("C")]), [2, 3]);
        assert_eq!(woken_by(&mut parked, QUEUE, &[hash("A")]), [1]);
        assert!(parked.is_empty());
    }

    #[test]
    fn deadlines_come_in_order() {
        let mut parked = parked([(wait(QUEUE, 30), 1), (wait(QUEUE, 10), 2), (wait(QueueKey(1), 20), 3)]);
        assert_eq!(parked.next_deadline_ms(), Some(10));
        assert_eq!(expired(&mut parked, 9), NONE);
        assert_eq!(expired(&mut parked, 20), [2, 3]);
        assert_eq!(parked.next_deadline_ms(), Some(30));
        assert_eq!(woken_by(&mut parked, QUEUE, &[0]), [1]);
        assert_eq!(parked.next_deadline_ms(), None);
    }

    #[test]
    fn holds_are_cut_to_the_longest_and_to_none() {
        let mut parked = parked([(wait(QUEUE, i64::MAX), 1), (wait(QUEUE, i64::MIN), 2)]);
        assert_eq!(expired(&mut parked, 0), [2]);
        assert_eq!(parked.next_deadline_ms(), Some(HOLD_MS_MAX));
        parked.park(wait(QUEUE, 5), i64::MAX, 3).unwrap();
        assert_eq!(expired(&mut parked, i64::MAX), [1, 3]);
    }

    #[test]
    fn closed_connection_takes_its_pulls_along() {
        let other = Wait { connection: ConnectionId(2), ..wait(QUEUE, 9) };
        let mut parked = parked([(wait(QUEUE, 9), 1), (other, 2), (wait(QueueKey(1), 9), 3)]);
        assert_eq!(parked.on_connection_closed(CLIENT), [1, 3]);
        assert_eq!(parked.on_connection_closed(CLIENT), NONE);
        assert_eq!(woken_by(&mut parked, QUEUE, &[0]), [2]);
    }

    #[test]
    fn one_connection_cannot_take_every_place() {
        let mut parked = ParkedPulls::default();
        for pull in 0..PULLS_PARKED_MAX {
            let connection = ConnectionId((pull / PULLS_PARKED_PER_CONNECTION_MAX) as u64);
            let wait = Wait { connection, ..wait(QueueKey(pull as u64 % 100), 9) };
            parked.park(wait, 0, pull).unwrap();
            if pull + 1 == PULLS_PARKED_PER_CONNECTION_MAX {
                let refused = parked.park(Wait { connection, ..wait_any() }, 0, 77).unwrap_err();
                assert_eq!((refused.reason, refused.pull), (ParkRefusal::ConnectionFull, 77));
            }
        }
        let refused = parked.park(wait_any(), 0, 78).unwrap_err();
        assert_eq!((refused.reason, refused.pull), (ParkRefusal::ShardFull, 78));
        assert!(parked.poll_deadline(9).is_some());
        assert!(parked.park(Wait { connection: ConnectionId(99), ..wait_any() }, 0, 79).is_ok());
    }

    fn wait_any() -> Wait {
        wait(QUEUE, 9)
    }

    proptest! {
        /// Against a plain list of what is parked, searched from the front.
        #[test]
        fn every_pull_leaves_once_and_for_its_reason(
            steps in prop::collection::vec((0..6u8, 0..3u64, 0..3u64, 0..4i64), 0..80),
        ) {
            let mut parked = ParkedPulls::default();
            let mut model: Vec<(u64, u64, i64, usize)> = Vec::new();
            for (pull, (action, queue, connection, ms)) in steps.into_iter().enumerate() {
                let now_ms = pull as i64;
                match action {
                    0 => {
                        let mut woken = Vec::new();
                        parked.on_arrival(QueueKey(queue), [0], &mut woken);
                        let of_queue = model.extract_if(.., |entry| entry.0 == queue);
                        prop_assert_eq!(woken, of_queue.map(|entry| entry.3).collect::<Vec<_>>());
                    }
                    1 => {
                        let dropped = parked.on_connection_closed(ConnectionId(connection));
                        let of_connection = model.extract_if(.., |entry| entry.1 == connection);
                        prop_assert_eq!(dropped, of_connection.map(|entry| entry.3).collect::<Vec<_>>());
                    }
                    2 => {
                        let expired: Vec<_> = std::iter::from_fn(|| parked.poll_deadline(now_ms)).collect();
                        let mut due: Vec<_> = model.extract_if(.., |entry| entry.2 <= now_ms).collect();
                        due.sort_by_key(|entry| entry.2);
                        prop_assert_eq!(expired, due.into_iter().map(|entry| entry.3).collect::<Vec<_>>());
                    }
                    _ => {
                        let wait = Wait {
                            queue: QueueKey(queue),
                            connection: ConnectionId(connection),
                            filter: Filter::ALL,
                            hold_ms: ms,
                        };
                        parked.park(wait, now_ms, pull).unwrap();
                        model.push((queue, connection, now_ms + ms, pull));
                    }
                }
                prop_assert_eq!(parked.len(), model.len());
                prop_assert_eq!(parked.next_deadline_ms(), model.iter().map(|entry| entry.2).min());
                let queues: BTreeSet<_> = model.iter().map(|entry| entry.0).collect();
                let connections: BTreeSet<_> = model.iter().map(|entry| entry.1).collect();
                prop_assert_eq!(parked.by_queue.len(), queues.len());
                prop_assert_eq!(parked.by_connection.len(), connections.len());
            }
        }
    }
}
