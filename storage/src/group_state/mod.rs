//! What a node of a group must not forget, beside its log: term, vote, members, where the log begins.
//!
//! Read `state.rs` first (what there is to know), then `slot.rs` (the bytes), then `file.rs` (which of two slots counts).

mod file;
pub(crate) mod slot;
mod state;

#[cfg(test)]
mod tests;

pub use file::{SavedGroupState, read_group_state, read_saved_group_state, save_group_state};
pub(crate) use file::{next_seq, save_as};
pub use slot::GroupStateError;
pub(crate) use slot::{GROUP_FILE_LEN, SLOT_LEN};
pub use state::{ConfState, GroupState, Member};
