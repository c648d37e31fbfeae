//! A snapshot is what replaying the log comes to, whole, or an error.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::file::{SNAPSHOT_HEADER_LEN, SnapshotHeader};
use super::*;
use crate::format::{BATCH_HEADER_LEN, BLOCK_LEN, BatchError};
use crate::job_error::JobError;
use crate::sealed::tests::world::{GROUP, New, World};
use crate::sealed::{IndexFault, SealedIndex};
use crate::source::{LogFile, LogSource as _};
use crate::types::{BatchIndex, GroupId, LogOffset, QueueKey, Term};

/// Remembers every control record with its place, so that one left out, twice or out of order shows.
#[derive(Default)]
struct Journal(Vec<u8>);

impl DerivedState for Journal {
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        if snapshot.first() == Some(&b'?') {
            return Err("cannot read this".to_owned());
        }
        self.0 = snapshot.to_vec();
        Ok(())
    }

    fn apply(&mut self, at: LogOffset, control_record: &[u8]) -> Result<(), String> {
        if control_record == b"bad" {
            return Err("bad record".to_owned());
        }
        self.0.extend(format!("{at}:").bytes().chain(control_record.iter().copied()).chain(*b";"));
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        self.0.clone()
    }
}

/// What direct replay of the first segments comes to.
fn replayed(world: &World, segments: usize) -> Vec<u8> {
    let mut journal = Journal::default();
    for record in world.segments[..segments].iter().flat_map(|segment| &segment.records) {
        if record.queue == QueueKey::CONTROL {
            journal.apply(record.entry.log_offset, &record.bytes).unwrap();
        }
    }
    journal.encode()
}

fn job(previous: Option<LogOffset>, segments: &[Arc<SealedIndex>]) -> SnapshotJob {
    let at = segments.last().unwrap().summary().end;
    SnapshotJob { group: GROUP, previous, segments: segments.to_vec(), at }
}

fn take(world: &World, job: &SnapshotJob) -> Result<SnapshotTaken, JobError> {
    take_snapshot(&world.shelf, job, Box::new(Journal::default()))
}

fn read(world: &World, at: LogOffset) -> Result<Snapshot, SnapshotError> {
    read_snapshot(&world.shelf, GROUP, at)
}

/// Segments of batches, each with the control records given and some others.
fn world(segments: &[Vec<Vec<Vec<u8>>>]) -> World {
    let mut world = World::new();
    for batches in segments {
        world.begin_segment();
        for control in batches {
            world.term.0 += 1;
            let mut records = vec![New::of(1, 100)];
            records.extend(control.iter().map(|bytes| New::control(bytes)));
            world.batch(&records);
        }
    }
    world
}

/// Three segments with three batches of one control record each.
fn small() -> World {
    let batch = |text: &str| vec![text.as_bytes().to_vec()];
    let segment = |name: &str| ["1", "2", "3"].map(|nth| batch(&format!("{name}{nth}"))).to_vec();
    world(&["a", "b", "c"].map(segment))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn snapshot_is_what_direct_replay_comes_to(
        segments in vec(vec(vec(vec(any::<u8>(), 1..200), 0..5), 1..8), 1..5),
        every in 1..4usize,
    ) {
        let world = world(&segments);
        let sealed = world.seal();
        let mut previous = None;
        let mut upto = 0;
        while upto < sealed.len() {
            let next = (upto + every).min(sealed.len());
            let job = job(previous, &sealed[upto..next]);
            let taken = take(&world, &job).unwrap();
            let snapshot = read(&world, job.at).unwrap();
            prop_assert_eq!(&snapshot.body, &replayed(&world, next));
            let last = &world.segments[next - 1];
            prop_assert_eq!((snapshot.at, snapshot.group), (job.at, GROUP));
            prop_assert_eq!((snapshot.index, snapshot.term), (last.last_index, last.last_term));
            prop_assert_eq!(taken.bytes, (SNAPSHOT_HEADER_LEN + snapshot.body.len()) as u64);
            let new = world.segments[upto..next].iter().flat_map(|segment| segment.of_queue(QueueKey::CONTROL));
            prop_assert_eq!(taken.control_records, new.count() as u64);
            previous = Some(job.at);
            upto = next;
        }
    }
}

#[test]
fn newest_stays_and_the_one_it_was_made_from() {
    let world = small();
    let sealed = world.seal();
    // What an earlier life left, not known to be good.
    world.shelf.write_snapshot(LogOffset(4096), b"damaged").unwrap();
    let mut previous = None;
    for nth in 0..3 {
        let job = job(previous, &sealed[nth..=nth]);
        take(&world, &job).unwrap();
        let kept: Vec<LogOffset> = previous.into_iter().chain([job.at]).collect();
        assert_eq!(world.shelf.snapshots().unwrap(), kept);
        previous = Some(job.at);
    }
}

#[test]
fn damaged_newest_snapshot_is_replaced_starting_from_the_older() {
    let world = small();
    let sealed = world.seal();
    let older = job(None, &sealed[..1]);
    take(&world, &older).unwrap();
    world.shelf.write_snapshot(sealed[1].summary().end, b"damaged").unwrap();
    let newest = job(Some(older.at), &sealed[1..]);
    take(&world, &newest).unwrap();
    assert_eq!(world.shelf.snapshots().unwrap(), [older.at, newest.at]);
    assert_eq!(read(&world, newest.at).unwrap().body, replayed(&world, 3));
}

// Files that are not what was written

fn taken() -> (World, LogOffset, Vec<u8>) {
    let world = small();
    let job = job(None, &world.seal());
    take(&world, &job).unwrap();
    let bytes = world.shelf.read_snapshot(job.at).unwrap();
    (world, job.at, bytes)
}

#[test]
fn every_flipped_byte_is_noticed() {
    let (world, at, good) = taken();
    for byte in 0..good.len() {
        let mut bad = good.clone();
        bad[byte] ^= 1 << (byte % 8);
        world.shelf.write_snapshot(at, &bad).unwrap();
        assert!(read(&world, at).is_err(), "byte {byte} turned over and nobody saw");
    }
}

#[test]
fn every_cut_and_every_extension_is_noticed() {
    let (world, at, good) = taken();
    for len in 0..good.len() {
        world.shelf.write_snapshot(at, &good[..len]).unwrap();
        let error = read(&world, at).unwrap_err();
        match error {
            SnapshotError::Short { found } => {
                assert_eq!((found, len < SNAPSHOT_HEADER_LEN), (len as u64, true))
            }
            SnapshotError::Crc { .. } => {}
            other => panic!("cut to {len}: {other}"),
        }
    }
    world.shelf.write_snapshot(at, &[&good[..], &[0]].concat()).unwrap();
    assert!(matches!(read(&world, at), Err(SnapshotError::Crc { .. })));
}

/// Changes the header and makes the checksum right again, as only another writer would.
fn with_header(mut bytes: Vec<u8>, change: impl FnOnce(&mut SnapshotHeader)) -> Vec<u8> {
    use zerocopy::FromBytes as _;
    change(SnapshotHeader::mut_from_bytes(&mut bytes[..SNAPSHOT_HEADER_LEN]).unwrap());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn foreign_files_are_named_for_what_they_are() {
    type Change = fn(&mut SnapshotHeader);
    let (world, at, good) = taken();
    let fields: [(&str, Change); 5] = [
        ("group", |header| header.group.set(8)),
        ("position", |header| header.position.set(4096)),
        ("header_len", |header| header.header_len.set(60)),
        ("reserved", |header| header.reserved.set(1)),
        ("body_len", |header| header.body_len.set(1 << 40)),
    ];
    for (expected, change) in fields {
        world.shelf.write_snapshot(at, &with_header(good.clone(), change)).unwrap();
        match read(&world, at) {
            Err(SnapshotError::Field { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    for (version, age) in [(0, "older"), (2, "newer")] {
        let other = with_header(good.clone(), |header| header.version.set(version));
        world.shelf.write_snapshot(at, &other).unwrap();
        let error = read(&world, at).unwrap_err();
        assert_eq!(error, SnapshotError::Version { found: version });
        assert!(error.to_string().contains(age), "{error}");
    }
    world.shelf.write_snapshot(at, &[0; 200]).unwrap();
    assert!(matches!(read(&world, at), Err(SnapshotError::Magic { .. })));
    world.shelf.remove_snapshot(at).unwrap();
    assert!(matches!(read(&world, at), Err(SnapshotError::Io { .. })));
}

#[test]
fn bytes_of_a_written_snapshot_stay_what_they_are() {
    let (group, at) = (GroupId(9), LogOffset(3 * 4096));
    let snapshot = Snapshot { group, at, index: BatchIndex(5), term: Term(2), body: b"state".to_vec() };
    let bytes = snapshot.encode().unwrap();
    let hash = bytes.iter().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add((*byte).into()));
    // Taken once from this version of the format; another value means that snapshots written before are no longer readable.
    assert_eq!(hash, GOLDEN_HASH, "{hash:#x}");
    assert_eq!(bytes[..8], *b"APGS\x01\x00\x38\x00");
    assert_eq!(Snapshot::decode(bytes).unwrap(), snapshot);
}

const GOLDEN_HASH: u64 = 0xcdb1_c73e_ab67_c6f4;

// What the job refuses

#[test]
fn segments_must_follow_the_snapshot_and_each_other() {
    let world = small();
    let sealed = world.seal();
    take(&world, &job(None, &sealed[..1])).unwrap();
    let first = sealed[0].summary().end;
    let table = [
        ("first_index", job(None, &sealed[1..])),
        ("first_index", job(Some(first), &sealed[2..])),
        ("first_index", job(Some(first), &sealed[..1])),
        (
            "first_index",
            SnapshotJob { at: sealed[2].summary().end, ..job(None, &[sealed[0].clone(), sealed[2].clone()]) },
        ),
        ("group", SnapshotJob { group: GroupId(8), ..job(None, &sealed) }),
    ];
    for (expected, job) in table {
        match take(&world, &job) {
            Err(JobError::Unexpected { field, .. }) => assert_eq!(field, expected),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.shelf.snapshots().unwrap(), [first], "what was refused left nothing");
}

#[test]
fn snapshot_that_the_job_starts_from_must_be_good() {
    let world = small();
    let sealed = world.seal();
    let first = job(None, &sealed[..1]);
    take(&world, &first).unwrap();
    let good = world.shelf.read_snapshot(first.at).unwrap();
    let next = job(Some(first.at), &sealed[1..]);
    let mut bad = good.clone();
    bad[60] ^= 1;
    world.shelf.write_snapshot(first.at, &bad).unwrap();
    match take(&world, &next) {
        Err(JobError::Snapshot { file, error: SnapshotError::Crc { .. }, .. }) => {
            assert_eq!(file, LogFile::Snapshot(first.at).file_name());
        }
        other => panic!("{other:?}"),
    }
    world.shelf.write_snapshot(first.at, &with_body(good, b"?")).unwrap();
    let error = take(&world, &next).unwrap_err();
    assert!(matches!(&error, JobError::State { message, .. } if message == "cannot read this"), "{error}");
    assert_eq!(world.shelf.snapshots().unwrap(), [first.at]);
}

fn with_body(bytes: Vec<u8>, body: &[u8]) -> Vec<u8> {
    let mut bytes = bytes[..SNAPSHOT_HEADER_LEN].to_vec();
    bytes.extend(body);
    with_header(bytes, |header| header.body_len.set(body.len() as u64))
}

#[test]
fn control_record_that_is_refused_is_named() {
    let world = world(&[vec![vec![b"good".to_vec()], vec![b"bad".to_vec()]]]);
    let job = job(None, &world.seal());
    let error = take(&world, &job).unwrap_err();
    assert_eq!(error.to_string(), "00000000000000000000.seg at 4096: bad record");
    assert!(world.shelf.snapshots().unwrap().is_empty());
}

#[test]
fn damaged_control_record_never_enters_a_snapshot() {
    let world = small();
    let sealed = world.seal();
    let records = (BATCH_HEADER_LEN + 2 * 40) as u64;
    // The record, another queue's record in the same batch, and its padding: no byte of the batch is believed.
    for within in [records, records + 101, 4000] {
        world.shelf.flip(LogOffset(0), BLOCK_LEN as u64 + within);
        match take(&world, &job(None, &sealed)) {
            Err(JobError::Batch { file, position, error: BatchError::RecordsCrc { .. } }) => {
                assert_eq!((file.as_str(), position), ("00000000000000000000.seg", BLOCK_LEN as u64));
            }
            other => panic!("{other:?}"),
        }
        assert!(world.shelf.snapshots().unwrap().is_empty());
        world.shelf.flip(LogOffset(0), BLOCK_LEN as u64 + within);
    }
    take(&world, &job(None, &sealed)).unwrap();
}

#[test]
fn batches_of_another_place_are_not_taken_for_the_segments_own() {
    let world = small();
    let sealed = world.seal();
    // A misdirected write: the third batch stands where the second did.
    let mut segments = world.shelf.segments.borrow_mut();
    segments.get_mut(&LogOffset(0)).unwrap().copy_within(2 * BLOCK_LEN..3 * BLOCK_LEN, BLOCK_LEN);
    drop(segments);
    match take(&world, &job(None, &sealed)) {
        Err(JobError::Unexpected { position, field, .. }) => {
            assert_eq!((position, field), (BLOCK_LEN as u64, "base_offset"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn damaged_index_is_named() {
    let world = small();
    world.seal();
    let mut bytes = world.shelf.indexes.borrow()[&LogOffset(0)].clone();
    // The first page of entries.
    bytes[3 * 4096] ^= 1;
    let index = Arc::new(SealedIndex::open(Arc::new(bytes)).unwrap());
    match take(&world, &job(None, &[index])) {
        Err(JobError::IndexPage { file, fault: IndexFault::Damaged { page: 3, .. } }) => {
            assert_eq!(file, "00000000000000000000.idx");
        }
        other => panic!("{other:?}"),
    }
}

// How much is read

#[test]
fn neighbouring_batches_are_read_in_one_piece_and_others_skipped() {
    let mut world = World::new();
    world.begin_segment();
    let control = |world: &mut World| world.batch(&[New::control(b"c"), New::control(b"d")]);
    (0..100).for_each(|_| control(&mut world));
    (0..10).for_each(|_| world.batch(&[New::of(1, 50_000)]));
    // Two with little between them.
    control(&mut world);
    world.batch(&[New::of(1, 100)]);
    control(&mut world);
    (0..600).for_each(|_| control(&mut world));
    let job = job(None, &world.seal());
    world.shelf.reads.borrow_mut().clear();
    let taken = take(&world, &job).unwrap();
    assert_eq!(taken.control_records, 2 * 702);
    assert_eq!(read(&world, job.at).unwrap().body, replayed(&world, 1));
    let reads = world.shelf.reads.borrow();
    let block = BLOCK_LEN as u64;
    let second = (100 + 10 * 13) * block;
    // No piece is longer than 1 MiB.
    let expected = [
        (0, 100 * BLOCK_LEN),
        (second, 256 * BLOCK_LEN),
        (second + 256 * block, 256 * BLOCK_LEN),
        (second + 512 * block, (603 - 512) * BLOCK_LEN),
    ];
    assert_eq!(*reads, expected);
}

#[test]
fn large_batch_is_read_whole() {
    let world = world(&[vec![vec![vec![5; 3 << 20]], vec![b"x".to_vec()]]]);
    let job = job(None, &world.seal());
    take(&world, &job).unwrap();
    assert_eq!(read(&world, job.at).unwrap().body, replayed(&world, 1));
}
