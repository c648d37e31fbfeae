//! A broker as a formula, for the tests: one server with random arrivals and service times (M/M/1), whose latency is
//! exponential with mean 1 / (capacity - rate), noise on every figure, and a stall now and then.

use super::bound::{Bound, Percentile};
use super::verdict::Measured;
use crate::latency::Summary;

const STALL_US: f64 = 50_000.0;
/// What the queue has grown to by the end of a probe beyond the capacity.
const OVERLOAD_US: f64 = 2_000_000.0;

pub(super) struct ModelBroker {
    /// Messages per second.
    pub(super) capacity: f64,
    /// Part by which figures stray, either way.
    pub(super) noise: f64,
    /// Part of the probes that meet a stall.
    pub(super) stall_chance: f64,
    pub(super) seed: u64,
}

impl ModelBroker {
    /// Where the bound is just met, without noise.
    pub(super) fn highest_rate(&self, bound: &Bound) -> f64 {
        self.capacity - tail(bound.percentile) * 1e6 / bound.below_us()
    }

    pub(super) fn measure(&mut self, rate: u64) -> Measured {
        let spare = self.capacity - rate as f64;
        let is_stalled = self.random() < self.stall_chance;
        let noise = 1.0 + self.noise * (2.0 * self.random() - 1.0);
        let at = |percentile: Percentile| {
            if spare <= 0.0 {
                return Some(OVERLOAD_US * noise);
            }
            let us = tail(percentile) * 1e6 / spare * noise;
            let is_in_tail = matches!(percentile, Percentile::P999 | Percentile::P9999 | Percentile::P99999);
            Some(if is_stalled && is_in_tail { us.max(STALL_US) } else { us })
        };
        let latency = Summary {
            p50_us: at(Percentile::P50),
            p90_us: at(Percentile::P90),
            p99_us: at(Percentile::P99),
            p999_us: at(Percentile::P999),
            p9999_us: at(Percentile::P9999),
            p99999_us: at(Percentile::P99999),
            max_us: at(Percentile::P99999),
            count: rate * 10,
        };
        Measured {
            planned: rate,
            acknowledged: (rate as f64).min(self.capacity),
            latency,
            from_sent: latency,
            ..Measured::default()
        }
    }

    /// From 0 to 1 (xorshift).
    fn random(&mut self) -> f64 {
        for shift in [13, -7, 17] {
            self.seed ^= if shift > 0 { self.seed << shift } else { self.seed >> -shift };
        }
        (self.seed >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The percentile of an exponential distribution, in its means.
fn tail(percentile: Percentile) -> f64 {
    -(1.0 - percentile.quantile()).ln()
}
