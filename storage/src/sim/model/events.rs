//! What the log does by itself, and whether it may.

use super::owed::CommittedAt;
use super::state::{ControlState, digest};
use super::world::World;
use crate::disk::{DiskError, SegmentInfo};
use crate::log::{LogEvent, SpaceState, WhyLeft};
use crate::snapshot::{DerivedState as _, SnapshotError, read_snapshot};
use crate::source::LogFile;
use crate::types::{LogOffset, QueueKey, QueueOffset};

/// Turns of the disk within which a log that is able to go on must.
const TURNS_MAX: u64 = 20_000;

impl World {
    pub(super) fn take_events(&mut self) {
        while let Some(event) = self.log.take_event() {
            match event {
                LogEvent::Sealed { .. } => self.tally.count("segment sealed"),
                LogEvent::IndexDamaged { segment } => {
                    assert!(!self.is_honest, "the index of {segment} is called damaged");
                    self.tally.count("index damage told");
                }
                LogEvent::IndexRebuilt { .. } => self.tally.count("index made anew"),
                LogEvent::SnapshotTaken { .. } => self.tally.count("snapshot taken"),
                LogEvent::Left { segment, newest_ms, why } => self.check_left(segment, newest_ms, why),
                LogEvent::SealFailed { error, .. } => self.check_failure("seal failed", &error),
                LogEvent::SnapshotFailed { error, .. } => self.check_failure("snapshot failed", &error),
                LogEvent::LeaveFailed { error, .. } => self.check_failure("leaving failed", &error),
                LogEvent::PrepareFailed { error, .. } => self.check_failure("preparation failed", &error),
                LogEvent::Space { from, to, .. } => self.check_space(from, to),
                LogEvent::Poisoned(poison) => assert_eq!(self.log.poisoned(), Some(&poison)),
            }
        }
        assert_eq!(self.log.space_state(), self.space_state, "each transition is told");
    }

    /// A disk that does not lie fails only as it was told to, and then by its own errors.
    fn check_failure(&mut self, what: &'static str, error: &DiskError) {
        let is_by_design = match error {
            DiskError::NoSpace { .. } | DiskError::NotBegun { .. } => true,
            DiskError::Io { os_code, .. } => {
                matches!(os_code, Some(libc::EIO | libc::EROFS | libc::ENOSPC))
            }
            DiskError::Unusable { .. } => false,
        };
        assert!(is_by_design || !self.is_honest, "{what}: {error}");
        self.tally.count(what);
    }

    fn check_space(&mut self, from: SpaceState, to: SpaceState) {
        assert_ne!(from, to);
        assert_eq!(self.space_state, from, "each transition is told");
        self.space_state = to;
        self.tally.count(match to {
            SpaceState::Normal => "space: normal again",
            SpaceState::Reclaim => "space: reclaim",
            SpaceState::Refuse => "space: refuse",
        });
    }

    /// Only the oldest segment leaves, for a reason that holds, and only if nothing needs it any more.
    fn check_left(&mut self, segment: SegmentInfo, newest_ms: i64, why: WhyLeft) {
        assert_eq!(self.log.start(), segment.end(), "the oldest leaves");
        assert!(self.log.sealed_indexes().next().is_some(), "the newest sealed segment stays");
        let records = self.owed.committed_from(segment.base).map(|(_, committed)| committed);
        let here = records.filter(|committed| committed.log_offset < segment.end());
        let (mut newest, mut last) = (i64::MIN, segment.base);
        for CommittedAt { log_offset, store_time_ms } in here {
            (newest, last) = (newest.max(store_time_ms), last.max(log_offset));
        }
        assert_eq!(newest_ms, newest, "the newest record of {segment:?}");
        let snapshots = self.disk.small_files().into_iter().filter(|file| match file {
            LogFile::Snapshot(at) => *at > last,
            _ => false,
        });
        assert!(snapshots.count() >= 2, "two snapshots stand behind {segment:?}");
        let retention = self.config.retention;
        match why {
            WhyLeft::Age => {
                let age_ms = u64::try_from(self.latest_ms - newest_ms).expect("not from the future");
                assert!(
                    retention.age_ms.is_some_and(|age_ms_max| age_ms > age_ms_max),
                    "{age_ms} ms is young"
                );
                self.tally.count("segment left by age");
            }
            WhyLeft::Size => {
                let files = self.disk.segment_bases().len() as u64;
                let bytes = (files + 1) * self.config.segment_bytes;
                assert!(retention.bytes.is_some_and(|bytes_max| bytes > bytes_max), "{bytes} bytes are few");
                self.tally.count("segment left by size");
            }
            WhyLeft::Space => {
                assert!(retention.may_reclaim, "nothing may leave before its time");
                self.tally.count("segment left for want of space");
            }
        }
        self.owed.leave(segment);
    }

    /// A snapshot holds exactly the control records in front of it.
    pub(super) fn check_snapshot(&mut self, at: LogOffset) {
        let read = read_snapshot(&self.disk, self.config.group, at);
        let snapshot = match read {
            Ok(snapshot) => snapshot,
            Err(error) => {
                let is_damaged = self.disk.is_damaged(LogFile::Snapshot(at));
                return assert!(
                    is_damaged || matches!(error, SnapshotError::Io { .. }),
                    "snapshot at {at}: {error}"
                );
            }
        };
        let mut state = ControlState::default();
        state.restore(&snapshot.body).expect("our own snapshot");
        self.check_control(&state, at);
    }

    /// The state is that of all control records in front of `end`.
    pub(super) fn check_control(&self, state: &ControlState, end: LogOffset) {
        let owed = self.owed.visible(QueueKey::CONTROL).iter().enumerate();
        let wanted = owed.filter_map(|(nth, owed)| {
            let at = owed.committed.expect("visible records are committed").log_offset;
            let bytes = owed.record.bytes(at, QueueOffset(nth as u64));
            (at < end).then(|| (at, digest(&bytes)))
        });
        let wanted: Vec<_> = wanted.collect();
        assert!(state.records() == wanted, "control records up to {end}: {:?}, {wanted:?}", state.records());
    }

    /// Left alone with an able disk, the log seals what is written to its end, takes snapshots, lets go of what is
    /// expired and takes appends again.
    pub(super) fn check_progress(&mut self) {
        if !self.is_honest {
            return;
        }
        self.disk.set_capacity(u64::MAX);
        let before = self.owed.committed_batches().count();
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "the log does not go on");
            self.stage();
            self.settle();
            self.pass(1);
            self.tick();
            // As much as fills some segments.
            if self.owed.committed_batches().count() > before + 60 {
                break;
            }
        }
        for _ in 0..TURNS_MAX / 10 {
            self.pass(1);
            self.tick();
            self.complete_one();
            self.take_outcomes();
        }
        if self.log.poisoned().is_some() {
            return;
        }
        let last = self.owed.committed_batches().last().expect("some were just written").base;
        let active = self.run_at(last, 0).segment;
        let sealed = self.log.sealed_indexes().last().expect("some segments are written to their end");
        let (sealed_end, end) = (sealed.summary().segment.end(), sealed.summary().end);
        assert!(sealed_end >= active, "sealed up to {sealed_end}, and {active} is written to");
        let snapshots = self.disk.small_files();
        assert!(snapshots.contains(&LogFile::Snapshot(end)), "no snapshot at {end}: {snapshots:?}");
        self.check_all();
    }
}
