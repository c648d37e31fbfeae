//! The simulated disk: takes operations and carries them out in an order of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use super::faults::{Failing, Faults, Lie, input_output_error, read_only_error};
use super::file::{SECTOR_LEN, SimFile};
use super::rng::Rng;
use super::small::{MappedIndex, SmallFile};
use crate::aligned::AlignedBuffer;
use crate::checkpoint::{Reset, take_checkpoint};
use crate::disk::{Completion, DiskError, DiskOp, FileRun, SegmentInfo, Space};
use crate::format::BLOCK_LEN;
use crate::group_state::save_group_state;
use crate::sealed::{read_ends, seal_segment};
use crate::snapshot::{DerivedState, NewState, rebuild_state, take_snapshot};
use crate::source::LogFile;
use crate::types::LogOffset;

/// Derived state that control records leave as it is.
struct NoState;

impl DerivedState for NoState {
    fn restore(&mut self, _snapshot: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn apply(&mut self, _at: LogOffset, _control_record: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// [`NewState`], to be shown.
#[derive(Clone)]
struct StateMaker(NewState);

impl fmt::Debug for StateMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateMaker")
    }
}

#[derive(Debug)]
struct Pending {
    op: DiskOp<AlignedBuffer>,
    /// Writes completed when the operation was taken: a sync promises no more than these.
    completed: u64,
    /// How many others are carried out before this one may be.
    delay: u64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) rng: Rng,
    pub(super) segments: BTreeMap<LogOffset, SimFile>,
    pub(super) indexes: BTreeMap<LogOffset, SmallFile>,
    pub(super) snapshots: BTreeMap<LogOffset, SmallFile>,
    /// Both slots of a group node's state.
    pub(super) group: Option<SmallFile>,
    pub(super) checkpoint: Option<SmallFile>,
    /// Indexes that a process has mapped.
    pub(super) mapped: Vec<Weak<MappedIndex>>,
    pending: Vec<Pending>,
    /// Writes completed so far.
    completed: u64,
    pub(super) faults: Faults,
    /// Bytes that all files together may have.
    capacity_bytes: u64,
    /// What snapshots are taken with.
    new_state: StateMaker,
    /// Calls of the process that still work; then it is gone, whatever it was about to do.
    pub(super) calls_left: Option<u64>,
}

/// The disk of one log. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    pub(super) state: Rc<RefCell<State>>,
}

impl SimDisk {
    /// An empty disk without limits; everything it does follows from `seed` and the calls.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        let state = State {
            rng: Rng::new(seed),
            segments: BTreeMap::new(),
            indexes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            group: None,
            checkpoint: None,
            mapped: Vec::new(),
            pending: Vec::new(),
            completed: 0,
            faults: Faults::default(),
            capacity_bytes: u64::MAX,
            new_state: StateMaker(Arc::new(|| Box::new(NoState))),
            calls_left: None,
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
        let state = &mut *self.state.borrow_mut();
        match &op {
            DiskOp::Write { segment, position, len, .. } => state.check_write(*segment, *position, *len),
            DiskOp::Erase { segment, position, .. } => {
                state.check_write(*segment, *position, BLOCK_LEN as u32);
            }
            DiskOp::SaveGroupState { .. } => state.check_save(),
            DiskOp::Reset(_) => state.check_reset(),
            _ => {}
        }
        let delay = state.faults.delay(&mut state.rng);
        state.pending.push(Pending { op, completed: state.completed, delay });
    }

    /// Operations taken and not yet answered.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.state.borrow().pending.len()
    }

    /// Carries out one of the operations taken, whichever the seed says; a slow one only after others, if there are
    /// any.
    pub fn step(&self) -> Option<Completion> {
        let pending = self.state.borrow_mut().take_any()?;
        Some(self.carry_out(pending))
    }

    /// Carries out the oldest operation taken.
    pub fn step_in_order(&self) -> Option<Completion> {
        let pending = {
            let state = &mut *self.state.borrow_mut();
            (!state.pending.is_empty()).then(|| state.pending.remove(0))?
        };
        Some(self.carry_out(pending))
    }

    /// The process ends, the power stays: what was written is there, operations on their way may be done, partly done or not.
    pub fn kill(&self) {
        let pending = std::mem::take(&mut self.state.borrow_mut().pending);
        for Pending { op, completed, .. } in pending {
            self.leave(op, completed);
        }
        self.state.borrow_mut().calls_left = None;
    }

    /// The power goes: as with [`kill`](SimDisk::kill), and each sector that was not synced is there or not.
    pub fn crash(&self) {
        self.kill();
        let state = &mut *self.state.borrow_mut();
        // Often everything or nothing survives, which a fair coin per sector would hardly ever give.
        let survive_percent = [0, 100, 50, 90, 10][state.rng.below(5) as usize];
        for file in state.segments.values_mut() {
            file.lose_unsynced(&mut state.rng, survive_percent);
        }
    }

    /// The process is gone after so many more calls of [`LogSource`](crate::LogSource): all of them fail until it
    /// is [killed](SimDisk::kill).
    pub fn die_after(&self, calls: u64) {
        self.state.borrow_mut().calls_left = Some(calls);
    }

    /// The next `count` of these fail.
    pub fn fail(&self, failing: Failing, count: u32) {
        self.state.borrow_mut().faults.arm(failing, count);
    }

    /// Likewise the one behind the next `working`, and all behind it.
    pub fn fail_after(&self, failing: Failing, working: u32) {
        self.state.borrow_mut().faults.arm_after(failing, working);
    }

    pub fn fail_writes(&self, count: u32) {
        self.fail(Failing::Writes, count);
    }

    pub fn fail_syncs(&self, count: u32) {
        self.fail(Failing::Syncs, count);
    }

    /// The next write is answered as done, and is not.
    pub fn lie_about_next_write(&self, lie: Lie) {
        self.state.borrow_mut().faults.lie = Some(lie);
    }

    /// Whether a lie is still to be told.
    #[must_use]
    pub fn is_about_to_lie(&self) -> bool {
        self.state.borrow().faults.lie.is_some()
    }

    /// The next index or snapshot is answered as written, with one bit turned over.
    pub fn flip_next_small_file(&self) {
        self.state.borrow_mut().faults.flip_small_file = true;
    }

    /// So many of a hundred pages of an index have to be read from the disk before they can be looked into.
    pub fn set_cold(&self, percent: u64) {
        self.state.borrow_mut().faults.cold_percent = percent;
    }

    /// Takes so many of a hundred pages of the mapped indexes out of memory.
    pub fn evict_indexes(&self, percent: u64) {
        let state = &mut *self.state.borrow_mut();
        for mapped in state.mapped.iter().filter_map(Weak::upgrade) {
            mapped.evict(&mut state.rng, percent);
        }
    }

    /// So many of a hundred operations are slow.
    pub fn set_slow(&self, percent: u64) {
        self.state.borrow_mut().faults.slow_percent = percent;
    }

    /// While full, no segment can be made.
    pub fn set_full(&self, full: bool) {
        self.state.borrow_mut().faults.full = full;
    }

    /// While read-only, nothing can be changed.
    pub fn set_read_only(&self, read_only: bool) {
        self.state.borrow_mut().faults.read_only = read_only;
    }

    /// All files together may have so many bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.borrow_mut().capacity_bytes = bytes;
    }

    /// What snapshots are taken with from now on; without it, of a state that has nothing.
    pub fn set_new_state(&self, new_state: NewState) {
        self.state.borrow_mut().new_state = StateMaker(new_state);
    }

    /// What the file system has left.
    #[must_use]
    pub fn space(&self) -> Space {
        let state = self.state.borrow();
        Space { free_bytes: state.free_bytes(), total_bytes: state.capacity_bytes }
    }

    /// Reads what a process sees now.
    #[must_use]
    pub fn read(&self, run: FileRun) -> Vec<u8> {
        let state = self.state.borrow();
        let mut bytes = vec![0; run.len as usize];
        state.segments[&run.segment].read(run.position, &mut bytes);
        bytes
    }

    /// Reads what a loss of power at this moment is sure to leave.
    #[must_use]
    pub fn read_durable(&self, run: FileRun) -> Vec<u8> {
        let state = self.state.borrow();
        let mut bytes = vec![0; run.len as usize];
        state.segments[&run.segment].read_durable(run.position, &mut bytes);
        bytes
    }

    /// Overwrites bytes for good, as damage does.
    pub fn overwrite(&self, base: LogOffset, position: u64, bytes: &[u8]) {
        self.state.borrow_mut().segment(base).overwrite(position, bytes);
    }

    /// The indexes, snapshots and other small files there are.
    #[must_use]
    pub fn small_files(&self) -> Vec<LogFile> {
        let state = self.state.borrow();
        let indexes = state.indexes.keys().map(|base| LogFile::Index(*base));
        let others = state.group.iter().map(|_| LogFile::GroupState);
        let others = others.chain(state.checkpoint.iter().map(|_| LogFile::Checkpoint));
        indexes.chain(state.snapshots.keys().map(|at| LogFile::Snapshot(*at))).chain(others).collect()
    }

    /// Bases of the segments there are, ascending.
    #[must_use]
    pub fn segment_bases(&self) -> Vec<LogOffset> {
        self.state.borrow().segments.keys().copied().collect()
    }

    /// Bases of the segments that have an index, or may get one by an operation under way, even at the end of its process.
    #[must_use]
    pub fn sealed_bases(&self) -> Vec<LogOffset> {
        let state = self.state.borrow();
        let sealing = state.pending.iter().filter_map(|pending| match &pending.op {
            DiskOp::Seal(job) => Some(job.segment.base),
            _ => None,
        });
        state.indexes.keys().copied().chain(sealing).collect()
    }

    /// Undoes all damage to small files.
    pub fn repair_small_files(&self) {
        let state = &mut *self.state.borrow_mut();
        let small = state.indexes.values_mut().chain(state.snapshots.values_mut());
        let small = small.chain(&mut state.group).chain(&mut state.checkpoint);
        small.for_each(SmallFile::repair);
    }

    /// Turns one bit of an index or a snapshot over, for good; whoever mapped it keeps what it was.
    pub fn flip_bit_of_small_file(&self, file: LogFile, bit: u64) {
        self.state.borrow_mut().small_file(file).flip_bit(bit);
    }

    /// Whether an index or a snapshot is not what was written.
    #[must_use]
    pub fn is_damaged(&self, file: LogFile) -> bool {
        self.state.borrow_mut().small_file(file).is_damaged()
    }

    /// Turns one bit over, for good.
    pub fn flip_bit(&self, base: LogOffset, position: u64, bit: u8) {
        let byte = self.read(FileRun { segment: base, position, len: 1 })[0];
        self.overwrite(base, position, &[byte ^ (1 << bit)]);
    }

    /// Another disk is put in, with nothing on it.
    pub fn wipe(&self) {
        let state = &mut *self.state.borrow_mut();
        assert!(state.pending.is_empty(), "the process still lives");
        state.segments.clear();
        state.indexes.clear();
        state.snapshots.clear();
        (state.group, state.checkpoint) = (None, None);
    }

    /// Makes an empty segment at once.
    pub fn add_segment(&self, segment: SegmentInfo) {
        self.state.borrow_mut().make(segment);
    }

    /// Takes a segment away.
    pub fn remove_segment(&self, base: LogOffset) {
        self.state.borrow_mut().segments.remove(&base).expect("the segment exists");
    }

    fn carry_out(&self, pending: Pending) -> Completion {
        match pending.op {
            DiskOp::Write { id, segment, position, buffer, len, .. } => {
                let bytes = &(*buffer).as_ref()[..len as usize];
                let result = self.state.borrow_mut().carry_out_write(segment, position, bytes);
                Completion::Written { id, result }
            }
            DiskOp::Erase { id, segment, position } => {
                let result = self.state.borrow_mut().carry_out_write(segment, position, &[0; BLOCK_LEN]);
                Completion::Written { id, result }
            }
            DiskOp::Sync { id, segments } => {
                let result = self.state.borrow_mut().carry_out_sync(&segments, pending.completed);
                Completion::Synced { id, result }
            }
            DiskOp::Prepare { segment, recycle, reserve_bytes } => {
                let result = self.state.borrow_mut().carry_out_prepare(segment, recycle, reserve_bytes);
                Completion::Prepared { base: segment.base, result }
            }
            DiskOp::Seal(job) => {
                let sealed = seal_segment(self, &job);
                let result = sealed.map_err(|error| DiskError::job("seal", &error));
                Completion::Sealed { base: job.segment.base, result }
            }
            DiskOp::Snapshot(job) => {
                let StateMaker(new_state) = self.state.borrow().new_state.clone();
                let taken = take_snapshot(self, &job, new_state());
                let result = taken.map(drop).map_err(|error| DiskError::job("snapshot", &error));
                Completion::Snapshot { at: job.at, result }
            }
            DiskOp::ReadEnds(index) => {
                let base = index.summary().segment.base;
                let result = read_ends(&index).map_err(|fault| DiskError::fault("read ends", &fault));
                Completion::Ends { base, result }
            }
            DiskOp::Remove { segment } => {
                let result = self.state.borrow_mut().carry_out_remove(segment);
                Completion::Removed { base: segment, result }
            }
            DiskOp::SaveGroupState { id, state } => {
                let saved = save_group_state(self, &state);
                let result = saved.map_err(|error| DiskError::job("save the group's state", &error));
                Completion::GroupStateSaved { id, result }
            }
            DiskOp::Reset(job) => {
                let StateMaker(new_state) = self.state.borrow().new_state.clone();
                let id = job.id;
                let failed = |error| DiskError::job("begin anew", &error);
                let begun = Reset::begin(self, *job, new_state()).map_err(|error| failed(error).not_begun());
                let result = begun.and_then(|reset| reset.finish(self).map(Box::new).map_err(failed));
                Completion::ResetDone { id, result }
            }
            DiskOp::TakeCheckpoint(job) => {
                let taken = take_checkpoint(self, &job);
                let result = taken.map(Box::new).map_err(|error| DiskError::job("checkpoint", &error));
                Completion::CheckpointTaken { id: job.id, result }
            }
            DiskOp::Rebuild(job) => {
                let StateMaker(new_state) = self.state.borrow().new_state.clone();
                let rebuilt = rebuild_state(self, &job, new_state());
                let result = rebuilt.map_err(|error| DiskError::job("derive the state", &error));
                Completion::Rebuilt { id: job.id, result }
            }
        }
    }

    /// What a process leaves of an operation when it ends.
    fn leave(&self, op: DiskOp<AlignedBuffer>, completed: u64) {
        let fate = self.state.borrow_mut().rng.below(3);
        match op {
            DiskOp::Write { segment, position, buffer, len, .. } => {
                let bytes = &(*buffer).as_ref()[..len as usize];
                let state = &mut *self.state.borrow_mut();
                match fate {
                    0 => {}
                    1 => state.write_partly(segment, position, bytes),
                    _ => state.write(segment, position, bytes),
                }
            }
            DiskOp::Erase { segment, position, .. } => {
                let state = &mut *self.state.borrow_mut();
                match fate {
                    0 => {}
                    1 => state.write_partly(segment, position, &[0; BLOCK_LEN]),
                    _ => state.write(segment, position, &[0; BLOCK_LEN]),
                }
            }
            DiskOp::Sync { segments, .. } if fate == 2 => {
                let state = &mut *self.state.borrow_mut();
                segments.iter().for_each(|base| state.segment(*base).sync(completed));
            }
            op @ (DiskOp::Seal(_)
            | DiskOp::Snapshot(_)
            | DiskOp::SaveGroupState { .. }
            | DiskOp::Reset(_))
                if fate == 1 =>
            {
                const CALLS: u64 = 8;
                const CALLS_OF_RESET: u64 = 24;
                let calls = if matches!(op, DiskOp::Reset(_)) { CALLS_OF_RESET } else { CALLS };
                let calls = self.state.borrow_mut().rng.below(calls);
                self.die_after(calls);
                drop(self.carry_out(Pending { op, completed, delay: 0 }));
                self.state.borrow_mut().calls_left = None;
            }
            // The file goes first.
            DiskOp::Remove { segment } if fate == 1 => {
                self.state.borrow_mut().segments.remove(&segment);
            }
            op if fate == 2 => drop(self.carry_out(Pending { op, completed, delay: 0 })),
            _ => {}
        }
    }
}

impl State {
    fn take_any(&mut self) -> Option<Pending> {
        let ready: Vec<usize> = (0..self.pending.len()).filter(|nth| self.pending[*nth].delay == 0).collect();
        let nth = match (ready.len(), self.pending.len()) {
            (_, 0) => return None,
            (0, all) => self.rng.below(all as u64) as usize,
            (some, _) => ready[self.rng.below(some as u64) as usize],
        };
        let taken = self.pending.remove(nth);
        self.pending.iter_mut().for_each(|pending| pending.delay = pending.delay.saturating_sub(1));
        Some(taken)
    }

    fn check_write(&self, segment: LogOffset, position: u64, len: u32) {
        let block = BLOCK_LEN as u64;
        let bytes = self.segments.get(&segment).expect("writes go to segments that exist").bytes();
        assert!(position.is_multiple_of(block) && u64::from(len).is_multiple_of(block), "not aligned");
        assert!(
            len > 0 && position + u64::from(len) <= bytes,
            "write of {len} at {position} leaves {segment}"
        );
        for Pending { op, .. } in &self.pending {
            let (other, at, other_len) = match op {
                DiskOp::Write { segment, position, len, .. } => (segment, position, *len),
                DiskOp::Erase { segment, position, .. } => (segment, position, BLOCK_LEN as u32),
                _ => continue,
            };
            let apart = position + u64::from(len) <= *at || at + u64::from(other_len) <= position;
            assert!(segment != *other || apart, "two writes overlap in {segment} at {position} and {at}");
        }
    }

    fn check_save(&self) {
        let saves =
            |op: &DiskOp<AlignedBuffer>| matches!(op, DiskOp::SaveGroupState { .. } | DiskOp::Reset(_));
        assert!(!self.pending.iter().any(|pending| saves(&pending.op)), "two states are saved at once");
    }

    fn check_reset(&self) {
        self.check_save();
        let pending = self.pending.iter().map(|pending| &pending.op);
        let of_log = pending.filter(|op| !matches!(op, DiskOp::TakeCheckpoint(_) | DiskOp::Rebuild(_)));
        let of_log: Vec<_> = of_log.collect();
        assert!(of_log.is_empty(), "the log is begun anew with {of_log:?} on the way");
    }

    fn segment(&mut self, base: LogOffset) -> &mut SimFile {
        self.segments.get_mut(&base).expect("operations name segments that exist")
    }

    fn small_file(&mut self, file: LogFile) -> &mut SmallFile {
        let found = match file {
            LogFile::Segment(_) => None,
            LogFile::Index(base) => self.indexes.get_mut(&base),
            LogFile::Snapshot(at) => self.snapshots.get_mut(&at),
            LogFile::GroupState => self.group.as_mut(),
            LogFile::Checkpoint => self.checkpoint.as_mut(),
        };
        found.unwrap_or_else(|| panic!("{file:?} is no small file that is there"))
    }

    fn make(&mut self, segment: SegmentInfo) {
        let made = self.segments.insert(segment.base, SimFile::new(segment.bytes));
        assert!(made.is_none(), "segment {} was made twice", segment.base);
    }

    fn free_bytes(&self) -> u64 {
        let segments: u64 = self.segments.values().map(SimFile::bytes).sum();
        let small = self.indexes.values().chain(self.snapshots.values());
        let small = small.chain(&self.group).chain(&self.checkpoint);
        let used = segments + small.map(SmallFile::bytes_on_disk).sum::<u64>();
        if self.faults.full { 0 } else { self.capacity_bytes.saturating_sub(used) }
    }

    pub(super) fn check_space(&self, needed_bytes: u64, reserve_bytes: u64) -> Result<(), DiskError> {
        let free_bytes = self.free_bytes();
        if free_bytes >= needed_bytes.saturating_add(reserve_bytes) {
            return Ok(());
        }
        let place = "the simulated disk".to_owned();
        Err(DiskError::NoSpace { place, needed_bytes, free_bytes, reserve_bytes })
    }

    fn carry_out_write(&mut self, segment: LogOffset, position: u64, bytes: &[u8]) -> Result<(), DiskError> {
        if self.faults.read_only {
            return Err(read_only_error("write"));
        }
        if self.faults.happens(Failing::Writes) {
            self.write_partly(segment, position, bytes);
            return Err(input_output_error("write"));
        }
        match self.faults.lie.take() {
            None => self.write(segment, position, bytes),
            Some(lie) => self.write_otherwise(lie, segment, position, bytes),
        }
        Ok(())
    }

    fn write_otherwise(&mut self, lie: Lie, segment: LogOffset, position: u64, bytes: &[u8]) {
        match lie {
            Lie::Lost => self.completed += 1,
            Lie::Flipped => {
                let mut bytes = bytes.to_vec();
                let bit = self.rng.below(bytes.len() as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
                self.write(segment, position, &bytes);
            }
            Lie::Misdirected | Lie::MisdirectedBehind => {
                let first = match lie {
                    Lie::Misdirected => LogOffset(0),
                    _ => segment.plus(position + bytes.len() as u64),
                };
                match self.any_place(first, bytes.len() as u64) {
                    Some((segment, position)) => self.write(segment, position, bytes),
                    None => self.completed += 1,
                }
            }
        }
    }

    /// Somewhere from `first` on, within one segment.
    fn any_place(&mut self, first: LogOffset, len: u64) -> Option<(LogOffset, u64)> {
        let mut places = Vec::new();
        for (base, file) in &self.segments {
            let begin = first.0.saturating_sub(base.0);
            let places_here = (begin..file.bytes()).step_by(BLOCK_LEN);
            places.extend(
                places_here.take_while(|at| at + len <= file.bytes()).map(|position| (*base, position)),
            );
        }
        let count = places.len() as u64;
        (count > 0).then(|| places[self.rng.below(count) as usize])
    }

    fn carry_out_sync(&mut self, segments: &[LogOffset], completed: u64) -> Result<(), DiskError> {
        if self.faults.read_only {
            return Err(read_only_error("sync"));
        }
        if self.faults.happens(Failing::Syncs) {
            return Err(input_output_error("sync"));
        }
        if self.faults.happens(Failing::SyncsForGood) {
            let survive_percent = self.rng.below(101);
            for base in segments {
                let file = self.segments.get_mut(base).expect("operations name segments that exist");
                file.lose_unsynced(&mut self.rng, survive_percent);
            }
            return Err(input_output_error("sync"));
        }
        segments.iter().for_each(|base| self.segment(*base).sync(completed));
        Ok(())
    }

    fn carry_out_prepare(
        &mut self,
        segment: SegmentInfo,
        recycle: Option<LogOffset>,
        reserve_bytes: u64,
    ) -> Result<(), DiskError> {
        if self.faults.read_only {
            return Err(read_only_error("prepare"));
        }
        if self.faults.happens(Failing::Preparations) {
            return Err(input_output_error("prepare"));
        }
        if let Some(old) = recycle {
            // Only the name changes: what was written there lies in the new segment.
            let file = self.segments.remove(&old).expect("recycled segments are there");
            assert_eq!(file.bytes(), segment.bytes, "segment {old} recycled with another size");
            self.segments.insert(segment.base, file);
            self.indexes.retain(|base, _| *base >= old);
            return Ok(());
        }
        self.check_space(segment.bytes, reserve_bytes)?;
        self.make(segment);
        Ok(())
    }

    fn carry_out_remove(&mut self, segment: LogOffset) -> Result<(), DiskError> {
        if self.faults.read_only {
            return Err(read_only_error("remove"));
        }
        self.segments.remove(&segment);
        self.indexes.retain(|base, _| *base >= segment);
        Ok(())
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
}
