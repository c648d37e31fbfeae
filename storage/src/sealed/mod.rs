//! The index of a sealed segment: made once from the directories of its batches, then only read.
//!
//! Read `layout.rs` first (the bytes), then `view.rs` (the questions) and `build.rs` (the job that makes it).

mod build;
mod collect;
mod difference;
mod error;
mod find;
pub(crate) mod layout;
mod reader;
mod sections;
mod view;
mod walk;
mod write;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use build::build_index_behind;
pub use build::{SealJob, build_index, open_index, read_ends, seal_segment};
pub use difference::Difference;
pub(crate) use difference::first_difference;
pub use error::{IndexError, IndexFault};
pub use find::KeySearch;
pub use reader::{IndexSummary, SealedIndex};
pub use view::{Access, IndexView, QueueSpan};
pub(crate) use walk::Walk;
pub(crate) use write::empty_index;
