//! What a case appends, and how its log is set up: all by seed.

use smallvec::SmallVec;

use super::super::Rng;
use crate::config::{Durability, LogConfig, Retention};
use crate::format::BLOCK_LEN;
use crate::record::{Append, Place, Record};
use crate::types::{GroupId, LogOffset, NodeId, QueueKey, QueueOffset};

/// There are so many different key hashes.
pub(super) const KEY_HASHES: u64 = 31;

/// A record whose bytes follow from its number, length and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    pub(super) id: u64,
    pub(super) len: u32,
}

impl Numbered {
    pub(super) fn bytes(self, log_offset: LogOffset, queue_offset: QueueOffset) -> Vec<u8> {
        let mut rng = Rng::new(self.id ^ log_offset.0 << 20 ^ queue_offset.0 << 40);
        let mut bytes = vec![0; self.len as usize];
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&rng.next_u64().to_le_bytes()[..piece.len()]);
        }
        bytes
    }

    pub(super) fn tag_hash(self) -> i32 {
        (self.id % 3) as i32
    }

    /// Some have none, and others share theirs.
    pub(super) fn key_hashes(self) -> SmallVec<[u32; 4]> {
        (0..self.id % 4).map(|nth| ((self.id * 7 + nth * 5) % KEY_HASHES) as u32).collect()
    }

    pub(super) fn append(self, queue: QueueKey) -> Append<Numbered> {
        Append { queue, tag_hash: self.tag_hash(), key_hashes: self.key_hashes(), record: self }
    }
}

impl Record for Numbered {
    fn encoded_len(&self) -> u32 {
        self.len
    }

    fn encode(&self, place: Place, out: &mut [u8]) {
        out.copy_from_slice(&self.bytes(place.log_offset, place.queue_offset));
    }
}

/// Enough for the index files and snapshots of a case.
pub(super) const RESERVE_BYTES: u64 = 1 << 20;

pub(super) fn random_config(rng: &mut Rng) -> LogConfig {
    let block = BLOCK_LEN as u64;
    let batch_bytes_max = (2 + rng.below(6)) * block;
    let durability = match rng.below(3) {
        0 => Durability::Async { sync_interval_ms: 1 + rng.below(30) as u32 },
        _ => Durability::Sync,
    };
    let segment_bytes = (8 + rng.below(24)) * block;
    let retention = Retention {
        age_ms: rng.chance(30).then(|| 20 + rng.below(400)),
        bytes: rng.chance(40).then(|| (1 + rng.below(8)) * segment_bytes),
        may_reclaim: rng.chance(70),
    };
    LogConfig {
        durability,
        segment_bytes,
        segments_ahead: 1 + rng.below(2) as u32,
        batch_bytes_target: (block + rng.below(batch_bytes_max - block + 1)) as u32,
        batch_bytes_max: batch_bytes_max as u32,
        batches_in_flight_max: 1 + rng.below(5) as u32,
        write_window_bytes: (1 + rng.below(20)) * block,
        staged_bytes_max: batch_bytes_max * 2,
        tail_cache_bytes: rng.below(20) * block,
        retry_ms: 1 + rng.below(20) as u32,
        reserve_bytes: RESERVE_BYTES,
        retention,
        snapshot_pause_ms: [0, 0, 30][rng.below(3) as usize],
        ..LogConfig::new(GroupId(7), NodeId(1))
    }
}
