//! Opening a log after whatever happened: every batch is read and checked, the tail is cut where it is torn, and
//! damage that cannot come from a torn tail is an error.
//!
//! Read `scan.rs` first: the table of situations stands there.

mod report;
mod scan;

#[cfg(test)]
mod tests;

pub use report::{Cut, CutCause, RecoveryError, RecoveryReport};
pub use scan::{Recovered, RecoveredRecord, recover};
