//! The log on a disk in memory.

use smallvec::SmallVec;

use super::*;
use crate::aligned::AlignedBuffer;
use crate::config::LogConfig;
use crate::disk::Completion;
use crate::record::{Append, Place, Record};
use crate::recovery::recover;
use crate::sim::SimDisk;
use crate::types::{GroupId, NodeId, QueueKey, QueueOffset, Ticket};

pub(crate) struct Text(pub(crate) &'static str);

impl Record for Text {
    fn encoded_len(&self) -> u32 {
        self.0.len() as u32
    }

    fn encode(&self, _place: Place, out: &mut [u8]) {
        out.copy_from_slice(self.0.as_bytes());
    }
}

fn append(queue: u64, text: &'static str) -> Append<Text> {
    Append {
        queue: QueueKey(queue),
        tag_hash: text.len() as i32,
        key_hashes: SmallVec::new(),
        record: Text(text),
    }
}

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 10,
        batch_bytes_target: 16 << 10,
        batch_bytes_max: 32 << 10,
        staged_bytes_max: 64 << 10,
        ..LogConfig::new(GroupId(7), NodeId(1))
    }
}

struct Bench {
    disk: SimDisk,
    log: CommitLog<AlignedBuffer, Text>,
}

impl Bench {
    fn new(config: LogConfig) -> Bench {
        Bench::on(SimDisk::new(1), config)
    }

    fn on(disk: SimDisk, config: LogConfig) -> Bench {
        let recovered = recover(&disk, &config, &mut |_| {}).unwrap();
        let term = recovered.next_term();
        Bench { disk, log: CommitLog::open(config, recovered, term).unwrap() }
    }

    fn submit(&mut self, now_ms: i64) {
        while let Some(op) = self.log.poll_op(now_ms, SimDisk::alloc) {
            self.disk.submit(op);
        }
    }

    fn settle(&mut self, now_ms: i64) {
        self.submit(now_ms);
        while let Some(completion) = self.disk.step() {
            self.log.on_completion(completion);
            self.submit(now_ms);
        }
    }
}

#[test]
fn staged_record_is_visible_once_synced() {
    let mut bench = Bench::new(config());
    let staged = bench.log.stage([append(3, "one"), append(4, "two")]).unwrap();
    assert_eq!((staged.first_ticket, staged.count), (Ticket(0), 2));
    assert_eq!(bench.log.tail_offset(QueueKey(3)), QueueOffset(1));
    loop {
        bench.submit(5);
        assert_eq!(bench.log.max_offset(QueueKey(3)), QueueOffset(0), "not durable, so not visible");
        let completion = bench.disk.step().unwrap();
        let synced = matches!(completion, Completion::Synced { .. });
        bench.log.on_completion(completion);
        if synced {
            break;
        }
    }
    assert_eq!(bench.log.max_offset(QueueKey(3)), QueueOffset(1));
    let committed = bench.log.take_committed().unwrap();
    assert_eq!(committed.places.len(), 2);
    let grown: Vec<_> = committed.queues.iter().map(|grown| (grown.queue.0, grown.from.0)).collect();
    assert_eq!(grown, [(3, 0), (4, 0)]);
    assert!(bench.log.take_committed().is_none());
}

#[test]
fn reopened_log_gives_the_same_records_and_goes_on() {
    let mut bench = Bench::new(config());
    bench.log.stage([append(3, "one"), append(3, "three")]).unwrap();
    bench.settle(5);
    let mut bench = Bench::on(bench.disk, config());
    assert_eq!(bench.log.max_offset(QueueKey(3)), QueueOffset(2));
    assert_eq!(bench.log.stage([append(3, "two")]).unwrap().first_queue_offset, QueueOffset(2));
    bench.settle(4);
    let limits = ReadLimits { messages_max: 10, bytes_max: 1000, examine_max: 10 };
    let plan = bench.log.plan_read(QueueKey(3), QueueOffset(0), limits, |_| true);
    let [Run::File(old), Run::Memory(new)] = &plan.runs[..] else { panic!("{plan:?}") };
    assert_eq!(bench.disk.read(*old), b"onethree");
    assert_eq!(new.as_ref(), b"two");
}
