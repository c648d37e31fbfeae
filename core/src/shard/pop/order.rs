//! What an ordered pop has given out of one queue (`ConsumerOrderInfoManager.OrderInfo`).
//!
//! The queue gives nothing more until each message is acknowledged or its time is up; then the group's offset, which
//! stands at the first that is not acknowledged, gives them again.

use std::fmt::Write as _;

use apogee_net::message::RetryKind;

/// The messages of the last ordered pop of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Whoever pops again under this id is given the same again, without waiting and without being counted.
    pub attempt_id: Option<Box<str>>,
    /// Names this pop in receipt handles.
    pub pop_ms: i64,
    pub messages: Vec<Ordered>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ordered {
    pub offset: u64,
    pub is_acked: bool,
    /// Until then the message stops the queue.
    pub visible_ms: i64,
    /// How often it was given out before.
    pub deliveries: u32,
}

impl Order {
    /// A pop that gives out `offsets`, after `before` was given out of the same queue.
    pub fn next(
        before: Option<&Order>,
        attempt_id: Option<&str>,
        (pop_ms, visible_ms): (i64, i64),
        offsets: &[u64],
    ) -> Self {
        let is_same_attempt = before.is_some_and(|before| before.is_attempt(attempt_id));
        let deliveries = |offset: u64| {
            let known = before?.messages.iter().find(|message| message.offset == offset)?;
            Some(if is_same_attempt { known.deliveries } else { known.deliveries + 1 })
        };
        let message = |&offset: &u64| Ordered {
            offset,
            is_acked: false,
            visible_ms,
            deliveries: deliveries(offset).unwrap_or(0),
        };
        Self {
            attempt_id: attempt_id.map(Into::into),
            pop_ms,
            messages: offsets.iter().map(message).collect(),
        }
    }

    fn is_attempt(&self, attempt_id: Option<&str>) -> bool {
        self.attempt_id.is_some() && self.attempt_id.as_deref() == attempt_id
    }

    /// Whether a pop has to wait.
    pub fn blocks(&self, attempt_id: Option<&str>, now_ms: i64) -> bool {
        !self.is_attempt(attempt_id) && self.free_ms().is_some_and(|free_ms| now_ms < free_ms)
    }

    /// When the last message that is not acknowledged becomes visible; `None` if all are acknowledged.
    pub fn free_ms(&self) -> Option<i64> {
        self.messages.iter().filter(|message| !message.is_acked).map(|message| message.visible_ms).max()
    }

    /// Where the group's offset belongs: the first message that is not acknowledged.
    pub fn next_offset(&self) -> u64 {
        let first = self.messages.iter().find(|message| !message.is_acked);
        let behind_last = self.messages.last().map_or(0, |last| last.offset + 1);
        first.map_or(behind_last, |first| first.offset)
    }

    pub fn message_mut(&mut self, offset: u64) -> Option<&mut Ordered> {
        self.messages.iter_mut().find(|message| message.offset == offset)
    }

    /// Writes how often each message was delivered before, and for old clients the least of it for the queue
    /// (`orderCountInfo`).
    pub fn write_counts(&self, queue_id: i32, out: &mut String) {
        let retry = RetryKind::Normal.letter();
        for Ordered { offset, deliveries, .. } in
            self.messages.iter().filter(|message| message.deliveries > 0)
        {
            separate(out);
            let _ = write!(out, "{retry} qo{queue_id}%{offset} {deliveries}");
        }
        let least = self.messages.iter().map(|message| message.deliveries).min().unwrap_or(0);
        separate(out);
        let _ = write!(out, "{retry} {queue_id} {least}");
    }
}

/// Entries of the lists in a pop's reply stand between semicolons.
pub(super) fn separate(list: &mut String) {
    if !list.is_empty() {
        list.push(';');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn popped(before: Option<&Order>, attempt_id: &str, pop_ms: i64, offsets: &[u64]) -> Order {
        Order::next(before, Some(attempt_id), (pop_ms, pop_ms + 10), offsets)
    }

    fn counts(order: &Order) -> String {
        let mut text = String::new();
        order.write_counts(3, &mut text);
        text
    }

    #[test]
    fn a_queue_is_blocked_until_all_are_acknowledged_or_visible() {
        let mut order = popped(None, "a", 100, &[5, 6]);
        assert!(order.blocks(Some("b"), 109) && order.blocks(None, 100));
        assert!(!order.blocks(Some("b"), 110));
        order.message_mut(6).unwrap().visible_ms = 200;
        assert!(order.blocks(Some("b"), 199));
        order.message_mut(6).unwrap().is_acked = true;
        assert!(!order.blocks(Some("b"), 110));
        assert_eq!((order.next_offset(), order.free_ms()), (5, Some(110)));
        order.message_mut(5).unwrap().is_acked = true;
        assert_eq!((order.next_offset(), order.free_ms()), (7, None));
        assert!(!order.blocks(Some("b"), 100));
    }

    #[test]
    fn the_same_attempt_is_given_the_same_and_not_counted() {
        let first = popped(None, "a", 100, &[5, 6]);
        assert!(!first.blocks(Some("a"), 101));
        let again = popped(Some(&first), "a", 101, &[5, 6]);
        assert_eq!(counts(&again), "0 3 0");
        let without = Order::next(None, None, (1, 2), &[5]);
        assert!(without.blocks(None, 1), "no id is no attempt");
    }

    #[test]
    fn deliveries_before_are_counted_per_message_and_for_the_queue() {
        let first = popped(None, "a", 100, &[5, 6]);
        assert_eq!(counts(&first), "0 3 0");
        let second = popped(Some(&first), "b", 120, &[5, 6]);
        assert_eq!(counts(&second), "0 qo3%5 1;0 qo3%6 1;0 3 1");
        let third = popped(Some(&second), "c", 140, &[6, 7]);
        assert_eq!(counts(&third), "0 qo3%6 2;0 3 0");
    }
}
