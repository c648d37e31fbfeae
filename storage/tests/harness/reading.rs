//! What a reader sees of a log.

use apogee_storage::{IndexFault, LogOffset, Place, QueueKey, QueueOffset, ReadLimits, Record as _, Run};

use super::harness::{Numbered, Shard};

pub(crate) fn bytes_of(record: Numbered) -> Vec<u8> {
    let mut bytes = vec![0; record.len as usize];
    let place = Place { log_offset: LogOffset(0), queue_offset: QueueOffset(0), store_time_ms: 0 };
    record.encode(place, &mut bytes);
    bytes
}

/// The bytes of all records of a queue, one behind the other.
pub(crate) async fn read_all(shard: &Shard, queue: u64) -> Vec<u8> {
    let limits = ReadLimits { messages_max: 100_000, bytes_max: 1 << 30, examine_max: 100_000 };
    let queue = QueueKey(queue);
    let (mut bytes, mut next) = (Vec::new(), shard.log.min_offset(queue));
    while next < shard.log.max_offset(queue) {
        let plan = shard.log.plan_read(queue, next, limits, |_| true);
        for run in &plan.runs {
            match run {
                Run::Memory(run) => bytes.extend_from_slice(run.as_ref()),
                Run::File(run) => bytes.extend_from_slice(shard.disk.read(*run).await.unwrap().as_ref()),
            }
        }
        next = plan.next_offset;
        match plan.fault {
            Some(IndexFault::Cold { segment, range }) => {
                shard.log.sealed_index(segment).expect("it is read").load(range).unwrap();
            }
            Some(fault) => panic!("{fault}"),
            None => {}
        }
    }
    bytes
}
