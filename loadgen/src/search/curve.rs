//! Which rates a curve has, and when further ones would only show the same.

use std::collections::VecDeque;

use serde::Serialize;

use super::verdict::Measured;
use crate::latency::Summary;

/// Points of one curve.
pub const POINTS_MAX: usize = 200;
/// After so many rates in a row that were not reached, higher ones would only fill the broker further.
const SHORT_MAX: u32 = 2;

/// One rate of the curve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Messages per second.
    pub rate: u64,
    pub acknowledged: f64,
    pub latency: Summary,
    pub from_sent: Summary,
    pub errors: u64,
    pub unsent: u64,
    pub faults: Vec<String>,
    /// The rate was planned but not reached.
    pub falls_short: bool,
    /// What the generator says against itself.
    pub generator: Option<String>,
}

impl From<Measured> for Point {
    fn from(measured: Measured) -> Point {
        Point {
            rate: measured.planned,
            acknowledged: measured.acknowledged,
            falls_short: measured.falls_short(),
            latency: measured.latency,
            from_sent: measured.from_sent,
            errors: measured.errors,
            unsent: measured.unsent,
            faults: measured.faults,
            generator: measured.generator,
        }
    }
}

impl Point {
    /// Whether its latencies are the broker's answer to that rate, and all of them.
    pub fn is_sound(&self) -> bool {
        !self.falls_short && self.errors == 0 && self.faults.is_empty() && self.generator.is_none()
    }
}

/// A curve under way. Ask `next_rate`, run it, tell `on_point`; until there is none.
#[derive(Clone, Debug)]
pub struct CurvePlan {
    left: VecDeque<u64>,
    short: u32,
}

impl CurvePlan {
    /// Rates are run from the lowest to the highest, so that a broker driven beyond its limit spoils no point.
    pub fn new(mut rates: Vec<u64>) -> CurvePlan {
        rates.sort_unstable();
        rates.dedup();
        CurvePlan { left: rates.into(), short: 0 }
    }

    pub fn next_rate(&self) -> Option<u64> {
        self.left.front().copied().filter(|_| self.short < SHORT_MAX)
    }

    pub fn on_point(&mut self, point: &Point) {
        assert_eq!(self.left.pop_front(), Some(point.rate), "a point that was not asked for");
        self.short = if point.falls_short { self.short + 1 } else { 0 };
    }

    /// Rates that were left out because those before them were not reached.
    pub fn left_out(&self) -> Vec<u64> {
        self.left.iter().copied().collect()
    }
}

/// `points` rates in equal steps, the last one at `saturation`.
pub fn rates_up_to(saturation: f64, points: usize) -> Vec<u64> {
    let step = |number: usize| (saturation * number as f64 / points as f64).round() as u64;
    (1..=points).map(step).filter(|rate| *rate > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::super::model::ModelBroker;
    use super::*;

    fn run(rates: Vec<u64>) -> (Vec<Point>, Vec<u64>) {
        let mut broker = ModelBroker { capacity: 10_000.0, noise: 0.0, stall_chance: 0.0, seed: 1 };
        let mut plan = CurvePlan::new(rates);
        let mut points = Vec::new();
        while let Some(rate) = plan.next_rate() {
            let point = Point::from(broker.measure(rate));
            plan.on_point(&point);
            points.push(point);
        }
        (points, plan.left_out())
    }

    #[test]
    fn rates_are_run_upwards_once_each() {
        let (points, left_out) = run(vec![5_000, 1_000, 5_000, 9_000]);
        assert_eq!(points.iter().map(|point| point.rate).collect::<Vec<_>>(), [1_000, 5_000, 9_000]);
        assert!(points.windows(2).all(|pair| pair[0].latency.p50_us < pair[1].latency.p50_us));
        assert!(left_out.is_empty() && points.iter().all(Point::is_sound));
    }

    #[test]
    fn beyond_the_saturation_two_points_are_enough() {
        let (points, left_out) = run(vec![8_000, 12_000, 16_000, 20_000, 24_000]);
        assert_eq!(points.iter().map(|point| point.falls_short).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(left_out, [20_000, 24_000]);
    }

    #[test]
    fn steps_are_equal_and_end_at_the_saturation() {
        assert_eq!(rates_up_to(10_004.0, 4), [2_501, 5_002, 7_503, 10_004]);
        assert!(rates_up_to(0.0, 4).is_empty());
    }
}
