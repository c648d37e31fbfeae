//! Messages that were popped and are not acknowledged: check points, and what ordered pops gave out.
//!
//! Every change is a [`PopRecord`]: the method that makes it applies it at once and returns it to be logged, and
//! `apply` repeats it from the log. The group's offset in each queue stands in the offset table; the records that
//! move it say so ([`PopRecord::moved_offsets`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apogee_storage::QueueKey;
use rustc_hash::FxHashMap;

use super::super::control::ControlRecord;
use super::super::topics::TopicNumber;
use super::order::Order;
use super::record::{CheckPointId, HeldCheckPoint, PopRecord, PoppedQueue};

/// Check points of one shard, each of up to 32 messages. At the limit pops find nothing.
pub const CHECK_POINTS_MAX: usize = 1 << 18;

/// Check points of one group in one queue (RocketMQ's `popInflightMessageThreshold` counts messages). At the limit
/// pops find nothing in this queue.
pub const CHECK_POINTS_PER_QUEUE_MAX: usize = 1 << 14;

/// Queues of which ordered pops gave out messages that are not all acknowledged. At the limit ordered pops find
/// nothing in further queues.
pub const ORDERS_MAX: usize = 1 << 16;

/// Check points in one record of a snapshot: some 30 KiB.
const HELD_PER_RECORD: usize = 256;

/// A group without entries has none here, nor has a queue.
#[derive(Debug, Default, PartialEq)]
pub struct PopTable {
    groups: FxHashMap<Arc<str>, BTreeMap<QueueKey, OfQueue>>,
    check_points: usize,
    orders: usize,
    /// What is to be looked at when; may name what is gone.
    by_due: BTreeSet<Due>,
}

#[derive(Debug, Default, PartialEq)]
struct OfQueue {
    check_points: BTreeMap<CheckPointId, CheckPoint>,
    order: Option<Order>,
}

#[derive(Debug, PartialEq)]
struct CheckPoint {
    pop_ms: i64,
    /// Offsets that are not acknowledged, ascending; never empty.
    pending: Vec<u64>,
    /// What is pending is on its way into the retry topic.
    is_staged: bool,
}

/// Something of a group in a queue falls due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    pub at_ms: i64,
    pub group: Arc<str>,
    pub queue: QueueKey,
    /// The check point; `None`: an ordered queue gives messages again.
    pub check_point: Option<CheckPointId>,
}

/// A check point whose time is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    pub group: Arc<str>,
    pub queue: QueueKey,
    pub id: CheckPointId,
}

impl PopTable {
    /// Whether a pop may give out messages of this queue, as far as this table is concerned.
    pub fn has_room(&self, group: &str, queue: QueueKey) -> bool {
        let of_queue = self.of_queue(group, queue).map_or(0, |of_queue| of_queue.check_points.len());
        self.check_points < CHECK_POINTS_MAX && of_queue < CHECK_POINTS_PER_QUEUE_MAX
    }

    /// Whether an ordered pop may; `is_blocked` tells about time.
    pub fn has_room_for_order(&self, group: &str, queue: QueueKey) -> bool {
        self.orders < ORDERS_MAX || self.order(group, queue).is_some()
    }

    /// What the last ordered pop gave out of a queue, unless all of it is acknowledged.
    pub fn order(&self, group: &str, queue: QueueKey) -> Option<&Order> {
        self.of_queue(group, queue)?.order.as_ref()
    }

    pub fn is_blocked(&self, group: &str, queue: QueueKey, attempt_id: Option<&str>, now_ms: i64) -> bool {
        self.order(group, queue).is_some_and(|order| order.blocks(attempt_id, now_ms))
    }

    /// Messages were given out.
    pub fn pop(&mut self, group: &str, pop_ms: i64, due_ms: i64, queues: Vec<PoppedQueue>) -> ControlRecord {
        self.make(PopRecord::Popped { group: group.to_owned(), pop_ms, due_ms, queues })
    }

    /// Messages of an ordered pop were given out.
    pub fn pop_ordered(&mut self, group: &str, queue: QueueKey, next: u64, order: Order) -> ControlRecord {
        self.make(PopRecord::Ordered { group: group.to_owned(), queue, next, order })
    }

    /// Messages are consumed. Also recorded if nobody knows them: whoever repeats an acknowledgement must not be
    /// answered before the first is durable.
    pub fn ack(
        &mut self,
        group: &str,
        queue: QueueKey,
        check_point: CheckPointId,
        offsets: Vec<u64>,
    ) -> ControlRecord {
        self.make(PopRecord::Acked { group: group.to_owned(), queue, check_point, offsets })
    }

    /// The offsets of a check point that are not acknowledged.
    pub fn pending(&self, group: &str, queue: QueueKey, id: CheckPointId) -> &[u64] {
        let check_point = self.of_queue(group, queue).and_then(|of_queue| of_queue.check_points.get(&id));
        check_point.map_or(&[], |check_point| &check_point.pending)
    }

    /// When the check point's messages were popped.
    pub fn pop_ms(&self, group: &str, queue: QueueKey, id: CheckPointId) -> Option<i64> {
        Some(self.of_queue(group, queue)?.check_points.get(&id)?.pop_ms)
    }

    /// Gives one message another time to come again; `None` if it is acknowledged, or comes again already.
    pub fn change_invisible(
        &mut self,
        group: &str,
        queue: QueueKey,
        id: CheckPointId,
        offset: u64,
        (pop_ms, due_ms): (i64, i64),
    ) -> Option<ControlRecord> {
        let check_point = self.of_queue(group, queue)?.check_points.get(&id)?;
        let is_known = !check_point.is_staged && check_point.pending.binary_search(&offset).is_ok();
        let group = group.to_owned();
        is_known
            .then(|| self.make(PopRecord::Changed { group, queue, check_point: id, offset, pop_ms, due_ms }))
    }

    /// Messages of an ordered pop are consumed; `None` if they were not given out by that pop, or are acknowledged.
    pub fn ack_ordered(
        &mut self,
        group: &str,
        queue: QueueKey,
        pop_ms: i64,
        is_acked: impl Fn(u64) -> bool,
    ) -> Option<ControlRecord> {
        let mut after = self.order(group, queue).filter(|order| order.pop_ms == pop_ms)?.clone();
        let mut offsets = Vec::new();
        for message in
            after.messages.iter_mut().filter(|message| !message.is_acked && is_acked(message.offset))
        {
            message.is_acked = true;
            offsets.push(message.offset);
        }
        let next = after.next_offset();
        let group = group.to_owned();
        (!offsets.is_empty())
            .then(|| self.make(PopRecord::OrderAcked { group, queue, pop_ms, offsets, next }))
    }

    /// Has a message of an ordered pop stop its queue until another time.
    pub fn delay_ordered(
        &mut self,
        group: &str,
        queue: QueueKey,
        pop_ms: i64,
        offset: u64,
        visible_ms: i64,
    ) -> Option<ControlRecord> {
        let order = self.order(group, queue).filter(|order| order.pop_ms == pop_ms)?;
        order.messages.iter().find(|message| message.offset == offset)?;
        let group = group.to_owned();
        Some(self.make(PopRecord::OrderDelayed { group, queue, pop_ms, offset, visible_ms }))
    }

    /// To be called when the group's offset is set: what was given out in order before stops the queue no more.
    pub fn clear_order(&mut self, group: &str, queue: QueueKey) -> Option<ControlRecord> {
        self.order(group, queue)?;
        Some(self.make(PopRecord::OrderCleared { group: group.to_owned(), queue }))
    }

    /// When [`poll_due`](Self::poll_due) will have something next.
    pub fn next_due_ms(&self) -> Option<i64> {
        self.by_due.first().map(|due| due.at_ms)
    }

    /// What falls due first, if anything has; to be called until it returns `None`. A check point is handed out once:
    /// to have it again, [`retry_at`](Self::retry_at).
    pub fn poll_due(&mut self, now_ms: i64) -> Option<Due> {
        (self.by_due.first()?.at_ms <= now_ms).then(|| self.by_due.pop_first())?
    }

    /// The check point could not be revived now.
    pub fn retry_at(&mut self, expired: Expired, at_ms: i64) {
        let Expired { group, queue, id } = expired;
        if let Some(check_point) = self.check_point_mut(&group, queue, id) {
            check_point.is_staged = false;
            self.by_due.insert(Due { at_ms, group, queue, check_point: Some(id) });
        }
    }

    /// Everything falls due by what is logged: nothing is on its way to where it comes again.
    pub fn rearm(&mut self) {
        self.by_due.clear();
        for (group, queues) in &mut self.groups {
            for (&queue, of_queue) in queues {
                let due = |at_ms, check_point| Due { at_ms, group: group.clone(), queue, check_point };
                for (id, point) in &mut of_queue.check_points {
                    point.is_staged = false;
                    self.by_due.insert(due(id.due_ms, Some(*id)));
                }
                if let Some(free_ms) = of_queue.order.as_ref().and_then(Order::free_ms) {
                    self.by_due.insert(due(free_ms, None));
                }
            }
        }
    }

    /// What is pending is staged for the retry topic: the time to change it is over.
    pub fn mark_staged(&mut self, expired: &Expired) {
        if let Some(check_point) = self.check_point_mut(&expired.group, expired.queue, expired.id) {
            check_point.is_staged = true;
        }
    }

    pub fn check_points(&self) -> usize {
        self.check_points
    }

    /// Messages of a group in a queue that are given out and not acknowledged.
    pub fn in_flight(&self, group: &str, queue: QueueKey) -> usize {
        let of_queue = self.of_queue(group, queue);
        of_queue.map_or(0, |of_queue| of_queue.check_points.values().map(|point| point.pending.len()).sum())
    }

    /// Records that rebuild the whole table, for a snapshot, in the order of groups and queues.
    pub fn snapshot(&self) -> impl Iterator<Item = ControlRecord> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_unstable_by_key(|(name, _)| *name);
        groups.into_iter().flat_map(|(group, queues)| {
            queues.iter().flat_map(move |(&queue, of_queue)| {
                let held: Vec<_> = of_queue.check_points.iter().collect();
                let held: Vec<_> = held
                    .chunks(HELD_PER_RECORD)
                    .map(|chunk| PopRecord::Held {
                        group: group.to_string(),
                        queue,
                        check_points: chunk.iter().map(|(id, point)| point.held(**id)).collect(),
                    })
                    .collect();
                let order = of_queue.order.iter().map(move |order| PopRecord::OrderHeld {
                    group: group.to_string(),
                    queue,
                    order: order.clone(),
                });
                held.into_iter().chain(order).map(ControlRecord::Pop)
            })
        })
    }

    /// Repeats a logged change, or a record of a snapshot.
    pub fn apply(&mut self, record: &ControlRecord) {
        match record {
            ControlRecord::Pop(change) => self.apply_change(change),
            ControlRecord::TopicDelete { number, .. } => self.remove_topic(*number),
            ControlRecord::GroupDelete { group, .. } => self.remove_group(group),
            // Every other kind is of another table.
            _ => {}
        }
    }

    /// Forgets a group. Logged as [`ControlRecord::GroupDelete`], not here.
    pub fn remove_group(&mut self, group: &str) {
        let Some((group, queues)) = self.groups.remove_entry(group) else { return };
        for (queue, of_queue) in queues {
            self.forget(&group, queue, of_queue);
        }
    }

    /// Forgets what was given out of a topic. Logged as [`ControlRecord::TopicDelete`], not here. Looks at every group.
    pub fn remove_topic(&mut self, topic: TopicNumber) {
        let mut removed = Vec::new();
        self.groups.retain(|group, queues| {
            let of_topic = queues.extract_if(topic.queues(), |_, _| true);
            removed.extend(of_topic.map(|(queue, of_queue)| (group.clone(), queue, of_queue)));
            !queues.is_empty()
        });
        for (group, queue, of_queue) in removed {
            self.forget(&group, queue, of_queue);
        }
    }

    fn forget(&mut self, group: &Arc<str>, queue: QueueKey, of_queue: OfQueue) {
        self.check_points -= of_queue.check_points.len();
        self.orders -= usize::from(of_queue.order.is_some());
        let free_ms = of_queue.order.and_then(|order| order.free_ms()).map(|free_ms| (free_ms, None));
        let check_points = of_queue.check_points.into_keys().map(|id| (id.due_ms, Some(id)));
        for (at_ms, check_point) in check_points.chain(free_ms) {
            self.by_due.remove(&Due { at_ms, group: group.clone(), queue, check_point });
        }
    }

    fn make(&mut self, change: PopRecord) -> ControlRecord {
        self.apply_change(&change);
        ControlRecord::Pop(change)
    }

    fn apply_change(&mut self, change: &PopRecord) {
        match change {
            PopRecord::Popped { group, pop_ms, due_ms, queues } => {
                for PoppedQueue { queue, start, next: _, offsets } in queues {
                    let id = CheckPointId { start: *start, due_ms: *due_ms };
                    self.put(group, *queue, id, *pop_ms, offsets);
                }
            }
            PopRecord::Acked { group, queue, check_point, offsets } => {
                self.take(group, *queue, *check_point, offsets);
            }
            PopRecord::Changed { group, queue, check_point, offset, pop_ms, due_ms } => {
                self.take(group, *queue, *check_point, &[*offset]);
                let id = CheckPointId { start: *offset, due_ms: *due_ms };
                self.put(group, *queue, id, *pop_ms, &[*offset]);
            }
            PopRecord::Ordered { group, queue, next: _, order }
            | PopRecord::OrderHeld { group, queue, order } => {
                self.set_order(group, *queue, Some(order.clone()));
            }
            PopRecord::OrderAcked { group, queue, pop_ms, offsets, next: _ } => {
                self.update_order(group, *queue, *pop_ms, |order| {
                    for message in &mut order.messages {
                        message.is_acked |= offsets.binary_search(&message.offset).is_ok();
                    }
                });
            }
            PopRecord::OrderDelayed { group, queue, pop_ms, offset, visible_ms } => {
                self.update_order(group, *queue, *pop_ms, |order| {
                    if let Some(message) = order.message_mut(*offset) {
                        message.visible_ms = *visible_ms;
                    }
                });
            }
            PopRecord::OrderCleared { group, queue } => self.set_order(group, *queue, None),
            PopRecord::Held { group, queue, check_points } => {
                for HeldCheckPoint { id, pop_ms, pending } in check_points {
                    self.put(group, *queue, *id, *pop_ms, pending);
                }
            }
        }
    }

    /// Two pops in the same millisecond from the same place, with the offset set back in between, are one check point.
    fn put(&mut self, group: &str, queue: QueueKey, id: CheckPointId, pop_ms: i64, offsets: &[u64]) {
        if offsets.is_empty() {
            return;
        }
        let (group, of_queue) = self.of_queue_mut(group, queue);
        match of_queue.check_points.get_mut(&id) {
            Some(known) => {
                known.pending.extend_from_slice(offsets);
                known.pending.sort_unstable();
                known.pending.dedup();
            }
            None => {
                let check_point = CheckPoint { pop_ms, pending: offsets.to_vec(), is_staged: false };
                of_queue.check_points.insert(id, check_point);
                self.check_points += 1;
                self.by_due.insert(Due { at_ms: id.due_ms, group, queue, check_point: Some(id) });
            }
        }
    }

    fn take(&mut self, group: &str, queue: QueueKey, id: CheckPointId, offsets: &[u64]) {
        let Some((name, _)) = self.groups.get_key_value(group) else { return };
        let name = name.clone();
        let Some(check_point) = self.check_point_mut(group, queue, id) else { return };
        check_point.pending.retain(|offset| offsets.binary_search(offset).is_err());
        if check_point.pending.is_empty() {
            let of_queue = self.of_queue_mut(group, queue).1;
            of_queue.check_points.remove(&id);
            self.check_points -= 1;
            self.by_due.remove(&Due { at_ms: id.due_ms, group: name, queue, check_point: Some(id) });
            self.remove_if_empty(group, queue);
        }
    }

    fn update_order(&mut self, group: &str, queue: QueueKey, pop_ms: i64, update: impl FnOnce(&mut Order)) {
        let Some(order) = self.order(group, queue).filter(|order| order.pop_ms == pop_ms) else { return };
        let mut order = order.clone();
        update(&mut order);
        let is_open = order.free_ms().is_some();
        self.set_order(group, queue, is_open.then_some(order));
    }

    fn set_order(&mut self, group: &str, queue: QueueKey, order: Option<Order>) {
        let free_ms = order.as_ref().and_then(Order::free_ms);
        let (is_set, (group, of_queue)) = (order.is_some(), self.of_queue_mut(group, queue));
        let before = std::mem::replace(&mut of_queue.order, order);
        self.orders = self.orders + usize::from(is_set) - usize::from(before.is_some());
        let due = |at_ms| Due { at_ms, group: group.clone(), queue, check_point: None };
        if let Some(before_ms) = before.and_then(|before| before.free_ms()) {
            self.by_due.remove(&due(before_ms));
        }
        if let Some(free_ms) = free_ms {
            self.by_due.insert(due(free_ms));
        }
        self.remove_if_empty(&group, queue);
    }

    fn of_queue(&self, group: &str, queue: QueueKey) -> Option<&OfQueue> {
        self.groups.get(group)?.get(&queue)
    }

    fn check_point_mut(&mut self, group: &str, queue: QueueKey, id: CheckPointId) -> Option<&mut CheckPoint> {
        self.groups.get_mut(group)?.get_mut(&queue)?.check_points.get_mut(&id)
    }

    /// Made if it is not there; the group's name as it is shared.
    fn of_queue_mut(&mut self, group: &str, queue: QueueKey) -> (Arc<str>, &mut OfQueue) {
        let name = match self.groups.get_key_value(group) {
            Some((name, _)) => name.clone(),
            None => Arc::from(group),
        };
        let of_group = self.groups.entry(name.clone()).or_default();
        (name, of_group.entry(queue).or_default())
    }

    fn remove_if_empty(&mut self, group: &str, queue: QueueKey) {
        let Some(of_group) = self.groups.get_mut(group) else { return };
        if of_group
            .get(&queue)
            .is_some_and(|of_queue| of_queue.check_points.is_empty() && of_queue.order.is_none())
        {
            of_group.remove(&queue);
        }
        if of_group.is_empty() {
            self.groups.remove(group);
        }
    }
}

impl CheckPoint {
    fn held(&self, id: CheckPointId) -> HeldCheckPoint {
        HeldCheckPoint { id, pop_ms: self.pop_ms, pending: self.pending.clone() }
    }
}
