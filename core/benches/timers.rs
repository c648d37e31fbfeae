//! What the table of timers costs: memory, the longest single change, and a snapshot of it written and read.
//!
//! With no argument a million timers are put, in an order that has nothing to do with their times, written and read as a
//! snapshot, and taken out again; with `--test`, as under `cargo test`, ten thousand. Not measured: the log.
//!
//!     cargo bench -p apogee --bench timers

use std::time::{Duration, Instant};

use apogee::shard::control::ControlRecord;
use apogee::shard::timers::{TimerId, TimerPut, TimerRecord, TimerTable};
use apogee::shard::topics::TopicNumber;
use apogee_storage::QueueOffset;

/// One change, as it stands in the log.
fn coded(record: TimerRecord) -> Vec<u8> {
    ControlRecord::Timer(record).encode()
}

fn apply(table: &mut TimerTable, record: &[u8]) {
    let ControlRecord::Timer(record) = ControlRecord::decode(record).expect("made by us") else {
        panic!("a record of something else")
    };
    table.apply(&record);
}

/// Applies each record, and says how long all took and how long the longest.
fn timed(table: &mut TimerTable, records: &[Vec<u8>]) -> (Duration, Duration) {
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    for record in records {
        let before = Instant::now();
        apply(table, record);
        longest = longest.max(before.elapsed());
    }
    (begun.elapsed(), longest)
}

/// Bytes of memory that this process holds.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test") || cfg!(debug_assertions);
    let count: u64 = if is_test { 10_000 } else { 1_000_000 };
    let id = |n: u64| TimerId {
        due_ms: 1_700_000_000_000 + (n * 7_919 % count) as i64 / 10,
        offset: QueueOffset(n),
    };
    let puts: Vec<Vec<u8>> = (0..count)
        .map(|n| {
            let key_hash = (n as u32).wrapping_mul(2_654_435_761);
            coded(TimerRecord::Put(vec![TimerPut { id: id(n), key_hash, topic: TopicNumber(9) }]))
        })
        .collect();
    let mut table = TimerTable::default();
    let before = resident_bytes();
    let (took, longest) = timed(&mut table, &puts);
    let bytes = resident_bytes().saturating_sub(before);
    println!("{count} timers put in {took:?}, the longest in {longest:?}; {} bytes each", bytes / count);

    let begun = Instant::now();
    let snapshot: Vec<Vec<u8>> = table.snapshot().map(|record| record.encode()).collect();
    let len: usize = snapshot.iter().map(Vec::len).sum();
    println!("snapshot written in {:?}, {} bytes a timer", begun.elapsed(), len as u64 / count);
    let mut restored = TimerTable::default();
    let (took, _) = timed(&mut restored, &snapshot);
    println!("snapshot read in {took:?}");
    assert_eq!(restored.len(), table.len(), "the snapshot holds them all");

    let mut done = Vec::new();
    let mut next = TimerId::MIN;
    while let Some(first) = table.next(next) {
        let mut batch = vec![first];
        next = TimerId { offset: first.offset.next(), ..first };
        while batch.len() < 64
            && let Some(id) = table.next(next)
        {
            batch.push(id);
            next = TimerId { offset: id.offset.next(), ..id };
        }
        done.push(coded(TimerRecord::Done(batch)));
    }
    let (took, longest) = timed(&mut table, &done);
    println!("{count} timers done, 64 at a time, in {took:?}, the longest batch in {longest:?}");
    assert!(table.is_empty(), "{} timers are left", table.len());
}
