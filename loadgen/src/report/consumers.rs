//! What each consumer of the scenario was given.

use serde::{Deserialize, Serialize};

use super::tenth;
use crate::latency::Latency;
use crate::ledger::LedgerTotals;
use crate::scenario::Scenario;
use crate::tally::{ConsumerMeasurements, Measurements};

/// One consumer of the scenario: a group, or several alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConsumerReport {
    /// What it is, in words.
    pub consumer: String,
    /// Of its groups only; absent if there is no other consumer, for then it is the run's.
    pub e2e: Option<Latency>,
    /// Most messages that a queue was ahead of one of the groups, as the broker told it.
    pub lag_max: u64,
    pub catch_up: Option<CatchUpReport>,
    pub groups: Vec<GroupReport>,
}

/// How a group that began late, or before messages that were there already, came to the end of its queues.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CatchUpReport {
    /// Whether every queue was read to its end.
    pub complete: bool,
    pub messages: u64,
    pub seconds: f64,
    pub per_s: f64,
}

/// One group's books.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    pub group: String,
    #[serde(flatten)]
    pub ledger: LedgerTotals,
}

impl ConsumerReport {
    /// Of all consumers; `queues` is how many the run has.
    pub(super) fn all(scenario: &Scenario, measured: &Measurements, queues: usize) -> Vec<ConsumerReport> {
        let has_others = scenario.consumers.len() > 1;
        let consumers = scenario.consumers.iter().zip(&measured.consumers);
        consumers
            .map(|(consumer, measured)| ConsumerReport {
                consumer: consumer.to_string(),
                e2e: has_others.then(|| measured.end_to_end.clone()),
                lag_max: measured.lag_max,
                catch_up: consumer.is_late().then(|| catch_up(measured, queues)).flatten(),
                groups: measured
                    .groups
                    .iter()
                    .map(|(group, ledger)| GroupReport { group: group.clone(), ledger: *ledger })
                    .collect(),
            })
            .collect()
    }
}

fn catch_up(measured: &ConsumerMeasurements, queues: usize) -> Option<CatchUpReport> {
    let catch_up = &measured.catch_up;
    let per_s = catch_up.per_s()?;
    Some(CatchUpReport {
        complete: catch_up.queues == (queues * measured.groups.len()) as u64,
        messages: catch_up.messages,
        seconds: catch_up.ended.since(catch_up.began).as_secs_f64(),
        per_s: tenth(per_s),
    })
}
