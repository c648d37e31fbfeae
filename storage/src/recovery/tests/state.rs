//! The rows of the table in `state.rs`.

use super::*;

/// 45 batches, five sealed segments, snapshots at the ends of segments 1 and 3.
fn world() -> World {
    let world = World::sealed(5);
    world.snapshot(1, None);
    world.snapshot(3, Some(1));
    world
}

fn at(nth: u64) -> LogOffset {
    LogOffset((nth + 1) * SEGMENT)
}

/// The report, and that the state is what all control records come to.
#[track_caller]
fn recovers_state(world: &World) -> RecoveryReport {
    let (recovered, state) = world.recover_state().unwrap();
    assert_eq!(state, Journal::of(45));
    recovered.report
}

fn change_snapshot(world: &World, nth: u64, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = world.0.read_snapshot(at(nth)).unwrap();
    change(&mut bytes);
    world.0.write_snapshot(at(nth), &bytes).unwrap();
}

/// Puts the checksum right again.
fn reseal(bytes: &mut [u8]) {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn newest_snapshot_is_taken_and_only_what_is_behind_it_is_applied() {
    let world = world();
    let report = recovers_state(&world);
    assert_eq!((report.snapshot, report.control_records), (Some(at(3)), 3));
    assert_eq!(report.snapshots_refused, []);
}

#[test]
fn snapshot_at_the_end_of_the_log_is_all_there_is() {
    let world = world();
    world.snapshot(4, Some(3));
    (40..45).for_each(|block| world.zero(block));
    let (recovered, state) = world.recover_state().unwrap();
    assert_eq!((recovered.report.control_records, state), (0, Journal::of(40)));
}

#[test]
fn without_snapshots_all_control_records_are_applied() {
    let report = recovers_state(&World::sealed(5));
    assert_eq!((report.snapshot, report.control_records), (None, 11));
    let report = recovers_state(&World::sealed(0));
    assert_eq!((report.snapshot, report.control_records), (None, 11));
}

#[test]
fn snapshot_within_the_tail_counts_for_what_is_in_front_of_it() {
    let world = world();
    (2..5).for_each(|nth| world.remove_index(nth));
    let report = recovers_state(&world);
    assert_eq!((report.snapshot, report.sealed_segments, report.control_records), (Some(at(3)), 2, 3));
}

/// What a snapshot can be like, and what is said of it.
fn flaws() -> Vec<Flaw> {
    vec![
        ("checksum", |world, nth| change_snapshot(world, nth, |bytes| *bytes.last_mut().unwrap() ^= 1)),
        ("cannot hold the header of a snapshot", |world, nth| change_snapshot(world, nth, Vec::clear)),
        ("snapshot version 9, newer", |world, nth| {
            change_snapshot(world, nth, |bytes| {
                bytes[4] = 9;
                reseal(bytes);
            });
        }),
        ("snapshot version 0, older", |world, nth| {
            change_snapshot(world, nth, |bytes| {
                bytes[4] = 0;
                reseal(bytes);
            });
        }),
        ("group is 8, expected 7", |world, nth| {
            change_snapshot(world, nth, |bytes| {
                bytes[16] = 8;
                reseal(bytes);
            });
        }),
        ("position is", |world, nth| {
            change_snapshot(world, nth, |bytes| {
                bytes[25] ^= 0x10;
                reseal(bytes);
            });
        }),
        ("it does not fit the log: index is", |world, nth| {
            change_snapshot(world, nth, |bytes| {
                bytes[32] += 1;
                reseal(bytes);
            });
        }),
        ("it does not fit the log: term is", |world, nth| {
            change_snapshot(world, nth, |bytes| {
                bytes[40] += 1;
                reseal(bytes);
            });
        }),
        ("nonsense", |world, nth| {
            change_snapshot(world, nth, |bytes| {
                bytes.truncate(56);
                bytes.extend_from_slice(b"nonsense");
                bytes[48..56].copy_from_slice(&8u64.to_le_bytes());
                reseal(bytes);
            });
        }),
    ]
}

#[test]
fn older_snapshot_is_taken_when_the_newest_cannot_be_used() {
    for (flaw, change) in flaws() {
        let world = world();
        change(&world, 3);
        let (recovered, state) = world.recover_state().unwrap();
        assert_eq!(state, Journal::of(45), "{flaw}");
        assert_eq!(recovered.restored.archive.snapshots, [at(1)], "{flaw}: the other is none");
        let report = recovered.report;
        assert_eq!((report.snapshot, report.control_records), (Some(at(1)), 7), "{flaw}");
        let [refused] = &report.snapshots_refused[..] else { panic!("{flaw}: {report:?}") };
        assert_eq!(refused.file, crate::LogFile::Snapshot(at(3)).file_name());
        let said = refused.flaw.to_string();
        assert!(said.contains(flaw), "{said}");
    }
}

#[test]
fn older_snapshot_that_cannot_be_used_is_told_though_it_is_not_needed() {
    let world = world();
    change_snapshot(&world, 1, |bytes| bytes[30] ^= 1);
    let report = recovers_state(&world);
    assert_eq!((report.snapshot, report.snapshots_refused.len()), (Some(at(3)), 1));
}

#[test]
fn log_from_0_needs_no_snapshot_that_can_be_used() {
    let world = world();
    for nth in [1, 3] {
        change_snapshot(&world, nth, |bytes| bytes[30] ^= 1);
    }
    let report = recovers_state(&world);
    assert_eq!((report.snapshot, report.control_records), (None, 11));
    assert_eq!(report.snapshots_refused.len(), 2);
}

#[test]
fn log_that_begins_behind_0_needs_a_snapshot() {
    let world = world();
    (0..2).for_each(|nth| world.remove_segment(nth));
    assert_eq!(recovers_state(&world).snapshot, Some(at(3)));
    change_snapshot(&world, 3, |bytes| bytes[30] ^= 1);
    assert_eq!(recovers_state(&world).snapshot, Some(at(1)), "it ends where the log begins");
    change_snapshot(&world, 1, |bytes| bytes[30] ^= 1);
    let error = world.recover().unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, RecoveryError::NoSnapshot { .. }), "{text}");
    assert!(text.contains(&format!("begins at {}", 2 * SEGMENT)) && text.contains("checksum"), "{text}");
    for nth in [1, 3] {
        world.0.remove_snapshot(at(nth)).unwrap();
    }
    assert!(matches!(world.recover(), Err(RecoveryError::NoSnapshot { .. })));
}

#[test]
fn snapshot_in_front_of_a_gap_is_none() {
    let world = world();
    world.0.remove_snapshot(at(3)).unwrap();
    (0..3).for_each(|nth| world.remove_segment(nth));
    match world.recover().unwrap_err() {
        RecoveryError::NoSnapshot { refused, .. } => {
            assert!(refused[0].flaw.to_string().contains("index is 16, expected 24"), "{refused:?}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn snapshot_behind_the_end_proves_a_loss() {
    for damaged in [false, true] {
        let world = World::of(7, &(1..=45).map(of_queues).collect::<Vec<_>>());
        (0..5).for_each(|nth| world.seal(nth));
        let ahead = world.snapshot(4, None);
        (0..5).for_each(|nth| world.remove_index(nth));
        (4 * BLOCKS..7 * BLOCKS).for_each(|block| world.zero(block));
        if damaged {
            change_snapshot(&world, 4, |bytes| bytes[30] ^= 1);
        }
        match world.recover().unwrap_err() {
            RecoveryError::SnapshotAhead { file, end } => {
                assert_eq!(
                    (file, end),
                    (crate::LogFile::Snapshot(ahead).file_name(), LogOffset(4 * SEGMENT))
                );
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn snapshot_without_any_segment_proves_a_loss() {
    let world = world();
    (0..7).for_each(|nth| world.remove_segment(nth));
    (0..5).for_each(|nth| world.remove_index(nth));
    assert!(matches!(world.recover(), Err(RecoveryError::SnapshotAhead { end: LogOffset(0), .. })));
}

#[test]
fn damaged_control_record_behind_the_snapshot_is_refused() {
    // Batch 36 in segment 4.
    let world = world();
    world.tear(35);
    let text = world.recover_state().unwrap_err().to_string();
    let expected = format!("control record: {:020}.seg at 12288: records checksum", 4 * SEGMENT);
    assert!(text.starts_with(&expected) && text.contains("expected"), "{text}");
    // In front of it nobody needs it.
    let world = self::world();
    world.tear(31);
    recovers_state(&world);
}

#[test]
fn control_record_that_is_not_understood_is_refused() {
    for block in [35, 43] {
        let world = world();
        world.put(block, &Batch { queue_offset: block / 4, ..strange(block + 1) }.encode());
        let text = world.recover_state().unwrap_err().to_string();
        let expected = format!("control record: {:020}.seg at 12288: 99 behind", block / BLOCKS * SEGMENT);
        assert!(text.starts_with(&expected), "{text}");
    }
}

/// A batch of one control record of which no state is made.
fn strange(index: u64) -> Batch {
    Batch { fill: 99, ..of_queues(index) }
}
