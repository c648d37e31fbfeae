//! The situations that recovery may find: a test for each row of the tables in `scan.rs`, `sealed.rs` and `state.rs`.

mod group;
mod loss;
mod sealed;
mod state;
mod tail;

use std::sync::Arc;

use super::*;
use crate::config::LogConfig;
use crate::disk::SegmentInfo;
use crate::format::{
    BATCH_HEADER_LEN, BLOCK_LEN, BatchFields, BatchKind, BatchLayout, BatchWriter, NewEntry, RawHeader,
};
use crate::record::{Place, Record};
use crate::sealed::{SealJob, SealedIndex, open_index, seal_segment};
use crate::sim::SimDisk;
use crate::snapshot::{DerivedState, SnapshotJob, take_snapshot};
use crate::source::LogSource as _;
use crate::types::{BatchIndex, GroupId, LogOffset, NodeId, QueueKey, QueueOffset, Term};

pub(crate) const BLOCK: u64 = BLOCK_LEN as u64;
/// Blocks of a segment: as many batches, if they are of one block.
pub(crate) const BLOCKS: u64 = 8;
pub(crate) const SEGMENT: u64 = BLOCKS * BLOCK;
pub(crate) const GROUP: GroupId = GroupId(7);

pub(crate) fn config() -> LogConfig {
    LogConfig {
        segment_bytes: SEGMENT,
        batch_bytes_target: 4 * BLOCK_LEN as u32,
        batch_bytes_max: 4 * BLOCK_LEN as u32,
        ..LogConfig::new(GROUP, NodeId(1))
    }
}

/// One batch of one record, at a block of the log.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) block: u64,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) prev_term: u64,
    pub(crate) hint: u64,
    pub(crate) blocks: u64,
    pub(crate) queue: QueueKey,
    pub(crate) queue_offset: u64,
    pub(crate) group: u64,
    pub(crate) store_time_ms: i64,
    /// What the record's bytes are.
    pub(crate) fill: u8,
    /// Its key's hash.
    pub(crate) key: u32,
    pub(crate) kind: BatchKind,
}

/// A batch that follows the one with the index before in the block before, all in term 1 and queue 3.
pub(crate) fn batch(index: u64) -> Batch {
    Batch {
        block: index - 1,
        index,
        term: 1,
        prev_term: u64::from(index > 1),
        hint: index - 1,
        blocks: 1,
        queue: QueueKey(3),
        queue_offset: index - 1,
        group: GROUP.0,
        store_time_ms: 1000,
        fill: index as u8,
        key: index as u32,
        kind: BatchKind::Records,
    }
}

/// The same, in queues 0 to 2 and the control records' by turns.
pub(crate) fn of_queues(index: u64) -> Batch {
    let queue = match index % 4 {
        0 => QueueKey::CONTROL,
        queue => QueueKey(queue - 1),
    };
    Batch { queue, queue_offset: (index - 1) / 4, ..batch(index) }
}

impl Batch {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut layout = BatchLayout::default();
        let size = self.blocks as u32 * BLOCK_LEN as u32 - 1000;
        if self.kind != BatchKind::NoOp {
            layout.add(size, 1);
        }
        let fields = BatchFields {
            kind: self.kind,
            group: GroupId(self.group),
            leader: NodeId(1),
            term: Term(self.term),
            index: BatchIndex(self.index),
            prev_term: Term(self.prev_term),
            base_offset: LogOffset(self.block * BLOCK),
            commit_hint: BatchIndex(self.hint),
            store_time_ms: self.store_time_ms,
        };
        let mut bytes = vec![0; layout.batch_len()];
        let mut writer = BatchWriter::new(&mut bytes, layout, fields);
        let key_hashes = &[self.key];
        let (queue, queue_offset) = (self.queue, QueueOffset(self.queue_offset));
        if self.kind != BatchKind::NoOp {
            writer.push(NewEntry { queue, queue_offset, tag_hash: 0, key_hashes, size }, |_, out| {
                out.fill(self.fill);
            });
        }
        writer.finish();
        bytes
    }
}

/// What nobody appends here.
#[derive(Clone, Debug)]
pub(crate) struct NoRecord;

impl Record for NoRecord {
    fn encoded_len(&self) -> u32 {
        unreachable!("nothing is appended")
    }

    fn encode(&self, _place: Place, _out: &mut [u8]) {
        unreachable!("nothing is appended")
    }
}

/// All control records there were, in order: which batches they were in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Journal(Vec<u8>);

impl Journal {
    /// Of a log of so many batches, each [`of_queues`].
    pub(crate) fn of(batches: u64) -> Journal {
        Journal((1..=batches).filter(|index| index % 4 == 0).map(|index| index as u8).collect())
    }
}

impl DerivedState for Journal {
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        if snapshot == b"nonsense" {
            return Err("nonsense".to_owned());
        }
        self.0 = snapshot.to_vec();
        Ok(())
    }

    fn apply(&mut self, _at: LogOffset, control_record: &[u8]) -> Result<(), String> {
        assert!(control_record.iter().all(|byte| *byte == control_record[0]));
        if self.0.last().is_some_and(|last| last + 4 != control_record[0]) {
            return Err(format!("{} behind {:?}", control_record[0], self.0));
        }
        self.0.push(control_record[0]);
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        self.0.clone()
    }
}

/// Something done to the `n`th index or snapshot of a world, and its name.
type Flaw = (&'static str, fn(&World, u64));

/// A disk of segments of 8 blocks each.
pub(crate) struct World(pub(crate) SimDisk);

impl World {
    /// Three segments.
    pub(crate) fn with(batches: &[Batch]) -> World {
        World::of(3, batches)
    }

    pub(crate) fn of(segments: u64, batches: &[Batch]) -> World {
        let disk = SimDisk::new(1);
        for nth in 0..segments {
            disk.add_segment(SegmentInfo { base: LogOffset(nth * SEGMENT), bytes: SEGMENT });
        }
        let world = World(disk);
        batches.iter().for_each(|batch| world.put(batch.block, &batch.encode()));
        world
    }

    /// Six segments, 45 batches [`of_queues`] in them; the first `sealed` segments have their indexes.
    pub(crate) fn sealed(sealed: u64) -> World {
        let world = World::of(7, &(1..=45).map(of_queues).collect::<Vec<_>>());
        (0..sealed).for_each(|nth| world.seal(nth));
        world
    }

    pub(crate) fn put(&self, block: u64, bytes: &[u8]) {
        self.put_at(block * BLOCK, bytes);
    }

    pub(crate) fn put_at(&self, at: u64, bytes: &[u8]) {
        self.0.overwrite(LogOffset(at / SEGMENT * SEGMENT), at % SEGMENT, bytes);
    }

    /// Damages the body of the batch at a block.
    pub(crate) fn tear(&self, block: u64) {
        self.put_at(block * BLOCK + 600, &[0xee; 8]);
    }

    /// Damages the directory of the batch at a block.
    pub(crate) fn tear_directory(&self, block: u64) {
        self.put_at(block * BLOCK + BATCH_HEADER_LEN as u64 + 8, &[0xee; 8]);
    }

    /// Takes the header of the batch at a block away.
    pub(crate) fn tear_header(&self, block: u64) {
        self.put_at(block * BLOCK + 60, &[0xee; 8]);
    }

    pub(crate) fn zero(&self, block: u64) {
        self.put(block, &[0; BLOCK_LEN]);
    }

    /// Writes the index of the `nth` segment, as the log would after it rolled.
    pub(crate) fn seal(&self, nth: u64) {
        self.seal_as(nth, GROUP);
    }

    pub(crate) fn seal_as(&self, nth: u64, group: GroupId) {
        let previous = nth.checked_sub(1).map(|before| LogOffset(before * SEGMENT));
        seal_segment(&self.0, &SealJob { group, ..self.seal_job(nth, previous) }).unwrap();
    }

    /// Writes the index of the `nth` segment, behind that of the segment at `previous`.
    pub(crate) fn seal_behind(&self, nth: u64, previous: LogOffset) {
        seal_segment(&self.0, &self.seal_job(nth, Some(previous))).unwrap();
    }

    fn seal_job(&self, nth: u64, previous: Option<LogOffset>) -> SealJob {
        let base = LogOffset(nth * SEGMENT);
        let headers = (0..BLOCKS).filter_map(|block| {
            let mut bytes = vec![0; BLOCK_LEN];
            self.0.read_at(base, block * BLOCK, &mut bytes).unwrap();
            let header = *RawHeader(&bytes).verify().ok()?;
            (header.base_offset() == base.plus(block * BLOCK)).then_some(header)
        });
        let headers: Vec<_> = headers.collect();
        let (first, last) = (headers.first().unwrap(), headers.last().unwrap());
        SealJob {
            group: GROUP,
            segment: SegmentInfo { base, bytes: SEGMENT },
            end: last.base_offset().plus(last.batch_len() as u64),
            first_index: first.index(),
            prev_term: first.prev_term(),
            last_term: last.term(),
            previous,
        }
    }

    /// Takes a snapshot at the end of the `nth` segment, from the one `from` if there is one.
    pub(crate) fn snapshot(&self, nth: u64, from: Option<u64>) -> LogOffset {
        let first = from.map_or(0, |from| from + 1);
        let segments: Vec<_> = (first..=nth).map(|nth| Arc::new(self.index(nth))).collect();
        let at = segments.last().unwrap().summary().end;
        let previous = from.map(|from| self.index(from).summary().end);
        let job = SnapshotJob { group: GROUP, previous, segments, at };
        take_snapshot(&self.0, &job, Box::new(Journal::default())).unwrap();
        at
    }

    pub(crate) fn index(&self, nth: u64) -> SealedIndex {
        open_index(&self.0, LogOffset(nth * SEGMENT)).unwrap()
    }

    /// The bytes of an index file, changed.
    pub(crate) fn change_index(&self, nth: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let base = LogOffset(nth * SEGMENT);
        let mut bytes = self.0.map_index(base).unwrap().bytes().to_vec();
        change(&mut bytes);
        self.0.write_index(base, &bytes).unwrap();
    }

    pub(crate) fn remove_index(&self, nth: u64) {
        self.0.remove_index(LogOffset(nth * SEGMENT)).unwrap();
    }

    pub(crate) fn remove_segment(&self, nth: u64) {
        self.0.remove_segment(LogOffset(nth * SEGMENT));
    }

    pub(crate) fn recover(&self) -> Result<Recovered, RecoveryError> {
        recover(&self.0, &config(), &mut ())
    }

    pub(crate) fn recover_state(&self) -> Result<(Recovered, Journal), RecoveryError> {
        let mut state = Journal::default();
        let recovered = recover(&self.0, &config(), &mut state)?;
        Ok((recovered, state))
    }

    pub(crate) fn report(&self) -> RecoveryReport {
        self.recover().unwrap().report
    }

    /// Recovers to a log of `batches`; returns why it was cut there.
    #[track_caller]
    pub(crate) fn ends_after(&self, batches: u64) -> Option<CutCause> {
        let report = self.report();
        assert_eq!((report.batches, report.last_index), (batches, BatchIndex(batches)), "{report:?}");
        report.cut.map(|cut| cut.cause)
    }
}
