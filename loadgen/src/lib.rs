//! Open-loop load generator for any RocketMQ-compatible broker.
//!
//! Decisions are plain and stand apart from what drives them; `README.md` names the file to read first.
//!
//! As a library, for tests that want figures and a ledger rather than a program's output:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use apogee_loadgen::scenario::{Load, Scenario, Sizes};
//!
//! let mut scenario = Scenario { load: Load::Poisson { rate: 2_000, seed: 1 }, ..Scenario::default() };
//! scenario.target.namesrv = vec!["127.0.0.1:9876".into()];
//! scenario.messages.size = Sizes::Fixed(512);
//! scenario.run.duration = Duration::from_secs(5);
//!
//! let report = apogee_loadgen::run(&scenario)?;
//! assert!(report.faults.is_empty(), "{}", report.text());
//! assert_eq!((report.errors.total, report.ledger.lost), (0, 0));
//! assert!(report.publish.summary().p99_us.is_some_and(|us| us < 20_000.0));
//! # Ok::<(), apogee_loadgen::RunError>(())
//! ```
//!
//! Ready-made scenarios and files do as well: `Scenario::open("steady")`. For a run that can be ended early or
//! watched, see [`driver::run::run`]; for rates, [`search`].

pub mod assignment;
pub mod attention;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod compare;
pub mod content;
pub mod driver;
pub mod failure;
pub mod figures;
pub mod gap;
pub mod latency;
pub mod ledger;
pub mod live;
pub mod pace;
pub mod payload;
pub mod peers;
pub mod progress;
pub mod random;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod search;
pub mod series;
pub mod stages;
pub mod stop;
pub mod tally;

pub use driver::run::RunError;

/// Runs the scenario to its end, silently, on threads of its own.
///
/// Blocks for warm-up, measured part and drain. What goes wrong with messages is in the report; an error is that there
/// is none.
pub fn run(scenario: &scenario::Scenario) -> Result<report::Report, RunError> {
    driver::run::run(scenario, &stop::StopFlag::default(), &mut progress::Quiet)
}
