//! How much a broker can bear: the highest rate with a percentile below a bound, and the whole rate-latency curve.
//!
//! `bisect.rs` and `curve.rs` decide which rate is run next, `verdict.rs` what a run says about its rate. They see
//! figures only, so that the tests can put a modelled broker in place of a real one; `drive.rs` runs the real ones.

mod bisect;
mod bound;
mod chart;
mod curve;
mod drive;
#[cfg(test)]
mod model;
mod report;
mod verdict;

pub use self::bisect::{Conclusion, Limit, Plan, PlanError, Search, Tried};
pub use self::bound::{Bound, HOLD_MAX, Measure, Percentile};
pub use self::curve::{CurvePlan, POINTS_MAX, Point, rates_up_to};
pub use self::drive::{SearchError, Told, curve, saturation, search};
pub use self::report::{CurveReport, ProbeRecord, SearchReport};
pub use self::verdict::{Measured, Reason, Verdict};
