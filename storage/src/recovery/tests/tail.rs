//! The rows of the table in `scan.rs`, and what comes after.

use super::*;
use crate::snapshot::Seen;
use crate::source::LogFile;

#[test]
fn empty_source_is_an_empty_log() {
    let report = recover(&SimDisk::new(1), &config(), &mut ()).unwrap().report;
    assert_eq!((report.segments, report.batches, report.end, report.cut), (0, 0, LogOffset(0), None));
}

#[test]
fn ready_segments_without_batches_are_an_empty_log() {
    let report = World::with(&[]).report();
    assert_eq!((report.segments, report.batches, report.end, report.cut), (3, 0, LogOffset(0), None));
}

#[test]
fn whole_log_is_taken_to_its_end() {
    let world = World::with(&[batch(1), batch(2), batch(3)]);
    let report = world.report();
    assert_eq!((report.batches, report.records, report.bytes), (3, 3, 3 * BLOCK));
    assert_eq!((report.end, report.cut), (LogOffset(3 * BLOCK), None));
}

#[test]
fn full_segment_goes_on_in_the_next() {
    let world = World::with(&(1..=11).map(batch).collect::<Vec<_>>());
    assert_eq!(world.ends_after(11), None);
}

#[test]
fn log_that_ends_with_its_segment_goes_on_in_the_next() {
    let world = World::with(&(1..=8).map(batch).collect::<Vec<_>>());
    assert_eq!(world.report().end, LogOffset(SEGMENT));
    assert_eq!(world.ends_after(8), None);
}

#[test]
fn roll_leaves_a_gap() {
    let rolled = Batch { block: 8, ..batch(3) };
    assert_eq!(World::with(&[batch(1), batch(2), rolled]).ends_after(3), None);
}

#[test]
fn gap_of_a_roll_may_hold_what_an_earlier_life_left() {
    let rolled = Batch { block: 8, term: 2, ..batch(3) };
    let world =
        World::with(&[batch(1), batch(2), batch(3), Batch { prev_term: 5, term: 5, ..batch(4) }, rolled]);
    world.tear(2);
    assert_eq!(world.ends_after(3), None);
}

#[test]
fn torn_body_at_the_end_is_cut() {
    let world = World::with(&[batch(1), batch(2), batch(3)]);
    world.tear(2);
    assert!(matches!(world.ends_after(2), Some(CutCause::Torn(_))));
    let cut = world.report().cut.unwrap();
    assert_eq!((cut.file, cut.position), (LogFile::Segment(LogOffset(0)).file_name(), 2 * BLOCK));
}

#[test]
fn torn_header_at_the_end_is_cut() {
    let world = World::with(&[batch(1), batch(2), batch(3)]);
    world.tear_header(2);
    assert!(matches!(world.ends_after(2), Some(CutCause::Torn(_))));
}

#[test]
fn what_a_recycled_file_held_before_is_no_batch_that_was_begun() {
    // The middle of a batch, and a whole one, both of another place.
    for left in [b"bytes of some record".to_vec(), Batch { block: 40, hint: 30, ..batch(41) }.encode()] {
        let world = World::with(&[batch(1), batch(2)]);
        (2..24).for_each(|block| world.put(block, &left));
        assert_eq!(world.ends_after(2), None);
        world.put(2, &batch(3).encode());
        assert_eq!(world.ends_after(3), None);
        world.tear(2);
        assert!(matches!(world.ends_after(2), Some(CutCause::Torn(_))));
    }
}

#[test]
fn what_a_recycled_file_held_before_hides_no_damage() {
    let world = World::with(&(1..=5).map(batch).collect::<Vec<_>>());
    world.put(2, &Batch { block: 40, hint: 30, ..batch(41) }.encode());
    assert!(matches!(world.recover(), Err(RecoveryError::Damaged { index: BatchIndex(3), .. })));
}

#[test]
fn roll_into_a_recycled_segment_is_followed() {
    let rolled = Batch { block: 8, ..batch(3) };
    let world = World::with(&[batch(1), batch(2), rolled]);
    let left = Batch { block: 40, hint: 30, ..batch(41) }.encode();
    (2..8).chain(9..24).for_each(|block| world.put(block, &left));
    assert_eq!(world.ends_after(3), None);
}

#[test]
fn long_batch_is_cut_wherever_it_is_torn() {
    let long = Batch { blocks: 3, ..batch(3) };
    for sector in 0..3 * BLOCK / 512 {
        let world = World::with(&[batch(1), batch(2), long]);
        world.put_at(2 * BLOCK + sector * 512, &[0; 512]);
        // Without its first sector nothing shows that a batch was begun; without its last only padding is missing.
        match (sector, world.report().cut) {
            (0, None) => assert_eq!(world.ends_after(2), None),
            (23, None) => assert_eq!(world.ends_after(3), None),
            (1..23, Some(cut)) => assert!(matches!(cut.cause, CutCause::Torn(_))),
            (_, cut) => panic!("sector {sector}: {cut:?}"),
        }
    }
}

#[test]
fn whole_batches_behind_a_torn_one_that_were_on_the_way_with_it_are_cut() {
    // Both were sealed while batch 2 was the last that was committed.
    let world = World::with(&[batch(1), batch(2), batch(3), Batch { hint: 2, ..batch(4) }]);
    world.tear(2);
    assert!(matches!(world.ends_after(2), Some(CutCause::Torn(_))));
    // The torn one's own header is whole, and counts.
    assert_eq!(world.report().cut.unwrap().batches_behind, 2);
    world.zero(2);
    assert_eq!(world.ends_after(2), None);
}

#[test]
fn later_batch_that_saw_the_torn_one_committed_proves_damage() {
    for tear in [World::tear, World::tear_header, World::zero] {
        let world = World::with(&[batch(1), batch(2), batch(3), batch(4), batch(5)]);
        tear(&world, 2);
        match world.recover() {
            Err(RecoveryError::Damaged { position, index, witness, witness_offset, committed, .. }) => {
                assert_eq!((position, index), (2 * BLOCK, BatchIndex(3)));
                assert_eq!((witness, witness_offset), (BatchIndex(4), LogOffset(3 * BLOCK)));
                assert_eq!(committed, BatchIndex(3));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn first_batch_of_all_is_no_exception() {
    let world = World::with(&[batch(1), batch(2)]);
    world.zero(0);
    assert!(matches!(world.recover(), Err(RecoveryError::Damaged { index: BatchIndex(1), .. })));
}

#[test]
fn proof_of_damage_is_found_in_the_next_segment() {
    let world = World::with(&(1..=10).map(batch).collect::<Vec<_>>());
    for block in 5..9 {
        world.zero(block);
    }
    match world.recover() {
        Err(RecoveryError::Damaged { index, witness, .. }) => {
            assert_eq!((index, witness), (BatchIndex(6), BatchIndex(10)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn proof_of_damage_is_found_at_the_start_of_any_segment() {
    let world = World::with(&(1..=18).map(batch).collect::<Vec<_>>());
    for block in 6..16 {
        world.zero(block);
    }
    assert!(matches!(world.recover(), Err(RecoveryError::Damaged { witness: BatchIndex(17), .. })));
}

#[test]
fn proof_of_damage_is_found_as_far_behind_as_the_write_window_reaches() {
    // Batch 9, the first of its segment, was durable only when the next segment had been begun.
    let hint_of = |index| if index < 19 { 8 } else { 9 };
    let late = (10..=20).map(|index| Batch { hint: hint_of(index), ..batch(index) });
    let world = World::with(&(1..=9).map(batch).chain(late).collect::<Vec<_>>());
    world.zero(8);
    match world.recover() {
        Err(RecoveryError::Damaged { index, witness, .. }) => {
            assert_eq!((index, witness), (BatchIndex(9), BatchIndex(19)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn stale_batch_behind_a_rewritten_one_is_cut() {
    // An earlier life, term 1, had 1 2 _ 4, and its 3 was torn; the next life wrote 3 anew and stopped.
    let rewritten = Batch { term: 2, ..batch(3) };
    let world = World::with(&[batch(1), batch(2), rewritten, Batch { hint: 2, ..batch(4) }]);
    assert_eq!(
        world.ends_after(3),
        Some(CutCause::Stale(Mismatch { field: "prev_term", expected: 2, found: 1 }))
    );
}

#[test]
fn next_term_is_greater_than_that_of_stale_batches() {
    // Term 2 wrote 3 and 4, of which only 4 came to the disk; nothing in the log itself tells of term 2.
    let world = World::with(&[batch(1), batch(2), Batch { term: 2, prev_term: 2, hint: 2, ..batch(4) }]);
    let recovered = world.recover().unwrap();
    assert_eq!(recovered.report.last_term, Term(1));
    assert_eq!(recovered.next_term(), Term(3));
}

#[test]
fn stale_batch_hides_no_term_that_was_written_into_it() {
    // Term 2 wrote a long batch 4; term 3 wrote 3, 4 and 5 in its place, of which only 5 came to the disk.
    let long = Batch { block: 3, term: 2, prev_term: 2, hint: 2, blocks: 4, ..batch(4) };
    let newer = Batch { term: 3, prev_term: 3, hint: 2, ..batch(5) };
    let world = World::with(&[batch(1), batch(2), long, newer]);
    assert_eq!(world.recover().unwrap().next_term(), Term(4));
}

#[test]
fn skipped_index_is_cut() {
    let world = World::with(&[batch(1), batch(2), Batch { block: 2, hint: 2, ..batch(4) }]);
    assert_eq!(
        world.ends_after(2),
        Some(CutCause::Stale(Mismatch { field: "index", expected: 3, found: 4 }))
    );
}

#[test]
fn newer_format_is_refused_wherever_it_stands() {
    for block in 0..2 {
        let world = World::with(&[batch(1), batch(2)]);
        let mut bytes = batch(block + 1).encode();
        bytes[4] = 3;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..BATCH_HEADER_LEN]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        world.put(block, &bytes);
        match world.recover() {
            Err(error @ RecoveryError::Version { position, .. }) => {
                assert_eq!(position, block * BLOCK);
                assert!(
                    error.to_string().contains("format version 3, written by a program that is newer"),
                    "{error}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn batch_of_another_group_is_refused() {
    let world = World::with(&[Batch { group: 8, ..batch(1) }]);
    let error = world.recover().unwrap_err();
    assert!(matches!(error, RecoveryError::ForeignGroup { found: GroupId(8), .. }), "{error}");
}

#[test]
fn queue_with_a_hole_is_refused() {
    let world = World::with(&[batch(1), Batch { queue_offset: 2, ..batch(2) }]);
    let error = world.recover().unwrap_err();
    assert!(error.to_string().contains("queue 3 has offset 2, expected 1"), "{error}");
}

#[test]
fn time_that_goes_back_is_refused() {
    let world = World::with(&[batch(1), Batch { store_time_ms: 999, ..batch(2) }]);
    assert!(matches!(
        world.recover(),
        Err(RecoveryError::Inconsistent { mismatch: Mismatch { field: "store_time", .. }, .. })
    ));
}

#[test]
fn batch_that_leaves_its_segment_is_refused() {
    let mut batches: Vec<_> = (1..=7).map(batch).collect();
    batches.push(batch(8));
    let world = World::with(&batches);
    let long = Batch { blocks: 2, ..batch(8) }.encode();
    world.put(7, &long[..BLOCK_LEN]);
    assert!(matches!(
        world.recover(),
        Err(RecoveryError::Inconsistent { mismatch: Mismatch { field: "length", .. }, .. })
    ));
}

#[test]
fn missing_segment_is_refused() {
    let world = World::with(&(1..=20).map(batch).collect::<Vec<_>>());
    world.remove_segment(1);
    let error = world.recover().unwrap_err();
    assert!(matches!(error, RecoveryError::Gap { expected: SEGMENT, .. }), "{error}");
}

#[test]
fn missing_first_segment_is_refused() {
    let world = World::with(&(1..=20).map(batch).collect::<Vec<_>>());
    world.remove_segment(0);
    let error = world.recover().unwrap_err();
    assert!(matches!(error, RecoveryError::NoIndexBefore { flaw: IndexFlaw::Missing, .. }), "{error}");
}

#[test]
fn segment_of_a_wrong_size_is_refused() {
    for bytes in [SEGMENT / 4, SEGMENT - 1] {
        let disk = SimDisk::new(1);
        disk.add_segment(SegmentInfo { base: LogOffset(0), bytes });
        let error = recover(&disk, &config(), &mut ()).unwrap_err();
        assert!(matches!(error, RecoveryError::SegmentSize { .. }), "{error}");
    }
}

#[test]
fn segments_keep_the_size_they_were_made_with() {
    let disk = SimDisk::new(1);
    disk.add_segment(SegmentInfo { base: LogOffset(0), bytes: SEGMENT });
    disk.add_segment(SegmentInfo { base: LogOffset(SEGMENT), bytes: 2 * SEGMENT });
    let world = World(disk);
    for index in 1..=12 {
        world.0.overwrite(
            LogOffset(if index <= 8 { 0 } else { SEGMENT }),
            if index <= 8 { (index - 1) * BLOCK } else { (index - 9) * BLOCK },
            &batch(index).encode(),
        );
    }
    assert_eq!(world.ends_after(12), None);
}

#[test]
fn what_was_read_is_durable_afterwards() {
    let world = World::with(&[batch(1)]);
    // Written by a process that was killed before it could sync.
    let mut buffer = SimDisk::alloc(BLOCK_LEN);
    buffer.as_mut().copy_from_slice(&batch(2).encode());
    world.0.submit(crate::disk::DiskOp::Write {
        id: crate::disk::OpId(1),
        index: BatchIndex(2),
        segment: LogOffset(0),
        position: BLOCK,
        buffer: std::rc::Rc::new(buffer),
        len: BLOCK_LEN as u32,
    });
    world.0.step().unwrap();
    world.0.kill();
    assert_eq!(world.ends_after(2), None);
    for _ in 0..10 {
        world.0.crash();
        assert_eq!(world.ends_after(2), None, "recovery called batch 2 committed");
    }
}

#[test]
fn damaged_byte_is_cut_or_refused_but_never_passed_on() {
    let control = |index| Batch { queue: QueueKey::CONTROL, ..batch(index) };
    let whole = [1, 2, 3].map(|byte| vec![byte; BLOCK_LEN - 1000]);
    // All of the header and directory, then here and there.
    let within = (0..200).chain((200..BLOCK).step_by(89));
    for at in within.flat_map(|within| [within, BLOCK + within, 2 * BLOCK + within]) {
        let world = World::with(&[control(1), control(2), control(3)]);
        world.0.flip_bit(LogOffset(0), at, (at % 8) as u8);
        let mut seen = Seen::default();
        match recover(&world.0, &config(), &mut seen) {
            // Nothing vouches for the last batch; see `docs/format.md`.
            Ok(recovered) => assert_eq!((at / BLOCK, recovered.report.batches), (2, 2)),
            Err(error) => assert!(matches!(error, RecoveryError::Damaged { .. }), "{error}"),
        }
        assert_eq!(seen.0, whole[..(at / BLOCK) as usize], "damaged at {at}");
    }
}
