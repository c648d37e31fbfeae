//! What a disk does wrong, and when: armed by calls, happening as the operations come.

use super::rng::Rng;
use crate::disk::DiskError;

/// What fails and says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// Writes, having written any part.
    Writes,
    /// Syncs, having made nothing durable that was not.
    Syncs,
    /// Syncs, as with [`Syncs`](Failing::Syncs), and any part of what they should have made durable is gone at once:
    /// the disk had it in its own memory only.
    SyncsForGood,
    Preparations,
    /// Reads and listings at the opening and in the background.
    Reads,
    /// Writes and removals of indexes and snapshots.
    SmallFiles,
}

impl Failing {
    pub const ALL: [Failing; 6] = [
        Failing::Writes,
        Failing::Syncs,
        Failing::SyncsForGood,
        Failing::Preparations,
        Failing::Reads,
        Failing::SmallFiles,
    ];
}

/// What a disk does with one write and does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Nothing is written.
    Lost,
    /// It lands behind its place, where nothing acknowledged stands: all that is missing is the write itself.
    MisdirectedBehind,
    /// It lands at any aligned place of any segment, whatever stands there.
    Misdirected,
    /// One bit is turned over on the way.
    Flipped,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    failing: [u32; Failing::ALL.len()],
    /// How many work before those fail.
    working: [u32; Failing::ALL.len()],
    /// About the next write.
    pub(super) lie: Option<Lie>,
    /// The next index or snapshot is written with one bit turned over.
    pub(super) flip_small_file: bool,
    /// How many of a hundred pages of an index are not in memory once it is mapped.
    pub(super) cold_percent: u64,
    /// How many of a hundred operations stay behind while others overtake.
    pub(super) slow_percent: u64,
    pub(super) full: bool,
    pub(super) read_only: bool,
}

impl Faults {
    pub(super) fn arm(&mut self, failing: Failing, count: u32) {
        self.failing[failing as usize] = count;
        self.working[failing as usize] = 0;
    }

    pub(super) fn arm_after(&mut self, failing: Failing, working: u32) {
        self.arm(failing, u32::MAX);
        self.working[failing as usize] = working;
    }

    /// Whether the operation that happens now fails.
    pub(super) fn happens(&mut self, failing: Failing) -> bool {
        let working = &mut self.working[failing as usize];
        if *working > 0 {
            *working -= 1;
            return false;
        }
        let left = &mut self.failing[failing as usize];
        let happens = *left > 0;
        *left = left.saturating_sub(1);
        happens
    }

    /// For how many others an operation stays behind.
    pub(super) fn delay(&self, rng: &mut Rng) -> u64 {
        const LONG: u64 = 60;
        if rng.chance(self.slow_percent) { 1 + rng.below(LONG) } else { 0 }
    }
}

pub(super) fn input_output_error(action: &str) -> DiskError {
    refused(action, libc::EIO)
}

pub(super) fn read_only_error(action: &str) -> DiskError {
    refused(action, libc::EROFS)
}

fn refused(action: &str, os_code: i32) -> DiskError {
    DiskError::io(action, &std::io::Error::from_raw_os_error(os_code))
}
