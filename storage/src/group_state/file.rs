//! The file of two slots, written in turn: while one is written, the other stays what it was.
//!
//! ```text
//! first slot    second slot   what the node goes by
//! ------------  ------------  --------------------------------------------------------------------------
//! no file                     nothing was ever saved
//! whole         whole         the one with the greater number
//! whole         never written the whole one
//! whole         damaged       the whole one: the other was being written when process or machine stopped,
//!                             hence never acknowledged
//! whole, of another version   error Version, whatever the other slot is: it may be the newer one
//! damaged or never written, both            error Both
//! of another group or node    error Field
//! ```
//!
//! What this cannot tell: damage of the newest slot long after it was written. The one before is taken then, and a vote may be
//! forgotten. No disk that keeps its promises does that, and the members who know better are the others.

use super::slot::{GROUP_FILE_LEN, GroupStateError, SLOT_LEN};
use super::state::GroupState;
use crate::job_error::JobError;
use crate::source::{LogFile, LogSource};
use crate::types::{GroupId, NodeId};

/// The newest state in a file, and what else is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedGroupState {
    pub state: GroupState,
    /// How many states were saved in the file before, this one included.
    pub seq: u64,
    /// Which slot it is in.
    pub slot: u32,
    /// Why the other slot is not an older state.
    pub other: Option<GroupStateError>,
}

/// Reads the state of a node; nothing if none was ever saved.
pub fn read_group_state<S: LogSource + ?Sized>(
    source: &S,
    group: GroupId,
    node: NodeId,
) -> Result<Option<GroupState>, JobError> {
    let Some(saved) = read_saved_group_state(source)? else { return Ok(None) };
    let state = saved.state;
    let rules = [("group", group.0, state.group.0), ("node", node.0, state.node.0)];
    for (field, expected, found) in rules {
        if expected != found {
            return Err(failed(source, GroupStateError::Field { field, expected, found }));
        }
    }
    Ok(Some(state))
}

/// Reads the state in the file, whosever it is.
pub fn read_saved_group_state<S: LogSource + ?Sized>(
    source: &S,
) -> Result<Option<SavedGroupState>, JobError> {
    let bytes = source.read_group_slots();
    let bytes = bytes.map_err(|error| JobError::io(source, LogFile::GroupState, "read", 0, &error))?;
    let Some(bytes) = bytes else { return Ok(None) };
    decode_file(&bytes).map(Some).map_err(|error| failed(source, error))
}

pub(super) fn decode_file(bytes: &[u8]) -> Result<SavedGroupState, GroupStateError> {
    if bytes.len() != GROUP_FILE_LEN {
        return Err(GroupStateError::Length { found: bytes.len() as u64 });
    }
    let (first, second) = bytes.split_at(SLOT_LEN);
    let slots = [GroupState::decode(first), GroupState::decode(second)];
    let is_other_version =
        |slot: &&Result<_, GroupStateError>| matches!(slot, Err(GroupStateError::Version { .. }));
    if let Some(Err(error)) = slots.iter().find(is_other_version) {
        return Err(error.clone());
    }
    let saved = |slot, (seq, state), other| SavedGroupState { state, seq, slot, other };
    match slots {
        [Ok(first), Ok(second)] if first.0 == second.0 => {
            Err(GroupStateError::Field { field: "seq", expected: first.0 + 1, found: second.0 })
        }
        [Ok(first), Ok(second)] if first.0 > second.0 => Ok(saved(0, first, None)),
        [Ok(_), Ok(second)] => Ok(saved(1, second, None)),
        [Ok(first), Err(other)] => Ok(saved(0, first, Some(other))),
        [Err(other), Ok(second)] => Ok(saved(1, second, Some(other))),
        [Err(first), Err(second)] => {
            Err(GroupStateError::Both { first: Box::new(first), second: Box::new(second) })
        }
    }
}

/// Makes the state of a node durable. After an error, or a crash before the answer, either it or the one before is what
/// will be read. Blocks. No other of these may be under way.
pub fn save_group_state<S: LogSource + ?Sized>(source: &S, state: &GroupState) -> Result<(), JobError> {
    let (seq, slot) = next_seq(source)?;
    save_as(source, state, seq, slot)
}

/// The number that the next state gets, and the slot that it goes to.
pub(crate) fn next_seq<S: LogSource + ?Sized>(source: &S) -> Result<(u64, u32), JobError> {
    let saved = read_saved_group_state(source)?;
    Ok(saved.map_or((1, 0), |saved| (saved.seq + 1, 1 - saved.slot)))
}

pub(crate) fn save_as<S: LogSource + ?Sized>(
    source: &S,
    state: &GroupState,
    seq: u64,
    slot: u32,
) -> Result<(), JobError> {
    let bytes = state.encode(seq).map_err(|error| failed(source, error))?;
    let position = u64::from(slot) * SLOT_LEN as u64;
    let written = source.write_group_slot(slot, &bytes);
    written.map_err(|error| JobError::io(source, LogFile::GroupState, "write", position, &error))
}

fn failed<S: LogSource + ?Sized>(source: &S, error: GroupStateError) -> JobError {
    JobError::GroupState { file: source.name(LogFile::GroupState), error }
}
