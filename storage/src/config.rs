//! Settings of one log. Given once, at the opening; wrong values are refused by name.

use crate::format::{BATCH_BYTES_LIMIT, BLOCK_LEN};
use crate::types::{GroupId, NodeId};

/// Greatest write window there is: recovery relies on it to know how far behind its end a log may have been written.
pub(crate) const WRITE_WINDOW_BYTES_LIMIT: u64 = 64 << 20;

/// When an append counts as committed: visible to readers and ready to be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After its batch was synced: survives loss of power.
    Sync,
    /// After its batch was written past the page cache: survives the process. Syncs follow in the background, at
    /// most `sync_interval_ms` apart while there is something to sync.
    Async { sync_interval_ms: u32 },
}

/// Who decides that a batch is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitRule {
    /// This log alone, as its durability says.
    #[default]
    Local,
    /// A group of logs with the same batches: [`commit_to`](crate::CommitLog::commit_to) says so. The durability
    /// then says when a batch counts as [persisted](crate::CommitLog::persisted_index) here.
    Group,
}

#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Stands in every batch; a log of another group is refused.
    pub group: GroupId,
    /// This node, named in the batches it seals.
    pub node: NodeId,
    pub durability: Durability,
    pub commit_rule: CommitRule,
    /// Size of a new segment. Multiple of 4 KiB, at least `batch_bytes_max`, at most 4 GiB; segments that exist
    /// keep theirs. Default 1 GiB: few files, and retention still frees space in useful steps.
    pub segment_bytes: u64,
    /// Segments made ready ahead of the one written to; 1 to 16. Default 1.
    pub segments_ahead: u32,
    /// A batch takes no further appends once it would grow past this. Default 512 KiB: together with
    /// `batches_in_flight_max` it bounds what one sync can cover, and a larger batch is sealed for longer at a stretch.
    pub batch_bytes_target: u32,
    /// What one call of `stage` may need with header, directory and padding; a call above `batch_bytes_target` gets
    /// a batch of its own. Default 8 MiB, at most 16 MiB.
    pub batch_bytes_max: u32,
    /// Batches sealed and not yet committed, at most; 1 to 64. Default 4. Under load each sync covers all of them but
    /// the ones being written, so the log appends no faster than their bytes in the time of a sync. A sync takes 0.2 ms
    /// on a disk at rest and 4 to 8 ms when the processors are busy (its completion waits for a turn) or the disk is
    /// far away. At 8 ms, 2 batches of 256 KiB are 30 MiB/s: an open load of 57 MiB/s then waited 165 ms. 4 of 512 KiB
    /// are 115 MiB/s (`--bench log -- modelled`, `steady`). Deeper ones make more small batches at middling load on a fast
    /// disk, and each costs a write: 8 take a quarter more processor time at 50,000 appends a second.
    pub batches_in_flight_max: u32,
    /// Sealed bytes that are not yet durable, at most, except that one batch is always let through. Default 32 MiB, at most
    /// 64 MiB. In a group at least twice `batch_bytes_max`: half of it is what may wait there to be committed.
    pub write_window_bytes: u64,
    /// Bytes staged and not yet sealed, at most; beyond it appends are refused as busy. Default 32 MiB.
    pub staged_bytes_max: u64,
    /// Memory for the newest batches, kept as the buffers that were written. Default 64 MiB.
    pub tail_cache_bytes: u64,
    /// Index entries of unsealed segments over all queues (24 bytes each), at most; beyond it appends are refused until a
    /// segment is sealed, and a segment with half as many takes no more. Default 50 million.
    pub index_entries_max: u64,
    /// Queues the log has heard of, at most; an append to a further one is refused. Default 1 million.
    pub queues_max: u32,
    /// Pause before failed background work (a segment, an index, a snapshot, a removal) is tried again. Default 1 s.
    pub retry_ms: u32,
    /// Space of the file system that is never used: no segment is made below it. Default 1 GiB.
    pub reserve_bytes: u64,
    pub retention: Retention,
    /// Pause between two snapshots of derived state, which are taken when a segment is sealed: a log that seals
    /// several segments a second spends no more on them. Default 5 s.
    pub snapshot_pause_ms: u32,
}

/// How long records are kept. Whole segments leave, oldest first; the newest sealed one and what was not sealed yet
/// always stay, so a log takes up some segments whatever is set here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// A segment leaves when its newest record is older. A segment is also closed when its oldest record is, so that a
    /// quiet log expires too. Default 72 h, RocketMQ's `fileReservedTime`.
    pub age_ms: Option<u64>,
    /// The oldest segments leave while all together take up more. Default none.
    pub bytes: Option<u64>,
    /// Under the disk reserve, segments leave before their time (RocketMQ's `cleanFileForciblyEnable`). Default yes.
    pub may_reclaim: bool,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention { age_ms: Some(72 * 3600 * 1000), bytes: None, may_reclaim: true }
    }
}

impl LogConfig {
    /// The defaults, for the given group and node.
    #[must_use]
    pub fn new(group: GroupId, node: NodeId) -> LogConfig {
        LogConfig {
            group,
            node,
            durability: Durability::Sync,
            commit_rule: CommitRule::Local,
            segment_bytes: 1 << 30,
            segments_ahead: 1,
            batch_bytes_target: 512 << 10,
            batch_bytes_max: 8 << 20,
            batches_in_flight_max: 4,
            write_window_bytes: 32 << 20,
            staged_bytes_max: 32 << 20,
            tail_cache_bytes: 64 << 20,
            index_entries_max: 50_000_000,
            queues_max: 1_000_000,
            retry_ms: 1000,
            reserve_bytes: 1 << 30,
            retention: Retention::default(),
            snapshot_pause_ms: 5000,
        }
    }

    /// Refuses values that the log cannot work with.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let block = BLOCK_LEN as u64;
        let batch_max = u64::from(self.batch_bytes_max);
        let rules: [(&'static str, u64, u64, u64); 14] = [
            ("segment_bytes", self.segment_bytes, batch_max.max(block), 4 << 30),
            ("segments_ahead", self.segments_ahead.into(), 1, 16),
            ("batch_bytes_target", self.batch_bytes_target.into(), block, batch_max),
            ("batch_bytes_max", batch_max, block, BATCH_BYTES_LIMIT.into()),
            ("batches_in_flight_max", self.batches_in_flight_max.into(), 1, 64),
            ("write_window_bytes", self.write_window_bytes, block, WRITE_WINDOW_BYTES_LIMIT),
            ("staged_bytes_max", self.staged_bytes_max, batch_max, 4 << 30),
            ("tail_cache_bytes", self.tail_cache_bytes, 0, 1 << 40),
            ("index_entries_max", self.index_entries_max, 1, u64::from(u32::MAX)),
            ("queues_max", self.queues_max.into(), 1, 1 << 24),
            ("retry_ms", self.retry_ms.into(), 1, 3_600_000),
            ("retention.age_ms", self.retention.age_ms.unwrap_or(1), 1, 100 * 366 * 24 * 3600 * 1000),
            ("retention.bytes", self.retention.bytes.unwrap_or(1), 1, u64::MAX),
            ("snapshot_pause_ms", self.snapshot_pause_ms.into(), 0, 3_600_000),
        ];
        for (name, value, min, max) in rules {
            if value < min || value > max {
                return Err(ConfigError::OutOfBounds { name, value, min, max });
            }
        }
        let (value, min) = (self.write_window_bytes, 2 * batch_max);
        if self.commit_rule == CommitRule::Group && value < min {
            let (name, max) = ("write_window_bytes", WRITE_WINDOW_BYTES_LIMIT);
            return Err(ConfigError::OutOfBounds { name, value, min, max });
        }
        if !self.segment_bytes.is_multiple_of(block) {
            return Err(ConfigError::NotAligned { name: "segment_bytes", value: self.segment_bytes });
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{name} is {value}; it must lie between {min} and {max}")]
    OutOfBounds { name: &'static str, value: u64, min: u64, max: u64 },
    #[error("{name} is {value}; it must be a multiple of {BLOCK_LEN}")]
    NotAligned { name: &'static str, value: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        LogConfig::new(GroupId(1), NodeId(1)).validate().unwrap();
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        type Change = fn(&mut LogConfig);
        let table: [(&str, Change); 10] = [
            ("segment_bytes", |config| config.segment_bytes = 1 << 20),
            ("segment_bytes", |config| config.segment_bytes += 1),
            ("segments_ahead", |config| config.segments_ahead = 0),
            ("batch_bytes_target", |config| config.batch_bytes_target = 9 << 20),
            ("batch_bytes_max", |config| config.batch_bytes_max = 17 << 20),
            ("batches_in_flight_max", |config| config.batches_in_flight_max = 0),
            ("write_window_bytes", |config| config.write_window_bytes = 65 << 20),
            ("write_window_bytes", |config| {
                (config.commit_rule, config.write_window_bytes) = (CommitRule::Group, 15 << 20);
            }),
            ("staged_bytes_max", |config| config.staged_bytes_max = 1 << 20),
            ("index_entries_max", |config| config.index_entries_max = 0),
        ];
        for (expected, change) in table {
            let mut config = LogConfig::new(GroupId(1), NodeId(1));
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }
}
