//! Queue locks of ordered consumers: which client of a group may consume a queue now.
//!
//! Rules of RocketMQ's `RebalanceLockManager`: a lock belongs to (group, queue, client), its client renews it every
//! 20 s and stops consuming 30 s after the last success; another client gets it after an unlock, or [`LOCK_MS_MAX`]
//! after the last renewal. Locks are this broker's own, live in memory only and are lost with a restart: the
//! holder's next renewal takes them again.
//!
//! Times must not go backwards from call to call: give milliseconds of a monotonic clock.

use std::collections::BTreeMap;
use std::ops::Bound;

use apogee_storage::QueueKey;

/// Life of a lock that is not renewed (`rocketmq.broker.rebalance.lockMaxLiveTime`). Longer than the 30 s after
/// which its client stops consuming by itself, so that two clients never consume at once.
pub const LOCK_MS_MAX: i64 = 60_000;

/// Locks of one shard, expired ones included until [`LockTable::expire`]. At the limit a queue that is not yet in the
/// table is not locked, which its client takes as "somebody else has it" and asks again.
pub const LOCKS_MAX: usize = 262_144;

/// Locks that one [`LockTable::expire`] looks at: some 50 µs.
const EXAMINED_PER_CALL: usize = 1024;

#[derive(Debug)]
struct Lock {
    client_id: Box<str>,
    renewed_ms: i64,
}

impl Lock {
    fn is_expired(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.renewed_ms) > LOCK_MS_MAX
    }
}

/// A group without locks has no entry. In order, so that expired ones can be looked for little by little.
#[derive(Debug, Default)]
pub struct LockTable {
    groups: BTreeMap<Box<str>, BTreeMap<QueueKey, Lock>>,
    len: usize,
    /// Where the next look for expired locks begins; none at the first one.
    next: Option<(Box<str>, Bound<QueueKey>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockAnswer {
    /// Held by the asking client now, newly or still.
    Held,
    /// Another client holds it.
    Taken,
    /// [`LOCKS_MAX`] reached.
    TableFull,
}

impl LockTable {
    /// Takes or renews the lock of `queue` for `client_id`.
    pub fn lock(&mut self, group: &str, queue: QueueKey, client_id: &str, now_ms: i64) -> LockAnswer {
        if let Some(lock) = self.groups.get_mut(group).and_then(|locks| locks.get_mut(&queue)) {
            if *lock.client_id != *client_id {
                if !lock.is_expired(now_ms) {
                    return LockAnswer::Taken;
                }
                lock.client_id = client_id.into();
            }
            lock.renewed_ms = now_ms;
            return LockAnswer::Held;
        }

        if self.len >= LOCKS_MAX {
            return LockAnswer::TableFull;
        }
        let lock = Lock { client_id: client_id.into(), renewed_ms: now_ms };
        self.groups.entry(group.into()).or_default().insert(queue, lock);
        self.len += 1;
        LockAnswer::Held
    }

    /// Gives the lock of `queue` back; nothing happens if `client_id` does not hold it.
    pub fn unlock(&mut self, group: &str, queue: QueueKey, client_id: &str) {
        let Some(locks) = self.groups.get_mut(group) else { return };
        if locks.get(&queue).is_some_and(|lock| *lock.client_id == *client_id) {
            locks.remove(&queue);
            self.len -= 1;
            if locks.is_empty() {
                self.groups.remove(group);
            }
        }
    }

    /// Whether the group holds a lock that is alive, i.e. consumes in order. A message that such a group sends to
    /// its retry topic goes to its dead letters at once (`SendMessageProcessor#handleRetryAndDLQ`).
    pub fn is_group_ordered(&self, group: &str, now_ms: i64) -> bool {
        self.groups.get(group).is_some_and(|locks| locks.values().any(|lock| !lock.is_expired(now_ms)))
    }

    /// Forgets expired locks, looking at some more of them at each call. True when all were looked at. They bind nobody:
    /// this only frees memory.
    pub fn expire(&mut self, now_ms: i64) -> bool {
        let first = || self.groups.keys().next().map(|group| (group.clone(), Bound::Unbounded));
        let Some((mut group, mut from)) = self.next.take().or_else(first) else { return true };
        let mut left = EXAMINED_PER_CALL;
        loop {
            from = self.expire_in(&group, from, &mut left, now_ms);
            if left == 0 {
                self.next = Some((group, from));
                return false;
            }
            match self.groups.range::<str, _>((Bound::Excluded(&*group), Bound::Unbounded)).next() {
                Some((next, _)) => (group, from) = (next.clone(), Bound::Unbounded),
                None => return true,
            }
        }
    }

    /// Looks at locks of one group while any are left to be looked at, and says behind which it stopped.
    fn expire_in(
        &mut self,
        group: &str,
        from: Bound<QueueKey>,
        left: &mut usize,
        now_ms: i64,
    ) -> Bound<QueueKey> {
        let Some(locks) = self.groups.get_mut(group) else { return from };
        let mut stopped = from;
        let mut expired = Vec::new();
        for (queue, lock) in locks.range((from, Bound::Unbounded)).take(*left) {
            *left -= 1;
            stopped = Bound::Excluded(*queue);
            expired.extend(lock.is_expired(now_ms).then_some(*queue));
        }
        self.len -= expired.len();
        for queue in expired {
            locks.remove(&queue);
        }
        if locks.is_empty() {
            self.groups.remove(group);
        }
        stopped
    }

    /// Locks in the table, expired ones included.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: QueueKey = QueueKey(7 << 32 | 1);

    #[test]
    fn one_client_at_a_time() {
        let mut locks = LockTable::default();
        assert_eq!(locks.lock("g", QUEUE, "a", 0), LockAnswer::Held);
        assert_eq!(locks.lock("g", QUEUE, "b", 1), LockAnswer::Taken);
        assert_eq!(locks.lock("g", QUEUE, "a", 2), LockAnswer::Held);
        assert_eq!(locks.lock("other", QUEUE, "b", 3), LockAnswer::Held, "locks are per group");
        assert_eq!(locks.len(), 2);
    }

    #[test]
    fn lock_passes_on_after_unlock_by_its_holder_only() {
        let mut locks = LockTable::default();
        locks.lock("g", QUEUE, "a", 0);
        locks.unlock("g", QUEUE, "b");
        assert_eq!(locks.lock("g", QUEUE, "b", 1), LockAnswer::Taken);
        locks.unlock("g", QUEUE, "a");
        assert!(locks.is_empty());
        assert_eq!(locks.lock("g", QUEUE, "b", 2), LockAnswer::Held);
    }

    #[test]
    fn lock_passes_on_60_s_after_the_last_renewal() {
        let mut locks = LockTable::default();
        locks.lock("g", QUEUE, "a", 0);
        locks.lock("g", QUEUE, "a", 20_000);
        assert_eq!(locks.lock("g", QUEUE, "b", 20_000 + LOCK_MS_MAX), LockAnswer::Taken);
        assert_eq!(locks.lock("g", QUEUE, "b", 20_001 + LOCK_MS_MAX), LockAnswer::Held);
        assert_eq!(locks.lock("g", QUEUE, "a", 20_002 + LOCK_MS_MAX), LockAnswer::Taken);
        assert_eq!(locks.len(), 1);
    }

    #[test]
    fn group_is_ordered_while_one_lock_lives() {
        let mut locks = LockTable::default();
        assert!(!locks.is_group_ordered("g", 0));
        locks.lock("g", QUEUE, "a", 0);
        locks.lock("g", QueueKey(1), "a", 30_000);
        assert!(locks.is_group_ordered("g", 30_000 + LOCK_MS_MAX));
        assert!(!locks.is_group_ordered("g", 30_001 + LOCK_MS_MAX));
    }

    #[test]
    fn expire_frees_dead_locks_and_keeps_the_others() {
        let mut locks = LockTable::default();
        locks.lock("g", QueueKey(1), "a", 0);
        locks.lock("g", QueueKey(2), "a", 1);
        locks.lock("dead", QueueKey(1), "a", 0);
        locks.expire(LOCK_MS_MAX + 1);
        assert_eq!(locks.len(), 1);
        assert_eq!(locks.lock("g", QueueKey(2), "b", LOCK_MS_MAX + 1), LockAnswer::Taken);
    }

    #[test]
    fn many_locks_are_looked_at_little_by_little() {
        let mut locks = LockTable::default();
        let (groups, queues) = (3, 2 * EXAMINED_PER_CALL as u64);
        for queue in 0..queues {
            for group in 0..groups {
                let renewed_ms = if queue % 2 == 0 { 0 } else { LOCK_MS_MAX };
                locks.lock(&format!("g{group}"), QueueKey(queue), "a", renewed_ms);
            }
        }
        let all = locks.len();
        for call in 1..=6 {
            locks.expire(LOCK_MS_MAX + 1);
            assert_eq!(locks.len(), all - call * EXAMINED_PER_CALL / 2);
        }
        locks.expire(LOCK_MS_MAX + 1);
        assert_eq!(locks.len(), all / 2, "a new round finds nothing");
        for _ in 0..10 {
            locks.expire(2 * LOCK_MS_MAX + 1);
        }
        assert!(locks.is_empty() && locks.groups.is_empty());
    }

    #[test]
    fn full_table_refuses_new_locks_and_renews_old_ones() {
        let mut locks = LockTable { len: LOCKS_MAX - 1, ..LockTable::default() };
        assert_eq!(locks.lock("g", QueueKey(0), "a", 0), LockAnswer::Held);
        assert_eq!(locks.lock("g", QueueKey(u64::MAX - 1), "a", 0), LockAnswer::TableFull);
        assert_eq!(locks.lock("g", QueueKey(0), "a", 1), LockAnswer::Held);
        locks.unlock("g", QueueKey(0), "a");
        assert_eq!(locks.lock("g", QueueKey(u64::MAX - 1), "a", 2), LockAnswer::Held);
    }
}
