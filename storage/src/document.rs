//! Keeps `docs/format.md` in step with the code.

use std::mem::{offset_of, size_of};

use crate::checkpoint::file::{CHECKPOINT_MAGIC, CHECKPOINT_VERSION, CheckpointHeader, QueueEndRow};
use crate::format::{BATCH_BYTES_LIMIT, BATCH_MAGIC, BLOCK_LEN, BatchHeader, DirectoryEntry, FORMAT_VERSION};
use crate::group_state::GroupState;
use crate::group_state::slot::{SLOT_LEN, SLOT_MAGIC, SLOT_VERSION, SlotHeader};
use crate::sealed::layout::{
    BatchRow, EntryRow, INDEX_MAGIC, INDEX_VERSION, IndexHeader, KeyRow, PAGE_LEN, PageRow, QueueRow,
};
use crate::snapshot::file::{SNAPSHOT_BYTES_LIMIT, SNAPSHOT_MAGIC, SNAPSHOT_VERSION, SnapshotHeader};

const DOCUMENT: &str = include_str!("../docs/format.md");

/// What stands under a heading, up to the next.
fn section(heading: &str) -> &'static str {
    let section = DOCUMENT.split(&format!("### {heading}\n")).nth(1).expect("the section exists");
    section.split("\n#").next().expect("split gives at least one piece")
}

/// The rows of the table under a heading: offset, size, field.
fn documented(section: &str) -> Vec<(usize, usize, String)> {
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

macro_rules! assert_documented {
    ($heading:literal, $of:ty: $($field:ident)*) => {
        let size = size_of::<$of>();
        let declared = declared(&[$((offset_of!($of, $field), stringify!($field))),*], size);
        let section = section($heading);
        assert_eq!(documented(section), declared, "{}", $heading);
        assert!(section.contains(&format!("Size: {size} bytes.")), "{} says another size", $heading);
    };
}

#[test]
fn tables_are_those_of_the_code() {
    assert_documented!("Header", BatchHeader: magic version header_len header_crc records_crc kind reserved group term
        index prev_term base_offset commit_hint leader store_time length directory_len record_count records_len
        directory_crc reserved_tail);
    assert_documented!("Directory entry", DirectoryEntry: queue queue_offset store_time position size tag_hash
        key_hashes reserved);
    assert_documented!("Index header", IndexHeader: magic version header_len header_crc table_crc group segment
        segment_bytes end first_index last_index prev_term last_term first_time last_time queues entries keys batches);
    assert_documented!("Row of the page table", PageRow: crc first);
    assert_documented!("Row of `queues`", QueueRow: queue begin first_entry count);
    assert_documented!("Row of `entries`", EntryRow: position size tag_hash time);
    assert_documented!("Row of `keys`", KeyRow: hash entry);
    assert_documented!("Row of `batches`", BatchRow: position length);
    assert_documented!("Slot header", SlotHeader: magic version header_len crc flags seq group node incarnation term
        vote commit conf_index start_index start_term start_offset checkpoint_at write_window segment_bytes voters
        outgoing learners learners_next members reserved);
    assert_documented!("Checkpoint header", CheckpointHeader: magic version header_len crc reserved group state_seq
        start_index start_term start_offset last_time snapshot_at snapshot_len queues);
    assert_documented!("Row of a checkpoint", QueueEndRow: queue end);
    assert_documented!("Snapshot header", SnapshotHeader: magic version header_len crc reserved group position index
        term body_len);
}

#[test]
fn numbers_in_the_text_are_those_of_the_code() {
    let stated = [
        format!("Format version {FORMAT_VERSION}."),
        format!("`{}`", str::from_utf8(&BATCH_MAGIC).unwrap()),
        format!("begins and ends on {BLOCK_LEN} bytes"),
        format!("at most {} MiB", BATCH_BYTES_LIMIT >> 20),
        format!("Index version {INDEX_VERSION}."),
        format!("`{}`", str::from_utf8(&INDEX_MAGIC).unwrap()),
        format!("pages of {PAGE_LEN} bytes"),
        format!("Snapshot version {SNAPSHOT_VERSION}."),
        format!("`{}`", str::from_utf8(&SNAPSHOT_MAGIC).unwrap()),
        format!("at most {} GiB", SNAPSHOT_BYTES_LIMIT >> 30),
        format!("State version {SLOT_VERSION}."),
        format!("`{}`", str::from_utf8(&SLOT_MAGIC).unwrap()),
        format!("Two slots of {SLOT_LEN} bytes each"),
        format!("at most {} nodes", GroupState::NODES_MAX),
        format!("at most {} bytes", GroupState::ADDRESS_BYTES_MAX),
        format!("Checkpoint version {CHECKPOINT_VERSION}."),
        format!("`{}`", str::from_utf8(&CHECKPOINT_MAGIC).unwrap()),
    ];
    for sentence in stated {
        assert!(DOCUMENT.contains(&sentence), "docs/format.md no longer says {sentence:?}");
    }
}
