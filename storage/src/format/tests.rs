//! A batch is taken whole or not at all, whatever the bytes are.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::types::{BatchIndex, GroupId, LogOffset, NodeId, QueueKey, QueueOffset, Term};

#[derive(Clone, Debug)]
struct Sample {
    queue: u64,
    queue_offset: u64,
    tag_hash: i32,
    key_hashes: Vec<u32>,
    bytes: Vec<u8>,
}

fn fields() -> BatchFields {
    BatchFields {
        kind: BatchKind::Records,
        group: GroupId(9),
        leader: NodeId(2),
        term: Term(5),
        index: BatchIndex(11),
        prev_term: Term(4),
        base_offset: LogOffset(3 * BLOCK_LEN as u64),
        commit_hint: BatchIndex(10),
        store_time_ms: 1_700_000_000_000,
    }
}

fn encode(samples: &[Sample], fields: BatchFields) -> Vec<u8> {
    let mut layout = BatchLayout::default();
    for sample in samples {
        layout.add(sample.bytes.len() as u32, sample.key_hashes.len());
    }
    // Not zeros: what a reused buffer held must not show.
    let mut buffer = vec![0xa5; layout.batch_len()];
    let mut writer = BatchWriter::new(&mut buffer, layout, fields);
    for sample in samples {
        let entry = NewEntry {
            queue: QueueKey(sample.queue),
            queue_offset: QueueOffset(sample.queue_offset),
            tag_hash: sample.tag_hash,
            key_hashes: &sample.key_hashes,
            size: sample.bytes.len() as u32,
        };
        writer.push(entry, |_, out| out.copy_from_slice(&sample.bytes));
    }
    writer.finish();
    buffer
}

fn decode(bytes: &[u8]) -> Result<Vec<Sample>, BatchError> {
    let batch = RawBatch(bytes).verify()?;
    let samples = batch.entries().map(|entry| Sample {
        queue: entry.queue.0,
        queue_offset: entry.queue_offset.0,
        tag_hash: entry.tag_hash,
        key_hashes: entry.key_hashes.iter().map(|hash| hash.get()).collect(),
        bytes: entry.record.to_vec(),
    });
    Ok(samples.collect())
}

fn two_records() -> Vec<u8> {
    let one =
        Sample { queue: 1, queue_offset: 7, tag_hash: -3, key_hashes: vec![1, 2], bytes: b"first".to_vec() };
    let two =
        Sample { queue: 2, queue_offset: 0, tag_hash: 0, key_hashes: vec![], bytes: b"second".to_vec() };
    encode(&[one, two], fields())
}

fn sample() -> impl Strategy<Value = Sample> {
    let hashes = vec(any::<u32>(), 0..4);
    (any::<u64>(), any::<u64>(), any::<i32>(), hashes, vec(any::<u8>(), 1..3000)).prop_map(
        |(queue, queue_offset, tag_hash, key_hashes, bytes)| Sample {
            queue,
            queue_offset,
            tag_hash,
            key_hashes,
            bytes,
        },
    )
}

/// Changes a header and makes its checksum right again, as only a wrong writer would.
fn with_header(mut batch: Vec<u8>, change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    use zerocopy::{FromBytes, IntoBytes};
    let mut header = BatchHeader::read_from_bytes(&batch[..BATCH_HEADER_LEN]).unwrap();
    change(&mut header);
    header.seal();
    batch[..BATCH_HEADER_LEN].copy_from_slice(header.as_bytes());
    batch
}

/// Changes what follows the header and makes all checksums right again.
fn with_body(mut batch: Vec<u8>, at: Range<usize>, bytes: &[u8]) -> Vec<u8> {
    batch[at].copy_from_slice(bytes);
    with_checksums(batch)
}

/// Makes all checksums right, as far as the lengths in the header allow.
fn with_checksums(batch: Vec<u8>) -> Vec<u8> {
    use zerocopy::FromBytes;
    let (header, _) = BatchHeader::ref_from_prefix(&batch).unwrap();
    let (directory, records) =
        batch[BATCH_HEADER_LEN..].split_at(header.directory_len.get().min(batch.len() as u32 - 128) as usize);
    let (directory_crc, records_crc) = (crc32c::crc32c(directory), crc32c::crc32c(records));
    with_header(batch, |header| {
        header.directory_crc.set(directory_crc);
        header.records_crc.set(records_crc);
    })
}

proptest! {
    #[test]
    fn any_records_come_back_as_they_were(samples in vec(sample(), 0..20)) {
        let bytes = encode(&samples, fields());
        prop_assert_eq!(bytes.len() % BLOCK_LEN, 0);
        let back = decode(&bytes).unwrap();
        prop_assert_eq!(format!("{samples:?}"), format!("{back:?}"));
        let batch = RawBatch(&bytes).verify().unwrap();
        for entry in batch.entries() {
            prop_assert_eq!(entry.store_time_ms, fields().store_time_ms);
            let range = batch.find(entry.log_offset).unwrap();
            prop_assert_eq!(entry.log_offset.0, fields().base_offset.0 + range.start as u64);
            prop_assert_eq!(&bytes[range], entry.record);
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_batch(bytes in vec(any::<u8>(), 0..9000)) {
        prop_assert!(RawBatch(&bytes).verify().is_err());
    }

    #[test]
    fn arbitrary_headers_with_a_right_checksum_never_panic(
        noise in vec(any::<u8>(), BATCH_HEADER_LEN),
        keep in any::<u32>(),
        body in vec(any::<u8>(), 0..2 * BLOCK_LEN),
    ) {
        // Each of the header's 4-byte words is either that of a good batch or noise.
        let mut batch = two_records();
        for word in 0..BATCH_HEADER_LEN / 4 {
            if word >= 3 && keep >> (word % 32) & 1 == 0 {
                batch[word * 4..word * 4 + 4].copy_from_slice(&noise[word * 4..word * 4 + 4]);
            }
        }
        batch.truncate(BATCH_HEADER_LEN);
        batch.extend(body);
        let batch = with_checksums(batch);
        if let Ok(directory) = RawDirectory(&batch).verify() {
            directory.entries().for_each(drop);
        }
        if let Ok(batch) = RawBatch(&batch).verify() {
            batch.entries().for_each(drop);
        }
    }

    #[test]
    fn arbitrary_directories_with_right_checksums_never_panic(
        at in BATCH_HEADER_LEN..BATCH_HEADER_LEN + 2 * DIRECTORY_ENTRY_LEN + 8,
        byte in any::<u8>(),
    ) {
        let batch = with_body(two_records(), at..at + 1, &[byte]);
        if let Ok(batch) = RawBatch(&batch).verify() {
            prop_assert_eq!(batch.entries().map(|entry| entry.record.len()).sum::<usize>(), 11);
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = two_records();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(RawBatch(&bad).verify().is_err(), "bit {bit} turned over and nobody saw");
    }
}

#[test]
fn directory_is_believed_without_the_records() {
    let whole = two_records();
    let directory_end = RawHeader(&whole).verify().unwrap().directory_end();
    let alone = RawDirectory(&whole[..directory_end]).verify().unwrap();
    let batch = RawBatch(&whole).verify().unwrap();
    for (described, entry) in alone.entries().zip(batch.entries()) {
        let position = described.position as usize;
        assert_eq!(&whole[position..position + described.size as usize], entry.record);
        assert_eq!((described.queue, described.queue_offset), (entry.queue, entry.queue_offset));
        assert_eq!(described.log_offset, entry.log_offset);
    }
    assert_eq!(alone.entries().count(), 2);
    for len in 0..directory_end {
        assert!(RawDirectory(&whole[..len]).verify().is_err(), "cut to {len} bytes and nobody saw");
    }
    for bit in 0..directory_end * 8 {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(RawDirectory(&bad).verify().is_err(), "bit {bit} turned over and nobody saw");
    }
}

#[test]
fn every_cut_is_noticed() {
    let good = two_records();
    for len in 0..good.len() {
        assert!(RawBatch(&good[..len]).verify().is_err(), "cut to {len} bytes and nobody saw");
    }
    let mut longer = good.clone();
    longer.extend(b"whatever follows");
    assert!(RawBatch(&longer).verify().is_ok());
}

#[test]
fn bytes_of_a_written_batch_stay_what_they_are() {
    let bytes = two_records();
    assert_eq!(bytes.len(), BLOCK_LEN);
    // Taken once from this version of the format; another value means that logs written before are no longer readable.
    let hash = bytes.iter().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add((*byte).into()));
    assert_eq!(hash, GOLDEN_HASH, "{hash:#x}");
    assert_eq!(&bytes[..8], b"APGB\x02\x00\x80\x00");
}

const GOLDEN_HASH: u64 = 0xbffd_7fb7_2748_604e;

#[test]
fn zeros_are_told_from_garbage() {
    assert_eq!(RawHeader(&[0; BLOCK_LEN]).verify().unwrap_err(), HeaderError::Zero);
    assert!(matches!(RawHeader(&[1; BLOCK_LEN]).verify().unwrap_err(), HeaderError::Magic { .. }));
    assert!(matches!(RawHeader(&[0; 5]).verify().unwrap_err(), HeaderError::Short { .. }));
}

#[test]
fn other_version_is_told_from_damage() {
    for (version, age) in [(1, "older"), (3, "newer")] {
        let other = with_header(two_records(), |header| header.version.set(version));
        let error = RawHeader(&other).verify().unwrap_err();
        assert_eq!(error, HeaderError::Version { found: version });
        assert!(error.to_string().contains(age), "{error}");
    }
    let mut damaged = two_records();
    damaged[4] = 3;
    assert!(matches!(RawHeader(&damaged).verify().unwrap_err(), HeaderError::HeaderCrc { .. }));
}

#[test]
fn impossible_headers_are_refused_by_field() {
    type Change = fn(&mut BatchHeader);
    let table: [(&str, Change); 13] = [
        ("header_len", |header| header.header_len.set(120)),
        ("reserved", |header| header.reserved[3] = 1),
        ("reserved", |header| header.reserved_tail[0] = 1),
        ("length", |header| header.length.set(0)),
        ("length", |header| header.length.set(BLOCK_LEN as u32 + 1)),
        ("length", |header| header.length.set(2 * BLOCK_LEN as u32)),
        ("length", |header| header.length.set(BATCH_BYTES_LIMIT + BLOCK_LEN as u32)),
        ("directory_len", |header| header.directory_len.set(79)),
        ("base_offset", |header| header.base_offset.set(100)),
        ("base_offset", |header| header.base_offset.set(u64::MAX - 4095)),
        ("index", |header| header.index.set(10)),
        ("prev_term", |header| header.prev_term.set(6)),
        ("term", |header| header.term.set(1 << 63)),
    ];
    for (expected, change) in table {
        match RawHeader(&with_header(two_records(), change)).verify() {
            // A shorter header than ours has another checksum, so that it is not even believed.
            Err(HeaderError::HeaderCrc { .. }) if expected == "header_len" => {}
            Err(HeaderError::Field { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let unknown = with_header(two_records(), |header| header.kind = 9);
    assert_eq!(RawHeader(&unknown).verify().unwrap_err(), HeaderError::Kind { found: 9 });
    let no_op = with_header(two_records(), |header| header.kind = BatchKind::NoOp as u8);
    assert!(matches!(RawHeader(&no_op).verify(), Err(HeaderError::Field { field: "record_count", .. })));
}

#[test]
fn directory_that_does_not_fit_the_records_is_refused() {
    let first = BATCH_HEADER_LEN;
    let table: [(&str, Range<usize>, &[u8]); 5] = [
        ("position", first + 24..first + 25, &[0]),
        ("reserved", first + 38..first + 39, &[1]),
        ("position", first + 28..first + 29, &[6]),
        ("size", first + 28..first + 29, &[0]),
        ("key hashes", first + 36..first + 37, &[1]),
    ];
    for (expected, at, bytes) in table {
        match RawBatch(&with_body(two_records(), at, bytes)).verify() {
            Err(BatchError::Entry { field, .. }) => assert_eq!(field, expected),
            Err(BatchError::Sum { part, .. }) => assert_eq!(part, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn no_op_has_a_header_only() {
    let fields = BatchFields { kind: BatchKind::NoOp, ..fields() };
    let bytes = encode(&[], fields);
    assert_eq!(bytes.len(), BLOCK_LEN);
    let batch = RawBatch(&bytes).verify().unwrap();
    assert_eq!((batch.header().batch_kind(), batch.entries().count()), (BatchKind::NoOp, 0));
}

#[test]
fn change_of_members_has_one_record_of_a_queue_of_its_own() {
    let record = |queue: QueueKey| Sample {
        queue: queue.0,
        queue_offset: 0,
        tag_hash: 0,
        key_hashes: vec![],
        bytes: b"members".to_vec(),
    };
    let kinds = [BatchKind::Records, BatchKind::Configuration];
    for (kind, queue) in kinds.into_iter().flat_map(|kind| [(kind, QueueKey(1)), (kind, QueueKey::MEMBERS)]) {
        let bytes = encode(&[record(queue)], BatchFields { kind, ..fields() });
        let is_right = (kind == BatchKind::Configuration) == (queue == QueueKey::MEMBERS);
        match RawBatch(&bytes).verify() {
            Ok(_) => assert!(is_right, "{kind:?} with queue {queue}"),
            Err(BatchError::Entry { field, .. }) => assert!(!is_right && field == "queue"),
            Err(other) => panic!("{other}"),
        }
    }
    for count in [0, 2] {
        let records = vec![record(QueueKey::MEMBERS); count];
        let bytes = encode(&records, BatchFields { kind: BatchKind::Configuration, ..fields() });
        assert!(matches!(RawHeader(&bytes).verify(), Err(HeaderError::Field { field: "record_count", .. })));
    }
}
