//! A disk in memory that does what a real one may do, by seed: finishes operations in any order, fails them, lies about
//! them, and at a crash keeps any part of what was not synced. For tests of this crate and of those above it.

mod disk;
mod faults;
mod file;
mod rng;
mod small;
mod source;

#[cfg(test)]
mod model;

pub use disk::SimDisk;
pub use faults::{Failing, Lie};
pub use file::SECTOR_LEN;
pub use rng::Rng;
