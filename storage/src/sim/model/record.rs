//! What a case appends, and how its log is set up: all by seed.

use smallvec::SmallVec;

use super::super::Rng;
use crate::config::{Durability, LogConfig};
use crate::format::BLOCK_LEN;
use crate::record::{Append, Place, Record};
use crate::types::{GroupId, LogOffset, NodeId, QueueKey, QueueOffset};

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

    pub(super) fn append(self, queue: QueueKey) -> Append<Numbered> {
        let key_hashes = SmallVec::from_elem(self.id as u32, (self.id % 6) as usize);
        Append { queue, tag_hash: self.tag_hash(), key_hashes, record: self }
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

pub(super) fn random_config(rng: &mut Rng) -> LogConfig {
    let block = BLOCK_LEN as u64;
    let batch_bytes_max = (2 + rng.below(6)) * block;
    let durability = match rng.below(3) {
        0 => Durability::Async { sync_interval_ms: 1 + rng.below(30) as u32 },
        _ => Durability::Sync,
    };
    LogConfig {
        durability,
        segment_bytes: (8 + rng.below(24)) * block,
        segments_ahead: 1 + rng.below(2) as u32,
        batch_bytes_target: (block + rng.below(batch_bytes_max - block + 1)) as u32,
        batch_bytes_max: batch_bytes_max as u32,
        batches_in_flight_max: 1 + rng.below(5) as u32,
        write_window_bytes: (1 + rng.below(20)) * block,
        staged_bytes_max: batch_bytes_max * 2,
        tail_cache_bytes: rng.below(20) * block,
        retry_ms: 1 + rng.below(20) as u32,
        ..LogConfig::new(GroupId(7), NodeId(1))
    }
}
