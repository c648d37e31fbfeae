//! Index files that are not what was written.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::{FromBytes as _, IntoBytes as _};

use super::questions::ask_everything;
use super::world::{New, World};
use crate::sealed::layout::{INDEX_HEADER_LEN, IndexHeader, PAGE_LEN};
use crate::sealed::reader::header_crc;
use crate::sealed::{Access, IndexError, IndexFault, SealedIndex};

/// A small log in which each section of the index has rows.
fn world() -> World {
    let mut world = World::new();
    world.begin_segment();
    for nth in 0..4u64 {
        world.time_ms += nth as i64;
        let mut records = vec![New::of(1, 20), New::of(1, 30), New::of(5, 7)];
        records[0].keys = vec![9, 1_000_000 + nth as u32];
        records[2].keys = vec![9];
        world.batch(&records);
    }
    world
}

fn bytes_of(world: &World) -> Vec<u8> {
    world.seal();
    world.shelf.indexes.borrow()[&world.last().job.segment.base].clone()
}

fn open(bytes: &[u8]) -> Result<SealedIndex, IndexError> {
    SealedIndex::open(Arc::new(bytes.to_vec()))
}

/// Changes the header and makes its checksum right again, as only a wrong writer would.
fn with_header(mut bytes: Vec<u8>, change: impl FnOnce(&mut IndexHeader)) -> Vec<u8> {
    let header = IndexHeader::mut_from_bytes(&mut bytes[..INDEX_HEADER_LEN]).unwrap();
    change(header);
    let crc = header_crc(&bytes[..PAGE_LEN]);
    IndexHeader::mut_from_bytes(&mut bytes[..INDEX_HEADER_LEN]).unwrap().header_crc.set(crc);
    bytes
}

#[test]
fn every_flipped_byte_is_found_by_whoever_touches_it() {
    let world = world();
    let good = bytes_of(&world);
    let sections = Range { start: 2 * PAGE_LEN, end: good.len() };
    assert_eq!(sections.len(), 4 * PAGE_LEN, "header, page table, a page for each section");
    let mut pages_that_faulted = [0; 6];
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let page = at / PAGE_LEN;
        let opened = open(&bad);
        if !sections.contains(&at) {
            assert!(opened.is_err(), "byte {at} turned over and nobody saw");
            continue;
        }
        let index = opened.unwrap_or_else(|error| panic!("byte {at}: {error}"));
        let of_the_page = |fault: &IndexFault| {
            matches!(fault, IndexFault::Damaged { page: found, expected, found: crc, .. }
                if *found as usize == page && expected != crc)
        };
        let fault = index.view(Access::Blocking).verify_all().unwrap_err();
        assert!(of_the_page(&fault), "byte {at}: {fault}");
        // All of the rows, and here and there what is behind them.
        if at % PAGE_LEN > 256 && at % 17 != 0 {
            continue;
        }
        // Wrong answers panic.
        ask_everything(world.last(), index.view(Access::Resident), &mut |fault| {
            assert!(of_the_page(&fault), "byte {at}: {fault}");
            pages_that_faulted[page] += 1;
        });
    }
    assert!(pages_that_faulted[2..].iter().all(|faults| *faults >= 400), "{pages_that_faulted:?}");
}

#[test]
fn load_finds_damage_too() {
    let mut bad = bytes_of(&world());
    bad[3 * PAGE_LEN] ^= 1;
    let index = open(&bad).unwrap();
    let page = |nth: usize| (nth * PAGE_LEN) as u64..((nth + 1) * PAGE_LEN) as u64;
    assert!(matches!(index.load(page(3)), Err(IndexFault::Damaged { page: 3, .. })));
    index.load(page(2)).unwrap();
    index.load(0..10).unwrap();
    index.load(u64::MAX - 1..u64::MAX).unwrap();
    assert!(index.load(0..u64::MAX).is_err());
}

#[test]
fn every_cut_is_noticed() {
    let good = bytes_of(&world());
    for len in (0..good.len()).step_by(61).chain([0, PAGE_LEN, good.len() - PAGE_LEN, good.len() - 1]) {
        match open(&good[..len]).unwrap_err() {
            IndexError::Short { found } => assert!(found == len as u64 && len < PAGE_LEN),
            IndexError::Length { expected, found } => {
                assert_eq!((expected, found), (good.len() as u64, len as u64));
            }
            other => panic!("cut to {len}: {other}"),
        }
    }
    let mut longer = good.clone();
    longer.resize(good.len() + PAGE_LEN, 0);
    assert!(matches!(open(&longer), Err(IndexError::Length { .. })));
}

#[test]
fn foreign_file_is_no_index() {
    for foreign in [vec![0; 3 * PAGE_LEN], vec![0xee; 3 * PAGE_LEN], b"APGB".repeat(2 * PAGE_LEN)] {
        let error = open(&foreign).unwrap_err();
        assert!(matches!(error, IndexError::Magic { .. }), "{error}");
    }
}

#[test]
fn other_version_is_told_from_damage() {
    let good = bytes_of(&world());
    for (version, age) in [(0, "older"), (2, "newer")] {
        let error = open(&with_header(good.clone(), |header| header.version.set(version))).unwrap_err();
        assert_eq!(error, IndexError::Version { found: version });
        assert!(error.to_string().contains(age), "{error}");
    }
    let mut damaged = good;
    damaged[4] = 2;
    assert!(matches!(open(&damaged), Err(IndexError::HeaderCrc { .. })));
}

#[test]
fn impossible_headers_are_refused_by_field() {
    type Change = fn(&mut IndexHeader);
    let table: [(&str, Change); 12] = [
        ("header_len", |header| header.header_len.set(111)),
        ("segment", |header| header.segment.set(1)),
        ("segment_bytes", |header| header.segment_bytes.set(0)),
        ("segment_bytes", |header| header.segment_bytes.set((1 << 32) + 4096)),
        ("segment_bytes", |header| header.segment.set(0u64.wrapping_sub(4096))),
        ("end", |header| header.end.set(header.segment.get())),
        ("end", |header| header.end.set(header.segment_bytes.get() + 4096)),
        ("first_index", |header| header.first_index.set(0)),
        ("last_index", |header| header.last_index.set(0)),
        ("batches", |header| header.batches.set(5)),
        ("prev_term", |header| header.prev_term.set(9)),
        ("last_time", |header| header.last_time.set(header.first_time.get() + (1 << 32))),
    ];
    let good = bytes_of(&world());
    for (expected, change) in table {
        match open(&with_header(good.clone(), change)) {
            Err(IndexError::Field { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    // Counts decide on the length; the page table's own checksum is the last word.
    let more = with_header(good.clone(), |header| header.entries.set(100_000));
    assert!(matches!(open(&more), Err(IndexError::Length { .. })));
    let other = with_header(good, |header| header.table_crc.set(0));
    assert!(matches!(open(&other), Err(IndexError::TableCrc { expected: 0, .. })));
}

#[test]
fn bytes_of_a_written_index_stay_what_they_are() {
    let bytes = bytes_of(&world());
    // Taken once from this version of the format; another value means that indexes written before are no longer readable.
    let hash = bytes.iter().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add((*byte).into()));
    assert_eq!(hash, GOLDEN_HASH, "{hash:#x}");
    let header = IndexHeader::read_from_bytes(&bytes[..INDEX_HEADER_LEN]).unwrap();
    assert_eq!(header.as_bytes()[..8], *b"APGI\x01\x00\x70\x00");
}

const GOLDEN_HASH: u64 = 0x8666_4063_dfc8_2933;
