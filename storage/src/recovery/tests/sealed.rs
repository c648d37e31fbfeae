//! The rows of the table in `sealed.rs`.

use super::*;

/// The report, and that the log is what it was: 45 batches, and the queues' ends and beginnings.
#[track_caller]
fn recovers_whole(world: &World) -> RecoveryReport {
    let (recovered, state) = world.recover_state().unwrap();
    let report = recovered.report;
    assert_eq!((report.last_index, report.end), (BatchIndex(45), LogOffset(45 * BLOCK)), "{report:?}");
    assert_eq!(state, Journal::of(45));
    let queues = &recovered.restored.queues;
    let tails = [12, 11, 11].into_iter().enumerate().map(|(queue, tail)| (QueueKey(queue as u64), tail));
    for (queue, tail) in tails.chain([(QueueKey::CONTROL, 11)]) {
        assert_eq!(queues.get(queue).unwrap().tail, QueueOffset(tail), "queue {queue}");
    }
    report
}

/// Why indexes were replaced, and how.
fn replaced(report: &RecoveryReport) -> Vec<(String, ReplacedBy)> {
    report.indexes_replaced.iter().map(|replaced| (replaced.file.clone(), replaced.by)).collect()
}

fn index_name(nth: u64) -> String {
    crate::LogFile::Index(LogOffset(nth * SEGMENT)).file_name()
}

#[test]
fn sealed_segments_are_not_read() {
    let world = World::sealed(5);
    // Nobody looks: not even the headers.
    (0..40).filter(|block| block % 4 != 3).for_each(|block| world.zero(block));
    let report = recovers_whole(&world);
    assert_eq!((report.segments, report.sealed_segments), (7, 5));
    assert_eq!((report.batches, report.records, report.bytes), (45, 45, 45 * BLOCK));
    assert_eq!(replaced(&report), []);
}

#[test]
fn reading_does_not_grow_with_the_sealed_part() {
    let read = [1, 3, 5].map(|sealed| {
        let world = World::of(7, &(1..=8 * sealed + 5).map(of_queues).collect::<Vec<_>>());
        (0..sealed).for_each(|nth| world.seal(nth));
        world.snapshot(sealed - 1, None);
        // As much behind the end in each.
        (sealed + 2..7).for_each(|nth| world.remove_segment(nth));
        let report = world.report();
        assert_eq!((report.sealed_segments as u64, report.control_records), (sealed, 1));
        report.bytes_read - report.snapshot.map_or(0, |at| at.0 / BLOCK / 4)
    });
    assert_eq!(read[0], read[1]);
    assert_eq!(read[0], read[2]);
}

#[test]
fn index_that_is_missing_in_the_middle_is_made_anew() {
    for missing in 0..4 {
        let world = World::sealed(5);
        let whole = world.index(missing);
        world.remove_index(missing);
        let report = recovers_whole(&world);
        assert_eq!(replaced(&report), [(index_name(missing), ReplacedBy::Rebuilt)]);
        assert_eq!(report.indexes_replaced[0].flaw, IndexFlaw::Missing);
        assert_eq!(world.index(missing).summary(), whole.summary());
        assert_eq!(replaced(&recovers_whole(&world)), [], "once is enough");
    }
}

#[test]
fn all_but_the_newest_index_are_made_anew() {
    let world = World::sealed(5);
    (0..4).for_each(|nth| world.remove_index(nth));
    let report = recovers_whole(&world);
    assert_eq!(replaced(&report), [0, 1, 2, 3].map(|nth| (index_name(nth), ReplacedBy::Rebuilt)));
    assert_eq!(report.sealed_segments, 5);
}

#[test]
fn newest_index_that_is_missing_leaves_its_segment_to_the_tail() {
    let world = World::sealed(5);
    world.remove_index(4);
    let report = recovers_whole(&world);
    assert_eq!(
        (report.sealed_segments, replaced(&report)),
        (4, vec![]),
        "it was not sealed, for all one can tell"
    );
}

/// What an index can be like besides missing.
fn flaws() -> Vec<Flaw> {
    vec![
        ("header", |world, nth| world.change_index(nth, |bytes| bytes[70] ^= 1)),
        ("page table", |world, nth| world.change_index(nth, |bytes| bytes[4096] ^= 1)),
        ("length", |world, nth| world.change_index(nth, |bytes| bytes.truncate(bytes.len() - 4096))),
        ("nothing in it", |world, nth| world.change_index(nth, Vec::clear)),
        ("version", |world, nth| {
            world.change_index(nth, |bytes| {
                bytes[4] = 9;
                let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..4096]);
                bytes[8..12].copy_from_slice(&crc.to_le_bytes());
            });
        }),
        ("of another segment", |world, nth| {
            let other = world.0.map_index(LogOffset((nth + 1) % 5 * SEGMENT)).unwrap();
            world.0.write_index(LogOffset(nth * SEGMENT), other.bytes()).unwrap();
        }),
        ("of another group", |world, nth| {
            let foreign = |index| Batch { group: 8, ..of_queues(index) };
            let other = World::of(7, &(1..=45).map(foreign).collect::<Vec<_>>());
            seal_as(&other, nth, GroupId(8));
            let foreign = other.0.map_index(LogOffset(nth * SEGMENT)).unwrap();
            world.0.write_index(LogOffset(nth * SEGMENT), foreign.bytes()).unwrap();
        }),
        ("of another life", |world, nth| {
            let other = |index| Batch { index: index + 3, prev_term: 1, ..of_queues(index) };
            let other = World::of(7, &(1..=45).map(other).collect::<Vec<_>>());
            seal_as(&other, nth, GROUP);
            let other = other.0.map_index(LogOffset(nth * SEGMENT)).unwrap();
            world.0.write_index(LogOffset(nth * SEGMENT), other.bytes()).unwrap();
        }),
    ]
}

/// Seals up to a segment, in a world of another kind.
fn seal_as(world: &World, upto: u64, group: GroupId) {
    for nth in 0..=upto {
        world.seal_as(nth, group);
    }
}

#[test]
fn index_that_cannot_be_used_is_made_anew() {
    for (flaw, change) in flaws() {
        for nth in 0..4 {
            let world = World::sealed(5);
            let whole = world.0.map_index(LogOffset(nth * SEGMENT)).unwrap();
            change(&world, nth);
            let report = recovers_whole(&world);
            assert_eq!(replaced(&report), [(index_name(nth), ReplacedBy::Rebuilt)], "{flaw}");
            let anew = world.0.map_index(LogOffset(nth * SEGMENT)).unwrap();
            assert!(whole.bytes() == anew.bytes(), "{flaw}");
            assert_eq!(replaced(&recovers_whole(&world)), [], "{flaw}: once is enough");
        }
    }
}

#[test]
fn newest_index_that_cannot_be_used_leaves_its_segment_to_the_tail() {
    for (flaw, change) in flaws() {
        let world = World::sealed(5);
        change(&world, 4);
        let report = recovers_whole(&world);
        assert_eq!(replaced(&report), [(index_name(4), ReplacedBy::Tail)], "{flaw}");
        assert_eq!(report.sealed_segments, 4, "{flaw}");
    }
}

#[test]
fn flaws_are_told_by_name() {
    let told: Vec<_> = flaws()
        .into_iter()
        .map(|(_, change)| {
            let world = World::sealed(5);
            change(&world, 2);
            world.report().indexes_replaced[0].flaw.to_string()
        })
        .collect();
    let expected = [
        "header checksum",
        "page table checksum",
        "bytes of an index of",
        "0 bytes cannot hold the header of an index",
        "index version 9, newer than the only one",
        "it belongs to the segment of 32768 bytes at 98304, not to that of 32768 at 65536",
        "it belongs to group 8, this log to group 7",
        "it does not follow the segment before: first_index is 20, expected 17",
    ];
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn damaged_page_is_found_when_it_is_needed() {
    // Queues of the first and the newest are asked for; behind the snapshot, entries and batches too.
    for (nth, from_end, is_met) in
        [(0, 4, true), (4, 4, true), (2, 4, false), (4, 1, true), (2, 1, false), (3, 3, true), (3, 2, false)]
    {
        let world = World::sealed(5);
        world.snapshot(0, None);
        world.snapshot(2, Some(0));
        world.change_index(nth, |bytes| {
            let at = bytes.len() - from_end * 4096;
            bytes[at] ^= 1;
        });
        let report = recovers_whole(&world);
        let expected = if is_met { vec![(index_name(nth), ReplacedBy::Rebuilt)] } else { vec![] };
        assert_eq!(replaced(&report), expected, "page {from_end} from the end of {nth}");
        assert_eq!(report.sealed_segments, 5);
    }
}

#[test]
fn index_with_an_illegible_one_before_is_made_from_one_made_anew() {
    let world = World::sealed(5);
    world.remove_index(3);
    for nth in [1, 2] {
        world.change_index(nth, |bytes| {
            let at = bytes.len() - 4 * 4096;
            bytes[at] ^= 1;
        });
    }
    let report = recovers_whole(&world);
    assert_eq!(replaced(&report), [1, 2, 3].map(|nth| (index_name(nth), ReplacedBy::Rebuilt)));
}

#[test]
fn damage_in_the_middle_is_told_when_the_index_is_missing_too() {
    // Batch 19 is the third in segment 2.
    for tear in [World::tear_header, World::zero] {
        let world = World::sealed(5);
        world.remove_index(2);
        tear(&world, 18);
        match world.recover().unwrap_err() {
            RecoveryError::SealedDamaged(damage) => {
                assert_eq!((damage.position, damage.index), (2 * BLOCK, BatchIndex(19)));
                let text = damage.to_string();
                assert!(
                    text.starts_with(&format!("{:020}.seg at 8192: batch 19 is damaged", 2 * SEGMENT)),
                    "{text}"
                );
                assert!(
                    text.contains(&format!("{} has to be made anew: it is missing", index_name(2))),
                    "{text}"
                );
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn damaged_directory_is_told_when_the_index_is_missing_too() {
    let world = World::sealed(5);
    world.remove_index(2);
    world.tear_directory(18);
    let text = world.recover().unwrap_err().to_string();
    let expected = format!("{:020}.seg at 8192: directory checksum", 2 * SEGMENT);
    assert!(text.starts_with(&expected) && text.contains("expected"), "{text}");
}

#[test]
fn damage_at_the_beginning_of_the_next_segment_is_told_as_that() {
    let world = World::sealed(5);
    world.remove_index(2);
    world.tear_header(24);
    match world.recover().unwrap_err() {
        RecoveryError::SealedDamaged(damage) => {
            let SealedDamage { file, position, index, .. } = *damage;
            assert_eq!((file, position), (crate::LogFile::Segment(LogOffset(3 * SEGMENT)).file_name(), 0));
            assert_eq!(index, BatchIndex(25));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn segment_that_lost_its_first_batch_is_told() {
    let world = World::sealed(5);
    world.remove_index(2);
    world.zero(16);
    match world.recover().unwrap_err() {
        RecoveryError::SealedDamaged(damage) => {
            assert_eq!((damage.position, damage.index), (0, BatchIndex(17)));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn damage_in_a_segment_with_its_index_is_left_to_readers() {
    let world = World::sealed(5);
    world.tear(17);
    recovers_whole(&world);
}

#[test]
fn damage_in_the_segment_of_a_missing_newest_index_is_refused() {
    let world = World::sealed(5);
    world.remove_index(4);
    world.tear(36);
    assert!(matches!(world.recover(), Err(RecoveryError::Damaged { index: BatchIndex(37), .. })));
}

#[test]
fn index_of_a_missing_segment_is_refused() {
    let world = World::sealed(5);
    for nth in (4..7).rev() {
        world.remove_segment(nth);
    }
    match world.recover().unwrap_err() {
        RecoveryError::SegmentMissing { file, index } => {
            assert_eq!((file, index), (format!("{:020}.seg", 4 * SEGMENT), index_name(4)));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn indexes_without_any_segment_are_refused() {
    let world = World::sealed(1);
    (0..7).for_each(|nth| world.remove_segment(nth));
    assert!(matches!(world.recover(), Err(RecoveryError::SegmentMissing { .. })));
}

#[test]
fn segment_missing_in_the_middle_of_the_sealed_part_is_a_gap() {
    let world = World::sealed(5);
    world.remove_segment(2);
    assert!(matches!(world.recover(), Err(RecoveryError::Gap { expected, .. }) if expected == 2 * SEGMENT));
}

#[test]
fn newest_sealed_segment_that_was_cut_short_is_refused() {
    let world = World::sealed(5);
    (4..7).for_each(|nth| world.remove_segment(nth));
    let short = SegmentInfo { base: LogOffset(4 * SEGMENT), bytes: SEGMENT / 2 };
    world.0.add_segment(short);
    match world.recover().unwrap_err() {
        RecoveryError::SegmentShort { bytes, sealed, .. } => {
            assert_eq!((bytes, sealed), (SEGMENT / 2, SEGMENT))
        }
        other => panic!("{other}"),
    }
}

#[test]
fn log_that_ends_with_its_sealed_part_goes_on_in_the_next_segment() {
    let world = World::sealed(5);
    (40..45).for_each(|block| world.zero(block));
    let report = world.report();
    assert_eq!((report.last_index, report.end), (BatchIndex(40), LogOffset(5 * SEGMENT)));
    // Sealed after a roll that left room: what is sealed takes no batch any more.
    let rolled = |index| Batch { block: index + 1, ..of_queues(index) };
    let world = World::of(3, &(1..=6).map(of_queues).chain((7..=9).map(rolled)).collect::<Vec<_>>());
    world.seal(0);
    assert_eq!(world.index(0).summary().end, LogOffset(6 * BLOCK));
    assert_eq!(world.report().end, LogOffset(11 * BLOCK));
    (8..11).for_each(|block| world.zero(block));
    let report = world.report();
    assert_eq!((report.last_index, report.end), (BatchIndex(6), LogOffset(SEGMENT)));
}

// A log that does not begin at 0

/// The first two segments have left, as retention lets them: with two snapshots behind them.
fn shortened() -> World {
    let world = World::sealed(5);
    world.snapshot(2, None);
    world.snapshot(3, Some(2));
    world.remove_segment(0);
    world.remove_segment(1);
    world.remove_index(0);
    world
}

#[test]
fn log_without_its_oldest_segments_is_whole() {
    let world = shortened();
    let report = recovers_whole(&world);
    assert_eq!(
        (report.begin, report.sealed_segments, report.indexes_removed),
        (LogOffset(2 * SEGMENT), 3, 0)
    );
    assert_eq!((report.batches, replaced(&report)), (29, vec![]));
    assert_eq!(world.0.indexes().unwrap().len(), 4, "the index in front of the log is kept");
}

#[test]
fn indexes_further_in_front_are_removed() {
    let world = shortened();
    let left = world.0.map_index(LogOffset(SEGMENT)).unwrap();
    world.0.write_index(LogOffset(0), left.bytes()).unwrap();
    assert_eq!(recovers_whole(&world).indexes_removed, 1);
    assert_eq!(world.0.indexes().unwrap()[0], LogOffset(SEGMENT));
}

#[test]
fn first_index_is_made_anew_from_the_one_in_front() {
    for (flaw, change) in flaws() {
        let world = shortened();
        change(&world, 2);
        let report = recovers_whole(&world);
        assert_eq!(replaced(&report).len(), 1, "{flaw}: {report:?}");
    }
}

#[test]
fn first_index_that_is_good_needs_none_in_front() {
    let world = shortened();
    world.remove_index(1);
    recovers_whole(&world);
}

#[test]
fn index_in_front_that_disagrees_with_the_segment_is_not_used() {
    let world = shortened();
    let (_, change) = flaws().into_iter().find(|(flaw, _)| *flaw == "of another life").unwrap();
    change(&world, 1);
    let recovered = world.recover().unwrap();
    assert_eq!(replaced(&recovered.report), []);
    assert_eq!(recovered.restored.archive.boundary, None);
    recovers_whole(&world);
}

#[test]
fn index_in_front_that_cannot_be_used_is_told_when_it_is_needed() {
    for (flaw, change) in flaws() {
        let world = shortened();
        change(&world, 1);
        world.remove_index(2);
        let error = world.recover().unwrap_err();
        // One of another life is found out by the segment.
        let is_told = matches!(error, RecoveryError::NoIndexBefore { .. } | RecoveryError::SealedDamaged(_));
        assert!(is_told, "{flaw}: {error}");
    }
}

#[test]
fn log_of_a_tail_only_begins_where_the_index_in_front_says() {
    let world = shortened();
    for nth in 2..5 {
        world.remove_index(nth);
    }
    let report = recovers_whole(&world);
    assert_eq!((report.sealed_segments, report.batches), (0, 29));
}

#[test]
fn minima_are_where_the_oldest_segment_begins() {
    let recovered = shortened().recover().unwrap();
    let queues = &recovered.restored.queues;
    for queue in [QueueKey(0), QueueKey(1), QueueKey(2), QueueKey::CONTROL] {
        // 16 batches in front, a quarter of them in each queue.
        assert_eq!(queues.get(queue).unwrap().min, QueueOffset(4), "queue {queue}");
    }
}

#[test]
fn interrupted_recovery_is_begun_anew() {
    for calls in 0..60 {
        let world = World::sealed(5);
        (1..4).for_each(|nth| world.remove_index(nth));
        world.0.die_after(calls);
        let _ = world.recover();
        world.0.kill();
        recovers_whole(&world);
    }
}
