//! Open-loop load generator for any RocketMQ-compatible broker.
//!
//! Decisions are plain and stand apart from what drives them; `README.md` names the file to read first.

pub mod assignment;
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
