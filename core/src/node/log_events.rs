//! What a shard's log did by itself, written down for people: each event once, a failure that goes on once.

use apogee_storage::{DiskError, LogEvent, LogFile, LogOffset, SpaceState, WhyLeft};

use super::clock::now_ms;

/// Writes the events of one shard.
#[derive(Debug)]
pub(super) struct EventWriter {
    shard: u16,
    /// The failure of each kind of work that was written last; over when the work succeeds.
    failing: [Option<Failure>; Work::COUNT],
}

/// What is tried again by itself.
#[derive(Clone, Copy, Debug)]
enum Work {
    Seal,
    Snapshot,
    Leave,
    Prepare,
}

impl Work {
    const COUNT: usize = 4;
}

/// The same failure again is no news.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    at: LogOffset,
    /// None: no space, as the log counts it. The numbers in it change from try to try.
    os_code: Option<i32>,
}

impl EventWriter {
    pub(super) fn new(shard: u16) -> Self {
        EventWriter { shard, failing: [const { None }; Work::COUNT] }
    }

    pub(super) fn write(&mut self, event: LogEvent) {
        let shard = self.shard;
        match event {
            LogEvent::Sealed { segment, records, queues } => {
                self.succeeded(Work::Seal);
                let file = LogFile::Index(segment).file_name();
                tracing::info!(shard, file, records, queues, "segment sealed");
            }
            LogEvent::IndexDamaged { segment } => {
                let file = LogFile::Index(segment).file_name();
                tracing::error!(
                    shard,
                    file,
                    "index file damaged: it is made anew from its segment, reads wait for that"
                );
            }
            LogEvent::IndexRebuilt { segment } => {
                self.succeeded(Work::Seal);
                let file = LogFile::Index(segment).file_name();
                tracing::warn!(shard, file, "index file made anew");
            }
            LogEvent::SealFailed { segment, error } => {
                if self.is_news(Work::Seal, segment, &error) {
                    let file = LogFile::Index(segment).file_name();
                    tracing::error!(shard, file, %error, "cannot write an index file; tried again until it works");
                }
            }
            LogEvent::SnapshotTaken { at } => {
                self.succeeded(Work::Snapshot);
                let file = LogFile::Snapshot(at).file_name();
                tracing::info!(shard, file, "snapshot taken");
            }
            LogEvent::SnapshotFailed { at, error } => {
                if self.is_news(Work::Snapshot, at, &error) {
                    let file = LogFile::Snapshot(at).file_name();
                    tracing::error!(shard, file, %error, "cannot take a snapshot, so no segment may leave; tried again until it works");
                }
            }
            LogEvent::Left { segment, newest_ms, why } => {
                self.succeeded(Work::Leave);
                let file = LogFile::Segment(segment.base).file_name();
                let newest_age_s = (now_ms() - newest_ms) / 1000;
                let why = match why {
                    WhyLeft::Age => "older than messages are kept",
                    WhyLeft::Size => "the log took up more than it may",
                    WhyLeft::Space => "the disk is full up to its reserve",
                };
                tracing::info!(shard, file, bytes = segment.bytes, newest_age_s, why, "segment expired");
            }
            LogEvent::LeaveFailed { segment, error } => {
                if self.is_news(Work::Leave, segment, &error) {
                    let file = LogFile::Segment(segment).file_name();
                    tracing::error!(shard, file, %error, "cannot let a segment expire; tried again until it works");
                }
            }
            LogEvent::PrepareFailed { segment, error } => {
                if self.is_news(Work::Prepare, segment, &error) {
                    let file = LogFile::Segment(segment).file_name();
                    tracing::error!(shard, file, %error, "cannot make a segment; tried again until it works");
                }
            }
            LogEvent::Space { from: _, to, space } => {
                let free_bytes = space.map(|space| space.free_bytes);
                let total_bytes = space.map(|space| space.total_bytes);
                match to {
                    SpaceState::Normal => {
                        self.succeeded(Work::Prepare);
                        tracing::info!(shard, free_bytes, total_bytes, "the disk has room again");
                    }
                    SpaceState::Reclaim => {
                        tracing::warn!(
                            shard,
                            free_bytes,
                            total_bytes,
                            "the disk is full up to its reserve: the oldest messages leave early if they may"
                        );
                    }
                    SpaceState::Refuse => {
                        tracing::error!(
                            shard,
                            free_bytes,
                            total_bytes,
                            "the disk is full: sends are refused until there is room"
                        );
                    }
                }
            }
            LogEvent::Poisoned(poison) => {
                tracing::error!(
                    shard,
                    reason = %poison,
                    "this broker takes no messages any more and goes on serving those it has; nothing acknowledged is lost. See to the disk, then start the process again"
                );
            }
        }
    }

    fn is_news(&mut self, work: Work, at: LogOffset, error: &DiskError) -> bool {
        let os_code = match error {
            DiskError::NoSpace { .. } | DiskError::NotBegun { .. } => None,
            DiskError::Io { os_code, .. } => Some(os_code.unwrap_or(0)),
            DiskError::Unusable { .. } => Some(0),
        };
        let failure = Some(Failure { at, os_code });
        let known = &mut self.failing[work as usize];
        let is_news = *known != failure;
        *known = failure;
        is_news
    }

    fn succeeded(&mut self, work: Work) {
        self.failing[work as usize] = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_news_once_until_it_changes_or_ends() {
        let mut writer = EventWriter::new(0);
        let at = LogOffset(4096);
        let full = |free_bytes| DiskError::NoSpace {
            place: "d".into(),
            needed_bytes: 9,
            free_bytes,
            reserve_bytes: 5,
        };
        let io = |code| DiskError::Io { action: "a".into(), os_code: code, message: "m".into() };
        assert!(writer.is_news(Work::Prepare, at, &full(8)));
        assert!(!writer.is_news(Work::Prepare, at, &full(7)));
        assert!(writer.is_news(Work::Prepare, LogOffset(8192), &full(7)));
        assert!(writer.is_news(Work::Prepare, LogOffset(8192), &io(Some(5))));
        assert!(writer.is_news(Work::Seal, LogOffset(8192), &io(Some(5))), "other work");
        assert!(!writer.is_news(Work::Prepare, LogOffset(8192), &io(Some(5))));
        writer.succeeded(Work::Prepare);
        assert!(writer.is_news(Work::Prepare, LogOffset(8192), &io(Some(5))));
    }
}
