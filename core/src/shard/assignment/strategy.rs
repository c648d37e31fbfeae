//! How the queues of a topic are shared out among the members of a group.
//!
//! As clients do it themselves (`AllocateMessageQueueAveragely`, `AllocateMessageQueueAveragelyByCircle`), and for pops
//! so that several share a queue (`QueryAssignmentProcessor#allocate4Pop`).

use apogee_net::body::MessageQueue;

/// The strategies that brokers know by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) enum Strategy {
    /// Neighbouring queues.
    Average,
    /// By turns.
    AverageByCircle,
}

impl Strategy {
    pub(in crate::shard) fn of_name(name: &str) -> Option<Self> {
        match name {
            "AVG" => Some(Self::Average),
            "AVG_BY_CIRCLE" => Some(Self::AverageByCircle),
            _ => None,
        }
    }

    /// The queues, of so many, that member `nth` of so many gets.
    fn share(self, queues: usize, nth: usize, members: usize) -> Vec<usize> {
        match self {
            Strategy::Average => {
                let (each, more) = (queues / members, queues % members);
                let begin = nth * each + nth.min(more);
                (begin..begin + each + usize::from(nth < more)).collect()
            }
            Strategy::AverageByCircle => (nth..queues).step_by(members).collect(),
        }
    }
}

/// The clients of a group in their order, and the one that asks.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Members {
    pub count: usize,
    /// `None`: the client is no member, and gets nothing.
    pub nth: Option<usize>,
}

impl Members {
    /// `queues` in their order; each is pulled by one member.
    pub(in crate::shard) fn pull(self, strategy: Strategy, queues: &[MessageQueue]) -> Vec<MessageQueue> {
        let share = self.nth.map(|nth| strategy.share(queues.len(), nth, self.count)).unwrap_or_default();
        share.into_iter().map(|nth| queues[nth].clone()).collect()
    }

    /// Each member also gets the queues of the `shared` members that follow it; every member gets all queues of all
    /// brokers, as one each, when so many are to share that all do.
    pub(in crate::shard) fn pop(
        self,
        strategy: Strategy,
        queues: &[MessageQueue],
        shared: i32,
    ) -> Vec<MessageQueue> {
        let mut assigned: Vec<MessageQueue> = match usize::try_from(shared) {
            Ok(shared @ 1..) if shared + 1 < self.count => {
                let Some(nth) = self.nth else { return Vec::new() };
                if self.count <= queues.len() {
                    let members = (nth..=nth + shared).map(|nth| nth % self.count);
                    let shares = members.flat_map(|nth| strategy.share(queues.len(), nth, self.count));
                    shares.map(|nth| queues[nth].clone()).collect()
                } else {
                    vec![queues[nth % queues.len()].clone()]
                }
            }
            _ => queues.iter().map(|queue| MessageQueue { queue_id: -1, ..queue.clone() }).collect(),
        };
        assigned.sort_unstable();
        assigned.dedup();
        assigned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(count: i32) -> Vec<MessageQueue> {
        let queue = |nth| MessageQueue {
            topic: "T".into(),
            broker_name: if nth < count / 2 { "a".into() } else { "b".into() },
            queue_id: nth,
        };
        (0..count).map(queue).collect()
    }

    fn ids(queues: Vec<MessageQueue>) -> Vec<i32> {
        queues.into_iter().map(|queue| queue.queue_id).collect()
    }

    fn member(nth: usize, count: usize) -> Members {
        Members { count, nth: Some(nth) }
    }

    #[test]
    fn averages_are_those_of_the_java_client() {
        let pulled = |strategy, nth| ids(member(nth, 3).pull(strategy, &queues(8)));
        assert_eq!(pulled(Strategy::Average, 0), [0, 1, 2]);
        assert_eq!(pulled(Strategy::Average, 1), [3, 4, 5]);
        assert_eq!(pulled(Strategy::Average, 2), [6, 7]);
        assert_eq!(pulled(Strategy::AverageByCircle, 1), [1, 4, 7]);
        assert!(ids(member(4, 5).pull(Strategy::Average, &queues(3))).is_empty());
        assert!(ids(Members { count: 2, nth: None }.pull(Strategy::Average, &queues(3))).is_empty());
    }

    #[test]
    fn all_pop_from_all_brokers_unless_few_share() {
        let popped = |nth, count, shared| member(nth, count).pop(Strategy::Average, &queues(4), shared);
        for shared in [-1, 0, 1, 9] {
            let all = popped(0, 2, shared);
            let brokers: Vec<_> =
                all.iter().map(|queue| (queue.broker_name.as_str(), queue.queue_id)).collect();
            assert_eq!(brokers, [("a", -1), ("b", -1)], "{shared}");
        }
        assert_eq!(ids(popped(0, 4, 1)), [0, 1]);
        assert_eq!(ids(popped(3, 4, 2)), [0, 1, 3]);
        assert_eq!(ids(popped(5, 6, 1)), [1], "more members than queues");
    }

    #[test]
    fn every_queue_is_pulled_by_exactly_one_member() {
        for (count, members) in [(1, 1), (7, 3), (3, 7), (64, 10), (0, 2)] {
            for strategy in [Strategy::Average, Strategy::AverageByCircle] {
                let mut all: Vec<_> = (0..members)
                    .flat_map(|nth| ids(member(nth, members).pull(strategy, &queues(count))))
                    .collect();
                all.sort_unstable();
                assert_eq!(all, (0..count).collect::<Vec<_>>(), "{count} among {members}");
            }
        }
    }
}
