//! A checkpoint on its way: what a node that begins anew is given, and who belongs to the group.
//!
//! ```text
//! start index, term, base offset, last store time i64, conf state, members,
//! u64 queue ends, each: queue, offset;   has snapshot?, at, the file       numbers are u64, little endian
//! ```

use apogee_storage::{
    BatchIndex, Checkpoint, CheckpointSnapshot, ConfState, LogOffset, LogStart, Member, QueueKey,
    QueueOffset, Term,
};

use super::codec::{CodecError, Reader, Writer};

/// Bytes of a whole checkpoint: a million queues take 16 MiB, the rest is the snapshot of derived state.
pub(super) const CHECKPOINT_BYTES_MAX: u64 = 2 << 30;

/// Bytes of one part.
pub(super) const PART_BYTES: usize = 1 << 20;

/// A checkpoint and the members as of it, or later.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) checkpoint: Checkpoint,
    pub(super) conf: ConfState,
    pub(super) members: Vec<Member>,
}

pub(super) fn encode(checkpoint: &Checkpoint, conf: &ConfState, members: &[Member]) -> Vec<u8> {
    let snapshot_bytes = checkpoint.snapshot.as_ref().map_or(0, |snapshot| snapshot.file.len());
    let mut out = Vec::with_capacity(checkpoint.queue_ends.len() * 16 + snapshot_bytes + 4096);
    let mut writer = Writer(&mut out);
    let LogStart { index, term, base_offset } = checkpoint.start;
    writer.numbers([index.0, term.0, base_offset.0, checkpoint.last_store_time_ms as u64]);
    writer.conf(conf);
    writer.members(members);
    writer.numbers([checkpoint.queue_ends.len() as u64]);
    for (queue, offset) in &checkpoint.queue_ends {
        writer.numbers([queue.0, offset.0]);
    }
    writer.flag(checkpoint.snapshot.is_some());
    if let Some(snapshot) = &checkpoint.snapshot {
        writer.numbers([snapshot.at.0]);
        writer.0.extend_from_slice(&snapshot.file);
    }
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<Begin, CodecError> {
    let mut reader = Reader(bytes);
    let start = LogStart {
        index: BatchIndex(reader.u64("index")?),
        term: Term(reader.u64("term")?),
        base_offset: LogOffset(reader.u64("base offset")?),
    };
    let last_store_time_ms = reader.i64("store time")?;
    let (conf, members) = (reader.conf()?, reader.members()?);
    let count = reader.u64("queue ends")?;
    let limit = reader.0.len() as u64 / 16;
    if count > limit {
        return Err(CodecError::TooLarge { field: "queue ends", found: count, limit });
    }
    let mut queue_ends = Vec::with_capacity(count as usize);
    for _ in 0..count {
        queue_ends.push((QueueKey(reader.u64("queue")?), QueueOffset(reader.u64("offset")?)));
    }
    let snapshot = match reader.flag("snapshot")? {
        true => Some(CheckpointSnapshot {
            at: LogOffset(reader.u64("at")?),
            file: std::mem::take(&mut reader.0).to_vec(),
        }),
        false => None,
    };
    reader.end()?;
    Ok(Begin { checkpoint: Checkpoint { start, last_store_time_ms, queue_ends, snapshot }, conf, members })
}
