//! What stands at one place of a segment, as far as a header can tell. Recovery and the tools judge by it alike.

use std::fmt;
use std::io;

use crate::format::{BatchError, BatchHeader, HeaderError, RawHeader};
use crate::source::LogSource;
use crate::types::{BatchIndex, GroupId, Term};
use crate::window::Window;

/// The batch that the next one has to follow; zeros in front of the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) index: BatchIndex,
    pub(crate) term: Term,
}

/// Whether a header further behind than writes go at once proves that batch `missing` was once whole in the log of a group's node,
/// behind one of `term`. The terms of a log never go back, so a header of an earlier one was cut off; and what was given up is not
/// missing any more.
pub(crate) fn bears_witness(
    header: &BatchHeader,
    missing: BatchIndex,
    term: Term,
    loss_accepted: Option<Term>,
) -> bool {
    let may_follow = header.index() > missing && header.term() >= term;
    may_follow && loss_accepted.is_none_or(|given_up| header.term() > given_up)
}

/// What is found where a batch is expected.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// The header of the batch that follows. It fits the segment.
    Follows(BatchHeader),
    SegmentEnd,
    Zeros,
    /// No header of any batch: in a recycled segment, the middle of one that was there before.
    Foreign(BatchError),
    /// A header of this log that is not whole, or a whole one whose batch is not.
    Torn(BatchError),
    /// A whole batch of another place: of what was in the file before it was recycled.
    Misplaced(Mismatch),
    /// Whole and in its place, but it does not follow.
    Stale(Mismatch),
    OtherVersion {
        found: u16,
    },
    ForeignGroup {
        found: GroupId,
    },
    /// Whole, and no right writer makes such a header.
    Impossible(Mismatch),
}

/// A field that is not what it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub field: &'static str,
    pub expected: u64,
    pub found: u64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, expected {}", self.field, self.found, self.expected)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Follows(header) => write!(f, "batch {}", header.index()),
            Found::SegmentEnd => f.write_str("the end of the segment"),
            Found::Zeros => f.write_str("nothing is written there"),
            Found::Foreign(error) | Found::Torn(error) => error.fmt(f),
            Found::Misplaced(mismatch) | Found::Stale(mismatch) | Found::Impossible(mismatch) => {
                mismatch.fmt(f)
            }
            Found::OtherVersion { found } => write!(f, "format version {found}"),
            Found::ForeignGroup { found } => write!(f, "a batch of group {found}"),
        }
    }
}

/// Looks at `position` of the window's segment for the batch of `group` that follows `last`. What is not known is not
/// asked for.
pub(crate) fn look<S: LogSource + ?Sized>(
    window: &mut Window<'_, S>,
    position: u64,
    group: Option<GroupId>,
    last: Option<Last>,
) -> io::Result<Found> {
    let segment = window.segment();
    if position == segment.bytes {
        return Ok(Found::SegmentEnd);
    }
    let header = match RawHeader(window.block(position)?).verify() {
        Ok(header) => header,
        Err(HeaderError::Zero) => return Ok(Found::Zeros),
        Err(HeaderError::Version { found }) => return Ok(Found::OtherVersion { found }),
        Err(HeaderError::Field { field, found }) => {
            return Ok(Found::Impossible(Mismatch { field, expected: 0, found }));
        }
        Err(HeaderError::Kind { found }) => {
            let mismatch = Mismatch { field: "kind", expected: 0, found: found.into() };
            return Ok(Found::Impossible(mismatch));
        }
        Err(error @ (HeaderError::Magic { .. } | HeaderError::Short { .. })) => {
            return Ok(Found::Foreign(error.into()));
        }
        Err(error @ HeaderError::HeaderCrc { .. }) => return Ok(Found::Torn(error.into())),
    };
    if let Some(found) = Some(header.group()).filter(|found| group.is_some_and(|group| group != *found)) {
        return Ok(Found::ForeignGroup { found });
    }
    let mismatch = |field, expected, found| {
        Some(Mismatch { field, expected, found }).filter(|mismatch| mismatch.expected != mismatch.found)
    };
    if let Some(mismatch) = mismatch("base_offset", segment.base.0 + position, header.base_offset().0) {
        return Ok(Found::Misplaced(mismatch));
    }
    if let Some(last) = last {
        let index = mismatch("index", last.index.0 + 1, header.index().0);
        let prev_term = mismatch("prev_term", last.term.0, header.prev_term().0);
        if let Some(mismatch) = index.or(prev_term) {
            return Ok(Found::Stale(mismatch));
        }
    }
    let (expected, found) = (segment.bytes - position, header.batch_len() as u64);
    if found > expected {
        return Ok(Found::Impossible(Mismatch { field: "length", expected, found }));
    }
    Ok(Found::Follows(*header))
}

/// What is wrong with a batch whose checksums hold: that is no damage, it was written so.
pub(crate) fn fault_of_writer(error: &BatchError) -> Option<Mismatch> {
    match *error {
        BatchError::Entry { field, expected, found, .. }
        | BatchError::Sum { part: field, expected, found } => Some(Mismatch { field, expected, found }),
        _ => None,
    }
}
