//! The simulated disk.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::rng::Rng;
use crate::aligned::AlignedBuffer;
use crate::disk::{Completion, DiskError, DiskOp, FileRun, SegmentInfo};
use crate::format::BLOCK_LEN;
use crate::recovery::SegmentSource;
use crate::segment::segment_file_name;
use crate::types::LogOffset;

/// What a disk writes whole or not at all.
pub const SECTOR_LEN: usize = 512;

type Sector = [u8; SECTOR_LEN];

#[derive(Debug)]
struct SimSegment {
    bytes: u64,
    /// What a process reads. Sectors that are not there are zeros.
    seen: FxHashMap<u64, Sector>,
    /// What a loss of power cannot take.
    durable: FxHashMap<u64, Sector>,
    /// Written and not synced, oldest first.
    unsynced: VecDeque<Unsynced>,
}

#[derive(Debug)]
struct Unsynced {
    /// Number of the write's completion.
    completed: u64,
    at: u64,
    sector: Sector,
}

impl SimSegment {
    fn sector(&self, nth: u64) -> Sector {
        self.seen.get(&nth).copied().unwrap_or([0; SECTOR_LEN])
    }

    fn write(&mut self, completed: u64, position: u64, bytes: &[u8]) {
        for (nth, sector) in bytes.chunks(SECTOR_LEN).enumerate() {
            let at = position / SECTOR_LEN as u64 + nth as u64;
            let sector = sector.try_into().expect("writes are of whole blocks");
            self.seen.insert(at, sector);
            self.unsynced.push_back(Unsynced { completed, at, sector });
        }
    }

    /// Makes durable what writes up to number `completed` wrote.
    fn sync(&mut self, completed: u64) {
        while self.unsynced.front().is_some_and(|oldest| oldest.completed <= completed) {
            let Unsynced { at, sector, .. } = self.unsynced.pop_front().expect("it was looked at");
            self.durable.insert(at, sector);
        }
    }
}

#[derive(Debug, Default)]
struct Faults {
    fail_writes: u32,
    fail_syncs: u32,
    full: bool,
}

#[derive(Debug)]
struct Pending {
    op: DiskOp<AlignedBuffer>,
    /// Writes completed when the operation was taken: a sync promises no more than these.
    completed: u64,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    segments: BTreeMap<LogOffset, SimSegment>,
    pending: Vec<Pending>,
    /// Writes completed so far.
    completed: u64,
    faults: Faults,
}

/// The disk of one log. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Rc<RefCell<State>>,
}

impl SimDisk {
    /// An empty disk; everything it does follows from `seed` and the calls.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        let state = State {
            rng: Rng::new(seed),
            segments: BTreeMap::new(),
            pending: Vec::new(),
            completed: 0,
            faults: Faults::default(),
        };
        SimDisk { state: Rc::new(RefCell::new(state)) }
    }

    /// A buffer for [`CommitLog::poll_op`](crate::CommitLog::poll_op).
    #[must_use]
    pub fn alloc(len: usize) -> AlignedBuffer {
        AlignedBuffer::zeroed(len)
    }

    /// Takes an operation; it is carried out by a later [`step`](SimDisk::step).
    pub fn submit(&self, op: DiskOp<AlignedBuffer>) {
        let mut state = self.state.borrow_mut();
        if let DiskOp::Write { segment, position, len, .. } = &op {
            state.check_write(*segment, *position, *len);
        }
        let completed = state.completed;
        state.pending.push(Pending { op, completed });
    }

    /// Operations taken and not yet answered.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.state.borrow().pending.len()
    }

    /// Carries out one of the operations taken, whichever the seed says.
    pub fn step(&self) -> Option<Completion> {
        let state = &mut *self.state.borrow_mut();
        let count = state.pending.len() as u64;
        if count == 0 {
            return None;
        }
        let nth = state.rng.below(count) as usize;
        Some(state.carry_out(nth))
    }

    /// Carries out the oldest operation taken.
    pub fn step_in_order(&self) -> Option<Completion> {
        let state = &mut *self.state.borrow_mut();
        (!state.pending.is_empty()).then(|| state.carry_out(0))
    }

    /// The process ends, the power stays: what was written is there, writes on their way may be or not.
    pub fn kill(&self) {
        self.state.borrow_mut().end_process();
    }

    /// The power goes: each sector that was not synced is there or not.
    pub fn crash(&self) {
        let state = &mut *self.state.borrow_mut();
        state.end_process();
        // Often everything or nothing survives, which a fair coin per sector would hardly ever give.
        let survive_percent = [0, 100, 50, 90, 10][state.rng.below(5) as usize];
        for segment in state.segments.values_mut() {
            for Unsynced { at, sector, .. } in std::mem::take(&mut segment.unsynced) {
                if state.rng.chance(survive_percent) {
                    segment.durable.insert(at, sector);
                }
            }
            segment.seen = segment.durable.clone();
        }
    }

    /// The next `count` writes fail, having written any part.
    pub fn fail_writes(&self, count: u32) {
        self.state.borrow_mut().faults.fail_writes = count;
    }

    /// The next `count` syncs fail.
    pub fn fail_syncs(&self, count: u32) {
        self.state.borrow_mut().faults.fail_syncs = count;
    }

    /// While full, no segment can be made.
    pub fn set_full(&self, full: bool) {
        self.state.borrow_mut().faults.full = full;
    }

    /// Reads what a process sees now.
    #[must_use]
    pub fn read(&self, run: FileRun) -> Vec<u8> {
        let mut bytes = vec![0; run.len as usize];
        self.read_at(run.segment, run.position, &mut bytes).expect("runs lie within segments");
        bytes
    }

    /// Reads what a loss of power at this moment is sure to leave.
    #[must_use]
    pub fn read_durable(&self, run: FileRun) -> Vec<u8> {
        let state = self.state.borrow();
        let durable = &state.segments[&run.segment].durable;
        let mut bytes = vec![0; run.len as usize];
        copy_from(durable, run.position, &mut bytes);
        bytes
    }

    /// Overwrites bytes for good, as damage does.
    pub fn overwrite(&self, base: LogOffset, position: u64, bytes: &[u8]) {
        let state = &mut *self.state.borrow_mut();
        let segment = state.segments.get_mut(&base).expect("the segment exists");
        let mut rest = bytes;
        let mut at = position;
        while !rest.is_empty() {
            let (number, within) = (at / SECTOR_LEN as u64, at as usize % SECTOR_LEN);
            let (piece, behind) = rest.split_at(rest.len().min(SECTOR_LEN - within));
            let mut sector = segment.sector(number);
            sector[within..within + piece.len()].copy_from_slice(piece);
            segment.unsynced.retain(|unsynced| unsynced.at != number);
            segment.seen.insert(number, sector);
            segment.durable.insert(number, sector);
            (rest, at) = (behind, at + piece.len() as u64);
        }
    }

    /// Turns one bit over, for good.
    pub fn flip_bit(&self, base: LogOffset, position: u64, bit: u8) {
        let byte = self.read(FileRun { segment: base, position, len: 1 })[0];
        self.overwrite(base, position, &[byte ^ (1 << bit)]);
    }

    /// Makes an empty segment at once.
    pub fn add_segment(&self, segment: SegmentInfo) {
        self.state.borrow_mut().make(segment);
    }

    /// Takes a segment away.
    pub fn remove_segment(&self, base: LogOffset) {
        self.state.borrow_mut().segments.remove(&base).expect("the segment exists");
    }
}

impl State {
    fn check_write(&self, segment: LogOffset, position: u64, len: u32) {
        let block = BLOCK_LEN as u64;
        let bytes = self.segments.get(&segment).expect("writes go to segments that exist").bytes;
        assert!(position.is_multiple_of(block) && u64::from(len).is_multiple_of(block), "not aligned");
        assert!(
            len > 0 && position + u64::from(len) <= bytes,
            "write of {len} at {position} leaves {segment}"
        );
        for Pending { op, .. } in &self.pending {
            if let DiskOp::Write { segment: other, position: at, len: other_len, .. } = op {
                let apart = position + u64::from(len) <= *at || at + u64::from(*other_len) <= position;
                assert!(segment != *other || apart, "two writes overlap in {segment} at {position} and {at}");
            }
        }
    }

    fn make(&mut self, segment: SegmentInfo) {
        let SegmentInfo { base, bytes } = segment;
        let made = SimSegment {
            bytes,
            seen: FxHashMap::default(),
            durable: FxHashMap::default(),
            unsynced: VecDeque::new(),
        };
        assert!(self.segments.insert(base, made).is_none(), "segment {base} was made twice");
    }

    fn carry_out(&mut self, nth: usize) -> Completion {
        let Pending { op, completed } = self.pending.remove(nth);
        match op {
            DiskOp::Write { id, segment, position, buffer, len, .. } => {
                let failed = take_fault(&mut self.faults.fail_writes);
                let bytes = &(*buffer).as_ref()[..len as usize];
                if failed {
                    self.write_partly(segment, position, bytes);
                } else {
                    self.write(segment, position, bytes);
                }
                Completion::Written { id, result: answer(failed, "write") }
            }
            DiskOp::Sync { id, segments } => {
                let failed = take_fault(&mut self.faults.fail_syncs);
                if !failed {
                    segments.iter().for_each(|base| self.segment(*base).sync(completed));
                }
                Completion::Synced { id, result: answer(failed, "sync") }
            }
            DiskOp::Prepare { segment } if self.faults.full => {
                let place = "the simulated disk".to_owned();
                let (needed_bytes, free_bytes, reserve_bytes) = (segment.bytes, 0, 0);
                let result = Err(DiskError::NoSpace { place, needed_bytes, free_bytes, reserve_bytes });
                Completion::Prepared { base: segment.base, result }
            }
            DiskOp::Prepare { segment } => {
                self.make(segment);
                Completion::Prepared { base: segment.base, result: Ok(()) }
            }
        }
    }

    fn segment(&mut self, base: LogOffset) -> &mut SimSegment {
        self.segments.get_mut(&base).expect("operations name segments that exist")
    }

    fn write(&mut self, segment: LogOffset, position: u64, bytes: &[u8]) {
        self.completed += 1;
        let completed = self.completed;
        self.segment(segment).write(completed, position, bytes);
    }

    /// Each sector of a write lands or not.
    fn write_partly(&mut self, segment: LogOffset, position: u64, bytes: &[u8]) {
        for (nth, sector) in bytes.chunks(SECTOR_LEN).enumerate() {
            if self.rng.chance(50) {
                self.write(segment, position + (nth * SECTOR_LEN) as u64, sector);
            }
        }
    }

    /// Operations on their way are done, partly done or not done.
    fn end_process(&mut self) {
        for Pending { op, completed } in std::mem::take(&mut self.pending) {
            let fate = self.rng.below(3);
            match op {
                DiskOp::Write { segment, position, buffer, len, .. } => {
                    let bytes = &(*buffer).as_ref()[..len as usize];
                    match fate {
                        0 => {}
                        1 => self.write_partly(segment, position, bytes),
                        _ => self.write(segment, position, bytes),
                    }
                }
                DiskOp::Sync { segments, .. } if fate == 2 => {
                    segments.iter().for_each(|base| self.segment(*base).sync(completed));
                }
                DiskOp::Prepare { segment } if fate == 2 && !self.faults.full => self.make(segment),
                DiskOp::Sync { .. } | DiskOp::Prepare { .. } => {}
            }
        }
    }
}

/// Fills `out` from `position` on; sectors that are not there are zeros.
fn copy_from(sectors: &FxHashMap<u64, Sector>, position: u64, out: &mut [u8]) {
    let mut at = position;
    let mut rest = out;
    while !rest.is_empty() {
        let within = at as usize % SECTOR_LEN;
        let (piece, behind) = rest.split_at_mut((SECTOR_LEN - within).min(rest.len()));
        match sectors.get(&(at / SECTOR_LEN as u64)) {
            Some(sector) => piece.copy_from_slice(&sector[within..within + piece.len()]),
            None => piece.fill(0),
        }
        at += piece.len() as u64;
        rest = behind;
    }
}

fn take_fault(count: &mut u32) -> bool {
    let failed = *count > 0;
    *count = count.saturating_sub(1);
    failed
}

fn answer(failed: bool, action: &str) -> Result<(), DiskError> {
    if !failed {
        return Ok(());
    }
    Err(DiskError::Io {
        action: action.to_owned(),
        os_code: Some(libc::EIO),
        message: "by design".to_owned(),
    })
}

impl SegmentSource for SimDisk {
    fn segments(&self) -> io::Result<Vec<SegmentInfo>> {
        let state = self.state.borrow();
        Ok(state
            .segments
            .iter()
            .map(|(base, segment)| SegmentInfo { base: *base, bytes: segment.bytes })
            .collect())
    }

    fn read_at(&self, base: LogOffset, position: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.borrow();
        let segment = state.segments.get(&base).ok_or(io::ErrorKind::NotFound)?;
        if position + out.len() as u64 > segment.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        copy_from(&segment.seen, position, out);
        Ok(())
    }

    fn sync(&self, base: LogOffset) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        state.segments.get_mut(&base).ok_or(io::ErrorKind::NotFound)?.sync(u64::MAX);
        Ok(())
    }

    fn name(&self, base: LogOffset) -> String {
        segment_file_name(base)
    }
}
