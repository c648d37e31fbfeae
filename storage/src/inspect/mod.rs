//! Looking at a log without opening it: [`verify`] checks everything there is, [`batches`] and [`records`] list what is in
//! it. Nothing is changed and nothing is locked, so the log may be damaged, or in use: what is written meanwhile may be
//! seen or not, and whatever stands behind the last whole batch is the end.

mod dump;
mod indexes;
mod problem;
mod verify;
mod walk;

#[cfg(test)]
mod tests;

pub use dump::{BatchInfo, RecordInfo, batches, records};
pub use problem::{Problem, Wrong};
pub use verify::{Progress, VerifyReport, verify};
