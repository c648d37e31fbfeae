//! Where two indexes of one segment differ: what a check says of an index that is whole and wrong.

use std::fmt;

use super::layout::{BatchRow, EntryRow, KeyRow, PAGE_LEN, QueueRow, Row, rows_of_page};
use super::reader::{IndexSummary, SealedIndex};
use super::sections::Section;

/// The first difference between an index and what it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// In the header.
    Field { field: &'static str, expected: u64, found: u64 },
    /// In a section; the row's number counts from 0.
    Row { section: &'static str, row: u32, expected: String, found: String },
    /// Elsewhere: in the page table or behind the rows of a page.
    Byte { position: u64 },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Field { field, expected, found } => {
                write!(f, "{field} is {found}, expected {expected}")
            }
            Difference::Row { section, row, expected, found } => {
                write!(f, "row {row} of {section} is {found}, expected {expected}")
            }
            Difference::Byte { position } => write!(f, "byte {position} is another"),
        }
    }
}

/// The first difference of `found` from `expected`. Reads all of both; the checksums of `found` hold.
pub(crate) fn first_difference(expected: &SealedIndex, found: &SealedIndex) -> Option<Difference> {
    let of_header = fields(expected.summary()).into_iter().zip(fields(found.summary()));
    for ((field, expected), (_, found)) in of_header {
        if expected != found {
            return Some(Difference::Field { field, expected, found });
        }
    }
    // Headers agree, so sections lie alike.
    let sections = expected.sections();
    let files = [expected.file(), found.file()];
    let of_sections = of_section(&sections.queues, files, "queues", |row: &QueueRow| {
        let QueueRow { queue, begin, first_entry, count } = row;
        format!("queue {queue} from offset {begin}, {count} records from entry {first_entry}")
    })
    .or_else(|| {
        of_section(&sections.entries, files, "entries", |row: &EntryRow| {
            let EntryRow { position, size, tag_hash, time } = row;
            format!("{size} bytes at {position}, tag hash {tag_hash}, {time} ms")
        })
    })
    .or_else(|| {
        of_section(&sections.keys, files, "keys", |row: &KeyRow| {
            format!("hash {} of entry {}", row.hash, row.entry)
        })
    })
    .or_else(|| {
        of_section(&sections.batches, files, "batches", |row: &BatchRow| {
            format!("{} bytes at {}", row.length, row.position)
        })
    });
    of_sections.or_else(|| {
        let [expected, found] = files;
        let position = expected.iter().zip(found).position(|(expected, found)| expected != found)?;
        Some(Difference::Byte { position: position as u64 })
    })
}

fn fields(summary: &IndexSummary) -> [(&'static str, u64); 14] {
    [
        ("group", summary.group.0),
        ("segment", summary.segment.base.0),
        ("segment_bytes", summary.segment.bytes),
        ("end", summary.end.0),
        ("first_index", summary.first_index.0),
        ("last_index", summary.last_index.0),
        ("prev_term", summary.prev_term.0),
        ("last_term", summary.last_term.0),
        ("first_time", summary.first_time_ms as u64),
        ("last_time", summary.last_time_ms as u64),
        ("queues", summary.queues.into()),
        ("entries", summary.entries.into()),
        ("keys", summary.keys.into()),
        ("batches", summary.batches.into()),
    ]
}

fn of_section<R: Row>(
    section: &Section<R>,
    files: [&[u8]; 2],
    name: &'static str,
    say: impl Fn(&R) -> String,
) -> Option<Difference> {
    for page in section.pages() {
        let rows = section.rows_in(page);
        let [expected, found] = files.map(|file| &file[page as usize * PAGE_LEN..][..PAGE_LEN]);
        if expected == found {
            continue;
        }
        let count = rows.len() as u32;
        let (expected, found) = (rows_of_page::<R>(expected, count), rows_of_page::<R>(found, count));
        for (row, (expected, found)) in rows.zip(expected.iter().zip(found)) {
            if expected.as_bytes() != found.as_bytes() {
                let (expected, found) = (say(expected), say(found));
                return Some(Difference::Row { section: name, row, expected, found });
            }
        }
    }
    None
}
