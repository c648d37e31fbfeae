//! What the layer above hands in: records, opaque to the log.

use smallvec::SmallVec;

use crate::types::{LogOffset, QueueKey, QueueOffset};

/// Where and when a record stands; known only once its batch is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the record's first byte.
    pub log_offset: LogOffset,
    pub queue_offset: QueueOffset,
    /// Never less than that of the record before it in the log, whatever the clock did.
    pub store_time_ms: i64,
}

/// A record waiting to be written. It may hold references to received bytes; it is encoded exactly once, at the
/// seal of its batch, straight into the buffer that goes to the disk.
pub trait Record {
    /// Length of the encoded form in bytes, at least 1 and the same whenever asked.
    fn encoded_len(&self) -> u32;

    /// Writes the encoded form. `out` is [`encoded_len`](Record::encoded_len) bytes of unspecified content; every
    /// one of them must be written.
    fn encode(&self, place: Place, out: &mut [u8]);
}

/// One record and what the index keeps about it.
#[derive(Clone, Debug)]
pub struct Append<R> {
    pub queue: QueueKey,
    /// Kept in the index for filters; 0 if the record has none.
    pub tag_hash: i32,
    /// Kept in the batch directory for look-ups by key.
    pub key_hashes: SmallVec<[u32; 4]>,
    pub record: R,
}
