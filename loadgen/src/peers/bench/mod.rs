//! The bench: which stretches are measured in which order, what comes of them, and the report.

mod estimate;
mod levels;
mod markdown;
mod measure;
mod options;
mod record;
mod run;
mod spread;

pub use self::options::Options;
pub use self::run::{BenchError, Defaults, run};
