//! Keeps `docs/format.md` in step with the code.

use std::mem::{offset_of, size_of};

use super::{BATCH_BYTES_LIMIT, BATCH_MAGIC, BLOCK_LEN, BatchHeader, DirectoryEntry, FORMAT_VERSION};

const DOCUMENT: &str = include_str!("../../docs/format.md");

/// The rows of the table under a heading: offset, size, field.
fn documented(heading: &str) -> Vec<(usize, usize, String)> {
    let section = DOCUMENT.split(heading).nth(1).expect("the section exists");
    let section = section.split("\n#").next().expect("split gives at least one piece");
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = section.lines().filter(|line| line.starts_with('|')).map(cells).skip(2);
    rows.map(|row| (row[1].parse().unwrap(), row[2].parse().unwrap(), row[3].trim_matches('`').to_owned()))
        .collect()
}

/// Each field's offset, with the size up to the next field or the end.
fn declared(offsets: &[(usize, &str)], total: usize) -> Vec<(usize, usize, String)> {
    let ends = offsets.iter().skip(1).map(|(offset, _)| *offset).chain([total]);
    offsets
        .iter()
        .zip(ends)
        .map(|((offset, name), end)| (*offset, end - offset, (*name).to_owned()))
        .collect()
}

macro_rules! fields {
    ($of:ty: $($field:ident)*) => {
        declared(&[$((offset_of!($of, $field), stringify!($field))),*], size_of::<$of>())
    };
}

#[test]
fn header_table_is_that_of_the_code() {
    let declared = fields!(BatchHeader: magic version header_len header_crc records_crc kind reserved group term index
        prev_term base_offset commit_hint leader store_time length directory_len record_count records_len
        directory_crc reserved_tail);
    assert_eq!(documented("### Header"), declared);
    assert!(DOCUMENT.contains(&format!("Size: {} bytes.", size_of::<BatchHeader>())));
}

#[test]
fn entry_table_is_that_of_the_code() {
    let declared =
        fields!(DirectoryEntry: queue queue_offset store_time position size tag_hash key_hashes reserved);
    assert_eq!(documented("### Directory entry"), declared);
    assert!(DOCUMENT.contains(&format!("Size: {} bytes.", size_of::<DirectoryEntry>())));
}

#[test]
fn numbers_in_the_text_are_those_of_the_code() {
    let stated = [
        format!("Format version {FORMAT_VERSION}."),
        format!("`{}`", str::from_utf8(&BATCH_MAGIC).unwrap()),
        format!("begins and ends on {BLOCK_LEN} bytes"),
        format!("at most {} MiB", BATCH_BYTES_LIMIT >> 20),
    ];
    for sentence in stated {
        assert!(DOCUMENT.contains(&sentence), "docs/format.md no longer says {sentence:?}");
    }
}
