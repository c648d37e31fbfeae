//! What was measured of each consumer of the scenario, beside the figures of the whole run.

use crate::clock::RunTime;
use crate::content::Group;
use crate::latency::Latency;
use crate::ledger::LedgerTotals;

/// What one consumer of the scenario, that is a group or several alike, was given.
#[derive(Clone, Debug, Default)]
pub struct ConsumerMeasurements {
    /// As the run's own, but of these groups only. Empty if there is no other consumer: it would be the same.
    pub end_to_end: Latency,
    /// Most messages that a queue was ahead of one of the groups.
    pub lag_max: u64,
    pub catch_up: CatchUp,
    /// Each group's name and books.
    pub groups: Vec<(String, LedgerTotals)>,
}

/// From the first request of a group's readers until each of them had reached the end of its queue once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CatchUp {
    /// Queues that were read to their end.
    pub queues: u64,
    /// What was read until then.
    pub messages: u64,
    pub began: RunTime,
    pub ended: RunTime,
}

impl CatchUp {
    pub fn add(&mut self, other: &CatchUp) {
        if other.queues == 0 {
            return;
        }
        self.began = if self.queues == 0 { other.began } else { self.began.min(other.began) };
        self.ended = self.ended.max(other.ended);
        self.queues += other.queues;
        self.messages += other.messages;
    }

    /// Messages per second, if it lasted any time.
    pub fn per_s(&self) -> Option<f64> {
        let seconds = self.ended.since(self.began).as_secs_f64();
        (seconds > 0.0).then(|| self.messages as f64 / seconds)
    }
}

/// Books with nothing in them, one for each consumer that `groups` belong to.
pub(super) fn empty(groups: &[Group]) -> Vec<ConsumerMeasurements> {
    let consumers = groups.iter().map(|group| group.consumer + 1).max().unwrap_or(0);
    vec![ConsumerMeasurements::default(); consumers]
}

/// Adds what another thread measured of the same consumers; nothing may have been measured so far.
pub(super) fn merge(sum: &mut Vec<ConsumerMeasurements>, other: &[ConsumerMeasurements]) {
    if sum.is_empty() {
        sum.extend_from_slice(other);
        return;
    }
    for (sum, other) in sum.iter_mut().zip(other) {
        sum.end_to_end.merge(&other.end_to_end);
        sum.lag_max = sum.lag_max.max(other.lag_max);
        sum.catch_up.add(&other.catch_up);
        for ((_, sum), (_, other)) in sum.groups.iter_mut().zip(&other.groups) {
            sum.add(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> RunTime {
        RunTime::after_start(Duration::from_secs(seconds))
    }

    #[test]
    fn catching_up_ends_with_the_slowest_queue() {
        let mut sum = CatchUp::default();
        sum.add(&CatchUp { queues: 1, messages: 100, began: at(2), ended: at(4) });
        sum.add(&CatchUp { queues: 1, messages: 500, began: at(1), ended: at(5) });
        sum.add(&CatchUp::default());
        assert_eq!((sum.queues, sum.messages, sum.per_s()), (2, 600, Some(150.0)));
        assert_eq!(CatchUp::default().per_s(), None);
    }
}
