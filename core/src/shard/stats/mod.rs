//! What the broker counts about itself: the figures of GET_BROKER_RUNTIME_INFO (28) and VIEW_BROKER_STATS_DATA (315).
//!
//! Nothing here is logged, as in RocketMQ: a restart begins at zero.
//!
//! | file | what | after |
//! |---|---|---|
//! | `meter.rs` | running totals of one topic, or of one group in one topic, and what they came to in the last minute, hour and day | `StatsItem` |
//! | `meters.rs` | the meters by what they measure, with their limit; sampled a few at a time | `StatsItemSet`, `BrokerStatsManager` |
//! | `rates.rs` | puts and gets per second over 10 s, 1 min and 10 min | `StoreStatsService` |
//! | `latency.rs` | how long producers wait | `StoreStatsService` |
//! | `days.rs` | messages until this morning and until yesterday's | `BrokerStats` |
//! | `drift.rs` | how far the machine is from its profile; the node tells it | |

mod days;
mod drift;
mod latency;
mod meter;
mod meters;
mod rates;

pub use self::drift::DriftGauge;
pub use self::meter::{Figures, Period, Totals};
pub use self::meters::{BrokerMeasure, GroupMeasure, METERS_MAX, MeterId, Meters};

use self::days::Days;
use self::latency::PutLatency;
pub(super) use self::rates::Rate;
use self::rates::Rates;
use super::topics::TopicNumber;

/// All that one shard counts.
#[derive(Debug)]
pub struct Stats {
    started_ms: i64,
    pub(super) meters: Meters,
    pub(super) rates: Rates,
    pub(super) put_latency: PutLatency,
    pub(super) puts_of_days: Days,
    pub(super) gets_of_days: Days,
    puts_failed: u64,
    pub(super) profile_drift: DriftGauge,
}

impl Stats {
    pub fn new(now_ms: i64) -> Self {
        Stats {
            started_ms: now_ms,
            meters: Meters::new(now_ms),
            rates: Rates::new(now_ms),
            put_latency: PutLatency::new(now_ms),
            puts_of_days: Days::new(now_ms),
            gets_of_days: Days::new(now_ms),
            puts_failed: 0,
            profile_drift: DriftGauge::default(),
        }
    }

    pub fn started_ms(&self) -> i64 {
        self.started_ms
    }

    /// Requests to store something that failed after they were taken.
    pub fn puts_failed(&self) -> u64 {
        self.puts_failed
    }

    /// Messages of `topic` became durable. `is_system` is asked once per topic.
    pub fn on_put(&mut self, topic: TopicNumber, put: Totals, is_system: impl FnOnce() -> bool) {
        let is_of_system = self.meters.count_topic(topic, put, is_system);
        self.meters.count_broker(BrokerMeasure::Put, put);
        self.rates.put(put.messages);
        if !is_of_system {
            self.puts_of_days.add(put.messages);
        }
    }

    pub fn on_put_failed(&mut self) {
        self.puts_failed += 1;
    }

    /// A request was answered with messages; `meter` is that of its group and topic.
    pub fn on_found(&mut self, meter: Option<MeterId>, got: Totals) {
        let is_of_system = self.meters.count(meter, got);
        self.meters.count_broker(BrokerMeasure::Get, got);
        self.rates.found(got.messages);
        if !is_of_system {
            self.gets_of_days.add(got.messages);
        }
    }

    /// A request for messages was answered with none.
    pub fn on_missed(&mut self) {
        self.rates.missed();
    }

    /// Takes what samples are due; a bounded number per call.
    pub fn on_tick(&mut self, now_ms: i64) {
        self.meters.on_tick(now_ms);
        self.rates.on_tick(now_ms);
        self.put_latency.on_tick(now_ms);
        self.puts_of_days.on_tick(now_ms);
        self.gets_of_days.on_tick(now_ms);
    }
}
