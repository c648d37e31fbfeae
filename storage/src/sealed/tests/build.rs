//! What the job refuses, and how it reads.

use super::world::{New, World};
use crate::format::{BATCH_HEADER_LEN, BLOCK_LEN, BatchError, BatchHeader, HeaderError};
use crate::job_error::JobError;
use crate::sealed::{IndexError, IndexFault, SealJob, build_index, seal_segment};
use crate::source::LogFile;
use crate::types::{BatchIndex, GroupId, LogOffset, QueueKey, QueueOffset, Term};

const BLOCK: u64 = BLOCK_LEN as u64;

/// Three segments of three batches each, a block long.
fn world() -> World {
    let mut world = World::new();
    for _ in 0..3 {
        world.begin_segment();
        for queue in [1, 2, 1] {
            world.time_ms += 10;
            world.batch(&[New::of(queue, 100), New::of(9, 10)]);
        }
    }
    world
}

fn seal(world: &World, job: &SealJob) -> Result<(), JobError> {
    seal_segment(&world.shelf, job).map(drop)
}

/// Changes a batch's header in place and makes its checksum right again, as only a wrong writer would.
fn change_header(world: &World, at: LogOffset, change: impl FnOnce(&mut BatchHeader)) {
    use zerocopy::{FromBytes as _, IntoBytes as _};
    let mut segments = world.shelf.segments.borrow_mut();
    let (base, bytes) = segments.range_mut(..=at).next_back().unwrap();
    let bytes = &mut bytes[(at.0 - base.0) as usize..][..BATCH_HEADER_LEN];
    let header = BatchHeader::mut_from_bytes(bytes).unwrap();
    change(header);
    let bytes = header.as_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..]);
    header.header_crc.set(crc);
}

#[test]
fn job_must_fit_the_segment() {
    let world = world();
    seal(&world, &world.segments[0].job).unwrap();
    let good = &world.segments[1].job;
    let table: [(&str, SealJob); 4] = [
        ("group", SealJob { group: GroupId(8), ..good.clone() }),
        ("last_index", SealJob { first_index: BatchIndex(5), ..good.clone() }),
        ("last_term", SealJob { prev_term: Term(2), ..good.clone() }),
        ("segment end", {
            let mut job = good.clone();
            job.segment.base = job.segment.base.plus(BLOCK);
            job.end = job.end.plus(BLOCK);
            job
        }),
    ];
    for (expected, job) in table {
        match seal(&world, &job).unwrap_err() {
            JobError::Unexpected { file, field, .. } => {
                assert_eq!((file.as_str(), field), ("00000000000000000000.idx", expected));
            }
            other => panic!("{expected}: {other}"),
        }
    }
    // Without an index of a segment before, the batches themselves say that they are others.
    let first = &world.segments[0].job;
    let table: [(&str, SealJob); 5] = [
        ("group", SealJob { group: GroupId(8), ..first.clone() }),
        ("index", SealJob { first_index: BatchIndex(5), ..first.clone() }),
        ("prev_term", SealJob { prev_term: Term(1), ..first.clone() }),
        ("length", SealJob { end: LogOffset(3 * BLOCK - 1), ..first.clone() }),
        // As if the last batch had been left there by an earlier life.
        ("last_term", SealJob { last_term: Term(9), ..first.clone() }),
    ];
    for (expected, job) in table {
        match seal(&world, &job).unwrap_err() {
            JobError::Unexpected { file, field, .. } => {
                assert_eq!((file.as_str(), field), ("00000000000000000000.seg", expected));
            }
            other => panic!("{expected}: {other}"),
        }
    }
    assert_eq!(world.shelf.indexes.borrow().len(), 1, "what was refused left nothing");
}

#[test]
fn batches_must_follow_each_other() {
    type Change = fn(&mut BatchHeader);
    let table: [(&str, Change); 6] = [
        ("group", |header| header.group.set(8)),
        ("base_offset", |header| header.base_offset.set(0)),
        ("index", |header| header.index.set(3)),
        ("prev_term", |header| header.prev_term.set(0)),
        ("length", |header| header.length.set(u32::MAX)),
        ("store_time", |header| header.store_time.set(5)),
    ];
    for (expected, change) in table {
        let world = world();
        change_header(&world, LogOffset(BLOCK), change);
        match seal(&world, &world.segments[0].job).unwrap_err() {
            JobError::Unexpected { file, position, field, .. } => {
                assert_eq!((file.as_str(), position, field), ("00000000000000000000.seg", BLOCK, expected));
            }
            JobError::Batch {
                position: BLOCK,
                error: BatchError::Header(HeaderError::Field { field, .. }),
                ..
            } => {
                assert_eq!((field, expected), ("length", "length"));
            }
            other => panic!("{expected}: {other}"),
        }
    }
}

#[test]
fn batch_that_leaves_the_end_is_refused() {
    let mut world = World::new();
    world.begin_segment();
    world.batch(&[New::of(1, 5000)]);
    let job = SealJob { end: LogOffset(BLOCK), ..world.last().job.clone() };
    let error = seal(&world, &job).unwrap_err();
    let (expected, found) = (BLOCK, 2 * BLOCK);
    assert!(
        matches!(error, JobError::Unexpected { field: "length", expected: e, found: f, .. } if (e, f) == (expected, found)),
        "{error}"
    );
}

#[test]
fn time_between_batches_stays_within_what_an_entry_can_say() {
    let mut world = World::new();
    world.begin_segment();
    world.batch(&[New::of(1, 5)]);
    world.time_ms += i64::from(u32::MAX);
    world.batch(&[New::of(1, 5)]);
    seal(&world, &world.last().job).unwrap();
    world.time_ms += 1;
    world.batch(&[New::of(1, 5)]);
    let error = seal(&world, &world.last().job).unwrap_err();
    assert!(matches!(error, JobError::Unexpected { position: 8192, field: "store_time", .. }), "{error}");
}

#[test]
fn time_does_not_go_back_from_one_segment_to_the_next() {
    let mut world = World::new();
    world.begin_segment();
    world.batch(&[New::of(1, 5)]);
    seal(&world, &world.last().job).unwrap();
    world.begin_segment();
    world.time_ms -= 1;
    world.batch(&[New::of(1, 5)]);
    let error = seal(&world, &world.last().job).unwrap_err();
    assert!(matches!(error, JobError::Unexpected { position: 0, field: "store_time", .. }), "{error}");
}

#[test]
fn damaged_header_or_directory_is_named_and_damaged_records_are_not_read() {
    let directory = BATCH_HEADER_LEN as u64 + 3;
    let records = BATCH_HEADER_LEN as u64 + 2 * 40;
    for (within, refused) in [(3, true), (9, true), (100, true), (directory, true), (records, false)] {
        let world = world();
        let good = build_index(&world.shelf, &world.segments[0].job).unwrap();
        world.shelf.flip(LogOffset(0), 2 * BLOCK + within);
        match build_index(&world.shelf, &world.segments[0].job) {
            Ok(bytes) => assert!(!refused && bytes == good),
            Err(JobError::Batch { file, position, .. }) => {
                assert_eq!((file.as_str(), position, refused), ("00000000000000000000.seg", 2 * BLOCK, true));
            }
            Err(other) => panic!("{within}: {other}"),
        }
    }
}

#[test]
fn other_format_is_named() {
    let world = world();
    change_header(&world, LogOffset(BLOCK), |header| header.version.set(1));
    let error = seal(&world, &world.segments[0].job).unwrap_err().to_string();
    assert!(error.starts_with("00000000000000000000.seg at 4096: format version 1, older than"), "{error}");
}

#[test]
fn queue_with_a_hole_is_refused() {
    let world = world();
    // Of a log that does not begin with this segment, nothing is known of where its queues stood.
    let job = SealJob { previous: None, ..world.segments[1].job.clone() };
    match seal(&world, &job).unwrap_err() {
        JobError::QueueOffset { queue, expected, found, .. } => {
            assert_eq!((queue, expected, found), (QueueKey(1), QueueOffset(0), QueueOffset(2)));
        }
        other => panic!("{other}"),
    }
}

// The index of the segment before

#[test]
fn missing_index_of_the_segment_before_is_named() {
    let world = world();
    match seal(&world, &world.segments[1].job).unwrap_err() {
        JobError::Io { file, action, .. } => {
            assert_eq!((file.as_str(), action), ("00000000000000000000.idx", "map"));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn damaged_index_of_the_segment_before_is_named() {
    let world = world();
    seal(&world, &world.segments[0].job).unwrap();
    let good = world.shelf.indexes.borrow()[&LogOffset(0)].clone();
    let put = |bytes: Vec<u8>| world.shelf.indexes.borrow_mut().insert(LogOffset(0), bytes);
    let name = LogFile::Index(LogOffset(0)).file_name();
    for at in [0, 50, 4096, 8191] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        put(bad);
        let error = seal(&world, &world.segments[1].job).unwrap_err();
        assert!(matches!(&error, JobError::Index { file, .. } if *file == name), "{error}");
    }
    let mut bad = good.clone();
    bad[8192] ^= 1;
    put(bad);
    match seal(&world, &world.segments[1].job).unwrap_err() {
        JobError::IndexPage { file, fault: IndexFault::Damaged { page: 2, .. } } => assert_eq!(file, name),
        other => panic!("{other}"),
    }
    put(good[..5].to_vec());
    let error = seal(&world, &world.segments[1].job).unwrap_err();
    assert!(matches!(error, JobError::Index { error: IndexError::Short { found: 5 }, .. }), "{error}");
    assert!(!world.shelf.indexes.borrow().contains_key(&world.segments[1].job.segment.base));
}

#[test]
fn index_made_anew_is_the_same() {
    let world = world();
    world.seal();
    let before = world.shelf.indexes.borrow().clone();
    for segment in &world.segments {
        world.shelf.indexes.borrow_mut().remove(&segment.job.segment.base);
        seal(&world, &segment.job).unwrap();
    }
    assert!(before == *world.shelf.indexes.borrow());
}

// How much is read

#[test]
fn small_batches_are_read_in_large_pieces() {
    let mut world = World::new();
    world.begin_segment();
    (0..1000).for_each(|_| world.batch(&[New::of(1, 100)]));
    seal(&world, &world.last().job).unwrap();
    let reads = world.shelf.reads.borrow();
    let bytes: usize = reads.iter().map(|(_, len)| len).sum();
    assert_eq!(bytes, 1000 * BLOCK_LEN, "each byte is read once");
    assert_eq!(reads.len(), 4, "1 MiB at a time: {reads:?}");
}

#[test]
fn records_of_large_batches_are_skipped() {
    let mut world = World::new();
    world.begin_segment();
    (0..20).for_each(|_| world.batch(&vec![New::of(1, 1000); 250]));
    seal(&world, &world.last().job).unwrap();
    let reads = world.shelf.reads.borrow();
    let bytes: usize = reads.iter().map(|(_, len)| len).sum();
    // The first piece is large, as nothing is known yet.
    assert!(bytes < (1 << 20) + 20 * (16 << 10) + 1, "{bytes} of {}", world.last().job.end);
    assert!(reads.len() <= 21, "{reads:?}");
}

#[test]
fn directory_longer_than_what_is_read_of_a_batch_is_read_whole() {
    let mut world = World::new();
    world.begin_segment();
    world.batch(&vec![New::of(1, 1000); 250]);
    (0..10).for_each(|_| world.batch(&vec![New::of(1, 200); 2000]));
    let index = seal_segment(&world.shelf, &world.last().job).unwrap();
    assert_eq!(index.summary().entries, 250 + 10 * 2000);
}
