//! The check of a whole log: every batch, every index against its segment, every snapshot.

use rustc_hash::FxHashMap;

use super::indexes::{Indexes, Run};
use super::problem::{Problem, Telling, Wrong};
use super::walk::{Seen, Step, Walk};
use crate::checkpoint::{Interrupted, interrupted_reset};
use crate::disk::SegmentInfo;
use crate::format::{BLOCK_LEN, Directory, RawDirectory};
use crate::group_state::{GroupState, read_saved_group_state};
use crate::job_error::JobError;
use crate::recovery::{Cut, Mismatch, SnapshotFlaw};
use crate::snapshot::{Snapshot, SnapshotError, read_snapshot};
use crate::source::{LogFile, LogSource};
use crate::types::{BatchIndex, GroupId, LogOffset, QueueKey, QueueOffset, Term};

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Whose log it is; nothing if it holds no batch.
    pub group: Option<GroupId>,
    /// Where the log begins.
    pub begin: LogOffset,
    /// One past the last whole batch.
    pub end: LogOffset,
    pub last_index: BatchIndex,
    pub last_term: Term,
    /// Segment files, ready ones without batches among them.
    pub segments: usize,
    /// Segments that left the log while it was checked.
    pub segments_left: usize,
    /// Whole ones.
    pub batches: u64,
    pub records: u64,
    /// Of whole batches.
    pub bytes: u64,
    /// Queues with a record.
    pub queues: usize,
    pub indexes: usize,
    /// Those of them that were compared with their segments. The others could not be: something in the segment or in front
    /// of it is damaged.
    pub indexes_compared: usize,
    pub snapshots: usize,
    /// What stands behind the end, if a batch was begun there: one that was interrupted, or is being written.
    pub cut: Option<Cut>,
    /// What the node must not forget, if it belongs to a group of nodes.
    pub state: Option<GroupState>,
    /// The log was being begun anew, and the next opening ends that.
    pub begins_anew: bool,
    pub problems: u64,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub bytes: u64,
    /// Of all segments, ready ones too.
    pub of_bytes: u64,
}

/// Checks a log and tells each problem as it is found. `group` is whose log it has to be; if that is not given, the first
/// batch says it.
///
/// Reads everything. Changes nothing and locks nothing, so the log may be in use: what comes to it meanwhile may be seen
/// or not, what leaves it is passed over.
pub fn verify<S: LogSource + ?Sized>(
    source: &S,
    group: Option<GroupId>,
    on_problem: &mut dyn FnMut(Problem),
    on_progress: &mut dyn FnMut(Progress),
) -> VerifyReport {
    let mut telling = Telling::new(on_problem);
    let mut report = VerifyReport::empty(group);
    check_node(source, &mut report, &mut telling);
    match Check::start(source, group, &mut telling) {
        Ok((mut check, walk)) => check.run(walk, &mut report, on_progress),
        Err(problem) => telling.tell(problem),
    }
    report.problems = telling.count();
    report
}

/// The files of a group's node. That the slot written last is torn is no problem.
fn check_node<S: LogSource + ?Sized>(source: &S, report: &mut VerifyReport, telling: &mut Telling<'_>) {
    let mut tell = |file: LogFile, wrong: Wrong| telling.tell(Problem::new(source, file, 0, wrong));
    let saved = match read_saved_group_state(source) {
        Ok(saved) => saved,
        Err(JobError::GroupState { error, .. }) => return tell(LogFile::GroupState, error.into()),
        Err(error) => return tell(LogFile::GroupState, Wrong::Io(error.to_string())),
    };
    let Some(saved) = saved else { return };
    let state = report.state.insert(saved.state);
    if let Some(expected) = report.group.filter(|group| *group != state.group) {
        let found = state.group;
        tell(LogFile::GroupState, Wrong::ForeignGroup { expected, found });
    }
    match interrupted_reset(source, state.group, Some((&*state, saved.seq))) {
        Ok(interrupted) => report.begins_anew = interrupted == Some(Interrupted::Ended),
        Err(JobError::Checkpoint { error, .. }) => tell(LogFile::Checkpoint, error.into()),
        Err(error) => tell(LogFile::Checkpoint, Wrong::Io(error.to_string())),
    }
}

impl VerifyReport {
    fn empty(group: Option<GroupId>) -> VerifyReport {
        VerifyReport {
            group,
            begin: LogOffset(0),
            end: LogOffset(0),
            last_index: BatchIndex(0),
            last_term: Term(0),
            segments: 0,
            segments_left: 0,
            batches: 0,
            records: 0,
            bytes: 0,
            queues: 0,
            indexes: 0,
            indexes_compared: 0,
            snapshots: 0,
            cut: None,
            state: None,
            begins_anew: false,
            problems: 0,
        }
    }
}

struct Check<'a, 't, S: ?Sized> {
    source: &'a S,
    telling: &'a mut Telling<'t>,
    snapshots: Vec<LogOffset>,
    indexes: Indexes<'a, S>,
    queues: Queues,
    /// The batches of one segment so far.
    run: Option<Run>,
    runs: Vec<Run>,
    last_time_ms: i64,
}

impl<'a, 't, S: LogSource + ?Sized> Check<'a, 't, S> {
    fn start(
        source: &'a S,
        group: Option<GroupId>,
        telling: &'a mut Telling<'t>,
    ) -> Result<(Check<'a, 't, S>, Walk<'a, S>), Problem> {
        let mut snapshots = source.snapshots().map_err(|error| Problem::list("snapshots", &error))?;
        snapshots.sort_unstable();
        let indexes = Indexes::list(source)?;
        let walk = Walk::start(source, group, LogOffset(0))?;
        let queues = Queues::start(walk.end, &indexes);
        let check = Check {
            source,
            telling,
            snapshots,
            indexes,
            queues,
            run: None,
            runs: Vec::new(),
            last_time_ms: i64::MIN,
        };
        Ok((check, walk))
    }

    fn run(
        &mut self,
        mut walk: Walk<'a, S>,
        report: &mut VerifyReport,
        on_progress: &mut dyn FnMut(Progress),
    ) {
        self.check_segments(walk.segments());
        report.segments = walk.segments().len();
        report.begin = walk.end;
        let of_bytes = walk.segments().iter().map(|segment| segment.bytes).sum();
        while let Some(step) = walk.next() {
            match step {
                Step::Problem(segment, problem) => self.on_problem(segment, problem),
                Step::Left => self.queues.lose_track(),
                Step::Batch(seen) => {
                    self.on_batch(&seen, report);
                    let bytes = (seen.segment.base.0 + seen.position).saturating_sub(report.begin.0);
                    on_progress(Progress { bytes, of_bytes });
                }
            }
        }
        self.finish_run();
        if let Some(last) = self.runs.last() {
            (report.last_index, report.last_term) = (last.last.index, last.last.term);
        }
        self.indexes.check_others(walk.group, report.begin, walk.segments(), self.telling);
        for at in std::mem::take(&mut self.snapshots) {
            report.snapshots += 1;
            // A log that was begun anew has not come so far yet.
            let checkpoint_at = report.state.as_ref().map(|state| state.checkpoint_at);
            let group = walk.group.or(report.state.as_ref().map(|state| state.group));
            let end = walk.end.max(checkpoint_at.unwrap_or(walk.end));
            self.check_snapshot(at, group, report.begin, end);
        }
        (report.group, report.end) = (walk.group, walk.end);
        (report.cut, report.segments_left) = (walk.cut.take(), walk.segments_left);
        (report.indexes, report.indexes_compared) = (self.indexes.count(), self.indexes.compared);
        report.queues = self.queues.next.len();
    }

    /// Segments touch each other and consist of blocks.
    fn check_segments(&mut self, segments: &[SegmentInfo]) {
        let mut expected = None;
        for segment in segments {
            let (file, bytes) = (LogFile::Segment(segment.base), segment.bytes);
            if let Some(expected) = expected.filter(|expected| *expected != segment.base) {
                let wrong = Wrong::Gap { expected, found: segment.base };
                self.telling.tell(Problem::new(self.source, file, 0, wrong));
            }
            if !bytes.is_multiple_of(BLOCK_LEN as u64) {
                self.telling.tell(Problem::new(self.source, file, 0, Wrong::SegmentSize { bytes }));
            }
            expected = Some(segment.end());
        }
    }

    fn on_problem(&mut self, segment: SegmentInfo, problem: Problem) {
        self.telling.tell(problem);
        self.go_to(segment, None).is_whole = false;
        self.queues.lose_track();
    }

    fn on_batch(&mut self, seen: &Seen<'_>, report: &mut VerifyReport) {
        let (file, index) = (LogFile::Segment(seen.segment.base), seen.header.index());
        self.go_to(seen.segment, Some(seen)).take(seen);
        if let Some(error) = &seen.damage {
            let wrong = Wrong::Damaged { index, error: error.clone() };
            self.telling.tell(Problem::new(self.source, file, seen.position, wrong));
        } else {
            report.batches += 1;
            report.records += u64::from(seen.header.record_count.get());
            report.bytes += seen.header.batch_len() as u64;
        }
        let time_ms = seen.header.store_time.get();
        if time_ms < self.last_time_ms {
            let (expected, found) = (self.last_time_ms as u64, time_ms as u64);
            let mismatch = Mismatch { field: "store_time", expected, found };
            let wrong = Wrong::Inconsistent { index, mismatch };
            self.telling.tell(Problem::new(self.source, file, seen.position, wrong));
        }
        self.last_time_ms = time_ms;
        // Damaged records leave the directory as it is.
        match RawDirectory(seen.bytes).verify() {
            Ok(directory) => self.queues.check(self.source, seen, &directory, self.telling),
            Err(_) => {
                self.go_to(seen.segment, None).is_whole = false;
                self.queues.lose_track();
            }
        }
    }

    /// The run of a segment. With another one, that of the segment before is done.
    fn go_to(&mut self, segment: SegmentInfo, first: Option<&Seen<'_>>) -> &mut Run {
        if self.run.as_ref().is_some_and(|run| run.segment != segment) {
            self.finish_run();
        }
        self.run.get_or_insert_with(|| Run::new(segment, first))
    }

    fn finish_run(&mut self) {
        let Some(run) = self.run.take() else { return };
        self.indexes.check_run(&run, self.telling);
        self.runs.push(run);
    }

    fn check_snapshot(&mut self, at: LogOffset, group: Option<GroupId>, begin: LogOffset, end: LogOffset) {
        let file = LogFile::Snapshot(at);
        let Some(group) = group.filter(|_| at <= end) else {
            return self.telling.tell(Problem::new(self.source, file, 0, Wrong::SnapshotAhead { end }));
        };
        let flaw = match read_snapshot(self.source, group, at) {
            Ok(snapshot) => match self.check_fits(&snapshot, begin) {
                Some(mismatch) => SnapshotFlaw::DoesNotFit(mismatch),
                None => return,
            },
            // A running log removes those it needs no longer.
            Err(SnapshotError::Io { .. }) if !self.source.snapshots().is_ok_and(|all| all.contains(&at)) => {
                return;
            }
            Err(error) => SnapshotFlaw::File(error),
        };
        self.telling.tell(Problem::new(self.source, file, 0, flaw));
    }

    /// Whether the log has at this place the batch that the snapshot ends with; nothing to say where it is damaged.
    fn check_fits(&self, snapshot: &Snapshot, begin: LogOffset) -> Option<Mismatch> {
        let at = snapshot.at;
        let last = if at <= begin {
            self.runs.first()?.before()?
        } else {
            let behind = self.runs.iter().find(|run| run.end >= at)?;
            if behind.end != at {
                let (expected, found) = (behind.end.0, at.0);
                return behind.is_whole.then_some(Mismatch { field: "position", expected, found });
            }
            behind.last
        };
        let rules = [("index", last.index.0, snapshot.index.0), ("term", last.term.0, snapshot.term.0)];
        let (field, expected, found) = rules.into_iter().find(|(_, expected, found)| expected != found)?;
        Some(Mismatch { field, expected, found })
    }
}

/// Where the queues stand, batch by batch.
struct Queues {
    /// The next offset of each, and which generation said so.
    next: FxHashMap<QueueKey, (QueueOffset, u32)>,
    /// Grows whenever records may have been missed.
    generation: u32,
    /// There is no queue that is not in `next`, but new ones.
    knows_all: bool,
}

impl Queues {
    fn start<S: LogSource + ?Sized>(begin: LogOffset, indexes: &Indexes<'_, S>) -> Queues {
        let known = if begin == LogOffset(0) { Some(Vec::new()) } else { indexes.queues_at(begin) };
        Queues {
            knows_all: known.is_some(),
            next: known.into_iter().flatten().map(|(queue, next)| (queue, (next, 0))).collect(),
            generation: 0,
        }
    }

    /// Offsets may jump ahead now.
    fn lose_track(&mut self) {
        self.generation += 1;
        self.knows_all = false;
    }

    fn check<S: LogSource + ?Sized>(
        &mut self,
        source: &S,
        seen: &Seen<'_>,
        directory: &Directory<'_>,
        telling: &mut Telling<'_>,
    ) {
        for record in directory.entries() {
            let (queue, found) = (record.queue, record.queue_offset);
            let (expected, is_exact) = match self.next.get(&queue) {
                Some((next, generation)) => (*next, *generation == self.generation),
                None => (QueueOffset(0), self.knows_all),
            };
            if found < expected || (is_exact && found != expected) {
                let file = LogFile::Segment(seen.segment.base);
                let wrong = Wrong::QueueOffset { queue, expected, found };
                telling.tell(Problem::new(source, file, seen.position, wrong));
            }
            self.next.insert(queue, (found.next(), self.generation));
        }
    }
}
